/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest memory: what is found where, while regions come and go; and files that become shorter. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "core/wait.h"
#include "tests/tap.h"
#include "vmm/memory.h"

enum { PAGE = 4096, PAGES = 64 };

#define BASE UINT64_C(0x100000)
#define READ_WRITE (GUEST_READ | GUEST_WRITE)

/* A file whose pages begin with their numbers. */
static int make_file(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	for (uint64_t i = 0; i < PAGES; i++)
		if (pwrite(fd, &i, sizeof(i), (off_t)(i * PAGE)) != sizeof(i) || ftruncate(fd, PAGES * PAGE)) {
			printf("Bail out! no file\n");
			exit(99);
		}
	return fd;
}

static struct guest_memory *make(struct guest_copier *copier)
{
	struct guest_memory *m;

	if (guest_memory_create(copier, &m)) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return m;
}

/* The number of the page that lies at `address`; -1 where there is none. */
static long long page_at(struct guest_memory *m, uint64_t address)
{
	uint64_t number;

	return guest_memory_copy(m, address, &number, sizeof(number), false) ? -1 : (long long)number;
}

static int find(struct guest_memory *m, uint64_t address, size_t length, unsigned access, struct iovec *run)
{
	void *token = guest_memory_hold(m);
	int status = guest_memory_map(m, address, length, access, run);

	guest_memory_release(m, token);
	return status;
}

/* Waits until what was taken away will not come back. */
static void leave_limbo(void)
{
	wait_sleep(1010000000);
}

static void test_a_region_is_where_it_was_added(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();
	struct iovec run;

	CHECK_EQ(guest_memory_add(m, BASE, 4 * PAGE, READ_WRITE, fd, 8 * PAGE), 0);
	close(fd);
	CHECK_EQ(page_at(m, BASE), 8);
	CHECK_EQ(page_at(m, BASE + 3 * PAGE), 11);
	CHECK_EQ(page_at(m, BASE - PAGE), -1);
	CHECK_EQ(page_at(m, BASE + 4 * PAGE), -1);
	CHECK_EQ(find(m, BASE + 100, 4 * PAGE, GUEST_WRITE, &run), 0);
	CHECK_EQ(run.iov_len, 4 * PAGE - 100);
	CHECK_EQ(find(m, BASE + 4 * PAGE - 1, 1 << 20, GUEST_READ, &run), 0);
	CHECK_EQ(run.iov_len, 1);
	guest_memory_destroy(m);
}

static void test_writes_arrive_in_the_file(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();
	uint32_t word = 0x12345678, back = 0;

	CHECK_EQ(guest_memory_add(m, BASE, PAGE, READ_WRITE, fd, PAGE), 0);
	CHECK_EQ(guest_memory_add(m, BASE + PAGE, PAGE, READ_WRITE, fd, 5 * PAGE), 0);
	CHECK_EQ(guest_memory_copy(m, BASE + PAGE - 2, &word, sizeof(word), true), 0);
	CHECK_EQ(pread(fd, &back, 2, 2 * PAGE - 2), 2);
	CHECK_EQ(pread(fd, (char *)&back + 2, 2, 5 * PAGE), 2);
	CHECK_EQ(back, word);
	guest_memory_destroy(m);
	close(fd);
}

static void test_access_is_checked(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();
	struct iovec run;
	char byte = 1;

	CHECK_EQ(guest_memory_add(m, BASE, PAGE, GUEST_READ, fd, 0), 0);
	CHECK_EQ(find(m, BASE, 1, GUEST_READ, &run), 0);
	CHECK_EQ(find(m, BASE, 1, GUEST_WRITE, &run), -EFAULT);
	CHECK_EQ(guest_memory_copy(m, BASE, &byte, 1, true), -EFAULT);
	guest_memory_destroy(m);
	close(fd);
}

static void test_what_cannot_be_is_refused(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file(), ends[2];

	CHECK_EQ(guest_memory_add(m, BASE, 0, READ_WRITE, fd, 0), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE + 1, PAGE, READ_WRITE, fd, 0), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE, PAGE + 1, READ_WRITE, fd, 0), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE, PAGE, READ_WRITE, fd, 1), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE, PAGE, 0, fd, 0), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE, PAGE, 8, fd, 0), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE, 2 * PAGE, READ_WRITE, fd, (PAGES - 1) * PAGE), -EINVAL);
	CHECK_EQ(guest_memory_add(m, BASE, PAGE, READ_WRITE, fd, UINT64_MAX - PAGE + 1), -EINVAL);
	CHECK_EQ(guest_memory_add(m, UINT64_MAX - PAGE + 1, 2 * PAGE, READ_WRITE, fd, 0), -EINVAL);
	CHECK_EQ(pipe(ends), 0);
	CHECK(guest_memory_add(m, BASE, PAGE, READ_WRITE, ends[0], 0) < 0);
	CHECK_EQ(guest_memory_regions(m), 0);
	CHECK_EQ(guest_memory_add(m, UINT64_MAX - PAGE + 1, PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(page_at(m, UINT64_MAX - PAGE + 1), 0);
	CHECK_EQ(guest_memory_copy(m, UINT64_MAX - 3, &fd, 8, false), -EFAULT);
	guest_memory_destroy(m);
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

static void test_regions_do_not_overlap(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();

	CHECK_EQ(guest_memory_add(m, BASE, 4 * PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(guest_memory_add(m, BASE + 3 * PAGE, 2 * PAGE, READ_WRITE, fd, 0), -EEXIST);
	CHECK_EQ(guest_memory_add(m, BASE - PAGE, 2 * PAGE, READ_WRITE, fd, 0), -EEXIST);
	CHECK_EQ(guest_memory_add(m, BASE + PAGE, PAGE, READ_WRITE, -1, 0), -EEXIST);
	CHECK_EQ(guest_memory_add(m, BASE - PAGE, PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(guest_memory_add(m, BASE + 4 * PAGE, PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(guest_memory_regions(m), 3);
	guest_memory_destroy(m);
	close(fd);
}

static void test_regions_are_cut(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();

	CHECK_EQ(guest_memory_add(m, 0, 8 * PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(guest_memory_add(m, 8 * PAGE, 8 * PAGE, READ_WRITE, fd, 16 * PAGE), 0);
	CHECK_EQ(guest_memory_remove(m, 2 * PAGE, PAGE), 0);
	CHECK_EQ(guest_memory_regions(m), 3);
	CHECK_EQ(guest_memory_remove(m, 7 * PAGE, 2 * PAGE), 0);
	CHECK_EQ(guest_memory_remove(m, 7 * PAGE, 2 * PAGE), -ENOENT);
	guest_memory_settle(m);
	leave_limbo();
	CHECK_EQ(page_at(m, PAGE), 1);
	CHECK_EQ(page_at(m, 2 * PAGE), -1);
	CHECK_EQ(page_at(m, 3 * PAGE), 3);
	CHECK_EQ(page_at(m, 6 * PAGE), 6);
	CHECK_EQ(page_at(m, 7 * PAGE), -1);
	CHECK_EQ(page_at(m, 8 * PAGE), -1);
	CHECK_EQ(page_at(m, 9 * PAGE), 17);
	CHECK_EQ(guest_memory_add(m, 2 * PAGE, PAGE, READ_WRITE, fd, 40 * PAGE), 0);
	CHECK_EQ(page_at(m, 2 * PAGE), 40);
	CHECK_EQ(guest_memory_remove(m, 0, UINT64_MAX - PAGE + 1), 0);
	CHECK_EQ(guest_memory_regions(m), 0);
	guest_memory_destroy(m);
	close(fd);
}

/* Against a plain list of what page is where. */
static void test_any_changes(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file(), model[PAGES];
	uint32_t state = 1;

	memset(model, 0xff, sizeof(model));
	for (unsigned round = 0; round < 2000; round++) {
		unsigned first, count, from;
		bool taken = false;
		state = state * 1664525 + 1013904223;
		first = (state >> 8) % PAGES;
		count = 1 + (state >> 16) % (PAGES - first);
		from = (state >> 24) % (PAGES - count + 1);
		for (unsigned i = first; i < first + count; i++)
			taken |= model[i] >= 0;
		if (state >> 31) {
			int status = guest_memory_add(m, first * PAGE, count * PAGE, READ_WRITE, fd, from * PAGE);
			CHECK_EQ(status, taken ? -EEXIST : 0);
			for (unsigned i = 0; i < count && !taken; i++)
				model[first + i] = (int)(from + i);
		} else {
			CHECK_EQ(guest_memory_remove(m, first * PAGE, count * PAGE), taken ? 0 : -ENOENT);
			for (unsigned i = first; i < first + count; i++)
				model[i] = -1;
		}
		for (unsigned i = 0; i < PAGES; i++) {
			struct iovec run;
			int status = find(m, i * PAGE, 1, GUEST_READ, &run);
			CHECK_EQ(!status, model[i] >= 0);
			if (!status)
				CHECK_EQ(*(uint64_t *)run.iov_base, model[i]);
		}
		if (round % 16 == 0)
			guest_memory_settle(m);
	}
	guest_memory_destroy(m);
	close(fd);
}

struct settling {
	struct guest_memory *m;
	_Atomic bool done;
};

static void *settle_main(void *argument)
{
	struct settling *s = argument;

	guest_memory_settle(s->m);
	atomic_store(&s->done, true);
	return NULL;
}

static void test_what_is_held_stays_until_it_is_released(void)
{
	struct settling s = {.m = make(NULL)};
	int fd = make_file();
	struct iovec run;
	pthread_t thread;
	void *token;

	CHECK_EQ(guest_memory_add(s.m, BASE, PAGE, READ_WRITE, fd, 3 * PAGE), 0);
	token = guest_memory_hold(s.m);
	REQUIRE(guest_memory_map(s.m, BASE, PAGE, GUEST_READ, &run) == 0);
	CHECK_EQ(guest_memory_remove(s.m, BASE, PAGE), 0);
	REQUIRE(pthread_create(&thread, NULL, settle_main, &s) == 0);
	wait_sleep(20000000);
	CHECK(!atomic_load(&s.done));
	CHECK_EQ(*(uint64_t *)run.iov_base, 3);
	guest_memory_release(s.m, token);
	pthread_join(thread, NULL);
	CHECK(atomic_load(&s.done));
	guest_memory_destroy(s.m);
	close(fd);
}

static void *add_later(void *argument)
{
	int fd = make_file();

	wait_sleep(5000000);
	CHECK_EQ(guest_memory_add(argument, BASE, PAGE, READ_WRITE, fd, 9 * PAGE), 0);
	close(fd);
	return NULL;
}

static void test_what_comes_back_is_waited_for(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();
	struct iovec run;
	pthread_t thread;

	CHECK_EQ(guest_memory_add(m, BASE, PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(guest_memory_remove(m, BASE, PAGE), 0);
	CHECK_EQ(find(m, BASE, 1, GUEST_READ, &run), -EOPNOTSUPP);
	CHECK_EQ(find(m, BASE + PAGE, 1, GUEST_READ, &run), -EFAULT);
	REQUIRE(pthread_create(&thread, NULL, add_later, m) == 0);
	CHECK_EQ(page_at(m, BASE), 9);
	pthread_join(thread, NULL);
	CHECK_EQ(guest_memory_remove(m, BASE, PAGE), 0);
	CHECK_EQ(page_at(m, BASE), -1);
	CHECK_EQ(find(m, BASE, 1, GUEST_READ, &run), -EFAULT);
	guest_memory_destroy(m);
	close(fd);
}

struct copier {
	struct guest_copier copier;
	char bytes[2 * PAGE];
	unsigned calls;
};

static int copy(struct guest_copier *c, uint64_t address, void *ours, size_t length, bool write)
{
	struct copier *k = (struct copier *)c;
	char *at = k->bytes + (address - BASE);

	k->calls++;
	if (!CHECK(address >= BASE && address + length <= BASE + sizeof(k->bytes)))
		return -EFAULT;
	memcpy(write ? at : ours, write ? ours : at, length);
	return 0;
}

static void test_what_has_no_descriptor_is_copied(void)
{
	static struct copier k = {.copier.copy = copy};
	struct guest_memory *m = make(&k.copier);
	int fd = make_file();
	struct iovec run;
	char text[8] = "platter", back[8] = "";

	CHECK_EQ(guest_memory_add(m, BASE, 2 * PAGE, READ_WRITE, -1, 0), 0);
	CHECK_EQ(guest_memory_add(m, BASE + 2 * PAGE, PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(find(m, BASE, 1, GUEST_WRITE, &run), -EOPNOTSUPP);
	CHECK_EQ(guest_memory_copy(m, BASE + 2 * PAGE - 4, text, 8, true), 0);
	CHECK_EQ(k.calls, 1);
	CHECK_MEM(k.bytes + 2 * PAGE - 4, text, 4);
	CHECK_EQ(guest_memory_copy(m, BASE + 2 * PAGE - 4, back, 8, false), 0);
	CHECK_STR(back, text);
	guest_memory_destroy(m);
	m = make(NULL);
	CHECK_EQ(guest_memory_add(m, BASE, PAGE, READ_WRITE, -1, 0), 0);
	CHECK_EQ(guest_memory_copy(m, BASE, back, 1, false), -EFAULT);
	guest_memory_destroy(m);
	close(fd);
}

static void test_a_shortened_file_is_an_error_of_copies(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();

	CHECK_EQ(guest_memory_add(m, BASE, PAGES * PAGE, READ_WRITE, fd, 0), 0);
	CHECK_EQ(ftruncate(fd, PAGE), 0);
	CHECK_EQ(page_at(m, BASE), 0);
	CHECK_EQ(page_at(m, BASE + PAGE), -1);
	guest_memory_destroy(m);
	close(fd);
}

/* As a disk that copies by itself does. */
static void test_a_shortened_file_does_not_end_the_process(void)
{
	struct guest_memory *m = make(NULL);
	int fd = make_file();
	struct iovec run;
	void *token;

	CHECK_EQ(guest_memory_add(m, BASE, PAGES * PAGE, READ_WRITE, fd, 0), 0);
	token = guest_memory_hold(m);
	REQUIRE(guest_memory_map(m, BASE, PAGES * PAGE, GUEST_WRITE, &run) == 0);
	CHECK_EQ(ftruncate(fd, PAGE), 0);
	memset(run.iov_base, 7, run.iov_len);
	guest_memory_release(m, token);
	CHECK_EQ(find(m, BASE, 1, GUEST_READ, &run), -EFAULT);
	CHECK_EQ(page_at(m, BASE + PAGE), -1);
	guest_memory_destroy(m);
	close(fd);
}

struct users {
	struct guest_memory *m;
	_Atomic bool stop;
	_Atomic unsigned long found;
};

static void *use_main(void *argument)
{
	struct users *u = argument;

	while (!atomic_load(&u->stop)) {
		void *token = guest_memory_hold(u->m);
		struct iovec run;
		if (!guest_memory_map(u->m, BASE + PAGE, PAGE, GUEST_READ, &run)) {
			CHECK_EQ(*(volatile uint64_t *)run.iov_base, 1);
			atomic_fetch_add(&u->found, 1);
		}
		guest_memory_release(u->m, token);
	}
	return NULL;
}

static void test_users_and_changes_at_the_same_time(void)
{
	struct users u = {.m = make(NULL)};
	int fd = make_file();
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		REQUIRE(pthread_create(&threads[i], NULL, use_main, &u) == 0);
	for (unsigned i = 0; i < 2000; i++) {
		CHECK_EQ(guest_memory_add(u.m, BASE, (2 + i % 8) * PAGE, READ_WRITE, fd, 0), 0);
		CHECK_EQ(guest_memory_remove(u.m, BASE, 16 * PAGE), 0);
		guest_memory_settle(u.m);
	}
	while (!atomic_load(&u.found)) {
		guest_memory_add(u.m, BASE, 2 * PAGE, READ_WRITE, fd, 0);
		wait_yield();
	}
	atomic_store(&u.stop, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	guest_memory_destroy(u.m);
	close(fd);
}

int main(void)
{
	TAP_RUN(test_a_region_is_where_it_was_added);
	TAP_RUN(test_writes_arrive_in_the_file);
	TAP_RUN(test_access_is_checked);
	TAP_RUN(test_what_cannot_be_is_refused);
	TAP_RUN(test_regions_do_not_overlap);
	TAP_RUN(test_regions_are_cut);
	TAP_RUN(test_any_changes);
	TAP_RUN(test_what_is_held_stays_until_it_is_released);
	TAP_RUN(test_what_comes_back_is_waited_for);
	TAP_RUN(test_what_has_no_descriptor_is_copied);
	TAP_RUN(test_a_shortened_file_is_an_error_of_copies);
	TAP_RUN(test_a_shortened_file_does_not_end_the_process);
	TAP_RUN(test_users_and_changes_at_the_same_time);
	return TAP_DONE();
}

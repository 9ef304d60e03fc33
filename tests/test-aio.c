/* SPDX-License-Identifier: BSD-3-Clause */
/* File I/O gives the same results whichever way it waits. */
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/aio.h"
#include "core/wait.h"
#include "tests/loops.h"

/* A file of `size` bytes whose byte i is pattern(i). */
static unsigned char pattern(uint64_t i)
{
	return (unsigned char)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static int make_file(size_t size, int flags)
{
	static unsigned number;
	char name[32];
	unsigned char *content = malloc(size ? size : 1);
	int fd;

	snprintf(name, sizeof name, "file%u", number++);
	fd = open(tmppath(name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);
	for (size_t i = 0; i < size; i++)
		content[i] = pattern(i);
	if (fd < 0 || (size && pwrite(fd, content, size, 0) != (ssize_t)size)) {
		printf("Bail out! cannot make a file: %s\n", strerror(errno));
		exit(99);
	}
	free(content);
	return fd;
}

static bool is_pattern(const unsigned char *p, size_t size, uint64_t offset)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != pattern(offset + i))
			return false;
	return true;
}

/* ------------------------------------------------------------------ one at a time */

static void read_piece(void *argument)
{
	int fd = *(int *)argument;
	unsigned char a[1000], b[3000];
	struct iovec both[2] = {{a, sizeof a}, {b, sizeof b}}, one = {b, sizeof b};

	CHECK_EQ(aio_preadv(fd, both, 2, 0, 0), 4000);
	CHECK(is_pattern(a, 1000, 0) && is_pattern(b, 3000, 1000));
	CHECK_EQ(aio_preadv(fd, &one, 1, 5000, 0), 3000);
	CHECK(is_pattern(b, 3000, 5000));
	CHECK_EQ(aio_preadv(fd, both, 2, 8500, 0), 1500);
	CHECK(is_pattern(a, 1000, 8500) && is_pattern(b, 500, 9500));
	CHECK_EQ(aio_preadv(fd, &one, 1, 9999, 0), 1);
	CHECK_EQ(aio_preadv(fd, &one, 1, 10000, 0), 0);
	CHECK_EQ(aio_preadv(fd, both, 2, 1000000, 0), 0);
	CHECK_EQ(aio_preadv(fd, both, 0, 0, 0), 0);
}

/* Whole, short at the end of the file, nothing past it. */
static void reads(const struct loop_mode *mode)
{
	int fd = make_file(10000, 0);

	run_in_mode(mode, read_piece, &fd);
	close(fd);
}
MODE_TESTS(reads)

static void write_piece(void *argument)
{
	int fd = *(int *)argument;
	unsigned char a[100], b[200], back[300];
	struct iovec both[2] = {{a, sizeof a}, {b, sizeof b}};

	for (size_t i = 0; i < 300; i++)
		*(i < 100 ? &a[i] : &b[i - 100]) = pattern(4096 + i);
	CHECK_EQ(aio_pwritev(fd, both, 2, 4096, 0), 300);
	CHECK_EQ(pread(fd, back, 300, 4096), 300);
	CHECK(is_pattern(back, 300, 4096));
	CHECK_EQ(aio_pwritev(fd, both, 1, 0, RWF_DSYNC), 100);
	CHECK_EQ(pread(fd, back, 100, 0), 100);
	CHECK(is_pattern(back, 100, 4096));
	CHECK_EQ(aio_fsync(fd), 0);
	CHECK_EQ(aio_fdatasync(fd), 0);
	CHECK_EQ(aio_fallocate(fd, 0, 0, 100000), 0);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 100000);
}

static void writes_and_syncs(const struct loop_mode *mode)
{
	int fd = make_file(0, 0);

	run_in_mode(mode, write_piece, &fd);
	close(fd);
}
MODE_TESTS(writes_and_syncs)

static void single_piece(void *argument)
{
	int fd = *(int *)argument;
	unsigned char a[1000];

	memset(a, 0, sizeof a);
	CHECK_EQ(aio_pread(fd, a, 500, 300), 500);
	CHECK(is_pattern(a, 500, 300));
	CHECK_EQ(aio_pread(fd, a, sizeof a, 900), 100); /* short */
	CHECK(is_pattern(a, 100, 900));
	CHECK_EQ(aio_pread(fd, a, sizeof a, 1000), 0);
	memset(a, 0xee, 200);
	CHECK_EQ(aio_pwrite(fd, a, 200, 100), 200);
	memset(a, 0, sizeof a);
	CHECK_EQ(aio_pread(fd, a, 200, 100), 200);
	CHECK(a[0] == 0xee && a[199] == 0xee);
	CHECK_EQ(aio_pread(fd, a, 0, 0), 0);
}

static void single_pieces(const struct loop_mode *mode)
{
	int fd = make_file(1000, 0);

	run_in_mode(mode, single_piece, &fd);
	close(fd);
}
MODE_TESTS(single_pieces)

static void error_piece(void *argument)
{
	int read_only = *(int *)argument;
	unsigned char a[100];
	void *nowhere = (void *)8;
	struct iovec one = {a, sizeof a}, bad = {nowhere, 100}, many[2] = {{a, 100}, {nowhere, 100}};
	static struct iovec too_many[IOV_MAX + 1];

	memset(a, 0, sizeof a);
	CHECK_EQ(aio_preadv(-1, &one, 1, 0, 0), -EBADF);
	CHECK_EQ(aio_pwritev(-1, &one, 1, 0, 0), -EBADF);
	CHECK_EQ(aio_preadv(9999, &one, 1, 0, 0), -EBADF);
	CHECK_EQ(aio_fsync(-1), -EBADF);
	CHECK_EQ(aio_fdatasync(-1), -EBADF);
	CHECK_EQ(aio_fallocate(-1, 0, 0, 100), -EBADF);
	CHECK_EQ(aio_pwritev(read_only, &one, 1, 0, 0), -EBADF);
	CHECK_EQ(aio_pread(-1, a, sizeof a, 0), -EBADF);
	CHECK_EQ(aio_pwrite(read_only, a, sizeof a, 0), -EBADF);
	CHECK_EQ(aio_pread(read_only, a, sizeof a, UINT64_MAX), -EINVAL);
	CHECK_EQ(aio_pwrite(read_only, a, sizeof a, (uint64_t)INT64_MAX + 1), -EINVAL);
	if (!checkers_in_valgrind()) {
		CHECK_EQ(aio_preadv(read_only, &bad, 1, 0, 0), -EFAULT);
		CHECK_EQ(aio_preadv(read_only, many, 2, 0, 0), 100);
	}
	CHECK_EQ(aio_preadv(read_only, &one, 1, UINT64_MAX, 0), -EINVAL);
	CHECK_EQ(aio_preadv(read_only, &one, 1, (uint64_t)INT64_MAX + 1, 0), -EINVAL);
	CHECK_EQ(aio_preadv(read_only, too_many, IOV_MAX + 1, 0, 0), -EINVAL);
	CHECK_EQ(aio_preadv(read_only, &one, SIZE_MAX, 0, 0), -EINVAL);
	CHECK_EQ(aio_preadv(read_only, &one, 1, 0, 1 << 30), -EOPNOTSUPP);
	CHECK_EQ(aio_fallocate(read_only, 0, UINT64_MAX, 100), -EINVAL);
	CHECK_EQ(aio_fallocate(read_only, 0, 0, UINT64_MAX), -EINVAL);
}

static void errors(const struct loop_mode *mode)
{
	int fd = make_file(1000, 0), read_only;
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(read_only >= 0);
	run_in_mode(mode, error_piece, &read_only);
	close(read_only);
	close(fd);
}
MODE_TESTS(errors)

static void large_vector_piece(void *argument)
{
	static struct iovec iov[IOV_MAX];
	size_t size = (size_t)IOV_MAX * 100;
	unsigned char *memory = malloc(size);
	int fd = *(int *)argument;

	REQUIRE(memory);
	for (unsigned i = 0; i < IOV_MAX; i++)
		iov[i] = (struct iovec){memory + i * 100, 100};
	CHECK_EQ(aio_preadv(fd, iov, IOV_MAX, 50, 0), size);
	CHECK(is_pattern(memory, size, 50));
	memset(memory, 0xee, size);
	CHECK_EQ(aio_pwritev(fd, iov, IOV_MAX, 0, 0), size);
	memset(memory, 0, size);
	CHECK_EQ(aio_preadv(fd, iov, IOV_MAX, 0, 0), size);
	CHECK(memory[0] == 0xee && memory[size - 1] == 0xee);
	free(memory);
}

static void largest_vector(const struct loop_mode *mode)
{
	int fd = make_file((size_t)IOV_MAX * 100 + 50, 0);

	run_in_mode(mode, large_vector_piece, &fd);
	close(fd);
}
MODE_TESTS(largest_vector)

/* ------------------------------------------------------------------ many at a time */

enum { BLOCK = 512, BLOCKS = 1024 };

struct crowd {
	int fd;
	unsigned next, ended, under_way, most;
	bool has_ring;
	unsigned each;
};

/* Reads blocks in its own order, writes to its own block in between. */
static void crowd_entry(void *argument)
{
	struct crowd *c = argument;
	unsigned me = c->next++;
	unsigned char block[BLOCK];
	struct iovec iov = {block, BLOCK};

	c->has_ring = loop_ring(loop_fiber(), IORING_OP_READ);
	for (unsigned i = 0; i < c->each; i++) {
		unsigned number = (me * 37 + i * 101) % BLOCKS;

		if (++c->under_way > c->most)
			c->most = c->under_way;
		CHECK_EQ(aio_preadv(c->fd, &iov, 1, number * BLOCK, 0), BLOCK);
		c->under_way--;
		CHECK(is_pattern(block, BLOCK, number * BLOCK));
		if (i % 4 == 0)
			CHECK_EQ(aio_pwritev(c->fd, &iov, 1, number * BLOCK, 0), BLOCK);
		if (i % 64 == 0)
			CHECK_EQ(aio_fdatasync(c->fd), 0);
	}
	c->ended++;
}

/* Hundreds of requests are under way, more than a small ring has entries for; each gets its own answer. */
static void more_in_flight_than_the_ring_holds(const struct loop_mode *mode)
{
	struct crowd c = {.fd = make_file(BLOCK * BLOCKS, 0), .each = rounds(32)};

	run_fibers(mode, 300, crowd_entry, &c);
	CHECK_EQ(c.ended, 300);
	if (c.has_ring)
		CHECK(c.most > 64);
	CHECK(!c.has_ring || !mode->options.no_io_uring);
	close(c.fd);
}
LOOP_TESTS(more_in_flight_than_the_ring_holds)

static void *aligned(size_t size)
{
	void *p = aligned_alloc(4096, size);

	if (!p) {
		printf("Bail out! out of memory\n");
		exit(99);
	}
	return p;
}

static void direct_entry(void *argument)
{
	struct crowd *c = argument;
	unsigned me = c->next++;
	unsigned char *block = aligned(4096);
	struct iovec iov = {block, 4096};

	for (unsigned i = 0; i < c->each; i++) {
		unsigned number = (me * 37 + i * 101) % (BLOCK * BLOCKS / 4096);

		CHECK_EQ(aio_preadv(c->fd, &iov, 1, number * 4096, 0), 4096);
		CHECK(is_pattern(block, 4096, number * 4096));
	}
	iov = (struct iovec){block + 1, 511};
	CHECK_EQ(aio_preadv(c->fd, &iov, 1, 1, 0), -EINVAL);
	c->ended++;
	free(block);
}

static void direct_reads(const struct loop_mode *mode)
{
	struct crowd c = {.each = rounds(16)};
	int fd = make_file(BLOCK * BLOCKS, 0);
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	c.fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (c.fd < 0) {
		close(fd);
		SKIP("the file system has no direct I/O");
	}
	run_fibers(mode, 32, direct_entry, &c);
	CHECK_EQ(c.ended, 32);
	close(c.fd);
	close(fd);
}
LOOP_TESTS(direct_reads)

static unsigned pollers_ended;

static void poller_entry(void *argument)
{
	int *fds = argument;

	CHECK_EQ(loop_poll(fds[0], POLLIN, UINT64_MAX), POLLIN);
	pollers_ended++;
}

static void poller_root(void *argument)
{
	int fds[2], file = *(int *)argument;
	unsigned char block[BLOCK];
	struct iovec iov = {block, BLOCK};

	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	pollers_ended = 0;
	for (int i = 0; i < 100; i++)
		CHECK_EQ(loop_spawn(loop_current(), poller_entry, fds), 0);
	wait_yield();
	CHECK_EQ(aio_preadv(file, &iov, 1, 0, 0), BLOCK);
	CHECK_EQ(pollers_ended, 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	while (pollers_ended < 100)
		wait_sleep(10000);
	close(fds[0]), close(fds[1]);
}

/* Any number of fibers may watch descriptors for ever; reads go on. */
static void polls_do_not_keep_out_reads(const struct loop_mode *mode)
{
	int fd = make_file(BLOCK, 0);

	run_fibers(mode, 1, poller_root, &fd);
	close(fd);
}
LOOP_TESTS(polls_do_not_keep_out_reads)

/* ------------------------------------------------------------------ what must not be retried */

struct nowait {
	int fd;
	ssize_t got;
};

static void nowait_piece(void *argument)
{
	struct nowait *w = argument;
	char c;
	struct iovec one = {&c, 1};

	w->got = aio_preadv(w->fd, &one, 1, 0, RWF_NOWAIT);
}

/* A file of which nothing is cached. */
static int make_cold_file(void)
{
	int fd = make_file(1 << 20, 0);

	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return fd;
}

/*
 * Who asks not to wait gets -EAGAIN instead of waiting. The kernel begins to read all the same, and on a busy machine the data may be there
 * before it looks whether they are: once in many tries it has to be as told.
 */
static void nowait_is_not_retried(const struct loop_mode *mode)
{
	int again = make_cold_file();
	struct nowait w = {.got = 1};
	char c;
	struct iovec one = {&c, 1};
	bool works = false;

	for (unsigned i = 0; i < 50 && w.got == 1; i++) {
		works = works || (preadv2(again, &one, 1, 0, RWF_NOWAIT) < 0 && errno == EAGAIN);
		posix_fadvise(again, 0, 0, POSIX_FADV_DONTNEED);
		w.fd = make_cold_file();
		run_in_mode(mode, nowait_piece, &w);
		close(w.fd);
	}
	close(again);
	if (!works && w.got == 1)
		SKIP("the file system does not forget what was written, or has no RWF_NOWAIT");
	CHECK_EQ(w.got, -EAGAIN);
}
MODE_TESTS(nowait_is_not_retried)

/* ------------------------------------------------------------------ offload */

static int thread_piece(void *argument)
{
	pthread_t *thread = argument;

	CHECK(!loop_current());
	*thread = pthread_self();
	return -77;
}

static void offload_piece(void *argument)
{
	const struct loop_mode *mode = argument;
	pthread_t where;

	CHECK_EQ(aio_offload(thread_piece, &where), -77);
	CHECK_EQ(!!pthread_equal(where, pthread_self()), mode->on_thread);
}

/* From a fiber the function runs on another thread, from a thread on that thread. */
static void offload_runs_elsewhere(const struct loop_mode *mode)
{
	run_in_mode(mode, offload_piece, (void *)mode);
}
MODE_TESTS(offload_runs_elsewhere)

static _Atomic unsigned offload_now, offload_most, offload_done;

static int offload_sleep(void *argument)
{
	unsigned now = atomic_fetch_add(&offload_now, 1) + 1, most = atomic_load(&offload_most);

	(void)argument;
	while (now > most && !atomic_compare_exchange_weak(&offload_most, &most, now))
		;
	usleep(3000);
	atomic_fetch_sub(&offload_now, 1);
	atomic_fetch_add(&offload_done, 1);
	return 0;
}

static void offload_entry(void *argument)
{
	(void)argument;
	CHECK_EQ(aio_offload(offload_sleep, NULL), 0);
	CHECK_EQ(aio_offload(offload_sleep, NULL), 0);
}

/* They run side by side, on a bounded number of threads. */
static void offload_is_concurrent_and_bounded(const struct loop_mode *mode)
{
	offload_now = offload_most = offload_done = 0;
	run_fibers(mode, 200, offload_entry, NULL);
	CHECK_EQ(offload_done, 400);
	CHECK(offload_most > 8);
	CHECK(offload_most <= 64);
}
LOOP_TESTS(offload_is_concurrent_and_bounded)

static void mixed_entry(void *argument)
{
	struct wait_mutex *m = argument;

	for (int i = 0; i < 10; i++) {
		wait_mutex_lock(m);
		CHECK_EQ(aio_offload(offload_sleep, NULL), 0);
		wait_mutex_unlock(m);
	}
}

/* A lock is held across an offloaded call; it excludes there, too. */
static void offload_under_a_lock(const struct loop_mode *mode)
{
	struct wait_mutex m = {0};

	offload_now = offload_most = offload_done = 0;
	run_fibers(mode, 4, mixed_entry, &m);
	CHECK_EQ(offload_done, 40);
	CHECK_EQ(offload_most, 1);
}
LOOP_TESTS(offload_under_a_lock)

int main(void)
{
	RUN_MODE_TESTS(reads);
	RUN_MODE_TESTS(writes_and_syncs);
	RUN_MODE_TESTS(single_pieces);
	RUN_MODE_TESTS(errors);
	RUN_MODE_TESTS(largest_vector);
	RUN_LOOP_TESTS(more_in_flight_than_the_ring_holds);
	RUN_LOOP_TESTS(direct_reads);
	RUN_LOOP_TESTS(polls_do_not_keep_out_reads);
	RUN_MODE_TESTS(nowait_is_not_retried);
	RUN_MODE_TESTS(offload_runs_elsewhere);
	RUN_LOOP_TESTS(offload_is_concurrent_and_bounded);
	RUN_LOOP_TESTS(offload_under_a_lock);
	return TAP_DONE();
}

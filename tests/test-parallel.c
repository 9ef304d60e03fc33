/* SPDX-License-Identifier: BSD-3-Clause */
/* Sub-requests at the same time, from plain threads and from fibers. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/wait.h>

#include "core/aio.h"
#include "core/parallel.h"
#include "core/wait.h"
#include "tests/loops.h"

#define MS UINT64_C(1000000)

struct job {
	unsigned seen[64];
	unsigned under_way, most;
	unsigned fails_at; /* bits */
	bool forward;      /* the higher the index, the later it ends; else the other way round */
	int fd;
};

static int job_piece(void *argument, unsigned index)
{
	struct job *j = argument;

	if (++j->under_way > j->most)
		j->most = j->under_way;
	j->seen[index]++;
	wait_sleep((j->forward ? index % 8 + 1 : 8 - index % 8) * MS / 2);
	j->under_way--;
	return j->fails_at >> index & 1 ? -(int)(1000 + index) : 0;
}

static void all_at_once_piece(void *argument)
{
	(void)argument;
	for (int forward = 0; forward < 2; forward++) {
		struct job j = {.forward = forward};

		CHECK_EQ(parallel_run(32, job_piece, &j), 0);
		CHECK_EQ(j.most, 32);
		CHECK_EQ(j.under_way, 0);
		for (unsigned i = 0; i < 32; i++)
			CHECK_EQ(j.seen[i], 1);
		CHECK_EQ(j.seen[32], 0);
	}
}

/* Every index is called once, and all are under way together. */
static void all_at_once(const struct loop_mode *mode)
{
	run_in_mode(mode, all_at_once_piece, NULL);
}
MODE_TESTS(all_at_once)

static void failure_piece(void *argument)
{
	struct job j = {.fails_at = 1 << 6 | 1 << 3 | 1 << 7};

	(void)argument;
	CHECK_EQ(parallel_run(8, job_piece, &j), -1003);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(j.seen[i], 1);
	j.fails_at = 1;
	CHECK_EQ(parallel_run(8, job_piece, &j), -1000);
	j.fails_at = 1 << 7;
	CHECK_EQ(parallel_run(8, job_piece, &j), -1007);
	CHECK_EQ(parallel_run(7, job_piece, &j), 0);
	j.fails_at = 1 << 2 | 1 << 5;
	j.forward = true;
	CHECK_EQ(parallel_run(8, job_piece, &j), -1002);
}

/* The failure with the lowest index counts, whether it comes first or last; the others run all the same. */
static void lowest_failure(const struct loop_mode *mode)
{
	run_in_mode(mode, failure_piece, NULL);
}
MODE_TESTS(lowest_failure)

static void few_piece(void *argument)
{
	struct job j = {.fails_at = 1};

	(void)argument;
	CHECK_EQ(parallel_run(0, job_piece, &j), 0);
	CHECK_EQ(j.seen[0], 0);
	CHECK_EQ(parallel_run(1, job_piece, &j), -1000);
	CHECK_EQ(j.seen[0], 1);
}

static void none_and_one(const struct loop_mode *mode)
{
	run_in_mode(mode, few_piece, NULL);
}
MODE_TESTS(none_and_one)

static _Atomic unsigned leaves;

static int nested_piece(void *argument, unsigned index)
{
	unsigned depth = *(unsigned *)argument;
	unsigned below = depth - 1;

	if (depth == 0) {
		wait_yield();
		atomic_fetch_add(&leaves, 1);
		return 0;
	}
	return parallel_run(4, nested_piece, &below) ? -EIO : index == 99;
}

static void nested_root(void *argument)
{
	unsigned depth = 3;

	(void)argument;
	CHECK_EQ(parallel_run(4, nested_piece, &depth), 0);
}

/* 4 of 4 of 4 of 4. */
static void nested(const struct loop_mode *mode)
{
	leaves = 0;
	run_in_mode(mode, nested_root, NULL);
	CHECK_EQ(leaves, 256);
}
MODE_TESTS(nested)

static int read_piece(void *argument, unsigned index)
{
	struct job *j = argument;
	unsigned char byte;
	struct iovec iov = {&byte, 1};

	if (aio_preadv(j->fd, &iov, 1, index, 0) != 1)
		return -EIO;
	return byte == index * 3 ? 0 : -ENODATA;
}

static void io_root(void *argument)
{
	for (unsigned i = 0; i < rounds(200); i++)
		CHECK_EQ(parallel_run(64, read_piece, argument), 0);
}

static void reads_a_file(const struct loop_mode *mode)
{
	struct job j = {.fd = open(tmppath("bytes"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
	unsigned char bytes[64];

	for (unsigned i = 0; i < 64; i++)
		bytes[i] = (unsigned char)(i * 3);
	REQUIRE(j.fd >= 0 && pwrite(j.fd, bytes, 64, 0) == 64);
	run_in_mode(mode, io_root, &j);
	close(j.fd);
}
MODE_TESTS(reads_a_file)

static int locked_piece(void *argument, unsigned index)
{
	struct wait_mutex *m = argument;

	(void)index;
	wait_mutex_lock(m);
	wait_sleep(10000);
	wait_mutex_unlock(m);
	return 0;
}

static void *locked_thread(void *argument)
{
	for (int i = 0; i < 10; i++)
		CHECK_EQ(parallel_run(8, locked_piece, argument), 0);
	return NULL;
}

/* Threads with private loops wait for each other's locks; the loops go away with the threads. */
static void test_threads_with_private_loops(void)
{
	struct wait_mutex m = {0};
	pthread_t threads[4];

	threads_start(threads, 4, locked_thread, &m);
	CHECK(locked_thread(&m) == NULL);
	threads_join(threads, 4);
}

#ifndef CHECKERS_TSAN /* which does not start threads in a forked child */
/* A thread that has used its private loop forks: both sides go on. */
static void test_works_after_fork(void)
{
	int status = 0;
	pid_t child;

	all_at_once_piece(NULL);
	fflush(stdout);
	child = fork();
	all_at_once_piece(NULL);
	if (child == 0)
		_exit(atomic_load(&tap_errors) ? 1 : 42);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}
#endif

int main(void)
{
	RUN_MODE_TESTS(all_at_once);
	RUN_MODE_TESTS(lowest_failure);
	RUN_MODE_TESTS(none_and_one);
	RUN_MODE_TESTS(nested);
	RUN_MODE_TESTS(reads_a_file);
	TAP_RUN(test_threads_with_private_loops);
#ifndef CHECKERS_TSAN
	TAP_RUN(test_works_after_fork);
#endif
	return TAP_DONE();
}

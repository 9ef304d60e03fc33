/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Running a piece of a test where it waits in different ways: on a thread, or in a fiber of several kinds
 * of loops.
 */
#ifndef PLATTER_TESTS_LOOPS_H
#define PLATTER_TESTS_LOOPS_H

#include <pthread.h>

#include "core/checkers.h"
#include "core/loop-internal.h"
#include "core/loop.h"
#include "core/ring.h"
#include "tests/tap.h"

struct loop_mode {
	struct loop_options options;
	unsigned ring_without; /* enum ring_without */
	bool on_thread;        /* no loop at all */
};

static TAP_UNUSED const struct loop_mode mode_thread = {.on_thread = true};
static TAP_UNUSED const struct loop_mode mode_ring = {.ring_without = 0};
static TAP_UNUSED const struct loop_mode mode_tiny_ring = {.options.ring_entries = 2};
static TAP_UNUSED const struct loop_mode mode_old_ring = {
	.ring_without = RING_WITHOUT_FLAGS | RING_WITHOUT_TIMEOUT,
};
static TAP_UNUSED const struct loop_mode mode_spinning = {.options.poll_ns = 20000};
static TAP_UNUSED const struct loop_mode mode_no_ring = {.options.no_io_uring = true};

/* `n` rounds of something, fewer where everything is slow. */
TAP_UNUSED static unsigned rounds(unsigned n)
{
	unsigned slow = n;

#if defined(CHECKERS_TSAN) || defined(CHECKERS_ASAN)
	slow = n / 4;
#endif
	if (checkers_in_valgrind())
		slow = n / 16;
	return slow ? slow : 1;
}

/* A loop of that kind; ends the program when there is none to be had. */
TAP_UNUSED static struct loop *mode_loop(const struct loop_mode *mode)
{
	struct loop *l;

	if (loop_create(&mode->options, &l, NULL) < 0) {
		printf("Bail out! cannot make a loop\n");
		exit(99);
	}
	loop_restrict_ring(l, mode->ring_without);
	return l;
}

/* Runs `count` fibers entry(argument) on a fresh loop of that kind until all have ended. */
TAP_UNUSED static void run_fibers(const struct loop_mode *mode, unsigned count, void (*entry)(void *argument),
				  void *argument)
{
	struct loop *l = mode_loop(mode);

	for (unsigned i = 0; i < count; i++)
		CHECK_EQ(loop_spawn(l, entry, argument), 0);
	loop_stop(l);
	loop_run(l);
	CHECK_EQ(loop_fibers(l), 0);
	loop_destroy(l);
}

/* Runs entry(argument) as that mode says. */
TAP_UNUSED static void run_in_mode(const struct loop_mode *mode, void (*entry)(void *argument),
				   void *argument)
{
	if (mode->on_thread)
		entry(argument);
	else
		run_fibers(mode, 1, entry, argument);
}

/* Threads that run entry(argument); joined by threads_join(). */
TAP_UNUSED static void threads_start(pthread_t *threads, unsigned count, void *(*entry)(void *),
				     void *argument)
{
	for (unsigned i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, entry, argument)) {
			printf("Bail out! cannot start a thread\n");
			exit(99);
		}
}

TAP_UNUSED static void threads_join(const pthread_t *threads, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/*
 * Given `static void body(const struct loop_mode *mode)`: a test for each kind of loop, and all of their
 * TAP_RUNs.
 */
#define LOOP_TESTS(body) \
	static void test_##body##_ring(void) \
	{ \
		body(&mode_ring); \
	} \
	static void test_##body##_tiny_ring(void) \
	{ \
		body(&mode_tiny_ring); \
	} \
	static void test_##body##_old_ring(void) \
	{ \
		body(&mode_old_ring); \
	} \
	static void test_##body##_spinning(void) \
	{ \
		body(&mode_spinning); \
	} \
	static void test_##body##_no_ring(void) \
	{ \
		body(&mode_no_ring); \
	}

#define RUN_LOOP_TESTS(body) \
	do { \
		TAP_RUN(test_##body##_ring); \
		TAP_RUN(test_##body##_tiny_ring); \
		TAP_RUN(test_##body##_old_ring); \
		TAP_RUN(test_##body##_spinning); \
		TAP_RUN(test_##body##_no_ring); \
	} while (0)

/* The same, and once on a plain thread. */
#define MODE_TESTS(body) \
	static void test_##body##_thread(void) \
	{ \
		body(&mode_thread); \
	} \
	LOOP_TESTS(body)

#define RUN_MODE_TESTS(body) \
	do { \
		TAP_RUN(test_##body##_thread); \
		RUN_LOOP_TESTS(body); \
	} while (0)

#endif

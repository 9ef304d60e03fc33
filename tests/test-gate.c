/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate and the short lock: exclusion among threads and fibers, and that nobody sleeps for ever. */
#include "tests/tap.h"

#include <pthread.h>
#include <sched.h>

#include "core/gate.h"
#include "core/loop.h"
#include "core/short-lock.h"

#define THREADS 4
#define PASSES 20000

static struct gate gate;
static struct short_lock short_lock;
static uint64_t protected[2]; /* equal but while somebody changes them */
static _Atomic unsigned torn;

static void look(void)
{
	if (protected[0] != protected[1])
		atomic_fetch_add(&torn, 1);
}

static void change(void)
{
	protected[0]++;
	protected[1]++;
}

static void *pass_and_close(void *argument)
{
	unsigned number = (unsigned)(uintptr_t)argument;

	for (unsigned i = 0; i < PASSES; i++) {
		if (i % 64 == number) {
			gate_close(&gate);
			change();
			gate_open(&gate);
		} else {
			gate_enter(&gate);
			look();
			gate_leave(&gate);
		}
	}
	return NULL;
}

static void *lock_and_share(void *argument)
{
	unsigned number = (unsigned)(uintptr_t)argument;

	for (unsigned i = 0; i < PASSES; i++) {
		if (i % 4 == number) {
			short_lock_exclusive(&short_lock);
			change();
			short_unlock_exclusive(&short_lock);
		} else {
			short_lock_shared(&short_lock);
			look();
			short_unlock_shared(&short_lock);
		}
	}
	return NULL;
}

static void run_threads(void *(*run)(void *))
{
	pthread_t threads[THREADS];

	protected[0] = protected[1] = 0;
	atomic_store(&torn, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, run, (void *)i));
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(atomic_load(&torn), 0);
}

static unsigned times(unsigned of, unsigned number)
{
	return (PASSES - number + of - 1) / of;
}

/* Who closes the gate is alone inside, and every closing counts. */
static void test_gate_threads(void)
{
	uint64_t expected = 0;

	for (unsigned i = 0; i < THREADS; i++)
		expected += times(64, i);
	run_threads(pass_and_close);
	CHECK_EQ(protected[0], expected);
}

/* Who holds the short lock exclusively is alone, and every change counts. */
static void test_short_lock_threads(void)
{
	uint64_t expected = 0;

	for (unsigned i = 0; i < THREADS; i++)
		expected += times(4, i);
	run_threads(lock_and_share);
	CHECK_EQ(protected[0], expected);
	CHECK_EQ(atomic_load(&short_lock.state), 0);
}

static struct wait_group fibers;

static void wait_inside(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 50; i++) {
		gate_enter(&gate);
		look();
		wait_yield();
		look();
		gate_leave(&gate);
	}
	wait_group_done(&fibers);
}

static void close_and_wait(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < 50; i++) {
		gate_close(&gate);
		protected[0]++;
		wait_yield();
		protected[1]++;
		gate_open(&gate);
		wait_yield();
	}
	wait_group_done(&fibers);
}

/* Fibers wait inside and at the gate, on two loops at once. */
static void test_gate_fibers(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct loop *loops[2];

	protected[0] = protected[1] = 0;
	atomic_store(&torn, 0);
	for (unsigned i = 0; i < 2; i++)
		REQUIRE(!loop_start(NULL, &loops[i], &err));
	wait_group_add(&fibers, 2 * 10);
	for (unsigned i = 0; i < 10; i++)
		for (unsigned k = 0; k < 2; k++)
			REQUIRE(!loop_spawn(loops[k], i % 5 ? wait_inside : close_and_wait, NULL));
	wait_group_wait(&fibers);
	for (unsigned i = 0; i < 2; i++)
		loop_finish(loops[i]);
	CHECK_EQ(atomic_load(&torn), 0);
	CHECK_EQ(protected[0], 4 * 50);
}

/* Each on a line of its own, as in test-fence. */
static struct {
	_Alignas(64) _Atomic uint32_t value;
} round_begun, round_ended, passing, closing;

#define ROUNDS 5000

/* Both sides say that they are inside and look for the other; neither may hide its own store from it. */
static void *pass_in_rounds(void *argument)
{
	(void)argument;
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		for (unsigned spin = 1; atomic_load_explicit(&round_begun.value, memory_order_acquire) != i;
		     spin++)
			if (spin % 1000 == 0)
				sched_yield();
		gate_enter(&gate);
		atomic_store_explicit(&passing.value, 1, memory_order_relaxed);
		if (atomic_load_explicit(&closing.value, memory_order_relaxed))
			atomic_fetch_add(&torn, 1);
		atomic_store_explicit(&passing.value, 0, memory_order_relaxed);
		gate_leave(&gate);
		atomic_store_explicit(&round_ended.value, i, memory_order_release);
	}
	return NULL;
}

/* Entering and closing at the same moment, which fails where one of the two has no fence between its store
 * and its look. */
static void test_gate_closed_while_entered(void)
{
	pthread_t thread;

	atomic_store(&torn, 0);
	REQUIRE(!pthread_create(&thread, NULL, pass_in_rounds, NULL));
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		atomic_store_explicit(&round_begun.value, i, memory_order_release);
		for (unsigned spin = i % 256; spin; spin--) /* to meet at different moments */
			atomic_signal_fence(memory_order_seq_cst);
		gate_close(&gate);
		atomic_store_explicit(&closing.value, 1, memory_order_relaxed);
		for (unsigned spin = 100; spin; spin--)
			if (atomic_load_explicit(&passing.value, memory_order_relaxed))
				atomic_fetch_add(&torn, 1);
		atomic_store_explicit(&closing.value, 0, memory_order_relaxed);
		gate_open(&gate);
		for (unsigned spin = 1; atomic_load_explicit(&round_ended.value, memory_order_acquire) != i;
		     spin++)
			if (spin % 1000 == 0)
				sched_yield();
	}
	pthread_join(thread, NULL);
	CHECK_EQ(atomic_load(&torn), 0);
}

int main(void)
{
	TAP_RUN(test_gate_closed_while_entered);
	TAP_RUN(test_gate_threads);
	TAP_RUN(test_short_lock_threads);
	TAP_RUN(test_gate_fibers);
	return TAP_DONE();
}

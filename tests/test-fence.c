/* SPDX-License-Identifier: BSD-3-Clause */
/* The pair of fences: of two who store, then look, at least one sees the other. */
#include "tests/tap.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "core/checkers.h"
#include "core/fence.h"
#include "tests/loops.h"

/* So often it is looked whether the other one is there, before the processor is offered to it. */
#define SPINS 1000

/* Each on a line of its own, or the processor would not hold the stores back long enough to be caught. */
struct line {
	_Alignas(64) _Atomic uint32_t value;
};

static struct line here, there, round_begun, saw;

static void *frequent_main(void *argument)
{
	uint32_t count = *(uint32_t *)argument;

	for (uint32_t i = 1; i <= count; i++) {
		for (unsigned spin = 1; atomic_load_explicit(&round_begun.value, memory_order_acquire) != i; spin++)
			if (spin % SPINS == 0)
				sched_yield();
		atomic_store_explicit(&here.value, i, memory_order_relaxed);
		if (fence_is_asymmetric)
			fence_light();
		else
			checkers_fence();
		uint32_t other = atomic_load_explicit(&there.value, memory_order_relaxed);
		atomic_store_explicit(&saw.value, other == i ? 2 * i + 1 : 2 * i, memory_order_release);
	}
	return NULL;
}

/* How often neither saw the other; UINT_MAX without a thread. */
static unsigned race(uint32_t count)
{
	unsigned missed = 0;
	pthread_t thread;

	atomic_store(&round_begun.value, 0);
	atomic_store(&here.value, 0);
	atomic_store(&there.value, 0);
	atomic_store(&saw.value, 0);
	if (pthread_create(&thread, NULL, frequent_main, &count))
		return UINT_MAX;
	for (uint32_t i = 1; i <= count; i++) {
		uint32_t theirs, ours;
		atomic_store_explicit(&round_begun.value, i, memory_order_release);
		for (unsigned spin = i % 256; spin; spin--) /* to meet at different moments */
			atomic_signal_fence(memory_order_seq_cst);
		atomic_store_explicit(&there.value, i, memory_order_relaxed);
		fence_heavy();
		ours = atomic_load_explicit(&here.value, memory_order_relaxed);
		for (unsigned spin = 1; (theirs = atomic_load_explicit(&saw.value, memory_order_acquire)) / 2 != i; spin++)
			if (spin % SPINS == 0)
				sched_yield();
		missed += ours != i && !(theirs & 1);
	}
	pthread_join(thread, NULL);
	return missed;
}

static void test_one_sees_the_other(void)
{
	CHECK_EQ(race(rounds(4000)), 0);
}

static void test_one_sees_the_other_without_the_system_call(void)
{
	bool was = fence_is_asymmetric;

	fence_is_asymmetric = false;
	CHECK_EQ(race(rounds(4000)), 0);
	fence_is_asymmetric = was;
}

/* Where it is expected: otherwise all would be slower, and no test would tell. (Valgrind may not know membarrier(2).) */
static void test_it_is_asymmetric_on_linux(void)
{
#ifdef CHECKERS_TSAN
	CHECK(!fence_is_asymmetric);
#else
	CHECK(fence_is_asymmetric || checkers_in_valgrind());
#endif
}

int main(void)
{
	TAP_RUN(test_it_is_asymmetric_on_linux);
	TAP_RUN(test_one_sees_the_other);
	TAP_RUN(test_one_sees_the_other_without_the_system_call);
	return TAP_DONE();
}

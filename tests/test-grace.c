/* SPDX-License-Identifier: BSD-3-Clause */
/* The grace: after it, nobody goes by the old rules; and nobody is held up by it. */
#include "tests/tap.h"

#include <pthread.h>

#include "core/grace.h"
#include "core/loop.h"
#include "tests/loops.h"

#define THREADS 3
#define RULES 8

/* Rules are broken once nobody may go by them any more. */
struct rules {
	_Atomic bool broken;
};

static struct grace grace;
static struct rules rules[RULES];
static struct rules *_Atomic current;
static _Atomic bool stop;
static _Atomic unsigned passes, violations;

static void pass(void)
{
	_Atomic uint32_t *place = grace_enter(&grace);
	struct rules *r = atomic_load(&current);

	for (unsigned i = 0; i < 3; i++) {
		if (atomic_load(&r->broken))
			atomic_fetch_add(&violations, 1);
		if (i == 1)
			wait_yield();
	}
	grace_leave(&grace, place);
	atomic_fetch_add(&passes, 1);
}

static void *pass_always(void *argument)
{
	(void)argument;
	while (!atomic_load(&stop))
		pass();
	return NULL;
}

static void pass_in_fiber(void *argument)
{
	pass_always(argument);
}

static void change_rules(unsigned count)
{
	for (unsigned i = 1; i <= count; i++) {
		struct rules *old = atomic_load(&current), *new = &rules[i % RULES];
		atomic_store(&new->broken, false);
		atomic_store(&current, new);
		grace_wait(&grace);
		atomic_store(&old->broken, true);
	}
}

static void begin(void)
{
	atomic_store(&rules[0].broken, false);
	atomic_store(&current, &rules[0]);
	atomic_store(&stop, false);
	atomic_store(&passes, 0);
	atomic_store(&violations, 0);
}

static void test_threads(void)
{
	pthread_t threads[THREADS];

	begin();
	for (unsigned i = 0; i < THREADS; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, pass_always, NULL));
	while (!atomic_load(&passes)) /* or all would be changed before they have begun */
		wait_yield();
	change_rules(rounds(20000));
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(atomic_load(&violations), 0);
}

/* As where the kernel has no membarrier(2). */
static void test_threads_that_count_atomically(void)
{
	bool was = fence_is_asymmetric;

	fence_is_asymmetric = false;
	test_threads();
	fence_is_asymmetric = was;
}

static void change_in_fiber(void *argument)
{
	(void)argument;
	change_rules(rounds(5000));
	atomic_store(&stop, true);
}

static void test_fibers_of_one_loop(void)
{
	struct loop *l = mode_loop(&mode_ring);

	begin();
	for (unsigned i = 0; i < THREADS; i++)
		CHECK_EQ(loop_spawn(l, pass_in_fiber, NULL), 0);
	CHECK_EQ(loop_spawn(l, change_in_fiber, NULL), 0);
	loop_stop(l);
	loop_run(l);
	loop_destroy(l);
	CHECK_EQ(atomic_load(&violations), 0);
	CHECK(atomic_load(&passes) > 0);
}

/*
 * One who looked which side it is, and counts himself in only when it was turned: he need not be waited for this time, but the
 * next time.
 */
static void *wait_once(void *argument)
{
	grace_wait(&grace);
	atomic_store((_Atomic bool *)argument, true);
	return NULL;
}

static void test_latecomer_on_the_wrong_side(void)
{
	_Atomic uint32_t *places[2], *late;
	_Atomic bool over = false;
	pthread_t waiter;

	places[0] = grace_enter(&grace);
	grace_leave(&grace, places[0]);
	grace_wait(&grace); /* nobody is in: does not wait */
	late = places[0];
	atomic_fetch_add(late, 1);
	places[1] = grace_enter(&grace);
	CHECK(places[1] != late);
	grace_leave(&grace, places[1]);
	REQUIRE(!pthread_create(&waiter, NULL, wait_once, &over));
	wait_sleep(20000000);
	CHECK(!atomic_load(&over));
	grace_leave(&grace, grace_enter(&grace)); /* newcomers come and go */
	CHECK(!atomic_load(&over));
	grace_leave(&grace, late);
	pthread_join(waiter, NULL);
	CHECK(atomic_load(&over));
}

int main(void)
{
	TAP_RUN(test_threads);
	TAP_RUN(test_threads_that_count_atomically);
	TAP_RUN(test_fibers_of_one_loop);
	TAP_RUN(test_latecomer_on_the_wrong_side);
	return TAP_DONE();
}

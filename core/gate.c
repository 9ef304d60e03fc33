/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A passer first counts itself in, then looks whether the gate is closed; who closes it first says so, then
 * looks at the counts. A full fence lies between the two steps of both (who closes it makes the passer's for
 * him, see core/fence.h), so of two that come at the same time at least one sees the other: either the passer
 * goes back, or the closer waits for it. Leaving is the same way round: counted out first, and only then is
 * the closer, if there is one, told to look again.
 *
 * Should a fiber leave on another thread than it came in on, one count is too large and another too small;
 * their sum is right all the same, modulo 2^32, and the sum is all that is looked at.
 */
#include "core/gate.h"

void gate_tell(struct gate *g)
{
	wait_signal_raise(&g->changed);
}

/* As gate_count(), of a thread that has to ask for its slot, or shares it. */
static void count_slowly(struct gate *g, uint32_t n)
{
	unsigned index = stat_thread_index ? stat_thread_index : stat_thread_assign();

	atomic_fetch_add(&g->slots[index].inside, n);
}

void gate_leave_slowly(struct gate *g)
{
	count_slowly(g, UINT32_MAX);
	if (gate_is_closed(g))
		gate_tell(g);
}

static void wait_until_open(struct gate *g)
{
	for (;;) {
		uint32_t seen = wait_signal_count(&g->changed);
		if (!atomic_load(&g->closed))
			return;
		wait_signal_wait(&g->changed, seen, WAIT_FOREVER);
	}
}

/* Who finds it closed goes out again and waits. */
void gate_enter_slowly(struct gate *g, bool counted)
{
	for (;;) {
		if (!counted)
			count_slowly(g, 1);
		counted = false;
		if (!gate_is_closed(g))
			return;
		gate_leave(g);
		wait_until_open(g);
	}
}

static uint32_t inside(struct gate *g)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < STAT_SLOTS; i++)
		sum += atomic_load(&g->slots[i].inside);
	return sum;
}

void gate_close(struct gate *g)
{
	uint32_t seen;

	wait_mutex_lock(&g->closers);
	atomic_store(&g->closed, 1);
	fence_heavy();
	for (;;) {
		seen = wait_signal_count(&g->changed);
		if (!inside(g))
			return;
		wait_signal_wait(&g->changed, seen, WAIT_FOREVER);
	}
}

void gate_open(struct gate *g)
{
	atomic_store(&g->closed, 0);
	wait_signal_raise(&g->changed);
	wait_mutex_unlock(&g->closers);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * There are two sides. Newcomers count themselves on one; who waits turns them to the other, and waits until the first is empty.
 *
 * A passer may look which side it is, be held up, and count himself on it when the turn is over. He then looks at the rules
 * after the waiter looked at his count, so he sees the new ones, and it was right not to wait for him; but he stands on the
 * wrong side, and the next one to wait has to count with him. So that one first waits until the side to which newcomers will
 * be turned is empty, too. Nobody but such latecomers comes there meanwhile, so it gets empty.
 *
 * Leaving is: counted out first, then is told whoever waits; waiting is: said first, then counted. Coming in is: counted in first,
 * then looked at the rules; waiting is: rules first, then counted. In both, between the two steps of a passer there is a light
 * fence, between those of the waiter a heavy one (core/fence.h), so of two at the same time at least one sees the other. One heavy
 * fence is enough: whoever goes by the old rules has counted himself in before it, on either side, and both are looked at
 * after it.
 */
#include "core/grace.h"

void grace_tell(struct grace *g)
{
	wait_signal_raise(&g->left);
}

static uint32_t count(struct grace *g, uint32_t side)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < STAT_SLOTS; i++)
		sum += atomic_load(&g->slots[i].inside[side]);
	return sum;
}

static void wait_until_empty(struct grace *g, uint32_t side)
{
	for (;;) {
		uint32_t seen = wait_signal_count(&g->left);
		if (!count(g, side))
			return;
		wait_signal_wait(&g->left, seen, WAIT_FOREVER);
	}
}

void grace_wait(struct grace *g)
{
	uint32_t side;

	wait_mutex_lock(&g->waiters);
	atomic_store(&g->waited_for, 1);
	fence_heavy();
	side = atomic_load(&g->side);
	wait_until_empty(g, !side);
	atomic_store(&g->side, !side);
	wait_until_empty(g, side);
	atomic_store(&g->waited_for, 0);
	wait_mutex_unlock(&g->waiters);
}

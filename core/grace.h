/* SPDX-License-Identifier: BSD-3-Clause */
/* Many pass through; now and then somebody waits until all are out who came in before, and holds up nobody. */
#ifndef PLATTER_CORE_GRACE_H
#define PLATTER_CORE_GRACE_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/slots.h"
#include "core/wait.h"

/*
 * For rules that change while requests go by. Who passes first comes in, then looks at the rules; who changes them first stores
 * the new ones, then waits here: after that, all who are inside go by the new rules. Rules are to be read and stored by
 * sequentially consistent atomics. Each thread counts on a cache line of its own, as at a gate (core/gate.h), but newcomers
 * never wait. Threads and fibers alike; both sides may wait while inside. Zero-initialised it is usable; nothing has to be
 * destroyed. 4 KiB.
 */
struct grace {
	struct {
		_Alignas(64) _Atomic uint32_t inside[2];
	} slots[STAT_SLOTS];
	_Alignas(64) _Atomic uint32_t side; /* where newcomers count themselves */
	_Atomic uint32_t waited_for;
	struct wait_mutex waiters; /* one at a time */
	struct wait_signal left;   /* somebody left while somebody waited */
};

/* The way out of line: for the functions below alone. */
void grace_tell(struct grace *g);

/* Comes in; what to leave with. */
static inline _Atomic uint32_t *grace_enter(struct grace *g)
{
	unsigned index = stat_thread_index ? stat_thread_index : stat_thread_assign();
	_Atomic uint32_t *place = &g->slots[index].inside[atomic_load(&g->side)];

	atomic_fetch_add(place, 1);
	return place;
}

/* Goes out. Who does this keeps the grace from being freed until it returns. */
static inline void grace_leave(struct grace *g, _Atomic uint32_t *place)
{
	atomic_fetch_sub(place, 1);
	if (__builtin_expect(atomic_load(&g->waited_for), 0))
		grace_tell(g);
}

/* Waits until everybody is out who was inside. Not from inside. */
void grace_wait(struct grace *g);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Many pass through; now and then somebody waits until all are out who came in before, and holds up nobody. */
#ifndef PLATTER_CORE_GRACE_H
#define PLATTER_CORE_GRACE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

#include "core/fence.h"
#include "core/slots.h"
#include "core/wait.h"

/*
 * For rules that change while requests go by. Who passes first comes in, then looks at the rules; who changes them first stores
 * the new ones, then waits here: after that, all who are inside go by the new rules. Rules are to be read and stored by
 * sequentially consistent atomics. Each thread counts on a cache line of its own, as at a gate (core/gate.h), but newcomers
 * never wait, and passing costs no atomic operation where core/fence.h says so; waiting costs some microseconds at least.
 * Threads and fibers alike; both sides may wait while inside. Who comes in goes out on the same thread. Zero-initialised it is
 * usable; nothing has to be destroyed. 4 KiB.
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

/* Whether the slot is the calling thread's alone, and may be counted on without an atomic operation. */
static inline bool grace_is_own(unsigned index)
{
	return __builtin_expect(fence_is_asymmetric && index != STAT_SLOT_SHARED, 1);
}

/* Comes in; what to leave with. */
static inline _Atomic uint32_t *grace_enter(struct grace *g)
{
	unsigned index = stat_thread_index ? stat_thread_index : stat_thread_assign();
	_Atomic uint32_t *place = &g->slots[index].inside[atomic_load(&g->side)];

	if (grace_is_own(index)) {
		atomic_store_explicit(place, atomic_load_explicit(place, memory_order_relaxed) + 1, memory_order_relaxed);
		fence_light();
	} else {
		atomic_fetch_add(place, 1);
	}
	return place;
}

/* Goes out. Who does this keeps the grace from being freed until it returns. */
static inline void grace_leave(struct grace *g, _Atomic uint32_t *place)
{
	unsigned index = (unsigned)(((uintptr_t)place - (uintptr_t)g->slots) / sizeof(g->slots[0]));

	assert(index == stat_thread_index);
	if (grace_is_own(index)) {
		atomic_store_explicit(place, atomic_load_explicit(place, memory_order_relaxed) - 1, memory_order_release);
		fence_light();
	} else {
		atomic_fetch_sub(place, 1);
	}
	if (__builtin_expect(atomic_load(&g->waited_for), 0))
		grace_tell(g);
}

/* Waits until everybody is out who was inside. Not from inside. */
void grace_wait(struct grace *g);

#endif

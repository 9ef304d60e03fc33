/* SPDX-License-Identifier: BSD-3-Clause */
/* Many pass through at almost no cost; now and then somebody closes the gate and waits until all are out. */
#ifndef PLATTER_CORE_GATE_H
#define PLATTER_CORE_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/fence.h"
#include "core/slots.h"
#include "core/wait.h"

/*
 * A shared/exclusive lock for the case that exclusive use is rare: each thread counts its passers on a cache
 * line of its own, so that threads do not meet, and without an atomic operation where core/fence.h says so.
 * Closing looks at all of them and costs some microseconds at least. Threads and fibers alike; both sides may
 * wait while inside. Zero-initialised it is open; nothing has to be destroyed. 4 KiB.
 */
struct gate {
	struct {
		_Alignas(64) _Atomic uint32_t inside;
	} slots[STAT_SLOTS];
	_Alignas(64) _Atomic uint32_t closed;
	struct wait_mutex closers; /* one at a time */
	struct wait_signal changed; /* it was opened, or somebody left while it was closed */
};

/* The ways out of line: for the functions below alone. `counted`: the thread has counted itself in, and found
 * it closed. */
void gate_enter_slowly(struct gate *g, bool counted);
void gate_leave_slowly(struct gate *g);
void gate_tell(struct gate *g);

/* Counts one more or, by UINT32_MAX, one less in a slot that only the caller writes; what it looks at
 * afterwards is of after it. */
static inline void gate_count(struct gate *g, unsigned own, uint32_t n)
{
	_Atomic uint32_t *inside = &g->slots[own].inside;

	atomic_store_explicit(inside, atomic_load_explicit(inside, memory_order_relaxed) + n,
			      memory_order_release);
	fence_light();
}

static inline bool gate_is_closed(const struct gate *g)
{
	return __builtin_expect(atomic_load(&g->closed), 0);
}

/* Goes in, waiting while it is closed. */
static inline void gate_enter(struct gate *g)
{
	unsigned own = stat_own_index;

	if (own) {
		gate_count(g, own, 1);
		if (!gate_is_closed(g))
			return;
	}
	gate_enter_slowly(g, own);
}

/* Comes out again. */
static inline void gate_leave(struct gate *g)
{
	unsigned own = stat_own_index;

	if (__builtin_expect(!own, 0)) {
		gate_leave_slowly(g);
		return;
	}
	gate_count(g, own, UINT32_MAX);
	if (gate_is_closed(g))
		gate_tell(g);
}

/* Keeps newcomers out and waits until everybody is out. */
void gate_close(struct gate *g);
void gate_open(struct gate *g);

#endif

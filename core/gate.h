/* SPDX-License-Identifier: BSD-3-Clause */
/* Many pass through at almost no cost; now and then somebody closes the gate and waits until all are out. */
#ifndef PLATTER_CORE_GATE_H
#define PLATTER_CORE_GATE_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/slots.h"
#include "core/wait.h"

/*
 * A shared/exclusive lock for the case that exclusive use is rare: each thread counts its passers on a cache line of its
 * own, so that threads do not meet. Closing looks at all of them. Threads and fibers alike; both sides may wait while
 * inside. Zero-initialised it is open; nothing has to be destroyed. 4 KiB.
 */
struct gate {
	struct {
		_Alignas(64) _Atomic uint32_t inside;
	} slots[STAT_SLOTS];
	_Alignas(64) _Atomic uint32_t closed;
	struct wait_mutex closers; /* one at a time */
	struct wait_signal changed; /* it was opened, or somebody left while it was closed */
};

/* The ways out of line: for the functions below alone. */
void gate_step_back(struct gate *g);
void gate_tell(struct gate *g);

static inline _Atomic uint32_t *gate_count(struct gate *g)
{
	return &g->slots[stat_thread_index ? stat_thread_index : stat_thread_assign()].inside;
}

/* Comes out again. */
static inline void gate_leave(struct gate *g)
{
	atomic_fetch_sub(gate_count(g), 1);
	if (__builtin_expect(atomic_load(&g->closed), 0))
		gate_tell(g);
}

/* Goes in, waiting while it is closed. */
static inline void gate_enter(struct gate *g)
{
	atomic_fetch_add(gate_count(g), 1);
	while (__builtin_expect(atomic_load(&g->closed), 0)) {
		gate_step_back(g);
		atomic_fetch_add(gate_count(g), 1);
	}
}

/* Keeps newcomers out and waits until everybody is out. */
void gate_close(struct gate *g);
void gate_open(struct gate *g);

#endif

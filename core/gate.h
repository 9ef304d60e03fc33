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

/* Goes in, waiting while it is closed. */
void gate_enter(struct gate *g);
void gate_leave(struct gate *g);

/* Keeps newcomers out and waits until everybody is out. */
void gate_close(struct gate *g);
void gate_open(struct gate *g);

#endif

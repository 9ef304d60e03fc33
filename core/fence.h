/* SPDX-License-Identifier: BSD-3-Clause */
/* Two fences for two parties that look at each other's stores: one costs nothing, the other pays for both. */
#ifndef PLATTER_CORE_FENCE_H
#define PLATTER_CORE_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>

/*
 * Each of two threads stores something, then looks what the other one has stored. That at least one sees the other needs a full
 * fence between store and load on both sides, and on the side that comes by millions of times a second it waits there until
 * all its earlier stores have reached memory. With membarrier(2) that side needs to keep the compiler from reordering and no more, since
 * the other one makes every processor that runs a thread of this process pass a full fence.
 *
 * Set before main() and never changed: whether the light side may do without. False where the kernel has no membarrier(2), and
 * under ThreadSanitizer, which does not know it: then both sides use sequentially consistent operations.
 */
extern bool fence_is_asymmetric;

/* Between store and load of the frequent side. Only when fence_is_asymmetric. */
static inline void fence_light(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* Between store and load of the rare side: some microseconds. For all threads and fibers. */
void fence_heavy(void);

#endif

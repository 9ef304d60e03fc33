/* SPDX-License-Identifier: BSD-3-Clause */
/* The counters behind core/stats.h: one slot a thread and node, so that no cache line is shared. For the core alone. */
#ifndef PLATTER_CORE_SLOTS_H
#define PLATTER_CORE_SLOTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/stats.h"

/*
 * A thread owns one index among STAT_SLOTS while it lives, and with it the slot of that index in every node:
 * it alone writes there, so counting is a plain load and store and readers sum over all slots. Threads that
 * find no free index share the last slot and count there with atomic additions. Indexes are used again when their
 * thread has ended; the slots keep their sums.
 */
#define STAT_SLOTS 64
#define STAT_SLOT_SHARED (STAT_SLOTS - 1)

struct stat_count {
	_Atomic uint64_t started, finished, bytes;
};

/* What reads and writes that succeed look at is one cache line. */
struct stat_slot {
	_Alignas(64) _Atomic uint64_t *_Atomic latency; /* [STAT_OPS][STAT_BUCKETS]; NULL until something is measured */
	struct stat_count op[STAT_OPS];
	_Atomic uint64_t errors[STAT_OPS];
};

/* 0: not asked for yet; else the thread's index. Initial-exec: no call in the hot path of a shared object. */
extern _Thread_local unsigned stat_thread_index __attribute__((tls_model("initial-exec")));

/*
 * The same index for who counts without an atomic operation; 0 when the thread has to ask: it has no index
 * yet, or the shared one, or this process has no asymmetric fence (core/fence.h). One look then settles all
 * that a request may have to know.
 */
extern _Thread_local unsigned stat_own_index __attribute__((tls_model("initial-exec")));

/* Gives the calling thread an index (1 .. STAT_SLOT_SHARED). */
unsigned stat_thread_assign(void);

/* A zeroed slot; NULL when memory ran out. */
struct stat_slot *stat_slot_new(void);
void stat_slot_free(struct stat_slot *s);

/* Counts one operation's duration; memory for the histogram is made on first use, and left out when there is none. `shared`: see stat_add(). */
void stat_slot_measure(struct stat_slot *s, enum stat_op op, uint64_t ns, bool shared);

/* Adds the slot's counters to `out`. */
void stat_slot_sum(const struct stat_slot *s, struct stat_totals *out);

/* Adds to a counter; `shared` when other threads count there too. */
static inline void stat_add(_Atomic uint64_t *counter, uint64_t n, bool shared)
{
	if (shared)
		atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
	else
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + n,
				      memory_order_relaxed);
}

/* As stat_add of one, publishing what the thread did before: whoever sees the count sees that too. */
static inline void stat_finish(_Atomic uint64_t *counter, bool shared)
{
	if (shared)
		atomic_fetch_add_explicit(counter, 1, memory_order_release);
	else
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + 1,
				      memory_order_release);
}

#endif

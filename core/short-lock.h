/* SPDX-License-Identifier: BSD-3-Clause */
/* A shared/exclusive lock for a few instructions or a copy of memory: never held across anything that waits. */
#ifndef PLATTER_CORE_SHORT_LOCK_H
#define PLATTER_CORE_SHORT_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Unlike the locks of core/wait.h it does not hand over and keeps no queue: whoever comes when it is free takes it, and who
 * finds it held spins for a moment before sleeping. For short sections on several processors that is what scales; a
 * queue would put everybody to sleep in turn. A fiber that finds it held holds up its thread, which is why nothing that
 * waits may be done under it. Zero-initialised it is free; nothing has to be destroyed. Exclusive lockers may starve
 * while shared holders never leave a gap.
 *
 *     state   SHARED * holders, or EXCLUSIVE; with or without SLEEPERS: somebody sleeps until it is free
 */
struct short_lock {
	_Atomic uint32_t state;
};

#define SHORT_LOCK_SLEEPERS 1u
#define SHORT_LOCK_EXCLUSIVE 2u
#define SHORT_LOCK_SHARED 4u

/* The ways out of line: for the functions below alone. */
void short_lock_shared_slowly(struct short_lock *l);
void short_lock_exclusive_slowly(struct short_lock *l);
void short_lock_wake(struct short_lock *l);

static inline void short_lock_shared(struct short_lock *l)
{
	uint32_t s = atomic_load_explicit(&l->state, memory_order_relaxed);

	if ((s & SHORT_LOCK_EXCLUSIVE) ||
	    !atomic_compare_exchange_weak_explicit(&l->state, &s, s + SHORT_LOCK_SHARED,
						   memory_order_acquire, memory_order_relaxed))
		short_lock_shared_slowly(l);
}

/* Takes it if nobody changes anything just now. */
static inline bool short_lock_try_shared(struct short_lock *l)
{
	uint32_t s = atomic_load_explicit(&l->state, memory_order_relaxed);

	return !(s & SHORT_LOCK_EXCLUSIVE) &&
	       atomic_compare_exchange_strong_explicit(&l->state, &s, s + SHORT_LOCK_SHARED, memory_order_acquire,
						       memory_order_relaxed);
}

static inline void short_unlock_shared(struct short_lock *l)
{
	uint32_t s = atomic_fetch_sub_explicit(&l->state, SHORT_LOCK_SHARED, memory_order_release);

	if (s == (SHORT_LOCK_SHARED | SHORT_LOCK_SLEEPERS))
		short_lock_wake(l);
}

static inline void short_lock_exclusive(struct short_lock *l)
{
	uint32_t s = 0;

	if (!atomic_compare_exchange_strong_explicit(&l->state, &s, SHORT_LOCK_EXCLUSIVE,
						     memory_order_acquire, memory_order_relaxed))
		short_lock_exclusive_slowly(l);
}

static inline void short_unlock_exclusive(struct short_lock *l)
{
	uint32_t s = atomic_fetch_sub_explicit(&l->state, SHORT_LOCK_EXCLUSIVE, memory_order_release);

	if (s & SHORT_LOCK_SLEEPERS)
		short_lock_wake(l);
}

#endif

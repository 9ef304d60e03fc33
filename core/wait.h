/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting in one colour: the same call blocks a plain thread or suspends a fiber. */
#ifndef PLATTER_CORE_WAIT_H
#define PLATTER_CORE_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Everything here may be used by plain threads and by fibers at the same time, and may be held across calls
 * that wait. Zero-initialised objects are valid and unused; nothing has to be destroyed. Uncontended it
 * costs one or two atomic operations and no system call. In a fiber errno does not survive a wait.
 */

/* No time limit. */
#define WAIT_FOREVER UINT64_MAX

struct waiter;

/* Who waits, in order of arrival. Inside the objects below. */
struct wait_queue {
	_Atomic uint32_t lock;
	struct waiter *head, *tail;
};

/* ------------------------------------------------------------------ mutex */

/*
 * Mutual exclusion; first come, first served once there is a queue. Not recursive. Who holds it last may
 * free it at once: an unlock by somebody else is over, as far as the mutex is concerned, before the next
 * lock succeeds.
 */
struct wait_mutex {
	_Atomic uint32_t state;
	struct wait_queue queue;
};

void wait_mutex_lock(struct wait_mutex *m);
bool wait_mutex_trylock(struct wait_mutex *m);
void wait_mutex_unlock(struct wait_mutex *m);

/* ------------------------------------------------------------------ shared/exclusive lock */

/*
 * Many shared holders or one exclusive one. A waiting exclusive locker holds back later shared ones. Not
 * recursive.
 */
struct wait_rwlock {
	_Atomic uint32_t state;
	struct wait_queue queue;
};

void wait_rwlock_lock_shared(struct wait_rwlock *l);
void wait_rwlock_unlock_shared(struct wait_rwlock *l);
void wait_rwlock_lock_exclusive(struct wait_rwlock *l);
void wait_rwlock_unlock_exclusive(struct wait_rwlock *l);

/* ------------------------------------------------------------------ signal */

/*
 * A counter that can be waited on: "has anything happened since I looked?" Any number of waiters.
 *
 *     uint32_t seen = wait_signal_count(&s);
 *     if (!condition()) wait_signal_wait(&s, seen, timeout);   (and look again)
 */
struct wait_signal {
	_Atomic uint32_t count;
	struct wait_queue queue;
};

/* The counter now; to be read before the condition is looked at. */
uint32_t wait_signal_count(struct wait_signal *s);

/*
 * Waits until the counter is no longer `seen`. 0, or -ETIMEDOUT after `timeout_ns`. After 0 the signal may
 * be freed if nobody will raise it any more: the raise that was seen does not touch it any longer.
 */
int wait_signal_wait(struct wait_signal *s, uint32_t seen, uint64_t timeout_ns);

/* Counts one up and wakes every waiter. May be called from any thread, not from signal handlers. */
void wait_signal_raise(struct wait_signal *s);

/* ------------------------------------------------------------------ group */

/* Waits for a number of things to end: the join of concurrent work. */
struct wait_group {
	_Atomic uint32_t pending;
	struct wait_queue queue;
};

void wait_group_add(struct wait_group *g, uint32_t count);

/* One ended. A thread or fiber that comes back from wait_group_wait() may free the group at once. */
void wait_group_done(struct wait_group *g);

/* Waits until none is pending. */
void wait_group_wait(struct wait_group *g);

/* ------------------------------------------------------------------ time */

/* Sleeps for `ns` nanoseconds; other fibers of the loop go on. */
void wait_sleep(uint64_t ns);

/* Lets other ready fibers of the loop run; on a plain thread sched_yield(). */
void wait_yield(void);

/* Monotonic time in ns. */
uint64_t wait_now(void);

#endif

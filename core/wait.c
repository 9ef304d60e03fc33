/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting
 *
 * Every object is one word of state and a queue of waiters. Without contention one atomic operation on the
 * word is all. Otherwise the caller puts a `struct waiter`, which lives in its own frame, into the queue
 * and waits for that: a plain thread in futex(2) on waiter.woken, a fiber by leaving its loop. Who lets it
 * go on takes it out of the queue first.
 *
 * The queue is protected by a lock in the object (queue.lock), a futex mutex of three values: free, held,
 * held with sleepers. It is held for a few instructions, never across a wait or a wake-up; nothing is taken
 * under it. Fibers take it, too: the thread may sleep for a moment then, which is shorter than a switch
 * would take.
 *
 * State words and what may change them
 *
 *   mutex    0 | HELD | HELD+QUEUED
 *   rwlock   0 | n*SHARED | HELD, each but 0 with or without QUEUED
 *   signal   counter * COUNT, with or without QUEUED
 *   group    number pending
 *
 *   1  QUEUED is set and cleared only under queue.lock; it is set exactly while the queue is not empty.
 *   2  While QUEUED is set, nobody changes the word without queue.lock, but that shared holders other than
 *      the last leave. So newcomers line up: first come, first served, and a waiting exclusive locker holds
 *      back later shared ones.
 *   3  Locks are handed over: whoever unlocks gives the lock to the first in the queue (and, if that one
 *      wants it shared, to those directly behind it that want the same), and the word goes from "held by
 *      me" to "held by them". It is never free while somebody waits.
 *   4  Whoever takes a waiter out of the queue, and nobody else, wakes it, exactly once. A waiter whose
 *      time is up takes itself out; if it is not in the queue any more it has been woken, or will be, and
 *      waits for that.
 *
 * Freeing. The waiter may free the object as soon as it comes back, so the last access by whoever lets it
 * go on must come before. Each way out:
 *
 *   unlock, done, raise without waiters   a single compare-and-swap, which is the last access
 *   ... with waiters                      all changes are made under queue.lock; releasing it is the last
 *                                         access to the object, and only then the waiters are woken, who
 *                                         are the caller's by rule 4
 *   the last wait_group_done()            counts to zero under queue.lock, and wait_group_wait() looks at
 *                                         the count under queue.lock, so it cannot see zero before done()
 *                                         has released it
 *   wait_signal_wait()                    in the same way looks at the counter only under queue.lock
 *
 * Releasing queue.lock with sleepers is an exchange followed by FUTEX_WAKE on the address, which may be
 * gone by then. That is harmless: the kernel only uses the address to find sleepers; at worst somebody
 * else's futex sees a spurious wake-up, which all users of futexes must expect (futex(2)). The same holds
 * for waiter.woken: it is set, then FUTEX_WAKE is called.
 *
 * Memory order: taking a lock acquires, giving it up releases; a hand-over goes through queue.lock and then
 * through waiter.woken or the loop's inbound queue, each a release and an acquire.
 *
 * Deliberately not done: spinning before sleeping (the holder may be a fiber of the same thread, or on the
 * only other processor a guest), priority inheritance, recursion, timeouts but for signals, detection of
 * deadlocks.
 */
#include "core/wait.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/fiber.h"
#include "core/loop-internal.h"

#define NS_PER_S UINT64_C(1000000000)

struct waiter {
	struct waiter *next, *prev; /* in the queue, or in a list of those to be woken */
	struct fiber *fiber;        /* NULL: a plain thread */
	_Atomic uint32_t woken;     /* a plain thread's futex */
	bool queued;                /* under queue.lock */
	bool shared;
};

/* ------------------------------------------------------------------ time */

uint64_t wait_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* When `ns` from now is; WAIT_FOREVER when that is never. */
static uint64_t deadline_after(uint64_t ns)
{
	uint64_t now = wait_now();

	return ns < WAIT_FOREVER - now ? now + ns : WAIT_FOREVER;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* ------------------------------------------------------------------ futex(2) */

/* Sleeps while *word is `value`, until `deadline` at most. Comes back for no reason at times. */
static void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline)
{
	struct timespec until = to_timespec(deadline);

	/* of all the waiting operations this is the one whose time limit is a point in time */
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
		deadline == WAIT_FOREVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake_one(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* ------------------------------------------------------------------ the queue and its lock */

enum { LOCK_FREE, LOCK_HELD, LOCK_SLEEPERS };

#define LOCK_SPINS 100

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static bool queue_trylock(struct wait_queue *q)
{
	uint32_t lock_free = LOCK_FREE;

	return atomic_compare_exchange_strong_explicit(&q->lock, &lock_free, LOCK_HELD, memory_order_acquire,
						       memory_order_relaxed);
}

static void queue_lock(struct wait_queue *q)
{
	for (int i = 0; i < LOCK_SPINS; i++) {
		if (queue_trylock(q))
			return;
		relax();
	}
	/* whoever slept cannot know whether others still do, so it says that they do */
	while (atomic_exchange_explicit(&q->lock, LOCK_SLEEPERS, memory_order_acquire) != LOCK_FREE)
		futex_wait(&q->lock, LOCK_SLEEPERS, WAIT_FOREVER);
}

static void queue_unlock(struct wait_queue *q)
{
	if (atomic_exchange_explicit(&q->lock, LOCK_FREE, memory_order_release) == LOCK_SLEEPERS)
		futex_wake_one(&q->lock);
}

static void queue_push(struct wait_queue *q, struct waiter *w)
{
	w->queued = true;
	w->next = NULL;
	w->prev = q->tail;
	if (q->tail)
		q->tail->next = w;
	else
		q->head = w;
	q->tail = w;
}

static void queue_remove(struct wait_queue *q, struct waiter *w)
{
	if (w->prev)
		w->prev->next = w->next;
	else
		q->head = w->next;
	if (w->next)
		w->next->prev = w->prev;
	else
		q->tail = w->prev;
	w->queued = false;
}

static struct waiter *queue_pop(struct wait_queue *q)
{
	struct waiter *w = q->head;

	queue_remove(q, w);
	w->next = NULL;
	return w;
}

/* Takes all of them; a list by `next`. */
static struct waiter *queue_take_all(struct wait_queue *q)
{
	struct waiter *list = q->head;

	for (struct waiter *w = list; w; w = w->next)
		w->queued = false;
	q->head = q->tail = NULL;
	return list;
}

/* ------------------------------------------------------------------ one waiter */

static void waiter_wait(struct waiter *w)
{
	if (w->fiber) {
		loop_suspend(w->fiber);
		return;
	}
	while (!atomic_load_explicit(&w->woken, memory_order_acquire))
		futex_wait(&w->woken, 0, WAIT_FOREVER);
}

/* Lets those of the list go on, who may be gone, and their queue with them, as soon as they are told. */
static void waiters_wake(struct waiter *list)
{
	struct waiter *next;

	for (struct waiter *w = list; w; w = next) {
		next = w->next;
		if (w->fiber) {
			loop_wake(w->fiber);
		} else {
			atomic_store_explicit(&w->woken, 1, memory_order_release);
			futex_wake_one(&w->woken);
		}
	}
}

/* Puts `w` into the queue, gives up the queue's lock and waits. */
static void queue_wait(struct wait_queue *q, struct waiter *w)
{
	queue_push(q, w);
	queue_unlock(q);
	waiter_wait(w);
}

/* ------------------------------------------------------------------ changing a state word */

/* Compare-and-swap that gives up the object: what was done before is seen by who takes it next. */
static bool swap_release(_Atomic uint32_t *word, uint32_t *old, uint32_t new)
{
	return atomic_compare_exchange_weak_explicit(word, old, new, memory_order_release,
						     memory_order_relaxed);
}

static bool swap_acquire(_Atomic uint32_t *word, uint32_t *old, uint32_t new)
{
	return atomic_compare_exchange_weak_explicit(word, old, new, memory_order_acquire,
						     memory_order_relaxed);
}

#define QUEUED 1u

/* ------------------------------------------------------------------ mutex */

#define HELD 2u

bool wait_mutex_trylock(struct wait_mutex *m)
{
	uint32_t unlocked = 0;

	return atomic_compare_exchange_strong_explicit(&m->state, &unlocked, HELD, memory_order_acquire,
						       memory_order_relaxed);
}

/* Takes it if it is free, otherwise marks it as waited for. Under queue.lock. */
static bool take_or_mark(_Atomic uint32_t *state)
{
	uint32_t s = atomic_load_explicit(state, memory_order_relaxed);

	for (;;) {
		if (s == 0) {
			if (swap_acquire(state, &s, HELD))
				return true;
		} else if (swap_acquire(state, &s, s | QUEUED)) {
			return false;
		}
	}
}

static void lock_slowly(_Atomic uint32_t *state, struct wait_queue *q)
{
	struct waiter w = {.fiber = loop_fiber()};

	queue_lock(q);
	if (take_or_mark(state))
		queue_unlock(q);
	else
		queue_wait(q, &w);
}

void wait_mutex_lock(struct wait_mutex *m)
{
	if (!wait_mutex_trylock(m))
		lock_slowly(&m->state, &m->queue);
}

static void mutex_hand_over(struct wait_mutex *m)
{
	struct waiter *w;

	queue_lock(&m->queue);
	w = queue_pop(&m->queue);
	if (!m->queue.head)
		atomic_store_explicit(&m->state, HELD, memory_order_relaxed);
	queue_unlock(&m->queue);
	waiters_wake(w);
}

void wait_mutex_unlock(struct wait_mutex *m)
{
	uint32_t held = HELD;

	if (atomic_compare_exchange_strong_explicit(&m->state, &held, 0, memory_order_release,
						    memory_order_relaxed))
		return;
	assert(held == (HELD | QUEUED));
	mutex_hand_over(m);
}

/* ------------------------------------------------------------------ shared/exclusive lock */

#define SHARED 4u /* one shared holder */

static bool may_share(uint32_t state)
{
	return !(state & (HELD | QUEUED));
}

static void lock_shared_slowly(struct wait_rwlock *l)
{
	struct waiter w = {.fiber = loop_fiber(), .shared = true};
	uint32_t s;

	queue_lock(&l->queue);
	s = atomic_load_explicit(&l->state, memory_order_relaxed);
	for (;;) {
		if (may_share(s)) {
			if (swap_acquire(&l->state, &s, s + SHARED)) {
				queue_unlock(&l->queue);
				return;
			}
		} else if (swap_acquire(&l->state, &s, s | QUEUED)) {
			break;
		}
	}
	queue_wait(&l->queue, &w);
}

void wait_rwlock_lock_shared(struct wait_rwlock *l)
{
	uint32_t s = atomic_load_explicit(&l->state, memory_order_relaxed);

	while (may_share(s))
		if (swap_acquire(&l->state, &s, s + SHARED))
			return;
	lock_shared_slowly(l);
}

void wait_rwlock_lock_exclusive(struct wait_rwlock *l)
{
	uint32_t unlocked = 0;

	if (!atomic_compare_exchange_strong_explicit(&l->state, &unlocked, HELD, memory_order_acquire,
						     memory_order_relaxed))
		lock_slowly(&l->state, &l->queue);
}

/*
 * Gives the lock, which nobody holds any more but the caller, to those whose turn it is. Under queue.lock.
 */
static struct waiter *rwlock_grant(struct wait_rwlock *l)
{
	struct waiter *first = queue_pop(&l->queue), *last = first;
	uint32_t state = first->shared ? SHARED : HELD;

	while (first->shared && l->queue.head && l->queue.head->shared) {
		last->next = queue_pop(&l->queue);
		last = last->next;
		state += SHARED;
	}
	if (l->queue.head)
		state |= QUEUED;
	atomic_store_explicit(&l->state, state, memory_order_release);
	return first;
}

void wait_rwlock_unlock_exclusive(struct wait_rwlock *l)
{
	uint32_t held = HELD;
	struct waiter *list;

	if (atomic_compare_exchange_strong_explicit(&l->state, &held, 0, memory_order_release,
						    memory_order_relaxed))
		return;
	assert(held == (HELD | QUEUED));
	queue_lock(&l->queue);
	list = rwlock_grant(l);
	queue_unlock(&l->queue);
	waiters_wake(list);
}

void wait_rwlock_unlock_shared(struct wait_rwlock *l)
{
	uint32_t s = atomic_load_explicit(&l->state, memory_order_relaxed);
	struct waiter *list = NULL;

	while (s != (SHARED | QUEUED)) {
		assert(s >= SHARED);
		if (swap_release(&l->state, &s, s - SHARED))
			return;
	}
	/*
	 * The last of them, and somebody waits: nobody can come in or leave now, but under queue.lock. What
	 * those did who left before is handed over, too: this load meets their releases.
	 */
	(void)atomic_load_explicit(&l->state, memory_order_acquire);
	queue_lock(&l->queue);
	list = rwlock_grant(l);
	queue_unlock(&l->queue);
	waiters_wake(list);
}

/* ------------------------------------------------------------------ signal */

#define COUNT 2u

uint32_t wait_signal_count(struct wait_signal *s)
{
	return atomic_load_explicit(&s->count, memory_order_acquire) / COUNT;
}

void wait_signal_raise(struct wait_signal *s)
{
	uint32_t c = atomic_load_explicit(&s->count, memory_order_relaxed);
	struct waiter *list;

	while (!(c & QUEUED))
		if (swap_release(&s->count, &c, c + COUNT))
			return;
	queue_lock(&s->queue);
	list = queue_take_all(&s->queue);
	c = atomic_load_explicit(&s->count, memory_order_relaxed);
	while (!swap_release(&s->count, &c, (c & ~QUEUED) + COUNT))
		;
	queue_unlock(&s->queue);
	waiters_wake(list);
}

/* True when the counter is still `seen`, and then it is marked as waited for. Under queue.lock. */
static bool is_still(struct wait_signal *s, uint32_t seen)
{
	uint32_t c = atomic_load_explicit(&s->count, memory_order_acquire);

	while (c / COUNT == seen)
		if (atomic_compare_exchange_weak_explicit(&s->count, &c, c | QUEUED, memory_order_acquire,
							  memory_order_acquire))
			return true;
	return false;
}

/*
 * The waiter's time is up: takes it out of the queue. False when somebody else has done so, who will wake
 * it.
 */
static bool give_up(struct wait_signal *s, struct waiter *w)
{
	bool queued;

	queue_lock(&s->queue);
	queued = w->queued;
	if (queued) {
		queue_remove(&s->queue, w);
		if (!s->queue.head)
			atomic_fetch_and_explicit(&s->count, ~QUEUED, memory_order_relaxed);
	}
	queue_unlock(&s->queue);
	return queued;
}

static int wait_thread_until(struct wait_signal *s, struct waiter *w, uint64_t deadline)
{
	while (!atomic_load_explicit(&w->woken, memory_order_acquire)) {
		if (wait_now() < deadline)
			futex_wait(&w->woken, 0, deadline);
		else if (give_up(s, w))
			return -ETIMEDOUT;
		else
			deadline = WAIT_FOREVER;
	}
	return 0;
}

struct fiber_limit {
	struct timer timer; /* first */
	struct wait_signal *signal;
	struct waiter *waiter;
	bool passed;
};

/* The signal exists: its waiter, which has not come back, is the fiber whose timer this is. */
static void fiber_limit_passed(struct timer *t)
{
	struct fiber_limit *limit = (struct fiber_limit *)t;

	limit->passed = give_up(limit->signal, limit->waiter);
	if (limit->passed)
		loop_wake(limit->waiter->fiber);
}

static int wait_fiber_until(struct wait_signal *s, struct waiter *w, uint64_t deadline)
{
	struct fiber_limit limit = {.timer.deadline = deadline,
				    .timer.fire = fiber_limit_passed,
				    .signal = s,
				    .waiter = w};

	loop_timer_add(w->fiber, &limit.timer);
	loop_suspend(w->fiber);
	loop_timer_remove(w->fiber, &limit.timer);
	return limit.passed ? -ETIMEDOUT : 0;
}

int wait_signal_wait(struct wait_signal *s, uint32_t seen, uint64_t timeout_ns)
{
	uint64_t deadline = timeout_ns == WAIT_FOREVER ? WAIT_FOREVER : deadline_after(timeout_ns);
	struct waiter w = {.fiber = loop_fiber()};

	queue_lock(&s->queue);
	if (!is_still(s, seen)) {
		queue_unlock(&s->queue);
		return 0;
	}
	queue_push(&s->queue, &w);
	queue_unlock(&s->queue);
	if (deadline != WAIT_FOREVER)
		return w.fiber ? wait_fiber_until(s, &w, deadline) : wait_thread_until(s, &w, deadline);
	waiter_wait(&w);
	return 0;
}

/* ------------------------------------------------------------------ group */

void wait_group_add(struct wait_group *g, uint32_t count)
{
	atomic_fetch_add_explicit(&g->pending, count, memory_order_relaxed);
}

void wait_group_done(struct wait_group *g)
{
	uint32_t n = atomic_load_explicit(&g->pending, memory_order_relaxed);
	struct waiter *list = NULL;

	while (n > 1)
		if (swap_release(&g->pending, &n, n - 1))
			return;
	assert(n == 1);
	/* probably the last: see "Freeing" above */
	queue_lock(&g->queue);
	if (atomic_fetch_sub_explicit(&g->pending, 1, memory_order_acq_rel) == 1)
		list = queue_take_all(&g->queue);
	queue_unlock(&g->queue);
	waiters_wake(list);
}

void wait_group_wait(struct wait_group *g)
{
	struct waiter w = {.fiber = loop_fiber()};

	queue_lock(&g->queue);
	if (atomic_load_explicit(&g->pending, memory_order_acquire) == 0)
		queue_unlock(&g->queue);
	else
		queue_wait(&g->queue, &w);
}

/* ------------------------------------------------------------------ sleep and yield */

struct sleeper {
	struct timer timer; /* first */
	struct fiber *fiber;
};

static void sleeper_wake(struct timer *t)
{
	loop_wake(((struct sleeper *)t)->fiber);
}

void wait_sleep(uint64_t ns)
{
	struct sleeper s = {.fiber = loop_fiber(), .timer.fire = sleeper_wake};
	struct timespec until;

	s.timer.deadline = deadline_after(ns);
	if (s.fiber) {
		loop_timer_add(s.fiber, &s.timer);
		loop_suspend(s.fiber);
		return;
	}
	until = to_timespec(s.timer.deadline);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void wait_yield(void)
{
	struct fiber *f = loop_fiber();

	if (!f) {
		sched_yield();
		return;
	}
	loop_wake(f);
	loop_suspend(f);
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/short-lock.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 100

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* One try: adds `take` to the state if none of the bits in `unless` are set. *s is the state seen. */
static bool try_take(struct short_lock *l, uint32_t *s, uint32_t unless, uint32_t take)
{
	*s = atomic_load_explicit(&l->state, memory_order_relaxed);
	return !(*s & unless) &&
	       atomic_compare_exchange_strong_explicit(&l->state, s, *s + take, memory_order_acquire,
						       memory_order_relaxed);
}

/* Sleeps as long as the state is `s`, having said so in it. Comes back for no reason at times. */
static void sleep_on(struct short_lock *l, uint32_t s)
{
	uint32_t sleeping = s | SHORT_LOCK_SLEEPERS;

	if (s != sleeping && !atomic_compare_exchange_strong_explicit(&l->state, &s, sleeping, memory_order_relaxed,
								      memory_order_relaxed))
		return;
	syscall(SYS_futex, &l->state, FUTEX_WAIT_PRIVATE, sleeping, NULL, NULL, 0);
}

static void take_slowly(struct short_lock *l, uint32_t unless, uint32_t take)
{
	uint32_t s;

	for (;;) {
		for (int i = 0; i < SPINS; i++) {
			if (try_take(l, &s, unless, take))
				return;
			relax();
		}
		if (s & unless)
			sleep_on(l, s);
	}
}

void short_lock_shared_slowly(struct short_lock *l)
{
	take_slowly(l, SHORT_LOCK_EXCLUSIVE, SHORT_LOCK_SHARED);
}

void short_lock_exclusive_slowly(struct short_lock *l)
{
	take_slowly(l, ~SHORT_LOCK_SLEEPERS, SHORT_LOCK_EXCLUSIVE);
}

/*
 * The lock was free but for sleepers when its last holder left. If somebody holds it again by now he will see the bit, unless
 * it is taken off here; so it is taken off together with waking all, who put it on again as they need.
 */
void short_lock_wake(struct short_lock *l)
{
	atomic_fetch_and_explicit(&l->state, ~SHORT_LOCK_SLEEPERS, memory_order_relaxed);
	syscall(SYS_futex, &l->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Limits on requests or bytes a second: a token bucket kept as a time. */
#ifndef PLATTER_DECORATORS_FAULT_LIMIT_H
#define PLATTER_DECORATORS_FAULT_LIMIT_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * Instead of tokens the bucket holds the time at which they would be used up, and each request moves that on by what
 * it costs: one atomic that all requests share, no lock, nobody who refills. A request goes on at the time that it
 * found. A bucket that was not used lets through what would have come in `burst_ns` at once. Zero-initialised it
 * limits nothing.
 */
struct fault_limit {
	uint64_t per_second; /* 0: no limit */
	uint64_t burst_ns;
	_Atomic uint64_t spent_until; /* wait_now() time in ns */
};

/* One request is never charged more. */
#define FAULT_LIMIT_LONGEST_NS (UINT64_C(3600) * 1000000000)

/* Takes `amount` (requests or bytes) at the time `now`, in ns; how long to wait, in ns. Any thread. */
static inline uint64_t fault_limit_take(struct fault_limit *l, uint64_t amount, uint64_t now)
{
	uint64_t spent = atomic_load_explicit(&l->spent_until, memory_order_relaxed), begin, cost;
	unsigned __int128 exact;

	if (!l->per_second)
		return 0;
	exact = (unsigned __int128)amount * 1000000000 / l->per_second;
	cost = exact < FAULT_LIMIT_LONGEST_NS ? (uint64_t)exact : FAULT_LIMIT_LONGEST_NS;
	do {
		begin = now > l->burst_ns ? now - l->burst_ns : 0;
		begin = spent > begin ? spent : begin;
	} while (!atomic_compare_exchange_weak_explicit(&l->spent_until, &spent, begin + cost, memory_order_relaxed,
							memory_order_relaxed));
	return begin > now ? begin - now : 0;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers of one loop: a heap whose nodes live in whoever waits, so that starting one cannot fail. Internal.
 */
#ifndef PLATTER_CORE_TIMERS_H
#define PLATTER_CORE_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
	uint64_t deadline;            /* wait_now() time in ns */
	void (*fire)(struct timer *); /* called once, not in the heap any more */
	/* the heap's own */
	uint64_t order;
	bool armed;
	struct timer *child, *next, *prev;
};

/* Zero-initialised: empty. Used by one thread. */
struct timers {
	struct timer *root;
	uint64_t order;
};

/* Arms a timer; equal deadlines fire in the order in which they were armed. */
void timers_add(struct timers *ts, struct timer *t);

/* Disarms it; no effect when it is not armed. */
void timers_remove(struct timers *ts, struct timer *t);

/* Earliest deadline; UINT64_MAX when there is none. */
static inline uint64_t timers_next(const struct timers *ts)
{
	return ts->root ? ts->root->deadline : UINT64_MAX;
}

/* Fires everything that is due at `now`. */
void timers_run(struct timers *ts, uint64_t now);

#endif

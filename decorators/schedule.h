/* SPDX-License-Identifier: BSD-3-Clause */
/* How long something takes: always the same, the same give or take, or with a tail. */
#ifndef PLATTER_DECORATORS_SCHEDULE_H
#define PLATTER_DECORATORS_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

/* No single wait is longer. */
#define SCHEDULE_LONGEST_NS (UINT64_C(3600) * 1000000000)

/*
 * All in ns. Neither jitter nor p99: `time`, always. Jitter: evenly between time - jitter and time + jitter. P99: half of all
 * waits are shorter than `time`, 99 in 100 shorter than `p99`, log-normal, as waits for storage tend to be.
 */
struct schedule {
	uint64_t time;
	uint64_t jitter; /* 0: none; at most `time` */
	uint64_t p99;    /* 0: none; at least `time`, which is not 0 then; not together with jitter */
};

/* Refuses what the comment above does not allow; `what` names it in the message. */
int schedule_check(const struct schedule *s, const char *what, struct error *err);

/* True when it never waits. */
static inline bool schedule_is_empty(const struct schedule *s)
{
	return !s->time;
}

/* One wait in ns, a function of the random number. */
uint64_t schedule_draw(const struct schedule *s, uint64_t random);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* A distribution of latencies, exact to a sixteenth. */
#ifndef PLATTER_CLI_LATENCY_H
#define PLATTER_CLI_LATENCY_H

#include <stdint.h>

/* Each power of two has 16 buckets; below 16 ns each ns has its own. */
#define LATENCY_BUCKETS (61u * 16u)

/* Zero-initialised it is empty. Not locked. */
struct latency {
	uint64_t count, sum_ns, max_ns;
	uint64_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency *l, uint64_t ns);
void latency_merge(struct latency *to, const struct latency *from);

/* The upper bound in ns of bucket `i`: all that it counts took less. */
uint64_t latency_bound(unsigned i);

/* What the given fraction (0..1) of all took at most; 0 when it is empty. */
uint64_t latency_percentile(const struct latency *l, double fraction);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/latency.h"

#include <math.h>

static unsigned bucket_of(uint64_t ns)
{
	unsigned power;

	if (ns < 16)
		return (unsigned)ns;
	power = 63u - (unsigned)__builtin_clzll(ns);
	return (power - 3) * 16 + (unsigned)(ns >> (power - 4) & 15);
}

uint64_t latency_bound(unsigned i)
{
	if (i < 16)
		return i + 1;
	if (i >= LATENCY_BUCKETS - 1)
		return UINT64_MAX;
	return (uint64_t)(i % 16 + 17) << (i / 16 - 1);
}

void latency_add(struct latency *l, uint64_t ns)
{
	l->count++;
	l->sum_ns += ns;
	if (ns > l->max_ns)
		l->max_ns = ns;
	l->buckets[bucket_of(ns)]++;
}

void latency_merge(struct latency *to, const struct latency *from)
{
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

uint64_t latency_percentile(const struct latency *l, double fraction)
{
	uint64_t wanted = (uint64_t)ceil(fraction * (double)l->count), seen = 0;

	if (l->count == 0)
		return 0;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		seen += l->buckets[i];
		if (seen >= wanted && seen > 0)
			return latency_bound(i) < l->max_ns ? latency_bound(i) : l->max_ns;
	}
	return l->max_ns;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* What a node of the tree did: operations, bytes, errors; latency where it is measured. */
#ifndef PLATTER_CORE_STATS_H
#define PLATTER_CORE_STATS_H

#include <stdint.h>

enum stat_op {
	STAT_READ,
	STAT_WRITE,
	STAT_FLUSH,
	STAT_DISCARD,
	STAT_WRITE_ZEROES,
	STAT_EXTENTS,
	STAT_PREFETCH,
	STAT_OPS /* how many there are */
};

/* Latency buckets: bucket i counts what took [2^i, 2^(i+1)) ns; the last one everything longer. */
#define STAT_BUCKETS 40

/* A sum over all threads, taken without stopping them: each counter is exact, but not all of one instant. */
struct stat_totals {
	uint64_t started[STAT_OPS];
	uint64_t finished[STAT_OPS]; /* of them, with or without success */
	uint64_t errors[STAT_OPS];
	uint64_t bytes[STAT_OPS]; /* of those that succeeded */
	uint64_t latency[STAT_OPS][STAT_BUCKETS];
};

/* "read", "write", "flush", "discard", "write-zeroes", "extents", "prefetch". */
const char *stat_op_name(enum stat_op op);

/*
 * Upper bound in ns of the bucket that holds the given fraction (0..1) of `buckets`; 0 when all are empty.
 */
uint64_t stat_percentile_ns(const uint64_t buckets[STAT_BUCKETS], double fraction);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* What the benchmarks written in C share: clock, medians, the way to stop. */
#ifndef PLATTER_BENCH_MEASURE_H
#define PLATTER_BENCH_MEASURE_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wait.h"

/* A benchmark that cannot go on says why and ends. */
static inline __attribute__((noreturn, format(printf, 1, 2))) void bench_die(const char *format, ...)
{
	va_list list;

	fflush(stdout);
	fputs("bench: ", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(1);
}

static inline int bench_compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Median and quartiles of samples. */
struct bench_spread {
	double low, median, high;
};

static inline double bench_quantile(const double *sorted, size_t count, double fraction)
{
	double at = fraction * (double)(count - 1);
	size_t i = (size_t)at;

	return i + 1 < count ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

/* Sorts `samples`, of which there is at least one. */
static inline struct bench_spread bench_spread_of(double *samples, size_t count)
{
	qsort(samples, count, sizeof(*samples), bench_compare_doubles);
	return (struct bench_spread){
		.low = bench_quantile(samples, count, 0.25),
		.median = bench_quantile(samples, count, 0.5),
		.high = bench_quantile(samples, count, 0.75),
	};
}

/* A step of xorshift64; the state is never 0. */
static inline uint64_t bench_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Bytes none of which is zero: disks that look for zeroes find none. Page-aligned; never freed. */
static inline char *bench_payload(size_t size)
{
	uint64_t state = 1;
	char *p = aligned_alloc(4096, size);

	if (!p)
		bench_die("no memory");
	for (size_t i = 0; i < size; i++)
		p[i] = (char)(1 + bench_random(&state) % 255);
	return p;
}

#endif

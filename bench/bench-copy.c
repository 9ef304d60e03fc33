/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-copy: what a guarded copy costs over memcpy()
 *
 * Copies of several lengths, between memory in the cache, to addresses that are multiples of 64 and to others, with
 * memcpy() and safe_copy() in turns; medians, and the median of the differences within a round.
 */
#include <stdbool.h>
#include <stdio.h>

#include "bench/measure.h"
#include "core/safe-copy.h"

#define ROUNDS 101u

static const size_t lengths[] = {16, 64, 512, 4096, 65536};
static const size_t skips[] = {0, 16, 1};
static unsigned rounds = ROUNDS;

static void plain_copy(void *to, const void *from, size_t n)
{
	memcpy(to, from, n);
}

static void guarded_copy(void *to, const void *from, size_t n)
{
	if (safe_copy(to, from, n))
		bench_die("a copy failed");
}

/* Through a pointer, so that neither is made part of the loop. */
static double time_copies(void (*volatile copy)(void *, const void *, size_t), char *to, const char *from, size_t n)
{
	unsigned count = 400000 / (unsigned)(n / 64 + 40);
	uint64_t begin = wait_now();

	for (unsigned i = 0; i < count; i++)
		copy(to, from, n);
	return (double)(wait_now() - begin) / count;
}

static void bench_case(char *to, const char *from, size_t n, size_t skip)
{
	double plain[ROUNDS], guarded[ROUNDS], more[ROUNDS];

	for (unsigned r = 0; r < rounds; r++) {
		if (r & 1)
			plain[r] = time_copies(plain_copy, to + skip, from, n);
		guarded[r] = time_copies(guarded_copy, to + skip, from, n);
		if (!(r & 1))
			plain[r] = time_copies(plain_copy, to + skip, from, n);
		more[r] = guarded[r] - plain[r];
	}
	printf("%8zu  %10zu  %10.1f  %10.1f  %+10.1f\n", n, skip, bench_spread_of(plain, rounds).median,
	       bench_spread_of(guarded, rounds).median, bench_spread_of(more, rounds).median);
}

int main(int argc, char **argv)
{
	char *to = bench_payload(1 << 17), *from = bench_payload(1 << 17);

	if (argc > 1 && !strcmp(argv[1], "--quick"))
		rounds = 7;
	printf("%8s  %10s  %10s  %10s  %10s\n", "bytes", "skew", "memcpy ns", "guarded ns", "difference");
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		for (size_t s = 0; s < sizeof(skips) / sizeof(*skips); s++)
			bench_case(to, from, lengths[i], skips[s]);
	return 0;
}

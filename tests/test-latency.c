/* SPDX-License-Identifier: BSD-3-Clause */
/* Percentiles of latencies are right to a sixteenth, and never less than what was measured. */
#include "tests/tap.h"

#include "cli/latency.h"

static void test_empty(void)
{
	static const struct latency l;

	CHECK_EQ(latency_percentile(&l, 0.5), 0);
}

static void test_small_ones_are_exact(void)
{
	static struct latency l;

	latency_add(&l, 3);
	latency_add(&l, 7);
	CHECK_EQ(latency_percentile(&l, 0.5), 4); /* took less than that */
	CHECK_EQ(latency_percentile(&l, 1), 7);
}

/* 1 us to 1 ms in steps of 1 us. */
static void test_to_a_sixteenth(void)
{
	static const unsigned percents[] = {1, 10, 50, 90, 99};
	static struct latency l;

	for (uint64_t us = 1; us <= 1000; us++)
		latency_add(&l, us * 1000);
	for (unsigned i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
		uint64_t exact = percents[i] * UINT64_C(10000), found = latency_percentile(&l, percents[i] / 100.0);
		CHECK(found >= exact);
		CHECK(found <= exact + exact / 16);
	}
	CHECK_EQ(latency_percentile(&l, 1), 1000000);
	CHECK_EQ(l.count, 1000);
	CHECK_EQ(l.sum_ns, UINT64_C(500500000));
}

static void test_every_value_is_below_its_bound(void)
{
	for (unsigned shift = 0; shift < 64; shift++) {
		struct latency l = {0};
		unsigned i = 0;
		latency_add(&l, UINT64_C(1) << shift);
		while (l.buckets[i] == 0)
			i++;
		CHECK(latency_bound(i) > UINT64_C(1) << shift);
		CHECK(i == 0 || latency_bound(i - 1) <= UINT64_C(1) << shift);
	}
}

static void test_merge(void)
{
	static struct latency a, b;

	latency_add(&a, 5);
	latency_add(&b, 9);
	latency_merge(&a, &b);
	CHECK_EQ(a.count, 2);
	CHECK_EQ(a.max_ns, 9);
	CHECK_EQ(latency_percentile(&a, 1), 9);
}

int main(void)
{
	TAP_RUN(test_empty);
	TAP_RUN(test_small_ones_are_exact);
	TAP_RUN(test_to_a_sixteenth);
	TAP_RUN(test_every_value_is_below_its_bound);
	TAP_RUN(test_merge);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Durations are those of the clock, whichever way they are measured. */
#include "core/stopwatch.h"

#include <unistd.h>

#include "tests/tap.h"

#define LONG_ENOUGH 30000 /* us: longer than it takes to calibrate */

/* Both are looked at one after the other, so that the stopwatch lies between two looks at the clock. */
static void check_duration(unsigned microseconds)
{
	uint64_t before = stopwatch_clock();
	struct stopwatch w = stopwatch_start();
	uint64_t inside = stopwatch_clock(), least, ns;

	usleep(microseconds);
	least = stopwatch_clock() - inside;
	ns = stopwatch_ns(w);
	CHECK(ns >= least - least / 100);
	CHECK(ns <= (stopwatch_clock() - before) * 101 / 100);
}

static void test_with_the_clock(void)
{
	atomic_store(&stopwatch_scale, 0);
	check_duration(1000);
}

/* Where there is no good counter this is the clock again. */
static void test_with_the_counter(void)
{
	stopwatch_calibrate();
	usleep(LONG_ENOUGH);
	stopwatch_calibrate();
	check_duration(1000);
	check_duration(50000);
}

/* The speed is taken over from the first look that is long enough after the start, not from an earlier one. */
static void test_calibrating_takes_time(void)
{
	uint64_t scale = atomic_load(&stopwatch_scale);

	atomic_store(&stopwatch_scale, 0);
	stopwatch_calibrate();
	if (scale)
		CHECK(atomic_load(&stopwatch_scale) > scale - scale / 100 &&
		      atomic_load(&stopwatch_scale) < scale + scale / 100);
}

/* A start before the counter was in use ends by the clock. */
static void test_switching_in_between(void)
{
	uint64_t scale = atomic_load(&stopwatch_scale), ns;
	struct stopwatch w;

	atomic_store(&stopwatch_scale, 0);
	w = stopwatch_start();
	atomic_store(&stopwatch_scale, scale);
	ns = stopwatch_ns(w);
	CHECK(ns < UINT64_C(1000000000));
}

static void test_never_negative(void)
{
	struct stopwatch w = {.begun = UINT64_MAX, .scale = UINT64_C(1) << 32};

	CHECK_EQ(stopwatch_ns(w), 0);
}

int main(void)
{
	TAP_RUN(test_with_the_clock);
	TAP_RUN(test_with_the_counter);
	TAP_RUN(test_calibrating_takes_time);
	TAP_RUN(test_switching_in_between);
	TAP_RUN(test_never_negative);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/stopwatch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The speed is the counts of at least this time: two looks of 50 ns error each then are right to 1 in 100,000. */
#define CALIBRATION_NS UINT64_C(10000000)

_Atomic uint64_t stopwatch_scale;

/* Where counting began; of the whole process, like the counter. */
static struct {
	pthread_once_t once;
	bool usable;
	uint64_t ns, count;
} start = {.once = PTHREAD_ONCE_INIT};

uint64_t stopwatch_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Whether the counter runs evenly, on all processors alike. On x86-64 the kernel has checked that before it uses it. */
static bool counter_is_good(void)
{
#if defined(__aarch64__)
	return true;
#elif defined(__x86_64__)
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	char name[16] = "";
	bool good;

	if (!f)
		return false;
	good = fgets(name, sizeof(name), f) && !strcmp(name, "tsc\n");
	fclose(f);
	return good;
#else
	return false;
#endif
}

static void begin(void)
{
	start.usable = counter_is_good();
	start.ns = stopwatch_clock();
	start.count = stopwatch_counter();
}

void stopwatch_calibrate(void)
{
	uint64_t ns, count;

	pthread_once(&start.once, begin);
	if (!start.usable)
		return;
	ns = stopwatch_clock() - start.ns;
	count = stopwatch_counter() - start.count;
	if (ns < CALIBRATION_NS || !count)
		return;
	atomic_store_explicit(&stopwatch_scale, (uint64_t)(((unsigned __int128)ns << 32) / count),
			      memory_order_relaxed);
}

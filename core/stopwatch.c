/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/stopwatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
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
	_Atomic bool is_no_use; /* the clock it is, for good */
	uint64_t ns, count;
} start = {.once = PTHREAD_ONCE_INIT};

uint64_t stopwatch_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

#if defined(__x86_64__)
/* The processor's word, or the hypervisor's, for a counter that keeps its pace and never stops: AMD's APM
 * volume 3, CPUID 8000_0007h. */
static bool counter_is_invariant(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1);
}

/* The kernel's name for where it takes its time from. */
static void read_clock_source(char name[32])
{
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");

	if (!f || !fgets(name, 32, f))
		name[0] = '\0';
	name[strcspn(name, "\n")] = '\0';
	if (f)
		fclose(f);
}
#endif

/*
 * Whether the counter runs evenly, on all processors alike. On x86-64 the kernel has checked that before it
 * uses it itself. In a virtual machine it may use a clock of the hypervisor's instead, which is the same
 * counter, scaled; then that has to vouch for it.
 */
static bool counter_is_good(void)
{
#if defined(__aarch64__)
	return true;
#elif defined(__x86_64__)
	char name[32];

	read_clock_source(name);
	if (!strcmp(name, "kvm-clock") || !strcmp(name, "hyperv_clocksource_tsc_page"))
		return counter_is_invariant();
	return !strcmp(name, "tsc");
#else
	return false;
#endif
}

static void begin(void)
{
	atomic_store_explicit(&start.is_no_use, !counter_is_good(), memory_order_relaxed);
	start.ns = stopwatch_clock();
	start.count = stopwatch_counter();
}

void stopwatch_calibrate(void)
{
	uint64_t ns, count;

	if (atomic_load_explicit(&start.is_no_use, memory_order_relaxed))
		return;
	pthread_once(&start.once, begin);
	if (atomic_load_explicit(&start.is_no_use, memory_order_relaxed))
		return;
	ns = stopwatch_clock() - start.ns;
	count = stopwatch_counter() - start.count;
	if (ns < CALIBRATION_NS || !count)
		return;
	atomic_store_explicit(&stopwatch_scale, (uint64_t)(((unsigned __int128)ns << 32) / count),
			      memory_order_relaxed);
}

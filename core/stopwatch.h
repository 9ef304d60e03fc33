/* SPDX-License-Identifier: BSD-3-Clause */
/* Durations of single requests at the price of reading a register. For the core alone. */
#ifndef PLATTER_CORE_STOPWATCH_H
#define PLATTER_CORE_STOPWATCH_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * The system's clock costs some 20 ns a look, which twice a request is more than all else the engine does for it. The
 * processor's counter behind that clock costs a third. It is used once it is known to be good and how fast it
 * runs: x86-64 where the kernel itself takes its time from it, or from a hypervisor's clock that is the same counter, aarch64 always. Until then, and elsewhere,
 * it is the clock.
 */
struct stopwatch {
	uint64_t begun; /* counter or ns */
	uint64_t scale; /* ns a count, times 2^32; 0: `begun` is ns */
};

/* ns a count, times 2^32; 0 as long as the clock is to be used. Set by stopwatch_calibrate() alone. */
extern _Atomic uint64_t stopwatch_scale;

/* CLOCK_MONOTONIC in ns. Never 0. */
uint64_t stopwatch_clock(void);

/* Called now and then while the clock is in use: switches to the counter as soon as its speed is known. Any thread. */
void stopwatch_calibrate(void);

static inline uint64_t stopwatch_counter(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t value;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
	return value;
#else
	return 0;
#endif
}

static inline struct stopwatch stopwatch_start(void)
{
	struct stopwatch w = {.scale = atomic_load_explicit(&stopwatch_scale, memory_order_relaxed)};

	w.begun = w.scale ? stopwatch_counter() : stopwatch_clock();
	return w;
}

/* ns since the start. A counter that seems to run backwards, between two processors, is 0. */
static inline uint64_t stopwatch_ns(struct stopwatch w)
{
	uint64_t now;

	if (!w.scale) {
		stopwatch_calibrate();
		return stopwatch_clock() - w.begun;
	}
	now = stopwatch_counter();
	return now > w.begun ? (uint64_t)((unsigned __int128)(now - w.begun) * w.scale >> 32) : 0;
}

#endif

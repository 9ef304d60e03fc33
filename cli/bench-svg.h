/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLATTER_CLI_BENCH_SVG_H
#define PLATTER_CLI_BENCH_SVG_H

#include "cli/latency.h"

/* One curve of the chart. */
struct bench_curve {
	const char *name, *colour;
	const struct latency *latency; /* not empty */
};

/* Draws to standard output which share of requests took at most how long; the time is on a logarithmic scale. */
void print_bench_svg(const char *title, const struct bench_curve *curves, unsigned nr_curves);

#endif

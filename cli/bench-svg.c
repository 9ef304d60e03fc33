/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/bench-svg.h"

#include <math.h>
#include <stdio.h>

#include "cli/svg.h"

#define WIDTH 640.0
#define HEIGHT 360.0
#define LEFT 60.0
#define TOP 50.0

/* Whole decades of ns that hold all curves. */
struct scale {
	int low, high;
};

static struct scale find_scale(const struct bench_curve *curves, unsigned nr)
{
	struct scale s = {.low = 18, .high = 1};

	for (unsigned i = 0; i < nr; i++) {
		double least = log10((double)latency_percentile(curves[i].latency, 0));
		double most = log10((double)curves[i].latency->max_ns + 1);
		s.low = floor(least) < s.low ? (int)floor(least) : s.low;
		s.high = ceil(most) > s.high ? (int)ceil(most) : s.high;
	}
	s.low = s.low < 0 ? 0 : s.low;
	s.high = s.high <= s.low ? s.low + 1 : s.high;
	return s;
}

static double x_of(const struct scale *s, double ns)
{
	return LEFT + WIDTH * (log10(ns < 1 ? 1 : ns) - s->low) / (s->high - s->low);
}

static double y_of(double fraction)
{
	return TOP + HEIGHT * (1 - fraction);
}

static void draw_line(double x1, double y1, double x2, double y2)
{
	printf("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/>\n", x1, y1, x2, y2);
}

static void draw_grid(const struct scale *s)
{
	static const char *const units[] = {"ns", "us", "ms", "s"};
	char text[32];

	for (int decade = s->low; decade <= s->high; decade++) {
		int unit = decade / 3 < 3 ? decade / 3 : 3;
		double x = x_of(s, pow(10, decade));
		draw_line(x, TOP, x, TOP + HEIGHT);
		snprintf(text, sizeof(text), "%.0f %s", pow(10, decade - 3 * unit), units[unit]);
		svg_text(x, TOP + HEIGHT + 16, 11, "middle", text);
	}
	for (int percent = 0; percent <= 100; percent += 25) {
		draw_line(LEFT, y_of(percent / 100.0), LEFT + WIDTH, y_of(percent / 100.0));
		snprintf(text, sizeof(text), "%d%%", percent);
		svg_text(LEFT - 6, y_of(percent / 100.0) + 4, 11, "end", text);
	}
}

static void draw_curve(const struct scale *s, const struct bench_curve *c)
{
	uint64_t seen = 0;

	printf("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", c->colour);
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		if (c->latency->buckets[i] == 0)
			continue;
		uint64_t bound = latency_bound(i);
		seen += c->latency->buckets[i];
		printf("%.1f,%.1f ", x_of(s, (double)(bound < c->latency->max_ns ? bound : c->latency->max_ns)),
		       y_of((double)seen / (double)c->latency->count));
	}
	printf("\"/>\n");
}

void print_bench_svg(const char *title, const struct bench_curve *curves, unsigned nr_curves)
{
	struct scale s = find_scale(curves, nr_curves);

	svg_begin((unsigned)(LEFT + WIDTH) + 30, (unsigned)(TOP + HEIGHT) + 50);
	svg_text(LEFT, 20, 14, "start", title);
	draw_grid(&s);
	for (unsigned i = 0; i < nr_curves; i++) {
		draw_curve(&s, &curves[i]);
		printf("<rect x=\"%.1f\" y=\"30\" width=\"11\" height=\"11\" fill=\"%s\"/>\n", LEFT + i * 80, curves[i].colour);
		svg_text(LEFT + i * 80 + 16, 40, 11, "start", curves[i].name);
	}
	svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 36, 11, "middle", "share of requests that took at most so long");
	svg_end();
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "decorators/schedule.h"

#include <errno.h>
#include <math.h>

#include "core/spec.h"

/* Where the standard normal distribution has 99 in 100 below it. */
#define NORMAL_P99 2.3263478740408408

int schedule_check(const struct schedule *s, const char *what, struct error *err)
{
	char time[SIZE_TEXT_MAX], other[SIZE_TEXT_MAX];

	duration_print(s->time, time);
	if (s->jitter && s->p99)
		return error_set(err, -EINVAL, "%s: jitter and p99 exclude each other", what);
	if (s->jitter > s->time)
		return error_set(err, -EINVAL, "%s: jitter of %s is more than the time, %s", what,
				 duration_print(s->jitter, other), time);
	if (s->p99 && !s->time)
		return error_set(err, -EINVAL, "%s: p99 of %s needs a time above 0, which is the median", what,
				 duration_print(s->p99, other));
	if (s->p99 && s->p99 < s->time)
		return error_set(err, -EINVAL, "%s: p99 of %s is less than the time, %s, which is the median", what,
				 duration_print(s->p99, other), time);
	return 0;
}

/* From a normal distribution (Box and Muller); its tails end at 6.7. */
static double draw_normal(uint64_t random)
{
	double radius = ((double)(random >> 32) + 1) / 4294967296.0; /* above 0 up to 1 */
	double angle = (double)(random & UINT32_MAX) / 4294967296.0;

	return sqrt(-2 * log(radius)) * cos(2 * 3.14159265358979323846 * angle);
}

static uint64_t draw_with_tail(const struct schedule *s, uint64_t random)
{
	double ratio = (double)s->p99 / (double)s->time;
	double ns = (double)s->time * pow(ratio, draw_normal(random) / NORMAL_P99);

	return ns < (double)SCHEDULE_LONGEST_NS ? (uint64_t)ns : SCHEDULE_LONGEST_NS;
}

uint64_t schedule_draw(const struct schedule *s, uint64_t random)
{
	if (s->p99)
		return draw_with_tail(s, random);
	if (s->jitter)
		return s->time - s->jitter + random % (2 * s->jitter + 1);
	return s->time;
}

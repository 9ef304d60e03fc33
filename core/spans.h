/* SPDX-License-Identifier: BSD-3-Clause */
/* What holds at each place of a line: ranges that replace what was there before, found again by place. */
#ifndef PLATTER_CORE_SPANS_H
#define PLATTER_CORE_SPANS_H

#include <stdint.h>

/* [start, end), and what it was set to. The rest is the map's own. */
struct span {
	uint64_t start, end;
	const void *what;
	uint64_t priority;
	struct span *left, *right;
};

/*
 * Spans do not overlap. Zero-initialised it is empty. Changed by one at a time; logarithmic time but for what is
 * replaced.
 */
struct spans {
	struct span *root;
	uint64_t made; /* spans, ever */
};

/* [start, end), not empty, is `what` from now on. -ENOMEM: nothing changed. */
int spans_set(struct spans *s, uint64_t start, uint64_t end, const void *what);

/* What is left of `what`, which lies in [start, end), is nothing any more. */
void spans_clear(struct spans *s, uint64_t start, uint64_t end, const void *what);

/* The first span that ends behind `place`; NULL when there is none. */
const struct span *spans_find(const struct spans *s, uint64_t place);

/* Empties it. */
void spans_free(struct spans *s);

#endif

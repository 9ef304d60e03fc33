/* SPDX-License-Identifier: BSD-3-Clause */
/* Cuts the memory of a request into one list for each member of a stripe. */
#ifndef PLATTER_DECORATORS_STRIPED_LISTS_H
#define PLATTER_DECORATORS_STRIPED_LISTS_H

#include <stdint.h>

#include "core/vec.h"
#include "decorators/striped-map.h"

/* A request is cut into batches of so many chunks, so that lists stay of a size that is to be had. */
#define STRIPE_PIECES 1024u

/* What is for one member. */
struct stripe_list {
	struct vec vec;
	uint64_t offset;       /* on the member */
	struct iovec *entries; /* of `vec` */
};

/* Short ones take no memory but their own; not to be moved. */
struct stripe_lists {
	unsigned count;           /* members that the request touches */
	struct stripe_list *list; /* in the order in which it comes to them */
	struct stripe_list few[8];
	struct iovec short_list[48];
	struct stripe_list *more_lists; /* where the above is not enough; NULL: it is */
	struct iovec *more_entries;
};

/*
 * Cuts `v`, of at most STRIPE_PIECES chunks, which lies at `offset` of the stripe. The lists point into the caller's memory, and
 * live until stripe_lists_free(). -ENOMEM: then nothing was made.
 */
int stripe_lists_make(struct stripe_lists *l, const struct stripe_map *m, const struct vec *v, uint64_t offset);
void stripe_lists_free(struct stripe_lists *l);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Where each byte of a stripe lies: chunk after chunk, dealt to the members in turn. */
#ifndef PLATTER_DECORATORS_STRIPED_MAP_H
#define PLATTER_DECORATORS_STRIPED_MAP_H

#include <stdint.h>

#include "core/disk.h"

/*
 * Chunk i lies on member i mod N, as its chunk i div N; N chunks side by side are a row. A range of the stripe is one range on
 * each member that it touches, which is what all of this rests on.
 */
struct stripe_map {
	uint64_t chunk; /* bytes */
	unsigned members;
	int shift; /* chunk is 1 << shift; -1: it is no power of two */
};

struct stripe_place {
	unsigned member;
	uint64_t offset; /* on the member */
	uint64_t left;   /* bytes to the end of the chunk, at least 1 */
};

void stripe_map_init(struct stripe_map *m, uint64_t chunk, unsigned members);

/* Bytes of a row, or UINT64_MAX when that does not fit. */
uint64_t stripe_row(const struct stripe_map *m);

/* Where byte `offset` of the stripe lies. */
static inline struct stripe_place stripe_place(const struct stripe_map *m, uint64_t offset)
{
	uint64_t number = m->shift >= 0 ? offset >> m->shift : offset / m->chunk;
	uint64_t row = number <= UINT32_MAX ? (uint32_t)number / m->members : number / m->members;
	uint64_t within = offset - number * m->chunk;

	return (struct stripe_place){
		.member = (unsigned)(number - row * m->members),
		.offset = row * m->chunk + within,
		.left = m->chunk - within,
	};
}

/* How many of the first `end` bytes of the stripe lie on the member: also its first byte that does not lie before `end`. */
uint64_t stripe_share(const struct stripe_map *m, uint64_t end, unsigned member);

/* Where byte `offset` of the member lies on the stripe; UINT64_MAX when that is further than can be said. */
uint64_t stripe_offset(const struct stripe_map *m, unsigned member, uint64_t offset);

/* The size of a stripe over members of at least `smallest` bytes: whole rows, and not past DISK_MAX_END. */
uint64_t stripe_size(const struct stripe_map *m, uint64_t smallest);

/* How many members the range touches, from the one of its first byte on. */
unsigned stripe_touched(const struct stripe_map *m, uint64_t offset, uint64_t length);

/*
 * Sets discard, granularity and alignment of a stripe with this block size in `info` from those of its members. What is
 * promised of whole granules is promised only where each granule of the stripe is whole granules of members.
 */
void stripe_discard(const struct stripe_map *m, struct disk *const *members, struct disk_info *info);

#endif

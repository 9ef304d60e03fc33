/* SPDX-License-Identifier: BSD-3-Clause */
/* What is known of which blocks a database holds, in memory: filled region by region as it is asked for. */
#ifndef PLATTER_LAYERS_SQLITE_INDEX_H
#define PLATTER_LAYERS_SQLITE_INDEX_H

#include "core/short-lock.h"
#include "layers/layer.h"

#define REGION_SHIFT 21
#define REGION_BYTES (UINT64_C(1) << REGION_SHIFT)

/* A region of 2 MiB of which the database has a row. */
struct region {
	struct region *next;
	uint64_t number;
	bool in_span;   /* a span of zeroes covers it too, which the row overrules */
	uint64_t map[]; /* bits of the data blocks, then of the zero blocks; bit i of word i / 64 */
};

/* Regions [first, end), none of which has a row. */
struct gap {
	uint64_t first, end;
	enum presence presence; /* zero or absent */
};

/*
 * Reading it and adding to it go on at the same time. sqlite_index_replace() and sqlite_index_forget() are called while nobody
 * reads. It is only a cache: when it gets large it forgets.
 */
struct region_index {
	struct short_lock lock; /* protects everything below */
	uint32_t block_shift;
	struct region **buckets;
	unsigned nr_buckets, nr_regions;
	struct gap *gaps; /* in order */
	unsigned nr_gaps;
};

/* False when memory ran out. */
bool sqlite_index_init(struct region_index *x, uint32_t block_size);
void sqlite_index_destroy(struct region_index *x);

/* Blocks in a region, words in one of a region's two maps. */
static inline unsigned sqlite_index_bits(const struct region_index *x)
{
	return (unsigned)(REGION_BYTES >> x->block_shift);
}

static inline unsigned sqlite_index_words(const struct region_index *x)
{
	return (sqlite_index_bits(x) + 63) / 64;
}

/* A region without blocks; NULL when memory ran out. */
struct region *region_new(const struct region_index *x, uint64_t number);

static inline uint64_t *region_data(struct region *r)
{
	return r->map;
}

static inline uint64_t *region_zero(const struct region_index *x, struct region *r)
{
	return r->map + sqlite_index_words(x);
}

/* Bits [first, end) of a map: sets them, or clears them, and says whether that changed any; are any set? */
bool map_set(uint64_t *map, unsigned first, unsigned end, bool to);
bool map_any(const uint64_t *map, unsigned first, unsigned end);

/*
 * The first run of [offset, offset + length), as far as it is known; false when nothing is known at `offset`. It may be
 * followed by another of the same presence.
 */
bool sqlite_index_find(struct region_index *x, uint64_t offset, uint64_t length, struct layer_run *run);

/*
 * Adds what was read from the database. The region becomes the index's; one that is there already stays. Of a gap, which covers
 * `region`, the part around it is added that is not known: afterwards the region is.
 */
void sqlite_index_add_region(struct region_index *x, struct region *r);
void sqlite_index_add_gap(struct region_index *x, const struct gap *gap, uint64_t region);

/* A copy of what is known of a region; NULL when nothing is, or memory ran out. */
struct region *sqlite_index_copy(struct region_index *x, uint64_t number);

/* Takes over a list of changed regions. */
void sqlite_index_replace(struct region_index *x, struct region *list);

/* Forgets everything, or only the gaps. */
void sqlite_index_forget(struct region_index *x);
void sqlite_index_forget_gaps(struct region_index *x);

void region_free_list(struct region *list);

#endif

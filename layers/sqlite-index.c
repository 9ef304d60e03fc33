/* SPDX-License-Identifier: BSD-3-Clause */
#include "layers/sqlite-index.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BYTES (64u << 20) /* of regions, before it forgets */
#define MAX_GAPS 4096u
#define NR_BUCKETS 8192u

bool sqlite_index_init(struct region_index *x, uint32_t block_size)
{
	*x = (struct region_index){.block_shift = (uint32_t)__builtin_ctz(block_size), .nr_buckets = NR_BUCKETS};
	x->buckets = calloc(NR_BUCKETS, sizeof(struct region *));
	x->gaps = calloc(MAX_GAPS, sizeof(*x->gaps));
	if (x->buckets && x->gaps)
		return true;
	sqlite_index_destroy(x);
	return false;
}

void region_free_list(struct region *list)
{
	while (list) {
		struct region *next = list->next;
		free(list);
		list = next;
	}
}

static void forget_regions(struct region_index *x)
{
	for (unsigned i = 0; i < x->nr_buckets && x->nr_regions; i++) {
		region_free_list(x->buckets[i]);
		x->buckets[i] = NULL;
	}
	x->nr_regions = 0;
}

void sqlite_index_destroy(struct region_index *x)
{
	if (x->buckets)
		forget_regions(x);
	free(x->buckets);
	free(x->gaps);
	x->buckets = NULL;
	x->gaps = NULL;
}

static size_t region_bytes(const struct region_index *x)
{
	return sizeof(struct region) + 2 * sqlite_index_words(x) * sizeof(uint64_t);
}

struct region *region_new(const struct region_index *x, uint64_t number)
{
	struct region *r = calloc(1, region_bytes(x));

	if (r)
		r->number = number;
	return r;
}

/* ------------------------------------------------------------------ maps */

/* The bits of word `w` that lie in [first, end). */
static uint64_t word_mask(unsigned w, unsigned first, unsigned end)
{
	uint64_t mask = ~UINT64_C(0);

	if (first > w * 64)
		mask &= mask << (first - w * 64);
	if (end < (w + 1) * 64)
		mask &= (UINT64_C(1) << (end - w * 64)) - 1;
	return mask;
}

bool map_set(uint64_t *map, unsigned first, unsigned end, bool to)
{
	bool changed = false;

	for (unsigned w = first / 64; w * 64 < end; w++) {
		uint64_t mask = word_mask(w, first, end), old = map[w];
		map[w] = to ? old | mask : old & ~mask;
		changed |= map[w] != old;
	}
	return changed;
}

bool map_any(const uint64_t *map, unsigned first, unsigned end)
{
	for (unsigned w = first / 64; w * 64 < end; w++)
		if (map[w] & word_mask(w, first, end))
			return true;
	return false;
}

/* ------------------------------------------------------------------ finding */

static struct region **bucket_of(struct region_index *x, uint64_t number)
{
	return &x->buckets[(number * UINT64_C(0x9e3779b97f4a7c15)) >> 51]; /* 13 bits: NR_BUCKETS */
}
_Static_assert(NR_BUCKETS == 1u << 13, "see bucket_of()");

static struct region *find_region(struct region_index *x, uint64_t number)
{
	struct region *r = *bucket_of(x, number);

	while (r && r->number != number)
		r = r->next;
	return r;
}

/* Where the first gap stands that ends after the region. */
static unsigned gap_position(const struct region_index *x, uint64_t region)
{
	unsigned low = 0, high = x->nr_gaps;

	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (x->gaps[middle].end > region)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static const struct gap *find_gap(const struct region_index *x, uint64_t region)
{
	unsigned at = gap_position(x, region);

	return at < x->nr_gaps && x->gaps[at].first <= region ? &x->gaps[at] : NULL;
}

/* The bits of word `w` that are not of that presence. */
static uint64_t others(const struct region_index *x, struct region *r, unsigned w, enum presence presence)
{
	uint64_t data = region_data(r)[w], zero = region_zero(x, r)[w];

	switch (presence) {
	case LAYER_DATA:
		return ~data;
	case LAYER_ZERO:
		return ~zero;
	default:
		return data | zero;
	}
}

static enum presence presence_at(const struct region_index *x, struct region *r, unsigned bit)
{
	if (region_data(r)[bit / 64] >> bit % 64 & 1)
		return LAYER_DATA;
	return region_zero(x, r)[bit / 64] >> bit % 64 & 1 ? LAYER_ZERO : LAYER_ABSENT;
}

/* The first bit from `bit` on that is not of that presence. */
static unsigned run_end(const struct region_index *x, struct region *r, unsigned bit, enum presence presence)
{
	unsigned bits = sqlite_index_bits(x);

	for (unsigned w = bit / 64; w * 64 < bits; w++) {
		uint64_t left = others(x, r, w, presence) & word_mask(w, bit, bits);
		if (left)
			return w * 64 + (unsigned)__builtin_ctzll(left);
	}
	return bits;
}

/* The run at `offset` up to the end of its region or gap at most; false: not known. Under the lock. */
static bool find_piece(struct region_index *x, uint64_t offset, uint64_t *end, enum presence *presence)
{
	uint64_t number = offset >> REGION_SHIFT;
	struct region *r = find_region(x, number);
	const struct gap *gap = r ? NULL : find_gap(x, number);
	unsigned bit = (unsigned)((offset & (REGION_BYTES - 1)) >> x->block_shift);

	if (gap) {
		*presence = gap->presence;
		*end = gap->end << REGION_SHIFT;
	} else if (r) {
		*presence = presence_at(x, r, bit);
		*end = (number << REGION_SHIFT) + ((uint64_t)run_end(x, r, bit, *presence) << x->block_shift);
	}
	return gap || r;
}

bool sqlite_index_find(struct region_index *x, uint64_t offset, uint64_t length, struct layer_run *run)
{
	uint64_t at = offset, end = offset + length;
	bool known = true;

	short_lock_shared(&x->lock);
	while (known && at < end) {
		enum presence presence;
		uint64_t next;
		known = find_piece(x, at, &next, &presence);
		if (known && at == offset)
			run->presence = presence;
		if (!known || presence != run->presence)
			break;
		at = next;
	}
	short_unlock_shared(&x->lock);
	run->length = (at < end ? at : end) - offset;
	run->extent_flags = 0;
	return run->length;
}

struct region *sqlite_index_copy(struct region_index *x, uint64_t number)
{
	struct region *copy = region_new(x, number), *r;

	if (!copy)
		return NULL;
	short_lock_shared(&x->lock);
	r = find_region(x, number);
	if (r)
		memcpy(copy, r, region_bytes(x));
	short_unlock_shared(&x->lock);
	copy->next = NULL;
	if (r)
		return copy;
	free(copy);
	return NULL;
}

/* ------------------------------------------------------------------ adding and forgetting */

static void make_room(struct region_index *x)
{
	if (x->nr_regions * region_bytes(x) >= MAX_BYTES)
		forget_regions(x);
}

static void insert(struct region_index *x, struct region *r)
{
	struct region **bucket = bucket_of(x, r->number);

	r->next = *bucket;
	*bucket = r;
	x->nr_regions++;
}

void sqlite_index_add_region(struct region_index *x, struct region *r)
{
	struct region *there;

	short_lock_exclusive(&x->lock);
	make_room(x);
	there = find_region(x, r->number);
	if (!there)
		insert(x, r);
	short_unlock_exclusive(&x->lock);
	if (there)
		free(r);
}

/*
 * What others found of the same place meanwhile may be a gap with another end: one reader's view of the database may be from
 * before a commit, another's from after it. Both are true of the regions they were asked for.
 */
void sqlite_index_add_gap(struct region_index *x, const struct gap *gap, uint64_t region)
{
	struct gap part = *gap;
	unsigned at;

	short_lock_exclusive(&x->lock);
	if (x->nr_gaps == MAX_GAPS)
		x->nr_gaps = 0;
	at = gap_position(x, region);
	if (at == x->nr_gaps || x->gaps[at].first > region) {
		if (at < x->nr_gaps && x->gaps[at].first < part.end)
			part.end = x->gaps[at].first;
		if (at && x->gaps[at - 1].end > part.first)
			part.first = x->gaps[at - 1].end;
		memmove(x->gaps + at + 1, x->gaps + at, (x->nr_gaps - at) * sizeof(*gap));
		x->gaps[at] = part;
		x->nr_gaps++;
	}
	short_unlock_exclusive(&x->lock);
}

static void remove_region(struct region_index *x, uint64_t number)
{
	struct region **r = bucket_of(x, number), *gone;

	while (*r && (*r)->number != number)
		r = &(*r)->next;
	gone = *r;
	if (!gone)
		return;
	*r = gone->next;
	free(gone);
	x->nr_regions--;
}

void sqlite_index_replace(struct region_index *x, struct region *list)
{
	short_lock_exclusive(&x->lock);
	while (list) {
		struct region *next = list->next;
		make_room(x);
		remove_region(x, list->number);
		insert(x, list);
		list = next;
	}
	x->nr_gaps = 0;
	short_unlock_exclusive(&x->lock);
}

void sqlite_index_forget(struct region_index *x)
{
	short_lock_exclusive(&x->lock);
	forget_regions(x);
	x->nr_gaps = 0;
	short_unlock_exclusive(&x->lock);
}

void sqlite_index_forget_gaps(struct region_index *x)
{
	short_lock_exclusive(&x->lock);
	x->nr_gaps = 0;
	short_unlock_exclusive(&x->lock);
}

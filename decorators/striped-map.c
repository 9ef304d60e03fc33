/* SPDX-License-Identifier: BSD-3-Clause */
#include "decorators/striped-map.h"

#include <stdbool.h>

void stripe_map_init(struct stripe_map *m, uint64_t chunk, unsigned members)
{
	bool power = !(chunk & (chunk - 1));

	*m = (struct stripe_map){.chunk = chunk, .members = members, .shift = power ? __builtin_ctzll(chunk) : -1};
}

/* The product, or UINT64_MAX when it does not fit. */
static uint64_t times(uint64_t a, uint64_t b)
{
	uint64_t product;

	return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t stripe_row(const struct stripe_map *m)
{
	return times(m->chunk, m->members);
}

uint64_t stripe_share(const struct stripe_map *m, uint64_t end, unsigned member)
{
	struct stripe_place p = stripe_place(m, end);
	uint64_t within = m->chunk - p.left, row = p.offset - within;

	if (member < p.member)
		return row + m->chunk;
	return member > p.member ? row : p.offset;
}

uint64_t stripe_offset(const struct stripe_map *m, unsigned member, uint64_t offset)
{
	uint64_t row = offset / m->chunk, begin = times(row, stripe_row(m)), sum;

	if (begin == UINT64_MAX || __builtin_add_overflow(begin, member * m->chunk + offset % m->chunk, &sum))
		return UINT64_MAX;
	return sum;
}

uint64_t stripe_size(const struct stripe_map *m, uint64_t smallest)
{
	uint64_t row = stripe_row(m), rows = smallest / m->chunk, most = DISK_MAX_END / row;

	return (rows < most ? rows : most) * row;
}

unsigned stripe_touched(const struct stripe_map *m, uint64_t offset, uint64_t length)
{
	uint64_t chunks = (offset + length - 1) / m->chunk - offset / m->chunk + 1;

	return chunks < m->members ? (unsigned)chunks : m->members;
}

/* ------------------------------------------------------------------ discard */

static uint64_t greatest_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

static uint64_t least_multiple(uint64_t a, uint64_t b)
{
	return times(a / greatest_divisor(a, b), b);
}

/* Where all members promise the same, so does the stripe; where they differ it says nothing. */
static enum disk_discard common_promise(const struct stripe_map *m, struct disk *const *members)
{
	enum disk_discard first = disk_info(members[0])->discard;

	for (unsigned i = 1; i < m->members; i++)
		if (disk_info(members[i])->discard != first)
			return DISK_DISCARD_UNSPECIFIED;
	return first;
}

/*
 * The least that is whole granules on each member, wherever it begins at a multiple of itself: granules that divide the chunk
 * stay what they are, larger ones take rows. 0 where there is none that can be said: some do not begin at 0, so that one lies
 * across two chunks, which are not neighbours on the stripe; or it is too large.
 */
static uint32_t common_granule(const struct stripe_map *m, struct disk *const *members)
{
	uint64_t granule = 1;

	for (unsigned i = 0; i < m->members; i++) {
		const struct disk_info *info = disk_info(members[i]);
		granule = least_multiple(granule, info->discard_granularity);
		if (info->discard_alignment || granule > UINT32_MAX)
			return 0;
	}
	if (m->chunk % granule)
		granule = times(least_multiple(m->chunk, granule), m->members);
	return granule <= UINT32_MAX ? (uint32_t)granule : 0;
}

void stripe_discard(const struct stripe_map *m, struct disk *const *members, struct disk_info *info)
{
	uint32_t granule = common_granule(m, members);

	info->discard = common_promise(m, members);
	info->discard_alignment = 0;
	info->discard_granularity = granule ? granule : info->block_size;
	if (!granule && info->discard == DISK_DISCARD_ZEROES)
		info->discard = DISK_DISCARD_UNSPECIFIED;
}

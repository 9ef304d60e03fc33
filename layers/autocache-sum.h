/* SPDX-License-Identifier: BSD-3-Clause */
/* What the index of a cache says of one unit, and the checksum in it. */
#ifndef PLATTER_LAYERS_AUTOCACHE_SUM_H
#define PLATTER_LAYERS_AUTOCACHE_SUM_H

#include <stdbool.h>
#include <stdint.h>

/* The cache keeps units of 4 KiB, each with a mark for each of its sectors of 512 bytes. */
#define UNIT_SHIFT 12
#define UNIT 4096u
#define SECTOR_SHIFT 9
#define SECTOR 512u
#define UNIT_SECTORS 8u
#define ALL_SECTORS 0xffu

/*
 * An entry is one number: the low 8 bits say which sectors are here, the upper 56 are a check over their content (the others
 * taken as zero), the unit's number and the marks, salted by the cache's own nonce. 0: nothing is here.
 *
 * It is right or wrong by itself: nothing else has to be believed. In particular the entry for sectors that are all zero
 * is known beforehand, so it is recognised without looking at the data, and no damage makes one.
 */
struct sums {
	uint64_t nonce;
	uint64_t zero; /* hash of a unit of zeroes */
};

void sums_init(struct sums *s, uint64_t nonce);

static inline unsigned entry_sectors(uint64_t entry)
{
	return entry & ALL_SECTORS;
}

/* Spreads nonce, number and marks over 64 bits, by multiplying and folding. */
static inline uint64_t sum_salt(const struct sums *s, uint64_t unit, unsigned sectors)
{
	uint64_t x = s->nonce ^ (unit << UNIT_SECTORS | sectors) * UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return x ^ x >> 32;
}

/* The entry for a unit whose content has that hash. */
static inline uint64_t sum_entry(const struct sums *s, uint64_t unit, unsigned sectors, uint64_t hash)
{
	return ((hash ^ sum_salt(s, unit, sectors)) & ~(uint64_t)ALL_SECTORS) | sectors;
}

/* Does it say that the sectors that are here are zero? */
static inline bool sum_says_zero(const struct sums *s, uint64_t unit, uint64_t entry)
{
	return entry == sum_entry(s, unit, entry_sectors(entry), s->zero);
}

/* The hash of a unit of memory, UNIT bytes. */
uint64_t sum_hash(const void *content);

/* The widest registers that are to be used, if the processor has them. */
enum sum_way { SUM_PLAIN, SUM_AVX2, SUM_AVX512 };

/*
 * Copies a unit as safe_copy() does, and *hash is sum_hash() of what was copied, whoever changes either side meanwhile; in one
 * pass where it can be. -EFAULT: any part may have been copied.
 */
int sum_copy_by(enum sum_way way, void *to, const void *from, uint64_t *hash);

static inline int sum_copy(void *to, const void *from, uint64_t *hash)
{
	return sum_copy_by(SUM_AVX512, to, from, hash);
}

/* Zeroes those sectors of a unit of memory that are not among `sectors`. */
void sum_clear_others(void *content, unsigned sectors);

#endif

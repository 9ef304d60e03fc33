/* SPDX-License-Identifier: BSD-3-Clause */
/* Which layer of a deep stack holds a page: remembered, so that the layers above need not be asked again. */
#ifndef PLATTER_LAYERS_OWNERS_H
#define PLATTER_LAYERS_OWNERS_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * For the layers that no write changes ("frozen"), from which a page's owner therefore never moves but into a read cache,
 * where the same bytes are. What is remembered may be forgotten at any time: a page that hashes to a taken entry takes its
 * place. Any thread, no locks.
 *
 *     entry   epoch, tag of the page, owner; 0: empty
 *     epoch   counts what changes how much of the layers can be seen (sizes): entries of an earlier one are void. When it
 *             runs out (a million changes) nothing is remembered any more
 */
struct owners {
	_Atomic uint64_t *entries;
	unsigned page_shift; /* log2 of a page in bytes, at least 12 */
	_Atomic uint32_t epoch;
};

#define OWNER_ENTRIES_SHIFT 20u /* 4 GiB in pages of 4 KiB */
#define OWNER_BITS 13u
#define OWNER_TAG_BITS 31u      /* 63 - 12 - 20: all pages there can be */
#define OWNER_LAST_EPOCH ((1u << 20) - 1)
#define OWNER_UNKNOWN 0u

/* For pages of 1 << page_shift bytes. 0 or -ENOMEM. Takes memory as it is used, 8 MiB at most. */
int owners_create(struct owners *o, unsigned page_shift);
void owners_destroy(struct owners *o);

/* Voids everything. */
void owners_void(struct owners *o);

/* The epoch to look up in and to note with: taken before the sizes of the layers are looked at. */
static inline uint32_t owners_epoch(const struct owners *o)
{
	return atomic_load_explicit(&o->epoch, memory_order_acquire);
}

static inline _Atomic uint64_t *owners_entry(const struct owners *o, uint64_t page)
{
	return &o->entries[page & ((UINT64_C(1) << OWNER_ENTRIES_SHIFT) - 1)];
}

/* Has the entry brought near while something else is done. */
static inline void owners_prefetch(const struct owners *o, uint64_t page)
{
	__builtin_prefetch((const void *)owners_entry(o, page));
}

static inline uint64_t owners_key(uint64_t page, uint32_t epoch)
{
	uint64_t tag = page >> OWNER_ENTRIES_SHIFT;

	return ((uint64_t)epoch << OWNER_TAG_BITS | tag) << OWNER_BITS;
}

/* The layer noted for the page, OWNER_UNKNOWN if there is none. */
static inline unsigned owners_find(const struct owners *o, uint64_t page, uint32_t epoch)
{
	uint64_t entry = atomic_load_explicit(owners_entry(o, page), memory_order_relaxed);
	uint64_t owner = entry ^ owners_key(page, epoch);

	return owner >> OWNER_BITS ? OWNER_UNKNOWN : (unsigned)owner;
}

/* Notes the owner (1 .. 8190) of a page. */
static inline void owners_note(struct owners *o, uint64_t page, uint32_t epoch, unsigned owner)
{
	if (epoch < OWNER_LAST_EPOCH)
		atomic_store_explicit(owners_entry(o, page), owners_key(page, epoch) | owner,
				      memory_order_relaxed);
}

#endif

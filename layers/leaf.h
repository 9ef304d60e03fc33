/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A leaf of the RAM layer: what 2 MiB of a disk hold
 *
 * All functions want the leaf's lock: shared to look, exclusive to change. They never wait.
 */
#ifndef PLATTER_LAYERS_LEAF_H
#define PLATTER_LAYERS_LEAF_H

#include <stdbool.h>
#include <stdint.h>

#include "core/short-lock.h"
#include "layers/layer.h"
#include "layers/pages.h"

#define SECTOR_SHIFT 9
#define SECTOR_BYTES (1u << SECTOR_SHIFT)
#define PAGE_SHIFT 12
#define LEAF_SHIFT 21
#define LEAF_BYTES WINDOW_BYTES
#define LEAF_PAGES WINDOW_PAGES
#define LEAF_WORDS (LEAF_PAGES / 64)
#define LEAF_OWN 16u

_Static_assert(PAGE_BYTES == 1u << PAGE_SHIFT, "pages of the pool are pages of the tree");

/* Where the leaves of one layer have their memory, and what they take, in pages but for nr_entries. */
struct leaf_store {
	struct page_pool *pool;
	_Atomic uint64_t nr_stored;  /* in use, in the pool or in windows */
	_Atomic uint64_t nr_slack;   /* of windows: with memory, but not in use */
	_Atomic uint64_t nr_windows; /* each takes a page of the system's page tables */
	_Atomic uint64_t nr_entries; /* allocated */
};

struct leaf {
	_Alignas(64) struct short_lock lock;
	uint16_t count, capacity;	  /* of entries */
	uint16_t stored;		  /* pages with memory */
	uint16_t full;			  /* pages whose sectors are all data */
	uint16_t resident;		  /* pages of the window with memory */
	uint16_t coming;		  /* pages that the write going on may still store */
	uint16_t told_stored, told_slack; /* what is counted in the store */
	uint8_t background;		  /* LAYER_ABSENT or LAYER_ZERO */
	char *flat; /* the window, once all pages are full: nothing else need be looked at */
	char *window;
	uint64_t *entries; /* `own`, or allocated when they are more */
	uint16_t before[LEAF_WORDS];
	uint64_t has_entry[LEAF_WORDS];
	union {
		uint64_t own[LEAF_OWN];
		uint64_t has_memory[LEAF_WORDS]; /* of the window; its entries are allocated */
	};
};

/* ------------------------------------------------------------------ entries */

static inline void *entry_page(uint64_t entry)
{
	return (void *)(uintptr_t)(entry >> 16 << PAGE_SHIFT);
}

static inline uint8_t entry_data(uint64_t entry)
{
	return (uint8_t)entry;
}

static inline uint8_t entry_zero(uint64_t entry)
{
	return (uint8_t)(entry >> 8);
}

static inline uint64_t entry_make(const void *page, uint8_t data, uint8_t zero)
{
	return (uint64_t)(uintptr_t)page >> PAGE_SHIFT << 16 | (uint64_t)zero << 8 | data;
}

static inline enum presence entry_presence(uint64_t entry, unsigned sector)
{
	if (entry_data(entry) >> sector & 1)
		return LAYER_DATA;
	return entry_zero(entry) >> sector & 1 ? LAYER_ZERO : LAYER_ABSENT;
}

/* The entry of a page that has none of its own. */
static inline uint64_t background_entry(const struct leaf *f)
{
	return entry_make(NULL, 0, f->background == LAYER_ZERO ? 0xff : 0);
}

static inline bool leaf_has(const struct leaf *f, unsigned page)
{
	return f->count == LEAF_PAGES || f->has_entry[page / 64] >> page % 64 & 1;
}

/* Where the page's entry stands, or would stand. With all of them there is no need of a look at the map. */
static inline unsigned leaf_rank(const struct leaf *f, unsigned page)
{
	uint64_t below;

	if (f->count == LEAF_PAGES)
		return page;
	below = f->has_entry[page / 64] & ((UINT64_C(1) << page % 64) - 1);
	return f->before[page / 64] + (unsigned)__builtin_popcountll(below);
}

static inline uint64_t leaf_entry(const struct leaf *f, unsigned page)
{
	return leaf_has(f, page) ? f->entries[leaf_rank(f, page)] : background_entry(f);
}

/* ------------------------------------------------------------------ changing */

/* A leaf of pages that are all `background`; NULL when memory ran out. */
struct leaf *leaf_create(enum presence background);

/* Frees a leaf and what it holds but for pages in the pool, which goes as a whole. */
void leaf_destroy(struct leaf *f);

/* Memory for a page that has none, with room for its entry: content undefined, not recorded yet. NULL when
 * memory ran out. */
void *leaf_page_alloc(struct leaf_store *s, struct leaf *f, unsigned page);

/* Room for one more entry. -ENOSPC when memory ran out. */
int leaf_reserve(struct leaf_store *s, struct leaf *f);

/*
 * Sets what a page is. Memory that it loses thereby is freed. Cannot fail if the page had an entry or the new
 * one is that of the background; otherwise there has to be room.
 */
void leaf_set(struct leaf_store *s, struct leaf *f, unsigned page, uint64_t entry);

/* All pages become `background`. Cannot fail. */
void leaf_clear(struct leaf_store *s, struct leaf *f, enum presence background);

/* To be called at the end of each change, before the lock is let go: counts, moves the leaf if that is due,
 * gives memory back. */
void leaf_settle_slowly(struct leaf_store *s, struct leaf *f);

static inline void leaf_settle(struct leaf_store *s, struct leaf *f)
{
	unsigned slack = f->window ? (unsigned)f->resident - f->stored : 0;

	if (f->stored != f->told_stored || slack != f->told_slack)
		leaf_settle_slowly(s, f);
}

#endif

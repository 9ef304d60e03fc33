/* SPDX-License-Identifier: BSD-3-Clause */
/* The index of a cache: its entries in memory, page by page, and how they come to the file and back. */
#ifndef PLATTER_LAYERS_AUTOCACHE_INDEX_H
#define PLATTER_LAYERS_AUTOCACHE_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/wait.h"
#include "layers/autocache-sum.h"

/* The entries of a chunk of the disk are one page of the index file: 4 KiB for 2 MiB. Also what eviction takes. */
#define CHUNK_UNITS 512u
#define CHUNK_SHIFT 21
#define CHUNK (UINT64_C(1) << CHUNK_SHIFT)
#define PAGE_BYTES (CHUNK_UNITS * 8u)

#define INDEX_WAYS 8u
#define INDEX_MAX_PAGES 16384u /* 64 MiB of memory, for 32 GiB of the disk */

#define DIRTY_WORDS (CHUNK_UNITS / 64)

/*
 * A page in memory. Readers look at `entries` without a lock: they may see those of another chunk when the page is given
 * away under them, which no check lets pass. All else is changed under the lock of the set.
 */
struct index_page {
	_Atomic uint64_t *entries;    /* CHUNK_UNITS; NULL until first used, then kept */
	_Atomic uint32_t used;        /* s since 1970; see index_touch() */
	uint32_t used_stored;         /* as the file says */
	_Atomic uint64_t near[CHUNK_UNITS / 64]; /* bit per unit: it was read before, so the page cache may have it */
	uint64_t loaded_ns;           /* when it was last read from the file */
	uint64_t dirty[DIRTY_WORDS];  /* bit per entry: the file does not say it yet */
	bool any_dirty;
};

struct index_set {
	_Atomic uint64_t tags[INDEX_WAYS]; /* chunk + 1; 0: free */
	struct wait_mutex lock;            /* changes of this set; held across reading and writing one page */
	struct index_page pages[INDEX_WAYS];
};

/* Whether what was filled may be written down: the source is still the one that was opened. May wait. */
typedef bool index_confirm(void *argument);

struct index {
	struct index_set *sets;
	uint64_t mask; /* number of sets, a power of two, less 1 */
	int fd, recency;
	index_confirm *confirm;
	void *argument;
	struct wait_mutex committing; /* one at a time; before a set's lock */
	_Atomic uint64_t failures;    /* pages that could not be read or written */
};

/* `size` of the disk in bytes. -ENOMEM. Pages are made as they are needed. */
int index_init(struct index *x, uint64_t size, int fd, int recency, index_confirm *confirm, void *argument);
void index_free(struct index *x);

/* The page of a chunk, read from the file if it must be; NULL when it cannot be had. */
struct index_page *index_get(struct index *x, uint64_t chunk);

/* Takes over what other processes have put into the file, if it was not looked at for a while. True: look again. */
bool index_refresh(struct index *x, uint64_t chunk);

/*
 * The first chunk from `chunk` on of which anything may be known; UINT64_MAX: none. For long ranges: what lies between costs
 * nothing. May say `chunk` itself though nothing is known of it.
 */
uint64_t index_next(struct index *x, uint64_t chunk);

/* Stores the entries of `count` units in order, where they say more than what is there; those that are 0 are left out. */
void index_put(struct index *x, uint64_t unit, const uint64_t *entries, unsigned count);

/* Stores one entry in place of `old`; nothing happens when that is not there any more. */
void index_replace(struct index *x, uint64_t unit, uint64_t old, uint64_t entry);

/* Takes `count` units' entries back, where they are still those. */
void index_drop(struct index *x, uint64_t unit, const uint64_t *entries, unsigned count);

/* Nothing is known of the chunk any more, in memory; the file is the caller's. */
void index_forget(struct index *x, uint64_t chunk);

/* When the chunk was last used, in s: by this process or, so the file says, by others. */
uint32_t index_used(struct index *x, uint64_t chunk);

/*
 * Writes down what was put since the last time, if it is confirmed; else throws all of that away and returns false. `all`: also
 * when each chunk was last used, to the second.
 */
bool index_commit(struct index *x, bool all);

/* The entry of a unit of the page's chunk. */
static inline uint64_t index_entry(const struct index_page *p, uint64_t unit)
{
	return atomic_load_explicit(&p->entries[unit % CHUNK_UNITS], memory_order_acquire);
}

/* Notes that the chunk is used now. */
static inline void index_touch(struct index_page *p, uint32_t now)
{
	if (atomic_load_explicit(&p->used, memory_order_relaxed) != now)
		atomic_store_explicit(&p->used, now, memory_order_relaxed);
}

#endif

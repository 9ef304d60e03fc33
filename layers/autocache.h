/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the files of the autocache layer; autocache.c says how it works. */
#ifndef PLATTER_LAYERS_AUTOCACHE_H
#define PLATTER_LAYERS_AUTOCACHE_H

#include <time.h>

#include "layers/autocache-index.h"
#include "layers/autocache-store.h"
#include "layers/autocache-sum.h"
#include "layers/layer.h"

/* What happened, for describe. Bytes but for the last ones. A cell each for some threads, so that hits do not meet. */
struct cache_counts {
	_Alignas(64) _Atomic uint64_t hit, missed;
};
#define COUNT_CELLS 16u

struct autocache {
	struct layer layer;
	struct store store;
	struct index index;
	struct sums sums;
	char *root_path;
	uint64_t size; /* bytes of the disk */
	uint64_t max;  /* bytes all caches of the root may take */

	struct disk *source;      /* whose identity is watched; NULL: it has none */
	struct identity identity; /* what it was when it was opened */
	_Atomic bool changed;     /* it is another one now: nothing is served, nothing kept */

	_Atomic uint64_t next_commit_ns;  /* when a fill writes down what was filled */
	_Atomic uint64_t paused_until_ns; /* nothing is filled before: there was no room */
	struct wait_mutex making_room;    /* one at a time; nothing is held when it is taken; held across I/O */
	_Atomic uint64_t uncounted;       /* bytes written since the usage of the root was last summed up */
	uint64_t hand;                    /* chunk the next eviction begins at; under making_room */

	_Atomic(const char *) map; /* of the data file; see autocache-map.c */
	_Atomic bool no_map;       /* there cannot be one */

	struct cache_counts counts[COUNT_CELLS];
	_Atomic uint64_t filled, skipped, evicted;             /* bytes */
	_Atomic uint64_t dropped, evictions, caches_removed;   /* blocks, times, caches */
	_Atomic uint64_t read_failures, write_failures;        /* times */
};

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Seconds since 1970. */
static inline uint32_t seconds_now(void)
{
	return (uint32_t)time(NULL);
}

/* ------------------------------------------------------------------ autocache-map.c */

/*
 * Copies `units` units from `unit` on, all of one chunk whose index page is `page`, from the data file's mapping to `to`, and
 * checks them. How many from the first on are right; 0 also where the mapping is not the way: then read(2) is.
 */
unsigned map_read(struct autocache *c, struct index_page *page, uint64_t unit, unsigned units, const uint64_t *entries,
		  char *to);

/* Notes that these units have been read, by whatever way: next time the mapping is the way to them. */
void map_note(struct index_page *page, uint64_t unit, unsigned units);

/* Takes the mapping down, if there is one. */
void map_close(struct autocache *c);

/* ------------------------------------------------------------------ autocache-room.c */

/* After so many bytes written the usage of the root is summed up anew. */
uint64_t room_step(const struct autocache *c);

/* Keeps the root below its maximum: to be called when c->uncounted has come to room_step(). */
void room_keep(struct autocache *c);

/* The file system is full: makes room for about `bytes`. 0 when there is some. */
int room_make(struct autocache *c, uint64_t bytes);

/* Fills nothing for a while. */
void room_pause(struct autocache *c, uint64_t ns);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* The folder of one cache: found or made, held, given up. docs/formats/autocache.md describes the files. */
#ifndef PLATTER_LAYERS_AUTOCACHE_STORE_H
#define PLATTER_LAYERS_AUTOCACHE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/identity.h"
#include "layers/autocache-name.h"

/* What a cache is of. A cache that was made for other facts is not used. */
struct store_facts {
	uint64_t size;
	uint32_t block_size;
	bool has_id;
	uint8_t id[16];
	struct identity identity; /* empty texts: the disk has none */
	const char *key;          /* as the user gave it; NULL: known by id or identity */
};

/* An open cache. Descriptors are -1 when closed. */
struct store {
	char name[CACHE_NAME_MAX];
	int root;    /* the folder of all caches */
	int folder;  /* that of this one */
	int header;  /* holds a shared lock: in use */
	int index, data;
	int recency; /* -1 where it cannot be written */
	uint64_t nonce;
	bool frozen;  /* nothing can be written: it serves what it holds */
	bool created; /* by this opening */
};

/*
 * Opens the cache called `name` below the folder `root` (becomes the store's), or makes it; what lies there under the
 * name for other facts, or damaged, is put aside, and removed unless somebody uses it.
 */
int store_open(struct store *s, int root, const char *name, const struct store_facts *facts, struct error *err);

/* `abandoned`: what store_open() made is removed again. */
void store_close(struct store *s, bool abandoned);

/*
 * Keeps other processes from removing things in the root. A descriptor to be closed, or -EBUSY after `timeout_ns`, or
 * another negative errno.
 */
int store_lock_root(int root, uint64_t timeout_ns);

/* Removes what was being made or removed by who did not live to finish it. Under the root's lock. */
void store_sweep(int root);

/* Removes the cache `name` unless somebody uses it. Under the root's lock. True when it is gone. */
bool store_remove_unused(int root, const char *name);

/* Is it the folder of this store? */
bool store_is(const struct store *s, const char *name);

/* Bytes that the files in the folder of a cache take on the medium; *used: when it was last opened or closed, in s. */
uint64_t store_usage(int root, const char *name, int64_t *used);

/* Calls visit(argument, name) for each entry of the root until it returns false. 0 or a negative errno. */
int store_list(int root, bool (*visit)(void *argument, const char *name), void *argument);

#endif

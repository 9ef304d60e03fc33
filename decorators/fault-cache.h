/* SPDX-License-Identifier: BSD-3-Clause */
/* The volatile write cache of a disk, which a power cut empties. */
#ifndef PLATTER_DECORATORS_FAULT_CACHE_H
#define PLATTER_DECORATORS_FAULT_CACHE_H

#include <jansson.h>

#include "core/disk.h"

/*
 * Writes, zeroes and discards are held in memory until they are flushed, and reads see them; what would not fit is
 * written to the disk below, oldest first. What is written with FUA is on the disk below when that returns. Any
 * thread or fiber; all calls answer as those of core/disk.h, with the reason in `io`.
 */
struct fault_cache;

/*
 * A cache over `below` that holds about `limit` bytes; a power cut keeps or loses `unit` bytes (whole blocks of the
 * disk) at a time, and, where `in_order` is set, keeps what was written first. NULL: no memory.
 */
struct fault_cache *fault_cache_create(struct disk *below, uint64_t limit, uint32_t unit, bool in_order);

/* What it holds is lost. Accepts NULL. */
void fault_cache_free(struct fault_cache *c);

int fault_cache_read(struct fault_cache *c, const struct vec *v, uint64_t offset, const struct io *io);
int fault_cache_write(struct fault_cache *c, const struct vec *v, uint64_t offset, const struct io *io);
int fault_cache_write_zeroes(struct fault_cache *c, uint64_t offset, uint64_t length, const struct io *io);
int fault_cache_discard(struct fault_cache *c, uint64_t offset, uint64_t length, const struct io *io);
int fault_cache_flush(struct fault_cache *c, const struct io *io);

/* What is held counts as data. */
int fault_cache_extents(struct fault_cache *c, struct extents *out, const struct io *io);

/*
 * Cuts the power: what is held comes to the disk below in one of the ways that a cut may leave it, by the seed, and
 * the rest is gone. Until the power is back all of the calls above fail with -EIO.
 */
int fault_cache_cut(struct fault_cache *c, uint64_t seed, const struct io *io);
void fault_cache_restore(struct fault_cache *c);

/* Adds "cache": the limit, how much is held. */
void fault_cache_describe(struct fault_cache *c, json_t *object);

#endif

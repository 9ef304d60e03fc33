/* SPDX-License-Identifier: BSD-3-Clause */
/* A byte-granular view of a disk, for clients that do not keep to its blocks (NBD, FUSE). */
#ifndef PLATTER_CORE_BYTES_H
#define PLATTER_CORE_BYTES_H

#include "core/disk.h"

/*
 * Requests that keep to the blocks pass through; others become read-modify-write of the blocks at their edges, under
 * range locks, so that writers of neighbouring bytes never lose each other's data. All writers of one disk must
 * share one view: two views of a disk do not know of each other's range locks.
 */
struct bytes;

/* A view of `disk` that holds a reference to it. 0 or -ENOMEM. */
int bytes_create(struct disk *disk, struct bytes **out);

/* Frees the view and gives up its reference (disk_close, whose result this is). Accepts NULL. */
int bytes_destroy(struct bytes *b, struct error *err);

/* The disk below. */
struct disk *bytes_disk(const struct bytes *b);

/* As disk_read() and disk_write(), at any byte. */
int bytes_read(struct bytes *b, const struct vec *v, uint64_t offset, const struct io *io);
int bytes_write(struct bytes *b, const struct vec *v, uint64_t offset, const struct io *io);

/* As disk_flush(). */
int bytes_flush(struct bytes *b, const struct io *io);

/* As disk_discard(), for the whole blocks inside the range; the edges keep their content. */
int bytes_discard(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io);

/* As disk_write_zeroes(), at any byte: partial blocks at the edges are rewritten (-EOPNOTSUPP if IO_FAST_ONLY). */
int bytes_write_zeroes(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io);

/* As disk_extents(), for any byte range. */
int bytes_extents(struct bytes *b, struct extents *out, const struct io *io);

/* As disk_prefetch(), widened to whole blocks. */
int bytes_prefetch(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* The file that an image lies in: bytes at any offset, a size that grows and shrinks. Formats know nothing else of where they lie. */
#ifndef PLATTER_FORMATS_CONTAINER_H
#define PLATTER_FORMATS_CONTAINER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"
#include "core/extents.h"
#include "core/identity.h"
#include "core/io.h"
#include "core/vec.h"
#include "core/watch.h"

struct container;

/*
 * Every call but close may come from any thread or fiber at any time, many at once. A transfer is whole or an error; results
 * are those of core/disk.h, and the reason is recorded in `io` with the container's name. The caller keeps reads inside the size:
 * what lies behind it is -EIO. A write behind the end makes the file longer, and what lies between is zero.
 *
 * After a flush that failed every change and every flush is refused with -EIO.
 *
 *   read, write  `durable`: as if a flush followed that makes this write alone durable
 *   flush        what was answered before survives a power cut, the size as well
 *   resize       what is added reads as zero; what is cut is lost
 *   zero         the range, inside the size, reads as zero. `unmap`: its space is given back where that is possible. Never fails
 *                for want of support: zeroes are written then, or, with IO_FAST_ONLY, it is -EOPNOTSUPP
 *   extents      as host_file_extents(), in runs of whole `block`s
 *   prefetch     hint
 *   identity     as disk_identity(); NULL: -EOPNOTSUPP
 *   close        ends it, unflushed. `remove`: what opening created is removed again
 */
struct container_ops {
	int (*read)(struct container *c, const struct vec *v, uint64_t offset, const struct io *io);
	int (*write)(struct container *c, const struct vec *v, uint64_t offset, bool durable, const struct io *io);
	int (*flush)(struct container *c, const struct io *io);
	int (*resize)(struct container *c, uint64_t size, const struct io *io);
	int (*zero)(struct container *c, uint64_t offset, uint64_t length, bool unmap, const struct io *io);
	int (*extents)(struct container *c, struct extents *out, uint32_t block, const struct io *io);
	void (*prefetch)(struct container *c, uint64_t offset, uint64_t length);
	int (*identity)(struct container *c, struct identity *out);
	int (*close)(struct container *c, bool remove, struct error *err);
};

struct container {
	const struct container_ops *ops;
	char *name;            /* for messages and for finding parents: the path as it was given */
	bool read_only;
	bool is_file;          /* `device` and `inode` are valid */
	dev_t device;          /* with inode: which file it is, to find cycles of parents */
	ino_t inode;
	struct watch *watch;   /* who is told of long work on the whole of it; NULL, as when it is opened: nobody */
	_Atomic uint64_t size; /* bytes; kept by the container, at least as large as every write that was answered reached */
};

enum container_flags {
	CONTAINER_READ_ONLY = 1 << 0, /* opened for reading; no lock is taken */
	CONTAINER_SHARED = 1 << 1,    /* with READ_ONLY: no writer may have it open meanwhile, as it is for parents */
	CONTAINER_CREATE = 1 << 2,    /* made anew, of size 0; an existing file is never overwritten (-EEXIST) */
};

/*
 * Opens the file `path` as a container: a regular file, or, for reading, a block device. A writer takes the lock that lets no
 * second one in.
 */
int container_open(const char *path, unsigned flags, struct container **out, struct error *err);

/* The same for a descriptor that is open already, which becomes the container's with success; `name` is what to call it. */
int container_from_fd(int fd, const char *name, unsigned flags, struct container **out, struct error *err);

/* Ends it; see `close`. Accepts NULL. Returns 0 or what failed, with `err` set. */
int container_close(struct container *c, bool remove, struct error *err);

static inline uint64_t container_size(const struct container *c)
{
	return atomic_load_explicit(&c->size, memory_order_acquire);
}

static inline bool container_is_same(const struct container *a, const struct container *b)
{
	return a->is_file && b->is_file && a->device == b->device && a->inode == b->inode;
}

static inline int container_read(struct container *c, void *data, size_t size, uint64_t offset, const struct io *io)
{
	return c->ops->read(c, &VEC_FLAT(data, size), offset, io);
}

static inline int container_write(struct container *c, const void *data, size_t size, uint64_t offset, const struct io *io)
{
	return c->ops->write(c, &VEC_FLAT((void *)(uintptr_t)data, size), offset, false, io);
}

/* For opening: reads, or says in `err` why not. What lies behind the end is -EIO with the two sizes. */
int container_load(struct container *c, void *data, size_t size, uint64_t offset, struct error *err);

/* For opening, creating and repairing: writes, flushes, resizes, or says in `err` why not. */
int container_store(struct container *c, const void *data, size_t size, uint64_t offset, struct error *err);
int container_sync(struct container *c, struct error *err);
int container_set_size(struct container *c, uint64_t size, struct error *err);

#endif

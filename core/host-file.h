/* SPDX-License-Identifier: BSD-3-Clause */
/* An open file or block device of this machine: what disks and image formats that lie in one have in common. */
#ifndef PLATTER_CORE_HOST_FILE_H
#define PLATTER_CORE_HOST_FILE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "core/extents.h"
#include "core/file-io.h"
#include "core/wait.h"

/*
 * Offsets and lengths are bytes; nothing here knows a size or checks one. Results are 0 or a negative errno as the system said
 * it (file_status() makes a disk's of it). Any thread or fiber may call, many at once.
 *
 * A failed flush is final: the kernel may have dropped the dirty pages and forgotten (fsync(2)), so it is never retried into
 * success. From then on host_file_failed() is not 0, and the owner refuses changes.
 */
struct host_file {
	int fd; /* the owner's to open and close */
	bool is_device;
	struct file_alignment alignment;
	_Atomic bool no_dsync;       /* RWF_DSYNC is not known here */
	_Atomic bool no_zero_range;  /* FALLOC_FL_ZERO_RANGE is not known here */
	_Atomic int sync_failed;     /* -errno of the flush that failed for good */
	struct wait_mutex sync_lock; /* protects sync_covered, orders flushes; held across I/O, the last lock taken */
	_Atomic uint64_t sync_asked; /* flushes asked for: each takes the next number */
	uint64_t sync_covered;       /* up to this number they are answered by a flush that began later */
};

/* Nothing is open; what is not set afterwards is right for an ordinary file. */
void host_file_init(struct host_file *f);

/* -errno of the flush that failed for good, or 0. */
static inline int host_file_failed(const struct host_file *f)
{
	return atomic_load_explicit(&f->sync_failed, memory_order_relaxed);
}

/* All of `v`; -ENXIO at the end of the file. */
static inline int host_file_read(const struct host_file *f, const struct vec *v, uint64_t offset)
{
	return file_read(f->fd, v, offset, &f->alignment);
}

/* All of `v`; it survives a power cut when this returns 0. */
int host_file_write_durably(struct host_file *f, const struct vec *v, uint64_t offset);

/* All of `v`, `durable` or not. */
static inline int host_file_write(struct host_file *f, const struct vec *v, uint64_t offset, bool durable)
{
	if (__builtin_expect(durable, 0))
		return host_file_write_durably(f, v, offset);
	return file_write(f->fd, v, offset, 0, &f->alignment);
}

/*
 * Makes durable what was written before the call. The kernel tells a failure to one caller only: flushes run one at a time,
 * and those that wait share the next.
 */
int host_file_sync(struct host_file *f);

/* Gives the range's space back; it reads as zero afterwards, on a device perhaps. Success where nothing can be done. */
int host_file_discard(struct host_file *f, uint64_t offset, uint64_t length);

/*
 * Zeroes the range without writing zeroes, inside the file's size, which stays. `may_unmap`: its space may be given back.
 * -EOPNOTSUPP where there is no way.
 */
int host_file_zero(struct host_file *f, uint64_t offset, uint64_t length, bool may_unmap);

/* Sets the size of a regular file. */
int host_file_truncate(struct host_file *f, uint64_t size);

/*
 * Appends what SEEK_DATA and SEEK_HOLE say of the range that `out` asks for, in runs of whole `block`s: one that is partly data
 * is data, and so is all where the file system cannot tell. A hole reaches past the end of the file.
 */
int host_file_extents(struct host_file *f, struct extents *out, uint32_t block);

/* Hint that the range will be read soon. */
void host_file_prefetch(struct host_file *f, uint64_t offset, uint64_t length);

/*
 * Gives up OFD locks and closes. Closing alone is not enough: a request of an io_uring holds the file until a moment after it was
 * answered, and the lock with it, so that whoever opens the file right after us would now and then be refused.
 */
int host_file_close(struct host_file *f);

/* Makes the name of a new file as durable as what will be flushed to it. */
int host_file_sync_folder(const char *path);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* The other side of core/disk.h: what a kind of disk implements. Frontends do not include this. */
#ifndef PLATTER_CORE_NODE_H
#define PLATTER_CORE_NODE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/disk.h"
#include "core/slots.h"
#include "core/wait.h"

/*
 * How a kind fills this in
 *
 * The state of a node begins with a `struct disk`; the kind allocates it with disk_new(), fills in `info`
 * (disk_inherit() copies the child's), and publishes it with disk_publish().
 *
 * An operation left NULL is forwarded to the first child; in a node without children it does what is right for
 * a disk that has no such operation (see the table). So a pass-through decorator has an empty table, and a new
 * operation cannot be forgotten in any of them.
 *
 *   operation       left NULL, with a child   left NULL, without
 *   read, write     forwarded                 (must be given; write may be NULL on a read-only disk: -EROFS)
 *   flush           forwarded                 success
 *   discard         forwarded                 success, nothing done
 *   write_zeroes    forwarded                 writes zeroes (-EOPNOTSUPP if IO_FAST_ONLY)
 *   extents         forwarded                 all data
 *   prefetch        forwarded                 success, nothing done
 *   warm            forwarded if read is, too nothing done
 *   resize, eject   forwarded                 -EOPNOTSUPP
 *   reserve, report forwarded                 -EOPNOTSUPP
 *   watch           forwarded                 -EOPNOTSUPP
 *   identity        forwarded if read is, too -EOPNOTSUPP
 *   child_resized   takes the child's size    -
 *   describe        adds nothing              adds nothing
 *   close           nothing to do             nothing to do
 *
 * A node with several children whose operations do not map onto the first one alone gives them all.
 *
 * What the operations may assume: arguments were checked by the entry point (whole blocks of this node, inside the
 * size as it was a moment ago, not read-only, length not 0). A kind whose size can move checks again together with
 * the I/O. Operations run many at once. On failure they record the reason with io_fail() where it is first known.
 * They call their children through disk_*() only, and hand the `io` on.
 */
struct disk_ops {
	int (*read)(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io);
	int (*write)(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io);
	int (*flush)(struct disk *d, const struct io *io);
	int (*discard)(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);
	int (*write_zeroes)(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);
	int (*extents)(struct disk *d, struct extents *out, const struct io *io);
	int (*prefetch)(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);
	void (*warm)(struct disk *d, uint64_t offset, uint64_t length, enum warm what); /* of any bytes */
	int (*resize)(struct disk *d, uint64_t size, const struct io *io);
	int (*eject)(struct disk *d, const struct io *io);
	int (*reserve)(struct disk *d, const struct reservation_request *request,
		       const struct io *io);
	int (*report_reservations)(struct disk *d, struct reservation_report *report,
				   const struct io *io);
	int (*watch_reservations)(struct disk *d, struct reservation_watch *w, bool on);

	/* A node that reads by itself shows other bytes than its child: without this it has no identity. */
	int (*identity)(struct disk *d, struct identity *out);

	/*
	 * A child's size changed: returns this node's new size. Called with the node's resize lock held, after
	 * the child's size was stored; may not wait.
	 */
	uint64_t (*child_resized)(struct disk *d);

	/* Adds what only the kind knows (paths, bytes held) to `object`. */
	void (*describe)(struct disk *d, json_t *object);

	/*
	 * Ends the node: waits for its own background work, makes what it holds durable unless `abandoned`, frees what
	 * hangs on the state (not the state itself, not the children: they are closed after it). `abandoned` is true when
	 * the tree around it failed to open: then what this open created is removed again. Returns 0, or the status of what
	 * could not be saved, with `err` set.
	 */
	int (*close)(struct disk *d, bool abandoned, struct error *err);
};

/* Fields are the core's, but for those marked as the kind's. */
struct disk {
	/* read on every request */
	struct disk_ops ops; /* complete: NULLs replaced */
	_Atomic uint64_t size;
	uint64_t block_mask;
	bool read_only;
	_Atomic bool measured;
	struct stat_slot *_Atomic slots[STAT_SLOTS];

	struct disk_info info; /* the kind's, until it is published */
	const char *kind;      /* static string */
	struct disk *parent;   /* who hears of size changes; NULL for the root */
	struct disk **children;
	unsigned nr_children;
	_Atomic unsigned references;

	pthread_mutex_t resize_lock; /* orders changes of `size`; no other lock is taken and nothing waits under it */
	struct wait_signal resized;  /* raised when the size changes and when waits are cancelled */
	_Atomic unsigned resize_cancels;
};

/*
 * Allocates a zeroed state of `state_size` bytes, on a cache line, that begins with a struct disk, over `children` (which it will
 * own from disk_publish() on). NULL when memory ran out.
 */
void *disk_new(size_t state_size, const char *kind, const struct disk_ops *ops,
	       struct disk *const *children, unsigned nr_children);

/* Frees a state that was never published; its children stay the caller's. */
void disk_drop_new(struct disk *d);

/* Copies info and size of the first child: what a decorator starts from. */
void disk_inherit(struct disk *d);

/*
 * Checks geometry and size (bytes), freezes them and makes the node usable. On failure `err` says what was wrong
 * and the node is still the caller's (disk_drop_new). On success the children belong to it.
 */
int disk_publish(struct disk *d, uint64_t size, struct error *err);

/* Announces a new size of this node: stores it, wakes who waits, tells the parents. Not under a lock that an operation takes. */
void disk_set_size(struct disk *d, uint64_t size);

/* Checks a size from outside: not 0, whole blocks, not past DISK_MAX_END. `what` names it in the message. */
int disk_check_size(uint64_t size, uint32_t block_size, const char *what, struct error *err);

/* Writes zeroes through the node's own write operation; what write_zeroes falls back to. */
int disk_write_zeroes_slowly(struct disk *d, uint64_t offset, uint64_t length,
			     const struct io *io);

#endif

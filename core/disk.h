/* SPDX-License-Identifier: BSD-3-Clause */
/* The one door: a disk as everything that uses disks sees it. */
#ifndef PLATTER_CORE_DISK_H
#define PLATTER_CORE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "core/error.h"
#include "core/extents.h"
#include "core/identity.h"
#include "core/io.h"
#include "core/stats.h"
#include "core/vec.h"

/*
 * A disk is a tree of nodes, each a `struct disk`, of which a user holds the root. Every disk_*() call may come
 * from any thread or fiber at any time, many at once, unless its comment says otherwise. It blocks the thread,
 * or suspends the fiber, until the work is done.
 *
 * Offsets and lengths are bytes. The entry points check for everybody: whole logical blocks (-EINVAL), no
 * overflow, end <= INT64_MAX and inside the current size (-ERANGE), not written to when read-only (-EROFS). A length
 * of zero at or below the size is a success that does nothing.
 *
 * Results are 0 or a negative errno with the block layer's meanings:
 *
 *   -ERANGE      outside the disk              -EROFS      the disk or range is read-only
 *   -EINVAL      malformed request             -EBADE      reservation conflict
 *   -EIO         transport or host I/O error   -ECANCELED  aborted by preempt-and-abort
 *   -ENODATA     medium error                  -EOPNOTSUPP this disk cannot do that
 *   -EFAULT      caller's memory unreachable   -ENOSPC     the store below is full; nothing half-done is left
 *   -ENOMEM      no memory                     -ENOMEDIUM  no medium
 */
struct disk;

/* The largest end of a disk in bytes; sizes are whole blocks, so the largest size is a little less. */
#define DISK_MAX_END INT64_MAX

#define DISK_MIN_BLOCK 512u
#define DISK_MAX_BLOCK 65536u

/* What becomes of discarded blocks. */
enum disk_discard {
	DISK_DISCARD_IGNORED,     /* nothing: discard succeeds and does nothing */
	DISK_DISCARD_UNSPECIFIED, /* content may change or not */
	DISK_DISCARD_ZEROES,      /* whole granules read as zeroes from then on */
};

enum disk_flags {
	DISK_READ_ONLY = 1 << 0,  /* writes are refused with -EROFS */
	DISK_FUA = 1 << 1,        /* IO_FUA is honoured by the node itself, cheaper than a flush */
	DISK_ROTATIONAL = 1 << 2, /* seeks cost */
	DISK_REMOVABLE = 1 << 3,  /* the medium can be ejected */
	DISK_HAS_ID = 1 << 4,     /* `id` is valid */
	DISK_FAST_ZERO = 1 << 5,  /* IO_FAST_ONLY zeroing may succeed */
	DISK_VOLATILE = 1 << 6,   /* content (or what was written since open) is gone after close */
	DISK_RESIZABLE = 1 << 7,  /* disk_resize() may succeed */
};

/* Everything about a disk that is frozen when it is opened (the size is not: disk_size). */
struct disk_info {
	uint32_t block_size;          /* logical block in bytes: power of two, 512..65536 */
	uint32_t physical_block_size; /* power of two, >= block_size */
	uint32_t discard_granularity; /* bytes, a multiple of block_size */
	uint32_t discard_alignment;   /* bytes; offset of the first whole granule, < granularity */
	enum disk_discard discard;
	unsigned flags;  /* enum disk_flags */
	uint8_t id[16];  /* see DISK_HAS_ID */
};

/* ------------------------------------------------------------------ geometry */

/* The frozen facts; valid as long as the disk. */
const struct disk_info *disk_info(const struct disk *d);

/* Current size in bytes, a multiple of the block size. */
uint64_t disk_size(const struct disk *d);

/* Kind of the node: "mem", "file", ... */
const char *disk_kind_name(const struct disk *d);

/* ------------------------------------------------------------------ I/O */

/* Reads v->size bytes at `offset`. On failure the content of `v` is unspecified. */
int disk_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io);

/* Writes v->size bytes at `offset`; IO_FUA. On failure any part of the range may have been written. */
int disk_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io);

/* Makes everything that was answered before this call durable. */
int disk_flush(struct disk *d, const struct io *io);

/* Hint that the range is not needed any more; what it reads as is disk_info()->discard. IO_FUA. */
int disk_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);

/* Makes the range read as zeroes; IO_FUA, IO_MAY_UNMAP, IO_FAST_ONLY. Always works on a writable disk but for IO_FAST_ONLY. */
int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);

/*
 * What the range holds; runs are appended to `out`, which was prepared with extents_init() and gives the range
 * (whole blocks) and the most runs wanted. At least one run is found when the range is not empty.
 */
int disk_extents(struct disk *d, struct extents *out, const struct io *io);

/* Hint that the range will be read soon. */
int disk_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);

/* What disk_warm() brings to the processor: what tells where the bytes are, or, some hundred nanoseconds after that, the bytes. */
enum warm { WARM_WAY, WARM_DATA };

/*
 * Hint that `length` bytes at `offset` are about to be read, for who knows of it some hundred nanoseconds before: a disk that holds them in
 * memory asks for the beginning of them, so that they come while something else is done. Other disks do nothing. Never waits, cannot
 * fail, is not counted; any range will do, whole blocks or not.
 */
void disk_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what);

/*
 * What the content is known by, for who keeps something of it beyond close; see core/identity.h. Taken now: who reads, and
 * then finds the same identity as before, has read that version. -EOPNOTSUPP where nothing tells a change of content (a
 * block device, RAM, what is written to through layers); another status when it could not be found out.
 */
int disk_identity(struct disk *d, struct identity *out);

/* ------------------------------------------------------------------ size changes */

/*
 * Changes the size (bytes, whole blocks, not 0). What is cut off is lost; what is added reads as zeroes. -EOPNOTSUPP where
 * the disk cannot; -EROFS.
 */
int disk_resize(struct disk *d, uint64_t size, const struct io *io);

/*
 * Waits until the size differs from `known`: at once if it does already. Any number of threads and fibers may wait.
 * 0 and *size on a change; -ETIMEDOUT after `timeout_ns` (UINT64_MAX: no limit); -ECANCELED from
 * disk_cancel_resize_waits(). The caller holds a reference while it waits.
 */
int disk_wait_resize(struct disk *d, uint64_t known, uint64_t timeout_ns, uint64_t *size);

/* Ends every wait that is under way on this node with -ECANCELED; later ones are not affected. */
void disk_cancel_resize_waits(struct disk *d);

/* ------------------------------------------------------------------ media and reservations */

/* Ejects the medium. -EOPNOTSUPP where there is none to eject. */
int disk_eject(struct disk *d, const struct io *io);

enum reservation_type { /* numbered as by NVMe and Linux' pr_type; in SCSI these are 0, 1, 3, 5, 6, 7, 8 */
	RESERVATION_NONE,
	RESERVATION_WRITE_EXCLUSIVE,
	RESERVATION_EXCLUSIVE_ACCESS,
	RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS,
	RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS,
	RESERVATION_WRITE_EXCLUSIVE_ALL,
	RESERVATION_EXCLUSIVE_ACCESS_ALL,
};

enum reservation_action {
	RESERVATION_REGISTER,          /* key: current, new_key: 0 unregisters */
	RESERVATION_REGISTER_IGNORING, /* as above, whatever the current key is */
	RESERVATION_RESERVE,
	RESERVATION_RELEASE,
	RESERVATION_CLEAR,
	RESERVATION_PREEMPT,       /* victims: new_key */
	RESERVATION_PREEMPT_ABORT, /* and returns when no request that was let through before it is under way any more */
	RESERVATION_MOVE,          /* registers also[0] with new_key and makes it the holder */
};

/* decorators/reservations.h says what each action does, and how SCSI's and NVMe's commands become one. */
struct reservation_request {
	enum reservation_action action;
	enum reservation_type type; /* reserve, release, preempt */
	uint64_t key;
	uint64_t new_key;
	int persist;                   /* register, move: -1 leave, 0 off, 1 persists through power loss */
	bool nvme;                     /* by NVMe's rules where they are not SCSI's */
	bool unregister;               /* move: who asks is no registrant any more */
	const struct initiator *also;  /* register: others to which the same happens, all or none; move: whereto */
	size_t nr_also;
};

struct reservation_registrant {
	struct initiator who;
	uint64_t key;
	bool holds;
};

struct reservation_report {
	uint32_t generation;
	enum reservation_type type;
	bool persists;
	unsigned types; /* bit (1 << enum reservation_type): supported */
	bool can_persist;
	size_t count;
	struct reservation_registrant *registrants; /* owned by the caller: free() */
};

/* What somebody else did to an initiator: a unit attention in SCSI, a notification in NVMe. */
enum reservation_event {
	RESERVATION_EVENT_PREEMPTED,              /* by clear: its registration and all others are gone */
	RESERVATION_EVENT_REGISTRATION_PREEMPTED, /* by preempt: its registration is gone */
	RESERVATION_EVENT_RELEASED,               /* it is a registrant, and the reservation was released or is of another type */
};

/*
 * Someone who wants to hear of these events, of all initiators. `tell` is called on the thread that made the change, before its
 * disk_reserve() returns, under a lock: it may neither wait nor call the disk.
 */
struct reservation_watch {
	void (*tell)(struct reservation_watch *w, const struct initiator *who, enum reservation_event event);
	struct reservation_watch *next; /* the disk's */
};

/*
 * Carries out one persistent-reservation service action for io->who. Where it fails nothing has changed. -EBADE on a conflict;
 * -EINVAL for what the standards call an invalid field; -ENOSPC when there are too many registrants; -EOPNOTSUPP without support.
 */
int disk_reserve(struct disk *d, const struct reservation_request *request, const struct io *io);

/* Reports registrations and the holder. -EOPNOTSUPP without support, which is how to ask for it. */
int disk_report_reservations(struct disk *d, struct reservation_report *report, const struct io *io);

/*
 * Begins (`on`) or ends the watching; `w` is not touched any more when that returns. Every watch is ended before the disk is
 * closed. -EOPNOTSUPP without support.
 */
int disk_watch_reservations(struct disk *d, struct reservation_watch *w, bool on);

/* ------------------------------------------------------------------ looking inside */

/*
 * The tree below and including `d` as JSON: kind, size, geometry, flags, what the kind says of itself,
 * children. A new reference; NULL when memory ran out.
 */
json_t *disk_describe(struct disk *d);

/* Sums the node's counters. */
void disk_stats(struct disk *d, struct stat_totals *out);

/*
 * Switches the latency histogram of this node on or off. The root that disk_open() returns has it on, other
 * nodes have it off.
 */
void disk_measure_latency(struct disk *d, bool on);

/* The node's children in order; NULL past the last. The reference stays the tree's. */
struct disk *disk_child(const struct disk *d, unsigned index);

/* ------------------------------------------------------------------ life */

/* One more holder of the root. Returns `d`. */
struct disk *disk_ref(struct disk *d);

/*
 * Gives up one reference. The last one waits until the last request on the root has ended, flushes, closes the
 * tree from the top down and reports the first thing that failed in `err`; the disk is gone in any case. Not to be
 * called from inside a request on the same disk. Accepts NULL.
 */
int disk_close(struct disk *d, struct error *err);

/*
 * Takes a tree apart as if it had never been opened: nothing is flushed, files that its opening created are removed. For who
 * opens several disks and cannot open them all: the caller holds the only reference and has made no request. Accepts NULL.
 */
void disk_abandon(struct disk *d);

#endif

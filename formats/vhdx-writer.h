/* SPDX-License-Identifier: BSD-3-Clause */
/* What a VHDX file that is open for writing has besides. For formats/vhdx*.c alone; vhdx-write.c opens with the rules. */
#ifndef PLATTER_FORMATS_VHDX_WRITER_H
#define PLATTER_FORMATS_VHDX_WRITER_H

#include <errno.h>

#include "formats/vhdx-file.h"
#include "formats/vhdx-log.h"

/* Space that holds nothing any more. */
struct vhdx_free {
	uint64_t offset;
	uint64_t length;
	uint64_t change; /* it may be used when this change is durable */
	bool zeroed;     /* it reads as zeroes */
};

/* A list of them. */
struct vhdx_frees {
	struct vhdx_free *list;
	size_t count, room;
};

struct vhdx_space {
	struct wait_mutex lock;   /* protects all of this; across I/O that makes the file longer; the last lock but the container's */
	uint64_t *used;           /* a bit for each MiB of the file as it was found; NULL: not looked at yet */
	uint64_t used_mib;        /* bits */
	uint64_t hand[2];         /* MiB where the search for a gap goes on: for payload blocks, for sector bitmap blocks */
	uint64_t next;            /* from here to the end of the file nothing is used, and all reads as zero */
	struct vhdx_frees ready;  /* may be used */
	struct vhdx_frees freed;  /* may be used when what freed them is durable and nobody is there any more */
};

/* The log as we write it; all under `lock`. See vhdx-commit.c. */
struct vhdx_commit {
	struct wait_mutex lock;      /* one commit at a time; held across I/O; after block_locks, before space.lock */
	_Atomic uint64_t asked;      /* flushes asked for: each takes the next number */
	uint64_t covered;            /* up to this number they are answered */
	_Atomic uint64_t changes;    /* of pages; counted under pages.lock shared */
	_Atomic uint64_t durable;    /* up to this number they are */
	_Atomic bool flush_first;    /* something logged next needs its data durable before; under pages.lock */
	_Atomic int failed;          /* for good: nothing is written any more */
	struct guid guid;            /* of the log in the header; null: the log is not in use */
	uint64_t sequence;           /* of the last entry */
	uint32_t position;           /* where the next entry goes */
	uint32_t last;               /* where the last one begins, whose pages are written in place but perhaps not durable */
	uint32_t tail;               /* the last one's tail: what lies before it is dead */
	uint64_t flushed_size;       /* of the file, known to be durable */
	uint8_t *entry;              /* room for the largest entry */
};

struct vhdx_writer {
	struct vhdx_space space;
	struct vhdx_commit commit;
	_Atomic bool begun;          /* the session's header is written */
	bool keeps_data;             /* the session does not change what the disk holds: no new DataWriteGuid */
	struct guid next_data;       /* the new DataWriteGuid; null: a random one */
	struct wait_mutex beginning; /* one begins; across I/O */
	struct wait_mutex bitmaps;   /* one makes a sector bitmap block; across I/O, after block_locks */
	struct wait_mutex resizing;  /* one resizes; across I/O, before block_locks */
};

/* ------------------------------------------------------------------ vhdx-space.c */

/*
 * Looks at the whole table: what is in use, and that nothing is used twice or lies where it cannot be. -EIO where the table is
 * wrong: then nothing may be written.
 */
int vhdx_space_scan(struct vhdx *x, const struct io *io);

/* Cuts off what lies behind the last thing in use, of which nobody knows what it holds. The session's header is durable. */
int vhdx_space_cut(struct vhdx *x, const struct io *io);

enum vhdx_space_kind {
	VHDX_SPACE_FRESH,  /* it reads as zero, and will after a power cut */
	VHDX_SPACE_ZEROED, /* it reads as zero, after a power cut perhaps as something else: flush before it is published */
	VHDX_SPACE_STALE,  /* it holds something: zero or overwrite it, and flush before it is published */
};

/* Space for `length` bytes: a payload block, or a sector bitmap block. */
int vhdx_space_take(struct vhdx *x, uint64_t length, uint64_t *offset, enum vhdx_space_kind *kind, const struct io *io);

/* What was taken and not published may be used again. */
void vhdx_space_return(struct vhdx *x, uint64_t offset, uint64_t length);

/* What change number `change` freed. */
void vhdx_space_free(struct vhdx *x, uint64_t offset, uint64_t length, uint64_t change);

/* After a commit: frees whose change is durable are made ready. Not from inside `grace`. */
void vhdx_space_settle(struct vhdx *x, uint64_t durable, const struct io *io);

/* The smallest size that the file can have. */
uint64_t vhdx_space_end(struct vhdx *x);

/*
 * For who moves blocks, and is alone: the first gap of this length that ends before `before`, found when the session began. False: there
 * is none.
 */
bool vhdx_space_gap(struct vhdx *x, uint64_t length, uint64_t before, uint64_t *offset);

/* Nothing lies behind `end` any more, durably. */
void vhdx_space_lower(struct vhdx *x, uint64_t end);

void vhdx_space_destroy(struct vhdx_space *s);

/* ------------------------------------------------------------------ vhdx-commit.c */

/* Pages that one entry holds at most: three entries fit in a log of 1 MiB, see vhdx-commit.c. */
#define VHDX_ENTRY_PAGES 80u

/* More dirty pages than this are not left to a flush. */
#define VHDX_DIRTY_PAGES 64u

/* The session's header, before anything else is written. */
int vhdx_commit_begin(struct vhdx *x, const struct io *io);

/* Makes durable what was answered before: data, and what says where it lies. */
int vhdx_commit_flush(struct vhdx *x, const struct io *io);

/*
 * The same, and then `count` pages that are not among those in memory, at most VHDX_ENTRY_PAGES, all or none of them. For changes
 * of metadata.
 */
int vhdx_commit_pages(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, const struct io *io);

/* As vhdx_commit_flush(), and nothing that was logged up to now is written again by a replay. */
int vhdx_commit_forget(struct vhdx *x, const struct io *io);

/*
 * Moves the table to `offset`, where there are `length` bytes that read as zero, in one step with `count` pages of metadata that
 * say so. The space it leaves is not used again while the file is open.
 */
int vhdx_commit_move(struct vhdx *x, uint64_t offset, uint32_t length, const struct vhdx_logged *pages, uint32_t count,
		     const struct io *io);

/* Empties the log. */
int vhdx_commit_end(struct vhdx *x, const struct io *io);

/* ------------------------------------------------------------------ vhdx-write.c */

/* What every change begins with: in a session's first one the header is written. */
int vhdx_begin(struct vhdx *x, const struct io *io);

/* The entry at `index` of the table; and it becomes `entry`, by the change *number. */
int vhdx_load_index(struct vhdx *x, uint64_t index, uint64_t *entry, const struct io *io);
int vhdx_publish(struct vhdx *x, uint64_t index, uint64_t entry, bool flush_first, uint64_t *number, const struct io *io);

/* Zeroes, in the block where the disk ends, what lies behind its end. */
int vhdx_zero_beyond(struct vhdx *x, uint64_t offset, uint64_t length, const struct io *io);

/* -EIO when something failed after which nothing may be written any more. */
static inline int vhdx_check_failed(struct vhdx *x, const struct io *io)
{
	int failed = atomic_load_explicit(&x->writer->commit.failed, memory_order_relaxed);

	if (__builtin_expect(!failed, 1))
		return 0;
	return io_fail(io, -EIO, "'%s': an earlier write of its log or its block allocation table failed; nothing more is written",
		       x->file->name);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* An open VHD: what is known of its blocks, and how they come and become durable. For formats/vhd*.c alone. */
#ifndef PLATTER_FORMATS_VHD_IMAGE_H
#define PLATTER_FORMATS_VHD_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/gate.h"
#include "core/short-lock.h"
#include "core/wait.h"
#include "formats/container.h"
#include "formats/parent.h"
#include "formats/vhd-format.h"
#include "layers/layer.h"

#define VHD_PAGE_SHIFT 10
#define VHD_PAGE_ENTRIES (1u << VHD_PAGE_SHIFT)
#define VHD_PAGE_BYTES (VHD_PAGE_ENTRIES * 4)
#define VHD_STRIPES 64u
#define VHD_BITMAP_SECTORS (VHD_MAX_BLOCK / VHD_SECTOR / 8 / VHD_SECTOR) /* of the largest block: 128 */

/*
 * The sector bitmap of one block, in words of 64 sectors, the first sector in the highest bit. `bits` is the truth; `file` is what was
 * written last, or is about to be: it changes in a commit alone (formats/vhd-commit.c).
 */
struct vhd_bitmap {
	struct vhd_bitmap *next_dirty;
	uint32_t block;
	_Atomic bool listed;
	_Atomic bool full;                                     /* every bit is set */
	_Atomic uint32_t markers;                              /* who sets bits and has not said so yet */
	_Atomic uint64_t dirty[(VHD_BITMAP_SECTORS + 63) / 64]; /* sectors of the bitmap with bits that are not in `file` */
	uint64_t committing[(VHD_BITMAP_SECTORS + 63) / 64];
	uint64_t *file;
	_Atomic uint64_t bits[];
};

/* In place of a bitmap: all bits are set, in memory and in the file. NULL: not looked at yet. */
#define VHD_BITMAP_FULL ((struct vhd_bitmap *)8)

/* 4 KiB of the BAT, loaded when one of its blocks is first asked for. */
struct vhd_page {
	struct vhd_page *next_dirty;
	uint32_t number;
	_Atomic bool listed;
	_Atomic uint32_t at[VHD_PAGE_ENTRIES];                  /* sector of the block's bitmap, or VHD_ABSENT */
	_Atomic(struct vhd_bitmap *) bitmaps[VHD_PAGE_ENTRIES];
	_Atomic uint64_t pending[VHD_PAGE_ENTRIES / 64];        /* entries that are not in `file` */
	uint64_t committing[VHD_PAGE_ENTRIES / 64];
	uint32_t file[VHD_PAGE_ENTRIES];                        /* big-endian, as in the file, or about to be */
};

/* Where new blocks go; see formats/vhd-commit.c. */
struct vhd_space {
	struct short_lock lock;      /* protects next, end, spares */
	uint64_t next, end;          /* sectors: space that is zero, durably so, below the footer */
	uint32_t spares[VHD_STRIPES]; /* taken and given back */
	unsigned nr_spares;
	struct wait_mutex growing;   /* one at a time; held across I/O; taken under a stripe, before `committing` */
	bool has_grown;              /* since opening: the footer is ahead of the last block */
	uint64_t used_end;           /* bytes: nothing that is used lies behind, up to the first growth */
};

struct vhd {
	/* read on every request */
	struct container *c;
	enum vhd_type type;
	uint32_t block_shift;
	uint32_t bitmap_bytes;
	bool is_raw; /* not a VHD: a fixed disk without a footer, a parent of Xen's */
	bool bitmaps_count; /* for reading: differencing, or by Xen */
	_Atomic uint64_t size;
	_Atomic(struct vhd_page *) *pages;
	uint32_t nr_pages; /* for the largest disk that a VHD can be: a resize moves the BAT, not the pages */

	/* as in the file; changed by a resize alone, which has the gate closed */
	struct vhd_footer footer;
	struct vhd_header header;
	_Atomic uint64_t bat_offset;
	_Atomic uint32_t max_entries;
	uint64_t footer_at; /* bytes; where it belongs when it is missing */
	uint64_t parent_size; /* of what lies below, as far as it is known: UINT64_MAX */
	bool footer_missing; /* the copy at the front was taken */

	struct gate gate; /* writers pass, a resize closes it; outside of every other lock */
	struct wait_mutex stripes[VHD_STRIPES]; /* by block: who gives a block its place; held across I/O */
	struct wait_mutex loading; /* pages and bitmaps from the file; held across reads, nothing else is taken under it */
	struct vhd_space space;

	/* commits */
	struct wait_mutex committing; /* one at a time; held across I/O; the last one taken */
	_Atomic uint64_t flushes_asked;
	uint64_t flushes_covered; /* under `committing` */
	_Atomic bool commit_runs;
	struct short_lock dirty_lock; /* protects the two lists */
	struct vhd_page *dirty_pages;
	struct vhd_bitmap *dirty_bitmaps;
	struct vhd_bitmap *old_bitmaps; /* of blocks that a resize has cut off; by a resize alone */
};

/* ------------------------------------------------------------------ opening: formats/vhd-open.c */

struct vhd_open_options {
	bool lax;
	bool unchecked; /* the BAT is not looked at: for who does that himself, by vhd_scan() */
	enum vhd_size_rule size_rule;
};

/*
 * Reads and checks footer and header. For a container that can be written also the BAT, every entry of it: blocks outside of the file
 * or over each other must not be written to. The image does not own the container. On failure nothing is left.
 */
int vhd_image_open(struct container *c, const struct vhd_open_options *o, struct vhd **out, struct error *err);

/* What is in the file besides blocks. */
struct vhd_taken {
	uint64_t begin, end; /* bytes */
	const char *what;
};

#define VHD_MAX_TAKEN (VHD_LOCATORS + 5u)

/* How many there are; the footer, where it is not missing, is the last. */
unsigned vhd_list_taken(const struct vhd *v, struct vhd_taken list[VHD_MAX_TAKEN]);

/* A BAT entry must not be written to: the block overlaps `what`. 0: go on with the next. */
typedef int vhd_bad_entry(void *context, uint32_t block, uint32_t at, const char *what);

/* Looks at every entry of the BAT in the file; finds out where what is used ends. Fails as `bad` does, or with `err` set. */
int vhd_scan(struct vhd *v, vhd_bad_entry *bad, void *context, struct error *err);

/*
 * What vhd_scan() begins with: *clean, if it is beyond doubt that no entry is bad. Counts on `used_end` being that of what is in the file besides
 * blocks, and adds them. Memory for the time of the call: 4 bytes a block that the file has room for.
 */
int vhd_scan_quickly(struct vhd *v, bool *clean, struct error *err);

/* A raw file as a fixed image, for reading. */
int vhd_image_raw(struct container *c, struct vhd **out, struct error *err);

/*
 * Makes everything durable unless `abandoned`, puts the footer behind the last block, and frees the image; not the container. The
 * first failure.
 */
int vhd_image_close(struct vhd *v, bool abandoned, struct error *err);

/* The names of the parent, best first: locators by their codes, then the header's. -ENOMEM. A locator that is outside of the file is kept as a problem. */
int vhd_parent_names(const struct vhd *v, struct parent_names *names);

/* ------------------------------------------------------------------ naming a parent: formats/vhd-create.c */

struct vhd_options;

/* The id and the size of what is to be a parent; of a raw file the id is null. */
int vhd_ask_parent(const char *parent, bool raw, const struct vhd_options *read, uint8_t id[16], uint64_t *size, struct error *err);

/*
 * Writes the names of `parent` for the image `child` to the file from *end on, which moves behind them, and puts them into the header, all old
 * ones out. Not flushed. Without a container nothing is written.
 */
int vhd_name_parent(struct container *c, const char *child, const char *parent, struct vhd_header *h, uint64_t *end, struct error *err);

/* ------------------------------------------------------------------ where data lies: formats/vhd-blocks.c */

struct vhd_run {
	enum presence presence; /* absent: of differencing ones, ask the parent */
	uint64_t length;        /* bytes, at most what was asked for */
	uint64_t at;            /* LAYER_DATA: where in the file */
};

/* The first run of [offset, offset + length), inside the size: what read, map, extents and check all go by. */
int vhd_find(struct vhd *v, uint64_t offset, uint64_t length, struct vhd_run *run, const struct io *io);

/* The page of a block, loaded if it has to be. */
int vhd_page_get(struct vhd *v, uint32_t block, struct vhd_page **out, const struct io *io);

/* For who goes over all blocks: whether the page of this one is not loaded, and need not be, since none of its blocks is there. */
int vhd_page_is_absent(struct vhd *v, uint32_t block, bool *absent, const struct io *io);

/* Its bitmap, loaded if it has to be: VHD_BITMAP_FULL, or one that may be full by now. The block is allocated. */
int vhd_bitmap_get(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t at, struct vhd_bitmap **out, const struct io *io);

/* Data of the sectors that [from, from + length) bytes of the block cover is in the file: their bits may be set. */
int vhd_mark_present(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t at, uint64_t from, uint64_t length, const struct io *io);

/* Frees pages and bitmaps. */
void vhd_blocks_free(struct vhd *v);

static inline uint32_t vhd_block_bytes(const struct vhd *v)
{
	return 1u << v->block_shift;
}

/* Sectors from one block to the next as we lay them out: 4 KiB-aligned data, the bitmap right before it, and room for a footer before that. */
static inline uint64_t vhd_stride(const struct vhd *v)
{
	uint64_t bitmap = v->bitmap_bytes / VHD_SECTOR;

	return (bitmap + 8) / 8 * 8 + vhd_block_bytes(v) / VHD_SECTOR;
}

/* Sectors that a block takes in the file: bitmap and data. */
static inline uint64_t vhd_block_sectors(const struct vhd *v)
{
	return (v->bitmap_bytes + vhd_block_bytes(v)) / VHD_SECTOR;
}

/* The first place for a block from `sector` on. */
static inline uint64_t vhd_place_from(const struct vhd *v, uint64_t sector)
{
	uint64_t bitmap = v->bitmap_bytes / VHD_SECTOR;

	return (sector + bitmap + 7) / 8 * 8 - bitmap;
}

static inline uint64_t vhd_data_of(const struct vhd *v, uint32_t at)
{
	return (uint64_t)at * VHD_SECTOR + v->bitmap_bytes;
}

/* ------------------------------------------------------------------ new blocks, and making it all durable: formats/vhd-commit.c */

/* Gives the block a place unless it has one: *at. *fresh: it got it just now, and its space is zero. -ENOSPC. */
int vhd_allocate(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t *at, bool *fresh, const struct io *io);

/* Puts the page on the list of those to be written; the entry's pending bit is set by this. */
void vhd_page_dirty(struct vhd *v, struct vhd_page *p, uint32_t block);
void vhd_bitmap_dirty(struct vhd *v, struct vhd_bitmap *b);

/* Makes everything durable that was answered before. */
int vhd_flush(struct vhd *v, const struct io *io);

/* True when a durable write to an allocated block is not enough to find the data again after a power cut. */
bool vhd_needs_commit(struct vhd *v, struct vhd_page *p, uint32_t block);

/* Writes the footer there, the file made longer if need be; durable with success. Under `growing`, or alone. */
int vhd_footer_move(struct vhd *v, uint64_t to, const struct io *io);

/* Before closing: the footer to behind the last block, what was reserved is given back. */
int vhd_trim(struct vhd *v, const struct io *io);

/* ------------------------------------------------------------------ the layer of an image: formats/vhd-layer.c */

struct layer;

/* Owns image and container from now on. NULL when memory ran out. */
struct layer *vhd_layer_of(struct vhd *v);

/* ------------------------------------------------------------------ size: formats/vhd-resize.c */

/* See vhd_resize() in formats/vhd.h; on an open image, beside its requests. */
int vhd_image_resize(struct vhd *v, uint64_t size, const struct io *io);

/* Xen's map of blocks whose bitmap is full says of none that it is: for who takes blocks away. Nothing where there is no map. */
int vhd_batmap_reset(struct vhd *v, const struct io *io);

/* The last steps of a fixed disk's growth that the power has cut short; nothing where there was none. */
int vhd_finish_growth(struct vhd *v, const struct io *io);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* An open VHDX file. For formats/vhdx*.c alone. */
#ifndef PLATTER_FORMATS_VHDX_FILE_H
#define PLATTER_FORMATS_VHDX_FILE_H

#include "core/grace.h"
#include "core/short-lock.h"
#include "core/wait.h"
#include "formats/container.h"
#include "formats/vhdx-header.h"
#include "formats/vhdx-metadata.h"
#include "formats/vhdx.h"
#include "layers/layer.h"

/* ------------------------------------------------------------------ pages of the table and of sector bitmaps */

#define VHDX_WORDS (VHDX_PAGE / 8)
#define VHDX_BITMAP_PAGES (VHDX_MIB / VHDX_PAGE) /* in a sector bitmap block */
#define VHDX_PAGE_SECTORS (VHDX_PAGE * 8u)       /* that a page of a sector bitmap tells of */
#define VHDX_LOAD_LOCKS 16u
#define VHDX_GROUP 512u /* pages whose slots are made together: 4 KiB of slots */
#define VHDX_BLOCK_LOCKS 64u

/*
 * A page in memory, in the machine's byte order. Pages are numbered: those of the block allocation table from 0 on, those of the
 * sector bitmaps behind them, VHDX_BITMAP_PAGES a chunk.
 */
struct vhdx_page {
	_Atomic uint64_t words[VHDX_WORDS];
	uint64_t number;
	_Atomic bool used;       /* looked at since the clock passed */
	_Atomic bool dirty;      /* changed since it was last copied for the log; is in the list of dirty pages */
	_Atomic bool committing; /* copied for the log, not yet written in its place */
	struct vhdx_page *next_dirty;
};

/* Where pages are that have numbers one behind the other; NULL: not loaded. */
struct vhdx_group {
	struct vhdx_page *_Atomic slots[VHDX_GROUP];
};

/* Where the pages are; see vhdx-pages.c. */
struct vhdx_pages {
	struct vhdx_group *_Atomic *groups; /* by number / VHDX_GROUP; NULL: none of them was ever loaded */
	uint64_t first_bitmap;            /* number of the first sector bitmap page */
	uint64_t end;
	size_t limit;                     /* loaded pages, unless more are dirty */
	struct wait_mutex load_locks[VHDX_LOAD_LOCKS]; /* by number: one loads a page; across I/O, before the short lock */
	struct short_lock lock; /* shared: pages are changed; exclusive: they are unloaded, or copied for the log */
	struct wait_mutex list_lock; /* protects what follows; after load_locks; held while waiting for readers */
	struct vhdx_page **loaded;
	size_t count, room, hand;
	struct vhdx_page *_Atomic dirty; /* pushed under `lock` shared, taken under it exclusive */
	_Atomic size_t nr_dirty;
};

struct vhdx_writer;

struct vhdx {
	struct layer layer;
	struct container *file; /* owned */
	bool read_only;
	bool was_dirty;         /* the log was replayed when it was opened */
	bool has_overlay;       /* in memory: `file` is not the container that was given */
	struct vhdx_headers headers;
	struct vhdx_regions regions;
	struct vhdx_region *_Atomic places; /* regions.all, for who looks without a lock, inside `grace` */
	struct vhdx_metadata meta;
	_Atomic uint64_t size;  /* of the disk, bytes */
	_Atomic uint64_t bat_offset;
	_Atomic uint64_t structures_end; /* where the last of log and regions ends: what lies behind it overlaps none of them */
	uint64_t log_offset, log_length; /* as in the header, which changes */
	uint32_t block_shift, ratio_shift, sector_shift;
	struct vhdx_pages pages;
	struct grace grace;     /* who looks up where a block lies is inside until he is done with it */
	struct wait_rwlock block_locks[VHDX_BLOCK_LOCKS]; /* by block: exclusive to change its state; across I/O, before load_locks */
	struct vhdx_writer *writer; /* NULL: read-only */
};

/* vhdx_layer_open(), read-only whatever the container is. */
int vhdx_layer_open_as(struct container *c, bool read_only, struct layer **out, struct error *err);

/* Undoes vhdx_layer_open(): nothing is written, and the container is the caller's again. */
void vhdx_layer_release(struct layer *l);

/* ------------------------------------------------------------------ vhdx-pages.c */

int vhdx_pages_init(struct vhdx *x);
void vhdx_pages_free(struct vhdx *x);

/* Loads the page if it is not. Not from inside `grace`, since it may wait until others are out. */
int vhdx_page_load(struct vhdx *x, uint64_t number, const struct io *io);

/* The page, or NULL, without noting that it was looked at. */
static inline struct vhdx_page *vhdx_page_peek(struct vhdx *x, uint64_t number)
{
	struct vhdx_group *g = atomic_load(&x->pages.groups[number / VHDX_GROUP]);

	return g ? atomic_load(&g->slots[number % VHDX_GROUP]) : NULL;
}

/* The page, or NULL; good inside `grace`, or under pages.lock. */
static inline struct vhdx_page *vhdx_page_find(struct vhdx *x, uint64_t number)
{
	struct vhdx_page *p = vhdx_page_peek(x, number);

	if (p && !atomic_load_explicit(&p->used, memory_order_relaxed))
		atomic_store_explicit(&p->used, true, memory_order_relaxed);
	return p;
}

/* Under pages.lock, shared: the page was changed. */
void vhdx_page_touch(struct vhdx *x, struct vhdx_page *p);

/* Where the page lies in the file. Not from inside `grace`. */
int vhdx_page_place(struct vhdx *x, uint64_t number, uint64_t *offset, const struct io *io);

/* ------------------------------------------------------------------ vhdx-map.c */

struct vhdx_run {
	enum presence presence;
	uint64_t length; /* bytes */
	uint64_t offset; /* in the file, of LAYER_DATA */
};

/*
 * The one function that says where data lies: the first run at `offset` of the disk, of at most `length` bytes. Inside `grace`.
 * -EAGAIN: the page *missing is to be loaded, from outside; -EIO with a reason where the table says what cannot be.
 */
int vhdx_map(struct vhdx *x, uint64_t offset, uint64_t length, struct vhdx_run *run, uint64_t *missing, const struct io *io);

/* The same, from outside, with all that is missing loaded. */
int vhdx_map_loading(struct vhdx *x, uint64_t offset, uint64_t length, struct vhdx_run *run, const struct io *io);

/* The entry of a payload block; as vhdx_map. */
int vhdx_entry(struct vhdx *x, uint64_t block, uint64_t *entry, uint64_t *missing);

/* NULL, or what is wrong with the entry of a payload block. */
const char *vhdx_entry_fault(const struct vhdx *x, uint64_t block, uint64_t entry);

/* To be called when the log or the regions have got another place, before anybody can find them there. */
void vhdx_note_structures(struct vhdx *x, const struct vhdx_region *regions);

/* NULL, or what is wrong with a range that is to hold something of the disk. */
const char *vhdx_range_fault(const struct vhdx *x, uint64_t offset, uint64_t length);

/* The same for one of a sector bitmap block. */
const char *vhdx_bitmap_fault(const struct vhdx *x, uint64_t entry);

/* Number of the page, and the word in it, with the entry at `index` of the table. */
static inline uint64_t vhdx_index_page(uint64_t index)
{
	return index / VHDX_WORDS;
}

static inline unsigned vhdx_index_word(uint64_t index)
{
	return (unsigned)(index % VHDX_WORDS);
}

static inline uint64_t vhdx_bitmap_page(const struct vhdx *x, uint64_t sector)
{
	return x->pages.first_bitmap + sector / VHDX_PAGE_SECTORS;
}

/* ------------------------------------------------------------------ vhdx-write.c: operations of the layer that change something */

int vhdx_writer_create(struct vhdx *x);

/* Makes all durable and the log empty, unless `abandoned`; frees the writer. */
int vhdx_writer_close(struct vhdx *x, bool abandoned, struct error *err);

int vhdx_write(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io);
int vhdx_write_zeroes(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io);
int vhdx_discard(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io);
int vhdx_flush(struct layer *l, const struct io *io);
int vhdx_layer_resize(struct layer *l, uint64_t size, const struct io *io);

static inline struct vhdx *vhdx_of(struct layer *l)
{
	return (struct vhdx *)l;
}

#endif

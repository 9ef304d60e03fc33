/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making an image short again
 *
 *   1 dropping   Blocks that hold nothing (dynamic: zeroes; differencing: no bit) become absent; a commit makes that durable.
 *   2 copying    The last blocks of the file are copied to the first places that are free. Their own places stay as they are.
 *   3 moving     flush; the entries; flush: that is a commit, and between its flushes an entry is the old or the new one, both
 *                with the block's data.
 *   4 cutting    The footer behind the last block; flush; the file cut behind it; flush.
 *
 * Whenever the power goes the image is whole, and as long as it was or shorter. Nothing is written over a place that an entry in the file
 * may still point to: what (1) has freed is durable before (2), what (3) frees is used by nobody. Moving ends where
 * the next free place lies behind the next block to be moved; the order of blocks is not changed for its own sake.
 */
#include "formats/vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhd-image.h"

#define PIECE (1u << 20)

struct block {
	uint32_t number, at;
};

struct compaction {
	struct vhd *v;
	struct block *blocks; /* by place in the file */
	uint32_t nr_blocks, room;
	uint32_t dropped, moved;
	struct vhd_taken taken[VHD_MAX_TAKEN];
	unsigned nr_taken;
	unsigned char *piece;
	bool stopped; /* by the container's watch: nothing more is dropped or moved, but the file is cut */
	struct failure why;
	struct io io;
};

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int read_piece(struct compaction *k, uint64_t at, uint64_t length)
{
	uint64_t end = min64(container_size(k->v->c), k->v->footer_at), n = at < end ? min64(length, end - at) : 0;

	memset(k->piece + n, 0, length - n); /* a last block may be there in part; the footer is none of it */
	return n ? container_read(k->v->c, k->piece, n, at, &k->io) : 0;
}

/* ------------------------------------------------------------------ dropping */

static int holds_zeroes(struct compaction *k, uint32_t at, bool *zero)
{
	int status = 0;

	*zero = true;
	for (uint64_t done = 0, n; done < vhd_block_bytes(k->v) && *zero && !status; done += n) {
		n = min64(PIECE, vhd_block_bytes(k->v) - done);
		status = read_piece(k, vhd_data_of(k->v, at) + done, n);
		*zero = !status && memory_is_zero(k->piece, n);
	}
	return status;
}

static int holds_nothing(struct compaction *k, struct vhd_page *p, uint32_t block, uint32_t at, bool *nothing)
{
	struct vhd_bitmap *b;
	int status;

	*nothing = false;
	if (k->v->type == VHD_DYNAMIC && !k->v->bitmaps_count)
		return holds_zeroes(k, at, nothing);
	status = vhd_bitmap_get(k->v, p, block, at, &b, &k->io);
	if (status || b == VHD_BITMAP_FULL)
		return status;
	*nothing = memory_is_zero(b->file, k->v->bitmap_bytes);
	return 0;
}

static int look_at(struct compaction *k, struct vhd_page *p, uint32_t block, uint32_t at)
{
	bool nothing = false;
	int status;

	k->stopped = k->stopped || watch_stopped(k->v->c->watch);
	status = k->stopped ? 0 : holds_nothing(k, p, block, at, &nothing);
	if (status)
		return status;
	watch_add(k->v->c->watch, vhd_block_bytes(k->v));
	if (nothing) {
		atomic_store(&p->at[block & (VHD_PAGE_ENTRIES - 1)], VHD_ABSENT);
		vhd_page_dirty(k->v, p, block);
		k->dropped++;
	} else {
		k->blocks[k->nr_blocks++] = (struct block){block, at};
	}
	return 0;
}

/* Calls `call` for each block that has a place. */
static int each_block(struct compaction *k, int (*call)(struct compaction *k, struct vhd_page *p, uint32_t block, uint32_t at))
{
	int status = 0;

	for (uint32_t block = 0; block < k->v->max_entries && !status; block++) {
		struct vhd_page *p;
		bool absent = false;
		uint32_t at;
		if (!(block & (VHD_PAGE_ENTRIES - 1)))
			status = vhd_page_is_absent(k->v, block, &absent, &k->io);
		if (status || absent) {
			block += VHD_PAGE_ENTRIES - 1;
			continue;
		}
		status = vhd_page_get(k->v, block, &p, &k->io);
		at = status ? VHD_ABSENT : atomic_load(&p->at[block & (VHD_PAGE_ENTRIES - 1)]);
		if (at != VHD_ABSENT)
			status = call(k, p, block, at);
	}
	return status;
}

static int count_block(struct compaction *k, struct vhd_page *p, uint32_t block, uint32_t at)
{
	(void)p, (void)block, (void)at;
	k->room++;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int drop_blocks(struct compaction *k)
{
	int status = each_block(k, count_block);

	k->blocks = calloc((size_t)k->room + 1, sizeof(*k->blocks));
	if (!status && !k->blocks)
		status = -ENOMEM;
	watch_phase(k->v->c->watch, "look for zeroes", (uint64_t)k->room * vhd_block_bytes(k->v));
	if (!status)
		status = each_block(k, look_at);
	if (status)
		return status;
	qsort(k->blocks, k->nr_blocks, sizeof(*k->blocks), by_place);
	return vhd_flush(k->v, &k->io);
}

/* ------------------------------------------------------------------ free places */

/* The end of what is in the way of a block at `sector`, in sectors; 0: nothing. `next`: the first block that may be. */
static uint64_t obstacle(struct compaction *k, uint64_t sector, uint32_t *next)
{
	uint64_t length = vhd_block_sectors(k->v), begin = sector * VHD_SECTOR, end = (sector + length) * VHD_SECTOR;

	while (*next < k->nr_blocks && k->blocks[*next].at + length <= sector)
		++*next;
	if (*next < k->nr_blocks && k->blocks[*next].at < sector + length)
		return k->blocks[*next].at + length;
	for (unsigned i = 0; i < k->nr_taken; i++)
		if (begin < k->taken[i].end && end > k->taken[i].begin)
			return (k->taken[i].end + VHD_SECTOR - 1) / VHD_SECTOR;
	return 0;
}

/* The first free place from `sector` on. It ends: behind everything there is room. */
static uint64_t free_place(struct compaction *k, uint64_t sector, uint32_t *next)
{
	uint64_t end;

	sector = vhd_place_from(k->v, sector);
	while ((end = obstacle(k, sector, next)))
		sector = vhd_place_from(k->v, end);
	return sector;
}

/* ------------------------------------------------------------------ moving */

/* Bitmap and data, holes as holes. */
static int copy_block(struct compaction *k, uint32_t from, uint32_t to)
{
	struct container *c = k->v->c;
	uint64_t length = vhd_block_sectors(k->v) * VHD_SECTOR, source = (uint64_t)from * VHD_SECTOR, target = (uint64_t)to * VHD_SECTOR;
	int status = c->ops->zero(c, target, length, true, &k->io);

	for (uint64_t done = 0, n; done < length && !status; done += n) {
		n = min64(PIECE, length - done);
		status = read_piece(k, source + done, n);
		if (!status && !memory_is_zero(k->piece, n))
			status = container_write(c, k->piece, n, target + done, &k->io);
	}
	return status;
}

static int move_entry(struct compaction *k, const struct block *b, uint32_t to)
{
	struct vhd_page *p;
	int status = vhd_page_get(k->v, b->number, &p, &k->io);

	if (status)
		return status;
	atomic_store(&p->at[b->number & (VHD_PAGE_ENTRIES - 1)], to);
	vhd_page_dirty(k->v, p, b->number);
	return 0;
}

static int move_blocks(struct compaction *k)
{
	uint64_t place = 0;
	uint32_t next = 0, last = k->nr_blocks;
	int status = 0;

	watch_phase(k->v->c->watch, "move blocks", (uint64_t)last * vhd_block_bytes(k->v));
	while (last && !status && !(k->stopped = k->stopped || watch_stopped(k->v->c->watch))) {
		struct block *b = &k->blocks[last - 1];
		place = free_place(k, place, &next);
		if (place + vhd_block_sectors(k->v) > b->at)
			break;
		status = copy_block(k, b->at, (uint32_t)place);
		if (!status)
			status = move_entry(k, b, (uint32_t)place);
		place += vhd_block_sectors(k->v);
		last--;
		k->moved++;
		watch_add(k->v->c->watch, vhd_block_bytes(k->v));
	}
	watch_add(k->v->c->watch, (uint64_t)last * vhd_block_bytes(k->v)); /* they stay where they are */
	return status ? status : vhd_flush(k->v, &k->io);
}

/* ------------------------------------------------------------------ cutting */

static uint64_t used_end(struct compaction *k)
{
	uint64_t end = 0;

	for (unsigned i = 0; i < k->nr_taken; i++)
		if (k->taken[i].begin != k->v->footer_at && k->taken[i].end > end)
			end = k->taken[i].end;
	for (uint32_t i = 0; i < k->nr_blocks; i++) {
		struct vhd_page *p = atomic_load(&k->v->pages[k->blocks[i].number >> VHD_PAGE_SHIFT]);
		uint64_t at = atomic_load(&p->at[k->blocks[i].number & (VHD_PAGE_ENTRIES - 1)]);
		if ((at + vhd_block_sectors(k->v)) * VHD_SECTOR > end)
			end = (at + vhd_block_sectors(k->v)) * VHD_SECTOR;
	}
	return (end + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

static int cut(struct compaction *k)
{
	struct vhd *v = k->v;
	uint64_t end = used_end(k);
	int status;

	if (end >= v->footer_at)
		return 0;
	status = vhd_footer_move(v, end, &k->io);
	if (!status)
		status = v->c->ops->resize(v->c, end + VHD_SECTOR, &k->io);
	return status ? status : v->c->ops->flush(v->c, &k->io);
}

static int compact(struct compaction *k)
{
	int status;

	if (k->v->type == VHD_FIXED)
		return 0;
	k->nr_taken = vhd_list_taken(k->v, k->taken);
	status = vhd_batmap_reset(k->v, &k->io);
	if (!status)
		status = drop_blocks(k);
	if (!status)
		status = move_blocks(k);
	return status ? status : cut(k);
}

int vhd_compact(struct container *c, const struct vhd_options *o, json_t **report, struct error *err)
{
	const struct vhd_open_options how = {.lax = o->lax, .size_rule = o->size_rule};
	struct compaction k = {.piece = malloc(PIECE)};
	uint64_t before = container_size(c);
	int status = k.piece ? vhd_image_open(c, &how, &k.v, err) : error_set(err, -ENOMEM, "no memory");

	k.io.failure = &k.why;
	if (!status) {
		status = c->read_only ? io_fail(&k.io, -EROFS, "'%s' is open for reading only", c->name) : compact(&k);
		if (status)
			error_set(err, status, "%s", k.why.text[0] ? k.why.text : "no memory");
		vhd_image_close(k.v, true, NULL); /* it is durable */
	}
	free(k.blocks);
	free(k.piece);
	if (!status && k.stopped)
		status = error_set(err, -EINTR, "'%s': stopped by a signal; what was done until then stays", c->name);
	if (status)
		return status;
	*report = json_pack("{s:I, s:I, s:I, s:I}", "dropped", (json_int_t)k.dropped, "moved", (json_int_t)k.moved, "before", (json_int_t)before,
			    "after", (json_int_t)container_size(c));
	return *report ? 0 : error_set(err, -ENOMEM, "no memory");
}

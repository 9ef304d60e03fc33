/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * New blocks, and how they become durable
 *
 * VHD has no log. What keeps an image whole whenever the power goes is the order of writes; what keeps it fast is that nothing
 * is flushed for a block, only when the guest flushes, or when the file grows by many blocks at a time.
 *
 *   growing      The file is made longer by a number of blocks, zero by nature, and the footer written at its new end; flush. Only then
 *                the space is given to blocks, and the old footer, which lies between two of them, forgotten.
 *   a new block  takes its place in memory. In a dynamic disk its bitmap is written with all bits set: where no data is, there is
 *                zero, which is the content anyway. In a differencing disk its bitmap is zero by nature.
 *   data         is written in place.
 *   commit       at a guest's flush: (1) what is new in BAT and bitmaps is copied aside; (2) flush: the data that it points to is
 *                durable; (3) the sectors of BAT and bitmaps are written; (4) flush. With nothing new only (2).
 *   closing      commit; the footer behind the last block; flush; the file cut behind it.
 *
 * Invariants, at every moment, whichever of the unflushed writes have reached the medium
 *
 *   1 the first sector is a footer that is right, and, from when the  nothing but a resize writes to it, one sector at once; who opens for
 *     image is open for writing, the same as the last                  writing makes good what a resize has not come to
 *   2 the last sector is a footer that is right, or the first is taken   the file ends elsewhere only while it grows or is cut
 *   3 a BAT entry in the file is absent or points to space that is     (1), (2) before (3); space is taken once and never
 *     inside, is nobody else's, and holds the block's data               given to another block while the image is open
 *   4 a bit in the file that counts is set only over data that is      (1), (2) before (3)
 *     durable; a bit that is clear shows the parent
 *   5 space between the last block and the footer is zero, or the       growth; what a crash leaves there is zeroed before it is
 *     image was not closed                                              used, or not used
 *   6 a sector of data is old or new                                  written in place, by sectors
 *
 * So after a power cut every flushed sector is there, and every other sector is old, new, or what it was before (zero, the
 * parent's): never another block's. A file that was not closed is longer than it has to be; that is all.
 *
 * Locks, in this order: gate, stripe of the block, space.growing, committing; short ones inside of any. Requests to blocks that are
 * there take none but the gate, and that for writing only.
 *
 * Deliberately not done: giving space of one block to another while open (compact does it, see formats/vhd-compact.c); forgetting
 * bitmaps to save memory (512 bytes, twice, for each 2 MiB that a session has written to or read in part).
 */
#include "formats/vhd-image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROWTH (UINT64_C(1) << 30) /* bytes; at least 16 blocks, as far as the disk has them */
#define MAX_SECTOR (UINT32_MAX - 1)

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------ space */

static bool take_space(struct vhd *v, uint32_t *at)
{
	struct vhd_space *s = &v->space;
	bool taken = true;

	short_lock_exclusive(&s->lock);
	if (s->nr_spares) {
		*at = s->spares[--s->nr_spares];
	} else if (s->next + vhd_block_sectors(v) <= s->end) {
		*at = (uint32_t)s->next;
		s->next += vhd_stride(v);
	} else {
		taken = false;
	}
	short_unlock_exclusive(&s->lock);
	return taken;
}

/* There is room: no more of them are under way than stripes. */
static void give_back(struct vhd *v, uint32_t at)
{
	short_lock_exclusive(&v->space.lock);
	v->space.spares[v->space.nr_spares++] = at;
	short_unlock_exclusive(&v->space.lock);
}

/* Blocks to grow by: half of what there is, within bounds. */
static uint64_t growth_of(const struct vhd *v, uint64_t used_sectors)
{
	uint64_t most = MAX_GROWTH >> v->block_shift, count = used_sectors / vhd_stride(v) / 2;
	uint64_t blocks = vhd_blocks_of(atomic_load(&v->size), vhd_block_bytes(v));

	if (count > most)
		count = most;
	if (count < 16)
		count = 16;
	return min64(count, blocks);
}

/* Space that a session before has used and not closed: zero from `begin` on, and the footer that lies there, too. */
static int zero_rest(struct vhd *v, uint64_t begin, uint64_t end, const struct io *io)
{
	return begin < end ? v->c->ops->zero(v->c, begin, end - begin, true, io) : 0;
}

int vhd_footer_move(struct vhd *v, uint64_t to, const struct io *io)
{
	int status = to + VHD_SECTOR > container_size(v->c) ? v->c->ops->resize(v->c, to + VHD_SECTOR, io) : 0;

	if (!status)
		status = container_write(v->c, &v->footer, sizeof(v->footer), to, io);
	if (!status)
		status = v->c->ops->flush(v->c, io);
	if (!status)
		v->footer_at = to;
	return status;
}

/*
 * Where the first new block may lie. What a crash of ours has left behind the last block is used again, once it is zeroed;
 * where somebody else has made the file we begin behind all that it has.
 */
static uint64_t first_free(const struct vhd *v)
{
	uint64_t used = v->space.used_end, behind = v->footer_at + VHD_SECTOR;

	if (!vhd_is_ours(&v->footer) && behind > used)
		used = behind;
	return (used + VHD_SECTOR - 1) / VHD_SECTOR;
}

/* Under `growing`. */
static int grow(struct vhd *v, const struct io *io)
{
	struct vhd_space *s = &v->space;
	uint64_t old_footer_end = v->footer_at + VHD_SECTOR;
	uint64_t begin = s->has_grown ? s->next : vhd_place_from(v, first_free(v)), behind = vhd_place_from(v, old_footer_end / VHD_SECTOR);
	uint64_t count = growth_of(v, begin), footer = v->footer_at / VHD_SECTOR, end;
	int status;

	if (s->has_grown && begin < behind) /* a BAT was moved there */
		begin = behind;
	if (footer > begin && (footer - begin) / vhd_stride(v) + 2 > count)
		count = (footer - begin) / vhd_stride(v) + 2; /* past all that a crash has left */
	end = begin + (count - 1) * vhd_stride(v) + vhd_block_sectors(v);
	if (end > MAX_SECTOR)
		end = begin + vhd_block_sectors(v);
	if (end > MAX_SECTOR)
		return io_fail(io, -ENOSPC, "'%s': the file has reached the 2 TiB that a VHD can be large", v->c->name);
	status = vhd_footer_move(v, end * VHD_SECTOR, io);
	if (!status)
		status = zero_rest(v, begin * VHD_SECTOR, min64(old_footer_end, end * VHD_SECTOR), io);
	if (status)
		return status;
	short_lock_exclusive(&s->lock);
	s->next = begin;
	s->end = end;
	short_unlock_exclusive(&s->lock);
	s->has_grown = true;
	return 0;
}

static int find_space(struct vhd *v, uint32_t *at, const struct io *io)
{
	int status = 0;

	if (take_space(v, at))
		return 0;
	wait_mutex_lock(&v->space.growing);
	while (!status && !take_space(v, at)) /* somebody else may have grown, and others taken all of it */
		status = grow(v, io);
	wait_mutex_unlock(&v->space.growing);
	return status;
}

/* ------------------------------------------------------------------ new blocks */

static int write_ones(struct vhd *v, uint32_t at, const struct io *io)
{
	static const unsigned char ones[4096] = {[0 ... 4095] = 0xff};
	int status = 0;

	for (uint32_t done = 0; done < v->bitmap_bytes && !status; done += sizeof(ones))
		status = container_write(v->c, ones, min64(v->bitmap_bytes - done, sizeof(ones)), (uint64_t)at * VHD_SECTOR + done, io);
	return status;
}

/*
 * Under the block's stripe. The bitmap is known, and the entry pending, before the entry is to be seen: who finds the block, writes to it
 * and flushes must have it committed.
 */
static int place_block(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t *at, const struct io *io)
{
	unsigned i = block & (VHD_PAGE_ENTRIES - 1);
	int status = find_space(v, at, io);

	if (status)
		return status;
	if (v->type == VHD_DYNAMIC) {
		status = write_ones(v, *at, io);
		if (status) {
			give_back(v, *at);
			return status;
		}
		atomic_store(&p->bitmaps[i], VHD_BITMAP_FULL);
	}
	vhd_page_dirty(v, p, block);
	atomic_store(&p->at[i], *at);
	return 0;
}

int vhd_allocate(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t *at, bool *fresh, const struct io *io)
{
	struct wait_mutex *stripe = &v->stripes[block % VHD_STRIPES];
	int status = 0;

	wait_mutex_lock(stripe);
	*at = atomic_load(&p->at[block & (VHD_PAGE_ENTRIES - 1)]);
	*fresh = *at == VHD_ABSENT;
	if (*fresh)
		status = place_block(v, p, block, at, io);
	wait_mutex_unlock(stripe);
	return status;
}

/* ------------------------------------------------------------------ what is dirty */

void vhd_page_dirty(struct vhd *v, struct vhd_page *p, uint32_t block)
{
	unsigned i = block & (VHD_PAGE_ENTRIES - 1);

	atomic_fetch_or(&p->pending[i / 64], UINT64_C(1) << i % 64);
	if (atomic_exchange(&p->listed, true))
		return;
	short_lock_exclusive(&v->dirty_lock);
	p->next_dirty = v->dirty_pages;
	v->dirty_pages = p;
	short_unlock_exclusive(&v->dirty_lock);
}

void vhd_bitmap_dirty(struct vhd *v, struct vhd_bitmap *b)
{
	if (atomic_exchange(&b->listed, true))
		return;
	short_lock_exclusive(&v->dirty_lock);
	b->next_dirty = v->dirty_bitmaps;
	v->dirty_bitmaps = b;
	short_unlock_exclusive(&v->dirty_lock);
}

bool vhd_needs_commit(struct vhd *v, struct vhd_page *p, uint32_t block)
{
	unsigned i = block & (VHD_PAGE_ENTRIES - 1);
	struct vhd_bitmap *b = atomic_load(&p->bitmaps[i]);

	/* a commit takes things off the lists before they are durable: first it says that it runs */
	if (atomic_load(&p->pending[i / 64]) >> i % 64 & 1 || (b && b != VHD_BITMAP_FULL && atomic_load(&b->listed)))
		return true;
	return atomic_load(&v->commit_runs);
}

/* ------------------------------------------------------------------ commits */

/* What is to be written: lists taken off, and each thing's `committing`. */
struct commit {
	struct vhd_page *pages;
	struct vhd_bitmap *bitmaps;
};

static void copy_aside(struct vhd *v, struct commit *c)
{
	short_lock_exclusive(&v->dirty_lock);
	c->bitmaps = v->dirty_bitmaps;
	v->dirty_bitmaps = NULL;
	c->pages = v->dirty_pages;
	v->dirty_pages = NULL;
	short_unlock_exclusive(&v->dirty_lock);
}

/* From here on a change puts it on the list again; what is on no list is not touched by others. */
static void copy_bitmap(const struct vhd *v, struct vhd_bitmap *b)
{
	for (size_t w = 0; w < sizeof(b->dirty) / sizeof(*b->dirty); w++)
		b->committing[w] = atomic_exchange(&b->dirty[w], 0);
	for (size_t i = 0; i < v->bitmap_bytes / 8u; i++)
		if (b->committing[i / 64 / 64] >> (i / 64) % 64 & 1)
			b->file[i] = htobe64(atomic_load(&b->bits[i]));
}

/* An entry that is pending and absent, here and in the file, is about to be placed: it stays pending. */
static void copy_entry(struct vhd_page *p, unsigned i)
{
	uint32_t at = htobe32(atomic_load(&p->at[i]));
	uint64_t bit = UINT64_C(1) << i % 64;

	if (at == VHD_ABSENT && p->file[i] == VHD_ABSENT) {
		p->committing[i / 64] &= ~bit;
		atomic_fetch_or(&p->pending[i / 64], bit);
	}
	p->file[i] = at;
}

static void copy_page(struct vhd_page *p)
{
	for (unsigned w = 0; w < VHD_PAGE_ENTRIES / 64; w++) {
		p->committing[w] = atomic_exchange(&p->pending[w], 0);
		for (uint64_t bits = p->committing[w]; bits; bits &= bits - 1)
			copy_entry(p, w * 64 + (unsigned)__builtin_ctzll(bits));
	}
}

static int write_bitmap(struct vhd *v, const struct vhd_bitmap *b, const struct io *io)
{
	struct vhd_page *p = atomic_load(&v->pages[b->block >> VHD_PAGE_SHIFT]);
	uint64_t at = (uint64_t)atomic_load(&p->at[b->block & (VHD_PAGE_ENTRIES - 1)]) * VHD_SECTOR;
	int status = 0;

	for (uint32_t s = 0; s < v->bitmap_bytes / VHD_SECTOR && !status; s++)
		if (b->committing[s / 64] >> s % 64 & 1)
			status = container_write(v->c, b->file + s * 64, VHD_SECTOR, at + (uint64_t)s * VHD_SECTOR, io);
	return status;
}

/* A sector of the BAT is 128 entries: two words of bits. Neighbours are written at once. */
static int write_page(struct vhd *v, const struct vhd_page *p, const struct io *io)
{
	uint64_t at = v->bat_offset + (uint64_t)p->number * VHD_PAGE_BYTES, room = vhd_bat_bytes(v->max_entries);
	unsigned sectors = (unsigned)(min64(room - (uint64_t)p->number * VHD_PAGE_BYTES, VHD_PAGE_BYTES) / VHD_SECTOR);
	int status = 0;

	for (unsigned s = 0; s < sectors && !status; s++) {
		unsigned end = s;
		while (end < sectors && (p->committing[2 * end] | p->committing[2 * end + 1]))
			end++;
		if (end > s)
			status = container_write(v->c, p->file + s * 128, (size_t)(end - s) * VHD_SECTOR, at + s * VHD_SECTOR, io);
		s = end;
	}
	return status;
}

static int write_aside(struct vhd *v, const struct commit *c, const struct io *io)
{
	int status = 0;

	for (const struct vhd_bitmap *b = c->bitmaps; b && !status; b = b->next_dirty)
		status = write_bitmap(v, b, io);
	for (const struct vhd_page *p = c->pages; p && !status; p = p->next_dirty)
		status = write_page(v, p, io);
	return status;
}

/*
 * The lists again, as they were. A thing is unlisted before it is copied, so that a change during the commit lists it anew:
 * `next_dirty` is in use then, and so `listed` stays true until the end, where what has changed meanwhile is listed.
 */
static void end_commit(struct vhd *v, struct commit *c, bool failed)
{
	for (struct vhd_bitmap *b = c->bitmaps, *next; b; b = next) {
		bool dirty = false;
		next = b->next_dirty;
		atomic_store(&b->listed, false);
		for (size_t w = 0; w < sizeof(b->dirty) / sizeof(*b->dirty); w++) {
			if (failed)
				atomic_fetch_or(&b->dirty[w], b->committing[w]);
			dirty = dirty || atomic_load(&b->dirty[w]);
		}
		if (dirty)
			vhd_bitmap_dirty(v, b);
	}
	for (struct vhd_page *p = c->pages, *next; p; p = next) {
		next = p->next_dirty;
		atomic_store(&p->listed, false);
		for (unsigned w = 0; w < VHD_PAGE_ENTRIES / 64; w++) {
			uint64_t again = atomic_fetch_or(&p->pending[w], failed ? p->committing[w] : 0) | (failed ? p->committing[w] : 0);
			if (again)
				vhd_page_dirty(v, p, p->number * VHD_PAGE_ENTRIES + w * 64 + (unsigned)__builtin_ctzll(again));
		}
	}
}

/* Under `committing`. */
static int commit(struct vhd *v, const struct io *io)
{
	struct commit c;
	int status;

	atomic_store(&v->commit_runs, true);
	copy_aside(v, &c);
	for (struct vhd_bitmap *b = c.bitmaps; b; b = b->next_dirty)
		copy_bitmap(v, b);
	for (struct vhd_page *p = c.pages; p; p = p->next_dirty)
		copy_page(p);
	status = v->c->ops->flush(v->c, io);
	if (!status && (c.pages || c.bitmaps)) {
		status = write_aside(v, &c, io);
		if (!status)
			status = v->c->ops->flush(v->c, io);
	}
	end_commit(v, &c, status);
	atomic_store(&v->commit_runs, false);
	return status;
}

/* Those that wait while one commit runs share the next. */
int vhd_flush(struct vhd *v, const struct io *io)
{
	uint64_t number = atomic_fetch_add(&v->flushes_asked, 1) + 1;
	int status = 0;

	wait_mutex_lock(&v->committing);
	if (number > v->flushes_covered) {
		uint64_t asked = atomic_load(&v->flushes_asked);
		status = commit(v, io);
		if (!status)
			v->flushes_covered = asked;
	}
	wait_mutex_unlock(&v->committing);
	return status;
}

/* ------------------------------------------------------------------ closing */

int vhd_trim(struct vhd *v, const struct io *io)
{
	struct vhd_space *s = &v->space;
	uint64_t gap = vhd_stride(v) - vhd_block_sectors(v), end = (s->next - gap) * VHD_SECTOR;
	int status;

	if (!s->has_grown && v->footer_missing)
		return vhd_footer_move(v, v->footer_at, io);
	if (!s->has_grown || end >= v->footer_at)
		return 0;
	if (end < s->used_end)
		end = s->used_end; /* a BAT that was moved */
	if (end >= v->footer_at)
		return 0;
	status = vhd_footer_move(v, end, io);
	if (!status)
		status = v->c->ops->resize(v->c, end + VHD_SECTOR, io);
	return status ? status : v->c->ops->flush(v->c, io);
}

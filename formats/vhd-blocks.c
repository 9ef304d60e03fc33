/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the data of a VHD lies
 *
 * The BAT is kept in pages that are loaded when one of their blocks is first asked for, bitmaps in the same way: so opening a disk of
 * 2 TiB reads nothing of either for reading, and memory is for the parts that are in use. What is loaded stays until the image is
 * closed, so that readers need no lock: an entry is one atomic load from a page behind one more.
 *
 * An entry changes from absent to a place, once; back only by a resize. A bit changes from clear to set. So a reader that
 * sees either sees data that was in the file before (release and acquire), and one that does not sees what was there earlier.
 *
 * In a dynamic disk the bitmaps of others do not count for reading: QEMU and libvhdi do not look at them either, and some writers leave
 * them be. Xen's do, see vhd_is_by_xen(). For writing they are kept in all cases, since whoever reads the file next may look.
 */
#include "formats/vhd-image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------ the BAT */

/* Bytes of the BAT that belong to the page; entries behind them are absent. */
static size_t page_bytes(const struct vhd *v, uint32_t number)
{
	uint64_t all = (uint64_t)atomic_load(&v->max_entries) * 4, from = (uint64_t)number * VHD_PAGE_BYTES;

	return from < all ? (size_t)min64(all - from, VHD_PAGE_BYTES) : 0;
}

static bool is_inside(const struct vhd *v, uint32_t at)
{
	return at >= 1 && ((uint64_t)at + vhd_block_sectors(v)) * VHD_SECTOR <= container_size(v->c);
}

/*
 * A block that the file does not reach to. Old Virtual PC and others write no more of the last block than the disk needs; QEMU ends a file
 * right behind it, too. So it is enough when the part that the disk has is there.
 */
static bool is_inside_in_part(const struct vhd *v, uint32_t block, uint32_t at)
{
	uint64_t begin = (uint64_t)block << v->block_shift, size = atomic_load(&v->size);
	uint64_t needed = begin < size ? min64(size - begin, vhd_block_bytes(v)) : 0;

	return at >= 1 && vhd_data_of(v, at) + needed <= container_size(v->c);
}

static int check_entry(const struct vhd *v, uint32_t block, uint32_t at, const struct io *io)
{
	if (is_inside(v, at) || is_inside_in_part(v, block, at))
		return 0;
	return io_fail(io, -EIO, "'%s': BAT entry %" PRIu32 ": sector %" PRIu32 " lies outside of the file of %" PRIu64 " bytes", v->c->name,
		       block, at, container_size(v->c));
}

static int load_page(struct vhd *v, uint32_t number, struct vhd_page **out, const struct io *io)
{
	struct vhd_page *p = calloc(1, sizeof(*p));
	int status;

	if (!p)
		return io_fail(io, -ENOMEM, "'%s': no memory", v->c->name);
	p->number = number;
	memset(p->file, 0xff, sizeof(p->file));
	status = page_bytes(v, number) ? container_read(v->c, p->file, page_bytes(v, number),
							atomic_load(&v->bat_offset) + (uint64_t)number * VHD_PAGE_BYTES, io)
				       : 0;
	if (status) {
		free(p);
		return status;
	}
	for (unsigned i = 0; i < VHD_PAGE_ENTRIES; i++)
		atomic_init(&p->at[i], be32toh(p->file[i]));
	*out = p;
	return 0;
}

/* Under no lock but a stripe or the gate. */
static __attribute__((noinline)) int load_page_once(struct vhd *v, uint32_t number, struct vhd_page **out, const struct io *io)
{
	int status = 0;

	wait_mutex_lock(&v->loading);
	*out = atomic_load(&v->pages[number]);
	if (!*out) {
		status = load_page(v, number, out, io);
		if (!status)
			atomic_store(&v->pages[number], *out);
	}
	wait_mutex_unlock(&v->loading);
	return status;
}

int vhd_page_get(struct vhd *v, uint32_t block, struct vhd_page **out, const struct io *io)
{
	*out = atomic_load_explicit(&v->pages[block >> VHD_PAGE_SHIFT], memory_order_acquire);
	return __builtin_expect(*out != NULL, 1) ? 0 : load_page_once(v, block >> VHD_PAGE_SHIFT, out, io);
}

int vhd_page_is_absent(struct vhd *v, uint32_t block, bool *absent, const struct io *io)
{
	uint32_t number = block >> VHD_PAGE_SHIFT, entries[64];
	size_t bytes = page_bytes(v, number);
	uint64_t at = atomic_load(&v->bat_offset) + (uint64_t)number * VHD_PAGE_BYTES;
	int status = 0;

	*absent = !atomic_load(&v->pages[number]);
	for (size_t done = 0, n; done < bytes && *absent && !status; done += n) {
		n = bytes - done < sizeof(entries) ? bytes - done : sizeof(entries);
		status = container_read(v->c, entries, n, at + done, io);
		for (size_t i = 0; i < n / 4; i++)
			*absent = *absent && entries[i] == VHD_ABSENT;
	}
	return status;
}

/* ------------------------------------------------------------------ bitmaps */

static size_t words_of(const struct vhd *v)
{
	return v->bitmap_bytes / 8; /* whole sectors; bits behind those of the block do not matter */
}

static struct vhd_bitmap *new_bitmap(const struct vhd *v, uint32_t block)
{
	size_t words = words_of(v);
	struct vhd_bitmap *b = calloc(1, sizeof(*b) + words * 16);

	if (b) {
		b->block = block;
		b->file = (uint64_t *)(void *)(b->bits + words);
	}
	return b;
}

/* The number of bits of a block that are in its bitmap; the rest of the last sector does not matter. */
static uint32_t bits_of(const struct vhd *v)
{
	return vhd_block_bytes(v) / VHD_SECTOR;
}

static uint64_t word_mask(uint32_t from, uint32_t to)
{
	uint64_t mask = UINT64_MAX >> from;

	return to < 64 ? mask & ~(UINT64_MAX >> to) : mask;
}

static bool is_full(const struct vhd *v, const struct vhd_bitmap *b)
{
	uint32_t bits = bits_of(v);

	for (uint32_t i = 0; i * 64 < bits; i++) {
		uint64_t mask = word_mask(0, (uint32_t)min64(bits - i * 64, 64));
		if ((atomic_load_explicit(&b->bits[i], memory_order_relaxed) & mask) != mask)
			return false;
	}
	return true;
}

static int load_bitmap(struct vhd *v, uint32_t block, uint32_t at, struct vhd_bitmap **out, const struct io *io)
{
	struct vhd_bitmap *b = new_bitmap(v, block);
	int status;

	if (!b)
		return io_fail(io, -ENOMEM, "'%s': no memory", v->c->name);
	status = container_read(v->c, b->file, v->bitmap_bytes, (uint64_t)at * VHD_SECTOR, io);
	for (size_t i = 0; i < words_of(v) && !status; i++)
		atomic_init(&b->bits[i], be64toh(b->file[i]));
	if (status || is_full(v, b)) {
		free(b);
		b = VHD_BITMAP_FULL;
	}
	*out = b;
	return status;
}

static __attribute__((noinline)) int load_bitmap_once(struct vhd *v, _Atomic(struct vhd_bitmap *) *slot, uint32_t block, uint32_t at,
						       struct vhd_bitmap **out, const struct io *io)
{
	int status = check_entry(v, block, at, io);

	if (status)
		return status;
	wait_mutex_lock(&v->loading);
	*out = atomic_load(slot);
	if (!*out) {
		status = load_bitmap(v, block, at, out, io);
		if (!status)
			atomic_store(slot, *out);
	}
	wait_mutex_unlock(&v->loading);
	return status;
}

int vhd_bitmap_get(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t at, struct vhd_bitmap **out, const struct io *io)
{
	_Atomic(struct vhd_bitmap *) *slot = &p->bitmaps[block & (VHD_PAGE_ENTRIES - 1)];

	*out = atomic_load_explicit(slot, memory_order_acquire);
	return __builtin_expect(*out != NULL, 1) ? 0 : load_bitmap_once(v, slot, block, at, out, io);
}

/* How many bits from `from` on, at most `count`, are like the first; *set: what that is. */
static uint32_t bit_run(const struct vhd_bitmap *b, uint32_t from, uint32_t count, bool *set)
{
	uint32_t end = from + count, at = from;

	*set = atomic_load_explicit(&b->bits[from / 64], memory_order_acquire) << from % 64 >> 63;
	while (at < end) {
		uint64_t word = atomic_load_explicit(&b->bits[at / 64], memory_order_acquire);
		uint64_t other = (*set ? ~word : word) & (UINT64_MAX >> at % 64);
		if (other)
			return (uint32_t)min64((at & ~63u) + (uint32_t)__builtin_clzll(other), end) - from;
		at = (at & ~63u) + 64;
	}
	return count;
}

/* Sets bits [first, end). *changed: one of them was clear. The sectors of the bitmap where one was, or with `again` all, are dirty. */
static void set_bits(struct vhd_bitmap *b, uint32_t first, uint32_t end, bool again, bool *changed)
{
	for (uint32_t i = first / 64; i * 64 < end; i++) {
		uint64_t mask = word_mask(i * 64 < first ? first % 64 : 0, (uint32_t)min64(end - i * 64, 64));
		if ((atomic_fetch_or(&b->bits[i], mask) & mask) == mask && !again)
			continue;
		atomic_fetch_or(&b->dirty[i / 64 / 64], UINT64_C(1) << (i / 64) % 64);
		*changed = true;
	}
}

/*
 * A bit is set before its sector is said to be dirty, and a commit takes them in the reverse order: so none is missed. Who finds a bit set
 * by somebody that is not yet through (`markers`) says that it is dirty himself, since a flush that follows must have it
 * committed. Whoever sees a bitmap as full may skip it from then on; a commit still finds what is dirty.
 */
int vhd_mark_present(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t at, uint64_t from, uint64_t length, const struct io *io)
{
	uint32_t first = (uint32_t)(from / VHD_SECTOR), end = (uint32_t)((from + length) / VHD_SECTOR);
	struct vhd_bitmap *b;
	int status = vhd_bitmap_get(v, p, block, at, &b, io);
	bool changed = false;

	if (status || b == VHD_BITMAP_FULL || atomic_load_explicit(&b->full, memory_order_acquire))
		return status;
	atomic_fetch_add(&b->markers, 1);
	set_bits(b, first, end, false, &changed);
	if (!changed && atomic_load(&b->markers) > 1)
		set_bits(b, first, end, true, &changed);
	if (changed)
		vhd_bitmap_dirty(v, b);
	if (changed && is_full(v, b))
		atomic_store(&b->full, true);
	atomic_fetch_sub(&b->markers, 1);
	return 0;
}

/* ------------------------------------------------------------------ the one question */

/* Of a block that is allocated and whose bitmap counts. */
static int find_by_bitmap(struct vhd *v, struct vhd_page *p, uint32_t block, uint32_t at, uint64_t from, struct vhd_run *run,
			  const struct io *io)
{
	struct vhd_bitmap *b;
	bool set = true;
	int status = vhd_bitmap_get(v, p, block, at, &b, io);

	if (status)
		return status;
	if (b != VHD_BITMAP_FULL && !atomic_load_explicit(&b->full, memory_order_acquire))
		run->length = (uint64_t)bit_run(b, (uint32_t)(from / VHD_SECTOR), (uint32_t)(run->length / VHD_SECTOR), &set) * VHD_SECTOR;
	if (!set)
		run->presence = v->type == VHD_DIFFERENCING ? LAYER_ABSENT : LAYER_ZERO;
	return 0;
}

/* From an absent block on, to the first that is not, within the page. */
static void extend_absence(const struct vhd *v, const struct vhd_page *p, uint32_t block, uint64_t length, struct vhd_run *run)
{
	while (run->length < length && (++block & (VHD_PAGE_ENTRIES - 1)) &&
	       atomic_load_explicit(&p->at[block & (VHD_PAGE_ENTRIES - 1)], memory_order_acquire) == VHD_ABSENT)
		run->length = min64(run->length + vhd_block_bytes(v), length);
}

static int find_in_blocks(struct vhd *v, uint64_t offset, uint64_t length, struct vhd_run *run, const struct io *io)
{
	uint32_t block = (uint32_t)(offset >> v->block_shift), at;
	uint64_t from = offset & (vhd_block_bytes(v) - 1);
	struct vhd_page *p;
	int status = vhd_page_get(v, block, &p, io);

	if (status)
		return status;
	run->length = min64(length, vhd_block_bytes(v) - from);
	at = atomic_load_explicit(&p->at[block & (VHD_PAGE_ENTRIES - 1)], memory_order_acquire);
	if (at == VHD_ABSENT) {
		run->presence = v->type == VHD_DIFFERENCING ? LAYER_ABSENT : LAYER_ZERO;
		extend_absence(v, p, block, length, run);
		return 0;
	}
	run->presence = LAYER_DATA;
	run->at = vhd_data_of(v, at) + from;
	if (__builtin_expect(run->at + run->length > container_size(v->c), 0)) {
		status = check_entry(v, block, at, io);
		if (status)
			return status;
	}
	return v->bitmaps_count ? find_by_bitmap(v, p, block, at, from, run, io) : 0;
}

int vhd_find(struct vhd *v, uint64_t offset, uint64_t length, struct vhd_run *run, const struct io *io)
{
	if (v->type != VHD_FIXED)
		return find_in_blocks(v, offset, length, run, io);
	*run = (struct vhd_run){.presence = LAYER_DATA, .length = length, .at = offset};
	return 0;
}

/* ------------------------------------------------------------------ */

void vhd_blocks_free(struct vhd *v)
{
	uint32_t used = (atomic_load(&v->max_entries) + VHD_PAGE_ENTRIES - 1) / VHD_PAGE_ENTRIES; /* of the array there is mostly nothing else */

	for (uint32_t n = 0; v->pages && n < used; n++) {
		struct vhd_page *p = atomic_load(&v->pages[n]);
		for (unsigned i = 0; p && i < VHD_PAGE_ENTRIES; i++)
			if (atomic_load(&p->bitmaps[i]) != VHD_BITMAP_FULL)
				free(atomic_load(&p->bitmaps[i]));
		free(p);
	}
	for (struct vhd_bitmap *b = v->old_bitmaps, *next; b; b = next) {
		next = b->next_dirty;
		free(b);
	}
	free(v->pages);
	v->pages = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the size of a disk
 *
 * Writers are kept out by the gate and everything is committed first; readers go on, by the old size or the new one.
 *
 *   dynamic, larger    what lies behind the old end (blocks that a shrink left when the power went, the rest of the last block) is
 *                      forgotten or zeroed; the BAT is moved behind the blocks where it is too small; flush; both footers; flush.
 *   dynamic, smaller   both footers; flush; then the entries behind the new end are made absent and the rest of the last block zeroed;
 *                      flush; their space given back to the file system. The file gets shorter by compact only.
 *   differencing       as dynamic. What is added reads as zero, also where the parent is longer than the child was: there blocks are made
 *                      whose bits are set.
 *   fixed, larger      the file longer; a footer at the new end that says in its reserved bytes which old end it replaces; flush; zeroes over the old
 *                      footer; flush; the footer without that. Who opens it in between finishes this.
 *   fixed, smaller     a footer at the new end, inside the data that is given up; flush; the file cut; flush.
 *
 * At every moment the first sector, or the last one, or in a fixed disk the last one that is not zero, is a footer, of the old or the new
 * size. The BAT is moved by one write of a
 * sector: offset, entries and checksum of the header are all in its first 64 bytes.
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

static int flush(struct vhd *v, const struct io *io)
{
	return v->c->ops->flush(v->c, io);
}

/* ------------------------------------------------------------------ footers */

/* At the end first: it is what is believed. */
static int write_footers(struct vhd *v, uint64_t size, const struct io *io)
{
	struct vhd_footer old = v->footer;
	int status;

	vhd_footer_set_size(&v->footer, size);
	vhd_footer_seal(&v->footer);
	status = vhd_footer_move(v, v->footer_at / VHD_SECTOR * VHD_SECTOR, io);
	if (!status)
		status = container_write(v->c, &v->footer, sizeof(v->footer), 0, io);
	if (!status)
		status = flush(v, io);
	if (status)
		v->footer = old;
	return status;
}

/* ------------------------------------------------------------------ blocks behind an end */

/* Data of the block from byte `from` of it on is zero; nothing else of it changes. */
static int zero_tail(struct vhd *v, uint64_t size, const struct io *io)
{
	uint64_t from = size & (vhd_block_bytes(v) - 1), at, end;
	uint32_t block = (uint32_t)(size >> v->block_shift), place;
	struct vhd_page *p;
	int status = from ? vhd_page_get(v, block, &p, io) : 0;

	if (status || !from)
		return status;
	place = atomic_load(&p->at[block & (VHD_PAGE_ENTRIES - 1)]);
	if (place == VHD_ABSENT)
		return 0;
	at = vhd_data_of(v, place) + from;
	end = min64(vhd_data_of(v, place) + vhd_block_bytes(v), container_size(v->c));
	return at < end ? v->c->ops->zero(v->c, at, end - at, true, io) : 0;
}

static void forget_entry(struct vhd *v, struct vhd_page *p, uint32_t block)
{
	unsigned i = block & (VHD_PAGE_ENTRIES - 1);

	atomic_store(&p->at[i], VHD_ABSENT);
	vhd_page_dirty(v, p, block);
}

/* Calls `call` for each block from the end of `size` on that has a place. */
static int each_block_behind(struct vhd *v, uint64_t size, int (*call)(struct vhd *v, uint32_t block, uint32_t at, void *to, const struct io *io),
			     void *to, const struct io *io)
{
	int status = 0;

	for (uint32_t block = vhd_blocks_of(size, vhd_block_bytes(v)); block < v->max_entries && !status; block++) {
		struct vhd_page *p;
		uint32_t at;
		status = vhd_page_get(v, block, &p, io);
		if (status)
			break;
		at = atomic_load(&p->at[block & (VHD_PAGE_ENTRIES - 1)]);
		if (at != VHD_ABSENT)
			status = call(v, block, at, to, io);
	}
	return status;
}

/* Bitmaps stay where they are: nobody asks for that of an absent block, and a block that gets a place anew finds it cleared. */
static int forget_block(struct vhd *v, uint32_t block, uint32_t at, void *to, const struct io *io)
{
	struct vhd_page *p;
	int status = vhd_page_get(v, block, &p, io);

	(void)at, (void)to;
	if (!status)
		forget_entry(v, p, block);
	return status;
}

static int give_space_back(struct vhd *v, uint32_t block, uint32_t at, void *to, const struct io *io)
{
	uint64_t begin = vhd_data_of(v, at), end = min64(begin + vhd_block_bytes(v), container_size(v->c));

	(void)block, (void)to;
	return begin < end ? v->c->ops->zero(v->c, begin, end - begin, true, io) : 0;
}

/* The bitmaps of blocks behind the end are of no more use; readers do not come there, writers are out. */
static void drop_bitmaps(struct vhd *v, uint64_t size)
{
	for (uint32_t block = vhd_blocks_of(size, vhd_block_bytes(v)); block < v->max_entries; block++) {
		struct vhd_page *p = atomic_load(&v->pages[block >> VHD_PAGE_SHIFT]);
		if (!p) {
			block |= VHD_PAGE_ENTRIES - 1;
			continue;
		}
		struct vhd_bitmap *b = atomic_exchange(&p->bitmaps[block & (VHD_PAGE_ENTRIES - 1)], NULL);
		if (b && b != VHD_BITMAP_FULL) { /* a reader may look at it still: it is freed with the image */
			b->next_dirty = v->old_bitmaps;
			v->old_bitmaps = b;
		}
	}
}

/* ------------------------------------------------------------------ the BAT in a larger place */

/* Bytes of Xen's batmap behind a BAT at `bat`, or 0: there is none. */
static uint64_t batmap_bytes(struct vhd *v, uint64_t bat, uint32_t entries, const struct io *io)
{
	char cookie[8] = "";

	if (!vhd_is_by_xen(&v->footer) || container_read(v->c, cookie, 8, bat + vhd_bat_bytes(entries), io))
		return 0;
	return memcmp(cookie, "tdbatmap", 8) ? 0 : ((uint64_t)entries / 8 + 1 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

/* Header of the batmap, by Xen's tools (vhd.h, struct dd_batmap_hdr). */
struct batmap_header {
	char cookie[8];
	uint64_t offset;
	uint32_t sectors;
	uint32_t version;
	uint32_t checksum;
	char marker;
	char keyhash[65];
	char rest[418];
} __attribute__((packed));

_Static_assert(sizeof(struct batmap_header) == VHD_SECTOR, "the batmap's header is one sector");

/* Says of no block that it is whole, which is always true: the map is a hint. */
static int write_empty_batmap(struct vhd *v, uint64_t at, uint64_t bytes, const struct io *io)
{
	struct batmap_header h = {.offset = htobe64(at + VHD_SECTOR),
				  .sectors = htobe32((uint32_t)(bytes / VHD_SECTOR)),
				  .version = htobe32(0x00010002),
				  .checksum = htobe32(UINT32_MAX)};
	int status;

	memcpy(h.cookie, "tdbatmap", 8);
	status = container_write(v->c, &h, sizeof(h), at, io);
	return status ? status : v->c->ops->zero(v->c, at + VHD_SECTOR, bytes, false, io);
}

int vhd_batmap_reset(struct vhd *v, const struct io *io)
{
	uint32_t entries = be32toh(v->header.max_entries);
	uint64_t bytes = batmap_bytes(v, v->bat_offset, entries, io);

	return bytes ? write_empty_batmap(v, v->bat_offset + vhd_bat_bytes(entries), bytes, io) : 0;
}

static int copy_bat(struct vhd *v, uint64_t to, uint32_t entries, const struct io *io)
{
	uint64_t bytes = vhd_bat_bytes(entries);
	unsigned char *piece = malloc(VHD_PAGE_BYTES);
	int status = piece ? 0 : io_fail(io, -ENOMEM, "'%s': no memory", v->c->name);

	for (uint64_t done = 0; done < bytes && !status; done += VHD_PAGE_BYTES) {
		size_t n = (size_t)min64(bytes - done, VHD_PAGE_BYTES);
		uint64_t old = (uint64_t)v->max_entries * 4;
		memset(piece, 0xff, VHD_PAGE_BYTES);
		if (done < old)
			status = container_read(v->c, piece, (size_t)min64(old - done, n), v->bat_offset + done, io);
		if (!status)
			status = container_write(v->c, piece, n, to + done, io);
	}
	free(piece);
	return status;
}

/* Everything is committed: the BAT in the file is the one in memory. The old one stays as it is, for readers on their way. */
static int move_bat(struct vhd *v, uint32_t entries, const struct io *io)
{
	uint64_t to = (v->footer_at + 2 * VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR, bytes = vhd_bat_bytes(entries), batmap;
	struct vhd_header header = v->header;
	int status;

	batmap = batmap_bytes(v, v->bat_offset, be32toh(v->header.max_entries), io) ? ((uint64_t)entries / 8 + VHD_SECTOR) / VHD_SECTOR * VHD_SECTOR : 0;
	status = vhd_footer_move(v, to + bytes + (batmap ? batmap + VHD_SECTOR : 0), io);
	if (!status)
		status = copy_bat(v, to, entries, io);
	if (!status && batmap)
		status = write_empty_batmap(v, to + bytes, batmap, io);
	if (!status)
		status = flush(v, io);
	header.bat_offset = htobe64(to);
	header.max_entries = htobe32(entries);
	vhd_header_seal(&header);
	if (!status)
		status = container_write(v->c, &header, VHD_SECTOR, be64toh(v->footer.data_offset), io);
	if (!status)
		status = flush(v, io);
	if (status)
		return status;
	v->header = header;
	atomic_store(&v->bat_offset, to);
	atomic_store(&v->max_entries, entries);
	v->space.used_end = v->footer_at;
	return 0;
}

/* ------------------------------------------------------------------ dynamic and differencing */

/* A child must not show its parent where it has become longer. */
static int cover_parent(struct vhd *v, uint64_t from, uint64_t to, const struct io *io)
{
	uint64_t end = min64(to, v->parent_size);
	int status = 0;

	if (v->type != VHD_DIFFERENCING)
		return 0;
	for (uint64_t n; from < end && !status; from += n) {
		uint32_t block = (uint32_t)(from >> v->block_shift), at;
		uint64_t in = from & (vhd_block_bytes(v) - 1);
		struct vhd_page *p;
		bool fresh;
		n = min64(end - from, vhd_block_bytes(v) - in);
		status = vhd_page_get(v, block, &p, io);
		if (!status)
			status = vhd_allocate(v, p, block, &at, &fresh, io);
		if (!status)
			status = vhd_mark_present(v, p, block, at, in, n, io);
	}
	return status;
}

static int make_room(struct vhd *v, uint64_t size, const struct io *io)
{
	uint32_t entries = vhd_blocks_of(size, vhd_block_bytes(v));
	uint64_t behind = (v->space.used_end + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	int status = 0;

	if (!v->space.has_grown && v->footer_at < behind) /* others write no more of the last block than the disk has */
		status = vhd_footer_move(v, behind, io);
	if (!status)
		status = each_block_behind(v, atomic_load(&v->size), forget_block, NULL, io);
	if (!status)
		status = zero_tail(v, atomic_load(&v->size), io);
	if (!status)
		status = vhd_flush(v, io);
	if (!status && entries > v->max_entries)
		status = move_bat(v, entries, io);
	return status;
}

static int grow_blocks(struct vhd *v, uint64_t size, const struct io *io)
{
	int status = make_room(v, size, io);

	drop_bitmaps(v, atomic_load(&v->size));
	if (!status)
		status = cover_parent(v, atomic_load(&v->size), size, io);
	if (!status)
		status = vhd_flush(v, io);
	if (!status)
		status = write_footers(v, size, io);
	if (!status)
		atomic_store(&v->size, size);
	return status;
}

/* When the size has gone down the rest is tidying: that it fails is no failure, a growth does it again. */
static int shrink_blocks(struct vhd *v, uint64_t size, const struct io *io)
{
	const struct io quiet = {.who = io->who};
	uint64_t old = atomic_exchange(&v->size, size);
	int status = write_footers(v, size, io);

	if (status) {
		atomic_store(&v->size, old);
		return status;
	}
	vhd_batmap_reset(v, &quiet);
	if (each_block_behind(v, size, give_space_back, NULL, &quiet) || each_block_behind(v, size, forget_block, NULL, &quiet) ||
	    zero_tail(v, size, &quiet))
		return 0;
	vhd_flush(v, &quiet);
	drop_bitmaps(v, size);
	return 0;
}

/* ------------------------------------------------------------------ fixed */

#define GROWING_AT 2 /* in the footer's reserved bytes: behind Xen's flag */

static const char growing_mark[8] = "growfrom";

/* Where the footer that is to be wiped was, or 0. */
static uint64_t growing_from(const struct vhd_footer *f)
{
	uint64_t from;

	if (memcmp(f->reserved + GROWING_AT, growing_mark, 8))
		return 0;
	memcpy(&from, f->reserved + GROWING_AT + 8, 8);
	return be64toh(from);
}

static void set_growing(struct vhd_footer *f, uint64_t from)
{
	uint64_t be = htobe64(from);

	memset(f->reserved + GROWING_AT, 0, 16);
	if (from) {
		memcpy(f->reserved + GROWING_AT, growing_mark, 8);
		memcpy(f->reserved + GROWING_AT + 8, &be, 8);
	}
	vhd_footer_seal(f);
}

int vhd_finish_growth(struct vhd *v, const struct io *io)
{
	uint64_t from = growing_from(&v->footer);
	int status;

	if (v->type == VHD_FIXED && v->footer_missing && !v->c->read_only) { /* it had not come far: not at all, then */
		status = v->c->ops->resize(v->c, v->footer_at + VHD_SECTOR, io);
		v->footer_missing = status;
		return status ? status : flush(v, io);
	}
	if (v->type != VHD_FIXED || !from || from % VHD_SECTOR || from + VHD_SECTOR > v->footer_at)
		return 0;
	status = v->c->ops->zero(v->c, from, VHD_SECTOR, false, io);
	if (!status)
		status = flush(v, io);
	set_growing(&v->footer, 0);
	return status ? status : vhd_footer_move(v, v->footer_at, io);
}

static int resize_fixed(struct vhd *v, uint64_t size, const struct io *io)
{
	struct vhd_footer old = v->footer;
	uint64_t old_size = atomic_load(&v->size), old_at = v->footer_at;
	bool larger = size > old_size;
	int status;

	vhd_footer_set_size(&v->footer, size);
	set_growing(&v->footer, larger ? old_at : 0);
	if (!larger)
		atomic_store(&v->size, size);
	else if (old_size < old_at) /* bytes that belong to nothing lie between */
		status = v->c->ops->zero(v->c, old_size, old_at - old_size, false, io);
	status = vhd_footer_move(v, size, io);
	if (status) {
		v->footer = old;
		atomic_store(&v->size, old_size);
		return status;
	}
	if (larger) {
		status = vhd_finish_growth(v, io);
		atomic_store(&v->size, size);
	} else {
		status = v->c->ops->resize(v->c, size + VHD_SECTOR, io);
		if (!status)
			status = flush(v, io);
	}
	return status;
}

/* ------------------------------------------------------------------ */

static int check_size(struct vhd *v, uint64_t size, const struct io *io)
{
	if (v->c->read_only)
		return io_fail(io, -EROFS, "'%s' is open for reading only", v->c->name);
	if (size && !(size % VHD_SECTOR) && size <= VHD_MAX_SECTORS * VHD_SECTOR)
		return 0;
	return io_fail(io, -EINVAL, "'%s': size %" PRIu64 " is not whole sectors of %u bytes up to 2040 GiB", v->c->name, size, VHD_SECTOR);
}

int vhd_image_resize(struct vhd *v, uint64_t size, const struct io *io)
{
	int status = check_size(v, size, io);

	if (status)
		return status;
	gate_close(&v->gate);
	status = vhd_flush(v, io);
	if (!status && size != atomic_load(&v->size)) {
		if (v->type == VHD_FIXED)
			status = resize_fixed(v, size, io);
		else
			status = size > atomic_load(&v->size) ? grow_blocks(v, size, io) : shrink_blocks(v, size, io);
	}
	gate_open(&v->gate);
	return status;
}

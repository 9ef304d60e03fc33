/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the data of a VHDX disk lies ([MS-VHDX] 2.4, 2.5). */
#include "formats/vhdx-file.h"

#include <errno.h>
#include <inttypes.h>

/* ------------------------------------------------------------------ entries */

const char *vhdx_range_fault(const struct vhdx *x, uint64_t offset, uint64_t length)
{
	const struct vhdx_region *places = atomic_load(&x->places);
	uint64_t size = container_size(x->file);

	if (offset < VHDX_MIB)
		return "lies in the first MiB";
	if (offset > size || length > size - offset)
		return "ends behind the end of the file";
	if (offset < x->log_offset + x->log_length && x->log_offset < offset + length)
		return "lies in the log";
	for (unsigned i = 0; i < x->regions.count; i++) {
		const struct vhdx_region *r = &places[i];
		if (offset < r->offset + r->length && r->offset < offset + length)
			return "lies in a region";
	}
	return NULL;
}

void vhdx_note_structures(struct vhdx *x, const struct vhdx_region *regions)
{
	uint64_t end = x->log_offset + x->log_length;

	for (unsigned i = 0; i < x->regions.count; i++)
		if (regions[i].offset + regions[i].length > end)
			end = regions[i].offset + regions[i].length;
	atomic_store(&x->structures_end, end);
}

/* The last block of a disk may end behind the file's end, as QEMU leaves fixed disks: the part that the disk needs is there. */
const char *vhdx_entry_fault(const struct vhdx *x, uint64_t block, uint64_t entry)
{
	uint64_t begin = block << x->block_shift, size = atomic_load(&x->size), length = x->meta.block_size;

	if (VHDX_RESERVED(entry))
		return "has reserved bits set";
	switch (VHDX_STATE(entry)) {
	case VHDX_NOT_PRESENT:
	case VHDX_UNDEFINED:
	case VHDX_ZERO:
	case VHDX_UNMAPPED:
	case VHDX_UNMAPPED_095:
		return NULL;
	case VHDX_FULL:
	case VHDX_PARTIAL:
		if (begin < size && size - begin < length)
			length = size - begin;
		return vhdx_range_fault(x, VHDX_OFFSET(entry), length);
	default:
		return "has a state that is not known";
	}
}

const char *vhdx_bitmap_fault(const struct vhdx *x, uint64_t entry)
{
	if (VHDX_RESERVED(entry))
		return "has reserved bits set";
	return vhdx_range_fault(x, VHDX_OFFSET(entry), VHDX_MIB);
}

int vhdx_entry(struct vhdx *x, uint64_t block, uint64_t *entry, uint64_t *missing)
{
	uint64_t index = vhdx_payload_index(block, x->ratio_shift);
	struct vhdx_page *page = vhdx_page_find(x, vhdx_index_page(index));

	if (!page) {
		*missing = vhdx_index_page(index);
		return -EAGAIN;
	}
	*entry = atomic_load(&page->words[vhdx_index_word(index)]);
	return 0;
}

static int fail_entry(struct vhdx *x, uint64_t block, uint64_t entry, const struct io *io)
{
	return io_fail(io, -EIO, "'%s': block allocation table: the entry of block %" PRIu64 ", %#018" PRIx64 ", %s", x->file->name,
		       block, entry, vhdx_entry_fault(x, block, entry));
}

/* ------------------------------------------------------------------ sector bitmaps */

/* How many of `most` sectors from `sector` on are as the first one, and how that is. Bits stand in words, the least first. */
static int sector_run(struct vhdx *x, uint64_t sector, uint64_t most, bool *present, uint64_t *run, uint64_t *missing)
{
	uint64_t done = 0;

	while (done < most) {
		uint64_t at = sector + done, number = vhdx_bitmap_page(x, at), word, same;
		struct vhdx_page *page = vhdx_page_find(x, number);
		unsigned bit = at % 64;
		if (!page) {
			*missing = number;
			return done ? 0 : -EAGAIN;
		}
		word = atomic_load(&page->words[at % VHDX_PAGE_SECTORS / 64]) >> bit;
		if (!done)
			*present = word & 1;
		same = *present ? ~word : word;
		same = same ? (uint64_t)__builtin_ctzll(same) : 64;
		if (same > 64 - bit)
			same = 64 - bit;
		done += same;
		*run = done < most ? done : most;
		if (same < 64 - bit)
			break;
	}
	return 0;
}

static int map_partial(struct vhdx *x, uint64_t offset, uint64_t length, uint64_t at, struct vhdx_run *run, uint64_t *missing)
{
	bool present = false;
	uint64_t n = 0;
	int status = sector_run(x, offset >> x->sector_shift, length >> x->sector_shift, &present, &n, missing);

	if (!status)
		*run = (struct vhdx_run){present ? LAYER_DATA : LAYER_ABSENT, n << x->sector_shift, at};
	return status;
}

/* ------------------------------------------------------------------ runs */

/* What the whole block is, but for those that are in part here: then false. */
static bool classify(const struct vhdx *x, uint64_t entry, struct vhdx_run *run)
{
	enum vhdx_state state = VHDX_STATE(entry);

	run->offset = 0;
	run->presence = LAYER_ZERO;
	if (state == VHDX_NOT_PRESENT && x->meta.has_parent)
		run->presence = LAYER_ABSENT;
	if (state == VHDX_FULL || state == VHDX_PARTIAL) {
		run->presence = LAYER_DATA;
		run->offset = VHDX_OFFSET(entry);
	}
	return state != VHDX_PARTIAL || !x->meta.has_parent;
}

/* Does the block go on as `run` does, which ends where it begins? */
static bool continues(struct vhdx *x, uint64_t block, const struct vhdx_run *run)
{
	uint64_t entry, missing;
	struct vhdx_run next;

	if (vhdx_entry(x, block, &entry, &missing) || vhdx_entry_fault(x, block, entry) || !classify(x, entry, &next))
		return false;
	return next.presence == run->presence && (run->presence != LAYER_DATA || next.offset == run->offset + run->length);
}

/*
 * A whole block behind all structures and inside the file, as nearly all are: nothing can be wrong with it. False says nothing.
 */
static inline bool is_plain(const struct vhdx *x, uint64_t entry)
{
	uint64_t offset = VHDX_OFFSET(entry), size = container_size(x->file);

	return (entry & (VHDX_MIB - 1)) == VHDX_FULL && offset >= atomic_load_explicit(&x->structures_end, memory_order_relaxed) &&
	       offset <= size && x->meta.block_size <= size - offset;
}

int vhdx_map(struct vhdx *x, uint64_t offset, uint64_t length, struct vhdx_run *run, uint64_t *missing, const struct io *io)
{
	uint64_t block = offset >> x->block_shift, within = offset & (x->meta.block_size - 1), entry;
	uint64_t most = x->meta.block_size - within < length ? x->meta.block_size - within : length;
	int status = vhdx_entry(x, block, &entry, missing);

	if (status)
		return status;
	if (most == length && is_plain(x, entry)) {
		*run = (struct vhdx_run){LAYER_DATA, length, VHDX_OFFSET(entry) + within};
		return 0;
	}
	if (__builtin_expect(vhdx_entry_fault(x, block, entry) != NULL, 0))
		return fail_entry(x, block, entry, io);
	if (!classify(x, entry, run))
		return map_partial(x, offset, most, VHDX_OFFSET(entry) + within, run, missing);
	run->offset += run->presence == LAYER_DATA ? within : 0;
	run->length = most;
	while (run->length < length && continues(x, ++block, run)) {
		most = length - run->length;
		run->length += most < x->meta.block_size ? most : x->meta.block_size;
	}
	return 0;
}

int vhdx_map_loading(struct vhdx *x, uint64_t offset, uint64_t length, struct vhdx_run *run, const struct io *io)
{
	for (;;) {
		uint64_t missing;
		_Atomic uint32_t *place = grace_enter(&x->grace);
		int status = vhdx_map(x, offset, length, run, &missing, io);
		grace_leave(&x->grace, place);
		if (status != -EAGAIN)
			return status;
		status = vhdx_page_load(x, missing, io);
		if (status)
			return status;
	}
}

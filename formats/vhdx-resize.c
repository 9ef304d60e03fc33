/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another size for a VHDX disk
 *
 * The size is a number in the metadata, which goes through the log like everything else.
 *
 *   growing    first what lies behind the end becomes what it is to be seen as: the rest of the last block zero, entries of new
 *              blocks "not present", or "zero" where a parent would be seen. All of that is durable before the size is.
 *              A table that is too short is copied to where there is room for a longer one; the region tables that say so and
 *              the size are one entry of the log
 *   shrinking  first nobody gets there any more, then the size is made durable, then the blocks are freed
 */
#include "formats/vhdx-writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"

/* Entries that are looked at one by one; more are written behind the table's last page at once. */
#define FEW_ENTRIES 65536u

static int fail_size(struct vhdx *x, uint64_t size, const struct io *io)
{
	return io_fail(io, -EINVAL, "'%s': size %" PRIu64 " is not 1 or more sectors of %" PRIu32 " bytes, up to 64 TiB", x->file->name,
		       size, x->meta.logical_sector);
}

/* ------------------------------------------------------------------ pages of metadata */

/* What an entry of the log is made of: the page with the size, and both region tables. */
struct metadata {
	struct vhdx_logged pages[1 + 2 * VHDX_TABLE_BYTES / VHDX_PAGE];
	uint32_t count;
	uint8_t size_page[VHDX_PAGE];
	uint8_t table[VHDX_TABLE_BYTES];
};

static int add_size(struct vhdx *x, struct metadata *m, uint64_t size, const struct io *io)
{
	uint64_t within = x->meta.size_offset % VHDX_PAGE, at = x->meta.size_offset - within;
	int status;

	if (within > VHDX_PAGE - 8)
		return io_fail(io, -EOPNOTSUPP, "'%s': the size lies across two pages, which cannot be changed at once", x->file->name);
	status = container_read(x->file, m->size_page, VHDX_PAGE, at, io);
	le64_put(m->size_page + within, size);
	m->pages[m->count++] = (struct vhdx_logged){at, m->size_page};
	return status;
}

static int add_tables(struct vhdx *x, struct metadata *m, uint64_t offset, uint32_t length, const struct io *io)
{
	struct vhdx_region *list = calloc(x->regions.count, sizeof(*list));

	if (!list)
		return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	memcpy(list, x->regions.all, x->regions.count * sizeof(*list));
	for (unsigned i = 0; i < x->regions.count; i++)
		if (guid_equal(&list[i].id, &x->regions.bat.id)) {
			list[i].offset = offset;
			list[i].length = length;
		}
	vhdx_regions_encode(list, x->regions.count, m->table);
	free(list);
	for (unsigned copy = 0; copy < 2; copy++)
		for (uint32_t at = 0; at < VHDX_TABLE_BYTES; at += VHDX_PAGE)
			m->pages[m->count++] = (struct vhdx_logged){VHDX_TABLE_OFFSET(copy) + at, m->table + at};
	return 0;
}

/* ------------------------------------------------------------------ growing */

/*
 * The entry of the sector bitmap block that the last chunk has already: it stands behind those of payload blocks that are new. Without
 * a parent there is none.
 */
static uint64_t kept_entry(const struct vhdx *x)
{
	uint64_t last = vhdx_blocks(atomic_load(&x->size), x->meta.block_size) - 1;

	return x->meta.has_parent ? vhdx_bitmap_index(last >> x->ratio_shift, x->ratio_shift) : UINT64_MAX;
}

static uint64_t entry_of_new(const struct vhdx *x, uint64_t index)
{
	uint64_t ratio = UINT64_C(1) << x->ratio_shift;

	return x->meta.has_parent && index % (ratio + 1) != ratio ? VHDX_ZERO : 0;
}

static int set_entries(struct vhdx *x, uint64_t from, uint64_t to, const struct io *io)
{
	uint64_t number, entry, kept = kept_entry(x);
	int status = 0;

	for (uint64_t i = from; i < to && !status; i++) {
		status = vhdx_load_index(x, i, &entry, io);
		if (!status && i != kept && entry != entry_of_new(x, i))
			status = vhdx_publish(x, i, entry_of_new(x, i), false, &number, io);
	}
	return status;
}

/*
 * Whole pages of the table that nothing points into yet, and of which none is in memory. Nor in the log, from which a replay would
 * bring back what they held when the disk was this large before.
 */
static int write_entries(struct vhdx *x, uint64_t from, uint64_t to, const struct io *io)
{
	uint8_t page[VHDX_PAGE];
	int status = 0;

	for (uint64_t i = from; i < to && !status; i += VHDX_WORDS) {
		if (vhdx_page_peek(x, vhdx_index_page(i)) || vhdx_index_page(i) == vhdx_index_page(kept_entry(x))) {
			status = set_entries(x, i, i + VHDX_WORDS, io);
			continue;
		}
		for (unsigned k = 0; k < VHDX_WORDS; k++)
			le64_put(page + 8 * k, entry_of_new(x, i + k));
		status = container_write(x->file, page, VHDX_PAGE, atomic_load(&x->bat_offset) + i * 8, io);
	}
	return status;
}

/* Entries [from, to) of the table, in which there is room for them. */
static int make_entries(struct vhdx *x, uint64_t from, uint64_t to, const struct io *io)
{
	uint64_t whole = (from + VHDX_WORDS - 1) / VHDX_WORDS * VHDX_WORDS;
	int status;

	if (to - from <= FEW_ENTRIES || whole >= to)
		return set_entries(x, from, to, io);
	status = set_entries(x, from, whole, io);
	if (!status)
		status = vhdx_commit_forget(x, io);
	return status ? status : write_entries(x, whole, to, io);
}

/* Zeroes for a table of this length. */
static int take_table(struct vhdx *x, uint64_t length, uint64_t *offset, const struct io *io)
{
	enum vhdx_space_kind kind;
	int status = vhdx_space_take(x, length, offset, &kind, io);

	if (status || kind != VHDX_SPACE_STALE)
		return status;
	status = x->file->ops->zero(x->file, *offset, length, false, io);
	if (status)
		vhdx_space_return(x, *offset, length);
	return status;
}

/* A longer table in a new place. When that fails, nobody knows whether a replay would move it: the place stays taken. */
static int move_table(struct vhdx *x, uint64_t entries, const struct io *io)
{
	uint64_t length = (entries * 8 + VHDX_MIB - 1) & ~(VHDX_MIB - 1), offset;
	struct metadata *m = calloc(1, sizeof(*m));
	int status = m ? take_table(x, length, &offset, io) : io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);

	if (!status)
		status = add_tables(x, m, offset, (uint32_t)length, io);
	if (!status)
		status = vhdx_commit_move(x, offset, (uint32_t)length, m->pages, m->count, io);
	free(m);
	return status;
}

static int store_size(struct vhdx *x, uint64_t size, const struct io *io)
{
	struct metadata *m = calloc(1, sizeof(*m));
	int status = m ? add_size(x, m, size, io) : io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);

	if (!status)
		status = vhdx_commit_pages(x, m->pages, m->count, io);
	free(m);
	return status;
}

/* The last entry that is needed, and one more. */
static uint64_t last_entry(const struct vhdx *x, uint64_t size)
{
	return vhdx_payload_index(vhdx_blocks(size, x->meta.block_size) - 1, x->ratio_shift) + 1;
}

static int grow(struct vhdx *x, uint64_t old, uint64_t size, const struct io *io)
{
	uint64_t rest = old & (x->meta.block_size - 1), needed = vhdx_bat_entries(&x->meta, size);
	uint64_t room = rest ? x->meta.block_size - rest : 0;
	int status = 0;

	if (needed * 8 > x->regions.bat.length)
		status = move_table(x, needed, io);
	if (!status && room)
		status = vhdx_zero_beyond(x, old, room < size - old ? room : size - old, io);
	if (!status)
		status = make_entries(x, last_entry(x, old), needed, io);
	if (!status)
		status = vhdx_commit_flush(x, io);
	if (!status)
		status = store_size(x, size, io);
	if (!status)
		atomic_store(&x->size, size);
	return status;
}

/* ------------------------------------------------------------------ shrinking */

/* From now on nobody comes behind the end, and who was there is out. */
static void keep_out(struct vhdx *x, uint64_t size)
{
	atomic_store(&x->size, size);
	grace_wait(&x->grace);
	for (unsigned i = 0; i < VHDX_BLOCK_LOCKS; i++) {
		wait_rwlock_lock_exclusive(&x->block_locks[i]);
		wait_rwlock_unlock_exclusive(&x->block_locks[i]);
	}
}

static int free_blocks(struct vhdx *x, uint64_t first, uint64_t end, const struct io *io)
{
	uint64_t entry, number;
	int status = 0;

	for (uint64_t block = first; block < end && !status; block++) {
		uint64_t index = vhdx_payload_index(block, x->ratio_shift);
		status = vhdx_load_index(x, index, &entry, io);
		if (status || !entry)
			continue;
		status = vhdx_publish(x, index, 0, false, &number, io);
		if (!status && (VHDX_STATE(entry) == VHDX_FULL || VHDX_STATE(entry) == VHDX_PARTIAL))
			vhdx_space_free(x, VHDX_OFFSET(entry), x->meta.block_size, number);
	}
	return status;
}

static int shrink(struct vhdx *x, uint64_t old, uint64_t size, const struct io *io)
{
	int status;

	keep_out(x, size);
	status = store_size(x, size, io);
	if (status) {
		atomic_store(&x->size, old);
		return status;
	}
	status = free_blocks(x, vhdx_blocks(size, x->meta.block_size), vhdx_blocks(old, x->meta.block_size), io);
	return status ? status : vhdx_commit_flush(x, io);
}

int vhdx_layer_resize(struct layer *l, uint64_t size, const struct io *io)
{
	struct vhdx *x = vhdx_of(l);
	uint64_t old;
	int status = vhdx_begin(x, io);

	if (status)
		return status;
	if (!size || size % x->meta.logical_sector || size > VHDX_MAX_SIZE)
		return fail_size(x, size, io);
	wait_mutex_lock(&x->writer->resizing);
	old = atomic_load(&x->size);
	if (size != old)
		status = size > old ? grow(x, old, size, io) : shrink(x, old, size, io);
	wait_mutex_unlock(&x->writer->resizing);
	return status;
}

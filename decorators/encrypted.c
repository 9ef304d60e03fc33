/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both ways lead through a buffer of the disk's own, which holds ciphertext: a write is encrypted from the caller's
 * memory into it, and a read decrypted from it into the caller's. So
 *
 *   - the caller's memory is only read by a write, and only plaintext gets into it by a read: a guest that watches its
 *     buffer, or changes it while it is read into, learns nothing and has nothing decrypted that it made up;
 *   - what the disk below is given is ciphertext and nothing else;
 *   - no more bytes are moved than if it were done in place.
 *
 * Longer requests go by pieces of such a buffer.
 *
 * What zeroes below stand for is a matter of choice. A disk that never was written to is zero, and so is what was
 * discarded or zeroed in it:
 *
 *               holes=decrypt                       holes=zero
 *   a unit      is decrypted like all else: noise   reads as zeroes, if nothing but zeroes is in it below
 *   of zeroes   (what dm-crypt does)                (ciphertext of 512 bytes is so once in 2^4096)
 *   discard     is handed down; what it leaves      is handed down; leaves what the disk below leaves
 *               is unspecified, if not ignored
 *   zeroing     writes encrypted zeroes             zeroes the disk below
 *   extents     are all data                        are those of the disk below
 *   growing     writes encrypted zeroes to what     needs nothing
 *               was added, before it is shown
 *
 * Identity and id are not handed on: a cache that is found by them would keep plaintext beside ciphertext, and take one
 * for the other.
 */
#include "decorators/encrypted.h"

#include <errno.h>
#include <string.h>

const char *const holes_words[] = {"decrypt", "zero", NULL};

static struct encrypted *encrypted_of(struct disk *d)
{
	return (struct encrypted *)d;
}

/* ------------------------------------------------------------------ reading and writing */

static int fail(struct disk *d, int status, const struct io *io)
{
	if (status == -ENOMEM)
		return io_fail(io, status, "%s: no memory", d->kind);
	return io_fail(io, status, "%s: OpenSSL failed", d->kind);
}

static int read_piece(struct encrypted *e, unsigned char *buffer, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = disk_read(e->disk.children[0], &VEC_FLAT(buffer, v->size), e->offset + offset, io);

	if (status)
		return status;
	status = xts_decrypt(e->xts, buffer, v, offset, e->zero_holes);
	return status ? fail(&e->disk, status, io) : 0;
}

static int write_piece(struct encrypted *e, unsigned char *buffer, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = xts_encrypt(e->xts, v, buffer, offset);

	if (status)
		return fail(&e->disk, status, io);
	return disk_write(e->disk.children[0], &VEC_FLAT(buffer, v->size), e->offset + offset, io);
}

typedef int piece_function(struct encrypted *e, unsigned char *buffer, const struct vec *v, uint64_t offset, const struct io *io);

static int by_pieces(struct encrypted *e, piece_function *function, const struct vec *v, uint64_t offset, const struct io *io)
{
	unsigned char *buffer = staging_take(&e->staging);
	struct vec rest = *v;
	int status = 0;

	if (!buffer)
		return fail(&e->disk, -ENOMEM, io);
	for (; rest.size > STAGING_BYTES && !status; offset += STAGING_BYTES) {
		struct vec piece = vec_slice(&rest, 0, STAGING_BYTES);
		status = function(e, buffer, &piece, offset, io);
		rest = vec_slice(&rest, STAGING_BYTES, rest.size - STAGING_BYTES);
	}
	if (!status)
		status = function(e, buffer, &rest, offset, io);
	staging_give(&e->staging, buffer);
	return status;
}

static int encrypted_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return by_pieces(encrypted_of(d), read_piece, v, offset, io);
}

static int encrypted_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return by_pieces(encrypted_of(d), write_piece, v, offset, io);
}

/* ------------------------------------------------------------------ what holds no data */

static int encrypted_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_discard(d->children[0], encrypted_of(d)->offset + offset, length, io);
}

static int encrypted_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct encrypted *e = encrypted_of(d);

	if (!e->zero_holes)
		return disk_write_zeroes_slowly(d, offset, length, io);
	return disk_write_zeroes(d->children[0], e->offset + offset, length, io);
}

/* Adds what is whole blocks of the run, and what lies before them as data. False: the producer should stop. */
static bool add_run(struct extents *out, const struct extent *run, uint64_t base, uint64_t block)
{
	uint64_t start = (run->offset - base + block - 1) / block * block;
	uint64_t end = (run->offset - base + run->length) / block * block;

	if (start >= end)
		return true;
	if (start > extents_next(out) && !extents_add(out, start - extents_next(out), EXTENT_DATA))
		return false;
	return extents_add(out, end - start, run->flags);
}

/* Blocks may be larger than those below: one that is not whole in a run is data. At least one block is added. */
static bool add_runs(struct extents *out, const struct extents *found, uint64_t base, uint64_t block)
{
	uint64_t first = extents_next(out), end = (extents_next(found) - base) / block * block;

	for (size_t i = 0; i < found->count; i++)
		if (!add_run(out, &found->list[i], base, block))
			return false;
	if (end == first)
		end += block;
	return end <= extents_next(out) || extents_add(out, end - extents_next(out), EXTENT_DATA);
}

static int zero_extents(struct encrypted *e, struct extents *out, const struct io *io)
{
	bool more = true;
	int status = 0;

	while (more && !status && extents_next(out) < out->end) {
		CLEANUP_EXTENTS struct extents found = {0};
		uint64_t at = extents_next(out);
		extents_init(&found, e->offset + at, out->end - at, out->max);
		status = disk_extents(e->disk.children[0], &found, io);
		more = !status && add_runs(out, &found, e->offset, e->disk.info.block_size);
	}
	return status;
}

static int encrypted_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct encrypted *e = encrypted_of(d);

	if (e->zero_holes)
		return zero_extents(e, out, io);
	extents_add(out, out->end - out->offset, EXTENT_DATA);
	return 0;
}

static int encrypted_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_prefetch(d->children[0], encrypted_of(d)->offset + offset, length, io);
}

/* ------------------------------------------------------------------ size */

static uint64_t encrypted_size(struct disk *d)
{
	struct encrypted *e = encrypted_of(d);
	uint64_t size = disk_size(d->children[0]);
	uint64_t room = size > e->offset ? size - e->offset : 0;
	uint64_t shown = atomic_load(&e->hidden_from);

	room &= ~(uint64_t)(d->info.block_size - 1);
	room = room < e->length ? room : e->length;
	return room < shown ? room : shown;
}

/* What the disk below has become while some of it was hidden. */
static void show_all(struct disk *d)
{
	atomic_store(&encrypted_of(d)->hidden_from, UINT64_MAX);
	while (disk_size(d) != encrypted_size(d))
		disk_set_size(d, encrypted_size(d));
}

/* Nobody else writes to what is added, since it is not shown before it reads as zeroes. */
static int grow(struct encrypted *e, uint64_t old, uint64_t size, const struct io *io)
{
	struct disk *below = e->disk.children[0];
	uint64_t old_below = disk_size(below);
	int status;

	atomic_store(&e->hidden_from, old);
	status = disk_resize(below, e->offset + size, io);
	if (!status) {
		status = disk_write_zeroes_slowly(&e->disk, old, size - old, io);
		if (status)
			disk_resize(below, old_below, &io_plain);
	}
	show_all(&e->disk);
	return status;
}

static int encrypted_resize(struct disk *d, uint64_t size, const struct io *io)
{
	struct encrypted *e = encrypted_of(d);
	uint64_t old;
	int status;

	if (size > DISK_MAX_END - e->offset)
		return io_fail(io, -ERANGE, "%s: the new size does not fit in the disk below", d->kind);
	wait_mutex_lock(&e->resizing);
	old = disk_size(d);
	if (size > old && !e->zero_holes)
		status = grow(e, old, size, io);
	else
		status = disk_resize(d->children[0], e->offset + size, io);
	wait_mutex_unlock(&e->resizing);
	return status;
}

/* ------------------------------------------------------------------ life */

void encrypted_describe(struct disk *d, json_t *object)
{
	const struct encrypted *e = encrypted_of(d);

	json_object_set_new(object, "cipher", json_string(xts_name(e->xts)));
	json_object_set_new(object, "unit", json_integer(e->units.unit_bytes));
	json_object_set_new(object, "holes", json_string(holes_words[e->zero_holes]));
}

static int encrypted_close(struct disk *d, bool abandoned, struct error *err)
{
	struct encrypted *e = encrypted_of(d);

	(void)abandoned;
	(void)err;
	staging_drop(&e->staging);
	xts_free(e->xts);
	return 0;
}

static const struct disk_ops encrypted_ops = {
	.read = encrypted_read,
	.write = encrypted_write,
	.discard = encrypted_discard,
	.write_zeroes = encrypted_write_zeroes,
	.extents = encrypted_extents,
	.prefetch = encrypted_prefetch,
	.resize = encrypted_resize,
	.child_resized = encrypted_size,
	.describe = encrypted_describe,
	.close = encrypted_close,
};

void *encrypted_new(size_t state_size, const char *kind, struct disk *below, void (*describe)(struct disk *d, json_t *object))
{
	struct disk_ops ops = encrypted_ops;
	struct encrypted *e;

	if (describe)
		ops.describe = describe;
	e = disk_new(state_size, kind, &ops, &below, 1);
	if (e)
		disk_inherit(&e->disk);
	return e;
}

/* Where units are larger than blocks below they are the blocks; granules, then, must be whole ones. */
static void enlarge_blocks(struct disk_info *info, uint32_t unit)
{
	if (unit <= info->block_size)
		return;
	info->block_size = unit;
	if (info->physical_block_size < unit)
		info->physical_block_size = unit;
	if (info->discard_granularity % unit == 0 && info->discard_alignment % unit == 0)
		return;
	if (unit % info->discard_granularity || info->discard_alignment)
		info->discard = DISK_DISCARD_IGNORED; /* no block is sure to be whole granules */
	info->discard_granularity = unit;
	info->discard_alignment = 0;
}

static void set_info(struct encrypted *e)
{
	struct disk_info *info = &e->disk.info;
	uint64_t granularity = info->discard_granularity; /* 64 bits: sums of two may not fit in 32 */

	info->discard_alignment = (uint32_t)((info->discard_alignment + granularity - e->offset % granularity) % granularity);
	enlarge_blocks(info, e->units.unit_bytes);
	info->flags &= ~(unsigned)DISK_HAS_ID;
	if (e->length != UINT64_MAX)
		info->flags &= ~(unsigned)DISK_RESIZABLE;
	if (e->zero_holes)
		return;
	info->flags &= ~(unsigned)DISK_FAST_ZERO;
	if (info->discard == DISK_DISCARD_ZEROES)
		info->discard = DISK_DISCARD_UNSPECIFIED;
}

int encrypted_publish(struct encrypted *e, const struct encrypted_content *content, struct secret *key, struct disk **out,
		      struct error *err)
{
	int status = xts_create(key, &content->units, &e->xts, err);

	e->offset = content->offset;
	e->length = content->length;
	e->units = content->units;
	e->zero_holes = content->zero_holes;
	atomic_store(&e->hidden_from, UINT64_MAX);
	set_info(e);
	if (!status)
		status = disk_publish(&e->disk, encrypted_size(&e->disk), err);
	if (status) {
		xts_free(e->xts);
		disk_drop_new(&e->disk);
		return status;
	}
	*out = &e->disk;
	return 0;
}

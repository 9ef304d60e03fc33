/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VHDX files as layers
 *
 *   vhdx-header.c     the first MiB: which header is current, where the regions lie
 *   vhdx-log.c        what the log holds, and replaying it; vhdx-overlay.c: in memory
 *   vhdx-metadata.c   what disk it is; vhdx-locator.c: who its parent is
 *   vhdx-pages.c      the block allocation table and sector bitmaps in memory
 *   vhdx-map.c        where data lies: what everything else stands on
 *   vhdx-layer.c      opening, reading (this file); vhdx-chain.c: with parents; vhdx.c: as a kind of disk
 *   vhdx-write.c      writing, with its invariants; vhdx-space.c: space in the file; vhdx-commit.c: the log as a writer has it
 *   vhdx-resize.c     another size; vhdx-create.c: new files; vhdx-compact.c: smaller ones; vhdx-check.c: damaged ones;
 *                     vhdx-parent.c: another parent, or one with the child's content
 *
 * A request looks up where its data lies inside x->grace and stays inside until it has read or written there: space that was freed is
 * given to another block only when all are out who may have looked before. What it finds missing it loads from outside, and
 * looks again.
 */
#include "formats/vhdx-writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx-log.h"

/* ------------------------------------------------------------------ reading */

static int fail_range(struct vhdx *x, const struct io *io)
{
	return io_fail(io, -ERANGE, "'%s': past the end, %" PRIu64 " bytes", x->file->name, atomic_load(&x->size));
}

/* Once; -EAGAIN: *missing is to be loaded. */
static int try_read(struct vhdx *x, const struct vec *v, uint64_t offset, struct vhdx_run *run, uint64_t *missing, const struct io *io)
{
	int status = vhdx_map(x, offset, v->size, run, missing, io);
	struct vec part;

	if (status || run->presence != LAYER_DATA)
		return status;
	if (run->length == v->size)
		return x->file->ops->read(x->file, v, run->offset, io);
	part = vec_slice(v, 0, run->length);
	return x->file->ops->read(x->file, &part, run->offset, io);
}

static int vhdx_read(struct layer *l, const struct vec *v, uint64_t offset, struct layer_run *out, const struct io *io)
{
	struct vhdx *x = vhdx_of(l);
	struct vhdx_run run;
	int status;

	for (;;) {
		uint64_t missing = UINT64_MAX;
		_Atomic uint32_t *place = grace_enter(&x->grace);
		if (__builtin_expect(offset + v->size > atomic_load(&x->size), 0))
			status = fail_range(x, io);
		else
			status = try_read(x, v, offset, &run, &missing, io);
		grace_leave(&x->grace, place);
		if (missing == UINT64_MAX)
			break;
		status = vhdx_page_load(x, missing, io);
		if (status)
			return status;
	}
	*out = (struct layer_run){.presence = run.presence, .length = run.length};
	return status;
}

static int vhdx_layer_map(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *out, const struct io *io)
{
	struct vhdx *x = vhdx_of(l);
	struct vhdx_run run;
	int status;

	if (offset + length > atomic_load(&x->size))
		return fail_range(x, io);
	status = vhdx_map_loading(x, offset, length, &run, io);
	if (!status)
		*out = (struct layer_run){.presence = run.presence, .length = run.length};
	return status;
}

static int vhdx_prefetch(struct layer *l, uint64_t offset, uint64_t length, const struct io *io)
{
	struct vhdx *x = vhdx_of(l);
	struct vhdx_run run;
	int status = 0;

	for (uint64_t done = 0; done < length && !status; done += run.length) {
		status = vhdx_map_loading(x, offset + done, length - done, &run, io);
		if (!status && run.presence == LAYER_DATA)
			x->file->ops->prefetch(x->file, run.offset, run.length);
	}
	return status;
}

static uint64_t vhdx_size(struct layer *l)
{
	return atomic_load(&vhdx_of(l)->size);
}

static void vhdx_describe(struct layer *l, json_t *object)
{
	struct vhdx *x = vhdx_of(l);

	json_object_set_new(object, "path", json_string(x->file->name)); /* nothing where it is not UTF-8 */
	json_object_set_new(object, "type",
			    json_string(x->meta.has_parent        ? "differencing"
					: x->meta.leave_allocated ? "fixed"
								  : "dynamic"));
	json_object_set_new(object, "payload_block_bytes", json_integer((json_int_t)x->meta.block_size));
	json_object_set_new(object, "file_bytes", json_integer((json_int_t)container_size(x->file)));
	json_object_set_new(object, "log_replayed", json_boolean(x->was_dirty));
}

/* ------------------------------------------------------------------ closing */

static int vhdx_close(struct layer *l, bool abandoned, struct error *err)
{
	struct vhdx *x = vhdx_of(l);
	int status = vhdx_writer_close(x, abandoned, err), now;

	now = container_close(x->file, abandoned, status ? NULL : err);
	vhdx_pages_free(x);
	vhdx_regions_free(&x->regions);
	free(x);
	return status ? status : now;
}

static const struct layer_ops vhdx_ops = {
	.read = vhdx_read,
	.map = vhdx_layer_map,
	.write = vhdx_write,
	.write_zeroes = vhdx_write_zeroes,
	.discard = vhdx_discard,
	.flush = vhdx_flush,
	.prefetch = vhdx_prefetch,
	.resize = vhdx_layer_resize,
	.size = vhdx_size,
	.describe = vhdx_describe,
	.close = vhdx_close,
};

/* ------------------------------------------------------------------ opening */

/* What the header says is in the log is brought into the file, or before it. */
static int replay(struct vhdx *x, struct error *err)
{
	struct vhdx_log log;
	int status = vhdx_log_load(x->file, &x->headers.current, &log, err);

	if (status)
		return status;
	status = x->read_only ? vhdx_log_overlay(&log, &x->file, err) : vhdx_log_replay(&log, &x->headers, err);
	x->has_overlay = x->read_only && !status;
	x->was_dirty = true;
	vhdx_log_free(&log);
	return status;
}

static int check_table(const struct vhdx *x, struct error *err)
{
	uint64_t needed = vhdx_bat_entries(&x->meta, x->meta.size), there = x->regions.bat.length / 8;

	if (needed <= there)
		return 0;
	return error_set(err, -EINVAL,
			 "block allocation table: %" PRIu64 " entries, of which a disk of %" PRIu64 " bytes in blocks of %" PRIu32
			 " needs %" PRIu64,
			 there, x->meta.size, x->meta.block_size, needed);
}

static int load(struct vhdx *x, struct error *err)
{
	int status = vhdx_headers_load(x->file, &x->headers, err);

	if (!status && !guid_is_null(&x->headers.current.log))
		status = replay(x, err);
	if (!status)
		status = vhdx_regions_load(x->file, &x->headers.current, &x->regions, err);
	if (!status)
		status = vhdx_metadata_load(x->file, &x->regions.metadata, &x->meta, err);
	return status ? status : check_table(x, err);
}

static void fill_in(struct vhdx *x)
{
	const struct vhdx_metadata *m = &x->meta;

	atomic_init(&x->size, m->size);
	atomic_init(&x->places, x->regions.all);
	atomic_init(&x->bat_offset, x->regions.bat.offset);
	x->log_offset = x->headers.current.log_offset;
	x->log_length = x->headers.current.log_length;
	vhdx_note_structures(x, x->regions.all);
	x->block_shift = (uint32_t)__builtin_ctz(m->block_size);
	x->ratio_shift = (uint32_t)__builtin_ctz(vhdx_chunk_ratio(m));
	x->sector_shift = (uint32_t)__builtin_ctz(m->logical_sector);
	x->layer.info = (struct disk_info){
		.block_size = m->logical_sector,
		.physical_block_size = m->physical_sector,
		.discard_granularity = m->has_parent ? m->block_size : 4096,
		.discard = DISK_DISCARD_ZEROES,
		.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE | DISK_HAS_ID | (x->read_only ? DISK_READ_ONLY : 0),
	};
	memcpy(x->layer.info.id, &m->id, sizeof(m->id));
}

/* Everything but the container, which stays the caller's. */
static void drop(struct vhdx *x)
{
	if (x->has_overlay)
		vhdx_overlay_undo(x->file);
	vhdx_writer_close(x, true, NULL);
	vhdx_pages_free(x);
	vhdx_regions_free(&x->regions);
	free(x);
}

int vhdx_layer_open_as(struct container *c, bool read_only, struct layer **out, struct error *err)
{
	struct vhdx *x = aligned_alloc(64, (sizeof(*x) + 63) & ~(size_t)63);
	int status;

	if (!x)
		return error_set(err, -ENOMEM, "no memory");
	memset(x, 0, sizeof(*x));
	x->layer.ops = &vhdx_ops;
	x->layer.kind = "vhdx";
	x->file = c;
	x->read_only = read_only;
	status = load(x, err);
	if (!status) {
		fill_in(x);
		if (vhdx_pages_init(x) || (!x->read_only && vhdx_writer_create(x)))
			status = error_set(err, -ENOMEM, "no memory");
	}
	if (status)
		drop(x);
	else
		*out = &x->layer;
	return status;
}

int vhdx_layer_open(struct container *c, struct layer **out, struct error *err)
{
	return vhdx_layer_open_as(c, c->read_only, out, err);
}

void vhdx_layer_release(struct layer *l)
{
	drop(vhdx_of(l));
}

bool vhdx_has_parent(const struct layer *l)
{
	return ((const struct vhdx *)(const void *)l)->meta.has_parent;
}

struct guid vhdx_data_write_guid(const struct layer *l)
{
	return ((const struct vhdx *)(const void *)l)->headers.current.data_write;
}

void vhdx_keep_data_id(struct layer *l)
{
	if (vhdx_of(l)->writer)
		vhdx_of(l)->writer->keeps_data = true;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* slice: a byte window of a disk, such as a partition. */
#include "kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/node.h"

struct slice {
	struct disk disk;
	uint64_t offset;
	uint64_t length; /* UINT64_MAX: to the end of the disk, wherever that is */
};

static uint64_t to_child(struct disk *d, uint64_t offset)
{
	return ((struct slice *)d)->offset + offset;
}

static int slice_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_read(d->children[0], v, to_child(d, offset), io);
}

static int slice_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_write(d->children[0], v, to_child(d, offset), io);
}

static int slice_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_discard(d->children[0], to_child(d, offset), length, io);
}

static int slice_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_write_zeroes(d->children[0], to_child(d, offset), length, io);
}

static int slice_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_prefetch(d->children[0], to_child(d, offset), length, io);
}

static int slice_extents(struct disk *d, struct extents *out, const struct io *io)
{
	CLEANUP_EXTENTS struct extents below = {0};
	int status;

	extents_init(&below, to_child(d, out->offset), out->end - out->offset, out->max);
	status = disk_extents(d->children[0], &below, io);
	for (size_t i = 0; i < below.count && !status; i++)
		extents_add(out, below.list[i].length, below.list[i].flags);
	return status;
}

/* The window's size is what it is: growing it into the rest of the disk is a matter for another spec. */
static int slice_resize(struct disk *d, uint64_t size, const struct io *io)
{
	(void)size;
	return io_fail(io, -EOPNOTSUPP, "%s: a window of a disk cannot be resized", d->kind);
}

/* The window is part of the name. A name that would not fit is none. */
static int slice_identity(struct disk *d, struct identity *out)
{
	const struct slice *s = (const struct slice *)d;
	int status = disk_identity(d->children[0], out);
	size_t used = strlen(out->name), room = sizeof(out->name) - used;

	if (status)
		return status;
	return (size_t)snprintf(out->name + used, room, "+%" PRIu64 ",%" PRIu64, s->offset, disk_size(d)) < room
		       ? 0
		       : -EOPNOTSUPP;
}

static uint64_t slice_size(struct disk *d)
{
	const struct slice *s = (const struct slice *)d;
	uint64_t size = disk_size(d->children[0]);
	uint64_t room = size > s->offset ? size - s->offset : 0;

	return room < s->length ? room : s->length;
}

static void slice_describe(struct disk *d, json_t *object)
{
	json_object_set_new(object, "offset", json_integer((json_int_t)((struct slice *)d)->offset));
}

static const struct disk_ops slice_ops = {
	.read = slice_read,
	.write = slice_write,
	.discard = slice_discard,
	.write_zeroes = slice_write_zeroes,
	.extents = slice_extents,
	.prefetch = slice_prefetch,
	.resize = slice_resize,
	.identity = slice_identity,
	.child_resized = slice_size,
	.describe = slice_describe,
};

static int check_window(const struct slice *s, struct disk *child, struct error *err)
{
	uint64_t size = disk_size(child);
	uint32_t block = disk_info(child)->block_size;

	if (s->offset % block)
		return error_set(err, -EINVAL,
				 "offset %" PRIu64 " is not a multiple of the block size, %" PRIu32 " bytes",
				 s->offset, block);
	if (s->offset >= size)
		return error_set(err, -ERANGE, "offset %" PRIu64 " is at or past the end of the disk of %" PRIu64 " bytes",
				 s->offset, size);
	if (s->length != UINT64_MAX && s->length > size - s->offset)
		return error_set(err, -ERANGE,
				 "%" PRIu64 " bytes at %" PRIu64 " go past the end of the disk of %" PRIu64
				 " bytes; at most %" PRIu64 " are there",
				 s->length, s->offset, size, size - s->offset);
	return 0;
}

/* Granules keep their places on the disk below. A window is not the disk, so it has not its id. */
static void adapt_info(struct slice *s)
{
	struct disk_info *info = &s->disk.info;
	uint64_t granularity = info->discard_granularity; /* 64 bits: sums of two may not fit in 32 */

	info->discard_alignment = (uint32_t)((info->discard_alignment + granularity -
					      s->offset % granularity) % granularity);
	info->flags &= ~(unsigned)(DISK_HAS_ID | DISK_RESIZABLE);
}

static int slice_open(const struct open_request *request, struct disk **out, struct error *err)
{
	const struct spec *spec = request->spec;
	struct slice *s = disk_new(sizeof(*s), "slice", &slice_ops, request->children, 1);
	int status;

	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	s->offset = spec_number(spec, "offset");
	s->length = spec_given(spec, "length") ? spec_number(spec, "length") : UINT64_MAX;
	disk_inherit(&s->disk);
	adapt_info(s);
	status = check_window(s, request->children[0], err);
	if (!status)
		status = disk_publish(&s->disk, slice_size(&s->disk), err);
	if (status)
		disk_drop_new(&s->disk);
	else
		*out = &s->disk;
	return status;
}

static const struct spec_field slice_fields[] = {
	{.name = "offset",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .required = true,
	 .unit = "bytes",
	 .max = DISK_MAX_END,
	 .help = "where the window begins, whole blocks"},
	{.name = "length",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .separator = ',',
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_END,
	 .help = "how long it is, whole blocks; empty: to the end of the disk"},
	{0},
};

const struct disk_kind slice_kind = {
	.name = "slice",
	.summary = "a byte window of a disk",
	.children = KIND_WRAPS,
	.fields = slice_fields,
	.open = slice_open,
};

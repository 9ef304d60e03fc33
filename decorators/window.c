/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A window either owns the disk below as its child, as all nodes do, or looks at one that has other users: then it is the root
 * of a tree of one node, holds a reference, and hands on by itself what a node without children would not.
 */
#include "decorators/window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct disk *below(struct disk *d)
{
	return ((struct window *)d)->below;
}

static uint64_t to_below(struct disk *d, uint64_t offset)
{
	return ((struct window *)d)->offset + offset;
}

static int window_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_read(below(d), v, to_below(d, offset), io);
}

static int window_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_write(below(d), v, to_below(d, offset), io);
}

static int window_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_discard(below(d), to_below(d, offset), length, io);
}

static int window_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_write_zeroes(below(d), to_below(d, offset), length, io);
}

static int window_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_prefetch(below(d), to_below(d, offset), length, io);
}

static void window_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	disk_warm(below(d), to_below(d, offset), length, what);
}

static int window_extents(struct disk *d, struct extents *out, const struct io *io)
{
	CLEANUP_EXTENTS struct extents found = {0};
	int status;

	extents_init(&found, to_below(d, out->offset), out->end - out->offset, out->max);
	status = disk_extents(below(d), &found, io);
	for (size_t i = 0; i < found.count && !status; i++)
		extents_add(out, found.list[i].length, found.list[i].flags);
	return status;
}

/* The window's size is what it is: growing it into the rest of the disk is a matter for another spec. */
static int window_resize(struct disk *d, uint64_t size, const struct io *io)
{
	(void)size;
	return io_fail(io, -EOPNOTSUPP, "%s: a window of a disk cannot be resized", d->kind);
}

/* The window is part of the name. A name that would not fit is none. */
static int window_identity(struct disk *d, struct identity *out)
{
	const struct window *w = (const struct window *)d;
	int status = disk_identity(below(d), out);
	size_t used = strlen(out->name), room = sizeof(out->name) - used;

	if (status)
		return status;
	return (size_t)snprintf(out->name + used, room, "+%" PRIu64 ",%" PRIu64, w->offset, disk_size(d)) < room
		       ? 0
		       : -EOPNOTSUPP;
}

static uint64_t window_size(struct disk *d)
{
	const struct window *w = (const struct window *)d;
	uint64_t size = disk_size(below(d));
	uint64_t room = size > w->offset ? size - w->offset : 0;

	return room < w->length ? room : w->length;
}

void window_describe(struct disk *d, json_t *object)
{
	json_object_set_new(object, "offset", json_integer((json_int_t)((struct window *)d)->offset));
	if (!d->nr_children)
		json_object_set_new(object, "children", json_pack("[o]", disk_describe(below(d))));
}

/* ------------------------------------------------------------------ what a child would get by itself */

static int window_flush(struct disk *d, const struct io *io)
{
	return disk_flush(below(d), io);
}

static int window_eject(struct disk *d, const struct io *io)
{
	return disk_eject(below(d), io);
}

static int window_reserve(struct disk *d, const struct reservation_request *request, const struct io *io)
{
	return disk_reserve(below(d), request, io);
}

static int window_report(struct disk *d, struct reservation_report *report, const struct io *io)
{
	return disk_report_reservations(below(d), report, io);
}

static int window_watch(struct disk *d, struct reservation_watch *w, bool on)
{
	return disk_watch_reservations(below(d), w, on);
}

static int window_close(struct disk *d, bool abandoned, struct error *err)
{
	(void)abandoned;
	return d->nr_children ? 0 : disk_close(below(d), err);
}

static const struct disk_ops window_ops = {
	.read = window_read,
	.write = window_write,
	.flush = window_flush,
	.discard = window_discard,
	.write_zeroes = window_write_zeroes,
	.extents = window_extents,
	.prefetch = window_prefetch,
	.warm = window_warm,
	.resize = window_resize,
	.eject = window_eject,
	.reserve = window_reserve,
	.report_reservations = window_report,
	.watch_reservations = window_watch,
	.identity = window_identity,
	.child_resized = window_size,
	.describe = window_describe,
	.close = window_close,
};

/* ------------------------------------------------------------------ making */

void *window_new(size_t state_size, const char *kind, struct disk *disk, bool shared,
		 void (*describe)(struct disk *d, json_t *object))
{
	struct disk_ops ops = window_ops;
	struct window *w;

	if (describe)
		ops.describe = describe;
	w = disk_new(state_size, kind, &ops, &disk, shared ? 0 : 1);
	if (!w)
		return NULL;
	w->below = disk;
	w->disk.info = *disk_info(disk);
	/* a window is not the disk, so it has not its id */
	w->disk.info.flags &= ~(unsigned)(DISK_HAS_ID | DISK_RESIZABLE);
	return w;
}

static int check_window(const struct window *w, struct error *err)
{
	uint64_t size = disk_size(w->below);
	uint32_t block = disk_info(w->below)->block_size;

	if (w->offset % block)
		return error_set(err, -EINVAL,
				 "offset %" PRIu64 " is not a multiple of the block size, %" PRIu32 " bytes",
				 w->offset, block);
	if (w->offset >= size)
		return error_set(err, -ERANGE, "offset %" PRIu64 " is at or past the end of the disk of %" PRIu64 " bytes",
				 w->offset, size);
	if (w->length != UINT64_MAX && w->length > size - w->offset)
		return error_set(err, -ERANGE,
				 "%" PRIu64 " bytes at %" PRIu64 " go past the end of the disk of %" PRIu64
				 " bytes; at most %" PRIu64 " are there",
				 w->length, w->offset, size, size - w->offset);
	return 0;
}

/* Granules keep their places on the disk below. */
static void align_granules(struct window *w)
{
	struct disk_info *info = &w->disk.info;
	uint64_t granularity = info->discard_granularity; /* 64 bits: sums of two may not fit in 32 */

	info->discard_alignment = (uint32_t)((info->discard_alignment + granularity -
					      w->offset % granularity) % granularity);
}

int window_publish(struct window *w, uint64_t offset, uint64_t length, struct disk **out, struct error *err)
{
	int status;

	w->offset = offset;
	w->length = length;
	align_granules(w);
	status = check_window(w, err);
	if (!status)
		status = disk_publish(&w->disk, window_size(&w->disk), err);
	if (status) {
		disk_drop_new(&w->disk);
		return status;
	}
	if (!w->disk.nr_children)
		disk_ref(w->below);
	*out = &w->disk;
	return 0;
}

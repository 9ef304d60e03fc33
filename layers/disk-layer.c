/* SPDX-License-Identifier: BSD-3-Clause */
/* A whole disk as a layer: every block is present. Usually the bottom of a stack. */
#include "layers/layer.h"

#include <stdlib.h>

struct disk_layer {
	struct layer layer;
	struct disk *disk;
};

static struct disk *disk_of(struct layer *l)
{
	return ((struct disk_layer *)l)->disk;
}

static int disk_layer_read(struct layer *l, const struct vec *v, uint64_t offset,
			   struct layer_run *run, const struct io *io)
{
	*run = (struct layer_run){.presence = LAYER_DATA, .length = v->size};
	return disk_read(disk_of(l), v, offset, io);
}

static int disk_layer_map(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *run,
			  const struct io *io)
{
	CLEANUP_EXTENTS struct extents one = {0};
	int status;

	extents_init(&one, offset, length, 1);
	status = disk_extents(disk_of(l), &one, io);
	if (!status)
		*run = (struct layer_run){.presence = LAYER_DATA,
					  .length = one.list[0].length,
					  .extent_flags = one.list[0].flags};
	return status;
}

static int disk_layer_write(struct layer *l, const struct vec *v, uint64_t offset,
			    const struct io *io)
{
	return disk_write(disk_of(l), v, offset, io);
}

static int disk_layer_write_zeroes(struct layer *l, uint64_t offset, uint64_t length,
				   bool below_zero, const struct io *io)
{
	(void)below_zero;
	return disk_write_zeroes(disk_of(l), offset, length, io);
}

static int disk_layer_discard(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
			      const struct io *io)
{
	(void)below_zero;
	return disk_discard(disk_of(l), offset, length, io);
}

static int disk_layer_flush(struct layer *l, const struct io *io)
{
	return disk_flush(disk_of(l), io);
}

static int disk_layer_prefetch(struct layer *l, uint64_t offset, uint64_t length,
			       const struct io *io)
{
	return disk_prefetch(disk_of(l), offset, length, io);
}

static int disk_layer_resize(struct layer *l, uint64_t size, const struct io *io)
{
	return disk_resize(disk_of(l), size, io);
}

static uint64_t disk_layer_size(struct layer *l)
{
	return disk_size(disk_of(l));
}

static int disk_layer_close(struct layer *l, bool abandoned, struct error *err)
{
	(void)abandoned;
	(void)err;
	free(l);
	return 0;
}

static const struct layer_ops disk_layer_ops = {
	.read = disk_layer_read,
	.map = disk_layer_map,
	.write = disk_layer_write,
	.write_zeroes = disk_layer_write_zeroes,
	.discard = disk_layer_discard,
	.flush = disk_layer_flush,
	.prefetch = disk_layer_prefetch,
	.resize = disk_layer_resize,
	.size = disk_layer_size,
	.close = disk_layer_close,
};

struct layer *disk_layer_create(struct disk *disk)
{
	struct disk_layer *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->layer = (struct layer){
		.ops = &disk_layer_ops, .kind = "disk", .info = *disk_info(disk)};
	l->disk = disk;
	return &l->layer;
}

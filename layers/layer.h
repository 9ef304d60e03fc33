/* SPDX-License-Identifier: BSD-3-Clause */
/* A layer: a store that knows which blocks it holds. And the disk that is made of a stack of them. */
#ifndef PLATTER_LAYERS_LAYER_H
#define PLATTER_LAYERS_LAYER_H

#include "core/disk.h"
#include "core/watch.h"

/* What a layer knows of a block. */
enum presence {
	LAYER_ABSENT, /* nothing: ask below */
	LAYER_ZERO,   /* it is zero, whatever lies below */
	LAYER_DATA,   /* it is here */
};

/* A run of blocks of one presence. */
struct layer_run {
	enum presence presence;
	uint64_t length;       /* bytes, > 0, at most what was asked for */
	unsigned extent_flags; /* map only, for LAYER_DATA: what core/extents.h says of it */
};

struct layer;

/*
 * Every call may come from any thread or fiber at any time, many at once. Ranges are whole blocks inside the layer's size
 * (a layer that can shrink checks again: -ERANGE) and not empty. Each call is atomic against the others for one
 * block.
 *
 *   read          reads the first run at `offset` (up to all of v): LAYER_DATA has put run->length bytes at the
 *                 beginning of `v`, the others have touched nothing
 *   map           as read, without the bytes
 *   write         the blocks are here from now on; may note zeroes as LAYER_ZERO, or as LAYER_ABSENT in the
 *                 bottom layer
 *   fill          as write, but only for the blocks that are absent: a read cache is filled with it. NULL: the layer
 *                 cannot be a read cache
 *   write_zeroes  the blocks read as zero from now on. `below_zero`: so they do below, it is enough to forget them
 *   discard       as write_zeroes, or (when info.discard says so) anything else that shows no older data
 *   flush         makes everything answered durable
 *   prefetch      hint; NULL: nothing
 *   warm          as disk_warm(), of what is held here. NULL: nothing
 *   resize        changes the layer's size; what is cut off is forgotten. NULL: cannot
 *   describe      adds what the layer knows of itself to the object. NULL: nothing
 *   close         makes durable unless abandoned, and frees the layer
 */
struct layer_ops {
	int (*read)(struct layer *l, const struct vec *v, uint64_t offset, struct layer_run *run,
		    const struct io *io);
	int (*map)(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *run,
		   const struct io *io);
	int (*write)(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io);
	int (*fill)(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io);
	int (*write_zeroes)(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
			    const struct io *io);
	int (*discard)(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
		       const struct io *io);
	int (*flush)(struct layer *l, const struct io *io);
	int (*prefetch)(struct layer *l, uint64_t offset, uint64_t length, const struct io *io);
	void (*warm)(struct layer *l, uint64_t offset, uint64_t length, enum warm what);
	int (*resize)(struct layer *l, uint64_t size, const struct io *io);
	uint64_t (*size)(struct layer *l);
	void (*describe)(struct layer *l, json_t *object);
	int (*close)(struct layer *l, bool abandoned, struct error *err);
};

struct layer {
	const struct layer_ops *ops;
	const char *kind;      /* "ram", "disk" */
	struct disk_info info; /* frozen; flags as for a disk */
	bool grows_at_once;    /* `resize` to a larger size does not wait: it may follow what lies below */
	bool bottom;           /* set by the layered disk before the first request: absent means zero */
};

/* A layer and its place in a stack. */
struct layer_place {
	struct layer *layer;
	bool read_cache;    /* filled with what was read below it */
	bool write_through; /* writes go on to the next layer */
};

/*
 * The disk made of `count` layers, top first, over `children` (the disks that some of the layers stand on). The layers
 * belong to it with success; with failure they stay the caller's. `kind` names it. A writable disk needs writable
 * layers on its write path.
 */
int layered_create(const char *kind, const struct layer_place *places, unsigned count,
		   struct disk *const *children, unsigned nr_children, unsigned open_flags,
		   struct disk **out, struct error *err);

/*
 * As layered_create for one layer over a whole disk. If that is a layered disk itself the stacks are joined into one.
 */
int layered_create_over(const char *kind, const struct layer_place *top, struct disk *below,
			unsigned open_flags, struct disk **out, struct error *err);

/* A layer that holds nothing yet in memory; see ram.c. NULL when memory ran out. `physical` may be 0: the block size. */
struct layer *ram_layer_create(uint64_t size, uint32_t block_size, uint32_t physical_block_size);

/* What a RAM layer takes, in bytes: all of it, and the part that is stored blocks. */
struct ram_usage {
	uint64_t stored;
	uint64_t total;
};
void ram_layer_usage(struct layer *l, struct ram_usage *usage);

/* A disk as a layer that holds every block. The disk stays the caller's. NULL when memory ran out. */
struct layer *disk_layer_create(struct disk *disk);

/*
 * Brings all that the layer holds into the one below it, which grows where it is shorter, and flushes that. What a stack of the two shows
 * does not change at any point, so it can be interrupted and done again. -EINTR when the watch, which may be NULL, wants it to stop.
 */
int layer_merge_down(struct layer *above, struct layer *below, struct watch *watch, const struct io *io);

#endif

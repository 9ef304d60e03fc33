/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A VHD as a layer
 *
 * Reads and overwrites of blocks that are there find their place by two atomic loads (formats/vhd-blocks.c) and go to the container with the
 * caller's vector as it is. Writers pass a gate, which a resize closes.
 *
 * What is zero: nothing is written for zeroes where a dynamic disk has no block. A differencing disk has no way to say "zero" but a block
 * with its bits set, whose data is a hole of the file. A discard gives space back to the file system and leaves blocks where they
 * are; what a differencing disk does not hold it leaves alone, so there discarded content is unspecified. So zeroing is fast wherever
 * the file system can punch holes or knows of zeroed ranges; where it cannot, IO_FAST_ONLY is refused by the container.
 */
#include "formats/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/node.h"
#include "formats/vhd-image.h"

struct vhd_layer {
	struct layer layer;
	struct vhd *v;
};

static struct vhd *image_of(struct layer *l)
{
	return ((struct vhd_layer *)l)->v;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int check_range(struct vhd *v, uint64_t offset, uint64_t length, const struct io *io)
{
	if (__builtin_expect(offset + length <= atomic_load_explicit(&v->size, memory_order_acquire), 1))
		return 0;
	return io_fail(io, -ERANGE, "'%s': past the end, %" PRIu64 " bytes", v->c->name, atomic_load(&v->size));
}

/* ------------------------------------------------------------------ reading */

/* A shrink meanwhile may have cut the file. */
static int read_data(struct vhd *v, const struct vec *part, uint64_t offset, uint64_t at, const struct io *io)
{
	struct failure why; /* large, and seldom looked at: only what has to be is set */
	const struct io quiet = {.flags = io->flags, .who = io->who, .failure = &why};
	int status;

	atomic_init(&why.claimed, 0);
	why.text[0] = 0;
	status = v->c->ops->read(v->c, part, at, &quiet);
	if (__builtin_expect(!status, 1))
		return 0;
	if (check_range(v, offset, part->size, io))
		return -ERANGE;
	return io_fail(io, status, "%s", why.text);
}

/* The rest of a read that began with data: on as long as there is data. */
static int read_on(struct vhd *v, const struct vec *vec, uint64_t offset, uint64_t *done, const struct io *io)
{
	struct vhd_run r;
	int status = 0;

	while (*done < vec->size) {
		struct vec part;
		status = vhd_find(v, offset + *done, vec->size - *done, &r, io);
		if (status || r.presence != LAYER_DATA)
			break;
		part = vec_slice(vec, *done, r.length);
		status = read_data(v, &part, offset + *done, r.at, io);
		if (status)
			break;
		*done += r.length;
	}
	return status;
}

static int vhd_layer_read(struct layer *l, const struct vec *vec, uint64_t offset, struct layer_run *run, const struct io *io)
{
	struct vhd *v = image_of(l);
	struct vhd_run r;
	struct vec part;
	int status = check_range(v, offset, vec->size, io);

	if (!status && v->type == VHD_FIXED) {
		*run = (struct layer_run){.presence = LAYER_DATA, .length = vec->size};
		return read_data(v, vec, offset, offset, io);
	}
	if (!status)
		status = vhd_find(v, offset, vec->size, &r, io);
	if (status)
		return status;
	run->presence = r.presence;
	run->length = r.length;
	if (r.presence != LAYER_DATA)
		return 0;
	if (r.length == vec->size)
		return read_data(v, vec, offset, r.at, io);
	part = vec_slice(vec, 0, r.length);
	status = read_data(v, &part, offset, r.at, io);
	return status ? status : read_on(v, vec, offset, &run->length, io);
}

static int vhd_layer_map(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *run, const struct io *io)
{
	CLEANUP_EXTENTS struct extents one = {0};
	struct vhd *v = image_of(l);
	struct vhd_run r;
	int status = check_range(v, offset, length, io);

	if (!status)
		status = vhd_find(v, offset, length, &r, io);
	if (status)
		return status;
	*run = (struct layer_run){.presence = r.presence, .length = r.length};
	if (r.presence != LAYER_DATA)
		return 0;
	extents_init(&one, r.at, r.length, 1);
	status = v->c->ops->extents(v->c, &one, VHD_SECTOR, io);
	if (status || !one.count)
		return status ? status : io_fail(io, -EIO, "'%s': no extent at %" PRIu64, v->c->name, r.at);
	run->length = one.list[0].length;
	run->extent_flags = one.list[0].flags;
	return 0;
}

static int vhd_layer_prefetch(struct layer *l, uint64_t offset, uint64_t length, const struct io *io)
{
	struct vhd *v = image_of(l);
	struct vhd_run r = {.length = length};
	int status = check_range(v, offset, length, io);

	for (uint64_t done = 0; done < length && !status; done += r.length) {
		status = vhd_find(v, offset + done, length - done, &r, io);
		if (!status && r.presence == LAYER_DATA)
			v->c->ops->prefetch(v->c, r.at, r.length);
	}
	return status;
}

/* ------------------------------------------------------------------ writing */

/* The part of a request that lies in one block. */
struct piece {
	struct vhd_page *page;
	uint32_t block, at;
	uint64_t from, length; /* in the block */
};

static int find_piece(struct vhd *v, uint64_t offset, uint64_t length, struct piece *p, const struct io *io)
{
	p->block = (uint32_t)(offset >> v->block_shift);
	p->from = offset & (vhd_block_bytes(v) - 1);
	p->length = min64(length, vhd_block_bytes(v) - p->from);
	int status = vhd_page_get(v, p->block, &p->page, io);
	if (!status)
		p->at = atomic_load_explicit(&p->page->at[p->block & (VHD_PAGE_ENTRIES - 1)], memory_order_acquire);
	return status;
}

/* *commits: what is durable must be found by a commit. */
static int write_piece(struct vhd *v, const struct vec *part, struct piece *p, bool durable, bool *commits, const struct io *io)
{
	bool fresh;
	int status = 0;

	if (p->at == VHD_ABSENT) {
		if (v->type == VHD_DYNAMIC && vec_is_zero(part, 0, part->size))
			return 0;
		status = vhd_allocate(v, p->page, p->block, &p->at, &fresh, io);
	}
	if (!status)
		status = v->c->ops->write(v->c, part, vhd_data_of(v, p->at) + p->from, durable, io);
	if (!status)
		status = vhd_mark_present(v, p->page, p->block, p->at, p->from, p->length, io);
	if (!status && durable)
		*commits = *commits || vhd_needs_commit(v, p->page, p->block);
	return status;
}

static int write_blocks(struct vhd *v, const struct vec *vec, uint64_t offset, const struct io *io)
{
	bool commits = false, durable = io->flags & IO_FUA;
	struct piece p;
	int status = 0;

	for (uint64_t done = 0; done < vec->size && !status; done += p.length) {
		status = find_piece(v, offset + done, vec->size - done, &p, io);
		if (!status && p.length == vec->size) {
			status = write_piece(v, vec, &p, durable, &commits, io);
		} else if (!status) {
			struct vec part = vec_slice(vec, done, p.length);
			status = write_piece(v, &part, &p, durable, &commits, io);
		}
	}
	return status || !commits ? status : vhd_flush(v, io);
}

/* Data that lies in one block, which is there, with nothing to be noted of it: where in the file. */
static bool find_overwrite(struct vhd *v, uint64_t offset, uint64_t length, uint64_t *at)
{
	uint32_t block = (uint32_t)(offset >> v->block_shift), i = block & (VHD_PAGE_ENTRIES - 1), place;
	uint64_t from = offset & (vhd_block_bytes(v) - 1);
	struct vhd_page *p = atomic_load_explicit(&v->pages[block >> VHD_PAGE_SHIFT], memory_order_acquire);
	struct vhd_bitmap *b;

	if (!p || from + length > vhd_block_bytes(v))
		return false;
	place = atomic_load_explicit(&p->at[i], memory_order_acquire);
	b = atomic_load_explicit(&p->bitmaps[i], memory_order_acquire);
	*at = vhd_data_of(v, place) + from;
	return place != VHD_ABSENT && b && (b == VHD_BITMAP_FULL || atomic_load_explicit(&b->full, memory_order_acquire));
}

static int write_range(struct vhd *v, const struct vec *vec, uint64_t offset, const struct io *io)
{
	uint64_t at;

	if (v->type == VHD_FIXED)
		return v->c->ops->write(v->c, vec, offset, io->flags & IO_FUA, io);
	if (!(io->flags & IO_FUA) && find_overwrite(v, offset, vec->size, &at))
		return v->c->ops->write(v->c, vec, at, false, io);
	return write_blocks(v, vec, offset, io);
}

static int vhd_layer_write(struct layer *l, const struct vec *vec, uint64_t offset, const struct io *io)
{
	struct vhd *v = image_of(l);
	int status;

	gate_enter(&v->gate);
	status = check_range(v, offset, vec->size, io);
	if (!status)
		status = write_range(v, vec, offset, io);
	gate_leave(&v->gate);
	return status;
}

/* ------------------------------------------------------------------ zeroing */

/* How a range is cleared. */
struct clearing {
	bool unmap;      /* space may be given back */
	bool below_zero; /* what lies below is zero, too */
	bool hint;       /* a discard: what is not here may stay so */
};

/* Of data that is in the file. */
static int clear_data(struct vhd *v, uint64_t at, uint64_t length, const struct clearing *c, const struct io *io)
{
	uint64_t end = container_size(v->c);

	if (at >= end)
		return 0;
	return v->c->ops->zero(v->c, at, min64(length, end - at), c->unmap, io);
}

/* An absent block of a differencing disk: zero is a block with bits and no data. */
static int zero_absent(struct vhd *v, struct piece *p, const struct clearing *c, const struct io *io)
{
	bool fresh;
	int status;

	if (v->type == VHD_DYNAMIC || c->below_zero || c->hint)
		return 0;
	status = vhd_allocate(v, p->page, p->block, &p->at, &fresh, io);
	if (!status && !fresh)
		status = clear_data(v, vhd_data_of(v, p->at) + p->from, p->length, c, io);
	return status ? status : vhd_mark_present(v, p->page, p->block, p->at, p->from, p->length, io);
}

/* A discard of a block that is here in part clears what is here, and the rest is asked of the parent still. */
static int clear_piece(struct vhd *v, struct piece *p, const struct clearing *c, const struct io *io)
{
	int status;

	if (p->at == VHD_ABSENT)
		return zero_absent(v, p, c, io);
	status = clear_data(v, vhd_data_of(v, p->at) + p->from, p->length, c, io);
	if (status || (v->type == VHD_DIFFERENCING && c->hint))
		return status;
	return vhd_mark_present(v, p->page, p->block, p->at, p->from, p->length, io);
}

static int clear_blocks(struct vhd *v, uint64_t offset, uint64_t length, const struct clearing *c, const struct io *io)
{
	struct piece p;
	int status = 0;

	for (uint64_t done = 0; done < length && !status; done += p.length) {
		status = find_piece(v, offset + done, length - done, &p, io);
		if (!status)
			status = clear_piece(v, &p, c, io);
	}
	return status;
}

static int clear(struct vhd *v, uint64_t offset, uint64_t length, const struct clearing *c, const struct io *io)
{
	int status;

	gate_enter(&v->gate);
	status = check_range(v, offset, length, io);
	if (!status)
		status = v->type == VHD_FIXED ? clear_data(v, offset, length, c, io) : clear_blocks(v, offset, length, c, io);
	if (!status && io->flags & IO_FUA)
		status = vhd_flush(v, io);
	gate_leave(&v->gate);
	return status;
}

static int vhd_layer_write_zeroes(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io)
{
	const struct clearing c = {.unmap = io->flags & IO_MAY_UNMAP, .below_zero = below_zero};

	return clear(image_of(l), offset, length, &c, io);
}

static int vhd_layer_discard(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io)
{
	const struct clearing c = {.unmap = true, .below_zero = below_zero, .hint = true};

	return clear(image_of(l), offset, length, &c, io);
}

/* ------------------------------------------------------------------ the rest */

static int vhd_layer_flush(struct layer *l, const struct io *io)
{
	struct vhd *v = image_of(l);

	return v->c->read_only ? 0 : vhd_flush(v, io);
}

static int vhd_layer_resize(struct layer *l, uint64_t size, const struct io *io)
{
	return vhd_image_resize(image_of(l), size, io);
}

static uint64_t vhd_layer_size(struct layer *l)
{
	return atomic_load_explicit(&image_of(l)->size, memory_order_acquire);
}

static const char *type_name(enum vhd_type type)
{
	return type == VHD_FIXED ? "fixed" : type == VHD_DYNAMIC ? "dynamic" : "differencing";
}

static void vhd_layer_describe(struct layer *l, json_t *object)
{
	struct vhd *v = image_of(l);

	json_object_set_new(object, "path", json_string(v->c->name)); /* nothing where it is not UTF-8 */
	json_object_set_new(object, "type", json_string(type_name(v->type)));
	json_object_set_new(object, "file_bytes", json_integer((json_int_t)container_size(v->c)));
	if (v->type != VHD_FIXED)
		json_object_set_new(object, "block_bytes", json_integer((json_int_t)vhd_block_bytes(v)));
}

static int vhd_layer_close(struct layer *l, bool abandoned, struct error *err)
{
	struct vhd_layer *vl = (struct vhd_layer *)l;
	struct container *c = vl->v->c;
	int status = vhd_image_close(vl->v, abandoned, err);
	int now = container_close(c, abandoned, status ? NULL : err);

	free(vl);
	return status ? status : now;
}

static const struct layer_ops vhd_layer_ops = {
	.read = vhd_layer_read,
	.map = vhd_layer_map,
	.write = vhd_layer_write,
	.write_zeroes = vhd_layer_write_zeroes,
	.discard = vhd_layer_discard,
	.flush = vhd_layer_flush,
	.prefetch = vhd_layer_prefetch,
	.resize = vhd_layer_resize,
	.size = vhd_layer_size,
	.describe = vhd_layer_describe,
	.close = vhd_layer_close,
};

static void fill_in_info(struct layer *l, const struct vhd *v)
{
	bool has_id = v->type != VHD_DIFFERENCING && !v->is_raw; /* over others: the id of the one below is to be seen */

	l->info = (struct disk_info){
		.block_size = VHD_SECTOR,
		.physical_block_size = 4096,
		.discard_granularity = 4096,
		.discard = v->type == VHD_DIFFERENCING ? DISK_DISCARD_UNSPECIFIED : DISK_DISCARD_ZEROES,
		.flags = DISK_FUA | DISK_FAST_ZERO | (v->c->read_only ? DISK_READ_ONLY : 0) | (v->is_raw ? 0 : DISK_RESIZABLE) | (has_id ? DISK_HAS_ID : 0),
	};
	if (has_id)
		memcpy(l->info.id, v->footer.id, sizeof(l->info.id));
}

struct layer *vhd_layer_of(struct vhd *v)
{
	struct vhd_layer *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->v = v;
	l->layer.ops = &vhd_layer_ops;
	l->layer.kind = "vhd";
	fill_in_info(&l->layer, v);
	return &l->layer;
}

int vhd_layer_open(struct container *c, const struct vhd_options *o, struct layer **out, struct error *err)
{
	const struct vhd_open_options how = {.lax = o->lax, .size_rule = o->size_rule};
	struct vhd *v;
	int status = vhd_image_open(c, &how, &v, err);

	if (status)
		return status;
	*out = vhd_layer_of(v);
	if (*out)
		return 0;
	vhd_image_close(v, true, NULL);
	return error_set(err, -ENOMEM, "no memory");
}

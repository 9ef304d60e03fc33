/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A log replayed in memory: a container that shows another one with the log's pages in place of its own
 *
 * Of the changes, which come in order and may cover each other, it keeps pieces that do not, sorted: each range between two
 * neighbouring ends belongs to the last change that covers it. They are painted from the last change to the first, and a
 * range that is painted is jumped over from then on, so that however a log was made it takes no more than sorting.
 */
#include "formats/vhdx-log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A change, then a piece of one. */
struct piece {
	uint64_t begin, end; /* in the file, bytes */
	uint8_t *data;       /* of the byte at `begin`; NULL: zeroes */
};

struct overlay {
	struct container container;
	struct container *below; /* owned */
	uint8_t **pages;         /* owned, each */
	size_t nr_pages;
	struct piece *pieces;    /* owned; sorted */
	size_t count;
};

static struct overlay *overlay_of(struct container *c)
{
	return (struct overlay *)c;
}

/* ------------------------------------------------------------------ collecting and painting */

struct collection {
	struct overlay *o;
	struct piece *changes;
	size_t count, room, pages_room;
};

static int grow(void **list, size_t count, size_t *room, size_t size, struct error *err)
{
	void *grown;

	if (count < *room)
		return 0;
	grown = reallocarray(*list, *room ? 2 * *room : 64, size);
	if (!grown)
		return error_set(err, -ENOMEM, "no memory");
	*room = *room ? 2 * *room : 64;
	*list = grown;
	return 0;
}

static int keep_page(struct collection *k, const uint8_t *data, uint8_t **out, struct error *err)
{
	struct overlay *o = k->o;
	int status = grow((void **)&o->pages, o->nr_pages, &k->pages_room, sizeof(*o->pages), err);

	if (status)
		return status;
	*out = malloc(VHDX_PAGE);
	if (!*out)
		return error_set(err, -ENOMEM, "no memory");
	memcpy(*out, data, VHDX_PAGE);
	o->pages[o->nr_pages++] = *out;
	return 0;
}

static int collect(void *argument, uint64_t target, uint64_t length, const uint8_t *data, struct error *err)
{
	struct collection *k = argument;
	struct piece p = {.begin = target, .end = target + length};
	int status;

	if (!length)
		return 0;
	if (k->count * (uint64_t)VHDX_PAGE >= VHDX_OVERLAY_MAX)
		return error_set(err, -EFBIG, "log: more than %u MiB to be replayed do not go into memory; open it once for writing",
				 VHDX_OVERLAY_MAX >> 20);
	status = grow((void **)&k->changes, k->count, &k->room, sizeof(p), err);
	if (!status && data)
		status = keep_page(k, data, &p.data, err);
	if (!status)
		k->changes[k->count++] = p;
	return status;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The first of the ranges from `i` on that is not painted yet. */
static size_t unpainted(size_t *next, size_t i)
{
	while (next[i] != i)
		i = next[i] = next[next[i]];
	return i;
}

/* Ranges lie between `ends`, of which there are `n`; ranges[i] becomes the piece that begins at ends[i]. */
static void paint(const struct collection *k, const uint64_t *ends, size_t n, size_t *next, struct piece *ranges)
{
	for (size_t c = k->count; c--;) {
		const struct piece *p = &k->changes[c];
		const uint64_t *first = bsearch(&p->begin, ends, n, sizeof(*ends), by_number);
		size_t i = unpainted(next, (size_t)(first - ends));
		for (; i + 1 < n && ends[i] < p->end; i = unpainted(next, i + 1)) {
			ranges[i] = (struct piece){ends[i], ends[i + 1], p->data ? p->data + (ends[i] - p->begin) : NULL};
			next[i] = i + 1;
		}
	}
}

static size_t sort_ends(const struct collection *k, uint64_t *ends)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < k->count; i++) {
		ends[n++] = k->changes[i].begin;
		ends[n++] = k->changes[i].end;
	}
	qsort(ends, n, sizeof(*ends), by_number);
	for (size_t i = 0; i < n; i++)
		if (!i || ends[i] != ends[i - 1])
			ends[kept++] = ends[i];
	return kept;
}

static int make_pieces(struct collection *k, struct error *err)
{
	struct overlay *o = k->o;
	uint64_t *ends = calloc(2 * k->count + 1, sizeof(*ends));
	size_t *next = calloc(2 * k->count + 1, sizeof(*next)), n;

	o->pieces = calloc(2 * k->count + 1, sizeof(*o->pieces));
	if (!ends || !next || !o->pieces) {
		free(ends);
		free(next);
		return error_set(err, -ENOMEM, "no memory");
	}
	n = sort_ends(k, ends);
	for (size_t i = 0; i <= n; i++)
		next[i] = i;
	if (n)
		paint(k, ends, n, next, o->pieces);
	for (size_t i = 0; i < n; i++)
		if (o->pieces[i].end)
			o->pieces[o->count++] = o->pieces[i];
	free(ends);
	free(next);
	return 0;
}

/* ------------------------------------------------------------------ the container */

/* The first piece that ends behind `offset`, or the end of the list. */
static size_t find_piece(const struct overlay *o, uint64_t offset)
{
	size_t low = 0, high = o->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (o->pieces[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What lies behind the end of the file below reads as zero: the log made it longer. */
static int read_below(struct overlay *o, const struct vec *v, uint64_t offset, const struct io *io)
{
	uint64_t size = container_size(o->below);
	uint64_t n = offset >= size ? 0 : size - offset < v->size ? size - offset : v->size;
	struct vec part = vec_slice(v, 0, n);

	vec_zero(v, n, v->size - n);
	return n ? o->below->ops->read(o->below, &part, offset, io) : 0;
}

static int overlay_read(struct container *c, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct overlay *o = overlay_of(c);
	size_t i = find_piece(o, offset);
	int status = 0;

	if (offset > container_size(c) || v->size > container_size(c) - offset)
		return io_fail(io, -EIO, "'%s': %zu bytes at %" PRIu64 " lie behind its end at %" PRIu64, c->name, v->size, offset,
			       container_size(c));
	for (uint64_t done = 0, n; done < v->size && !status; done += n) {
		uint64_t at = offset + done, most = v->size - done;
		const struct piece *p = i < o->count ? &o->pieces[i] : NULL;
		struct vec part;
		if (!p || p->begin > at) {
			n = p && p->begin - at < most ? p->begin - at : most;
			part = vec_slice(v, done, n);
			status = read_below(o, &part, at, io);
			continue;
		}
		n = p->end - at < most ? p->end - at : most;
		if (p->data)
			vec_scatter(v, done, p->data + (at - p->begin), n);
		else
			vec_zero(v, done, n);
		i++;
	}
	return status;
}

static int refuse(struct container *c, const struct io *io)
{
	return io_fail(io, -EROFS, "'%s' is open for reading only", c->name);
}

static int overlay_write(struct container *c, const struct vec *v, uint64_t offset, bool durable, const struct io *io)
{
	(void)v, (void)offset, (void)durable;
	return refuse(c, io);
}

static int overlay_flush(struct container *c, const struct io *io)
{
	(void)c, (void)io;
	return 0;
}

static int overlay_resize(struct container *c, uint64_t size, const struct io *io)
{
	(void)size;
	return refuse(c, io);
}

static int overlay_zero(struct container *c, uint64_t offset, uint64_t length, bool unmap, const struct io *io)
{
	(void)offset, (void)length, (void)unmap;
	return refuse(c, io);
}

/* Pieces count as data, whatever they are. */
static int overlay_extents(struct container *c, struct extents *out, uint32_t block, const struct io *io)
{
	struct overlay *o = overlay_of(c);
	size_t i = find_piece(o, out->offset);

	if (i < o->count && o->pieces[i].begin < out->end) {
		extents_add(out, out->end - out->offset, EXTENT_DATA);
		return 0;
	}
	return o->below->ops->extents(o->below, out, block, io);
}

static void overlay_prefetch(struct container *c, uint64_t offset, uint64_t length)
{
	struct container *below = overlay_of(c)->below;

	below->ops->prefetch(below, offset, length);
}

static int overlay_identity(struct container *c, struct identity *out)
{
	struct container *below = overlay_of(c)->below;

	return below->ops->identity ? below->ops->identity(below, out) : -EOPNOTSUPP;
}

static void overlay_free(struct overlay *o)
{
	for (size_t i = 0; i < o->nr_pages; i++)
		free(o->pages[i]);
	free(o->pages);
	free(o->pieces);
	free(o->container.name);
	free(o);
}

static int overlay_close(struct container *c, bool remove, struct error *err)
{
	struct container *below = overlay_of(c)->below;

	overlay_free(overlay_of(c));
	return container_close(below, remove, err);
}

static const struct container_ops overlay_ops = {
	.read = overlay_read,
	.write = overlay_write,
	.flush = overlay_flush,
	.resize = overlay_resize,
	.zero = overlay_zero,
	.extents = overlay_extents,
	.prefetch = overlay_prefetch,
	.identity = overlay_identity,
	.close = overlay_close,
};

static struct overlay *overlay_new(const struct vhdx_log *l)
{
	struct overlay *o = calloc(1, sizeof(*o));
	uint64_t size = container_size(l->c);

	if (!o)
		return NULL;
	o->container = (struct container){
		.ops = &overlay_ops,
		.name = strdup(l->c->name),
		.read_only = true,
		.is_file = l->c->is_file,
		.device = l->c->device,
		.inode = l->c->inode,
	};
	atomic_init(&o->container.size, l->last_size > size ? l->last_size : size);
	if (o->container.name)
		return o;
	free(o);
	return NULL;
}

void vhdx_overlay_undo(struct container *overlay)
{
	overlay_free(overlay_of(overlay));
}

int vhdx_log_overlay(struct vhdx_log *l, struct container **out, struct error *err)
{
	struct collection k = {.o = overlay_new(l)};
	int status;

	if (!k.o)
		return error_set(err, -ENOMEM, "no memory");
	status = vhdx_log_each(l, collect, &k, err);
	if (!status)
		status = make_pieces(&k, err);
	free(k.changes);
	if (status) {
		overlay_free(k.o);
		return status;
	}
	k.o->below = l->c;
	*out = &k.o->container;
	return 0;
}

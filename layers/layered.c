/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk made of layers
 *
 * Layers are numbered from the top, 0, down. A block is given by the first layer from the top that holds it; what none
 * holds is zero.
 *
 *   reading    walks down run by run: a layer says "the next n bytes are data / zero / absent", and only what is absent goes
 *              to the next layer. `descent` remembers for each layer above how far it is known to be absent, so a layer is
 *              asked once for each of its runs, however many runs the layers below have.
 *   read cache what it lacks is read from below into private memory (the caller's may be changed by a guest meanwhile),
 *              put into the cache where it is still absent, and copied to the caller. A fill that fails is no error.
 *   writing    layer 0, and on while a layer is marked write-through. The first failure ends it.
 *   sizes      the disk is as large as layer 0. Of layer i one sees what lies below the ends of all layers from 1 to i, and
 *              below their `caps`: what could be seen when the disk was resized itself, or less. So a child may be larger
 *              than its parent, and what was cut off by a shrink, or never was to be seen, does not come from below after
 *              growing.
 *   following  as long as the disk was not resized itself it grows when layer 0 says it has grown through its children
 *              (a base under a memdiff); it never shrinks with them: there is zero past the parent's end.
 *
 *   owners     in a stack of more than two layers of which only the top one is written to, the layers below it are frozen: which
 *              of them holds a page is remembered (layers/owners.h), so that 64 layers cost no more than two. What is remembered
 *              is only whom to ask first: what that one does not hold is looked for by a walk. Nothing is remembered of
 *              what lies below a read cache, which is to be asked each time.
 *
 * Not done here: eviction, write-back, reading several layers at once.
 */
#include "layers/layer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/hot.h"
#include "core/kind.h"
#include "core/node.h"
#include "layers/owners.h"

#define FILL_PIECE (UINT64_C(1) << 20) /* bytes of private memory a cache fill takes at most */
#define MAX_LAYERS 4096u
#define OWNER_PAGE 4096u
#define INLINE_LAYERS 32u

struct layered {
	struct disk disk;
	struct layer_place *places;
	unsigned count;
	_Atomic uint64_t *caps;    /* of each layer: bytes of it, and of those below, that may be seen; [0] is not used */
	struct owners owners;      /* of pages below the top layer; without entries: not remembered */
	unsigned last_owner;       /* the lowest layer that is remembered: the first read cache, or the end */
	_Atomic bool resized;      /* by disk_resize(): no longer follows the base */
	struct wait_mutex resizing; /* changes of the size, one at a time; held across I/O, before resize_lock */
	_Atomic uint64_t unfilled; /* cache fills that failed */
};

static struct layered *layered_of(struct disk *d)
{
	return (struct layered *)d;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How much of layer `i` can be seen, given how much of layer i - 1 can. */
static uint64_t visible_below(struct layered *s, uint64_t above, unsigned i)
{
	struct layer *l = s->places[i].layer;

	return min64(min64(above, atomic_load(&s->caps[i])), l->ops->size(l));
}

static uint64_t visible(struct layered *s, unsigned i)
{
	uint64_t bytes = UINT64_MAX;

	for (unsigned below = 1; below <= i; below++)
		bytes = visible_below(s, bytes, below);
	return bytes;
}

/* ------------------------------------------------------------------ walking down */

/* One level of a walk: of layer `i`, [.., end) is to be found out, of which [.., visible) can be seen. */
struct level {
	uint64_t end;
	uint64_t visible;
};

/*
 * A walk over [position, end of level `top`) that starts at layer `top`. Invariant: level[top..depth] have falling ends, all
 * above `position`; the layers top..depth-1 are absent from `position` to level[depth].end.
 */
struct descent {
	struct layered *s;
	uint32_t epoch; /* of owners, when the walk began */
	struct level *level;
	struct level inlined[INLINE_LAYERS + 1];
	unsigned top, depth;
	uint64_t position;
};

static int descent_begin(struct descent *w, struct layered *s, unsigned top, uint64_t offset,
			 uint64_t length)
{
	w->s = s;
	w->epoch = s->owners.entries ? owners_epoch(&s->owners) : 0;
	w->top = w->depth = top;
	w->position = offset;
	w->level = w->inlined;
	if (s->count > INLINE_LAYERS) {
		w->level = malloc((s->count + 1) * sizeof(*w->level));
		if (!w->level)
			return -ENOMEM;
	}
	w->level[top] = (struct level){offset + length, visible(s, top)};
	return 0;
}

static void descent_end(struct descent *w)
{
	if (w->level != w->inlined)
		free(w->level);
}

static bool descent_done(const struct descent *w)
{
	return w->position == w->level[w->top].end;
}

/* Nothing below can be seen at the position. */
static bool descent_at_end(const struct descent *w)
{
	return w->depth == w->s->count || w->position >= w->level[w->depth].visible;
}

/* The layer to ask for the next run and how many bytes of it; NULL: zero, there is nothing below. */
static struct layer *descent_ask(const struct descent *w, uint64_t *length)
{
	const struct level *at = &w->level[w->depth];

	*length = at->end - w->position;
	if (descent_at_end(w))
		return NULL;
	*length = min64(*length, at->visible - w->position);
	return w->s->places[w->depth].layer;
}

/* The run is absent here: goes on below. */
static void descent_down(struct descent *w, uint64_t length)
{
	const struct level *above = &w->level[w->depth++];
	struct level *at = &w->level[w->depth];

	at->end = w->position + length;
	at->visible = w->depth < w->s->count ? visible_below(w->s, above->visible, w->depth) : 0;
}

/* The run is settled: goes on after it, in the layer that is next to be asked there. */
static void descent_over(struct descent *w, uint64_t length)
{
	w->position += length;
	while (w->depth > w->top && w->position == w->level[w->depth].end)
		w->depth--;
}

/* ------------------------------------------------------------------ reading */

static int read_from(struct layered *s, unsigned top, const struct vec *v, uint64_t offset,
		     const struct io *io);

/* One piece of what a read cache lacks. */
static int fill_piece(struct layered *s, unsigned cache, const struct vec *v, uint64_t offset,
		      const struct io *io)
{
	struct layer *l = s->places[cache].layer;
	struct io quiet = {.who = io->who};
	void *memory;
	int status;

	if (posix_memalign(&memory, 4096, v->size))
		return read_from(s, cache + 1, v, offset, io);
	status = read_from(s, cache + 1, &VEC_FLAT(memory, v->size), offset, io);
	if (!status) {
		if (l->ops->fill(l, &VEC_FLAT(memory, v->size), offset, &quiet))
			atomic_fetch_add_explicit(&s->unfilled, 1, memory_order_relaxed);
		vec_scatter(v, 0, memory, v->size);
	}
	free(memory);
	return status;
}

static int read_and_fill(struct layered *s, unsigned cache, const struct vec *v, uint64_t offset,
			 const struct io *io)
{
	int status = 0;

	for (uint64_t at = 0; at < v->size && !status;) {
		uint64_t n = min64(v->size - at, FILL_PIECE);
		struct vec piece = vec_slice(v, at, n);
		status = fill_piece(s, cache, &piece, offset + at, io);
		at += n;
	}
	return status;
}

/* Remembers who holds the whole pages of the run that is being settled. What nobody holds has an owner, too: the end. */
static void note_owner(const struct descent *w, uint64_t length)
{
	struct owners *o = &w->s->owners;
	uint64_t page = UINT64_C(1) << o->page_shift, end = (w->position + length) >> o->page_shift;

	unsigned owner = descent_at_end(w) ? w->s->count : w->depth;

	if (!o->entries || !owner || owner > w->s->last_owner)
		return;
	for (uint64_t n = (w->position + page - 1) >> o->page_shift; n < end; n++)
		owners_note(o, n, w->epoch, owner);
}

/* What a layer said of the run at the beginning of `rest`: goes on below it, or after it. */
static int settle_run(struct descent *w, const struct vec *rest, const struct layer_run *run,
		      const struct io *io)
{
	int status = 0;

	if (run->presence == LAYER_ABSENT && !w->s->places[w->depth].read_cache) {
		descent_down(w, run->length);
		return 0;
	}
	if (run->presence == LAYER_ABSENT) {
		struct vec v = vec_slice(rest, 0, run->length);
		status = read_and_fill(w->s, w->depth, &v, w->position, io);
	} else {
		note_owner(w, run->length);
	}
	if (run->presence == LAYER_ZERO)
		vec_zero(rest, 0, run->length);
	descent_over(w, run->length);
	return status;
}

/* The next run into the beginning of `rest`. */
static int read_run(struct descent *w, const struct vec *rest, const struct io *io)
{
	struct layer_run run = {.presence = LAYER_ZERO};
	struct layer *l = descent_ask(w, &run.length);
	struct vec v = vec_slice(rest, 0, run.length);
	int status = l ? l->ops->read(l, &v, w->position, &run, io) : 0;

	return status ? status : settle_run(w, rest, &run, io);
}

/* `first`: what layer `top` has said already of the first run; NULL: nothing yet. */
static int walk_down(struct layered *s, unsigned top, const struct vec *v, uint64_t offset,
		     const struct layer_run *first, const struct io *io)
{
	struct descent w;
	int status = descent_begin(&w, s, top, offset, v->size);

	if (status)
		return io_fail(io, status, "%s: no memory", s->disk.kind);
	if (first)
		status = settle_run(&w, v, first, io);
	while (!status && !descent_done(&w)) {
		uint64_t done = w.position - offset;
		struct vec rest = vec_slice(v, done, v->size - done);
		status = read_run(&w, &rest, io);
	}
	descent_end(&w);
	return status;
}

static int read_from(struct layered *s, unsigned top, const struct vec *v, uint64_t offset,
		     const struct io *io)
{
	return walk_down(s, top, v, offset, NULL, io);
}

/* ------------------------------------------------------------------ reading what the top layer lacks */

/* The bytes from `offset` on, at most `length`, that have one owner, or none that is known. */
static uint64_t owned_run(struct layered *s, uint64_t offset, uint64_t length, uint32_t epoch,
			  unsigned *owner)
{
	uint64_t page = offset >> s->owners.page_shift, last = (offset + length - 1) >> s->owners.page_shift;

	*owner = owners_find(&s->owners, page, epoch);
	while (++page <= last)
		if (owners_find(&s->owners, page, epoch) != *owner)
			return (page << s->owners.page_shift) - offset;
	return length;
}

/* What the owner holds of the beginning, *done bytes of it; the end of the stack holds zeroes. */
static int read_owned(struct layered *s, unsigned owner, const struct vec *v, uint64_t offset,
		      uint64_t *done, const struct io *io)
{
	struct layer_run run = {.presence = LAYER_ZERO, .length = v->size};
	struct layer *l = owner < s->count ? s->places[owner].layer : NULL;
	int status = l ? l->ops->read(l, v, offset, &run, io) : 0;

	if (status)
		return status;
	if (run.presence == LAYER_ZERO)
		vec_zero(v, 0, run.length);
	*done = run.presence == LAYER_ABSENT ? 0 : run.length;
	return 0;
}

/* The beginning of `v`, *done bytes of it. An owner that does not have it any more is walked past. */
static int read_piece_by_owner(struct layered *s, const struct vec *v, uint64_t offset, uint64_t *done,
			       const struct io *io)
{
	uint32_t epoch = owners_epoch(&s->owners);
	unsigned owner;
	uint64_t n = owned_run(s, offset, v->size, epoch, &owner);
	struct vec part = vec_slice(v, 0, n);
	int status = 0;

	*done = 0;
	if (owner != OWNER_UNKNOWN)
		status = read_owned(s, owner, &part, offset, done, io);
	if (*done || (status && owners_epoch(&s->owners) == epoch))
		return status;
	*done = n;
	return walk_down(s, 1, &part, offset, NULL, io);
}

static int read_by_owners(struct layered *s, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = 0;

	for (uint64_t at = 0, done; at < v->size && !status; at += done) {
		struct vec rest = vec_slice(v, at, v->size - at);
		status = read_piece_by_owner(s, &rest, offset + at, &done, io);
	}
	return status;
}

/* Of two layers the lower one usually has it all. */
static int read_second(struct layered *s, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct layer *l = s->places[1].layer;
	struct layer_run run;
	int status;

	if (offset + v->size > visible(s, 1))
		return walk_down(s, 1, v, offset, NULL, io);
	status = l->ops->read(l, v, offset, &run, io);
	if (status || (run.presence == LAYER_DATA && run.length == v->size))
		return status;
	return walk_down(s, 1, v, offset, &run, io);
}

/* The top layer lacks all of it. */
static int read_below(struct layered *s, const struct vec *v, uint64_t offset, const struct io *io)
{
	if (s->owners.entries)
		return read_by_owners(s, v, offset, io);
	if (s->count > 2)
		return walk_down(s, 1, v, offset, NULL, io);
	if (s->count == 2)
		return read_second(s, v, offset, io);
	vec_zero(v, 0, v->size);
	return 0;
}

/* The top layer answered for a part of it, or lacks it. */
static int read_rest(struct layered *s, const struct vec *v, uint64_t offset, struct layer_run *run,
		     const struct io *io)
{
	struct layer *top = s->places[0].layer;
	int status = 0;

	for (uint64_t at = 0;;) {
		struct vec part = vec_slice(v, at, run->length), rest;
		if (run->presence == LAYER_ABSENT)
			status = read_below(s, &part, offset + at, io);
		else if (run->presence == LAYER_ZERO)
			vec_zero(&part, 0, part.size);
		at += run->length;
		if (status || at == v->size)
			return status;
		rest = vec_slice(v, at, v->size - at);
		status = top->ops->read(top, &rest, offset + at, run, io);
		if (status)
			return status;
	}
}

/* What the top layer holds whole, as it mostly does what was written, needs nothing else. */
HOT static int layered_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct layered *s = layered_of(d);
	struct layer *top = s->places[0].layer;
	struct layer_run run;
	int status;

	if (s->owners.entries)
		owners_prefetch(&s->owners, offset >> s->owners.page_shift);
	status = top->ops->read(top, v, offset, &run, io);
	if (status || (run.presence == LAYER_DATA && run.length == v->size))
		return status;
	if (s->places[0].read_cache)
		return walk_down(s, 0, v, offset, &run, io);
	return read_rest(s, v, offset, &run, io);
}

/* ------------------------------------------------------------------ extents and prefetch */

static unsigned extent_flags_of(const struct layer_run *run)
{
	return run->presence == LAYER_DATA ? run->extent_flags : EXTENT_ZERO | EXTENT_HOLE;
}

static int layered_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct descent w;
	int status = descent_begin(&w, layered_of(d), 0, out->offset, out->end - out->offset);
	bool more = true;

	if (status)
		return io_fail(io, status, "%s: no memory", d->kind);
	while (more && !descent_done(&w)) {
		struct layer_run run = {.presence = LAYER_ZERO};
		struct layer *l = descent_ask(&w, &run.length);
		status = l ? l->ops->map(l, w.position, run.length, &run, io) : 0;
		if (status)
			break;
		if (run.presence == LAYER_ABSENT) {
			descent_down(&w, run.length);
			continue;
		}
		more = extents_add(out, run.length, extent_flags_of(&run));
		descent_over(&w, run.length);
	}
	descent_end(&w);
	return status;
}

/* Only a layer that says it has the data is told. */
/* What the top layer holds; who looks further down takes as long as reading takes. */
static void layered_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	struct layer *top = layered_of(d)->places[0].layer;

	if (top->ops->warm)
		top->ops->warm(top, offset, length, what);
}

static int layered_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct descent w;
	int status = descent_begin(&w, layered_of(d), 0, offset, length);

	while (!status && !descent_done(&w)) {
		struct layer_run run = {.presence = LAYER_ZERO};
		struct layer *l = descent_ask(&w, &run.length);
		status = l ? l->ops->map(l, w.position, run.length, &run, io) : 0;
		if (status)
			break;
		if (run.presence == LAYER_ABSENT) {
			descent_down(&w, run.length);
			continue;
		}
		if (run.presence == LAYER_DATA && l->ops->prefetch)
			status = l->ops->prefetch(l, w.position, run.length, io);
		descent_over(&w, run.length);
	}
	descent_end(&w);
	return status;
}

/* ------------------------------------------------------------------ writing */

/* The part of [offset, offset + length) that layer `i` has room for. */
static uint64_t clip(struct layered *s, unsigned i, uint64_t offset, uint64_t length)
{
	uint64_t size;

	if (!i)
		return length;
	size = s->places[i].layer->ops->size(s->places[i].layer);
	return offset >= size ? 0 : min64(length, size - offset);
}

HOT static int layered_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct layered *s = layered_of(d);
	struct layer *l = s->places[0].layer;
	int status = l->ops->write(l, v, offset, io);

	for (unsigned i = 0; !status && s->places[i].write_through;) {
		struct vec part = vec_slice(v, 0, clip(s, ++i, offset, v->size));
		l = s->places[i].layer;
		status = part.size ? l->ops->write(l, &part, offset, io) : 0;
	}
	return status;
}

typedef int clear_function(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
			   const struct io *io);

/* Splits the range where the layer below ends, since beyond it forgetting is enough. */
static int clear_layer(struct layered *s, unsigned i, clear_function *clear, uint64_t offset,
		       uint64_t length, const struct io *io)
{
	struct layer *l = s->places[i].layer;
	uint64_t end = offset + length;
	uint64_t seen = i + 1 < s->count ? visible(s, i + 1) : 0;
	uint64_t split = seen > offset ? min64(seen, end) : offset;
	int status = 0;

	if (split > offset)
		status = clear(l, offset, split - offset, false, io);
	if (!status && split < end)
		status = clear(l, split, end - split, true, io);
	return status;
}

static int layered_write_zeroes(struct disk *d, uint64_t offset, uint64_t length,
				const struct io *io)
{
	struct layered *s = layered_of(d);

	for (unsigned i = 0;; i++) {
		uint64_t n = clip(s, i, offset, length);
		int status = n ? clear_layer(s, i, s->places[i].layer->ops->write_zeroes, offset, n, io)
			       : 0;
		if (status || !s->places[i].write_through)
			return status;
	}
}

static int layered_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct layered *s = layered_of(d);

	for (unsigned i = 0;; i++) {
		uint64_t n = clip(s, i, offset, length);
		int status = n ? clear_layer(s, i, s->places[i].layer->ops->discard, offset, n, io) : 0;
		if (status || !s->places[i].write_through)
			return status;
	}
}

static int layered_flush(struct disk *d, const struct io *io)
{
	struct layered *s = layered_of(d);

	for (unsigned i = 0;; i++) {
		struct layer *l = s->places[i].layer;
		int status = l->ops->flush(l, io);
		if (status || !s->places[i].write_through)
			return status;
	}
}

/* ------------------------------------------------------------------ size */

/* From now on no more of the lower layers is seen than is now, and nothing past `end`. The only place where caps change. */
static void lower_caps(struct layered *s, uint64_t end)
{
	for (unsigned i = 1; i < s->count; i++) {
		end = visible_below(s, end, i);
		atomic_store(&s->caps[i], end);
	}
	if (s->owners.entries)
		owners_void(&s->owners);
}

static int resize_layers(struct layered *s, uint64_t size, const struct io *io)
{
	int status = 0;

	for (unsigned i = 0; !status; i++) {
		struct layer *l = s->places[i].layer;
		status = l->ops->resize(l, size, io);
		if (!s->places[i].write_through)
			break;
	}
	return status;
}

static int layered_resize(struct disk *d, uint64_t size, const struct io *io)
{
	struct layered *s = layered_of(d);
	int status;

	wait_mutex_lock(&s->resizing);
	atomic_store(&s->resized, true);
	lower_caps(s, min64(size, disk_size(d)));
	status = resize_layers(s, size, io);
	if (!status)
		disk_set_size(d, size);
	wait_mutex_unlock(&s->resizing);
	return status;
}

static uint64_t follow_base(struct layered *s)
{
	uint64_t size = disk_size(&s->disk), base = visible(s, s->count - 1);
	struct layer *l = s->places[0].layer;

	if (atomic_load(&s->resized) || !l->grows_at_once || base <= size)
		return size;
	return l->ops->resize(l, base, &io_plain) ? size : base;
}

/* May not wait; whoever holds the lock is about to end the following anyway. */
static uint64_t layered_child_resized(struct disk *d)
{
	struct layered *s = layered_of(d);
	uint64_t size;

	if (s->owners.entries)
		owners_void(&s->owners);
	if (s->count < 2 || !wait_mutex_trylock(&s->resizing))
		return disk_size(d);
	size = follow_base(s);
	wait_mutex_unlock(&s->resizing);
	return size;
}

/* ------------------------------------------------------------------ looking inside, closing */

static void layered_describe(struct disk *d, json_t *object)
{
	struct layered *s = layered_of(d);
	json_t *list = json_array();

	for (unsigned i = 0; i < s->count; i++) {
		const struct layer_place *place = &s->places[i];
		struct layer *l = place->layer;
		json_t *row = json_pack("{s:s, s:b, s:b, s:I}", "layer", l->kind, "read_cache",
					place->read_cache, "write_through", place->write_through,
					"size", (json_int_t)l->ops->size(l));
		if (row && l->ops->describe)
			l->ops->describe(l, row);
		json_array_append_new(list, row);
	}
	json_object_set_new(object, "layers", list);
	if (atomic_load(&s->unfilled))
		json_object_set_new(object, "failed_fills",
				    json_integer((json_int_t)atomic_load(&s->unfilled)));
}

static int layered_close(struct disk *d, bool abandoned, struct error *err)
{
	struct layered *s = layered_of(d);
	int status = 0;

	for (unsigned i = 0; i < s->count; i++) {
		struct layer *l = s->places[i].layer;
		int now = l->ops->close(l, abandoned, status ? NULL : err);
		if (now && !status) {
			status = now;
			error_prefix(err, "layer %u", i);
		}
	}
	owners_destroy(&s->owners);
	free(s->places);
	free(s->caps);
	return status;
}

static const struct disk_ops layered_ops = {
	.read = layered_read,
	.write = layered_write,
	.flush = layered_flush,
	.discard = layered_discard,
	.write_zeroes = layered_write_zeroes,
	.extents = layered_extents,
	.prefetch = layered_prefetch,
	.warm = layered_warm,
	.resize = layered_resize,
	.child_resized = layered_child_resized,
	.describe = layered_describe,
	.close = layered_close,
};

/* ------------------------------------------------------------------ making */

/* Is layer `i` on the write path: the top, and on while the one above is write-through. */
static bool on_write_path(const struct layer_place *places, unsigned i)
{
	while (i)
		if (!places[--i].write_through)
			return false;
	return true;
}

static int check_place(const struct layer_place *places, unsigned count, unsigned i,
		       bool read_only, struct error *err)
{
	const struct layer *l = places[i].layer;
	uint32_t block = places[count - 1].layer->info.block_size;

	if (places[i].read_cache && !l->ops->fill)
		return error_set(err, -EINVAL, "layer %u (%s) cannot be a read cache", i, l->kind);
	if (places[i].read_cache && i + 1 == count)
		return error_set(err, -EINVAL, "layer %u (%s): nothing below it to cache", i, l->kind);
	if (l->info.block_size != block)
		return error_set(err, -EINVAL,
				 "layer %u (%s) has blocks of %u bytes, the bottom layer of %u", i,
				 l->kind, l->info.block_size, block);
	if (places[i].write_through && (i + 1 == count || !on_write_path(places, i)))
		return error_set(err, -EINVAL, "layer %u (%s): nothing to write through to", i,
				 l->kind);
	if (!read_only && on_write_path(places, i) && (l->info.flags & DISK_READ_ONLY))
		return error_set(err, -EROFS, "layer %u (%s) is read-only, the disk is not", i,
				 l->kind);
	return 0;
}

static int check_places(const struct layer_place *places, unsigned count, bool read_only,
			struct error *err)
{
	int status = 0;

	if (!count)
		return error_set(err, -EINVAL, "no layers");
	if (count > MAX_LAYERS)
		return error_set(err, -EINVAL, "%u layers are more than the limit of %u", count,
				 MAX_LAYERS);
	for (unsigned i = 0; i < count && !status; i++)
		status = check_place(places, count, i, read_only, err);
	return status;
}

/* What all layers of the write path must have for the disk to have it. */
static const unsigned common_flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE;
/* What one layer is enough for. */
static const unsigned any_flags = DISK_ROTATIONAL | DISK_REMOVABLE;

static void merge_discard(struct disk_info *info, const struct disk_info *layer)
{
	if (layer->discard < info->discard)
		info->discard = layer->discard;
	if (layer->discard_granularity > info->discard_granularity) {
		info->discard_granularity = layer->discard_granularity;
		info->discard_alignment = layer->discard_alignment;
	}
}

/* After close there is again what one persistent layer of the write path got, over what persistent layers below it hold. */
static bool is_volatile(const struct layer_place *places, unsigned count)
{
	bool kept = false;

	for (unsigned i = 0; i < count; i++) {
		bool lost = places[i].layer->info.flags & DISK_VOLATILE;
		if (on_write_path(places, i))
			kept = kept || !lost;
		else if (lost && !places[i].read_cache)
			return true;
	}
	return !kept;
}

static void merge_info(struct disk_info *info, const struct layer_place *places, unsigned count)
{
	*info = places[0].layer->info;
	info->flags &= ~(unsigned)(DISK_HAS_ID | DISK_VOLATILE);
	if (is_volatile(places, count))
		info->flags |= DISK_VOLATILE;
	for (unsigned i = 0; i < count; i++) {
		const struct disk_info *layer = &places[i].layer->info;
		info->flags |= layer->flags & any_flags;
		if (layer->physical_block_size > info->physical_block_size)
			info->physical_block_size = layer->physical_block_size;
		if ((layer->flags & ~info->flags) & DISK_HAS_ID) {
			memcpy(info->id, layer->id, sizeof(info->id));
			info->flags |= DISK_HAS_ID;
		}
		if (!on_write_path(places, i))
			continue;
		info->flags &= ~common_flags | layer->flags;
		merge_discard(info, layer);
	}
}

/* Takes over the list of layers; without a resize all of them may be seen whole. */
static int take_places(struct layered *s, const struct layer_place *places, unsigned count)
{
	s->places = reallocarray(NULL, count, sizeof(*s->places));
	s->caps = reallocarray(NULL, count, sizeof(*s->caps));
	if (!s->places || !s->caps)
		return -ENOMEM;
	s->count = count;
	for (unsigned i = 0; i < count; i++) {
		s->places[i] = places[i];
		atomic_init(&s->caps[i], UINT64_MAX);
		places[i].layer->bottom = i + 1 == count;
	}
	return 0;
}

/* Where owners do not move: nothing below the top layer is written to. Without memory for them they are done without. */
static void remember_owners(struct layered *s)
{
	uint32_t block = s->places[0].layer->info.block_size;
	unsigned page_shift = (unsigned)__builtin_ctz(block > OWNER_PAGE ? block : OWNER_PAGE);

	if (s->count < 3 || s->places[0].write_through)
		return;
	for (s->last_owner = 1; s->last_owner < s->count; s->last_owner++)
		if (s->places[s->last_owner].read_cache)
			break;
	owners_create(&s->owners, page_shift);
}

static void drop_shell(struct layered *s)
{
	owners_destroy(&s->owners);
	free(s->places);
	free(s->caps);
	disk_drop_new(&s->disk);
}

int layered_create(const char *kind, const struct layer_place *places, unsigned count,
		   struct disk *const *children, unsigned nr_children, unsigned open_flags,
		   struct disk **out, struct error *err)
{
	struct layered *s;
	int status = check_places(places, count, open_flags & OPEN_READ_ONLY, err);

	if (status)
		return status;
	s = disk_new(sizeof(*s), kind, &layered_ops, children, nr_children);
	if (!s || take_places(s, places, count)) {
		status = error_set(err, -ENOMEM, "no memory");
	} else {
		merge_info(&s->disk.info, places, count);
		if (open_flags & OPEN_READ_ONLY)
			s->disk.info.flags |= DISK_READ_ONLY;
		status = disk_publish(&s->disk, places[0].layer->ops->size(places[0].layer), err);
	}
	if (!status)
		remember_owners(s);
	if (!status)
		*out = &s->disk;
	else if (s)
		drop_shell(s);
	return status;
}

/* One stack of the new layer and those of a layered disk, whose shell is given up. */
static int join(const char *kind, const struct layer_place *top, struct layered *below,
		unsigned open_flags, struct disk **out, struct error *err)
{
	unsigned count = below->count + 1;
	struct layer_place *places = calloc(count, sizeof(*places));
	int status;

	if (!places)
		return error_set(err, -ENOMEM, "no memory");
	places[0] = *top;
	memcpy(places + 1, below->places, below->count * sizeof(*places));
	/* what is on the old write path is not on the new one */
	for (unsigned i = 1; i < count && !top->write_through; i++)
		places[i].write_through = false;
	status = layered_create(kind, places, count, below->disk.children, below->disk.nr_children,
				open_flags, out, err);
	free(places);
	if (status)
		return status;
	drop_shell(below);
	return 0;
}

/* What was resized shows less than its layers hold, which only it knows. */
static bool can_join(struct disk *below)
{
	return below->ops.read == layered_read && layered_of(below)->count < MAX_LAYERS &&
	       !atomic_load(&layered_of(below)->resized);
}

int layered_create_over(const char *kind, const struct layer_place *top, struct disk *below,
			unsigned open_flags, struct disk **out, struct error *err)
{
	struct layer_place places[2] = {*top};
	int status;

	if (can_join(below))
		return join(kind, top, layered_of(below), open_flags, out, err);
	places[1].layer = disk_layer_create(below);
	if (!places[1].layer)
		return error_set(err, -ENOMEM, "no memory");
	status = layered_create(kind, places, 2, &below, 1, open_flags, out, err);
	if (status)
		places[1].layer->ops->close(places[1].layer, true, NULL);
	return status;
}

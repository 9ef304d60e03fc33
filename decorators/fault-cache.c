/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is held is a record (core/unflushed.h), which also answers reads. A read that finds all of its bytes there
 * takes them; any other reads the disk below first, without the lock, and then puts what is held over it. Should
 * something have gone from the record to the disk meanwhile, it may have been missed in both places, and the read
 * begins again: `moves` counts that.
 *
 *   lock, shared      reading the record
 *         exclusive   changing it, and the disk below together with it: flushes, writes with FUA, what does not fit,
 *                     a cut. It is held across those calls, so that no older data comes to the disk after newer.
 *
 * The disk below may have become smaller under what is held: what lies past its end is dropped.
 */
#include "decorators/fault-cache.h"

#include <errno.h>
#include <stdlib.h>

#include "core/unflushed.h"
#include "core/wait.h"

#define READS_WITHOUT_LOCK 3

struct fault_cache {
	struct disk *below;
	size_t limit;
	enum unflushed_order order;
	struct wait_rwlock lock; /* protects what follows */
	struct unflushed *held;
	bool off;
	_Atomic uint64_t moves; /* from the record to the disk; changed under the exclusive lock */
};

struct fault_cache *fault_cache_create(struct disk *below, uint64_t limit, uint32_t unit, bool in_order)
{
	struct fault_cache *c = calloc(1, sizeof(*c));

	if (!c || unflushed_create(DISK_MAX_END, unit, &c->held)) {
		free(c);
		return NULL;
	}
	c->below = below;
	c->limit = limit < SIZE_MAX ? (size_t)limit : SIZE_MAX;
	c->order = in_order ? UNFLUSHED_IN_ORDER : UNFLUSHED_ANY;
	return c;
}

void fault_cache_free(struct fault_cache *c)
{
	if (!c)
		return;
	unflushed_free(c->held);
	free(c);
}

static int refuse_off(const struct io *io)
{
	return io_fail(io, -EIO, "fault: the power is off");
}

/* ------------------------------------------------------------------ to the disk below */

struct way_down {
	struct disk *below;
	const struct io *io;
};

/* How much of the range is on the disk still. */
static uint64_t inside(const struct way_down *w, uint64_t offset, uint64_t length)
{
	uint64_t size = disk_size(w->below), room = size > offset ? size - offset : 0;

	return length < room ? length : room;
}

static int write_down(void *to, uint64_t offset, const void *data, size_t length)
{
	const struct way_down *w = to;
	size_t n = (size_t)inside(w, offset, length);

	return n ? disk_write(w->below, &VEC_FLAT(data, n), offset, w->io) : 0;
}

static int zero_down(void *to, uint64_t offset, uint64_t length, unsigned tag)
{
	const struct way_down *w = to;
	uint64_t n = inside(w, offset, length);
	struct io io = io_with_flags(w->io, tag);

	return n ? disk_write_zeroes(w->below, offset, n, &io) : 0;
}

static struct unflushed_sink sink_of(struct way_down *w)
{
	return (struct unflushed_sink){.write = write_down, .zero = zero_down, .to = w};
}

/* With the exclusive lock, as all that follow. */
static int move_all(struct fault_cache *c, const struct io *io)
{
	struct io plain = io_with_flags(io, 0);
	struct way_down way = {.below = c->below, .io = &plain};
	const struct unflushed_sink sink = sink_of(&way);
	int status = unflushed_flush(c->held, &sink);

	atomic_fetch_add(&c->moves, 1);
	return status == -ENOMEM ? io_fail(io, status, "fault: cache: no memory") : status;
}

/* Some more than must go, so that it is not done for each write. */
static int move_oldest(struct fault_cache *c, const struct io *io)
{
	struct io plain = io_with_flags(io, 0);
	struct way_down way = {.below = c->below, .io = &plain};
	const struct unflushed_sink sink = sink_of(&way);
	int status;

	if (unflushed_bytes(c->held) <= c->limit)
		return 0;
	status = unflushed_shrink(c->held, c->limit - c->limit / 8, &sink);
	atomic_fetch_add(&c->moves, 1);
	return status;
}

/* ------------------------------------------------------------------ reading */

/* With the shared lock: puts what is held over `v`; how many bytes that were. */
static size_t put_over(const struct fault_cache *c, const struct vec *v, uint64_t offset)
{
	struct unflushed_run run;
	uint64_t at = offset, end = offset + v->size;
	size_t found = 0;

	while (at < end && unflushed_find(c->held, at, &run) && run.offset < end) {
		size_t n = (size_t)(run.length < end - run.offset ? run.length : end - run.offset);
		if (run.data)
			vec_scatter(v, (size_t)(run.offset - offset), run.data, n);
		else
			vec_zero(v, (size_t)(run.offset - offset), n);
		found += n;
		at = run.offset + n;
	}
	return found;
}

/* True when the whole answer, good or bad, is in *status. */
static bool read_held(struct fault_cache *c, const struct vec *v, uint64_t offset, const struct io *io, int *status)
{
	bool done;

	wait_rwlock_lock_shared(&c->lock);
	*status = c->off ? refuse_off(io) : 0;
	done = *status || put_over(c, v, offset) == v->size;
	wait_rwlock_unlock_shared(&c->lock);
	return done;
}

/* Where the disk below cannot be caught standing still. */
static int read_locked(struct fault_cache *c, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status;

	wait_rwlock_lock_shared(&c->lock);
	status = c->off ? refuse_off(io) : disk_read(c->below, v, offset, io);
	if (!status)
		put_over(c, v, offset);
	wait_rwlock_unlock_shared(&c->lock);
	return status;
}

int fault_cache_read(struct fault_cache *c, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status;

	if (read_held(c, v, offset, io, &status))
		return status;
	for (unsigned i = 0; i < READS_WITHOUT_LOCK; i++) {
		uint64_t moves = atomic_load(&c->moves);
		bool same;
		status = disk_read(c->below, v, offset, io);
		if (status)
			return status;
		wait_rwlock_lock_shared(&c->lock);
		same = atomic_load(&c->moves) == moves;
		if (same)
			put_over(c, v, offset);
		wait_rwlock_unlock_shared(&c->lock);
		if (same)
			return 0;
	}
	return read_locked(c, v, offset, io);
}

/* One run of the disk below, with what is held over it. False when no more are wanted. */
static bool add_run(const struct fault_cache *c, const struct extent *e, struct extents *out)
{
	uint64_t at = e->offset, end = at + e->length;
	struct unflushed_run run;

	while (at < end && unflushed_find(c->held, at, &run) && run.offset < end) {
		uint64_t to = run.length < end - run.offset ? run.offset + run.length : end;
		if (run.offset > at && !extents_add(out, run.offset - at, e->flags))
			return false;
		if (!extents_add(out, to - run.offset, EXTENT_DATA))
			return false;
		at = to;
	}
	return at == end || extents_add(out, end - at, e->flags);
}

/* As many runs as the disk below gives at once. */
static int add_runs(const struct fault_cache *c, struct extents *out, bool *more, const struct io *io)
{
	CLEANUP_EXTENTS struct extents below = {0};
	uint64_t at = extents_next(out);
	int status;

	extents_init(&below, at, out->end - at, out->max);
	status = disk_extents(c->below, &below, io);
	*more = !status;
	for (size_t i = 0; i < below.count && *more; i++)
		*more = add_run(c, &below.list[i], out);
	return status;
}

/* Runs that are merged here may be fewer than were asked for, so more are asked for then. */
int fault_cache_extents(struct fault_cache *c, struct extents *out, const struct io *io)
{
	bool more = true;
	int status;

	wait_rwlock_lock_shared(&c->lock);
	status = c->off ? refuse_off(io) : 0;
	while (!status && more && extents_next(out) < out->end)
		status = add_runs(c, out, &more, io);
	wait_rwlock_unlock_shared(&c->lock);
	return status;
}

/* ------------------------------------------------------------------ writing */

/* The newest record, on the disk below. It is written from the record: the caller's memory may have changed since. */
static int put_newest_down(struct fault_cache *c, uint64_t offset, uint64_t length, const struct io *io)
{
	struct unflushed_run run;

	if (unflushed_find(c->held, offset, &run) && run.data)
		return disk_write(c->below, &VEC_FLAT(run.data, (size_t)length), offset, io);
	return disk_write_zeroes(c->below, offset, length, io);
}

/* Older records of the same bytes may come to the disk once more later, but then this one after them. */
static int make_durable(struct fault_cache *c, uint64_t offset, uint64_t length, const struct io *io)
{
	struct io fua = io_with_flags(io, io->flags & (IO_FUA | IO_MAY_UNMAP));
	int status = put_newest_down(c, offset, length, &fua);

	atomic_fetch_add(&c->moves, 1);
	if (!status && unflushed_record_durable(c->held, offset, length))
		status = io_fail(io, -ENOMEM, "fault: cache: no memory");
	return status;
}

/* `v` is NULL for zeroes. */
static int record(struct fault_cache *c, const struct vec *v, uint64_t offset, uint64_t length, const struct io *io)
{
	int status = v ? unflushed_record_vec(c->held, offset, v)
		       : unflushed_record_zero(c->held, offset, length, io->flags & IO_MAY_UNMAP);

	return status ? io_fail(io, status, "fault: cache: no memory") : 0;
}

static int hold(struct fault_cache *c, const struct vec *v, uint64_t offset, uint64_t length, const struct io *io)
{
	int status;

	wait_rwlock_lock_exclusive(&c->lock);
	status = c->off ? refuse_off(io) : record(c, v, offset, length, io);
	if (!status && io->flags & IO_FUA)
		status = make_durable(c, offset, length, io);
	if (!status)
		status = move_oldest(c, io);
	wait_rwlock_unlock_exclusive(&c->lock);
	return status;
}

int fault_cache_write(struct fault_cache *c, const struct vec *v, uint64_t offset, const struct io *io)
{
	return hold(c, v, offset, v->size, io);
}

int fault_cache_write_zeroes(struct fault_cache *c, uint64_t offset, uint64_t length, const struct io *io)
{
	return hold(c, NULL, offset, length, io);
}

/* Zeroes are what any promise but IGNORED allows, and then it does not come here. */
int fault_cache_discard(struct fault_cache *c, uint64_t offset, uint64_t length, const struct io *io)
{
	struct io zeroing = io_with_flags(io, io->flags | IO_MAY_UNMAP);

	return hold(c, NULL, offset, length, &zeroing);
}

int fault_cache_flush(struct fault_cache *c, const struct io *io)
{
	int status;

	wait_rwlock_lock_exclusive(&c->lock);
	status = c->off ? refuse_off(io) : move_all(c, io);
	if (!status)
		status = disk_flush(c->below, io);
	wait_rwlock_unlock_exclusive(&c->lock);
	return status;
}

/* ------------------------------------------------------------------ power */

int fault_cache_cut(struct fault_cache *c, uint64_t seed, const struct io *io)
{
	struct io plain = io_with_flags(io, 0);
	struct way_down way = {.below = c->below, .io = &plain};
	const struct unflushed_sink sink = sink_of(&way);
	int status = 0;

	wait_rwlock_lock_exclusive(&c->lock);
	if (!c->off) {
		c->off = true;
		status = unflushed_sample(c->held, c->order, seed, &sink);
		unflushed_forget(c->held, DISK_MAX_END);
		atomic_fetch_add(&c->moves, 1);
		if (!status)
			status = disk_flush(c->below, &plain);
	}
	wait_rwlock_unlock_exclusive(&c->lock);
	return status;
}

void fault_cache_restore(struct fault_cache *c)
{
	wait_rwlock_lock_exclusive(&c->lock);
	c->off = false;
	wait_rwlock_unlock_exclusive(&c->lock);
}

void fault_cache_describe(struct fault_cache *c, json_t *object)
{
	size_t bytes, records;

	wait_rwlock_lock_shared(&c->lock);
	bytes = unflushed_bytes(c->held);
	records = unflushed_records(c->held);
	wait_rwlock_unlock_shared(&c->lock);
	json_object_set_new(object, "cache", json_pack("{s:I,s:I,s:I}", "limit", (json_int_t)c->limit, "held",
						       (json_int_t)bytes, "requests", (json_int_t)records));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * striped: several disks side by side as one (RAID 0)
 *
 * Chunks are dealt to the members in turn (decorators/striped-map.h), so that a range of the stripe is one range on each
 * member. A request becomes one request for each member that it touches, and all of these are under way at once: read and
 * write with lists of the pieces of the caller's memory, the others as they are. A request inside one chunk, which most are, goes
 * down with the caller's vector: no copy, no list, no memory. Where there is no memory for lists the request goes down chunk by
 * chunk.
 *
 * Failures keep their status, and the text says which member it was, counted from 1 as the errors of opening do. When several members fail it is the one that comes first
 * in the request; the others have ended by then, too.
 *
 *   size       whole rows that the smallest member has room for. It follows the members: a stripe grows when the last of
 *              them has grown, and shrinks with the first that shrinks, at its end as they do at theirs.
 *   resize     to whole rows. Growing zeroes what members have beyond their share, then grows those that are too small; if one
 *              cannot, the others get their old sizes back, and nothing has changed. Shrinking cuts each member to its share;
 *              if one cannot, the stripe is as small as asked all the same once another was cut, since what was there is gone.
 *   flags      FUA, fast zeroes, removable, resizable: what all members are. Read-only, rotational, volatile: what any is.
 *   identity   that of all members, their order and the chunk, as a hash. No id: it would be that of a part.
 *   eject      all of them, if all can be.
 *
 * Not done: persistent reservations, which would have to be taken on all members in one step.
 */
#include "kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/node.h"
#include "core/parallel.h"
#include "decorators/striped-lists.h"
#include "decorators/striped-map.h"

struct striped {
	struct disk disk;
	struct stripe_map map;
	struct wait_mutex resizing; /* one disk_resize() at a time; held across the members' */
};

static struct striped *striped_of(struct disk *d)
{
	return (struct striped *)d;
}

/* ------------------------------------------------------------------ failures of a member */

/* What a member is given to fail with, when anybody wants to know. Of `failure` only what is read is made empty. */
static inline struct io listen(const struct io *io, struct failure *failure)
{
	struct io own = *io;

	atomic_init(&failure->claimed, 0);
	failure->medium = MEDIUM_UNRECOVERED_READ;
	failure->text[0] = 0;
	own.failure = io->failure ? failure : NULL;
	return own;
}

static __attribute__((noinline, cold)) int member_failed(const struct io *io, unsigned member, int status,
							 const struct failure *failure)
{
	const char *text = failure->text[0] ? failure->text : strerror(-status);

	if (status == -ENODATA)
		return io_fail_medium(io, failure->medium, "striped: member %u: %s", member + 1, text);
	return io_fail(io, status, "striped: member %u: %s", member + 1, text);
}

/* ------------------------------------------------------------------ several members at once */

/* Index i is the i-th member that the request comes to, the first of them being `first`. */
struct fan {
	struct striped *striped;
	const struct io *io;
	unsigned first;
	int (*one)(const struct fan *f, unsigned index, unsigned member, const struct io *io);
	const void *argument; /* of `one` */
	uint64_t offset, end;

	/* the failure with the lowest index; all of it happens on one thread (core/parallel.h) */
	int status;
	unsigned failed;
	struct failure failure;
};

static unsigned fan_member(const struct fan *f, unsigned index)
{
	return (unsigned)(((uint64_t)f->first + index) % f->striped->map.members);
}

static int fan_one(void *argument, unsigned index)
{
	struct fan *f = argument;
	struct failure failure;
	struct io io = listen(f->io, &failure);
	int status = f->one(f, index, fan_member(f, index), &io);

	if (status && (!f->status || index < f->failed)) {
		f->status = status;
		f->failed = index;
		f->failure.medium = failure.medium;
		memcpy(f->failure.text, failure.text, sizeof(failure.text));
	}
	return status;
}

static int fan_out(struct fan *f, unsigned count)
{
	parallel_run(count, fan_one, f);
	return f->status ? member_failed(f->io, fan_member(f, f->failed), f->status, &f->failure) : 0;
}

/* ------------------------------------------------------------------ read and write */

typedef int transfer_function(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io);

static inline int transfer_one(struct striped *s, unsigned member, const struct vec *v, uint64_t offset,
			       const struct io *io, transfer_function *transfer)
{
	struct failure failure;
	struct io own = listen(io, &failure);
	int status = transfer(s->disk.children[member], v, offset, &own);

	return __builtin_expect(status, 0) ? member_failed(io, member, status, &failure) : 0;
}

struct transfer {
	transfer_function *function;
	const struct stripe_list *lists;
};

static int transfer_list(const struct fan *f, unsigned index, unsigned member, const struct io *io)
{
	const struct transfer *t = f->argument;
	const struct stripe_list *l = &t->lists[index];

	return t->function(f->striped->disk.children[member], &l->vec, l->offset, io);
}

static int transfer_by_chunks(struct striped *s, struct vec rest, uint64_t offset, const struct io *io,
			      transfer_function *transfer)
{
	int status = 0;

	while (rest.size && !status) {
		struct stripe_place p = stripe_place(&s->map, offset);
		size_t size = rest.size < p.left ? rest.size : (size_t)p.left;
		struct vec piece = vec_slice(&rest, 0, size);
		status = transfer_one(s, p.member, &piece, p.offset, io, transfer);
		rest = vec_slice(&rest, size, rest.size - size);
		offset += size;
	}
	return status;
}

/* At most STRIPE_PIECES chunks. */
static int transfer_batch(struct striped *s, const struct vec *v, uint64_t offset, const struct io *io,
			  transfer_function *transfer)
{
	struct stripe_lists lists;
	struct transfer t = {.function = transfer};
	struct fan f = {.striped = s, .io = io, .one = transfer_list, .argument = &t};
	int status;

	if (stripe_lists_make(&lists, &s->map, v, offset))
		return transfer_by_chunks(s, *v, offset, io, transfer);
	t.lists = lists.list;
	f.first = stripe_place(&s->map, offset).member;
	status = fan_out(&f, lists.count);
	stripe_lists_free(&lists);
	return status;
}

static __attribute__((noinline)) int transfer_many(struct striped *s, const struct vec *v, uint64_t offset,
						   const struct io *io, transfer_function *transfer)
{
	struct vec rest = *v;
	int status = 0;

	while (rest.size && !status) {
		struct stripe_place p = stripe_place(&s->map, offset);
		uint64_t most = p.left + (STRIPE_PIECES - 1) * s->map.chunk;
		size_t size = rest.size < most ? rest.size : (size_t)most;
		struct vec batch = vec_slice(&rest, 0, size);
		status = transfer_batch(s, &batch, offset, io, transfer);
		rest = vec_slice(&rest, size, rest.size - size);
		offset += size;
	}
	return status;
}

static inline int transfer(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io,
			   transfer_function *function)
{
	struct striped *s = striped_of(d);
	struct stripe_place p = stripe_place(&s->map, offset);

	if (__builtin_expect(v->size <= p.left, 1))
		return transfer_one(s, p.member, v, p.offset, io, function);
	return transfer_many(s, v, offset, io, function);
}

static int striped_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return transfer(d, v, offset, io, disk_read);
}

static int striped_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return transfer(d, v, offset, io, disk_write);
}

/* ------------------------------------------------------------------ ranges, and all members */

typedef int range_function(struct disk *d, uint64_t offset, uint64_t length, const struct io *io);

struct range {
	range_function *function;
};

static int range_of_member(const struct fan *f, unsigned index, unsigned member, const struct io *io)
{
	const struct range *r = f->argument;
	uint64_t begin = stripe_share(&f->striped->map, f->offset, member);
	uint64_t end = stripe_share(&f->striped->map, f->end, member);

	(void)index;
	return r->function(f->striped->disk.children[member], begin, end - begin, io);
}

static int fan_out_range(struct disk *d, uint64_t offset, uint64_t length, const struct io *io, range_function *function)
{
	const struct stripe_map *m = &striped_of(d)->map;
	const struct range r = {.function = function};
	struct fan f = {.striped = striped_of(d),
			.io = io,
			.first = stripe_place(m, offset).member,
			.one = range_of_member,
			.argument = &r,
			.offset = offset,
			.end = offset + length};

	return fan_out(&f, stripe_touched(m, offset, length));
}

static int striped_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return fan_out_range(d, offset, length, io, disk_discard);
}

static int striped_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return fan_out_range(d, offset, length, io, disk_write_zeroes);
}

static int striped_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return fan_out_range(d, offset, length, io, disk_prefetch);
}

static int flush_member(const struct fan *f, unsigned index, unsigned member, const struct io *io)
{
	(void)index;
	return disk_flush(f->striped->disk.children[member], io);
}

static int striped_flush(struct disk *d, const struct io *io)
{
	struct fan f = {.striped = striped_of(d), .io = io, .one = flush_member};

	return fan_out(&f, d->nr_children);
}

static int eject_member(const struct fan *f, unsigned index, unsigned member, const struct io *io)
{
	(void)index;
	return disk_eject(f->striped->disk.children[member], io);
}

/* Half of a stripe is not ejected because the other half cannot be. */
static int striped_eject(struct disk *d, const struct io *io)
{
	struct fan f = {.striped = striped_of(d), .io = io, .one = eject_member};

	if (!(d->info.flags & DISK_REMOVABLE))
		return io_fail(io, -EOPNOTSUPP, "striped: not all members can be ejected");
	return fan_out(&f, d->nr_children);
}

static int striped_reserve(struct disk *d, const struct reservation_request *request, const struct io *io)
{
	(void)d;
	(void)request;
	return io_fail(io, -EOPNOTSUPP, "striped: no persistent reservations");
}

static int striped_report(struct disk *d, struct reservation_report *report, const struct io *io)
{
	(void)d;
	(void)report;
	return io_fail(io, -EOPNOTSUPP, "striped: no persistent reservations");
}

static int striped_watch(struct disk *d, struct reservation_watch *w, bool on)
{
	(void)d;
	(void)w;
	(void)on;
	return -EOPNOTSUPP;
}

/* ------------------------------------------------------------------ extents */

#define RUNS_AT_ONCE 32u

/* What is known of a member from where the walk is: found.list[next] is the run there. */
struct member_runs {
	struct extents found;
	size_t next;
};

struct extents_walk {
	struct striped *striped;
	struct member_runs *runs; /* one for each member */
	uint64_t end;
	size_t max; /* runs to ask for */
	const struct io *io;
};

static const struct extent *known_run(struct member_runs *r, uint64_t at)
{
	while (r->next < r->found.count && r->found.list[r->next].offset + r->found.list[r->next].length <= at)
		r->next++;
	return r->next < r->found.count ? &r->found.list[r->next] : NULL;
}

/* The run of the member that byte `at` of it lies in, which is before the end of its share. */
static int find_run(struct extents_walk *w, unsigned member, uint64_t at, const struct extent **out)
{
	struct member_runs *r = &w->runs[member];
	struct failure failure;
	struct io io = listen(w->io, &failure);
	int status;

	*out = known_run(r, at);
	if (*out)
		return 0;
	extents_free(&r->found);
	extents_init(&r->found, at, stripe_share(&w->striped->map, w->end, member) - at, w->max);
	r->next = 0;
	status = disk_extents(w->striped->disk.children[member], &r->found, &io);
	if (status)
		return member_failed(w->io, member, status, &failure);
	*out = known_run(r, at);
	return *out ? 0 : io_fail(w->io, -EIO, "striped: member %u: extents: nothing is said of byte %" PRIu64, member + 1, at);
}

/* How far, from `at` on, all members are as `flags` say: 0 when one of them is not. *end is on the stripe. */
static int find_common_end(struct extents_walk *w, uint64_t at, unsigned flags, uint64_t *end)
{
	const struct stripe_map *m = &w->striped->map;
	uint64_t nearest = w->end;

	*end = 0;
	for (unsigned member = 0; member < m->members; member++) {
		uint64_t from = stripe_share(m, at, member), to = stripe_share(m, w->end, member), reach;
		const struct extent *run;
		int status = from < to ? find_run(w, member, from, &run) : 0;
		if (status)
			return status;
		if (from == to)
			continue;
		if (run->flags != flags)
			return 0;
		reach = run->offset + run->length;
		if (reach < to && stripe_offset(m, member, reach) < nearest)
			nearest = stripe_offset(m, member, reach);
	}
	*end = nearest;
	return 0;
}

/* One run from `at` on: as far as all members agree, else to the end of the chunk or of the member's run. */
static int find_step(struct extents_walk *w, uint64_t at, uint64_t *length, unsigned *flags)
{
	struct stripe_place p = stripe_place(&w->striped->map, at);
	const struct extent *run;
	uint64_t left, end = 0;
	int status = find_run(w, p.member, p.offset, &run);

	if (status)
		return status;
	*flags = run->flags;
	left = run->offset + run->length - p.offset;
	*length = left < p.left ? left : p.left;
	if (left >= p.left)
		status = find_common_end(w, at, *flags, &end);
	if (end > at + *length)
		*length = end - at;
	return status;
}

static int striped_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct extents_walk w = {.striped = striped_of(d), .end = out->end, .io = io};
	uint64_t length = 0;
	unsigned flags = 0;
	int status = 0;

	w.max = out->max < RUNS_AT_ONCE ? out->max + 1 : RUNS_AT_ONCE;
	w.runs = calloc(d->nr_children, sizeof(*w.runs));
	if (!w.runs)
		return io_fail(io, -ENOMEM, "striped: extents: no memory");
	for (uint64_t at = out->offset; at < out->end && !status; at += length) {
		status = find_step(&w, at, &length, &flags);
		if (!status && !extents_add(out, length, flags))
			break;
	}
	for (unsigned i = 0; i < d->nr_children; i++)
		extents_free(&w.runs[i].found);
	free(w.runs);
	return status;
}

/* ------------------------------------------------------------------ size */

static uint64_t smallest_member(const struct striped *s)
{
	uint64_t smallest = UINT64_MAX;

	for (unsigned i = 0; i < s->map.members; i++) {
		uint64_t size = disk_size(s->disk.children[i]);
		smallest = size < smallest ? size : smallest;
	}
	return smallest;
}

static uint64_t striped_size(struct disk *d)
{
	return stripe_size(&striped_of(d)->map, smallest_member(striped_of(d)));
}

static int resize_member(struct striped *s, unsigned member, uint64_t size, const struct io *io)
{
	struct failure failure;
	struct io own = listen(io, &failure);
	int status = disk_resize(s->disk.children[member], size, &own);

	return status ? member_failed(io, member, status, &failure) : 0;
}

/* What a member has beyond its share is not of the stripe, and may hold anything: it must not come to light. */
static int zero_beyond(struct striped *s, unsigned member, uint64_t from, uint64_t to, const struct io *io)
{
	uint64_t size = disk_size(s->disk.children[member]);
	struct failure failure;
	struct io own = listen(io, &failure);
	int status = 0;

	own.flags = IO_MAY_UNMAP;
	to = size < to ? size : to;
	if (from < to)
		status = disk_write_zeroes(s->disk.children[member], from, to - from, &own);
	return status ? member_failed(io, member, status, &failure) : 0;
}

/* Makes members as large as their share; sizes[] is what they were, for those that are done. */
static int grow_members(struct striped *s, uint64_t share, uint64_t *sizes, const struct io *io)
{
	unsigned done = 0;
	int status = 0;

	while (done < s->map.members && !status) {
		sizes[done] = disk_size(s->disk.children[done]);
		if (sizes[done] < share)
			status = resize_member(s, done, share, io);
		done += !status;
	}
	while (status && done--) {
		struct io quiet = {.who = io->who};
		if (sizes[done] < share)
			disk_resize(s->disk.children[done], sizes[done], &quiet);
	}
	return status;
}

static int grow(struct striped *s, uint64_t old_share, uint64_t share, const struct io *io)
{
	uint64_t *sizes = calloc(s->map.members, sizeof(*sizes));
	int status = sizes ? 0 : io_fail(io, -ENOMEM, "striped: resize: no memory");

	for (unsigned i = 0; i < s->map.members && !status; i++)
		status = zero_beyond(s, i, old_share, share, io);
	if (!status)
		status = grow_members(s, share, sizes, io);
	free(sizes);
	return status;
}

static int shrink(struct striped *s, uint64_t share, const struct io *io)
{
	int status = 0;

	for (unsigned i = 0; i < s->map.members && !status; i++)
		status = resize_member(s, i, share, io);
	return status;
}

static int striped_resize(struct disk *d, uint64_t size, const struct io *io)
{
	struct striped *s = striped_of(d);
	uint64_t row = stripe_row(&s->map), old;
	int status = 0;

	if (size % row)
		return io_fail(io, -EINVAL,
			       "striped: resize: %" PRIu64 " bytes are not whole rows of %" PRIu64
			       " bytes: %u members, chunks of %" PRIu64 " bytes",
			       size, row, s->map.members, s->map.chunk);
	wait_mutex_lock(&s->resizing);
	old = disk_size(d);
	if (size > old)
		status = grow(s, old / s->map.members, size / s->map.members, io);
	else if (size < old)
		status = shrink(s, size / s->map.members, io);
	wait_mutex_unlock(&s->resizing);
	return status;
}

/* ------------------------------------------------------------------ what it is */

struct chained {
	XXH128_canonical_t before;
	char text[IDENTITY_TEXT_MAX];
};

/* A hash of all texts up to this one. */
static void chain(XXH128_canonical_t *hash, const char *text)
{
	struct chained c = {.before = *hash};

	snprintf(c.text, sizeof(c.text), "%s", text);
	XXH128_canonicalFromHash(hash, XXH3_128bits(&c, sizeof(c)));
}

static void print_hash(const XXH128_canonical_t *hash, char *out)
{
	for (size_t i = 0; i < sizeof(hash->digest); i++)
		snprintf(out + 2 * i, 3, "%02x", hash->digest[i]);
}

static int striped_identity(struct disk *d, struct identity *out)
{
	const struct stripe_map *m = &striped_of(d)->map;
	XXH128_canonical_t name = {0}, version = {0};
	size_t used;

	for (unsigned i = 0; i < m->members; i++) {
		int status = disk_identity(d->children[i], out);
		if (status)
			return status;
		chain(&name, out->name);
		chain(&version, out->version);
	}
	used = (size_t)snprintf(out->name, sizeof(out->name), "striped:%" PRIu64 "x%u:", m->chunk, m->members);
	print_hash(&name, out->name + used);
	used = (size_t)snprintf(out->version, sizeof(out->version), "%" PRIu64 ":", disk_size(d));
	print_hash(&version, out->version + used);
	return 0;
}

static void striped_describe(struct disk *d, json_t *object)
{
	const struct striped *s = striped_of(d);
	uint64_t share = disk_size(d) / s->map.members, unused = 0;

	for (unsigned i = 0; i < d->nr_children; i++) {
		uint64_t size = disk_size(d->children[i]);
		unused += size > share ? size - share : 0;
	}
	json_object_set_new(object, "chunk", json_integer((json_int_t)s->map.chunk));
	json_object_set_new(object, "unused", json_integer((json_int_t)unused));
}

static const struct disk_ops striped_ops = {
	.read = striped_read,
	.write = striped_write,
	.flush = striped_flush,
	.discard = striped_discard,
	.write_zeroes = striped_write_zeroes,
	.extents = striped_extents,
	.prefetch = striped_prefetch,
	.resize = striped_resize,
	.eject = striped_eject,
	.reserve = striped_reserve,
	.report_reservations = striped_report,
	.watch_reservations = striped_watch,
	.identity = striped_identity,
	.child_resized = striped_size,
	.describe = striped_describe,
};

/* ------------------------------------------------------------------ opening */

static int check_blocks(struct disk *const *members, unsigned count, struct error *err)
{
	uint32_t block = disk_info(members[0])->block_size;

	for (unsigned i = 1; i < count; i++)
		if (disk_info(members[i])->block_size != block)
			return error_set(err, -EINVAL,
					 "member %u (%s) has blocks of %" PRIu32 " bytes, member 1 (%s) of %" PRIu32
					 "; all must have the same",
					 i + 1, disk_kind_name(members[i]), disk_info(members[i])->block_size,
					 disk_kind_name(members[0]), block);
	return 0;
}

static int check_equal(struct disk *const *members, unsigned count, struct error *err)
{
	uint64_t size = disk_size(members[0]);

	for (unsigned i = 1; i < count; i++)
		if (disk_size(members[i]) != size) {
			error_set(err, -EINVAL,
				  "member %u (%s) has %" PRIu64 " bytes, member 1 (%s) has %" PRIu64
				  "; all must be of one size",
				  i + 1, disk_kind_name(members[i]), disk_size(members[i]), disk_kind_name(members[0]), size);
			return error_hint(err, "';truncate' takes of each only what the smallest has");
		}
	return 0;
}

static int check_chunk(const struct striped *s, struct error *err)
{
	uint32_t block = disk_info(s->disk.children[0])->block_size;
	uint64_t chunk = s->map.chunk;

	if (chunk % block)
		return error_set(err, -EINVAL,
				 "chunk of %" PRIu64 " bytes is not a multiple of the block size, %" PRIu32 " bytes", chunk,
				 block);
	for (unsigned i = 0; i < s->map.members; i++)
		if (disk_size(s->disk.children[i]) < chunk)
			return error_set(err, -EINVAL,
					 "member %u (%s) has %" PRIu64 " bytes, less than one chunk of %" PRIu64, i + 1,
					 disk_kind_name(s->disk.children[i]), disk_size(s->disk.children[i]), chunk);
	return 0;
}

/* More than a disk can have is refused here, and cut off when members grow later. */
static int check_total(const struct striped *s, struct error *err)
{
	uint64_t row = stripe_row(&s->map), most = DISK_MAX_END / row * row, rows = smallest_member(s) / s->map.chunk;

	if (rows > DISK_MAX_END / row)
		return error_set(err, -ERANGE,
				 "%u members with %" PRIu64 " bytes of each are too large; the largest stripe of them is %" PRIu64
				 " bytes",
				 s->map.members, rows * s->map.chunk, most);
	return 0;
}

static int check_members(const struct striped *s, bool truncate, struct error *err)
{
	struct disk *const *members = s->disk.children;
	int status = check_blocks(members, s->map.members, err);

	if (!status && !truncate)
		status = check_equal(members, s->map.members, err);
	if (!status)
		status = check_chunk(s, err);
	return status ? status : check_total(s, err);
}

static void combine_info(struct striped *s)
{
	const unsigned all = DISK_FUA | DISK_FAST_ZERO | DISK_REMOVABLE | DISK_RESIZABLE;
	const unsigned any = DISK_READ_ONLY | DISK_ROTATIONAL | DISK_VOLATILE;
	struct disk_info *info = &s->disk.info;
	unsigned every = ~0u, some = 0;

	*info = (struct disk_info){.block_size = disk_info(s->disk.children[0])->block_size};
	for (unsigned i = 0; i < s->map.members; i++) {
		const struct disk_info *member = disk_info(s->disk.children[i]);
		every &= member->flags;
		some |= member->flags;
		if (member->physical_block_size > info->physical_block_size)
			info->physical_block_size = member->physical_block_size;
	}
	info->flags = (every & all) | (some & any);
	stripe_discard(&s->map, s->disk.children, info);
}

static int striped_open(const struct open_request *request, struct disk **out, struct error *err)
{
	const struct spec *spec = request->spec;
	struct striped *s = disk_new(sizeof(*s), "striped", &striped_ops, request->children, spec->nr_children);
	int status;

	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	stripe_map_init(&s->map, spec_number(spec, "chunk"), spec->nr_children);
	status = check_members(s, spec_given(spec, "truncate"), err);
	if (!status) {
		combine_info(s);
		status = disk_publish(&s->disk, striped_size(&s->disk), err);
	}
	if (status)
		disk_drop_new(&s->disk);
	else
		*out = &s->disk;
	return status;
}

static const struct spec_field striped_fields[] = {
	{.name = "chunk",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "128K",
	 .min = DISK_MIN_BLOCK,
	 .max = UINT64_C(1) << 40,
	 .help = "how much lies on one disk before the next one's turn, whole blocks"},
	{.name = "truncate",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "take of each disk only what the smallest has, where their sizes differ"},
	{0},
};

const struct disk_kind striped_kind = {
	.name = "striped",
	.summary = "disks side by side as one (RAID 0)",
	.children = KIND_JOINS,
	.fields = striped_fields,
	.open = striped_open,
};

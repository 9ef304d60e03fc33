/* SPDX-License-Identifier: BSD-3-Clause */
/* How a node of the tree is made, completed with default operations, described and taken apart. */
#include "core/node.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/slots.h"
#include "core/spec.h"

/* ------------------------------------------------------------------ forwarding: what a decorator leaves out */

static int forward_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_read(d->children[0], v, offset, io);
}

static int forward_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_write(d->children[0], v, offset, io);
}

static int forward_flush(struct disk *d, const struct io *io)
{
	return disk_flush(d->children[0], io);
}

static int forward_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_discard(d->children[0], offset, length, io);
}

static int forward_write_zeroes(struct disk *d, uint64_t offset, uint64_t length,
				const struct io *io)
{
	return disk_write_zeroes(d->children[0], offset, length, io);
}

static int forward_extents(struct disk *d, struct extents *out, const struct io *io)
{
	return disk_extents(d->children[0], out, io);
}

static int forward_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return disk_prefetch(d->children[0], offset, length, io);
}

static void forward_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	disk_warm(d->children[0], offset, length, what);
}

static int forward_resize(struct disk *d, uint64_t size, const struct io *io)
{
	return disk_resize(d->children[0], size, io);
}

static int forward_eject(struct disk *d, const struct io *io)
{
	return disk_eject(d->children[0], io);
}

static int forward_reserve(struct disk *d, const struct reservation_request *request,
			   const struct io *io)
{
	return disk_reserve(d->children[0], request, io);
}

static int forward_report(struct disk *d, struct reservation_report *report, const struct io *io)
{
	return disk_report_reservations(d->children[0], report, io);
}

static int forward_watch(struct disk *d, struct reservation_watch *w, bool on)
{
	return disk_watch_reservations(d->children[0], w, on);
}

static int forward_identity(struct disk *d, struct identity *out)
{
	return disk_identity(d->children[0], out);
}

static uint64_t take_child_size(struct disk *d)
{
	return disk_size(d->children[0]);
}

static const struct disk_ops forward_ops = {
	.read = forward_read,
	.write = forward_write,
	.flush = forward_flush,
	.discard = forward_discard,
	.write_zeroes = forward_write_zeroes,
	.extents = forward_extents,
	.prefetch = forward_prefetch,
	.resize = forward_resize,
	.eject = forward_eject,
	.reserve = forward_reserve,
	.report_reservations = forward_report,
	.watch_reservations = forward_watch,
	.child_resized = take_child_size,
};

/* ------------------------------------------------------------------ what a leaf leaves out */

static int leaf_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)v;
	(void)offset;
	return io_fail(io, -EROFS, "%s: cannot be written", d->kind);
}

static int leaf_flush(struct disk *d, const struct io *io)
{
	(void)d;
	(void)io;
	return 0;
}

static int leaf_hint(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	(void)d;
	(void)offset;
	(void)length;
	(void)io;
	return 0;
}

static void no_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	(void)d;
	(void)offset;
	(void)length;
	(void)what;
}

static int leaf_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	if (io->flags & IO_FAST_ONLY)
		return io_fail(io, -EOPNOTSUPP, "%s: no fast zeroing", d->kind);
	return disk_write_zeroes_slowly(d, offset, length, io);
}

static int leaf_extents(struct disk *d, struct extents *out, const struct io *io)
{
	(void)d;
	(void)io;
	extents_add(out, out->end - out->offset, EXTENT_DATA);
	return 0;
}

static int leaf_resize(struct disk *d, uint64_t size, const struct io *io)
{
	(void)size;
	return io_fail(io, -EOPNOTSUPP, "%s: the size cannot be changed", d->kind);
}

static int leaf_eject(struct disk *d, const struct io *io)
{
	return io_fail(io, -EOPNOTSUPP, "%s: nothing to eject", d->kind);
}

static int leaf_reserve(struct disk *d, const struct reservation_request *request,
			const struct io *io)
{
	(void)request;
	return io_fail(io, -EOPNOTSUPP, "%s: no persistent reservations", d->kind);
}

static int leaf_report(struct disk *d, struct reservation_report *report, const struct io *io)
{
	(void)report;
	return io_fail(io, -EOPNOTSUPP, "%s: no persistent reservations", d->kind);
}

static int leaf_watch(struct disk *d, struct reservation_watch *w, bool on)
{
	(void)d;
	(void)w;
	(void)on;
	return -EOPNOTSUPP;
}

static int no_identity(struct disk *d, struct identity *out)
{
	(void)d;
	(void)out;
	return -EOPNOTSUPP;
}

static const struct disk_ops leaf_ops = {
	.write = leaf_write,
	.flush = leaf_flush,
	.discard = leaf_hint,
	.write_zeroes = leaf_write_zeroes,
	.extents = leaf_extents,
	.prefetch = leaf_hint,
	.resize = leaf_resize,
	.eject = leaf_eject,
	.reserve = leaf_reserve,
	.report_reservations = leaf_report,
	.watch_reservations = leaf_watch,
};

/* Every entry but describe and close, which may stay empty, gets one. */
static void complete_ops(struct disk_ops *ops, const struct disk_ops *defaults)
{
	/* before `read` is completed: a node that reads by itself and forgets about identity has none; and has its bytes elsewhere */
	if (!ops->identity)
		ops->identity = ops->read || defaults == &leaf_ops ? no_identity : forward_identity;
	if (!ops->warm)
		ops->warm = ops->read || defaults == &leaf_ops ? no_warm : forward_warm;
#define COMPLETE(name)                                                                             \
	if (!ops->name)                                                                            \
	ops->name = defaults->name
	COMPLETE(read);
	COMPLETE(write);
	COMPLETE(flush);
	COMPLETE(discard);
	COMPLETE(write_zeroes);
	COMPLETE(extents);
	COMPLETE(prefetch);
	COMPLETE(resize);
	COMPLETE(eject);
	COMPLETE(reserve);
	COMPLETE(report_reservations);
	COMPLETE(watch_reservations);
	COMPLETE(child_resized);
#undef COMPLETE
}

/* ------------------------------------------------------------------ zeroes written out */

#define ZERO_PIECE 4096u
#define ZERO_PIECES 256u

static const _Alignas(ZERO_PIECE) char zero_piece[ZERO_PIECE];

/* The same zeroes over and over: 1 MiB a request, page-aligned for O_DIRECT. */
int disk_write_zeroes_slowly(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct io plain = io_with_flags(io, 0);
	struct iovec iov[ZERO_PIECES];
	int status = 0;

	for (unsigned i = 0; i < ZERO_PIECES; i++)
		iov[i] = (struct iovec){(void *)zero_piece, ZERO_PIECE};
	while (length && !status) {
		struct vec v = {.iov = iov, .count = ZERO_PIECES, .size = sizeof(zero_piece) * ZERO_PIECES};
		if (v.size > length)
			v.size = length;
		status = d->ops.write(d, &v, offset, &plain);
		offset += v.size;
		length -= v.size;
	}
	if (!status && (io->flags & IO_FUA))
		status = d->ops.flush(d, &plain);
	return status;
}

/* ------------------------------------------------------------------ making */

#define CACHE_LINE 64u

void *disk_new(size_t state_size, const char *kind, const struct disk_ops *ops,
	       struct disk *const *children, unsigned nr_children)
{
	size_t lines = (state_size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
	struct disk *d = aligned_alloc(CACHE_LINE, lines);

	assert(state_size >= sizeof(*d));
	if (!d)
		return NULL;
	memset(d, 0, lines);
	d->slots[STAT_SLOT_SHARED] = stat_slot_new();
	d->children = calloc(nr_children ? nr_children : 1, sizeof(*children));
	if (!d->slots[STAT_SLOT_SHARED] || !d->children) {
		disk_drop_new(d);
		return NULL;
	}
	d->kind = kind;
	d->ops = *ops;
	d->nr_children = nr_children;
	for (unsigned i = 0; i < nr_children; i++)
		d->children[i] = children[i];
	complete_ops(&d->ops, nr_children ? &forward_ops : &leaf_ops);
	pthread_mutex_init(&d->resize_lock, NULL);
	return d;
}

void disk_drop_new(struct disk *d)
{
	if (!d)
		return;
	for (unsigned i = 0; i < STAT_SLOTS; i++)
		stat_slot_free(d->slots[i]);
	free(d->children);
	free(d);
}

void disk_inherit(struct disk *d)
{
	d->info = d->children[0]->info;
}

static bool power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

int disk_check_size(uint64_t size, uint32_t block_size, const char *what, struct error *err)
{
	char text[SIZE_TEXT_MAX];

	if (!size)
		return error_set(err, -EINVAL, "%s is 0; a disk has at least one block of %" PRIu32 " bytes",
				 what, block_size);
	if (size > DISK_MAX_END)
		return error_set(err, -ERANGE,
				 "%s of %s bytes is too large; the largest is %" PRIu64 " bytes", what,
				 size_print(size, text), (uint64_t)DISK_MAX_END & ~(uint64_t)(block_size - 1));
	if (size % block_size)
		return error_set(err, -EINVAL,
				 "%s of %" PRIu64 " bytes is not a multiple of the block size, %" PRIu32 " bytes",
				 what, size, block_size);
	return 0;
}

static int check_geometry(const struct disk_info *info, struct error *err)
{
	if (!power_of_two(info->block_size) || info->block_size < DISK_MIN_BLOCK ||
	    info->block_size > DISK_MAX_BLOCK)
		return error_set(err, -EINVAL,
				 "block size of %" PRIu32 " bytes is not a power of two from %u to %u",
				 info->block_size, DISK_MIN_BLOCK, DISK_MAX_BLOCK);
	if (!power_of_two(info->physical_block_size) ||
	    info->physical_block_size < info->block_size)
		return error_set(err, -EINVAL,
				 "physical block size of %" PRIu32
				 " bytes is not a power of two from the block size, %" PRIu32,
				 info->physical_block_size, info->block_size);
	if (!info->discard_granularity || info->discard_granularity % info->block_size ||
	    info->discard_alignment >= info->discard_granularity)
		return error_set(err, -EINVAL,
				 "discard granularity of %" PRIu32 " bytes, alignment %" PRIu32
				 ", does not fit blocks of %" PRIu32 " bytes",
				 info->discard_granularity, info->discard_alignment,
				 info->block_size);
	return 0;
}

int disk_publish(struct disk *d, uint64_t size, struct error *err)
{
	int status = check_geometry(&d->info, err);

	if (!status)
		status = disk_check_size(size, d->info.block_size, "disk size", err);
	if (status)
		return status;
	assert(d->nr_children || d->ops.read);
	d->block_mask = d->info.block_size - 1;
	d->read_only = d->info.flags & DISK_READ_ONLY;
	atomic_store(&d->size, size);
	atomic_store(&d->references, 1);
	for (unsigned i = 0; i < d->nr_children; i++)
		d->children[i]->parent = d;
	return 0;
}

/* ------------------------------------------------------------------ describing */

static const char *discard_name(enum disk_discard discard)
{
	static const char *const names[] = {
		[DISK_DISCARD_IGNORED] = "ignored",
		[DISK_DISCARD_UNSPECIFIED] = "unspecified",
		[DISK_DISCARD_ZEROES] = "zeroes",
	};

	return names[discard];
}

static const struct {
	enum disk_flags flag;
	const char *name;
} flag_names[] = {
	{DISK_READ_ONLY, "read_only"}, {DISK_FUA, "fua"},
	{DISK_ROTATIONAL, "rotational"}, {DISK_REMOVABLE, "removable"},
	{DISK_FAST_ZERO, "fast_zero"}, {DISK_VOLATILE, "volatile"},
	{DISK_RESIZABLE, "resizable"},
};

static void describe_geometry(struct disk *d, json_t *object)
{
	const struct disk_info *info = &d->info;
	char id[2 * sizeof(info->id) + 1];

	json_object_set_new(object, "kind", json_string(d->kind));
	json_object_set_new(object, "size", json_integer((json_int_t)disk_size(d)));
	json_object_set_new(object, "block_size", json_integer(info->block_size));
	json_object_set_new(object, "physical_block_size", json_integer(info->physical_block_size));
	json_object_set_new(object, "discard", json_string(discard_name(info->discard)));
	json_object_set_new(object, "discard_granularity", json_integer(info->discard_granularity));
	json_object_set_new(object, "discard_alignment", json_integer(info->discard_alignment));
	for (size_t i = 0; i < sizeof(flag_names) / sizeof(*flag_names); i++)
		json_object_set_new(object, flag_names[i].name,
				    json_boolean(info->flags & flag_names[i].flag));
	if (!(info->flags & DISK_HAS_ID))
		return;
	for (size_t i = 0; i < sizeof(info->id); i++)
		sprintf(id + 2 * i, "%02x", info->id[i]);
	json_object_set_new(object, "id", json_string(id));
}

static void describe_latency(const uint64_t *buckets, json_t *object)
{
	static const struct {
		const char *name;
		double fraction;
	} rows[] = {{"p50_ns", 0.5}, {"p90_ns", 0.9}, {"p99_ns", 0.99}, {"p999_ns", 0.999}};

	if (!stat_percentile_ns(buckets, 1))
		return;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		json_object_set_new(object, rows[i].name,
				    json_integer((json_int_t)stat_percentile_ns(buckets, rows[i].fraction)));
}

/* Operations that never happened are left out. */
static void describe_stats(struct disk *d, json_t *object)
{
	json_t *stats = json_object();
	struct stat_totals t;

	disk_stats(d, &t);
	for (enum stat_op op = 0; op < STAT_OPS; op++) {
		json_t *row;
		if (!t.started[op])
			continue;
		row = json_pack("{s:I, s:I, s:I}", "operations", (json_int_t)t.started[op], "bytes",
				(json_int_t)t.bytes[op], "errors", (json_int_t)t.errors[op]);
		describe_latency(t.latency[op], row);
		json_object_set_new(stats, stat_op_name(op), row);
	}
	if (json_object_size(stats))
		json_object_set(object, "stats", stats);
	json_decref(stats);
}

json_t *disk_describe(struct disk *d)
{
	json_t *object = json_object(), *children;

	if (!object)
		return NULL;
	describe_geometry(d, object);
	if (d->ops.describe)
		d->ops.describe(d, object);
	describe_stats(d, object);
	if (!d->nr_children)
		return object;
	children = json_array();
	for (unsigned i = 0; i < d->nr_children; i++)
		json_array_append_new(children, disk_describe(d->children[i]));
	json_object_set_new(object, "children", children);
	return object;
}

/* ------------------------------------------------------------------ taking apart */

struct disk *disk_ref(struct disk *d)
{
	atomic_fetch_add_explicit(&d->references, 1, memory_order_relaxed);
	return d;
}

static bool busy(struct disk *d)
{
	struct stat_totals t;

	disk_stats(d, &t);
	for (unsigned op = 0; op < STAT_OPS; op++)
		if (t.started[op] != t.finished[op])
			return true;
	return false;
}

/* Closes from the top down; keeps the first failure. */
static int take_apart(struct disk *d, bool abandoned, struct error *err)
{
	CLEANUP_ERROR struct error later = {0};
	int status = 0, below;

	if (d->ops.close)
		status = d->ops.close(d, abandoned, err);
	if (status)
		error_prefix(err, "%s", d->kind);
	for (unsigned i = 0; i < d->nr_children; i++) {
		below = take_apart(d->children[i], abandoned, status ? &later : err);
		if (!status && below) {
			status = below;
			error_prefix(err, "%s", d->kind);
		}
	}
	pthread_mutex_destroy(&d->resize_lock);
	disk_drop_new(d);
	return status;
}

int disk_close(struct disk *d, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = 0, closing;

	if (!d || atomic_fetch_sub_explicit(&d->references, 1, memory_order_acq_rel) > 1)
		return 0;
	/* Whoever runs a request holds a reference or waits for it; this catches the last instructions of one. */
	while (busy(d))
		wait_sleep(100000);
	if (!d->read_only)
		status = disk_flush(d, &io);
	if (status)
		error_set(err, status, "flush before close: %s",
			  failure.text[0] ? failure.text : strerror(-status));
	closing = take_apart(d, false, status ? NULL : err);
	return status ? status : closing;
}

void disk_abandon(struct disk *d)
{
	if (d)
		take_apart(d, true, NULL);
}

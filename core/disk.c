/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one seam: every request on every node passes through here. It checks what is common to all disks, counts, does
 * what a flag asks of a node that does not do it itself (FUA, fast zero), and calls the node's operation. How a node is
 * made and taken apart is in node.c.
 *
 *   checked here                          left to the kind
 *   whole blocks, overflow, end <= size   the size again, if it can shrink under a request
 *   read-only                             -
 *   IO_FUA without DISK_FUA: a flush      durability where it says DISK_FUA
 *   IO_FAST_ONLY without DISK_FAST_ZERO   -EOPNOTSUPP where zeroing this range is not fast after all
 *   discard that is ignored: success      what it promises in info.discard
 */
#include "core/disk.h"

#include <errno.h>
#include <inttypes.h>

#include "core/hot.h"
#include "core/node.h"
#include "core/slots.h"
#include "core/stopwatch.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* One request being counted. */
struct span {
	struct stat_slot *slot;
	bool shared;
	bool measured;
	struct stopwatch watch; /* where it is measured */
};

/* Where the calling thread counts, whatever it is that speaks against the short way. Short of memory it
 * counts with the others. */
static __attribute__((noinline, cold)) struct span find_slot(struct disk *d)
{
	unsigned index = stat_thread_index ? stat_thread_index : stat_thread_assign();
	struct stat_slot *slot = atomic_load_explicit(&d->slots[index], memory_order_acquire);

	if (!slot) {
		slot = stat_slot_new();
		if (slot)
			atomic_store_explicit(&d->slots[index], slot, memory_order_release);
	}
	if (!slot) {
		index = STAT_SLOT_SHARED;
		slot = d->slots[index];
	}
	return (struct span){.slot = slot, .shared = index == STAT_SLOT_SHARED};
}

/* The slot of a thread that has one, and it alone: nearly every request's. NULL: find_slot() knows. */
static inline struct stat_slot *own_slot(struct disk *d)
{
	return atomic_load_explicit(&d->slots[stat_own_index], memory_order_acquire); /* nobody has slot 0 */
}

static inline struct span span_start(struct disk *d, struct span s, enum stat_op op)
{
	stat_add(&s.slot->op[op].started, 1, s.shared);
	s.measured = atomic_load_explicit(&d->measured, memory_order_relaxed);
	if (s.measured)
		s.watch = stopwatch_start();
	return s;
}

static inline struct span span_begin(struct disk *d, enum stat_op op)
{
	struct stat_slot *own = own_slot(d);

	return span_start(d, own ? (struct span){.slot = own} : find_slot(d), op);
}

/* Returns `status`. After it the node may be closed under us. */
static inline int span_end(struct span s, enum stat_op op, uint64_t bytes, int status)
{
	struct stat_count *c = &s.slot->op[op];

	if (unlikely(status))
		stat_add(&s.slot->errors[op], 1, s.shared);
	else
		stat_add(&c->bytes, bytes, s.shared);
	if (s.measured)
		stat_slot_measure(s.slot, op, stopwatch_ns(s.watch), s.shared);
	stat_finish(&c->finished, s.shared);
	return status;
}

/* ------------------------------------------------------------------ checks */

static __attribute__((noinline, cold)) int refuse(struct disk *d, enum stat_op op, uint64_t offset,
						  uint64_t length, const struct io *io)
{
	uint64_t size = disk_size(d);

	if ((offset | length) & d->block_mask)
		return io_fail(io, -EINVAL,
			       "%s: %s of %" PRIu64 " bytes at %" PRIu64
			       " is not whole blocks of %" PRIu32 " bytes",
			       d->kind, stat_op_name(op), length, offset, d->info.block_size);
	return io_fail(io, -ERANGE,
		       "%s: %s of %" PRIu64 " bytes at %" PRIu64
		       " is outside the disk of %" PRIu64 " bytes",
		       d->kind, stat_op_name(op), length, offset, size);
}

static __attribute__((noinline, cold)) int refuse_write(struct disk *d, enum stat_op op,
							const struct io *io)
{
	return io_fail(io, -EROFS, "%s: %s: the disk is read-only", d->kind, stat_op_name(op));
}

/* The size never exceeds DISK_MAX_END, so the subtraction settles overflow too. */
static inline int check_range(struct disk *d, enum stat_op op, uint64_t offset, uint64_t length,
			      const struct io *io)
{
	uint64_t size = atomic_load_explicit(&d->size, memory_order_relaxed);

	if (unlikely(((offset | length) & d->block_mask) || offset > size || length > size - offset))
		return refuse(d, op, offset, length, io);
	return 0;
}

static inline int check_write(struct disk *d, enum stat_op op, uint64_t offset, uint64_t length,
			      const struct io *io)
{
	int status = check_range(d, op, offset, length, io);

	if (!status && unlikely(d->read_only))
		status = refuse_write(d, op, io);
	return status;
}

static inline bool must_flush(const struct disk *d, const struct io *io)
{
	return unlikely(io->flags & IO_FUA) && !(d->info.flags & DISK_FUA);
}

/* Makes a write without the flag durable for a node that does not know FUA. */
static int flush_after(struct disk *d, int status, const struct io *io)
{
	struct io plain = io_with_flags(io, 0);

	return status ? status : d->ops.flush(d, &plain);
}

/* ------------------------------------------------------------------ requests */

/* Where everything about `s` but its slot is known to the compiler, so that it need not be looked at again at
 * every count. */
#define FOR_EACH_WAY static inline __attribute__((always_inline))

FOR_EACH_WAY int read_counted(struct disk *d, struct span s, const struct vec *v, uint64_t offset,
			      const struct io *io)
{
	int status;

	s = span_start(d, s, STAT_READ);
	status = check_range(d, STAT_READ, offset, v->size, io);
	if (likely(!status && v->size))
		status = d->ops.read(d, v, offset, io);
	return span_end(s, STAT_READ, v->size, status);
}

static __attribute__((noinline, cold)) int read_the_long_way(struct disk *d, const struct vec *v,
							     uint64_t offset, const struct io *io)
{
	return read_counted(d, find_slot(d), v, offset, io);
}

HOT int disk_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct stat_slot *own = own_slot(d);

	if (unlikely(!own))
		return read_the_long_way(d, v, offset, io);
	return read_counted(d, (struct span){.slot = own}, v, offset, io);
}

static int write_and_flush(struct disk *d, const struct vec *v, uint64_t offset,
			   const struct io *io)
{
	struct io plain = io_with_flags(io, io->flags & ~(unsigned)IO_FUA);

	return flush_after(d, d->ops.write(d, v, offset, &plain), io);
}

FOR_EACH_WAY int write_counted(struct disk *d, struct span s, const struct vec *v, uint64_t offset,
			       const struct io *io)
{
	int status;

	s = span_start(d, s, STAT_WRITE);
	status = check_write(d, STAT_WRITE, offset, v->size, io);
	if (likely(!status && v->size))
		status = must_flush(d, io) ? write_and_flush(d, v, offset, io)
					   : d->ops.write(d, v, offset, io);
	return span_end(s, STAT_WRITE, v->size, status);
}

static __attribute__((noinline, cold)) int write_the_long_way(struct disk *d, const struct vec *v,
							      uint64_t offset, const struct io *io)
{
	return write_counted(d, find_slot(d), v, offset, io);
}

HOT int disk_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct stat_slot *own = own_slot(d);

	if (unlikely(!own))
		return write_the_long_way(d, v, offset, io);
	return write_counted(d, (struct span){.slot = own}, v, offset, io);
}

int disk_flush(struct disk *d, const struct io *io)
{
	struct span s = span_begin(d, STAT_FLUSH);

	return span_end(s, STAT_FLUSH, 0, d->ops.flush(d, io));
}

static int discard_checked(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct io plain = io_with_flags(io, io->flags & ~(unsigned)IO_FUA);

	if (!length || d->info.discard == DISK_DISCARD_IGNORED)
		return 0;
	if (must_flush(d, io))
		return flush_after(d, d->ops.discard(d, offset, length, &plain), io);
	return d->ops.discard(d, offset, length, io);
}

int disk_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct span s = span_begin(d, STAT_DISCARD);
	int status = check_write(d, STAT_DISCARD, offset, length, io);

	if (!status)
		status = discard_checked(d, offset, length, io);
	return span_end(s, STAT_DISCARD, length, status);
}

static int write_zeroes_checked(struct disk *d, uint64_t offset, uint64_t length,
				const struct io *io)
{
	struct io plain = io_with_flags(io, io->flags & ~(unsigned)IO_FUA);

	if ((io->flags & IO_FAST_ONLY) && !(d->info.flags & DISK_FAST_ZERO))
		return io_fail(io, -EOPNOTSUPP, "%s: no fast zeroing", d->kind);
	if (!length)
		return 0;
	if (must_flush(d, io))
		return flush_after(d, d->ops.write_zeroes(d, offset, length, &plain), io);
	return d->ops.write_zeroes(d, offset, length, io);
}

int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct span s = span_begin(d, STAT_WRITE_ZEROES);
	int status = check_write(d, STAT_WRITE_ZEROES, offset, length, io);

	if (!status)
		status = write_zeroes_checked(d, offset, length, io);
	return span_end(s, STAT_WRITE_ZEROES, length, status);
}

int disk_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct span s = span_begin(d, STAT_EXTENTS);
	uint64_t length = out->end - out->offset;
	int status = check_range(d, STAT_EXTENTS, out->offset, length, io);

	if (!status && length)
		status = d->ops.extents(d, out, io);
	if (!status && out->status)
		status = io_fail(io, out->status, "%s: extents: no memory", d->kind);
	return span_end(s, STAT_EXTENTS, length, status);
}

int disk_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct span s = span_begin(d, STAT_PREFETCH);
	int status = check_range(d, STAT_PREFETCH, offset, length, io);

	if (!status && length)
		status = d->ops.prefetch(d, offset, length, io);
	return span_end(s, STAT_PREFETCH, length, status);
}

void disk_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	uint64_t size = atomic_load_explicit(&d->size, memory_order_relaxed);

	if (offset < size && length && length <= size - offset)
		d->ops.warm(d, offset, length, what);
}

int disk_resize(struct disk *d, uint64_t size, const struct io *io)
{
	CLEANUP_ERROR struct error err = {0};

	if (disk_check_size(size, d->info.block_size, "new size", &err))
		return io_fail(io, err.status, "%s: resize: %s", d->kind, error_text(&err));
	if (d->read_only)
		return io_fail(io, -EROFS, "%s: resize: the disk is read-only", d->kind);
	if (!(d->info.flags & DISK_RESIZABLE))
		return io_fail(io, -EOPNOTSUPP, "%s: the size cannot be changed", d->kind);
	return d->ops.resize(d, size, io);
}

int disk_eject(struct disk *d, const struct io *io)
{
	return d->ops.eject(d, io);
}

int disk_reserve(struct disk *d, const struct reservation_request *request, const struct io *io)
{
	return d->ops.reserve(d, request, io);
}

int disk_report_reservations(struct disk *d, struct reservation_report *report,
			     const struct io *io)
{
	return d->ops.report_reservations(d, report, io);
}

int disk_watch_reservations(struct disk *d, struct reservation_watch *w, bool on)
{
	return d->ops.watch_reservations(d, w, on);
}

int disk_identity(struct disk *d, struct identity *out)
{
	*out = (struct identity){0};
	return d->ops.identity(d, out);
}

/* ------------------------------------------------------------------ facts */

const struct disk_info *disk_info(const struct disk *d)
{
	return &d->info;
}

uint64_t disk_size(const struct disk *d)
{
	return atomic_load_explicit(&d->size, memory_order_relaxed);
}

const char *disk_kind_name(const struct disk *d)
{
	return d->kind;
}

struct disk *disk_child(const struct disk *d, unsigned index)
{
	return index < d->nr_children ? d->children[index] : NULL;
}

void disk_stats(struct disk *d, struct stat_totals *out)
{
	*out = (struct stat_totals){0};
	for (unsigned i = 0; i < STAT_SLOTS; i++) {
		struct stat_slot *slot = atomic_load_explicit(&d->slots[i], memory_order_acquire);
		if (slot)
			stat_slot_sum(slot, out);
	}
}

void disk_measure_latency(struct disk *d, bool on)
{
	atomic_store_explicit(&d->measured, on, memory_order_relaxed);
}

/* ------------------------------------------------------------------ size changes */

/* Stores what `d` is to be now. True when that is a change. */
static bool update_size(struct disk *d, const uint64_t *given)
{
	uint64_t size;
	bool changed;

	pthread_mutex_lock(&d->resize_lock);
	size = given ? *given : d->ops.child_resized(d);
	changed = atomic_exchange_explicit(&d->size, size, memory_order_relaxed) != size;
	pthread_mutex_unlock(&d->resize_lock);
	if (changed)
		wait_signal_raise(&d->resized);
	return changed;
}

/*
 * Each node works its size out anew from its children's under its own lock, after theirs was stored: whatever the
 * order of two changes, the last one to come by sees both.
 */
void disk_set_size(struct disk *d, uint64_t size)
{
	bool changed = update_size(d, &size);

	while (changed && (d = d->parent))
		changed = update_size(d, NULL);
}

/* A time further away than the clock goes is never. */
static uint64_t deadline_after(uint64_t timeout_ns)
{
	uint64_t now = stopwatch_clock();

	return timeout_ns < WAIT_FOREVER - now ? now + timeout_ns : WAIT_FOREVER;
}

int disk_wait_resize(struct disk *d, uint64_t known, uint64_t timeout_ns, uint64_t *size)
{
	unsigned cancels = atomic_load(&d->resize_cancels);
	uint64_t deadline = deadline_after(timeout_ns);

	for (;;) {
		uint32_t seen = wait_signal_count(&d->resized);
		uint64_t left = WAIT_FOREVER;

		*size = disk_size(d);
		if (*size != known)
			return 0;
		if (atomic_load(&d->resize_cancels) != cancels)
			return -ECANCELED;
		if (deadline != WAIT_FOREVER) {
			uint64_t now = stopwatch_clock();
			if (now >= deadline)
				return -ETIMEDOUT;
			left = deadline - now;
		}
		wait_signal_wait(&d->resized, seen, left);
	}
}

void disk_cancel_resize_waits(struct disk *d)
{
	atomic_fetch_add(&d->resize_cancels, 1);
	wait_signal_raise(&d->resized);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Read-modify-write for clients that do not keep to blocks
 *
 * A write whose ends are not on block boundaries reads the edge blocks, puts the client's bytes in and writes whole blocks.
 * Between that read and that write nobody else may change those blocks, or his bytes would be lost. So every operation that
 * changes the disk holds locks over the range: exclusive where it does read-modify-write, shared elsewhere.
 *
 *     region   1 MiB of the disk; region r is guarded by lock r mod 64
 *     order    locks of one request are taken in ascending order of their index, all before the first I/O
 *     held     across the I/O of the request (they are core locks: fibers suspend)
 *
 * Requests that keep to blocks only ever share, so they do not wait for each other. As long as no client has ever left the
 * blocks, which most never do, even that is spared them: they pass through a gate (core/gate.h). The first
 * read-modify-write closes it, which waits for those on their way, and from then on everybody takes locks.
 * Reads take no lock: each block is written whole, so a read sees the old or the new one as far as the disk below keeps blocks
 * whole under a reader (RAM does; the page cache under a file need not).
 */
#include "core/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/gate.h"
#include "core/hot.h"
#include "core/wait.h"

#define REGION_SHIFT 20
#define LOCKS 64u
#define BUFFER_ALIGN 4096

struct region_lock {
	_Alignas(64) struct wait_rwlock lock;
};

struct bytes {
	struct region_lock locks[LOCKS];
	struct gate gate;            /* passed by requests that keep to blocks while `locking` is false */
	_Atomic bool locking;        /* never becomes false again; changes while the gate is closed */
	struct disk *disk;
	uint64_t block_size;
};

int bytes_create(struct disk *disk, struct bytes **out)
{
	struct bytes *b = aligned_alloc(64, sizeof(*b));

	if (!b)
		return -ENOMEM;
	memset(b, 0, sizeof(*b));
	b->disk = disk_ref(disk);
	b->block_size = disk_info(disk)->block_size;
	*out = b;
	return 0;
}

int bytes_destroy(struct bytes *b, struct error *err)
{
	int status = b ? disk_close(b->disk, err) : 0;

	free(b);
	return status;
}

struct disk *bytes_disk(const struct bytes *b)
{
	return b->disk;
}

/* ------------------------------------------------------------------ ranges */

/* A byte range and the whole blocks around it. */
struct range {
	uint64_t offset, end; /* as asked */
	uint64_t first, last; /* widened: [first, last) */
	uint64_t block;       /* bytes */
};

static bool aligned(const struct bytes *b, uint64_t offset, uint64_t length)
{
	return ((offset | length) & (b->block_size - 1)) == 0;
}

/* Something to lock: the disk itself answers to nothing at all, and to what no disk reaches. */
static bool is_range(uint64_t offset, uint64_t length)
{
	return length && offset <= DISK_MAX_END && length <= DISK_MAX_END - offset;
}

/* Widening cannot pass the end: the size of a disk is whole blocks. */
static int widen(const struct bytes *b, uint64_t offset, uint64_t length, struct range *r,
		 const struct io *io)
{
	uint64_t size = disk_size(b->disk), mask = b->block_size - 1;

	if (offset > size || length > size - offset)
		return io_fail(io, -ERANGE,
			       "%" PRIu64 " bytes at %" PRIu64
			       " are outside the disk of %" PRIu64 " bytes",
			       length, offset, size);
	*r = (struct range){
		.offset = offset,
		.end = offset + length,
		.first = offset & ~mask,
		.last = (offset + length + mask) & ~mask,
		.block = b->block_size,
	};
	return 0;
}

static bool has_head(const struct range *r)
{
	return r->offset != r->first;
}

static bool has_tail(const struct range *r)
{
	return r->end != r->last;
}

/* ------------------------------------------------------------------ locks */

/* Bit i: lock i guards a part of [offset, end). */
static uint64_t lock_mask(uint64_t offset, uint64_t end)
{
	uint64_t first = offset >> REGION_SHIFT, last = (end - 1) >> REGION_SHIFT;
	uint64_t mask = 0;

	if (last - first >= LOCKS - 1)
		return UINT64_MAX;
	for (uint64_t region = first; region <= last; region++)
		mask |= UINT64_C(1) << region % LOCKS;
	return mask;
}

/* What a request holds: locks, bits in both masks exclusively; or a place in the gate. */
struct held {
	uint64_t all, exclusive;
	bool passing;
};

static void lock_all(struct bytes *b, struct held h)
{
	for (uint64_t left = h.all; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);
		if (h.exclusive >> i & 1)
			wait_rwlock_lock_exclusive(&b->locks[i].lock);
		else
			wait_rwlock_lock_shared(&b->locks[i].lock);
	}
}

static void unlock_all(struct bytes *b, struct held h)
{
	for (uint64_t left = h.all; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);
		if (h.exclusive >> i & 1)
			wait_rwlock_unlock_exclusive(&b->locks[i].lock);
		else
			wait_rwlock_unlock_shared(&b->locks[i].lock);
	}
}

/* Takes a place in the gate, which is all there is to do as long as everybody keeps to blocks. */
static inline bool pass(struct bytes *b)
{
	if (atomic_load_explicit(&b->locking, memory_order_acquire))
		return false;
	gate_enter(&b->gate);
	if (!atomic_load_explicit(&b->locking, memory_order_acquire))
		return true;
	gate_leave(&b->gate);
	return false;
}

static struct held lock_regions(struct bytes *b, uint64_t offset, uint64_t length)
{
	struct held h = {.all = lock_mask(offset, offset + length)};

	lock_all(b, h);
	return h;
}

static inline struct held lock_shared(struct bytes *b, uint64_t offset, uint64_t length)
{
	if (__builtin_expect(pass(b), 1))
		return (struct held){.passing = true};
	return lock_regions(b, offset, length);
}

static inline void unlock_shared(struct bytes *b, struct held h)
{
	if (__builtin_expect(h.passing, 1))
		gate_leave(&b->gate);
	else
		unlock_all(b, h);
}

/* The first request that does not keep to blocks: once this returns nobody is on his way without locks. */
static void start_locking(struct bytes *b)
{
	if (atomic_load_explicit(&b->locking, memory_order_acquire))
		return;
	gate_close(&b->gate);
	atomic_store_explicit(&b->locking, true, memory_order_release);
	gate_open(&b->gate);
}

/* Exclusive over the edge blocks, shared between them. */
static struct held lock_edges(struct bytes *b, const struct range *r)
{
	struct held h = {.all = lock_mask(r->first, r->last)};

	start_locking(b);
	if (has_head(r))
		h.exclusive |= lock_mask(r->first, r->first + r->block);
	if (has_tail(r))
		h.exclusive |= lock_mask(r->last - r->block, r->last);
	lock_all(b, h);
	return h;
}

/* ------------------------------------------------------------------ reading */

static int read_widened(struct bytes *b, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct range r = {0};
	void *buffer;
	int status = widen(b, offset, v->size, &r, io);

	if (status || !v->size)
		return status;
	if (posix_memalign(&buffer, BUFFER_ALIGN, r.last - r.first))
		return io_fail(io, -ENOMEM, "no memory for an unaligned read");
	status = disk_read(b->disk, &VEC_FLAT(buffer, r.last - r.first), r.first, io);
	if (!status)
		vec_scatter(v, 0, (char *)buffer + (offset - r.first), v->size);
	free(buffer);
	return status;
}

HOT int bytes_read(struct bytes *b, const struct vec *v, uint64_t offset, const struct io *io)
{
	if (aligned(b, offset, v->size))
		return disk_read(b->disk, v, offset, io);
	return read_widened(b, v, offset, io);
}

/* ------------------------------------------------------------------ writing */

/* The edge blocks of a range in one allocation; they are the same block when the range lies in one. */
struct edges {
	char *memory;
	char *head, *tail; /* NULL: that edge is on a block boundary */
};

static int read_edges(struct bytes *b, const struct range *r, struct edges *e, const struct io *io)
{
	bool one = r->last - r->first == r->block;
	void *memory;
	int status = 0;

	if (posix_memalign(&memory, BUFFER_ALIGN, 2 * r->block))
		return io_fail(io, -ENOMEM, "no memory for an unaligned write");
	*e = (struct edges){.memory = memory};
	if (has_head(r) || (one && has_tail(r))) {
		e->head = memory;
		status = disk_read(b->disk, &VEC_FLAT(e->head, r->block), r->first, io);
	}
	if (!status && has_tail(r) && !one) {
		e->tail = e->memory + r->block;
		status = disk_read(b->disk, &VEC_FLAT(e->tail, r->block), r->last - r->block, io);
	}
	if (status)
		free(memory);
	return status;
}

/* Head block, the caller's whole blocks, tail block: one request, no copy but at the edges. */
static int write_around(struct bytes *b, const struct vec *v, const struct range *r,
			const struct edges *e, const struct io *io)
{
	struct iovec *iov = calloc(v->count + 2, sizeof(*iov));
	uint64_t begin = e->head ? r->first + r->block : r->first;
	uint64_t end = e->tail ? r->last - r->block : r->last;
	struct vec middle, whole;
	size_t n = 0, bytes;
	int status;

	if (!iov)
		return io_fail(io, -ENOMEM, "no memory for an unaligned write");
	if (e->head) {
		size_t fill = (r->end < begin ? r->end : begin) - r->offset;
		vec_gather(v, 0, e->head + (r->offset - r->first), fill);
		iov[n++] = (struct iovec){e->head, r->block};
	}
	if (begin < end) {
		middle = vec_slice(v, begin - r->offset, end - begin);
		n += vec_to_iovec(&middle, iov + n, v->count, &bytes);
	}
	if (e->tail) {
		vec_gather(v, end - r->offset, e->tail, r->end - end);
		iov[n++] = (struct iovec){e->tail, r->block};
	}
	whole = vec_whole(iov, n);
	status = disk_write(b->disk, &whole, r->first, io);
	free(iov);
	return status;
}

static int write_widened(struct bytes *b, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct range r = {0};
	struct edges e;
	struct held h;
	int status = widen(b, offset, v->size, &r, io);

	if (status)
		return status;
	if (!v->size) /* still tells a read-only disk */
		return disk_write(b->disk, v, r.first, io);
	h = lock_edges(b, &r);
	status = read_edges(b, &r, &e, io);
	if (!status) {
		status = write_around(b, v, &r, &e, io);
		free(e.memory);
	}
	unlock_all(b, h);
	return status;
}

/* All but whole blocks while everybody keeps to them. */
static __attribute__((noinline)) int write_with_locks(struct bytes *b, const struct vec *v, uint64_t offset,
						      const struct io *io)
{
	struct held h;
	int status;

	if (!aligned(b, offset, v->size))
		return write_widened(b, v, offset, io);
	if (!is_range(offset, v->size))
		return disk_write(b->disk, v, offset, io);
	h = lock_regions(b, offset, v->size);
	status = disk_write(b->disk, v, offset, io);
	unlock_all(b, h);
	return status;
}

HOT int bytes_write(struct bytes *b, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status;

	if (__builtin_expect(!aligned(b, offset, v->size) || !is_range(offset, v->size) || !pass(b), 0))
		return write_with_locks(b, v, offset, io);
	status = disk_write(b->disk, v, offset, io);
	gate_leave(&b->gate);
	return status;
}

int bytes_flush(struct bytes *b, const struct io *io)
{
	return disk_flush(b->disk, io);
}

/* ------------------------------------------------------------------ discard and zero */

int bytes_discard(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io)
{
	struct range r = {0};
	struct held h;
	uint64_t begin, end;
	int status = widen(b, offset, length, &r, io);

	if (status)
		return status;
	begin = has_head(&r) ? r.first + r.block : r.first;
	end = has_tail(&r) ? r.last - r.block : r.last;
	if (begin >= end) /* still tells a read-only disk and is durable if asked */
		return disk_discard(b->disk, r.first, 0, io);
	h = lock_shared(b, begin, end - begin);
	status = disk_discard(b->disk, begin, end - begin, io);
	unlock_shared(b, h);
	return status;
}

static int write_edge(struct bytes *b, char *edge, uint64_t at, uint64_t from, uint64_t to,
		      const struct io *io)
{
	struct io plain = io_with_flags(io, io->flags & IO_FUA);

	if (!edge)
		return 0;
	memset(edge + (from - at), 0, to - from);
	return disk_write(b->disk, &VEC_FLAT(edge, b->block_size), at, &plain);
}

static int zero_around(struct bytes *b, const struct range *r, const struct edges *e,
		       const struct io *io)
{
	uint64_t begin = e->head ? r->first + r->block : r->first;
	uint64_t end = e->tail ? r->last - r->block : r->last;
	int status = write_edge(b, e->head, r->first, r->offset, r->end < begin ? r->end : begin, io);

	if (!status)
		status = write_edge(b, e->tail, end, end, r->end, io);
	if (!status && begin < end)
		status = disk_write_zeroes(b->disk, begin, end - begin, io);
	return status;
}

static int zero_widened(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io)
{
	struct range r = {0};
	struct edges e;
	struct held h;
	int status = widen(b, offset, length, &r, io);

	if (status)
		return status;
	if (!length)
		return disk_write_zeroes(b->disk, r.first, 0, io);
	if (io->flags & IO_FAST_ONLY)
		return io_fail(io, -EOPNOTSUPP, "no fast zeroing of partial blocks");
	h = lock_edges(b, &r);
	status = read_edges(b, &r, &e, io);
	if (!status) {
		status = zero_around(b, &r, &e, io);
		free(e.memory);
	}
	unlock_all(b, h);
	return status;
}

int bytes_write_zeroes(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io)
{
	struct held h;
	int status;

	if (!aligned(b, offset, length))
		return zero_widened(b, offset, length, io);
	if (!is_range(offset, length))
		return disk_write_zeroes(b->disk, offset, length, io);
	h = lock_shared(b, offset, length);
	status = disk_write_zeroes(b->disk, offset, length, io);
	unlock_shared(b, h);
	return status;
}

/* ------------------------------------------------------------------ extents and prefetch */

/* Cuts the blocks' runs to the bytes asked for. */
static void cut_extents(const struct extents *blocks, struct extents *out)
{
	for (size_t i = 0; i < blocks->count; i++) {
		const struct extent *x = &blocks->list[i];
		uint64_t end = x->offset + x->length;
		if (end > extents_next(out) && !extents_add(out, end - extents_next(out), x->flags))
			return;
	}
}

int bytes_extents(struct bytes *b, struct extents *out, const struct io *io)
{
	CLEANUP_EXTENTS struct extents blocks = {0};
	uint64_t length = out->end - out->offset;
	struct range r = {0};
	int status;

	if (aligned(b, out->offset, length))
		return disk_extents(b->disk, out, io);
	status = widen(b, out->offset, length, &r, io);
	if (status)
		return status;
	extents_init(&blocks, r.first, r.last - r.first, out->max);
	status = disk_extents(b->disk, &blocks, io);
	if (!status)
		cut_extents(&blocks, out);
	return status ? status : out->status;
}

int bytes_prefetch(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io)
{
	struct range r = {0};
	int status = widen(b, offset, length, &r, io);

	return status ? status : disk_prefetch(b->disk, r.first, r.last - r.first, io);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mmap: a gold image, which many may use and nobody changes
 *
 * The file is mapped read-only. What is written goes to an anonymous mapping beside it, as large as the disk, of which only
 * what is touched takes memory. A map says for each unit (a page, or a block where blocks are larger) where its bytes are:
 *
 *     FILE     in the file's mapping; nobody has written here, and it was no hole when the disk was opened
 *     ZERO     nowhere: a hole of the file, or zeroed or discarded since
 *     PRIVATE  in the anonymous mapping
 *
 * Why not one mapping with MAP_PRIVATE, whose pages the kernel copies when they are written?
 *   * When the file is shortened the kernel takes the private pages behind its new end away, too, and when it grows again, the
 *     file's bytes stand where the disk's were. Here what was written stays.
 *   * MADV_DONTNEED gives a private page back and lets the file's old bytes reappear. To prevent that, an anonymous page
 *     would have to be mapped over it, and the ranges of a well-discarded disk would use up vm.max_map_count. Here a
 *     discard is MADV_DONTNEED on anonymous memory; there are two mappings whatever happens, and nothing is mapped anew
 *     while others read.
 *   * The kernel reads the file's page in before it copies it. Here a unit that is written whole is not read before.
 *
 *     from     to       by                     what happens
 *     FILE     PRIVATE  a write                of part of a unit: the file's bytes are copied first, without the lock
 *     ZERO     PRIVATE  a write                a unit of ZERO has no memory, or reads as zero
 *     any      ZERO     zeroing, discarding    memory is given back. Of part of a unit: zeroes are written as data; a discard
 *                                              does nothing
 *     not PRIVATE  ZERO     a write of zeroes over all of the unit
 *     none     FILE
 *
 * The map is cut into chunks of 512 units (2 MiB with units of 4 KiB). A slot for each is 0 (all FILE), 1 (all ZERO) or a
 * pointer to two bit maps with a lock; it goes from 0 to 1, or to a pointer, by compare-and-swap, and a pointer stays. So the
 * map takes 8 bytes for each chunk that is touched, and 192 more where a chunk is mixed.
 *
 * Invariants
 *   a chunk's lock protects its bits and the chunk's part of the anonymous mapping: shared to read, exclusive to change. Only
 *     memory is copied under it (and pages given back); the file is not touched, since that can take as long as a disk does.
 *   a unit that is not PRIVATE reads as zero in the anonymous mapping.
 *   FILE is read without a lock: the bytes do not change, and who read FILE a moment ago may give the old bytes.
 *
 * Holes are looked up once, when the disk is opened. So reading a hole touches neither the file nor its mapping, what is
 * zeroed in a hole takes no memory, and extents and reads stand on the same map and cannot disagree. (A file of more than
 * MAX_RUNS pieces: the rest counts as data.)
 *
 * Somebody else's changes of the file show in units of FILE, and in no others; not in former holes either.
 *
 * If the file is shortened, or its storage fails, reading a unit of FILE is an error, and so is writing a part of one.
 * core/safe-copy.h turns the SIGBUS into that. Only the page in which a shortened file now ends raises none: it reads as zero
 * behind the end. So when the last byte of a copy is zero the size is asked for. (Copies are in order; an end before the last
 * page would have raised the signal.)
 *
 * A page that is not in memory makes who touches it wait. On a plain thread that is as good as any way to read. In a fiber it
 * would hold up the whole loop, and nothing tells reliably beforehand whether it will (mincore(2) says yes to those who
 * could not write the file). So fibers read by aio_preadv(), from the same pages of the page cache.
 */
#include "kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file-io.h"
#include "core/aio.h"
#include "core/loop.h"
#include "core/node.h"
#include "core/safe-copy.h"
#include "core/short-lock.h"

#define CHUNK_UNITS 512u
#define CHUNK_WORDS (CHUNK_UNITS / 64)
#define MAX_RUNS (1u << 20)

enum place {
	PLACE_FILE,
	PLACE_ZERO,
	PLACE_PRIVATE,
};

#define SLOT_FILE ((uintptr_t)PLACE_FILE)
#define SLOT_ZERO ((uintptr_t)PLACE_ZERO)

_Static_assert(PLACE_FILE == 0 && PLACE_ZERO == 1, "slots without a pointer are places");

/* FILE: neither bit; ZERO: zero; PRIVATE: private. Never both. */
struct chunk {
	_Alignas(64) struct short_lock lock;
	uint64_t zero[CHUNK_WORDS], private[CHUNK_WORDS];
};

struct mapped {
	struct disk disk;
	int fd;
	char *path;
	bool is_device;
	bool piecewise; /* the private mapping is made accessible chunk by chunk */
	unsigned unit_shift, chunk_shift;
	uint64_t unit;        /* bytes */
	uint64_t size;        /* of the disk and of the file's mapping; never changes */
	const char *base;     /* the file's mapping; NULL: none */
	char *private;        /* the anonymous one; NULL when read-only */
	size_t private_bytes; /* its length */
	_Atomic uintptr_t *slots;
	uint64_t nr_slots;
	_Atomic uint64_t nr_private; /* units */
};

static struct mapped *mapped_of(struct disk *d)
{
	return (struct mapped *)d;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

/* ------------------------------------------------------------------ one chunk */

static inline bool get_bit(const uint64_t *map, unsigned unit)
{
	return map[unit / 64] >> unit % 64 & 1;
}

static inline void put_bit(uint64_t *map, unsigned unit, bool value)
{
	map[unit / 64] = (map[unit / 64] & ~(UINT64_C(1) << unit % 64)) | (uint64_t)value << unit % 64;
}

static enum place place_of(const struct chunk *c, unsigned unit)
{
	if (get_bit(c->private, unit))
		return PLACE_PRIVATE;
	return get_bit(c->zero, unit) ? PLACE_ZERO : PLACE_FILE;
}

static void put_place(struct mapped *m, struct chunk *c, unsigned unit, enum place place)
{
	int change = (place == PLACE_PRIVATE) - get_bit(c->private, unit);

	put_bit(c->zero, unit, place == PLACE_ZERO);
	put_bit(c->private, unit, place == PLACE_PRIVATE);
	if (change)
		atomic_fetch_add_explicit(&m->nr_private, (uint64_t)(int64_t)change, memory_order_relaxed);
}

/* Where the run of units in the same place as `unit` ends, at most at `end`. */
static unsigned run_end(const struct chunk *c, unsigned unit, unsigned end)
{
	uint64_t zero = -(uint64_t)get_bit(c->zero, unit), private = -(uint64_t)get_bit(c->private, unit);

	while (unit < end) {
		unsigned w = unit / 64;
		uint64_t differs = ((c->zero[w] ^ zero) | (c->private[w] ^ private)) >> unit % 64;
		if (differs) {
			unit += (unsigned)__builtin_ctzll(differs);
			break;
		}
		unit = (w + 1) * 64;
	}
	return unit < end ? unit : end;
}

/* ------------------------------------------------------------------ finding chunks */

static uintptr_t slot_at(struct mapped *m, uint64_t offset)
{
	return atomic_load_explicit(&m->slots[offset >> m->chunk_shift], memory_order_acquire);
}

static unsigned unit_in_chunk(const struct mapped *m, uint64_t offset)
{
	return (unsigned)(offset >> m->unit_shift) % CHUNK_UNITS;
}

/* The end of the chunk or of the disk, whichever comes first. */
static uint64_t chunk_end(const struct mapped *m, uint64_t offset)
{
	return min64(((offset >> m->chunk_shift) + 1) << m->chunk_shift, m->size);
}

/* Without overcommitment the kernel promises memory only for what is asked for here. */
static int commit_chunk(struct mapped *m, uint64_t offset)
{
	uint64_t begin = offset >> m->chunk_shift << m->chunk_shift;
	uint64_t length = min64((uint64_t)1 << m->chunk_shift, m->private_bytes - begin);

	if (!m->piecewise)
		return 0;
	return mprotect(m->private + begin, length, PROT_READ | PROT_WRITE) ? -errno : 0;
}

static struct chunk *new_chunk(struct mapped *m, uint64_t offset, uintptr_t before)
{
	struct chunk *c = aligned_alloc(64, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct chunk){0};
	if (before == SLOT_ZERO)
		memset(c->zero, 0xff, sizeof(c->zero));
	if (m->private && commit_chunk(m, offset)) {
		free(c);
		return NULL;
	}
	return c;
}

/* The chunk at `offset` with bit maps of its own; NULL: no memory. */
static struct chunk *find_or_make_chunk(struct mapped *m, uint64_t offset)
{
	_Atomic uintptr_t *slot = &m->slots[offset >> m->chunk_shift];
	uintptr_t value = atomic_load_explicit(slot, memory_order_acquire);

	while (value <= SLOT_ZERO) {
		struct chunk *fresh = new_chunk(m, offset, value);
		if (!fresh)
			return NULL;
		if (atomic_compare_exchange_strong(slot, &value, (uintptr_t)fresh))
			return fresh;
		free(fresh);
	}
	return (struct chunk *)value;
}

/* ------------------------------------------------------------------ the file */

/* Bytes the file has now. */
static uint64_t size_now(const struct mapped *m)
{
	struct stat st;
	uint64_t size = 0;

	if (m->is_device)
		return ioctl(m->fd, BLKGETSIZE64, &size) ? 0 : size;
	return fstat(m->fd, &st) ? 0 : (uint64_t)st.st_size;
}

/* What to say of bytes that could not be read. `status`: what the system said. */
static int fail_file(const struct mapped *m, uint64_t offset, uint64_t length, int status, const struct io *io)
{
	uint64_t size = size_now(m);

	if (size < offset + length)
		return io_fail(io, -EIO,
			       "'%s' was shortened by somebody else: it has %" PRIu64 " bytes, the disk %" PRIu64,
			       m->path, size, m->size);
	return io_fail(io, file_status(status), "'%s': read of %" PRIu64 " bytes at %" PRIu64 ": %s", m->path,
		       length, offset, strerror(-status));
}

/* Can all of the caller's memory be reached? */
static bool is_reachable(const struct vec *v)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes;
	char byte;

	for (size_t at = 0; at < v->size; at += bytes) {
		struct vec rest = vec_slice(v, at, v->size - at);
		struct iovec piece;
		vec_to_iovec(&rest, &piece, 1, &bytes);
		for (size_t i = 0; i < bytes; i += page)
			if (safe_copy(&byte, (const char *)piece.iov_base + i, 1))
				return false;
		if (safe_copy(&byte, (const char *)piece.iov_base + bytes - 1, 1))
			return false;
	}
	return true;
}

/* A copy failed: on the caller's side, or on that of the file, which may be as it was by now. */
static int explain_fault(const struct mapped *m, const struct vec *v, uint64_t offset, const struct io *io)
{
	if (is_reachable(v))
		return fail_file(m, offset, v->size, -EIO, io);
	return io_fail(io, -EFAULT, "'%s': read of %zu bytes at %" PRIu64 ": the memory to read into is gone", m->path,
		       v->size, offset);
}

static int copy_pieces(const struct mapped *m, const struct vec *v, uint64_t offset)
{
	struct iovec iov[16];
	size_t bytes;

	for (size_t done = 0; done < v->size; done += bytes) {
		struct vec rest = vec_slice(v, done, v->size - done);
		size_t n = vec_to_iovec(&rest, iov, 16, &bytes);
		const char *from = m->base + offset + done;
		for (size_t i = 0; i < n; from += iov[i++].iov_len)
			if (safe_copy(iov[i].iov_base, from, iov[i].iov_len))
				return -EFAULT;
	}
	return 0;
}

/* May the file have ended within the last page of what was copied? */
static bool ended_inside(const struct mapped *m, uint64_t end)
{
	char last;

	if (safe_copy(&last, m->base + end - 1, 1))
		return true;
	return !last && size_now(m) < end;
}

static int read_mapping(const struct mapped *m, const struct vec *v, uint64_t offset, const struct io *io)
{
	if (copy_pieces(m, v, offset))
		return explain_fault(m, v, offset, io);
	if (ended_inside(m, offset + v->size))
		return fail_file(m, offset, v->size, -EIO, io);
	return 0;
}

static int read_descriptor(const struct mapped *m, const struct vec *v, uint64_t offset, const struct io *io)
{
	static const struct file_alignment any = {1, 1};
	int status = file_read(m->fd, v, offset, &any);

	return status ? fail_file(m, offset, v->size, status == -ENXIO ? -EIO : status, io) : 0;
}

static int read_file(const struct mapped *m, const struct vec *v, uint64_t offset, const struct io *io)
{
	return loop_current() ? read_descriptor(m, v, offset, io) : read_mapping(m, v, offset, io);
}

/* ------------------------------------------------------------------ reading */

/*
 * The first run of [offset, end), which lies in one chunk: where it is, and with *end where it ends. If it is PRIVATE its
 * bytes were put into `v` (may be NULL) at `at`.
 */
static enum place find_run(struct mapped *m, uint64_t offset, uint64_t *end, const struct vec *v, size_t at)
{
	uintptr_t value = slot_at(m, offset);
	struct chunk *c = (struct chunk *)value;
	unsigned unit = unit_in_chunk(m, offset), last;
	enum place place;

	if (value <= SLOT_ZERO)
		return (enum place)value;
	short_lock_shared(&c->lock);
	place = place_of(c, unit);
	last = run_end(c, unit, unit_in_chunk(m, *end - 1) + 1);
	*end = min64(*end, (offset >> m->chunk_shift << m->chunk_shift) + ((uint64_t)last << m->unit_shift));
	if (v && place == PLACE_PRIVATE)
		vec_scatter(v, at, m->private + offset, *end - offset);
	short_unlock_shared(&c->lock);
	return place;
}

static int mapped_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct mapped *m = mapped_of(d);
	int status = 0;

	for (size_t done = 0; done < v->size && !status;) {
		uint64_t at = offset + done, end = min64(chunk_end(m, at), offset + v->size);
		enum place place = find_run(m, at, &end, v, done);
		if (place == PLACE_FILE) {
			struct vec part = vec_slice(v, done, end - at);
			status = read_file(m, &part, at, io);
		} else if (place == PLACE_ZERO) {
			vec_zero(v, done, end - at);
		}
		done += end - at;
	}
	return status;
}

/* ------------------------------------------------------------------ writing */

static int fail_full(const struct mapped *m, const struct io *io)
{
	return io_fail(io, -ENOSPC, "mmap: '%s': no memory for what is written", m->path);
}

/* Bytes of the disk in the unit at `offset`: the last one may be short. */
static uint64_t unit_length(const struct mapped *m, uint64_t offset)
{
	return min64(m->unit, m->size - offset);
}

/* All of some units in one chunk, under its lock. */
static void write_units(struct mapped *m, struct chunk *c, const struct vec *v, size_t at, uint64_t offset,
			uint64_t length)
{
	while (length) {
		unsigned unit = unit_in_chunk(m, offset);
		uint64_t n = unit_length(m, offset);
		if (get_bit(c->private, unit)) {
			vec_gather(v, at, m->private + offset, n);
		} else if (vec_is_zero(v, at, n)) {
			put_place(m, c, unit, PLACE_ZERO);
		} else {
			vec_gather(v, at, m->private + offset, n);
			put_place(m, c, unit, PLACE_PRIVATE);
		}
		at += n;
		offset += n;
		length -= n;
	}
}

/* A part of one unit, and the bytes of `v` from `at` on that are to be there; NULL: zeroes. */
struct part {
	uint64_t unit_offset; /* where the unit begins */
	uint64_t skip, length;
	const struct vec *v;
	size_t at;
};

static void part_gather(const struct part *p, void *to)
{
	if (p->v)
		vec_gather(p->v, p->at, to, p->length);
	else
		memset(to, 0, p->length);
}

static bool part_is_zero(const struct part *p)
{
	return !p->v || vec_is_zero(p->v, p->at, p->length);
}

/* Under the lock: false when the file's bytes are needed for the rest of the unit. */
static bool put_part(struct mapped *m, struct chunk *c, const struct part *p)
{
	unsigned unit = unit_in_chunk(m, p->unit_offset);
	enum place place = place_of(c, unit);

	if (place == PLACE_FILE)
		return false;
	if (place == PLACE_ZERO && part_is_zero(p))
		return true;
	part_gather(p, m->private + p->unit_offset + p->skip);
	put_place(m, c, unit, PLACE_PRIVATE);
	return true;
}

/* Under the lock: `whole` is what the unit is to be, if it is FILE still. */
static void put_whole(struct mapped *m, struct chunk *c, const struct part *p, const char *whole)
{
	uint64_t n = unit_length(m, p->unit_offset);
	bool zero = memory_is_zero(whole, n);

	if (put_part(m, c, p))
		return;
	if (!zero)
		memcpy(m->private + p->unit_offset, whole, n);
	put_place(m, c, unit_in_chunk(m, p->unit_offset), zero ? PLACE_ZERO : PLACE_PRIVATE);
}

/* `whole` has room for a unit. The caller's bytes, which may change, are looked at once. */
static int copy_up(struct mapped *m, struct chunk *c, const struct part *p, char *whole, const struct io *io)
{
	struct part kept = *p;
	int status = read_file(m, &VEC_FLAT(whole, unit_length(m, p->unit_offset)), p->unit_offset, io);

	if (status)
		return status;
	part_gather(p, whole + p->skip);
	kept.v = &VEC_FLAT(whole + p->skip, p->length);
	kept.at = 0;
	short_lock_exclusive(&c->lock);
	put_whole(m, c, &kept, whole);
	short_unlock_exclusive(&c->lock);
	return 0;
}

/* Writes a part of a unit: bytes of `v` from `at` on, or zeroes if it is NULL. */
static int write_part(struct mapped *m, const struct vec *v, size_t at, uint64_t offset, uint64_t length,
		      const struct io *io)
{
	uint64_t skip = offset & (m->unit - 1);
	struct part p = {.unit_offset = offset - skip, .skip = skip, .length = length, .v = v, .at = at};
	struct chunk *c = find_or_make_chunk(m, offset);
	char *whole;
	bool done;
	int status;

	if (!c)
		return fail_full(m, io);
	short_lock_exclusive(&c->lock);
	done = put_part(m, c, &p);
	short_unlock_exclusive(&c->lock);
	if (done)
		return 0;
	whole = malloc(m->unit);
	status = whole ? copy_up(m, c, &p, whole, io) : fail_full(m, io);
	free(whole);
	return status;
}

/* Splits a change of [offset, end) at the borders of units and chunks: the end of the first piece; *whole: of whole units. */
static uint64_t piece_end(const struct mapped *m, uint64_t offset, uint64_t end, bool *whole)
{
	uint64_t limit = min64(chunk_end(m, offset), end);
	uint64_t last = limit == m->size ? limit : limit & ~(m->unit - 1);

	*whole = !(offset & (m->unit - 1)) && last > offset;
	return *whole ? last : min64(round_up(offset + 1, m->unit), limit);
}

static int write_whole(struct mapped *m, const struct vec *v, size_t at, uint64_t offset, uint64_t length,
		       const struct io *io)
{
	struct chunk *c = find_or_make_chunk(m, offset);

	if (!c)
		return fail_full(m, io);
	short_lock_exclusive(&c->lock);
	write_units(m, c, v, at, offset, length);
	short_unlock_exclusive(&c->lock);
	return 0;
}

static int mapped_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct mapped *m = mapped_of(d);
	int status = 0;

	for (uint64_t done = 0; done < v->size && !status;) {
		uint64_t at = offset + done, end;
		bool whole;
		end = piece_end(m, at, offset + v->size, &whole);
		status = whole ? write_whole(m, v, done, at, end - at, io)
			       : write_part(m, v, done, at, end - at, io);
		done += end - at;
	}
	return status;
}

/* ------------------------------------------------------------------ zero and discard */

/* Gives the memory of PRIVATE units back; what can not be given back is cleared. Under the lock. */
static void drop_private(const struct mapped *m, uint64_t offset, uint64_t length)
{
	if (madvise(m->private + offset, round_up(length, m->unit), MADV_DONTNEED))
		memset(m->private + offset, 0, length);
}

/* All of some units in one chunk, under its lock. */
static void zero_units(struct mapped *m, struct chunk *c, uint64_t offset, uint64_t length)
{
	unsigned unit = unit_in_chunk(m, offset), end = unit_in_chunk(m, offset + length - 1) + 1, next;
	uint64_t chunk = offset >> m->chunk_shift << m->chunk_shift;

	for (; unit < end; unit = next) {
		uint64_t at = chunk + ((uint64_t)unit << m->unit_shift);
		enum place place = place_of(c, unit);
		next = run_end(c, unit, end);
		if (place == PLACE_PRIVATE)
			drop_private(m, at, min64((uint64_t)(next - unit) << m->unit_shift, offset + length - at));
		for (unsigned i = unit; i < next && place != PLACE_ZERO; i++)
			put_place(m, c, i, PLACE_ZERO);
	}
}

/* True when the range is all of its chunk, and that has no bit maps: then it is ZERO now. */
static bool zero_chunk(struct mapped *m, uint64_t offset, uint64_t length)
{
	_Atomic uintptr_t *slot = &m->slots[offset >> m->chunk_shift];
	uintptr_t value = atomic_load_explicit(slot, memory_order_acquire);

	if (offset & (((uint64_t)1 << m->chunk_shift) - 1) || offset + length != chunk_end(m, offset))
		return false;
	return value == SLOT_ZERO ||
	       (value == SLOT_FILE && atomic_compare_exchange_strong(slot, &value, SLOT_ZERO));
}

/* All of some units in one chunk. */
static int zero_whole(struct mapped *m, uint64_t offset, uint64_t length)
{
	struct chunk *c;

	if (slot_at(m, offset) == SLOT_ZERO || zero_chunk(m, offset, length))
		return 0;
	c = find_or_make_chunk(m, offset);
	if (!c)
		return -ENOSPC;
	short_lock_exclusive(&c->lock);
	zero_units(m, c, offset, length);
	short_unlock_exclusive(&c->lock);
	return 0;
}

/* The file would have to be read for the rest of the unit. */
static bool needs_file(struct mapped *m, uint64_t offset)
{
	uint64_t end = chunk_end(m, offset);

	return find_run(m, offset, &end, NULL, 0) == PLACE_FILE;
}

/* -EOPNOTSUPP before anything is changed: only parts of units, at the ends, can be slow. */
static int check_fast(struct mapped *m, uint64_t offset, uint64_t length, const struct io *io)
{
	uint64_t end = offset + length;
	bool slow = (offset & (m->unit - 1)) && needs_file(m, offset);

	if ((end & (m->unit - 1)) && end != m->size)
		slow = slow || needs_file(m, end - 1);
	if (!slow)
		return 0;
	return io_fail(io, -EOPNOTSUPP,
		       "'%s': zeroing of %" PRIu64 " bytes at %" PRIu64 " is not whole units of %" PRIu64
		       " bytes, which would be fast",
		       m->path, length, offset, m->unit);
}

static int mapped_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct mapped *m = mapped_of(d);
	uint64_t end = offset + length, next;
	int status = io->flags & IO_FAST_ONLY ? check_fast(m, offset, length, io) : 0;

	for (; offset < end && !status; offset = next) {
		bool whole;
		next = piece_end(m, offset, end, &whole);
		if (!whole)
			status = write_part(m, NULL, 0, offset, next - offset, io);
		else if (zero_whole(m, offset, next - offset))
			status = fail_full(m, io);
	}
	return status;
}

/* Parts of units are left as they are. */
static int mapped_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct mapped *m = mapped_of(d);
	uint64_t end = offset + length, next;

	for (; offset < end; offset = next) {
		bool whole;
		next = piece_end(m, offset, end, &whole);
		if (whole && zero_whole(m, offset, next - offset))
			return fail_full(m, io);
	}
	return 0;
}

/* ------------------------------------------------------------------ extents and prefetch */

static int mapped_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct mapped *m = mapped_of(d);
	uint64_t offset = out->offset, end;
	bool more = true;

	(void)io;
	for (; offset < out->end && more; offset = end) {
		enum place place;
		end = min64(chunk_end(m, offset), out->end);
		place = find_run(m, offset, &end, NULL, 0);
		more = extents_add(out, end - offset,
				   place == PLACE_ZERO ? EXTENT_ZERO | EXTENT_HOLE : EXTENT_DATA);
	}
	return 0;
}

/* Only what is still in the file is worth it. */
static int mapped_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct mapped *m = mapped_of(d);
	uint64_t last = offset + length, end;

	(void)io;
	for (; offset < last; offset = end) {
		end = min64(chunk_end(m, offset), last);
		if (find_run(m, offset, &end, NULL, 0) == PLACE_FILE)
			posix_fadvise(m->fd, (off_t)offset, (off_t)(end - offset), POSIX_FADV_WILLNEED);
	}
	return 0;
}

/* ------------------------------------------------------------------ looking inside, closing */

static void mapped_describe(struct disk *d, json_t *object)
{
	struct mapped *m = mapped_of(d);
	uint64_t bytes = atomic_load_explicit(&m->nr_private, memory_order_relaxed) << m->unit_shift;

	json_object_set_new(object, "path", json_string_nocheck(m->path));
	json_object_set_new(object, "private_bytes", json_integer((json_int_t)bytes));
}

static int mapped_close(struct disk *d, bool abandoned, struct error *err)
{
	struct mapped *m = mapped_of(d);

	(void)abandoned, (void)err;
	if (m->base)
		munmap((void *)m->base, m->size);
	if (m->private)
		munmap(m->private, m->private_bytes);
	for (uint64_t i = 0; i < m->nr_slots; i++)
		if (m->slots[i] > SLOT_ZERO)
			free((void *)m->slots[i]);
	free((void *)m->slots);
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
	free(m->path);
	return 0;
}

static const struct disk_ops mapped_ops = {
	.read = mapped_read,
	.write = mapped_write,
	.discard = mapped_discard,
	.write_zeroes = mapped_write_zeroes,
	.extents = mapped_extents,
	.prefetch = mapped_prefetch,
	.describe = mapped_describe,
	.close = mapped_close,
};

/* ------------------------------------------------------------------ opening: the file */

struct opening {
	struct mapped *m;
	const struct spec *spec;
	bool read_only;
	struct stat st;
	struct error *err;
};

static int open_descriptor(struct opening *o)
{
	struct mapped *m = o->m;

	m->fd = open(m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us before it is refused */
	if (m->fd < 0)
		return error_set_errno(o->err, -errno, "cannot open '%s'", m->path);
	if (fstat(m->fd, &o->st))
		return error_set_errno(o->err, -errno, "'%s'", m->path);
	if (S_ISDIR(o->st.st_mode))
		return error_set(o->err, -EISDIR, "'%s' is a directory, not a disk image", m->path);
	m->is_device = S_ISBLK(o->st.st_mode);
	if (!m->is_device && !S_ISREG(o->st.st_mode))
		return error_set(o->err, -EINVAL, "'%s' is neither a regular file nor a block device", m->path);
	return 0;
}

static uint32_t choose_block_size(const struct opening *o)
{
	uint32_t block = (uint32_t)spec_number(o->spec, "block");
	int logical;

	if (block)
		return block;
	if (o->m->is_device && !ioctl(o->m->fd, BLKSSZGET, &logical) && logical > (int)DISK_MIN_BLOCK)
		return (uint32_t)logical;
	return DISK_MIN_BLOCK;
}

static int find_size(struct opening *o)
{
	struct mapped *m = o->m;
	uint32_t block = m->disk.info.block_size;

	m->size = size_now(m);
	if (!m->size)
		return error_set(o->err, -EINVAL, "'%s' is empty: a disk has at least one block of %" PRIu32 " bytes",
				 m->path, block);
	if (!(m->size % block))
		return 0;
	error_set(o->err, -EINVAL,
		  "size of '%s', %" PRIu64 " bytes, is not a multiple of the block size, %" PRIu32 " bytes", m->path,
		  m->size, block);
	if (!m->is_device)
		error_hint(o->err, "truncate -s %%%" PRIu32 " FILE rounds it up", block);
	return -EINVAL;
}

static int find_geometry(struct opening *o)
{
	struct mapped *m = o->m;
	struct disk_info *info = &m->disk.info;

	info->block_size = choose_block_size(o);
	m->unit = (uint64_t)sysconf(_SC_PAGESIZE);
	if (info->block_size > m->unit)
		m->unit = info->block_size;
	m->unit_shift = (unsigned)__builtin_ctzll(m->unit);
	m->chunk_shift = m->unit_shift + (unsigned)__builtin_ctz(CHUNK_UNITS);
	info->physical_block_size = info->discard_granularity = (uint32_t)m->unit;
	info->discard = DISK_DISCARD_ZEROES;
	info->flags = DISK_FUA | DISK_FAST_ZERO | (o->read_only ? DISK_READ_ONLY : DISK_VOLATILE);
	return find_size(o);
}

/* ------------------------------------------------------------------ opening: the mappings */

static int fail_mapping(const struct opening *o, const char *what, uint64_t bytes)
{
	int status = -errno;

	error_set_errno(o->err, status, "cannot map %" PRIu64 " bytes %s '%s'", bytes, what, o->m->path);
	if (status == -ENOMEM)
		error_hint(o->err, "the limit is the address space that is left; memdiff:%s does without", o->m->path);
	return status;
}

static int map_file(struct opening *o)
{
	struct mapped *m = o->m;
	void *base = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, m->fd, 0);

	if (base == MAP_FAILED)
		return fail_mapping(o, "of", m->size);
	m->base = base;
	return 0;
}

/*
 * Memory is promised for nothing of it, where the kernel's overcommitment and the limits of the process allow that; else
 * chunk by chunk. Huge pages would take 2 MiB for every page that is written.
 */
static int map_private(struct opening *o)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	struct mapped *m = o->m;
	void *memory;

	if (o->read_only)
		return 0;
	m->private_bytes = round_up(m->size, m->unit);
	memory = mmap(NULL, m->private_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (memory == MAP_FAILED) {
		m->piecewise = true;
		memory = mmap(NULL, m->private_bytes, PROT_NONE, flags, -1, 0);
	}
	if (memory == MAP_FAILED)
		return fail_mapping(o, "for what is written over", m->private_bytes);
	madvise(memory, m->private_bytes, MADV_NOHUGEPAGE);
	m->private = memory;
	return 0;
}

static int make_slots(struct opening *o)
{
	struct mapped *m = o->m;

	m->nr_slots = ((m->size - 1) >> m->chunk_shift) + 1;
	m->slots = calloc(m->nr_slots, sizeof(*m->slots));
	if (m->slots)
		return 0;
	m->nr_slots = 0;
	return error_set(o->err, -ENOMEM, "no memory");
}

/* ------------------------------------------------------------------ opening: the holes */

/* The units that lie in the hole whole. */
static int note_hole(struct opening *o, uint64_t offset, uint64_t end)
{
	struct mapped *m = o->m;
	uint64_t next;
	bool whole;

	offset = min64(round_up(offset, m->unit), end);
	for (; offset < end; offset = next) {
		next = piece_end(m, offset, end, &whole);
		if (whole && zero_whole(m, offset, next - offset))
			return error_set(o->err, -ENOMEM, "no memory");
	}
	return 0;
}

/*
 * The hole at `offset`, which may be empty, ends at *data; the data behind it end where this returns. What the file system
 * cannot tell is data.
 */
static uint64_t next_data(struct opening *o, uint64_t offset, uint64_t *data)
{
	struct mapped *m = o->m;
	off_t found = lseek(m->fd, (off_t)offset, SEEK_DATA), hole = -1;

	*data = offset;
	if (found < 0) {
		if (errno == ENXIO && size_now(m) >= m->size) /* nothing but a hole up to the end of the file */
			*data = m->size;
		return m->size;
	}
	*data = min64((uint64_t)found, m->size);
	if (*data < m->size)
		hole = lseek(m->fd, found, SEEK_HOLE);
	return hole > found ? min64((uint64_t)hole, m->size) : m->size;
}

static int note_holes(struct opening *o)
{
	uint64_t offset = 0, data;
	int status = 0;

	if (o->m->is_device)
		return 0;
	for (unsigned i = 0; offset < o->m->size && i < MAX_RUNS && !status; i++) {
		uint64_t end = next_data(o, offset, &data);
		status = note_hole(o, offset, data);
		offset = end;
	}
	return status;
}

/* ------------------------------------------------------------------ opening */

static int open_steps(struct opening *o)
{
	static int (*const steps[])(struct opening *o) = {
		open_descriptor, find_geometry, map_file, map_private, make_slots, note_holes,
	};
	int status = 0;

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && !status; i++)
		status = steps[i](o);
	return status ? status : disk_publish(&o->m->disk, o->m->size, o->err);
}

static int mapped_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct mapped *m = disk_new(sizeof(*m), "mmap", &mapped_ops, NULL, 0);
	struct opening o = {.m = m, .spec = request->spec, .err = err};
	int status;

	if (!m)
		return error_set(err, -ENOMEM, "no memory");
	m->fd = -1;
	m->path = strdup(spec_text(request->spec, "path"));
	o.read_only = request->flags & OPEN_READ_ONLY;
	status = m->path ? open_steps(&o) : error_set(err, -ENOMEM, "no memory");
	if (status) {
		mapped_close(&m->disk, true, NULL);
		disk_drop_new(&m->disk);
		return status;
	}
	*out = &m->disk;
	return 0;
}

static const struct spec_field mapped_fields[] = {
	{.name = "path",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .required = true,
	 .help = "raw image file or block device, which is never written to"},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_BLOCK,
	 .help = "logical block size, a power of two; default: 512, or that of the device"},
	{0},
};

const struct disk_kind mmap_kind = {
	.name = "mmap",
	.summary = "gold image: changes of a raw file stay in memory",
	.children = KIND_LEAF,
	.fields = mapped_fields,
	.open = mapped_open,
};

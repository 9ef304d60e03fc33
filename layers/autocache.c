/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * autocache: a read cache that outlives the process
 *
 * A layer over a disk that is opened read-only. It keeps what was read in a folder of its own (autocache-store.c) that is
 * found again by a key: what the user says, the disk's id, or the name in its identity. The files are described in
 * docs/formats/autocache.md. In the data file each byte of the disk has its own place; the index has an entry of 8
 * bytes for each unit of 4 KiB (autocache-sum.h), which says what is there and checks it.
 *
 * Why the bytes are right
 *
 *   A cache is of one version of one disk: the header names id, size, block size and identity, and a cache whose header says
 *   anything else is put aside. So all who write to it, whatever threads or processes, write the same bytes to the same
 *   place, and there is only one right content for a unit. Whether it is there is told by the check in the
 *   entry, and it is asked each time, after the bytes have come to the caller's memory. So it does not matter what
 *   happened to the files: a write cut off by a crash, pages lost or come to the disk out of order in a power cut,
 *   a block that another process has evicted, or overwritten by half, a flipped bit in data or index. The check does not
 *   fit, the block is dropped and read from the source. Therefore nothing is ever synced, and no lock is taken
 *   between processes for reading and filling.
 *
 *   state of a unit      entry                        data file
 *   absent               0                            anything
 *   zero                 the one for zeroes           anything: it is not looked at
 *   in part              some sectors marked          those sectors are there
 *   whole                all sectors marked           it is there
 *   lost                 any                          something else: the check tells, it becomes absent
 *
 *   The caller's memory may be a guest's, which changes it meanwhile. Then the check fails for no fault of the cache, so before
 *   a unit is dropped it is read once more into memory of our own.
 *
 *   56 bits of XXH3 tell accidents, not enemies: who can write to the folder can forge its content (it is made for its
 *   owner only).
 *
 * Why the version is right
 *
 *   The identity is taken when the disk is opened, before anything is read. What is filled stays out of the index file until
 *   the identity was looked at again and found the same (every COMMIT_NS while filling, when a page leaves the memory, and at
 *   close). If it is another one then nothing filled since the last look is kept, and until close everything is read from
 *   the source. So no later opening is given what was read from a source that changed. A reader that had
 *   the disk open when its source was changed may see old and new side by side, as with any page cache: that is outside.
 *   A disk without identity (an explicit key is needed then, or an id) is only known by id, size and block size.
 *
 * What goes wrong with the cache never fails a read: it is read from the source, and counted for describe. Filling stops for
 * a while when there is no room, and for good when the source has changed.
 *
 * Not done: write-back, read-ahead, compressing, sharing of one fetch among several who miss the same block.
 */
#include "layers/autocache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/aio.h"
#include "core/kind.h"
#include "kinds.h"

#define RUN_UNITS 256u /* 1 MiB: checked, or filled, at once */
#define MAX_PIECES 64u
#define MIN_SKIP (64 * CHUNK) /* a range that may lead through many chunks; no reader asks for so much at once */
#define COMMIT_NS UINT64_C(5000000000)
#define PAUSE_NS UINT64_C(10000000000)

static struct autocache *cache_of(struct layer *l)
{
	return (struct autocache *)l;
}

/* ------------------------------------------------------------------ what is there */

enum what {
	NOTHING,
	ZERO,
	WHOLE, /* whole units of data */
	PART,  /* some sectors of one unit of data */
};

/* The first run of a range. */
struct sight {
	enum what what;
	uint64_t length; /* bytes */
	unsigned units;
	struct index_page *page; /* of the first unit, where the run lies in one chunk; else NULL */
	uint64_t entries[RUN_UNITS]; /* WHOLE: of all, PART: of the one */
};

/* Lengthens a run of whole units by those that follow in its page, up to the unit `end`. Returns the one after it. */
static uint64_t extend_whole(const struct autocache *c, const struct index_page *page, uint64_t unit, uint64_t end,
			     struct sight *s)
{
	uint64_t first = unit;

	while (unit < end && unit % CHUNK_UNITS && s->units < RUN_UNITS) {
		uint64_t entry = index_entry(page, unit);
		if (entry_sectors(entry) != ALL_SECTORS || sum_says_zero(&c->sums, unit, entry))
			break;
		s->entries[s->units++] = entry;
		unit++;
	}
	s->length += (unit - first) << UNIT_SHIFT;
	return unit;
}

/* What an entry says of the sectors [from, to) of its unit, and *until where. */
static enum what what_of(const struct autocache *c, uint64_t unit, uint64_t entry, unsigned from, unsigned to,
			 unsigned *until)
{
	unsigned sectors = entry_sectors(entry), here = sectors >> from & 1;

	*until = from + 1;
	if (sectors == ALL_SECTORS || !sectors)
		*until = to;
	while (*until < to && (sectors >> *until & 1) == here)
		++*until;
	if (!here)
		return NOTHING;
	if (sum_says_zero(&c->sums, unit, entry))
		return ZERO;
	return sectors == ALL_SECTORS && !from && to == UNIT_SECTORS ? WHOLE : PART;
}

/* Adds what was found in a unit. False when it does not belong to the run, or the run ends with it. */
static bool extend(struct sight *s, enum what what, uint64_t entry, uint64_t length)
{
	if (s->length && (what != s->what || what == PART || s->units == RUN_UNITS))
		return false;
	s->what = what;
	s->length += length;
	if (what >= WHOLE)
		s->entries[s->units++] = entry;
	return what != PART;
}

/* Adds the chunks from `at` on of which nothing is known at all; where they end. */
static uint64_t skip_unknown(struct autocache *c, uint64_t at, uint64_t end, struct sight *s)
{
	uint64_t chunk = at >> CHUNK_SHIFT, next;

	if ((s->length && s->what != NOTHING) || end - at < MIN_SKIP)
		return at;
	next = index_next(&c->index, chunk);
	if (next == chunk)
		return at;
	next = next < end >> CHUNK_SHIFT ? next << CHUNK_SHIFT : end;
	s->what = NOTHING;
	s->length += next - at;
	return next;
}

static void look(struct autocache *c, uint64_t offset, uint64_t length, struct sight *s)
{
	uint64_t end = offset + length;
	struct index_page *page = NULL;
	bool more = true;

	s->length = s->units = 0;
	s->page = NULL;
	for (uint64_t at = offset; at < end && more;) {
		uint64_t unit = at >> UNIT_SHIFT, left = end - (unit << UNIT_SHIFT), entry = 0;
		unsigned from = (at & (UNIT - 1)) >> SECTOR_SHIFT;
		unsigned to = left < UNIT ? (unsigned)left >> SECTOR_SHIFT : UNIT_SECTORS, until;
		enum what what;

		if (at == offset || !(unit % CHUNK_UNITS)) {
			uint64_t next = skip_unknown(c, at, end, s);
			if (next > at) {
				at = next;
				continue;
			}
			page = index_get(&c->index, unit / CHUNK_UNITS);
			if (page)
				index_touch(page, seconds_now());
			s->page = at == offset ? page : NULL;
		}
		if (page)
			entry = index_entry(page, unit);
		what = what_of(c, unit, entry, from, to, &until);
		more = extend(s, what, entry, (uint64_t)(until - from) << SECTOR_SHIFT) && until == UNIT_SECTORS;
		at = (unit << UNIT_SHIFT) + ((uint64_t)until << SECTOR_SHIFT);
		if (more && what == WHOLE)
			at = extend_whole(c, page, unit + 1, end >> UNIT_SHIFT, s) << UNIT_SHIFT;
	}
}

static bool is_off(const struct autocache *c)
{
	return atomic_load_explicit(&c->changed, memory_order_relaxed);
}

/* As look(); before it says that there is nothing it sees whether another process has put something there. */
static void look_well(struct autocache *c, uint64_t offset, uint64_t length, struct sight *s)
{
	look(c, offset, length, s);
	if (s->what == NOTHING && index_refresh(&c->index, offset >> CHUNK_SHIFT))
		look(c, offset, length, s);
}

static struct cache_counts *my_counts(struct autocache *c)
{
	return &c->counts[((uintptr_t)pthread_self() >> 12) % COUNT_CELLS];
}

static void settle(struct autocache *c, struct layer_run *run, enum presence presence, uint64_t length)
{
	struct cache_counts *counts = my_counts(c);

	*run = (struct layer_run){.presence = presence, .length = length};
	count(presence == LAYER_ABSENT ? &counts->missed : &counts->hit, length);
}

/* ------------------------------------------------------------------ reading */

/* Up to `size` bytes of the data file into the beginning of `v`: how many, or a negative errno. */
static ssize_t read_data(struct autocache *c, const struct vec *v, uint64_t offset)
{
	struct iovec iov[MAX_PIECES];
	size_t bytes, n = vec_to_iovec(v, iov, MAX_PIECES, &bytes);
	ssize_t moved = aio_preadv(c->store.data, iov, n, offset, 0);

	if (moved < 0 && moved != -EFAULT)
		count(&c->read_failures, 1);
	return moved;
}

/* The hash of the first unit of `v`, which is not copied where it lies in one piece. */
static uint64_t hash_first(const struct vec *v)
{
	const void *flat = vec_flat(v, 0, UNIT);
	char copy[UNIT];

	if (flat)
		return sum_hash(flat);
	vec_gather(v, 0, copy, UNIT);
	return sum_hash(copy);
}

/* What was read: `got` bytes, for the units of a sight that begin at `unit`. */
struct reading {
	const struct autocache *c;
	const struct sight *s;
	uint64_t unit;
	uint64_t got;
	const char *flat; /* all of it, where it lies in one piece */
	struct vec rest;  /* else what is not checked yet */
};

/* Is unit `i`, the first of the rest, what its entry says? */
static bool check_next(struct reading *r, unsigned i)
{
	uint64_t hash;

	if ((i + 1) * (uint64_t)UNIT > r->got)
		return false;
	if (r->flat) {
		hash = sum_hash(r->flat + i * (size_t)UNIT);
	} else {
		hash = hash_first(&r->rest);
		r->rest = vec_slice(&r->rest, UNIT, r->rest.size - UNIT);
	}
	return r->s->entries[i] == sum_entry(&r->c->sums, r->unit + i, ALL_SECTORS, hash);
}

/* Whether the first unit is good, and how many from there on are as it is. */
static bool check_units(struct reading *r, unsigned *alike)
{
	bool good = check_next(r, 0);
	unsigned i = 1;

	while (i < r->s->units && check_next(r, i) == good)
		i++;
	*alike = i;
	return good;
}

/* One unit into memory of our own, other sectors zeroed. True when it is what the entry says. */
static bool read_unit(struct autocache *c, uint64_t unit, uint64_t entry, char memory[UNIT])
{
	ssize_t n = read_data(c, &VEC_FLAT(memory, UNIT), unit << UNIT_SHIFT);

	if (n < 0)
		return false;
	memset(memory + n, 0, UNIT - (size_t)n);
	sum_clear_others(memory, entry_sectors(entry));
	return entry == sum_entry(&c->sums, unit, entry_sectors(entry), sum_hash(memory));
}

/* The checks of `bad` units from the first on did not fit. Is it the memory they were read to, or the cache? */
static void doubt(struct autocache *c, const struct vec *v, uint64_t unit, const struct sight *s, unsigned bad,
		  struct layer_run *run)
{
	char memory[UNIT];

	if (read_unit(c, unit, s->entries[0], memory)) {
		vec_scatter(v, 0, memory, UNIT);
		settle(c, run, LAYER_DATA, UNIT);
		return;
	}
	index_drop(&c->index, unit, s->entries, bad);
	count(&c->dropped, bad);
	settle(c, run, LAYER_ABSENT, bad * (uint64_t)UNIT);
}

/* The way of what was read before: true when it led to something. */
static bool read_near(struct autocache *c, const struct vec *v, uint64_t offset, const struct sight *s,
		      struct layer_run *run)
{
	char *flat = s->page ? (char *)(uintptr_t)vec_flat(v, 0, s->length) : NULL;
	unsigned units = flat ? map_read(c, s->page, offset >> UNIT_SHIFT, s->units, s->entries, flat) : 0;

	if (units)
		settle(c, run, LAYER_DATA, units * (uint64_t)UNIT);
	return units > 0;
}

static int read_whole(struct autocache *c, const struct vec *v, uint64_t offset, const struct sight *s,
		      struct layer_run *run, const struct io *io)
{
	if (read_near(c, v, offset, s, run))
		return 0;

	struct reading r = {
		.c = c, .s = s, .unit = offset >> UNIT_SHIFT, .rest = vec_slice(v, 0, s->length)};
	ssize_t got = read_data(c, &r.rest, offset);
	unsigned units;

	if (got == -EFAULT)
		return io_fail(io, -EFAULT, "autocache: the memory to read to cannot be reached");
	if (got < 0) {
		settle(c, run, LAYER_ABSENT, s->length);
		return 0;
	}
	if (s->page)
		map_note(s->page, r.unit, s->units);
	r.got = (uint64_t)got;
	r.flat = vec_flat(v, 0, s->length);
	if (check_units(&r, &units))
		settle(c, run, LAYER_DATA, units * (uint64_t)UNIT);
	else
		doubt(c, v, r.unit, s, units, run);
	return 0;
}

static int read_part(struct autocache *c, const struct vec *v, uint64_t offset, const struct sight *s,
		     struct layer_run *run)
{
	uint64_t unit = offset >> UNIT_SHIFT;
	char memory[UNIT];

	if (read_unit(c, unit, s->entries[0], memory)) {
		vec_scatter(v, 0, memory + (offset & (UNIT - 1)), s->length);
		settle(c, run, LAYER_DATA, s->length);
	} else {
		index_drop(&c->index, unit, s->entries, 1);
		count(&c->dropped, 1);
		settle(c, run, LAYER_ABSENT, s->length);
	}
	return 0;
}

static int cache_read(struct layer *l, const struct vec *v, uint64_t offset, struct layer_run *run,
		      const struct io *io)
{
	struct autocache *c = cache_of(l);
	struct sight s;

	if (is_off(c)) {
		settle(c, run, LAYER_ABSENT, v->size);
		return 0;
	}
	look_well(c, offset, v->size, &s);
	if (s.what == WHOLE)
		return read_whole(c, v, offset, &s, run, io);
	if (s.what == PART)
		return read_part(c, v, offset, &s, run);
	settle(c, run, s.what == ZERO ? LAYER_ZERO : LAYER_ABSENT, s.length);
	return 0;
}

static int cache_map(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *run, const struct io *io)
{
	static const enum presence presence[] = {
		[NOTHING] = LAYER_ABSENT, [ZERO] = LAYER_ZERO, [WHOLE] = LAYER_DATA, [PART] = LAYER_DATA};
	struct autocache *c = cache_of(l);
	struct sight s = {.what = NOTHING, .length = length};

	(void)io;
	if (!is_off(c))
		look_well(c, offset, length, &s);
	*run = (struct layer_run){.presence = presence[s.what], .length = s.length};
	return 0;
}

static int cache_prefetch(struct layer *l, uint64_t offset, uint64_t length, const struct io *io)
{
	(void)io;
	posix_fadvise(cache_of(l)->store.data, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
	return 0;
}

/* ------------------------------------------------------------------ filling */

static int write_data(struct autocache *c, const char *memory, size_t size, uint64_t offset)
{
	for (size_t done = 0; done < size;) {
		struct iovec rest = {(void *)(memory + done), size - done};
		ssize_t n = aio_pwritev(c->store.data, &rest, 1, offset + done, 0);
		if (n <= 0)
			return n ? (int)n : -ENOSPC;
		done += (size_t)n;
	}
	count(&c->filled, size);
	count(&c->uncounted, size);
	return 0;
}

/* Writes the runs of sectors that are marked. */
static int write_sectors(struct autocache *c, const char memory[UNIT], unsigned sectors, uint64_t unit)
{
	int status = 0;

	for (unsigned from = 0, to; from < UNIT_SECTORS && !status; from = to) {
		for (to = from; to < UNIT_SECTORS && (sectors >> to & 1);)
			to++;
		if (to > from)
			status = write_data(c, memory + from * SECTOR, (to - from) * SECTOR,
					    (unit << UNIT_SHIFT) + from * SECTOR);
		else
			to++;
	}
	return status;
}

/*
 * Some sectors of a unit, beside those that are there already. Only sectors whose content is known are written, so that
 * nobody's are spoilt who does the same with others at the same time; if both come to set the entry, the second finds it
 * changed and leaves it.
 */
static int fill_part(struct autocache *c, const char *bytes, size_t size, uint64_t offset)
{
	uint64_t unit = offset >> UNIT_SHIFT, old = 0, new;
	unsigned first = (offset & (UNIT - 1)) >> SECTOR_SHIFT, sectors = ((1u << size / SECTOR) - 1) << first;
	struct index_page *page = index_get(&c->index, unit / CHUNK_UNITS);
	char memory[UNIT];
	int status = 0;

	if (!page)
		return -EIO;
	old = index_entry(page, unit);
	if ((entry_sectors(old) & sectors) == sectors)
		return 0;
	if (!entry_sectors(old) || !read_unit(c, unit, old, memory))
		memset(memory, 0, UNIT);
	else
		sectors |= entry_sectors(old);
	memcpy(memory + first * SECTOR, bytes, size);
	new = sum_entry(&c->sums, unit, sectors, sum_hash(memory));
	if (!sum_says_zero(&c->sums, unit, new))
		status = write_sectors(c, memory, sectors, unit);
	if (!status)
		index_replace(&c->index, unit, old, new);
	return status;
}

/* The entries for what is not there yet; 0 for what is. */
static void make_entries(struct autocache *c, const char *bytes, uint64_t unit, unsigned units, uint64_t *entries)
{
	struct index_page *page = NULL;

	for (unsigned i = 0; i < units; i++, bytes += UNIT) {
		uint64_t number = unit + i, hash;
		if (!i || !(number % CHUNK_UNITS))
			page = index_get(&c->index, number / CHUNK_UNITS);
		entries[i] = 0;
		if (!page || entry_sectors(index_entry(page, number)) == ALL_SECTORS)
			continue;
		hash = memory_is_zero(bytes, UNIT) ? c->sums.zero : sum_hash(bytes);
		entries[i] = sum_entry(&c->sums, number, ALL_SECTORS, hash);
	}
}

static bool has_data(const struct autocache *c, uint64_t unit, uint64_t entry)
{
	return entry && !sum_says_zero(&c->sums, unit, entry);
}

/* At most RUN_UNITS whole units. */
static int fill_units(struct autocache *c, const char *bytes, uint64_t unit, unsigned units)
{
	uint64_t entries[RUN_UNITS];
	int status = 0;

	make_entries(c, bytes, unit, units, entries);
	for (unsigned from = 0, to; from < units && !status; from = to) {
		for (to = from; to < units && has_data(c, unit + to, entries[to]);)
			to++;
		if (to > from)
			status = write_data(c, bytes + from * (size_t)UNIT, (to - from) * (size_t)UNIT,
					    (unit + from) << UNIT_SHIFT);
		else
			to++;
	}
	if (!status)
		index_put(&c->index, unit, entries, units);
	return status;
}

static int fill_bytes(struct autocache *c, const char *bytes, size_t size, uint64_t offset)
{
	int status = 0;

	while (size && !status) {
		size_t in_unit = offset & (UNIT - 1), n = UNIT - in_unit;

		if (in_unit || size < UNIT) {
			n = n < size ? n : size;
			status = fill_part(c, bytes, n, offset);
		} else {
			n = size / UNIT < RUN_UNITS ? size / UNIT * UNIT : RUN_UNITS * UNIT;
			status = fill_units(c, bytes, offset >> UNIT_SHIFT, (unsigned)(n / UNIT));
		}
		bytes += n;
		size -= n;
		offset += n;
	}
	return status;
}

/* May something be filled now? */
static bool may_fill(const struct autocache *c)
{
	uint64_t paused = atomic_load_explicit(&c->paused_until_ns, memory_order_relaxed);

	return !c->store.frozen && !is_off(c) && (!paused || wait_now() >= paused);
}

static bool is_full(int status)
{
	return status == -ENOSPC || status == -EDQUOT;
}

static int fill_with_room(struct autocache *c, const char *bytes, size_t size, uint64_t offset)
{
	int status = fill_bytes(c, bytes, size, offset);

	if (is_full(status) && !room_make(c, size))
		status = fill_bytes(c, bytes, size, offset);
	if (!status)
		return 0;
	count(&c->write_failures, 1);
	/* past what a file can be here (EFBIG) nothing is kept; before it everything is */
	if (status != -EFBIG)
		room_pause(c, PAUSE_NS);
	return status;
}

static void commit_now_and_then(struct autocache *c)
{
	uint64_t now = wait_now(), due = atomic_load_explicit(&c->next_commit_ns, memory_order_relaxed);

	if (now < due || !atomic_compare_exchange_strong(&c->next_commit_ns, &due, now + COMMIT_NS))
		return;
	index_commit(&c->index, false);
}

static int fill_flat(struct autocache *c, const char *bytes, size_t size, uint64_t offset)
{
	int status = fill_with_room(c, bytes, size, offset);

	if (atomic_load_explicit(&c->uncounted, memory_order_relaxed) >= room_step(c))
		room_keep(c);
	commit_now_and_then(c);
	return status;
}

static int cache_fill(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct autocache *c = cache_of(l);
	const char *flat = vec_flat(v, 0, v->size);
	char *copy;
	int status;

	(void)io;
	if (!may_fill(c)) {
		count(&c->skipped, v->size);
		return 0;
	}
	if (flat)
		return fill_flat(c, flat, v->size, offset);
	copy = malloc(v->size);
	if (!copy)
		return -ENOMEM;
	vec_gather(v, 0, copy, v->size);
	status = fill_flat(c, copy, v->size, offset);
	free(copy);
	return status;
}

/* ------------------------------------------------------------------ the source */

/* Is the source the one that was opened? */
static bool confirm(void *argument)
{
	struct autocache *c = argument;
	struct identity now;

	if (is_off(c))
		return false;
	if (!c->source)
		return true;
	if (!disk_identity(c->source, &now) && !strcmp(now.name, c->identity.name) &&
	    !strcmp(now.version, c->identity.version))
		return true;
	atomic_store(&c->changed, true);
	return false;
}

/* ------------------------------------------------------------------ looking inside, closing */

static int cache_flush(struct layer *l, const struct io *io)
{
	(void)l;
	(void)io;
	return 0;
}

static uint64_t cache_size(struct layer *l)
{
	return cache_of(l)->size;
}

static const char *state_name(struct autocache *c)
{
	if (is_off(c))
		return "off: the source has changed";
	if (c->store.frozen)
		return "read-only";
	return may_fill(c) ? "filling" : "paused";
}

static void set_number(json_t *object, const char *name, uint64_t n)
{
	json_object_set_new(object, name, json_integer((json_int_t)n));
}

static void describe_counts(struct autocache *c, json_t *object)
{
	uint64_t hit = 0, missed = 0;

	for (unsigned i = 0; i < COUNT_CELLS; i++) {
		hit += atomic_load_explicit(&c->counts[i].hit, memory_order_relaxed);
		missed += atomic_load_explicit(&c->counts[i].missed, memory_order_relaxed);
	}
	set_number(object, "hit_bytes", hit);
	set_number(object, "missed_bytes", missed);
	set_number(object, "filled_bytes", atomic_load(&c->filled));
	set_number(object, "skipped_bytes", atomic_load(&c->skipped));
	set_number(object, "evicted_bytes", atomic_load(&c->evicted));
	set_number(object, "evictions", atomic_load(&c->evictions));
	set_number(object, "caches_removed", atomic_load(&c->caches_removed));
	set_number(object, "dropped_blocks", atomic_load(&c->dropped));
	set_number(object, "failed_reads", atomic_load(&c->read_failures));
	set_number(object, "failed_writes", atomic_load(&c->write_failures));
	set_number(object, "failed_index_pages", atomic_load(&c->index.failures));
}

static void cache_describe(struct layer *l, json_t *object)
{
	struct autocache *c = cache_of(l);
	char folder[PATH_MAX];
	int64_t used;

	snprintf(folder, sizeof(folder), "%s/%s", c->root_path, c->store.name);
	json_object_set_new(object, "folder", json_string(folder));
	json_object_set_new(object, "state", json_string(state_name(c)));
	json_object_set_new(object, "identity", json_string(c->identity.name));
	json_object_set_new(object, "version", json_string(c->identity.version));
	set_number(object, "max_bytes", c->max);
	set_number(object, "cached_bytes", store_usage(c->store.root, c->store.name, &used));
	describe_counts(c, object);
}

/* A cache that cannot be kept is no failure of the disk. */
static int cache_close(struct layer *l, bool abandoned, struct error *err)
{
	struct autocache *c = cache_of(l);

	(void)err;
	if (!abandoned && !c->store.frozen && c->index.sets)
		index_commit(&c->index, true);
	map_close(c);
	index_free(&c->index);
	store_close(&c->store, abandoned);
	free(c->root_path);
	free(c);
	return 0;
}

static const struct layer_ops cache_ops = {
	.read = cache_read,
	.map = cache_map,
	.fill = cache_fill,
	.flush = cache_flush,
	.prefetch = cache_prefetch,
	.size = cache_size,
	.describe = cache_describe,
	.close = cache_close,
};

/* ------------------------------------------------------------------ opening */

struct opening {
	const struct spec *spec;
	struct disk *source;
	struct autocache *c;
	struct store_facts facts;
	char name[CACHE_NAME_MAX];
	struct error *err;
};

static int find_identity(struct opening *o)
{
	int status = disk_identity(o->source, &o->facts.identity);

	if (!status) {
		o->c->identity = o->facts.identity;
		return 0;
	}
	o->facts.identity = (struct identity){0};
	if (status == -EOPNOTSUPP)
		return 0;
	return error_set_errno(o->err, status, "cannot find out the identity of the disk below (%s)",
			       disk_kind_name(o->source));
}

static void name_by_id(struct opening *o)
{
	char digits[2 * sizeof(o->facts.id) + 1];

	for (size_t i = 0; i < sizeof(o->facts.id); i++)
		snprintf(digits + 2 * i, 3, "%02x", o->facts.id[i]);
	cache_name_of_key(digits, o->name);
}

static int choose_name(struct opening *o)
{
	const char *key = spec_text(o->spec, "key");

	if (key && *key) {
		o->facts.key = key;
		cache_name_of_key(key, o->name);
	} else if (o->facts.has_id) {
		name_by_id(o);
	} else if (o->facts.identity.name[0]) {
		cache_name_of_identity(&o->facts.identity, o->name);
	} else {
		error_set(o->err, -EINVAL, "the disk below (%s) has neither an id nor an identity to know it again by",
			  disk_kind_name(o->source));
		return error_hint(o->err, "give a key of your own: autocache:KEY:SPEC, another one for each content");
	}
	return 0;
}

static int take_facts(struct opening *o)
{
	const struct disk_info *info = disk_info(o->source);
	struct store_facts *f = &o->facts;
	int status;

	f->size = o->c->size = disk_size(o->source);
	f->block_size = info->block_size;
	f->has_id = info->flags & DISK_HAS_ID;
	memcpy(f->id, info->id, sizeof(f->id));
	o->c->layer = (struct layer){.ops = &cache_ops, .kind = "autocache", .info = *info};
	o->c->layer.info.flags |= DISK_READ_ONLY;
	o->c->layer.info.flags &= ~(unsigned)(DISK_VOLATILE | DISK_RESIZABLE);
	status = find_identity(o);
	return status ? status : choose_name(o);
}

static int open_root(struct opening *o, int *root)
{
	struct autocache *c = o->c;
	int status = cache_root(spec_text(o->spec, "root"), &c->root_path, o->err);

	if (status)
		return status;
	*root = open(c->root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*root < 0) {
		status = error_set_errno(o->err, -errno, "folder for caches '%s'", c->root_path);
		error_hint(o->err, "PLATTER_AUTO_CACHE_PATH or ;root=PATH names another one");
		return status;
	}
	status = cache_max(spec_number(o->spec, "max"), *root, &c->max, o->err);
	if (status)
		close(*root);
	return status;
}

static int open_steps(struct opening *o)
{
	struct autocache *c = o->c;
	int root, status = take_facts(o);

	if (!status)
		status = open_root(o, &root);
	if (status)
		return status;
	status = store_open(&c->store, root, o->name, &o->facts, o->err);
	if (status)
		return error_prefix(o->err, "folder for caches '%s'", c->root_path);
	sums_init(&c->sums, c->store.nonce);
	atomic_init(&c->uncounted, room_step(c)); /* the first fill sees whether there is too much */
	atomic_init(&c->next_commit_ns, wait_now() + COMMIT_NS);
	status = index_init(&c->index, c->size, c->store.index, c->store.recency, confirm, c);
	if (status)
		store_close(&c->store, true);
	return status ? error_set(o->err, status, "no memory") : 0;
}

static int make_layer(struct opening *o)
{
	int status;

	o->c = aligned_alloc(64, (sizeof(*o->c) + 63) / 64 * 64);
	if (!o->c)
		return error_set(o->err, -ENOMEM, "no memory");
	memset(o->c, 0, sizeof(*o->c));
	status = open_steps(o);
	if (status) {
		free(o->c->root_path);
		free(o->c);
	}
	return status;
}

static int autocache_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct opening o = {.spec = request->spec, .source = request->children[0], .err = err};
	struct layer_place top = {.read_cache = true};
	int status = make_layer(&o);

	if (status)
		return status;
	top.layer = &o.c->layer;
	status = layered_create_over("autocache", &top, o.source, request->flags | OPEN_READ_ONLY, out, err);
	if (status)
		return cache_close(top.layer, true, NULL), status;
	/* where stacks were joined the disk below is no more; but then it had no identity either */
	if (o.facts.identity.name[0] && disk_child(*out, 0) == o.source)
		o.c->source = o.source;
	return 0;
}

static unsigned read_only_below(const struct spec *spec, unsigned index, unsigned flags)
{
	(void)spec;
	(void)index;
	return flags | OPEN_READ_ONLY;
}

static const struct spec_field autocache_fields[] = {
	{.name = "key",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .help = "by what the cache is found again; empty: the disk's id, or else its identity"},
	{.name = "max",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = CACHE_MIN_MAX,
	 .max = DISK_MAX_END,
	 .help = "the most that all caches in the folder may take; default: $PLATTER_AUTO_CACHE_MAX, or a tenth of the "
		 "file system, at most 10G"},
	{.name = "root",
	 .role = SPEC_OPTION,
	 .type = SPEC_TEXT,
	 .help = "the folder for caches; default: $PLATTER_AUTO_CACHE_PATH, or platter in the user's cache folder"},
	{0},
};

const struct disk_kind autocache_kind = {
	.name = "autocache",
	.summary = "persistent read cache of a disk, chosen by the disk's id or identity",
	.children = KIND_WRAPS,
	.fields = autocache_fields,
	.child_flags = read_only_below,
	.open = autocache_open,
};

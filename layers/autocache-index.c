/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The index in memory
 *
 * Pages live in sets of eight, chosen by the chunk's number, so that the memory they take is bounded; a disk with no more chunks
 * than there are pages never has two that want the same. Looking up takes no lock. Putting in takes the set's.
 *
 *   tag       0, then chunk + 1 once the entries are in place. It is 0 while they are exchanged: a reader who found the page
 *             before that sees entries of either chunk, and finds out by their checks
 *   dirty     entries the file does not have yet. They are written in runs, one by one dirty, so that what another process wrote
 *             beside them stays. Who wins where both wrote the same entry does not matter: it is right either way
 *
 * What is put in is used at once, but written down only after the source was found to be still the one that was opened:
 * what is to be written is copied, the source is looked at, then the copy is written. So what was read from a source that
 * changed meanwhile never comes to the file.
 */
#include "layers/autocache-index.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/aio.h"

#define REFRESH_NS UINT64_C(1000000000)
#define STORE_USED_AFTER 60u /* s */

int index_init(struct index *x, uint64_t size, int fd, int recency, index_confirm *confirm, void *argument)
{
	uint64_t chunks = (size + CHUNK - 1) >> CHUNK_SHIFT, sets = 1;

	while (sets * INDEX_WAYS < chunks && sets * INDEX_WAYS < INDEX_MAX_PAGES)
		sets *= 2;
	*x = (struct index){.mask = sets - 1, .fd = fd, .recency = recency, .confirm = confirm, .argument = argument};
	x->sets = calloc(sets, sizeof(*x->sets));
	return x->sets ? 0 : -ENOMEM;
}

void index_free(struct index *x)
{
	for (uint64_t i = 0; x->sets && i <= x->mask; i++)
		for (unsigned way = 0; way < INDEX_WAYS; way++)
			free((void *)x->sets[i].pages[way].entries);
	free(x->sets);
	x->sets = NULL;
}

static struct index_set *set_of(struct index *x, uint64_t chunk)
{
	return &x->sets[chunk & x->mask];
}

static struct index_page *find(struct index_set *s, uint64_t chunk)
{
	for (unsigned i = 0; i < INDEX_WAYS; i++)
		if (atomic_load_explicit(&s->tags[i], memory_order_acquire) == chunk + 1)
			return &s->pages[i];
	return NULL;
}

/* ------------------------------------------------------------------ from the file */

/* All of `size` bytes; what lies past the end of the file is zero. */
static int read_zero_padded(int fd, void *memory, size_t size, uint64_t offset)
{
	for (size_t done = 0; done < size;) {
		struct iovec rest = {(char *)memory + done, size - done};
		ssize_t n = aio_preadv(fd, &rest, 1, offset + done, 0);
		if (n < 0)
			return (int)n;
		if (!n) {
			memset(rest.iov_base, 0, rest.iov_len);
			break;
		}
		done += (size_t)n;
	}
	return 0;
}

static int read_page(struct index *x, uint64_t chunk, uint64_t entries[CHUNK_UNITS])
{
	int status = read_zero_padded(x->fd, entries, PAGE_BYTES, chunk * PAGE_BYTES);

	for (unsigned i = 0; i < CHUNK_UNITS && !status; i++)
		entries[i] = le64toh(entries[i]);
	if (status)
		atomic_fetch_add_explicit(&x->failures, 1, memory_order_relaxed);
	return status;
}

static uint32_t read_used(struct index *x, uint64_t chunk)
{
	uint32_t used = 0;

	if (x->recency < 0 || read_zero_padded(x->recency, &used, sizeof(used), chunk * sizeof(used)))
		return 0;
	return le32toh(used);
}

/* ------------------------------------------------------------------ to the file */

/* What is to be written of a page. */
struct copy {
	uint64_t chunk;
	uint64_t dirty[DIRTY_WORDS];
	uint64_t entries[CHUNK_UNITS];
};

static bool is_dirty(const uint64_t *dirty, unsigned i)
{
	return dirty[i / 64] >> (i % 64) & 1;
}

/* The page has nothing more to write then. */
static void take_copy(struct index_page *p, uint64_t chunk, struct copy *c)
{
	c->chunk = chunk;
	memcpy(c->dirty, p->dirty, sizeof(c->dirty));
	for (unsigned i = 0; i < CHUNK_UNITS; i++)
		c->entries[i] = htole64(atomic_load_explicit(&p->entries[i], memory_order_relaxed));
	memset(p->dirty, 0, sizeof(p->dirty));
	p->any_dirty = false;
}

static int write_run(struct index *x, const struct copy *c, unsigned from, unsigned to)
{
	struct iovec run = {(void *)(c->entries + from), (to - from) * 8u};
	ssize_t n = aio_pwritev(x->fd, &run, 1, c->chunk * PAGE_BYTES + from * 8u, 0);

	return n < 0 ? (int)n : 0; /* a part of it does no harm: the rest is filled again some time */
}

static void write_copy(struct index *x, const struct copy *c)
{
	int status = 0;

	for (unsigned from = 0, to; from < CHUNK_UNITS && !status; from = to) {
		while (from < CHUNK_UNITS && !is_dirty(c->dirty, from))
			from++;
		for (to = from; to < CHUNK_UNITS && is_dirty(c->dirty, to);)
			to++;
		if (from < to)
			status = write_run(x, c, from, to);
	}
	if (status)
		atomic_fetch_add_explicit(&x->failures, 1, memory_order_relaxed);
}

static void write_used(struct index *x, uint64_t chunk, struct index_page *p)
{
	uint32_t used = atomic_load_explicit(&p->used, memory_order_relaxed), stored = htole32(used);
	struct iovec iov = {&stored, sizeof(stored)};

	p->used_stored = used;
	if (x->recency >= 0)
		aio_pwritev(x->recency, &iov, 1, chunk * sizeof(stored), 0);
}

/* ------------------------------------------------------------------ pages come and go */

/* Under the set's lock. The way that is free, or else was not used for the longest time. */
static unsigned choose_way(struct index_set *s)
{
	unsigned best = 0;

	for (unsigned i = 0; i < INDEX_WAYS; i++) {
		if (!atomic_load_explicit(&s->tags[i], memory_order_relaxed))
			return i;
		if (atomic_load_explicit(&s->pages[i].used, memory_order_relaxed) <
		    atomic_load_explicit(&s->pages[best].used, memory_order_relaxed))
			best = i;
	}
	return best;
}

/* Under the set's lock: writes down what a page has to be remembered of, and frees the way. */
static void give_up(struct index *x, struct index_set *s, unsigned way)
{
	struct index_page *p = &s->pages[way];
	uint64_t tag = atomic_load_explicit(&s->tags[way], memory_order_relaxed);
	struct copy c;

	if (!tag)
		return;
	if (p->any_dirty) {
		take_copy(p, tag - 1, &c);
		if (x->confirm(x->argument))
			write_copy(x, &c);
	}
	if (atomic_load_explicit(&p->used, memory_order_relaxed) != p->used_stored)
		write_used(x, tag - 1, p);
	atomic_store_explicit(&s->tags[way], 0, memory_order_release);
}

/* Under the set's lock. */
static struct index_page *load(struct index *x, struct index_set *s, uint64_t chunk)
{
	unsigned way = choose_way(s);
	struct index_page *p = &s->pages[way];
	uint64_t entries[CHUNK_UNITS];

	give_up(x, s, way);
	if (!p->entries)
		p->entries = calloc(CHUNK_UNITS, sizeof(*p->entries));
	if (!p->entries || read_page(x, chunk, entries))
		return NULL;
	for (unsigned i = 0; i < CHUNK_UNITS; i++)
		atomic_store_explicit(&p->entries[i], entries[i], memory_order_relaxed);
	for (unsigned i = 0; i < CHUNK_UNITS / 64; i++)
		atomic_store_explicit(&p->near[i], 0, memory_order_relaxed);
	p->loaded_ns = wait_now();
	p->used_stored = read_used(x, chunk);
	atomic_store_explicit(&p->used, p->used_stored, memory_order_relaxed);
	atomic_store_explicit(&s->tags[way], chunk + 1, memory_order_release);
	return p;
}

static __attribute__((noinline)) struct index_page *get_slowly(struct index *x, uint64_t chunk)
{
	struct index_set *s = set_of(x, chunk);
	struct index_page *p;

	wait_mutex_lock(&s->lock);
	p = find(s, chunk);
	if (!p)
		p = load(x, s, chunk);
	wait_mutex_unlock(&s->lock);
	return p;
}

struct index_page *index_get(struct index *x, uint64_t chunk)
{
	struct index_page *p = find(set_of(x, chunk), chunk);

	return p ? p : get_slowly(x, chunk);
}

/* ------------------------------------------------------------------ long ranges of nothing */

#define WORTH_SKIPPING 64u /* chunks: to look through all pages in memory takes longer than to look at some */

static uint64_t next_in_file(struct index *x, uint64_t chunk)
{
	struct stat st;
	off_t at;

	if (fstat(x->fd, &st))
		return chunk;
	if (chunk * PAGE_BYTES >= (uint64_t)st.st_size)
		return UINT64_MAX;
	at = lseek(x->fd, (off_t)(chunk * PAGE_BYTES), SEEK_DATA);
	if (at < 0)
		return errno == ENXIO ? UINT64_MAX : chunk;
	return (uint64_t)at / PAGE_BYTES;
}

/* What is in memory may not have come to the file yet. */
static uint64_t next_in_memory(struct index *x, uint64_t chunk)
{
	uint64_t next = UINT64_MAX;

	for (uint64_t i = 0; i <= x->mask; i++)
		for (unsigned way = 0; way < INDEX_WAYS; way++) {
			uint64_t tag = atomic_load_explicit(&x->sets[i].tags[way], memory_order_acquire);
			if (tag > chunk && tag - 1 < next)
				next = tag - 1;
		}
	return next;
}

/* Memory second: what leaves it in between has come to the file, or is lost, which is as if it had not been there. */
uint64_t index_next(struct index *x, uint64_t chunk)
{
	uint64_t file = next_in_file(x, chunk), memory;

	if (file - chunk < WORTH_SKIPPING)
		return chunk;
	memory = next_in_memory(x, chunk);
	return memory < file ? memory : file;
}

/* ------------------------------------------------------------------ what others wrote */

/* Under the set's lock. */
static bool merge(struct index *x, struct index_page *p, uint64_t chunk)
{
	uint64_t entries[CHUNK_UNITS];
	bool news = false;

	p->loaded_ns = wait_now();
	if (read_page(x, chunk, entries))
		return false;
	for (unsigned i = 0; i < CHUNK_UNITS; i++) {
		if (!entries[i] || atomic_load_explicit(&p->entries[i], memory_order_relaxed))
			continue;
		atomic_store_explicit(&p->entries[i], entries[i], memory_order_release);
		news = true;
	}
	return news;
}

bool index_refresh(struct index *x, uint64_t chunk)
{
	struct index_set *s = set_of(x, chunk);
	struct index_page *p;
	bool news = false;

	wait_mutex_lock(&s->lock);
	p = find(s, chunk);
	if (p && wait_now() - p->loaded_ns > REFRESH_NS)
		news = merge(x, p, chunk);
	wait_mutex_unlock(&s->lock);
	return news;
}

/* ------------------------------------------------------------------ changing entries */

/* Under the set's lock. */
static void set_entry(struct index_page *p, uint64_t unit, uint64_t entry)
{
	unsigned i = unit % CHUNK_UNITS;

	atomic_store_explicit(&p->entries[i], entry, memory_order_release);
	p->dirty[i / 64] |= UINT64_C(1) << (i % 64);
	p->any_dirty = true;
}

typedef void change_function(struct index_page *p, uint64_t unit, const uint64_t *entries, unsigned count);

/* Calls `change` for the part of the units in each chunk, under the lock of its set. */
static void for_each_page(struct index *x, uint64_t unit, const uint64_t *entries, unsigned count, bool make,
			  change_function *change)
{
	while (count) {
		uint64_t chunk = unit / CHUNK_UNITS;
		unsigned n = CHUNK_UNITS - (unsigned)(unit % CHUNK_UNITS);
		struct index_set *s = set_of(x, chunk);
		struct index_page *p;

		n = n < count ? n : count;
		wait_mutex_lock(&s->lock);
		p = find(s, chunk);
		if (!p && make)
			p = load(x, s, chunk);
		if (p)
			change(p, unit, entries, n);
		wait_mutex_unlock(&s->lock);
		unit += n;
		entries += n;
		count -= n;
	}
}

static void put(struct index_page *p, uint64_t unit, const uint64_t *entries, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t old = index_entry(p, unit + i);
		if (entries[i] && entries[i] != old && !(entry_sectors(old) & ~entry_sectors(entries[i])))
			set_entry(p, unit + i, entries[i]);
	}
}

void index_put(struct index *x, uint64_t unit, const uint64_t *entries, unsigned count)
{
	for_each_page(x, unit, entries, count, true, put);
}

/* entries[0]: what must be there, entries[1]: what then is. */
static void replace(struct index_page *p, uint64_t unit, const uint64_t *entries, unsigned count)
{
	(void)count;
	if (index_entry(p, unit) == entries[0])
		set_entry(p, unit, entries[1]);
}

void index_replace(struct index *x, uint64_t unit, uint64_t old, uint64_t entry)
{
	const uint64_t both[2] = {old, entry};

	for_each_page(x, unit, both, 1, true, replace);
}

/* Not dirty: the file may have a good one by now, and a bad one there is found out by the next who uses it. */
static void drop(struct index_page *p, uint64_t unit, const uint64_t *entries, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned at = (unit + i) % CHUNK_UNITS;
		if (index_entry(p, unit + i) != entries[i])
			continue;
		atomic_store_explicit(&p->entries[at], 0, memory_order_release);
		p->dirty[at / 64] &= ~(UINT64_C(1) << (at % 64));
	}
}

void index_drop(struct index *x, uint64_t unit, const uint64_t *entries, unsigned count)
{
	for_each_page(x, unit, entries, count, false, drop);
}

void index_forget(struct index *x, uint64_t chunk)
{
	struct index_set *s = set_of(x, chunk);
	struct index_page *p;

	wait_mutex_lock(&s->lock);
	p = find(s, chunk);
	for (unsigned i = 0; p && i < CHUNK_UNITS; i++)
		atomic_store_explicit(&p->entries[i], 0, memory_order_relaxed);
	if (p) {
		memset(p->dirty, 0, sizeof(p->dirty));
		p->any_dirty = false;
	}
	wait_mutex_unlock(&s->lock);
}

uint32_t index_used(struct index *x, uint64_t chunk)
{
	struct index_page *p = find(set_of(x, chunk), chunk);
	uint32_t stored = read_used(x, chunk), used = p ? atomic_load_explicit(&p->used, memory_order_relaxed) : 0;

	return used > stored ? used : stored;
}

/* ------------------------------------------------------------------ committing */

#define BATCH 64u /* pages that are looked at the source for once */

struct batch {
	unsigned count;
	struct copy copies[BATCH];
};

/* False when the source was found changed. */
static bool write_batch(struct index *x, struct batch *b)
{
	if (!b->count)
		return true;
	if (!x->confirm(x->argument))
		return false;
	for (unsigned i = 0; i < b->count; i++)
		write_copy(x, &b->copies[i]);
	b->count = 0;
	return true;
}

static void commit_page(struct index *x, struct index_set *s, unsigned way, bool all, struct batch *b)
{
	struct index_page *p = &s->pages[way];
	uint64_t tag = atomic_load_explicit(&s->tags[way], memory_order_relaxed);
	uint32_t used = atomic_load_explicit(&p->used, memory_order_relaxed);

	if (!tag)
		return;
	if (p->any_dirty)
		take_copy(p, tag - 1, &b->copies[b->count++]);
	if (used != p->used_stored && (all || used - p->used_stored >= STORE_USED_AFTER))
		write_used(x, tag - 1, p);
}

/* All sets; goes on with what is used when the source has changed. */
static bool commit_sets(struct index *x, bool all, struct batch *b)
{
	bool good = true;

	for (uint64_t i = 0; i <= x->mask && good; i++) {
		struct index_set *s = &x->sets[i];
		if (b->count + INDEX_WAYS > BATCH)
			good = write_batch(x, b);
		wait_mutex_lock(&s->lock);
		for (unsigned way = 0; way < INDEX_WAYS && good; way++)
			commit_page(x, s, way, all, b);
		wait_mutex_unlock(&s->lock);
	}
	return good && write_batch(x, b);
}

bool index_commit(struct index *x, bool all)
{
	struct batch *b = malloc(sizeof(*b));
	bool good;

	if (!b)
		return true; /* some other time */
	b->count = 0;
	wait_mutex_lock(&x->committing);
	good = commit_sets(x, all, b);
	wait_mutex_unlock(&x->committing);
	free(b);
	return good;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Room for caches
 *
 * What the caches of a root take is asked of the file system (st_blocks), not kept in a book that a crash could make wrong. It is
 * asked again after every so many bytes filled. If it is too much, or the file system is full, one process at a time (the
 * root's lock) gives back:
 *
 *   1. what is left of caches that were put aside, or never finished
 *   2. whole caches that nobody has open, the one first that was not opened or closed for the longest time
 *   3. chunks of this cache (2 MiB of the disk), those first that were not used for the longest time: the entries are
 *      forgotten, then cleared in the file, then the data is punched out. Whoever still believes in an entry finds
 *      zeroes and a check that does not fit
 *
 * In a large cache not all chunks are looked at for 3, but SAMPLE of them from where the last look ended: the clock's hand.
 * Caches that other processes have open are left to these.
 */
#include "layers/autocache.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/aio.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define SAMPLE 16384u
#define MIN_STEP (UINT64_C(64) << 10)
#define MAX_STEP (UINT64_C(64) << 20)
#define SHORT_PAUSE_NS UINT64_C(200000000)
#define LONG_PAUSE_NS UINT64_C(10000000000)

/* Something that can be given back. */
struct unused_cache {
	char name[CACHE_NAME_MAX];
	int64_t used;
};

struct used_chunk {
	uint64_t chunk;
	uint32_t used;
};

/* One round of giving back. */
struct round {
	struct autocache *c;
	bool full;       /* the file system is, not only the root */
	uint64_t wanted; /* bytes, when it is full */
	uint64_t usage;  /* of all caches */
	uint64_t goal;   /* bytes to give back */
	int lock;        /* of the root */
	struct used_chunk *chunks;
	size_t nr_chunks;
};

uint64_t room_step(const struct autocache *c)
{
	uint64_t step = c->max / 64;

	return step < MIN_STEP ? MIN_STEP : step > MAX_STEP ? MAX_STEP : step;
}

void room_pause(struct autocache *c, uint64_t ns)
{
	atomic_store_explicit(&c->paused_until_ns, wait_now() + ns, memory_order_relaxed);
}

/* ------------------------------------------------------------------ summing up, removing whole caches */

struct sum_up {
	struct round *r;
	struct unused_cache *others;
	size_t nr_others, room;
	uint64_t usage;
};

static void remember_other(struct sum_up *s, const char *name, int64_t used)
{
	if (s->nr_others == s->room) {
		size_t room = s->room ? 2 * s->room : 16;
		struct unused_cache *more = reallocarray(s->others, room, sizeof(*more));
		if (!more)
			return;
		s->others = more;
		s->room = room;
	}
	strcpy(s->others[s->nr_others].name, name);
	s->others[s->nr_others++].used = used;
}

static bool sum_up_one(void *argument, const char *name)
{
	struct sum_up *s = argument;
	struct store *store = &s->r->c->store;
	int64_t used;

	if (!cache_name_is(name) && !cache_name_is_temporary(name))
		return true;
	s->usage += store_usage(store->root, name, &used);
	if (cache_name_is(name) && !store_is(store, name))
		remember_other(s, name, used);
	return true;
}

static int compare_caches(const void *a, const void *b)
{
	const struct unused_cache *x = a, *y = b;

	return (x->used > y->used) - (x->used < y->used);
}

static void give_back(struct round *r, uint64_t bytes)
{
	r->goal -= bytes < r->goal ? bytes : r->goal;
}

static void remove_others(struct round *r, struct sum_up *s)
{
	int root = r->c->store.root;
	int64_t used;

	if (s->nr_others)
		qsort(s->others, s->nr_others, sizeof(*s->others), compare_caches);
	for (size_t i = 0; i < s->nr_others && r->goal; i++) {
		uint64_t bytes = store_usage(root, s->others[i].name, &used);
		if (!store_remove_unused(root, s->others[i].name))
			continue;
		give_back(r, bytes);
		count(&r->c->caches_removed, 1);
		count(&r->c->evicted, bytes);
	}
}

static uint64_t sum_up(struct sum_up *s)
{
	s->usage = 0;
	s->nr_others = 0;
	store_list(s->r->c->store.root, sum_up_one, s);
	return s->usage;
}

/* Below the maximum some room is left, so that it is not met again at once. */
static void set_goal(struct round *r)
{
	uint64_t max = r->c->max;

	if (r->full)
		r->goal = r->wanted > r->usage / 16 ? r->wanted : r->usage / 16;
	else
		r->goal = r->usage > max ? r->usage - (max - max / 16) : 0;
}

/* ------------------------------------------------------------------ choosing chunks */

/* The first chunk from `chunk` on of which the file holds something; UINT64_MAX: none. */
static uint64_t next_chunk(int fd, uint64_t chunk, uint64_t bytes_per_chunk)
{
	off_t at;

	if (chunk > INT64_MAX / bytes_per_chunk)
		return UINT64_MAX;
	at = lseek(fd, (off_t)(chunk * bytes_per_chunk), SEEK_DATA);
	if (at < 0)
		return UINT64_MAX;
	return (uint64_t)at / bytes_per_chunk;
}

static void sample_range(struct round *r, uint64_t from, uint64_t to)
{
	const struct store *s = &r->c->store;

	while (r->nr_chunks < SAMPLE) {
		uint64_t data = next_chunk(s->data, from, CHUNK), index = next_chunk(s->index, from, PAGE_BYTES);
		uint64_t chunk = data < index ? data : index;
		if (chunk >= to)
			break;
		r->chunks[r->nr_chunks++].chunk = chunk;
		from = chunk + 1;
		r->c->hand = from;
	}
}

/* From the hand on, and round. */
static int sample(struct round *r)
{
	uint64_t hand = r->c->hand;

	r->chunks = reallocarray(NULL, SAMPLE, sizeof(*r->chunks));
	if (!r->chunks)
		return -ENOMEM;
	sample_range(r, hand, UINT64_MAX);
	if (r->nr_chunks < SAMPLE) {
		r->c->hand = 0;
		sample_range(r, 0, hand);
	}
	return 0;
}

/* What may wait for the disk, but not for fibers: called by aio_offload(). */
static int survey(void *argument)
{
	struct round *r = argument;
	struct sum_up s = {.r = r};
	int status = 0;

	r->usage = sum_up(&s);
	set_goal(r);
	if (r->goal) {
		r->lock = store_lock_root(r->c->store.root, 0);
		status = r->lock < 0 ? r->lock : 0;
	}
	if (r->goal && !status) {
		store_sweep(r->c->store.root);
		give_back(r, r->usage - sum_up(&s));
		remove_others(r, &s);
	}
	free(s.others);
	if (r->goal && !status)
		status = sample(r);
	return status;
}

/* ------------------------------------------------------------------ giving chunks back */

static uint64_t allocated(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static uint64_t own_usage(const struct store *s)
{
	return allocated(s->data) + allocated(s->index);
}

static int compare_chunks(const void *a, const void *b)
{
	const struct used_chunk *x = a, *y = b;

	if (x->used != y->used)
		return x->used < y->used ? -1 : 1;
	return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

static int evict_chunk(struct autocache *c, uint64_t chunk)
{
	int status;

	index_forget(&c->index, chunk);
	status = aio_fallocate(c->store.index, PUNCH, chunk * PAGE_BYTES, PAGE_BYTES);
	return status ? status : aio_fallocate(c->store.data, PUNCH, chunk << CHUNK_SHIFT, CHUNK);
}

/* For file systems that cannot punch. */
static int evict_everything(struct round *r)
{
	struct autocache *c = r->c;

	for (size_t i = 0; i < r->nr_chunks; i++)
		index_forget(&c->index, r->chunks[i].chunk);
	if (ftruncate(c->store.index, 0) || ftruncate(c->store.data, 0))
		return -errno;
	return 0;
}

static int evict_oldest(struct round *r)
{
	struct autocache *c = r->c;
	uint64_t before = own_usage(&c->store), now = before;
	int status = 0;

	for (size_t i = 0; i < r->nr_chunks; i++)
		r->chunks[i].used = index_used(&c->index, r->chunks[i].chunk);
	qsort(r->chunks, r->nr_chunks, sizeof(*r->chunks), compare_chunks);
	for (size_t i = 0; i < r->nr_chunks && r->goal && !status; i++) {
		uint64_t last = now;
		status = evict_chunk(c, r->chunks[i].chunk);
		now = own_usage(&c->store);
		give_back(r, last > now ? last - now : 0);
	}
	if (status == -EOPNOTSUPP) {
		status = evict_everything(r);
		now = own_usage(&c->store);
		r->goal = 0;
	}
	count(&c->evictions, 1);
	count(&c->evicted, before > now ? before - now : 0);
	return status;
}

/* 0 when what was wanted is free, -EBUSY when another process is at it. */
static int run(struct round *r)
{
	int status = aio_offload(survey, r);

	if (!status && r->goal && r->nr_chunks)
		status = evict_oldest(r);
	if (r->lock >= 0)
		close(r->lock);
	free(r->chunks);
	if (!status && r->goal)
		status = -ENOSPC;
	return status;
}

static void pause_after(struct autocache *c, int status)
{
	if (status)
		room_pause(c, status == -EBUSY ? SHORT_PAUSE_NS : LONG_PAUSE_NS);
}

/* Whoever finds somebody at it goes on: a little too much is no harm. */
void room_keep(struct autocache *c)
{
	struct round r = {.c = c, .lock = -1};

	if (!wait_mutex_trylock(&c->making_room))
		return;
	atomic_store_explicit(&c->uncounted, 0, memory_order_relaxed);
	pause_after(c, run(&r));
	wait_mutex_unlock(&c->making_room);
}

int room_make(struct autocache *c, uint64_t bytes)
{
	struct round r = {.c = c, .lock = -1, .full = true, .wanted = bytes};
	int status;

	wait_mutex_lock(&c->making_room);
	status = run(&r);
	wait_mutex_unlock(&c->making_room);
	pause_after(c, status);
	return status;
}

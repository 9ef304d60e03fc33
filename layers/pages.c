/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages come from arenas: windows, 2 MiB of address space at a multiple of 2 MiB, so that a page's arena is
 * found by masking its address. The first page of an arena holds the bits below, the others are handed out.
 *
 *     free bit   dirty bit   the page is
 *        0           0       in use
 *        1           0       free, never touched or given back: no memory behind it
 *        1           1       free, memory still behind it: handed out first
 *
 * A pool has a shard for each processor, up to 8, each with its own lock and arenas; a thread allocates from
 * the shard its index picks, so threads rarely meet. A page goes back to the shard its arena belongs to. Once
 * a shard holds DIRTY_MAX dirty pages, or DIRTY_MIN and more than are in use, all of them are given back to the
 * system, in runs; an arena without pages in use is unmapped, but for one a shard.
 *
 * Memory beyond the pages in use: one page in 512 for the bits, and the dirty pages.
 */
#include "layers/pages.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/node.h"
#include "core/slots.h"

#define ARENA_BYTES WINDOW_BYTES
#define ARENA_PAGES WINDOW_PAGES
#define WORDS (ARENA_PAGES / 64)
#define SHARDS 8u
#define DIRTY_MIN 32u
#define DIRTY_MAX 128u

struct shard;

struct arena {
	struct shard *shard;
	struct arena *next, *previous; /* among the shard's arenas with free pages */
	struct arena *all_next, *all_previous;
	unsigned nr_free, nr_dirty;
	uint64_t free[WORDS];
	uint64_t dirty[WORDS];
};

_Static_assert(sizeof(struct arena) <= PAGE_BYTES, "the bits fit in the first page");

struct shard {
	_Alignas(64) pthread_mutex_t lock; /* protects the shard and its arenas; no other lock, nothing waits under it */
	struct arena *partial;             /* with free pages */
	struct arena *all;
	unsigned nr_arenas, nr_empty;
	unsigned nr_dirty;
	uint64_t nr_used;
};

struct page_pool {
	unsigned nr_shards;
	struct shard shards[SHARDS];
};

/* ------------------------------------------------------------------ windows */

static void *map(size_t bytes)
{
	void *p =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/*
 * As a rule the next space is right below the one before it, so that the two are one mapping to the kernel,
 * which allows a process some 65,000. Where it is not aligned, twice as much is mapped, and cut off what lies
 * outside.
 */
static void *map_aligned(void)
{
	char *base = map(WINDOW_BYTES);
	size_t before;

	if (!base || !((uintptr_t)base & (WINDOW_BYTES - 1)))
		return base;
	munmap(base, WINDOW_BYTES);
	base = map(2 * WINDOW_BYTES);
	if (!base)
		return NULL;
	before = -(uintptr_t)base & (WINDOW_BYTES - 1);
	if (before)
		munmap(base, before);
	munmap(base + before + WINDOW_BYTES, WINDOW_BYTES - before);
	return base + before;
}

void *window_create(void)
{
	void *w = map_aligned();

	if (w)
		madvise(w, WINDOW_BYTES, MADV_NOHUGEPAGE); /* fails where there are none */
	return w;
}

void window_destroy(void *window)
{
	munmap(window, WINDOW_BYTES);
}

void window_give_back(void *window, unsigned first, unsigned count)
{
	madvise((char *)window + first * PAGE_BYTES, count * PAGE_BYTES, MADV_DONTNEED);
}

/* ------------------------------------------------------------------ the pool */

static unsigned shards_wanted(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	if (processors < 1)
		return 1;
	return processors < (long)SHARDS ? (unsigned)processors : SHARDS;
}

struct page_pool *page_pool_create(void)
{
	struct page_pool *p = aligned_alloc(64, sizeof(*p));

	if (!p)
		return NULL;
	memset(p, 0, sizeof(*p));
	p->nr_shards = shards_wanted();
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_init(&p->shards[i].lock, NULL);
	return p;
}

static void unmap_all(struct arena *a)
{
	while (a) {
		struct arena *next = a->all_next;
		window_destroy(a);
		a = next;
	}
}

void page_pool_destroy(struct page_pool *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < SHARDS; i++) {
		unmap_all(p->shards[i].all);
		pthread_mutex_destroy(&p->shards[i].lock);
	}
	free(p);
}

/* ------------------------------------------------------------------ lists */

static void partial_add(struct shard *s, struct arena *a)
{
	a->previous = NULL;
	a->next = s->partial;
	if (a->next)
		a->next->previous = a;
	s->partial = a;
}

static void partial_remove(struct shard *s, struct arena *a)
{
	if (a->next)
		a->next->previous = a->previous;
	if (a->previous)
		a->previous->next = a->next;
	else
		s->partial = a->next;
}

static void all_add(struct shard *s, struct arena *a)
{
	a->all_previous = NULL;
	a->all_next = s->all;
	if (a->all_next)
		a->all_next->all_previous = a;
	s->all = a;
	s->nr_arenas++;
}

static void all_remove(struct shard *s, struct arena *a)
{
	if (a->all_next)
		a->all_next->all_previous = a->all_previous;
	if (a->all_previous)
		a->all_previous->all_next = a->all_next;
	else
		s->all = a->all_next;
	s->nr_arenas--;
}

/* ------------------------------------------------------------------ arenas */

static struct arena *arena_new(struct shard *s)
{
	struct arena *a = window_create();

	if (!a)
		return NULL;
	a->shard = s;
	a->nr_free = ARENA_PAGES - 1;
	memset(a->free, 0xff, sizeof(a->free));
	a->free[0] &= ~UINT64_C(1);
	all_add(s, a);
	partial_add(s, a);
	s->nr_empty++;
	return a;
}

static void arena_delete(struct shard *s, struct arena *a)
{
	partial_remove(s, a);
	all_remove(s, a);
	s->nr_empty--;
	s->nr_dirty -= a->nr_dirty;
	window_destroy(a);
}

/* The first bit set in `words`, which has one. */
static unsigned first_bit(const uint64_t words[WORDS])
{
	unsigned w = 0;

	while (!words[w])
		w++;
	return w * 64 + (unsigned)__builtin_ctzll(words[w]);
}

static void *arena_take(struct shard *s, struct arena *a)
{
	unsigned page = first_bit(a->nr_dirty ? a->dirty : a->free);
	uint64_t bit = UINT64_C(1) << page % 64;

	if (a->dirty[page / 64] & bit) {
		a->dirty[page / 64] &= ~bit;
		a->nr_dirty--;
		s->nr_dirty--;
	}
	a->free[page / 64] &= ~bit;
	if (a->nr_free-- == ARENA_PAGES - 1)
		s->nr_empty--;
	if (!a->nr_free)
		partial_remove(s, a);
	s->nr_used++;
	return (char *)a + page * PAGE_BYTES;
}

/* Gives the dirty pages' memory back, a system call for each run of them. */
static void arena_clean(struct arena *a)
{
	unsigned page = 0;

	while (a->nr_dirty) {
		unsigned begin;
		while (!(a->dirty[page / 64] >> page % 64 & 1))
			page++;
		for (begin = page; page < ARENA_PAGES && (a->dirty[page / 64] >> page % 64 & 1); page++)
			a->nr_dirty--;
		window_give_back(a, begin, page - begin);
	}
	memset(a->dirty, 0, sizeof(a->dirty));
}

static void shard_clean(struct shard *s)
{
	for (struct arena *a = s->partial; a; a = a->next)
		if (a->nr_dirty)
			arena_clean(a);
	s->nr_dirty = 0;
}

/* ------------------------------------------------------------------ pages */

static struct shard *my_shard(struct page_pool *p)
{
	unsigned index = stat_thread_index ? stat_thread_index : stat_thread_assign();

	return &p->shards[index % p->nr_shards];
}

void *page_alloc(struct page_pool *p)
{
	struct shard *s = my_shard(p);
	struct arena *a;
	void *page;

	pthread_mutex_lock(&s->lock);
	a = s->partial ? s->partial : arena_new(s);
	page = a ? arena_take(s, a) : NULL;
	pthread_mutex_unlock(&s->lock);
	return page;
}

void page_free(struct page_pool *p, void *page)
{
	struct arena *a = (struct arena *)((uintptr_t)page & ~(uintptr_t)(ARENA_BYTES - 1));
	unsigned index = (unsigned)(((uintptr_t)page & (ARENA_BYTES - 1)) / PAGE_BYTES);
	struct shard *s = a->shard;

	(void)p;
	pthread_mutex_lock(&s->lock);
	a->free[index / 64] |= UINT64_C(1) << index % 64;
	a->dirty[index / 64] |= UINT64_C(1) << index % 64;
	a->nr_dirty++;
	s->nr_dirty++;
	s->nr_used--;
	if (!a->nr_free++)
		partial_add(s, a);
	if (a->nr_free == ARENA_PAGES - 1 && s->nr_empty++)
		arena_delete(s, a);
	else if (s->nr_dirty >= DIRTY_MAX || (s->nr_dirty >= DIRTY_MIN && s->nr_dirty > s->nr_used))
		shard_clean(s);
	pthread_mutex_unlock(&s->lock);
}

void page_pool_usage(struct page_pool *p, uint64_t *used, uint64_t *resident)
{
	*used = *resident = 0;
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &p->shards[i];
		pthread_mutex_lock(&s->lock);
		*used += s->nr_used * PAGE_BYTES;
		*resident += (s->nr_used + s->nr_dirty + s->nr_arenas) * PAGE_BYTES;
		pthread_mutex_unlock(&s->lock);
	}
}

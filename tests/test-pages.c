/* SPDX-License-Identifier: BSD-3-Clause */
/* The page pool: pages do not overlap, belong to any thread, and their memory goes back to the system. */
#include "layers/pages.h"

#include <pthread.h>

#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"

#define MANY 20000u /* several arenas of every shard */

static uint64_t used(struct page_pool *p)
{
	uint64_t u, resident;

	page_pool_usage(p, &u, &resident);
	CHECK(resident >= u);
	return u;
}

static uint64_t resident(struct page_pool *p)
{
	uint64_t u, r;

	page_pool_usage(p, &u, &r);
	return r;
}

/* Of this process, in bytes, as the system sees it: address space, and memory behind it. */
static void process_memory(uint64_t *space, uint64_t *memory)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long long size = 0, pages = 0;

	if (!f || fscanf(f, "%llu %llu", &size, &pages) != 2)
		size = pages = 0;
	if (f)
		fclose(f);
	*space = size * (uint64_t)sysconf(_SC_PAGESIZE);
	*memory = pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t process_resident(void)
{
	uint64_t space, memory;

	process_memory(&space, &memory);
	return memory;
}

static void **table(size_t count)
{
	void **t = calloc(count, sizeof(*t));

	if (!t)
		abort();
	return t;
}

static void test_empty(void)
{
	struct page_pool *p = page_pool_create();

	REQUIRE(p != NULL);
	CHECK_EQ(used(p), 0);
	CHECK_EQ(resident(p), 0);
	page_pool_destroy(p);
	page_pool_destroy(NULL);
}

static void test_one(void)
{
	struct page_pool *p = page_pool_create();
	char *page = page_alloc(p);

	REQUIRE(page != NULL);
	CHECK_EQ((uintptr_t)page % PAGE_BYTES, 0);
	memset(page, 0x55, PAGE_BYTES);
	CHECK_EQ(used(p), PAGE_BYTES);
	page_free(p, page);
	CHECK_EQ(used(p), 0);
	page_pool_destroy(p);
}

static void fill(unsigned char *page, uint64_t tag)
{
	for (unsigned at = 0; at < PAGE_BYTES; at += 8)
		memcpy(page + at, &tag, 8);
}

static bool holds(const unsigned char *page, uint64_t tag)
{
	for (unsigned at = 0; at < PAGE_BYTES; at += 8)
		if (memcmp(page + at, &tag, 8))
			return false;
	return true;
}

static void test_pages_do_not_overlap(void)
{
	struct page_pool *p = page_pool_create();
	unsigned count = MANY / contract_slowness();
	void **pages = table(count);
	struct random r = random_stream(1);

	for (unsigned i = 0; i < count; i++) {
		pages[i] = page_alloc(p);
		fill(pages[i], i);
	}
	for (unsigned step = 0; step < count; step++) {
		unsigned i = (unsigned)random_below(&r, count);
		CHECK(holds(pages[i], i));
		page_free(p, pages[i]);
		pages[i] = page_alloc(p);
		fill(pages[i], i);
	}
	for (unsigned i = 0; i < count; i++)
		CHECK(holds(pages[i], i));
	CHECK_EQ(used(p), (uint64_t)count * PAGE_BYTES);
	free(pages);
	page_pool_destroy(p);
}

/* What the pool takes over the pages in use is one page in 511, and one arena's worth of rounding. */
static void test_price(void)
{
	struct page_pool *p = page_pool_create();
	void **pages = table(MANY);
	uint64_t before = process_resident(), now;

	for (unsigned i = 0; i < MANY; i++) {
		pages[i] = page_alloc(p);
		fill(pages[i], i);
	}
	now = process_resident();
	CHECK(resident(p) <= (uint64_t)MANY * PAGE_BYTES * 1003 / 1000 + (1 << 20));
	if (contract_slowness() == 1)
		CHECK(now - before <= (uint64_t)MANY * PAGE_BYTES * 101 / 100 + (1 << 20));
	free(pages);
	page_pool_destroy(p);
}

/* In any order: what is left at the end is what the pool says, which is little. */
static void check_given_back(bool reverse, bool shuffled)
{
	struct page_pool *p = page_pool_create();
	void **pages = table(MANY);
	struct random r = random_stream(2);
	uint64_t full, now, full_space, now_space;

	for (unsigned i = 0; i < MANY; i++) {
		pages[i] = page_alloc(p);
		memset(pages[i], 1, PAGE_BYTES);
	}
	for (unsigned i = 0; shuffled && i < MANY; i++) {
		unsigned other = (unsigned)random_below(&r, MANY);
		void *page = pages[i];
		pages[i] = pages[other];
		pages[other] = page;
	}
	process_memory(&full_space, &full);
	for (unsigned i = 0; i < MANY; i++)
		page_free(p, pages[reverse ? MANY - 1 - i : i]);
	process_memory(&now_space, &now);
	CHECK_EQ(used(p), 0);
	CHECK(resident(p) <= (32 + 2) * PAGE_BYTES); /* dirty pages of the one arena that is kept */
	if (contract_slowness() == 1) {
		CHECK(full - now >= (uint64_t)MANY * PAGE_BYTES * 9 / 10);
		CHECK(full_space - now_space >= (uint64_t)MANY * PAGE_BYTES * 9 / 10);
	}
	free(pages);
	page_pool_destroy(p);
}

static void test_memory_goes_back(void)
{
	check_given_back(false, false);
	check_given_back(true, false);
	check_given_back(false, true);
}

/* Every second page freed: no arena is empty, but half of the memory goes back. */
static void test_memory_of_half_empty_arenas_goes_back(void)
{
	struct page_pool *p = page_pool_create();
	void **pages = table(MANY);
	uint64_t full, now;

	for (unsigned i = 0; i < MANY; i++) {
		pages[i] = page_alloc(p);
		fill(pages[i], i);
	}
	full = process_resident();
	for (unsigned i = 0; i < MANY; i += 2)
		page_free(p, pages[i]);
	now = process_resident();
	CHECK(resident(p) <= (uint64_t)MANY / 2 * PAGE_BYTES * 102 / 100 + 8 * 128 * PAGE_BYTES);
	if (contract_slowness() == 1)
		CHECK(full - now >= (uint64_t)MANY / 2 * PAGE_BYTES * 8 / 10);
	for (unsigned i = 1; i < MANY; i += 2)
		CHECK(holds(pages[i], i)); /* the neighbours are untouched */
	free(pages);
	page_pool_destroy(p);
}

/* Freed pages are used before new ones. */
static void test_pages_are_used_again(void)
{
	struct page_pool *p = page_pool_create();
	void *pages[100];
	uint64_t before;

	for (unsigned i = 0; i < 100; i++)
		pages[i] = page_alloc(p);
	before = resident(p);
	for (unsigned round = 0; round < 1000; round++) {
		page_free(p, pages[round % 100]);
		pages[round % 100] = page_alloc(p);
		memset(pages[round % 100], 3, PAGE_BYTES);
	}
	CHECK_EQ(resident(p), before);
	CHECK_EQ(used(p), 100 * PAGE_BYTES);
	page_pool_destroy(p);
}

/* ------------------------------------------------------------------ windows */

static unsigned process_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned n = 0;

	for (int c; f && (c = getc(f)) != EOF;)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

/* A process may have some 65,000 mappings: if each window was one, a disk could not grow beyond 128 GiB. */
static void test_windows_are_few_mappings(void)
{
	enum { WINDOWS = 400 };
	static char *windows[WINDOWS];
	unsigned before = process_mappings();

	for (unsigned i = 0; i < WINDOWS; i++) {
		windows[i] = window_create();
		REQUIRE(windows[i] != NULL);
		CHECK_EQ((uintptr_t)windows[i] % WINDOW_BYTES, 0);
		windows[i][i] = (char)i;
	}
	CHECK(process_mappings() <= before + WINDOWS / 10 ||
	      contract_slowness() > 1); /* sanitizers map beside them */
	for (unsigned i = 0; i < WINDOWS; i++) {
		CHECK_EQ(windows[i][i], (char)i);
		window_destroy(windows[i]);
	}
	CHECK(process_mappings() <= before + 2 || contract_slowness() > 1);
}

/* ------------------------------------------------------------------ threads */

#define SLOTS 2048u
#define THREADS 4u

struct bazaar {
	struct page_pool *pool;
	void *_Atomic slots[SLOTS]; /* pages for whoever takes them; each holds its own address */
	_Atomic unsigned next;
};

/* Puts pages out and takes out what others put there. */
static void *trade(void *argument)
{
	struct bazaar *b = argument;
	struct random r = random_stream(10 + atomic_fetch_add(&b->next, 1));

	for (unsigned i = 0; i < 40000 / contract_slowness(); i++) {
		void *page = random_once_in(&r, 2) ? page_alloc(b->pool) : NULL, *old;
		if (page)
			fill(page, (uintptr_t)page);
		old = atomic_exchange(&b->slots[random_below(&r, SLOTS)], page);
		if (!old)
			continue;
		CHECK(holds(old, (uintptr_t)old));
		page_free(b->pool, old);
	}
	return NULL;
}

static void test_threads(void)
{
	static struct bazaar b;
	pthread_t threads[THREADS];
	uint64_t left = 0;

	b.pool = page_pool_create();
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, trade, &b))
			abort();
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < SLOTS; i++)
		if (b.slots[i]) {
			CHECK(holds(b.slots[i], (uintptr_t)b.slots[i]));
			left++;
		}
	CHECK_EQ(used(b.pool), left * PAGE_BYTES);
	page_pool_destroy(b.pool);
}

int main(void)
{
	TAP_RUN(test_windows_are_few_mappings);
	TAP_RUN(test_empty);
	TAP_RUN(test_one);
	TAP_RUN(test_pages_do_not_overlap);
	TAP_RUN(test_price);
	TAP_RUN(test_memory_goes_back);
	TAP_RUN(test_memory_of_half_empty_arenas_goes_back);
	TAP_RUN(test_pages_are_used_again);
	TAP_RUN(test_threads);
	return TAP_DONE();
}

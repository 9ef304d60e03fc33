/* SPDX-License-Identifier: BSD-3-Clause */
/* Leaves of the RAM layer: which have a window, and that no byte is lost on the way there and back. */
#include <sys/mman.h>
#include <sys/resource.h>

#include "layers/leaf.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"

/* ------------------------------------------------------------------ one leaf */

struct place {
	struct leaf_store store;
	struct leaf *leaf;
};

static struct place make(void)
{
	struct place p = {.store.pool = page_pool_create(), .leaf = leaf_create(LAYER_ABSENT)};

	if (!p.store.pool || !p.leaf)
		abort();
	return p;
}

static void end(struct place *p)
{
	leaf_destroy(p->leaf);
	page_pool_destroy(p->store.pool);
}

/* What a page holds after set(): its number, so that no two are alike. */
static uint64_t word_of(unsigned page)
{
	return UINT64_C(0x123456789abc0000) + page;
}

static bool set(struct place *p, unsigned page)
{
	uint64_t *memory = entry_page(leaf_entry(p->leaf, page));

	if (!memory)
		memory = leaf_page_alloc(&p->store, p->leaf, page);
	if (!memory)
		return false;
	for (unsigned i = 0; i < PAGE_BYTES / sizeof(*memory); i++)
		memory[i] = word_of(page);
	leaf_set(&p->store, p->leaf, page, entry_make(memory, 0xff, 0));
	return true;
}

/* Pages [first, first + n) as one write of the layer does it. */
static void write_pages(struct place *p, unsigned first, unsigned n)
{
	p->leaf->coming = (uint16_t)n;
	for (unsigned i = first; i < first + n; i++)
		CHECK(set(p, i));
	leaf_settle(&p->store, p->leaf);
}

static void drop_pages(struct place *p, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		leaf_set(&p->store, p->leaf, i, background_entry(p->leaf));
	leaf_settle(&p->store, p->leaf);
}

static bool page_is_right(const struct leaf *f, unsigned page)
{
	const uint64_t *memory = entry_page(leaf_entry(f, page));

	return memory && memory[0] == word_of(page) &&
	       memory[PAGE_BYTES / sizeof(*memory) - 1] == word_of(page);
}

/* [first, first + n) hold what set() wrote, and are all that there is. */
static void expect_pages(const struct place *p, unsigned first, unsigned n)
{
	const struct leaf *f = p->leaf;

	for (unsigned i = first; i < first + n; i++)
		if (!CHECK(page_is_right(f, i)))
			return;
	CHECK_EQ(f->stored, n);
	CHECK_EQ(f->count, n);
	CHECK_EQ(p->store.nr_stored, n);
	CHECK_EQ(p->store.nr_slack, f->window ? f->resident - n : 0);
	CHECK_EQ(p->store.nr_windows, f->window != NULL);
	CHECK(f->flat == (n == LEAF_PAGES ? f->window : NULL));
}

/* Pages of the window that the system has memory for. */
static unsigned resident_pages(const struct leaf *f)
{
	unsigned char pages[LEAF_PAGES];
	unsigned n = 0;

	if (mincore(f->window, WINDOW_BYTES, pages))
		abort();
	for (unsigned i = 0; i < LEAF_PAGES; i++)
		n += pages[i] & 1;
	return n;
}

static void test_page_by_page_in_order(void)
{
	struct place p = make();

	for (unsigned i = 0; i < LEAF_PAGES; i++) {
		write_pages(&p, i, 1);
		CHECK_EQ(p.leaf->window != NULL, i + 1 >= 160);
		if (i % 37 == 0)
			expect_pages(&p, 0, i + 1);
	}
	expect_pages(&p, 0, LEAF_PAGES);
	CHECK(p.leaf->flat != NULL);
	end(&p);
}

/* As with several requests under way: neighbours change places. */
static void test_nearly_in_order(void)
{
	struct place p = make();

	for (unsigned i = 0; i < LEAF_PAGES; i++)
		write_pages(&p, i ^ 31, 1);
	expect_pages(&p, 0, LEAF_PAGES);
	CHECK(p.leaf->flat != NULL);
	end(&p);
}

static void test_any_order_stays_in_the_pool(void)
{
	struct place p = make();

	for (unsigned i = 0; i < LEAF_PAGES; i++)
		write_pages(&p, i * 167 % LEAF_PAGES, 1);
	expect_pages(&p, 0, LEAF_PAGES);
	CHECK(p.leaf->window == NULL);
	end(&p);
}

static void test_many_at_once(void)
{
	struct place p = make();

	write_pages(&p, 100, 200);
	CHECK(p.leaf->window != NULL);
	CHECK_EQ(resident_pages(p.leaf), 200);
	expect_pages(&p, 100, 200);
	end(&p);
	p = make();
	write_pages(&p, 100, 64);
	CHECK(p.leaf->window == NULL);
	end(&p);
	p = make();
	p.store.nr_stored = 1000; /* of other leaves: there is room for two windows */
	write_pages(&p, 100, 64);
	CHECK(p.leaf->window != NULL);
	end(&p);
}

/* A large write of which all but some pages are zeroes: no window stays for them. */
static void test_many_at_once_of_which_few_are_data(void)
{
	struct place p = make();

	p.leaf->coming = 300;
	for (unsigned i = 0; i < 3; i++)
		CHECK(set(&p, i));
	CHECK(p.leaf->window != NULL);
	leaf_settle(&p.store, p.leaf);
	CHECK(p.leaf->window == NULL);
	expect_pages(&p, 0, 3);
	end(&p);
}

/* What is freed is given back once it is much: to all that is there, or to the little that is allowed at any
 * time. */
static void test_freed_pages_are_given_back(void)
{
	struct place p = make();

	write_pages(&p, 0, LEAF_PAGES);
	drop_pages(&p, 300, 100);
	CHECK_EQ(resident_pages(p.leaf), LEAF_PAGES);
	CHECK_EQ(p.store.nr_slack, 100);
	drop_pages(&p, 400, 112);
	CHECK_EQ(resident_pages(p.leaf), 300);
	expect_pages(&p, 0, 300);
	write_pages(&p, 300, 212);
	expect_pages(&p, 0, LEAF_PAGES);
	CHECK(p.leaf->flat != NULL);
	end(&p);
}

static void test_few_pages_go_back_to_the_pool(void)
{
	struct place p = make();
	uint64_t used, resident;

	write_pages(&p, 0, LEAF_PAGES);
	drop_pages(&p, 0, 440);
	CHECK(p.leaf->window == NULL);
	expect_pages(&p, 440, 72);
	page_pool_usage(p.store.pool, &used, &resident);
	CHECK_EQ(used, 72 * PAGE_BYTES);
	drop_pages(&p, 440, 72);
	expect_pages(&p, 0, 0);
	CHECK_EQ(p.store.nr_entries, 0);
	end(&p);
}

static void test_a_window_ends_with_its_last_page(void)
{
	struct place p = make();

	write_pages(&p, 0, 200);
	drop_pages(&p, 0, 100);
	CHECK(p.leaf->window != NULL);
	for (unsigned i = 100; i < 200; i++)
		drop_pages(&p, i, 1);
	CHECK(p.leaf->window == NULL);
	expect_pages(&p, 0, 0);
	write_pages(&p, 0, 200);
	leaf_clear(&p.store, p.leaf, LAYER_ZERO);
	leaf_settle(&p.store, p.leaf);
	CHECK(p.leaf->window == NULL);
	expect_pages(&p, 0, 0);
	CHECK_EQ(p.store.nr_entries, 0);
	CHECK_EQ(leaf_entry(p.leaf, 3), entry_make(NULL, 0, 0xff));
	end(&p);
	p = make();
	p.store.nr_stored = 1000; /* of other leaves */
	write_pages(&p, 0, 64);
	CHECK(p.leaf->window != NULL);
	drop_pages(&p, 0, 63); /* too few to be given back */
	CHECK(p.leaf->window != NULL);
	drop_pages(&p, 63, 1);
	CHECK(p.leaf->window == NULL);
	CHECK_EQ(p.store.nr_windows, 0);
	CHECK_EQ(p.store.nr_slack, 0);
	CHECK_EQ(p.store.nr_entries, 0);
	end(&p);
}

/* No address space for a window: the leaf stays in the pool, and works. */
static void test_without_windows(void)
{
	struct rlimit before, none;
	struct place p = make();

	for (unsigned i = 0; i < 16; i++)
		write_pages(&p, i, 1);
	CHECK_EQ(getrlimit(RLIMIT_AS, &before), 0);
	none = before;
	none.rlim_cur = 1;
	CHECK_EQ(setrlimit(RLIMIT_AS, &none), 0);
	p.leaf->coming = 300;
	for (unsigned i = 16; i < 40; i++)
		set(&p, i);
	leaf_settle(&p.store, p.leaf);
	CHECK_EQ(setrlimit(RLIMIT_AS, &before), 0);
	CHECK(p.leaf->window == NULL);
	CHECK(p.leaf->stored >= 16);
	expect_pages(&p, 0, p.leaf->stored);
	write_pages(&p, p.leaf->stored, 300);
	CHECK(p.leaf->window != NULL);
	end(&p);
}

/* ------------------------------------------------------------------ a layer against a flat array */

#define SECTOR 512u
#define SIZE (3 * LEAF_BYTES + 5 * SECTOR)

struct twin {
	struct layer *layer;
	char *truth, *out; /* SIZE bytes each */
	struct random random;
};

static void write_both(struct twin *t, uint64_t at, uint64_t n)
{
	random_fill(&t->random, t->truth + at, n);
	if (random_once_in(&t->random, 3) &&
	    n > 3 * PAGE_BYTES) /* zeroes in the middle, with ends anywhere in a page */
		memset(t->truth + at + n / 3 / SECTOR * SECTOR, 0, n / 3);
	CHECK_EQ(t->layer->ops->write(t->layer, &VEC_FLAT(t->truth + at, n), at, &io_plain), 0);
}

static void clear_both(struct twin *t, uint64_t at, uint64_t n)
{
	memset(t->truth + at, 0, n);
	CHECK_EQ(t->layer->ops->write_zeroes(t->layer, at, n, true, &io_plain), 0);
}

static void compare(struct twin *t)
{
	uint64_t at = random_below(&t->random, 8) * SECTOR;

	while (at < SIZE) {
		struct layer_run run = {.length = 0};
		CHECK_EQ(
			t->layer->ops->read(t->layer, &VEC_FLAT(t->out + at, SIZE - at), at, &run, &io_plain),
			0);
		if (!CHECK(run.length > 0 && run.length <= SIZE - at))
			return;
		if (run.presence != LAYER_DATA)
			memset(t->out + at, 0, run.length);
		if (!CHECK(!memcmp(t->out + at, t->truth + at, run.length)))
			return;
		at += run.length;
	}
}

/* Much at once and little, so that leaves come to be flat, are torn, and thin out. */
static void change(struct twin *t)
{
	static const uint64_t most[] = {8, 512, 4096, SIZE / SECTOR};
	uint64_t at = random_below(&t->random, SIZE / SECTOR);
	uint64_t n = random_below(&t->random, most[random_below(&t->random, 4)]) + 1;

	if (n > SIZE / SECTOR - at)
		n = SIZE / SECTOR - at;
	if (random_once_in(&t->random, 3))
		clear_both(t, at * SECTOR, n * SECTOR);
	else
		write_both(t, at * SECTOR, n * SECTOR);
}

static void test_same_bytes_as_a_flat_array(void)
{
	struct twin t = {.layer = ram_layer_create(SIZE, SECTOR, 0),
			 .truth = calloc(1, SIZE),
			 .out = malloc(SIZE),
			 .random = random_stream(1)};
	struct ram_usage u;

	REQUIRE(t.layer && t.truth && t.out);
	t.layer->bottom = true;
	for (unsigned i = 0; i < 600 / contract_slowness() && !tap_errors; i++) {
		change(&t);
		if (i % 4 == 0)
			compare(&t);
	}
	clear_both(&t, 0, SIZE);
	compare(&t);
	ram_layer_usage(t.layer, &u);
	CHECK_EQ(u.stored, 0);
	CHECK_EQ(t.layer->ops->close(t.layer, false, NULL), 0);
	free(t.truth);
	free(t.out);
}

/* Pages of zeroes within a large write are seen, and take no memory, in a flat leaf as well. */
static void test_zeroes_in_a_flat_leaf(void)
{
	struct layer *l = ram_layer_create(2 * LEAF_BYTES, SECTOR, 0);
	char *data = malloc(2 * LEAF_BYTES);
	struct ram_usage u;
	struct layer_run run;

	REQUIRE(l && data);
	memset(data, 1, 2 * LEAF_BYTES);
	CHECK_EQ(l->ops->write(l, &VEC_FLAT(data, 2 * LEAF_BYTES), 0, &io_plain), 0);
	CHECK_EQ(l->ops->map(l, 0, 2 * LEAF_BYTES, &run, &io_plain), 0);
	CHECK_EQ(run.length, 2 * LEAF_BYTES);
	memset(data + 10 * PAGE_BYTES, 0, 5 * PAGE_BYTES);
	memset(data + LEAF_BYTES, 0, PAGE_BYTES + SECTOR);
	CHECK_EQ(l->ops->write(l, &VEC_FLAT(data, 2 * LEAF_BYTES), 0, &io_plain), 0);
	ram_layer_usage(l, &u);
	CHECK_EQ(u.stored, 2 * LEAF_BYTES - 6 * PAGE_BYTES);
	CHECK_EQ(l->ops->map(l, 0, 2 * LEAF_BYTES, &run, &io_plain), 0);
	CHECK_EQ(run.length, 10 * PAGE_BYTES);
	CHECK_EQ(l->ops->map(l, 10 * PAGE_BYTES, LEAF_BYTES, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ZERO);
	CHECK_EQ(run.length, 5 * PAGE_BYTES);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	free(data);
}

int main(void)
{
	TAP_RUN(test_page_by_page_in_order);
	TAP_RUN(test_nearly_in_order);
	TAP_RUN(test_any_order_stays_in_the_pool);
	TAP_RUN(test_many_at_once);
	TAP_RUN(test_many_at_once_of_which_few_are_data);
	TAP_RUN(test_freed_pages_are_given_back);
	TAP_RUN(test_few_pages_go_back_to_the_pool);
	TAP_RUN(test_a_window_ends_with_its_last_page);
	TAP_RUN(test_without_windows);
	TAP_RUN(test_same_bytes_as_a_flat_array);
	TAP_RUN(test_zeroes_in_a_flat_leaf);
	return TAP_DONE();
}

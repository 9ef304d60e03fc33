/* SPDX-License-Identifier: BSD-3-Clause */
/* Lists of runs: merged, cut to the range, bounded in number, and honest when memory runs out. */
#include "core/extents.h"

#include <stdint.h>

#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"

#define HOLE (EXTENT_ZERO | EXTENT_HOLE)

static void test_empty(void)
{
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 4096, 8192, SIZE_MAX);
	CHECK_EQ(e.count, 0);
	CHECK_EQ(extents_next(&e), 4096);
	CHECK_EQ(e.end, 4096 + 8192);
	CHECK_EQ(e.status, 0);
}

static void test_neighbours_merge(void)
{
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 1000, 100, SIZE_MAX);
	CHECK(extents_add(&e, 10, EXTENT_DATA));
	CHECK(extents_add(&e, 10, EXTENT_DATA));
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].length, 20);
	CHECK(extents_add(&e, 10, EXTENT_ZERO));
	CHECK(extents_add(&e, 10, HOLE));
	CHECK(extents_add(&e, 10, HOLE));
	CHECK_EQ(e.count, 3);
	CHECK_EQ(e.list[2].offset, 1030);
	CHECK_EQ(e.list[2].length, 20);
	CHECK_EQ(e.list[2].flags, HOLE);
	CHECK_EQ(extents_next(&e), 1050);
}

static void test_cut_at_the_end(void)
{
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 0, 100, SIZE_MAX);
	CHECK(extents_add(&e, 99, EXTENT_DATA));
	CHECK(!extents_add(&e, UINT64_MAX, HOLE));
	CHECK_EQ(e.count, 2);
	CHECK_EQ(e.list[1].length, 1);
	CHECK(!extents_add(&e, 1, EXTENT_DATA)); /* covered: nothing more goes in */
	CHECK_EQ(e.count, 2);
	CHECK_EQ(extents_next(&e), 100);
}

static void test_exact_cover_ends(void)
{
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 512, 512, SIZE_MAX);
	CHECK(!extents_add(&e, 512, EXTENT_DATA));
	CHECK_EQ(e.count, 1);
}

/* The last allowed run still grows; the next one is refused. */
static void test_most_runs(void)
{
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 0, 100, 2);
	CHECK(extents_add(&e, 10, EXTENT_DATA));
	CHECK(extents_add(&e, 10, HOLE));
	CHECK(extents_add(&e, 10, HOLE));
	CHECK(!extents_add(&e, 10, EXTENT_DATA));
	CHECK_EQ(e.count, 2);
	CHECK_EQ(extents_next(&e), 30);
	CHECK_EQ(e.status, 0);
}

static void test_no_empty_runs(void)
{
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 0, 100, SIZE_MAX);
	CHECK(extents_add(&e, 0, EXTENT_DATA));
	CHECK_EQ(e.count, 0);
	CHECK(extents_add(&e, 5, HOLE));
	CHECK(extents_add(&e, 0, EXTENT_DATA));
	CHECK_EQ(e.count, 1);
}

static void test_top_of_the_space(void)
{
	CLEANUP_EXTENTS struct extents e;
	uint64_t begin = (UINT64_C(1) << 63) - 1024;

	extents_init(&e, begin, 512, SIZE_MAX);
	CHECK(!extents_add(&e, UINT64_MAX, HOLE));
	CHECK_EQ(e.list[0].offset, begin);
	CHECK_EQ(e.list[0].length, 512);
}

static void test_free_twice(void)
{
	struct extents e;

	extents_init(&e, 0, 100, SIZE_MAX);
	extents_add(&e, 10, EXTENT_DATA);
	extents_free(&e);
	CHECK_EQ(e.count, 0);
	extents_free(&e);
}

/* Random runs against an array of flags. */
static void check_random(struct random *r)
{
	CLEANUP_EXTENTS struct extents e;
	unsigned char flags[5000];
	uint64_t offset = random_below(r, 1000), length = random_below(r, 4000) + 1, at = offset;
	size_t max = random_once_in(r, 2) ? SIZE_MAX : random_below(r, 50) + 1;
	bool more = true;

	memset(flags, 0xff, sizeof(flags));
	extents_init(&e, offset, length, max);
	while (more) {
		uint64_t n = random_below(r, 30);
		unsigned f = (unsigned)random_below(r, 3);
		more = extents_add(&e, n, f);
		for (uint64_t i = 0; i < n && at < sizeof(flags); i++)
			flags[at++] = (unsigned char)f;
	}
	CHECK(e.count <= max);
	CHECK(extents_next(&e) == offset + length || e.count == max);
	for (size_t i = 0; i < e.count; i++) {
		CHECK(!i || e.list[i].flags != e.list[i - 1].flags);
		for (uint64_t b = 0; b < e.list[i].length; b++)
			CHECK_EQ(flags[e.list[i].offset + b], e.list[i].flags);
	}
}

static void test_random(void)
{
	struct random r = random_stream(1);

	for (unsigned i = 0; i < 1000 / contract_slowness() && !tap_errors; i++)
		check_random(&r);
}

/* When the list cannot grow the caller learns it, and what is there stays good. */
static int refuse_memory;
void *__real_reallocarray(void *memory, size_t count, size_t size);
void *__wrap_reallocarray(void *memory, size_t count, size_t size);

void *__wrap_reallocarray(void *memory, size_t count, size_t size)
{
	if (refuse_memory)
		return NULL;
	return __real_reallocarray(memory, count, size);
}

static void test_no_memory(void)
{
	CLEANUP_EXTENTS struct extents e;
	unsigned n = 0;

	extents_init(&e, 0, 1000, SIZE_MAX);
	CHECK(extents_add(&e, 1, EXTENT_DATA));
	refuse_memory = 1;
	while (n < 100 && extents_add(&e, 1, n % 2 ? EXTENT_DATA : HOLE))
		n++;
	refuse_memory = 0;
	CHECK_EQ(e.status, -ENOMEM);
	CHECK(n > 0 && n < 100);
	CHECK_EQ(e.count, n + 1);
	CHECK_EQ(extents_next(&e), n + 1);
}

int main(void)
{
	TAP_RUN(test_empty);
	TAP_RUN(test_neighbours_merge);
	TAP_RUN(test_cut_at_the_end);
	TAP_RUN(test_exact_cover_ends);
	TAP_RUN(test_most_runs);
	TAP_RUN(test_no_empty_runs);
	TAP_RUN(test_top_of_the_space);
	TAP_RUN(test_free_twice);
	TAP_RUN(test_random);
	TAP_RUN(test_no_memory);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The container that tests of image formats stand on: sparse, failing where it is told to, and cut where the power goes. */
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model.h"
#include "tests/recorder.h"

static void put(struct recorder *r, uint64_t offset, const char *text)
{
	CHECK_EQ(container_write(recorder_container(r), text, strlen(text), offset, &io_plain), 0);
}

static char *get(struct recorder *r, uint64_t offset, size_t length)
{
	static char text[64];

	memset(text, 0, sizeof(text));
	CHECK_EQ(container_read(recorder_container(r), text, length, offset, &io_plain), 0);
	return text;
}

static void flush(struct recorder *r)
{
	struct container *c = recorder_container(r);

	CHECK_EQ(c->ops->flush(c, &io_plain), 0);
}

static void drop(struct recorder *r)
{
	container_close(recorder_container(r), false, NULL);
}

static void test_content_is_sparse_and_any_bytes(void)
{
	struct recorder *r = recorder_create("a");
	struct container *c = recorder_container(r);

	put(r, 4094, "hello");
	put(r, UINT64_C(1) << 41, "far");
	CHECK_EQ(container_size(c), (UINT64_C(1) << 41) + 3);
	CHECK_STR(get(r, 4094, 5), "hello");
	CHECK_STR(get(r, UINT64_C(1) << 41, 3), "far");
	CHECK_EQ(container_read(c, get(r, 0, 1), 2, (UINT64_C(1) << 41) + 2, &io_plain), -EIO);
	CHECK(recorder_bytes(r) < 16384);
	CHECK_EQ(c->ops->zero(c, 4095, UINT64_C(1) << 40, true, &io_plain), 0);
	CHECK_STR(get(r, 4094, 5), "h");
	CHECK_EQ(c->ops->resize(c, 4094, &io_plain), 0);
	CHECK_EQ(c->ops->resize(c, UINT64_C(1) << 42, &io_plain), 0);
	CHECK_STR(get(r, 4094, 5), "");
	CHECK_STR(get(r, UINT64_C(1) << 41, 3), "");
	drop(r);
}

/* The same random calls on flat memory. */
static void test_random_calls_agree_with_flat_memory(void)
{
	enum { SIZE = 300000 };
	struct recorder *r = recorder_create("a");
	struct container *c = recorder_container(r);
	struct random random = random_stream(1);
	static unsigned char flat[SIZE], data[SIZE], back[SIZE];

	CHECK_EQ(c->ops->resize(c, SIZE, &io_plain), 0);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t offset = random_below(&random, SIZE), length = random_below(&random, SIZE - offset) / 8 + 1;
		if (random_once_in(&random, 3)) {
			CHECK_EQ(c->ops->zero(c, offset, length, false, &io_plain), 0);
			memset(flat + offset, 0, length);
		} else {
			random_fill(&random, data, length);
			CHECK_EQ(container_write(c, data, length, offset, &io_plain), 0);
			memcpy(flat + offset, data, length);
		}
		if (random_once_in(&random, 50)) {
			uint64_t size = random_below(&random, SIZE);
			CHECK_EQ(c->ops->resize(c, size, &io_plain), 0);
			CHECK_EQ(c->ops->resize(c, SIZE, &io_plain), 0);
			memset(flat + size, 0, SIZE - size);
		}
	}
	CHECK_EQ(container_read(c, back, SIZE, 0, &io_plain), 0);
	CHECK_MEM(back, flat, SIZE);
	drop(r);
}

static void test_calls_fail_where_they_are_told_to(void)
{
	struct recorder *r = recorder_create("a");
	struct container *c = recorder_container(r);

	recorder_begin(r);
	recorder_fail(r, 1u << RECORDER_WRITE | 1u << RECORDER_ZERO, 2, -ENOSPC);
	put(r, 0, "one");
	CHECK_EQ(container_write(c, "two", 3, 0, &io_plain), -ENOSPC);
	CHECK_STR(get(r, 0, 3), "one");
	put(r, 0, "six");
	CHECK_EQ(recorder_calls(r), 2);
	CHECK_EQ(recorder_count(r, RECORDER_WRITE), 3);
	recorder_fail(r, 1u << RECORDER_FLUSH, 1, -EIO);
	CHECK_EQ(c->ops->flush(c, &io_plain), -EIO);
	CHECK_EQ(c->ops->flush(c, &io_plain), -EIO);
	CHECK_EQ(container_write(c, "two", 3, 0, &io_plain), -EIO);
	drop(r);
}

static void test_a_read_only_one_changes_nothing(void)
{
	struct recorder *r = recorder_create("a");
	struct container *c = recorder_container(r);

	put(r, 0, "one");
	recorder_set_read_only(r, true);
	CHECK_EQ(container_write(c, "two", 3, 0, &io_plain), -EROFS);
	CHECK_EQ(c->ops->resize(c, 1, &io_plain), -EROFS);
	CHECK_EQ(c->ops->zero(c, 0, 1, false, &io_plain), -EROFS);
	CHECK_EQ(c->ops->flush(c, &io_plain), 0);
	CHECK_STR(get(r, 0, 3), "one");
	drop(r);
}

static void test_what_was_flushed_is_in_every_cut(void)
{
	struct recorder *r = recorder_create("a");
	unsigned promised, seen = 0;

	put(r, 0, "old");
	recorder_begin(r);
	put(r, 0, "new");
	flush(r);
	promised = recorder_calls(r);
	put(r, 0, "lost");
	put(r, 5000, "more");
	CHECK_EQ(promised, 2);
	for (unsigned n = 0; n <= recorder_calls(r); n++)
		for (uint64_t seed = 0; seed < 40; seed++) {
			struct recorder *cut = recorder_cut(r, n, UNFLUSHED_ANY, seed);
			const char *text = get(cut, 0, 3);
			CHECK(!strcmp(text, "new") || !strcmp(text, n < promised ? "old" : "los"));
			seen |= 1u << (!strcmp(text, "old") ? 0 : !strcmp(text, "new") ? 1 : 2);
			drop(cut);
		}
	CHECK_EQ(seen, 7);
	put(r, 1, "k"); /* in a page that they share */
	CHECK_STR(get(r, 0, 4), "lkst"); /* the cuts have left it alone */
	drop(r);
}

static void test_few_states_are_all_there(void)
{
	struct recorder *r = recorder_create("a");
	struct container *c = recorder_container(r);
	unsigned seen = 0;

	CHECK_EQ(c->ops->resize(c, 4096, &io_plain), 0);
	recorder_begin(r);
	put(r, 0, "A");
	put(r, 1024, "B");
	CHECK_EQ(recorder_states(r, 2, UNFLUSHED_ANY), 4);
	for (uint64_t k = 0; k < 4; k++) {
		struct recorder *cut = recorder_cut_state(r, 2, UNFLUSHED_ANY, k);
		bool a = get(cut, 0, 1)[0] == 'A', b = get(cut, 1024, 1)[0] == 'B';
		seen |= 1u << (2 * a + b);
		drop(cut);
	}
	CHECK_EQ(seen, 15);
	for (uint64_t k = 0; k < recorder_states(r, 2, UNFLUSHED_IN_ORDER); k++) {
		struct recorder *cut = recorder_cut_state(r, 2, UNFLUSHED_IN_ORDER, k);
		bool a = get(cut, 0, 1)[0] == 'A', b = get(cut, 1024, 1)[0] == 'B';
		CHECK(a || !b);
		drop(cut);
	}
	drop(r);
}

static void test_durable_writes_survive_alone(void)
{
	struct recorder *r = recorder_create("a");
	struct container *c = recorder_container(r);

	CHECK_EQ(c->ops->resize(c, 8192, &io_plain), 0);
	recorder_begin(r);
	put(r, 4096, "lost");
	CHECK_EQ(c->ops->write(c, &VEC_FLAT("kept", 4), 0, true, &io_plain), 0);
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct recorder *cut = recorder_cut(r, 2, UNFLUSHED_ANY, seed);
		CHECK_STR(get(cut, 0, 4), "kept");
		drop(cut);
	}
	drop(r);
}

static void test_files_are_loaded_and_saved(void)
{
	struct recorder *r = recorder_create("a"), *other = recorder_create("b");
	struct container *c = recorder_container(other);

	put(r, 123456, "text");
	put(r, 10 << 20, "end");
	CHECK(recorder_save(r, tmppath("file")));
	put(other, 0, "before");
	CHECK(recorder_load(other, tmppath("file")));
	CHECK_EQ(container_size(c), (10 << 20) + 3);
	CHECK_STR(get(other, 0, 6), "");
	CHECK_STR(get(other, 123456, 4), "text");
	CHECK_STR(get(other, 10 << 20, 3), "end");
	CHECK_EQ(recorder_calls(other), 0);
	CHECK(!recorder_load(other, tmppath("missing")));
	recorder_hold(r);
	drop(r);
	CHECK_STR(get(r, 123456, 4), "text");
	drop(r);
	drop(other);
}

int main(void)
{
	TAP_RUN(test_content_is_sparse_and_any_bytes);
	TAP_RUN(test_random_calls_agree_with_flat_memory);
	TAP_RUN(test_calls_fail_where_they_are_told_to);
	TAP_RUN(test_a_read_only_one_changes_nothing);
	TAP_RUN(test_what_was_flushed_is_in_every_cut);
	TAP_RUN(test_few_states_are_all_there);
	TAP_RUN(test_durable_writes_survive_alone);
	TAP_RUN(test_files_are_loaded_and_saved);
	return TAP_DONE();
}

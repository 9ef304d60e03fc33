/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The SQLite layer when SQLite runs out of memory: each of its allocations fails once, alone or with all that follow. A request may
 * fail then; nothing that was written is lost or changed, and what is read is right.
 */
#include "tests/tap.h"

#include <sqlite3.h>

#include "core/checkers.h"
#include "layers/sqlite-layer.h"

#define BLOCK 512u
#define REGION (UINT64_C(2) << 20)
#define SIZE (4 * REGION)
#define NR_BLOCKS (SIZE / BLOCK)

/* Nobody cuts the power here, so nothing waits for the disk: found before those of the C library. */
__attribute__((visibility("default"))) int fdatasync(int fd)
{
	(void)fd;
	return 0;
}

__attribute__((visibility("default"))) int fsync(int fd)
{
	(void)fd;
	return 0;
}

/* ------------------------------------------------------------------ memory */

static struct {
	sqlite3_mem_methods real;
	_Atomic long left;  /* allocations until one fails; 0: none does */
	_Atomic bool stays; /* all that follow fail, too */
} memory;

static bool fails(void)
{
	long left = atomic_load(&memory.left);

	while (left > 0) {
		if (left == 1 && atomic_load(&memory.stays))
			return true;
		if (atomic_compare_exchange_weak(&memory.left, &left, left - 1))
			return left == 1;
	}
	return false;
}

static void *failing_malloc(int size)
{
	return fails() ? NULL : memory.real.xMalloc(size);
}

static void *failing_realloc(void *p, int size)
{
	return fails() ? NULL : memory.real.xRealloc(p, size);
}

static void fail_allocation(long number, bool stays)
{
	atomic_store(&memory.stays, stays);
	atomic_store(&memory.left, number);
}

/* Has it come to that? */
static bool allocation_failed(void)
{
	long left = atomic_exchange(&memory.left, 0);

	return !left || (left == 1 && atomic_load(&memory.stays));
}

static void install_memory(void)
{
	sqlite3_mem_methods failing;

	CHECK_EQ(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real), 0);
	failing = memory.real;
	failing.xMalloc = failing_malloc;
	failing.xRealloc = failing_realloc;
	CHECK_EQ(sqlite3_config(SQLITE_CONFIG_MALLOC, &failing), 0);
	CHECK_EQ(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), 0);
}

/* ------------------------------------------------------------------ what must be there */

static struct {
	enum presence presence[NR_BLOCKS];
	unsigned char value[NR_BLOCKS];
} want;

static int put(struct layer *l, uint64_t offset, uint64_t length, unsigned char value)
{
	static char bytes[REGION];

	memset(bytes, value, length);
	for (uint64_t b = offset / BLOCK; b < (offset + length) / BLOCK; b++) {
		want.presence[b] = LAYER_DATA;
		want.value[b] = value;
	}
	return l->ops->write(l, &VEC_FLAT(bytes, length), offset, &io_plain);
}

static int clear(struct layer *l, uint64_t offset, uint64_t length)
{
	for (uint64_t b = offset / BLOCK; b < (offset + length) / BLOCK; b++)
		want.presence[b] = LAYER_ZERO;
	return l->ops->write_zeroes(l, offset, length, false, &io_plain);
}

static bool block_is_right(uint64_t b, enum presence presence, const unsigned char *bytes)
{
	if (presence != want.presence[b])
		return false;
	return presence != LAYER_DATA || (bytes[0] == want.value[b] && !memcmp(bytes, bytes + 1, BLOCK - 1));
}

static bool run_is_right(const struct layer_run *run, uint64_t offset, const unsigned char *bytes)
{
	for (uint64_t at = 0; at < run->length; at += BLOCK)
		if (!block_is_right((offset + at) / BLOCK, run->presence, bytes + at))
			return false;
	return true;
}

/* Reads everything; after a failure, for which there must be a reason, it goes on elsewhere. */
static void check_content(struct layer *l, bool may_fail)
{
	static unsigned char bytes[65536];
	struct layer_run run;

	for (uint64_t at = 0; at < SIZE; at += run.length) {
		int status = l->ops->read(l, &VEC_FLAT(bytes, sizeof(bytes) - at % sizeof(bytes)), at, &run, &io_plain);
		if (!status && !CHECK(run_is_right(&run, at, bytes)))
			return;
		if (status && !CHECK_EQ(status, may_fail ? -ENOMEM : 0))
			return;
		if (status)
			run.length = BLOCK;
	}
}

/* ------------------------------------------------------------------ layers */

static struct layer *open_layer(const char *path, bool create)
{
	const struct sqlite_layer_options o = {.path = path, .create = create, .size = SIZE, .block_size = BLOCK};
	struct layer *l = NULL;

	CHECK_EQ(sqlite_layer_open(&o, &l, NULL), 0);
	return l;
}

static void close_layer(struct layer *l)
{
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* Units whole and in part, zeroes among them, a span. */
static struct layer *make_layer(const char *path)
{
	struct layer *l;

	unlink(path);
	memset(&want, 0, sizeof(want));
	for (uint64_t b = 0; b < NR_BLOCKS; b++)
		want.presence[b] = LAYER_ABSENT;
	l = open_layer(path, true);
	if (!l)
		return NULL;
	CHECK_EQ(put(l, 65536 + 512, 65536, 1), 0);
	CHECK_EQ(put(l, REGION - 8192, 16384, 2), 0);
	CHECK_EQ(clear(l, 65536 + 8192 + 512, 8192), 0);
	CHECK_EQ(clear(l, 2 * REGION, REGION), 0);
	close_layer(l);
	return open_layer(path, false);
}

static void change(struct layer *l)
{
	CHECK_EQ(put(l, 65536 + 1024, 512, 3), 0);
	CHECK_EQ(put(l, 131072, 32768, 4), 0);
	CHECK_EQ(clear(l, 65536 + 32768 + 512, 1024), 0);
	CHECK_EQ(clear(l, REGION, REGION), 0);
	CHECK_EQ(put(l, 2 * REGION + 4096 + 512, 4096, 5), 0);
}

/* False when all went well without the allocation. */
static bool write_without(const char *path, long number, bool stays)
{
	struct layer *l = make_layer(path);
	struct failure why = {0};
	const struct io io = {.failure = &why};
	bool failed;
	int status;

	if (!l)
		return false;
	fail_allocation(number, stays);
	change(l);
	status = l->ops->flush(l, &io_plain);
	failed = allocation_failed();
	CHECK(!status || (failed && status == -ENOMEM));
	check_content(l, false);
	if (!CHECK_EQ(l->ops->flush(l, &io), 0))
		tap_diag("allocation %ld%s: %s", number, stays ? " and those after it" : "", why.text);
	close_layer(l);
	l = open_layer(path, false);
	if (l) {
		check_content(l, false);
		close_layer(l);
	}
	return failed;
}

static bool read_without(struct layer *l, long number, bool stays)
{
	bool failed;

	fail_allocation(number, stays);
	check_content(l, true);
	failed = allocation_failed();
	check_content(l, false);
	return failed;
}

/* Not every allocation where that takes minutes. */
static long step(void)
{
	return checkers_in_valgrind() ? 37 : 1;
}

static void test_writing(void)
{
	const char *path = tmppath("written");
	long number;

	for (number = 1; write_without(path, number, false) && !atomic_load(&tap_errors); number += step())
		write_without(path, number, true);
	tap_diag("%ld allocations", number);
	CHECK(number > 100);
}

static void test_reading(void)
{
	const char *path = tmppath("read");
	struct layer *l = make_layer(path);
	long number;

	REQUIRE(l != NULL);
	close_layer(l);
	for (number = 1; number < 10000 && !atomic_load(&tap_errors); number += step()) {
		bool failed;
		l = open_layer(path, false);
		REQUIRE(l != NULL);
		failed = read_without(l, number, number & 1);
		close_layer(l);
		if (!failed)
			break;
	}
	tap_diag("%ld allocations", number);
	CHECK(number > 30);
}

/* Opens it without an allocation. False when all went well. */
static bool open_without(const struct sqlite_layer_options *o, long number, bool stays)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer *l;
	bool failed;
	int status;

	fail_allocation(number, stays);
	status = sqlite_layer_open(o, &l, &err);
	failed = allocation_failed();
	if (!status)
		close_layer(l);
	else if (!CHECK_EQ(status, -ENOMEM))
		tap_diag("allocation %ld: %s", number, error_text(&err));
	if (status)
		CHECK_EQ(access(o->path, F_OK), o->create ? -1 : 0);
	else if (o->create)
		unlink(o->path);
	return failed;
}

static void test_opening(void)
{
	const struct sqlite_layer_options o = {.path = tmppath("opened")};
	struct layer *l = make_layer(o.path);
	long number = 1;

	REQUIRE(l != NULL);
	close_layer(l);
	while (open_without(&o, number, number & 1) && !atomic_load(&tap_errors))
		number += step();
	CHECK(number > 30);
}

/* There is no file when that fails. */
static void test_creating(void)
{
	const struct sqlite_layer_options o = {.path = tmppath("created"), .create = true, .size = SIZE, .block_size = BLOCK};
	long number = 1;

	while (open_without(&o, number, number & 1) && !atomic_load(&tap_errors))
		number += step();
	CHECK(number > 60);
}

int main(void)
{
	install_memory();
	TAP_RUN(test_writing);
	TAP_RUN(test_reading);
	TAP_RUN(test_opening);
	TAP_RUN(test_creating);
	return TAP_DONE();
}

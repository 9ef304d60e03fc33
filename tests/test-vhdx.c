/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX files: what is made, written and read again. */
#include "tests/vhdx-lab.h"

#include <inttypes.h>
#include <malloc.h>

#include "formats/crc32c.h"
#include "tests/contract.h"

#define MIB (UINT64_C(1) << 20)

/* RFC 3720, B.4, and the check value of the catalogues. */
static void test_checksum(void)
{
	uint8_t zeroes[32] = {0};

	CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
	CHECK_EQ(crc32c(0, zeroes, 32), 0x8a9136aau);
	CHECK_EQ(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

static void test_guid_texts(void)
{
	static const struct guid known = GUID_INIT(0x2dc27766, 0xf623, 0x4200, 0x9d64, 0x115e9bfd4a08);
	char text[GUID_TEXT_MAX];
	struct guid g;

	CHECK_STR(guid_text(&known, text), "{2dc27766-f623-4200-9d64-115e9bfd4a08}");
	CHECK(guid_parse(text, strlen(text), &g) && guid_equal(&g, &known));
	CHECK(guid_parse("2DC27766-F623-4200-9D64-115E9BFD4A08", 36, &g) && guid_equal(&g, &known));
	CHECK(!guid_parse("{2dc27766-f623-4200-9d64-115e9bfd4a0g}", 38, &g));
	CHECK(!guid_parse("{2dc27766-f623-4200-9d64-115e9bfd4a08", 37, &g));
}

static struct disk *reopen(struct disk *d, struct recorder **r)
{
	struct recorder *copy;

	CHECK_EQ(disk_flush(d, &io_plain), 0);
	copy = recorder_cut(*r, recorder_calls(*r), UNFLUSHED_ANY, 1);
	CHECK_EQ(disk_close(d, NULL), 0);
	*r = copy;
	return lab_open(recorder_container(copy), "opened again");
}

static void test_what_is_written_is_read(void)
{
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = 40 * MIB, .block_size = MIB});
	struct disk *d = lab_open(recorder_container(r), "new");
	char back[4096], data[512] = "hello";

	REQUIRE(d != NULL);
	CHECK_EQ(disk_size(d), 40 * MIB);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 512), 5 * MIB + 1024, &io_plain), 0);
	d = reopen(d, &r);
	REQUIRE(d != NULL);
	CHECK_EQ(disk_read(d, &VEC_FLAT(back, 4096), 5 * MIB, &io_plain), 0);
	CHECK(!memcmp(back + 1024, "hello", 6));
	CHECK(memory_is_zero(back, 1024));
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ another size */

static void put(struct disk *d, uint64_t offset, int byte, size_t length)
{
	char *data = malloc(length);

	memset(data, byte, length);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, length), offset, &io_plain), 0);
	free(data);
}

/* All of the range is that byte. */
static bool holds(struct disk *d, uint64_t offset, int byte, size_t length)
{
	unsigned char *data = malloc(length);
	bool good = !disk_read(d, &VEC_FLAT(data, length), offset, &io_plain);

	for (size_t i = 0; i < length && good; i++)
		good = data[i] == byte;
	free(data);
	return good;
}

static void test_growing_shows_zeroes(void)
{
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = 3 * MIB + 512, .block_size = MIB});
	struct disk *d = lab_open(recorder_container(r), "new");

	REQUIRE(d != NULL);
	put(d, 3 * MIB, 'x', 512);
	put(d, 2 * MIB, 'y', MIB);
	CHECK_EQ(disk_resize(d, 2 * MIB + 512, &io_plain), 0);
	CHECK_EQ(disk_resize(d, 9 * MIB, &io_plain), 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(disk_size(d), 9 * MIB);
		CHECK(holds(d, 2 * MIB, 'y', 512));
		CHECK(holds(d, 2 * MIB + 512, 0, 7 * MIB - 512));
		d = reopen(d, &r);
		REQUIRE(d != NULL);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* 131072 entries go into the MiB that there is: 127 GiB and more need another one. */
static void test_a_table_moves_when_it_is_too_short(void)
{
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = 100 * MIB, .block_size = MIB});
	struct disk *d = lab_open(recorder_container(r), "new");
	uint64_t size = UINT64_C(300) << 30;

	REQUIRE(d != NULL);
	put(d, 99 * MIB, 'a', 4096);
	CHECK_EQ(disk_resize(d, size, &io_plain), 0);
	put(d, size - 4096, 'b', 4096);
	put(d, 5 * MIB, 'c', 4096);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(disk_size(d), size);
		CHECK(holds(d, 99 * MIB, 'a', 4096));
		CHECK(holds(d, size - 4096, 'b', 4096));
		CHECK(holds(d, 5 * MIB, 'c', 4096));
		CHECK(holds(d, size / 2, 0, 4096));
		d = reopen(d, &r);
		REQUIRE(d != NULL);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* What was cut off does not come from the parent, nor from before, when a child grows again, not even after it was opened anew. */
static void test_a_child_grows_with_zeroes(void)
{
	struct vhdx_create_options o = {
		.size = 6 * MIB, .block_size = 2 * MIB, .has_parent = true, .parent_relative = ".\\p.vhdx"};
	struct recorder *r = lab_create(&o);
	struct container *c = recorder_container(r);
	CLEANUP_ERROR struct error err = {0};
	struct layer_run run;
	struct layer *l;

	REQUIRE(vhdx_layer_open(c, &l, &err) == 0);
	CHECK_EQ(l->ops->resize(l, 3 * MIB, &io_plain), 0);
	CHECK_EQ(l->ops->resize(l, 20 * MIB, &io_plain), 0);
	CHECK_EQ(l->ops->map(l, 2 * MIB, MIB, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ABSENT);
	CHECK_EQ(run.length, MIB);
	CHECK_EQ(l->ops->map(l, 3 * MIB, MIB, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_DATA); /* zeroes */
	CHECK_EQ(l->ops->map(l, 4 * MIB, 16 * MIB, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ZERO);
	CHECK_EQ(run.length, 16 * MIB);
	CHECK_EQ(l->ops->close(l, false, &err), 0);
}

/* ------------------------------------------------------------------ calls that fail */

#define CHANGES (1u << RECORDER_WRITE | 1u << RECORDER_ZERO | 1u << RECORDER_RESIZE | 1u << RECORDER_FLUSH)

/* What the disk holds, in sixteen blocks of one byte each: that which was answered last. */
static void check_blocks(struct disk *d, const int *held)
{
	for (unsigned i = 0; i < 16; i++)
		CHECK(holds(d, i * MIB + 8192, held[i], 4096));
}

/* Some writes and flushes, of which one call below fails: the request fails, and no other block changes by it. */
static void work_on(struct disk *d, int *held, bool *flushed)
{
	char data[4096];

	for (unsigned i = 0; i < 16; i++) {
		memset(data, 'a' + (int)i, sizeof(data));
		if (!disk_write(d, &VEC_FLAT(data, sizeof(data)), i * MIB + 8192, &io_plain))
			held[i] = 'a' + (int)i;
		if (i == 7 && !disk_discard(d, 2 * MIB, MIB, &io_plain))
			held[2] = 0;
		if (i % 3 == 0)
			*flushed = !disk_flush(d, &io_plain);
	}
	*flushed = !disk_flush(d, &io_plain);
}

static void fail_one(unsigned kinds, unsigned nth, int status)
{
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = 16 * MIB, .block_size = MIB}), *copy;
	struct disk *d = lab_open(recorder_container(r), "to fail");
	int held[16] = {0};
	bool flushed = false;

	REQUIRE(d != NULL);
	recorder_fail(r, kinds, nth, status);
	work_on(d, held, &flushed);
	check_blocks(d, held);
	if (flushed) {
		copy = recorder_cut(r, recorder_calls(r), UNFLUSHED_ANY, nth);
		disk_close(d, NULL); /* the call that fails may be one of these */
		d = lab_open(recorder_container(copy), "after a failure");
		REQUIRE(d != NULL);
		check_blocks(d, held);
	}
	disk_close(d, NULL);
}

static void test_failing_calls(void)
{
	for (unsigned nth = 1; nth < 60; nth++) {
		fail_one(CHANGES, nth, -ENOSPC);
		fail_one(1u << RECORDER_WRITE, nth, -EIO);
	}
}

/* ------------------------------------------------------------------ smaller */

static void compact(struct recorder *r, bool zeroes, struct vhdx_compact_result *out)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_findings f;

	if (!CHECK_EQ(vhdx_compact(recorder_container(r), zeroes, out, &err), 0))
		tap_diag("%s", error_text(&err));
	CHECK_EQ(vhdx_check(recorder_container(r), false, &f, &err), 0);
	CHECK_EQ(f.errors, 0);
	CHECK_EQ(json_integer_value(json_object_get(f.summary, "unused_bytes")), 0);
	vhdx_findings_free(&f);
}

/* The file with every other block discarded, closed. */
static struct recorder *make_holes(bool child)
{
	struct vhdx_create_options o = {.size = 40 * MIB, .block_size = MIB, .has_parent = child, .parent_relative = ".\\p.vhdx"};
	struct recorder *r = lab_create(&o), *copy;
	struct disk *d = lab_open(recorder_container(r), "new");

	for (unsigned i = 0; i < 40; i++)
		put(d, i * MIB + 4096, 'a' + (int)i, 8192);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	for (unsigned i = 0; i < 40; i += 2)
		CHECK_EQ(disk_discard(d, i * MIB, MIB, &io_plain), 0);
	put(d, 39 * MIB, 0, MIB);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	copy = recorder_cut(r, recorder_calls(r), UNFLUSHED_ANY, 1);
	CHECK_EQ(disk_close(d, NULL), 0);
	return copy;
}

static void check_compact(bool child)
{
	struct vhdx_compact_result result;
	struct recorder *r = make_holes(child);
	struct disk *d;

	compact(r, true, &result);
	CHECK_EQ(result.zeroed, child ? 0 : 1); /* of a child it is partial */
	CHECK(result.moved >= 8);
	CHECK(result.after + 20 * MIB <= result.before);
	compact(r, true, &result);
	CHECK_EQ(result.moved, 0);
	CHECK_EQ(result.after, result.before);
	d = lab_open(recorder_container(r), "compact");
	REQUIRE(d != NULL);
	for (unsigned i = 0; i < 39; i++) {
		CHECK(holds(d, i * MIB, 0, 4096));
		CHECK(holds(d, i * MIB + 4096, i % 2 ? 'a' + (int)i : 0, 8192));
	}
	CHECK(holds(d, 39 * MIB, 0, MIB));
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_compact(void)
{
	check_compact(false);
}

static void test_compact_a_child(void)
{
	check_compact(true);
}

/* ------------------------------------------------------------------ what opening and looking costs */

static uint64_t bytes_in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* Opened as a layer, so that it is the format's work alone; `bitmaps`: with a parent. Neither depends on the size of the disk. */
static void check_opening(uint64_t size, bool bitmaps)
{
	struct vhdx_create_options o = {.size = size, .block_size = MIB, .has_parent = bitmaps, .parent_relative = ".\\p.vhdx"};
	struct recorder *r = lab_create(&o);
	uint64_t before = bytes_in_use(), after;
	CLEANUP_ERROR struct error err = {0};
	struct layer *l;

	REQUIRE(vhdx_layer_open(recorder_container(r), &l, &err) == 0);
	after = bytes_in_use();
	CHECK(recorder_count(r, RECORDER_READ) <= 12);
	CHECK_EQ(recorder_calls(r), 0);
	if (contract_slowness() == 1) /* checkers count in another way */
		CHECK(after - before < 256 * 1024);
	CHECK_EQ(l->ops->close(l, false, &err), 0);
}

static void test_opening_reads_and_takes_little(void)
{
	check_opening(MIB, false);
	check_opening(UINT64_C(64) << 40, false);
	check_opening(UINT64_C(64) << 40, true);
}

/* Where nothing is, a page of the table is read for each 512 entries, and nothing else. */
static void test_an_empty_disk_is_looked_over_by_its_table(void)
{
	uint64_t size = UINT64_C(20) << 30;
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = size, .block_size = MIB});
	struct disk *d = lab_open(recorder_container(r), "empty");
	unsigned before;
	CLEANUP_EXTENTS struct extents e = {0};

	REQUIRE(d != NULL);
	before = recorder_count(r, RECORDER_READ);
	extents_init(&e, 0, size, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	REQUIRE(e.count == 1);
	CHECK_EQ(e.list[0].length, size);
	CHECK_EQ(e.list[0].flags, EXTENT_ZERO | EXTENT_HOLE);
	CHECK_EQ(recorder_count(r, RECORDER_READ) - before, 41); /* 20 * 1024 entries, and four of sector bitmaps between them */
	CHECK_EQ(disk_close(d, NULL), 0);
}

int main(void)
{
	TAP_RUN(test_opening_reads_and_takes_little);
	TAP_RUN(test_an_empty_disk_is_looked_over_by_its_table);
	TAP_RUN(test_growing_shows_zeroes);
	TAP_RUN(test_a_table_moves_when_it_is_too_short);
	TAP_RUN(test_a_child_grows_with_zeroes);
	TAP_RUN(test_failing_calls);
	TAP_RUN(test_compact);
	TAP_RUN(test_compact_a_child);
	TAP_RUN(test_checksum);
	TAP_RUN(test_guid_texts);
	TAP_RUN(test_what_is_written_is_read);
	return TAP_DONE();
}

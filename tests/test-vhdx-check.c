/* SPDX-License-Identifier: BSD-3-Clause */
/* Damaged VHDX files: what is found, what is mended, what is refused. */
#include "tests/vhdx-lab.h"

#include <inttypes.h>

#include "formats/crc32c.h"
#include "formats/endian.h"
#include "formats/vhdx-header.h"

#define MIB (UINT64_C(1) << 20)
#define TABLE (3 * MIB) /* where our own files have it */
#define METADATA (2 * MIB)

/* A file with some blocks, as it is after a flush: the log is not empty. */
static struct recorder *finished(bool child)
{
	struct vhdx_create_options o = {.size = 64 * MIB, .block_size = MIB, .has_parent = child, .parent_relative = ".\\p.vhdx"};
	struct recorder *r = lab_create(&o), *copy;
	struct disk *d = lab_open(recorder_container(r), "new");
	char *data = malloc(MIB);

	memset(data, 'x', MIB);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(disk_write(d, &VEC_FLAT(data, 4096), i * 3 * MIB, &io_plain), 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	free(data);
	copy = recorder_cut(r, recorder_calls(r), UNFLUSHED_ANY, 1);
	CHECK_EQ(disk_close(d, NULL), 0);
	return copy;
}

static void poke(struct recorder *r, uint64_t offset, const void *data, size_t size)
{
	CHECK_EQ(container_write(recorder_container(r), data, size, offset, &io_plain), 0);
}

static void poke64(struct recorder *r, uint64_t offset, uint64_t n)
{
	uint8_t raw[8];

	le64_put(raw, n);
	poke(r, offset, raw, 8);
}

static uint64_t peek64(struct recorder *r, uint64_t offset)
{
	uint8_t raw[8];

	CHECK_EQ(container_read(recorder_container(r), raw, 8, offset, &io_plain), 0);
	return le64_get(raw);
}

/* Checks; the number of errors found. All that can be mended must be mended when that is asked for, and nothing be found after it. */
static unsigned errors_of(struct recorder *r, bool repair, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_findings f;
	unsigned errors;
	char *dump;

	if (!CHECK_EQ(vhdx_check(recorder_container(r), repair, &f, &err), 0))
		tap_diag("%s", error_text(&err));
	dump = json_dumps(f.list, 0);
	if (text && !CHECK(strstr(dump, text) != NULL))
		tap_diag("%s", dump);
	else if (!text && f.errors)
		tap_diag("%s", dump);
	errors = f.errors;
	free(dump);
	vhdx_findings_free(&f);
	return errors;
}

static void check_mended(struct recorder *r, const char *text)
{
	unsigned calls;

	recorder_begin(r);
	CHECK(errors_of(r, false, text) > 0);
	calls = recorder_calls(r);
	CHECK_EQ(calls, 0); /* a dry run changes nothing */
	CHECK(errors_of(r, true, text) > 0);
	CHECK_EQ(errors_of(r, false, NULL), 0);
	container_close(recorder_container(r), false, NULL);
}

static void check_told(struct recorder *r, const char *text)
{
	CHECK(errors_of(r, false, text) > 0);
	CHECK(errors_of(r, true, text) > 0);
	CHECK(errors_of(r, false, text) > 0);
	container_close(recorder_container(r), false, NULL);
}

/* ------------------------------------------------------------------ */

static struct recorder *replayed(bool child)
{
	struct recorder *r = finished(child);

	errors_of(r, true, "not closed");
	return r;
}

static void test_a_good_file_has_no_errors(void)
{
	struct recorder *r = replayed(false);

	CHECK_EQ(errors_of(r, false, NULL), 0);
	container_close(recorder_container(r), false, NULL);
	r = replayed(true);
	CHECK_EQ(errors_of(r, false, NULL), 0);
	container_close(recorder_container(r), false, NULL);
}

static void test_a_log_is_replayed(void)
{
	check_mended(finished(false), "entries are not in their places");
	check_mended(finished(true), "entries are not in their places");
}

static void test_headers(void)
{
	for (unsigned slot = 0; slot < 2; slot++) {
		struct recorder *r = replayed(false);
		poke64(r, VHDX_HEADER_OFFSET(slot) + 100, 1);
		check_mended(r, "checksum");
	}
}

static void test_region_tables(void)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct recorder *r = replayed(false);
		poke64(r, VHDX_TABLE_OFFSET(copy) + 1000, 1);
		check_mended(r, "checksum");
	}
}

static void test_entries(void)
{
	static const struct {
		uint64_t value;
		const char *text;
	} bad[] = {
		{4, "state that is not known"},      {6, "lies in the first MiB"},
		{(UINT64_C(1) << 40) | 6, "ends behind the end of the file"},
		{MIB | 6, "lies in the log"},        {METADATA | 6, "lies in a region"},
		{MIB * 5 | 2, "must be 0"},          {MIB * 5 | 0, "must be 0"},
		{8, "reserved bits"},                {MIB | 1, "lies in the log"},
		{(UINT64_C(1) << 40) | 3, "ends behind the end of the file"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct recorder *r = replayed(false);
		poke64(r, TABLE + 8 * 40, bad[i].value);
		check_mended(r, bad[i].text);
	}
}

static void test_partial_without_a_parent(void)
{
	struct recorder *r = replayed(false);

	poke64(r, TABLE, peek64(r, TABLE) | 7);
	check_mended(r, "without a parent");
}

static void test_space_of_two(void)
{
	struct recorder *r = replayed(false);

	poke64(r, TABLE + 8 * 50, peek64(r, TABLE));
	check_told(r, "something else has");
}

/* What a block without content has kept may be another's by now. */
static void test_kept_space_of_another(void)
{
	struct recorder *r = replayed(false);

	poke64(r, TABLE + 8 * 50, (peek64(r, TABLE) & ~UINT64_C(7)) | VHDX_UNMAPPED);
	check_mended(r, "something else has");
}

/* Such a file is read, but nothing that would go through the log is mended. */
static void test_no_log(void)
{
	struct recorder *r = replayed(false);
	struct vhdx_headers h;
	uint8_t page[VHDX_PAGE];

	CHECK_EQ(vhdx_headers_load(recorder_container(r), &h, NULL), 0);
	h.current.log_length = 0;
	h.current.log_offset = 0;
	vhdx_header_encode(&h.current, page);
	for (unsigned slot = 0; slot < 2; slot++)
		poke(r, VHDX_HEADER_OFFSET(slot), page, sizeof(page));
	CHECK_EQ(errors_of(r, false, NULL), 0);
	poke64(r, TABLE + 8 * 40, MIB * 5 | 2);
	check_told(r, "must be 0");
	r = replayed(false);
	for (unsigned slot = 0; slot < 2; slot++)
		poke(r, VHDX_HEADER_OFFSET(slot), page, sizeof(page));
	poke64(r, VHDX_TABLE_OFFSET(1) + 1000, 1);
	check_told(r, "checksum");
}

static void test_a_bitmap_that_is_missing(void)
{
	struct recorder *r = replayed(true);

	poke64(r, TABLE + 8 * 4096, 0); /* R is 4096 for sectors of 512 and blocks of 1 MiB */
	check_told(r, "no sector bitmap");
}

static void test_an_end_within_a_mib(void)
{
	struct recorder *r = replayed(false);

	CHECK_EQ(container_set_size(recorder_container(r), container_size(recorder_container(r)) + 512, NULL), 0);
	check_mended(r, "not whole MiB");
}

static void test_what_cannot_be_opened_is_told(void)
{
	struct recorder *r = replayed(false);

	poke64(r, METADATA, 0);
	check_told(r, "has no signature");
	r = finished(false);
	for (uint64_t at = MIB; at < 2 * MIB; at += 4096)
		poke64(r, at, 0);
	check_told(r, "there is no entry of it");
}

/* A file with a wrong table can be read where it is right, and is not written to. */
static void test_nothing_is_written_to_a_damaged_file(void)
{
	struct recorder *r = replayed(false);
	struct failure why = {0};
	char data[4096] = "y";
	struct disk *d;

	poke64(r, TABLE + 8 * 40, MIB | 6);
	recorder_begin(r);
	d = lab_open(recorder_container(r), "damaged");
	REQUIRE(d != NULL);
	CHECK_EQ(disk_read(d, &VEC_FLAT(data, 4096), 0, &io_plain), 0);
	CHECK_EQ(data[0], 'x');
	CHECK_EQ(disk_read(d, &VEC_FLAT(data, 4096), 40 * MIB, &(struct io){.failure = &why}), -EIO);
	CHECK(strstr(why.text, "block 40") != NULL);
	why = (struct failure){0};
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 4096), 0, &(struct io){.failure = &why}), -EIO);
	CHECK(strstr(why.text, "nothing is written") != NULL);
	CHECK_EQ(recorder_calls(r), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ what must be known */

/* Of what lies at `offset` the checksum, in its bytes 4 to 7. */
static void seal(struct recorder *r, uint64_t offset, size_t size)
{
	uint8_t *bytes = malloc(size), crc[4];

	CHECK_EQ(container_read(recorder_container(r), bytes, size, offset, &io_plain), 0);
	memset(bytes + 4, 0, 4);
	le32_put(crc, crc32c(0, bytes, size));
	poke(r, offset + 4, crc, 4);
	free(bytes);
}

static void poke_headers(struct recorder *r, unsigned at, uint16_t value)
{
	uint8_t raw[2];

	le16_put(raw, value);
	for (unsigned slot = 0; slot < 2; slot++) {
		poke(r, VHDX_HEADER_OFFSET(slot) + at, raw, 2);
		seal(r, VHDX_HEADER_OFFSET(slot), VHDX_PAGE);
	}
}

static void test_versions(void)
{
	struct recorder *r = replayed(false);

	poke_headers(r, 66, 2);
	check_told(r, "version 2 instead of 1");
	r = finished(false);
	poke_headers(r, 64, 1);
	check_told(r, "the log is of version 1");
	r = replayed(false);
	poke_headers(r, 64, 1); /* of a log that is empty nothing depends on it */
	CHECK_EQ(errors_of(r, false, NULL), 0);
	container_close(recorder_container(r), false, NULL);
}

static void fill(struct recorder *r, uint64_t offset, char byte)
{
	char *bytes = malloc(MIB);

	memset(bytes, byte, MIB);
	poke(r, offset, bytes, MIB);
	free(bytes);
}

/* A region of a MiB at the end of the file, full of 'u'; where it lies. */
static uint64_t add_region(struct recorder *r, bool required)
{
	uint64_t end = container_size(recorder_container(r));
	uint8_t entry[32] = {0x11, 0x22}, count[4];

	CHECK_EQ(container_set_size(recorder_container(r), end + MIB, NULL), 0);
	fill(r, end, 'u');
	le64_put(entry + 16, end);
	le32_put(entry + 24, MIB);
	le32_put(entry + 28, required);
	le32_put(count, 3);
	for (unsigned copy = 0; copy < 2; copy++) {
		poke(r, VHDX_TABLE_OFFSET(copy) + 8, count, 4);
		poke(r, VHDX_TABLE_OFFSET(copy) + 16 + 2 * 32, entry, 32);
		seal(r, VHDX_TABLE_OFFSET(copy), VHDX_TABLE_BYTES);
	}
	return end;
}

/* Whatever is done to the file, what is not known stays as it is (2.2). */
static void test_regions_that_are_not_known(void)
{
	struct recorder *r = replayed(false);
	struct vhdx_compact_result result;
	char *bytes = malloc(MIB);
	struct disk *d;
	uint64_t at;

	add_region(r, true);
	check_told(r, "is required and not known");
	r = replayed(false);
	at = add_region(r, false);
	CHECK_EQ(errors_of(r, false, NULL), 0);
	recorder_hold(r);
	d = lab_open(recorder_container(r), "region");
	memset(bytes, 'y', MIB);
	for (unsigned block = 30; block < 50 && d; block++)
		CHECK_EQ(disk_write(d, &VEC_FLAT(bytes, MIB), block * MIB, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, 40 * MIB, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(vhdx_compact(recorder_container(r), true, &result, NULL), 0);
	CHECK_EQ(container_read(recorder_container(r), bytes, MIB, at, &io_plain), 0);
	for (unsigned i = 0; i < MIB; i++)
		if (!CHECK_EQ(bytes[i], 'u'))
			break;
	CHECK_EQ(errors_of(r, false, NULL), 0);
	free(bytes);
	container_close(recorder_container(r), false, NULL);
}

static void add_item(struct recorder *r, uint32_t flags)
{
	uint8_t entry[32] = {0x11, 0x22}, count[2];

	le32_put(entry + 16, 128 << 10);
	le32_put(entry + 20, 16);
	le32_put(entry + 24, flags);
	le16_put(count, 6);
	poke(r, METADATA + 10, count, 2);
	poke(r, METADATA + 32 + 5 * 32, entry, 32);
}

static void test_items_that_are_not_known(void)
{
	struct recorder *r = replayed(false);

	add_item(r, VHDX_ITEM_REQUIRED);
	check_told(r, "is required and not known");
	r = replayed(false);
	add_item(r, VHDX_ITEM_USER);
	CHECK_EQ(errors_of(r, false, NULL), 0);
	container_close(recorder_container(r), false, NULL);
}

/* ------------------------------------------------------------------ before the first change */

static struct guid file_write_of(struct recorder *r)
{
	struct vhdx_headers h = {0};

	CHECK_EQ(vhdx_headers_load(recorder_container(r), &h, NULL), 0);
	return h.current.file_write;
}

/* All but the headers. */
static bool is_unchanged(struct recorder *a, struct recorder *b)
{
	uint64_t size = container_size(recorder_container(a)), begin = VHDX_TABLE_OFFSET(0);
	static uint8_t x[1 << 16], y[1 << 16];

	if (size != container_size(recorder_container(b)))
		return false;
	for (uint64_t at = 0; at < size; at += sizeof(x)) {
		size_t n = size - at < sizeof(x) ? size - at : sizeof(x);
		at = at == VHDX_HEADER_OFFSET(0) ? begin : at;
		CHECK_EQ(container_read(recorder_container(a), x, n, at, &io_plain), 0);
		CHECK_EQ(container_read(recorder_container(b), y, n, at, &io_plain), 0);
		if (memcmp(x, y, n) != 0)
			return false;
	}
	return true;
}

/* While the header that counts has the old FileWriteGuid, nothing else is another, whatever of it has come to the medium (2.2.2, 2.2.2.1). */
static void check_header_comes_first(struct recorder *r, void (*change)(struct recorder *r))
{
	struct guid old = file_write_of(r), new;
	struct recorder *before;

	recorder_begin(r);
	before = recorder_cut(r, 0, UNFLUSHED_ANY, 0);
	recorder_hold(r);
	change(r);
	for (unsigned n = 1; n <= recorder_calls(r); n++)
		for (uint64_t seed = 0; seed < 8; seed++) {
			struct recorder *cut = recorder_cut(r, n, UNFLUSHED_ANY, seed);
			new = file_write_of(cut);
			if (!CHECK(!guid_equal(&new, &old) || is_unchanged(cut, before)))
				recorder_tell(r, n, UNFLUSHED_ANY, seed);
			container_close(recorder_container(cut), false, NULL);
		}
	new = file_write_of(r);
	CHECK(!guid_equal(&new, &old));
	container_close(recorder_container(before), false, NULL);
	container_close(recorder_container(r), false, NULL);
}

static void change_by_opening(struct recorder *r)
{
	CHECK_EQ(disk_close(lab_open(recorder_container(r), "again"), NULL), 0);
}

static void change_by_writing(struct recorder *r)
{
	struct disk *d = lab_open(recorder_container(r), "again");
	char data[4096] = "z";

	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 4096), 0, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void change_by_repair(struct recorder *r)
{
	CHECK(errors_of(r, true, "") > 0);
	container_close(recorder_container(r), false, NULL);
}

static void change_by_compacting(struct recorder *r)
{
	struct vhdx_compact_result result;

	CHECK_EQ(vhdx_compact(recorder_container(r), true, &result, NULL), 0);
	container_close(recorder_container(r), false, NULL);
}

static void test_the_header_comes_first(void)
{
	struct recorder *r;

	check_header_comes_first(finished(false), change_by_opening);
	check_header_comes_first(finished(false), change_by_repair);
	check_header_comes_first(replayed(false), change_by_writing);
	check_header_comes_first(replayed(true), change_by_compacting);
	r = replayed(false);
	poke64(r, TABLE + 8 * 40, MIB * 5 | 2);
	check_header_comes_first(r, change_by_repair);
	r = replayed(false);
	poke64(r, VHDX_TABLE_OFFSET(1) + 1000, 1);
	check_header_comes_first(r, change_by_repair);
	r = replayed(false);
	CHECK_EQ(container_set_size(recorder_container(r), container_size(recorder_container(r)) + 512, NULL), 0);
	check_header_comes_first(r, change_by_repair);
}

int main(void)
{
	TAP_RUN(test_a_good_file_has_no_errors);
	TAP_RUN(test_a_log_is_replayed);
	TAP_RUN(test_headers);
	TAP_RUN(test_region_tables);
	TAP_RUN(test_entries);
	TAP_RUN(test_partial_without_a_parent);
	TAP_RUN(test_space_of_two);
	TAP_RUN(test_kept_space_of_another);
	TAP_RUN(test_no_log);
	TAP_RUN(test_a_bitmap_that_is_missing);
	TAP_RUN(test_an_end_within_a_mib);
	TAP_RUN(test_what_cannot_be_opened_is_told);
	TAP_RUN(test_nothing_is_written_to_a_damaged_file);
	TAP_RUN(test_versions);
	TAP_RUN(test_regions_that_are_not_known);
	TAP_RUN(test_items_that_are_not_known);
	TAP_RUN(test_the_header_comes_first);
	return TAP_DONE();
}

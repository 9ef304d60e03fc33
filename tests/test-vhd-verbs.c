/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD images as wholes: resizing, checking, repairing, telling, compacting. What a power cut leaves is tested in test-vhd-crash-verbs.c. */
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vhd-lab.h"

/* ------------------------------------------------------------------ size */

static void test_a_larger_bat_moves(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 4096); /* 256 blocks: two sectors of BAT */
	struct vhd_header h;
	struct disk *d;

	d = open_image(r);
	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_resize(d, 8 << 20, &io_plain), 0);
	put(d, 7 << 20, 2, 1 << 20);
	CHECK(holds(d, 0, 1, 1 << 20));
	CHECK(holds(d, 1 << 20, 0, 6 << 20));
	CHECK_EQ(disk_close(d, NULL), 0);
	load_header(r, &h);
	CHECK(be64toh(h.bat_offset) > 1 << 20);
	CHECK_EQ(be32toh(h.max_entries), 2048);
	d = open_image(r);
	CHECK_EQ(disk_size(d), 8 << 20);
	CHECK(holds(d, 0, 1, 1 << 20));
	CHECK(holds(d, 1 << 20, 0, 6 << 20));
	CHECK(holds(d, 7 << 20, 2, 1 << 20));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 2 << 20, NULL), 0);
	d = open_image(r);
	CHECK_EQ(disk_size(d), 2 << 20);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 2 << 20 | 1, NULL), -EINVAL);
	drop(r);
}

/* ------------------------------------------------------------------ check and repair */

/* It is found, a dry run changes nothing, and after the repair the image is clean. */
static void check_repair(struct recorder *r, const char *text)
{
	recorder_begin(r);
	CHECK_EQ(problems_of(r, false, text), 1);
	CHECK_EQ(recorder_calls(r), 0);
	CHECK_EQ(problems_of(r, true, text), 1);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	CHECK_EQ(disk_close(open_image(r), NULL), 0);
}

static struct recorder *make_used(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);

	put(d, 0, 1, 1 << 18);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	return r;
}

static void test_footers_are_repaired(void)
{
	struct recorder *r = make_used();
	struct container *c = recorder_container(r);
	struct vhd_footer f;

	CHECK_EQ(c->ops->zero(c, 0, 512, false, &io_plain), 0);
	check_repair(r, "copy at the front: does not begin");
	CHECK_EQ(c->ops->zero(c, end_of(r) - 512, 512, false, &io_plain), 0);
	check_repair(r, "no footer at the end");
	load_footer(r, &f);
	f.time = 1;
	vhd_footer_seal(&f);
	store(r, 0, &f, 512);
	check_repair(r, "not like the footer at the end");
	drop(r);
}

static void test_checksums_are_repaired(void)
{
	struct recorder *r = make_used();
	struct vhd_footer f, copy;
	struct vhd_header h;

	load_footer(r, &f);
	f.time ^= 1;
	store(r, end_of(r) - 512, &f, 512);
	CHECK_EQ(problems_of(r, true, "footer at the end: checksum"), 2); /* and the copy is not like it */
	CHECK_EQ(problems_of(r, false, NULL), 0);
	load_footer(r, &copy);
	CHECK_EQ(copy.time, f.time);

	load_header(r, &h);
	h.checksum ^= 1;
	store(r, 512, &h, sizeof(h));
	check_repair(r, "dynamic header: checksum");
	drop(r);
}

static void test_entries_are_repaired(void)
{
	struct recorder *r = make_used();
	struct disk *d;

	set_entry(r, 7, entry_at(r, 2));
	check_repair(r, "BAT entry 7");
	CHECK_EQ(entry_at(r, 7), VHD_ABSENT);
	set_entry(r, 9, 0x7fffffff);
	check_repair(r, "overlaps the end of the file");
	d = open_image(r);
	CHECK(holds(d, 0, 1, 1 << 18));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

/*
 * Old Virtual PC writes no more of the last block than the disk has. Here it is also the last in the file, and its bitmap says nothing of what is
 * there.
 */
static void test_a_last_block_in_part(void)
{
	const uint64_t size = (1 << 20) - 32768;
	struct recorder *r = make(VHD_DYNAMIC, size, 65536);
	struct container *c = recorder_container(r);
	struct disk *d = open_image(r);
	unsigned char bitmap[512] = {0};
	struct vhd_footer f;
	uint64_t end;

	put(d, size - 32768, 3, 32768);
	CHECK_EQ(disk_close(d, NULL), 0);
	memset(bitmap, 0xff, 8);
	store(r, (uint64_t)entry_at(r, 15) * 512, bitmap, 512);
	end = (uint64_t)entry_at(r, 15) * 512 + 512 + 32768;
	load_footer(r, &f);
	CHECK_EQ(container_set_size(c, end, NULL), 0);
	store(r, end, &f, 512);
	CHECK_EQ(problems_of(r, false, NULL), 0); /* where a bit is clear there is the footer, which is no data */
	CHECK_EQ(c->ops->zero(c, (uint64_t)entry_at(r, 15) * 512, 512, false, &io_plain), 0);
	CHECK_EQ(problems_of(r, false, "block 15: its bitmap"), 1);
	CHECK_EQ(problems_of(r, true, NULL), 1);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, size - 32768, 3, 32768));
	put(d, 0, 1, 65536); /* another block does not come to lie over what the last one may be yet */
	CHECK_EQ(disk_resize(d, 1 << 20, &io_plain), 0);
	CHECK(holds(d, size, 0, 32768));
	put(d, size, 4, 32768);
	CHECK(holds(d, 0, 1, 65536));
	CHECK(holds(d, size - 32768, 3, 32768));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	drop(r);
}

static void test_bitmaps_are_repaired(void)
{
	struct recorder *r = make_used();
	unsigned char bitmap[512];

	load(r, (uint64_t)entry_at(r, 1) * 512, bitmap, 512);
	CHECK_EQ(bitmap[3], 0xff);
	bitmap[3] = 0x7f;
	store(r, (uint64_t)entry_at(r, 1) * 512, bitmap, 512);
	check_repair(r, "block 1: its bitmap");
	drop(r);
}

/* What others may have left under a clear bit is shown when somebody writes next to it: the bit is set then. */
static void test_writers_fill_bitmaps(void)
{
	struct recorder *r = make_used();
	unsigned char bitmap[512] = {0};
	struct disk *d;

	store(r, (uint64_t)entry_at(r, 1) * 512, bitmap, 512);
	d = open_image(r);
	put(d, 65536 + 1024, 6, 1024);
	CHECK_EQ(disk_close(d, NULL), 0);
	load(r, (uint64_t)entry_at(r, 1) * 512, bitmap, 512);
	CHECK_EQ(bitmap[0], 0x30);
	drop(r);
}

/* Of 1000 what they are is listed, and when there are too many nothing is touched. */
static void test_many_problems(void)
{
	struct recorder *r = make(VHD_DYNAMIC, UINT64_C(500) << 20, 4096);
	struct disk *d = open_image(r);
	CLEANUP_ERROR struct error err = {0};
	json_t *report = NULL;
	uint32_t *bat = malloc(120000 * 4);

	put(d, 0, 1, 4096);
	CHECK_EQ(disk_close(d, NULL), 0);
	for (uint32_t i = 0; i < 120000; i++)
		bat[i] = htobe32(i && i <= 2000 ? 0x7fffffff : i ? VHD_ABSENT : entry_at(r, 0));
	store(r, 1536, bat, 120000 * 4);
	CHECK_EQ(vhd_check(recorder_container(r), &strict, false, &report, NULL), 0);
	CHECK_EQ(json_array_size(json_object_get(report, "problems")), 1000);
	CHECK_EQ(json_integer_value(json_object_get(report, "nr_problems")), 2000);
	json_decref(report);
	for (uint32_t i = 1; i < 120000; i++)
		bat[i] = htobe32(0x7fffffff);
	store(r, 1536, bat, 120000 * 4);
	recorder_begin(r);
	CHECK_EQ(vhd_check(recorder_container(r), &strict, true, &report, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "more than 100000 BAT entries are wrong") != NULL);
	CHECK_EQ(recorder_calls(r), 0);
	free(bat);
	drop(r);
}

static int64_t of_check(struct recorder *r, const char *field)
{
	json_t *report = NULL;
	int64_t value = -1;

	if (CHECK_EQ(vhd_check(recorder_container(r), &strict, false, &report, NULL), 0))
		value = json_integer_value(json_object_get(report, field));
	json_decref(report);
	return value;
}

static void test_what_is_used_is_told(void)
{
	struct recorder *r = make_used();

	CHECK_EQ(of_check(r, "blocks"), 4);
	CHECK_EQ(of_check(r, "unused_bytes"), (int64_t)end_of(r) - 4 * 129 * 512 - 5 * 512); /* both footers, header, BAT */
	drop(r);
}

/* Nothing is written to a file that cannot be, and it is told that nothing was. */
static void test_a_repair_of_what_is_read_only(void)
{
	struct recorder *r = make_used();
	json_t *report = NULL;

	set_entry(r, 9, 0x7fffffff);
	recorder_set_read_only(r, true);
	CHECK_EQ(vhd_check(recorder_container(r), &strict, true, &report, NULL), 0);
	CHECK(json_is_false(json_object_get(json_array_get(json_object_get(report, "problems"), 0), "repaired")));
	json_decref(report);
	drop(r);
}

static void test_info_and_map(void)
{
	struct recorder *r = make_used();
	json_t *report = NULL;

	CHECK_EQ(vhd_info(recorder_container(r), &strict, &report, NULL), 0);
	CHECK_STR(json_string_value(json_object_get(report, "type")), "dynamic");
	CHECK_EQ(json_integer_value(json_object_get(report, "size")), 1 << 20);
	json_decref(report);
	CHECK_EQ(vhd_map(recorder_container(r), &strict, &report, NULL), 0);
	CHECK_EQ(json_array_size(report), 5); /* four blocks with bitmaps between, and the rest */
	CHECK_EQ(json_integer_value(json_object_get(json_array_get(report, 1), "at")), (json_int_t)entry_at(r, 1) * 512 + 512);
	CHECK_STR(json_string_value(json_object_get(json_array_get(report, 4), "kind")), "zero");
	json_decref(report);
	drop(r);
}

/* ------------------------------------------------------------------ compact */

/* Every third block is kept, some are zero, some never were. */
static struct recorder *make_sparse(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 2 << 20, 65536);
	struct disk *d = open_image(r);

	for (unsigned i = 0; i < 32; i++)
		if (i % 4)
			put(d, (uint64_t)i * 65536 + 512 * i, (unsigned char)(i + 1), 1024);
	for (unsigned i = 0; i < 32; i++)
		if (i % 3)
			CHECK_EQ(disk_write_zeroes(d, (uint64_t)i * 65536, 65536, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	recorder_begin(r);
	return r;
}

static bool is_as_made(struct recorder *r)
{
	struct disk *d = open_image(r);
	bool good = d != NULL;

	for (unsigned i = 0; i < 32 && good; i++) {
		bool kept = i % 4 && i % 3 == 0;
		good = kept ? holds(d, (uint64_t)i * 65536 + 512 * i, (unsigned char)(i + 1), 1024) &&
				      holds(d, (uint64_t)i * 65536 + 512 * i + 1024, 0, 512)
			    : holds(d, (uint64_t)i * 65536, 0, 65536);
	}
	if (d)
		CHECK_EQ(disk_close(d, NULL), 0);
	return good;
}

static void test_compact(void)
{
	struct recorder *r = make_sparse();
	uint64_t before = end_of(r);
	json_t *report = NULL;

	CHECK_EQ(vhd_compact(recorder_container(r), &strict, &report, NULL), 0);
	CHECK_EQ(json_integer_value(json_object_get(report, "dropped")), 16);
	CHECK(json_integer_value(json_object_get(report, "moved")) > 0);
	CHECK_EQ(json_integer_value(json_object_get(report, "before")), (json_int_t)before);
	CHECK_EQ(json_integer_value(json_object_get(report, "after")), (json_int_t)end_of(r));
	json_decref(report);
	CHECK(end_of(r) < 9 * (65536 + 4096));
	CHECK(is_as_made(r));
	CHECK_EQ(problems_of(r, false, NULL), 0);
	CHECK_EQ(vhd_compact(recorder_container(r), &strict, &report, NULL), 0);
	CHECK_EQ(json_integer_value(json_object_get(report, "moved")), 0);
	json_decref(report);
	drop(r);
}

static void test_compact_survives_power_cuts(void)
{
	struct recorder *r = make_sparse();
	json_t *report = NULL;

	CHECK_EQ(vhd_compact(recorder_container(r), &strict, &report, NULL), 0);
	json_decref(report);
	for (unsigned n = 0; n <= recorder_calls(r); n++)
		for (uint64_t seed = 0; seed < 6; seed++) {
			struct recorder *cut = recorder_cut(r, n, seed % 2 ? UNFLUSHED_ANY : UNFLUSHED_IN_ORDER, seed);
			bool good = is_as_made(cut);
			drop(cut);
			if (!CHECK(good)) {
				recorder_tell(r, n, seed % 2 ? UNFLUSHED_ANY : UNFLUSHED_IN_ORDER, seed);
				drop(r);
				return;
			}
		}
	drop(r);
}

int main(void)
{
	TAP_RUN(test_a_larger_bat_moves);
	TAP_RUN(test_footers_are_repaired);
	TAP_RUN(test_checksums_are_repaired);
	TAP_RUN(test_entries_are_repaired);
	TAP_RUN(test_a_last_block_in_part);
	TAP_RUN(test_bitmaps_are_repaired);
	TAP_RUN(test_writers_fill_bitmaps);
	TAP_RUN(test_many_problems);
	TAP_RUN(test_what_is_used_is_told);
	TAP_RUN(test_a_repair_of_what_is_read_only);
	TAP_RUN(test_info_and_map);
	TAP_RUN(test_compact);
	TAP_RUN(test_compact_survives_power_cuts);
	return TAP_DONE();
}

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

static bool is_zero_at(struct recorder *r, uint64_t at, size_t length)
{
	unsigned char *data = malloc(length);
	bool zero;

	load(r, at, data, length);
	zero = memory_is_zero(data, length);
	free(data);
	return zero;
}

/* What is cut off is given back to the file system, and nothing of it comes back. */
static void test_what_is_cut_off_is_gone(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	uint32_t cut, kept;

	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_close(d, NULL), 0);
	kept = entry_at(r, 5);
	cut = entry_at(r, 6);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 5 * 65536 + 512, NULL), 0);
	CHECK_EQ(entry_at(r, 6), VHD_ABSENT);
	CHECK(is_zero_at(r, (uint64_t)cut * 512 + 512, 65536));
	CHECK(is_zero_at(r, (uint64_t)kept * 512 + 1024, 65536 - 512));
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 1 << 20, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, 0, 1, 5 * 65536 + 512));
	CHECK(holds(d, 5 * 65536 + 512, 0, 10 * 65536 + 65024));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, VHD_MAX_SECTORS * 512 + 512, NULL), -EINVAL);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 0, NULL), -EINVAL);
	drop(r);
}

/* As a shrink leaves it whose tidying did not come to be: blocks behind the end. */
static void test_blocks_behind_the_end_do_not_come_back(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	struct vhd_footer f;

	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_close(d, NULL), 0);
	load_footer(r, &f);
	vhd_footer_set_size(&f, 1 << 19);
	store_footer(r, &f);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 1 << 20, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, 0, 1, 1 << 19));
	CHECK(holds(d, 1 << 19, 0, 1 << 19));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

/* The same within one session: bits of a block that was cut off say nothing of the one that comes in its place. */
static void test_bits_of_what_was_cut_off_are_forgotten(void)
{
	struct recorder *r = make(VHD_DIFFERENCING, 1 << 20, 65536);
	struct disk *d = open_image(r);

	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	recorder_fail(r, 1u << RECORDER_ZERO, 1, -EIO);
	CHECK_EQ(disk_resize(d, 1 << 19, &io_plain), 0);
	CHECK_EQ(disk_resize(d, 1 << 20, &io_plain), 0);
	put(d, 10 * 65536, 7, 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, 10 * 65536, 7, 512));
	CHECK(holds(d, 10 * 65536 + 512, 0, 65024));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

/* Bytes between disk and footer of a fixed image belong to nothing, and are no part of what is added. */
static void test_bytes_before_a_fixed_footer(void)
{
	struct recorder *r = make(VHD_FIXED, 1 << 20, 0);
	unsigned char junk[4096];
	struct vhd_footer f;
	struct disk *d;

	load_footer(r, &f);
	memset(junk, 0x77, sizeof(junk));
	store(r, 1 << 20, junk, sizeof(junk));
	store(r, (1 << 20) + sizeof(junk), &f, 512);
	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 2 << 20, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, 1 << 20, 0, 1 << 20));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(end_of(r), (2 << 20) + 512);
	drop(r);
}

/* An image as Xen makes them, with a map of 16 blocks that says that all are whole. */
static struct recorder *make_xen(void)
{
	static const unsigned char header[512] = "tdbatmap", map[512] = {0xff, 0xff};
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct vhd_footer f;
	struct disk *d;

	load_footer(r, &f);
	memcpy(f.creator, "tap", 4);
	store(r, 2048, header, 512);
	store(r, 2560, map, 512);
	store(r, 3072, &f, 512);
	store_footer(r, &f);
	d = open_image(r);
	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK(!is_zero_at(r, 2560, 512));
	return r;
}

static void test_maps_of_xen_are_emptied(void)
{
	struct recorder *r = make_xen();
	json_t *report = NULL;

	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 1 << 19, NULL), 0);
	CHECK(is_zero_at(r, 2560, 512));
	drop(r);
	r = make_xen();
	CHECK_EQ(vhd_compact(recorder_container(r), &strict, &report, NULL), 0);
	json_decref(report);
	CHECK(is_zero_at(r, 2560, 512));
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
	struct container *c = recorder_container(r);
	struct disk *d;

	set_entry(r, 7, entry_at(r, 2));
	check_repair(r, "BAT entry 7");
	CHECK_EQ(entry_at(r, 7), VHD_ABSENT);
	set_entry(r, 9, 0x7fffffff);
	check_repair(r, "overlaps the end of the file");
	d = open_image(r);
	CHECK(holds(d, 0, 1, 1 << 18));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(c->ops->zero(c, end_of(r) - 512, 512, false, &io_plain), 0);
	set_entry(r, 9, (uint32_t)(end_of(r) / 512) - 2); /* there in part: one sector of its data */
	CHECK_EQ(problems_of(r, false, "no footer at the end"), 2);
	set_entry(r, 9, 0);
	CHECK_EQ(problems_of(r, false, "no footer at the end"), 2);
	drop(r);
}

#define PARTIAL_SIZE ((1u << 20) - 32768)

/* Old Virtual PC writes no more of the last block than the disk has. Here it is also the last in the file. */
static struct recorder *make_partial(unsigned char byte)
{
	struct recorder *r = make(VHD_DYNAMIC, PARTIAL_SIZE, 65536);
	struct disk *d = open_image(r);
	unsigned char bitmap[512] = {0};
	struct vhd_footer f;
	uint64_t end;

	put(d, PARTIAL_SIZE - 32768 - 65536, 2, 65536);
	put(d, PARTIAL_SIZE - 32768, 3, 32768);
	if (!byte)
		CHECK_EQ(disk_write_zeroes(d, PARTIAL_SIZE - 32768, 32768, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	memset(bitmap, 0xff, 8);
	store(r, (uint64_t)entry_at(r, 15) * 512, bitmap, 512);
	end = (uint64_t)entry_at(r, 15) * 512 + 512 + 32768;
	load_footer(r, &f);
	CHECK_EQ(container_set_size(recorder_container(r), end, NULL), 0);
	store(r, end, &f, 512);
	return r;
}

static void test_a_last_block_in_part(void)
{
	struct recorder *r = make_partial(3);
	struct container *c = recorder_container(r);
	struct disk *d;

	CHECK_EQ(problems_of(r, false, NULL), 0); /* where a bit is clear there is the footer, which is no data */
	CHECK_EQ(c->ops->zero(c, (uint64_t)entry_at(r, 15) * 512, 512, false, &io_plain), 0);
	CHECK_EQ(problems_of(r, false, "block 15: its bitmap"), 1);
	CHECK_EQ(problems_of(r, true, "block 15: its bitmap"), 1);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, PARTIAL_SIZE - 32768, 3, 32768));
	put(d, 0, 1, 65536); /* another block does not come to lie over what the last one may be yet */
	CHECK_EQ(disk_resize(d, 1 << 20, &io_plain), 0);
	CHECK(holds(d, PARTIAL_SIZE, 0, 32768));
	put(d, PARTIAL_SIZE, 4, 32768);
	CHECK(holds(d, 0, 1, 65536));
	CHECK(holds(d, PARTIAL_SIZE - 32768, 3, 32768));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	drop(r);
}

static void test_a_last_block_in_part_grows(void)
{
	struct recorder *r = make_partial(3);
	struct disk *d;

	CHECK_EQ(vhd_resize(recorder_container(r), &strict, 1 << 20, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, PARTIAL_SIZE, 0, 32768));
	put(d, PARTIAL_SIZE, 4, 32768);
	CHECK(holds(d, PARTIAL_SIZE - 32768, 3, 32768));
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

/* Ends the work when it was asked so often whether to go on. */
struct stopper {
	struct watch watch;
	unsigned left;
	uint64_t total, done; /* of the stretch that is under way */
	bool too_much;
};

static void note_phase(struct watch *w, const char *what, uint64_t total)
{
	struct stopper *s = (struct stopper *)w;

	CHECK(what && what[0]);
	s->total = total;
	s->done = 0;
}

static void note_add(struct watch *w, uint64_t bytes)
{
	struct stopper *s = (struct stopper *)w;

	s->done += bytes;
	s->too_much = s->too_much || s->done > s->total;
}

static bool is_enough(struct watch *w)
{
	struct stopper *s = (struct stopper *)w;

	if (!s->left)
		return true;
	s->left--;
	return false;
}

/* However early it is stopped: the image is sound, shows the same, and is no longer than before. */
static void test_compact_is_stopped(void)
{
	int status = -EINTR;

	for (unsigned after = 0; status == -EINTR && after < 1000; after++) {
		struct stopper s = {.watch = {note_phase, note_add, is_enough}, .left = after};
		CLEANUP_ERROR struct error err = {0};
		struct recorder *r = make_sparse();
		uint64_t before = end_of(r);
		json_t *report = NULL;
		recorder_container(r)->watch = &s.watch;
		status = vhd_compact(recorder_container(r), &strict, &report, &err);
		recorder_container(r)->watch = NULL;
		CHECK(!status || (status == -EINTR && strstr(error_text(&err), "stopped")));
		CHECK(!s.too_much && end_of(r) <= before && is_as_made(r));
		CHECK_EQ(problems_of(r, false, NULL), 0);
		CHECK(after >= 8 || status == -EINTR);
		if (!status)
			CHECK_EQ(s.done, s.total);
		json_decref(report);
		drop(r);
	}
	CHECK_EQ(status, 0);
}

static void check_compact(struct recorder *r, int64_t dropped, int64_t moved)
{
	json_t *report = NULL;

	CHECK_EQ(vhd_compact(recorder_container(r), &strict, &report, NULL), 0);
	CHECK_EQ(json_integer_value(json_object_get(report, "dropped")), dropped);
	CHECK_EQ(json_integer_value(json_object_get(report, "moved")), moved);
	json_decref(report);
	CHECK_EQ(problems_of(r, false, NULL), 0);
}

/* What is not in the file of a last block is zero. */
static void test_compact_of_what_is_there_in_part(void)
{
	struct recorder *r = make_partial(0);

	check_compact(r, 1, 0);
	drop(r);
	r = make_partial(3);
	check_compact(r, 0, 0);
	drop(r);
}

static void clear_bitmap(struct recorder *r, uint32_t block)
{
	struct container *c = recorder_container(r);

	CHECK_EQ(c->ops->zero(c, (uint64_t)entry_at(r, block) * 512, 512, false, &io_plain), 0);
}

/* Any bit keeps a block, and where bits count none drops it, whatever its data. */
static void test_compact_goes_by_bits(void)
{
	struct recorder *r = make(VHD_DIFFERENCING, 1 << 20, 65536);
	struct disk *d = open_image(r);

	put(d, 100 * 512, 5, 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_compact(r, 0, 0);
	d = open_image(r);
	CHECK(holds(d, 100 * 512, 5, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
	r = make_xen();
	clear_bitmap(r, 15);
	check_compact(r, 1, 0);
	drop(r);
}

/* A block that is mostly a hole comes to lie where another one's data was. */
static void test_compact_leaves_nothing_of_what_was_there(void)
{
	struct recorder *r = make(VHD_DIFFERENCING, 8 << 20, 2 << 20);
	struct disk *d = open_image(r);

	put(d, 0, 1, 2 << 20);
	put(d, 6 << 20, 5, 1 << 20);
	put(d, 7 << 20, 0, 1 << 20);
	CHECK_EQ(disk_close(d, NULL), 0);
	clear_bitmap(r, 0);
	check_compact(r, 1, 1);
	d = open_image(r);
	CHECK(holds(d, 6 << 20, 5, 1 << 20));
	CHECK(holds(d, 7 << 20, 0, 1 << 20));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

/* A block that ends where a place of ours begins, and a BAT that reaches behind where the first would be. */
static void test_compact_around_what_others_have_laid(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	unsigned char block[129 * 512];
	uint32_t first;

	put(d, 0, 1, 6 * 65536);
	CHECK_EQ(disk_close(d, NULL), 0);
	first = entry_at(r, 0);
	load(r, (uint64_t)first * 512, block, sizeof(block));
	set_entry(r, 1, VHD_ABSENT);
	set_entry(r, 2, VHD_ABSENT);
	store(r, (uint64_t)(first + 7) * 512, block, sizeof(block));
	set_entry(r, 0, first + 7);
	check_compact(r, 0, 2);
	CHECK_EQ(entry_at(r, 5), first + 7 + 129);
	d = open_image(r);
	CHECK(holds(d, 0, 1, 65536));
	CHECK(holds(d, 3 * 65536, 1, 3 * 65536));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);

	r = make(VHD_DYNAMIC, 4 << 20, 4096);
	d = open_image(r);
	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_write_zeroes(d, 0, 65536, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_compact(r, 16, 16);
	d = open_image(r);
	CHECK(holds(d, 0, 0, 65536));
	CHECK(holds(d, 65536, 1, (1 << 20) - 65536));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static void test_compact_of_nothing(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	uint64_t made = end_of(r);
	struct disk *d = open_image(r);

	put(d, 0, 1, 1 << 20);
	CHECK_EQ(disk_write_zeroes(d, 0, 1 << 20, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_compact(r, 16, 0);
	CHECK_EQ(end_of(r), made);
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
	TAP_RUN(test_what_is_cut_off_is_gone);
	TAP_RUN(test_blocks_behind_the_end_do_not_come_back);
	TAP_RUN(test_bits_of_what_was_cut_off_are_forgotten);
	TAP_RUN(test_bytes_before_a_fixed_footer);
	TAP_RUN(test_maps_of_xen_are_emptied);
	TAP_RUN(test_footers_are_repaired);
	TAP_RUN(test_checksums_are_repaired);
	TAP_RUN(test_entries_are_repaired);
	TAP_RUN(test_a_last_block_in_part);
	TAP_RUN(test_a_last_block_in_part_grows);
	TAP_RUN(test_bitmaps_are_repaired);
	TAP_RUN(test_writers_fill_bitmaps);
	TAP_RUN(test_many_problems);
	TAP_RUN(test_what_is_used_is_told);
	TAP_RUN(test_a_repair_of_what_is_read_only);
	TAP_RUN(test_info_and_map);
	TAP_RUN(test_compact);
	TAP_RUN(test_compact_is_stopped);
	TAP_RUN(test_compact_of_what_is_there_in_part);
	TAP_RUN(test_compact_goes_by_bits);
	TAP_RUN(test_compact_leaves_nothing_of_what_was_there);
	TAP_RUN(test_compact_around_what_others_have_laid);
	TAP_RUN(test_compact_of_nothing);
	TAP_RUN(test_compact_survives_power_cuts);
	return TAP_DONE();
}

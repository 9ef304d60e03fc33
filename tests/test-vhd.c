/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD images: what they say of themselves, what is refused, chains, size, checking, compacting. Content and crashes are tested elsewhere. */
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/open.h"
#include "core/wait.h"
#include "formats/utf16.h"
#include "formats/vhd-image.h"
#include "formats/vhd.h"
#include "tests/model.h"
#include "tests/recorder.h"

static const struct vhd_options strict;
static const struct vhd_options lax = {.lax = true};

/* ------------------------------------------------------------------ images in memory */

static struct recorder *make(enum vhd_type type, uint64_t size, uint32_t block)
{
	const struct vhd_create_options o = {.type = type, .size = size, .block_size = block, .exact = true};
	struct recorder *r = recorder_create("a.vhd");

	CHECK_EQ(vhd_create(recorder_container(r), &o, NULL), 0);
	recorder_begin(r);
	return r;
}

static void drop(struct recorder *r)
{
	container_close(recorder_container(r), false, NULL);
}

/* The recorder stays. */
static struct disk *open_with(struct recorder *r, const struct vhd_options *o, int expected, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer_place top = {0};
	struct disk *d = NULL;

	recorder_hold(r);
	if (!CHECK_EQ(vhd_layer_open(recorder_container(r), o, &top.layer, &err), expected) || expected) {
		drop(r);
		if (text && !CHECK(strstr(error_text(&err), text) != NULL))
			tap_diag("%s", error_text(&err));
		if (top.layer)
			top.layer->ops->close(top.layer, true, NULL);
		return NULL;
	}
	CHECK_EQ(layered_create("vhd", &top, 1, NULL, 0, recorder_container(r)->read_only ? OPEN_READ_ONLY : 0, &d, &err), 0);
	return d;
}

static struct disk *open_image(struct recorder *r)
{
	return open_with(r, &strict, 0, NULL);
}

static void check_refused(struct recorder *r, const char *text)
{
	open_with(r, &strict, -EINVAL, text);
}

static void put(struct disk *d, uint64_t at, unsigned char byte, size_t length)
{
	unsigned char *data = malloc(length);

	memset(data, byte, length);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, length), at, &io_plain), 0);
	free(data);
}

static bool holds(struct disk *d, uint64_t at, unsigned char byte, size_t length)
{
	unsigned char *data = malloc(length);
	bool good = CHECK_EQ(disk_read(d, &VEC_FLAT(data, length), at, &io_plain), 0);

	for (size_t i = 0; i < length && good; i++)
		good = data[i] == byte;
	free(data);
	return good;
}

static void load(struct recorder *r, uint64_t at, void *data, size_t size)
{
	CHECK_EQ(container_read(recorder_container(r), data, size, at, &io_plain), 0);
}

static void store(struct recorder *r, uint64_t at, const void *data, size_t size)
{
	CHECK_EQ(container_write(recorder_container(r), data, size, at, &io_plain), 0);
}

static uint64_t end_of(struct recorder *r)
{
	return container_size(recorder_container(r));
}

static void load_footer(struct recorder *r, struct vhd_footer *f)
{
	load(r, end_of(r) - 512, f, 512);
}

/* At both ends, if it is not fixed. */
static void store_footer(struct recorder *r, struct vhd_footer *f)
{
	vhd_footer_seal(f);
	store(r, end_of(r) - 512, f, 512);
	if (be32toh(f->type) != VHD_FIXED)
		store(r, 0, f, 512);
}

static void load_header(struct recorder *r, struct vhd_header *h)
{
	load(r, 512, h, sizeof(*h));
}

static void store_header(struct recorder *r, struct vhd_header *h)
{
	vhd_header_seal(h);
	store(r, 512, h, sizeof(*h));
}

static uint32_t entry_at(struct recorder *r, uint32_t block)
{
	uint32_t entry;

	load(r, 1536 + block * 4, &entry, 4);
	return be32toh(entry);
}

static void set_entry(struct recorder *r, uint32_t block, uint32_t at)
{
	uint32_t entry = htobe32(at);

	store(r, 1536 + block * 4, &entry, 4);
}

/* How many there are; the first one has this text. */
static size_t problems_of(struct recorder *r, bool repair, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	json_t *report = NULL, *list;
	size_t count = SIZE_MAX;

	if (CHECK_EQ(vhd_check(recorder_container(r), &strict, repair, &report, &err), 0)) {
		list = json_object_get(report, "problems");
		count = json_array_size(list);
		if (text)
			CHECK(count && strstr(json_string_value(json_object_get(json_array_get(list, 0), "what")), text) != NULL);
		else if (count)
			tap_diag("%s", json_string_value(json_object_get(json_array_get(list, 0), "what")));
	} else {
		tap_diag("%s", error_text(&err));
	}
	json_decref(report);
	return count;
}

/* ------------------------------------------------------------------ geometry and size */

static void check_geometry(uint64_t size, unsigned cylinders, unsigned heads, unsigned sectors)
{
	struct vhd_geometry g = vhd_geometry_of(size);

	CHECK_EQ(g.cylinders, cylinders);
	CHECK_EQ(g.heads, heads);
	CHECK_EQ(g.sectors, sectors);
}

/* Those that other writers have put into their images. */
static void test_geometry(void)
{
	check_geometry(104448, 3, 4, 17);
	check_geometry(22038528, 633, 4, 17);
	check_geometry(UINT64_C(1) << 30, 2080, 16, 63);
	check_geometry(UINT64_C(2040) << 30, 65535, 16, 255);
	check_geometry(512, 0, 4, 17);
}

static void test_size_is_what_the_creator_meant(void)
{
	struct vhd_footer f;

	CHECK_EQ(vhd_footer_init(&f, VHD_DYNAMIC, UINT64_C(136365211648)), 0);
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_AUTO), UINT64_C(136365211648));
	memcpy(f.creator, "vpc ", 4);
	f.cylinders = htobe16(65535), f.heads = 16, f.sectors = 63 * 4 + 2; /* any that is smaller */
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_AUTO), UINT64_C(65535) * 16 * 254 * 512);
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_CURRENT), UINT64_C(136365211648));
	f.sectors = 255;
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_AUTO), UINT64_C(136365211648));
	memcpy(f.creator, "vbox", 4);
	f.sectors = 63;
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_AUTO), UINT64_C(136365211648));
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_CHS), UINT64_C(65535) * 16 * 63 * 512);
	memcpy(f.creator, "qemu", 4);
	vhd_footer_set_size(&f, 5 << 20);
	CHECK_EQ(vhd_disk_size(&f, VHD_SIZE_AUTO), 5 << 20);
}

/* ------------------------------------------------------------------ opening */

static void test_the_copy_is_taken_where_the_footer_is_gone(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct container *c = recorder_container(r);
	struct disk *d = open_image(r);
	struct vhd_footer f;

	put(d, 70000 / 512 * 512, 7, 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(c->ops->zero(c, end_of(r) - 512, 512, false, &io_plain), 0);
	recorder_set_read_only(r, true);
	d = open_image(r);
	CHECK(holds(d, 70000 / 512 * 512, 7, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	recorder_set_read_only(r, false);
	d = open_image(r);
	CHECK(holds(d, 70000 / 512 * 512, 7, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	load_footer(r, &f); /* it is there again */
	CHECK_EQ(vhd_footer_check(&f, VHD_STRICT, "", NULL), 0);
	drop(r);
}

static void test_footers_of_511_bytes(void)
{
	struct recorder *r = make(VHD_FIXED, 1 << 20, 0);
	struct disk *d;

	CHECK_EQ(container_set_size(recorder_container(r), end_of(r) - 1, NULL), 0);
	d = open_image(r);
	CHECK_EQ(disk_size(d), 1 << 20);
	CHECK_EQ(problems_of(r, false, NULL), 0);
	put(d, (1 << 20) - 512, 5, 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = open_image(r);
	CHECK(holds(d, (1 << 20) - 512, 5, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static void test_wrong_checksums_are_told_and_taken_laxly(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct vhd_footer f;
	struct disk *d;

	load_footer(r, &f);
	f.reserved[100] ^= 1;
	store(r, end_of(r) - 512, &f, 512);
	d = open_image(r); /* by the copy */
	CHECK_EQ(disk_close(d, NULL), 0);
	store(r, end_of(r) - 512, &f, 512);
	store(r, 0, &f, 512);
	check_refused(r, "copy at the front: checksum 0x");
	check_refused(r, "option lax");
	d = open_with(r, &lax, 0, NULL);
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static void check_bad_footer(size_t offset, const void *bytes, size_t size, const char *text)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct vhd_footer f;

	load_footer(r, &f);
	memcpy((char *)&f + offset, bytes, size);
	store_footer(r, &f);
	check_refused(r, text);
	drop(r);
}

static void check_bad_header(size_t offset, const void *bytes, size_t size, const char *text)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct vhd_header h;

	load_header(r, &h);
	memcpy((char *)&h + offset, bytes, size);
	store_header(r, &h);
	check_refused(r, text);
	drop(r);
}

static void test_footers_that_cannot_be(void)
{
	check_bad_footer(0, "konectix", 8, "does not begin with 'conectix'");
	check_bad_footer(12, "\0\2", 2, "version 2.0 is not 1.x");
	check_bad_footer(16, "\0\0\0\0\0\0\2\1", 8, "not a whole sector");
	check_bad_footer(16, "\x7f\0\0\0\0\0\0\0", 8, "ends behind the file");
	check_bad_footer(48, "\0\0\0\0\0\0\0\1", 8, "a size of 1 bytes is impossible");
	check_bad_footer(48, "\xff\0\0\0\0\0\0\0", 8, "is impossible");
	check_bad_footer(48, "\0\0\0\0\0\x11\0\0", 8, "too few for");
	check_bad_footer(60, "\0\0\0\5", 4, "disk type 5");
	check_bad_footer(60, "\0\0\0\2", 4, "lie before the footer");
}

static void test_headers_that_cannot_be(void)
{
	check_bad_header(0, "kxsparse", 8, "does not begin with 'cxsparse'");
	check_bad_header(16, "\0\0\0\0\0\0\2\1", 8, "not a whole sector");
	check_bad_header(16, "\xff\xff\xff\xff\xff\xff\xfe\0", 8, "ends behind the file");
	check_bad_header(24, "\0\3", 2, "version 3.0");
	check_bad_header(28, "\0\0\0\1", 4, "too few for 16 blocks");
	check_bad_header(32, "\0\1\2\0", 4, "not a power of two");
	check_bad_header(32, "\0\0\x8\0", 4, "not a power of two from 4096");
	check_bad_header(32, "\x80\0\0\0", 4, "not a power of two");
}

static void test_short_files_are_no_images(void)
{
	struct recorder *r = recorder_create("short");

	check_refused(r, "has no room for a footer");
	CHECK_EQ(container_set_size(recorder_container(r), 511, NULL), 0);
	check_refused(r, "has no room for a footer");
	CHECK_EQ(container_set_size(recorder_container(r), 4096, NULL), 0);
	check_refused(r, "does not begin with 'conectix'");
	drop(r);
}

/* Entries that a writer must not follow; a reader may, as far as there is something to read. */
static void test_bad_entries(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	uint32_t first;

	put(d, 0, 1, 1 << 18);
	CHECK_EQ(disk_close(d, NULL), 0);
	first = entry_at(r, 0);
	CHECK_EQ((first + 1) % 8, 0); /* data on 4 KiB */
	set_entry(r, 5, entry_at(r, 1));
	check_refused(r, "BAT entry 5, sector");
	check_refused(r, "overlaps another one");
	set_entry(r, 5, first + 1);
	check_refused(r, "overlaps another one");
	set_entry(r, 5, 0);
	check_refused(r, "overlaps the copy of the footer");
	set_entry(r, 5, 3);
	check_refused(r, "overlaps the BAT");
	set_entry(r, 5, 0xfffffff0);
	check_refused(r, "overlaps the end of the file");
	recorder_set_read_only(r, true);
	d = open_image(r);
	CHECK(holds(d, 0, 1, 1 << 18));
	unsigned char byte[512];
	CHECK_EQ(disk_read(d, &VEC_FLAT(byte, 512), 5 * 65536, &io_plain), -EIO);
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

#define LARGE_BLOCKS (2040u * 512)

/* 2040 GiB with a place for every block; the places are in no order. */
static struct recorder *make_large(void)
{
	struct recorder *r = make(VHD_DYNAMIC, UINT64_C(2040) << 30, 2 << 20);
	uint32_t *bat = malloc(LARGE_BLOCKS * 4);
	struct vhd_footer f;

	load_footer(r, &f);
	for (uint32_t i = 0; i < LARGE_BLOCKS; i++)
		bat[i] = htobe32(8191 + 8 + (uint32_t)((uint64_t)i * 7919 % LARGE_BLOCKS) * 4104);
	store(r, 1536, bat, LARGE_BLOCKS * 4);
	store(r, (uint64_t)(8191 + 8 + (LARGE_BLOCKS - 1) * 4104ull + 4097) * 512, &f, 512);
	recorder_begin(r);
	free(bat);
	return r;
}

/* Bytes that malloc() has given out; 0 always under sanitizers. */
static size_t memory_in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* Blocks may touch what they must not overlap, by one sector on either side. */
static void test_entries_that_overlap_by_a_sector(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	uint32_t second, fourth;

	put(d, 0, 1, 1 << 18);
	CHECK_EQ(disk_close(d, NULL), 0);
	second = entry_at(r, 1);
	fourth = entry_at(r, 3);
	CHECK_EQ(end_of(r), (fourth + 130) * 512);
	set_entry(r, 2, VHD_ABSENT);
	set_entry(r, 5, second + 128);
	check_refused(r, "overlaps another one");
	set_entry(r, 5, fourth - 128);
	check_refused(r, "overlaps another one");
	set_entry(r, 5, second + 129);
	CHECK_EQ(disk_close(open_image(r), NULL), 0);
	set_entry(r, 5, fourth - 129);
	CHECK_EQ(disk_close(open_image(r), NULL), 0);
	set_entry(r, 5, VHD_ABSENT);
	set_entry(r, 3, fourth + 1);
	check_refused(r, "overlaps the footer");
	drop(r);
}

/* 2 TiB: a bound of time would be no test; what is read and kept is. */
static void test_a_large_image_costs_what_is_used(void)
{
	struct recorder *r = make_large();
	struct disk *d;
	size_t before;

	recorder_set_read_only(r, true);
	before = memory_in_use();
	d = open_image(r);
	CHECK(recorder_count(r, RECORDER_READ) < 10);
	CHECK(memory_in_use() < before + 65536);
	CHECK(holds(d, UINT64_C(2039) << 30, 0, 512));
	CHECK(recorder_count(r, RECORDER_READ) < 12);
	CHECK(memory_in_use() < before + 98304); /* and a page */
	CHECK_EQ(disk_close(d, NULL), 0);
	recorder_set_read_only(r, false);
	recorder_begin(r);
	d = open_image(r);
	CHECK(recorder_count(r, RECORDER_READ) < 10 + LARGE_BLOCKS * 4 / (256 << 10)); /* the BAT once, in pieces */
	CHECK(memory_in_use() < before + 65536);
	CHECK_EQ(recorder_calls(r), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static bool is_clean(struct recorder *r)
{
	const struct vhd_open_options how = {.unchecked = true};
	struct vhd_taken taken[VHD_MAX_TAKEN];
	struct vhd *v;
	bool clean = false;

	if (!CHECK_EQ(vhd_image_open(recorder_container(r), &how, &v, NULL), 0))
		return false;
	for (unsigned n = vhd_list_taken(v, taken) - 1; n; n--)
		if (taken[n - 1].end > v->space.used_end)
			v->space.used_end = taken[n - 1].end;
	CHECK_EQ(vhd_scan_quickly(v, &clean, NULL), 0);
	vhd_image_close(v, true, NULL);
	return clean;
}

/* A store for each entry is enough for what is in order, and for nothing else. */
static void test_entries_in_order_are_looked_at_once(void)
{
	struct recorder *r = make_large();
	uint32_t first = entry_at(r, 0), second = entry_at(r, 1), wrong[] = {first, first - 1, first + 4096, first + 1, 3, 0xfffffff0};

	CHECK(is_clean(r));
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		set_entry(r, 1, wrong[i]);
		CHECK(!is_clean(r));
	}
	set_entry(r, 1, VHD_ABSENT);
	CHECK(is_clean(r));
	set_entry(r, 1, second);
	set_entry(r, LARGE_BLOCKS - 1, entry_at(r, LARGE_BLOCKS - 1) + 8); /* a footer's room is between two, not more */
	CHECK(!is_clean(r));
	drop(r);
}

/* ------------------------------------------------------------------ what is written */

static void test_nothing_is_flushed_for_a_block(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 64 << 20, 65536);
	struct disk *d = open_image(r);

	recorder_begin(r);
	for (unsigned i = 0; i < 512; i++)
		put(d, (uint64_t)i * 2 * 65536, 1, 4096);
	CHECK(recorder_count(r, RECORDER_FLUSH) < 16); /* it grows by halves */
	recorder_begin(r);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(recorder_count(r, RECORDER_FLUSH), 2);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(recorder_count(r, RECORDER_FLUSH), 3);
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static void test_durable_overwrites_are_one_write(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	unsigned char data[512] = {1};

	put(d, 0, 1, 65536);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	recorder_begin(r);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 512), 512, &(struct io){.flags = IO_FUA}), 0);
	CHECK_EQ(recorder_calls(r), 1);
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static void test_zeroes_take_no_block(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);

	recorder_begin(r);
	put(d, 0, 0, 1 << 20);
	CHECK_EQ(disk_write_zeroes(d, 0, 1 << 20, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, 1 << 20, &io_plain), 0);
	CHECK_EQ(recorder_calls(r), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(entry_at(r, 0), VHD_ABSENT);
	drop(r);
}

/* No data is written for zeroes where there is a block, and where the file system cannot do without, that is said. */
static void test_fast_zeroes(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	const struct io fast = {.flags = IO_FAST_ONLY};

	CHECK(disk_info(d)->flags & DISK_FAST_ZERO);
	put(d, 0, 1, 131072);
	recorder_begin(r);
	CHECK_EQ(disk_write_zeroes(d, 4096, 65536, &fast), 0);
	CHECK_EQ(recorder_count(r, RECORDER_WRITE), 0);
	CHECK(holds(d, 4096, 0, 65536));
	CHECK(holds(d, 69632, 1, 4096));
	recorder_fail(r, 1u << RECORDER_ZERO, 1, -EOPNOTSUPP);
	CHECK_EQ(disk_write_zeroes(d, 0, 4096, &fast), -EOPNOTSUPP);
	CHECK(holds(d, 0, 1, 4096));
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

static void test_extents_tell_blocks(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 1 << 20, 65536);
	struct disk *d = open_image(r);
	CLEANUP_EXTENTS struct extents e = {0};

	put(d, 65536, 1, 65536);
	extents_init(&e, 0, 1 << 20, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 3);
	CHECK_EQ(e.list[1].offset, 65536);
	CHECK_EQ(e.list[1].length, 65536);
	CHECK_EQ(e.list[1].flags, EXTENT_DATA);
	CHECK_EQ(e.list[2].flags, EXTENT_ZERO | EXTENT_HOLE);
	CHECK_EQ(disk_close(d, NULL), 0);
	drop(r);
}

/* A write that fails leaves the block, and what was flushed, as it was. */
static void test_failures_are_told_and_passed(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 4 << 20, 65536);
	struct disk *d = open_image(r);
	unsigned char data[512] = {9};

	put(d, 0, 1, 512);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	for (unsigned n = 1; n < 4; n++) {
		struct failure why = {0};
		recorder_fail(r, 1u << RECORDER_WRITE | 1u << RECORDER_RESIZE | 1u << RECORDER_ZERO, n, -ENOSPC);
		for (unsigned i = 1; i < 60 && !why.text[0]; i++)
			disk_write(d, &VEC_FLAT(data, 512), (uint64_t)i * 65536, &(struct io){.failure = &why});
		CHECK(strstr(why.text, "told to") != NULL);
	}
	recorder_fail(r, 1u << RECORDER_WRITE, 1, -ENOSPC);
	CHECK_EQ(disk_flush(d, &io_plain), -ENOSPC); /* the BAT */
	CHECK_EQ(disk_flush(d, &io_plain), 0);       /* nothing was forgotten */
	CHECK(holds(d, 0, 1, 512));
	recorder_fail(r, 1u << RECORDER_FLUSH, 1, -EIO);
	put(d, 512, 2, 512);
	CHECK_EQ(disk_flush(d, &io_plain), -EIO);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 512), 0, &io_plain), -EIO);
	CHECK_EQ(disk_close(d, NULL), -EIO);
	drop(r);
}

static void test_closing_cuts_what_was_reserved(void)
{
	struct recorder *r = make(VHD_DYNAMIC, 64 << 20, 65536);
	struct disk *d = open_image(r);
	uint64_t most;

	put(d, 0, 1, 512);
	most = end_of(r);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK(end_of(r) < most && end_of(r) < 5 * 65536 / 2);
	drop(r);
}

/* ------------------------------------------------------------------ making */

static void test_creating_is_refused_where_it_makes_no_sense(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhd_create_options o = {.type = VHD_DYNAMIC, .size = (1 << 20) + 512};

	CHECK_EQ(vhd_create_check(&o, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "2M is, or add exact") != NULL);
	o.exact = true;
	CHECK_EQ(vhd_create_check(&o, NULL), 0);
	o.size++;
	CHECK_EQ(vhd_create_check(&o, NULL), -EINVAL);
	o.size = (UINT64_C(2040) << 30) + 512;
	CHECK_EQ(vhd_create_check(&o, NULL), -EINVAL);
	o.size = 1 << 20;
	o.block_size = 3 << 20;
	CHECK_EQ(vhd_create_check(&o, NULL), -EINVAL);
	o.block_size = 2048;
	CHECK_EQ(vhd_create_check(&o, NULL), -EINVAL);
}

static void check_spec_refused(const char *options, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;
	char spec[1300];

	snprintf(spec, sizeof(spec), "vhd:%s%s", tmppath("new.vhd"), options);
	if (!CHECK(disk_open(spec, 0, &d, &err) != 0))
		disk_close(d, NULL);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
	CHECK(access(tmppath("new.vhd"), F_OK) != 0);
}

static void test_specs_that_cannot_be(void)
{
	check_spec_refused(";create=1000K", "whole MiB");
	check_spec_refused(";create", "the size is missing");
	check_spec_refused(";create;type=differencing", "needs a parent");
	check_spec_refused(";create;type=differencing;parent=\"mem:1M\"", "not mem");
	check_spec_refused(";create;type=differencing;parent=none.vhd", "cannot open");
	check_spec_refused(";create=1M;type=fixed;block=64K", "a fixed disk has no blocks");
	check_spec_refused(";create=1M;ro", "read-only");
	check_spec_refused(";block=64K", "with create=");
	check_spec_refused("", "cannot open");
}

/* ------------------------------------------------------------------ chains */

static struct disk *open_spec(const char *format, ...) __attribute__((format(printf, 1, 2)));
static struct disk *open_spec(const char *format, ...)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;
	char spec[2000];
	va_list args;

	va_start(args, format);
	vsnprintf(spec, sizeof(spec), format, args);
	va_end(args);
	if (!CHECK_EQ(disk_open(spec, 0, &d, &err), 0))
		tap_diag("%s: %s", spec, error_text(&err));
	return d;
}

static void spec_refused(const char *spec, int status, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (!CHECK_EQ(disk_open(spec, 0, &d, &err), status) || !CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s: %s", spec, error_text(&err));
	if (d)
		disk_close(d, NULL);
}

static void test_chains(void)
{
	char spec[700];
	struct disk *d = open_spec("vhd:%s;create=4M;block=64K", tmppath("c0.vhd"));

	put(d, 0, 1, 65536);
	CHECK_EQ(disk_close(d, NULL), 0);
	for (unsigned i = 1; i < 20; i++) {
		char parent[20], child[20];
		snprintf(parent, sizeof(parent), "c%u.vhd", i - 1);
		snprintf(child, sizeof(child), "c%u.vhd", i);
		d = open_spec("vhd:%s;create;type=differencing;parent=%s;block=%uK", tmppath(child), tmppath(parent), 64 << i % 3);
		CHECK_EQ(disk_size(d), 4 << 20);
		put(d, i * 1024, (unsigned char)(i + 1), 512);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
	snprintf(spec, sizeof(spec), "%s", tmppath("c19.vhd"));
	d = open_spec("%s", spec); /* by its ending */
	for (unsigned i = 1; i < 20; i++) {
		CHECK(holds(d, i * 1024, (unsigned char)(i + 1), 512));
		CHECK(holds(d, i * 1024 + 512, 1, 512));
	}
	CHECK_EQ(disk_close(d, NULL), 0);
	snprintf(spec, sizeof(spec), "layers:[vhd:%s,mem:]", tmppath("c19.vhd"));
	spec_refused(spec, -EINVAL, "the size is missing");
	d = open_spec("layers:[vhd:%s,mem:4M]", tmppath("c19.vhd"));
	CHECK(holds(d, 19 * 1024, 20, 512));
	CHECK(holds(d, 18 * 1024, 0, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(rename(tmppath("c7.vhd"), tmppath("gone.vhd")), 0);
	snprintf(spec, sizeof(spec), "vhd:%s", tmppath("c19.vhd"));
	spec_refused(spec, -ENOENT, "c8.vhd': its parent was not found: '");
	spec_refused(spec, -ENOENT, "/c7.vhd': No such file");
}

/* The parent in use is not written to, and one that is written to is none. */
static void test_parents_are_shared_with_readers_only(void)
{
	char base[300], spec[1300];
	struct disk *d, *other;

	snprintf(base, sizeof(base), "%s", tmppath("p.vhd"));
	CHECK_EQ(disk_close(open_spec("vhd:%s;create=1M", base), NULL), 0);
	d = open_spec("vhd:%s;create;type=differencing;parent=%s", tmppath("k1.vhd"), base);
	other = open_spec("vhd:%s;create;type=differencing;parent=%s", tmppath("k2.vhd"), base);
	snprintf(spec, sizeof(spec), "vhd:%s", base);
	spec_refused(spec, -EBUSY, "locked by readers");
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(disk_close(other, NULL), 0);
	d = open_spec("vhd:%s", base);
	snprintf(spec, sizeof(spec), "vhd:%s", tmppath("k1.vhd"));
	spec_refused(spec, -EBUSY, "locked by another writer");
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* The id of another parent; then the time of one that was changed. */
static void test_changed_parents_are_refused(void)
{
	char base[300], child[300], spec[700];
	struct recorder *r = recorder_create("k");
	struct vhd_header h;

	snprintf(base, sizeof(base), "%s", tmppath("ch-p.vhd"));
	snprintf(child, sizeof(child), "%s", tmppath("ch-k.vhd"));
	CHECK_EQ(disk_close(open_spec("vhd:%s;create=1M", base), NULL), 0);
	CHECK_EQ(disk_close(open_spec("vhd:%s;create;type=differencing;parent=%s", child, base), NULL), 0);
	CHECK(recorder_load(r, child));
	load_header(r, &h);
	h.parent_time = htobe32(1);
	store_header(r, &h);
	CHECK(recorder_save(r, child));
	snprintf(spec, sizeof(spec), "vhd:%s", child);
	spec_refused(spec, -ESTALE, "after it was when the child was made");
	CHECK_EQ(disk_close(open_spec("%s;ignore-change", spec), NULL), 0);
	h.parent_time = 0;
	h.parent_id[3] ^= 1;
	store_header(r, &h);
	CHECK(recorder_save(r, child));
	spec_refused(spec, -ESTALE, "the child was made over");
	CHECK_EQ(disk_close(open_spec("%s;ignore-change", spec), NULL), 0);
	CHECK_EQ(disk_close(open_spec("%s;parent=\"mem:1M\"", spec), NULL), 0);
	drop(r);
}

static void test_cycles(void)
{
	char a[300], b[300], spec[700];
	struct recorder *r = recorder_create("k");
	struct vhd_header h;
	struct vhd_footer f;

	snprintf(a, sizeof(a), "%s", tmppath("cy-a.vhd"));
	snprintf(b, sizeof(b), "%s", tmppath("cy-b.vhd"));
	CHECK_EQ(disk_close(open_spec("vhd:%s;create=1M", a), NULL), 0);
	CHECK_EQ(disk_close(open_spec("vhd:%s;create;type=differencing;parent=%s", b, a), NULL), 0);
	CHECK(recorder_load(r, b));
	load_footer(r, &f);
	load_header(r, &h);
	memcpy(h.parent_id, f.id, 16); /* its own child, under the name of its parent */
	store_header(r, &h);
	CHECK(recorder_save(r, a));
	snprintf(spec, sizeof(spec), "vhd:%s;ro", a);
	spec_refused(spec, -ELOOP, "cycle");
	drop(r);
}

static void test_raw_parents(void)
{
	char raw[300];
	struct disk *d;

	snprintf(raw, sizeof(raw), "%s", tmppath("raw.img"));
	d = open_spec("file:%s;create=1M", raw);
	put(d, 512, 3, 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = open_spec("vhd:%s;create;type=differencing;parent=\"file:%s\"", tmppath("over-raw.vhd"), raw);
	put(d, 0, 4, 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = open_spec("vhd:%s", tmppath("over-raw.vhd"));
	CHECK(holds(d, 0, 4, 512));
	CHECK(holds(d, 512, 3, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* The way from one folder to another, and names that cannot be UTF-16. */
static void test_names_of_parents(void)
{
	char parent[300];
	struct disk *d;

	mkdir(tmppath("one"), 0700);
	mkdir(tmppath("one/two"), 0700);
	snprintf(parent, sizeof(parent), "%s", tmppath("one/two/p\xc3\xa4 1%.vhd"));
	CHECK_EQ(disk_close(open_spec("vhd:\"%s\";create=1M", parent), NULL), 0);
	CHECK_EQ(disk_close(open_spec("vhd:%s;create;type=differencing;parent=\"vhd:%s\"", tmppath("one/k.vhd"), parent), NULL), 0);
	CHECK_EQ(disk_close(open_spec("vhd:%s", tmppath("one/k.vhd")), NULL), 0);
	CHECK_EQ(rename(tmppath("one"), tmppath("other")), 0); /* the relative name still leads there */
	CHECK_EQ(disk_close(open_spec("vhd:%s", tmppath("other/k.vhd")), NULL), 0);
	snprintf(parent, sizeof(parent), "%s", tmppath("other/bad\xff.vhd"));
	CHECK_EQ(disk_close(open_spec("vhd:\"%s\";create=1M", parent), NULL), 0);
	d = open_spec("vhd:%s;create;type=differencing;parent=\"vhd:%s\"", tmppath("other/k2.vhd"), parent);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(disk_close(open_spec("vhd:%s", tmppath("other/k2.vhd")), NULL), 0);
}

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
	TAP_RUN(test_geometry);
	TAP_RUN(test_size_is_what_the_creator_meant);
	TAP_RUN(test_the_copy_is_taken_where_the_footer_is_gone);
	TAP_RUN(test_footers_of_511_bytes);
	TAP_RUN(test_wrong_checksums_are_told_and_taken_laxly);
	TAP_RUN(test_footers_that_cannot_be);
	TAP_RUN(test_headers_that_cannot_be);
	TAP_RUN(test_short_files_are_no_images);
	TAP_RUN(test_bad_entries);
	TAP_RUN(test_entries_that_overlap_by_a_sector);
	TAP_RUN(test_a_large_image_costs_what_is_used);
	TAP_RUN(test_entries_in_order_are_looked_at_once);
	TAP_RUN(test_nothing_is_flushed_for_a_block);
	TAP_RUN(test_durable_overwrites_are_one_write);
	TAP_RUN(test_zeroes_take_no_block);
	TAP_RUN(test_fast_zeroes);
	TAP_RUN(test_extents_tell_blocks);
	TAP_RUN(test_failures_are_told_and_passed);
	TAP_RUN(test_closing_cuts_what_was_reserved);
	TAP_RUN(test_creating_is_refused_where_it_makes_no_sense);
	TAP_RUN(test_specs_that_cannot_be);
	TAP_RUN(test_chains);
	TAP_RUN(test_parents_are_shared_with_readers_only);
	TAP_RUN(test_changed_parents_are_refused);
	TAP_RUN(test_cycles);
	TAP_RUN(test_raw_parents);
	TAP_RUN(test_names_of_parents);
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

/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD images: what they say of themselves, what is refused, what is written, chains. Content and crashes are tested elsewhere. */
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
#include "tests/vhd-lab.h"

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
	check_bad_footer(16, "\0\0\0\0\0\0\0\0", 8, "lies over the copy of the footer");
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
	check_bad_header(16, "\0\0\0\0\0\0\0\0", 8, "lies over the copy of the footer");
	check_bad_header(16, "\0\0\0\0\0\0\4\0", 8, "lies over the header");
	check_bad_header(16, "\0\0\0\0\0\0\x8\0", 8, "ends behind the file"); /* where the footer is */
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

/* The BAT of a large one says of all blocks that they are absent; only a full image has its space allocated; all is durable. */
static void test_new_images(void)
{
	struct recorder *r = make(VHD_DYNAMIC, UINT64_C(40) << 30, 2 << 20);
	unsigned char *bat = malloc(20480 * 4), *ones = malloc(20480 * 4);
	struct vhd_header h;

	load(r, 1536, bat, 20480 * 4);
	memset(ones, 0xff, 20480 * 4);
	CHECK_MEM(bat, ones, 20480 * 4);
	load_header(r, &h);
	CHECK_EQ(h.next, UINT64_MAX);
	drop(r);
	for (unsigned full = 0; full < 2; full++) {
		const struct vhd_create_options o = {.type = VHD_FIXED, .size = 1 << 20, .full = full};
		r = recorder_create("a.vhd");
		recorder_begin(r);
		CHECK_EQ(vhd_create(recorder_container(r), &o, NULL), 0);
		CHECK_EQ(recorder_count(r, RECORDER_ZERO), full);
		CHECK_EQ(recorder_states(r, recorder_calls(r), UNFLUSHED_ANY), 1);
		drop(r);
	}
	free(bat);
	free(ones);
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

static const struct vhd_locator *locator_of(const struct vhd_header *h, const char code[4])
{
	for (unsigned i = 0; i < VHD_LOCATORS; i++)
		if (!memcmp(h->locators[i].code, code, 4))
			return &h->locators[i];
	return NULL;
}

/* As other programs read it: the length in bytes, the space in whole sectors, in bytes; a URL of plain signs. */
static void test_how_parents_are_named(void)
{
	static const unsigned char name[] = "\0p\0 \0\xe4\0.\0v\0h\0d\0", relative[] = ".\0\\\0p\0 \0\xe4\0.\0v\0h\0d\0";
	struct recorder *r = recorder_create("child");
	const struct vhd_locator *url;
	unsigned char text[512];
	struct vhd_header h;
	char parent[300];

	snprintf(parent, sizeof(parent), "%s", tmppath("p \xc3\xa4.vhd"));
	CHECK_EQ(disk_close(open_spec("vhd:\"%s\";create=1M", parent), NULL), 0);
	CHECK_EQ(disk_close(open_spec("vhd:%s;create;type=differencing;parent=\"vhd:%s\"", tmppath("named.vhd"), parent), NULL), 0);
	CHECK(recorder_load(r, tmppath("named.vhd")));
	load_header(r, &h);
	CHECK_MEM(h.parent_name, name, sizeof(name) - 1);
	CHECK_EQ(be32toh(locator_of(&h, "W2ru")->length), sizeof(relative) - 1);
	CHECK_EQ(be32toh(locator_of(&h, "W2ru")->space), 512);
	load(r, be64toh(locator_of(&h, "W2ru")->offset), text, 512);
	CHECK_MEM(text, relative, sizeof(relative) - 1);
	url = locator_of(&h, "MacX");
	memset(text, 0, sizeof(text));
	load(r, be64toh(url->offset), text, be32toh(url->length));
	CHECK(!memcmp(text, "file:///", 8));
	CHECK(strstr((char *)text, "/p%20%C3%A4.vhd") != NULL);
	drop(r);
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
	TAP_RUN(test_new_images);
	TAP_RUN(test_specs_that_cannot_be);
	TAP_RUN(test_chains);
	TAP_RUN(test_parents_are_shared_with_readers_only);
	TAP_RUN(test_changed_parents_are_refused);
	TAP_RUN(test_cycles);
	TAP_RUN(test_raw_parents);
	TAP_RUN(test_how_parents_are_named);
	TAP_RUN(test_names_of_parents);
	return TAP_DONE();
}

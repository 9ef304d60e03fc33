/* SPDX-License-Identifier: BSD-3-Clause */
/* What of a log is replayed, and what is refused with a reason ([MS-VHDX] 2.3.2, 2.3.3). */
#include "tests/vhdx-lab.h"

#include <inttypes.h>

#include "formats/crc32c.h"
#include "formats/endian.h"
#include "formats/vhdx-log.h"

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096u

/* ------------------------------------------------------------------ a file with a log of our own */

struct lab {
	struct recorder *r;
	struct container *c;
	struct vhdx_headers h;
	struct guid guid;
	uint8_t *entry; /* the last one that was written */
};

static void lab_begin(struct lab *t)
{
	struct vhdx_header next;

	t->r = lab_create(&(struct vhdx_create_options){.size = 64 * MIB, .block_size = MIB});
	t->c = recorder_container(t->r);
	CHECK_EQ(container_set_size(t->c, 8 * MIB, NULL), 0);
	CHECK_EQ(vhdx_headers_load(t->c, &t->h, NULL), 0);
	next = t->h.current;
	CHECK_EQ(guid_random(&t->guid), 0);
	next.log = t->guid;
	CHECK_EQ(vhdx_header_store(t->c, &t->h, &next, &io_plain), 0);
	t->entry = malloc(MIB);
}

static void lab_end(struct lab *t)
{
	free(t->entry);
	container_close(t->c, false, NULL);
}

/* Around the ring. */
static void put_ring(struct lab *t, const uint8_t *data, uint32_t size, uint32_t at)
{
	for (uint32_t done = 0; done < size; done += PAGE)
		CHECK_EQ(container_write(t->c, data + done, PAGE, MIB + (at + done) % MIB, &io_plain), 0);
}

static void sum(uint8_t *entry, uint32_t size)
{
	le32_put(entry + 4, 0);
	le32_put(entry + 4, crc32c(0, entry, size));
}

/* An entry of `count` pages from `target` on, each filled with `byte`; returns where it ends. */
static uint32_t put_entry(struct lab *t, uint32_t at, uint64_t sequence, uint32_t tail, uint64_t target, uint32_t count, int byte)
{
	struct vhdx_log_entry e = {.sequence = sequence, .tail = tail, .flushed_size = 4 * MIB, .last_size = 8 * MIB};
	struct vhdx_logged *pages = calloc(count + 1, sizeof(*pages));
	uint32_t size = vhdx_log_entry_size(count);
	uint8_t page[PAGE];

	memset(page, byte, sizeof(page));
	for (uint32_t i = 0; i < count; i++)
		pages[i] = (struct vhdx_logged){target + i * PAGE, page};
	vhdx_log_encode(&e, &t->guid, pages, count, t->entry);
	put_ring(t, t->entry, size, at);
	free(pages);
	return (uint32_t)((at + size) % MIB);
}

static int byte_at(struct container *c, uint64_t offset)
{
	uint8_t byte = 0;

	CHECK_EQ(container_read(c, &byte, 1, offset, &io_plain), 0);
	return byte;
}

/* Replays in memory; NULL with the reason in *err. */
static struct container *show(struct lab *t, struct error *err)
{
	struct container *out = NULL;
	struct vhdx_log log;

	if (vhdx_log_load(t->c, &t->h.current, &log, err))
		return NULL;
	CHECK_EQ(vhdx_log_overlay(&log, &out, err), 0);
	vhdx_log_free(&log);
	return out;
}

static void check_shown(struct lab *t, uint64_t offset, int byte)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *c = show(t, &err);

	if (!CHECK(c != NULL)) {
		tap_diag("%s", error_text(&err));
		return;
	}
	CHECK_EQ(byte_at(c, offset), byte);
	vhdx_overlay_undo(c);
}

static void check_refused(struct lab *t, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *c = show(t, &err);

	CHECK(c == NULL);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
}

/* ------------------------------------------------------------------ sequences */

static void test_only_from_the_tail_on(void)
{
	struct lab t;
	uint32_t second, third;

	lab_begin(&t);
	second = put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	third = put_entry(&t, second, 11, 0, 6 * MIB, 1, 'b');
	put_entry(&t, third, 12, second, 7 * MIB, 1, 'c');
	check_shown(&t, 5 * MIB, 0); /* dead */
	check_shown(&t, 6 * MIB, 'b');
	check_shown(&t, 7 * MIB + 4095, 'c');
	lab_end(&t);
}

static void test_the_highest_sequence_wins(void)
{
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0x8000, 20, 0x8000, 5 * MIB, 1, 'n');
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'o');
	check_shown(&t, 5 * MIB, 'n');
	lab_end(&t);
}

/* The later one's tail is no entry: it does not count, however high its number. */
static void test_a_sequence_without_its_tail_does_not_count(void)
{
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'o');
	put_entry(&t, 0x8000, 20, 0x4000, 5 * MIB, 1, 'n');
	check_shown(&t, 5 * MIB, 'o');
	lab_end(&t);
}

static void test_a_gap_in_the_numbers_ends_a_sequence(void)
{
	struct lab t;
	uint32_t second;

	lab_begin(&t);
	second = put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	put_entry(&t, second, 12, 0, 5 * MIB, 1, 'b');
	check_shown(&t, 5 * MIB, 'a');
	lab_end(&t);
}

/* An entry and a sequence that go around the end of the log; QEMU drops what stands before it. */
static void test_a_sequence_that_wraps(void)
{
	struct lab t;
	uint32_t at = MIB - 5 * PAGE, second, third;

	lab_begin(&t);
	second = put_entry(&t, at, 30, at, 5 * MIB, 1, 'a');
	third = put_entry(&t, second, 31, at, 6 * MIB, 6, 'b');
	CHECK(third < second);
	put_entry(&t, third, 32, at, 7 * MIB, 1, 'c');
	check_shown(&t, 5 * MIB, 'a');
	check_shown(&t, 6 * MIB + 5 * PAGE, 'b');
	check_shown(&t, 7 * MIB, 'c');
	lab_end(&t);
}

/* 126 fit in the first page; QEMU cannot open more. */
static void test_many_descriptors(void)
{
	static const uint32_t counts[] = {126, 127, 200};

	for (size_t i = 0; i < 3; i++) {
		struct lab t;
		lab_begin(&t);
		put_entry(&t, 0, 1, 0, 5 * MIB, counts[i], 'm');
		check_shown(&t, 5 * MIB + (counts[i] - 1) * PAGE, 'm');
		check_shown(&t, 5 * MIB + counts[i] * PAGE, 0);
		lab_end(&t);
	}
}

static void test_a_torn_last_entry_is_none(void)
{
	struct lab t;
	uint32_t second;

	lab_begin(&t);
	second = put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	put_entry(&t, second, 11, 0, 5 * MIB, 4, 'b');
	memset(t.entry, 0, PAGE);
	put_ring(&t, t.entry, PAGE, second + 3 * PAGE); /* its last but one page never came */
	check_shown(&t, 5 * MIB, 'a');
	lab_end(&t);
}

/* What an older page under the same number of pages left: told by the number at either end. */
static void test_a_page_of_another_entry(void)
{
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0, 10, 0, 5 * MIB, 2, 'a');
	le32_put(t.entry + 2 * PAGE + 4092, 9);
	sum(t.entry, 3 * PAGE);
	put_ring(&t, t.entry, 3 * PAGE, 0);
	check_refused(&t, "data page of another entry");
	lab_end(&t);
}

static void test_another_guid(void)
{
	struct lab t;

	lab_begin(&t);
	guid_random(&t.guid);
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	check_refused(&t, "there is no entry of it");
	lab_end(&t);
}

/* ------------------------------------------------------------------ changes */

static void make_zero_entry(struct lab *t, uint64_t target, uint64_t length)
{
	struct vhdx_raw_descriptor *d = (void *)(t->entry + sizeof(struct vhdx_raw_entry));

	put_entry(t, 0, 10, 0, 0, 0, 0);
	le32_put(((struct vhdx_raw_entry *)(void *)t->entry)->count, 1);
	memcpy(d->signature, "zero", 4);
	le64_put(d->leading, length);
	le64_put(d->target, target);
	le64_put(d->sequence, 10);
	sum(t->entry, PAGE);
	put_ring(t, t->entry, PAGE, 0);
}

static void test_zeroes(void)
{
	struct lab t;
	uint8_t page[PAGE];

	lab_begin(&t);
	memset(page, 'x', sizeof(page));
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(container_write(t.c, page, PAGE, 5 * MIB + i * PAGE, &io_plain), 0);
	make_zero_entry(&t, 5 * MIB + PAGE, 2 * PAGE);
	check_shown(&t, 5 * MIB, 'x');
	check_shown(&t, 5 * MIB + PAGE, 0);
	check_shown(&t, 5 * MIB + 3 * PAGE - 1, 0);
	check_shown(&t, 5 * MIB + 3 * PAGE, 'x');
	lab_end(&t);
}

static void test_later_changes_cover_earlier_ones(void)
{
	struct lab t;
	uint32_t second, third;

	lab_begin(&t);
	make_zero_entry(&t, 5 * MIB, 8 * PAGE);
	second = put_entry(&t, PAGE, 11, 0, 5 * MIB, 4, 'a');
	third = put_entry(&t, second, 12, 0, 5 * MIB + 2 * PAGE, 1, 'b');
	put_entry(&t, third, 13, 0, 5 * MIB + 7 * PAGE, 2, 'c');
	check_shown(&t, 5 * MIB + PAGE, 'a');
	check_shown(&t, 5 * MIB + 2 * PAGE, 'b');
	check_shown(&t, 5 * MIB + 3 * PAGE, 'a');
	check_shown(&t, 5 * MIB + 4 * PAGE, 0);
	check_shown(&t, 5 * MIB + 7 * PAGE, 'c');
	check_shown(&t, 5 * MIB + 8 * PAGE, 'c');
	lab_end(&t);
}

static void test_what_must_not_be_changed(void)
{
	static const struct {
		uint64_t target, length;
		const char *text;
	} bad[] = {
		{64 << 10, PAGE, "changes the headers"},       {0, PAGE, "changes the headers"},
		{MIB + PAGE, PAGE, "changes the log"},         {MIB / 2, MIB, "changes the log"},
		{5 * MIB + 512, PAGE, "not whole pages"},      {5 * MIB, 512, "not whole pages"},
		{UINT64_MAX - 4095, PAGE, "not whole pages"},  {5 * MIB, UINT64_C(1) << 62, "behind the end"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct lab t;
		lab_begin(&t);
		make_zero_entry(&t, bad[i].target, bad[i].length);
		check_refused(&t, bad[i].text);
		lab_end(&t);
	}
}

static void test_wrong_headers_of_entries(void)
{
	static const struct {
		uint32_t at, value;
		const char *text;
	} bad[] = {
		{8, 0, "length that is impossible"},       {8, 5000, "length that is impossible"},
		{8, 2u << 20, "length that is impossible"}, {8, 3 * PAGE, "not that of its pages"},
		{12, 100, "tail that is impossible"},       {12, 1u << 20, "tail that is impossible"},
		{16, 0, "sequence number 0"},               {24, 1u << 30, "more descriptors"},
		{56 + 4, 1u << 30, "larger than 1 PiB"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct lab t;
		lab_begin(&t);
		put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
		le32_put(t.entry + bad[i].at, bad[i].value);
		sum(t.entry, 2 * PAGE);
		put_ring(&t, t.entry, 2 * PAGE, 0);
		check_refused(&t, bad[i].text);
		lab_end(&t);
	}
}

static void test_a_wrong_checksum(void)
{
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	t.entry[PAGE + 100] ^= 1;
	put_ring(&t, t.entry, 2 * PAGE, 0);
	check_refused(&t, "the entry at 0 of the log, number 10, has a wrong checksum");
	lab_end(&t);
}

/* ------------------------------------------------------------------ sizes, and the replay in the file */

static void test_a_file_that_was_cut_short(void)
{
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	CHECK_EQ(container_set_size(t.c, 4 * MIB - PAGE, NULL), 0);
	check_refused(&t, "it was cut short");
	lab_end(&t);
}

/* The file is shorter than what the log says everything fits in: it becomes longer. QEMU leaves it where that is whole MiB. */
static void test_the_file_becomes_longer(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_log log;
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	CHECK_EQ(container_set_size(t.c, 4 * MIB, NULL), 0);
	check_shown(&t, 5 * MIB, 'a');
	check_shown(&t, 8 * MIB - 1, 0);
	REQUIRE(vhdx_log_load(t.c, &t.h.current, &log, &err) == 0);
	CHECK_EQ(vhdx_log_replay(&log, &t.h, &err), 0);
	vhdx_log_free(&log);
	CHECK_EQ(container_size(t.c), 8 * MIB);
	CHECK_EQ(byte_at(t.c, 5 * MIB + 4095), 'a');
	CHECK(guid_is_null(&t.h.current.log));
	lab_end(&t);
}

static void test_reading_changes_nothing(void)
{
	struct lab t;

	lab_begin(&t);
	put_entry(&t, 0, 10, 0, 5 * MIB, 1, 'a');
	recorder_begin(t.r);
	check_shown(&t, 5 * MIB, 'a');
	CHECK_EQ(recorder_calls(t.r), 0);
	lab_end(&t);
}

int main(void)
{
	TAP_RUN(test_only_from_the_tail_on);
	TAP_RUN(test_the_highest_sequence_wins);
	TAP_RUN(test_a_sequence_without_its_tail_does_not_count);
	TAP_RUN(test_a_gap_in_the_numbers_ends_a_sequence);
	TAP_RUN(test_a_sequence_that_wraps);
	TAP_RUN(test_many_descriptors);
	TAP_RUN(test_a_torn_last_entry_is_none);
	TAP_RUN(test_a_page_of_another_entry);
	TAP_RUN(test_another_guid);
	TAP_RUN(test_zeroes);
	TAP_RUN(test_later_changes_cover_earlier_ones);
	TAP_RUN(test_what_must_not_be_changed);
	TAP_RUN(test_wrong_headers_of_entries);
	TAP_RUN(test_a_wrong_checksum);
	TAP_RUN(test_a_file_that_was_cut_short);
	TAP_RUN(test_the_file_becomes_longer);
	TAP_RUN(test_reading_changes_nothing);
	return TAP_DONE();
}

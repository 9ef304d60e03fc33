/* SPDX-License-Identifier: BSD-3-Clause */
/* Partitions are found as Linux finds them, damaged tables do no harm, and each is a disk of its own. */
#include <inttypes.h>
#include <pthread.h>
#include <sys/resource.h>

#include "core/open.h"
#include "decorators/partitions.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tables.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define MIB (UINT64_C(1) << 20)

/* ------------------------------------------------------------------ helpers */

static struct disk *must_open(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (!CHECK_EQ(disk_open(spec, 0, &d, &err), 0)) {
		tap_diag("%s: %s", spec, error_text(&err));
		exit(99);
	}
	return d;
}

/* A disk in memory. */
static struct disk *ram(uint64_t size, uint32_t block)
{
	char spec[80];

	snprintf(spec, sizeof(spec), "mem:%" PRIu64 ";block=%" PRIu32, size, block);
	return must_open(spec);
}

static void close_disk(struct disk *d)
{
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* Lists what must be there; exits where it is not. */
static void must_list(struct disk *d, struct partition_table *t)
{
	CLEANUP_ERROR struct error err = {0};

	if (!CHECK_EQ(partitions_list(d, t, &err), 0)) {
		tap_diag("%s", error_text(&err));
		*t = (struct partition_table){.scheme = "", .list = calloc(1, sizeof(*t->list))};
	}
}

/* Number `number`, or an empty one. */
static const struct partition *get(const struct partition_table *t, unsigned number)
{
	static const struct partition none;
	const struct partition *p = partitions_find(t, number, NULL);

	CHECK(p != NULL);
	return p ? p : &none;
}

/* It is there, without fault, at these blocks. */
static void check_place(struct disk *d, const struct partition_table *t, unsigned number, uint64_t first, uint64_t blocks)
{
	const struct partition *p = get(t, number);
	uint64_t block = disk_info(d)->block_size;

	CHECK_STR(p->fault, "");
	CHECK_EQ(p->offset, first * block);
	CHECK_EQ(p->size, blocks * block);
}

/* Listing fails with `status` and a message that holds `words`. */
static void check_refused(struct disk *d, int status, const char *words)
{
	CLEANUP_ERROR struct error err = {0};
	struct partition_table t = {0};

	CHECK_EQ(partitions_list(d, &t, &err), status);
	if (!CHECK(strstr(error_text(&err), words) != NULL))
		tap_diag("said: %s", error_text(&err));
	CHECK(!t.list && !t.count);
}

/* What holds for every list: by number, no window outside the disk, texts end. The number of those that can be opened. */
static size_t check_sane(struct disk *d, const struct partition_table *t)
{
	size_t good = 0;

	for (size_t i = 0; i < t->count; i++) {
		const struct partition *p = &t->list[i];
		CHECK(p->number && (!i || p->number > p[-1].number));
		CHECK(memchr(p->name, 0, sizeof(p->name)) && memchr(p->fault, 0, sizeof(p->fault)));
		if (p->fault[0])
			continue;
		good++;
		CHECK(p->size && !((p->offset | p->size) % disk_info(d)->block_size));
		CHECK(p->offset < disk_size(d) && p->size <= disk_size(d) - p->offset);
	}
	return good;
}

/* ------------------------------------------------------------------ GPT */

static const uint32_t blocks[] = {512, 1024, 4096, 65536};

static void test_gpt(void)
{
	for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
		CLEANUP_PARTITIONS struct partition_table t = {0};
		struct disk *d = ram(64 * MIB, blocks[i]);
		uint64_t first = gpt_first_usable(d), last = gpt_last_usable(d);

		gpt_write(d);
		gpt_set(d, 1, first, first + 9, "boot");
		gpt_set(d, 3, first + 10, first + 10, NULL);
		gpt_set(d, 128, first + 11, last, "the rest");
		must_list(d, &t);
		CHECK_STR(t.scheme, "gpt");
		CHECK_STR(t.id, "d1d1d1d1-d1d1-d1d1-d1d1-d1d1d1d1d1d1");
		CHECK_STR(t.note, "");
		CHECK_EQ(t.count, 3);
		CHECK_EQ(check_sane(d, &t), 3);
		check_place(d, &t, 1, first, 10);
		check_place(d, &t, 3, first + 10, 1);
		check_place(d, &t, 128, first + 11, last - first - 10);
		CHECK_STR(get(&t, 1)->name, "boot");
		CHECK_STR(get(&t, 3)->name, "");
		CHECK_STR(get(&t, 1)->type, "0fc63daf-8483-4772-8e79-3d69d8477de4");
		CHECK_STR(get(&t, 3)->uuid, "03030303-0303-0303-0303-030303030303");
		CHECK_EQ(get(&t, 1)->overlaps, 0);
		close_disk(d);
	}
}

static void test_gpt_full(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = ram(2 * MIB, 512);
	uint64_t first = gpt_first_usable(d);

	gpt_write(d);
	for (unsigned i = 1; i <= GPT_ENTRIES; i++)
		gpt_set(d, i, first + 3 * (GPT_ENTRIES - i), first + 3 * (GPT_ENTRIES - i) + 2, NULL);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), GPT_ENTRIES);
	for (unsigned i = 1; i <= GPT_ENTRIES; i++)
		check_place(d, &t, i, first + 3 * (GPT_ENTRIES - i), 3);
	close_disk(d);
}

/* Disks that are larger than any file system, and smaller than a floppy disk. */
static void test_gpt_extreme_sizes(void)
{
	static const struct {
		uint64_t size;
		uint32_t block;
	} disks[] = {{UINT64_C(9223372036854775296), 512}, {UINT64_C(9223372036854771712), 4096},
		     {UINT64_C(20) << 40, 512}, {UINT64_C(17) << 40, 4096}, {100 * 1024, 512}, {256 * 1024, 4096}};

	for (size_t i = 0; i < sizeof(disks) / sizeof(*disks); i++) {
		CLEANUP_PARTITIONS struct partition_table t = {0};
		struct disk *d = ram(disks[i].size, disks[i].block);
		uint64_t first = gpt_first_usable(d), last = gpt_last_usable(d);

		gpt_write(d);
		gpt_set(d, 2, first + 1, last, NULL);
		must_list(d, &t);
		CHECK_EQ(t.count, 1);
		check_place(d, &t, 2, first + 1, last - first);
		close_disk(d);
	}
}

/* A table with one partition of 10 blocks at block 100. */
static struct disk *gpt_disk(uint32_t block)
{
	struct disk *d = ram(8 * MIB, block);

	gpt_write(d);
	gpt_set(d, 1, 100, 109, "one");
	return d;
}

static void check_backup(struct disk *d)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};

	must_list(d, &t);
	CHECK(strstr(t.note, "backup at the end") != NULL);
	CHECK_EQ(t.count, 1);
	check_place(d, &t, 1, 100, 10);
}

static uint64_t last_block(struct disk *d)
{
	return disk_size(d) / disk_info(d)->block_size - 1;
}

static void test_gpt_backup(void)
{
	for (size_t i = 0; i < 3; i++) {
		struct disk *d = gpt_disk(blocks[i]);

		gpt_poke_header(d, 1, GPT_FIRST_USABLE, "x", 1);
		check_backup(d);
		close_disk(d);
		d = gpt_disk(blocks[i]);
		gpt_poke_entry(d, GPT_ENTRIES_LBA, 77, GPT_ENTRY_NAME, "x", 1);
		check_backup(d);
		gpt_poke_header(d, last_block(d), GPT_FIRST_USABLE, "x", 1);
		check_refused(d, -ENODATA, "GPT) is damaged");
		close_disk(d);
	}
}

/* The last header of a table for another size is not looked at where the first is good. */
static void test_gpt_of_a_disk_that_has_grown(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = gpt_disk(512);

	CHECK_EQ(disk_resize(d, 16 * MIB, &io_plain), 0);
	must_list(d, &t);
	CHECK_STR(t.note, "");
	check_place(d, &t, 1, 100, 10);
	close_disk(d);
}

static void test_gpt_for_other_blocks(void)
{
	struct disk *d = gpt_disk(512);
	unsigned char table[34 * 512];
	struct disk *other = ram(8 * MIB, 4096);

	bytes_get(d, 0, table, sizeof(table));
	bytes_put(other, 0, table, sizeof(table));
	check_refused(other, -ENODATA, "blocks of 512 bytes; the disk has blocks of 4096");
	close_disk(d);
	close_disk(other);
}

/* The header of a stranger: each change is sealed with right checksums, in both copies. */
static void change_headers(struct disk *d, enum gpt_field at, uint64_t value, size_t size)
{
	const uint64_t lbas[] = {1, last_block(d)};

	for (size_t i = 0; i < 2; i++) {
		gpt_poke_header(d, lbas[i], at, &value, size);
		gpt_seal(d, lbas[i]);
	}
}

static void test_gpt_headers_that_make_no_sense(void)
{
	static const struct {
		enum gpt_field at;
		uint64_t value;
		size_t size;
		const char *words;
	} changes[] = {
		{GPT_ARRAY_COUNT, 0x01ffffff, 4, "4294967168 bytes of entries; at most 4194304"},
		{GPT_ARRAY_COUNT, 0x00ffffff, 4, "at most"},
		{GPT_ARRAY_COUNT, 0, 4, "damaged"},
		{GPT_ARRAY_SIZE, 0, 4, "damaged"},
		{GPT_ARRAY_SIZE, 64, 4, "damaged"},
		{GPT_ARRAY_SIZE, UINT32_MAX, 4, "damaged"},
		{GPT_ARRAY_LBA, UINT64_MAX, 8, "damaged"},
		{GPT_ARRAY_LBA, UINT64_C(1) << 55, 8, "damaged"},
		{GPT_ARRAY_LBA, 16383, 8, "damaged"},
		{GPT_FIRST_USABLE, UINT64_MAX, 8, "damaged"},
		{GPT_LAST_USABLE, UINT64_MAX, 8, "damaged"},
		{GPT_MY_LBA, 7, 8, "damaged"},
	};

	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		struct disk *d = gpt_disk(512);
		change_headers(d, changes[i].at, changes[i].value, changes[i].size);
		check_refused(d, -ENODATA, changes[i].words);
		close_disk(d);
	}
}

/* Each entry is one that must not become a window. */
static void test_gpt_entries_outside_the_disk(void)
{
	static const uint64_t places[][2] = {
		{100, UINT64_MAX}, {UINT64_MAX, 100},          {UINT64_MAX, UINT64_MAX}, {0, 0},
		{200, 100},        {100, UINT64_C(1) << 60},   {101, 99},                {UINT64_C(1) << 61, 100},
		{100, 16384},      {(UINT64_C(1) << 61) + 100, 200},
	};

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		CLEANUP_PARTITIONS struct partition_table t = {0};
		struct disk *d = gpt_disk(i % 2 ? 512 : 4096);
		gpt_set(d, 2, places[i][0], places[i][1], "bad");
		gpt_set(d, 3, 120, 121, "good");
		must_list(d, &t);
		if (!CHECK_EQ(check_sane(d, &t), 2))
			tap_diag("first %" PRIu64 ", last %" PRIu64, places[i][0], places[i][1]);
		check_place(d, &t, 1, 100, 10);
		check_place(d, &t, 3, 120, 2);
		close_disk(d);
	}
}

static void test_names_of_strangers(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = gpt_disk(512);
	static const uint16_t evil[] = {'a', 0x1b, '\n', 0x85, 0xe9, 0xd800, 'b', 0x7f, 0x20ac};

	gpt_poke_entry(d, GPT_ENTRIES_LBA, 1, GPT_ENTRY_NAME, evil, sizeof(evil));
	gpt_seal(d, 1);
	must_list(d, &t);
	CHECK_STR(get(&t, 1)->name, "a????\xc3\xa9???b?\xe2\x82\xac");
	json_t *text = json_string(get(&t, 1)->name);
	CHECK(text != NULL);
	json_decref(text);
	close_disk(d);
}

/* ------------------------------------------------------------------ MBR */

/* One extended partition of 2,000 blocks at block 1000, with two logical ones. */
static struct disk *mbr_disk(uint32_t block)
{
	struct disk *d = ram(16 * MIB, block);

	mbr_set_id(d, 0x1b2c3d4e);
	mbr_set(d, 0, 0, 0x83, 100, 50);
	mbr_set(d, 0, 2, 0x05, 1000, 2000);
	mbr_set(d, 1000, 0, 0x83, 10, 100);
	mbr_set(d, 1000, 1, 0x05, 500, 300);
	mbr_set(d, 1500, 0, 0x82, 20, 100);
	return d;
}

static void test_mbr(void)
{
	for (size_t i = 0; i < 3; i++) {
		CLEANUP_PARTITIONS struct partition_table t = {0};
		struct disk *d = mbr_disk(blocks[i]);

		must_list(d, &t);
		CHECK_STR(t.scheme, "mbr");
		CHECK_STR(t.id, "1b2c3d4e");
		CHECK_STR(t.note, "");
		CHECK_EQ(t.count, 4);
		CHECK_EQ(check_sane(d, &t), 3);
		check_place(d, &t, 1, 100, 50);
		check_place(d, &t, 5, 1010, 100);
		check_place(d, &t, 6, 1520, 100);
		CHECK_STR(get(&t, 1)->type, "0x83");
		CHECK_STR(get(&t, 6)->type, "0x82");
		CHECK_STR(get(&t, 5)->uuid, "1b2c3d4e-05");
		CHECK(get(&t, 3)->extended && !get(&t, 5)->extended);
		CHECK(strstr(get(&t, 3)->fault, "only holds others") != NULL);
		close_disk(d);
	}
}

/* Where 32 bits are not enough for sums and products of blocks. */
static void test_mbr_far_away(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = ram(UINT64_C(15) << 40, 4096);

	mbr_set(d, 0, 0, 0x83, 0x80000000, 0x1000);
	mbr_set(d, 0, 1, 0x0f, 0x90000000, 0x5fffffff);
	mbr_set(d, 0x90000000, 0, 0x83, 1, 0x40000000);
	mbr_set(d, 0x90000000, 1, 0x05, 0x40000001, 0x10000000);
	mbr_set(d, 0xd0000001, 0, 0x83, 1, 7);
	must_list(d, &t);
	check_place(d, &t, 1, 0x80000000, 0x1000);
	check_place(d, &t, 5, 0x90000001, 0x40000000);
	check_place(d, &t, 6, 0xd0000002, 7);
	close_disk(d);
}

static void test_mbr_outside_the_disk(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = mbr_disk(512);

	mbr_set(d, 0, 1, 0x83, 32767, 2);
	mbr_set(d, 0, 3, 0x83, UINT32_MAX, UINT32_MAX);
	mbr_set(d, 1500, 0, 0x83, 0xffffff00, 0x50);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), 2);
	CHECK(strstr(get(&t, 2)->fault, "past the end of the disk: 2 blocks at block 32767, where the disk has 32768") != NULL);
	CHECK(strstr(get(&t, 4)->fault, "past the end") != NULL);
	CHECK(strstr(t.note, "past block 2^32") != NULL);
	close_disk(d);
}

/* Chains that lead back: to the same record, to the one before, to the MBR; and two that meet. */
static void test_mbr_circles(void)
{
	static const struct {
		uint64_t lba;
		uint32_t start;
	} links[] = {{1000, 0}, {1500, 500}, {1500, 0}, {1500, (uint32_t)-1000}};

	for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++) {
		CLEANUP_PARTITIONS struct partition_table t = {0};
		struct disk *d = mbr_disk(512);
		mbr_set(d, links[i].lba, 1, 0x05, links[i].start, 300);
		must_list(d, &t);
		check_place(d, &t, 5, 1010, 100);
		CHECK_EQ(check_sane(d, &t), links[i].lba == 1000 ? 2 : 3);
		CHECK(strstr(t.note, links[i].start > 1000 ? "past the end" : "lead back to block") != NULL);
		close_disk(d);
	}
}

static void test_mbr_chains_that_meet(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0}, u = {0};
	struct disk *d = mbr_disk(512);

	mbr_set(d, 0, 3, 0x05, 4000, 100);
	mbr_set(d, 4000, 0, 0x83, 1, 10);
	mbr_set(d, 4000, 1, 0x05, (uint32_t)-3000, 10);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), 4);
	check_place(d, &t, 7, 4001, 10);
	mbr_set(d, 0, 3, 0x05, 1500, 100);
	must_list(d, &u);
	CHECK_EQ(check_sane(d, &u), 3);
	CHECK(strstr(u.note, "lead back to block 1500") != NULL);
	close_disk(d);
}

/* Each record a block behind the one before, with a partition of one block far from all of them. */
static void chain_of(struct disk *d, unsigned count)
{
	mbr_set(d, 0, 0, 0x05, 1000, 10000);
	for (unsigned i = 0; i < count; i++) {
		mbr_set(d, 1000 + i, 0, 0x83, 2000 + i, 1);
		mbr_set(d, 1000 + i, 1, 0x05, i + 1 < count ? i + 1 : 0, i + 1 < count ? 100 : 0);
	}
}

/* The first link counts. */
static void test_mbr_records_with_two_links(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = mbr_disk(512);

	mbr_set(d, 1000, 2, 0x05, 600, 10);
	mbr_set(d, 1600, 0, 0x83, 1, 7);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), 3);
	check_place(d, &t, 6, 1520, 100);
	close_disk(d);
}

static void test_mbr_long_chains(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0}, u = {0};
	struct disk *d = ram(16 * MIB, 512);

	chain_of(d, 256);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), 256);
	CHECK_STR(t.note, "");
	chain_of(d, 600);
	must_list(d, &u);
	CHECK_EQ(check_sane(d, &u), 256);
	CHECK(strstr(u.note, "more than 256") != NULL);
	close_disk(d);
}

static void test_mbr_chain_that_breaks_off(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = mbr_disk(4096);

	bytes_put(d, 1500 * 4096 + 510, "\0", 2);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), 2);
	CHECK(strstr(t.note, "no extended boot record in block 1500") != NULL);
	close_disk(d);
}

static void test_empty_extended_partition(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = ram(16 * MIB, 512);

	mbr_set(d, 0, 0, 0x0f, 1000, 2000);
	must_list(d, &t);
	CHECK_EQ(t.count, 1);
	CHECK_STR(t.note, "");
	close_disk(d);
}

static void test_hybrid_and_protective(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0}, u = {0};
	struct disk *d = gpt_disk(512);

	mbr_set(d, 0, 1, 0x83, 200, 10);
	must_list(d, &t);
	CHECK_STR(t.scheme, "gpt");
	CHECK_EQ(t.count, 1);
	mbr_set(d, 0, 0, 0x83, 300, 10); /* a GPT without protective MBR does not count */
	must_list(d, &u);
	CHECK_STR(u.scheme, "mbr");
	CHECK_EQ(u.count, 2);
	close_disk(d);
	d = ram(8 * MIB, 512);
	mbr_set(d, 0, 0, 0xee, 1, 16383);
	check_refused(d, -ENODATA, "protective MBR");
	close_disk(d);
}

static void test_no_table(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = ram(8 * MIB, 512);
	struct disk *tiny = ram(512, 512);

	check_refused(tiny, -ENOENT, "no partition table");
	close_disk(tiny);
	check_refused(d, -ENOENT, "no partition table");
	bytes_put(d, 510, "\x55\xaa", 2);
	must_list(d, &t);
	CHECK_EQ(t.count, 0);
	CHECK(!partitions_find(&t, 1, &err));
	CHECK_STR(error_text(&err), "there is no partition 1: the MBR has none");
	bytes_put(d, 446, "boot code", 9);
	check_refused(d, -ENOENT, "no partition table");
	close_disk(d);
}

/* ------------------------------------------------------------------ blocks in common */

static void test_overlaps(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	struct disk *d = gpt_disk(512);

	gpt_set(d, 2, 109, 119, NULL);
	gpt_set(d, 3, 120, 400, NULL);
	gpt_set(d, 4, 130, 140, NULL);
	gpt_set(d, 5, 300, 300, NULL);
	gpt_set(d, 6, 401, 402, NULL);
	must_list(d, &t);
	CHECK_EQ(check_sane(d, &t), 6);
	CHECK_EQ(get(&t, 1)->overlaps, 2);
	CHECK_EQ(get(&t, 2)->overlaps, 1);
	CHECK_EQ(get(&t, 3)->overlaps, 4);
	CHECK_EQ(get(&t, 4)->overlaps, 3);
	CHECK_EQ(get(&t, 5)->overlaps, 3);
	CHECK_EQ(get(&t, 6)->overlaps, 0);
	close_disk(d);
}

/* Against the plain definition. */
static void test_random_overlaps(void)
{
	struct random r = random_stream(90);
	unsigned rounds = 40 / contract_slowness() + 2;

	for (unsigned round = 0; round < rounds; round++) {
		CLEANUP_PARTITIONS struct partition_table t = {0};
		struct disk *d = gpt_disk(512);
		for (unsigned i = 1; i <= 12; i++) {
			uint64_t first = 100 + random_below(&r, 200);
			gpt_set(d, i, first, first + random_below(&r, random_once_in(&r, 4) ? 100 : 10), NULL);
		}
		must_list(d, &t);
		for (size_t i = 0; i < t.count; i++) {
			bool any = false;
			for (size_t k = 0; k < t.count; k++) {
				bool both = i != k && t.list[i].offset < t.list[k].offset + t.list[k].size &&
					    t.list[k].offset < t.list[i].offset + t.list[i].size;
				any |= both;
				if (t.list[i].overlaps == t.list[k].number)
					CHECK(both);
			}
			CHECK_EQ(any, t.list[i].overlaps != 0);
		}
		close_disk(d);
	}
}

/* ------------------------------------------------------------------ a disk that cannot be read, a machine that is short */

static void test_read_failures(void)
{
	struct trap *trap = trap_create(&(struct trap_options){.size = 8 * MIB, .capacity = 8 * MIB});
	struct disk *d = &trap->disk;

	gpt_write(d);
	gpt_set(d, 1, 100, 109, NULL);
	trap_reset(trap);
	trap_fail(trap, 1 << TRAP_READ, 2, -EIO); /* the first header */
	check_backup(d);
	trap_reset(trap);
	trap_fail(trap, 1 << TRAP_READ, 1, -ENODATA);
	check_refused(d, -ENODATA, "cannot be read: block 0: ");
	close_disk(d);
}

static void test_limit_of_file_sizes(void)
{
	struct rlimit before, little;
	struct disk *d = gpt_disk(512);

	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	little = before;
	little.rlim_cur = 4096;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
	check_refused(d, -EFBIG, "ulimit -f");
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
	close_disk(d);
}

/* ------------------------------------------------------------------ partitions as disks */

static struct disk *open_number(struct disk *d, unsigned number, unsigned flags)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	CLEANUP_ERROR struct error err = {0};
	struct disk *out = NULL;

	must_list(d, &t);
	if (!CHECK_EQ(partition_open(d, &t, get(&t, number), flags, &out, &err), 0))
		tap_diag("%s", error_text(&err));
	return out;
}

static void test_open_on_a_shared_disk(void)
{
	struct disk *d = mbr_disk(512), *one = open_number(d, 1, 0), *six = open_number(d, 6, 0);
	char bytes[512], back[512];

	CHECK_EQ(disk_size(one), 50 * 512);
	memset(bytes, 6, sizeof(bytes));
	CHECK_EQ(disk_write(six, &VEC_FLAT(bytes, 512), 512, &(struct io){.flags = IO_FUA}), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(back, 512), 1521 * 512, &io_plain), 0);
	CHECK_MEM(bytes, back, 512);
	CHECK_EQ(disk_read(one, &VEC_FLAT(back, 512), 50 * 512, &io_plain), -ERANGE);
	json_t *told = disk_describe(six);
	CHECK_EQ(json_integer_value(json_object_get(told, "number")), 6);
	CHECK_EQ(json_array_size(json_object_get(told, "children")), 1);
	json_decref(told);
	close_disk(one);
	CHECK_EQ(disk_read(six, &VEC_FLAT(back, 512), 512, &io_plain), 0);
	close_disk(d); /* the partition goes on with it */
	CHECK_EQ(disk_read(six, &VEC_FLAT(back, 512), 512, &io_plain), 0);
	CHECK_MEM(bytes, back, 512);
	close_disk(six);
}

/* The last one to leave closes the disk, and says what failed then. */
static void test_references(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct trap *trap = trap_create(&(struct trap_options){.size = 4 * MIB, .capacity = 4 * MIB});
	struct disk *d = &trap->disk, *one, *again;
	unsigned closed = 0;

	trap->closed = &closed;
	trap->close_status = -EIO;
	mbr_set(d, 0, 0, 0x83, 10, 20);
	one = open_number(d, 1, 0);
	again = open_number(d, 1, 0);
	disk_abandon(again);
	CHECK_EQ(closed, 0);
	trap_reset(trap);
	close_disk(d);
	CHECK_EQ(closed, 0);
	CHECK_EQ(trap->counts[TRAP_FLUSH], 0);
	CHECK_EQ(disk_close(one, &err), -EIO);
	CHECK_EQ(closed, 1);
	CHECK(strncmp(error_text(&err), "part: ", 6) == 0);
}

static void test_everything_reaches_the_disk(void)
{
	struct trap *trap = trap_create(&(struct trap_options){.size = 4 * MIB, .capacity = 4 * MIB,
							       .discard = DISK_DISCARD_ZEROES});
	struct disk *d = &trap->disk, *one;
	const struct reservation_request request = {.action = RESERVATION_REGISTER};
	struct reservation_report report;
	struct extents *extents = &(struct extents){0};

	mbr_set(d, 0, 0, 0x83, 10, 20);
	one = open_number(d, 1, 0);
	trap_reset(trap);
	disk_flush(one, &io_plain);
	disk_discard(one, 512, 1024, &io_plain);
	disk_write_zeroes(one, 512, 1024, &io_plain);
	disk_prefetch(one, 512, 1024, &io_plain);
	disk_eject(one, &io_plain);
	disk_reserve(one, &request, &io_plain);
	disk_report_reservations(one, &report, &io_plain);
	extents_init(extents, 512, 1024, 10);
	disk_extents(one, extents, &io_plain);
	extents_free(extents);
	for (enum trap_op op = TRAP_FLUSH; op < TRAP_OPS; op++)
		CHECK_EQ(trap->counts[op], op == TRAP_RESIZE ? 0 : 1);
	CHECK_EQ(trap->log[1].offset, 11 * 512);
	CHECK_EQ(disk_resize(one, 512, &io_plain), -EOPNOTSUPP);
	close_disk(one);
	close_disk(d);
}

static void test_refused_to_open(void)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = gpt_disk(512), *out;

	gpt_set(d, 2, 109, 119, NULL);
	must_list(d, &t);
	CHECK_EQ(partition_open(d, &t, get(&t, 2), 0, &out, &err), -EROFS);
	CHECK(strstr(error_text(&err), "partition 2 has blocks in common with partition 1") != NULL);
	CHECK_EQ(partition_open(d, &t, get(&t, 2), OPEN_READ_ONLY, &out, &err), 0);
	CHECK_EQ(disk_write_zeroes(out, 0, 512, &io_plain), -EROFS);
	close_disk(out);
	close_disk(d);
	partitions_clear(&t);
	d = mbr_disk(512);
	must_list(d, &t);
	CHECK_EQ(partition_open(d, &t, get(&t, 3), OPEN_READ_ONLY, &out, &err), -EINVAL);
	CHECK_STR(error_text(&err), "partition 3 is an extended partition, which only holds others");
	close_disk(d);
}

/* Two windows beside each other: threads in each, and the contract holds in both. */
static void *run_suite(void *argument)
{
	struct disk *d = argument;
	const struct contract c = {.name = "a partition of a shared disk", .size = disk_size(d)};

	CHECK_EQ(contract_run_on(&c, d), 0);
	return NULL;
}

static void test_contract_on_a_shared_disk(void)
{
	for (size_t i = 0; i < 3; i += 2) {
		struct disk *d = ram(16 * MIB, blocks[i]), *one, *two;
		pthread_t thread;

		gpt_write(d);
		gpt_set(d, 1, gpt_first_usable(d), 4 * MIB / blocks[i] - 1, NULL);
		gpt_set(d, 2, 4 * MIB / blocks[i], 8 * MIB / blocks[i] + 2, NULL);
		one = open_number(d, 1, 0);
		two = open_number(d, 2, 0);
		REQUIRE(!pthread_create(&thread, NULL, run_suite, one));
		run_suite(two);
		pthread_join(thread, NULL);
		close_disk(one);
		close_disk(two);
		CLEANUP_PARTITIONS struct partition_table t = {0};
		must_list(d, &t);
		CHECK_EQ(t.count, 2);
		close_disk(d);
	}
}

/* ------------------------------------------------------------------ random damage */

/* Scribbles where tables are; half of the time what it makes of a GPT has right checksums. */
static void damage(struct disk *d, struct random *r, const uint64_t *places, size_t count)
{
	for (uint64_t n = 1 + random_below(r, 6); n; n--) {
		unsigned char bytes[8];
		uint64_t lba = places[random_below(r, count)], value = random_next(r);
		uint64_t in_block = random_once_in(r, 2) ? random_below(r, 504) : 440 + random_below(r, 64);
		if (random_once_in(r, 3))
			value = random_below(r, 4) - 2;
		memcpy(bytes, &value, sizeof(bytes));
		bytes_put(d, lba * disk_info(d)->block_size + in_block, bytes, 1 + random_below(r, sizeof(bytes)));
	}
	if (random_once_in(r, 2)) {
		gpt_seal(d, 1);
		gpt_seal(d, last_block(d));
	}
}

/* Whatever there is, it is told, and what can be opened is inside. */
static void list_and_open(struct disk *d)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	CLEANUP_ERROR struct error err = {0};
	struct disk *out;

	if (partitions_list(d, &t, &err)) {
		CHECK(err.status == -ENOENT || err.status == -ENODATA);
		CHECK(err.text && err.text[0]);
		return;
	}
	check_sane(d, &t);
	for (size_t i = 0; i < t.count && i < 8; i++) {
		if (partition_open(d, &t, &t.list[i], 0, &out, &err))
			continue;
		CHECK_EQ(disk_size(out), t.list[i].size);
		close_disk(out);
	}
}

static void test_random_damage(void)
{
	unsigned rounds = 4000 / contract_slowness();
	struct random r = random_stream(91);

	for (unsigned round = 0; round < rounds && !tap_errors; round++) {
		uint32_t block = random_once_in(&r, 2) ? 512 : 4096;
		bool gpt = random_once_in(&r, 2);
		struct disk *d = gpt ? gpt_disk(block) : mbr_disk(block);
		const uint64_t gpt_places[] = {0, 1, 1, 2, last_block(d), last_block(d)}, mbr_places[] = {0, 1000, 1500, 1500};
		damage(d, &r, gpt ? gpt_places : mbr_places, gpt ? 6 : 4);
		list_and_open(d);
		close_disk(d);
	}
}

int main(void)
{
	TAP_RUN(test_gpt);
	TAP_RUN(test_gpt_full);
	TAP_RUN(test_gpt_extreme_sizes);
	TAP_RUN(test_gpt_backup);
	TAP_RUN(test_gpt_of_a_disk_that_has_grown);
	TAP_RUN(test_gpt_for_other_blocks);
	TAP_RUN(test_gpt_headers_that_make_no_sense);
	TAP_RUN(test_gpt_entries_outside_the_disk);
	TAP_RUN(test_names_of_strangers);
	TAP_RUN(test_mbr);
	TAP_RUN(test_mbr_far_away);
	TAP_RUN(test_mbr_outside_the_disk);
	TAP_RUN(test_mbr_circles);
	TAP_RUN(test_mbr_chains_that_meet);
	TAP_RUN(test_mbr_records_with_two_links);
	TAP_RUN(test_mbr_long_chains);
	TAP_RUN(test_mbr_chain_that_breaks_off);
	TAP_RUN(test_empty_extended_partition);
	TAP_RUN(test_hybrid_and_protective);
	TAP_RUN(test_no_table);
	TAP_RUN(test_overlaps);
	TAP_RUN(test_random_overlaps);
	TAP_RUN(test_read_failures);
	TAP_RUN(test_limit_of_file_sizes);
	TAP_RUN(test_open_on_a_shared_disk);
	TAP_RUN(test_references);
	TAP_RUN(test_everything_reaches_the_disk);
	TAP_RUN(test_refused_to_open);
	TAP_RUN(test_contract_on_a_shared_disk);
	TAP_RUN(test_random_damage);
	return TAP_DONE();
}

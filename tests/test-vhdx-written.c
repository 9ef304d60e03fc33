/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What we write, byte by byte, against what [MS-VHDX] asks of a writer: read here by offsets and a checksum of our own, since the reader in
 * formats/ takes more than a writer may leave.
 */
#include "tests/vhdx-lab.h"

#include <inttypes.h>

#include "core/node.h"
#include "formats/endian.h"

#define KIB 1024u
#define MIB (UINT64_C(1) << 20)
#define LOG MIB /* where our own files have them */
#define METADATA (2 * MIB)
#define TABLE (3 * MIB)

/* Of the file's first 4 MiB, where all structures are. */
struct image {
	uint8_t bytes[4 << 20];
	uint64_t size;
};

static uint16_t u16(const struct image *i, uint64_t at)
{
	return le16_get(i->bytes + at);
}

static uint32_t u32(const struct image *i, uint64_t at)
{
	return le32_get(i->bytes + at);
}

static uint64_t u64(const struct image *i, uint64_t at)
{
	return le64_get(i->bytes + at);
}

static bool is_zero(const struct image *i, uint64_t begin, uint64_t end)
{
	return memory_is_zero(i->bytes + begin, end - begin);
}

static bool is_same(const struct image *i, uint64_t a, uint64_t b, size_t length)
{
	return !memcmp(i->bytes + a, i->bytes + b, length);
}

/* CRC-32C of `length` bytes, of which those at 4 to 7 count as zero. */
static uint32_t sum(const uint8_t *p, size_t length)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < length; i++) {
		crc ^= i >= 4 && i < 8 ? 0 : p[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static struct image *look(struct recorder *r)
{
	static struct image i;

	i.size = container_size(recorder_container(r));
	CHECK(i.size >= sizeof(i.bytes));
	CHECK_EQ(container_read(recorder_container(r), i.bytes, sizeof(i.bytes), 0, &io_plain), 0);
	return &i;
}

/* ------------------------------------------------------------------ the first MiB */

/* The one of the two headers that counts. */
static uint64_t current(const struct image *i)
{
	return u64(i, 64 * KIB + 8) > u64(i, 128 * KIB + 8) ? 64 * KIB : 128 * KIB;
}

static void check_header(const struct image *i, uint64_t at)
{
	CHECK_MEM(i->bytes + at, "head", 4);
	CHECK_EQ(u32(i, at + 4), sum(i->bytes + at, 4096));
	CHECK(!is_zero(i, at + 16, at + 32));
	CHECK(!is_zero(i, at + 32, at + 48));
	CHECK_EQ(u16(i, at + 64), 0);
	CHECK_EQ(u16(i, at + 66), 1);
	CHECK(u32(i, at + 68) > 0);
	CHECK_EQ(u32(i, at + 68) % MIB, 0);
	CHECK_EQ(u64(i, at + 72) % MIB, 0);
	CHECK(u64(i, at + 72) >= MIB);
	CHECK(u64(i, at + 72) + u32(i, at + 68) <= i->size);
	CHECK(is_zero(i, at + 80, at + 4096));
}

/* When nobody has it open: no log, and both say the same. */
static void check_closed(const struct image *i)
{
	uint64_t a = u64(i, 64 * KIB + 8), b = u64(i, 128 * KIB + 8);

	CHECK(a == b + 1 || b == a + 1);
	CHECK(is_same(i, 64 * KIB + 16, 128 * KIB + 16, 4080));
	CHECK(is_zero(i, 64 * KIB + 48, 64 * KIB + 64));
}

static void check_regions(const struct image *i, uint64_t at)
{
	static const uint8_t metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
	static const uint8_t bat[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};

	CHECK_MEM(i->bytes + at, "regi", 4);
	CHECK_EQ(u32(i, at + 4), sum(i->bytes + at, 64 * KIB));
	CHECK_EQ(u32(i, at + 8), 2);
	CHECK_EQ(u32(i, at + 12), 0);
	CHECK_MEM(i->bytes + at + 16, metadata, 16);
	CHECK_EQ(u64(i, at + 32), METADATA);
	CHECK_MEM(i->bytes + at + 48, bat, 16);
	for (uint64_t entry = at + 16; entry < at + 80; entry += 32) {
		CHECK_EQ(u64(i, entry + 16) % MIB, 0);
		CHECK_EQ(u32(i, entry + 24) % MIB, 0);
		CHECK(u64(i, entry + 16) >= MIB && u64(i, entry + 16) + u32(i, entry + 24) <= i->size);
		CHECK_EQ(u32(i, entry + 28), 1); /* required */
	}
	CHECK(is_zero(i, at + 80, at + 64 * KIB));
}

/* ------------------------------------------------------------------ metadata */

static const struct item {
	uint8_t id; /* the first byte is enough to tell them apart */
	uint32_t flags, length;
} items[] = {{0x37, 4, 8}, {0x24, 6, 8}, {0xab, 6, 16}, {0x1d, 6, 4}, {0xc7, 6, 4}, {0x2d, 4, 0}};

static const struct item *item_of(uint8_t id)
{
	for (size_t n = 0; n < sizeof(items) / sizeof(*items); n++)
		if (items[n].id == id)
			return &items[n];
	return NULL;
}

/* Where the item lies, once it is found to be the only one of its name. */
static uint64_t find_item(const struct image *i, uint8_t id)
{
	uint64_t found = 0;

	for (unsigned n = 0; n < u16(i, METADATA + 10); n++)
		if (i->bytes[METADATA + 32 + n * 32] == id) {
			CHECK_EQ(found, 0);
			found = METADATA + u32(i, METADATA + 32 + n * 32 + 16);
		}
	return found;
}

static void check_metadata(const struct image *i, unsigned count)
{
	uint32_t end = 64 * KIB;

	CHECK_MEM(i->bytes + METADATA, "metadata", 8);
	CHECK_EQ(u16(i, METADATA + 8), 0);
	CHECK_EQ(u16(i, METADATA + 10), count);
	CHECK(is_zero(i, METADATA + 12, METADATA + 32));
	for (unsigned n = 0; n < count; n++) {
		uint64_t at = METADATA + 32 + n * 32;
		const struct item *item = item_of(i->bytes[at]);
		CHECK(item && u32(i, at + 24) == item->flags);
		CHECK(item && (!item->length || u32(i, at + 20) == item->length));
		CHECK(u32(i, at + 16) >= end); /* ours lie in a row: none in another */
		end = u32(i, at + 16) + u32(i, at + 20);
		CHECK(u32(i, at + 20) > 0 && end <= MIB);
		CHECK_EQ(u32(i, at + 28), 0);
		CHECK(find_item(i, i->bytes[at]) > 0);
	}
	CHECK(is_zero(i, METADATA + 32 + count * 32, METADATA + 64 * KIB));
}

static void check_values(const struct image *i, uint32_t block, uint32_t bits, uint64_t size, uint32_t logical)
{
	uint64_t at = find_item(i, 0x37);

	CHECK_EQ(u32(i, at), block);
	CHECK_EQ(u32(i, at + 4), bits);
	CHECK_EQ(u64(i, find_item(i, 0x24)), size);
	CHECK_EQ(u32(i, find_item(i, 0x1d)), logical);
	CHECK_EQ(u32(i, find_item(i, 0xc7)), 4096);
}

/* ASCII of UTF-16LE; a NUL or anything else ends the test. */
static void text_of(const struct image *i, uint64_t at, unsigned bytes, char out[200])
{
	CHECK(bytes > 0 && bytes % 2 == 0 && bytes < 400);
	for (unsigned n = 0; n < bytes / 2 && n < 199; n++) {
		CHECK(u16(i, at + 2 * n) >= ' ' && u16(i, at + 2 * n) < 0x7f);
		out[n] = (char)i->bytes[at + 2 * n];
		out[n + 1] = 0;
	}
}

static void check_locator(const struct image *i, const char *linkage)
{
	static const uint8_t type[16] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};
	static const char *const keys[] = {"parent_linkage", "relative_path", "absolute_win32_path"};
	const char *values[] = {linkage, ".\\p.vhdx", "\\images\\p.vhdx"};
	uint64_t at = find_item(i, 0x2d);

	CHECK_MEM(i->bytes + at, type, 16);
	CHECK_EQ(u16(i, at + 16), 0);
	CHECK_EQ(u16(i, at + 18), 3);
	for (unsigned n = 0; n < 3; n++) {
		uint64_t pair = at + 20 + n * 12;
		char key[200] = "", value[200] = "";
		CHECK(u32(i, pair) > 0 && u32(i, pair + 4) > 0);
		text_of(i, at + u32(i, pair), u16(i, pair + 8), key);
		text_of(i, at + u32(i, pair + 4), u16(i, pair + 10), value);
		CHECK_STR(key, keys[n]);
		CHECK_STR(value, values[n]);
	}
}

/* ------------------------------------------------------------------ new files */

static const struct guid parent_id = GUID_INIT(0xabcdef01, 0x2345, 0x6789, 0xabcd, 0xef0123456789);

static struct recorder *new_file(bool child, bool fixed, uint32_t sector)
{
	const struct vhdx_create_options o = {.size = 64 * MIB,
					      .block_size = MIB,
					      .logical_sector = sector,
					      .fixed = fixed,
					      .has_parent = child,
					      .parent = parent_id,
					      .parent_relative = ".\\p.vhdx",
					      .parent_absolute = "\\images\\p.vhdx"};

	return lab_create(&o);
}

static void check_new(bool child, bool fixed, uint32_t sector)
{
	static const uint8_t creator[] = {'P', 0, 'l', 0, 'a', 0, 't', 0, 't', 0, 'e', 0, 'r', 0};
	struct recorder *r = new_file(child, fixed, sector);
	const struct image *i = look(r);

	CHECK_MEM(i->bytes, "vhdxfile", 8);
	CHECK_MEM(i->bytes + 8, creator, sizeof(creator));
	CHECK(is_zero(i, 8 + sizeof(creator), 64 * KIB));
	check_header(i, 64 * KIB);
	check_header(i, 128 * KIB);
	check_closed(i);
	check_regions(i, 192 * KIB);
	CHECK(is_same(i, 192 * KIB, 256 * KIB, 64 * KIB));
	check_metadata(i, child ? 6 : 5);
	check_values(i, MIB, child ? 2 : fixed, 64 * MIB, sector);
	if (child)
		check_locator(i, "{abcdef01-2345-6789-abcd-ef0123456789}");
	for (unsigned block = 0; block < 64; block++)
		CHECK_EQ(u64(i, TABLE + 8 * block), fixed ? (4 + block) * MIB | 6 : 0);
	CHECK(is_zero(i, TABLE + 8 * 64, TABLE + MIB));
	container_close(recorder_container(r), false, NULL);
}

static void test_a_new_file(void)
{
	check_new(false, false, 512);
	check_new(false, false, 4096);
	check_new(false, true, 512);
	check_new(true, false, 512);
}

static void refuse(const struct vhdx_create_options *o, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct recorder *r = recorder_create("refused.vhdx");

	CHECK_EQ(vhdx_create(recorder_container(r), o, &err), -EINVAL);
	CHECK(strstr(error_text(&err), text) != NULL);
	CHECK_EQ(container_size(recorder_container(r)), 0);
	container_close(recorder_container(r), false, NULL);
}

static void test_what_is_not_allowed_is_not_made(void)
{
	refuse(&(struct vhdx_create_options){.size = 1000}, "size 1000");
	refuse(&(struct vhdx_create_options){.size = 5120, .logical_sector = 4096}, "size 5120");
	refuse(&(struct vhdx_create_options){.size = (UINT64_C(64) << 40) + 512}, "up to 64 TiB");
	refuse(&(struct vhdx_create_options){.size = MIB, .block_size = 3 << 20}, "power of two");
	refuse(&(struct vhdx_create_options){.size = MIB, .block_size = 512 << 10}, "power of two");
	refuse(&(struct vhdx_create_options){.size = MIB, .block_size = 512 << 20}, "power of two");
	refuse(&(struct vhdx_create_options){.size = MIB, .logical_sector = 1024}, "not 512 or 4096");
	refuse(&(struct vhdx_create_options){.size = MIB, .has_parent = true}, "no path of the parent");
}

/* ------------------------------------------------------------------ sessions */

static uint8_t data[64 << 10];

static void write_at(struct disk *d, uint64_t offset)
{
	memset(data, 'w', sizeof(data));
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, sizeof(data)), offset, &io_plain), 0);
}

/* Opened, `change` is done, closed; whether the header has another FileWriteGuid and DataWriteGuid after it. */
static void check_ids(void (*change)(struct disk *d), bool file, bool seen)
{
	struct recorder *r = new_file(false, false, 512);
	uint8_t before[32];
	struct disk *d;
	const struct image *i;

	recorder_hold(r);
	d = lab_open(recorder_container(r), "ids");
	write_at(d, 3 * MIB);
	CHECK_EQ(disk_close(d, NULL), 0);
	i = look(r);
	memcpy(before, i->bytes + current(i) + 16, 32);
	recorder_hold(r);
	d = lab_open(recorder_container(r), "ids");
	change(d);
	CHECK_EQ(disk_close(d, NULL), 0);
	i = look(r);
	check_closed(i);
	CHECK_EQ(memcmp(before, i->bytes + current(i) + 16, 16) != 0, file);
	CHECK_EQ(memcmp(before + 16, i->bytes + current(i) + 32, 16) != 0, seen);
	container_close(recorder_container(r), false, NULL);
}

static void change_nothing(struct disk *d)
{
	CHECK_EQ(disk_read(d, &VEC_FLAT(data, sizeof(data)), 3 * MIB, &io_plain), 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
}

static void change_data(struct disk *d)
{
	write_at(d, 0);
}

static void change_size(struct disk *d)
{
	CHECK_EQ(disk_resize(d, 32 * MIB, &io_plain), 0);
}

static void test_ids(void)
{
	check_ids(change_nothing, false, false);
	check_ids(change_data, true, true);
	check_ids(change_size, true, true);
}

/* Blocks that move are no other content. */
static void test_compacting_keeps_the_data_id(void)
{
	struct recorder *r = new_file(false, false, 512);
	struct vhdx_compact_result result;
	struct disk *d;
	uint8_t before[32];
	const struct image *i;

	recorder_hold(r);
	d = lab_open(recorder_container(r), "compact");
	for (unsigned n = 0; n < 4; n++)
		write_at(d, n * MIB);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, MIB, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	i = look(r);
	memcpy(before, i->bytes + current(i) + 16, 32);
	CHECK_EQ(vhdx_compact(recorder_container(r), true, &result, NULL), 0);
	CHECK(result.moved > 0);
	i = look(r);
	check_closed(i);
	CHECK(memcmp(before, i->bytes + current(i) + 16, 16) != 0);
	CHECK_MEM(i->bytes + current(i) + 32, before + 16, 16);
	container_close(recorder_container(r), false, NULL);
}

/* A block that was freed is "zero", and says no place. */
static void test_entries(void)
{
	struct recorder *r = new_file(false, false, 512);
	struct disk *d;
	const struct image *i;

	recorder_hold(r);
	d = lab_open(recorder_container(r), "entries");
	for (unsigned n = 0; n < 3; n++)
		write_at(d, n * MIB);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(disk_discard(d, MIB, MIB, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	i = look(r);
	CHECK_EQ(u64(i, TABLE), 4 * MIB | 6);
	CHECK_EQ(u64(i, TABLE + 8), 2);
	CHECK_EQ(u64(i, TABLE + 16), 6 * MIB | 6);
	CHECK(is_zero(i, TABLE + 24, TABLE + MIB));
	container_close(recorder_container(r), false, NULL);
}

/* ------------------------------------------------------------------ the log */

/* One entry; returns its length. */
static uint32_t check_entry(const struct image *i, uint64_t at, uint64_t sequence, uint64_t tail)
{
	uint32_t length = u32(i, at + 8), count = u32(i, at + 24), descriptors = count <= 126 ? 1 : 2;

	CHECK_MEM(i->bytes + at, "loge", 4);
	CHECK_EQ(length, (descriptors + count) * 4096);
	CHECK_EQ(u32(i, at + 4), sum(i->bytes + at, length));
	CHECK_EQ(u32(i, at + 12), tail);
	CHECK_EQ(u64(i, at + 16), sequence);
	CHECK_EQ(u32(i, at + 28), 0);
	CHECK(is_same(i, at + 32, current(i) + 48, 16));
	CHECK_EQ(u64(i, at + 48) % MIB, 0);
	CHECK(u64(i, at + 48) > 0 && u64(i, at + 48) <= i->size);
	CHECK_EQ(u64(i, at + 56) % MIB, 0);
	CHECK(u64(i, at + 56) >= u64(i, at + 48) && u64(i, at + 56) <= i->size + MIB);
	for (uint32_t n = 0; n < count; n++) {
		uint64_t d = at + 64 + n * 32, s = at + (descriptors + n) * 4096;
		CHECK_MEM(i->bytes + d, "desc", 4);
		CHECK_EQ(u64(i, d + 16) % 4096, 0);
		CHECK(u64(i, d + 16) >= 192 * KIB);
		CHECK_EQ(u64(i, d + 24), sequence);
		CHECK_MEM(i->bytes + s, "data", 4);
		CHECK_EQ(u32(i, s + 4), sequence >> 32);
		CHECK_EQ(u32(i, s + 4092), sequence & UINT32_MAX);
	}
	return length;
}

/* Entries one behind the other, and what they hold in its place. */
static void test_the_log_of_a_session(void)
{
	struct recorder *r = new_file(false, false, 512);
	uint64_t at = LOG, last = 0;
	struct disk *d;
	const struct image *i;

	recorder_hold(r);
	d = lab_open(recorder_container(r), "log");
	for (unsigned n = 0; n < 5; n++) {
		write_at(d, n * 4 * MIB);
		CHECK_EQ(disk_flush(d, &io_plain), 0);
	}
	i = look(r);
	check_header(i, current(i));
	CHECK(!is_zero(i, current(i) + 48, current(i) + 64));
	for (unsigned n = 1; n <= 5; n++) {
		uint64_t tail = n == 1 ? 0 : last - LOG;
		last = at;
		at += check_entry(i, at, n, tail);
	}
	CHECK_EQ(u64(i, last + 48), i->size); /* the largest that is known to be durable: the file grew long before */
	CHECK_EQ(u64(i, last + 64 + 16), TABLE);
	CHECK_MEM(i->bytes + last + 64 + 8, i->bytes + TABLE, 8);
	CHECK_MEM(i->bytes + last + 4096 + 8, i->bytes + TABLE + 8, 4084);
	CHECK_MEM(i->bytes + last + 64 + 4, i->bytes + TABLE + 4092, 4);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_closed(look(r));
	container_close(recorder_container(r), false, NULL);
}

int main(void)
{
	TAP_RUN(test_a_new_file);
	TAP_RUN(test_what_is_not_allowed_is_not_made);
	TAP_RUN(test_ids);
	TAP_RUN(test_compacting_keeps_the_data_id);
	TAP_RUN(test_entries);
	TAP_RUN(test_the_log_of_a_session);
	return TAP_DONE();
}

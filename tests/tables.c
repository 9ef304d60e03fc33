/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/tables.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

#define ENTRY_SIZE 128u
#define HEADER_SIZE 92u

static uint32_t block_of(const struct disk *d)
{
	return disk_info(d)->block_size;
}

/* ------------------------------------------------------------------ bytes */

/* The blocks around a range, read; *start is where they begin. To be freed. */
static unsigned char *whole_blocks(struct disk *d, uint64_t at, size_t size, uint64_t *start, size_t *length)
{
	uint64_t block = block_of(d), end = (at + size + block - 1) / block * block;
	unsigned char *bytes;

	*start = at / block * block;
	*length = (size_t)(end - *start);
	bytes = aligned_alloc(4096, (*length + 4095) / 4096 * 4096);
	if (!bytes)
		abort();
	CHECK_EQ(disk_read(d, &VEC_FLAT(bytes, *length), *start, &io_plain), 0);
	return bytes;
}

void bytes_put(struct disk *d, uint64_t at, const void *bytes, size_t size)
{
	uint64_t start;
	size_t length;
	unsigned char *blocks = whole_blocks(d, at, size, &start, &length);

	memcpy(blocks + (at - start), bytes, size);
	CHECK_EQ(disk_write(d, &VEC_FLAT(blocks, length), start, &io_plain), 0);
	free(blocks);
}

void bytes_get(struct disk *d, uint64_t at, void *bytes, size_t size)
{
	uint64_t start;
	size_t length;
	unsigned char *blocks = whole_blocks(d, at, size, &start, &length);

	memcpy(bytes, blocks + (at - start), size);
	free(blocks);
}

static void set32(unsigned char *p, uint32_t n)
{
	n = htole32(n);
	memcpy(p, &n, sizeof(n));
}

static void set64(unsigned char *p, uint64_t n)
{
	n = htole64(n);
	memcpy(p, &n, sizeof(n));
}

static uint32_t get32(const unsigned char *p)
{
	uint32_t n;

	memcpy(&n, p, sizeof(n));
	return le32toh(n);
}

static uint64_t get64(const unsigned char *p)
{
	uint64_t n;

	memcpy(&n, p, sizeof(n));
	return le64toh(n);
}

static uint32_t crc32(const unsigned char *p, size_t size)
{
	uint32_t crc = UINT32_MAX;

	while (size--) {
		crc ^= *p++;
		for (unsigned i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
	}
	return ~crc;
}

/* ------------------------------------------------------------------ GPT */

static uint64_t last_lba(const struct disk *d)
{
	return disk_size(d) / block_of(d) - 1;
}

static uint64_t array_blocks(const struct disk *d)
{
	return (GPT_ENTRIES * ENTRY_SIZE + block_of(d) - 1) / block_of(d);
}

static uint64_t second_array(const struct disk *d)
{
	return last_lba(d) - array_blocks(d);
}

uint64_t gpt_first_usable(const struct disk *d)
{
	return GPT_ENTRIES_LBA + array_blocks(d);
}

uint64_t gpt_last_usable(const struct disk *d)
{
	return second_array(d) - 1;
}

static void write_header(struct disk *d, uint64_t lba, uint64_t other, uint64_t array)
{
	unsigned char h[512] = "EFI PART";

	set32(h + 8, 0x10000);
	set32(h + 12, HEADER_SIZE);
	set64(h + GPT_MY_LBA, lba);
	set64(h + GPT_ALTERNATE_LBA, other);
	set64(h + GPT_FIRST_USABLE, gpt_first_usable(d));
	set64(h + GPT_LAST_USABLE, gpt_last_usable(d));
	memset(h + 56, 0xd1, 16);
	set64(h + GPT_ARRAY_LBA, array);
	set32(h + GPT_ARRAY_COUNT, GPT_ENTRIES);
	set32(h + GPT_ARRAY_SIZE, ENTRY_SIZE);
	bytes_put(d, lba * block_of(d), h, sizeof(h));
	gpt_seal(d, lba);
}

void gpt_write(struct disk *d)
{
	uint64_t last = last_lba(d);

	mbr_set(d, 0, 0, 0xee, 1, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
	write_header(d, GPT_HEADER_LBA, last, GPT_ENTRIES_LBA);
	write_header(d, last, GPT_HEADER_LBA, second_array(d));
}

static void set_entry(struct disk *d, uint64_t lba, unsigned number, const unsigned char *e)
{
	bytes_put(d, lba * block_of(d) + (uint64_t)(number - 1) * ENTRY_SIZE, e, ENTRY_SIZE);
}

void gpt_set(struct disk *d, unsigned number, uint64_t first, uint64_t last, const char *name)
{
	/* Linux data, as it stands on the disk */
	static const unsigned char type[16] = {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47,
					       0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4};
	unsigned char e[ENTRY_SIZE] = {0};

	memcpy(e, type, sizeof(type));
	memset(e + 16, (int)number, 16);
	set64(e + GPT_ENTRY_FIRST, first);
	set64(e + GPT_ENTRY_LAST, last);
	for (unsigned i = 0; name && name[i] && i < 36; i++)
		e[GPT_ENTRY_NAME + 2 * i] = (unsigned char)name[i];
	set_entry(d, GPT_ENTRIES_LBA, number, e);
	set_entry(d, second_array(d), number, e);
	gpt_seal(d, GPT_HEADER_LBA);
	gpt_seal(d, last_lba(d));
}

void gpt_poke_header(struct disk *d, uint64_t lba, enum gpt_field at, const void *bytes, size_t size)
{
	bytes_put(d, lba * block_of(d) + at, bytes, size);
}

void gpt_poke_entry(struct disk *d, uint64_t lba, unsigned number, enum gpt_field at, const void *bytes, size_t size)
{
	bytes_put(d, lba * block_of(d) + (uint64_t)(number - 1) * ENTRY_SIZE + at, bytes, size);
}

/* Of the entries, if they are on the disk and not too many. */
static void seal_array(struct disk *d, unsigned char *h)
{
	uint64_t size = (uint64_t)get32(h + GPT_ARRAY_COUNT) * get32(h + GPT_ARRAY_SIZE);
	uint64_t lba = get64(h + GPT_ARRAY_LBA), blocks = (size + block_of(d) - 1) / block_of(d);
	unsigned char *entries;

	if (!size || size > (8 << 20) || lba > last_lba(d) || blocks > last_lba(d) - lba)
		return;
	entries = malloc(size);
	if (!entries)
		abort();
	bytes_get(d, lba * block_of(d), entries, size);
	set32(h + 88, crc32(entries, size));
	free(entries);
}

void gpt_seal(struct disk *d, uint64_t lba)
{
	unsigned char *h = malloc(block_of(d));
	uint32_t size;

	if (!h)
		abort();
	bytes_get(d, lba * block_of(d), h, block_of(d));
	size = get32(h + 12);
	seal_array(d, h);
	set32(h + 16, 0);
	if (size <= block_of(d))
		set32(h + 16, crc32(h, size));
	bytes_put(d, lba * block_of(d), h, HEADER_SIZE);
	free(h);
}

/* ------------------------------------------------------------------ MBR */

void mbr_set(struct disk *d, uint64_t lba, unsigned slot, unsigned type, uint32_t start, uint32_t size)
{
	static const unsigned char signature[2] = {0x55, 0xaa};
	unsigned char e[16] = {0};

	e[4] = (unsigned char)type;
	set32(e + 8, start);
	set32(e + 12, size);
	bytes_put(d, lba * block_of(d) + 446 + 16 * slot, e, sizeof(e));
	bytes_put(d, lba * block_of(d) + 510, signature, sizeof(signature));
}

void mbr_set_id(struct disk *d, uint32_t id)
{
	unsigned char bytes[4];

	set32(bytes, id);
	bytes_put(d, 440, bytes, sizeof(bytes));
}

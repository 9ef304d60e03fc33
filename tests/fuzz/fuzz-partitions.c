/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes as the partition table of a disk: it is told in finite time, and no window is outside the disk.
 *
 * Input: one byte of choices (bits 0 and 1: size of blocks; bit 2: there is a good GPT to begin with; bit 3: a good MBR; bit 4:
 * the checksums are made right at last), then patches of 16 bytes: block (4 bytes; the highest bit counts from the end), place in
 * the block (2), length (1), and the bytes (9).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/open.h"
#include "decorators/partitions.h"
#include "tests/tables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATCH 16u
#define SIZE "16M"

static const uint32_t blocks[] = {512, 4096, 1024, 65536};

static void begin(struct disk *d, unsigned choices)
{
	if (choices & 4) {
		gpt_write(d);
		gpt_set(d, 1, 40, 50, "one");
		gpt_set(d, 5, 60, 70, "five");
	}
	if (choices & 8) {
		mbr_set(d, 0, 0, 0x83, 100, 10);
		mbr_set(d, 0, 1, 0x05, 120, 100);
		mbr_set(d, 120, 0, 0x83, 1, 10);
		mbr_set(d, 120, 1, 0x05, 20, 20);
		mbr_set(d, 140, 0, 0x83, 1, 10);
	}
}

static void patch(struct disk *d, const uint8_t *p)
{
	uint64_t count = disk_size(d) / disk_info(d)->block_size;
	uint32_t block = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16, length = p[6] % 9u + 1;
	uint64_t lba = p[3] & 0x80 ? count - 1 - block % count : block % count;
	uint64_t at = ((unsigned)p[4] | (unsigned)p[5] << 8) % (disk_info(d)->block_size - 9);

	bytes_put(d, lba * disk_info(d)->block_size + at, p + 7, length);
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "not true: %s\n", what);
	abort();
}

static void check(struct disk *d, const struct partition_table *t, const struct partition *p)
{
	struct disk *out;
	uint64_t disk = disk_size(d);
	json_t *told;

	must(memchr(p->name, 0, sizeof(p->name)) && memchr(p->fault, 0, sizeof(p->fault)), "texts end");
	if (partition_open(d, t, p, 0, &out, NULL)) {
		must(p->fault[0] || p->overlaps, "there is a reason");
		return;
	}
	must(!p->fault[0] && !p->overlaps, "there is no fault");
	must(p->offset < disk && disk_size(out) == p->size && p->size <= disk - p->offset, "it is inside");
	told = disk_describe(out);
	must(!p->name[0] || json_object_get(told, "name"), "the name can be told");
	json_decref(told);
	disk_close(out, NULL);
}

static void list(struct disk *d)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	CLEANUP_ERROR struct error err = {0};

	if (partitions_list(d, &t, &err)) {
		must(err.text && err.text[0], "a failure is told");
		return;
	}
	for (size_t i = 0; i < t.count; i++) {
		must(!i || t.list[i].number > t.list[i - 1].number, "they are in order");
		check(d, &t, &t.list[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned choices = size ? data[0] : 0;
	char spec[60];
	struct disk *d;

	snprintf(spec, sizeof(spec), "mem:" SIZE ";block=%u", blocks[choices & 3]);
	if (disk_open(spec, 0, &d, NULL))
		abort();
	begin(d, choices);
	for (size_t at = 1; at + PATCH <= size && at < 64 * PATCH; at += PATCH)
		patch(d, data + at);
	if (choices & 16) {
		gpt_seal(d, GPT_HEADER_LBA);
		gpt_seal(d, disk_size(d) / disk_info(d)->block_size - 1);
	}
	list(d);
	disk_close(d, NULL);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Partition tables written byte by byte, to be damaged at will. They know nothing of the code under test. */
#ifndef PLATTER_TESTS_TABLES_H
#define PLATTER_TESTS_TABLES_H

#include "core/disk.h"

/* Bytes at any place of a disk; what cannot be written is a failed check. */
void bytes_put(struct disk *d, uint64_t at, const void *bytes, size_t size);
void bytes_get(struct disk *d, uint64_t at, void *bytes, size_t size);

/* ------------------------------------------------------------------ GPT: 128 entries behind each other from block 2 on */

#define GPT_ENTRIES 128u
#define GPT_HEADER_LBA 1u
#define GPT_ENTRIES_LBA 2u

/* Where things lie in a header and in an entry. */
enum gpt_field {
	GPT_MY_LBA = 24,
	GPT_ALTERNATE_LBA = 32,
	GPT_FIRST_USABLE = 40,
	GPT_LAST_USABLE = 48,
	GPT_ARRAY_LBA = 72,
	GPT_ARRAY_COUNT = 80,
	GPT_ARRAY_SIZE = 84,
	GPT_ENTRY_FIRST = 32,
	GPT_ENTRY_LAST = 40,
	GPT_ENTRY_NAME = 56,
};

/* The whole usable range begins and ends here. */
uint64_t gpt_first_usable(const struct disk *d);
uint64_t gpt_last_usable(const struct disk *d);

/* An empty table: protective MBR, both headers, both arrays. */
void gpt_write(struct disk *d);

/* Entry `number` (from 1) of both arrays; `last` is included. The name is ASCII. */
void gpt_set(struct disk *d, unsigned number, uint64_t first, uint64_t last, const char *name);

/* Changes bytes of the header in block `lba`, or of an entry in the array that begins at block `lba`, and no checksum. */
void gpt_poke_header(struct disk *d, uint64_t lba, enum gpt_field at, const void *bytes, size_t size);
void gpt_poke_entry(struct disk *d, uint64_t lba, unsigned number, enum gpt_field at, const void *bytes, size_t size);

/* Makes the checksums of the header in block `lba` and of its entries right. Nothing for a header that makes no sense. */
void gpt_seal(struct disk *d, uint64_t lba);

/* ------------------------------------------------------------------ MBR */

/* Entry `slot` (0 to 3) of the boot record in block `lba`, and its signature. */
void mbr_set(struct disk *d, uint64_t lba, unsigned slot, unsigned type, uint32_t start, uint32_t size);

/* The number of the disk, for PARTUUIDs. */
void mbr_set_id(struct disk *d, uint32_t id);

#endif

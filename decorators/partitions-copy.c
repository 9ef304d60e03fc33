/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libblkid reads partition tables through a file descriptor, which a disk has not. So it is given a sparse file in memory, into
 * which is copied what it could want to see. Of what the tables mean as little as possible is known here: where the parts
 * of one lie.
 *
 *   GPT   block 0, block 1 and the last block, and the arrays of entries which the headers in these two name. The file has
 *         the size of the disk. An array of more than 4 MiB, or one that is not inside the disk, is left out with its
 *         header: the library takes memory for as much as a header asks for. (Linux has the same limit.)
 *
 *   MBR   block 0, and the chain of extended boot records. The library multiplies block numbers by block size in 32 bits,
 *         some versions add in 32 bits as well, and how a chain ends that leads back into itself differs, too. Therefore
 *           - the file is one of a disk with blocks of 512 bytes, so that there is nothing to multiply;
 *           - each record belongs to one chain, is copied once, and keeps at most one link, which leads to the next
 *             record of its chain, also copied. Other links are erased in the copy, and so is what does not fit in 32
 *             bits. What the library can reach is a path, then, of at most MAX_RECORDS records.
 *
 * A block that cannot be read is missing in the copy. If a table is found all the same, by a backup for instance, that was no
 * failure.
 */
#include "decorators/partitions-copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_ENTRIES_BYTES (4u << 20)
#define MAX_RECORDS 256u /* Linux knows at most as many partitions of a disk */
#define SECTOR 512u      /* an MBR or extended boot record has this size, whatever the block size */
#define PIECE 65536u     /* the largest block; what is read at once */

/* ------------------------------------------------------------------ the file */

static int make_file(struct table_copy *c, struct error *err)
{
	c->fd = memfd_create("partition-table", MFD_CLOEXEC);
	return c->fd < 0 ? error_set_errno(err, -errno, "no file in memory for the partition table") : 0;
}

int table_copy_begin(struct table_copy *c, struct disk *d, struct error *err)
{
	int status;

	*c = (struct table_copy){.disk = d, .block = disk_info(d)->block_size, .fd = -1};
	c->blocks = disk_size(d) / c->block;
	c->buffer = aligned_alloc(4096, PIECE);
	if (!c->buffer)
		return error_set(err, -ENOMEM, "no memory");
	status = make_file(c, err);
	if (status)
		table_copy_drop(c);
	return status;
}

void table_copy_drop(struct table_copy *c)
{
	free(c->buffer);
	c->buffer = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/*
 * Empties the file and gives it a size, a little more than the disk has, for a library that reads ahead. Past its limit for file
 * sizes a process is sent a signal, which ends it: hence it is looked up before.
 */
static int set_size(struct table_copy *c, uint64_t size, struct error *err)
{
	struct rlimit limit;

	c->size = size;
	size = size < DISK_MAX_END - PIECE ? (size + PIECE - 1) / PIECE * PIECE : DISK_MAX_END;
	if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < size)
		return error_set(err, -EFBIG,
				 "the partition table of a disk of %" PRIu64
				 " bytes cannot be read where files may have at most %" PRIu64 " bytes (ulimit -f)",
				 c->size, (uint64_t)limit.rlim_cur);
	if (ftruncate(c->fd, 0) || ftruncate(c->fd, (off_t)size))
		return error_set_errno(err, -errno, "a file in memory of %" PRIu64 " bytes for the partition table", size);
	return 0;
}

static int put(struct table_copy *c, const void *bytes, size_t size, uint64_t at, struct error *err)
{
	ssize_t n = pwrite(c->fd, bytes, size, (off_t)at);

	if (n == (ssize_t)size)
		return 0;
	return error_set_errno(err, n < 0 ? -errno : -ENOSPC, "a copy of the partition table in memory");
}

static __attribute__((format(printf, 2, 3))) void note(struct table_copy *c, const char *format, ...)
{
	va_list args;

	if (c->note[0])
		return;
	va_start(args, format);
	vsnprintf(c->note, sizeof(c->note), format, args);
	va_end(args);
}

/* Reads into the buffer. What cannot be read is as if it were not there. */
static bool get(struct table_copy *c, uint64_t lba, size_t size)
{
	struct failure failure = {0};
	const struct io io = {.failure = &failure};
	int status;

	if (lba >= c->blocks || (size + c->block - 1) / c->block > c->blocks - lba)
		return false;
	status = disk_read(c->disk, &VEC_FLAT(c->buffer, size), lba * c->block, &io);
	if (status && !c->status) {
		c->status = status;
		snprintf(c->trouble, sizeof(c->trouble), "block %" PRIu64 ": %s", lba,
			 failure.text[0] ? failure.text : strerror(-status));
	}
	return !status;
}

static uint32_t get_u32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get_u64(const unsigned char *p)
{
	return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

/* ------------------------------------------------------------------ GPT (UEFI 2.10, 5.3) */

static const char gpt_signature[8] = "EFI PART";

#define GPT_ENTRIES_LBA 72u
#define GPT_ENTRIES_COUNT 80u
#define GPT_ENTRY_SIZE 84u

static bool is_gpt_header(const unsigned char *p)
{
	return memcmp(p, gpt_signature, sizeof(gpt_signature)) == 0;
}

/* Copies `size` bytes from block `lba` on to their own place; whole blocks are read. */
static int copy_range(struct table_copy *c, uint64_t lba, uint64_t size, struct error *err)
{
	int status = 0;

	for (uint64_t done = 0; done < size && !status; done += PIECE) {
		uint64_t left = (size - done + c->block - 1) / c->block * c->block;
		size_t n = left < PIECE ? (size_t)left : PIECE;
		if (get(c, lba + done / c->block, n))
			status = put(c, c->buffer, n, lba * c->block + done, err);
	}
	return status;
}

/* The header at `lba` with its entries, if there is one that makes sense as far as it is understood here. */
static int copy_header(struct table_copy *c, uint64_t lba, struct error *err)
{
	uint64_t entries, bytes, blocks;
	int status;

	if (!get(c, lba, c->block) || !is_gpt_header(c->buffer))
		return 0;
	entries = get_u64(c->buffer + GPT_ENTRIES_LBA);
	bytes = (uint64_t)get_u32(c->buffer + GPT_ENTRIES_COUNT) * get_u32(c->buffer + GPT_ENTRY_SIZE);
	blocks = bytes / c->block + (bytes % c->block != 0);
	if (bytes > MAX_ENTRIES_BYTES) {
		note(c, "the GPT header in block %" PRIu64 " tells of %" PRIu64 " bytes of entries; at most %u are read", lba,
		     bytes, MAX_ENTRIES_BYTES);
		return 0;
	}
	if (entries >= c->blocks || blocks > c->blocks - entries)
		return 0;
	status = put(c, c->buffer, c->block, lba * c->block, err);
	return status ? status : copy_range(c, entries, bytes, err);
}

int table_copy_gpt(struct table_copy *c, struct error *err)
{
	int status = set_size(c, c->blocks * c->block, err);

	if (!status)
		status = copy_range(c, 0, c->block, err);
	if (!status && c->blocks > 1)
		status = copy_header(c, 1, err);
	if (!status && c->blocks > 2)
		status = copy_header(c, c->blocks - 1, err);
	return status;
}

bool table_copy_other_block(struct table_copy *c, uint32_t *block)
{
	static const uint32_t usual[] = {512, 4096};

	for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		uint32_t in_block = usual[i] % c->block;
		if (usual[i] == c->block || !get(c, usual[i] / c->block, c->block) || !is_gpt_header(c->buffer + in_block))
			continue;
		*block = usual[i];
		return true;
	}
	return false;
}

/* ------------------------------------------------------------------ MBR (UEFI 2.10, 5.2.1) and its chain */

#define MBR_ENTRIES 446u
#define MBR_ENTRY 16u
#define NR_ENTRIES 4u

/* The chains of all extended partitions, as far as they were copied. */
struct chains {
	struct table_copy *copy;
	uint64_t seen[MAX_RECORDS + 1]; /* block 0 is the first */
	unsigned count;
};

static unsigned char *entry(unsigned char *sector, unsigned index)
{
	return sector + MBR_ENTRIES + index * MBR_ENTRY;
}

static uint32_t entry_start(const unsigned char *e)
{
	return get_u32(e + 8);
}

static uint32_t entry_size(const unsigned char *e)
{
	return get_u32(e + 12);
}

static bool is_link(const unsigned char *e)
{
	return entry_size(e) && (e[4] == 0x05 || e[4] == 0x0f || e[4] == 0x85);
}

static void erase(unsigned char *e)
{
	memset(e, 0, MBR_ENTRY);
}

static bool has_signature(const unsigned char *sector)
{
	return sector[510] == 0x55 && sector[511] == 0xaa;
}

static bool was_seen(const struct chains *s, uint64_t lba)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->seen[i] == lba)
			return true;
	return false;
}

/* True when a chain may go on to the record in block `lba`; says why not. */
static bool may_follow(struct chains *s, uint64_t lba)
{
	if (was_seen(s, lba))
		note(s->copy, "the extended boot records lead back to block %" PRIu64, lba);
	else if (lba >= s->copy->blocks || lba > UINT32_MAX)
		note(s->copy, "an extended boot record is to be in block %" PRIu64 ", past the end of the disk", lba);
	else if (s->count > MAX_RECORDS)
		note(s->copy, "there are more than %u extended boot records", MAX_RECORDS);
	else
		return true;
	return false;
}

/* What is added up in 32 bits must fit into them. */
static void erase_overflow(struct table_copy *c, unsigned char *e, uint64_t lba)
{
	if (!entry_size(e) || lba + entry_start(e) + entry_size(e) - 1 <= UINT32_MAX)
		return;
	note(c, "the extended boot record in block %" PRIu64 " tells of a partition past block 2^32", lba);
	erase(e);
}

/*
 * Erases in the record in block `lba`, which is in the buffer, what would lead the library astray. Returns where it goes on, or
 * 0; links count from `first`.
 */
static uint64_t clean_record(struct chains *s, uint64_t first, uint64_t lba)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < NR_ENTRIES; i++) {
		unsigned char *e = entry(s->copy->buffer, i);
		if (!is_link(e)) {
			erase_overflow(s->copy, e, lba);
		} else if (!next && may_follow(s, first + entry_start(e))) {
			next = first + entry_start(e);
		} else {
			erase(e);
			next = next ? next : UINT64_MAX; /* the first one counts, also when it is bad */
		}
	}
	return next == UINT64_MAX ? 0 : next;
}

static int copy_chain(struct chains *s, uint64_t first, struct error *err)
{
	struct table_copy *c = s->copy;
	uint64_t lba = first, next;
	int status = 0;

	for (; lba && !status; lba = next) {
		s->seen[s->count++] = lba;
		if (!get(c, lba, c->block) || !has_signature(c->buffer)) {
			if (lba != first || c->status)
				note(c, "there is no extended boot record in block %" PRIu64, lba);
			break;
		}
		next = clean_record(s, first, lba);
		status = put(c, c->buffer, SECTOR, lba * SECTOR, err);
	}
	return status;
}

int table_copy_mbr(struct table_copy *c, struct error *err)
{
	struct chains s = {.copy = c, .count = 1};
	uint64_t most = UINT64_C(1) << 32;
	unsigned char mbr[SECTOR];
	int status = set_size(c, (c->blocks < most ? c->blocks : most) * SECTOR, err);

	if (status || !get(c, 0, c->block))
		return status;
	memcpy(mbr, c->buffer, sizeof(mbr));
	for (unsigned i = 0; i < NR_ENTRIES && !status && has_signature(mbr); i++) {
		unsigned char *e = entry(mbr, i);
		if (!is_link(e))
			continue;
		if (may_follow(&s, entry_start(e)))
			status = copy_chain(&s, entry_start(e), err);
		else
			erase(e);
	}
	return status ? status : put(c, mbr, sizeof(mbr), 0, err);
}

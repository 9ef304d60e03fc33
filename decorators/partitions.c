/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which partitions a disk has is asked of libblkid, which also the tools of util-linux and udev ask: so numbers, rules and
 * oddities are those that users of Linux know.
 *
 *   - A GPT counts if block 0 has an entry of the type 0xEE, alone or, in a hybrid MBR, beside others; then the MBR does not.
 *     The header at the end of the disk is used where the first one or its entries are damaged, and the table has a note.
 *   - Else the MBR counts, unless block 0 is the boot sector of a FAT file system or has no boot flags where an MBR has them.
 *   - Tables inside of partitions (BSD, Solaris, Minix) are not looked for.
 *   - Entries of a GPT outside of its usable range are left out by the library.
 *
 * What it finds is checked here once more, since a window outside the disk must not come of it, and neither must two writers of
 * one block. A partition that ends past the end of the disk, which Linux would shorten, has a fault: it is more often a disk
 * that was cut off, or the wrong size of blocks.
 *
 * Why not libfdisk: it is made for changing tables, knows at most 60 partitions of an MBR, and asks questions.
 * How the library gets to see the disk is told in partitions-copy.c.
 */
#include "decorators/partitions.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decorators/partitions-copy.h"

#define UNIT 512u /* in which the library counts */

/* A table being read. */
struct reading {
	struct table_copy copy;
	blkid_probe probe;
	blkid_parttable table;
	uint64_t unit; /* bytes of the disk for each unit of the library */
	struct partition_table *out;
};

/* ------------------------------------------------------------------ texts of strangers */

/* The bytes of the UTF-8 character at `s` that may be shown, else 0. */
static size_t good_character(const unsigned char *s)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	if (n == 1)
		return s[0] >= 0x20 && s[0] != 0x7f;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xc2 && s[1] < 0xa0) ||                                 /* control characters */
	    (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) || /* longer than needed */
	    (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90))  /* surrogates, past the end */
		return 0;
	return n;
}

/* Copies what fits; a byte that is part of no character to be shown becomes '?'. Accepts NULL. */
static void copy_text(char *out, size_t room, const char *text)
{
	const unsigned char *s = (const unsigned char *)(text ? text : "");
	size_t used = 0;

	while (*s) {
		size_t n = good_character(s);
		if (used + (n ? n : 1) >= room)
			break;
		memcpy(out + used, n ? (const char *)s : "?", n ? n : 1);
		used += n ? n : 1;
		s += n ? n : 1;
	}
	out[used] = 0;
}

/* ------------------------------------------------------------------ one partition */

static __attribute__((format(printf, 2, 3))) void set_fault(struct partition *p, const char *format, ...)
{
	va_list args;

	if (p->fault[0])
		return;
	va_start(args, format);
	vsnprintf(p->fault, sizeof(p->fault), format, args);
	va_end(args);
}

/* Places are in units, and any number. */
static void set_place(struct reading *r, struct partition *p, uint64_t start, uint64_t length)
{
	uint64_t disk = r->copy.blocks * r->copy.block, units = disk / r->unit;

	if (start < units && length && length <= units - start) {
		p->offset = start * r->unit;
		p->size = length * r->unit;
		if ((p->offset | p->size) % r->copy.block)
			set_fault(p, "is not whole blocks of %" PRIu32 " bytes", r->copy.block);
		return;
	}
	set_fault(p, "goes past the end of the disk: %" PRIu64 " blocks at block %" PRIu64 ", where the disk has %" PRIu64,
		  length * r->unit / r->copy.block, start * r->unit / r->copy.block, r->copy.blocks);
}

static void set_type(struct reading *r, struct partition *p, blkid_partition b)
{
	if (strcmp(r->out->scheme, "gpt") == 0)
		copy_text(p->type, sizeof(p->type), blkid_partition_get_type_string(b));
	else
		snprintf(p->type, sizeof(p->type), "0x%02x", (unsigned)blkid_partition_get_type(b) & 0xff);
}

static void fill_partition(struct reading *r, struct partition *p, blkid_partition b)
{
	p->number = (unsigned)blkid_partition_get_partno(b);
	set_type(r, p, b);
	copy_text(p->uuid, sizeof(p->uuid), blkid_partition_get_uuid(b));
	copy_text(p->name, sizeof(p->name), blkid_partition_get_name(b));
	p->extended = blkid_partition_is_extended(b);
	if (p->extended)
		set_fault(p, "is an extended partition, which only holds others");
	set_place(r, p, (uint64_t)blkid_partition_get_start(b), (uint64_t)blkid_partition_get_size(b));
}

/* ------------------------------------------------------------------ partitions that have blocks in common */

static int by_offset(const void *a, const void *b)
{
	const struct partition *const *x = a, *const *y = b;

	return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/*
 * Goes through them by offset. Whatever overlaps one of those before it overlaps the one of them that ends last; and one
 * that reaches as far as the next was marked when that one took its place, or took its own place from it.
 */
static void mark_overlaps(struct partition **sorted, size_t count)
{
	struct partition *last = NULL;

	qsort(sorted, count, sizeof(*sorted), by_offset);
	for (size_t i = 0; i < count; i++) {
		struct partition *p = sorted[i];
		if (last && p->offset < last->offset + last->size) {
			p->overlaps = last->number;
			if (!last->overlaps)
				last->overlaps = p->number;
		}
		if (!last || p->offset + p->size > last->offset + last->size)
			last = p;
	}
}

static int find_overlaps(struct partition_table *t, struct error *err)
{
	struct partition **sorted = calloc(t->count ? t->count : 1, sizeof(*sorted));
	size_t count = 0;

	if (!sorted)
		return error_set(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < t->count; i++)
		if (!t->list[i].fault[0])
			sorted[count++] = &t->list[i];
	mark_overlaps(sorted, count);
	free(sorted);
	return 0;
}

/* ------------------------------------------------------------------ a whole table */

static int by_number(const void *a, const void *b)
{
	const struct partition *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

/* Of tables inside of partitions nothing is taken. */
static int fill_table(struct reading *r, blkid_partlist list, struct error *err)
{
	struct partition_table *t = r->out;
	int count = blkid_partlist_numof_partitions(list);
	const char *id;

	t->list = calloc(count > 0 ? (size_t)count : 1, sizeof(*t->list));
	if (!t->list)
		return error_set(err, -ENOMEM, "no memory");
	for (int i = 0; i < count; i++) {
		blkid_partition b = blkid_partlist_get_partition(list, i);
		if (b && blkid_partition_get_table(b) == r->table)
			fill_partition(r, &t->list[t->count++], b);
	}
	qsort(t->list, t->count, sizeof(*t->list), by_number);
	id = blkid_parttable_get_id(r->table);
	copy_text(t->id, sizeof(t->id), id && strncmp(id, "0x", 2) == 0 ? id + 2 : id);
	return find_overlaps(t, err);
}

static int begin_probe(struct reading *r, uint32_t sector, const char *const *names, struct error *err)
{
	blkid_free_probe(r->probe);
	r->probe = blkid_new_probe();
	if (!r->probe)
		return error_set(err, -ENOMEM, "no memory");
	if (blkid_probe_set_device(r->probe, r->copy.fd, 0, (blkid_loff_t)r->copy.size) ||
	    blkid_probe_set_sectorsize(r->probe, sector) || blkid_probe_enable_partitions(r->probe, 1) ||
	    blkid_probe_filter_partitions_type(r->probe, BLKID_FLTR_ONLYIN, (char **)names))
		return error_set(err, -EINVAL, "libblkid cannot be made to look at the disk");
	return 0;
}

/* Asks for a table of one of the kinds `names`; *list is NULL where there is none. */
static int probe(struct reading *r, uint32_t sector, const char *const *names, blkid_partlist *list, struct error *err)
{
	int status = begin_probe(r, sector, names, err);

	if (status)
		return status;
	errno = 0;
	*list = blkid_probe_get_partitions(r->probe);
	if (!*list && errno == ENOMEM)
		return error_set(err, -ENOMEM, "no memory");
	r->table = *list ? blkid_partlist_get_table(*list) : NULL;
	return 0;
}

/* ------------------------------------------------------------------ GPT */

/* The table is that of the header at the end. */
static bool is_backup(const struct reading *r)
{
	return (uint64_t)blkid_parttable_get_offset(r->table) > r->copy.block;
}

static int damaged_gpt(struct reading *r, struct error *err)
{
	uint32_t block;

	if (table_copy_other_block(&r->copy, &block))
		return error_set(err, -ENODATA,
				 "the partition table (GPT) is one for blocks of %" PRIu32
				 " bytes; the disk has blocks of %" PRIu32,
				 block, r->copy.block);
	return error_set(err, -ENODATA,
			 "the partition table (GPT) is damaged: there is a protective MBR, but neither block 1 nor the "
			 "last one, %" PRIu64 ", has a good header with good entries%s%s",
			 r->copy.blocks - 1, r->copy.note[0] ? "; " : "", r->copy.note);
}

/* *found is false where no GPT is meant to be. */
static int read_gpt(struct reading *r, bool *found, struct error *err)
{
	static const char *const names[] = {"gpt", "PMBR", NULL};
	blkid_partlist list = NULL;
	int status = table_copy_gpt(&r->copy, err);

	if (!status)
		status = probe(r, r->copy.block, names, &list, err);
	*found = list != NULL;
	if (status || !list)
		return status;
	if (!r->table)
		return damaged_gpt(r, err);
	r->out->scheme = "gpt";
	r->unit = UNIT;
	if (is_backup(r))
		snprintf(r->out->note, sizeof(r->out->note),
			 "the first GPT header or its entries are damaged; the backup at the end of the disk is used");
	return fill_table(r, list, err);
}

/* ------------------------------------------------------------------ MBR */

static int read_mbr(struct reading *r, bool *found, struct error *err)
{
	static const char *const names[] = {"dos", NULL};
	blkid_partlist list = NULL;
	int status;

	r->copy.note[0] = 0; /* what was said of a GPT */
	status = table_copy_mbr(&r->copy, err);
	if (!status)
		status = probe(r, UNIT, names, &list, err);
	*found = list && r->table;
	if (status || !*found)
		return status;
	r->out->scheme = "mbr";
	r->unit = r->copy.block;
	memcpy(r->out->note, r->copy.note, sizeof(r->out->note));
	return fill_table(r, list, err);
}

/* ------------------------------------------------------------------ from outside */

_Static_assert(PARTITION_TEXT_MAX == TABLE_TEXT_MAX, "a note is copied");

static int read_table(struct reading *r, struct error *err)
{
	bool found = false;
	int status = read_gpt(r, &found, err);

	if (!status && !found)
		status = read_mbr(r, &found, err);
	if (status == -ENODATA || (!status && !found)) {
		if (r->copy.status)
			return error_set(err, r->copy.status, "the partition table cannot be read: %s", r->copy.trouble);
		if (!status)
			return error_set(err, -ENOENT, "there is no partition table (neither GPT nor MBR) on the disk");
	}
	return status;
}

int partitions_list(struct disk *d, struct partition_table *out, struct error *err)
{
	struct reading r = {.out = out};
	int status = table_copy_begin(&r.copy, d, err);

	*out = (struct partition_table){0};
	if (status)
		return status;
	status = read_table(&r, err);
	blkid_free_probe(r.probe);
	table_copy_drop(&r.copy);
	if (status)
		partitions_clear(out);
	return status;
}

void partitions_clear(struct partition_table *t)
{
	free(t->list);
	*t = (struct partition_table){0};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* part: a partition as a disk, a window that says what it is a window on. */
#include "kinds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "decorators/partitions.h"
#include "decorators/window.h"

#define NAMED_IN_MESSAGE 24u

struct part {
	struct window window;
	const char *scheme;
	char note[PARTITION_TEXT_MAX];
	struct partition partition;
};

/* ------------------------------------------------------------------ finding one */

/* "1, 2, 5", as many as fit. */
static void print_numbers(const struct partition_table *t, char *out, size_t room)
{
	size_t used = 0;

	out[0] = 0;
	for (size_t i = 0; i < t->count && i < NAMED_IN_MESSAGE && used < room; i++)
		used += (size_t)snprintf(out + used, room - used, "%s%u", i ? ", " : "", t->list[i].number);
	if (t->count > NAMED_IN_MESSAGE && used < room)
		snprintf(out + used, room - used, " and %zu more", t->count - NAMED_IN_MESSAGE);
}

const struct partition *partitions_find(const struct partition_table *t, unsigned number, struct error *err)
{
	char numbers[256];

	for (size_t i = 0; i < t->count; i++)
		if (t->list[i].number == number)
			return &t->list[i];
	print_numbers(t, numbers, sizeof(numbers));
	if (t->count)
		error_set(err, -ENOENT, "there is no partition %u in the %s (there is: %s)", number,
			  strcmp(t->scheme, "gpt") ? "MBR" : "GPT", numbers);
	else
		error_set(err, -ENOENT, "there is no partition %u: the %s has none", number,
			  strcmp(t->scheme, "gpt") ? "MBR" : "GPT");
	if (t->note[0])
		error_hint(err, "%s", t->note);
	return NULL;
}

/* ------------------------------------------------------------------ opening one */

static void set_text(json_t *object, const char *key, const char *text)
{
	if (text[0])
		json_object_set_new(object, key, json_string(text));
}

static void part_describe(struct disk *d, json_t *object)
{
	const struct part *p = (const struct part *)d;

	window_describe(d, object);
	json_object_set_new(object, "number", json_integer(p->partition.number));
	set_text(object, "table", p->scheme);
	set_text(object, "type", p->partition.type);
	set_text(object, "uuid", p->partition.uuid);
	set_text(object, "name", p->partition.name);
	set_text(object, "note", p->note);
}

/* Two disks that write to the same blocks do not know of each other. */
static int check_partition(const struct partition *p, bool read_only, struct error *err)
{
	if (p->fault[0])
		return error_set(err, -EINVAL, "partition %u %s", p->number, p->fault);
	if (p->overlaps && !read_only)
		return error_set(err, -EROFS,
				 "partition %u has blocks in common with partition %u, and can only be opened read-only",
				 p->number, p->overlaps);
	return 0;
}

static int open_over(struct disk *below, bool shared, const struct partition_table *t, const struct partition *partition,
		     bool read_only, struct disk **out, struct error *err)
{
	struct part *p;
	int status = check_partition(partition, read_only || disk_info(below)->flags & DISK_READ_ONLY, err);

	if (status)
		return status;
	p = window_new(sizeof(*p), "part", below, shared, part_describe);
	if (!p)
		return error_set(err, -ENOMEM, "no memory");
	p->scheme = t->scheme;
	p->partition = *partition;
	memcpy(p->note, t->note, sizeof(p->note));
	if (read_only)
		p->window.disk.info.flags |= DISK_READ_ONLY;
	return window_publish(&p->window, partition->offset, partition->size, out, err);
}

int partition_open(struct disk *disk, const struct partition_table *table, const struct partition *p, unsigned flags,
		   struct disk **out, struct error *err)
{
	return open_over(disk, true, table, p, flags & OPEN_READ_ONLY, out, err);
}

/* ------------------------------------------------------------------ the kind */

static int part_open(const struct open_request *request, struct disk **out, struct error *err)
{
	CLEANUP_PARTITIONS struct partition_table t = {0};
	const struct partition *p;
	int status = partitions_list(request->children[0], &t, err);

	if (status)
		return status;
	p = partitions_find(&t, (unsigned)spec_number(request->spec, "number"), err);
	if (!p)
		return -ENOENT;
	status = open_over(request->children[0], false, &t, p, request->flags & OPEN_READ_ONLY, out, err);
	if (status == -EROFS)
		error_hint(err, "ro:part:%u:...", p->number);
	return status;
}

static const struct spec_field part_fields[] = {
	{.name = "number",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_NUMBER,
	 .required = true,
	 .min = 1,
	 .max = 32768, /* entries in a GPT of 4 MiB */
	 .help = "which partition, as Linux counts them: logical ones of an MBR from 5"},
	{0},
};

const struct disk_kind part_kind = {
	.name = "part",
	.summary = "a partition of a disk, by its number in the GPT or MBR",
	.children = KIND_WRAPS,
	.fields = part_fields,
	.open = part_open,
};

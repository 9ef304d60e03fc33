/* SPDX-License-Identifier: BSD-3-Clause */
/* platter info SPEC */
#include "cli/verb.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "core/open.h"
#include "core/tree-text.h"

/* ------------------------------------------------------------------ the disk as its user sees it */

static void print_id(const struct disk_info *info)
{
	printf("id         ");
	for (size_t i = 0; i < sizeof(info->id); i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", info->id[i]);
	printf("\n");
}

static void print_discard(const struct disk_info *info)
{
	static const char *const meaning[] = {
		[DISK_DISCARD_IGNORED] = "ignored: nothing is freed",
		[DISK_DISCARD_UNSPECIFIED] = "frees space; discarded content is unspecified",
		[DISK_DISCARD_ZEROES] = "frees space; discarded content reads as zeroes",
	};
	char text[BYTES_TEXT_MAX];

	printf("discard    %s", meaning[info->discard]);
	if (info->discard != DISK_DISCARD_IGNORED)
		printf(", in granules of %s", print_bytes(info->discard_granularity, text));
	if (info->discard != DISK_DISCARD_IGNORED && info->discard_alignment != 0)
		printf(", the first at %s", print_bytes(info->discard_alignment, text));
	printf("\n");
}

static void print_abilities(const struct disk_info *info)
{
	static const struct {
		unsigned flag;
		const char *set, *clear;
	} words[] = {
		{DISK_READ_ONLY, "opened read-only", "writable"},
		{DISK_VOLATILE, "volatile", NULL},
		{DISK_FUA, "FUA", NULL},
		{DISK_FAST_ZERO, "fast zeroing", NULL},
		{DISK_RESIZABLE, "resizable", NULL},
		{DISK_ROTATIONAL, "rotational", NULL},
		{DISK_REMOVABLE, "removable", NULL},
	};
	bool first = true;

	printf("is         ");
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		const char *word = info->flags & words[i].flag ? words[i].set : words[i].clear;
		if (!word)
			continue;
		printf("%s%s", first ? "" : ", ", word);
		first = false;
	}
	printf("\n");
}

static void print_summary(const struct disk *disk, const char *spec)
{
	const struct disk_info *info = disk_info(disk);
	char logical[BYTES_TEXT_MAX], physical[BYTES_TEXT_MAX];

	printf("spec       %s\n", spec);
	printf("size       %s\n", print_bytes(disk_size(disk), logical));
	printf("block      %s logical, %s physical\n", print_bytes(info->block_size, logical),
	       print_bytes(info->physical_block_size, physical));
	print_discard(info);
	print_abilities(info);
	if (info->flags & DISK_HAS_ID)
		print_id(info);
}

/* ------------------------------------------------------------------ */

enum { OPTION_JSON };

static int print_disk(struct disk *disk, const char *spec, bool as_json)
{
	json_t *tree = disk_describe(disk);
	if (!tree)
		return no_memory();
	if (as_json)
		return print_json(json_pack("{s:s, s:o}", "spec", spec, "disk", tree));

	print_summary(disk, spec);
	printf("\n");
	tree_print(stdout, tree, "");
	json_decref(tree);
	return STATUS_OK;
}

static int failed(struct error *err)
{
	fprintf(stderr, "platter info: %s\n", error_text(err));
	return STATUS_FAILURE;
}

static int info(const struct verb_arguments *arguments)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *spec = NULL;
	struct disk *disk;

	if (spec_parse(arguments->operands[0], &spec, &err) < 0)
		return failed(&err);
	if (disk_open_spec(spec, OPEN_READ_ONLY, &disk, &err) < 0)
		return failed(&err);

	char *canonical = spec_print(spec);
	int status = canonical ? print_disk(disk, canonical, arguments->options[OPTION_JSON] != NULL)
			       : no_memory();
	free(canonical);
	if (disk_close(disk, &err) < 0)
		return failed(&err);
	return status;
}

const struct verb verb_info = {
	.name = "info",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Open a disk read-only and say what it is",
	.details = "The disk is opened as it would be to serve it, but nothing is written and nothing is "
		   "created: a SPEC\n"
		   "with create= is refused.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			{0},
		},
	.run = info,
};

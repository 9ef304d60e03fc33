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

/* ------------------------------------------------------------------ the tree */

/* What disk_describe() says of every kind; the rest is the kind's own. */
static bool is_common(const char *key)
{
	static const char *const common[] = {
		"kind",
		"size",
		"block_size",
		"physical_block_size",
		"discard_alignment",
		"read_only",
		"fua",
		"rotational",
		"removable",
		"discard_granularity",
		"fast_zero",
		"volatile",
		"resizable",
		"id",
		"discard",
		"stats",
		"children",
	};

	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
		if (strcmp(key, common[i]) == 0)
			return true;
	return false;
}

static bool ends_with(const char *word, const char *ending)
{
	size_t length = strlen(word), end = strlen(ending);

	return length >= end && strcmp(word + length - end, ending) == 0;
}

/* "stored_bytes" is "stored", since the unit stands behind the value. */
static void print_key(const char *key)
{
	size_t length = strlen(key);

	if (ends_with(key, "_bytes"))
		length -= strlen("_bytes");
	else if (ends_with(key, "_ns") || ends_with(key, "_ms"))
		length -= strlen("_ns");
	for (size_t i = 0; i < length; i++)
		putchar(key[i] == '_' ? ' ' : key[i]);
}

static void print_integer(const char *key, json_int_t value)
{
	static const char *const bytes[] = {"bytes", "size", "offset", "length"};
	char text[BYTES_TEXT_MAX];

	for (size_t i = 0; value >= 0 && i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		if (ends_with(key, bytes[i])) {
			printf("%s", print_bytes((uint64_t)value, text));
			return;
		}
	}
	printf("%" JSON_INTEGER_FORMAT "%s", value,
	       ends_with(key, "_ns")   ? " ns"
	       : ends_with(key, "_ms") ? " ms"
				       : "");
}

static void print_value(const char *key, json_t *value);

/* One line for an object inside of a node: "layer ram, size 1 GiB, ..."; what is false is left out. */
static void print_object(json_t *object)
{
	const char *key, *comma = "";
	json_t *value;

	json_object_foreach(object, key, value)
	{
		if (json_is_false(value))
			continue;
		printf("%s", comma);
		print_key(key);
		if (!json_is_true(value)) {
			putchar(' ');
			print_value(key, value);
		}
		comma = ", ";
	}
}

static void print_value(const char *key, json_t *value)
{
	if (json_is_string(value))
		printf("%s", json_string_value(value));
	else if (json_is_integer(value))
		print_integer(key, json_integer_value(value));
	else if (json_is_boolean(value))
		printf("%s", json_is_true(value) ? "yes" : "no");
	else if (json_is_object(value))
		print_object(value);
	else
		json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* A fact of the node; a list takes a line for each entry. */
static void print_fact(const char *lead, const char *key, json_t *value)
{
	json_t *entry;
	size_t i;

	printf("%s  ", lead);
	print_key(key);
	if (!json_is_array(value)) {
		printf(": ");
		print_value(key, value);
	} else {
		printf(":");
		json_array_foreach(value, i, entry)
		{
			printf("\n%s    ", lead);
			print_value(key, entry);
		}
	}
	printf("\n");
}

/* `file  1 GiB, block 512 bytes, read-only` */
static void print_node_line(json_t *node)
{
	char text[SIZE_TEXT_MAX];
	const json_t *size = json_object_get(node, "size"), *block = json_object_get(node, "block_size");

	printf("%s  %s", json_string_value(json_object_get(node, "kind")),
	       size_print_human((uint64_t)json_integer_value(size), text));
	printf(", block %s", size_print_human((uint64_t)json_integer_value(block), text));
	if (json_is_true(json_object_get(node, "read_only")))
		printf(", read-only");
	if (json_is_true(json_object_get(node, "volatile")))
		printf(", volatile");
	printf("\n");
}

/* Prints the node and what is below it; `lead` stands in front of every line but the first. */
static void print_tree(json_t *node, const char *lead)
{
	json_t *children = json_object_get(node, "children"), *child, *value;
	const size_t nr_children = json_array_size(children);
	const char *key;
	size_t i;

	char *side;

	print_node_line(node);
	if (asprintf(&side, "%s%s", lead, nr_children > 0 ? "│" : " ") < 0)
		return;
	json_object_foreach(node, key, value)
	{
		if (!is_common(key))
			print_fact(side, key, value);
	}
	free(side);
	json_array_foreach(children, i, child)
	{
		bool last = i + 1 == nr_children;
		char *deeper;
		if (asprintf(&deeper, "%s%s", lead, last ? "   " : "│  ") < 0)
			return;
		printf("%s%s ", lead, last ? "└─" : "├─");
		print_tree(child, deeper);
		free(deeper);
	}
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
	print_tree(tree, "");
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

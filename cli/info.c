/* SPDX-License-Identifier: BSD-3-Clause */
/* platter info SPEC */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/disks.h"
#include "cli/image.h"
#include "cli/lint-azure.h"
#include "cli/output.h"
#include "cli/probe.h"
#include "cli/tree-picture.h"
#include "core/spec.h"
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

/* ------------------------------------------------------------------ what its bytes look like */

/* What is known of a disk that cannot be read is told all the same. */
struct content {
	struct probe_finding found[PROBE_MAX];
	int count; /* negative: `err` says why not */
	struct error err;
};

static void print_content(const struct content *c)
{
	if (c->count < 0)
		printf("content    cannot be read: %s\n", error_text(&c->err));
	if (c->count == 0)
		printf("content    nothing that is known\n");
	for (int i = 0; i < c->count; i++)
		printf("%-10s %s %s (%s)\n", i == 0 ? "content" : "", probe_sureness_words[c->found[i].sureness],
		       c->found[i].what, c->found[i].why);
}

/* Null when it cannot be read. */
static json_t *content_to_json(const struct content *c)
{
	json_t *list = c->count < 0 ? json_null() : json_array();

	for (int i = 0; i < c->count; i++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "what", c->found[i].what, "sureness",
						      probe_sureness_words[c->found[i].sureness], "why", c->found[i].why));
	return list;
}

/* ------------------------------------------------------------------ what image files say of themselves */

static void print_words(const char *key, const json_t *value);

static void print_fields(const json_t *object)
{
	const char *key, *comma = "";
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		printf("%s%s ", comma, key);
		print_words(key, value);
		comma = ", ";
	}
}

static bool is_in_bytes(const char *key)
{
	static const char *const endings[] = {"bytes", "size", "offset", "length", "sector"};
	size_t length = strlen(key);

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
		if (length >= strlen(endings[i]) && !strcmp(key + length - strlen(endings[i]), endings[i]))
			return true;
	return false;
}

static void print_words(const char *key, const json_t *value)
{
	char text[BYTES_TEXT_MAX];
	json_t *member;
	size_t i;

	if (json_is_string(value))
		printf("%s", json_string_value(value));
	else if (json_is_integer(value) && is_in_bytes(key))
		printf("%s", print_bytes((uint64_t)json_integer_value(value), text));
	else if (json_is_integer(value))
		printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_boolean(value))
		printf("%s", json_is_true(value) ? "yes" : "no");
	else if (json_is_object(value))
		print_fields(value);
	json_array_foreach(value, i, member)
	{
		printf("%s", i > 0 ? "; " : "");
		print_words(key, member);
	}
}

static void print_image(const json_t *image)
{
	const char *key;
	json_t *value;

	printf("\nimage %s\n", json_string_value(json_object_get(image, "file")));
	json_object_foreach((json_t *)(uintptr_t)image, key, value)
	{
		if (!strcmp(key, "file"))
			continue;
		printf("   %-16s ", key);
		print_words(key, value);
		printf("\n");
	}
}

static void print_images(const json_t *images)
{
	json_t *image;
	size_t i;

	json_array_foreach(images, i, image)
		print_image(image);
}

/* ------------------------------------------------------------------ */

enum { OPTION_JSON, OPTION_DOT, OPTION_SVG, OPTION_LINT };

static const char *const lint_words[] = {"azure", NULL};

struct job {
	const struct verb_arguments *arguments;
	const char *spec; /* canonical */
	json_t *images;   /* image_list_info() */
};

static void print_probed(struct disk *disk, json_t *tree, const struct job *job)
{
	struct content content = {0};

	content.count = probe_disk(disk, content.found, &content.err);
	if (job->arguments->options[OPTION_JSON]) {
		print_json(json_pack("{s:s, s:O, s:o, s:O}", "spec", job->spec, "disk", tree, "content",
				     content_to_json(&content), "images", job->images));
	} else {
		print_summary(disk, job->spec);
		print_content(&content);
		printf("\n");
		tree_print(stdout, tree, "");
		print_images(job->images);
	}
	error_clear(&content.err);
}

/* The tree is described before anything is read, so that statistics are of nothing but opening. */
static int print_disk(struct disk *disk, void *argument, struct error *err)
{
	const struct job *job = argument;
	json_t *tree = disk_describe(disk);

	if (!tree)
		return error_set(err, -ENOMEM, "no memory");
	if (job->arguments->options[OPTION_DOT])
		print_tree_dot(tree);
	else if (job->arguments->options[OPTION_SVG])
		print_tree_svg(tree);
	else
		print_probed(disk, tree, job);
	json_decref(tree);
	return 0;
}

static int open_and_print(const struct verb_arguments *a, struct error *err)
{
	CLEANUP_SPEC struct spec *spec = NULL;
	struct job job = {.arguments = a};
	int status = spec_parse(a->operands[0], &spec, err);
	char *canonical;

	if (status)
		return status;
	canonical = spec_print(spec);
	if (!canonical)
		return error_set(err, -ENOMEM, "no memory");
	job.spec = canonical;
	job.images = a->options[OPTION_DOT] || a->options[OPTION_SVG] ? json_array() : image_list_info(spec);
	if (!job.images)
		status = error_set(err, -ENOMEM, "no memory");
	else
		status = with_disk(a->operands[0], NULL, OPEN_READ_ONLY, print_disk, &job, err);
	json_decref(job.images);
	free(canonical);
	return status;
}

static int info(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	int forms = (a->options[OPTION_JSON] != NULL) + (a->options[OPTION_DOT] != NULL) + (a->options[OPTION_SVG] != NULL);
	int status;

	if (forms > 1)
		return verb_usage_error(&verb_info, "--json, --dot and --svg exclude each other");
	if (a->options[OPTION_LINT] && (a->options[OPTION_DOT] || a->options[OPTION_SVG]))
		return verb_usage_error(&verb_info, "--lint goes with --json only");
	if (a->options[OPTION_LINT])
		status = lint_azure(a->operands[0], a->options[OPTION_JSON] != NULL, &err);
	else
		status = open_and_print(a, &err);
	if (status < 0)
		return verb_failed("info", &err);
	return status > 0 ? STATUS_FAILURE : STATUS_OK;
}

const struct verb verb_info = {
	.name = "info",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Open a disk read-only and say what it is",
	.details = "The disk is opened as it would be to serve it, but nothing is written and nothing is "
		   "created: a SPEC\n"
		   "with create= is refused. What its bytes look like is a guess, with how sure it is.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_DOT] = {.name = "dot", .help = "print the tree for Graphviz"},
			[OPTION_SVG] = {.name = "svg", .help = "draw the tree"},
			[OPTION_LINT] = {.name = "lint",
					 .argument = "WHERE",
					 .type = OPTION_WORD,
					 .words = lint_words,
					 .help = "say whether the image file, in place of SPEC, is accepted there"},
			{0},
		},
	.run = info,
};

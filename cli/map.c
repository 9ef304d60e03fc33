/* SPDX-License-Identifier: BSD-3-Clause */
/* platter map SPEC */
#include "cli/verb.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/disks.h"
#include "cli/map-svg.h"
#include "cli/output.h"
#include "cli/where.h"

enum { OPTION_JSON, OPTION_SVG };

struct job {
	const struct verb_arguments *arguments;
};

static const char *type_of(const struct extent *e)
{
	if (!(e->flags & EXTENT_ZERO))
		return "data";
	return e->flags & EXTENT_HOLE ? "hole" : "zero";
}

/* What takes no space lies nowhere. */
static bool lies_somewhere(const struct extent *e, const struct where *w)
{
	return w->path && !(e->flags & EXTENT_HOLE);
}

static void print_text(const struct extents *all, const struct where *w)
{
	printf("%16s  %16s  %-4s  %16s\n", "offset", "length", "is", "file offset");
	for (size_t i = 0; i < all->count; i++) {
		const struct extent *e = &all->list[i];
		printf("%16" PRIu64 "  %16" PRIu64 "  %-4s  ", e->offset, e->length, type_of(e));
		if (lies_somewhere(e, w))
			printf("%16" PRIu64 "\n", w->shift + e->offset);
		else
			printf("%16s\n", "-");
	}
	if (w->path)
		printf("file: %s\n", w->path);
}

/* By hand, since there may be millions of runs. */
static void print_as_json(const struct extents *all, const struct where *w, uint64_t size)
{
	json_t *path = w->path ? json_string(w->path) : json_null();
	char *text = json_dumps(path, JSON_ENCODE_ANY);

	printf("{\n  \"size\": %" PRIu64 ",\n  \"file\": %s,\n  \"extents\": [", size, text ? text : "null");
	for (size_t i = 0; i < all->count; i++) {
		const struct extent *e = &all->list[i];
		printf("%s\n    {\"offset\": %" PRIu64 ", \"length\": %" PRIu64 ", \"type\": \"%s\", \"file_offset\": ",
		       i > 0 ? "," : "", e->offset, e->length, type_of(e));
		if (lies_somewhere(e, w))
			printf("%" PRIu64 "}", w->shift + e->offset);
		else
			printf("null}");
	}
	printf("\n  ]\n}\n");
	free(text);
	json_decref(path);
}

static int map_disk(struct disk *d, void *argument, struct error *err)
{
	CLEANUP_EXTENTS struct extents all = {0};
	const struct job *job = argument;
	json_t *tree = disk_describe(d);
	struct where w = where_in_file(tree);
	int status = all_extents(d, 0, disk_size(d), &all, err);

	if (!status && job->arguments->options[OPTION_SVG])
		print_map_svg(&all, job->arguments->operands[0]);
	else if (!status && job->arguments->options[OPTION_JSON])
		print_as_json(&all, &w, disk_size(d));
	else if (!status)
		print_text(&all, &w);
	json_decref(tree);
	return status;
}

static int map(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct job job = {.arguments = a};

	if (a->options[OPTION_SVG] && a->options[OPTION_JSON])
		return verb_usage_error(&verb_map, "--json and --svg exclude each other");
	return with_disk(a->operands[0], NULL, OPEN_READ_ONLY, map_disk, &job, &err) ? verb_failed("map", &err) : STATUS_OK;
}

const struct verb verb_map = {
	.name = "map",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Show which parts of a disk hold data",
	.details = "data is allocated, whatever it holds; zero is allocated and reads as zeroes; hole takes no space\n"
		   "and reads as zeroes.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_SVG] = {.name = "svg", .help = "draw a picture of it"},
			{0},
		},
	.run = map,
};

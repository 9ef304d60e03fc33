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

/* A part of a run that lies in one file, or nowhere that can be told. */
struct part {
	const struct extent *extent;
	uint64_t offset, length;
	const struct place *place; /* NULL: nowhere */
};

/* The part of the run at `offset` in it. What takes no space lies nowhere. */
static struct part part_at(const struct extent *e, uint64_t offset, const struct where *w)
{
	struct part p = {.extent = e, .offset = offset, .length = e->offset + e->length - offset};
	const struct place *place = e->flags & EXTENT_HOLE ? NULL : where_from(w, offset);
	uint64_t limit = p.length;

	if (!place)
		return p;
	if (place->offset > offset) {
		limit = place->offset - offset;
	} else {
		p.place = place;
		limit = place->offset + place->length - offset;
	}
	p.length = limit < p.length ? limit : p.length;
	return p;
}

static uint64_t file_offset(const struct part *p)
{
	return p->place->at + p->offset - p->place->offset;
}

/* Calls `print` for all parts of all runs. */
static void each_part(const struct extents *all, const struct where *w, void (*print)(const struct part *p, const struct where *w))
{
	for (size_t i = 0; i < all->count; i++) {
		const struct extent *e = &all->list[i];
		for (uint64_t at = e->offset; at < e->offset + e->length;) {
			struct part p = part_at(e, at, w);
			print(&p, w);
			at += p.length;
		}
	}
}

static size_t file_number(const struct part *p, const struct where *w)
{
	size_t n = 0;

	while (w->paths[n] != p->place->path)
		n++;
	return n;
}

/* With the number of the file where there are several. */
static void print_row(const struct part *p, const struct where *w)
{
	printf("%16" PRIu64 "  %16" PRIu64 "  %-4s  ", p->offset, p->length, type_of(p->extent));
	if (!p->place)
		printf("%16s\n", "-");
	else if (w->nr_paths > 1)
		printf("%16" PRIu64 "  in %zu\n", file_offset(p), file_number(p, w) + 1);
	else
		printf("%16" PRIu64 "\n", file_offset(p));
}

static void print_text(const struct extents *all, const struct where *w)
{
	printf("%16s  %16s  %-4s  %16s\n", "offset", "length", "is", "file offset");
	each_part(all, w, print_row);
	for (size_t i = 0; i < w->nr_paths; i++)
		if (w->nr_paths > 1)
			printf("file %zu: %s\n", i + 1, w->paths[i]);
		else
			printf("file: %s\n", w->paths[i]);
}

static char *quoted(const char *path)
{
	json_t *text = json_string(path);
	char *out = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;

	json_decref(text);
	return out;
}

static void print_object(const struct part *p, const struct where *w)
{
	printf("%s\n    {\"offset\": %" PRIu64 ", \"length\": %" PRIu64 ", \"type\": \"%s\", \"file_offset\": ", p->offset > 0 ? "," : "",
	       p->offset, p->length, type_of(p->extent));
	if (p->place)
		printf("%" PRIu64 ", \"file\": %zu}", file_offset(p), file_number(p, w));
	else
		printf("null}");
}

/* By hand, since there may be millions of runs. */
static void print_as_json(const struct extents *all, const struct where *w, uint64_t size)
{
	char *only = w->nr_paths == 1 ? quoted(w->paths[0]) : NULL;

	printf("{\n  \"size\": %" PRIu64 ",\n  \"file\": %s,\n  \"files\": [", size, only ? only : "null");
	for (size_t i = 0; i < w->nr_paths; i++) {
		char *path = quoted(w->paths[i]);
		printf("%s%s", i > 0 ? ", " : "", path ? path : "null");
		free(path);
	}
	printf("],\n  \"extents\": [");
	each_part(all, w, print_object);
	printf("\n  ]\n}\n");
	free(only);
}

static int map_disk(struct disk *d, void *argument, struct error *err)
{
	CLEANUP_EXTENTS struct extents all = {0};
	CLEANUP_WHERE struct where w = {0};
	const struct job *job = argument;
	int status = all_extents(d, 0, disk_size(d), &all, err);

	if (!status)
		status = where_in_files(d, &w, err);
	if (status)
		return status;
	if (job->arguments->options[OPTION_SVG])
		print_map_svg(&all, &w, job->arguments->operands[0]);
	else if (job->arguments->options[OPTION_JSON])
		print_as_json(&all, &w, disk_size(d));
	else
		print_text(&all, &w);
	return 0;
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

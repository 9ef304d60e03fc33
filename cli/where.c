/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/where.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"

/* Of the kinds that show what is below, byte for byte. */
static bool is_unchanged(const char *kind)
{
	static const char *const kinds[] = {"ro", "slice", "part", "prwrap", "delay"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

/* A window of what is below: its byte 0 is that at `shift`. */
struct window {
	struct where *out;
	uint64_t shift, length;
	struct error *err;
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory");
}

static int add_path(struct window *w, const char *path)
{
	char **grown = reallocarray(w->out->paths, w->out->nr_paths + 1, sizeof(*grown));

	if (grown)
		w->out->paths = grown;
	if (!grown || !(grown[w->out->nr_paths] = strdup(path)))
		return no_memory(w->err);
	w->out->nr_paths++;
	return 0;
}

/* What of it is in the window. Places come in order. */
static int add_place(struct window *w, uint64_t offset, uint64_t length, const char *path, uint64_t at)
{
	struct where *out = w->out;
	uint64_t end = offset + length, window_end = w->shift + w->length, skip = offset < w->shift ? w->shift - offset : 0;

	end = end < window_end ? end : window_end;
	if (offset + skip >= end)
		return 0;
	if (out->count == out->room) {
		size_t room = out->room ? 2 * out->room : 64;
		struct place *grown = reallocarray(out->list, room, sizeof(*grown));
		if (!grown)
			return no_memory(w->err);
		out->list = grown;
		out->room = room;
	}
	out->list[out->count++] = (struct place){offset + skip - w->shift, end - offset - skip, path, at + skip};
	return 0;
}

/* ------------------------------------------------------------------ images */

struct run {
	uint64_t offset, length, at;
	enum { RUN_ABSENT, RUN_ZERO, RUN_DATA } kind;
};

/* The map of one file of the chain. */
struct file_map {
	struct run *runs;
	size_t count;
	const char *path;
};

static uint64_t number_of(const json_t *row, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(row, key));
}

static int take_runs(struct file_map *m, const json_t *list, struct error *err)
{
	const json_t *row;
	size_t i;

	m->runs = calloc(json_array_size(list) + 1, sizeof(*m->runs));
	if (!m->runs)
		return no_memory(err);
	json_array_foreach(list, i, row)
	{
		const char *kind = json_string_value(json_object_get(row, "kind"));
		m->runs[i] = (struct run){
			.offset = number_of(row, "offset"),
			.length = number_of(row, "length"),
			.at = number_of(row, "at"),
			.kind = !kind || !strcmp(kind, "absent") ? RUN_ABSENT : !strcmp(kind, "data") ? RUN_DATA : RUN_ZERO,
		};
	}
	m->count = i;
	return 0;
}

static int load_map(const struct chain_file *f, struct file_map *m, struct error *err)
{
	struct container *c;
	json_t *list;
	int status = container_open(f->path, CONTAINER_READ_ONLY | CONTAINER_SHARED, &c, err);

	if (status)
		return status;
	if (f->tools)
		status = f->tools->map(c, f->spec, &list, err);
	else /* raw: all of it is where it is */
		list = json_pack("[{s:i, s:I, s:s, s:i}]", "offset", 0, "length", (json_int_t)container_size(c), "kind", "data", "at", 0);
	container_close(c, false, NULL);
	if (status)
		return status;
	status = list ? take_runs(m, list, err) : no_memory(err);
	json_decref(list);
	return status;
}

/* The first run that ends behind `offset`. */
static size_t run_from(const struct file_map *m, uint64_t offset)
{
	size_t low = 0, high = m->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (m->runs[middle].offset + m->runs[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/*
 * The first file from the top that does not say "absent" at `offset` has what is there, or says that it is zero; how far that
 * goes is up to the nearest end of a run on the way.
 */
static int add_run(struct window *w, const struct file_map *maps, size_t count, uint64_t offset, uint64_t *length)
{
	for (size_t i = 0; i < count; i++) {
		size_t n = run_from(&maps[i], offset);
		const struct run *r = &maps[i].runs[n];
		if (n == maps[i].count)
			return 0; /* past the end of a parent: zero */
		if (r->offset + r->length - offset < *length)
			*length = r->offset + r->length - offset;
		if (r->kind == RUN_DATA)
			return add_place(w, offset, *length, maps[i].path, r->at + offset - r->offset);
		if (r->kind == RUN_ZERO)
			return 0;
	}
	return 0;
}

static int add_chain(struct window *w, const struct file_map *maps, size_t count)
{
	uint64_t end = w->shift + w->length;
	int status = 0;

	for (uint64_t at = w->shift, length; at < end && !status; at += length) {
		length = end - at;
		status = add_run(w, maps, count, at, &length);
	}
	return status;
}

static int add_image(struct window *w, const json_t *layers)
{
	CLEANUP_CHAIN struct chain chain = {0};
	struct file_map *maps;
	size_t i;
	int status = chain_of_layers(layers, NULL, &chain, w->err);

	if (status == -EINVAL) { /* something else is below it: not told */
		error_clear(w->err);
		return 0;
	}
	maps = calloc(chain.count + 1, sizeof(*maps));
	if (!status && !maps)
		status = no_memory(w->err);
	for (i = 0; i < chain.count && !status; i++)
		status = add_path(w, chain.files[i].path);
	for (i = 0; i < chain.count && !status; i++) {
		maps[i].path = w->out->paths[i];
		status = load_map(&chain.files[i], &maps[i], w->err);
	}
	if (!status)
		status = add_chain(w, maps, chain.count);
	for (i = 0; maps && i < chain.count; i++)
		free(maps[i].runs);
	free(maps);
	return status;
}

/* ------------------------------------------------------------------ the tree */

static bool is_image(const char *kind)
{
	return !strcmp(kind, "vhd") || !strcmp(kind, "vhdx");
}

static int look_down(struct window *w, const json_t *tree)
{
	const char *path;
	int status;

	for (const json_t *node = tree; node; node = json_array_get(json_object_get(node, "children"), 0)) {
		const char *kind = json_string_value(json_object_get(node, "kind"));
		if (!kind)
			return 0;
		if (is_image(kind) && json_array_size(json_object_get(node, "children")) == 0)
			return add_image(w, json_object_get(node, "layers"));
		path = strcmp(kind, "file") ? NULL : json_string_value(json_object_get(node, "path"));
		if (path) {
			status = add_path(w, path);
			return status ? status : add_place(w, w->shift, w->length, w->out->paths[0], w->shift);
		}
		if (!is_unchanged(kind))
			return 0;
		w->shift += number_of(node, "offset"); /* inside the disk below, so no overflow */
	}
	return 0;
}

int where_in_files(struct disk *d, struct where *out, struct error *err)
{
	struct window w = {.out = out, .length = disk_size(d), .err = err};
	json_t *tree = disk_describe(d);
	int status = tree ? look_down(&w, tree) : no_memory(err);

	json_decref(tree);
	return status;
}

void where_free(struct where *w)
{
	for (size_t i = 0; i < w->nr_paths; i++)
		free(w->paths[i]);
	free(w->paths);
	free(w->list);
	*w = (struct where){0};
}

const struct place *where_from(const struct where *w, uint64_t offset)
{
	size_t low = 0, high = w->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (w->list[middle].offset + w->list[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low < w->count ? &w->list[low] : NULL;
}

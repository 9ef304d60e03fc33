/* SPDX-License-Identifier: BSD-3-Clause */
/* Works on what disks say of themselves (disk_describe()), since images and their parents are no nodes. */
#include "cli/same-files.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/kind.h"

/* Bytes of a file that a disk shows. */
struct span {
	const char *path; /* as the tree or the spec has it */
	dev_t device;
	ino_t inode; /* 0: the device itself */
	uint64_t begin, end;
	bool written;
};

struct spans {
	struct span *list;
	size_t count;
	bool failed; /* no memory */
};

/* What lies below shows the same bytes at the same places. */
static bool passes_through(const char *kind)
{
	static const char *const kinds[] = {"ro", "delay", "fault", "prwrap"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(kind, kinds[i]))
			return true;
	return false;
}

static bool is_window(const char *kind)
{
	return !strcmp(kind, "slice") || !strcmp(kind, "part");
}

static void add(struct spans *s, const char *path, uint64_t begin, uint64_t end, bool written)
{
	struct span *grown;
	struct stat st;

	if (!path || stat(path, &st))
		return;
	grown = reallocarray(s->list, s->count + 1, sizeof(*grown));
	if (!grown) {
		s->failed = true;
		return;
	}
	s->list = grown;
	grown[s->count++] = (struct span){
		.path = path,
		.device = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev,
		.inode = S_ISBLK(st.st_mode) ? 0 : st.st_ino,
		.begin = begin,
		.end = end,
		.written = written,
	};
}

/* Written are the top one and, while they are marked so, those below. */
static void add_layers(struct spans *s, const json_t *layers, bool written)
{
	const json_t *row;
	size_t i;

	json_array_foreach(layers, i, row) {
		add(s, json_string_value(json_object_get(row, "path")), 0, UINT64_MAX, written);
		written = written && json_is_true(json_object_get(row, "write_through"));
	}
}

/* `begin`, `end`: which bytes of the node count. */
static void add_tree(struct spans *s, const json_t *node, uint64_t begin, uint64_t end)
{
	const char *kind = json_string_value(json_object_get(node, "kind"));
	uint64_t offset = (uint64_t)json_integer_value(json_object_get(node, "offset"));
	bool written = !json_is_true(json_object_get(node, "read_only"));
	const json_t *child;
	size_t i;

	add(s, json_string_value(json_object_get(node, "path")), begin, end, written);
	add_layers(s, json_object_get(node, "layers"), written);
	json_array_foreach(json_object_get(node, "children"), i, child) {
		if (is_window(kind))
			add_tree(s, child, offset + begin, offset + end);
		else if (passes_through(kind))
			add_tree(s, child, begin, end);
		else
			add_tree(s, child, 0, INT64_MAX);
	}
}

static void add_disk(struct spans *s, struct disk *d, const json_t *tree)
{
	if (tree)
		add_tree(s, tree, 0, disk_size(d));
	else
		s->failed = true;
}

static bool is_same_file(const struct span *a, const struct span *b)
{
	return a->device == b->device && a->inode == b->inode;
}

static int refuse(const struct span *written, struct error *err)
{
	error_set(err, -EINVAL, "DST writes to '%s', which SRC reads from, and would change it on the way", written->path);
	return error_hint(err, "without -n a new file is made");
}

static int check_spans(const struct spans *from, const struct spans *to, struct error *err)
{
	for (size_t i = 0; i < to->count; i++)
		for (size_t k = 0; k < from->count; k++)
			if (to->list[i].written && is_same_file(&to->list[i], &from->list[k]) &&
			    to->list[i].begin < from->list[k].end && from->list[k].begin < to->list[i].end)
				return refuse(&to->list[i], err);
	return from->failed || to->failed ? error_set(err, -ENOMEM, "no memory") : 0;
}

int check_files_apart(struct disk *from, struct disk *to, struct error *err)
{
	json_t *tree_from = disk_describe(from), *tree_to = disk_describe(to);
	struct spans read = {0}, written = {0};
	int status;

	add_disk(&read, from, tree_from);
	add_disk(&written, to, tree_to);
	status = check_spans(&read, &written, err);
	free(read.list);
	free(written.list);
	json_decref(tree_from);
	json_decref(tree_to);
	return status;
}

static void add_named(struct spans *s, const struct spec *spec)
{
	if (kind_field(spec->kind, "path"))
		add(s, spec_text(spec, "path"), 0, UINT64_MAX, true);
	for (unsigned i = 0; i < spec->nr_children; i++)
		add_named(s, spec->children[i]);
}

int explain_busy_file(struct disk *from, const struct spec *to, struct error *err)
{
	json_t *tree = disk_describe(from);
	struct spans read = {0}, named = {0};
	int status = err->status;

	add_disk(&read, from, tree);
	add_named(&named, to);
	for (size_t i = 0; i < named.count; i++)
		for (size_t k = 0; k < read.count; k++)
			if (is_same_file(&named.list[i], &read.list[k]))
				status = error_set(err, -EBUSY, "'%s' is a part of SRC, which would change on the way", named.list[i].path);
	free(read.list);
	free(named.list);
	json_decref(tree);
	return status;
}

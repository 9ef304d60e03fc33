/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/reports.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "core/bytes.h"
#include "core/tree-text.h"
#include "fuse/files.h"

char *report_spec(const struct export *e)
{
	return spec_print(e->spec);
}

static char *dump(json_t *json, size_t flags)
{
	char *text = json ? json_dumps(json, flags) : NULL;

	json_decref(json);
	return text;
}

char *report_info(const struct export *e)
{
	return dump(disk_describe(bytes_disk(e->bytes)), JSON_COMPACT);
}

/* ------------------------------------------------------------------ files */

/* Adds a line feed, which JSON's printer leaves out. */
static char *end_line(char *text)
{
	char *line = NULL;

	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

/* JSON is UTF-8, which names and paths need not be: null then. */
static json_t *string_or_null(const char *text)
{
	json_t *string = json_string(text);

	return string ? string : json_null();
}

static json_t *describe_export(const struct export *e)
{
	char *spec = report_spec(e);
	json_t *json = spec ? json_pack("{s:o, s:o}", "spec", string_or_null(spec), "disk",
					disk_describe(bytes_disk(e->bytes)))
			    : NULL;

	free(spec);
	return json;
}

/* Under the disk's name, or where that is not UTF-8 under its place on the command line. */
static int set_export(json_t *all, const struct export *e, size_t place)
{
	json_t *name = json_string(e->name);
	char key[64];

	if (!name)
		snprintf(key, sizeof(key), "(disk %zu: its name is not UTF-8)", place + 1);
	int status = json_object_set_new(all, name ? e->name : key, describe_export(e));
	json_decref(name);
	return status;
}

static char *make_stats(const struct files *files)
{
	json_t *all = json_object();

	for (size_t i = 0; all && i < files->exports->count; i++)
		if (set_export(all, &files->exports->list[i], i) < 0) {
			json_decref(all);
			return NULL;
		}
	return end_line(dump(all, JSON_INDENT(2)));
}

static bool print_export(FILE *out, const struct export *e)
{
	json_t *tree = disk_describe(bytes_disk(e->bytes));
	char *spec = report_spec(e);
	bool fine = tree && spec;

	if (fine) {
		fprintf(out, "%s%s%s\n", e->name, *e->name ? " = " : "", spec);
		tree_print(out, tree, "");
	}
	free(spec);
	json_decref(tree);
	return fine;
}

static char *make_tree(const struct files *files)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	bool fine = out != NULL;

	for (size_t i = 0; fine && i < files->exports->count; i++) {
		if (i > 0)
			fputc('\n', out);
		fine = print_export(out, &files->exports->list[i]);
	}
	if (out && fclose(out) != 0)
		fine = false;
	if (fine)
		return text;
	free(text);
	return NULL;
}

const struct report reports[] = {
	{"stats.json", make_stats},
	{"tree.txt", make_tree},
	{0},
};

/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/exports.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/open.h"

/* A string in the NBD protocol is at most so long. */
#define NAME_MAX_BYTES 4096

/* So many names are listed where an unknown one is asked for. */
#define NAMES_IN_MESSAGE 20

#define NO_MEMORY(err) error_set(err, -ENOMEM, "not enough memory")

/* What one is called in messages. */
static const char *noun(const struct export_table *table)
{
	return table->noun ? table->noun : "export";
}

/* ------------------------------------------------------------------ adding */

static struct export *find_exact(struct export_table *table, const char *name)
{
	for (size_t i = 0; i < table->count; i++)
		if (strcmp(table->list[i].name, name) == 0)
			return &table->list[i];
	return NULL;
}

static void export_free(struct export *e)
{
	free(e->name);
	free(e->spec_text);
	free(e->place);
	free(e->description);
	spec_free(e->spec);
}

static int append(struct export_table *table, const char *name, const char *spec, const char *place,
		  struct error *err)
{
	struct export *list = realloc(table->list, (table->count + 1) * sizeof(*list));
	if (!list)
		return NO_MEMORY(err);
	table->list = list;

	struct export new = {
		.name = strdup(name),
		.spec_text = strdup(spec),
		.place = strdup(place),
	};
	if (!new.name || !new.spec_text || !new.place) {
		export_free(&new);
		return NO_MEMORY(err);
	}
	table->list[table->count++] = new;
	return 0;
}

int exports_add(struct export_table *table, const char *name, const char *spec, const char *place,
	       struct error *err)
{
	if (strlen(name) > NAME_MAX_BYTES)
		return error_set(err, -EINVAL,
				 "%s: the name of %s has at most %d bytes, this one has %zu", place,
				 table->noun ? "a disk" : "an export", NAME_MAX_BYTES, strlen(name));
	if (*spec == '\0')
		return error_set(err, -EINVAL,
				 "%s: no spec after the name of the %s (expected: NAME=SPEC)", place, noun(table));

	const struct export *twin = find_exact(table, name);
	if (twin && *name == '\0')
		return error_set(err, -EINVAL,
				 "%s: there is an unnamed disk already, from %s (give further disks a name: "
				 "NAME=SPEC)",
				 place, twin->place);
	if (twin)
		return error_set(err, -EINVAL, "%s: there is %s '%s' already, from %s", place,
				 table->noun ? "a disk" : "an export", name, twin->place);
	return append(table, name, spec, place, err);
}

/* ------------------------------------------------------------------ NAME=SPEC */

/* Reads a name in double quotes, in which \ takes the next character as it is. Returns what follows it, or
 * NULL. */
static const char *read_quoted(const char *p, char *name)
{
	for (p++; *p != '"'; p++) {
		if (*p == '\\')
			p++;
		if (*p == '\0')
			return NULL;
		*name++ = *p;
	}
	*name = '\0';
	return p + 1;
}

/* Reads a name up to the first character of `ends`. Returns what follows it. */
static const char *read_bare(const char *p, const char *ends, char *name)
{
	size_t length = strcspn(p, ends);

	memcpy(name, p, length);
	name[length] = '\0';
	return p + length;
}

/*
 * Adds "NAME=SPEC", or where `blanks` is true "NAME SPEC" too. The name ends at the first '=' (or blank); one
 * that holds such a character, or none at all, is written in double quotes.
 */
static int add_pair(struct export_table *table, const char *text, bool blanks, const char *place,
		    struct error *err)
{
	char *name = malloc(strlen(text) + 1);
	if (!name)
		return NO_MEMORY(err);

	int status = 0;
	const char *rest =
		*text == '"' ? read_quoted(text, name) : read_bare(text, blanks ? "= \t" : "=", name);
	if (!rest) {
		status = error_set(err, -EINVAL, "%s: the name of the %s lacks its closing '\"'", place,
				   noun(table));
	} else if (rest == text) {
		status = error_set(err, -EINVAL,
				   "%s: the %s has no name (%s)", place, noun(table),
				   table->noun ? "expected NAME=SPEC" : "write \"\" for the unnamed one");
	} else {
		const char *spec = rest + (blanks ? strspn(rest, " \t") : 0);
		if (*spec == '=') {
			spec++;
			spec += blanks ? strspn(spec, " \t") : 0;
		} else if (spec == rest) {
			status = error_set(err, -EINVAL, "%s: expected NAME=SPEC, found '%s'", place, text);
		}
		if (status == 0)
			status = exports_add(table, name, spec, place, err);
	}
	free(name);
	return status;
}

int exports_add_pair(struct export_table *table, const char *text, const char *place, struct error *err)
{
	return add_pair(table, text, false, place, err);
}

/* ------------------------------------------------------------------ a list file */

static int add_line(struct export_table *table, char *line, size_t length, const char *place,
		    struct error *err)
{
	if (strlen(line) != length)
		return error_set(err, -EINVAL, "%s: there is a NUL byte in the line", place);
	while (length > 0 && strchr(" \t\r\n", line[length - 1]) != NULL)
		line[--length] = '\0';
	line += strspn(line, " \t");
	if (*line == '\0' || *line == '#')
		return 0;
	return add_pair(table, line, true, place, err);
}

static int add_lines(struct export_table *table, FILE *file, const char *path, struct error *err)
{
	int status = 0;
	char *line = NULL;
	size_t allocated = 0;
	ssize_t length;

	for (unsigned number = 1; status == 0 && (length = getline(&line, &allocated, file)) >= 0; number++) {
		char *place;
		if (asprintf(&place, "%s line %u", path, number) < 0) {
			status = NO_MEMORY(err);
			break;
		}
		status = add_line(table, line, (size_t)length, place, err);
		free(place);
	}
	if (status == 0 && !feof(file))
		status = error_set_errno(err, errno != 0 ? -errno : -EIO, "exports: cannot read '%s'", path);
	free(line);
	return status;
}

static int add_file(struct export_table *table, const char *path, struct error *err)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return error_set_errno(err, -errno, "exports: cannot open '%s'", path);

	errno = 0;
	int status = add_lines(table, file, path, err);
	fclose(file);
	return status;
}

/* ------------------------------------------------------------------ configuration */

int exports_config(struct export_table *table, const char *key, const char *value, struct error *err)
{
	if (strcmp(key, "disk") == 0) {
		if (*value == '\0')
			return error_set(err, -EINVAL, "disk=: no spec (expected for example disk=mem:1G)");
		return exports_add(table, "", value, "disk=", err);
	}
	if (strcmp(key, "export") == 0)
		return add_pair(table, value, false, "export=", err);
	if (strcmp(key, "exports") == 0)
		return add_file(table, value, err);

	char *place;
	if (asprintf(&place, "%s=", key) < 0)
		return NO_MEMORY(err);
	int status = exports_add(table, key, value, place, err);
	free(place);
	return status;
}

/* Puts in front of an error which export it is about, where there is a choice. */
static int blame(const struct export_table *table, const struct export *e, struct error *err)
{
	return *e->name != '\0' ? error_prefix(err, "%s '%s'", noun(table), e->name) : err->status;
}

int exports_check(struct export_table *table, struct error *err)
{
	if (table->count == 0)
		return error_set(err, -EINVAL,
				 "there is no disk to serve (give a spec: nbdkit platter mem:1G)");
	for (size_t i = 0; i < table->count; i++) {
		struct export *e = &table->list[i];
		if (spec_parse(e->spec_text, &e->spec, err) < 0)
			return blame(table, e, err);
	}
	return 0;
}

/* ------------------------------------------------------------------ opening and closing */

/* "memdiff over file": the kinds of the tree, without what the user wrote into it. */
static void print_kinds(FILE *out, const struct spec *s)
{
	fputs(s->kind->name, out);
	if (s->nr_children == 0)
		return;
	fputs(s->nr_children > 1 ? " over [" : " over ", out);
	for (unsigned i = 0; i < s->nr_children; i++) {
		if (i > 0)
			fputs(", ", out);
		print_kinds(out, s->children[i]);
	}
	if (s->nr_children > 1)
		fputc(']', out);
}

static char *describe(const struct spec *spec, const struct disk *d)
{
	char *text = NULL, size[SIZE_TEXT_MAX];
	size_t length;
	FILE *out = open_memstream(&text, &length);
	if (!out)
		return NULL;

	print_kinds(out, spec);
	fprintf(out, ", %s%s%s", size_print_human(disk_size(d), size),
		disk_info(d)->flags & DISK_READ_ONLY ? ", read-only" : "",
		disk_info(d)->flags & DISK_VOLATILE ? ", volatile" : "");
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(text);
		return NULL;
	}
	/* The longest string NBD allows; a disk of thousands of parts is cut short. */
	if (length > NAME_MAX_BYTES)
		text[NAME_MAX_BYTES] = '\0';
	return text;
}

/* Opened, and described; nobody has used it yet. */
static int export_open(struct export *e, unsigned flags, struct disk **disk, struct error *err)
{
	int status = disk_open_spec(e->spec, flags, disk, err);
	if (status < 0)
		return status;

	e->description = describe(e->spec, *disk);
	return e->description ? 0 : NO_MEMORY(err);
}

static int open_disks(struct export_table *table, unsigned flags, struct disk **disks, struct error *err)
{
	for (size_t i = 0; i < table->count; i++) {
		struct export *e = &table->list[i];
		if (export_open(e, flags, &disks[i], err) < 0)
			return blame(table, e, err);
	}
	return 0;
}

static int make_views(struct export_table *table, struct disk **disks, struct error *err)
{
	for (size_t i = 0; i < table->count; i++)
		if (bytes_create(disks[i], &table->list[i].bytes) < 0)
			return NO_MEMORY(err);
	return 0;
}

/* All or none: where one cannot be opened, what the others created is removed again. */
int exports_open(struct export_table *table, unsigned flags, struct error *err)
{
	struct disk **disks = calloc(table->count, sizeof(*disks));
	if (!disks)
		return NO_MEMORY(err);

	int status = open_disks(table, flags, disks, err);
	for (size_t i = 0; status < 0 && i < table->count; i++)
		disk_abandon(disks[i]);
	if (status == 0) {
		status = make_views(table, disks, err);
		/* A view holds a reference of its own. */
		for (size_t i = 0; i < table->count; i++)
			disk_close(disks[i], NULL);
		if (status < 0)
			exports_close(table, NULL);
	}
	free(disks);
	return status;
}

int exports_close(struct export_table *table, struct error *err)
{
	int first = 0;

	for (size_t i = 0; i < table->count; i++) {
		struct export *e = &table->list[i];
		CLEANUP_ERROR struct error failed = {0};
		int status = bytes_destroy(e->bytes, &failed);
		e->bytes = NULL;
		if (status < 0 && first == 0) {
			blame(table, e, &failed);
			first = err ? error_move(err, &failed) : status;
		}
	}
	return first;
}

void exports_free(struct export_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		export_free(&table->list[i]);
	free(table->list);
	*table = (struct export_table){0};
}

/* ------------------------------------------------------------------ looking up */

static int unknown_name(const struct export_table *table, const char *name, struct error *err)
{
	char *names = NULL;
	size_t length;
	FILE *out = open_memstream(&names, &length);
	if (!out)
		return NO_MEMORY(err);

	for (size_t i = 0; i < table->count && i < NAMES_IN_MESSAGE; i++)
		fprintf(out, "%s'%s'", i > 0 ? ", " : "", table->list[i].name);
	if (table->count > NAMES_IN_MESSAGE)
		fprintf(out, " and %zu more", table->count - NAMES_IN_MESSAGE);
	fclose(out);
	int status = error_set(err, -ENOENT, "there is no export '%s' (there is: %s)", name,
			       names != NULL ? names : "?");
	free(names);
	return status;
}

struct export *exports_find(struct export_table *table, const char *name, struct error *err)
{
	if (table->count == 1 && *table->list[0].name == '\0')
		return &table->list[0];
	struct export *e = find_exact(table, name);
	if (!e)
		unknown_name(table, name, err);
	return e;
}

const char *exports_default_name(const struct export_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		if (*table->list[i].name == '\0')
			return "";
	return table->count == 1 ? table->list[0].name : NULL;
}

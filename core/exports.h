/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of exports: which names a server or a mount offers, and the disk behind each. */
#ifndef PLATTER_CORE_EXPORTS_H
#define PLATTER_CORE_EXPORTS_H

#include <stddef.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/spec.h"

/* One export. All connections to it share the disk and its byte view. */
struct export
{
	char *name; /* "": the unnamed one, which clients get that ask for no name */
	char *spec_text;
	char *place;	     /* where it was configured, for messages: "disk=" or "list.txt line 3" */
	struct spec *spec;   /* from exports_check() on */
	struct bytes *bytes; /* from exports_open() to exports_close() */
	char *description;   /* what it is made of and its size; tells no paths or keys: strangers read it */
};

struct export_table {
	struct export *list; /* in the order of configuration; moves while exports are added */
	size_t count;
	const char *noun;    /* what one is called in messages; NULL: "export" */
};

/* Adds `name` for the disk of `spec`; `place` says in messages where it comes from. 0 or a negative errno. */
int exports_add(struct export_table *table, const char *name, const char *spec, const char *place,
		struct error *err);

/* The same from NAME=SPEC; a name that holds a '=' stands in double quotes. */
int exports_add_pair(struct export_table *table, const char *text, const char *place, struct error *err);

/* Takes one key=value of the command line. 0 or a negative errno. */
int exports_config(struct export_table *table, const char *key, const char *value, struct error *err);

/* Parses every spec, so that all mistakes of writing show before anything is opened. 0 or a negative errno.
 */
int exports_check(struct export_table *table, struct error *err);

/*
 * Opens every disk with `flags` (enum open_flags). When one cannot be opened the others are closed again.
 * 0 or a negative errno.
 */
int exports_open(struct export_table *table, unsigned flags, struct error *err);

/*
 * The export a client gets that asks for `name`, or NULL, with `err` set. Where only the unnamed export is
 * configured, every name is answered with it.
 */
struct export *exports_find(struct export_table *table, const char *name, struct error *err);

/*
 * The name that stands for "" : itself where there is an unnamed export, else the name of the only export,
 * else NULL.
 */
const char *exports_default_name(const struct export_table *table);

/* Closes every disk. The first failure is in `err`, which may be NULL. */
int exports_close(struct export_table *table, struct error *err);

/* Frees the table, whose disks are closed. */
void exports_free(struct export_table *table);

#endif

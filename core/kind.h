/* SPDX-License-Identifier: BSD-3-Clause */
/* A kind of disk: its name, its grammar as a table, and how it is opened. The registry of all of them. */
#ifndef PLATTER_CORE_KIND_H
#define PLATTER_CORE_KIND_H

#include <stdbool.h>
#include <stdint.h>

#include "core/disk.h"
#include "core/error.h"
#include "core/spec.h"

enum spec_type {
	SPEC_TEXT,     /* a path, URL, key: any characters when quoted */
	SPEC_SIZE,     /* bytes: 4096, 64K, 1G */
	SPEC_NUMBER,   /* a whole number */
	SPEC_DURATION, /* in ns; text is ms unless it has a unit: ns us ms s */
	SPEC_WORD,     /* one of `words` */
	SPEC_FLAG,     /* option without a value: given or not */
};

enum spec_role {
	SPEC_PARAMETER, /* stands in the body, in the order of the rows: kind:A:B */
	SPEC_OPTION,    /* stands after the parameters: ;name or ;name=value */
};

/*
 * One row of a kind's grammar; parser, printer, help, completion and the documentation check come from it.
 *
 * The text form of a node is
 *
 *     kind ":" parameter { separator parameter } { ";" option } [ ":" child | ":[" child { "," child } "]" ]
 *
 * A kind without parameters is kind { ";" option } ":" child, or, without a child, kind ":" { ";" option }.
 * A parameter that is not required may be empty; at the end it may be missing with its separator, unless a
 * child after a ':' could be taken for it. tests/test-kinds.c checks the tables.
 */
struct spec_field {
	const char *name; /* as an option and in JSON */
	enum spec_role role;
	enum spec_type type;
	bool required;            /* parameters only: may not be empty */
	bool bare;                /* options with a number, min above 0: may be given without a value; the number is 0 then */
	char separator;           /* parameters after the first: what stands before it; 0 means ':'. Not ',' before an
	                             optional one of a kind without child: in a list that ends the member */
	const char *unit;         /* "bytes", "ms"; NULL: none */
	const char *fallback;     /* default, as text in the same form; NULL: none (number 0, text NULL) */
	uint64_t min, max;        /* numbers; max 0: no limit */
	const char *const *words; /* SPEC_WORD: NULL-terminated */
	const char *help;         /* one line, no period */
};

/*
 * What a member of a list can be marked with by the kind that holds the list: an option behind the member, as in
 * layers:[sql:c.db;read_cache,file:b], or a boolean of its JSON object. No kind has an option of the same name.
 */
struct spec_mark {
	const char *name;
	const char *help; /* one line, no period */
};

enum kind_children {
	KIND_LEAF,         /* no child */
	KIND_WRAPS,        /* one child: kind:...:SPEC */
	KIND_JOINS,        /* a list: kind:...:[SPEC,SPEC] */
};

enum open_flags {
	OPEN_READ_ONLY = 1 << 0, /* never written to; what cannot be opened so fails */
};

/* What a kind is given to open itself. */
struct open_request {
	const struct spec *spec;
	unsigned flags;         /* enum open_flags */
	struct disk **children; /* opened already, in the order of spec->children; become the node's with success */
};

struct layer;

/* What a layer will lie upon. */
struct layer_below {
	uint64_t size;                /* bytes */
	const struct disk_info *info;
};

struct disk_kind {
	const char *name;    /* lower case letters, digits, '-' */
	const char *summary; /* one line, no period */
	enum kind_children children;
	const struct spec_field *fields; /* ends with a row whose name is NULL */
	const struct spec_mark *marks;   /* KIND_JOINS: of the members; ends with a row whose name is NULL. NULL: none */
	bool opens_children;             /* `open` opens them itself, by disk_open_child(): request->children is NULL */

	/*
	 * Flags for opening child `index`, given the node's own; NULL: the same. memdiff opens what is below
	 * read-only, for instance.
	 */
	unsigned (*child_flags)(const struct spec *spec, unsigned index, unsigned flags);

	/*
	 * Opens the node. On success *out is published and owns the children; on failure nothing is left
	 * behind (no file, lock, thread) and the children are still the caller's. May be called from any
	 * thread. The process may fork after it and go on in the child: threads, loops and process-bound
	 * handles are made at the first request. The error text need not name the kind: the caller puts
	 * that in front.
	 */
	int (*open)(const struct open_request *request, struct disk **out, struct error *err);

	/*
	 * Opens the node as a layer that knows which blocks it holds (layers/layer.h), for a stack of them. `below` is what
	 * it will lie upon, of which it takes what the spec leaves open; NULL at the bottom. NULL: the node
	 * is a disk, which holds every block. Only kinds without children have it. The rules of `open` hold.
	 */
	int (*open_layer)(const struct open_request *request, const struct layer_below *below,
			  struct layer **out, struct error *err);
};

/* For kinds that open their children themselves: opens child `index`. On failure nothing is left of it. */
int disk_open_child(const struct open_request *request, unsigned index, unsigned flags,
		    struct disk **out, struct error *err);

/* Every kind of this program, ended by NULL; defined once, in kinds.c (unit tests may define their own). */
extern const struct disk_kind *const disk_kinds[];

/* What a bare path (no "kind:") with this ending opens as. */
struct path_ending {
	const char *ending; /* ".vhd", any case */
	const char *kind;   /* need not be in disk_kinds: then the error says so */
	const char *option; /* flag option added, such as "ro"; NULL: none */
};

/* Ended by a row whose ending is NULL; a path with no such ending is a "file". */
extern const struct path_ending disk_path_endings[];

/* The kind a path without a known ending is opened as. */
extern const char disk_path_kind[];

/* The kind called `name`, or NULL. */
const struct disk_kind *kind_find(const char *name);

/* The known kind name nearest to `name`, or NULL when none is near. */
const char *kind_nearest(const char *name);

/* The number of the mark called by the `length` characters at `name`, or -1. */
int kind_mark(const struct disk_kind *kind, const char *name, size_t length);

/* The row called `name`, or NULL. */
const struct spec_field *kind_field(const struct disk_kind *kind, const char *name);

/* The grammar as one line: "file:PATH[;direct][;create=SIZE]". To be freed with free(). */
char *kind_grammar(const struct disk_kind *kind);

/* The registry as JSON: an array of kinds with grammar, summary, fields. A new reference. */
json_t *kinds_to_json(void);

#endif

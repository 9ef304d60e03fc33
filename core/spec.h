/* SPDX-License-Identifier: BSD-3-Clause */
/* The spec language: one string names a whole stack of disks. Text and JSON to a tree, and back. */
#ifndef PLATTER_CORE_SPEC_H
#define PLATTER_CORE_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/error.h"

struct disk_kind;
struct spec_field;

/* A parameter or option of a node, parsed. */
struct spec_value {
	bool given;      /* written by the user (else the field's default) */
	uint64_t number; /* SPEC_SIZE, SPEC_NUMBER, SPEC_DURATION; 1 for a SPEC_FLAG; index for SPEC_WORD */
	char *text;      /* SPEC_TEXT; NULL otherwise. No NUL inside */
};

/* A node of the tree: a kind, its values, the specs below it. */
struct spec {
	const struct disk_kind *kind;
	struct spec_value *values; /* one per row of kind->fields, same order */
	struct spec **children;
	unsigned nr_children;
	unsigned marks; /* as a member of a list: bit i is row i of its kind's `marks` */
	size_t column; /* where it, or the "json:" or "@FILE" it came from, began in the text, from 1; 0: no text */
};

#define CLEANUP_SPEC __attribute__((cleanup(spec_cleanup)))

/*
 * Parses `text`: a spec, "json:{...}" or "@FILE". Every value is checked against its row (type, limits,
 * words). On failure `err` points at the column, says what was expected and what was found, and offers the
 * nearest right word. Nothing is opened but the FILE of "@FILE". 0 or a negative errno: -EINVAL for a
 * malformed spec, that of the failed call for a FILE that cannot be read, -ELOOP or -EFBIG for files that
 * name each other without end or are too large.
 */
int spec_parse(const char *text, struct spec **out, struct error *err);

/* The same from JSON (an object, or a string that holds a spec). */
int spec_from_json(const json_t *json, struct spec **out, struct error *err);

/* The canonical text: parsing it gives the same tree. To be freed with free(); NULL when memory ran out. */
char *spec_print(const struct spec *s);

/* The tree as JSON; "json:" plus this opens the same tree. A new reference; NULL when memory ran out. */
json_t *spec_to_json(const struct spec *s);

/* True when both trees would open the same stack. */
bool spec_equal(const struct spec *a, const struct spec *b);

/* Frees a tree. Accepts NULL. */
void spec_free(struct spec *s);
void spec_cleanup(struct spec **s);

/* The value of the field `name`, which must be a row of the node's kind. */
const struct spec_value *spec_value(const struct spec *s, const char *name);

/* Shorthands for the field `name`. spec_text may return NULL when it was not given and has no default. */
const char *spec_text(const struct spec *s, const char *name);
uint64_t spec_number(const struct spec *s, const char *name);
bool spec_given(const struct spec *s, const char *name);

/* Nesting deeper than this is refused. */
#define SPEC_MAX_DEPTH 256

/* A tree of more nodes than this is refused. */
#define SPEC_MAX_NODES 65536

/* Text, with all the files that it names, of more bytes than this is refused. */
#define SPEC_MAX_TEXT (1u << 20)

/* "@FILE" in a file in a file, more often than this, is refused. */
#define SPEC_MAX_FILES 16

/* Children of one node more than this are refused. */
#define SPEC_MAX_CHILDREN 4096

/* ------------------------------------------------------------------ sizes, times, numbers */

/*
 * Parses a size in bytes: digits (decimal, or 0x hexadecimal) with an optional unit, any case: K M G T P E,
 * each alone, with B, or with iB, powers of 1024; or B. The whole text must be one size. -ERANGE when it
 * does not fit in 64 bits, -EINVAL when it is no size; `err` (may be NULL) says which.
 */
int size_parse(const char *text, uint64_t *out, struct error *err);

#define SIZE_TEXT_MAX 24

/* The shortest exact form: 1073741824 is "1G", 1000 is "1000". */
const char *size_print(uint64_t size, char buffer[SIZE_TEXT_MAX]);

/* For people, at most three digits, the rest cut off: "1.5 GiB", "512 bytes". */
const char *size_print_human(uint64_t size, char buffer[SIZE_TEXT_MAX]);

/* Parses a time: digits with an optional unit, any case: ns us ms s; without one it is ms. Errors as of size_parse(). */
int duration_parse(const char *text, uint64_t *ns, struct error *err);

/* The shortest exact form with a unit: "20ms", "1s", "1500us". */
const char *duration_print(uint64_t ns, char buffer[SIZE_TEXT_MAX]);

/* Parses a whole number, decimal or 0x hexadecimal. Errors as of size_parse(). */
int number_parse(const char *text, uint64_t *out, struct error *err);

#endif

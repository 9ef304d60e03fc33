/* SPDX-License-Identifier: BSD-3-Clause */
/* What the pieces of the spec language (spec*.c) share. Not for anybody else but their tests. */
#ifndef PLATTER_CORE_SPEC_INTERNAL_H
#define PLATTER_CORE_SPEC_INTERNAL_H

#include <stdlib.h>
#include <sys/types.h>

#include "core/kind.h"
#include "core/spec.h"

#define CLEANUP_TEXT __attribute__((cleanup(cleanup_text)))
static inline void cleanup_text(char **text)
{
	free(*text);
}

/* ------------------------------------------------------------------ where a piece of text stands */

/* What one call of spec_parse() or spec_from_json() may still use up. */
struct spec_budget {
	size_t bytes;
	unsigned nodes;
	bool no_files; /* "@FILE" is refused: fuzzers must not read what they make up */
};

/*
 * A piece of text or JSON within the whole: what the caller gave, a string in JSON, a file. Lives on the
 * stack of the function that reads it, so that `outer` is the way back.
 */
struct spec_place {
	struct spec_budget *budget;
	const struct spec_place *outer; /* what names this one; NULL: it is the caller's */
	const char *file;               /* its name when it is a file, else NULL */
	dev_t dev;                      /* of the file */
	ino_t ino;
	unsigned depth;   /* nodes above it */
	const struct disk_kind *list; /* of which the spec is a member that may be marked; NULL: none */
	bool own_columns; /* nodes begin where they stand in this text; else all of them at `column` */
	size_t column;
};

/* What may stand around the spec in a file. */
#define SPEC_BLANKS " \t\r\n"

/* Parses all of `text`, which in a file may begin with blanks. Errors name the column; `place` says the rest. */
int spec_parse_text(const char *text, size_t length, const struct spec_place *place, struct spec **out,
		    struct error *err);

/* Parses an object or a string. Errors name the path in the JSON. */
int spec_parse_json(const json_t *json, const struct spec_place *place, struct spec **out, struct error *err);

/* Parses the content of `file`: a spec or a JSON object. Errors name the file. `place` is where "@FILE" stands. */
int spec_parse_file(const char *file, const struct spec_place *place, struct spec **out, struct error *err);

/* spec_parse() with a budget of the caller's. */
int spec_parse_within(const char *text, struct spec_budget *budget, struct spec **out, struct error *err);

/* ------------------------------------------------------------------ building a tree */

/* A node without values and children, taken from the budget; `depth` counts from 1. */
int spec_new(const struct disk_kind *kind, unsigned depth, struct spec_budget *budget, struct spec **out,
	     struct error *err);

/* Adds a child, which belongs to `s` if this succeeds. */
int spec_add_child(struct spec *s, struct spec *child, struct error *err);

/* Sets the value of row `index` from its text, as typed by a user. `text` is taken over in any case. */
int spec_set(struct spec *s, unsigned index, char *text, struct error *err);

/* Sets a flag. */
void spec_set_flag(struct spec *s, unsigned index);

/* Sets an option that may be given without a value, and is. */
void spec_set_bare(struct spec *s, unsigned index);

/* True when it was. */
static inline bool spec_is_bare(const struct spec *s, unsigned index)
{
	return s->kind->fields[index].bare && s->values[index].given && !s->values[index].number;
}

/* Fills in the defaults of what was not given. */
int spec_set_defaults(struct spec *s, struct error *err);

/* The value as text that spec_set() takes, without quotes; in `buffer` unless it is owned by `s`. NULL: a flag. */
const char *spec_value_text(const struct spec *s, unsigned index, char buffer[SIZE_TEXT_MAX]);

/* ------------------------------------------------------------------ tables */

/* Rows of the kind. */
unsigned kind_nr_fields(const struct disk_kind *kind);

/* Index of the first parameter at or after `index`; kind_nr_fields() when there is none. */
unsigned kind_next_parameter(const struct disk_kind *kind, unsigned index);

/* What stands before the parameter. */
char kind_separator(const struct spec_field *field);

/* True when no parameter from row `index` on is required. */
bool kind_rest_optional(const struct disk_kind *kind, unsigned index);

/*
 * True when the parameter and all after it may be left out, with their separators: they are optional, and
 * what comes next cannot be taken for one of them.
 */
bool kind_parameter_may_go(const struct disk_kind *kind, unsigned index);

/* The row as it is called in grammar and errors: "SIZE", "create=SIZE". */
#define FIELD_LABEL_MAX 256
const char *field_label(const struct spec_field *field, char buffer[FIELD_LABEL_MAX]);

/* What the value looks like: "bytes, e.g. 64K or 1G", "one of a, b". */
#define FIELD_FORM_MAX 256
const char *field_form(const struct spec_field *field, char buffer[FIELD_FORM_MAX]);

/*
 * The characters that end the text of row `index`, when it is not quoted. The row behind the last one
 * stands for the name of an option.
 */
#define VALUE_ENDS_MAX 12
void kind_value_ends(const struct disk_kind *kind, unsigned index, bool in_list, char ends[VALUE_ENDS_MAX]);

/* ------------------------------------------------------------------ text */

/*
 * `length` bytes of `text` made fit for one line of an error: what is no printable UTF-8 becomes \xHH, what is
 * long ends with "...".
 */
#define SPEC_ECHO_MAX 128
const char *spec_echo(const char *text, size_t length, char buffer[SPEC_ECHO_MAX]);

/* Length of the UTF-8 sequence at `text`, of which `length` > 0 bytes may be read; 0 when it is none. */
size_t utf8_sequence(const char *text, size_t length);

/* True for a byte that is not the first one of a sequence. */
static inline bool utf8_continues(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* True when all of `text` is UTF-8. */
bool utf8_valid(const char *text);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables of kinds: looking things up in them, and telling what they say. */
#include "core/kind.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/nearest.h"
#include "core/spec-internal.h"

/* ------------------------------------------------------------------ looking up */

const struct disk_kind *kind_find(const char *name)
{
	for (unsigned i = 0; disk_kinds[i]; i++)
		if (!strcmp(disk_kinds[i]->name, name))
			return disk_kinds[i];
	return NULL;
}

const char *kind_nearest(const char *name)
{
	struct nearest near = nearest_to(name, strlen(name));

	for (unsigned i = 0; disk_kinds[i]; i++)
		nearest_try(&near, disk_kinds[i]->name);
	return near.word;
}

const struct spec_field *kind_field(const struct disk_kind *kind, const char *name)
{
	for (const struct spec_field *field = kind->fields; field->name; field++)
		if (!strcmp(field->name, name))
			return field;
	return NULL;
}

int kind_mark(const struct disk_kind *kind, const char *name, size_t length)
{
	for (int i = 0; kind && kind->marks && kind->marks[i].name; i++)
		if (strlen(kind->marks[i].name) == length && !memcmp(kind->marks[i].name, name, length))
			return i;
	return -1;
}

unsigned kind_nr_fields(const struct disk_kind *kind)
{
	unsigned n = 0;

	while (kind->fields[n].name)
		n++;
	return n;
}

unsigned kind_next_parameter(const struct disk_kind *kind, unsigned index)
{
	while (kind->fields[index].name && kind->fields[index].role != SPEC_PARAMETER)
		index++;
	return index;
}

char kind_separator(const struct spec_field *field)
{
	return field->separator ? field->separator : ':';
}

bool kind_rest_optional(const struct disk_kind *kind, unsigned index)
{
	for (; kind->fields[index].name; index++)
		if (kind->fields[index].role == SPEC_PARAMETER && kind->fields[index].required)
			return false;
	return true;
}

/*
 * A text ends where something else can begin: an option, the next member of a list or its end, the next
 * parameter, the child. Only these characters need quotes, and only there.
 */
void kind_value_ends(const struct disk_kind *kind, unsigned index, bool in_list, char ends[VALUE_ENDS_MAX])
{
	unsigned next = kind_nr_fields(kind);
	char *p = ends;

	*p++ = ';';
	if (in_list) {
		*p++ = ',';
		*p++ = ']';
	}
	if (kind->fields[index].name && kind->fields[index].role == SPEC_PARAMETER)
		next = kind_next_parameter(kind, index + 1);
	if (kind->fields[next].name)
		*p++ = kind_separator(&kind->fields[next]);
	if (kind->children != KIND_LEAF && kind_rest_optional(kind, next))
		*p++ = ':';
	*p = '\0';
}

/* ------------------------------------------------------------------ grammar */

static void put_upper(FILE *out, const char *word)
{
	for (; *word; word++)
		fputc(*word >= 'a' && *word <= 'z' ? *word - 'a' + 'A' : *word, out);
}

static void put_words(FILE *out, const char *const *words)
{
	for (unsigned i = 0; words[i]; i++)
		fprintf(out, "%s%s", i ? "|" : "", words[i]);
}

/* What stands for the value: what it is called for a parameter, what type it has for an option. */
static void put_placeholder(FILE *out, const struct spec_field *field)
{
	static const char *const types[] = {
		[SPEC_TEXT] = "TEXT", [SPEC_SIZE] = "SIZE", [SPEC_NUMBER] = "N", [SPEC_DURATION] = "TIME",
	};

	if (field->role == SPEC_PARAMETER)
		put_upper(out, field->name);
	else if (field->type == SPEC_WORD)
		put_words(out, field->words);
	else
		fputs(types[field->type], out);
}

static void put_label(FILE *out, const struct spec_field *field)
{
	if (field->role == SPEC_OPTION)
		fputs(field->name, out);
	if (field->role == SPEC_OPTION && field->type != SPEC_FLAG)
		fputs(field->bare ? "[=" : "=", out);
	if (field->type != SPEC_FLAG)
		put_placeholder(out, field);
	if (field->bare)
		fputc(']', out);
}

const char *field_label(const struct spec_field *field, char buffer[FIELD_LABEL_MAX])
{
	FILE *out = fmemopen(buffer, FIELD_LABEL_MAX, "w");

	snprintf(buffer, FIELD_LABEL_MAX, "%s", field->name); /* for when memory ran out */
	if (!out)
		return buffer;
	put_label(out, field);
	fclose(out);
	buffer[FIELD_LABEL_MAX - 1] = '\0';
	return buffer;
}

bool kind_parameter_may_go(const struct disk_kind *kind, unsigned index)
{
	return kind_rest_optional(kind, index) && index != kind_next_parameter(kind, 0) &&
	       (kind->children == KIND_LEAF || kind_separator(&kind->fields[index]) != ':');
}

/* [KEY] when its place must be held, [:KEY] when it may be left out with its separator. */
static void put_parameters(FILE *out, const struct disk_kind *kind)
{
	unsigned first = kind_next_parameter(kind, 0);

	for (unsigned i = first; kind->fields[i].name; i = kind_next_parameter(kind, i + 1)) {
		const struct spec_field *field = &kind->fields[i];
		bool may_go = kind_parameter_may_go(kind, i);

		if (may_go)
			fputc('[', out);
		fputc(i == first ? ':' : kind_separator(field), out);
		if (!field->required && !may_go)
			fputc('[', out);
		put_label(out, field);
		if (!field->required)
			fputc(']', out);
	}
	if (!kind->fields[first].name && kind->children == KIND_LEAF)
		fputc(':', out);
}

static void put_list(FILE *out, const struct disk_kind *kind)
{
	fputs(":[SPEC", out);
	for (unsigned i = 0; kind->marks && kind->marks[i].name; i++)
		fprintf(out, "[;%s]", kind->marks[i].name);
	fputs(",...]", out);
}

static void put_grammar(FILE *out, const struct disk_kind *kind)
{
	fputs(kind->name, out);
	put_parameters(out, kind);
	for (const struct spec_field *field = kind->fields; field->name; field++) {
		if (field->role != SPEC_OPTION)
			continue;
		fputs("[;", out);
		put_label(out, field);
		fputc(']', out);
	}
	if (kind->children == KIND_WRAPS)
		fputs(":SPEC", out);
	else if (kind->children == KIND_JOINS)
		put_list(out, kind);
}

char *kind_grammar(const struct disk_kind *kind)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	put_grammar(out, kind);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

/* ------------------------------------------------------------------ the tables as JSON */

/* JSON integers end at 2^63 - 1; what is larger is a string of digits. */
static json_t *json_unsigned(uint64_t n)
{
	return n <= INT64_MAX ? json_integer((json_int_t)n) : json_sprintf("%" PRIu64, n);
}

static json_t *words_to_json(const char *const *words)
{
	json_t *array = json_array();

	for (unsigned i = 0; words && words[i]; i++)
		json_array_append_new(array, json_string(words[i]));
	return array;
}

/* What does not apply to the row is null. */
static json_t *field_to_json(const struct spec_field *field)
{
	static const char *const roles[] = {[SPEC_PARAMETER] = "parameter", [SPEC_OPTION] = "option"};
	static const char *const types[] = {
		[SPEC_TEXT] = "text",	      [SPEC_SIZE] = "size", [SPEC_NUMBER] = "number",
		[SPEC_DURATION] = "duration", [SPEC_WORD] = "word", [SPEC_FLAG] = "flag",
	};
	json_t *min = field->min ? json_unsigned(field->min) : NULL;
	json_t *max = field->max ? json_unsigned(field->max) : NULL;
	json_t *words = field->type == SPEC_WORD ? words_to_json(field->words) : NULL;

	return json_pack("{ss ss ss sb sb ss? ss? so? so? so? ss?}", "name", field->name, "role", roles[field->role],
			 "type", types[field->type], "required", field->required, "bare", field->bare, "unit", field->unit, "default",
			 field->fallback, "min", min, "max", max, "words", words, "help", field->help);
}

static json_t *fields_to_json(const struct disk_kind *kind)
{
	json_t *array = json_array();

	for (const struct spec_field *field = kind->fields; field->name; field++) {
		if (json_array_append_new(array, field_to_json(field))) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *marks_to_json(const struct disk_kind *kind)
{
	json_t *array = json_array();

	for (unsigned i = 0; kind->marks && kind->marks[i].name; i++)
		json_array_append_new(array, json_pack("{ss ss}", "name", kind->marks[i].name, "help",
						       kind->marks[i].help));
	return array;
}

static json_t *kind_to_json(const struct disk_kind *kind)
{
	static const char *const children[] = {
		[KIND_LEAF] = "none", [KIND_WRAPS] = "one", [KIND_JOINS] = "list",
	};
	CLEANUP_TEXT char *grammar = kind_grammar(kind);

	return json_pack("{ss ss ss? ss so so}", "name", kind->name, "summary", kind->summary, "grammar", grammar,
			 "children", children[kind->children], "fields", fields_to_json(kind), "marks",
			 marks_to_json(kind));
}

json_t *kinds_to_json(void)
{
	json_t *array = json_array();

	for (unsigned i = 0; disk_kinds[i]; i++) {
		if (json_array_append_new(array, kind_to_json(disk_kinds[i]))) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

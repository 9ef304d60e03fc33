/* SPDX-License-Identifier: BSD-3-Clause */
/* The program's own registry keeps the rules on which the grammar stands. */
#include <ctype.h>

#include "core/kind.h"
#include "core/spec-internal.h"
#include "tests/tap.h"

/* Lower case letters, digits and '-', a letter first. */
static bool is_name(const char *name)
{
	if (!islower((unsigned char)*name))
		return false;
	while (islower((unsigned char)*name) || isdigit((unsigned char)*name) || *name == '-')
		name++;
	return !*name;
}

/* One line, no period: it stands in help and errors. */
static bool is_line(const char *text)
{
	return text && *text && !strchr(text, '\n') && text[strlen(text) - 1] != '.';
}

static bool is_number(const struct spec_field *field)
{
	return field->type == SPEC_SIZE || field->type == SPEC_NUMBER || field->type == SPEC_DURATION;
}

static void check_limits(const struct spec_field *field)
{
	CHECK(!field->max || field->min <= field->max);
	CHECK(is_number(field) || (!field->min && !field->max));
	CHECK((field->type == SPEC_WORD) == (field->words != NULL));
	CHECK(!field->words || field->words[0]);
}

/* In a list a comma is taken for the end of the member, unless the parameter must be there, or a child follows. */
static void check_separator(const struct disk_kind *kind, const struct spec_field *field)
{
	CHECK(field->role == SPEC_PARAMETER || !field->separator);
	CHECK(!field->separator || !strchr(";]\"\n\r", field->separator));
	CHECK(field->separator != ',' || field->required || kind->children != KIND_LEAF);
}

static bool is_free_name(const char *name)
{
	return strcmp(name, "kind") && strcmp(name, "spec") && strcmp(name, "specs");
}

static void check_field(const struct disk_kind *kind, const struct spec_field *field)
{
	char label[FIELD_LABEL_MAX];

	CHECK(is_name(field->name));
	CHECK(is_free_name(field->name));
	CHECK(is_line(field->help));
	CHECK(kind_field(kind, field->name) == field); /* no two of one name */
	CHECK(strlen(field_label(field, label)) < FIELD_LABEL_MAX - 1);
	CHECK(field->role == SPEC_OPTION || field->type != SPEC_FLAG);
	CHECK(field->role == SPEC_PARAMETER || !field->required);
	CHECK(!field->required || !field->fallback);
	CHECK(!field->bare || (field->role == SPEC_OPTION && field->min && !field->fallback &&
			       (field->type == SPEC_SIZE || field->type == SPEC_NUMBER || field->type == SPEC_DURATION)));
	check_limits(field);
	check_separator(kind, field);
}

/* The defaults are values that a user could give. */
static void check_defaults(const struct disk_kind *kind)
{
	struct spec_budget budget = {.nodes = 1};
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;

	CHECK_EQ(spec_new(kind, 1, &budget, &s, &err), 0);
	if (!CHECK_EQ(spec_set_defaults(s, &err), 0))
		tap_diag("%s: %s", kind->name, error_text(&err));
}

/* A mark cannot be taken for an option of whatever kind ends the member, or for a key of its JSON. */
static void check_marks(const struct disk_kind *kind)
{
	CHECK(!kind->marks || kind->children == KIND_JOINS);
	for (const struct spec_mark *mark = kind->marks; mark && mark->name; mark++) {
		CHECK(is_name(mark->name) || !strcmp(mark->name, "read_cache") || !strcmp(mark->name, "write_through"));
		CHECK(is_line(mark->help));
		CHECK(strcmp(mark->name, "kind") && strcmp(mark->name, "spec") && strcmp(mark->name, "specs"));
		for (unsigned i = 0; disk_kinds[i]; i++)
			CHECK(!kind_field(disk_kinds[i], mark->name));
	}
}

static void test_tables(void)
{
	for (unsigned i = 0; disk_kinds[i]; i++) {
		const struct disk_kind *kind = disk_kinds[i];
		int errors = tap_errors;

		CHECK(is_name(kind->name));
		CHECK(strcmp(kind->name, "json"));
		CHECK(kind_find(kind->name) == kind); /* no two of one name */
		CHECK(is_line(kind->summary));
		CHECK(kind->open != NULL);
		for (const struct spec_field *field = kind->fields; field->name; field++)
			check_field(kind, field);
		check_marks(kind);
		CHECK(!kind->open_layer || kind->children == KIND_LEAF);
		CHECK(!kind->opens_children || kind->children != KIND_LEAF);
		check_defaults(kind);
		if (tap_errors > errors)
			tap_diag("in the tables of %s", kind->name);
	}
}

/* A path is the first parameter of what it opens as, and all that it must have. */
static void check_path_kind(const char *name, const char *option)
{
	const struct disk_kind *kind = kind_find(name);
	const struct spec_field *flag;
	unsigned first;

	REQUIRE(kind);
	first = kind_next_parameter(kind, 0);
	CHECK_EQ(kind->children, KIND_LEAF);
	CHECK(kind->fields[first].name && kind->fields[first].type == SPEC_TEXT);
	CHECK(kind_rest_optional(kind, first + 1));
	if (!option)
		return;
	flag = kind_field(kind, option);
	CHECK(flag && flag->role == SPEC_OPTION && flag->type == SPEC_FLAG);
}

static void test_endings(void)
{
	check_path_kind(disk_path_kind, NULL);
	for (const struct path_ending *e = disk_path_endings; e->ending; e++) {
		CHECK_EQ(e->ending[0], '.');
		if (kind_find(e->kind))
			check_path_kind(e->kind, e->option);
	}
}

static void test_cdrom_image_is_read_only(void)
{
	CLEANUP_SPEC struct spec *s = NULL;

	REQUIRE(!spec_parse("/a/b.ISO", &s, NULL));
	CHECK_STR(s->kind->name, "file");
	CHECK(spec_given(s, "ro"));
}

int main(void)
{
	TAP_RUN(test_tables);
	TAP_RUN(test_endings);
	TAP_RUN(test_cdrom_image_is_read_only);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* platter kinds [NAME] */
#include "cli/verb.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "core/tree-text.h"
#include "core/kind.h"

/* ------------------------------------------------------------------ as text */

static int print_kind_line(const struct disk_kind *kind)
{
	char *grammar = kind_grammar(kind);
	if (!grammar)
		return no_memory();
	printf("%s\n    %s\n", grammar, kind->summary);
	free(grammar);
	return STATUS_OK;
}

static const char *type_name(const struct spec_field *field)
{
	switch (field->type) {
	case SPEC_TEXT:
		return "text";
	case SPEC_SIZE:
		return "a size in bytes (K, M, G, T, P, E are powers of 1024)";
	case SPEC_NUMBER:
		return "a number";
	case SPEC_DURATION:
		return "a time in ms (or with a unit: ns, us, ms, s)";
	case SPEC_WORD:
		return "one of";
	case SPEC_FLAG:
		return "given or not";
	}
	return "?";
}

/* A number of the field in its unit. */
static void print_limit(const struct spec_field *field, const char *word, uint64_t value)
{
	char text[BYTES_TEXT_MAX];

	if (field->type == SPEC_SIZE)
		printf(", %s %s", word, print_bytes(value, text));
	else if (field->type == SPEC_DURATION)
		printf(", %s %" PRIu64 " ns", word, value);
	else
		printf(", %s %" PRIu64 "%s%s", word, value, field->unit ? " " : "",
		       field->unit != NULL ? field->unit : "");
}

static void print_field(const struct spec_field *field)
{
	printf("  %s%s\n      %s\n      %s", field->role == SPEC_OPTION ? ";" : "", field->name, field->help,
	       type_name(field));
	if (field->type == SPEC_NUMBER && field->unit)
		printf(" of %s", field->unit);
	for (size_t i = 0; field->type == SPEC_WORD && field->words[i]; i++)
		printf("%s %s", i > 0 ? "," : "", field->words[i]);
	if (field->role == SPEC_PARAMETER)
		printf(field->required ? ", required" : ", may be empty");
	if (field->bare)
		printf(", may be left out with its '='");
	if (field->min > 0)
		print_limit(field, "at least", field->min);
	if (field->max > 0)
		print_limit(field, "at most", field->max);
	if (field->fallback)
		printf(", default %s", field->fallback);
	printf("\n");
}

static int print_kind(const struct disk_kind *kind)
{
	static const char *const children[] = {
		[KIND_LEAF] = "It stands at the bottom of a stack.",
		[KIND_WRAPS] = "It stands on one disk, the SPEC at the end.",
		[KIND_JOINS] = "It stands on several disks: [SPEC,SPEC,...].",
	};
	int status = print_kind_line(kind);
	if (status != STATUS_OK)
		return status;

	printf("    %s\n", children[kind->children]);
	for (const struct spec_field *field = kind->fields; field && field->name; field++) {
		printf("\n");
		print_field(field);
	}
	for (const struct spec_mark *mark = kind->marks; mark && mark->name; mark++)
		printf("\n  ;%s\n      %s\n      marks a member of the list\n", mark->name, mark->help);
	return STATUS_OK;
}

static int print_all(void)
{
	for (size_t i = 0; disk_kinds[i]; i++)
		if (print_kind_line(disk_kinds[i]) != STATUS_OK)
			return STATUS_FAILURE;
	printf("\nA path without a kind in front opens as %s", disk_path_kind);
	for (const struct path_ending *e = disk_path_endings; e->ending; e++)
		printf(", one that ends in %s as %s%s%s", e->ending, e->kind, e->option ? ";" : "",
		       e->option ? e->option : "");
	printf(".\nA path in which there is one of : ; , [ ] or a blank can be written in double quotes.\n"
	       "'platter kinds NAME' tells more of a kind.\n");
	return STATUS_OK;
}

/* ------------------------------------------------------------------ as JSON */

/* The array, or one with only the entry of `kind`. Entries are in the order of the registry. */
static json_t *to_json(const struct disk_kind *kind)
{
	json_t *all = kinds_to_json(), *one;
	size_t i = 0;

	if (!all || !kind)
		return all;
	while (disk_kinds[i] != kind)
		i++;
	one = json_pack("[O?]", json_array_get(all, i));
	json_decref(all);
	return one;
}

/* ------------------------------------------------------------------ */

enum { OPTION_JSON };

static int unknown_kind(const char *name)
{
	const char *nearest = kind_nearest(name);

	fprintf(stderr, "platter kinds: there is no kind '%s'", name);
	if (nearest)
		fprintf(stderr, " (did you mean '%s'?)", nearest);
	fprintf(stderr, "\n");
	return STATUS_FAILURE;
}

static int kinds(const struct verb_arguments *arguments)
{
	const struct disk_kind *kind = NULL;

	if (arguments->nr_operands > 0) {
		kind = kind_find(arguments->operands[0]);
		if (!kind)
			return unknown_kind(arguments->operands[0]);
	}
	if (arguments->options[OPTION_JSON])
		return print_json(to_json(kind));
	return kind ? print_kind(kind) : print_all();
}

const struct verb verb_kinds = {
	.name = "kinds",
	.operands = "[NAME]",
	.max_operands = 1,
	.summary = "List the kinds of disks a SPEC can be made of",
	.details = "With NAME, print every parameter and option of that kind: unit, default and limits.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			{0},
		},
	.run = kinds,
};

/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/spec-oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/spec-internal.h"

static int parse(const char *text, struct spec **out)
{
	struct spec_budget budget = {.bytes = 16 << 20, .nodes = SPEC_MAX_NODES, .no_files = true};

	return spec_parse_within(text, &budget, out, NULL);
}

static const char *text_fault(const struct spec *s, const char *canonical)
{
	CLEANUP_SPEC struct spec *again = NULL;
	CLEANUP_TEXT char *printed = NULL;

	if (parse(canonical, &again))
		return "the canonical text cannot be parsed";
	if (!spec_equal(s, again) || !spec_equal(again, s))
		return "the canonical text gives another tree";
	printed = spec_print(again);
	return printed && !strcmp(printed, canonical) ? NULL : "the canonical text is printed otherwise";
}

/* The text must stay what it is as a member of a list, whatever stands beside it. */
static const char *list_fault(const struct spec *s, const char *canonical)
{
	CLEANUP_SPEC struct spec *list = NULL;
	CLEANUP_TEXT char *text = NULL;

	if (asprintf(&text, "layers:[%s,mem:1M,%s]", canonical, canonical) < 0)
		return "no memory";
	if (parse(text, &list) || list->nr_children != 3)
		return "the canonical text cannot be parsed in a list";
	return spec_equal(s, list->children[0]) && spec_equal(s, list->children[2])
		       ? NULL
		       : "the canonical text gives another tree in a list";
}

static const char *json_fault(const struct spec *s, const char *canonical)
{
	CLEANUP_SPEC struct spec *tree = NULL, *text = NULL, *string = NULL;
	CLEANUP_TEXT char *dumped = NULL, *prefixed = NULL;
	json_t *json = spec_to_json(s), *quoted = utf8_valid(canonical) ? json_string(canonical) : NULL;
	const char *fault = NULL;

	dumped = json ? json_dumps(json, 0) : NULL;
	if (!dumped || asprintf(&prefixed, "json:%s", dumped) < 0)
		fault = "the tree has no JSON";
	else if (spec_from_json(json, &tree, NULL) || !spec_equal(s, tree))
		fault = "the JSON gives another tree";
	else if (parse(prefixed, &text) || !spec_equal(s, text))
		fault = "the text json:... gives another tree";
	else if (quoted && (spec_from_json(quoted, &string, NULL) || !spec_equal(s, string)))
		fault = "the text as a JSON string gives another tree";
	json_decref(json);
	json_decref(quoted);
	return fault;
}

const char *spec_fault(const struct spec *s)
{
	CLEANUP_TEXT char *canonical = spec_print(s);
	const char *fault;

	if (!canonical)
		return "the tree cannot be printed";
	fault = text_fault(s, canonical);
	if (!fault)
		fault = list_fault(s, canonical);
	return fault ? fault : json_fault(s, canonical);
}

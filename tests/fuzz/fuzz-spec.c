/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spec parser, over the registry of toys: whatever parses must print, and read back, as the same tree.
 * "@FILE" is refused through the budget, so that no file is read whose name the fuzzer made up; that code
 * is tested by test-spec.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/spec-internal.h"
#include "tests/spec-oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned depth_of(const struct spec *s)
{
	unsigned deepest = 0;

	for (unsigned i = 0; i < s->nr_children; i++) {
		unsigned depth = depth_of(s->children[i]);

		deepest = depth > deepest ? depth : deepest;
	}
	return deepest + 1;
}

/* The oracle puts three copies into one list, which the limits may refuse. */
static bool near_limits(const struct spec_budget *budget, const struct spec *s)
{
	return depth_of(s) >= SPEC_MAX_DEPTH || budget->nodes < SPEC_MAX_NODES / 4 * 3;
}

static void check_error(int status, const struct error *err)
{
	const char *text = error_text(err);

	if (err->status != status || !utf8_valid(text) || strpbrk(text, "\n\r") || strlen(text) > 65536) {
		fprintf(stderr, "bad error: status %d and %d, '%s'\n", err->status, status, text);
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spec_budget budget = {.bytes = SPEC_MAX_TEXT, .nodes = SPEC_MAX_NODES, .no_files = true};
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;
	CLEANUP_TEXT char *text = strndup((const char *)data, size);
	int status = spec_parse_within(text, &budget, &s, &err);
	const char *fault;

	if (status) {
		check_error(status, &err);
		return 0;
	}
	fault = near_limits(&budget, s) ? NULL : spec_fault(s);
	if (fault) {
		fprintf(stderr, "%s: '%s'\n", fault, text);
		abort();
	}
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/output.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/verb.h"

/* Whether the text has the name between quotes, alone: a short one may stand in any word. */
static bool is_quoted(const char *text, const char *name, size_t length)
{
	for (const char *at = strchr(text, '\''); at; at = strchr(at + 1, '\''))
		if (!strncmp(at + 1, name, length) && at[1 + length] == '\'')
			return true;
	return false;
}

/* A path is what stands behind the last ':' of a SPEC, without options. */
static bool is_named(const char *text, const char *operand)
{
	const char *colon = strrchr(operand, ':'), *name = colon && colon[1] != '\0' ? colon + 1 : operand;

	return is_quoted(text, name, strcspn(name, ";]")) || is_quoted(text, operand, strlen(operand));
}

int error_about(struct error *err, const char *operand)
{
	return !err->status || is_named(error_text(err), operand) ? err->status : error_prefix(err, "'%s'", operand);
}

int error_in_role(struct error *err, const char *role, const char *operand)
{
	if (is_named(error_text(err), operand))
		return error_prefix(err, "%s", role);
	return error_prefix(err, "%s '%s'", role, operand);
}

char *operand_name(const char *role, const char *operand)
{
	char *name;

	return asprintf(&name, "%s '%s'", role, operand) < 0 ? NULL : name;
}

int verb_failed(const char *verb, const struct error *err)
{
	fprintf(stderr, "platter %s: %s\n", verb, error_text(err));
	return STATUS_FAILURE;
}

int operand_failed(const char *verb, const char *operand, struct error *err)
{
	error_about(err, operand);
	return verb_failed(verb, err);
}

int no_memory(void)
{
	fprintf(stderr, "platter: not enough memory\n");
	return STATUS_FAILURE;
}

int print_json(json_t *json)
{
	if (!json)
		return no_memory();
	json_dumpf(json, stdout, JSON_INDENT(2));
	json_decref(json);
	putchar('\n');
	return STATUS_OK; /* main() looks whether stdout took it */
}


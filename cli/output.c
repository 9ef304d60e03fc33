/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/output.h"

#include <stdio.h>
#include <string.h>

#include "cli/verb.h"

/* A path is what stands behind the last ':' of a SPEC, without options. */
int error_about(struct error *err, const char *operand)
{
	const char *colon = strrchr(operand, ':'), *name = colon && colon[1] != '\0' ? colon + 1 : operand;
	size_t length = strcspn(name, ";]");

	if (err->status == 0 || (length > 0 && memmem(error_text(err), strlen(error_text(err)), name, length)))
		return err->status;
	return error_prefix(err, "'%s'", operand);
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


/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/output.h"

#include <stdio.h>

#include "cli/verb.h"

int verb_failed(const char *verb, const struct error *err)
{
	fprintf(stderr, "platter %s: %s\n", verb, error_text(err));
	return STATUS_FAILURE;
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


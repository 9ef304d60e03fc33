/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/output.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/verb.h"
#include "core/spec.h"

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

const char *print_bytes(uint64_t bytes, char buffer[BYTES_TEXT_MAX])
{
	char human[SIZE_TEXT_MAX];

	size_print_human(bytes, human);
	if (bytes < 1024)
		snprintf(buffer, BYTES_TEXT_MAX, "%s", human);
	else
		snprintf(buffer, BYTES_TEXT_MAX, "%s (%" PRIu64 " bytes)", human, bytes);
	return buffer;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* platter help [VERB] */
#include "cli/verb.h"

static int help(const struct verb_arguments *arguments)
{
	if (arguments->nr_operands == 0) {
		print_help();
		return STATUS_OK;
	}
	const struct verb *verb = verb_find(arguments->operands[0]);
	if (!verb)
		return STATUS_USAGE;
	verb_print_help(verb);
	return STATUS_OK;
}

const struct verb verb_help = {
	.name = "help",
	.operands = "[VERB]",
	.max_operands = 1,
	.summary = "Explain the command or one of its verbs",
	.options = (const struct verb_option[]){{0}},
	.run = help,
};

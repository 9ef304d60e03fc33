/* SPDX-License-Identifier: BSD-3-Clause */
/* platter zero SPEC */
#include "cli/change-range.h"

enum { OPTION_KEEP = RANGE_OPTIONS, OPTION_FAST };

static int zero(const struct verb_arguments *a)
{
	struct range_change change = {.verb = &verb_zero, .change = bytes_write_zeroes};

	if (!a->options[OPTION_KEEP])
		change.io_flags |= IO_MAY_UNMAP;
	if (a->options[OPTION_FAST])
		change.io_flags |= IO_FAST_ONLY;
	return change_range(&change, a);
}

const struct verb verb_zero = {
	.name = "zero",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Make bytes of a disk zero",
	.details = "Returns when that is durable.\n",
	.options =
		(const struct verb_option[]){
			RANGE_OPTION_ROWS,
			[OPTION_KEEP] = {.name = "keep", .help = "keep the space allocated"},
			[OPTION_FAST] = {.name = "fast", .help = "fail rather than write zeroes out"},
			{0},
		},
	.run = zero,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* platter trim SPEC */
#include "cli/change-range.h"

#include <errno.h>

/* A hint that is ignored would be a lie to who asks for it by name. */
static int check(const struct disk *d, struct error *err)
{
	if (disk_info(d)->discard != DISK_DISCARD_IGNORED)
		return 0;
	return error_set(err, -EOPNOTSUPP, "the disk frees no space");
}

static int trim(const struct verb_arguments *a)
{
	return change_range(&(struct range_change){.verb = &verb_trim, .check = check, .change = bytes_discard}, a);
}

const struct verb verb_trim = {
	.name = "trim",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Free the space that bytes of a disk take",
	.details = "What they hold afterwards is as 'platter info' says of discard. Parts of blocks at the ends stay.\n",
	.options = (const struct verb_option[]){RANGE_OPTION_ROWS, {0}},
	.run = trim,
};

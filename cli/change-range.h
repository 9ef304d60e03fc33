/* SPDX-License-Identifier: BSD-3-Clause */
/* What the verbs zero and trim have in common: something is done to a range of bytes of a disk. */
#ifndef PLATTER_CLI_CHANGE_RANGE_H
#define PLATTER_CLI_CHANGE_RANGE_H

#include "cli/progress.h"
#include "cli/verb.h"
#include "core/bytes.h"

/* The first rows of the verb's options. */
enum { RANGE_OFFSET, RANGE_LENGTH, RANGE_ALL, RANGE_PROGRESS, RANGE_OPTIONS };

#define RANGE_OPTION_ROWS                                                                                              \
	[RANGE_OFFSET] = {.name = "offset", .letter = 'o', .argument = "SIZE", .type = OPTION_SIZE,                    \
			  .help = "from this byte on"},                                                                \
	[RANGE_LENGTH] = {.name = "length", .letter = 'l', .argument = "SIZE", .type = OPTION_SIZE,                    \
			  .help = "so many bytes; not given: to the end of the disk"},                                 \
	[RANGE_ALL] = {.name = "all", .help = "the whole disk"}, [RANGE_PROGRESS] = PROGRESS_OPTION

struct range_change {
	const struct verb *verb;
	unsigned io_flags; /* enum io_flags */
	int (*check)(const struct disk *d, struct error *err); /* whether the disk can do it at all; NULL: all can */
	int (*change)(struct bytes *b, uint64_t offset, uint64_t length, const struct io *io);
};

/* Does it, and flushes. An exit status. */
int change_range(const struct range_change *c, const struct verb_arguments *a);

#endif

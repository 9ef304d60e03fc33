/* SPDX-License-Identifier: BSD-3-Clause */
/* In which file the bytes of a disk lie, where that is one file and the same shift for all of them. */
#ifndef PLATTER_CLI_WHERE_H
#define PLATTER_CLI_WHERE_H

#include <stdint.h>

#include <jansson.h>

struct where {
	const char *path; /* lives as long as the tree; NULL: it cannot be told */
	uint64_t shift;   /* bytes: where in the file the disk begins */
};

/* From the tree that disk_describe() made: down through nodes that show the disk below, or a window of it, unchanged. */
struct where where_in_file(json_t *tree);

#endif

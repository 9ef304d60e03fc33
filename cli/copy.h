/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying a disk to another one, and comparing two: in parallel, without reading what is known to be zero. */
#ifndef PLATTER_CLI_COPY_H
#define PLATTER_CLI_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/progress.h"
#include "core/disk.h"

/* The first `length` bytes of two disks, whole blocks of both. */
struct copy {
	struct disk *from, *to;
	const char *from_name, *to_name; /* for messages: "SRC 'disk.img'" */
	uint64_t length;
	unsigned jobs;
	uint64_t sparse; /* runs of so many zero bytes are not written but zeroed; 0: none are looked for */
	bool to_is_zero; /* what is zero needs no writing at all */
	struct progress *progress;
};

/* Checks that both disks take `length`: whole blocks, inside of them. */
int copy_check(const struct copy *c, struct error *err);

/* Makes `to` like `from`. Not flushed. */
int copy_run(const struct copy *c, struct error *err);

/* No byte differs. */
#define COPY_SAME UINT64_MAX

/* Finds the first byte in which they differ, or COPY_SAME. */
int copy_compare(const struct copy *c, uint64_t *first, struct error *err);

/* The first byte from `offset` to the end of `d` that is not zero, or COPY_SAME. */
int copy_find_data(const struct copy *c, struct disk *d, const char *name, uint64_t offset, uint64_t *first,
		   struct error *err);

#endif

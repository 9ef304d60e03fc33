/* SPDX-License-Identifier: BSD-3-Clause */
/* What a verb writes a whole disk to: made under another name and given its own at the end, or one that is there. */
#ifndef PLATTER_CLI_TARGET_H
#define PLATTER_CLI_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "core/disk.h"
#include "core/spec.h"

/* Zero-initialised there is none. */
struct target {
	struct disk *disk; /* for the caller to write to */
	bool is_new;       /* it was made here, so that it reads as zeroes */

	/* The rest is for target.c. */
	struct spec *spec;
	struct disk *top;
	char *path, *temporary; /* of a new one */
	bool replaces;          /* what is at `path` may be replaced */
	int replaced_fd;        /* of what will be, locked so that nobody writes to it; -1: none */
};

struct target_request {
	const char *spec;
	uint64_t size;       /* bytes, of a new one */
	uint32_t block_size; /* of the source: a new one gets it where its spec leaves that open */
	bool existing;       /* write into one that is there */
	bool replace;        /* a new one may take the place of a file that is there */
	bool durable;        /* target_finish() makes everything durable */
};

/*
 * Opens or makes the target. A new one is a file beside its name, ".NAME.XXXXXX", until target_finish(), so that nothing
 * half-made ever has its name. -EEXIST when there is something already; -EOPNOTSUPP for kinds that do not lie in one file.
 */
int target_open(struct target *t, const struct target_request *request, struct error *err);

/* Makes it durable, and says so on failure. Nothing may be written afterwards: target_finish() does not do it again. */
int target_flush(struct target *t, struct error *err);

/* Makes it durable (unless that was not asked for), closes it, and gives a new one its name. Whatever failed, nothing is left open. */
int target_finish(struct target *t, struct error *err);

/* Gives up: a new one is removed. Does nothing after target_finish(). */
void target_drop(struct target *t);

#endif

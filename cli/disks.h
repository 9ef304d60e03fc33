/* SPDX-License-Identifier: BSD-3-Clause */
/* What verbs do with a disk before and after their own work: open, close, look at ranges of it. */
#ifndef PLATTER_CLI_DISKS_H
#define PLATTER_CLI_DISKS_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/progress.h"
#include "cli/verb.h"
#include "core/disk.h"
#include "core/kind.h"

/*
 * Opens `spec` with `flags` (enum open_flags), calls `run`, closes the disk; the first failure is the result, and names the SPEC.
 * `role`: which operand that is, such as "SRC", to stand in front of what goes wrong with opening and closing; NULL: it is the only one.
 */
int with_disk(const char *spec, const char *role, unsigned flags, int (*run)(struct disk *d, void *argument, struct error *err),
	      void *argument, struct error *err);

/* Long work of a verb on the disk that its first operand names. */
struct disk_work {
	const struct verb *verb;
	const struct verb_arguments *arguments;
	unsigned progress_row;      /* of the verb's options: how progress is shown */
	struct progress **progress; /* set before `run` is called */
	const char *role;           /* this, `flags`, `run` and `argument` as with_disk() has them */
	unsigned flags;
	int (*run)(struct disk *d, void *argument, struct error *err);
	void *argument;
};

/* with_disk() between progress_begin() and progress_end(); says what failed. Returns an exit status. */
int work_on_disk(const struct disk_work *w);

/* A range of bytes as options give it. */
struct byte_range {
	const char *offset_text, *length_text; /* NULL: not given */
	uint64_t offset, length;               /* without a length: to the end of the disk */
};

/* What the options in these two rows say, each an OPTION_SIZE. */
struct byte_range range_of(const struct verb_arguments *a, unsigned offset_row, unsigned length_row);

/* Checks that the range is inside a disk of `size` bytes, and fills in the length. -ERANGE. */
int range_check(struct byte_range *r, uint64_t size, struct error *err);

/* All runs of [offset, offset + length), whole blocks, into `out`, which the caller frees. */
int all_extents(struct disk *d, uint64_t offset, uint64_t length, struct extents *out, struct error *err);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* What moves between a child and its parents: commit and rebase. */
#ifndef PLATTER_CLI_MERGE_H
#define PLATTER_CLI_MERGE_H

#include <stdint.h>

#include "cli/progress.h"
#include "core/disk.h"
#include "layers/layer.h"

/*
 * Brings all that the child holds into the parent, which grows where it is shorter, and flushes it. What the two show does not change at any
 * point, so it can be interrupted and done again. -EINTR when a signal has asked to stop. *bytes: what was copied or zeroed.
 */
int merge_into_parent(struct layer *child, struct layer *parent, struct progress *progress, uint64_t *bytes, struct error *err);

/*
 * Where the child holds nothing and the disks below it differ, it gets what `now` has; then it is flushed. With `next` below it, it shows
 * the same as with `now`. *bytes: what it got.
 */
int merge_keep_content(struct layer *child, struct disk *now, struct disk *next, struct progress *progress, uint64_t *bytes,
		       struct error *err);

#endif

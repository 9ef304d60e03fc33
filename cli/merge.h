/* SPDX-License-Identifier: BSD-3-Clause */
/* What a child gets that is to have another parent. */
#ifndef PLATTER_CLI_MERGE_H
#define PLATTER_CLI_MERGE_H

#include <stdint.h>

#include "cli/progress.h"
#include "core/disk.h"
#include "layers/layer.h"

/*
 * Where the child holds nothing and the disks below it differ, it gets what `now` has; then it is flushed. With `next` below it, it shows
 * the same as with `now`. *bytes: what it got.
 */
int merge_keep_content(struct layer *child, struct disk *now, struct disk *next, struct progress *progress, uint64_t *bytes,
		       struct error *err);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying between byte views without a program in between. */
#ifndef PLATTER_FUSE_COPY_H
#define PLATTER_FUSE_COPY_H

#include "core/bytes.h"

/* At most so much in one call, so that somebody may interrupt a long copy between two. */
#define COPY_MAX_BYTES (UINT64_C(64) << 20)

/*
 * Copies up to *length bytes, through `buffer` of `size` bytes (NULL: -ENOMEM); what reads as zero is zeroed and not
 * copied. The ranges lie inside their disks and do not overlap. *length becomes what was copied, which is less than asked
 * only where COPY_MAX_BYTES were, or after something was copied and then something failed. 0 or a status of core/disk.h.
 */
int bytes_copy(struct bytes *from, uint64_t from_offset, struct bytes *to, uint64_t to_offset, size_t *length,
	       void *buffer, size_t size, const struct io *io);

#endif

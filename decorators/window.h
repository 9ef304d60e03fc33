/* SPDX-License-Identifier: BSD-3-Clause */
/* A byte window of a disk: the object behind slice and part. */
#ifndef PLATTER_DECORATORS_WINDOW_H
#define PLATTER_DECORATORS_WINDOW_H

#include "core/node.h"

/* A kind's own state begins with it. */
struct window {
	struct disk disk;
	struct disk *below; /* the child, or a disk that others use as well: then there is no child */
	uint64_t offset;
	uint64_t length; /* UINT64_MAX: to the end of the disk below, wherever that is */
};

/*
 * Allocates a state of `state_size` bytes over `below`, with all that can be known of it in disk.info. Of a disk that is `shared`
 * the window will hold a reference from window_publish() to its end; else `below` becomes its child. `describe` (NULL:
 * window_describe) as in struct disk_ops. NULL when memory ran out.
 */
void *window_new(size_t state_size, const char *kind, struct disk *below, bool shared,
		 void (*describe)(struct disk *d, json_t *object));

/*
 * Checks the window and makes it usable. On failure `err` says what was wrong, the window is freed, and `below` is the caller's
 * as before. What a shared disk loses or gains at its end is not seen by the size of the window; requests for what is gone
 * fail with -ERANGE.
 */
int window_publish(struct window *w, uint64_t offset, uint64_t length, struct disk **out, struct error *err);

/* Says where the window begins, and of a shared disk what it is. */
void window_describe(struct disk *d, json_t *object);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory for what is on its way between a caller's buffer and a disk: given back after each request, kept for the next. */
#ifndef PLATTER_DECORATORS_STAGING_H
#define PLATTER_DECORATORS_STAGING_H

#include <stddef.h>

#define STAGING_BYTES ((size_t)256 * 1024) /* of a buffer; a multiple of every block size */
#define STAGING_PLACES 64u
#define STAGING_SPARE 4u

/*
 * Each processor keeps a few buffers, whose memory is in its cache. Zero-initialised it has none. A buffer may be held while
 * its request waits, and be given back on another processor.
 */
struct staging {
	struct staging_place {
		_Alignas(64) void *_Atomic spare[STAGING_SPARE];
	} places[STAGING_PLACES];
};

/* A page-aligned buffer of STAGING_BYTES; NULL when memory ran out. */
void *staging_take(struct staging *s);

/* Gives it back. Accepts NULL. */
void staging_give(struct staging *s, void *buffer);

/* Frees those that are kept, which are all when no request is under way. */
void staging_drop(struct staging *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Where caches lie and what their folders are called. */
#ifndef PLATTER_LAYERS_AUTOCACHE_NAME_H
#define PLATTER_LAYERS_AUTOCACHE_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/identity.h"

#define CACHE_NAME_MAX 200 /* bytes of a folder's name with the 0 that ends it */
#define CACHE_SUFFIX ".platter"
#define CACHE_NEW ".platter-new-" /* being made */
#define CACHE_OLD ".platter-old-" /* out of use, to be removed */

/*
 * The folder's name for a key of any bytes. No two keys share one; it has no separator and no control character, and begins
 * with no dot.
 */
void cache_name_of_key(const char *key, char out[CACHE_NAME_MAX]);

/* The same for a disk that is known by its identity alone; no key has such a name. */
void cache_name_of_identity(const struct identity *identity, char out[CACHE_NAME_MAX]);

/* Is it the name of a cache? */
bool cache_name_is(const char *name);

/* The name of something that is being made or removed? */
bool cache_name_is_temporary(const char *name);

/*
 * The folder that all caches lie in, from the environment, made with its parents where it is missing. `given` is what the
 * spec says; NULL: nothing. *out is to be freed with free().
 */
int cache_root(const char *given, char **out, struct error *err);

/*
 * The most that all caches may take, in bytes: `given`, or what the environment says, or a tenth of the file system that the
 * descriptor is on, but no more than 10 GiB.
 */
int cache_max(uint64_t given, int root, uint64_t *out, struct error *err);

#define CACHE_MIN_MAX (UINT64_C(1) << 20)

#endif

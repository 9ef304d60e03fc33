/* SPDX-License-Identifier: BSD-3-Clause */
/* What a differencing VHDX file says of its parent ([MS-VHDX] 2.6.2.6). */
#ifndef PLATTER_FORMATS_VHDX_LOCATOR_H
#define PLATTER_FORMATS_VHDX_LOCATOR_H

#include "formats/parent.h"
#include "formats/vhdx-metadata.h"

#define VHDX_MAX_PAIRS 256u

struct vhdx_locator {
	struct guid linkage[2];    /* parent_linkage and parent_linkage2: DataWriteGuids that the parent may have */
	bool has_linkage[2];
	struct parent_names names; /* in the order in which they are to be tried */
};

/* Reads the locator, which there is. Keys that are not known are left alone. */
int vhdx_locator_load(struct container *c, const struct vhdx_metadata *m, struct vhdx_locator *out, struct error *err);
void vhdx_locator_free(struct vhdx_locator *l);

/*
 * The item for a parent: its DataWriteGuid, a second one (NULL: none), and paths in UTF-8 with "\", of which each may be NULL. *out,
 * VHDX_MAX_ITEM_BYTES of memory, is to be freed. -EINVAL when it is too long or not UTF-8.
 */
int vhdx_locator_encode(const struct guid *linkage, const struct guid *linkage2, const char *relative, const char *absolute,
			void **out, uint32_t *length, struct error *err);

/* The way from the folder of `path` to `parent`, and its absolute path, as Windows writes them. Both are to be freed, also on failure. */
int vhdx_locator_paths(const char *path, const char *parent, char **relative, char **absolute, struct error *err);

#endif

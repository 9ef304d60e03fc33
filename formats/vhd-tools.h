/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD images as the verbs of the command see them, besides what formats/vhd.h has. */
#ifndef PLATTER_FORMATS_VHD_TOOLS_H
#define PLATTER_FORMATS_VHD_TOOLS_H

#include "formats/vhd.h"

/* These open the image in the container, which stays the caller's and must not be open elsewhere. */

/* How many blocks of the image have space in the file; 0 of a fixed one. */
int vhd_count_blocks(struct container *c, const struct vhd_options *o, uint64_t *count, struct error *err);

/*
 * The differencing image names the file `parent` as its parent from now on: a VHD image by its id, or, with `raw`, a raw file. Nothing is compared or
 * copied: the caller says that what the child lacks is the same there. A power cut leaves the old name or the new one. -EINVAL for images
 * without a parent; -ELOOP for itself.
 */
int vhd_set_parent(struct container *c, const struct vhd_options *o, const char *parent, bool raw, struct error *err);

/*
 * The image does not say any more when its parent was changed last, so that it may be; by its id it still knows it. Does nothing where
 * nothing was said.
 */
int vhd_allow_change(struct container *c, const struct vhd_options *o, struct error *err);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD images: fixed, dynamic, differencing. docs/formats/vhd.md says what they look like. */
#ifndef PLATTER_FORMATS_VHD_H
#define PLATTER_FORMATS_VHD_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "core/error.h"
#include "formats/container.h"
#include "formats/parent.h"
#include "formats/vhd-format.h"
#include "layers/layer.h"

/* ------------------------------------------------------------------ opening */

struct vhd_options {
	bool lax;                     /* wrong checksums are taken */
	enum vhd_size_rule size_rule;
};

/*
 * The image in `c` as a layer, which owns the container with success. It is written to unless the container is read-only. A parent is
 * not looked for: where a differencing image has no data, the layer says that it is absent. -EINVAL with the reason.
 */
int vhd_layer_open(struct container *c, const struct vhd_options *o, struct layer **out, struct error *err);

/*
 * The same and its parents, each read-only and below the other, as a disk. With policy->parent the disk of that spec is its parent. `kind`
 * names the disk.
 */
int vhd_disk_open(const char *kind, struct container *c, const struct vhd_options *o, const struct parent_policy *policy,
		  unsigned open_flags, struct disk **out, struct error *err);

/* ------------------------------------------------------------------ making */

struct vhd_create_options {
	enum vhd_type type;
	uint64_t size;       /* bytes, whole sectors, up to 2040 GiB; differencing: 0 is the parent's */
	uint32_t block_size; /* bytes, 0: 2 MiB; not for fixed */
	bool full;           /* fixed: its space is allocated now */
	bool exact;          /* the size need not be whole MiB, as Azure asks for */

	/* differencing */
	const char *parent;             /* path of the parent as we find it; NULL: the child names none */
	bool raw_parent;                /* it is a raw file, which the child knows by a null id, as Xen's do */
	const char *child;              /* path of the new file, for the relative one */
	const struct vhd_options *read; /* how to read the parent; NULL: strictly */
};

/* Whether these can be an image at all, before a file is made. -EINVAL. */
int vhd_create_check(const struct vhd_create_options *o, struct error *err);

/*
 * Makes an image in an empty container and makes it durable; cut off at any point it is no image. The container stays the caller's. -EINVAL;
 * -ENOSPC; what opening the parent fails with.
 */
int vhd_create(struct container *c, const struct vhd_create_options *o, struct error *err);

/* ------------------------------------------------------------------ what the verbs do */

/*
 * These open the image in the container, which stays the caller's and must not be open elsewhere; they write unless it is read-only.
 * Reports are JSON objects, a new reference each.
 */

/* What footer and header say, as fields of the object: type, size, creator, id, blocks, parent names. */
int vhd_info(struct container *c, const struct vhd_options *o, json_t **report, struct error *err);

/*
 * Where the disk's data lies: an array of {offset, length, kind: "data" | "zero" | "absent"} and, for data, "at", its place in the
 * file; neighbours that adjoin in both are one.
 */
int vhd_map(struct container *c, const struct vhd_options *o, json_t **report, struct error *err);

/*
 * Looks for what is wrong: both footers, header, BAT entries outside of the file or over each other or over what else is in it, and
 * bitmaps of dynamic disks that hide data from those who look at them. With `repair`, and a container that can be written, mends it:
 * checksums and footers are made right, the one of two overlapping entries that comes later, and entries that point outside, are made
 * absent (their data is lost to begin with), bitmaps are filled. Without, it changes nothing and says what it would do.
 *
 *     {"problems": [{"what": text, "repair": text, "repaired": bool}], "structures": [...], "nr_problems": n, "blocks": n, "unused_bytes": n}
 *
 * A thousand are listed. Of `structures` rows are those of formats/structures.h. `unused_bytes`: of the file, what compacting could give back. An image that cannot be told at all is an error.
 */
int vhd_check(struct container *c, const struct vhd_options *o, bool repair, json_t **report, struct error *err);

/* Changes the size of the disk (bytes, whole sectors, up to 2040 GiB); see formats/vhd-resize.c for what happens when. */
int vhd_resize(struct container *c, const struct vhd_options *o, uint64_t size, struct error *err);

/*
 * Makes the file as short as it goes without moving more than that takes: blocks that hold nothing are dropped, those at the end moved
 * to free places, in a way that a power cut does not hurt. {"dropped": blocks, "moved": blocks, "before": bytes, "after": bytes}
 */
int vhd_compact(struct container *c, const struct vhd_options *o, json_t **report, struct error *err);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX files ([MS-VHDX]): disks and layers in them, and what is done to them as a whole. */
#ifndef PLATTER_FORMATS_VHDX_H
#define PLATTER_FORMATS_VHDX_H

#include "formats/container.h"
#include "formats/guid.h"
#include "formats/parent.h"
#include "layers/layer.h"

struct vhdx;

/*
 * Opens the VHDX file in `c` as a layer, which owns the container with success. Read-only if the container is: then a log that is
 * not empty is replayed in memory; otherwise in the file, durably. What a differencing file does not hold is absent, in any other
 * it is zero. The parent is not looked at.
 */
int vhdx_layer_open(struct container *c, struct layer **out, struct error *err);

/* Of an open file: does it have a parent, and its DataWriteGuid, by which children know it. */
bool vhdx_has_parent(const struct layer *l);
struct guid vhdx_data_write_guid(const struct layer *l);

/* ------------------------------------------------------------------ chains */

/* A file and its parents as layers, top first. */
struct vhdx_chain {
	struct layer_place *places; /* owned, and the layers as well */
	unsigned count;
};

/*
 * Opens the file in `c`, which becomes the chain's with success, and all parents that are found, read-only. Parents lie where
 * `policy` allows; each must have the DataWriteGuid that its child names, unless policy->ignore_change.
 */
int vhdx_chain_open(struct container *c, const struct parent_policy *policy, struct vhdx_chain *out, struct error *err);

/* Closes what vhdx_chain_open() made, unflushed; for who cannot use it. */
void vhdx_chain_abandon(struct vhdx_chain *chain);

#endif

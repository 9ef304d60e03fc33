/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX files ([MS-VHDX]): disks and layers in them, and what is done to them as a whole. */
#ifndef PLATTER_FORMATS_VHDX_H
#define PLATTER_FORMATS_VHDX_H

#include <jansson.h>

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

/*
 * Said before anything is written to the layer: it will change nothing that the disk shows, so the DataWriteGuid stays, and children
 * go on.
 */
void vhdx_keep_data_id(struct layer *l);

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

/* ------------------------------------------------------------------ making one */

struct vhdx_create_options {
	uint64_t size;            /* of the disk, bytes: whole sectors, 1 to 64 TiB */
	uint32_t block_size;      /* power of two, 1 to 256 MiB; 0: 32 MiB, fixed and differencing 2 MiB, as Windows chooses */
	uint32_t logical_sector;  /* 512 or 4096; 0: 512 */
	uint32_t physical_sector; /* 512 or 4096, not less than the logical one; 0: 4096 */
	bool fixed;               /* all blocks have space from the beginning; not with a parent */
	struct guid id;           /* page 83; null: a random one */

	/* Differencing: what the parent is known by, and where it is, in UTF-8 with "\"; at least one path. */
	bool has_parent;
	struct guid parent;           /* its DataWriteGuid */
	const char *parent_relative;  /* to the folder of the new file; NULL: none */
	const char *parent_absolute;  /* NULL: none */
};

/*
 * Writes a new VHDX file into the container, which is empty, and makes it durable; cut off at any point it is no VHDX file. -EINVAL
 * for what the specification does not allow.
 */
int vhdx_create(struct container *c, const struct vhdx_create_options *o, struct error *err);

/*
 * Makes the file `path`, which must not exist, with the differences to the VHDX file `parent`: of its size, sectors and id. Both ways to
 * the parent are written down, relative and absolute. `block_size` as above. On failure there is no file.
 */
int vhdx_create_child(const char *path, const char *parent, uint32_t block_size, struct error *err);

/*
 * For who makes that file himself: fills in how the new file `path` names `parent`, and what it has of it; the size only where that is
 * 0. vhdx_child_options_free() frees what was filled in, also after a failure.
 */
int vhdx_child_options(const char *path, const char *parent, struct vhdx_create_options *o, struct error *err);
void vhdx_child_options_free(struct vhdx_create_options *o);

/* ------------------------------------------------------------------ looking for damage */

struct vhdx_findings {
	json_t *list;       /* owned: {"what", "problem", "repair"}: where, what is wrong, what repairing does or did; null: it cannot be */
	json_t *structures; /* owned: each that was looked at, with its place and what was found; rows of formats/structures.h */
	json_t *summary;    /* owned: blocks of each state, bytes in use, bytes that nothing uses */
	unsigned errors;    /* findings that make the file, or a part of it, unusable to some reader */
	unsigned repaired;  /* ... that were mended, or would be */
};

/*
 * Looks at every structure of the file: headers, log, region tables, metadata, each entry of the table, sector bitmaps. The log is replayed in
 * memory first. `repair`: mends what can be without guessing, durably and so that a power cut leaves it mended or not; the container is
 * writable then. What is mended never held data that could still be read. 0 when the check could be carried
 * out, whatever it found.
 */
int vhdx_check(struct container *c, bool repair, struct vhdx_findings *out, struct error *err);
void vhdx_findings_free(struct vhdx_findings *f);

/* ------------------------------------------------------------------ making one smaller */

struct vhdx_compact_result {
	uint64_t before, after; /* bytes of the file */
	uint64_t zeroed;        /* blocks that held nothing but zeroes, and now have no space */
	uint64_t moved;         /* blocks that were moved to where there was room */
};

/*
 * Gives back what the file does not need: blocks of zeroes become "zero" (with `find_zeroes`; all data is read for that), the last
 * blocks move into free space, the file is cut. The container is writable. What the disk holds does not change, nor does the DataWriteGuid, so children
 * go on. Cut off at any point the file is whole. Fixed disks keep their blocks.
 */
int vhdx_compact(struct container *c, bool find_zeroes, struct vhdx_compact_result *out, struct error *err);

/* ------------------------------------------------------------------ parents of files that are there */

/*
 * The differencing file `path` names the VHDX file `parent` as its parent from now on, by its DataWriteGuid of now, by the way to it and
 * its absolute path. Nothing is compared or copied: the caller says that what the child lacks is the same there. Crash-safe.
 */
int vhdx_rebase(const char *path, const char *parent, struct error *err);

/*
 * Brings what the differencing file `path` holds into `parent`, which must be its parent (-ESTALE), and may be differencing itself; a
 * parent that is shorter grows. The child stays as it is, and names the parent as that is now. Interrupted at any point the
 * chain opens and reads the same, and the call can be made again. Other children of the parent are of no use afterwards. `watch` is told,
 * and may end it (-EINTR); NULL: nobody.
 */
int vhdx_merge(const char *path, const char *parent, struct watch *watch, struct error *err);

/* By which names the child knows its parent, in UTF-8 with "\": relative to its folder, and absolute. Either may be NULL. */
struct vhdx_names {
	char *relative;
	char *absolute;
};

/* The same two with files that are open already: containers, which stay the caller's. */
int vhdx_rebase_in(struct container *child, struct container *parent, const struct vhdx_names *names, struct error *err);
int vhdx_merge_in(struct container *child, struct container *parent, const struct vhdx_names *names, struct error *err);

#endif

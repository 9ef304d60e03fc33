/* SPDX-License-Identifier: BSD-3-Clause */
/* Image files as verbs work on them: found by a SPEC, with what their format can do, and the chain they are in. */
#ifndef PLATTER_CLI_IMAGE_H
#define PLATTER_CLI_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "core/error.h"
#include "core/spec.h"
#include "formats/container.h"
#include "layers/layer.h"

/*
 * What a format can do with an image file as a whole. Container and path are those of the file, which must not be open elsewhere, and stay the
 * caller's; `spec` is the node that names it, for its options. Reports are JSON objects, a new reference each:
 *
 *   info     what the file says of itself: format, type, ... ; "parents", "parent_id" or "linkage" of one with a parent
 *   map      an array of {offset, length, kind: "data" | "zero" | "absent", at}
 *   check    {"problems": [{where, what, repair}], "structures": rows of formats/structures.h, nr_problems, nr_repairable, use}: without `repair` nothing is changed; then `repair` says what
 *            could be done, null: nothing. `where` may be null
 *   compact  {before_bytes, after_bytes, dropped_blocks, moved_blocks}. Without `scan` blocks are not read to look for zeroes
 */
struct image_tools {
	int (*info)(struct container *c, const struct spec *spec, json_t **report, struct error *err);
	int (*map)(struct container *c, const struct spec *spec, json_t **report, struct error *err);
	int (*check)(struct container *c, const struct spec *spec, bool repair, json_t **report, struct error *err);
	int (*compact)(struct container *c, const struct spec *spec, bool scan, json_t **report, struct error *err);

	/* The image alone, as a layer, which owns the container with success. */
	int (*open_layer)(struct container *c, const struct spec *spec, struct layer **out, struct error *err);

	/* The image `path` names `parent` as its parent from now on; nothing is compared. `raw`: it is no image but a raw file, which only a vhd can have. */
	int (*set_parent)(const char *path, const struct spec *spec, const char *parent, bool raw, struct error *err);

	/* Brings what `path` holds into `parent`, where the format must do that itself; NULL: by layers, after allow_change. */
	int (*merge)(const char *path, const char *parent, struct watch *watch, struct error *err);

	/* The image may have its parent changed under it. NULL: nothing is to be done for that. */
	int (*allow_change)(struct container *c, const struct spec *spec, struct error *err);
};

extern const struct image_tools vhd_image_tools, vhdx_image_tools;

/* ------------------------------------------------------------------ one image */

struct kind_tools;

/* Zero-initialised there is none. */
struct image {
	struct spec *spec;
	const struct image_tools *tools;
	const char *path; /* the spec's */
};

#define CLEANUP_IMAGE __attribute__((cleanup(image_free)))

/* Whether the kind has image tools, for tools_refuse(). */
bool image_is_kind(const struct kind_tools *tools);

/*
 * Parses the SPEC of an image file. -EOPNOTSUPP for kinds that are none; `done` says in the message what cannot be done with them: "compacted".
 * -EINVAL with create= in it.
 */
int image_find(const char *spec, const char *done, struct image *out, struct error *err);
void image_free(struct image *image);

/* Opens the file; for writing -EROFS where the spec says ro. */
int image_open(const struct image *image, bool writable, struct container **out, struct error *err);

/*
 * What the files that the spec's nodes name say of themselves, an array of `info` with "file"; images of the spec alone, not their parents.
 * A file that cannot be told of has "error". NULL when memory ran out.
 */
json_t *image_list_info(const struct spec *spec);

/* ------------------------------------------------------------------ the chain of an image and its parents */

struct chain_file {
	const char *path;
	const struct image_tools *tools; /* NULL: raw */
	struct spec *spec;               /* of this file alone, with the options of the image for reading */
};

/* Top first. Zero-initialised it is empty. */
struct chain {
	struct chain_file *files;
	size_t count;
};

#define CLEANUP_CHAIN __attribute__((cleanup(chain_free)))

/*
 * The chain that "layers" of disk_describe() tells of. `like`: the node whose options for reading hold for each file; NULL: wrong checksums
 * are taken, since they were when it was opened.
 */
int chain_of_layers(const json_t *layers, const struct spec *like, struct chain *out, struct error *err);

/* The files of the image and all its parents, which are opened for it as the spec says: whatever is wrong with them is found. */
int chain_find(const struct image *image, struct chain *out, struct error *err);
void chain_free(struct chain *chain);

/* Opens the files from `first` on, read-only and with nothing looked for, as one disk. */
int chain_open(const struct chain *chain, size_t first, struct disk **out, struct error *err);

#endif

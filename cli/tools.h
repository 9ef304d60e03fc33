/* SPDX-License-Identifier: BSD-3-Clause */
/* What the command can do with the image files of each kind beyond opening them. */
#ifndef PLATTER_CLI_TOOLS_H
#define PLATTER_CLI_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/spec.h"

struct image_tools;

/*
 * One row a kind that lies in one file. A function that a kind has not is NULL, and the verb refuses it with the list of the
 * kinds that have it (tools_refuse).
 */
struct kind_tools {
	const char *kind;
	const char *path;   /* the parameter that names the file */
	const char *block;  /* the option that is the logical block size of a new one; NULL: it has none */
	uint32_t block_from; /* a copy of a disk with smaller blocks is left at the default */
	const char *parent; /* the option that names a disk below, of which a new one has its size; NULL: it has none */
	bool takes_size;    /* a new one is of a size, unless it has a parent; else it takes that from the disk below */

	/* Changes `spec` so that opening it makes the file anew, for a disk of `size` bytes if it takes one. */
	int (*create)(struct spec *spec, uint64_t size, struct error *err);

	/* With a parent: makes the file, and changes `spec` so that it opens it. NULL: `create` does, with size 0. */
	int (*create_child)(struct spec *spec, struct error *err);

	/* NULL, or what can be done with the file as an image: cli/image.h. */
	const struct image_tools *image;
};

/* The new disk that `spec` names has its size from a disk below. */
bool tools_over(const struct kind_tools *tools, const struct spec *spec);

/* The row of the kind, or NULL. */
const struct kind_tools *tools_find(const struct disk_kind *kind);

/* "mem: cannot be made for a copy (file, sql can)": the kinds that `can`. Returns -EOPNOTSUPP. */
int tools_refuse(const struct disk_kind *kind, const char *what, bool (*can)(const struct kind_tools *), struct error *err);

/* Gives the field `name` of the node a value, as if the user had written it. */
int spec_set_text(struct spec *spec, const char *name, const char *text, struct error *err);
void spec_set_number(struct spec *spec, const char *name, uint64_t number);

/* Takes back what the user gave the field: it has its default. */
void spec_unset(struct spec *spec, const char *name);

#endif

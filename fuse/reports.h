/* SPDX-License-Identifier: BSD-3-Clause */
/* What a mount tells about itself in files of its folder .platter, and in extended attributes. */
#ifndef PLATTER_FUSE_REPORTS_H
#define PLATTER_FUSE_REPORTS_H

#include "core/exports.h"

struct files;

struct report {
	const char *name; /* of the file */
	char *(*make)(const struct files *files);
};

/* Every report; ends with a row whose name is NULL. */
extern const struct report reports[];

/* The spec of a disk in its canonical form, and the tree of its nodes as JSON. To be freed; NULL: no memory. */
char *report_spec(const struct export *e);
char *report_info(const struct export *e);

#endif

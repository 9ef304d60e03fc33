/* SPDX-License-Identifier: BSD-3-Clause */
/* In which files the bytes of a disk lie, where that can be told. */
#ifndef PLATTER_CLI_WHERE_H
#define PLATTER_CLI_WHERE_H

#include <stddef.h>
#include <stdint.h>

#include "core/disk.h"

/* Bytes of the disk that lie in one file as they are. */
struct place {
	uint64_t offset, length;
	const char *path; /* the where's */
	uint64_t at;      /* in the file */
};

/* In the order of their offsets, with gaps where nothing is known or nothing lies. Zero-initialised it is empty. */
struct where {
	struct place *list;
	size_t count, room;
	char **paths; /* of the files, top first */
	size_t nr_paths;
};

#define CLEANUP_WHERE __attribute__((cleanup(where_free)))

/*
 * Goes down through nodes that show the disk below, or a window of it, unchanged, to a file or to an image with its parents. Other disks have no
 * places. -ENOMEM; what an image's map fails with.
 */
int where_in_files(struct disk *d, struct where *out, struct error *err);
void where_free(struct where *w);

/* The first place that ends behind `offset`; NULL: there is none. */
const struct place *where_from(const struct where *w, uint64_t offset);

#endif

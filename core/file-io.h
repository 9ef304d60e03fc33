/* SPDX-License-Identifier: BSD-3-Clause */
/* Whole transfers on a descriptor, and what a system call's failure means to a disk. */
#ifndef PLATTER_CORE_FILE_IO_H
#define PLATTER_CORE_FILE_IO_H

#include <stdbool.h>

#include "core/io.h"
#include "core/vec.h"

/* The status of core/disk.h for a failed system call's -errno. */
int file_status(int status);

/* What direct I/O asks of a request. */
struct file_alignment {
	size_t memory; /* address of each piece, bytes; 1: anything */
	size_t block;  /* length of each piece, bytes; 1: anything */
};

/*
 * Reads the whole of `v` from `offset`, going on after short transfers; through a bounce buffer where `a` demands it. 0, or
 * a negative errno as the system said it; -ENXIO at the end of the file.
 */
int file_read(int fd, const struct vec *v, uint64_t offset, const struct file_alignment *a);

/* As file_read. `flags` are RWF_* of pwritev2(2). */
int file_write(int fd, const struct vec *v, uint64_t offset, int flags,
	       const struct file_alignment *a);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Whole transfers on a descriptor, and what a system call's failure means to a disk. */
#ifndef PLATTER_CORE_FILE_IO_H
#define PLATTER_CORE_FILE_IO_H

#include <stdbool.h>

#include "core/aio.h"
#include "core/io.h"
#include "core/vec.h"

/* The status of core/disk.h for a failed system call's -errno. */
int file_status(int status);

/* What direct I/O asks of a request. */
struct file_alignment {
	size_t memory; /* address of each piece, bytes; 1: anything */
	size_t block;  /* length of each piece, bytes; 1: anything */
};

/* The ways out of line: for the functions below alone. `first`: what a transfer of all came to, bytes or
 * -errno. */
int file_read_pieces(int fd, const struct vec *v, uint64_t offset, const struct file_alignment *a);
int file_write_pieces(int fd, const struct vec *v, uint64_t offset, int flags,
		      const struct file_alignment *a);
int file_read_rest(int fd, const struct vec *v, uint64_t offset, ssize_t first);
int file_write_rest(int fd, const struct vec *v, uint64_t offset, ssize_t first);

/* Most transfers are one piece of memory of any kind. */
static inline bool file_is_plain(const struct vec *v, const struct file_alignment *a)
{
	return __builtin_expect(v->count == 1 && a->memory == 1, 1);
}

static inline void *file_plain_memory(const struct vec *v)
{
	return (char *)v->iov->iov_base + v->skip;
}

/*
 * Reads the whole of `v` from `offset`, going on after short transfers; through a bounce buffer where `a`
 * demands it. 0, or a negative errno as the system said it; -ENXIO at the end of the file.
 *
 * A plain transfer is one system call few levels deep: a kernel that keeps processors from being tricked by
 * where functions return to makes them forget it at each call, and every level that is returned from
 * afterwards costs a mispredicted jump.
 */
static inline int file_read(int fd, const struct vec *v, uint64_t offset, const struct file_alignment *a)
{
	ssize_t n;

	if (!file_is_plain(v, a))
		return file_read_pieces(fd, v, offset, a);
	n = aio_pread(fd, file_plain_memory(v), v->size, offset);
	return __builtin_expect(n == (ssize_t)v->size, 1) ? 0 : file_read_rest(fd, v, offset, n);
}

/* As file_read. `flags` are RWF_* of pwritev2(2). */
static inline int file_write(int fd, const struct vec *v, uint64_t offset, int flags,
			     const struct file_alignment *a)
{
	ssize_t n;

	if (flags || !file_is_plain(v, a))
		return file_write_pieces(fd, v, offset, flags, a);
	n = aio_pwrite(fd, file_plain_memory(v), v->size, offset);
	return __builtin_expect(n == (ssize_t)v->size, 1) ? 0 : file_write_rest(fd, v, offset, n);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Tools for scatter lists: a window over the caller's own iovec array, cut without copying. */
#ifndef PLATTER_CORE_VEC_H
#define PLATTER_CORE_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

/*
 * The `size` bytes that begin `skip` bytes into iov[0..count). Invariant: skip + size is at most the
 * sum of the iov lengths. The memory belongs to the caller of the disk operation and may change while
 * it is read (guest memory): look at a byte once.
 */
struct vec {
	const struct iovec *iov;
	size_t count;
	size_t skip;
	size_t size;
};

/* A window over one flat buffer; lives as long as the enclosing block. */
#define VEC_FLAT(pointer, length)                                                                  \
	((const struct vec){.iov = &(const struct iovec){.iov_base = (void *)(pointer),            \
							 .iov_len = (length)},                     \
			    .count = 1,                                                            \
			    .size = (length)})

/* The whole of an iovec array. The sum of the lengths must fit in size_t (our bug otherwise). */
struct vec vec_whole(const struct iovec *iov, size_t count);

/* The `size` bytes from byte `from` of `v`; from + size <= v->size. Constant time but for skipped entries. */
struct vec vec_slice(const struct vec *v, size_t from, size_t size);

/* Copies bytes [from, from + size) of `v` into `dst`. */
void vec_gather(const struct vec *v, size_t from, void *dst, size_t size);

/* Copies `size` bytes of `src` into `v` at `from`. */
void vec_scatter(const struct vec *v, size_t from, const void *src, size_t size);

/* Fills bytes [from, from + size) of `v` with zeroes. */
void vec_zero(const struct vec *v, size_t from, size_t size);

/* True when bytes [from, from + size) of `v` are all zero. */
bool vec_is_zero(const struct vec *v, size_t from, size_t size);

/* True when every piece begins at a multiple of `memory` and, but for none, is a multiple of `length` long. */
bool vec_is_aligned(const struct vec *v, size_t memory, size_t length);

/*
 * Writes the window's first bytes as plain iovec entries to out[0..max) for a system call.
 * Returns the number of entries; *bytes is what they cover (less than v->size when max was too small).
 */
size_t vec_to_iovec(const struct vec *v, struct iovec *out, size_t max, size_t *bytes);

/*
 * If bytes [from, from+size) of `v` lie in one piece, its address, else NULL.
 */
void *vec_flat(const struct vec *v, size_t from, size_t size);

/* True when `size` bytes at `p` are all zero. */
bool memory_is_zero(const void *p, size_t size);

#endif

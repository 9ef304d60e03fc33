/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/file-io.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_PIECES 64u             /* a system call */
#define BOUNCE_BYTES (1u << 20)    /* at most, of a bounce buffer; a multiple of every block size */
#define BOUNCE_ALIGN 65536u        /* at least every block size */

int file_status(int status)
{
	switch (-status) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return -ENOSPC;
	case EROFS:
	case EPERM:
		return -EROFS;
	case EBADE:
	case EFAULT:
	case ENODATA:
	case ENOMEM:
	case ENOMEDIUM:
	case EOPNOTSUPP:
		return status;
	case EILSEQ: /* protection information does not match, as the block layer says it */
		return -ENODATA;
	default:
		return -EIO;
	}
}

struct transfer {
	int fd;
	bool write;
	int flags;
};

static int moved_nothing(const struct transfer *t)
{
	return t->write ? -ENOSPC : -ENXIO;
}

/* All of `v`, in as many system calls as it takes. */
static int transfer_all(const struct transfer *t, const struct vec *v, uint64_t offset)
{
	for (size_t done = 0; done < v->size;) {
		struct vec rest = vec_slice(v, done, v->size - done);
		struct iovec iov[MAX_PIECES];
		size_t bytes, n = vec_to_iovec(&rest, iov, MAX_PIECES, &bytes);
		ssize_t moved = t->write ? aio_pwritev(t->fd, iov, n, offset + done, t->flags)
					 : aio_preadv(t->fd, iov, n, offset + done, t->flags);
		if (moved < 0)
			return (int)moved;
		if (!moved)
			return moved_nothing(t);
		done += (size_t)moved;
	}
	return 0;
}

static int bounce_piece(const struct transfer *t, const struct vec *v, size_t at, size_t n,
			void *memory, uint64_t offset)
{
	int status;

	if (t->write)
		vec_gather(v, at, memory, n);
	status = transfer_all(t, &VEC_FLAT(memory, n), offset + at);
	if (!status && !t->write)
		vec_scatter(v, at, memory, n);
	return status;
}

static int bounce_all(const struct transfer *t, const struct vec *v, uint64_t offset)
{
	size_t size = v->size < BOUNCE_BYTES ? v->size : BOUNCE_BYTES;
	void *memory;
	int status = 0;

	if (posix_memalign(&memory, BOUNCE_ALIGN, size))
		return -ENOMEM;
	for (size_t at = 0; at < v->size && !status; at += size) {
		if (size > v->size - at)
			size = v->size - at;
		status = bounce_piece(t, v, at, size, memory, offset);
	}
	free(memory);
	return status;
}

static int transfer(const struct transfer *t, const struct vec *v, uint64_t offset,
		    const struct file_alignment *a)
{
	if (a->memory == 1 || vec_is_aligned(v, a->memory, a->block))
		return transfer_all(t, v, offset);
	return bounce_all(t, v, offset);
}

int file_read_pieces(int fd, const struct vec *v, uint64_t offset, const struct file_alignment *a)
{
	return transfer(&(struct transfer){.fd = fd}, v, offset, a);
}

int file_write_pieces(int fd, const struct vec *v, uint64_t offset, int flags, const struct file_alignment *a)
{
	return transfer(&(struct transfer){.fd = fd, .write = true, .flags = flags}, v, offset, a);
}

/* ------------------------------------------------------------------ after a transfer that was not whole */

static int transfer_rest(const struct transfer *t, const struct vec *v, uint64_t offset, ssize_t first)
{
	struct vec rest;

	if (first < 0)
		return (int)first;
	if (!first)
		return moved_nothing(t);
	rest = vec_slice(v, (size_t)first, v->size - (size_t)first);
	return transfer_all(t, &rest, offset + (size_t)first);
}

int file_read_rest(int fd, const struct vec *v, uint64_t offset, ssize_t first)
{
	return transfer_rest(&(struct transfer){.fd = fd}, v, offset, first);
}

int file_write_rest(int fd, const struct vec *v, uint64_t offset, ssize_t first)
{
	return transfer_rest(&(struct transfer){.fd = fd, .write = true}, v, offset, first);
}

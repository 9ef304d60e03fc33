/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/vhdx-file.h"

#include <errno.h>

int vhdx_writer_create(struct vhdx *x)
{
	(void)x;
	return 0;
}

int vhdx_writer_close(struct vhdx *x, bool abandoned, struct error *err)
{
	(void)x, (void)abandoned, (void)err;
	return 0;
}

int vhdx_write(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)v, (void)offset;
	return io_fail(io, -EROFS, "'%s' is open for reading only", vhdx_of(l)->file->name);
}

int vhdx_write_zeroes(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io)
{
	(void)offset, (void)length, (void)below_zero;
	return io_fail(io, -EROFS, "'%s' is open for reading only", vhdx_of(l)->file->name);
}

int vhdx_discard(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io)
{
	return vhdx_write_zeroes(l, offset, length, below_zero, io);
}

int vhdx_flush(struct layer *l, const struct io *io)
{
	(void)l, (void)io;
	return 0;
}

int vhdx_layer_resize(struct layer *l, uint64_t size, const struct io *io)
{
	(void)size;
	return io_fail(io, -EROFS, "'%s' is open for reading only", vhdx_of(l)->file->name);
}

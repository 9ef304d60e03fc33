/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/copy.h"

#include <errno.h>

#include "core/extents.h"

struct copy {
	struct bytes *from, *to;
	uint64_t from_offset, to_offset;
	void *buffer;
	size_t size;
	const struct io *io;
};

static int copy_data(const struct copy *c, uint64_t done, uint64_t length, uint64_t *copied)
{
	while (*copied < length) {
		uint64_t n = length - *copied < c->size ? length - *copied : c->size;
		struct vec v = VEC_FLAT(c->buffer, n);
		int status = bytes_read(c->from, &v, c->from_offset + done + *copied, c->io);

		if (!status)
			status = bytes_write(c->to, &v, c->to_offset + done + *copied, c->io);
		if (status)
			return status;
		*copied += n;
	}
	return 0;
}

static int copy_run(const struct copy *c, const struct extent *run, uint64_t *done)
{
	uint64_t copied = 0;
	int status;

	if (run->flags & EXTENT_ZERO) {
		const struct io io = io_with_flags(c->io, IO_MAY_UNMAP);

		status = bytes_write_zeroes(c->to, c->to_offset + *done, run->length, &io);
		copied = status ? 0 : run->length;
	} else {
		status = copy_data(c, *done, run->length, &copied);
	}
	*done += copied;
	return status;
}

/* Copies as far as one list of extents tells. */
static int copy_runs(const struct copy *c, uint64_t length, uint64_t *done)
{
	CLEANUP_EXTENTS struct extents runs;
	int status;

	extents_init(&runs, c->from_offset + *done, length - *done, 256);
	status = bytes_extents(c->from, &runs, c->io);
	for (size_t i = 0; !status && i < runs.count; i++)
		status = copy_run(c, &runs.list[i], done);
	return status;
}

int bytes_copy(struct bytes *from, uint64_t from_offset, struct bytes *to, uint64_t to_offset, size_t *length,
	       void *buffer, size_t size, const struct io *io)
{
	const struct copy c = {from, to, from_offset, to_offset, buffer, size, io};
	uint64_t wanted = *length < COPY_MAX_BYTES ? *length : COPY_MAX_BYTES, done = 0;
	int status = buffer ? 0 : -ENOMEM;

	while (!status && done < wanted)
		status = copy_runs(&c, wanted, &done);
	*length = (size_t)done;
	return done ? 0 : status;
}

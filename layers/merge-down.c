/* SPDX-License-Identifier: BSD-3-Clause */
/* What a layer holds goes into the one below it: commit. */
#include "layers/layer.h"

#include <errno.h>
#include <stdlib.h>

#define PIECE (UINT64_C(1) << 20)

/* Longer runs of zeroes are cut, so that whoever wants to stop the work is heard. */
#define MOST_RUN (UINT64_C(1) << 30)

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Data at most a piece at a time: the run becomes as long as what was done. */
static int merge_run(struct layer *above, struct layer *below, uint64_t offset, struct layer_run *run, void *buffer, const struct io *io)
{
	const struct io freeing = io_with_flags(io, IO_MAY_UNMAP);
	struct layer_run got;
	int status;

	if (run->presence == LAYER_ABSENT)
		return 0;
	if (run->presence == LAYER_ZERO)
		return below->ops->write_zeroes(below, offset, run->length, false, &freeing);
	run->length = min64(run->length, PIECE);
	status = above->ops->read(above, &VEC_FLAT(buffer, run->length), offset, &got, io);
	if (status)
		return status;
	run->length = got.length;
	return below->ops->write(below, &VEC_FLAT(buffer, got.length), offset, io);
}

static int merge_runs(struct layer *above, struct layer *below, struct watch *watch, void *buffer, const struct io *io)
{
	uint64_t size = above->ops->size(above);

	watch_phase(watch, "commit", size);
	for (uint64_t at = 0; at < size;) {
		struct layer_run run;
		int status;
		if (watch_stopped(watch))
			return io_fail(io, -EINTR, "stopped by a signal; what was shown before is shown still");
		status = above->ops->map(above, at, min64(size - at, MOST_RUN), &run, io);
		if (!status)
			status = merge_run(above, below, at, &run, buffer, io);
		if (status)
			return status;
		at += run.length;
		watch_add(watch, run.length);
	}
	return 0;
}

int layer_merge_down(struct layer *above, struct layer *below, struct watch *watch, const struct io *io)
{
	uint64_t size = above->ops->size(above);
	void *buffer = aligned_alloc(4096, PIECE);
	int status = buffer ? 0 : io_fail(io, -ENOMEM, "no memory");

	if (!status && below->ops->size(below) < size)
		status = below->ops->resize ? below->ops->resize(below, size, io)
					    : io_fail(io, -EOPNOTSUPP, "the parent is smaller, and cannot grow");
	if (!status)
		status = merge_runs(above, below, watch, buffer, io);
	free(buffer);
	return status ? status : below->ops->flush(below, io);
}

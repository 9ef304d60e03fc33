/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/vec.h"

#define PIECE (UINT64_C(1) << 20)

/* Differences are looked for in pieces of so many bytes: whole blocks of every format. */
#define GRANULE 4096u

/* Runs of one presence are not asked for at a time beyond this, so that signals are looked at. */
#define MOST_RUN (UINT64_C(1) << 30)

struct merge {
	struct layer *child;
	struct disk *now, *next;
	struct progress *progress;
	uint64_t bytes;
	char *buffer, *other; /* of PIECE bytes each */
	struct failure failure;
	struct io io;
};

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How many of the bytes read as zero and need not be read for that; past the end of the disk all do. */
static int zero_bytes(struct disk *d, uint64_t offset, uint64_t length, uint64_t *zero, const struct io *io)
{
	CLEANUP_EXTENTS struct extents e = {0};
	uint64_t size = disk_size(d);
	int status;

	*zero = length;
	if (offset >= size)
		return 0;
	extents_init(&e, offset, min64(length, size - offset), 1);
	status = disk_extents(d, &e, io);
	if (!status && (e.status || e.count == 0))
		status = e.status ? e.status : -EIO;
	if (!status)
		*zero = e.list[0].flags & EXTENT_ZERO ? e.list[0].length : 0;
	return status;
}

static int read_or_zero(struct disk *d, char *buffer, uint64_t offset, uint64_t length, const struct io *io)
{
	uint64_t size = disk_size(d), there = offset < size ? min64(length, size - offset) : 0;

	memset(buffer + there, 0, length - there);
	return there ? disk_read(d, &VEC_FLAT(buffer, there), offset, io) : 0;
}

static int keep(struct merge *m, uint64_t offset, uint64_t at, uint64_t length)
{
	m->bytes += length;
	if (memory_is_zero(m->buffer + at, length))
		return m->child->ops->write_zeroes(m->child, offset + at, length, false, &m->io);
	return m->child->ops->write(m->child, &VEC_FLAT(m->buffer + at, length), offset + at, &m->io);
}

/* The runs of granules that differ. */
static int keep_differences(struct merge *m, uint64_t offset, uint64_t length)
{
	int status = 0;

	for (uint64_t at = 0; at < length && !status;) {
		uint64_t begin = at;
		while (at < length && memcmp(m->buffer + at, m->other + at, min64(GRANULE, length - at)) != 0)
			at += min64(GRANULE, length - at);
		if (at > begin)
			status = keep(m, offset, begin, at - begin);
		else
			at += min64(GRANULE, length - at);
	}
	return status;
}

/* It may do less than the run, and says how much. */
static int compare_run(struct merge *m, uint64_t offset, struct layer_run *run)
{
	uint64_t a, b;
	int status;

	if (run->presence != LAYER_ABSENT)
		return 0;
	status = zero_bytes(m->now, offset, run->length, &a, &m->io);
	if (!status)
		status = zero_bytes(m->next, offset, run->length, &b, &m->io);
	if (status)
		return status;
	if (a > 0 && b > 0) {
		run->length = min64(a, b);
		return 0;
	}
	run->length = min64(run->length, PIECE);
	status = read_or_zero(m->now, m->buffer, offset, run->length, &m->io);
	if (!status)
		status = read_or_zero(m->next, m->other, offset, run->length, &m->io);
	return status ? status : keep_differences(m, offset, run->length);
}

static int compare_all(struct merge *m)
{
	uint64_t size = m->child->ops->size(m->child);

	for (uint64_t at = 0; at < size;) {
		struct layer_run run;
		int status;
		if (progress_stopped(m->progress))
			return io_fail(&m->io, -EINTR, "stopped by a signal; what was shown before is shown still");
		status = m->child->ops->map(m->child, at, min64(size - at, MOST_RUN), &run, &m->io);
		if (!status)
			status = compare_run(m, at, &run);
		if (status)
			return status;
		at += run.length;
		progress_add(m->progress, run.length);
	}
	return 0;
}

static int keep_content(struct merge *m)
{
	int status;

	m->buffer = aligned_alloc(4096, PIECE);
	m->other = aligned_alloc(4096, PIECE);
	status = m->buffer && m->other ? compare_all(m) : io_fail(&m->io, -ENOMEM, "no memory");
	free(m->buffer);
	free(m->other);
	return status ? status : m->child->ops->flush(m->child, &m->io);
}

int merge_keep_content(struct layer *child, struct disk *now, struct disk *next, struct progress *progress, uint64_t *bytes,
		       struct error *err)
{
	struct merge m = {.child = child, .now = now, .next = next, .progress = progress};
	int status;

	m.io.failure = &m.failure;
	progress_phase(progress, "compare", child->ops->size(child));
	status = keep_content(&m);
	*bytes = m.bytes;
	return status ? error_set(err, status, "%s", m.failure.text[0] ? m.failure.text : strerror(-status)) : 0;
}

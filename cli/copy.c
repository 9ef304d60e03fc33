/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "cli/sweep.h"

/* For the two buffers of a comparison, which are halves of one. */
#define COMPARE_PIECE SWEEP_PIECE

static uint32_t block_of(const struct disk *d)
{
	return disk_info(d)->block_size;
}

/* Of the disk with the larger blocks. */
static uint64_t common_block(const struct copy *c)
{
	return block_of(c->from) > block_of(c->to) ? block_of(c->from) : block_of(c->to);
}

static int check_one(const struct disk *d, const char *name, uint64_t length, struct error *err)
{
	if (length > disk_size(d))
		return error_set(err, -ERANGE, "%s has %" PRIu64 " bytes, which is less than %" PRIu64, name, disk_size(d),
				 length);
	if (length % block_of(d) > 0)
		return error_set(err, -EINVAL, "%" PRIu64 " bytes are not whole blocks of %s, which are of %" PRIu32 " bytes",
				 length, name, block_of(d));
	return 0;
}

int copy_check(const struct copy *c, struct error *err)
{
	int status = check_one(c->from, c->from_name, c->length, err);

	return status ? status : check_one(c->to, c->to_name, c->length, err);
}

/* ------------------------------------------------------------------ copying */

static int copy_zero(const struct copy *c, uint64_t offset, uint64_t length, struct error *err)
{
	return c->to_is_zero ? 0 : zero_piece(c->to, c->to_name, offset, length, IO_MAY_UNMAP, err);
}

static int write_sparsely(const struct copy *c, const char *data, const struct piece *p, size_t granule, struct error *err)
{
	size_t size = (size_t)p->length, at = 0;
	int status = 0;

	while (at < size && !status) {
		bool zero;
		size_t end = zero_run_end(data, size, at, granule, &zero);
		if (zero)
			status = copy_zero(c, p->offset + at, end - at, err);
		else
			status = write_piece(c->to, c->to_name, data + at, end - at, p->offset + at, err);
		at = end;
	}
	return status;
}

static int copy_piece(const struct sweep *s, const struct piece *p, void *buffer, struct error *err)
{
	const struct copy *c = s->argument;
	size_t granule = (size_t)((c->sparse + s->align - 1) / s->align * s->align); /* whole blocks of both */
	int status;

	if (p->flags & EXTENT_ZERO)
		return copy_zero(c, p->offset, p->length, err);
	status = read_piece(c->from, c->from_name, buffer, (size_t)p->length, p->offset, err);
	if (status)
		return status;
	if (c->sparse > 0)
		return write_sparsely(c, buffer, p, granule, err);
	return write_piece(c->to, c->to_name, buffer, (size_t)p->length, p->offset, err);
}

int copy_run(const struct copy *c, struct error *err)
{
	struct sweep s = {
		.disk = c->from,
		.length = c->length,
		.jobs = c->jobs,
		.align = common_block(c),
		.buffer_size = SWEEP_PIECE,
		.zeroes_are_free = c->to_is_zero,
		.progress = c->progress,
		.argument = (void *)(uintptr_t)c,
		.visit = copy_piece,
	};

	if (c->progress)
		progress_phase(c->progress, "copy", c->length);
	return sweep_run(&s, err);
}

/* ------------------------------------------------------------------ comparing */

struct comparison {
	const struct copy *copy;
	struct disk *disk; /* copy_find_data() */
	const char *name;
	_Atomic uint64_t first; /* byte that is known to differ */
};

/* Earlier pieces may be under way still, and find an earlier one. */
static int differs_at(struct comparison *c, uint64_t offset)
{
	uint64_t known = atomic_load(&c->first);

	while (offset < known && !atomic_compare_exchange_weak(&c->first, &known, offset))
		;
	return SWEEP_ENOUGH;
}

static size_t first_not_zero(const char *data, size_t size)
{
	size_t at = 0;

	while (at + 64 <= size && memory_is_zero(data + at, 64))
		at += 64;
	while (at < size && !data[at])
		at++;
	return at;
}

static size_t first_different(const char *a, const char *b, size_t size)
{
	size_t at = 0;

	if (!memcmp(a, b, size))
		return size;
	while (at + 64 <= size && !memcmp(a + at, b + at, 64))
		at += 64;
	while (a[at] == b[at])
		at++;
	return at;
}

/* Reads of [offset, offset + length) what is not known to be zero. */
static int expect_zero(struct comparison *c, struct disk *d, const char *name, uint64_t offset, uint64_t length, void *buffer,
		       struct error *err)
{
	for (uint64_t end = offset + length; offset < end;) {
		CLEANUP_EXTENTS struct extents e = {0};
		extents_init(&e, offset, end - offset, 1);
		int status = find_extents(d, name, &e, err);
		if (status)
			return status;
		uint64_t here = e.list[0].length;
		if (!(e.list[0].flags & EXTENT_ZERO)) {
			here = here < COMPARE_PIECE ? here : COMPARE_PIECE;
			status = read_piece(d, name, buffer, (size_t)here, offset, err);
			if (status)
				return status;
			size_t at = first_not_zero(buffer, (size_t)here);
			if (at < here)
				return differs_at(c, offset + at);
		}
		offset += here;
	}
	return 0;
}

static int compare_piece(const struct sweep *s, const struct piece *p, void *buffer, struct error *err)
{
	struct comparison *c = s->argument;
	const struct copy *copy = c->copy;
	size_t size = (size_t)p->length;
	char *a = buffer, *b = a + COMPARE_PIECE;
	int status;

	if (p->flags & EXTENT_ZERO)
		return expect_zero(c, copy->to, copy->to_name, p->offset, p->length, b, err);
	status = read_piece(copy->from, copy->from_name, a, size, p->offset, err);
	if (!status)
		status = read_piece(copy->to, copy->to_name, b, size, p->offset, err);
	if (status)
		return status;
	size_t at = first_different(a, b, size);
	return at < size ? differs_at(c, p->offset + at) : 0;
}

int copy_compare(const struct copy *c, uint64_t *first, struct error *err)
{
	struct comparison comparison = {.copy = c, .first = COPY_SAME};
	struct sweep s = {
		.disk = c->from,
		.length = c->length,
		.jobs = c->jobs,
		.piece = COMPARE_PIECE,
		.align = common_block(c),
		.buffer_size = 2 * COMPARE_PIECE,
		.progress = c->progress,
		.argument = &comparison,
		.visit = compare_piece,
	};
	int status;

	if (c->progress)
		progress_phase(c->progress, "compare", c->length);
	status = sweep_run(&s, err);
	*first = atomic_load(&comparison.first);
	return status;
}

static int look_for_data(const struct sweep *s, const struct piece *p, void *buffer, struct error *err)
{
	struct comparison *c = s->argument;

	if (p->flags & EXTENT_ZERO)
		return 0;
	return expect_zero(c, c->disk, c->name, p->offset, p->length, buffer, err);
}

int copy_find_data(const struct copy *c, struct disk *d, const char *name, uint64_t offset, uint64_t *first,
		   struct error *err)
{
	struct comparison comparison = {.copy = c, .disk = d, .name = name, .first = COPY_SAME};
	struct sweep s = {
		.disk = d,
		.offset = offset,
		.length = disk_size(d) - offset,
		.jobs = c->jobs,
		.piece = COMPARE_PIECE,
		.buffer_size = COMPARE_PIECE,
		.zeroes_are_free = true,
		.progress = c->progress,
		.argument = &comparison,
		.visit = look_for_data,
	};
	int status;

	if (c->progress)
		progress_phase(c->progress, "the rest of the larger disk", s.length);
	status = sweep_run(&s, err);
	*first = atomic_load(&comparison.first);
	return status;
}

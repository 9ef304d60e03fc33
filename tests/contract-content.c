/* SPDX-License-Identifier: BSD-3-Clause */
/* Part of the contract suite: one operation after the other, against a flat model. */
#include "tests/contract-parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

/* ------------------------------------------------------------------ single operations against the model */

bool trial_begin(struct trial *t, const struct contract *c, struct disk *d, uint64_t stream)
{
	*t = (struct trial){.c = c, .disk = d, .random = random_stream(stream)};
	model_make(&t->model, disk_size(d), disk_info(d)->block_size);
	return CHECK(model_learn(&t->model, d));
}

void trial_end(struct trial *t)
{
	CHECK(model_agrees(&t->model, t->disk, 0, t->model.size));
	model_free(&t->model);
}

void do_read(struct trial *t, uint64_t offset, uint64_t length)
{
	unsigned char *found = must_have(length);
	struct scatter s;

	scatter_make(&s, &t->random, length);
	if (CHECK_EQ(disk_read(t->disk, &s.vec, offset, &io_plain), 0)) {
		scatter_get(&s, found);
		if (!CHECK_MEM(found, t->model.bytes + offset, length))
			tap_diag("in a read of %" PRIu64 " bytes at %" PRIu64, length, offset);
	}
	CHECK(scatter_guarded(&s));
	scatter_free(&s);
	free(found);
}

/* Data with pages and sectors of zeroes in it, whole blocks and parts of them. */
static void make_data(struct trial *t, unsigned char *data, uint64_t length)
{
	uint64_t unit = random_once_in(&t->random, 2) ? DISK_MIN_BLOCK : t->model.block;

	random_fill(&t->random, data, length);
	if (random_once_in(&t->random, 6))
		memset(data, 0, length);
	if (random_once_in(&t->random, 3)) {
		uint64_t from = random_below(&t->random, length / unit) * unit;
		memset(data + from, 0, random_below(&t->random, (length - from) / unit + 1) * unit);
	}
}

void do_write(struct trial *t, uint64_t offset, uint64_t length)
{
	struct io io = {.flags = random_once_in(&t->random, 40) ? IO_FUA : 0};
	unsigned char *data = must_have(length), *after = must_have(length);
	struct scatter s;

	make_data(t, data, length);
	scatter_make(&s, &t->random, length);
	scatter_put(&s, data);
	if (CHECK_EQ(disk_write(t->disk, &s.vec, offset, &io), 0) && !t->c->forgets)
		memcpy(t->model.bytes + offset, data, length);
	scatter_get(&s, after);
	CHECK(memcmp(after, data, length) == 0); /* a write does not write to the caller's memory */
	CHECK(scatter_guarded(&s));
	scatter_free(&s);
	free(data);
	free(after);
}

void do_zeroes(struct trial *t, uint64_t offset, uint64_t length, unsigned flags)
{
	struct io io = {.flags = flags};
	int status = disk_write_zeroes(t->disk, offset, length, &io);

	if (!status)
		memset(t->model.bytes + offset, 0, length);
	else if (status != -EOPNOTSUPP || !(flags & IO_FAST_ONLY))
		CHECK_EQ(status, 0);
	CHECK(model_agrees(&t->model, t->disk, offset, length));
}

void do_discard(struct trial *t, uint64_t offset, uint64_t length, unsigned flags)
{
	struct io io = {.flags = flags};

	if (CHECK_EQ(disk_discard(t->disk, offset, length, &io), 0))
		CHECK(model_discarded(&t->model, t->disk, offset, length));
}

/* FUA now and then: it makes real disks wait. */
static unsigned any_flags(struct trial *t)
{
	return (unsigned)random_below(&t->random, 4) * IO_MAY_UNMAP | (random_once_in(&t->random, 10) ? IO_FUA : 0);
}

/* The list's runs adjoin and cover the range, or its beginning when there are as many as were asked for. */
static bool runs_adjoin(const struct extents *e, bool limited)
{
	uint64_t next = e->offset;
	bool good = e->count > 0;

	for (size_t i = 0; i < e->count; i++) {
		good = good && e->list[i].offset == next && e->list[i].length > 0;
		good = good && (!i || e->list[i].flags != e->list[i - 1].flags);
		next += e->list[i].length;
	}
	return good && next <= e->end && (next == e->end || (limited && e->count == e->max));
}

void check_extents(struct trial *t, uint64_t offset, uint64_t length, size_t max)
{
	CLEANUP_EXTENTS struct extents e = {0};

	extents_init(&e, offset, length, max);
	if (!CHECK_EQ(disk_extents(t->disk, &e, &io_plain), 0) || !CHECK(runs_adjoin(&e, max != SIZE_MAX)))
		return;
	CHECK(e.count <= max);
	for (size_t i = 0; i < e.count; i++) {
		const struct extent *x = &e.list[i];
		CHECK_EQ((x->offset | x->length) % t->model.block, 0);
		if ((x->flags & EXTENT_ZERO) && !CHECK(memory_is_zero(t->model.bytes + x->offset, x->length)))
			tap_diag("run of %" PRIu64 " bytes at %" PRIu64 " is said to be zero", x->length, x->offset);
	}
}

/* ------------------------------------------------------------------ content */

static void change_something(struct trial *t)
{
	uint64_t offset, length;

	model_range(&t->model, &t->random, 3 << 20, &offset, &length);
	switch (random_below(&t->random, 8)) {
	case 0:
		do_discard(t, offset, length, random_once_in(&t->random, 20) ? IO_FUA : 0);
		break;
	case 1:
	case 2:
		do_zeroes(t, offset, length, any_flags(t));
		break;
	default:
		do_write(t, offset, length);
	}
}

static void look_at_something(struct trial *t)
{
	uint64_t offset, length;

	model_range(&t->model, &t->random, 3 << 20, &offset, &length);
	switch (random_below(&t->random, 8)) {
	case 0:
		check_extents(t, offset, length, random_once_in(&t->random, 2) ? 1 : SIZE_MAX);
		break;
	case 1:
		CHECK_EQ(disk_prefetch(t->disk, offset, length, &io_plain), 0);
		disk_warm(t->disk, offset + random_below(&t->random, 4096), length, random_once_in(&t->random, 2) ? WARM_WAY : WARM_DATA);
		break;
	case 2:
		if (random_once_in(&t->random, 8))
			CHECK_EQ(disk_flush(t->disk, &io_plain), 0);
		break;
	default:
		do_read(t, offset, length);
	}
}

void part_content(const struct contract *c, struct disk *d)
{
	struct trial t;

	if (trial_begin(&t, c, d, 2)) {
		for (unsigned i = 0; i < contract_rounds(c->brief ? 60 : 200) && !atomic_load(&tap_errors); i++) {
			if (contract_is_writable(d))
				change_something(&t);
			look_at_something(&t);
		}
		do_read(&t, 0, t.model.size);
		if (contract_is_writable(d))
			do_write(&t, 0, t.model.size);
	}
	trial_end(&t);
}

/* ------------------------------------------------------------------ zeroes */

void fill_all(struct trial *t)
{
	unsigned char *data = must_have(t->model.size);

	random_fill(&t->random, data, t->model.size);
	if (CHECK_EQ(disk_write(t->disk, &VEC_FLAT(data, t->model.size), 0, &io_plain), 0) && !t->c->forgets)
		memcpy(t->model.bytes, data, t->model.size);
	free(data);
}

void part_zeroes(const struct contract *c, struct disk *d)
{
	struct io fast = {.flags = IO_FAST_ONLY | IO_MAY_UNMAP};
	struct trial t;

	if (!contract_is_writable(d))
		return;
	if (trial_begin(&t, c, d, 3)) {
		fill_all(&t);
		for (unsigned flags = 0; flags < 2 * IO_FAST_ONLY; flags++) {
			uint64_t offset, length;
			model_range(&t.model, &t.random, 1 << 20, &offset, &length);
			do_zeroes(&t, offset, length, flags);
			do_zeroes(&t, flags * t.model.block, t.model.block, flags);
		}
		CHECK(model_agrees(&t.model, d, 0, t.model.size));
		if (!(disk_info(d)->flags & DISK_FAST_ZERO))
			CHECK_EQ(disk_write_zeroes(d, 0, t.model.block, &fast), -EOPNOTSUPP);
		fill_all(&t);
		do_zeroes(&t, 0, t.model.size, IO_MAY_UNMAP);
		fill_all(&t);
		do_zeroes(&t, 0, t.model.size, 0);
	}
	trial_end(&t);
}

/* ------------------------------------------------------------------ discard */

void part_discard(const struct contract *c, struct disk *d)
{
	uint64_t granule = disk_info(d)->discard_granularity, align = disk_info(d)->discard_alignment;
	struct trial t;

	if (!contract_is_writable(d))
		return;
	if (trial_begin(&t, c, d, 4)) {
		uint64_t b = t.model.block;
		fill_all(&t);
		do_discard(&t, 0, b, 0);
		do_discard(&t, t.model.size - b, b, IO_FUA);
		if (align + 3 * granule + b <= t.model.size) {
			do_discard(&t, align, granule, 0);
			do_discard(&t, align + granule + b, granule, 0);
			do_discard(&t, align + granule, granule, IO_FUA);
		}
		for (unsigned i = 0; i < contract_rounds(60); i++) {
			uint64_t offset, length;
			model_range(&t.model, &t.random, 2 << 20, &offset, &length);
			do_discard(&t, offset, length, 0);
			if (random_once_in(&t.random, 4))
				CHECK(model_agrees(&t.model, d, 0, t.model.size));
			do_write(&t, offset, b);
		}
		fill_all(&t);
		do_discard(&t, 0, t.model.size, 0);
	}
	trial_end(&t);
}

/* ------------------------------------------------------------------ extents */

/* What the full list says of the byte. */
static unsigned flags_at(const struct extents *e, uint64_t at)
{
	size_t i = 0;

	while (i + 1 < e->count && e->list[i + 1].offset <= at)
		i++;
	return e->list[i].flags;
}

/* A part of the disk is said to be the same as the full list says. */
static void check_part_agrees(struct trial *t, const struct extents *full, uint64_t offset, uint64_t length)
{
	CLEANUP_EXTENTS struct extents e = {0};

	extents_init(&e, offset, length, SIZE_MAX);
	if (!CHECK_EQ(disk_extents(t->disk, &e, &io_plain), 0) || !CHECK(runs_adjoin(&e, false)))
		return;
	for (uint64_t at = offset; at < offset + length; at += t->model.block)
		if (!CHECK_EQ(flags_at(&e, at), flags_at(full, at))) {
			tap_diag("at %" PRIu64 " of a list of %" PRIu64 " bytes at %" PRIu64, at, length, offset);
			return;
		}
}

static void check_parts_agree(struct trial *t)
{
	CLEANUP_EXTENTS struct extents full = {0};

	extents_init(&full, 0, t->model.size, SIZE_MAX);
	if (!CHECK_EQ(disk_extents(t->disk, &full, &io_plain), 0) || !CHECK(runs_adjoin(&full, false)))
		return;
	for (unsigned i = 0; i < contract_rounds(20); i++) {
		uint64_t offset, length;
		model_range(&t->model, &t->random, 1 << 19, &offset, &length);
		check_part_agrees(t, &full, offset, length);
	}
	for (size_t i = 0; i < full.count && i < contract_rounds(100); i++) /* where runs meet */
		if (full.list[i].offset)
			check_part_agrees(t, &full, full.list[i].offset - t->model.block, 2 * t->model.block);
}

void part_extents(const struct contract *c, struct disk *d)
{
	struct trial t;

	if (trial_begin(&t, c, d, 5)) {
		check_extents(&t, 0, t.model.size, SIZE_MAX);
		check_parts_agree(&t);
		for (unsigned i = 0; contract_is_writable(d) && i < contract_rounds(40); i++) {
			change_something(&t);
			check_extents(&t, 0, t.model.size, random_once_in(&t.random, 2) ? SIZE_MAX : 2);
		}
		check_parts_agree(&t);
	}
	trial_end(&t);
}

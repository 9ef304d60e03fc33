/* SPDX-License-Identifier: BSD-3-Clause */
#include "decorators/fault-act.h"

#include <errno.h>
#include <stdlib.h>

#include "core/wait.h"

/* ------------------------------------------------------------------ going on */

static int pass_to_cache(struct fault_cache *c, const struct fault_request *r)
{
	switch (r->op) {
	case FAULT_READ:
		return fault_cache_read(c, r->v, r->offset, r->io);
	case FAULT_WRITE:
		return fault_cache_write(c, r->v, r->offset, r->io);
	case FAULT_DISCARD:
		return fault_cache_discard(c, r->offset, r->length, r->io);
	case FAULT_ZEROES:
		return fault_cache_write_zeroes(c, r->offset, r->length, r->io);
	default:
		return fault_cache_flush(c, r->io);
	}
}

static int pass_below(struct disk *below, const struct fault_request *r)
{
	switch (r->op) {
	case FAULT_READ:
		return disk_read(below, r->v, r->offset, r->io);
	case FAULT_WRITE:
		return disk_write(below, r->v, r->offset, r->io);
	case FAULT_DISCARD:
		return disk_discard(below, r->offset, r->length, r->io);
	case FAULT_ZEROES:
		return disk_write_zeroes(below, r->offset, r->length, r->io);
	default:
		return disk_flush(below, r->io);
	}
}

int fault_pass(const struct fault_way *w, const struct fault_request *r)
{
	return w->cache ? pass_to_cache(w->cache, r) : pass_below(w->below, r);
}

/* The part [from, to) of the request. */
static int pass_part(const struct fault_way *w, const struct fault_request *r, uint64_t from, uint64_t to)
{
	struct fault_request part = *r;
	struct vec v;

	if (from == to)
		return 0;
	if (r->v) {
		v = vec_slice(r->v, (size_t)from, (size_t)(to - from));
		part.v = &v;
	}
	part.offset = r->offset + from;
	part.length = to - from;
	return fault_pass(w, &part);
}

/* ------------------------------------------------------------------ being struck */

static uint64_t draw(const struct fault_blow *b, uint64_t which)
{
	return fault_strike_draw(&b->strike, b->seed, which);
}

int fault_fail(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	return fault_strike_fail(&b->strike, r->op, disk_info(w->below)->block_size, r->io);
}

static int strike_error(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	int status = b->strike.rule->late ? fault_pass(w, r) : 0;

	return status ? status : fault_fail(w, r, b);
}

/* The first blocks, fewer than all. */
static int tear_end(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	uint64_t block = disk_info(w->below)->block_size, blocks = r->length / block;

	return pass_part(w, r, 0, draw(b, 0) % blocks * block);
}

/* Any blocks, by chance; more than 4096 in groups. One at least is left out. */
static int tear_anywhere(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	uint64_t block = disk_info(w->below)->block_size, blocks = r->length / block, group = (blocks - 1) / 4096 + 1;
	uint64_t groups = (blocks - 1) / group + 1, lost = draw(b, 0) % groups, from = 0;
	int status = 0;

	for (uint64_t i = 0; i <= groups && !status; i++) {
		uint64_t at = i < groups ? i * group * block : r->length;
		if (i < groups && i != lost && draw(b, i + 1) & 1)
			continue;
		status = pass_part(w, r, from, at > from ? at : from);
		from = i + 1 < groups ? (i + 1) * group * block : r->length;
	}
	return status;
}

static int strike_torn(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	int status = b->strike.rule->scatter ? tear_anywhere(w, r, b) : tear_end(w, r, b);

	return status || b->strike.rule->quiet ? status : fault_fail(w, r, b);
}

static void flip_bits(const struct vec *v, const struct fault_blow *b)
{
	for (uint64_t i = 0; i < b->strike.rule->bits; i++) {
		uint64_t bit = draw(b, i) % (8 * (uint64_t)v->size);
		unsigned char byte;
		vec_gather(v, (size_t)(bit / 8), &byte, 1);
		byte ^= (unsigned char)(1u << bit % 8);
		vec_scatter(v, (size_t)(bit / 8), &byte, 1);
	}
}

/* A write goes wrong in a copy: the memory is the caller's. */
static int strike_corrupt(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	struct fault_request wrong = *r;
	void *copy;
	int status;

	if (r->op == FAULT_READ) {
		status = fault_pass(w, r);
		if (!status)
			flip_bits(r->v, b);
		return status;
	}
	copy = malloc(r->v->size);
	if (!copy)
		return io_fail(r->io, -ENOMEM, "fault: no memory");
	vec_gather(r->v, 0, copy, r->v->size);
	wrong.v = &VEC_FLAT(copy, r->v->size);
	flip_bits(wrong.v, b);
	status = fault_pass(w, &wrong);
	free(copy);
	return status;
}

/* Another place of the same length. On a disk that has no other it is the right one. */
static int strike_misplace(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	uint64_t block = disk_info(w->below)->block_size, size = disk_size(w->below);
	uint64_t places = size > r->length ? (size - r->length) / block : 0;
	uint64_t place = places ? draw(b, 0) % places : r->offset / block;
	struct fault_request wrong = *r;

	if (places && place >= r->offset / block)
		place++; /* not the right one */
	wrong.offset = place * block;
	return fault_pass(w, &wrong);
}

/* ------------------------------------------------------------------ all of them */

int fault_act(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b)
{
	switch (b->strike.rule->act) {
	case FAULT_TORN:
		return strike_torn(w, r, b);
	case FAULT_DROP:
		return 0;
	case FAULT_CORRUPT:
		return strike_corrupt(w, r, b);
	case FAULT_MISPLACE:
		return strike_misplace(w, r, b);
	case FAULT_STALL:
		wait_sleep(b->strike.rule->time_ns);
		return fault_pass(w, r);
	default:
		return strike_error(w, r, b);
	}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each thread reads its piece and then waits for its turn: the number of the piece. Pieces are handed out in order, so that the
 * one whose turn it is has always been begun. When one fails, who waits is told and gives up.
 */
#include "cli/in-order.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "cli/sweep.h"
#include "core/wait.h"

#define ZEROES 65536u

struct queue {
	const struct in_order *wanted;
	_Atomic uint64_t turn; /* number of the piece that may be used */
	_Atomic bool failed;
	struct wait_signal changed; /* raised when one of them changes */
};

/* False when a piece before has failed. */
static bool wait_for_turn(struct queue *q, uint64_t number)
{
	for (;;) {
		uint32_t seen = wait_signal_count(&q->changed);
		if (atomic_load(&q->failed))
			return false;
		if (atomic_load(&q->turn) == number)
			return true;
		wait_signal_wait(&q->changed, seen, WAIT_FOREVER);
	}
}

static int use_zeroes(const struct in_order *o, uint64_t length, struct error *err)
{
	static const char zeroes[ZEROES];
	int status = 0;

	while (length > 0 && !status) {
		size_t here = length < ZEROES ? (size_t)length : ZEROES;
		status = o->use(o->argument, zeroes, here, err);
		length -= here;
	}
	return status;
}

/* Of the piece what is wanted: at the ends it holds whole blocks. */
static int use(const struct in_order *o, const struct piece *p, const char *data, struct error *err)
{
	uint64_t from = p->offset > o->offset ? p->offset : o->offset;
	uint64_t end = p->offset + p->length, wanted_end = o->offset + o->length;

	end = end < wanted_end ? end : wanted_end;
	if (p->flags & EXTENT_ZERO)
		return use_zeroes(o, end - from, err);
	return o->use(o->argument, data + (from - p->offset), (size_t)(end - from), err);
}

static int visit(const struct sweep *s, const struct piece *p, void *buffer, struct error *err)
{
	struct queue *q = s->argument;
	int status = 0;

	if (!(p->flags & EXTENT_ZERO))
		status = read_piece(s->disk, NULL, buffer, (size_t)p->length, p->offset, err);
	if (!status && !wait_for_turn(q, p->number))
		return SWEEP_ENOUGH;
	if (!status)
		status = use(q->wanted, p, buffer, err);
	if (status)
		atomic_store(&q->failed, true);
	else
		atomic_store(&q->turn, p->number + 1);
	wait_signal_raise(&q->changed);
	return status;
}

int in_order_run(const struct in_order *o, struct error *err)
{
	struct queue q = {.wanted = o};
	uint64_t block = disk_info(o->disk)->block_size;
	uint64_t begin = o->offset - o->offset % block, end = o->offset + o->length;
	struct sweep s = {
		.disk = o->disk,
		.offset = begin,
		.length = (end + block - 1) / block * block - begin,
		.jobs = o->jobs,
		.buffer_size = SWEEP_PIECE,
		.progress = o->progress,
		.argument = &q,
		.visit = visit,
	};

	return sweep_run(&s, err);
}

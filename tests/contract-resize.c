/* SPDX-License-Identifier: BSD-3-Clause */
/* Part of the contract suite: growing, shrinking, and who waits for it. */
#include "tests/contract-parts.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/loop.h"
#include "core/wait.h"
#include "tests/tap.h"

#define WAITERS 3u

struct waiting {
	struct disk *disk;
	uint64_t known, timeout_ns;
	_Atomic unsigned nr_waiting;
	uint64_t size[2 * WAITERS];
	int status[2 * WAITERS];
	_Atomic unsigned ended;
	struct wait_group all;
};

static void wait_once(void *argument)
{
	struct waiting *w = argument;
	unsigned i = atomic_fetch_add(&w->nr_waiting, 1);

	w->status[i] = disk_wait_resize(w->disk, w->known, w->timeout_ns, &w->size[i]);
	atomic_fetch_add(&w->ended, 1);
	wait_group_done(&w->all);
}

static void *wait_in_thread(void *argument)
{
	wait_once(argument);
	return NULL;
}

static bool nobody_yet(void *argument)
{
	(void)argument;
	return true;
}

/* Three threads and three fibers wait; act() is done, again while it says so and somebody still waits. */
static void wait_together(struct waiting *w, bool (*act)(void *), void *argument)
{
	pthread_t threads[WAITERS];
	struct loop *loop = NULL;

	if (!CHECK_EQ(loop_start(NULL, &loop, NULL), 0))
		return;
	wait_group_add(&w->all, 2 * WAITERS);
	for (unsigned i = 0; i < WAITERS; i++)
		if (pthread_create(&threads[i], NULL, wait_in_thread, w) || loop_spawn(loop, wait_once, w))
			abort();
	while (atomic_load(&w->nr_waiting) < 2 * WAITERS)
		wait_sleep(100000);
	wait_sleep(2000000); /* most of them really wait by now */
	while (act(argument) && atomic_load(&w->ended) < 2 * WAITERS)
		wait_sleep(500000);
	wait_group_wait(&w->all);
	for (unsigned i = 0; i < WAITERS; i++)
		pthread_join(threads[i], NULL);
	loop_finish(loop);
}

struct resizing {
	struct disk *disk;
	uint64_t size;
	int status;
};

static bool resize_once(void *argument)
{
	struct resizing *z = argument;

	z->status = disk_resize(z->disk, z->size, &io_plain);
	return false;
}

static bool cancel_again(void *argument)
{
	disk_cancel_resize_waits(argument);
	return true;
}

static void check_waiters_wake(struct disk *d, uint64_t size)
{
	struct waiting w = {.disk = d, .known = disk_size(d), .timeout_ns = WAIT_FOREVER};
	struct resizing z = {.disk = d, .size = size};

	wait_together(&w, resize_once, &z);
	CHECK_EQ(z.status, 0);
	CHECK_EQ(disk_size(d), size);
	for (unsigned i = 0; i < 2 * WAITERS; i++) {
		CHECK_EQ(w.status[i], 0);
		CHECK_EQ(w.size[i], size);
	}
}

/* Every disk can be waited on, whether or not its size ever changes. */
static void check_waits_end(struct disk *d)
{
	struct waiting cancelled = {.disk = d, .known = disk_size(d), .timeout_ns = WAIT_FOREVER};
	struct waiting timed = {.disk = d, .known = disk_size(d), .timeout_ns = 1000000};
	struct waiting known = {.disk = d, .known = 1, .timeout_ns = WAIT_FOREVER};

	wait_together(&cancelled, cancel_again, d);
	wait_together(&timed, nobody_yet, NULL);
	wait_together(&known, nobody_yet, NULL);
	for (unsigned i = 0; i < 2 * WAITERS; i++) {
		CHECK_EQ(cancelled.status[i], -ECANCELED);
		CHECK_EQ(timed.status[i], -ETIMEDOUT);
		CHECK_EQ(known.status[i], 0);
		CHECK_EQ(known.size[i], disk_size(d));
	}
}

static void check_size_refused(struct disk *d)
{
	uint64_t b = disk_info(d)->block_size, size = disk_size(d);

	CHECK_EQ(disk_resize(d, 0, &io_plain), -EINVAL);
	CHECK_EQ(disk_resize(d, size + 1, &io_plain), -EINVAL);
	CHECK_EQ(disk_resize(d, size + b - 1, &io_plain), -EINVAL);
	CHECK_EQ(disk_resize(d, UINT64_C(1) << 63, &io_plain), -ERANGE);
	CHECK_EQ(disk_resize(d, UINT64_MAX - b + 1, &io_plain), -ERANGE);
	CHECK_EQ(disk_size(d), size);
}

/* All that the model says, and zeroes beyond it. */
static void check_grown(struct trial *t, uint64_t size)
{
	struct model m;

	CHECK_EQ(disk_size(t->disk), size);
	model_make(&m, size, t->model.block);
	memcpy(m.bytes, t->model.bytes, size < t->model.size ? size : t->model.size);
	model_free(&t->model);
	t->model = m;
	CHECK(model_agrees(&t->model, t->disk, 0, size));
	check_extents(t, 0, size, SIZE_MAX);
}

static uint64_t step_of(const struct contract *c, struct disk *d)
{
	return c->resize_step ? c->resize_step : disk_info(d)->block_size;
}

static void check_resizes(struct trial *t)
{
	uint64_t b = t->model.block, step = step_of(t->c, t->disk), size = t->model.size, half = size / 2 / step * step;
	struct disk *d = t->disk;

	fill_all(t);
	check_waiters_wake(d, size + 5 * step);
	check_grown(t, size + 5 * step);
	fill_all(t);
	check_waiters_wake(d, half);
	expect_all(d, half, b, -ERANGE, (char *)t->model.bytes);
	expect_all(d, half - b, 2 * b, -ERANGE, (char *)t->model.bytes);
	check_grown(t, half);
	CHECK_EQ(disk_resize(d, size, &io_plain), 0);
	check_grown(t, size);
	do_write(t, half - b, 2 * b);
	do_discard(t, half - b, 2 * b, 0);
	CHECK_EQ(disk_resize(d, step, &io_plain), 0);
	check_grown(t, step);
	CHECK_EQ(disk_resize(d, size, &io_plain), 0);
	check_grown(t, size);
	CHECK_EQ(disk_resize(d, size, &io_plain), 0);
	check_grown(t, size);
}

struct racing {
	struct disk *disk;
	uint64_t size;
	_Atomic bool stop;
	_Atomic unsigned next;
};

/* Whatever the size is at the moment: done or outside. */
static void *race_resizes(void *argument)
{
	struct racing *z = argument;
	struct random r = random_stream(300 + atomic_fetch_add(&z->next, 1));
	uint64_t b = disk_info(z->disk)->block_size;
	void *memory = must_have(8 * b);

	random_fill(&r, memory, 8 * b);
	while (!atomic_load(&z->stop)) {
		uint64_t length = (random_below(&r, 8) + 1) * b;
		uint64_t offset = random_below(&r, z->size / b) * b;
		int status = call_op(z->disk, random_below(&r, OPS), offset, length, memory, &io_plain);
		if (status && status != -ERANGE)
			CHECK_EQ(status, 0);
	}
	free(memory);
	return NULL;
}

static void check_resize_races(struct disk *d, uint64_t size, uint64_t step)
{
	struct racing z = {.disk = d, .size = size};
	struct random r = random_stream(6);
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, race_resizes, &z))
			abort();
	for (unsigned i = 0; i < contract_rounds(60); i++)
		CHECK_EQ(disk_resize(d, (random_below(&r, size / step) + 1) * step, &io_plain), 0);
	atomic_store(&z.stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(disk_resize(d, step, &io_plain), 0);
	CHECK_EQ(disk_resize(d, size, &io_plain), 0);
}

void part_resize(const struct contract *c, struct disk *d)
{
	bool can = contract_is_writable(d) && (disk_info(d)->flags & DISK_RESIZABLE);
	uint64_t step = step_of(c, d);
	struct trial t;

	check_size_refused(d);
	check_waits_end(d);
	if (!can) {
		CHECK_EQ(disk_resize(d, disk_size(d) + disk_info(d)->block_size, &io_plain),
			 contract_is_writable(d) ? -EOPNOTSUPP : -EROFS);
		return;
	}
	if (trial_begin(&t, c, d, 7)) {
		check_resizes(&t);
		check_resize_races(d, t.model.size, step);
		memset(t.model.bytes + step, 0, t.model.size - step);
		CHECK_EQ(disk_read(d, &VEC_FLAT(t.model.bytes, step), 0, &io_plain), 0);
	}
	trial_end(&t);
}

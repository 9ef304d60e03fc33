/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Device Self-test (Base 5.9, 8.8): reads in the background. The short one looks at the beginning, middle and end of each namespace, the
 * extended one at all of it. The short one is ended by a reset, the extended one goes on. One runs at a time.
 */
#include <stdlib.h>
#include <string.h>

#include "nvme/data.h"
#include "nvme/internal.h"

#define STEP_BYTES (UINT64_C(1) << 20)

enum code { SHORT = 1, EXTENDED = 2, ABORT = 15 };

/* Segments, as told in a result. */
enum { SEGMENT_BLOCKS = 1 };

struct test {
	struct nvme *c;
	uint32_t nsid, code;
	char *buffer;
	struct nvme_self_test_result result;
};

static void show_progress(struct nvme *c, uint32_t code, unsigned percent)
{
	short_lock_exclusive(&c->log_lock);
	c->self_test.operation = (uint8_t)code;
	c->self_test.completion = (uint8_t)percent;
	short_unlock_exclusive(&c->log_lock);
}

static void record(struct test *t, unsigned outcome)
{
	struct nvme_log_self_test *log = &t->c->self_test;

	t->result.status = (uint8_t)(t->code << 4 | outcome);
	t->result.power_on_hours = put64(nvme_power_on_hours(t->c));
	short_lock_exclusive(&t->c->log_lock);
	log->operation = log->completion = 0;
	memmove(&log->results[1], &log->results[0], sizeof(log->results) - sizeof(log->results[0]));
	log->results[0] = t->result;
	short_unlock_exclusive(&t->c->log_lock);
}

static void note_failure(struct test *t, struct nvme_namespace *n, uint64_t at)
{
	t->result.segment = SEGMENT_BLOCKS;
	t->result.valid = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3; /* NSID, failing LBA, SCT and SC */
	t->result.nsid = put32(n->nsid);
	t->result.lba = put64(at >> n->block_shift);
	t->result.sct = NVME_UNRECOVERED_READ >> 8;
	t->result.sc = NVME_UNRECOVERED_READ & 0xff;
}

/* Reads one piece, if the namespace is still there and as large; false when that failed. */
static bool read_piece(struct test *t, uint32_t nsid, uint64_t at)
{
	_Atomic uint32_t *place = grace_enter(&t->c->inside);
	struct nvme_namespace *n = nvme_namespace(t->c, nsid);
	uint64_t size = n ? disk_size(n->disk) : 0, where = at;
	bool good = true;

	if (at < size && !atomic_load(&n->formatting)) {
		uint64_t length = size - at < STEP_BYTES ? size - at : STEP_BYTES;
		struct vec v = VEC_FLAT(t->buffer, length);
		good = !(atomic_load(&n->nr_bad) && nvme_bad_find(n, at, length, &where)) &&
		       !disk_read(n->disk, &v, at, &io_plain);
		if (!good)
			note_failure(t, n, where);
	}
	grace_leave(&t->c->inside, place);
	return good;
}

static uint64_t size_of(struct nvme *c, uint32_t nsid)
{
	_Atomic uint32_t *place = grace_enter(&c->inside);
	struct nvme_namespace *n = nvme_namespace(c, nsid);
	uint64_t size = n ? disk_size(n->disk) : 0;

	grace_leave(&c->inside, place);
	return size;
}

/* Pieces that the short test reads of a disk of `size` bytes; the extended one takes each. */
static uint64_t next_piece(const struct test *t, uint64_t at, uint64_t size)
{
	uint64_t pieces = (size + STEP_BYTES - 1) / STEP_BYTES, middle = pieces / 2 * STEP_BYTES,
		 last = (pieces - 1) * STEP_BYTES;

	if (t->code == EXTENDED)
		return at + STEP_BYTES;
	if (at < middle)
		return middle;
	return at < last ? last : size;
}

static unsigned test_one(struct test *t, uint32_t nsid)
{
	uint64_t size = size_of(t->c, nsid);

	for (uint64_t at = 0; at < size; at = next_piece(t, at, size)) {
		unsigned stop = atomic_load(&t->c->self_test_stop);
		if (stop)
			return stop;
		if (!read_piece(t, nsid, at))
			return NVME_SELF_TEST_FAILED;
		show_progress(t->c, t->code, (unsigned)((double)at / (double)size * 100));
	}
	return NVME_SELF_TEST_PASSED;
}

static void test_main(void *argument)
{
	struct test *t = argument;
	struct nvme *c = t->c;
	unsigned outcome = NVME_SELF_TEST_PASSED;

	for (uint32_t id = 1; id <= c->max_nsid && t->nsid && !outcome; id++)
		if (t->nsid == NVME_NSID_ALL || t->nsid == id)
			outcome = test_one(t, id);
	if (!outcome)
		outcome = atomic_load(&c->self_test_stop);
	record(t, outcome);
	atomic_store(&c->self_testing, 0);
	wait_signal_raise(&c->self_test_ended);
	free(t->buffer);
	free(t);
	wait_group_done(&c->fibers);
}

static uint16_t begin(struct nvme *c, uint32_t code, uint32_t nsid)
{
	struct test *t = calloc(1, sizeof(*t));

	if (t)
		t->buffer = malloc(STEP_BYTES);
	if (!t || !t->buffer) {
		free(t);
		return NVME_INTERNAL_ERROR;
	}
	t->c = c;
	t->code = code;
	t->nsid = nsid;
	atomic_store(&c->self_test_stop, 0);
	atomic_store(&c->self_testing, code);
	show_progress(c, code, 0);
	wait_group_add(&c->fibers, 1);
	if (loop_spawn(c->lanes[0].loop, test_main, t)) {
		wait_group_done(&c->fibers);
		atomic_store(&c->self_testing, 0);
		show_progress(c, 0, 0);
		free(t->buffer);
		free(t);
		return NVME_INTERNAL_ERROR;
	}
	return NVME_OK;
}

void nvme_self_test_end(struct nvme *c, unsigned outcome)
{
	while (atomic_load(&c->self_testing)) {
		uint32_t seen = wait_signal_count(&c->self_test_ended);
		atomic_store(&c->self_test_stop, outcome);
		if (atomic_load(&c->self_testing))
			wait_signal_wait(&c->self_test_ended, seen, WAIT_FOREVER);
	}
}

void nvme_self_test_reset(struct nvme *c)
{
	uint32_t running = atomic_load(&c->self_testing);

	if (running == SHORT || (running && atomic_load(&c->ended)))
		nvme_self_test_end(c, NVME_SELF_TEST_RESET);
}

uint16_t nvme_admin_self_test(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme *c = cmd->c;
	uint32_t code = nvme_cdw10(cmd) & 15, nsid = nvme_nsid(cmd);

	(void)n;
	if (code != SHORT && code != EXTENDED && code != ABORT)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0);
	if (code == ABORT) {
		nvme_self_test_end(c, NVME_SELF_TEST_ABORTED);
		return NVME_OK;
	}
	if (atomic_load(&c->self_testing))
		return NVME_SELF_TEST_IN_PROGRESS;
	if (nsid && nsid != NVME_NSID_ALL && !size_of(c, nsid))
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	return begin(c, code, nsid);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Format NVM and Sanitize (Base 5.13, 5.24): both write over whole namespaces.
 *
 * Format is one command that takes as long as it takes; commands to its namespace are refused meanwhile. It gives up when its
 * queue is deleted or the controller is reset, and then some of the namespace is zeroed and the rest is not.
 *
 * Sanitize is answered at once and goes on in the background, across resets, until every namespace is done; commands other than those
 * that Base 5.24 lists are refused meanwhile, and, when it failed, until it is begun again, or, if it was begun
 * with Allow Unrestricted Sanitize Exit, until the host gives up on it. Namespaces come and go in between only.
 *
 * What is erased reads as zeroes. What lies below a disk of ours (older layers, a host's own storage) is not ours to erase, so
 * cryptographic erase is not offered.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/data.h"
#include "nvme/internal.h"
#include "nvme/status.h"

/* Bytes between two looks at whether to go on. */
#define STEP_BYTES (UINT64_C(64) << 20)
#define PATTERN_BYTES ((size_t)256 * 1024)

static uint64_t step_at(uint64_t done, uint64_t size, uint64_t step)
{
	return size - done < step ? size - done : step;
}

/* Keeps commands from the namespace, and waits for those that are there. False: somebody else does that already. */
static bool close_namespace(struct nvme_namespace *n)
{
	if (atomic_exchange(&n->formatting, true))
		return false;
	grace_wait(&n->c->inside);
	return true;
}

static void open_namespace(struct nvme_namespace *n)
{
	atomic_store(&n->formatting, false);
}

/* ------------------------------------------------------------------ format */

static uint16_t erase(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct failure failure = {0};
	const struct io io = {.flags = IO_MAY_UNMAP, .who = atomic_load(&cmd->c->who), .failure = &failure};
	uint64_t size = disk_size(n->disk);
	uint16_t status = NVME_OK;

	for (uint64_t done = 0; done < size && !status; done += step_at(done, size, STEP_BYTES)) {
		status = nvme_broken(cmd);
		if (!status)
			status = nvme_ended(cmd, disk_write_zeroes(n->disk, done, step_at(done, size, STEP_BYTES), &io),
					    &failure);
	}
	if (!status)
		nvme_bad_remove(n, 0, size);
	return status;
}

/* LBA format, with its upper bits (Base 5.13). */
static unsigned format_index(const struct nvme_command *cmd)
{
	return (nvme_cdw10(cmd) & 15) | (nvme_cdw10(cmd) >> 12 & 3) << 4;
}

static uint16_t check_format(struct nvme_command *cmd, const struct nvme_namespace *n)
{
	unsigned shifts[2];

	if (format_index(cmd) >= nvme_format_shifts(n, shifts))
		return nvme_fail_field(cmd, NVME_FORMAT_INVALID, 40, 0);
	return n->read_only ? NVME_WRITE_PROTECTED : NVME_OK;
}

/* Under namespaces_lock. */
static uint16_t format_one(struct nvme_command *cmd, struct nvme_namespace *n)
{
	unsigned shifts[2];
	uint16_t status = check_format(cmd, n);

	if (status)
		return status;
	nvme_format_shifts(n, shifts);
	if (!close_namespace(n))
		return NVME_FORMAT_IN_PROGRESS;
	status = erase(cmd, n);
	if (!status)
		n->block_shift = shifts[format_index(cmd)];
	open_namespace(n);
	return status;
}

static uint16_t format_all(struct nvme_command *cmd)
{
	struct nvme *c = cmd->c;
	uint16_t status = NVME_OK;

	for (uint32_t id = 1; id <= c->max_nsid && !status; id++) {
		struct nvme_namespace *n = nvme_namespace(c, id);
		if (n)
			status = check_format(cmd, n);
	}
	for (uint32_t id = 1; id <= c->max_nsid && !status; id++) {
		struct nvme_namespace *n = nvme_namespace(c, id);
		if (n)
			status = format_one(cmd, n);
	}
	return status;
}

uint16_t nvme_admin_format(struct nvme_command *cmd, struct nvme_namespace *unused)
{
	struct nvme *c = cmd->c;
	struct nvme_namespace *n;
	uint32_t cdw10 = nvme_cdw10(cmd);
	uint16_t status;

	(void)unused;
	if (cdw10 >> 4 & 0x1f) /* metadata, protection information */
		return nvme_fail_field(cmd, NVME_FORMAT_INVALID, 40, 4);
	if ((cdw10 >> 9 & 7) > 1) /* no cryptographic erase */
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 41, 1);
	cmd->breakable = true;
	nvme_self_test_end(c, NVME_SELF_TEST_FORMAT);
	wait_mutex_lock(&c->namespaces_lock);
	n = nvme_namespace(c, nvme_nsid(cmd));
	if (n)
		status = format_one(cmd, n);
	else if (nvme_nsid(cmd) == NVME_NSID_ALL)
		status = format_all(cmd);
	else
		status = nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	wait_mutex_unlock(&c->namespaces_lock);
	return status;
}

/* ------------------------------------------------------------------ sanitize */

enum action { EXIT_FAILURE_MODE = 1, BLOCK_ERASE = 2, OVERWRITE = 3 };

/* One Sanitize operation. */
struct sanitize {
	struct nvme *c;
	struct initiator who;
	uint64_t total, done; /* bytes, over all passes */
	uint32_t pattern;
	char *buffer;         /* overwrite: the pattern again and again */
};

static unsigned nr_passes(uint32_t cdw10)
{
	if ((cdw10 & 7) != OVERWRITE)
		return 1;
	return cdw10 >> 4 & 15 ? cdw10 >> 4 & 15 : 16;
}

static void fill_pattern(struct sanitize *s, unsigned pass)
{
	bool invert = s->c->sanitize_cdw10 >> 8 & 1 && pass % 2;
	struct le32 word = put32(invert ? ~s->pattern : s->pattern);

	for (size_t i = 0; i < PATTERN_BYTES; i += sizeof(word))
		memcpy(s->buffer + i, &word, sizeof(word));
}

static void advance(struct sanitize *s, uint64_t bytes)
{
	s->done += bytes;
	atomic_store(&s->c->sanitize_progress, (uint32_t)((double)s->done / (double)s->total * 65535));
}

static int sanitize_step(struct sanitize *s, struct nvme_namespace *n, uint64_t at, uint64_t length)
{
	bool keep = s->c->sanitize_cdw10 >> 9 & 1; /* No-Deallocate After Sanitize */
	const struct io io = {.flags = keep ? 0 : IO_MAY_UNMAP, .who = &s->who};
	struct vec v = VEC_FLAT(s->buffer, length);

	return s->buffer ? disk_write(n->disk, &v, at, &io) : disk_write_zeroes(n->disk, at, length, &io);
}

static int sanitize_one(struct sanitize *s, struct nvme_namespace *n)
{
	uint64_t size = disk_size(n->disk), step = s->buffer ? PATTERN_BYTES : STEP_BYTES;
	int status = 0;

	for (uint64_t at = 0; at < size && !status; at += step_at(at, size, step)) {
		uint64_t length = step_at(at, size, step);
		status = atomic_load(&s->c->ended) ? -ECANCELED : sanitize_step(s, n, at, length);
		advance(s, length);
	}
	nvme_bad_remove(n, 0, size);
	return status ? status : disk_flush(n->disk, &(const struct io){.who = &s->who});
}

/* Under namespaces_lock. */
static int sanitize_pass(struct sanitize *s)
{
	int status = 0;

	for (uint32_t id = 1; id <= s->c->max_nsid && !status; id++) {
		struct nvme_namespace *n = nvme_namespace(s->c, id);
		if (n)
			status = sanitize_one(s, n);
	}
	return status;
}

static uint64_t all_bytes(struct nvme *c)
{
	uint64_t sum = 0;

	for (uint32_t id = 1; id <= c->max_nsid; id++) {
		struct nvme_namespace *n = nvme_namespace(c, id);
		sum += n ? disk_size(n->disk) : 0;
	}
	return sum;
}

static int sanitize_all(struct sanitize *s)
{
	struct nvme *c = s->c;
	unsigned passes = nr_passes(c->sanitize_cdw10);
	int status = 0;

	grace_wait(&c->inside);
	s->total = all_bytes(c) * passes;
	for (unsigned pass = 0; pass < passes && !status; pass++) {
		if (s->buffer)
			fill_pattern(s, pass);
		status = sanitize_pass(s);
		atomic_store(&c->sanitize_passes, status ? pass : pass + 1);
	}
	return status;
}

static void sanitize_main(void *argument)
{
	struct sanitize *s = argument;
	struct nvme *c = s->c;
	int status;

	wait_mutex_lock(&c->namespaces_lock);
	status = sanitize_all(s);
	wait_mutex_unlock(&c->namespaces_lock);
	atomic_store(&c->sanitize_progress, 0xffff);
	atomic_store(&c->sanitize_state, status ? NVME_SANITIZE_FAILURE : NVME_SANITIZE_DONE);
	nvme_event(c, NVME_EVENT_SANITIZED);
	free(s->buffer);
	free(s);
	wait_group_done(&c->fibers);
}

static uint16_t sanitize_begin(struct nvme *c, uint32_t cdw10, uint32_t pattern)
{
	struct sanitize *s = calloc(1, sizeof(*s));

	if (s && (cdw10 & 7) == OVERWRITE)
		s->buffer = malloc(PATTERN_BYTES);
	if (!s || ((cdw10 & 7) == OVERWRITE && !s->buffer)) {
		free(s);
		return NVME_INTERNAL_ERROR;
	}
	s->c = c;
	s->who = *atomic_load(&c->who);
	s->pattern = pattern;
	c->sanitize_cdw10 = cdw10;
	atomic_store(&c->sanitize_passes, 0);
	atomic_store(&c->sanitize_progress, 0);
	wait_group_add(&c->fibers, 1);
	if (loop_spawn(c->lanes[0].loop, sanitize_main, s)) {
		wait_group_done(&c->fibers);
		free(s->buffer);
		free(s);
		return NVME_INTERNAL_ERROR;
	}
	atomic_store(&c->sanitize_state, NVME_SANITIZE_RUNNING);
	return NVME_OK;
}

static bool any_read_only(struct nvme *c)
{
	_Atomic uint32_t *place = grace_enter(&c->inside);
	bool found = false;

	for (uint32_t id = 1; id <= c->max_nsid; id++) {
		struct nvme_namespace *n = nvme_namespace(c, id);
		found |= n && n->read_only;
	}
	grace_leave(&c->inside, place);
	return found;
}

uint16_t nvme_admin_sanitize(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme *c = cmd->c;
	uint32_t cdw10 = nvme_cdw10(cmd), action = cdw10 & 7, state = atomic_load(&c->sanitize_state);

	(void)n;
	if (action != EXIT_FAILURE_MODE && action != BLOCK_ERASE && action != OVERWRITE)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0);
	if (state == NVME_SANITIZE_RUNNING)
		return NVME_SANITIZE_IN_PROGRESS;
	if (action == EXIT_FAILURE_MODE) {
		if (state == NVME_SANITIZE_FAILURE && !(c->sanitize_cdw10 >> 3 & 1))
			return NVME_SANITIZE_FAILED; /* it was begun in restricted mode */
		if (state == NVME_SANITIZE_FAILURE)
			atomic_store(&c->sanitize_state, NVME_SANITIZE_LEFT);
		return NVME_OK;
	}
	if (any_read_only(c))
		return NVME_WRITE_PROTECTED;
	nvme_self_test_end(c, NVME_SELF_TEST_SANITIZE);
	return sanitize_begin(c, cdw10, nvme_cdw11(cmd));
}

uint16_t nvme_sanitize_allows(struct nvme *c, const struct nvme_command *cmd, bool admin)
{
	bool running = atomic_load(&c->sanitize_state) == NVME_SANITIZE_RUNNING;

	if (admin && cmd->sqe.opcode != NVME_ADMIN_FORMAT && cmd->sqe.opcode != NVME_ADMIN_SELF_TEST)
		return NVME_OK;
	return running ? NVME_SANITIZE_IN_PROGRESS : NVME_SANITIZE_FAILED;
}

/* Base 5.16.1.24. A failure that the host has left stays the most recent result. */
void nvme_sanitize_log(struct nvme *c, struct nvme_log_sanitize *log)
{
	uint32_t state = atomic_load(&c->sanitize_state), shown = state == NVME_SANITIZE_LEFT ? NVME_SANITIZE_FAILURE : state;
	uint32_t never = state == NVME_SANITIZE_NEVER;

	log->progress = put16(never ? 0xffff : atomic_load(&c->sanitize_progress));
	log->status = put16(shown | (atomic_load(&c->sanitize_passes) & 31) << 3);
	log->cdw10 = put32(never ? 0 : c->sanitize_cdw10);
	for (unsigned i = 0; i < 6; i++)
		log->seconds[i] = put32(UINT32_MAX); /* no estimate */
}

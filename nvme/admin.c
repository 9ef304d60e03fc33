/* SPDX-License-Identifier: BSD-3-Clause */
/* Admin commands about queues and commands: creation and deletion, Abort, Keep Alive, Doorbell Buffer Config (Base 5.1 to 5.8, 5.18). */
#include "nvme/data.h"
#include "nvme/internal.h"

#define CDW11_CONTIGUOUS 1u
#define CDW11_INTERRUPTS 2u

/* Offsets in the queue entry, for the error log. */
enum { AT_PRP1 = 24, AT_PRP2 = 32, AT_CDW10 = 40, AT_CDW11 = 44 };

static uint32_t read_cc(struct nvme *c)
{
	uint32_t cc;

	short_lock_shared(&c->lock);
	cc = c->regs.cc;
	short_unlock_shared(&c->lock);
	return cc;
}

/* ------------------------------------------------------------------ creating */

/* What both kinds of queues have in common; `used` says whether the id is. */
static uint16_t check_queue(struct nvme_command *cmd, bool used, unsigned count, bool entry_size_set)
{
	uint16_t id = (uint16_t)nvme_cdw10(cmd);
	uint32_t size = (nvme_cdw10(cmd) >> 16) + 1;

	if (!id || id > count || used)
		return nvme_fail_field(cmd, NVME_QID_INVALID, AT_CDW10, 0);
	if (size < 2 || size > cmd->c->max_depth || !entry_size_set)
		return nvme_fail_field(cmd, NVME_QUEUE_SIZE_INVALID, AT_CDW10 + 2, 0);
	if (!(nvme_cdw11(cmd) & CDW11_CONTIGUOUS))
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, AT_CDW11, 0);
	if (get64(cmd->sqe.prp1) & ((UINT64_C(1) << cmd->c->page_shift) - 1))
		return nvme_fail_field(cmd, NVME_PRP_INVALID_OFFSET, AT_PRP1, 0);
	return NVME_OK;
}

/* A new queue begins at 0, also in the shadow doorbells, which may hold what the last one of that id left. */
static uint16_t clear_shadow(struct nvme *c, unsigned index)
{
	uint64_t shadow = atomic_load(&c->shadow);

	if (shadow && (nvme_guest_store32(c, shadow + 4u * index, 0) ||
		       nvme_guest_store32(c, atomic_load(&c->event_index) + 4u * index, 0)))
		return NVME_DATA_TRANSFER_ERROR;
	return NVME_OK;
}

uint16_t nvme_admin_create_cq(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme *c = cmd->c;
	uint16_t id = (uint16_t)nvme_cdw10(cmd), vector = (uint16_t)(nvme_cdw11(cmd) >> 16);
	bool interrupts = nvme_cdw11(cmd) & CDW11_INTERRUPTS;
	unsigned count = (c->settings.queues >> 16) + 1;
	uint16_t status = check_queue(cmd, id <= NVME_MAX_QUEUES && c->cqs[id], count,
				      NVME_CC_IOCQES(read_cc(c)) == NVME_CQE_SHIFT);

	(void)n;
	if (!status && interrupts && vector >= c->max_vectors)
		status = nvme_fail_field(cmd, NVME_VECTOR_INVALID, AT_CDW11 + 2, 0);
	if (!status)
		status = clear_shadow(c, 2u * id + 1);
	if (status)
		return status;
	if (c->cqs[id]) /* another command may have made it while we waited for the guest's memory */
		return NVME_SEQUENCE_ERROR;
	return nvme_cq_start(c, id, get64(cmd->sqe.prp1), (nvme_cdw10(cmd) >> 16) + 1, interrupts, vector)
		       ? NVME_INTERNAL_ERROR
		       : NVME_OK;
}

uint16_t nvme_admin_create_sq(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme *c = cmd->c;
	uint16_t id = (uint16_t)nvme_cdw10(cmd), cqid = (uint16_t)(nvme_cdw11(cmd) >> 16);
	unsigned count = (c->settings.queues & 0xffff) + 1;
	uint16_t status;

	(void)n;
	if (!cqid || cqid > NVME_MAX_QUEUES || !c->cqs[cqid])
		return nvme_fail_field(cmd, NVME_CQ_INVALID, AT_CDW11 + 2, 0);
	status = check_queue(cmd, id <= NVME_MAX_QUEUES && c->sqs[id], count,
			     NVME_CC_IOSQES(read_cc(c)) == NVME_SQE_SHIFT);
	if (!status)
		status = clear_shadow(c, 2u * id);
	if (status)
		return status;
	if (!c->cqs[cqid] || c->sqs[id]) /* as above */
		return NVME_SEQUENCE_ERROR;
	return nvme_sq_start(c, id, get64(cmd->sqe.prp1), (nvme_cdw10(cmd) >> 16) + 1, c->cqs[cqid])
		       ? NVME_INTERNAL_ERROR
		       : NVME_OK;
}

/* ------------------------------------------------------------------ deleting */

uint16_t nvme_admin_delete_sq(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint16_t id = (uint16_t)nvme_cdw10(cmd);
	struct nvme_sq *sq = id && id <= NVME_MAX_QUEUES ? cmd->c->sqs[id] : NULL;

	(void)n;
	if (!sq || atomic_load(&sq->stopping))
		return nvme_fail_field(cmd, NVME_QID_INVALID, AT_CDW10, 0);
	nvme_sq_stop(sq);
	nvme_sq_finish(sq);
	return NVME_OK;
}

uint16_t nvme_admin_delete_cq(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint16_t id = (uint16_t)nvme_cdw10(cmd);
	struct nvme_cq *cq = id && id <= NVME_MAX_QUEUES ? cmd->c->cqs[id] : NULL;

	(void)n;
	if (!cq)
		return nvme_fail_field(cmd, NVME_QID_INVALID, AT_CDW10, 0);
	if (cq->nr_sqs)
		return nvme_fail_field(cmd, NVME_QUEUE_DELETION_INVALID, AT_CDW10, 0);
	nvme_cq_finish(cq);
	return NVME_OK;
}

/* ------------------------------------------------------------------ abort */

/*
 * A command can be broken off before it has begun, and while it does something step by step. What has been handed to a disk
 * cannot: its buffer is in use until the disk is done. So the answer is "not aborted" then, at once.
 */
struct search {
	struct nvme_sq *sq;
	uint16_t cid;
	struct nvme_abort ticket;
	bool found;
	struct wait_group done;
};

static bool is_asked_for(struct nvme_command *cmd, void *argument)
{
	struct search *s = argument;

	if (nvme_cid(cmd) != s->cid || cmd->ticket || (cmd->begun && !cmd->breakable))
		return false;
	s->found = true;
	cmd->ticket = &s->ticket;
	atomic_store(&cmd->broken, NVME_ABORT_REQUESTED);
	wait_signal_raise(&cmd->breaking);
	return true;
}

/* On the loop of the queue; returns when the command has ended, if there is one. */
static void search_main(void *argument)
{
	struct search *s = argument;

	if (nvme_sq_visit(s->sq, is_asked_for, s))
		wait_signal_wait(&s->ticket.ended, 0, WAIT_FOREVER);
	wait_group_done(&s->done);
}

/* Result: bit 0 says that it was not aborted (Base 5.1). */
uint16_t nvme_admin_abort(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint16_t id = (uint16_t)nvme_cdw10(cmd);
	struct search s = {.cid = (uint16_t)(nvme_cdw10(cmd) >> 16)};

	(void)n;
	cmd->result = 1;
	s.sq = id <= NVME_MAX_QUEUES ? cmd->c->sqs[id] : NULL;
	if (!s.sq)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, AT_CDW10, 0);
	if (!id && nvme_event_abort(cmd->c, s.cid)) {
		cmd->result = 0;
		return NVME_OK;
	}
	s.sq->users++;
	wait_group_add(&s.done, 1);
	if (loop_spawn(s.sq->cq->lane->loop, search_main, &s) == 0)
		wait_group_wait(&s.done);
	if (--s.sq->users == 0)
		wait_signal_raise(&s.sq->unused);
	cmd->result = !(s.found && s.ticket.aborted);
	return NVME_OK;
}

/* ------------------------------------------------------------------ keep alive */

uint16_t nvme_admin_keep_alive(struct nvme_command *cmd, struct nvme_namespace *n)
{
	(void)n;
	atomic_store(&cmd->c->last_keep_alive, wait_now());
	return NVME_OK;
}

static bool is_ready(struct nvme *c)
{
	return (nvme_csts(c) & (NVME_CSTS_RDY | NVME_CSTS_CFS)) == NVME_CSTS_RDY;
}

/* Base 3.9: what a controller with memory-based queues does is to record it, and to fail. */
static void keep_alive_expired(struct nvme *c)
{
	atomic_store(&c->keep_alive_ms, 0);
	nvme_log_error(c, NULL, NVME_KEEP_ALIVE_EXPIRED);
	nvme_set_fatal(c);
}

void nvme_keep_alive_main(void *argument)
{
	struct nvme *c = argument;

	for (;;) {
		uint32_t seen = wait_signal_count(&c->keep_alive_changed);
		uint64_t limit = atomic_load(&c->keep_alive_ms) * UINT64_C(1000000), due, now;
		if (atomic_load(&c->ended))
			break;
		due = atomic_load(&c->last_keep_alive) + limit;
		now = wait_now();
		if (!limit || !is_ready(c))
			wait_signal_wait(&c->keep_alive_changed, seen, limit ? limit : WAIT_FOREVER);
		else if (now < due)
			wait_signal_wait(&c->keep_alive_changed, seen, due - now);
		else
			keep_alive_expired(c);
	}
	wait_group_done(&c->fibers);
}

/* ------------------------------------------------------------------ shadow doorbells */

/* What the registers say goes into both buffers; then those are the truth (Base 5.8). */
static uint16_t copy_doorbells(struct nvme *c, uint64_t shadow, uint64_t event_index)
{
	for (unsigned i = 2; i < 2 * (c->max_queues + 1); i++) {
		uint32_t value = atomic_load(&c->doorbells[i]);
		if (nvme_guest_store32(c, shadow + 4u * i, value) || nvme_guest_store32(c, event_index + 4u * i, value))
			return NVME_DATA_TRANSFER_ERROR;
	}
	return NVME_OK;
}

uint16_t nvme_admin_doorbell_buffer(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme *c = cmd->c;
	uint64_t shadow = get64(cmd->sqe.prp1), event_index = get64(cmd->sqe.prp2);
	uint64_t inside = (UINT64_C(1) << c->page_shift) - 1;
	uint16_t status;

	(void)n;
	if (!shadow || shadow & inside)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, AT_PRP1, 0);
	if (!event_index || event_index & inside)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, AT_PRP2, 0);
	status = copy_doorbells(c, shadow, event_index);
	if (status)
		return status;
	atomic_store(&c->event_index, event_index);
	atomic_store(&c->shadow, shadow);
	for (unsigned i = 2; i < 2 * (c->max_queues + 1); i++)
		wait_signal_raise(&c->bells[i].rung);
	return NVME_OK;
}

uint16_t nvme_admin_async_event(struct nvme_command *cmd, struct nvme_namespace *n)
{
	(void)n;
	return nvme_event_request(cmd);
}

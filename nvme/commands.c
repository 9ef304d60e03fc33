/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of commands: what carries each out, what has to be there, and what it does to others, from which the Commands
 * Supported and Effects log page is made. What is not in it is an Invalid Opcode.
 */
#include <errno.h>

#include "nvme/internal.h"
#include "nvme/status.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

/* Base 5.16.1.6 */
enum effects {
	SUPPORTED = 1 << 0,
	CHANGES_BLOCKS = 1 << 1,     /* LBCC */
	CHANGES_NAMESPACE = 1 << 2,  /* NCC */
	CHANGES_CONTROLLER = 1 << 4, /* CCC */
	ALONE_IN_NAMESPACE = 1 << 16, /* CSE: no other command for the namespace is to be outstanding */
	ALONE = 2 << 16,
};

enum needs {
	NAMESPACE = 1 << 0,      /* NSID names an attached one */
	OR_ALL = 1 << 1,         /* or it is FFFFFFFFh: the handler gets NULL */
	WRITES = 1 << 2,         /* not where the namespace is write-protected */
	FUSES = 1 << 3,          /* may be part of a fused pair */
	
};

struct row {
	nvme_handler *handler;
	uint32_t effects;
	unsigned needs;
};

static const struct row admin_rows[256] = {
	[NVME_ADMIN_DELETE_SQ] = {nvme_admin_delete_sq, SUPPORTED, 0},
	[NVME_ADMIN_CREATE_SQ] = {nvme_admin_create_sq, SUPPORTED, 0},
	[NVME_ADMIN_GET_LOG] = {nvme_admin_get_log, SUPPORTED, 0},
	[NVME_ADMIN_DELETE_CQ] = {nvme_admin_delete_cq, SUPPORTED, 0},
	[NVME_ADMIN_CREATE_CQ] = {nvme_admin_create_cq, SUPPORTED, 0},
	[NVME_ADMIN_IDENTIFY] = {nvme_admin_identify, SUPPORTED, 0},
	[NVME_ADMIN_ABORT] = {nvme_admin_abort, SUPPORTED, 0},
	[NVME_ADMIN_SET_FEATURES] = {nvme_admin_set_features, SUPPORTED | CHANGES_CONTROLLER, 0},
	[NVME_ADMIN_GET_FEATURES] = {nvme_admin_get_features, SUPPORTED, 0},
	[NVME_ADMIN_ASYNC_EVENT] = {nvme_admin_async_event, SUPPORTED, 0},
	[NVME_ADMIN_SELF_TEST] = {nvme_admin_self_test, SUPPORTED, 0},
	[NVME_ADMIN_KEEP_ALIVE] = {nvme_admin_keep_alive, SUPPORTED, 0},
	[NVME_ADMIN_DOORBELL_BUFFER] = {nvme_admin_doorbell_buffer, SUPPORTED, 0},
	[NVME_ADMIN_FORMAT] = {nvme_admin_format, SUPPORTED | CHANGES_BLOCKS | CHANGES_NAMESPACE | ALONE_IN_NAMESPACE, 0},
	[NVME_ADMIN_SANITIZE] = {nvme_admin_sanitize, SUPPORTED | CHANGES_BLOCKS | ALONE, 0},
};

static const struct row io_rows[256] = {
	[NVME_IO_FLUSH] = {nvme_io_flush, SUPPORTED, NAMESPACE | OR_ALL},
	[NVME_IO_WRITE] = {nvme_io_write, SUPPORTED | CHANGES_BLOCKS, NAMESPACE | WRITES | FUSES},
	[NVME_IO_READ] = {nvme_io_read, SUPPORTED, NAMESPACE},
	[NVME_IO_WRITE_UNCORRECTABLE] = {nvme_io_write_uncorrectable, SUPPORTED | CHANGES_BLOCKS, NAMESPACE | WRITES},
	[NVME_IO_COMPARE] = {nvme_io_compare, SUPPORTED, NAMESPACE | FUSES},
	[NVME_IO_WRITE_ZEROES] = {nvme_io_write_zeroes, SUPPORTED | CHANGES_BLOCKS, NAMESPACE | WRITES},
	[NVME_IO_DATASET] = {nvme_io_dataset, SUPPORTED | CHANGES_BLOCKS, NAMESPACE | WRITES},
	[NVME_IO_VERIFY] = {nvme_io_verify, SUPPORTED, NAMESPACE},
	[NVME_IO_RESERVATION_REGISTER] = {nvme_io_reservation_register, SUPPORTED, NAMESPACE},
	[NVME_IO_RESERVATION_REPORT] = {nvme_io_reservation_report, SUPPORTED, NAMESPACE},
	[NVME_IO_RESERVATION_ACQUIRE] = {nvme_io_reservation_acquire, SUPPORTED, NAMESPACE},
	[NVME_IO_RESERVATION_RELEASE] = {nvme_io_reservation_release, SUPPORTED, NAMESPACE},
	[NVME_IO_COPY] = {nvme_io_copy, SUPPORTED | CHANGES_BLOCKS, NAMESPACE | WRITES},
};

uint32_t nvme_command_effects(bool admin, uint8_t opcode)
{
	return admin ? admin_rows[opcode].effects : io_rows[opcode].effects;
}

uint16_t nvme_fail_field(struct nvme_command *cmd, uint16_t status, unsigned byte, unsigned bit)
{
	cmd->location = (uint16_t)(byte | bit << 8);
	return status;
}

uint16_t nvme_ended(struct nvme_command *cmd, int status, const struct failure *failure)
{
	if (status == -ENODATA)
		atomic_fetch_add_explicit(&cmd->c->media_errors, 1, memory_order_relaxed);
	return nvme_status_of(status, failure);
}

/* What can be wrong with any command. */
static uint16_t check(struct nvme_command *cmd, const struct row *row, bool admin)
{
	unsigned fuse = NVME_FUSE(cmd->sqe.flags), psdt = NVME_PSDT(cmd->sqe.flags);

	if (!row->handler)
		return nvme_fail_field(cmd, NVME_INVALID_OPCODE, 0, 0);
	if (fuse == 3 || (fuse && !(row->needs & FUSES)))
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 1, 0);
	/* admin commands of a PCIe controller use PRPs (Base 4.1.2) */
	if (psdt == 3 || (psdt && admin))
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 1, 6);
	if (admin && atomic_load(&cmd->c->sanitize_state) & NVME_SANITIZE_RUNNING)
		return nvme_sanitize_allows(cmd->c, cmd, admin);
	return NVME_OK;
}

/* Inside c->inside. What the guest says is no more than a guess here: nothing of it was checked. */
static void warm(struct nvme_command *cmd, enum warm what)
{
	struct nvme_namespace *n = cmd->sqe.opcode == NVME_IO_READ ? nvme_namespace(cmd->c, nvme_nsid(cmd)) : NULL;
	uint64_t slba = nvme_cdw10(cmd) | (uint64_t)nvme_cdw11(cmd) << 32;
	uint64_t blocks = (nvme_cdw12(cmd) & 0xffff) + UINT64_C(1);

	if (n)
		disk_warm(n->disk, slba << n->block_shift, blocks << n->block_shift, what);
}

void nvme_commands_warm(struct nvme_command *cmd)
{
	_Atomic uint32_t *place = grace_enter(&cmd->c->inside);

	warm(cmd, WARM_DATA);
	if (cmd->next)
		warm(cmd->next, WARM_WAY);
	grace_leave(&cmd->c->inside, place);
}

/* Calls `handler` with the command's namespace, which stays as long as that runs. */
static uint16_t run_inside(struct nvme_command *cmd, const struct row *row, nvme_handler *handler)
{
	struct nvme_namespace *n = nvme_namespace(cmd->c, nvme_nsid(cmd));

	/* looked at in here, since Sanitize waits for those who are inside when it begins */
	if (unlikely(atomic_load(&cmd->c->sanitize_state) & NVME_SANITIZE_RUNNING))
		return nvme_sanitize_allows(cmd->c, cmd, false);
	if (unlikely(!n)) {
		if (row->needs & OR_ALL && nvme_nsid(cmd) == NVME_NSID_ALL)
			return handler(cmd, NULL);
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	}
	if (unlikely(atomic_load(&n->formatting)))
		return NVME_FORMAT_IN_PROGRESS;
	if (unlikely(n->read_only && row->needs & WRITES))
		return NVME_WRITE_PROTECTED;
	return handler(cmd, n);
}

static uint16_t execute(struct nvme_command *cmd, nvme_handler *instead)
{
	bool admin = !cmd->sq->id;
	const struct row *row = admin ? &admin_rows[cmd->sqe.opcode] : &io_rows[cmd->sqe.opcode];
	uint16_t status = check(cmd, row, admin);
	_Atomic uint32_t *place;

	if (!status)
		status = nvme_broken(cmd);
	if (unlikely(status))
		return status;
	if (!(row->needs & NAMESPACE))
		return row->handler(cmd, NULL);
	place = grace_enter(&cmd->c->inside);
	status = run_inside(cmd, row, instead ? instead : row->handler);
	grace_leave(&cmd->c->inside, place);
	return status;
}

/* A fused pair fails as a whole: the other one of a half that is refused is aborted. */
static void execute_fused(struct nvme_command *compare)
{
	struct nvme_command *write = compare->other;

	if (compare->sqe.opcode != NVME_IO_COMPARE || write->sqe.opcode != NVME_IO_WRITE) {
		compare->status = nvme_fail_field(compare, NVME_INVALID_FIELD, 1, 0);
		return;
	}
	compare->status = check(write, &io_rows[NVME_IO_WRITE], false);
	if (!compare->status)
		compare->status = execute(compare, nvme_io_fused);
}

void nvme_command_main(void *argument)
{
	struct nvme_command *cmd = argument, *other = cmd->other;
	bool done = false;

	cmd->begun = true;
	if (unlikely(atomic_load_explicit(&cmd->c->script, memory_order_acquire)))
		done = nvme_script_before(cmd);
	if (unlikely(other)) {
		other->status = NVME_ABORT_FAILED_FUSED;
		other->no_completion = cmd->no_completion;
		if (!done)
			execute_fused(cmd);
		nvme_command_end(cmd);
		nvme_command_end(other);
		return;
	}
	if (!done)
		cmd->status = execute(cmd, NULL);
	nvme_command_end(cmd);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O commands that move or drop blocks (NVM 3.2). Each is a few checks and one call of the disk, which gets the guest's own
 * memory. Ranges are checked here once, against the size as it is now, so that the status names the command; the disk checks
 * them again together with the I/O, since its size may change.
 *
 * Whatever writes goes through n->writers, the gate that Compare and Write closes (copy.c).
 */
#include <errno.h>
#include <stdlib.h>

#include "nvme/data.h"
#include "nvme/internal.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

#define CDW12_DEAC (UINT32_C(1) << 25)
#define CDW12_FUA (UINT32_C(1) << 30)
#define CDW11_DEALLOCATE (UINT32_C(1) << 2)

/* Only what is looked at: the text is 240 bytes. */
#define START_FAILURE(f)                                                                                     \
	struct failure f;                                                                                    \
	atomic_init(&f.claimed, 0);                                                                          \
	f.status = 0

static const struct initiator *who(struct nvme_command *cmd)
{
	return atomic_load_explicit(&cmd->c->who, memory_order_acquire);
}

/* How a write is to be done: FUA if the command says so, or while the write cache is off. */
static unsigned write_flags(struct nvme_command *cmd)
{
	bool through = atomic_load_explicit(&cmd->c->write_through, memory_order_relaxed);

	return nvme_cdw12(cmd) & CDW12_FUA || through ? IO_FUA : 0;
}

static void count_units(_Atomic uint64_t *count, _Atomic uint64_t *units, uint64_t bytes)
{
	nvme_count(count, 1);
	nvme_count(units, bytes / 512);
}

uint16_t nvme_io_range(struct nvme_command *cmd, const struct nvme_namespace *n, uint64_t *offset, uint64_t *length)
{
	uint64_t slba = nvme_cdw10(cmd) | (uint64_t)nvme_cdw11(cmd) << 32;
	uint64_t blocks = (nvme_cdw12(cmd) & 0xffff) + UINT64_C(1);
	uint64_t all = disk_size(n->disk) >> n->block_shift;

	if (unlikely(slba >= all || blocks > all - slba)) {
		cmd->lba = slba;
		return nvme_fail_field(cmd, NVME_LBA_OUT_OF_RANGE, 40, 0);
	}
	*offset = slba << n->block_shift;
	*length = blocks << n->block_shift;
	return NVME_OK;
}

/* ------------------------------------------------------------------ read and write */

/* Where a block of the range is deallocated, as far as the disk tells (Error Recovery feature, DULBE). */
static uint16_t check_allocated(struct nvme_command *cmd, struct nvme_namespace *n, uint64_t offset, uint64_t length,
				const struct io *io)
{
	CLEANUP_EXTENTS struct extents e = {0};
	int status;

	while (length) {
		extents_init(&e, offset, length, 16);
		status = disk_extents(n->disk, &e, io);
		if (status)
			return nvme_ended(cmd, status, io->failure);
		for (size_t i = 0; i < e.count; i++)
			if (e.list[i].flags & EXTENT_HOLE) {
				cmd->lba = e.list[i].offset >> n->block_shift;
				return NVME_DEALLOCATED;
			}
		length -= extents_next(&e) - offset;
		offset = extents_next(&e);
		extents_free(&e);
	}
	return NVME_OK;
}

/* What a read looks at besides, where anything is set: FUA, blocks made unreadable, deallocated ones. */
static uint16_t before_read(struct nvme_command *cmd, struct nvme_namespace *n, uint64_t offset, uint64_t length,
			    const struct io *io)
{
	uint64_t where;
	int status = 0;

	if (nvme_bad_find(n, offset, length, &where)) {
		cmd->lba = where >> n->block_shift;
		return nvme_ended(cmd, -ENODATA, NULL);
	}
	if (nvme_cdw12(cmd) & CDW12_FUA)
		status = disk_flush(n->disk, io); /* what is read is on the medium, then */
	if (status)
		return nvme_ended(cmd, status, io->failure);
	return atomic_load(&n->dulbe) ? check_allocated(cmd, n, offset, length, io) : NVME_OK;
}

uint16_t nvme_io_read(struct nvme_command *cmd, struct nvme_namespace *n)
{
	START_FAILURE(failure);
	const struct io io = {.who = who(cmd), .failure = &failure};
	struct nvme_lane *lane = cmd->sq->cq->lane;
	struct nvme_data d;
	uint64_t offset, length;
	uint16_t status = nvme_io_range(cmd, n, &offset, &length), ended;
	int result;

	if (!status && unlikely(nvme_cdw12(cmd) & CDW12_FUA || atomic_load(&n->nr_bad) || atomic_load(&n->dulbe)))
		status = before_read(cmd, n, offset, length, &io);
	if (!status)
		status = nvme_data_map(cmd, length, NVME_GUEST_WRITE, &d);
	if (unlikely(status))
		return status;
	result = disk_read(n->disk, &d.v, offset, &io);
	ended = nvme_data_unmap(&d, !result);
	count_units(&lane->reads, &lane->units_read, length);
	if (unlikely(result)) {
		cmd->lba = offset >> n->block_shift;
		return nvme_ended(cmd, result, &failure);
	}
	return ended;
}

uint16_t nvme_io_write(struct nvme_command *cmd, struct nvme_namespace *n)
{
	START_FAILURE(failure);
	const struct io io = {.flags = write_flags(cmd), .who = who(cmd), .failure = &failure};
	struct nvme_lane *lane = cmd->sq->cq->lane;
	struct nvme_data d;
	uint64_t offset, length;
	uint16_t status = nvme_io_range(cmd, n, &offset, &length);
	int result;

	if (!status)
		status = nvme_data_map(cmd, length, NVME_GUEST_READ, &d);
	if (unlikely(status))
		return status;
	gate_enter(&n->writers);
	result = disk_write(n->disk, &d.v, offset, &io);
	if (!result && unlikely(atomic_load(&n->nr_bad)))
		nvme_bad_remove(n, offset, length);
	gate_leave(&n->writers);
	nvme_data_unmap(&d, false);
	count_units(&lane->writes, &lane->units_written, length);
	if (unlikely(result)) {
		cmd->lba = offset >> n->block_shift;
		return nvme_ended(cmd, result, &failure);
	}
	return NVME_OK;
}

/* ------------------------------------------------------------------ flush */

static int flush_one(struct nvme_namespace *n, const struct io *io)
{
	return n->read_only ? 0 : disk_flush(n->disk, io);
}

/* NULL: every namespace; all are flushed, and the first failure is told. */
uint16_t nvme_io_flush(struct nvme_command *cmd, struct nvme_namespace *n)
{
	START_FAILURE(failure);
	const struct io io = {.who = who(cmd), .failure = &failure};
	int status = 0, one;

	if (n)
		return nvme_ended(cmd, flush_one(n, &io), &failure);
	for (uint32_t id = 1; id <= cmd->c->max_nsid; id++) {
		n = nvme_namespace(cmd->c, id);
		one = n ? flush_one(n, &io) : 0;
		status = status ? status : one;
	}
	return nvme_ended(cmd, status, &failure);
}

/* ------------------------------------------------------------------ zeroes and holes */

uint16_t nvme_io_write_zeroes(struct nvme_command *cmd, struct nvme_namespace *n)
{
	START_FAILURE(failure);
	unsigned unmap = nvme_cdw12(cmd) & CDW12_DEAC ? IO_MAY_UNMAP : 0;
	const struct io io = {.flags = write_flags(cmd) | unmap, .who = who(cmd), .failure = &failure};
	uint64_t offset, length;
	uint16_t status = nvme_io_range(cmd, n, &offset, &length);
	int result;

	if (status)
		return status;
	gate_enter(&n->writers);
	result = disk_write_zeroes(n->disk, offset, length, &io);
	if (!result && atomic_load(&n->nr_bad))
		nvme_bad_remove(n, offset, length);
	gate_leave(&n->writers);
	return nvme_ended(cmd, result, &failure);
}

/*
 * The blocks are zeroed, which checks all that a write checks and keeps what was there from ever showing again, and remembered:
 * a read fails until they are written to. That memory is the controller's and goes with it.
 */
uint16_t nvme_io_write_uncorrectable(struct nvme_command *cmd, struct nvme_namespace *n)
{
	START_FAILURE(failure);
	const struct io io = {.flags = IO_MAY_UNMAP, .who = who(cmd), .failure = &failure};
	uint64_t offset, length;
	uint16_t status = nvme_io_range(cmd, n, &offset, &length);
	int result;

	if (status)
		return status;
	gate_enter(&n->writers);
	result = disk_write_zeroes(n->disk, offset, length, &io);
	if (!result)
		result = nvme_bad_add(n, offset, length);
	gate_leave(&n->writers);
	return nvme_ended(cmd, result, &failure);
}

static int discard(struct nvme_namespace *n, uint64_t offset, uint64_t length, const struct io *io)
{
	int status;

	gate_enter(&n->writers);
	status = disk_discard(n->disk, offset, length, io);
	if (!status && atomic_load(&n->nr_bad))
		nvme_bad_remove(n, offset, length);
	gate_leave(&n->writers);
	return status;
}

static uint16_t check_ranges(struct nvme_command *cmd, const struct nvme_namespace *n, const struct nvme_dsm_range *list,
			     unsigned count)
{
	uint64_t all = disk_size(n->disk) >> n->block_shift;

	for (unsigned i = 0; i < count; i++) {
		uint64_t lba = get64(list[i].lba), blocks = get32(list[i].blocks);
		if (lba > all || blocks > all - lba) {
			cmd->lba = lba;
			return NVME_LBA_OUT_OF_RANGE;
		}
	}
	return NVME_OK;
}

/* Attributes other than Deallocate are hints that mean nothing to a disk of ours (NVM 3.2.3). */
uint16_t nvme_io_dataset(struct nvme_command *cmd, struct nvme_namespace *n)
{
	START_FAILURE(failure);
	unsigned through = atomic_load(&cmd->c->write_through) ? IO_FUA : 0;
	const struct io io = {.flags = through, .who = who(cmd), .failure = &failure};
	struct nvme_dsm_range list[256];
	unsigned count = (nvme_cdw10(cmd) & 0xff) + 1;
	uint16_t status = nvme_data_fetch(cmd, list, count * sizeof(list[0]));
	int result = 0;

	cmd->breakable = true;
	if (!status)
		status = check_ranges(cmd, n, list, count);
	if (status || !(nvme_cdw11(cmd) & CDW11_DEALLOCATE))
		return status;
	for (unsigned i = 0; i < count && !result; i++) {
		status = nvme_broken(cmd);
		if (status)
			return status;
		cmd->lba = get64(list[i].lba);
		result = discard(n, cmd->lba << n->block_shift, (uint64_t)get32(list[i].blocks) << n->block_shift, &io);
	}
	return nvme_ended(cmd, result, &failure);
}

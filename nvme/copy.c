/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O commands that look at blocks, or take them from one place to another: Compare, Compare and Write, Verify, Copy. These go
 * through buffers of ours, and piece by piece, so that they can be broken off.
 *
 * Compare and Write (Base 3.4.2, NVM 2.1.2.3) is one step with regard to every other write to the namespace through this controller: they
 * pass n->writers, which it closes from before the comparison until the write has ended. A read meanwhile may see the old block or
 * the new one. Since no disk promises that of more than a block, ACWU says one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/data.h"
#include "nvme/internal.h"
#include "nvme/limits.h"

#define PIECE_BYTES ((size_t)128 * 1024)

/* Reads blocks into `buffer`, those made unreadable excepted. A status. */
static uint16_t read_blocks(struct nvme_command *cmd, struct nvme_namespace *n, uint64_t offset, void *buffer,
			    size_t length)
{
	struct failure failure = {0};
	const struct io io = {.who = atomic_load(&cmd->c->who), .failure = &failure};
	struct vec v = VEC_FLAT(buffer, length);
	uint64_t where;
	int status;

	cmd->lba = offset >> n->block_shift;
	if (atomic_load(&n->nr_bad) && nvme_bad_find(n, offset, length, &where)) {
		cmd->lba = where >> n->block_shift;
		return nvme_ended(cmd, -ENODATA, NULL);
	}
	status = disk_read(n->disk, &v, offset, &io);
	return nvme_ended(cmd, status, &failure);
}

static size_t piece_at(uint64_t done, uint64_t length)
{
	return length - done < PIECE_BYTES ? (size_t)(length - done) : PIECE_BYTES;
}

/* ------------------------------------------------------------------ compare */

/* `buffer` is for two pieces. */
static uint16_t compare_pieces(struct nvme_command *cmd, struct nvme_namespace *n, const struct nvme_data *d,
			       uint64_t offset, uint64_t length, char *buffer)
{
	uint16_t status = NVME_OK;

	for (uint64_t done = 0; done < length && !status; done += piece_at(done, length)) {
		size_t piece = piece_at(done, length);
		status = nvme_broken(cmd);
		if (!status)
			status = read_blocks(cmd, n, offset + done, buffer, piece);
		if (!status)
			status = nvme_data_gather(d, done, buffer + PIECE_BYTES, piece);
		if (!status && memcmp(buffer, buffer + PIECE_BYTES, piece))
			status = NVME_COMPARE_FAILURE;
	}
	return status;
}

uint16_t nvme_io_compare(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme_data d;
	uint64_t offset, length;
	uint16_t status = nvme_io_range(cmd, n, &offset, &length);
	char *buffer;

	cmd->breakable = true;
	if (!status)
		status = nvme_data_map(cmd, length, NVME_GUEST_READ, &d);
	if (status)
		return status;
	buffer = malloc(2 * PIECE_BYTES);
	status = buffer ? compare_pieces(cmd, n, &d, offset, length, buffer) : NVME_INTERNAL_ERROR;
	free(buffer);
	nvme_data_unmap(&d, false);
	return status;
}

/* The write, when nobody else can write. */
static uint16_t fused_write(struct nvme_command *cmd, struct nvme_namespace *n, uint64_t offset, uint64_t length)
{
	struct failure failure = {0};
	bool fua = nvme_cdw12(cmd) >> 30 & 1 || atomic_load(&cmd->c->write_through);
	const struct io io = {.flags = fua ? IO_FUA : 0, .who = atomic_load(&cmd->c->who), .failure = &failure};
	struct nvme_data d;
	uint16_t status = nvme_data_map(cmd, length, NVME_GUEST_READ, &d);
	int result;

	if (status)
		return status;
	result = disk_write(n->disk, &d.v, offset, &io);
	if (!result)
		nvme_bad_remove(n, offset, length);
	nvme_data_unmap(&d, false);
	return nvme_ended(cmd, result, &failure);
}

uint16_t nvme_io_fused(struct nvme_command *compare, struct nvme_namespace *n)
{
	struct nvme_command *write = compare->other;
	uint64_t offset, length;
	uint16_t status = nvme_io_range(compare, n, &offset, &length);

	if (status)
		return status;
	if (memcmp(&compare->sqe.cdw10, &write->sqe.cdw10, 8) || (nvme_cdw12(compare) ^ nvme_cdw12(write)) & 0xffff ||
	    nvme_nsid(compare) != nvme_nsid(write))
		return nvme_fail_field(compare, NVME_INVALID_FIELD, 40, 0);
	if (length >> n->block_shift > NVME_ACWU_BLOCKS)
		return nvme_fail_field(compare, NVME_ATOMIC_UNIT_EXCEEDED, 48, 0);
	if (n->read_only)
		return NVME_WRITE_PROTECTED;
	gate_close(&n->writers);
	status = nvme_io_compare(compare, n);
	if (!status)
		write->status = fused_write(write, n, offset, length);
	gate_open(&n->writers);
	return status;
}

/* ------------------------------------------------------------------ verify */

uint16_t nvme_io_verify(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint64_t offset, length;
	uint16_t status = nvme_io_range(cmd, n, &offset, &length);
	char *buffer = status ? NULL : malloc(PIECE_BYTES);

	cmd->breakable = true;
	if (!status && !buffer)
		status = NVME_INTERNAL_ERROR;
	for (uint64_t done = 0; !status && done < length; done += piece_at(done, length)) {
		status = nvme_broken(cmd);
		if (!status)
			status = read_blocks(cmd, n, offset + done, buffer, piece_at(done, length));
	}
	free(buffer);
	return status;
}

/* ------------------------------------------------------------------ copy */

/* What the ranges add up to, in blocks; checks each. */
static uint16_t check_sources(struct nvme_command *cmd, const struct nvme_namespace *n, const struct nvme_copy_range *list,
			      unsigned count, uint64_t *blocks)
{
	uint64_t all = disk_size(n->disk) >> n->block_shift;

	*blocks = 0;
	for (unsigned i = 0; i < count; i++) {
		uint64_t lba = get64(list[i].lba), nlb = get16(list[i].blocks) + UINT64_C(1);
		if (nlb > nvme_copy_range_blocks(n))
			return nvme_fail_field(cmd, NVME_SIZE_LIMIT_EXCEEDED, 48, 0);
		if (lba >= all || nlb > all - lba) {
			cmd->lba = lba;
			return NVME_LBA_OUT_OF_RANGE;
		}
		*blocks += nlb;
	}
	if (*blocks > nvme_copy_blocks(n))
		return nvme_fail_field(cmd, NVME_SIZE_LIMIT_EXCEEDED, 48, 0);
	return NVME_OK;
}

/* All is read before anything is written: source and destination may overlap. */
static uint16_t copy_all(struct nvme_command *cmd, struct nvme_namespace *n, const struct nvme_copy_range *list,
			 unsigned count, char *buffer, size_t length, uint64_t to)
{
	struct failure failure = {0};
	bool fua = nvme_cdw12(cmd) >> 30 & 1 || atomic_load(&cmd->c->write_through);
	const struct io io = {.flags = fua ? IO_FUA : 0, .who = atomic_load(&cmd->c->who), .failure = &failure};
	struct vec v = VEC_FLAT(buffer, length);
	uint16_t status = NVME_OK;
	size_t at = 0;
	int result;

	for (unsigned i = 0; i < count && !status; i++) {
		size_t piece = (get16(list[i].blocks) + (size_t)1) << n->block_shift;
		status = nvme_broken(cmd);
		if (!status)
			status = read_blocks(cmd, n, get64(list[i].lba) << n->block_shift, buffer + at, piece);
		at += piece;
	}
	if (status)
		return status;
	gate_enter(&n->writers);
	result = disk_write(n->disk, &v, to, &io);
	if (!result && atomic_load(&n->nr_bad))
		nvme_bad_remove(n, to, length);
	gate_leave(&n->writers);
	cmd->lba = to >> n->block_shift;
	return nvme_ended(cmd, result, &failure);
}

/* NVM 3.2.2; result: the number of ranges that were copied, which is all or none. */
uint16_t nvme_io_copy(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme_copy_range list[NVME_COPY_RANGES];
	unsigned count = (nvme_cdw12(cmd) & 0xff) + 1;
	uint64_t to = nvme_cdw10(cmd) | (uint64_t)nvme_cdw11(cmd) << 32, blocks;
	uint64_t all = disk_size(n->disk) >> n->block_shift;
	uint16_t status;
	char *buffer;

	cmd->breakable = true;
	if (nvme_cdw12(cmd) >> 8 & 15)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 49, 0); /* descriptor formats with protection information */
	if (count > NVME_COPY_RANGES)
		return nvme_fail_field(cmd, NVME_SIZE_LIMIT_EXCEEDED, 48, 0);
	status = nvme_data_fetch(cmd, list, count * sizeof(list[0]));
	if (!status)
		status = check_sources(cmd, n, list, count, &blocks);
	if (status)
		return status;
	if (to >= all || blocks > all - to) {
		cmd->lba = to;
		return nvme_fail_field(cmd, NVME_LBA_OUT_OF_RANGE, 40, 0);
	}
	buffer = malloc((size_t)blocks << n->block_shift);
	status = buffer ? copy_all(cmd, n, list, count, buffer, (size_t)blocks << n->block_shift, to << n->block_shift)
			: NVME_INTERNAL_ERROR;
	free(buffer);
	cmd->result = status ? 0 : count;
	return status;
}

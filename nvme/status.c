/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one table of statuses (Base 3.3.3.2.1, NVM 3.1.1). Do Not Retry is set wherever the same command would fail in the same way
 * again: drivers that honour it answer at once instead of trying five times.
 */
#include "nvme/status.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "nvme/spec.h"

#define STATUS_DNR (UINT16_C(1) << 15)

static const struct row {
	uint16_t status;
	bool retry; /* the same command may succeed later */
	const char *name;
} rows[] = {
	{NVME_OK, true, "Successful Completion"},
	{NVME_INVALID_OPCODE, false, "Invalid Command Opcode"},
	{NVME_INVALID_FIELD, false, "Invalid Field in Command"},
	{NVME_CID_CONFLICT, false, "Command ID Conflict"},
	{NVME_DATA_TRANSFER_ERROR, false, "Data Transfer Error"},
	{NVME_INTERNAL_ERROR, true, "Internal Error"},
	{NVME_ABORT_REQUESTED, true, "Command Abort Requested"},
	{NVME_ABORT_SQ_DELETED, true, "Command Aborted due to SQ Deletion"},
	{NVME_ABORT_FAILED_FUSED, true, "Command Aborted due to Failed Fused Command"},
	{NVME_ABORT_MISSING_FUSED, false, "Command Aborted due to Missing Fused Command"},
	{NVME_INVALID_NAMESPACE, false, "Invalid Namespace or Format"},
	{NVME_SEQUENCE_ERROR, false, "Command Sequence Error"},
	{NVME_SGL_INVALID_SEGMENT, false, "Invalid SGL Segment Descriptor"},
	{NVME_SGL_INVALID_COUNT, false, "Invalid Number of SGL Descriptors"},
	{NVME_SGL_INVALID_LENGTH, false, "Data SGL Length Invalid"},
	{NVME_SGL_INVALID_TYPE, false, "SGL Descriptor Type Invalid"},
	{NVME_PRP_INVALID_OFFSET, false, "PRP Offset Invalid"},
	{NVME_ATOMIC_UNIT_EXCEEDED, false, "Atomic Write Unit Exceeded"},
	{NVME_HOST_ID_INCONSISTENT, false, "Host Identifier Inconsistent Format"},
	{NVME_KEEP_ALIVE_EXPIRED, false, "Keep Alive Timeout Expired"},
	{NVME_PREEMPTED, true, "Command Aborted due to Preempt and Abort"},
	{NVME_SANITIZE_FAILED, false, "Sanitize Failed"},
	{NVME_SANITIZE_IN_PROGRESS, true, "Sanitize In Progress"},
	{NVME_WRITE_PROTECTED, false, "Namespace is Write Protected"},
	{NVME_LBA_OUT_OF_RANGE, false, "LBA Out of Range"},
	{NVME_CAPACITY_EXCEEDED, false, "Capacity Exceeded"},
	{NVME_NAMESPACE_NOT_READY, true, "Namespace Not Ready"},
	{NVME_RESERVATION_CONFLICT, false, "Reservation Conflict"},
	{NVME_FORMAT_IN_PROGRESS, true, "Format In Progress"},
	{NVME_CQ_INVALID, false, "Completion Queue Invalid"},
	{NVME_QID_INVALID, false, "Invalid Queue Identifier"},
	{NVME_QUEUE_SIZE_INVALID, false, "Invalid Queue Size"},
	{NVME_ASYNC_LIMIT, false, "Asynchronous Event Request Limit Exceeded"},
	{NVME_VECTOR_INVALID, false, "Invalid Interrupt Vector"},
	{NVME_LOG_PAGE_INVALID, false, "Invalid Log Page"},
	{NVME_FORMAT_INVALID, false, "Invalid Format"},
	{NVME_QUEUE_DELETION_INVALID, false, "Invalid Queue Deletion"},
	{NVME_FEATURE_NOT_SAVEABLE, false, "Feature Identifier Not Saveable"},
	{NVME_FEATURE_NOT_CHANGEABLE, false, "Feature Not Changeable"},
	{NVME_FEATURE_NOT_PER_NAMESPACE, false, "Feature Not Namespace Specific"},
	{NVME_SELF_TEST_IN_PROGRESS, true, "Device Self-test In Progress"},
	{NVME_READ_ONLY_RANGE, false, "Attempted Write to Read Only Range"},
	{NVME_SIZE_LIMIT_EXCEEDED, false, "Command Size Limit Exceeded"},
	{NVME_WRITE_FAULT, false, "Write Fault"},
	{NVME_UNRECOVERED_READ, false, "Unrecovered Read Error"},
	{NVME_GUARD_CHECK, false, "End-to-end Guard Check Error"},
	{NVME_APPLICATION_TAG_CHECK, false, "End-to-end Application Tag Check Error"},
	{NVME_REFERENCE_TAG_CHECK, false, "End-to-end Reference Tag Check Error"},
	{NVME_COMPARE_FAILURE, false, "Compare Failure"},
	{NVME_DEALLOCATED, false, "Deallocated or Unwritten Logical Block"},
};

static const struct {
	int status;
	uint16_t nvme;
} errnos[] = {
	{0, NVME_OK},
	{-ERANGE, NVME_LBA_OUT_OF_RANGE},
	{-EINVAL, NVME_INVALID_FIELD},
	{-EIO, NVME_INTERNAL_ERROR},
	{-EFAULT, NVME_DATA_TRANSFER_ERROR},
	{-EROFS, NVME_READ_ONLY_RANGE},
	{-EBADE, NVME_RESERVATION_CONFLICT},
	{-ECANCELED, NVME_PREEMPTED},
	{-EOPNOTSUPP, NVME_INVALID_OPCODE},
	{-ENOSPC, NVME_CAPACITY_EXCEEDED},
	{-ENOMEM, NVME_INTERNAL_ERROR},
	{-ENOMEDIUM, NVME_NAMESPACE_NOT_READY},
};

static const uint16_t media[] = {
	[MEDIUM_UNRECOVERED_READ] = NVME_UNRECOVERED_READ,
	[MEDIUM_WRITE_FAULT] = NVME_WRITE_FAULT,
	[MEDIUM_GUARD_CHECK] = NVME_GUARD_CHECK,
	[MEDIUM_APPLICATION_TAG_CHECK] = NVME_APPLICATION_TAG_CHECK,
	[MEDIUM_REFERENCE_TAG_CHECK] = NVME_REFERENCE_TAG_CHECK,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

uint16_t nvme_status_of(int status, const struct failure *failure)
{
	if (status == -ENODATA)
		return failure && failure->status == -ENODATA && (size_t)failure->medium < COUNT(media)
			       ? media[failure->medium]
			       : NVME_UNRECOVERED_READ;
	for (size_t i = 0; i < COUNT(errnos); i++)
		if (errnos[i].status == status)
			return errnos[i].nvme;
	return NVME_INTERNAL_ERROR;
}

static const struct row *find(uint16_t status)
{
	for (size_t i = 0; i < COUNT(rows); i++)
		if (rows[i].status == status)
			return &rows[i];
	return NULL;
}

uint16_t nvme_status_field(uint16_t status)
{
	const struct row *r;

	if (__builtin_expect(status == NVME_OK, 1))
		return 0;
	r = find(status);
	return (uint16_t)((status & 0x7ff) << 1 | (r && r->retry ? 0 : STATUS_DNR));
}

const char *nvme_status_name(uint16_t status)
{
	const struct row *r = find(status);

	return r ? r->name : "unknown";
}

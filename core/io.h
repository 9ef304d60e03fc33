/* SPDX-License-Identifier: BSD-3-Clause */
/* The context of one request, which travels down the tree with it: flags, who asks, what failed. */
#ifndef PLATTER_CORE_IO_H
#define PLATTER_CORE_IO_H

#include <stdatomic.h>
#include <stdint.h>

enum io_flags {
	IO_FUA = 1 << 0,       /* write, write_zeroes, discard: durable before the call returns */
	IO_MAY_UNMAP = 1 << 1, /* write_zeroes: the range may be deallocated */
	IO_FAST_ONLY = 1 << 2, /* write_zeroes: -EOPNOTSUPP rather than writing zeroes out */
};

/* What a medium error (-ENODATA) was about; SCSI and NVMe have a code for each. */
enum medium_error {
	MEDIUM_UNRECOVERED_READ,
	MEDIUM_WRITE_FAULT,
	MEDIUM_GUARD_CHECK,
	MEDIUM_APPLICATION_TAG_CHECK,
	MEDIUM_REFERENCE_TAG_CHECK,
};

/*
 * Where a frontend learns why a request failed. The first failure of a request claims it; sub-requests
 * that run at the same time share one. Zero-initialised it is empty.
 */
struct failure {
	_Atomic int claimed;
	int status;
	enum medium_error medium; /* meaningful when status is -ENODATA */
	char text[240];           /* one line, without a period; "" when there is none */
};

/*
 * The initiator a request comes from, for reservations; compared by value. All zero: this process itself, which also is who asks
 * where no initiator is known (NBD, files).
 */
struct initiator {
	uint8_t id[16]; /* NVMe: host identifier; SCSI: initiator port, what a TransportID says of it or a digest of that */
	uint16_t port;  /* SCSI: relative target port, since each pair is a registrant of its own; NVMe, where hosts are: 0 */
};

/*
 * Zero-initialised it is an ordinary request. A node that needs other flags below passes a changed copy;
 * `who` and `failure` are always handed on.
 */
struct io {
	unsigned flags;              /* enum io_flags */
	const struct initiator *who; /* NULL: this process itself */
	struct failure *failure;     /* NULL: nobody wants to know */
};

/* An ordinary request. */
extern const struct io io_plain;

/* Records why a request failed, if somebody wants to know and nothing was recorded yet; returns `status`. */
int io_fail(const struct io *io, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4), cold));

/* As io_fail with -ENODATA and the kind of medium error. */
int io_fail_medium(const struct io *io, enum medium_error medium, const char *format, ...)
	__attribute__((format(printf, 3, 4), cold));

/* A copy of `io` with other flags. */
static inline struct io io_with_flags(const struct io *io, unsigned flags)
{
	struct io copy = *io;
	copy.flags = flags;
	return copy;
}

#endif

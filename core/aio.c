/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <unistd.h>

#include "core/checkers.h"
#include "core/fiber.h"
#include "core/hot.h"
#include "core/loop-internal.h"
#include "core/offload.h"
#include "core/ring.h"
#include "core/wait.h"

/* A file that answers EAGAIN is asked again after this. */
#define RETRY_NS UINT64_C(100000)

/* One transfer moves at most this much, whoever does it (read(2), NOTES: MAX_RW_COUNT). */
#define MAX_TRANSFER 0x7ffff000u

/* One operation in terms of io_uring; system calls are made from the same description. */
struct aio {
	unsigned opcode; /* IORING_OP_READV, WRITEV, FSYNC, FALLOCATE */
	int fd;
	int flags; /* RWF_*, IORING_FSYNC_*, or the mode of fallocate */
	const struct iovec *iov;
	size_t count;
	uint64_t offset;
	uint64_t length;
	ssize_t result;
};

/* ------------------------------------------------------------------ as a system call */

/* The call without the array and flags is the cheaper one. */
static ssize_t plain_transfer(const struct aio *a)
{
	const struct iovec *only = a->iov;

	if (a->opcode == IORING_OP_READV)
		return pread(a->fd, only->iov_base, only->iov_len, (off_t)a->offset);
	return pwrite(a->fd, only->iov_base, only->iov_len, (off_t)a->offset);
}

static ssize_t system_call(const struct aio *a)
{
	if (a->iov && a->count == 1 && !a->flags)
		return plain_transfer(a);
	switch (a->opcode) {
	case IORING_OP_READV:
		return preadv2(a->fd, a->iov, (int)a->count, (off_t)a->offset, a->flags);
	case IORING_OP_WRITEV:
		return pwritev2(a->fd, a->iov, (int)a->count, (off_t)a->offset, a->flags);
	case IORING_OP_FSYNC:
		return a->flags & IORING_FSYNC_DATASYNC ? fdatasync(a->fd) : fsync(a->fd);
	default:
		return fallocate(a->fd, a->flags, (off_t)a->offset, (off_t)a->length);
	}
}

static ssize_t call_blocking(const struct aio *a)
{
	ssize_t n = system_call(a);

	return n < 0 ? -errno : n;
}

static int call_on_thread(void *argument)
{
	struct aio *a = argument;

	a->result = call_blocking(a);
	return 0;
}

/* True for a file that is read through the page cache. */
static bool is_cached(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !(flags & O_DIRECT);
}

/*
 * What the page cache holds needs no thread. preadv2(2): RWF_NOWAIT fails with EAGAIN where it would block,
 * with EOPNOTSUPP where the file system does not know it. (A direct read does not block on locks then, but
 * waits for the data.)
 */
static ssize_t call_without_ring(struct fiber *f, struct aio *a)
{
	if (a->flags & RWF_NOWAIT)
		return call_blocking(a);
	if (a->opcode == IORING_OP_READV && is_cached(a->fd)) {
		struct aio now = *a;

		now.flags |= RWF_NOWAIT;
		a->result = call_blocking(&now);
		if (a->result != -EAGAIN && a->result != -EOPNOTSUPP)
			return a->result;
	}
	offload_call(loop_offload(f), f, call_on_thread, a);
	return a->result;
}

/* ------------------------------------------------------------------ as a request of the ring */

/* A transfer of one piece is cheaper for the kernel without the array. */
static void prepare_transfer(struct io_uring_sqe *sqe, const struct aio *a)
{
	if (a->count == 1) {
		size_t length = a->iov[0].iov_len;

		sqe->opcode = a->opcode == IORING_OP_READV ? IORING_OP_READ : IORING_OP_WRITE;
		sqe->addr = (uintptr_t)a->iov[0].iov_base;
		sqe->len = length < MAX_TRANSFER ? (uint32_t)length : MAX_TRANSFER;
	} else {
		sqe->addr = (uintptr_t)a->iov;
		sqe->len = (uint32_t)a->count;
	}
	sqe->off = a->offset;
	sqe->rw_flags = a->flags;
}

static void prepare(struct io_uring_sqe *sqe, const struct aio *a)
{
	sqe->opcode = (uint8_t)a->opcode;
	sqe->fd = a->fd;
	switch (a->opcode) {
	case IORING_OP_FSYNC:
		sqe->fsync_flags = (uint32_t)a->flags;
		break;
	case IORING_OP_FALLOCATE:
		sqe->off = a->offset;
		sqe->addr = a->length;
		sqe->len = (uint32_t)a->flags;
		break;
	default:
		prepare_transfer(sqe, a);
	}
}

/* Valgrind does not see who fills the buffers. */
static void mark_filled(const struct aio *a, ssize_t done)
{
	for (size_t i = 0; done > 0 && i < a->count; i++) {
		ssize_t length = (ssize_t)a->iov[i].iov_len;

		checkers_filled(a->iov[i].iov_base, (size_t)(length < done ? length : done));
		done -= length;
	}
}

static ssize_t call_ring(struct fiber *f, struct ring *ring, const struct aio *a)
{
	struct request q = {.fiber = f};

	prepare(&q.sqe, a);
	ring_start(ring, &q);
	loop_suspend(f);
	if (a->opcode == IORING_OP_READV && checkers_in_valgrind())
		mark_filled(a, q.result);
	return q.result;
}

/* ------------------------------------------------------------------ all of them */

static ssize_t run_once(struct fiber *f, struct aio *a)
{
	struct ring *ring;

	if (!f)
		return call_blocking(a);
	ring = loop_ring(f, a->opcode);
	return ring ? call_ring(f, ring, a) : call_without_ring(f, a);
}

static ssize_t run(struct aio *a)
{
	struct fiber *f = loop_fiber();
	ssize_t n;

	for (;;) {
		n = run_once(f, a);
		if (n >= 0)
			return n;
		if (n == -EAGAIN && !(a->flags & RWF_NOWAIT))
			wait_sleep(RETRY_NS);
		else if (n != -EINTR)
			return n;
	}
}

static ssize_t transfer(unsigned opcode, int fd, const struct iovec *iov, size_t count, uint64_t offset,
			int flags)
{
	struct aio a = {
		.opcode = opcode, .fd = fd, .flags = flags, .iov = iov, .count = count, .offset = offset};

	/* the system calls take -1 for "at the file's own position" */
	if (count > IOV_MAX || offset > INT64_MAX)
		return -EINVAL;
	return run(&a);
}

ssize_t aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags)
{
	return transfer(IORING_OP_READV, fd, iov, count, offset, flags);
}

ssize_t aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags)
{
	return transfer(IORING_OP_WRITEV, fd, iov, count, offset, flags);
}

/* Whether the call failed for a reason that goes away. */
static bool is_to_be_repeated(void)
{
	return errno == EINTR || errno == EAGAIN;
}

HOT ssize_t aio_pread(int fd, void *memory, size_t size, uint64_t offset)
{
	if (!loop_fiber()) {
		ssize_t n = pread(fd, memory, size, (off_t)offset); /* where offset is too large: EINVAL */
		if (__builtin_expect(n >= 0, 1))
			return n;
		if (!is_to_be_repeated())
			return -errno;
	}
	return transfer(IORING_OP_READV, fd, &(struct iovec){memory, size}, 1, offset, 0);
}

HOT ssize_t aio_pwrite(int fd, const void *memory, size_t size, uint64_t offset)
{
	if (!loop_fiber()) {
		ssize_t n = pwrite(fd, memory, size, (off_t)offset);
		if (__builtin_expect(n >= 0, 1))
			return n;
		if (!is_to_be_repeated())
			return -errno;
	}
	return transfer(IORING_OP_WRITEV, fd, &(struct iovec){(void *)memory, size}, 1, offset, 0);
}

int aio_fsync(int fd)
{
	struct aio a = {.opcode = IORING_OP_FSYNC, .fd = fd};

	return (int)run(&a);
}

int aio_fdatasync(int fd)
{
	struct aio a = {.opcode = IORING_OP_FSYNC, .fd = fd, .flags = IORING_FSYNC_DATASYNC};

	return (int)run(&a);
}

int aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	struct aio a = {
		.opcode = IORING_OP_FALLOCATE, .fd = fd, .flags = mode, .offset = offset, .length = length};

	if (offset > INT64_MAX || length > INT64_MAX)
		return -EINVAL;
	return (int)run(&a);
}

int aio_offload(int (*function)(void *argument), void *argument)
{
	struct fiber *f = loop_fiber();

	return f ? offload_call(loop_offload(f), f, function, argument) : function(argument);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* File I/O that blocks a plain thread or suspends a fiber. */
#ifndef PLATTER_CORE_AIO_H
#define PLATTER_CORE_AIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * On a plain thread these are the system calls; in a fiber they go through the loop's io_uring, or its
 * offload threads where io_uring cannot (or lacks the operation). EINTR is retried inside, and so is EAGAIN
 * but with RWF_NOWAIT.
 * Results are those of the system call with -errno for failures; a transfer may be short. `flags` are the
 * RWF_* of preadv2(2), e.g. RWF_DSYNC. `count` is at most IOV_MAX.
 */
ssize_t aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);

/* As the two above, of one piece and without flags: what most transfers are, and the shortest way to the
 * system call. */
ssize_t aio_pread(int fd, void *memory, size_t size, uint64_t offset);
ssize_t aio_pwrite(int fd, const void *memory, size_t size, uint64_t offset);

int aio_fsync(int fd);
int aio_fdatasync(int fd);
int aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);

/*
 * Calls function(argument) where blocking does no harm: on a plain thread right here, from a fiber on one
 * of the loop's offload threads while the fiber waits. For libraries that block (SQLite, libcurl, ioctl).
 * Returns its result. The function must not wait for fibers (a lock that one may hold while it waits, a
 * disk call): there are only so many threads, and with all of them waiting nobody does the work that they
 * wait for.
 */
int aio_offload(int (*function)(void *argument), void *argument);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying from and to mapped memory that may be gone: an error instead of a SIGBUS. */
#ifndef PLATTER_CORE_SAFE_COPY_H
#define PLATTER_CORE_SAFE_COPY_H

#include <stddef.h>
#include <stdint.h>

/*
 * A page of a mapped file that was shortened, that its storage cannot deliver, or whose memory failed, raises SIGBUS in whoever
 * touches it. These functions return -EFAULT then; either side may be the one that is gone. They may be called on any thread
 * and in any fiber, at any time, many at once, and from signal handlers that do not block SIGBUS, once this thread has called one of
 * them before.
 *
 * A page that is not mapped at all raises SIGSEGV, and that stays the bug it is.
 *
 * The first call in the process takes over the handler of SIGBUS. What is not a fault of these functions goes on to the
 * handler that was there, or does what SIGBUS did before. Whoever sets a handler later must hand on what is not its own in the
 * same way. The first call on a thread takes SIGBUS out of the signals that the thread blocks: a fault that is
 * blocked ends the process.
 */

/* Copies `size` bytes; the ranges must not overlap. 0; -EFAULT: any part may have been copied. */
int safe_copy(void *to, const void *from, size_t size);

/* Sets `size` bytes to `byte`. 0; -EFAULT: any part may have been set. */
int safe_fill(void *to, unsigned char byte, size_t size);

/* 1 when `size` bytes are all zero, 0 when not (which it may say before it comes to what is gone), or -EFAULT. */
int safe_is_zero(const void *from, size_t size);

/*
 * One access of an aligned word that is shared with somebody else, in one piece: a load that acquires, a store that releases. 0, or
 * -EFAULT and nothing has happened.
 */
int safe_load32(const uint32_t *from, uint32_t *value);
int safe_store32(uint32_t *to, uint32_t value);
int safe_store64(uint64_t *to, uint64_t value);

#endif

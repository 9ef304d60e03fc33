/* SPDX-License-Identifier: BSD-3-Clause */
/* FUSE over io_uring: requests come and answers go through rings shared with the kernel, one for each processor. */
#ifndef PLATTER_FUSE_RINGS_H
#define PLATTER_FUSE_RINGS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/error.h"

/* Flag of FUSE_INIT (linux/fuse.h since protocol 7.42): the kernel can, and its administrator allows it (fuse.enable_uring). */
#define RINGS_INIT_FLAG (UINT64_C(1) << 41)

struct rings;
struct ring_queue;

/* Called when a queue has work for one more thread: it is to call rings_serve(). May do nothing. */
typedef void rings_more(struct ring_queue *q, void *argument);

/*
 * Rings for the connection that `fuse` has on `device`, for the answer to FUSE_INIT to be given after that. The first thread of each
 * queue is to be started now: the kernel holds all requests back until every queue has one. 0 or a negative errno with `err` set.
 */
int rings_create(struct fuse_session *fuse, int device, rings_more *more, void *argument, struct rings **out, struct error *err);

unsigned rings_count(const struct rings *r);
struct ring_queue *rings_queue(struct rings *r, unsigned index);

/* The answer to FUSE_INIT was given, or (`go` false) there will be none: the first threads go on. */
void rings_go(struct rings *r, bool go);

/*
 * What a thread of the queue does until rings_stop() is called (and the thread is interrupted by a signal), or the kernel wants no rings.
 * False: until the connection has ended.
 */
bool rings_serve(struct ring_queue *q, bool first);

/* All threads are to leave; those that are inside a system call when they come out of it. */
void rings_stop(struct rings *r);

/* When all threads have left. Accepts NULL. */
void rings_destroy(struct rings *r);

/* Whether this is the answer to the request that the calling thread carries out for a ring: then it is given. */
bool rings_answer(const struct iovec *iov, int count);

/* REQUEST_MAX_BYTES where an answer needs not be copied from; NULL outside of a request, or where the request has data in there. */
void *rings_buffer(void);

#endif

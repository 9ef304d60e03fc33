/* SPDX-License-Identifier: BSD-3-Clause */
/* What the waiting machinery needs of a loop beyond loop.h: suspend, wake, timers, ring. Not for others. */
#ifndef PLATTER_CORE_LOOP_INTERNAL_H
#define PLATTER_CORE_LOOP_INTERNAL_H

#include <poll.h>
#include <stdint.h>

#include "core/loop.h"
#include "core/timers.h"

struct fiber;
struct offload;
struct ring;

/* The fiber that is calling; NULL on a plain thread. */
struct fiber *loop_fiber(void);

/* Suspends the calling fiber `f` until loop_wake(f). */
void loop_suspend(struct fiber *f);

/*
 * Makes a fiber that is suspended, or is about to suspend itself, go on: exactly once for each
 * loop_suspend(). From any thread. `f` and its loop may be gone when this returns.
 */
void loop_wake(struct fiber *f);

/* On the loop's own thread: */

/*
 * Timers of the loop of `f`. Their fire() runs on the loop's thread outside of any fiber and must not wait.
 */
void loop_timer_add(struct fiber *f, struct timer *t);
void loop_timer_remove(struct fiber *f, struct timer *t);

/* The ring of the loop of `f` if there is one that can do `opcode`, else NULL. */
struct ring *loop_ring(struct fiber *f, unsigned opcode);

/* The threads of the loop of `f`. */
struct offload *loop_offload(struct fiber *f);

/* For tests, before the first run: enum ring_without of ring.h. */
void loop_restrict_ring(struct loop *l, unsigned without);

/* ------------------------------------------------------------------ watching descriptors without a ring */

/* Lives in the frame of the fiber that waits. */
struct poll_watch {
	struct poll_watch *next, *prev;
	struct fiber *fiber;
	struct pollfd poll; /* revents: 0 until something is there */
	bool active;
};

struct watches {
	struct poll_watch *first;
	unsigned count;
	struct pollfd *fds; /* room for one more than count */
	unsigned capacity;
};

struct watches *loop_watches(struct fiber *f);

/* 0 or -ENOMEM. */
int watches_add(struct watches *ws, struct poll_watch *w);
void watches_remove(struct watches *ws, struct poll_watch *w);

/*
 * poll(2) on all of them and, if not negative, `wake_fd`; wakes the fibers of those that are ready. True if
 * wake_fd is.
 */
bool watches_wait(struct watches *ws, int wake_fd, uint64_t timeout_ns);

/* Frees what it holds; nothing may be watched. */
void watches_free(struct watches *ws);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* A loop: one thread, one io_uring, one inbound queue, and the fibers that live on it. */
#ifndef PLATTER_CORE_LOOP_H
#define PLATTER_CORE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct loop;

/* Zero-initialised: defaults. */
struct loop_options {
	unsigned ring_entries; /* of the submission queue; 0: 256. More requests may be in flight */
	size_t stack_size;     /* bytes, without the guard; 0: 256 KiB (1 MiB under sanitizers) */
	uint64_t poll_ns;      /* spin for so long before sleeping; 0: sleep at once */
	bool no_io_uring;      /* use the portable fallback (offload threads) even where io_uring works */
};

/*
 * A new loop that no thread runs yet. It owns memory only: ring, descriptors and threads are made when the
 * fibers first need them. So the process may fork, and use the loop in the child, as long as it is not
 * running.
 */
int loop_create(const struct loop_options *options, struct loop **out, struct error *err);

/*
 * Runs fibers on the calling thread until loop_stop() was called and the last fiber has ended. The calling
 * thread must not be inside a loop already; a loop is run by one thread at a time.
 */
void loop_run(struct loop *l);

/*
 * Asks loop_run() to return once no fiber is left. From any thread or fiber, also before loop_run() was
 * called. It is used up when loop_run() returns, and the loop can be run again then, by any thread.
 */
void loop_stop(struct loop *l);

/* Frees a loop that does not run and has no fibers. Accepts NULL. */
void loop_destroy(struct loop *l);

/* A thread of its own that runs the loop: loop_create, pthread, loop_run. */
int loop_start(const struct loop_options *options, struct loop **out, struct error *err);

/* loop_stop(), joins the thread of loop_start(), loop_destroy(). Not from a fiber of the same loop. */
void loop_finish(struct loop *l);

/*
 * Starts a fiber that calls entry(argument) on the loop, from any thread or fiber. A fiber stays on its
 * loop for life. From a fiber of the same loop the new one is put at the end of the ready queue. 0 or
 * -ENOMEM.
 */
int loop_spawn(struct loop *l, void (*entry)(void *argument), void *argument);

/* The loop whose fiber is calling; NULL on a plain thread. */
struct loop *loop_current(void);

/*
 * Watches a descriptor from a fiber: waits until poll(2) `events` are there (returned), or -ETIMEDOUT, or
 * -errno. On a plain thread it is poll(2).
 */
int loop_poll(int fd, short events, uint64_t timeout_ns);

/* How many fibers live on the loop, for tests and statistics. */
size_t loop_fibers(const struct loop *l);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Fibers: stacks of their own, made, kept for reuse, entered and left. Internal to the loop. */
#ifndef PLATTER_CORE_FIBER_H
#define PLATTER_CORE_FIBER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/switch.h"

struct loop;

/* Who enters fibers: a thread inside loop_run(). */
struct fiber_host {
	struct context context;
	const void *stack; /* of the thread, for ASan */
	size_t stack_size;
	void *fake_stack; /* ASan's, while a fiber runs */
	void *tsan;       /* TSan's name for the thread */
};

/*
 * Lives at the top of its own stack. After entry() returned the flow stays inside its endless loop, so that
 * a fiber from the pool goes on with the next entry() without its stack being laid out again.
 */
struct fiber {
	struct context context;
	struct fiber *next; /* in the one list it is in: ready, inbound, or pool */
	void (*entry)(void *argument);
	void *argument;
	struct loop *loop;
	struct fiber_host *host; /* who entered it last */
	bool ended;              /* entry() has returned */
	bool ready;              /* in the ready queue: one wake for each suspend, never two */
	bool foreign;            /* came from the pool for other threads */

	char *mapping; /* guard, stack, this */
	size_t mapping_size;
	char *stack; /* lowest byte */
	size_t stack_size;
	void *fake_stack;
	void *tsan;
	unsigned checkers_id;
};

/* Fibers that wait for work. Not locked. */
struct fiber_pool {
	struct fiber *free;
	unsigned nr_free;
	unsigned nr_made;  /* ever; colours the stacks */
	size_t stack_size; /* bytes a new fiber can use */
};

/*
 * Taken from the pool or made; NULL when memory ran out. `entry`, `argument` and `loop` are the caller's to
 * set.
 */
struct fiber *fiber_pool_get(struct fiber_pool *p);

/* Put back a fiber that has ended; it may be freed. */
void fiber_pool_put(struct fiber_pool *p, struct fiber *f);

/* Frees fibers until at most `keep` are left. */
void fiber_pool_trim(struct fiber_pool *p, unsigned keep);

/* Pools larger than this are trimmed when the loop has been idle for a while, or returns. */
#define FIBER_POOL_KEEP 256u

/* Makes the calling thread the host; to be called again whenever another thread takes over. */
void fiber_host_begin(struct fiber_host *h);

/* Runs `f` until it leaves. Then f->ended says whether its entry() returned. */
void fiber_enter(struct fiber_host *h, struct fiber *f);

/* Leaves the running fiber `f`: fiber_enter() returns. Comes back when `f` is entered again. */
void fiber_leave(struct fiber *f);

#endif

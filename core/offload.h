/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads of one loop that block in its fibers' stead. Internal to the loop. */
#ifndef PLATTER_CORE_OFFLOAD_H
#define PLATTER_CORE_OFFLOAD_H

#include <pthread.h>
#include <stdbool.h>

struct fiber;
struct offload_job;
struct offload_worker;

/*
 * `lock` protects everything here; nothing else is taken under it, and nothing waits under it. Threads
 * start when there is work and end when there is none for a while.
 */
struct offload {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct offload_job *head, *tail;
	struct offload_worker *workers; /* to be joined */
	unsigned nr_queued;
	unsigned nr_threads; /* that take jobs */
	unsigned nr_idle;    /* of them, waiting for one */
	bool any_retired;
	bool stop;
};

/* Starts no thread. */
void offload_init(struct offload *o);

/* Ends the threads; there must be no job. */
void offload_destroy(struct offload *o);

/* In the child of a fork: the threads were not inherited. */
void offload_forked(struct offload *o);

/*
 * Calls function(argument) on a thread while the running fiber `f` waits; its result. If no thread can be
 * had, here.
 */
int offload_call(struct offload *o, struct fiber *f, int (*function)(void *argument), void *argument);

#endif

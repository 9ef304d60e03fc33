/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/offload.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "core/loop-internal.h"

#define MAX_THREADS 64u
#define IDLE_SECONDS 5

/* Lives in the frame of the fiber that waits for it. */
struct offload_job {
	struct offload_job *next;
	struct fiber *fiber;
	int (*function)(void *argument);
	void *argument;
	int result;
};

struct offload_worker {
	struct offload_worker *next;
	struct offload *offload;
	pthread_t thread;
	bool retired; /* about to return: joining it does not take long */
};

void offload_init(struct offload *o)
{
	pthread_condattr_t attr;

	*o = (struct offload){0};
	pthread_mutex_init(&o->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&o->work, &attr);
	pthread_condattr_destroy(&attr);
}

void offload_forked(struct offload *o)
{
	struct offload_worker *w;

	assert(!o->head);
	while ((w = o->workers)) {
		o->workers = w->next;
		free(w);
	}
	offload_init(o);
}

void offload_destroy(struct offload *o)
{
	struct offload_worker *w;

	pthread_mutex_lock(&o->lock);
	assert(!o->head);
	o->stop = true;
	pthread_cond_broadcast(&o->work);
	pthread_mutex_unlock(&o->lock);
	while ((w = o->workers)) {
		o->workers = w->next;
		pthread_join(w->thread, NULL);
		free(w);
	}
	pthread_cond_destroy(&o->work);
	pthread_mutex_destroy(&o->lock);
}

/* ------------------------------------------------------------------ on the threads */

/* Waits for a job; NULL when the thread should end. Under the lock. */
static struct offload_job *next_job(struct offload *o)
{
	struct offload_job *job;
	struct timespec until;
	int status = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	while (!o->head && !o->stop && status != ETIMEDOUT) {
		o->nr_idle++;
		status = pthread_cond_timedwait(&o->work, &o->lock, &until);
		o->nr_idle--;
	}
	job = o->head;
	if (job) {
		o->head = job->next;
		o->nr_queued--;
	}
	return job;
}

static void *worker_main(void *argument)
{
	struct offload_worker *w = argument;
	struct offload *o = w->offload;
	struct offload_job *job;

	pthread_mutex_lock(&o->lock);
	while ((job = next_job(o))) {
		pthread_mutex_unlock(&o->lock);
		job->result = job->function(job->argument);
		loop_wake(job->fiber); /* the job is gone from here on */
		pthread_mutex_lock(&o->lock);
	}
	o->nr_threads--;
	w->retired = true;
	o->any_retired = true;
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

/* ------------------------------------------------------------------ on the loop */

/* Joins threads that ended for want of work. Under the lock. */
static void join_retired(struct offload *o)
{
	struct offload_worker **at = &o->workers, *w;

	while ((w = *at)) {
		if (!w->retired) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		pthread_join(w->thread, NULL); /* it does not take the lock any more */
		free(w);
	}
	o->any_retired = false;
}

/* One more thread, if one can be had. Under the lock. */
static void start_thread(struct offload *o)
{
	struct offload_worker *w = malloc(sizeof *w);
	sigset_t all, old;
	int status;

	if (!w)
		return;
	*w = (struct offload_worker){.offload = o};
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault that is blocked ends the process; core/safe-copy.h */
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
	status = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (status) {
		free(w);
		return;
	}
	w->next = o->workers;
	o->workers = w;
	o->nr_threads++;
}

/* Queues the job; false when there is nobody to do it. */
static bool enqueue(struct offload *o, struct offload_job *job)
{
	bool accepted;

	pthread_mutex_lock(&o->lock);
	if (o->any_retired)
		join_retired(o);
	if (o->nr_queued >= o->nr_idle && o->nr_threads < MAX_THREADS)
		start_thread(o);
	accepted = o->nr_threads > 0;
	if (accepted) {
		if (o->head)
			o->tail->next = job;
		else
			o->head = job;
		o->tail = job;
		o->nr_queued++;
		pthread_cond_signal(&o->work);
	}
	pthread_mutex_unlock(&o->lock);
	return accepted;
}

int offload_call(struct offload *o, struct fiber *f, int (*function)(void *argument), void *argument)
{
	struct offload_job job = {.fiber = f, .function = function, .argument = argument};

	if (!enqueue(o, &job))
		return function(argument);
	loop_suspend(f);
	return job.result;
}

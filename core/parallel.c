/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A plain thread has no fibers to run sub-requests in, so it gets a loop for as long as it lives. The loop
 * costs nothing but memory until a sub-request waits for I/O (then a ring) or for another thread (then a
 * wake descriptor).
 */
#include "core/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "core/loop-internal.h"
#include "core/wait.h"

#define PRIVATE_ENTRIES 64u

/* Lives in the frame of parallel_run(). Its fibers are of one loop, so nothing here needs a lock. */
struct run {
	int (*function)(void *argument, unsigned index);
	void *argument;
	unsigned count;
	unsigned next; /* index nobody has begun with yet */
	unsigned failed; /* lowest index that failed */
	int status;      /* of that one */
	struct wait_group ended;
};

/* ------------------------------------------------------------------ on a loop */

static void run_next(struct run *r)
{
	unsigned index = r->next++;
	int status = r->function(r->argument, index);

	if (status && (!r->status || index < r->failed)) {
		r->status = status;
		r->failed = index;
	}
}

static void child_main(void *argument)
{
	struct run *r = argument;

	run_next(r);
	wait_group_done(&r->ended);
}

/* The caller takes part. Where no fiber can be had it does the work of those, too, one after the other. */
static void run_on_loop(struct loop *l, struct run *r)
{
	unsigned alone = 1;

	for (unsigned i = 1; i < r->count; i++) {
		wait_group_add(&r->ended, 1);
		if (loop_spawn(l, child_main, r) < 0) {
			wait_group_done(&r->ended);
			alone = r->count - i + 1;
			break;
		}
	}
	while (alone--)
		run_next(r);
	wait_group_wait(&r->ended);
}

static void run_alone(struct run *r)
{
	while (r->next < r->count)
		run_next(r);
}

/* ------------------------------------------------------------------ the loop of a plain thread */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static _Atomic bool has_key;

static void free_private_loop(void *loop)
{
	loop_destroy(loop);
}

static void make_key(void)
{
	atomic_store(&has_key, pthread_key_create(&key, free_private_loop) == 0);
}

/*
 * When the program ends, or the library is unloaded: the destructor of the key must not be called any more.
 */
__attribute__((destructor)) static void drop_key(void)
{
	if (!atomic_exchange(&has_key, false))
		return;
	if (!loop_current())
		free_private_loop(pthread_getspecific(key));
	pthread_key_delete(key);
}

static struct loop *private_loop(void)
{
	struct loop_options options = {.ring_entries = PRIVATE_ENTRIES};
	struct loop *l;

	pthread_once(&once, make_key);
	if (!atomic_load(&has_key))
		return NULL;
	l = pthread_getspecific(key);
	if (l)
		return l;
	if (loop_create(&options, &l, NULL) < 0)
		return NULL;
	if (pthread_setspecific(key, l)) {
		loop_destroy(l);
		return NULL;
	}
	return l;
}

static void root_main(void *argument)
{
	run_on_loop(loop_current(), argument);
}

static void run_on_thread(struct run *r)
{
	struct loop *l = private_loop();

	if (!l || loop_spawn(l, root_main, r) < 0) {
		run_alone(r);
		return;
	}
	loop_stop(l);
	loop_run(l);
}

int parallel_run(unsigned count, int (*function)(void *argument, unsigned index), void *argument)
{
	struct run r = {.function = function, .argument = argument, .count = count};
	struct loop *l = loop_current();

	if (count <= 1)
		run_alone(&r);
	else if (l)
		run_on_loop(l, &r);
	else
		run_on_thread(&r);
	return r.status;
}

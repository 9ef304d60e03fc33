/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A loop
 *
 * One thread runs fibers one after the other. A fiber that must wait leaves; the loop goes on with the next
 * one that is ready. States of a fiber and who moves it:
 *
 *     pooled     --loop_spawn---->  ready, or inbound if it comes from another thread
 *     inbound    --take_inbound-->  ready
 *     ready      --run_one------->  running
 *     running    --loop_suspend-->  suspended
 *     running    --entry() ended->  pooled
 *     suspended  --loop_wake----->  ready, or inbound if it comes from another thread
 *
 * The loop itself is busy (fibers are ready), or turns (looks at ring, timers, inbound queue), or sleeps.
 *
 * Invariants
 *
 *   1  A fiber is in at most one list: a pool, the ready queue, or the inbound queue; `next` belongs to
 *      that list.
 *   2  For each loop_suspend() there is exactly one loop_wake(). Who wakes has taken the fiber's waiter,
 *      request, job or timer out of where others would find it.
 *   3  A fiber is never entered by a thread other than the loop's; a wake from elsewhere only queues it. So
 *      it may be woken while it is still on its way into loop_suspend().
 *   4  The thread sleeps only while `inbound` holds ASLEEP. Who replaces ASLEEP writes to the wake
 *      descriptor, once; nobody else does.
 *   5  The loop may be gone right after a fiber, or a stop, was queued: that atomic operation is the last
 *      access of who queued it, unless it replaced ASLEEP. In that case the loop does not return from
 *      loop_run() before the write was seen (wakes_owed == wakes_seen).
 *   6  live fibers = spawned_here + spawned_elsewhere - ended; the second is counted before the fiber is
 *      queued. loop_run() returns only when this is zero: no fiber ever changes threads while it lives.
 *      (Its stack may, in the pool.)
 *   7  ring, timers, ready queue and pool are touched by the running thread only.
 *
 * `inbound` is one word: the newest fiber of a list that is pushed at the front by anyone and taken as a
 * whole by the loop, with two flags in the low bits: ASLEEP (nobody is awake to look) and STOP. A wake
 * costs one compare-and-swap while the loop is awake.
 *
 * Ring, wake descriptor and threads are made at the first need on the thread that runs the loop, and made
 * again when another thread runs it, or the same one in the child of a fork: rings are bound to a thread
 * (SINGLE_ISSUER), and parent and child must not share a wake descriptor.
 *
 * A turn is made when no fiber is ready, or after TURN fibers have run: I/O is submitted in batches, and
 * fibers that are always ready do not hold back I/O, timers and other threads.
 *
 * Locks: spare_lock protects the pool for other threads (`spare`); nothing is taken under it. See wait.c
 * for the locks that fibers use.
 *
 * Deliberately not done: switching directly from fiber to fiber (saves 3 ns, costs the one place where all
 * come by), stealing of fibers by other loops, priorities, cancelling a fiber from outside, growing stacks.
 */
#include "core/loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/checkers.h"
#include "core/fiber.h"
#include "core/hot.h"
#include "core/loop-internal.h"
#include "core/offload.h"
#include "core/ring.h"
#include "core/wait.h"

#define TURN 64u
#define DEFAULT_ENTRIES 256u
#define MAX_ENTRIES 32768u
#define MIN_STACK ((size_t)16 * 1024)
#define MAX_STACK ((size_t)1 << 30)

/* An idle loop looks so often whether its pool should shrink. */
#define TRIM_NS UINT64_C(1000000000)

/* Without a wake descriptor (none to be had) it looks so often whether something is inbound. */
#define BLIND_NS UINT64_C(1000000)

#define ASLEEP ((uintptr_t)1)
#define STOP ((uintptr_t)2)
#define INBOUND_FLAGS (ASLEEP | STOP)

struct loop {
	/* the running thread's */
	struct fiber *ready_head, *ready_tail;
	struct fiber *running;
	struct fiber_pool pool;
	unsigned nr_spare; /* about how many are in `spare` */
	_Atomic size_t spawned_here, ended; /* written by this thread only */
	struct fiber_host host;
	struct timers timers;
	struct ring ring;
	struct watches watches;
	uint64_t wakes_owed, wakes_seen;
	int wake_fd; /* -1: none; others read it only after they replaced ASLEEP */
	bool ring_refused;
	bool stopping;

	/* frozen */
	struct loop_options options;
	unsigned ring_without;

	/* anybody's */
	_Alignas(64) _Atomic uintptr_t inbound;
	_Atomic size_t spawned_elsewhere;
	_Atomic bool is_run;
	pthread_mutex_t spare_lock;
	struct fiber_pool spare;

	/* who runs it, or did */
	pid_t process;
	pid_t thread;
	uint64_t thread_birth;

	struct offload offload;
	pthread_t own_thread; /* of loop_start() */
};

/* ------------------------------------------------------------------ who is calling */

/*
 * These are never inlined: a compiler may keep the address of a thread's variable across a call, and a
 * pooled fiber goes on in another thread when another thread runs the loop.
 */
static _Thread_local struct loop *current __attribute__((tls_model("initial-exec")));
static _Thread_local uint64_t birth;

HOT __attribute__((noinline)) struct loop *loop_current(void)
{
	__asm__ volatile("");
	return current;
}

__attribute__((noinline)) static void set_current(struct loop *l)
{
	__asm__ volatile("");
	current = l;
}

/* Together with its number it names a thread for ever: numbers are used again. */
__attribute__((noinline)) static uint64_t thread_birth(void)
{
	__asm__ volatile("");
	if (!birth)
		birth = wait_now();
	return birth;
}

HOT struct fiber *loop_fiber(void)
{
	struct loop *l = loop_current();

	return l ? l->running : NULL;
}

/* ------------------------------------------------------------------ ready queue, suspend, wake */

static inline void ready_push(struct loop *l, struct fiber *f)
{
	assert(!f->ready);
	f->ready = true;
	f->next = NULL;
	if (l->ready_head)
		l->ready_tail->next = f;
	else
		l->ready_head = f;
	l->ready_tail = f;
}

static void write_wake(struct loop *l)
{
	uint64_t one = 1;

	/* fails only when the counter is full, and then the loop is awake */
	if (write(l->wake_fd, &one, sizeof one) < 0)
		return;
}

/* Queues a fiber from outside. The loop may be gone when this returns. */
static void post(struct loop *l, struct fiber *f)
{
	uintptr_t old = atomic_load_explicit(&l->inbound, memory_order_relaxed), new;

	do {
		f->next = (struct fiber *)(old & ~INBOUND_FLAGS);
		new = (uintptr_t)f | (old & STOP);
	} while (!atomic_compare_exchange_weak_explicit(&l->inbound, &old, new, memory_order_acq_rel,
							memory_order_relaxed));
	if (old & ASLEEP)
		write_wake(l);
}

void loop_wake(struct fiber *f)
{
	struct loop *l = f->loop;

	if (loop_current() == l)
		ready_push(l, f);
	else
		post(l, f);
}

void loop_suspend(struct fiber *f)
{
	assert(f->loop->running == f);
	fiber_leave(f);
}

void loop_stop(struct loop *l)
{
	uintptr_t old = atomic_load_explicit(&l->inbound, memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(&l->inbound, &old, (old & ~ASLEEP) | STOP,
						      memory_order_acq_rel, memory_order_relaxed))
		;
	if (old & ASLEEP)
		write_wake(l);
}

/* Sorts what came in: the list is newest first, the ready queue wants it in order. */
static void accept_inbound(struct loop *l, uintptr_t word)
{
	struct fiber *f = (struct fiber *)(word & ~INBOUND_FLAGS), *list = NULL, *next;

	if (word & STOP)
		l->stopping = true;
	for (; f; f = next) {
		next = f->next;
		f->next = list;
		list = f;
	}
	for (; list; list = next) {
		next = list->next;
		ready_push(l, list);
	}
}

static void take_inbound(struct loop *l)
{
	if (atomic_load_explicit(&l->inbound, memory_order_relaxed))
		accept_inbound(l, atomic_exchange_explicit(&l->inbound, 0, memory_order_acquire));
}

/* ------------------------------------------------------------------ spawning */

static void count_one(_Atomic size_t *n)
{
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static int spawn_here(struct loop *l, void (*entry)(void *argument), void *argument)
{
	struct fiber *f = fiber_pool_get(&l->pool);

	if (!f)
		return -ENOMEM;
	f->entry = entry;
	f->argument = argument;
	f->loop = l;
	count_one(&l->spawned_here);
	ready_push(l, f);
	return 0;
}

static int spawn_elsewhere(struct loop *l, void (*entry)(void *argument), void *argument)
{
	struct fiber *f;

	pthread_mutex_lock(&l->spare_lock);
	f = fiber_pool_get(&l->spare);
	pthread_mutex_unlock(&l->spare_lock);
	if (!f)
		return -ENOMEM;
	f->entry = entry;
	f->argument = argument;
	f->loop = l;
	f->foreign = true;
	atomic_fetch_add_explicit(&l->spawned_elsewhere, 1, memory_order_relaxed);
	post(l, f);
	return 0;
}

int loop_spawn(struct loop *l, void (*entry)(void *argument), void *argument)
{
	return loop_current() == l ? spawn_here(l, entry, argument) : spawn_elsewhere(l, entry, argument);
}

size_t loop_fibers(const struct loop *l)
{
	/* `ended` first: what is counted there is counted in the others, too */
	size_t ended = atomic_load_explicit(&l->ended, memory_order_acquire);

	return atomic_load_explicit(&l->spawned_here, memory_order_relaxed) +
	       atomic_load_explicit(&l->spawned_elsewhere, memory_order_relaxed) - ended;
}

static void reclaim(struct loop *l, struct fiber *f)
{
	atomic_store_explicit(&l->ended, atomic_load_explicit(&l->ended, memory_order_relaxed) + 1,
			      memory_order_release);
	if (!f->foreign) {
		fiber_pool_put(&l->pool, f);
		return;
	}
	pthread_mutex_lock(&l->spare_lock);
	fiber_pool_put(&l->spare, f);
	l->nr_spare = l->spare.nr_free;
	pthread_mutex_unlock(&l->spare_lock);
}

static void trim_pools(struct loop *l)
{
	fiber_pool_trim(&l->pool, FIBER_POOL_KEEP);
	pthread_mutex_lock(&l->spare_lock);
	fiber_pool_trim(&l->spare, FIBER_POOL_KEEP);
	l->nr_spare = l->spare.nr_free;
	pthread_mutex_unlock(&l->spare_lock);
}

/* ------------------------------------------------------------------ services of the loop's thread */

void loop_timer_add(struct fiber *f, struct timer *t)
{
	timers_add(&f->loop->timers, t);
}

void loop_timer_remove(struct fiber *f, struct timer *t)
{
	timers_remove(&f->loop->timers, t);
}

struct offload *loop_offload(struct fiber *f)
{
	return &f->loop->offload;
}

struct watches *loop_watches(struct fiber *f)
{
	return &f->loop->watches;
}

void loop_restrict_ring(struct loop *l, unsigned without)
{
	l->ring_without = without;
}

struct ring *loop_ring(struct fiber *f, unsigned opcode)
{
	struct loop *l = f->loop;

	if (!l->ring.open && !l->ring_refused)
		l->ring_refused = ring_open(&l->ring, l->options.ring_entries, l->ring_without) < 0;
	return ring_can(&l->ring, opcode) ? &l->ring : NULL;
}

/* ------------------------------------------------------------------ sleeping */

static void read_wakes(struct loop *l)
{
	uint64_t count;

	if (read(l->wake_fd, &count, sizeof count) == sizeof count)
		l->wakes_seen += count;
}

/* Before the loop may go away: waits for who replaced ASLEEP and has not written yet. */
static void settle_wakes(struct loop *l)
{
	struct pollfd p = {.fd = l->wake_fd, .events = POLLIN};

	while (l->wakes_seen != l->wakes_owed) {
		poll(&p, 1, -1);
		read_wakes(l);
	}
}

/* One look around while spinning; true when there is something to do. */
static bool look(struct loop *l)
{
	if (l->ring.open && ring_busy(&l->ring))
		ring_turn(&l->ring);
	return l->ready_head || atomic_load_explicit(&l->inbound, memory_order_relaxed);
}

/* poll_ns: looks around for a while before it sleeps. True when there is something to do. */
static bool spin(struct loop *l)
{
	uint64_t now = wait_now(), until = now + l->options.poll_ns;

	if (timers_next(&l->timers) < until)
		until = timers_next(&l->timers);
	while (now < until) {
		for (int i = 0; i < 16; i++)
			if (look(l))
				return true;
		now = wait_now();
	}
	return false;
}

/* How long the loop may sleep; UINT64_MAX: for ever. */
static uint64_t time_to_sleep(struct loop *l)
{
	uint64_t next = timers_next(&l->timers), limit = UINT64_MAX, now;

	if (next != UINT64_MAX) {
		now = wait_now();
		limit = next > now ? next - now : 0;
	}
	if ((l->pool.nr_free > FIBER_POOL_KEEP || l->nr_spare > FIBER_POOL_KEEP) && limit > TRIM_NS)
		limit = TRIM_NS;
	if (l->wake_fd < 0 && limit > BLIND_NS)
		limit = BLIND_NS;
	return limit;
}

/* Enters the kernel until something happens or `limit` ns passed; I/O that was started is submitted. */
static void wait_for_kernel(struct loop *l, uint64_t limit)
{
	bool wakes;

	if (l->ring.open)
		wakes = ring_wait(&l->ring, l->wake_fd, limit);
	else
		wakes = watches_wait(&l->watches, l->wake_fd, limit);
	if (wakes && l->wake_fd >= 0)
		read_wakes(l);
}

static void sleep_until_needed(struct loop *l)
{
	uint64_t limit = time_to_sleep(l);
	uintptr_t word = 0;

	if (l->options.poll_ns && !l->watches.count && spin(l))
		return;
	if (l->wake_fd < 0)
		l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0) {
		wait_for_kernel(l, limit < BLIND_NS ? limit : BLIND_NS);
		return;
	}
	if (!atomic_compare_exchange_strong_explicit(&l->inbound, &word, ASLEEP, memory_order_acq_rel,
						     memory_order_relaxed))
		return;
	wait_for_kernel(l, limit);
	word = atomic_exchange_explicit(&l->inbound, 0, memory_order_acq_rel);
	if (!(word & ASLEEP))
		l->wakes_owed++;
	accept_inbound(l, word);
	if (limit == TRIM_NS && !l->ready_head)
		trim_pools(l);
}

/* ------------------------------------------------------------------ running */

static void run_one(struct loop *l, struct fiber *f)
{
	l->ready_head = f->next;
	f->ready = false;
	l->running = f;
	fiber_enter(&l->host, f);
	l->running = NULL;
	if (f->ended)
		reclaim(l, f);
}

static void run_ready(struct loop *l)
{
	struct fiber *f;

	for (unsigned i = 0; i < TURN && (f = l->ready_head); i++)
		run_one(l, f);
}

/* Looks at everything that may make fibers ready, without sleeping. */
static void turn(struct loop *l)
{
	take_inbound(l);
	if (l->timers.root)
		timers_run(&l->timers, wait_now());
	if (!l->ready_head)
		return; /* going to sleep submits and collects in the same system call */
	if (l->ring.open)
		ring_turn(&l->ring);
	else if (l->watches.count)
		watches_wait(&l->watches, -1, 0);
}

/* Drops what belongs to the thread, or process, that ran the loop before. */
static void adopt(struct loop *l)
{
	pid_t thread = gettid(), process;

	if (l->thread == thread && l->thread_birth == thread_birth())
		return;
	process = getpid();
	ring_close(&l->ring);
	l->ring_refused = l->options.no_io_uring;
	if (l->process && l->process != process) {
		offload_forked(&l->offload);
		if (l->wake_fd >= 0)
			close(l->wake_fd);
		l->wake_fd = -1;
		l->wakes_owed = l->wakes_seen = 0;
	}
	l->thread = thread;
	l->thread_birth = thread_birth();
	l->process = process;
}

void loop_run(struct loop *l)
{
	bool was_run = atomic_exchange(&l->is_run, true);

	assert(!was_run && !loop_current());
	(void)was_run;
	adopt(l);
	set_current(l);
	fiber_host_begin(&l->host);
	for (;;) {
		run_ready(l);
		turn(l);
		if (l->ready_head)
			continue;
		if (l->stopping && loop_fibers(l) == 0)
			break;
		sleep_until_needed(l);
	}
	l->stopping = false;
	settle_wakes(l);
	trim_pools(l);
	set_current(NULL);
	atomic_store(&l->is_run, false);
}

/* ------------------------------------------------------------------ life */

static int check_options(const struct loop_options *o, struct error *err)
{
	if (o->stack_size > MAX_STACK)
		return error_set(err, -EINVAL, "loop: stack size %zu is more than %zu bytes", o->stack_size,
				 MAX_STACK);
	if (o->ring_entries > MAX_ENTRIES)
		return error_set(err, -EINVAL, "loop: %u ring entries are more than %u", o->ring_entries,
				 MAX_ENTRIES);
	return 0;
}

static void set_options(struct loop *l, const struct loop_options *options)
{
	size_t stack = options->stack_size ? options->stack_size : CHECKERS_STACK_SIZE;

	l->options = *options;
	if (!l->options.ring_entries)
		l->options.ring_entries = DEFAULT_ENTRIES;
	l->ring_refused = options->no_io_uring;
	l->pool.stack_size = l->spare.stack_size = stack < MIN_STACK ? MIN_STACK : stack;
}

int loop_create(const struct loop_options *options, struct loop **out, struct error *err)
{
	static const struct loop_options defaults;
	struct loop *l;
	int status;

	if (!options)
		options = &defaults;
	status = check_options(options, err);
	if (status < 0)
		return status;
	l = aligned_alloc(_Alignof(struct loop), sizeof *l);
	if (!l)
		return error_set(err, -ENOMEM, "loop: out of memory");
	*l = (struct loop){.wake_fd = -1};
	set_options(l, options);
	pthread_mutex_init(&l->spare_lock, NULL);
	offload_init(&l->offload);
	*out = l;
	return 0;
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	assert(!l->is_run && loop_fibers(l) == 0);
	if (l->process && l->process != getpid())
		offload_forked(&l->offload);
	offload_destroy(&l->offload);
	ring_close(&l->ring);
	watches_free(&l->watches);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	fiber_pool_trim(&l->pool, 0);
	fiber_pool_trim(&l->spare, 0);
	pthread_mutex_destroy(&l->spare_lock);
	free(l);
}

static void *thread_main(void *argument)
{
	loop_run(argument);
	return NULL;
}

int loop_start(const struct loop_options *options, struct loop **out, struct error *err)
{
	sigset_t all, old;
	struct loop *l;
	int status = loop_create(options, &l, err);

	if (status < 0)
		return status;
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault that is blocked ends the process; core/safe-copy.h */
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
	status = pthread_create(&l->own_thread, NULL, thread_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (status) {
		loop_destroy(l);
		return error_set_errno(err, -status, "loop: cannot start a thread");
	}
	*out = l;
	return 0;
}

void loop_finish(struct loop *l)
{
	loop_stop(l);
	pthread_join(l->own_thread, NULL);
	loop_destroy(l);
}

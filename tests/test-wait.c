/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks, signals and groups that plain threads and fibers of several loops share. */
#include <stdint.h>

#include "core/wait.h"
#include "tests/loops.h"

#define MS UINT64_C(1000000)

/* ------------------------------------------------------------------ a crowd of threads and fibers */

/*
 * Everybody runs body(argument): 2 plain threads, and 8 fibers on each of 2 loops, one with a ring, one
 * without. All of them at the same time; returns when all have ended.
 */
struct mix {
	void (*body)(void *argument);
	void *argument;
};

enum { MIX_THREADS = 2, MIX_LOOPS = 2, MIX_FIBERS = 8, MIX_ALL = MIX_THREADS + MIX_LOOPS * MIX_FIBERS };

static void *mix_thread(void *argument)
{
	struct mix *m = argument;

	m->body(m->argument);
	return NULL;
}

static void run_mix(void (*body)(void *argument), void *argument)
{
	struct loop_options without = {.no_io_uring = true};
	struct mix m = {body, argument};
	pthread_t threads[MIX_THREADS];
	struct loop *loops[MIX_LOOPS];

	for (int i = 0; i < MIX_LOOPS; i++) {
		REQUIRE(loop_start(i ? &without : NULL, &loops[i], NULL) == 0);
		for (int j = 0; j < MIX_FIBERS; j++)
			CHECK_EQ(loop_spawn(loops[i], body, argument), 0);
	}
	threads_start(threads, MIX_THREADS, mix_thread, &m);
	threads_join(threads, MIX_THREADS);
	for (int i = 0; i < MIX_LOOPS; i++)
		loop_finish(loops[i]);
}

/* ------------------------------------------------------------------ mutex */

struct counted {
	struct wait_mutex mutex;
	struct wait_rwlock rwlock;
	struct wait_group start;
	unsigned long counter; /* protected by either */
	unsigned long copy;
	unsigned each;
	bool inside;
};

static void mutex_body(void *argument)
{
	struct counted *c = argument;

	for (unsigned i = 0; i < c->each; i++) {
		wait_mutex_lock(&c->mutex);
		CHECK(!c->inside);
		c->inside = true;
		c->counter++;
		if (i % 16 == 0)
			wait_yield();
		if (i % 256 == 0)
			wait_sleep(1000);
		CHECK(c->inside);
		c->inside = false;
		wait_mutex_unlock(&c->mutex);
	}
}

/* It excludes, also when its holder waits for something else. */
static void test_mutex_excludes_threads_and_fibers(void)
{
	struct counted c = {.each = rounds(4000)};

	run_mix(mutex_body, &c);
	CHECK_EQ(c.counter, (unsigned long)MIX_ALL * c.each);
	CHECK_EQ(c.mutex.state, 0);
}

static void trylock_body(void *argument)
{
	struct counted *c = argument;

	for (unsigned i = 0; i < c->each;) {
		if (!wait_mutex_trylock(&c->mutex)) {
			wait_yield();
			continue;
		}
		c->counter++;
		i++;
		if (i % 32 == 0)
			wait_yield();
		wait_mutex_unlock(&c->mutex);
	}
}

static void test_mutex_trylock(void)
{
	struct counted c = {.each = rounds(2000)};

	CHECK(wait_mutex_trylock(&c.mutex));
	CHECK(!wait_mutex_trylock(&c.mutex));
	wait_mutex_unlock(&c.mutex);
	run_mix(trylock_body, &c);
	CHECK_EQ(c.counter, (unsigned long)MIX_ALL * c.each);
}

static void *hammer_thread(void *argument)
{
	struct counted *c = argument;

	wait_group_done(&c->start);
	wait_group_wait(&c->start);
	for (unsigned i = 0; i < c->each; i++) {
		wait_mutex_lock(&c->mutex);
		c->counter++;
		wait_mutex_unlock(&c->mutex);
	}
	return NULL;
}

/*
 * More threads than processors do nothing but lock and unlock: they meet at every instruction in between.
 */
static void test_mutex_is_hammered(void)
{
	struct counted c = {.each = rounds(20000)};
	pthread_t threads[6];

	wait_group_add(&c.start, 6);
	threads_start(threads, 6, hammer_thread, &c);
	threads_join(threads, 6);
	CHECK_EQ(c.counter, 6ul * c.each);
}

struct line {
	struct wait_mutex mutex;
	struct wait_rwlock rwlock;
	unsigned next;
	unsigned order[16];
	unsigned count;
};

static void line_entry(void *argument)
{
	struct line *l = argument;
	unsigned me = l->next++;

	wait_mutex_lock(&l->mutex);
	wait_yield(); /* a late comer has every chance to barge in */
	l->order[l->count++] = me;
	wait_mutex_unlock(&l->mutex);
}

static void test_mutex_is_first_come_first_served(void)
{
	struct line l = {.next = 0};

	run_fibers(&mode_ring, 16, line_entry, &l);
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(l.order[i], i);
}

/* ------------------------------------------------------------------ shared/exclusive lock */

static _Atomic unsigned readers_now, readers_most;

static void note_reader(void)
{
	unsigned now = atomic_fetch_add(&readers_now, 1) + 1, most = atomic_load(&readers_most);

	while (now > most && !atomic_compare_exchange_weak(&readers_most, &most, now))
		;
}

static void rwlock_body(void *argument)
{
	struct counted *c = argument;

	for (unsigned i = 0; i < c->each; i++) {
		if (i % 8 == 0) {
			wait_rwlock_lock_exclusive(&c->rwlock);
			CHECK_EQ(atomic_load(&readers_now), 0);
			c->counter++;
			if (i % 32 == 0)
				wait_yield();
			c->copy++;
			wait_rwlock_unlock_exclusive(&c->rwlock);
		} else {
			wait_rwlock_lock_shared(&c->rwlock);
			note_reader();
			CHECK_EQ(c->counter, c->copy);
			if (i % 16 == 1)
				wait_yield();
			CHECK_EQ(c->counter, c->copy);
			atomic_fetch_sub(&readers_now, 1);
			wait_rwlock_unlock_shared(&c->rwlock);
		}
	}
}

static void test_rwlock_excludes_and_shares(void)
{
	struct counted c = {.each = rounds(4000)};

	readers_now = readers_most = 0;
	run_mix(rwlock_body, &c);
	CHECK_EQ(c.counter, (unsigned long)MIX_ALL * ((c.each + 7) / 8));
	CHECK(readers_most > 1);
	CHECK_EQ(c.rwlock.state, 0);
}

static char rw_trail[32];

static void rw_note(char c)
{
	size_t n = strlen(rw_trail);

	rw_trail[n] = c;
	rw_trail[n + 1] = 0;
}

/* Fibers 0, 1 share; 2 wants it alone; 3, 4 share; 5 alone; 6 shares. */
static void rw_order_entry(void *argument)
{
	struct line *l = argument;
	unsigned me = l->next++;
	bool alone = me == 2 || me == 5;

	if (alone)
		wait_rwlock_lock_exclusive(&l->rwlock);
	else
		wait_rwlock_lock_shared(&l->rwlock);
	rw_note((char)('0' + me));
	for (int i = 0; i < 20; i++)
		wait_yield();
	rw_note('.');
	if (alone)
		wait_rwlock_unlock_exclusive(&l->rwlock);
	else
		wait_rwlock_unlock_shared(&l->rwlock);
}

/* Who waits for exclusive access holds back those who come later; neighbours in the queue share. */
static void test_rwlock_order(void)
{
	struct line l = {.next = 0};

	rw_trail[0] = 0;
	run_fibers(&mode_ring, 7, rw_order_entry, &l);
	CHECK_STR(rw_trail, "01..2.34..5.6.");
}

/* ------------------------------------------------------------------ signal */

struct box {
	struct wait_signal signal;
	_Atomic unsigned value;
	unsigned target;
	_Atomic unsigned arrived;
	_Atomic bool over;
};

static void box_waiter(struct box *b, uint64_t timeout)
{
	for (;;) {
		uint32_t seen = wait_signal_count(&b->signal);

		if (atomic_load(&b->value) >= b->target)
			break;
		wait_signal_wait(&b->signal, seen, timeout);
	}
	atomic_fetch_add(&b->arrived, 1);
}

static void *box_raiser(void *argument)
{
	struct box *b = argument;

	for (unsigned i = 0; i < b->target; i++) {
		atomic_fetch_add(&b->value, 1);
		wait_signal_raise(&b->signal);
		if (i % 4 == 0)
			usleep(20); /* lets them come back and wait again */
	}
	return NULL;
}

static void box_patient(void *argument)
{
	box_waiter(argument, WAIT_FOREVER);
}

static void box_hasty(void *argument)
{
	box_waiter(argument, 60000);
}

/* Nobody misses the last raise: all who wait without a time limit come back. */
static void test_signal_is_never_lost(void)
{
	struct box b = {.target = rounds(4000)};
	pthread_t raiser;

	threads_start(&raiser, 1, box_raiser, &b);
	run_mix(box_patient, &b);
	threads_join(&raiser, 1);
	CHECK_EQ(b.arrived, MIX_ALL);
	CHECK(!b.signal.queue.head);
	CHECK_EQ(wait_signal_count(&b.signal), b.target);
}

/* Time limits that end while it is raised: nothing is lost, nobody is woken twice. */
static void test_signal_timeouts_race_raises(void)
{
	struct box b = {.target = rounds(4000)};
	pthread_t raiser;

	threads_start(&raiser, 1, box_raiser, &b);
	run_mix(box_hasty, &b);
	threads_join(&raiser, 1);
	CHECK_EQ(b.arrived, MIX_ALL);
	CHECK(!b.signal.queue.head);
	CHECK_EQ(wait_signal_count(&b.signal), b.target);
}

static void signal_piece(void *argument)
{
	struct wait_signal s = {0};
	uint32_t seen = wait_signal_count(&s);
	uint64_t start = wait_now();

	(void)argument;
	CHECK_EQ(wait_signal_wait(&s, seen, 3 * MS), -ETIMEDOUT);
	CHECK(wait_now() - start >= 3 * MS);
	CHECK_EQ(wait_signal_wait(&s, seen, 0), -ETIMEDOUT);
	CHECK(!s.queue.head);
	wait_signal_raise(&s);
	CHECK_EQ(wait_signal_count(&s), seen + 1);
	CHECK_EQ(wait_signal_wait(&s, seen, WAIT_FOREVER), 0);
	CHECK_EQ(wait_signal_wait(&s, seen, 0), 0);
	CHECK_EQ(wait_signal_wait(&s, seen + 1, MS), -ETIMEDOUT);
	wait_signal_raise(&s);
	CHECK_EQ(wait_signal_count(&s), seen + 2);
}

static void signal_counts_and_times_out(const struct loop_mode *mode)
{
	run_in_mode(mode, signal_piece, NULL);
}
MODE_TESTS(signal_counts_and_times_out)

static void long_wait_entry(void *argument)
{
	struct box *b = argument;

	CHECK_EQ(wait_signal_wait(&b->signal, 0, 60000 * MS), 0);
	atomic_fetch_add(&b->arrived, 1);
}

static void short_wait_entry(void *argument)
{
	struct box *b = argument;

	CHECK_EQ(wait_signal_wait(&b->signal, 0, MS), -ETIMEDOUT);
	atomic_fetch_add(&b->value, 1);
}

static void late_raiser_entry(void *argument)
{
	struct box *b = argument;

	while (atomic_load(&b->value) < 7)
		wait_sleep(MS);
	wait_signal_raise(&b->signal);
}

/* One whose time is up leaves the queue, from its head, middle and end; the others stay in. */
static void leaving_the_queue(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	struct box b = {.target = 0};

	for (const char *c = "sslslsssls"; *c; c++)
		loop_spawn(l, *c == 's' ? short_wait_entry : long_wait_entry, &b);
	loop_spawn(l, late_raiser_entry, &b);
	loop_stop(l);
	loop_run(l);
	CHECK_EQ(b.arrived, 3);
	CHECK_EQ(b.value, 7);
	loop_destroy(l);
}
LOOP_TESTS(leaving_the_queue)

/* ------------------------------------------------------------------ group */

struct joined {
	struct wait_group group;
	struct wait_group all;
	_Atomic unsigned done;
	unsigned workers;
};

static void join_body(void *argument)
{
	struct joined *j = argument;

	for (int i = 0; i < 50; i++) {
		if (i % 10 == 0)
			wait_sleep(20000);
		atomic_fetch_add(&j->done, 1);
		wait_group_done(&j->group);
	}
}

static void *join_thread(void *argument)
{
	struct joined *j = argument;

	wait_group_wait(&j->group);
	CHECK_EQ(atomic_load(&j->done), 50 * MIX_ALL);
	return NULL;
}

/* Everybody who waits comes back when all have ended, not before. */
static void test_group_joins_threads_and_fibers(void)
{
	struct joined j = {.done = 0};
	pthread_t waiters[3];

	wait_group_wait(&j.group);
	wait_group_add(&j.group, 50 * MIX_ALL);
	threads_start(waiters, 3, join_thread, &j);
	run_mix(join_body, &j);
	wait_group_wait(&j.group);
	threads_join(waiters, 3);
	CHECK_EQ(j.group.pending, 0);
}

/* ------------------------------------------------------------------ freed as soon as it was waited for */

struct ephemeral {
	struct wait_group *group;
	struct wait_mutex *mutex;
	struct wait_rwlock *rwlock;
	struct wait_signal *signal;
	_Atomic bool locked;
	bool shared;
	unsigned hold_us; /* long enough for the other to be waiting already, or not */
};

static void *ephemeral_done(void *argument)
{
	struct ephemeral *e = argument;

	wait_group_done(e->group);
	return NULL;
}

static int group_free_piece(void *argument, unsigned index)
{
	struct ephemeral e = {.group = calloc(1, sizeof *e.group)};
	pthread_t threads[2];

	(void)argument, (void)index;
	if (!CHECK(e.group))
		return 0;
	wait_group_add(e.group, 2);
	threads_start(threads, 2, ephemeral_done, &e);
	wait_group_wait(e.group);
	free(e.group);
	threads_join(threads, 2);
	return 0;
}

static void *ephemeral_unlock(void *argument)
{
	struct ephemeral *e = argument;

	wait_mutex_lock(e->mutex);
	atomic_store(&e->locked, true);
	usleep(e->hold_us);
	wait_mutex_unlock(e->mutex);
	return NULL;
}

static int mutex_free_piece(void *argument, unsigned index)
{
	struct ephemeral e = {.mutex = calloc(1, sizeof *e.mutex), .hold_us = index % 4 * 100};
	pthread_t thread;

	(void)argument;
	if (!CHECK(e.mutex))
		return 0;
	threads_start(&thread, 1, ephemeral_unlock, &e);
	while (!atomic_load(&e.locked))
		wait_sleep(10000);
	wait_mutex_lock(e.mutex);
	wait_mutex_unlock(e.mutex);
	free(e.mutex);
	threads_join(&thread, 1);
	return 0;
}

static void *ephemeral_rw_unlock(void *argument)
{
	struct ephemeral *e = argument;

	if (e->shared)
		wait_rwlock_lock_shared(e->rwlock);
	else
		wait_rwlock_lock_exclusive(e->rwlock);
	atomic_store(&e->locked, true);
	usleep(e->hold_us);
	if (e->shared)
		wait_rwlock_unlock_shared(e->rwlock);
	else
		wait_rwlock_unlock_exclusive(e->rwlock);
	return NULL;
}

static int rwlock_free_piece(void *argument, unsigned index)
{
	struct ephemeral e = {.rwlock = calloc(1, sizeof *e.rwlock),
			      .shared = index % 2,
			      .hold_us = index % 3 * 100};
	pthread_t thread;

	(void)argument;
	if (!CHECK(e.rwlock))
		return 0;
	threads_start(&thread, 1, ephemeral_rw_unlock, &e);
	while (!atomic_load(&e.locked))
		wait_sleep(10000);
	wait_rwlock_lock_exclusive(e.rwlock);
	wait_rwlock_unlock_exclusive(e.rwlock);
	free(e.rwlock);
	threads_join(&thread, 1);
	return 0;
}

static void *ephemeral_raise(void *argument)
{
	struct ephemeral *e = argument;

	wait_signal_raise(e->signal);
	return NULL;
}

static int signal_free_piece(void *argument, unsigned index)
{
	struct ephemeral e = {.signal = calloc(1, sizeof *e.signal)};
	pthread_t thread;

	(void)argument;
	if (!CHECK(e.signal))
		return 0;
	threads_start(&thread, 1, ephemeral_raise, &e);
	if (index % 2)
		while (wait_signal_wait(e.signal, 0, 10000) < 0)
			;
	else
		CHECK_EQ(wait_signal_wait(e.signal, 0, WAIT_FOREVER), 0);
	free(e.signal);
	threads_join(&thread, 1);
	return 0;
}

static int (*const free_pieces[])(void *argument, unsigned index) = {group_free_piece, mutex_free_piece,
								     rwlock_free_piece, signal_free_piece};

static void free_entry(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < rounds(300); i++)
		for (unsigned k = 0; k < 4; k++)
			free_pieces[k](NULL, i);
}

/* Whoever comes back from a wait may free what it waited for: who woke it does not touch that any more. */
static void freed_right_after_the_wait(const struct loop_mode *mode)
{
	run_in_mode(mode, free_entry, NULL);
}
MODE_TESTS(freed_right_after_the_wait)

int main(void)
{
	TAP_RUN(test_mutex_excludes_threads_and_fibers);
	TAP_RUN(test_mutex_trylock);
	TAP_RUN(test_mutex_is_hammered);
	TAP_RUN(test_mutex_is_first_come_first_served);
	TAP_RUN(test_rwlock_excludes_and_shares);
	TAP_RUN(test_rwlock_order);
	TAP_RUN(test_signal_is_never_lost);
	TAP_RUN(test_signal_timeouts_race_raises);
	RUN_MODE_TESTS(signal_counts_and_times_out);
	RUN_LOOP_TESTS(leaving_the_queue);
	TAP_RUN(test_group_joins_threads_and_fibers);
	RUN_MODE_TESTS(freed_right_after_the_wait);
	return TAP_DONE();
}

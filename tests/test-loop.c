/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loops: stopping, spawning and waking from other threads, timers and sleep, watching descriptors, changing
 * threads.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "core/aio.h"
#include "core/fiber.h"
#include "core/timers.h"
#include "core/wait.h"
#include "tests/loops.h"

#define MS UINT64_C(1000000)

static void empty_entry(void *argument)
{
	(void)argument;
}

static void count_entry(void *argument)
{
	++*(unsigned *)argument;
}

/* ------------------------------------------------------------------ stop */

/* loop_stop() before loop_run() lets everything that was spawned run. */
static void stop_before_run(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	unsigned count = 0;

	for (int i = 0; i < 10; i++)
		loop_spawn(l, count_entry, &count);
	loop_stop(l);
	loop_run(l);
	CHECK_EQ(count, 10);
	loop_destroy(l);
}
LOOP_TESTS(stop_before_run)

static int nothing_on_a_thread(void *argument)
{
	(void)argument;
	return 7;
}

/* Waits in all the ways there are. */
static void wait_for_everything(void)
{
	int fds[2];

	wait_sleep(MS / 4);
	CHECK_EQ(aio_offload(nothing_on_a_thread, NULL), 7);
	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	CHECK_EQ(loop_poll(fds[0], POLLIN, MS / 4), -ETIMEDOUT);
	close(fds[0]), close(fds[1]);
}

static void stopping_entry(void *argument)
{
	unsigned *count = argument;

	loop_stop(loop_current());
	wait_for_everything();
	for (int i = 0; i < 3; i++)
		loop_spawn(loop_current(), count_entry, count);
	wait_yield();
	++*count;
}

/* A stop from inside waits for the fibers that live, and for those that they spawn. */
static void stop_waits_for_fibers(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	unsigned count = 0;

	loop_spawn(l, stopping_entry, &count);
	loop_run(l);
	CHECK_EQ(count, 4);
	CHECK_EQ(loop_fibers(l), 0);
	loop_destroy(l);
}
LOOP_TESTS(stop_waits_for_fibers)

struct late {
	struct loop *loop;
	unsigned count;
};

static void *late_spawner(void *argument)
{
	struct late *late = argument;

	usleep(500);
	loop_spawn(late->loop, stopping_entry, &late->count);
	return NULL;
}

/* A loop can be run again after it returned, and waits for the next stop then. */
static void runs_again(const struct loop_mode *mode)
{
	struct late late = {.loop = mode_loop(mode)};
	pthread_t thread;

	for (unsigned i = 1; i <= 5; i++) {
		threads_start(&thread, 1, late_spawner, &late);
		loop_run(late.loop);
		CHECK_EQ(late.count, 4 * i);
		threads_join(&thread, 1);
	}
	loop_destroy(late.loop);
}
LOOP_TESTS(runs_again)

static void *run_on_thread(void *argument)
{
	loop_run(argument);
	return NULL;
}

/* One loop, run by one thread after the other: rings belong to a thread, stacks do not. */
static void runs_on_one_thread_after_the_other(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	unsigned count = 0;
	pthread_t thread;

	for (unsigned i = 1; i <= 6; i++) {
		loop_spawn(l, stopping_entry, &count);
		if (i % 3 == 0) {
			loop_run(l);
		} else {
			threads_start(&thread, 1, run_on_thread, l);
			threads_join(&thread, 1);
		}
		CHECK_EQ(count, 4 * i);
	}
	loop_destroy(l);
}
LOOP_TESTS(runs_on_one_thread_after_the_other)

static void test_loop_current_is_set_only_inside(void)
{
	struct loop *l = mode_loop(&mode_ring);

	CHECK(!loop_current());
	loop_spawn(l, empty_entry, NULL);
	loop_stop(l);
	loop_run(l);
	CHECK(!loop_current());
	loop_destroy(l);
	loop_destroy(NULL);
}

static void test_bad_options_are_refused(void)
{
	struct loop_options big_stack = {.stack_size = SIZE_MAX / 2}, many = {.ring_entries = 1 << 30};
	CLEANUP_ERROR struct error err = {0};
	struct loop *l;

	CHECK_EQ(loop_create(&big_stack, &l, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "stack size"));
	error_clear(&err);
	CHECK_EQ(loop_create(&many, &l, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "ring entries"));
}

/* ------------------------------------------------------------------ other threads */

static void test_start_and_finish(void)
{
	unsigned count = 0;
	struct loop *l;

	for (unsigned i = 1; i <= 20; i++) {
		REQUIRE(loop_start(NULL, &l, NULL) == 0);
		CHECK_EQ(loop_spawn(l, count_entry, &count), 0);
		if (i % 2)
			usleep(1000);
		loop_finish(l);
		CHECK_EQ(count, i);
	}
}

struct crowd {
	struct loop *loop;
	unsigned each;
	unsigned count; /* only the loop's fibers touch it */
};

static void crowd_entry(void *argument)
{
	struct crowd *c = argument;

	c->count++;
	wait_yield();
}

static void *crowd_thread(void *argument)
{
	struct crowd *c = argument;

	for (unsigned i = 0; i < c->each; i++) {
		CHECK_EQ(loop_spawn(c->loop, crowd_entry, c), 0);
		if (i % 64 == 0)
			usleep(100); /* lets the loop fall asleep */
	}
	return NULL;
}

/* Fibers spawned by several threads at the same time all run, whether the loop is asleep or not. */
static void spawn_from_threads(const struct loop_mode *mode)
{
	struct crowd c = {.loop = mode_loop(mode), .each = rounds(2000)};
	pthread_t spawners[4], runner;

	threads_start(&runner, 1, run_on_thread, c.loop);
	threads_start(spawners, 4, crowd_thread, &c);
	threads_join(spawners, 4);
	loop_stop(c.loop);
	threads_join(&runner, 1);
	CHECK_EQ(c.count, 4 * c.each);
	loop_destroy(c.loop);
}
LOOP_TESTS(spawn_from_threads)

static void note_that_it_ran(void *argument)
{
	atomic_fetch_add((_Atomic unsigned *)argument, 1);
}

/* Every single wake finds a loop that is asleep. */
static void a_sleeping_loop_wakes_up(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	_Atomic unsigned count = 0;
	pthread_t runner;

	threads_start(&runner, 1, run_on_thread, l);
	for (unsigned i = 1; i <= 20; i++) {
		usleep(1000);
		CHECK_EQ(loop_spawn(l, note_that_it_ran, &count), 0);
		for (int wait = 0; wait < 5000 && atomic_load(&count) < i; wait++)
			usleep(1000);
		CHECK_EQ(atomic_load(&count), i);
	}
	loop_stop(l);
	threads_join(&runner, 1);
	loop_destroy(l);
}
LOOP_TESTS(a_sleeping_loop_wakes_up)

static void short_nap(void *argument)
{
	wait_sleep(*(unsigned *)argument * 7000 % 500000);
}

static void without_descriptors_entry(void *argument)
{
	wait_sleep(MS);
	CHECK_EQ(aio_offload(nothing_on_a_thread, NULL), 7);
	++*(unsigned *)argument;
}

/* When the process has no descriptor left for a ring or for waking, everything goes on, only slower. */
static void works_without_descriptors(const struct loop_mode *mode)
{
	struct rlimit old, none;
	unsigned count = 0;
	int lowest = dup(0);

	REQUIRE(lowest >= 0 && getrlimit(RLIMIT_NOFILE, &old) == 0);
	close(lowest);
	none = (struct rlimit){.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
	REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
	run_fibers(mode, 10, without_descriptors_entry, &count);
	CHECK_EQ(count, 10);
	a_sleeping_loop_wakes_up(mode);
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
}
LOOP_TESTS(works_without_descriptors)

struct last_word {
	struct loop *loop;
	struct wait_group group;
};

static void *last_word_thread(void *argument)
{
	struct last_word *w = argument;

	wait_group_done(&w->group);
	return NULL;
}

static void last_word_entry(void *argument)
{
	struct last_word *w = argument;

	wait_group_wait(&w->group);
	loop_stop(loop_current());
}

/*
 * The loop is destroyed as soon as it returns, while the thread that woke its last fiber may still be on
 * its way out.
 */
static void destroyed_right_after_a_wake(const struct loop_mode *mode)
{
	pthread_t thread;

	for (unsigned i = 0; i < rounds(400); i++) {
		struct last_word *w = calloc(1, sizeof *w);

		REQUIRE(w);
		w->loop = mode_loop(mode);
		wait_group_add(&w->group, 1);
		loop_spawn(w->loop, last_word_entry, w);
		loop_spawn(w->loop, short_nap, &i); /* it may be awake already */
		threads_start(&thread, 1, last_word_thread, w);
		if (i % 3 == 0)
			usleep(50);
		loop_run(w->loop);
		loop_destroy(w->loop);
		free(w);
		threads_join(&thread, 1);
	}
}
LOOP_TESTS(destroyed_right_after_a_wake)

static void *stop_thread(void *argument)
{
	loop_stop(argument);
	return NULL;
}

/* The same for who stops it. */
static void destroyed_right_after_a_stop(const struct loop_mode *mode)
{
	pthread_t thread;

	for (unsigned i = 0; i < rounds(400); i++) {
		struct loop *l = mode_loop(mode);

		loop_spawn(l, short_nap, &i);
		threads_start(&thread, 1, stop_thread, l);
		if (i % 3 == 0)
			usleep(50);
		loop_run(l);
		loop_destroy(l);
		threads_join(&thread, 1);
	}
}
LOOP_TESTS(destroyed_right_after_a_stop)

/* ------------------------------------------------------------------ fork */

#ifndef CHECKERS_TSAN /* which does not start threads in a forked child */
/* A loop made, or even run, before a fork works in the child and goes on working in the parent. */
static void works_after_fork(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	unsigned count = 0;
	int status = 0;
	pid_t child;

	loop_spawn(l, stopping_entry, &count);
	loop_run(l);
	fflush(stdout);
	child = fork();
	loop_spawn(l, stopping_entry, &count);
	loop_run(l);
	CHECK_EQ(count, 8);
	if (child == 0)
		_exit(count == 8 ? 42 : 1);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	loop_destroy(l);
}
LOOP_TESTS(works_after_fork)
#endif

/* ------------------------------------------------------------------ timers */

struct alarm {
	struct timer timer;
	uint64_t when;
};

static uint64_t last_fired;
static unsigned fired;

static void alarm_fire(struct timer *t)
{
	CHECK(t->deadline >= last_fired);
	last_fired = t->deadline;
	fired++;
}

static uint32_t pseudo_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

/* Timers fire in the order of their deadlines; removed ones do not fire. */
static void test_timers_fire_in_order(void)
{
	enum { COUNT = 500 };
	static struct alarm alarms[COUNT];
	struct timers timers = {0};
	uint32_t random = 7;
	unsigned removed = 0;

	fired = 0, last_fired = 0;
	CHECK_EQ(timers_next(&timers), UINT64_MAX);
	for (unsigned i = 0; i < COUNT; i++) {
		alarms[i].timer.deadline = pseudo_random(&random) % 1000;
		alarms[i].timer.fire = alarm_fire;
		timers_add(&timers, &alarms[i].timer);
	}
	timers_run(&timers, 300);
	CHECK(fired > 50 && fired < COUNT - 50);
	CHECK(timers_next(&timers) > 300);
	for (unsigned i = 0; i < COUNT; i += 3) {
		removed += alarms[i].timer.armed;
		timers_remove(&timers, &alarms[i].timer);
		timers_remove(&timers, &alarms[i].timer);
	}
	timers_run(&timers, 2000);
	CHECK_EQ(fired, COUNT - removed);
	CHECK_EQ(timers_next(&timers), UINT64_MAX);
}

static struct timer *fired_order[64];
static unsigned nr_fired_order;

static void order_fire(struct timer *t)
{
	fired_order[nr_fired_order++] = t;
}

static void test_equal_deadlines_fire_in_order_of_arming(void)
{
	struct timers timers = {0};
	struct timer t[64];

	nr_fired_order = 0;
	for (unsigned i = 0; i < 64; i++) {
		t[i] = (struct timer){.deadline = 5 + i % 2, .fire = order_fire};
		timers_add(&timers, &t[i]);
	}
	timers_run(&timers, 6);
	REQUIRE(nr_fired_order == 64);
	for (unsigned i = 0; i < 32; i++) {
		CHECK(fired_order[i] == &t[2 * i]);
		CHECK(fired_order[32 + i] == &t[2 * i + 1]);
	}
}

/* ------------------------------------------------------------------ sleep */

static unsigned sleepers_asleep, sleepers_most, sleepers_order[16], nr_sleepers;
static uint64_t sleepers_begin;

static void concurrent_sleeper(void *argument)
{
	(void)argument;
	if (++sleepers_asleep > sleepers_most)
		sleepers_most = sleepers_asleep;
	wait_sleep(20 * MS);
	sleepers_asleep--;
}

/* 256 fibers sleep at the same time, not one after the other. */
static void sleepers_overlap(const struct loop_mode *mode)
{
	uint64_t start = wait_now(), took;

	sleepers_asleep = sleepers_most = 0;
	run_fibers(mode, 256, concurrent_sleeper, NULL);
	took = wait_now() - start;
	CHECK_EQ(sleepers_most, 256);
	CHECK_EQ(sleepers_asleep, 0);
	CHECK(took >= 20 * MS);
	CHECK(took < 256 * 20 * MS);
}
LOOP_TESTS(sleepers_overlap)

static void ordered_sleeper(void *argument)
{
	unsigned *next = argument, me = (*next)++, turn = me * 7 % 16;
	uint64_t now = wait_now();

	if (me == 0)
		sleepers_begin = now + 100 * MS; /* all have started by then, on a busy machine, too */
	wait_sleep(sleepers_begin + turn * 3 * MS - now);
	sleepers_order[nr_sleepers++] = turn;
}

static void sleepers_end_in_order(const struct loop_mode *mode)
{
	unsigned next = 0;

	nr_sleepers = 0;
	run_fibers(mode, 16, ordered_sleeper, &next);
	REQUIRE(nr_sleepers == 16);
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(sleepers_order[i], i);
}
LOOP_TESTS(sleepers_end_in_order)

static void sleeping_piece(void *argument)
{
	uint64_t start = wait_now();

	(void)argument;
	wait_sleep(0);
	wait_sleep(5 * MS);
	CHECK(wait_now() - start >= 5 * MS);
}

static void sleep_is_not_too_short(const struct loop_mode *mode)
{
	run_in_mode(mode, sleeping_piece, NULL);
}
MODE_TESTS(sleep_is_not_too_short)

static bool hog_may_end;

static void hog_entry(void *argument)
{
	(void)argument;
	while (!hog_may_end)
		wait_yield();
}

static void hog_ender(void *argument)
{
	(void)argument;
	wait_sleep(2 * MS);
	hog_may_end = true;
}

static void *hog_spawner(void *argument)
{
	usleep(1000);
	loop_spawn(argument, hog_ender, NULL);
	return NULL;
}

/* Fibers that are always ready do not keep timers and other threads out. */
static void busy_fibers_do_not_starve_others(const struct loop_mode *mode)
{
	struct loop *l = mode_loop(mode);
	pthread_t thread;

	hog_may_end = false;
	for (int i = 0; i < 3; i++)
		loop_spawn(l, hog_entry, NULL);
	threads_start(&thread, 1, hog_spawner, l);
	loop_stop(l);
	loop_run(l);
	threads_join(&thread, 1);
	CHECK(hog_may_end);
	loop_destroy(l);
}
LOOP_TESTS(busy_fibers_do_not_starve_others)

/* ------------------------------------------------------------------ poll */

static void poll_ready_piece(void *argument)
{
	int fds[2];

	(void)argument;
	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	CHECK_EQ(loop_poll(fds[0], POLLIN, 0), -ETIMEDOUT);
	CHECK_EQ(loop_poll(fds[0], POLLIN, 3 * MS), -ETIMEDOUT);
	CHECK_EQ(loop_poll(fds[1], POLLOUT, UINT64_MAX), POLLOUT);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK_EQ(loop_poll(fds[0], POLLIN, UINT64_MAX), POLLIN);
	CHECK_EQ(loop_poll(fds[0], POLLIN, 0), POLLIN);
	CHECK_EQ(loop_poll(fds[0], POLLIN, 1000 * MS), POLLIN);
	close(fds[1]);
	CHECK(loop_poll(fds[0], POLLIN, UINT64_MAX) & POLLHUP);
	close(fds[0]);
	CHECK_EQ(loop_poll(fds[0], POLLIN, UINT64_MAX), -EBADF);
	CHECK_EQ(loop_poll(fds[0], POLLIN, 10 * MS), -EBADF);
	CHECK_EQ(loop_poll(fds[0], POLLIN, 0), -EBADF);
	CHECK_EQ(loop_poll(-1, POLLIN, UINT64_MAX), -EBADF);
}

static void poll_says_what_is_there(const struct loop_mode *mode)
{
	run_in_mode(mode, poll_ready_piece, NULL);
}
MODE_TESTS(poll_says_what_is_there)

struct relay {
	int (*pipes)[2];
	unsigned count;
	unsigned next;
	unsigned ended;
};

/* Waits for a byte on its pipe and writes one to the next. */
static void relay_entry(void *argument)
{
	struct relay *r = argument;
	unsigned me = r->next++;
	char c;

	CHECK_EQ(loop_poll(r->pipes[me][0], POLLIN, me % 2 ? UINT64_MAX : 60000 * MS), POLLIN);
	CHECK_EQ(read(r->pipes[me][0], &c, 1), 1);
	if (me + 1 < r->count)
		CHECK_EQ(write(r->pipes[me + 1][1], &c, 1), 1);
	r->ended++;
}

static void *relay_starter(void *argument)
{
	struct relay *r = argument;

	usleep(2000);
	CHECK_EQ(write(r->pipes[0][1], "x", 1), 1);
	return NULL;
}

/* Many descriptors, more than the ring has entries, are watched at the same time. */
static void poll_of_many(const struct loop_mode *mode)
{
	enum { COUNT = 100 };
	static int pipes[COUNT][2];
	struct relay r = {.pipes = pipes, .count = COUNT};
	pthread_t thread;

	for (unsigned i = 0; i < COUNT; i++)
		REQUIRE(pipe2(pipes[i], O_CLOEXEC) == 0);
	threads_start(&thread, 1, relay_starter, &r);
	run_fibers(mode, r.count, relay_entry, &r);
	threads_join(&thread, 1);
	CHECK_EQ(r.ended, r.count);
	for (unsigned i = 0; i < COUNT; i++)
		close(pipes[i][0]), close(pipes[i][1]);
}
LOOP_TESTS(poll_of_many)

static void crowding_entry(void *argument)
{
	const bool *over = argument;

	while (!*over)
		wait_yield();
}

struct race {
	int fds[2];
	unsigned timeouts, hits, rounds;
	bool over;
};

static void race_poller(void *argument)
{
	struct race *r = argument;
	char c;

	for (unsigned i = 0; i < r->rounds; i++) {
		int events = loop_poll(r->fds[0], POLLIN, 100000 + i * 37 % 100000);

		if (events == -ETIMEDOUT) {
			r->timeouts++;
		} else if (CHECK_EQ(events, POLLIN)) {
			r->hits++;
			CHECK_EQ(read(r->fds[0], &c, 1), 1);
		}
	}
	r->over = true;
}

static void race_writer(void *argument)
{
	struct race *r = argument;

	for (unsigned i = 0; !r->over; i++) {
		if (loop_poll(r->fds[0], POLLIN, 0) == -ETIMEDOUT)
			CHECK_EQ(write(r->fds[1], "x", 1), 1);
		wait_sleep(100000 + i * 53 % 100000);
	}
}

/* The time limit and the event come at about the same time, again and again; neither is lost. */
static void race_poll(const struct loop_mode *mode, unsigned crowd)
{
	struct race r = {.rounds = rounds(300)};
	struct loop *l = mode_loop(mode);

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r.fds) == 0);
	loop_spawn(l, race_poller, &r);
	loop_spawn(l, race_writer, &r);
	for (unsigned i = 0; i < crowd; i++)
		loop_spawn(l, crowding_entry, &r.over);
	loop_stop(l);
	loop_run(l);
	CHECK_EQ(r.hits + r.timeouts, r.rounds);
	loop_destroy(l);
	close(r.fds[0]), close(r.fds[1]);
}

static void poll_timeout_races_event(const struct loop_mode *mode)
{
	race_poll(mode, 0);
}
LOOP_TESTS(poll_timeout_races_event)

/* The fiber that one of them made ready waits for its turn while the other comes. */
static void poll_timeout_races_event_in_a_crowd(const struct loop_mode *mode)
{
	race_poll(mode, 1000);
}
LOOP_TESTS(poll_timeout_races_event_in_a_crowd)

static void queued_poller(void *argument)
{
	int *fds = argument;

	CHECK_EQ(loop_poll(fds[0], POLLIN, 5 * MS), -ETIMEDOUT);
}

/* Also those that found no room in the ring have their time limit. */
static void poll_timeout_of_a_crowd(const struct loop_mode *mode)
{
	int fds[2];

	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	run_fibers(mode, 100, queued_poller, fds);
	close(fds[0]), close(fds[1]);
}
LOOP_TESTS(poll_timeout_of_a_crowd)

struct cancelled {
	struct ring *ring;
	struct fiber *fiber;
	struct request requests[10];
	int fds[2];
};

static void start_some(struct cancelled *c, const char *which)
{
	for (; *which; which++) {
		struct request *q = &c->requests[*which - '0'];

		*q = (struct request){.fiber = c->fiber};
		io_uring_prep_poll_add(&q->sqe, c->fds[0], POLLIN);
		ring_start(c->ring, q);
		CHECK_EQ(q->queued, *which >= '7');
	}
}

static void cancel_some(struct cancelled *c, const char *which)
{
	for (; *which; which++) {
		struct request *q = &c->requests[*which - '0'];

		CHECK(ring_cancel(c->ring, q));
		loop_suspend(c->fiber);
		CHECK_EQ(q->result, -ECANCELED);
		CHECK_EQ(q->pending, 0);
	}
}

/* With room for 7 the last of 10 requests are not in the ring yet. */
static void cancelling_entry(void *argument)
{
	struct fiber *f = loop_fiber();
	struct cancelled c = {.ring = loop_ring(f, IORING_OP_POLL_ADD), .fiber = f};

	(void)argument;
	if (!c.ring)
		return;
	REQUIRE(pipe2(c.fds, O_CLOEXEC) == 0);
	start_some(&c, "0123456789");
	cancel_some(&c, "89");
	start_some(&c, "98");
	cancel_some(&c, "7");
	start_some(&c, "7");
	cancel_some(&c, "8973210546");
	close(c.fds[0]), close(c.fds[1]);
}

static void test_cancelling_requests_placed_and_queued(void)
{
	run_fibers(&mode_tiny_ring, 1, cancelling_entry, NULL);
}

int main(void)
{
	RUN_LOOP_TESTS(stop_before_run);
	RUN_LOOP_TESTS(stop_waits_for_fibers);
	RUN_LOOP_TESTS(runs_again);
	RUN_LOOP_TESTS(runs_on_one_thread_after_the_other);
	TAP_RUN(test_loop_current_is_set_only_inside);
	TAP_RUN(test_bad_options_are_refused);
	TAP_RUN(test_start_and_finish);
	RUN_LOOP_TESTS(spawn_from_threads);
	RUN_LOOP_TESTS(a_sleeping_loop_wakes_up);
	RUN_LOOP_TESTS(works_without_descriptors);
	RUN_LOOP_TESTS(destroyed_right_after_a_wake);
	RUN_LOOP_TESTS(destroyed_right_after_a_stop);
#ifndef CHECKERS_TSAN
	RUN_LOOP_TESTS(works_after_fork);
#endif
	TAP_RUN(test_timers_fire_in_order);
	TAP_RUN(test_equal_deadlines_fire_in_order_of_arming);
	RUN_LOOP_TESTS(sleepers_overlap);
	RUN_LOOP_TESTS(sleepers_end_in_order);
	RUN_MODE_TESTS(sleep_is_not_too_short);
	RUN_LOOP_TESTS(busy_fibers_do_not_starve_others);
	RUN_MODE_TESTS(poll_says_what_is_there);
	RUN_LOOP_TESTS(poll_of_many);
	RUN_LOOP_TESTS(poll_timeout_races_event);
	RUN_LOOP_TESTS(poll_timeout_races_event_in_a_crowd);
	RUN_LOOP_TESTS(poll_timeout_of_a_crowd);
	TAP_RUN(test_cancelling_requests_placed_and_queued);
	return TAP_DONE();
}

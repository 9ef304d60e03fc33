/* SPDX-License-Identifier: BSD-3-Clause */
/* prwrap: every command of every initiator under every reservation, preempt-and-abort under load, and who hears of what. */
#include "tests/tap.h"

#include <pthread.h>

#include "core/loop.h"
#include "core/open.h"
#include "core/wait.h"
#include "decorators/reservations.h"
#include "tests/loops.h"
#include "tests/model.h"
#include "tests/trap.h"

#define INITIATORS 4 /* the last is never registered */

static const struct initiator initiators[INITIATORS] = {{.id = {1}}, {.id = {2}}, {.id = {2}, .port = 1}, {.id = {9}}};

static const struct trap_options full = {
	.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE | DISK_REMOVABLE,
	.discard = DISK_DISCARD_ZEROES,
};

static int act(struct disk *d, unsigned who, struct reservation_request q)
{
	struct io io = {.who = &initiators[who]};

	return disk_reserve(d, &q, &io);
}

static int join(struct disk *d, unsigned who, uint64_t key)
{
	return act(d, who, (struct reservation_request){.action = RESERVATION_REGISTER_IGNORING, .new_key = key, .persist = -1});
}

static int reserve(struct disk *d, unsigned who, uint64_t key, enum reservation_type type)
{
	return act(d, who, (struct reservation_request){.action = RESERVATION_RESERVE, .key = key, .type = type});
}

static int preempt(struct disk *d, unsigned who, uint64_t key, uint64_t victim, enum reservation_type type)
{
	return act(d, who, (struct reservation_request){
				   .action = RESERVATION_PREEMPT_ABORT, .key = key, .new_key = victim, .type = type});
}

/* ------------------------------------------------------------------ every command */

static int command(struct disk *d, enum trap_op op, const struct initiator *who, struct failure *failure)
{
	return trap_ask(d, op, 8192, &(struct io){.who = who, .failure = failure});
}

#define COMMANDS (TRAP_EJECT + 1)

/*
 * Commands in the order of enum trap_op: read, write, flush, discard, zeroes, extents, prefetch, resize, eject. Initiators:
 * the one that reserved, two other registrants, one that is none. From SBC-3's table of commands and reservations.
 */
static const char *const allowed[7][INITIATORS] = {
	[RESERVATION_NONE] = {"yyyyyyyyy", "yyyyyyyyy", "yyyyyyyyy", "yyyyyyyyy"},
	[RESERVATION_WRITE_EXCLUSIVE] = {"yyyyyyyyy", "y----yy--", "y----yy--", "y----yy--"},
	[RESERVATION_EXCLUSIVE_ACCESS] = {"yyyyyyyyy", "---------", "---------", "---------"},
	[RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS] = {"yyyyyyyyy", "yyyyyyyyy", "yyyyyyyyy", "y----yy--"},
	[RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS] = {"yyyyyyyyy", "yyyyyyyyy", "yyyyyyyyy", "---------"},
	[RESERVATION_WRITE_EXCLUSIVE_ALL] = {"yyyyyyyyy", "yyyyyyyyy", "yyyyyyyyy", "y----yy--"},
	[RESERVATION_EXCLUSIVE_ACCESS_ALL] = {"yyyyyyyyy", "yyyyyyyyy", "yyyyyyyyy", "---------"},
};

static void check_command(struct trap *t, struct disk *d, unsigned type, unsigned who, enum trap_op op)
{
	bool passes = allowed[type][who][op] == 'y';
	struct failure failure = {0};
	char expected[120];

	trap_reset(t);
	if (!CHECK_EQ(command(d, op, &initiators[who], &failure), passes ? 0 : -EBADE) || !CHECK_EQ(t->count, passes))
		tap_diag("type %u, initiator %u, operation %d", type, who, op);
	snprintf(expected, sizeof(expected), "prwrap: reservation conflict: another initiator has a reservation (%s)",
		 reservation_type_name(type));
	CHECK_STR(failure.text, passes ? "" : expected);
	if (passes)
		CHECK(t->log[0].who == &initiators[who]);
}

static void test_every_command(void)
{
	for (unsigned type = 0; type < 7; type++) {
		struct trap *t = trap_create(&full);
		struct disk *d = trap_wrap("prwrap:null:1M", &t->disk);
		for (unsigned who = 0; who < INITIATORS - 1; who++)
			CHECK_EQ(join(d, who, who + 1), 0);
		if (type)
			CHECK_EQ(reserve(d, 0, 1, type), 0);
		for (unsigned who = 0; who < INITIATORS; who++)
			for (enum trap_op op = 0; op < COMMANDS; op++)
				check_command(t, d, type, who, op);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

/* It is an initiator like others, but its flush always passes; closing needs that. */
static void test_this_process(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = trap_wrap("prwrap:null:1M", &t->disk);
	const struct initiator zero = {0};

	CHECK_EQ(join(d, 0, 1), 0);
	CHECK_EQ(reserve(d, 0, 1, RESERVATION_EXCLUSIVE_ACCESS), 0);
	for (enum trap_op op = 0; op < COMMANDS; op++) {
		CHECK_EQ(command(d, op, NULL, NULL), op == TRAP_FLUSH ? 0 : -EBADE);
		CHECK_EQ(command(d, op, &zero, NULL), op == TRAP_FLUSH ? 0 : -EBADE);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_own_reservation(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = trap_wrap("prwrap:null:1M", &t->disk);

	CHECK_EQ(disk_reserve(d, &(struct reservation_request){.action = RESERVATION_REGISTER, .new_key = 3, .persist = -1},
			      &io_plain), 0);
	CHECK_EQ(disk_reserve(d, &(struct reservation_request){.action = RESERVATION_RESERVE, .key = 3, .type = 2}, &io_plain),
		 0);
	for (enum trap_op op = 0; op < COMMANDS; op++) {
		CHECK_EQ(command(d, op, NULL, NULL), 0);
		CHECK_EQ(command(d, op, &initiators[0], NULL), -EBADE);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* A write with FUA over a disk that has none is a write and a flush, both of who asked. */
static void test_fua(void)
{
	const struct trap_options plain = {0};
	struct trap *t = trap_create(&plain);
	struct disk *d = trap_wrap("prwrap:null:1M", &t->disk);
	struct io io = {.flags = IO_FUA, .who = &initiators[1]};
	char block[512] = "x";

	CHECK_EQ(join(d, 1, 1), 0);
	CHECK_EQ(reserve(d, 1, 1, RESERVATION_EXCLUSIVE_ACCESS), 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 512), 0, &io), 0);
	CHECK_EQ(t->count, 2);
	CHECK_EQ(t->log[1].op, TRAP_FLUSH);
	CHECK(t->log[1].who == &initiators[1]);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ reports and watches */

static void test_report(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = trap_wrap("ro:null:1M", trap_wrap("slice:512:null:1M", trap_wrap("prwrap:null:1M", &t->disk)));
	struct reservation_report report;

	CHECK_EQ(join(d, 2, 7), 0);
	CHECK_EQ(join(d, 1, 8), 0);
	CHECK_EQ(reserve(d, 2, 7, RESERVATION_WRITE_EXCLUSIVE), 0);
	REQUIRE(CHECK_EQ(disk_report_reservations(d, &report, &io_plain), 0));
	CHECK_EQ(report.generation, 2);
	CHECK_EQ(report.type, RESERVATION_WRITE_EXCLUSIVE);
	CHECK_EQ(report.types, 0x7e);
	CHECK(!report.can_persist && !report.persists);
	if (CHECK_EQ(report.count, 2)) {
		CHECK_EQ(report.registrants[0].key, 8);
		CHECK(!report.registrants[0].holds);
		CHECK_EQ(report.registrants[1].key, 7);
		CHECK_EQ(report.registrants[1].who.port, 1);
		CHECK(report.registrants[1].holds);
	}
	free(report.registrants);
	CHECK_EQ(t->counts[TRAP_RESERVE] + t->counts[TRAP_REPORT], 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

struct ear {
	struct reservation_watch watch;
	unsigned heard[INITIATORS][3];
};

static void hear(struct reservation_watch *w, const struct initiator *who, enum reservation_event event)
{
	struct ear *ear = (struct ear *)w;

	for (unsigned i = 0; i < INITIATORS; i++)
		if (!initiator_compare(who, &initiators[i]))
			ear->heard[i][event]++;
}

static void test_watches(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = trap_wrap("memdiff:null:1M", trap_wrap("slice:512:null:1M", trap_wrap("prwrap:null:1M", &t->disk)));
	struct ear one = {.watch.tell = hear}, two = {.watch.tell = hear};

	CHECK_EQ(disk_watch_reservations(d, &one.watch, true), 0);
	CHECK_EQ(disk_watch_reservations(d, &two.watch, true), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(join(d, i, i + 1), 0);
	CHECK_EQ(reserve(d, 0, 1, RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS), 0);
	CHECK_EQ(preempt(d, 1, 2, 1, RESERVATION_EXCLUSIVE_ACCESS), 0);
	CHECK_EQ(preempt(d, 3, 2, 1, RESERVATION_EXCLUSIVE_ACCESS), -EBADE); /* nobody hears of it */
	CHECK_EQ(one.heard[0][RESERVATION_EVENT_REGISTRATION_PREEMPTED], 1);
	CHECK_EQ(one.heard[2][RESERVATION_EVENT_RELEASED], 1);
	CHECK_EQ(disk_watch_reservations(d, &two.watch, false), 0);
	CHECK_EQ(act(d, 1, (struct reservation_request){.action = RESERVATION_CLEAR, .key = 2}), 0);
	CHECK_EQ(one.heard[2][RESERVATION_EVENT_PREEMPTED], 1);
	CHECK_EQ(one.heard[1][RESERVATION_EVENT_PREEMPTED], 0);
	CHECK_EQ(two.heard[2][RESERVATION_EVENT_PREEMPTED], 0);
	CHECK_EQ(two.heard[0][RESERVATION_EVENT_REGISTRATION_PREEMPTED], 1);
	CHECK_EQ(disk_watch_reservations(d, &one.watch, false), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_no_watch_without_reservations(void)
{
	struct ear ear = {.watch.tell = hear};
	struct disk *d = NULL;

	REQUIRE(CHECK_EQ(disk_open("ro:mem:1M", 0, &d, NULL), 0));
	CHECK_EQ(disk_watch_reservations(d, &ear.watch, true), -EOPNOTSUPP);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ preempt and abort */

/* A disk whose writes take their time, and that says how many of whom are under way. */
struct slow {
	struct disk disk;
	_Atomic unsigned under_way[INITIATORS], done[INITIATORS];
	_Atomic bool hold; /* writes wait while it is set */
};

static unsigned number_of(const struct io *io)
{
	return (unsigned)(io->who - initiators);
}

static int slow_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct slow *s = (struct slow *)d;
	unsigned who = number_of(io);

	(void)v;
	(void)offset;
	atomic_fetch_add(&s->under_way[who], 1);
	wait_yield();
	while (atomic_load(&s->hold))
		wait_sleep(100000);
	atomic_fetch_add(&s->done[who], 1);
	atomic_fetch_sub(&s->under_way[who], 1);
	return 0;
}

static int slow_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return slow_write(d, v, offset, io);
}

static const struct disk_ops slow_ops = {.read = slow_read, .write = slow_write};

static struct slow *slow_disk(void)
{
	struct slow *s = disk_new(sizeof(*s), "slow", &slow_ops, NULL, 0);

	s->disk.info = (struct disk_info){.block_size = 512, .physical_block_size = 512, .discard_granularity = 512};
	CHECK_EQ(disk_publish(&s->disk, 1 << 20, NULL), 0);
	return s;
}

static struct {
	struct slow *slow;
	struct disk *disk;
	_Atomic bool stop, preempted;
	_Atomic unsigned conflicts;
	unsigned rounds;
} load;

/* Initiators 1 and 2 write without end. */
static void write_as(unsigned who)
{
	struct io io = {.who = &initiators[who]};
	char block[512] = "x";

	while (!atomic_load(&load.stop)) {
		int status = disk_write(load.disk, &VEC_FLAT(block, 512), 0, &io);
		if (status == -EBADE)
			atomic_fetch_add(&load.conflicts, 1);
		else
			CHECK_EQ(status, 0);
		wait_yield();
	}
}

static void *write_on_thread(void *argument)
{
	write_as((unsigned)(uintptr_t)argument);
	return NULL;
}

static void write_in_fiber(void *argument)
{
	write_as((unsigned)(uintptr_t)argument);
}

static void check_silence(unsigned victim)
{
	unsigned done = atomic_load(&load.slow->done[victim]);

	CHECK_EQ(atomic_load(&load.slow->under_way[victim]), 0);
	for (unsigned i = 0; i < 3; i++)
		wait_yield();
	CHECK_EQ(atomic_load(&load.slow->under_way[victim]), 0);
	CHECK_EQ(atomic_load(&load.slow->done[victim]), done);
}

/* Takes what the other had, looks that nothing of it comes any more, and gives it back. */
static void preempt_again_and_again(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < load.rounds; i++) {
		unsigned victim = 1 + i % 2;
		enum reservation_type type = i % 3 ? RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS : RESERVATION_EXCLUSIVE_ACCESS_ALL;
		CHECK_EQ(join(load.disk, 1, 11), 0);
		CHECK_EQ(join(load.disk, 2, 12), 0);
		CHECK_EQ(reserve(load.disk, 0, 10, type), 0);
		wait_yield();
		CHECK_EQ(preempt(load.disk, 0, 10, 10 + victim, type), 0);
		check_silence(victim);
		CHECK_EQ(act(load.disk, 0, (struct reservation_request){.action = RESERVATION_RELEASE, .key = 10, .type = type}),
			 0);
	}
	atomic_store(&load.stop, true);
}

static void begin_load(unsigned count)
{
	load.slow = slow_disk();
	load.disk = trap_wrap("prwrap:null:1M", &load.slow->disk);
	load.rounds = rounds(count);
	atomic_store(&load.stop, false);
	atomic_store(&load.conflicts, 0);
	CHECK_EQ(join(load.disk, 0, 10), 0);
}

static void test_preempt_and_abort_under_threads(void)
{
	pthread_t threads[4];

	begin_load(2000);
	for (uintptr_t i = 0; i < 4; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, write_on_thread, (void *)(1 + i % 2)));
	preempt_again_and_again(NULL);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(atomic_load(&load.slow->done[1]) > 0 && atomic_load(&load.slow->done[2]) > 0);
	CHECK(atomic_load(&load.conflicts) > 0);
	CHECK_EQ(disk_close(load.disk, NULL), 0);
}

/* All on one loop: the one who waits suspends, and those it waits for go on. */
static void test_preempt_and_abort_among_fibers(void)
{
	struct loop *l = mode_loop(&mode_ring);

	begin_load(1000);
	for (uintptr_t i = 0; i < 8; i++)
		CHECK_EQ(loop_spawn(l, write_in_fiber, (void *)(1 + i % 2)), 0);
	CHECK_EQ(loop_spawn(l, preempt_again_and_again, NULL), 0);
	loop_stop(l); /* when all fibers have ended */
	loop_run(l);
	loop_destroy(l);
	CHECK(atomic_load(&load.slow->done[1]) > 0 && atomic_load(&load.slow->done[2]) > 0);
	CHECK_EQ(disk_close(load.disk, NULL), 0);
}

static void *write_once(void *argument)
{
	struct io io = {.who = argument};
	char block[512] = "x";

	return (void *)(intptr_t)disk_write(load.disk, &VEC_FLAT(block, 512), 0, &io);
}

static void *preempt_one(void *argument)
{
	(void)argument;
	CHECK_EQ(preempt(load.disk, 0, 10, 11, RESERVATION_WRITE_EXCLUSIVE), 0);
	atomic_store(&load.preempted, true);
	return NULL;
}

static void wait_until(bool (*condition)(void))
{
	for (unsigned i = 0; i < 50000 && !condition(); i++)
		wait_sleep(100000);
	CHECK(condition());
}

static bool is_under_way(void)
{
	return atomic_load(&load.slow->under_way[1]) == 1;
}

static bool is_thrown_out(void)
{
	return command(load.disk, TRAP_WRITE, &initiators[1], NULL) == -EBADE;
}

/*
 * A write that came before anybody was registered is waited for, and says truthfully that it was done; meanwhile others come and
 * go, and other actions are done.
 */
static void test_abort_waits_and_holds_up_nobody(void)
{
	pthread_t writer, preempter;
	void *status;

	begin_load(1);
	atomic_store(&load.preempted, false);
	atomic_store(&load.slow->hold, true);
	CHECK_EQ(act(load.disk, 0, (struct reservation_request){.action = RESERVATION_REGISTER, .key = 10, .persist = -1}), 0);
	REQUIRE(!pthread_create(&writer, NULL, write_once, (void *)&initiators[1]));
	wait_until(is_under_way);
	CHECK_EQ(join(load.disk, 0, 10), 0);
	CHECK_EQ(join(load.disk, 1, 11), 0);
	CHECK_EQ(reserve(load.disk, 0, 10, RESERVATION_WRITE_EXCLUSIVE), 0);
	REQUIRE(!pthread_create(&preempter, NULL, preempt_one, NULL));
	wait_until(is_thrown_out);
	CHECK_EQ(join(load.disk, 2, 12), 0); /* another action */
	CHECK_EQ(command(load.disk, TRAP_FLUSH, &initiators[0], NULL), 0);
	wait_sleep(20000000);
	CHECK(!atomic_load(&load.preempted));
	atomic_store(&load.slow->hold, false);
	pthread_join(writer, &status);
	CHECK_EQ((intptr_t)status, 0);
	pthread_join(preempter, NULL);
	CHECK(atomic_load(&load.preempted));
	CHECK_EQ(disk_close(load.disk, NULL), 0);
}

/* ------------------------------------------------------------------ everything at once */

static void *act_at_random(void *argument)
{
	struct random random = random_stream(100 + (uint64_t)(uintptr_t)argument);
	unsigned count = rounds(4000);

	for (unsigned i = 0; i < count; i++) {
		unsigned who = (unsigned)random_below(&random, INITIATORS);
		struct reservation_request q = {
			.action = (enum reservation_action)random_below(&random, 7),
			.type = 1 + (enum reservation_type)random_below(&random, 6),
			.key = random_below(&random, 3),
			.new_key = random_below(&random, 3),
			.persist = -1,
		};
		struct reservation_report report;
		act(load.disk, who, q);
		command(load.disk, random_once_in(&random, 2) ? TRAP_READ : TRAP_WRITE, &initiators[who], NULL);
		if (random_once_in(&random, 8) && CHECK_EQ(disk_report_reservations(load.disk, &report, &io_plain), 0)) {
			size_t holders = 0;
			for (size_t r = 0; r < report.count; r++)
				holders += report.registrants[r].holds;
			CHECK_EQ(holders > 0, report.type != RESERVATION_NONE);
			free(report.registrants);
		}
		if (random_once_in(&random, 64))
			json_decref(disk_describe(load.disk));
	}
	return NULL;
}

static void test_actions_at_random(void)
{
	pthread_t threads[4];

	begin_load(1);
	random_seed(); /* before there are threads */
	for (uintptr_t i = 0; i < 4; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, act_at_random, (void *)i));
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(disk_close(load.disk, NULL), 0);
}

int main(void)
{
	TAP_RUN(test_every_command);
	TAP_RUN(test_this_process);
	TAP_RUN(test_own_reservation);
	TAP_RUN(test_fua);
	TAP_RUN(test_report);
	TAP_RUN(test_watches);
	TAP_RUN(test_no_watch_without_reservations);
	TAP_RUN(test_preempt_and_abort_under_threads);
	TAP_RUN(test_preempt_and_abort_among_fibers);
	TAP_RUN(test_abort_waits_and_holds_up_nobody);
	TAP_RUN(test_actions_at_random);
	return TAP_DONE();
}

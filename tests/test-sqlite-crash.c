/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process is killed at a system call, at each of them in turn: what it had flushed is there, and nothing is torn.
 *
 * A child works on a disk, under ptrace(2), so that every system call of each of its threads stops it twice, at entry and at
 * exit; at the Nth stop it is killed. It tells in shared memory what it has written and what flush has answered. Each
 * block holds the number of the round it was written in: afterwards it must be that of the last round that was flushed, or of
 * one that was begun after it. CRASH_STEP=1 in the environment tries every stop; without it a sample is taken.
 */
#include "tests/tap.h"

#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "core/checkers.h"
#include "layers/sqlite-layer.h"

#define BLOCKS 96u
#define BLOCK 512u
#define ROUNDS 6u

/* What the child has got to. */
struct progress {
	_Atomic unsigned created; /* the database was there when open came back */
	_Atomic unsigned begun;   /* round of which some block may have been written */
	_Atomic unsigned flushed; /* round that flush has answered */
	_Atomic unsigned closed;
};

static struct progress *progress;
static char path[512];

/* ------------------------------------------------------------------ the child */

static int open_layer(bool create, struct layer **l, struct error *err)
{
	const struct sqlite_layer_options o = {
		.path = path, .create = create, .size = BLOCKS * BLOCK, .block_size = BLOCK};

	return sqlite_layer_open(&o, l, err);
}

/* In each round every block is written, in parts: some as data, one part zeroed in between. */
static int write_round(struct layer *l, unsigned round)
{
	unsigned char bytes[BLOCK];
	int status = l->ops->write_zeroes(l, round * 7 * BLOCK, 8 * BLOCK, false, &io_plain);

	for (unsigned b = 0; b < BLOCKS && !status; b++) {
		memset(bytes, (int)round, sizeof(bytes));
		status = l->ops->write(l, &VEC_FLAT(bytes, sizeof(bytes)), b * BLOCK, &io_plain);
	}
	return status ? status : l->ops->flush(l, &io_plain);
}

static void child_main(void)
{
	struct layer *l;

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	if (open_layer(true, &l, NULL))
		_exit(1);
	atomic_store(&progress->created, 1);
	for (unsigned round = 1; round <= ROUNDS; round++) {
		atomic_store(&progress->begun, round);
		if (write_round(l, round))
			_exit(1);
		atomic_store(&progress->flushed, round);
	}
	if (l->ops->close(l, false, NULL))
		_exit(1);
	atomic_store(&progress->closed, 1);
	_exit(0);
}

/* ------------------------------------------------------------------ the parent */

enum ending { ENDED, KILLED, NO_PTRACE };

/* Lets the child go on to its next stop; false when it is gone. */
static bool follow(pid_t child, int *status)
{
	pid_t which = waitpid(-1, status, __WALL);
	int sig;

	if (which < 0 || ((WIFEXITED(*status) || WIFSIGNALED(*status)) && which == child))
		return false;
	if (!WIFSTOPPED(*status))
		return true; /* a thread has ended */
	sig = WSTOPSIG(*status);
	if (sig == (SIGTRAP | 0x80) || sig == SIGSTOP || sig == SIGTRAP)
		sig = 0;
	ptrace(PTRACE_SYSCALL, which, NULL, (void *)(intptr_t)sig);
	return true;
}

/* Runs the child and kills it at stop `limit`; *stops is how many there were. */
static enum ending run_child(unsigned limit, unsigned *stops)
{
	pid_t child = fork();
	int status = 0;

	*stops = 0;
	if (!child)
		child_main();
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, child, NULL,
		   (void *)(intptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL))) {
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		return NO_PTRACE;
	}
	ptrace(PTRACE_SYSCALL, child, NULL, NULL);
	while (*stops < limit && follow(child, &status))
		++*stops;
	if (*stops < limit)
		return WIFEXITED(status) && !WEXITSTATUS(status) ? ENDED : KILLED;
	kill(child, SIGKILL);
	while (waitpid(-1, &status, __WALL) > 0)
		;
	return KILLED;
}

static void check_integrity(void)
{
	sqlite3_stmt *s = NULL;
	sqlite3 *sql;

	CHECK_EQ(sqlite3_open_v2(path, &sql, SQLITE_OPEN_READWRITE, NULL), 0);
	CHECK_EQ(sqlite3_prepare_v2(sql, "PRAGMA integrity_check", -1, &s, NULL), 0);
	CHECK_EQ(sqlite3_step(s), SQLITE_ROW);
	CHECK_STR((const char *)sqlite3_column_text(s, 0), "ok");
	sqlite3_finalize(s);
	sqlite3_close(sql);
}

/* A block is whole, and not older than what was flushed. Zero only while a round is under way that zeroes it. */
static bool block_is_good(const unsigned char *bytes, unsigned number, unsigned flushed, unsigned begun)
{
	unsigned round = bytes[0];

	for (unsigned i = 1; i < BLOCK; i++)
		if (bytes[i] != round)
			return false;
	if (round >= flushed && round <= begun)
		return true;
	return !round && begun > flushed && number >= begun * 7 && number < begun * 7 + 8;
}

static void check_blocks(struct layer *l, unsigned stop)
{
	unsigned flushed = atomic_load(&progress->flushed), begun = atomic_load(&progress->begun);
	unsigned char bytes[BLOCK];

	for (unsigned b = 0; b < BLOCKS; b++) {
		struct layer_run run;
		memset(bytes, 0, sizeof(bytes));
		CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, BLOCK), b * BLOCK, &run, &io_plain), 0);
		if (block_is_good(bytes, b, flushed, begun))
			continue;
		tap_diag("killed at stop %u: block %u is %u; flushed was %u, begun %u", stop, b, bytes[0], flushed, begun);
		CHECK(!"what was flushed is there");
		return;
	}
}

static void check_after(unsigned stop)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer *l;
	int status = open_layer(false, &l, &err);

	if (status == -ENOENT && !atomic_load(&progress->created))
		return;
	if (!CHECK_EQ(status, 0)) {
		tap_diag("killed at stop %u: %s", stop, error_text(&err));
		return;
	}
	check_blocks(l, stop);
	/* and it can be written to again */
	CHECK_EQ(write_round(l, ROUNDS + 1), 0);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	check_integrity();
}

static void start_anew(void)
{
	static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
	char name[600];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		unlink(name);
	}
	memset(progress, 0, sizeof(*progress));
}

static unsigned step_of(unsigned stops)
{
	const char *text = getenv("CRASH_STEP");
	unsigned step = text ? (unsigned)strtoul(text, NULL, 10) : 0;

	return step ? step : 1 + stops / 150;
}

static void test_killed_at_system_calls(void)
{
	unsigned stops, seen, tried = 0;
	enum ending how;

	start_anew();
	how = run_child(UINT32_MAX, &stops);
	if (how == NO_PTRACE)
		SKIP("ptrace(2) is not allowed here");
	CHECK_EQ(how, ENDED);
	CHECK_EQ(atomic_load(&progress->closed), 1);
	check_after(stops);
	for (unsigned stop = 1; stop < stops && !atomic_load(&tap_errors); stop += step_of(stops)) {
		start_anew();
		run_child(stop, &seen);
		check_after(stop);
		tried++;
	}
	tap_diag("%u system call stops, killed at %u of them", stops, tried);
}

int main(void)
{
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED) {
		printf("Bail out! no memory\n");
		return 99;
	}
	if (checkers_in_valgrind()) {
		printf("1..0 # SKIP valgrind does not trace children\n");
		return 0;
	}
	snprintf(path, sizeof(path), "%s", tmppath("crash.db"));
	TAP_RUN(test_killed_at_system_calls);
	return TAP_DONE();
}

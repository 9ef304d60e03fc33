/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-fiber: what a fiber costs, each beside what it replaces
 *
 *     fiber, thread     making one, running it, having it end
 *     cached reads      4 KiB from the page cache: pread(2), and through fiber and ring
 *     direct reads      4 KiB with O_DIRECT: one at a time, and 32 at a time on one thread
 *
 * The file is 1 MiB in the current folder, or in the one that is named on the command line. Each figure is
 * the best of some runs, which take turns with those that they are compared with.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "bench/measure.h"
#include "core/aio.h"
#include "core/loop.h"
#include "core/parallel.h"

enum { BLOCK = 4096, BLOCKS = 256, MAX_FIBERS = 32, BATCH = 64 };

static int cached_fd, direct_fd;
static char *memory; /* a block for each fiber */
static unsigned runs = 7, scale = 1; /* --quick: fewer of everything */

/* One thing to be measured. */
struct subject {
	const char *name;
	void (*run)(void *argument);
	void *argument;
	unsigned count; /* what one run does so many times */
	double best_ns;
};

static void measure_once(struct subject *s)
{
	uint64_t start = wait_now();
	double each;

	s->run(s->argument);
	each = (double)(wait_now() - start) / s->count;
	if (s->best_ns == 0 || each < s->best_ns)
		s->best_ns = each;
}

/* Several that are compared with each other; what others do to the machine meanwhile hits all of them. */
static void measure(struct subject *list, unsigned count)
{
	for (unsigned i = 0; i < runs; i++)
		for (unsigned j = 0; j < count; j++)
			measure_once(&list[j]);
	for (unsigned j = 0; j < count; j++) {
		printf("%-44s %10.1f ns", list[j].name, list[j].best_ns);
		if (j > 0)
			printf(" %8.2f", list[j].best_ns / list[0].best_ns);
		printf("\n");
	}
}

/* ------------------------------------------------------------------ spawn, run, return */

static void empty_entry(void *argument)
{
	(void)argument;
}

static void *empty_thread(void *argument)
{
	return argument;
}

static void run_spawns(void *argument)
{
	for (unsigned i = 0; i < *(unsigned *)argument / BATCH; i++) {
		for (int j = 0; j < BATCH; j++)
			if (loop_spawn(loop_current(), empty_entry, NULL) < 0)
				bench_die("loop_spawn: no memory");
		wait_yield();
	}
}

static void run_yields(void *argument)
{
	for (unsigned i = 0; i < *(unsigned *)argument; i++)
		wait_yield();
}

static void run_threads(void *argument)
{
	pthread_t thread;

	for (unsigned i = 0; i < *(unsigned *)argument; i++)
		if (pthread_create(&thread, NULL, empty_thread, NULL) || pthread_join(thread, NULL))
			bench_die("cannot start a thread");
}

static void run_mutex(void *argument)
{
	struct wait_mutex m = {0};

	for (unsigned i = 0; i < *(unsigned *)argument; i++) {
		wait_mutex_lock(&m);
		wait_mutex_unlock(&m);
	}
}

/* ------------------------------------------------------------------ reads */

struct readers {
	int fd;
	unsigned fibers, total;
	unsigned next;
	struct wait_group ended;
};

static void reader_entry(void *argument)
{
	struct readers *r = argument;
	unsigned me = r->next++;
	struct iovec iov = {memory + me * BLOCK, BLOCK};

	for (unsigned i = me; i < r->total; i += r->fibers)
		if (aio_preadv(r->fd, &iov, 1, (uint64_t)(i * 97 % BLOCKS) * BLOCK, 0) != BLOCK)
			bench_die("aio_preadv failed");
	wait_group_done(&r->ended);
}

static void run_readers(void *argument)
{
	struct readers *r = argument;

	r->next = 0;
	wait_group_add(&r->ended, r->fibers);
	for (unsigned i = 0; i < r->fibers; i++)
		if (loop_spawn(loop_current(), reader_entry, r) < 0)
			bench_die("loop_spawn: no memory");
	wait_group_wait(&r->ended);
}

static void run_preads(void *argument)
{
	struct readers *r = argument;

	for (unsigned i = 0; i < r->total; i++)
		if (pread(r->fd, memory + i % r->fibers * BLOCK, BLOCK, (off_t)(i * 97 % BLOCKS) * BLOCK) !=
		    BLOCK)
			bench_die("pread: %s", strerror(errno));
}

/* ------------------------------------------------------------------ parallel_run */

static int empty_piece(void *argument, unsigned index)
{
	(void)argument, (void)index;
	return 0;
}

static void run_parallel(void *argument)
{
	for (unsigned i = 0; i < *(unsigned *)argument / 8; i++)
		parallel_run(8, empty_piece, NULL);
}

/* ------------------------------------------------------------------ all of it */

static void bench_calls(void)
{
	unsigned many = 1000000 / scale, few = 2000 / scale;
	struct subject spawns[] = {
		{"thread: create, run, join", run_threads, &few, few},
		{"fiber: spawn, run, return", run_spawns, &many, many},
	};
	struct subject others[] = {
		{"fiber: yield", run_yields, &many, many},
		{"wait_mutex: lock, unlock", run_mutex, &many, many},
		{"parallel_run of 8 on a fiber, each", run_parallel, &many, many},
	};

	measure(spawns, 2);
	for (unsigned i = 0; i < 3; i++)
		measure(&others[i], 1);
}

static void bench_reads(const char *const names[3], int fd, unsigned total)
{
	struct readers one = {.fd = fd, .fibers = 1, .total = total};
	struct readers all = {.fd = fd, .fibers = MAX_FIBERS, .total = total};
	struct subject list[] = {
		{names[0], run_preads, &all, total},
		{names[1], run_readers, &one, total},
		{names[2], run_readers, &all, total},
	};

	measure(list, 3);
}

static void bench_root(void *argument)
{
	static const char *const cached[] = {"cached 4 KiB read: pread(2)", "cached 4 KiB read: 1 fiber",
					     "cached 4 KiB read: 32 fibers"};
	static const char *const direct[] = {"direct 4 KiB read: pread(2)", "direct 4 KiB read: 1 fiber",
					     "direct 4 KiB read: 32 fibers"};

	(void)argument;
	bench_calls();
	bench_reads(cached, cached_fd, 200000 / scale);
	if (direct_fd >= 0)
		bench_reads(direct, direct_fd, 5000 / scale);
	else
		printf("direct reads: not measured, the file system has none\n");
}

static void make_file(const char *folder)
{
	char path[4096], again[64];

	snprintf(path, sizeof path, "%s/bench-fiber.XXXXXX", folder);
	memory = bench_payload((size_t)MAX_FIBERS * BLOCK);
	cached_fd = mkstemp(path);
	if (cached_fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	for (int i = 0; i < BLOCKS; i++)
		if (pwrite(cached_fd, memory, BLOCK, (off_t)i * BLOCK) != BLOCK)
			bench_die("%s: %s", path, strerror(errno));
	fdatasync(cached_fd);
	snprintf(again, sizeof again, "/proc/self/fd/%d", cached_fd);
	direct_fd = open(again, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
}

int main(int argc, char **argv)
{
	unsigned many;
	struct loop *l;

	if (argc > 1 && strcmp(argv[1], "--quick") == 0) {
		argc--, argv++;
		runs = 1, scale = 20;
	}
	make_file(argc > 1 ? argv[1] : ".");
	many = 1000000 / scale;
	measure(&(struct subject){"parallel_run of 8 on a thread, each", run_parallel, &many, many}, 1);
	if (loop_create(NULL, &l, NULL) < 0 || loop_spawn(l, bench_root, NULL) < 0)
		bench_die("no loop");
	loop_stop(l);
	loop_run(l);
	loop_destroy(l);
	free(memory);
	return 0;
}

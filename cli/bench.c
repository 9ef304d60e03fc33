/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter bench SPEC
 *
 * Each thread is a loop, and each request in flight a fiber on one of them. A fiber asks for one block after the other until
 * the time is over. Counters belong to a loop and are summed when it has ended.
 */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench-svg.h"
#include "cli/disks.h"
#include "cli/latency.h"
#include "cli/output.h"
#include "core/chance.h"
#include "core/loop.h"
#include "core/tree-text.h"
#include "core/wait.h"

enum {
	OPTION_BLOCK,
	OPTION_DEPTH,
	OPTION_THREADS,
	OPTION_READS,
	OPTION_PATTERN,
	OPTION_TIME,
	OPTION_FUA,
	OPTION_OVERWRITE,
	OPTION_JSON,
	OPTION_SVG,
};

static const char *const pattern_words[] = {"random", "sequential", NULL};
enum { PATTERN_RANDOM, PATTERN_SEQUENTIAL };

enum { BENCH_READ, BENCH_WRITE, BENCH_OPS };
static const char *const op_names[] = {"read", "write"};

#define MAX_THREADS 64u
#define MAX_DEPTH 1024u

struct bench {
	const struct verb_arguments *arguments;
	struct disk *disk;
	size_t block;
	uint64_t nr_blocks; /* of that size */
	unsigned reads;     /* percent */
	uint64_t end_ns;
	_Atomic uint64_t next; /* number of the next request, which decides what it is */
	_Atomic bool stop;
	struct failure failure; /* of the first that failed */
	_Atomic int status;
	struct wait_group running;
	double seconds;
	struct latency total[BENCH_OPS];
};

/* One loop. */
struct worker {
	struct bench *bench;
	struct loop *loop;
	struct latency latency[BENCH_OPS];
};

struct flight {
	struct worker *worker;
	void *buffer;
};

/* ------------------------------------------------------------------ the load */

static void failed(struct bench *b, int status)
{
	int none = 0;

	atomic_compare_exchange_strong(&b->status, &none, status);
	atomic_store(&b->stop, true);
}

static uint64_t offset_of(const struct bench *b, uint64_t number)
{
	if (b->arguments->numbers[OPTION_PATTERN] == PATTERN_RANDOM)
		number = chance_at(1, 0, number);
	return number % b->nr_blocks * b->block;
}

static int one_request(struct flight *f, uint64_t *now)
{
	struct bench *b = f->worker->bench;
	uint64_t number = atomic_fetch_add_explicit(&b->next, 1, memory_order_relaxed), begin = wait_now();
	bool reads = chance_at(1, 1, number) % 100 < b->reads;
	struct io io = {.flags = !reads && b->arguments->options[OPTION_FUA] ? IO_FUA : 0, .failure = &b->failure};
	struct vec v = VEC_FLAT(f->buffer, b->block);
	int status = reads ? disk_read(b->disk, &v, offset_of(b, number), &io)
			   : disk_write(b->disk, &v, offset_of(b, number), &io);

	*now = wait_now();
	latency_add(&f->worker->latency[reads ? BENCH_READ : BENCH_WRITE], *now - begin);
	return status;
}

static void fly(void *argument)
{
	struct flight *f = argument;
	struct bench *b = f->worker->bench;
	uint64_t now = wait_now();

	while (now < b->end_ns && !atomic_load_explicit(&b->stop, memory_order_relaxed)) {
		int status = one_request(f, &now);
		if (status)
			failed(b, status);
		wait_yield(); /* a disk that never waits would leave the others none of the time */
	}
	wait_group_done(&b->running);
}

/* ------------------------------------------------------------------ running it */

/* No zeroes, which disks leave out. */
static void *make_buffer(size_t size, unsigned seed)
{
	void *buffer;
	unsigned char *p;

	if (posix_memalign(&buffer, 4096, size))
		return NULL;
	p = buffer;
	for (size_t i = 0; i < size; i++)
		p[i] = (unsigned char)(1 + chance_at(seed, 2, i) % 255);
	return buffer;
}

static int launch(struct bench *b, struct worker *workers, unsigned nr_workers, struct flight *flights, unsigned depth,
		  struct error *err)
{
	for (unsigned i = 0; i < nr_workers; i++) {
		workers[i].bench = b;
		int status = loop_start(NULL, &workers[i].loop, err);
		if (status)
			return status;
	}
	for (unsigned i = 0; i < depth; i++) {
		flights[i] = (struct flight){.worker = &workers[i % nr_workers], .buffer = make_buffer(b->block, i)};
		if (!flights[i].buffer)
			return error_set(err, -ENOMEM, "no memory");
	}
	b->end_ns = wait_now() + b->arguments->numbers[OPTION_TIME];
	for (unsigned i = 0; i < depth; i++) {
		wait_group_add(&b->running, 1);
		if (loop_spawn(flights[i].worker->loop, fly, &flights[i]) < 0) {
			wait_group_done(&b->running);
			atomic_store(&b->stop, true);
			return error_set(err, -ENOMEM, "no memory");
		}
	}
	return 0;
}

static void land(struct bench *b, struct worker *workers, unsigned nr_workers, struct flight *flights, unsigned depth)
{
	wait_group_wait(&b->running);
	for (unsigned i = 0; i < nr_workers; i++) {
		if (workers[i].loop)
			loop_finish(workers[i].loop);
		for (unsigned op = 0; op < BENCH_OPS; op++)
			latency_merge(&b->total[op], &workers[i].latency[op]);
	}
	for (unsigned i = 0; i < depth; i++)
		free(flights[i].buffer);
}

static int run_load(struct bench *b, struct error *err)
{
	unsigned depth = (unsigned)b->arguments->numbers[OPTION_DEPTH], nr = (unsigned)b->arguments->numbers[OPTION_THREADS];
	struct worker *workers;
	struct flight *flights;
	uint64_t begin = wait_now();
	int status;

	nr = nr < depth ? nr : depth;
	workers = calloc(nr, sizeof(*workers));
	flights = calloc(depth, sizeof(*flights));
	status = workers && flights ? launch(b, workers, nr, flights, depth, err) : error_set(err, -ENOMEM, "no memory");
	if (workers && flights)
		land(b, workers, nr, flights, depth);
	b->seconds = (double)(wait_now() - begin) / 1e9;
	free(workers);
	free(flights);
	if (!status && atomic_load(&b->status))
		status = error_set(err, atomic_load(&b->status), "%s",
				   b->failure.text[0] ? b->failure.text : strerror(-atomic_load(&b->status)));
	return status;
}

static int bench_disk(struct disk *d, void *argument, struct error *err)
{
	struct bench *b = argument;
	uint32_t block = disk_info(d)->block_size;

	b->disk = d;
	b->nr_blocks = disk_size(d) / b->block;
	if (b->block % block > 0)
		return error_set(err, -EINVAL, "--block: %zu bytes are not whole blocks of the disk, which are of %" PRIu32
				 " bytes", b->block, block);
	if (b->nr_blocks == 0)
		return error_set(err, -ERANGE, "--block: %zu bytes are more than the disk has", b->block);
	return run_load(b, err);
}

/* ------------------------------------------------------------------ what came out */

static const struct {
	const char *name;
	double fraction;
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};

#define NR_PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

static void print_op(const struct bench *b, unsigned op)
{
	const struct latency *l = &b->total[op];
	char rate[SIZE_TEXT_MAX];

	if (l->count == 0)
		return;
	printf("%-6s %12.0f IOPS  %12s/s  latency us: mean %.1f", op_names[op], (double)l->count / b->seconds,
	       size_print_human((uint64_t)((double)l->count * (double)b->block / b->seconds), rate),
	       (double)l->sum_ns / (double)l->count / 1e3);
	for (size_t i = 0; i < NR_PERCENTILES; i++)
		printf(", %s %.1f", percentiles[i].name, (double)latency_percentile(l, percentiles[i].fraction) / 1e3);
	printf("\n");
}

static json_t *op_to_json(const struct bench *b, unsigned op)
{
	const struct latency *l = &b->total[op];
	json_t *latency = json_object();

	if (l->count > 0)
		json_object_set_new(latency, "mean", json_integer((json_int_t)(l->sum_ns / l->count)));
	for (size_t i = 0; i < NR_PERCENTILES; i++)
		json_object_set_new(latency, percentiles[i].name,
				    json_integer((json_int_t)latency_percentile(l, percentiles[i].fraction)));
	return json_pack("{s:I, s:f, s:f, s:o}", "count", (json_int_t)l->count, "iops", (double)l->count / b->seconds,
			 "bytes_per_s", (double)l->count * (double)b->block / b->seconds, "latency_ns", latency);
}

static int print_as_json(const struct bench *b)
{
	const struct verb_arguments *a = b->arguments;

	return print_json(json_pack("{s:s, s:I, s:I, s:I, s:i, s:s, s:f, s:o, s:o}", "spec", a->operands[0], "block_size",
				    (json_int_t)b->block, "depth", (json_int_t)a->numbers[OPTION_DEPTH], "threads",
				    (json_int_t)a->numbers[OPTION_THREADS], "reads_percent", (int)b->reads, "pattern",
				    pattern_words[a->numbers[OPTION_PATTERN]], "seconds", b->seconds, "read",
				    op_to_json(b, BENCH_READ), "write", op_to_json(b, BENCH_WRITE)));
}

static void draw(const struct bench *b)
{
	static const char *const colours[] = {"#2b6cb0", "#c05621"};
	struct bench_curve curves[BENCH_OPS];
	unsigned nr = 0;

	for (unsigned op = 0; op < BENCH_OPS; op++)
		if (b->total[op].count > 0)
			curves[nr++] = (struct bench_curve){op_names[op], colours[op], &b->total[op]};
	print_bench_svg(b->arguments->operands[0], curves, nr);
}

static int print_results(const struct bench *b)
{
	const struct verb_arguments *a = b->arguments;
	char block[SIZE_TEXT_MAX];

	if (a->options[OPTION_JSON])
		return print_as_json(b);
	if (a->options[OPTION_SVG]) {
		draw(b);
		return STATUS_OK;
	}
	printf("%s %s, %" PRIu64 " in flight on %" PRIu64 " threads, %u%% reads, %.1f s\n",
	       pattern_words[a->numbers[OPTION_PATTERN]], size_print_human(b->block, block), a->numbers[OPTION_DEPTH],
	       a->numbers[OPTION_THREADS], b->reads, b->seconds);
	print_op(b, BENCH_READ);
	print_op(b, BENCH_WRITE);
	return STATUS_OK;
}

static int bench_verb(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	bool writes = a->numbers[OPTION_READS] < 100;
	struct bench *b;
	int status;

	if (a->options[OPTION_SVG] && a->options[OPTION_JSON])
		return verb_usage_error(&verb_bench, "--json and --svg exclude each other");
	if (writes && !a->options[OPTION_OVERWRITE])
		return verb_usage_error(&verb_bench, "writes destroy what the disk holds: --overwrite allows them");
	b = calloc(1, sizeof(*b));
	if (!b)
		return no_memory();
	b->arguments = a;
	b->block = (size_t)a->numbers[OPTION_BLOCK];
	b->reads = (unsigned)a->numbers[OPTION_READS];
	status = with_disk(a->operands[0], NULL, writes ? 0 : OPEN_READ_ONLY, bench_disk, b, &err);
	status = status ? verb_failed("bench", &err) : print_results(b);
	free(b);
	return status;
}

const struct verb verb_bench = {
	.name = "bench",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Measure how fast a disk is",
	.details = "The load is made in this process: what a door adds is not measured.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_BLOCK] = {.name = "block",
					  .letter = 'b',
					  .argument = "SIZE",
					  .type = OPTION_SIZE,
					  .fallback = "4K",
					  .min = DISK_MIN_BLOCK,
					  .max = 64 << 20,
					  .help = "bytes of each request"},
			[OPTION_DEPTH] = {.name = "depth",
					  .letter = 'd',
					  .argument = "N",
					  .type = OPTION_NUMBER,
					  .fallback = "16",
					  .min = 1,
					  .max = MAX_DEPTH,
					  .help = "requests in flight"},
			[OPTION_THREADS] = {.name = "threads",
					    .letter = 't',
					    .argument = "N",
					    .type = OPTION_NUMBER,
					    .fallback = "1",
					    .min = 1,
					    .max = MAX_THREADS,
					    .help = "threads that share them"},
			[OPTION_READS] = {.name = "reads",
					  .argument = "PERCENT",
					  .type = OPTION_NUMBER,
					  .fallback = "100",
					  .max = 100,
					  .help = "how many of them read; the others write"},
			[OPTION_PATTERN] = {.name = "pattern",
					    .argument = "NAME",
					    .type = OPTION_WORD,
					    .words = pattern_words,
					    .fallback = "random",
					    .help = "one of"},
			[OPTION_TIME] = {.name = "time",
					 .argument = "TIME",
					 .type = OPTION_DURATION,
					 .fallback = "5s",
					 .min = 1000000,
					 .max = UINT64_C(86400000000000),
					 .help = "for so long"},
			[OPTION_FUA] = {.name = "fua", .help = "each write is durable before it counts"},
			[OPTION_OVERWRITE] = {.name = "overwrite", .help = "allow writes, which destroy what the disk holds"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_SVG] = {.name = "svg", .help = "draw the latencies"},
			{0},
		},
	.run = bench_verb,
};

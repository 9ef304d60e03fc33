/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-memory: what the RAM disk takes, and how its writers get along
 *
 *     open      opening mem: of any size up to the largest takes the same time and next to no memory
 *     fill      memory over the bytes stored, after 4 KiB writes in order and at random, and after discarding
 * all; "layer" is what the RAM layer says of itself, "process" what the kernel says (resident set). Each case
 * has a process of its own, so that none finds memory that another has left behind threads   random 4 KiB
 * writes with 1, 2 and 4 threads, on a disk that holds every block already and on an empty one. Rounds are
 * interleaved; a ratio is to 1 thread of the same round
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"
#include "core/open.h"
#include "layers/layer.h"

#define BLOCK 4096u
#define BLOCK_SHIFT 12
#define MIB (1u << 20)
#define LARGEST UINT64_C(9223372036854775296)
#define MAX_ROUNDS 101u
#define MAX_THREADS 4u

static struct {
	bool json;
	uint64_t size; /* bytes of the disk that is filled; a power of two */
	unsigned rounds, open_repetitions;
	double seconds; /* of a run on a full disk */
} options = {.size = UINT64_C(1) << 30, .rounds = 15, .open_repetitions = 25, .seconds = 0.2};

static char *payload;

/* Text or JSON: one object a row, gathered in arrays. */
static void begin_section(const char *name, const char *head)
{
	static bool again;

	if (options.json)
		printf("%s\"%s\": [", again ? ",\n" : "{", name);
	else
		printf("%s%s\n", again ? "\n" : "", head);
	again = true;
}

static void begin_row(bool first)
{
	if (options.json)
		printf("%s\n ", first ? "" : ",");
}

static void end_section(void)
{
	if (options.json)
		printf("]");
}

/* ------------------------------------------------------------------ a RAM disk whose layer we know */

struct ram_disk {
	struct disk *disk;
	struct layer *layer;
};

static struct ram_disk ram_disk_open(uint64_t size)
{
	CLEANUP_ERROR struct error err = {0};
	struct ram_disk r = {.layer = ram_layer_create(size, 512, 0)};
	struct layer_place place = {.layer = r.layer};

	if (!r.layer)
		bench_die("no memory");
	if (layered_create("mem", &place, 1, NULL, 0, 0, &r.disk, &err))
		bench_die("%s", error_text(&err));
	return r;
}

static void ram_disk_close(struct ram_disk *r)
{
	disk_close(r->disk, NULL);
}

static uint64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	uint64_t pages = 0;

	if (!f || fscanf(f, "%*u %" SCNu64, &pages) != 1)
		bench_die("cannot read /proc/self/statm");
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void write_block(struct disk *d, uint64_t number)
{
	if (disk_write(d, &VEC_FLAT(payload, BLOCK), number << BLOCK_SHIFT, &io_plain))
		bench_die("a write failed");
}

/*
 * A number below 1 << bits as another one, none twice: all of them in an order that looks random. Each step
 * can be undone (adding, multiplying by an odd number, folding down), so none of them loses anything.
 */
static uint64_t scatter(uint64_t n, unsigned bits, uint64_t seed)
{
	uint64_t mask = (UINT64_C(1) << bits) - 1;

	for (unsigned i = 0; i < 3; i++) {
		n = (n + seed) * UINT64_C(0x9e3779b97f4a7c15) & mask;
		n ^= n >> (bits / 2 + 1);
	}
	return n;
}

static unsigned log2_of(uint64_t n)
{
	return 63 - (unsigned)__builtin_clzll(n);
}

/* ------------------------------------------------------------------ open */

static void time_open(const char *spec, double *open_us, double *close_us)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;
	uint64_t begin = wait_now(), opened;

	if (disk_open(spec, 0, &d, &err))
		bench_die("%s: %s", spec, error_text(&err));
	opened = wait_now();
	disk_close(d, NULL);
	*open_us = (double)(opened - begin) / 1e3;
	*close_us = (double)(wait_now() - opened) / 1e3;
}

static void measure_open(uint64_t size, bool first)
{
	double open_us[MAX_ROUNDS], close_us[MAX_ROUNDS];
	struct ram_usage usage;
	char spec[64];

	snprintf(spec, sizeof(spec), "mem:%" PRIu64, size);
	for (unsigned i = 0; i < options.open_repetitions; i++)
		time_open(spec, &open_us[i], &close_us[i]);
	struct bench_spread open = bench_spread_of(open_us, options.open_repetitions);
	struct bench_spread close = bench_spread_of(close_us, options.open_repetitions);

	struct ram_disk r = ram_disk_open(size);
	ram_layer_usage(r.layer, &usage);
	ram_disk_close(&r);
	begin_row(first);
	printf(options.json ? "{\"bytes\": %" PRIu64 ", \"open_us\": %.2f, \"close_us\": %.2f, "
			      "\"layer_bytes\": %" PRIu64 "}"
			    : "%20" PRIu64 "  %8.1f  %8.1f  %11" PRIu64 "\n",
	       size, open.median, close.median, usage.total);
}

static void bench_open(void)
{
	static const uint64_t sizes[] = {UINT64_C(1) << 20, UINT64_C(1) << 30, UINT64_C(1) << 40,
					 UINT64_C(1) << 50, UINT64_C(1) << 60, LARGEST};

	begin_section("open",
		      "opening mem: of a size\n               bytes   open us  close us  layer bytes");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		measure_open(sizes[i], i == 0);
	end_section();
}

/* ------------------------------------------------------------------ fill */

struct fill_case {
	const char *order; /* "in order", "random", "scattered" */
	uint64_t size, blocks;
};

struct fill_result {
	struct ram_usage filled, discarded;
	uint64_t process_filled, process_discarded; /* bytes more than before */
};

static uint64_t grown_since(uint64_t before)
{
	uint64_t now = resident_bytes();

	return now > before ? now - before : 0;
}

static void discard_all(struct disk *d)
{
	if (disk_discard(d, 0, disk_size(d), &io_plain))
		bench_die("discard failed");
}

static void fill(const struct fill_case *c, struct disk *d)
{
	unsigned bits = log2_of(c->size >> BLOCK_SHIFT);
	bool in_order = strcmp(c->order, "in order") == 0;

	for (uint64_t i = 0; i < c->blocks; i++)
		write_block(d, in_order ? i : scatter(i, bits, 1));
}

static void run_fill(const struct fill_case *c, struct fill_result *result)
{
	struct ram_disk r = ram_disk_open(c->size);
	uint64_t before;

	/* Once, so that what the first request makes for good is there. */
	write_block(r.disk, 0);
	discard_all(r.disk);
	before = resident_bytes();
	fill(c, r.disk);
	ram_layer_usage(r.layer, &result->filled);
	result->process_filled = grown_since(before);
	discard_all(r.disk);
	ram_layer_usage(r.layer, &result->discarded);
	result->process_discarded = grown_since(before);
	ram_disk_close(&r);
}

static struct fill_result fill_in_child(const struct fill_case *c)
{
	struct fill_result result = {0};
	int ends[2], status;

	fflush(stdout);
	if (pipe(ends) < 0)
		bench_die("pipe: %s", strerror(errno));
	pid_t child = fork();
	if (child < 0)
		bench_die("fork: %s", strerror(errno));
	if (child == 0) {
		run_fill(c, &result);
		_exit(write(ends[1], &result, sizeof(result)) == sizeof(result) ? 0 : 1);
	}
	close(ends[1]);
	if (read(ends[0], &result, sizeof(result)) != sizeof(result))
		bench_die("a filling process failed");
	close(ends[0]);
	waitpid(child, &status, 0);
	return result;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / MIB;
}

static void print_fill(const struct fill_case *c, const struct fill_result *r, bool first)
{
	double stored = (double)r->filled.stored;
	double density = 100.0 * (double)c->blocks * BLOCK / (double)c->size;

	begin_row(first);
	if (options.json)
		printf("{\"order\": \"%s\", \"disk_bytes\": %" PRIu64 ", \"density_percent\": %g, "
		       "\"stored_bytes\": %" PRIu64 ", \"layer_bytes\": %" PRIu64
		       ", \"process_bytes\": %" PRIu64 ", \"layer_bytes_after_discard\": %" PRIu64
		       ", \"process_bytes_after_discard\": %" PRIu64 "}",
		       c->order, c->size, density, r->filled.stored, r->filled.total, r->process_filled,
		       r->discarded.total, r->process_discarded);
	else
		printf("%-9s  %7.3g %%  %9.1f  %6.4f  %7.4f  %9.2f  %7.2f\n", c->order, density,
		       mib(r->filled.stored), (double)r->filled.total / stored,
		       (double)r->process_filled / stored, mib(r->discarded.total),
		       mib(r->process_discarded));
}

static void bench_fill(void)
{
	static const char *const orders[] = {"in order", "random"};
	static const unsigned percents[] = {5, 25, 100};
	struct fill_case c;

	begin_section("fill", "memory over bytes stored, and MiB left after all was discarded\n"
			      "                         MiB     over stored        MiB after discard\n"
			      "order        density   stored   layer  process      layer  process");
	for (unsigned i = 0; i < 6; i++) {
		c = (struct fill_case){.order = orders[i / 3], .size = options.size};
		c.blocks = (c.size >> BLOCK_SHIFT) * percents[i % 3] / 100;
		struct fill_result r = fill_in_child(&c);
		print_fill(&c, &r, i == 0);
	}
	/* The worst there is: each block in a corner of its own. */
	c = (struct fill_case){.order = "scattered", .size = LARGEST, .blocks = 4096};
	struct fill_result r = fill_in_child(&c);
	print_fill(&c, &r, false);
	end_section();
}

/* ------------------------------------------------------------------ threads */

struct writer {
	pthread_t thread;
	struct disk *disk;
	pthread_barrier_t *start;
	bool once;	     /* its share of all blocks once; otherwise any block until the time is over */
	unsigned index, all; /* of the writers */
	uint64_t writes, begin, end;
};

static void write_share(struct writer *w)
{
	uint64_t blocks = disk_size(w->disk) >> BLOCK_SHIFT;
	unsigned bits = log2_of(blocks);

	for (uint64_t i = w->index; i < blocks; i += w->all, w->writes++)
		write_block(w->disk, scatter(i, bits, 7));
}

static void write_for_a_while(struct writer *w)
{
	uint64_t blocks = disk_size(w->disk) >> BLOCK_SHIFT, random = w->index + 1;
	uint64_t length = (uint64_t)(options.seconds * 1e9);

	do
		for (unsigned i = 0; i < 256; i++, w->writes++)
			write_block(w->disk, bench_random(&random) % blocks);
	while (wait_now() - w->begin < length);
}

static void *write_in_thread(void *argument)
{
	struct writer *w = argument;

	pthread_barrier_wait(w->start);
	w->begin = wait_now();
	if (w->once)
		write_share(w);
	else
		write_for_a_while(w);
	w->end = wait_now();
	return NULL;
}

/* Writes a second by that many threads. */
static double run_writers(struct disk *d, unsigned count, bool once)
{
	struct writer writers[MAX_THREADS];
	pthread_barrier_t start;
	uint64_t begin = UINT64_MAX, end = 0, writes = 0;

	pthread_barrier_init(&start, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		writers[i] =
			(struct writer){.disk = d, .start = &start, .once = once, .index = i, .all = count};
		if (pthread_create(&writers[i].thread, NULL, write_in_thread, &writers[i]))
			bench_die("cannot make a thread");
	}
	for (unsigned i = 0; i < count; i++) {
		const struct writer *w = &writers[i];
		pthread_join(w->thread, NULL);
		begin = w->begin < begin ? w->begin : begin;
		end = w->end > end ? w->end : end;
		writes += w->writes;
	}
	pthread_barrier_destroy(&start);
	return (double)writes * 1e9 / (double)(end - begin);
}

static const unsigned thread_counts[] = {1, 2, 4};
#define THREAD_CASES 3u

static double thread_rates[THREAD_CASES][MAX_ROUNDS];

static double rate_on_empty(unsigned count)
{
	struct ram_disk r = ram_disk_open(options.size / 2);
	double rate = run_writers(r.disk, count, true);

	ram_disk_close(&r);
	return rate;
}

/* Every thread count has its turn in every round; who begins moves. */
static void run_rounds(struct disk *full)
{
	for (unsigned round = 0; round < options.rounds; round++)
		for (unsigned i = 0; i < THREAD_CASES; i++) {
			unsigned c = (i + round) % THREAD_CASES;
			unsigned count = thread_counts[c];
			thread_rates[c][round] =
				full ? run_writers(full, count, false) : rate_on_empty(count);
		}
}

static void print_threads(const char *disk, bool first)
{
	struct bench_spread ratios[THREAD_CASES];
	double values[MAX_ROUNDS];

	for (unsigned c = 0; c < THREAD_CASES; c++) {
		for (unsigned r = 0; r < options.rounds; r++)
			values[r] = thread_rates[c][r] / thread_rates[0][r];
		ratios[c] = bench_spread_of(values, options.rounds);
	}
	for (unsigned c = 0; c < THREAD_CASES; c++) {
		const struct bench_spread *s = &ratios[c];
		begin_row(first && c == 0);
		printf(options.json ? "{\"disk\": \"%s\", \"threads\": %u, \"writes_a_second\": %.0f, "
				      "\"ratio\": {\"median\": %.3f, \"quartile_low\": %.3f, "
				      "\"quartile_high\": %.3f}}"
				    : "%-5s  %7u  %8.0f  %5.2f  (%.2f..%.2f)\n",
		       disk, thread_counts[c], bench_spread_of(thread_rates[c], options.rounds).median,
		       s->median, s->low, s->high);
	}
}

static void bench_threads(void)
{
	struct ram_disk full = ram_disk_open(options.size / 2);

	begin_section("threads", "random 4 KiB writes by several threads, ratio to one thread\n"
				 "disk   threads  writes/s  ratio  (quartiles)");
	run_writers(full.disk, 1, true);
	run_rounds(full.disk);
	ram_disk_close(&full);
	print_threads("full", true);
	run_rounds(NULL);
	print_threads("empty", false);
	end_section();
}

/* ------------------------------------------------------------------ command line */

static const struct option long_options[] = {
	{"json", no_argument, NULL, 'j'},
	{"quick", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *to)
{
	fputs("usage: bench-memory [OPTION]...\n"
	      "  --json     print JSON\n"
	      "  --quick    small disks and few rounds: does it work?\n",
	      to);
}

static void parse_option(int which)
{
	switch (which) {
	case 'j':
		options.json = true;
		return;
	case 'q':
		options.size = UINT64_C(128) << 20;
		options.rounds = options.open_repetitions = 3;
		options.seconds = 0.05;
		return;
	default:
		usage(which == 'h' ? stdout : stderr);
		exit(which == 'h' ? 0 : 2);
	}
}

int main(int argc, char **argv)
{
	int which;

	while ((which = getopt_long(argc, argv, "h", long_options, NULL)) != -1)
		parse_option(which);
	payload = bench_payload(BLOCK);
	bench_open();
	bench_fill();
	bench_threads();
	if (options.json)
		printf("}\n");
	return 0;
}

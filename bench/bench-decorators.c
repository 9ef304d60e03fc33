/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-decorators: what decorators cost when they have nothing to do, and whether the members of a stripe work together
 *
 * 4 KiB reads and writes go to one disk directly and through sixteen decorators of a kind on top of each other. What one adds is
 * the difference divided by sixteen, taken within a repetition, in which every case has its turn; reported are medians.
 *
 * Then 32 fibers read from delay:1:mem: one chunk at a time, and from a stripe of four of them four chunks at a time. Members
 * that work at the same time give four times the bytes in the same time; one after the other they would give as many.
 */
#include <getopt.h>
#include <stdbool.h>

#include "bench/measure.h"
#include "core/loop.h"
#include "core/open.h"

#define BLOCK 4096u
#define DISK_BLOCKS 256u
#define HEIGHT 16u
#define REQUESTS 4000u
#define MAX_REPETITIONS 101u

static const struct {
	const char *name, *before, *after;
} kinds[] = {
	{"(none)", "", ""},
	{"ro", "ro:", ""},
	{"slice", "slice:0:", ""},
	{"delay", "delay:0:", ""},
	{"fault", "fault::", ""},
	{"fault 2", "fault:read/write=io,at=2M,len=4K:", ""},
	{"striped", "striped:64K:[", "]"},
};
#define KINDS (sizeof(kinds) / sizeof(*kinds))

static struct {
	unsigned repetitions;
} options = {.repetitions = 51};

static struct disk *disks[KINDS];
static double samples[2][KINDS][MAX_REPETITIONS];
static char *buffer;

static struct disk *open_disk(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (disk_open(spec, 0, &d, &err))
		bench_die("%s", error_text(&err));
	disk_measure_latency(d, false);
	return d;
}

static struct disk *open_tower(unsigned kind)
{
	char spec[1024] = "";

	for (unsigned i = 0; i < HEIGHT; i++)
		strcat(spec, kinds[kind].before);
	strcat(spec, "mem:1M");
	for (unsigned i = 0; i < HEIGHT; i++)
		strcat(spec, kinds[kind].after);
	return open_disk(spec);
}

static double time_requests(struct disk *d, bool writing)
{
	struct vec v = VEC_FLAT(buffer, BLOCK);
	uint64_t random = 1, begin = wait_now();
	int status = 0;

	for (unsigned i = 0; i < REQUESTS; i++) {
		uint64_t offset = bench_random(&random) % DISK_BLOCKS * BLOCK;
		status |= writing ? disk_write(d, &v, offset, &io_plain) : disk_read(d, &v, offset, &io_plain);
	}
	if (status)
		bench_die("a request failed");
	return (double)(wait_now() - begin) / REQUESTS;
}

/* What is read-only is not written to. */
static bool is_timed(unsigned kind, bool writing)
{
	return !writing || !(disk_info(disks[kind])->flags & DISK_READ_ONLY);
}

static void measure_towers(void)
{
	for (unsigned i = 0; i < KINDS; i++)
		disks[i] = open_tower(i);
	for (unsigned r = 0; r < options.repetitions; r++)
		for (unsigned writing = 0; writing < 2; writing++)
			for (unsigned i = 0; i < KINDS; i++) {
				unsigned kind = (i + r) % (unsigned)KINDS;
				if (is_timed(kind, writing))
					samples[writing][kind][r] = time_requests(disks[kind], writing);
			}
}

static void print_tower(unsigned kind, unsigned writing)
{
	double added[MAX_REPETITIONS];
	struct bench_spread s;

	if (!is_timed(kind, writing))
		return;
	for (unsigned r = 0; r < options.repetitions; r++)
		added[r] = (samples[writing][kind][r] - samples[writing][0][r]) / HEIGHT;
	s = bench_spread_of(added, options.repetitions);
	printf("%-8s  %-5s  %6.1f  (%.1f..%.1f)\n", kinds[kind].name, writing ? "write" : "read", s.median, s.low, s.high);
}

/* ------------------------------------------------------------------ a stripe of slow members */

#define DEPTH 32u
#define SINGLE "delay:1:mem:1M"

struct load {
	struct disk *disk;
	size_t size; /* of a request */
	unsigned requests, done;
};

static void read_on(void *argument)
{
	struct load *l = argument;
	char *memory = bench_payload(l->size);
	uint64_t random = (uint64_t)(uintptr_t)memory | 1;

	while (l->done < l->requests) {
		uint64_t offset = bench_random(&random) % 32 * l->size;
		l->done++;
		if (disk_read(l->disk, &VEC_FLAT(memory, l->size), offset, &io_plain))
			bench_die("a request failed");
	}
	free(memory);
}

/* Bytes a second. */
static double run_load(const char *spec, size_t size, unsigned requests)
{
	struct load load = {.disk = open_disk(spec), .size = size, .requests = requests};
	struct loop *l;
	uint64_t begin;

	if (loop_create(NULL, &l, NULL))
		bench_die("no loop");
	for (unsigned i = 0; i < DEPTH; i++)
		if (loop_spawn(l, read_on, &load))
			bench_die("no memory");
	begin = wait_now();
	loop_stop(l);
	loop_run(l);
	begin = wait_now() - begin;
	loop_destroy(l);
	disk_close(load.disk, NULL);
	return (double)size * requests / ((double)begin / 1e9);
}

static void measure_stripe(void)
{
	unsigned requests = options.repetitions * 200;
	double one = run_load(SINGLE, BLOCK, requests);
	double four = run_load("striped:4K:[" SINGLE "," SINGLE "," SINGLE "," SINGLE "]", 4 * BLOCK, requests);

	printf("%u fibers read: one " SINGLE " %.0f MiB/s, a stripe of four %.0f MiB/s: %.2f members at once\n", DEPTH,
	       one / (1 << 20), four / (1 << 20), four / one);
}

static const struct option long_options[] = {
	{"quick", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

int main(int argc, char **argv)
{
	int which;

	while ((which = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (which != 'q') {
			printf("usage: bench-decorators [--quick]\n");
			return which == 'h' ? 0 : 2;
		}
		options.repetitions = 5;
	}
	buffer = bench_payload(BLOCK);
	measure_towers();
	printf("4 KiB requests: ns that a decorator with nothing to do adds; medians of %u repetitions (quartiles)\n",
	       options.repetitions);
	for (unsigned kind = 1; kind < KINDS; kind++)
		for (unsigned writing = 0; writing < 2; writing++)
			print_tower(kind, writing);
	for (unsigned i = 0; i < KINDS; i++)
		disk_close(disks[i], NULL);
	measure_stripe();
	return 0;
}

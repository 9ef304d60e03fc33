/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-nodes: what a node of the tree costs
 *
 * 4 KiB reads and writes go to one disk directly and through 1, 4, 16 and 64 decorators that forward
 * everything, on a plain thread and inside a fiber. What a node adds is the difference to the direct way
 * divided by the number of nodes, taken within a repetition, in which every case has its turn; reported are
 * medians over the repetitions. So a machine that is slow for a while is slow for both terms of a difference.
 *
 * The disk is small enough to stay in the cache: what is to be seen is the way to it. All nodes run without
 * the latency histogram, which costs two looks at the clock; the root of a tree that was opened has it on,
 * and "root with latency" says what that adds.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "bench/measure.h"
#include "core/loop.h"
#include "core/node.h"
#include "core/open.h"

#define BLOCK 4096u
#define DISK_BYTES (1u << 20)
#define DISK_BLOCKS (DISK_BYTES / BLOCK)
#define MAX_REPETITIONS 1001u

/* Nodes above the disk; ROOT is the disk alone with its latency measured. */
static const unsigned heights[] = {0, 1, 4, 16, 64};
#define HEIGHTS (sizeof(heights) / sizeof(heights[0]))
#define ROOT HEIGHTS
#define CASES (HEIGHTS + 1)

static const char *const leaf_names[] = {"null", "mem"};
static const char *const operation_names[] = {"read", "write"};
static const char *const place_names[] = {"thread", "fiber"};
#define LEAVES 2u
#define OPERATIONS 2u
#define PLACES 2u
#define ON_THREAD 0u
#define IN_FIBER 1u

static struct {
	unsigned repetitions, requests;
	bool json;
} options = {.repetitions = 101, .requests = 4000};

static struct disk *disks[LEAVES][CASES];
static char *buffer;

/* ns a request, of each repetition. */
static double samples[PLACES][LEAVES][OPERATIONS][CASES][MAX_REPETITIONS];

/* ------------------------------------------------------------------ the disks */

/* Forwards everything. */
static const struct disk_ops pass_ops = {0};

static struct disk *put_node_on(struct disk *below)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = disk_new(sizeof(*d), "pass", &pass_ops, &below, 1);

	if (!d)
		bench_die("no memory");
	disk_inherit(d);
	if (disk_publish(d, disk_size(below), &err))
		bench_die("%s", error_text(&err));
	return d;
}

static void fill(struct disk *d)
{
	for (uint64_t at = 0; at < DISK_BYTES; at += BLOCK)
		if (disk_write(d, &VEC_FLAT(buffer, BLOCK), at, &io_plain))
			bench_die("cannot fill the disk");
}

static struct disk *make_disk(const char *leaf, unsigned height)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;
	char spec[64];

	snprintf(spec, sizeof(spec), "%s:%u", leaf, DISK_BYTES);
	if (disk_open(spec, 0, &d, &err))
		bench_die("%s", error_text(&err));
	disk_measure_latency(d, false);
	fill(d);
	while (height--)
		d = put_node_on(d);
	return d;
}

static void make_disks(void)
{
	buffer = bench_payload(BLOCK);
	for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
		for (unsigned h = 0; h < HEIGHTS; h++)
			disks[leaf][h] = make_disk(leaf_names[leaf], heights[h]);
		disks[leaf][ROOT] = make_disk(leaf_names[leaf], 0);
		disk_measure_latency(disks[leaf][ROOT], true);
	}
}

static void close_disks(void)
{
	for (unsigned leaf = 0; leaf < LEAVES; leaf++)
		for (unsigned c = 0; c < CASES; c++)
			disk_close(disks[leaf][c], NULL);
}

/* ------------------------------------------------------------------ measuring */

static double time_requests(struct disk *d, bool writing)
{
	struct vec v = VEC_FLAT(buffer, BLOCK);
	uint64_t random = 1, begin = wait_now();
	int status = 0;

	for (unsigned i = 0; i < options.requests; i++) {
		uint64_t offset = bench_random(&random) % DISK_BLOCKS * BLOCK;
		status |=
			writing ? disk_write(d, &v, offset, &io_plain) : disk_read(d, &v, offset, &io_plain);
	}
	if (status)
		bench_die("a request failed");
	return (double)(wait_now() - begin) / options.requests;
}

struct turn {
	unsigned place, repetition;
};

/* Every case once. Where a repetition begins moves, so that no case always follows the same one. */
static void take_turn(void *argument)
{
	const struct turn *t = argument;

	for (unsigned leaf = 0; leaf < LEAVES; leaf++)
		for (unsigned op = 0; op < OPERATIONS; op++)
			for (unsigned i = 0; i < CASES; i++) {
				unsigned c = (i + t->repetition) % CASES;
				samples[t->place][leaf][op][c][t->repetition] =
					time_requests(disks[leaf][c], op == 1);
			}
}

static void take_turn_in_fiber(struct turn *t)
{
	CLEANUP_ERROR struct error err = {0};
	struct loop *l;

	if (loop_create(NULL, &l, &err))
		bench_die("%s", error_text(&err));
	if (loop_spawn(l, take_turn, t))
		bench_die("no memory");
	loop_stop(l);
	loop_run(l);
	loop_destroy(l);
}

static void measure(void)
{
	for (unsigned r = 0; r < options.repetitions; r++) {
		take_turn(&(struct turn){.place = ON_THREAD, .repetition = r});
		take_turn_in_fiber(&(struct turn){.place = IN_FIBER, .repetition = r});
	}
}

/* ------------------------------------------------------------------ reporting */

/* ns that case `c` takes more than the disk alone, over `divisor`. */
static struct bench_spread difference(double cases[CASES][MAX_REPETITIONS], unsigned c, double divisor)
{
	double differences[MAX_REPETITIONS];

	for (unsigned r = 0; r < options.repetitions; r++)
		differences[r] = (cases[c][r] - cases[0][r]) / divisor;
	return bench_spread_of(differences, options.repetitions);
}

static double median_of(const double *values)
{
	double copy[MAX_REPETITIONS];

	memcpy(copy, values, options.repetitions * sizeof(*copy));
	return bench_spread_of(copy, options.repetitions).median;
}

static void print_text(unsigned place, unsigned leaf, unsigned op)
{
	double(*cases)[MAX_REPETITIONS] = samples[place][leaf][op];
	struct bench_spread node;

	printf("%-6s  %-4s  %-5s", place_names[place], leaf_names[leaf], operation_names[op]);
	for (unsigned h = 0; h < HEIGHTS; h++)
		printf("  %7.1f", median_of(cases[h]));
	node = difference(cases, HEIGHTS - 1, heights[HEIGHTS - 1]);
	printf("  %6.2f  (%.2f..%.2f)  %+9.1f\n", node.median, node.low, node.high,
	       difference(cases, ROOT, 1).median);
}

static void print_json(unsigned place, unsigned leaf, unsigned op)
{
	double(*cases)[MAX_REPETITIONS] = samples[place][leaf][op];
	struct bench_spread node = difference(cases, HEIGHTS - 1, heights[HEIGHTS - 1]);

	printf(" {\"place\": \"%s\", \"disk\": \"%s\", \"operation\": \"%s\", \"ns\": {", place_names[place],
	       leaf_names[leaf], operation_names[op]);
	for (unsigned h = 0; h < HEIGHTS; h++)
		printf("%s\"%u\": %.2f", h ? ", " : "", heights[h], median_of(cases[h]));
	printf("}, \"ns_a_node\": {\"median\": %.3f, \"quartile_low\": %.3f, \"quartile_high\": %.3f}, "
	       "\"ns_latency\": %.2f}",
	       node.median, node.low, node.high, difference(cases, ROOT, 1).median);
}

static void print_head(void)
{
	printf("4 KiB requests: ns a request under that many pass-through nodes; medians of %u repetitions\n",
	       options.repetitions);
	printf("%-6s  %-4s  %-5s", "on", "disk", "");
	for (unsigned h = 0; h < HEIGHTS; h++)
		printf("  %7u", heights[h]);
	printf("  ns a node (quartiles)  root with latency\n");
}

static void print(void)
{
	bool first = true;

	if (options.json)
		printf("[\n");
	else
		print_head();
	for (unsigned place = 0; place < PLACES; place++)
		for (unsigned leaf = 0; leaf < LEAVES; leaf++)
			for (unsigned op = 0; op < OPERATIONS; op++) {
				if (options.json) {
					printf("%s", first ? "" : ",\n");
					print_json(place, leaf, op);
				} else {
					print_text(place, leaf, op);
				}
				first = false;
			}
	if (options.json)
		printf("\n]\n");
}

/* ------------------------------------------------------------------ command line */

static const struct option long_options[] = {
	{"json", no_argument, NULL, 'j'},
	{"quick", no_argument, NULL, 'q'},
	{"repetitions", required_argument, NULL, 'r'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *to)
{
	fprintf(to,
		"usage: bench-nodes [OPTION]...\n"
		"  --json             print JSON\n"
		"  --quick            few repetitions: does it work?\n"
		"  --repetitions=N    up to %u (101)\n",
		MAX_REPETITIONS);
}

static void parse_option(int which)
{
	long n;

	switch (which) {
	case 'j':
		options.json = true;
		return;
	case 'q':
		options.repetitions = 11;
		return;
	case 'r':
		n = strtol(optarg, NULL, 10);
		if (n < 1 || n > (long)MAX_REPETITIONS)
			bench_die("repetitions: '%s' is not a number from 1 to %u", optarg, MAX_REPETITIONS);
		options.repetitions = (unsigned)n;
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
	make_disks();
	measure();
	print();
	close_disks();
	return 0;
}

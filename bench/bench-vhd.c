/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-vhd: what a VHD adds to the file that it lies in
 *
 * 4 KiB reads and overwrites, at random, of blocks that are there: of a fixed image, a dynamic one, and a differencing one that holds
 * everything, against `file:` on the same file system. Within a round each case has a short turn, and the order moves; reported are
 * medians and quartiles of the rounds' ratios. bench/vhd.py measures what this does not: new blocks, and other programs.
 *
 * Instructions of an operation: valgrind --tool=callgrind --toggle-collect=disk_read bench/bench-vhd --rounds 1 --requests 10000 --case dynamic
 */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <unistd.h>

#include "bench/measure.h"
#include "core/open.h"

#define BLOCK 4096u
#define DISK_BYTES (64u << 20)
#define MAX_ROUNDS 1001u

static const struct {
	const char *name, *file, *options;
} cases[] = {
	{"file", "raw", ";create=64M"},
	{"fixed", "fixed.vhd", ";create=64M;type=fixed"},
	{"dynamic", "dynamic.vhd", ";create=64M"},
	{"differencing", "child.vhd", ";create;type=differencing;parent=parent.vhd"},
};
#define CASES (sizeof(cases) / sizeof(*cases))

static struct disk *disks[CASES]; /* NULL: not wanted */
static double samples[2][CASES][MAX_ROUNDS];
static unsigned rounds = 301, requests = 2000;
static char *buffer;

static struct disk *make_disk(unsigned c)
{
	CLEANUP_ERROR struct error err = {0};
	char spec[200];
	struct disk *d;

	snprintf(spec, sizeof(spec), "%s:%s%s", c ? "vhd" : "file", cases[c].file, cases[c].options);
	if (disk_open(spec, 0, &d, &err))
		bench_die("%s: %s", spec, error_text(&err));
	disk_measure_latency(d, false);
	for (uint64_t at = 0; at < DISK_BYTES; at += BLOCK)
		if (disk_write(d, &VEC_FLAT(buffer, BLOCK), at, &io_plain))
			bench_die("%s: cannot fill the disk", spec);
	if (disk_flush(d, &io_plain))
		bench_die("%s: cannot flush the disk", spec);
	return d;
}

static void make_parent(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (disk_open("vhd:parent.vhd;create=64M", 0, &d, &err) || disk_close(d, &err))
		bench_die("%s", error_text(&err));
}

static void make_disks(const char *only)
{
	make_parent();
	for (unsigned c = 0; c < CASES; c++)
		if (!only || !strcmp(only, cases[c].name))
			disks[c] = make_disk(c);
}

static double time_requests(struct disk *d, bool writing)
{
	struct vec v = VEC_FLAT(buffer, BLOCK);
	uint64_t random = 1, begin = wait_now();
	int status = 0;

	for (unsigned i = 0; i < requests; i++) {
		uint64_t offset = bench_random(&random) % (DISK_BYTES / BLOCK) * BLOCK;
		status |= writing ? disk_write(d, &v, offset, &io_plain) : disk_read(d, &v, offset, &io_plain);
	}
	if (status)
		bench_die("a request failed");
	return (double)(wait_now() - begin) / requests;
}

static void measure(void)
{
	for (unsigned r = 0; r < rounds; r++)
		for (unsigned op = 0; op < 2; op++)
			for (unsigned i = 0; i < CASES; i++) {
				unsigned c = (i + r) % CASES;
				if (disks[c])
					samples[op][c][r] = time_requests(disks[c], op);
			}
}

static void print(unsigned op, unsigned c)
{
	double ratios[MAX_ROUNDS];
	struct bench_spread of_file;

	for (unsigned r = 0; r < rounds; r++)
		ratios[r] = samples[op][0][r] / samples[op][c][r];
	of_file = bench_spread_of(ratios, rounds);
	printf("%-9s  %-12s  %.3f of file's operations a second (%.3f..%.3f), %.0f ns\n", op ? "overwrite" : "read", cases[c].name,
	       of_file.median, of_file.low, of_file.high, bench_spread_of(samples[op][c], rounds).median);
}

static unsigned number(const char *text, unsigned most)
{
	unsigned long n = strtoul(text, NULL, 10);

	if (!n || n > most)
		bench_die("'%s' is not 1 to %u", text, most);
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {{"quick", no_argument, NULL, 'q'},
						     {"rounds", required_argument, NULL, 'r'},
						     {"requests", required_argument, NULL, 'n'},
						     {"case", required_argument, NULL, 'c'},
						     {0}};
	char folder[] = "bench-vhd-XXXXXX";
	const char *only = NULL;
	int which;

	while ((which = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		if (which == 'q')
			rounds = 11;
		else if (which == 'r')
			rounds = number(optarg, MAX_ROUNDS);
		else if (which == 'n')
			requests = number(optarg, INT_MAX);
		else if (which == 'c')
			only = optarg;
		else
			bench_die("usage: bench-vhd [--quick] [--rounds N] [--requests N] [--case NAME]");
	if (!mkdtemp(folder) || chdir(folder))
		bench_die("cannot make a folder here");
	buffer = bench_payload(BLOCK);
	make_disks(only);
	measure();
	for (unsigned op = 0; op < 2 && !only; op++)
		for (unsigned c = 1; c < CASES; c++)
			print(op, c);
	for (unsigned c = 0; c < CASES; c++) {
		disk_close(disks[c], NULL);
		unlink(cases[c].file);
	}
	unlink("parent.vhd");
	return chdir("..") || rmdir(folder);
}

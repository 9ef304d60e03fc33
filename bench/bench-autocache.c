/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-autocache: what a warm cache costs against the file it caches
 *
 *     warm   reads through autocache, which holds all, and of the file itself, both in the page cache: 4 KiB at random by 1
 *            and 2 threads, 1 MiB in order. The goal is a ratio of 0.8. The processor time of the readers is counted:
 *            nothing here waits, and a machine that others use as well disturbs it less
 *     cold   reading everything once through an empty cache, against reading the file: what filling costs, waiting
 *            for the disk and all
 *
 * Rounds are interleaved, and who begins changes; a ratio is to the file in the same round.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "bench/measure.h"
#include "core/open.h"

#define MIB (1u << 20)
#define MAX_ROUNDS 101u
#define MAX_THREADS 2u

static struct {
	bool json;
	uint64_t size;
	unsigned rounds, cold_rounds;
	double seconds; /* of a random run */
} options = {.size = UINT64_C(256) << 20, .rounds = 21, .cold_rounds = 5, .seconds = 0.15};

static char folder[256], image[300];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void remove_folder(void)
{
	nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_image(void)
{
	const char *parent = getenv("TMPDIR");
	char *data = bench_payload(MIB);
	int fd;

	snprintf(folder, sizeof(folder), "%s/bench-autocache.XXXXXX", parent ? parent : "/tmp");
	if (!mkdtemp(folder))
		bench_die("mkdtemp: %s", strerror(errno));
	atexit(remove_folder);
	snprintf(image, sizeof(image), "%s/image", folder);
	fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	for (uint64_t at = 0; at < options.size; at += MIB) {
		memcpy(data, &at, sizeof(at));
		if (pwrite(fd, data, MIB, (off_t)at) != MIB)
			bench_die("cannot write %s: %s", image, strerror(errno));
	}
	fsync(fd); /* or it is written back while we measure */
	close(fd);
	free(data);
}

/* `cache`: the name of a root below our folder; NULL: the file itself. */
static struct disk *open_disk(const char *cache)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;
	char spec[800];

	if (cache)
		snprintf(spec, sizeof(spec), "autocache:;max=1T;root=%s/%s:file:%s;ro", folder, cache, image);
	else
		snprintf(spec, sizeof(spec), "file:%s;ro", image);
	if (disk_open(spec, 0, &d, &err))
		bench_die("%s", error_text(&err));
	return d;
}

static void read_at(struct disk *d, char *memory, size_t size, uint64_t offset)
{
	if (disk_read(d, &VEC_FLAT(memory, size), offset, &io_plain))
		bench_die("a read failed");
}

/* Of this thread, in ns. */
static uint64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Everything in order; bytes a second of the processor. */
static double read_all(struct disk *d)
{
	static char *memory;
	uint64_t begin;

	if (!memory)
		memory = bench_payload(MIB);
	begin = cpu_time();
	for (uint64_t at = 0; at < options.size; at += MIB)
		read_at(d, memory, MIB, at);
	return (double)options.size * 1e9 / (double)(cpu_time() - begin);
}

struct reader {
	pthread_t thread;
	struct disk *disk;
	uint64_t reads, begin, end, random;
};

static void *read_random(void *argument)
{
	struct reader *r = argument;
	char *memory = bench_payload(4096);
	uint64_t blocks = options.size / 4096, limit = (uint64_t)(options.seconds * 1e9);

	r->begin = cpu_time();
	do
		for (unsigned i = 0; i < 256; i++, r->reads++)
			read_at(r->disk, memory, 4096, bench_random(&r->random) % blocks * 4096);
	while (cpu_time() - r->begin < limit);
	r->end = cpu_time();
	free(memory);
	return NULL;
}

/* Reads by that many threads, a second of the processor each. */
static double random_rate(struct disk *d, unsigned threads)
{
	struct reader readers[MAX_THREADS];
	double rate = 0;

	for (unsigned i = 0; i < threads; i++) {
		readers[i] = (struct reader){.disk = d, .random = i + 1};
		if (pthread_create(&readers[i].thread, NULL, read_random, &readers[i]))
			bench_die("cannot make a thread");
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(readers[i].thread, NULL);
		rate += (double)readers[i].reads * 1e9 / (double)(readers[i].end - readers[i].begin);
	}
	return rate;
}

/* ------------------------------------------------------------------ rounds */

enum load { RANDOM_1, RANDOM_2, SEQUENTIAL, COLD, LOADS };

static const char *const names[LOADS] = {
	"4 KiB random, 1 thread", "4 KiB random, 2 threads", "1 MiB in order", "filling in order"};
static const char *const units[LOADS] = {"reads/s", "reads/s", "MiB/s", "MiB/s"};

/* A cache that is made for it, and gone afterwards; closing counts: entries come to the file then. */
static double cold_rate(const char *cache)
{
	uint64_t begin = wait_now();
	struct disk *d = open_disk(cache);

	read_all(d);
	disk_close(d, NULL);
	return (double)options.size * 1e9 / (double)(wait_now() - begin) / MIB;
}

static double rate_of(enum load load, struct disk *d, bool cached, unsigned round)
{
	char name[32];

	snprintf(name, sizeof(name), "cold-%u", round);
	if (load == COLD)
		return cold_rate(cached ? name : NULL);
	return load == SEQUENTIAL ? read_all(d) / MIB : random_rate(d, load == RANDOM_1 ? 1 : 2);
}

static void measure(enum load load, struct disk *file, struct disk *cache, bool first)
{
	unsigned rounds = load == COLD ? options.cold_rounds : options.rounds;
	double file_rates[MAX_ROUNDS], cache_rates[MAX_ROUNDS], ratios[MAX_ROUNDS];

	for (unsigned r = 0; r < rounds; r++) {
		for (unsigned i = 0; i < 2; i++)
			if ((i + r) % 2)
				file_rates[r] = rate_of(load, file, false, r);
			else
				cache_rates[r] = rate_of(load, cache, true, r);
		ratios[r] = cache_rates[r] / file_rates[r];
	}
	struct bench_spread ratio = bench_spread_of(ratios, rounds);
	double f = bench_spread_of(file_rates, rounds).median, c = bench_spread_of(cache_rates, rounds).median;

	if (options.json)
		printf("%s\n {\"load\": \"%s\", \"unit\": \"%s\", \"file\": %.1f, \"autocache\": %.1f, \"ratio\": "
		       "{\"median\": %.3f, \"quartile_low\": %.3f, \"quartile_high\": %.3f}}",
		       first ? "" : ",", names[load], units[load], f, c, ratio.median, ratio.low, ratio.high);
	else
		printf("%-24s %11.0f %11.0f %-8s %5.2f  (%.2f..%.2f)\n", names[load], f, c, units[load],
		       ratio.median, ratio.low, ratio.high);
}

static void run(void)
{
	struct disk *file = open_disk(NULL), *cache = open_disk("warm");

	read_all(cache);
	disk_close(cache, NULL);
	sync(); /* what was filled is not written back while we measure */
	cache = open_disk("warm");
	read_all(cache);
	printf(options.json ? "{\"autocache\": [" : "load                            file   autocache          ratio (quartiles)\n");
	for (enum load load = 0; load < LOADS; load++)
		measure(load, file, cache, !load);
	if (options.json)
		printf("]}\n");
	disk_close(cache, NULL);
	disk_close(file, NULL);
}

static const struct option long_options[] = {
	{"json", no_argument, NULL, 'j'},
	{"quick", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *to)
{
	fputs("usage: bench-autocache [OPTION]...\n"
	      "  --json     print JSON\n"
	      "  --quick    a small image and few rounds: does it work?\n",
	      to);
}

static void parse_option(int which)
{
	switch (which) {
	case 'j':
		options.json = true;
		return;
	case 'q':
		options.size = UINT64_C(32) << 20;
		options.rounds = options.cold_rounds = 3;
		options.seconds = 0.02;
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
	make_image();
	run();
	return 0;
}

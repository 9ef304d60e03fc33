/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-layers: what layers cost
 *
 * over a base   Reads of what nobody has written, through memdiff: over a base, against the same reads of the base itself:
 *               4 KiB at random and 1 MiB in order, of a file in the page cache, of a file mapped, and of memory; on a plain
 *               thread and in a fiber.
 * in a stack    4 KiB reads at random of a disk made of 1, 4, 16, 64 and 256 RAM layers, where every block is in one layer,
 *               each layer has an equal share, and chance says which; the same with a file at the bottom that has a share,
 *               too. Against the stack of 1.
 * a tall stack  How long it takes to make a disk of 1,000 such layers, and to read all of it.
 *
 * Everything is set up first. Then all cases take turns, in rounds whose order moves. A turn is short, so that most of them
 * pass while nobody else gets the processor. What is reported is the median, with quartiles, of the ratios within a round. No
 * node measures its latency.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <unistd.h>

#include "bench/measure.h"
#include "core/kind.h"
#include "core/loop.h"
#include "core/open.h"
#include "layers/layer.h"

#define BLOCK 4096u
#define LARGE (1u << 20)
#define MIB (UINT64_C(1) << 20)
#define MAX_ROUNDS 1001u
#define LARGE_READS 8u /* a turn */
#define TALL 1000u

static struct {
	unsigned rounds, requests;
	uint64_t size; /* of each disk, bytes */
	bool json;
} options = {.rounds = 301, .requests = 250, .size = 64 * MIB};

static char folder[200], image[256];
static char *buffer; /* LARGE */
static bool first_row = true;

/* ------------------------------------------------------------------ files that go away again */

static void remove_image(void)
{
	unlink(image);
	rmdir(folder);
}

/* Block `n` of every disk here: its number, all over. No byte at the end is zero. */
static void stamp(char *memory, uint64_t n)
{
	for (size_t i = 0; i < BLOCK; i += sizeof(n))
		memcpy(memory + i, &(uint64_t){n | UINT64_C(0x55) << 56}, sizeof(n));
}

static void make_image(void)
{
	const char *parent = getenv("TMPDIR");
	int fd;

	snprintf(folder, sizeof(folder), "%s/bench-layers.XXXXXX", parent && parent[0] ? parent : "/tmp");
	if (!mkdtemp(folder))
		bench_die("cannot make the folder %s", folder);
	snprintf(image, sizeof(image), "%s/image", folder);
	atexit(remove_image);
	fd = open(image, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	for (uint64_t at = 0; fd >= 0 && at < options.size; at += LARGE) {
		for (uint64_t i = 0; i < LARGE; i += BLOCK)
			stamp(buffer + i, (at + i) / BLOCK);
		if (write(fd, buffer, LARGE) != LARGE)
			bench_die("cannot write %s", image);
	}
	if (fd < 0 || fsync(fd))
		bench_die("cannot write %s", image);
	close(fd);
}

/* ------------------------------------------------------------------ disks */

static struct disk *open_disk(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (disk_open(spec, 0, &d, &err))
		bench_die("%s", error_text(&err));
	disk_measure_latency(d, false);
	return d;
}

static void must(int status)
{
	if (status)
		bench_die("a request failed: %s", strerror(-status));
}

static void fill_disk(struct disk *d)
{
	for (uint64_t at = 0; at < options.size; at += BLOCK) {
		stamp(buffer, at / BLOCK);
		must(disk_write(d, &VEC_FLAT(buffer, BLOCK), at, &io_plain));
	}
}

/* Every block is what it should be; in the page cache, too, after that. */
static void check_disk(struct disk *d)
{
	char expected[BLOCK];

	for (uint64_t at = 0; at < options.size; at += BLOCK) {
		must(disk_read(d, &VEC_FLAT(buffer, BLOCK), at, &io_plain));
		stamp(expected, at / BLOCK);
		if (memcmp(buffer, expected, BLOCK))
			bench_die("block %" PRIu64 " is wrong", at / BLOCK);
	}
}

static struct layer *new_layer(void)
{
	struct layer *l = ram_layer_create(options.size, BLOCK, 0);

	if (!l)
		bench_die("no memory");
	return l;
}

/* Each block into one of `height` layers; one share in `height` + 1 into none when there is a base. */
static void deal_blocks(struct layer_place *places, unsigned height, bool base)
{
	uint64_t random = 7 + height;

	for (uint64_t at = 0; at < options.size; at += BLOCK) {
		uint64_t i = bench_random(&random) % (height + base);
		stamp(buffer, at / BLOCK);
		if (i < height)
			must(places[i].layer->ops->write(places[i].layer, &VEC_FLAT(buffer, BLOCK), at, &io_plain));
	}
}

static struct disk *create(const struct layer_place *places, unsigned height, struct disk *base)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (layered_create("bench", places, height + (base != NULL), &base, base != NULL, 0, &d, &err))
		bench_die("%s", error_text(&err));
	return d;
}

static struct disk *make_stack(unsigned height, bool with_base)
{
	struct layer_place *places = calloc(height + 1, sizeof(*places));
	struct disk *base = NULL, *d;
	char spec[300];

	for (unsigned i = 0; places && i < height; i++)
		places[i].layer = new_layer();
	snprintf(spec, sizeof(spec), "file:%s;ro;block=%u", image, BLOCK);
	if (with_base) {
		base = open_disk(spec);
		places[height].layer = disk_layer_create(base);
	}
	deal_blocks(places, height, with_base);
	d = create(places, height, base);
	free(places);
	check_disk(d);
	return d;
}

/* ------------------------------------------------------------------ cases */

enum pattern {
	RANDOM,
	IN_ORDER,
};

/* A disk and how it is read: ns a request, of each round. */
struct measured {
	struct disk *disk;
	enum pattern pattern;
	bool in_fiber;
	double samples[MAX_ROUNDS];
};

static double time_reads(struct disk *d, enum pattern pattern, uint64_t seed)
{
	size_t length = pattern == RANDOM ? BLOCK : LARGE;
	uint64_t count = pattern == RANDOM ? options.requests : LARGE_READS;
	uint64_t blocks = options.size / length, random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15), begin;
	struct vec v = VEC_FLAT(buffer, length);
	int status = 0;

	begin = wait_now();
	for (uint64_t i = 0; i < count; i++) {
		uint64_t block = pattern == RANDOM ? bench_random(&random) % blocks : (seed * LARGE_READS + i) % blocks;
		status |= disk_read(d, &v, block * length, &io_plain);
	}
	if (status)
		bench_die("a request failed");
	return (double)(wait_now() - begin) / (double)count;
}

struct turn {
	struct measured *cases;
	unsigned count, round;
	bool in_fiber;
};

/*
 * Every case once. Where a round begins moves, and every other round goes backwards, so that no case always follows the same
 * one. Each reads other blocks: none finds in the processor's caches what the one before it has read.
 */
static void take_turn(void *argument)
{
	const struct turn *t = argument;

	for (unsigned i = 0; i < t->count; i++) {
		unsigned c = (i + t->round / 2) % t->count;
		struct measured *m = &t->cases[t->round & 1 ? t->count - 1 - c : c];
		if (m->in_fiber == t->in_fiber)
			m->samples[t->round] = time_reads(m->disk, m->pattern, t->round * t->count + c);
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

static void measure(struct measured *cases, unsigned count)
{
	for (unsigned r = 0; r < options.rounds; r++) {
		take_turn(&(struct turn){cases, count, r, false});
		take_turn_in_fiber(&(struct turn){cases, count, r, true});
	}
}

static double median_of(const struct measured *m)
{
	double copy[MAX_ROUNDS];

	memcpy(copy, m->samples, options.rounds * sizeof(*copy));
	return bench_spread_of(copy, options.rounds).median;
}

static struct bench_spread ratio_of(const struct measured *m, const struct measured *to)
{
	double ratios[MAX_ROUNDS];

	for (unsigned r = 0; r < options.rounds; r++)
		ratios[r] = m->samples[r] / to->samples[r];
	return bench_spread_of(ratios, options.rounds);
}

/* ------------------------------------------------------------------ reporting */

static void print_row(const char *what, const char *name, const struct measured *m, const struct measured *to)
{
	struct bench_spread ratio = ratio_of(m, to);

	if (options.json)
		printf("%s {\"what\": \"%s\", \"case\": \"%s\", \"ns\": %.1f, \"ns_compared\": %.1f, \"ratio\": "
		       "{\"median\": %.4f, \"quartile_low\": %.4f, \"quartile_high\": %.4f}}",
		       first_row ? "" : ",\n", what, name, median_of(m), median_of(to), ratio.median, ratio.low,
		       ratio.high);
	else
		printf("%-34s  %11.1f  %11.1f  %6.3f  (%.3f..%.3f)\n", name, median_of(to), median_of(m),
		       ratio.median, ratio.low, ratio.high);
	first_row = false;
}

static void print_head(const char *title, const char *compared, const char *with)
{
	if (!options.json)
		printf("%s; medians of %u rounds\n%-34s  %11s  %11s  ratio (quartiles)\n", title, options.rounds, "",
		       compared, with);
}

/* ------------------------------------------------------------------ over a base */

static const char *const bases[] = {"file", "mmap", "mem"};
#define BASES 3u

static struct disk *open_base(unsigned base, const char *above)
{
	char spec[400];
	struct disk *d;

	if (base < 2) {
		snprintf(spec, sizeof(spec), "%s%s:%s;block=%u", above, bases[base], image, BLOCK);
		d = open_disk(spec);
		check_disk(d);
		return d;
	}
	snprintf(spec, sizeof(spec), "mem:%" PRIu64 ";block=%u", options.size, BLOCK);
	d = open_disk(spec);
	fill_disk(d);
	return d;
}

/*
 * memdiff: over something that is not a layered disk, as a user gets it; over mem: the two layers become one stack, and
 * what was written before is below.
 */
static struct disk *open_above(unsigned base)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer_place top = {.layer = NULL};
	struct disk *below, *d;

	if (base < 2)
		return open_base(base, "memdiff:");
	below = open_base(base, "");
	top.layer = new_layer();
	if (layered_create_over("memdiff", &top, below, 0, &d, &err))
		bench_die("%s", error_text(&err));
	check_disk(d);
	return d;
}

static void bench_bases(void)
{
	static struct measured cases[BASES * 8];
	struct disk *disks[BASES][2];

	for (unsigned b = 0; b < BASES; b++) {
		disks[b][0] = open_base(b, "");
		disks[b][1] = open_above(b);
	}
	for (unsigned i = 0; i < BASES * 8; i++)
		cases[i] = (struct measured){.disk = disks[i / 8][i & 1], .pattern = i / 2 & 1, .in_fiber = i / 4 & 1};
	measure(cases, BASES * 8);
	print_head("memdiff: over a base, reads of what is unwritten: ns a request", "base", "memdiff");
	for (unsigned i = 0; i < BASES * 8; i += 2) {
		char name[60];
		snprintf(name, sizeof(name), "%s, %s, %s", bases[i / 8], i / 2 & 1 ? "1 MiB in order" : "4 KiB random",
			 i / 4 & 1 ? "fiber" : "thread");
		print_row("memdiff", name, &cases[i + 1], &cases[i]);
	}
	for (unsigned b = 0; b < BASES; b++) {
		disk_close(disks[b][0], NULL);
		disk_close(disks[b][1], NULL);
	}
}

/* ------------------------------------------------------------------ in a stack */

static const unsigned heights[] = {1, 4, 16, 64, 256};
#define HEIGHTS (sizeof(heights) / sizeof(heights[0]))

static void bench_stacks(bool with_base)
{
	static struct measured cases[HEIGHTS];

	for (unsigned h = 0; h < HEIGHTS; h++)
		cases[h] = (struct measured){.disk = make_stack(heights[h], with_base)};
	measure(cases, HEIGHTS);
	print_head(with_base ? "RAM layers over a file with a share of its own, 4 KiB random reads: ns a request"
			     : "RAM layers, 4 KiB random reads: ns a request",
		   "1 layer", "so many");
	for (unsigned h = 0; h < HEIGHTS; h++) {
		char name[60];
		snprintf(name, sizeof(name), "%u layers%s", heights[h], with_base ? " over a file" : "");
		print_row(with_base ? "stack over a file" : "stack", name, &cases[h], &cases[0]);
		disk_close(cases[h].disk, NULL);
	}
}

/* ------------------------------------------------------------------ a tall stack */

static void bench_tall(void)
{
	struct layer_place *places = calloc(TALL, sizeof(*places));
	uint64_t begin, layers, made, read;
	struct disk *d;

	begin = wait_now();
	for (unsigned i = 0; places && i < TALL; i++)
		places[i].layer = new_layer();
	layers = wait_now() - begin;
	deal_blocks(places, TALL, false);
	begin = wait_now();
	d = create(places, TALL, NULL);
	made = wait_now() - begin;
	check_disk(d);
	begin = wait_now();
	check_disk(d);
	read = (wait_now() - begin) / (options.size / BLOCK);
	begin = wait_now();
	disk_close(d, NULL);
	free(places);
	if (options.json)
		printf(",\n {\"what\": \"tall stack\", \"layers\": %u, \"ms_layers\": %.3f, \"ms_create\": %.3f, "
		       "\"ns_read_4k\": %" PRIu64 ", \"ms_close\": %.3f}",
		       TALL, (double)layers / 1e6, (double)made / 1e6, read, (double)(wait_now() - begin) / 1e6);
	else
		printf("%u layers: %.2f ms to make them, %.2f ms to make a disk of them, %" PRIu64
		       " ns to read 4 KiB in order and compare, %.2f ms to close\n",
		       TALL, (double)layers / 1e6, (double)made / 1e6, read, (double)(wait_now() - begin) / 1e6);
}

/* ------------------------------------------------------------------ command line */

static const struct option long_options[] = {
	{"json", no_argument, NULL, 'j'},	  {"quick", no_argument, NULL, 'q'},
	{"rounds", required_argument, NULL, 'r'}, {"size", required_argument, NULL, 's'},
	{"help", no_argument, NULL, 'h'},	  {0},
};

static void usage(FILE *to)
{
	fprintf(to,
		"usage: bench-layers [OPTION]...\n"
		"  --json        print JSON\n"
		"  --quick       small disks, few rounds: does it work?\n"
		"  --rounds=N    up to %u (301)\n"
		"  --size=MIB    of each disk, up to 1024 (64); takes that much memory twelve times\n",
		MAX_ROUNDS);
}

static unsigned long number(const char *name, unsigned long most)
{
	char *end;
	unsigned long n = strtoul(optarg, &end, 10);

	if (n < 1 || n > most || *end)
		bench_die("%s: '%s' is not a number from 1 to %lu", name, optarg, most);
	return n;
}

static void parse_option(int which)
{
	switch (which) {
	case 'j':
		options.json = true;
		return;
	case 'q':
		options.rounds = 21;
		options.requests = 100;
		options.size = 16 * MIB;
		return;
	case 'r':
		options.rounds = (unsigned)number("rounds", MAX_ROUNDS);
		return;
	case 's':
		options.size = number("size", 1024) * MIB;
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
	buffer = bench_payload(LARGE);
	make_image();
	if (options.json)
		printf("[\n");
	bench_bases();
	bench_stacks(false);
	bench_stacks(true);
	bench_tall();
	if (options.json)
		printf("\n]\n");
	return 0;
}

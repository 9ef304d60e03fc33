/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-prwrap: what persistent reservations cost a request
 *
 * 4 KiB reads and writes go to a disk in memory directly and through prwrap: with nobody registered, with a reservation that
 * keeps others from writing and is held by who asks, and with one of all of 8192 registrants, of whom who asks is one. What it
 * adds is the difference to the direct way within a round, in which each case has a short turn and whose order moves; reported
 * are medians and quartiles.
 */
#include <getopt.h>
#include <inttypes.h>

#include "bench/measure.h"
#include "core/open.h"
#include "decorators/reservations.h"

#define BLOCK 4096u
#define DISK_BYTES (1u << 20)
#define MAX_ROUNDS 1001u

static const char *const names[] = {"the disk alone", "nobody registered", "one holds it", "8192 registered"};
#define CASES (sizeof(names) / sizeof(*names))

static struct disk *disks[CASES];
static double samples[2][CASES][MAX_ROUNDS];
static unsigned rounds = 301, requests = 4000;
static const struct initiator asker = {.id = {128}};
static char *buffer;

static struct disk *make_disk(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (disk_open(spec, 0, &d, &err))
		bench_die("%s", error_text(&err));
	disk_measure_latency(d, false);
	for (uint64_t at = 0; at < DISK_BYTES; at += BLOCK)
		if (disk_write(d, &VEC_FLAT(buffer, BLOCK), at, &io_plain))
			bench_die("cannot fill the disk");
	return d;
}

static void act(struct disk *d, const struct initiator *who, struct reservation_request request)
{
	struct failure failure = {0};
	struct io io = {.who = who, .failure = &failure};

	if (disk_reserve(d, &request, &io))
		bench_die("%s", failure.text);
}

static void reserve(struct disk *d, uint32_t others, enum reservation_type type)
{
	for (uint32_t i = 0; i < others; i++) {
		struct initiator who = {.id = {(uint8_t)(i >> 8), (uint8_t)i, 1}};
		act(d, &who, (struct reservation_request){.action = RESERVATION_REGISTER_IGNORING, .new_key = 1, .persist = -1});
	}
	act(d, &asker, (struct reservation_request){.action = RESERVATION_REGISTER, .new_key = 1, .persist = -1});
	act(d, &asker, (struct reservation_request){.action = RESERVATION_RESERVE, .key = 1, .type = type});
}

static double time_requests(struct disk *d, bool writing)
{
	const struct io io = {.who = &asker};
	struct vec v = VEC_FLAT(buffer, BLOCK);
	uint64_t random = 1, begin = wait_now();
	int status = 0;

	for (unsigned i = 0; i < requests; i++) {
		uint64_t offset = bench_random(&random) % (DISK_BYTES / BLOCK) * BLOCK;
		status |= writing ? disk_write(d, &v, offset, &io) : disk_read(d, &v, offset, &io);
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
				samples[op][c][r] = time_requests(disks[c], op == 1);
			}
}

static void print(unsigned op, unsigned c)
{
	double differences[MAX_ROUNDS];
	struct bench_spread added;

	for (unsigned r = 0; r < rounds; r++)
		differences[r] = samples[op][c][r] - samples[op][0][r];
	added = bench_spread_of(differences, rounds);
	printf("%-5s  %-18s  adds %6.1f ns (%.1f..%.1f)\n", op ? "write" : "read", names[c], added.median, added.low,
	       added.high);
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {{"quick", no_argument, NULL, 'q'}, {0}};
	int which;

	while ((which = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (which != 'q')
			bench_die("usage: bench-prwrap [--quick]");
		rounds = 11;
	}
	buffer = bench_payload(BLOCK);
	for (unsigned c = 0; c < CASES; c++)
		disks[c] = make_disk(c ? "prwrap:mem:1M" : "mem:1M");
	reserve(disks[2], 0, RESERVATION_EXCLUSIVE_ACCESS);
	reserve(disks[3], RESERVATIONS_MAX - 1, RESERVATION_EXCLUSIVE_ACCESS_ALL);
	measure();
	for (unsigned op = 0; op < 2; op++)
		for (unsigned c = 1; c < CASES; c++)
			print(op, c);
	for (unsigned c = 0; c < CASES; c++)
		disk_close(disks[c], NULL);
	return 0;
}

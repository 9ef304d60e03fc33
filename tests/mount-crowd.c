/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount-crowd [NAME=VALUE...] FILE : many processes write and read one file at the same time. Pieces of the
 * file belong to them in turn, so that neighbours share blocks and pages; each checks that its own pieces are
 * always what it wrote last, and reads those of others, too. At first the file is all zeroes.
 *
 *     processes=N (8)  seconds=N (2)  piece=BYTES (100)
 *     seed=N           what the processes do is the same, but not when
 *     direct=1         O_DIRECT
 *     map=1            half of all is done through a shared mapping
 *     punch=1          pieces are punched, too
 *
 * 0 when all was well; 1 after having said what was not.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/mount-random.h"

static uint64_t processes, piece, pieces, size;
static bool with_map, with_punch;
static unsigned char *map;

/* One process. */
static uint64_t me;
static int fd;
static uint32_t *generations; /* of own pieces; 0: as it was, zero */
static unsigned char *data, *wanted;

static void fill(unsigned char *to, uint64_t number, uint32_t generation)
{
	uint64_t seed = number << 32 | generation;

	for (uint64_t i = 0; i < piece; i++) {
		if (i % 8 == 0)
			seed = (seed ^ (seed >> 29)) * UINT64_C(0xbf58476d1ce4e5b9) + i;
		to[i] = generation ? (unsigned char)(seed >> (i % 8 * 8)) : 0;
	}
}

static bool transfer(bool write, unsigned char *bytes, uint64_t offset, uint64_t length)
{
	if (map && random_below(2)) {
		memcpy(write ? map + offset : bytes, write ? bytes : map + offset, length);
		return true;
	}
	if ((write ? pwrite(fd, bytes, length, (off_t)offset) : pread(fd, bytes, length, (off_t)offset)) ==
	    (ssize_t)length)
		return true;
	printf("process %" PRIu64 ": %s of %" PRIu64 " bytes at %" PRIu64 ": %s\n", me,
	       write ? "write" : "read", length, offset, strerror(errno));
	return false;
}

static bool check(uint64_t number, const char *when)
{
	if (!transfer(false, data, number * piece, piece))
		return false;
	fill(wanted, number, generations[number / processes]);
	for (uint64_t i = 0; i < piece; i++)
		if (data[i] != wanted[i]) {
			printf("process %" PRIu64 ": piece %" PRIu64 " (at %" PRIu64
			       "), generation %u, %s: byte %" PRIu64 " is 0x%02x, not 0x%02x\n",
			       me, number, number * piece, generations[number / processes], when, i, data[i],
			       wanted[i]);
			return false;
		}
	return true;
}

static bool change(uint64_t number)
{
	uint32_t *generation = &generations[number / processes];

	if (with_punch && random_below(4) == 0) {
		*generation = 0;
		return fallocate(fd, 3, (off_t)(number * piece), (off_t)piece) == 0;
	}
	*generation = (uint32_t)random_next() | 1;
	fill(data, number, *generation);
	return transfer(true, data, number * piece, piece);
}

static bool one_step(void)
{
	uint64_t number = random_below(pieces / processes) * processes + me;
	uint64_t any = random_below(pieces);

	switch (random_below(8)) {
	case 0:
		return transfer(false, data, any * piece, piece);
	case 1:
		return random_below(8) || fdatasync(fd) == 0;
	case 2:
	case 3:
		return check(number, "some time after");
	default:
		return change(number) && check(number, "at once");
	}
}

static int run(double seconds)
{
	struct timespec begin, now;
	uint64_t steps = 0;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		if (!one_step())
			return 1;
		clock_gettime(CLOCK_MONOTONIC, &now);
		steps++;
	} while ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 < seconds);
	for (uint64_t number = me; number < pieces; number += processes)
		if (!check(number, "at the end"))
			return 1;
	printf("process %" PRIu64 ": %" PRIu64 " steps\n", me, steps);
	return 0;
}

static int begin(char **argv, const char *path)
{
	fd = open(path, O_RDWR | O_CLOEXEC | (argument_number(argv, "direct", 0) ? O_DIRECT : 0));
	generations = calloc(pieces / processes + 1, sizeof(*generations));
	if (fd < 0 || !generations || posix_memalign((void **)&data, 4096, piece) ||
	    posix_memalign((void **)&wanted, 4096, piece)) {
		perror(path);
		return 1;
	}
	if (with_map) {
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED) {
			perror("mmap");
			return 1;
		}
	}
	random_state = argument_number(argv, "seed", 1) * 1000 + me;
	return run((double)argument_number(argv, "seconds", 2));
}

static int wait_for_all(void)
{
	int status, result = 0;

	for (uint64_t i = 0; i < processes; i++)
		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
			result = 1;
	return result;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[argc - 1] : "";
	struct stat st;

	if (stat(path, &st)) {
		perror(path);
		return 2;
	}
	size = (uint64_t)st.st_size;
	processes = argument_number(argv, "processes", 8);
	piece = argument_number(argv, "piece", 100);
	with_map = argument_number(argv, "map", 0);
	with_punch = argument_number(argv, "punch", 0);
	pieces = size / piece / processes * processes;
	for (me = 0; me < processes; me++) {
		pid_t child = fork();

		if (child == 0) {
			int status = begin(argv, path);

			fflush(stdout);
			_exit(status);
		}
		if (child < 0)
			return 1;
	}
	return wait_for_all();
}

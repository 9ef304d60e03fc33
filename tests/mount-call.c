/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount-call CALL FILE ARG... : one system call on a file, for what no program of the system shows plainly.
 *
 *     write FILE OFFSET LENGTH BYTE [FLAG]     pwrite(2), FLAG: direct, sync
 *     read FILE OFFSET LENGTH [FLAG]           pread(2)
 *     truncate FILE SIZE [open]                truncate(2), or ftruncate(2) of the open file
 *     allocate FILE MODE OFFSET LENGTH         fallocate(2): a number
 *     seek FILE data|hole OFFSET               lseek(2)
 *     map FILE OFFSET LENGTH BYTE [FLAG]       mmap(2), shared, and fill
 *                                              FLAG: sync, or wait: until standard input ends
 *     copy FILE OFFSET TO OFFSET LENGTH        copy_file_range(2), until all is copied
 *     open FILE FLAG...                        open(2): read, write, create, exclusive, trunc, direct
 *     fsync FILE, fdatasync FILE
 *     log FILE COUNT                           writes COUNT blocks of 4096 bytes that tell their number,
 *                                              and prints it once its block is durable
 *     checklog FILE COUNT                      the blocks before COUNT are those
 *     listen SOCKET COUNT                      binds a datagram socket and prints COUNT messages
 *
 * Prints what the call returned, or the name of its error, and exits with 0; 1 where something before it
 * failed, and where a block is not what log wrote.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BLOCK_BYTES 4096

static void die(const char *what)
{
	printf("%s: %s\n", what, strerrorname_np(errno));
	exit(1);
}

static int tell(intmax_t result)
{
	if (result < 0)
		puts(strerrorname_np(errno));
	else
		printf("%jd\n", result);
	return 0;
}

/* With an optional K, M, G, T or P. */
static int64_t number(const char *text)
{
	static const char units[] = "KMGTP";
	char *end;
	long long n = strtoll(text, &end, 0);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == text || (*end && (!unit || end[1]))) {
		fprintf(stderr, "mount-call: not a number: %s\n", text);
		exit(2);
	}
	return unit ? n << (10 * (unit - units + 1)) : n;
}

static int flag(const char *word)
{
	static const struct {
		const char *word;
		int flag;
	} table[] = {{"read", O_RDONLY},    {"write", O_RDWR},	{"create", O_CREAT},
		     {"exclusive", O_EXCL}, {"trunc", O_TRUNC}, {"direct", O_DIRECT},
		     {"sync", O_SYNC},	    {"wait", 0},	{"open", 0}};

	for (size_t i = 0; word && i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(word, table[i].word) == 0)
			return table[i].flag;
	return 0;
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		die("open");
	return fd;
}

static void *filled(size_t size, int byte)
{
	void *memory;


	if (posix_memalign(&memory, BLOCK_BYTES, size ? size : 1)) {
		errno = ENOMEM;
		die("memory");
	}
	return memset(memory, byte, size);
}

static int call_write(char **a)
{
	size_t size = (size_t)number(a[2]);
	void *data = filled(size, (int)number(a[3]));
	int fd = open_file(a[0], O_RDWR | flag(a[4]));

	tell(pwrite(fd, data, size, number(a[1])));
	free(data);
	return 0;
}

static int call_read(char **a)
{
	size_t size = (size_t)number(a[2]);
	void *data = filled(size, 0);
	int fd = open_file(a[0], O_RDONLY | flag(a[3]));

	tell(pread(fd, data, size, number(a[1])));
	free(data);
	return 0;
}

static int call_truncate(char **a)
{
	return tell(a[2] ? ftruncate(open_file(a[0], O_RDWR), number(a[1])) : truncate(a[0], number(a[1])));
}

static int call_allocate(char **a)
{
	return tell(fallocate(open_file(a[0], O_RDWR), (int)number(a[1]), number(a[2]), number(a[3])));
}

static int call_seek(char **a)
{
	return tell(lseek(open_file(a[0], O_RDONLY), number(a[2]),
			  strcmp(a[1], "hole") == 0 ? SEEK_HOLE : SEEK_DATA));
}

static int call_map(char **a)
{
	size_t size = (size_t)number(a[2]);
	int fd = open_file(a[0], O_RDWR);
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, number(a[1]));

	if (map == MAP_FAILED)
		return tell(-1);
	close(fd);
	memset(map, (int)number(a[3]), size);
	tell(a[4] && strcmp(a[4], "sync") == 0 ? msync(map, size, MS_SYNC) : 0);
	fflush(stdout);
	while (a[4] && strcmp(a[4], "wait") == 0 && getchar() != EOF)
		;
	return munmap(map, size) ? tell(-1) : 0;
}

static int call_copy(char **a)
{
	int from = open_file(a[0], O_RDONLY), to = open_file(a[2], O_RDWR);
	off_t from_at = number(a[1]), to_at = number(a[3]);
	int64_t left = number(a[4]), done = 0;

	while (left > 0) {
		ssize_t n = copy_file_range(from, &from_at, to, &to_at, (size_t)left, 0);

		if (n < 0)
			return tell(-1);
		if (n == 0)
			break;
		left -= n;
		done += n;
	}
	return tell(done);
}

static int call_open(char **a)
{
	int flags = 0, fd;

	for (char **f = a + 1; *f; f++)
		flags |= flag(*f);
	fd = open(a[0], flags | O_CLOEXEC, 0600);
	return tell(fd < 0 ? -1 : 0);
}

static int call_fsync(char **a)
{
	return tell(fsync(open_file(a[0], O_RDWR)));
}

static int call_fdatasync(char **a)
{
	return tell(fdatasync(open_file(a[0], O_RDWR)));
}

/* ------------------------------------------------------------------ blocks that tell their number */

static void fill_block(uint64_t *block, uint64_t n)
{
	for (size_t i = 0; i < BLOCK_BYTES / sizeof(*block); i++)
		block[i] = (n + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

static int call_log(char **a)
{
	int fd = open_file(a[0], O_RDWR);
	uint64_t block[BLOCK_BYTES / 8], count = (uint64_t)number(a[1]);

	for (uint64_t n = 0; n < count; n++) {
		fill_block(block, n);
		if (pwrite(fd, block, sizeof(block), (off_t)(n * BLOCK_BYTES)) != BLOCK_BYTES ||
		    fdatasync(fd))
			return 1;
		printf("%" PRIu64 "\n", n);
		fflush(stdout);
	}
	return 0;
}

static int call_checklog(char **a)
{
	int fd = open_file(a[0], O_RDONLY);
	uint64_t block[BLOCK_BYTES / 8], wanted[BLOCK_BYTES / 8], count = (uint64_t)number(a[1]);

	for (uint64_t n = 0; n < count; n++) {
		fill_block(wanted, n);
		if (pread(fd, block, sizeof(block), (off_t)(n * BLOCK_BYTES)) != BLOCK_BYTES ||
		    memcmp(block, wanted, sizeof(block)) != 0) {
			printf("block %" PRIu64 " is not what was written\n", n);
			return 1;
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ messages */

static int call_listen(char **a)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[256];

	if (strlen(a[0]) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		die("listen");
	}
	strcpy(address.sun_path, a[0]);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("bind");
	for (int64_t i = number(a[1]); i > 0; i--) {
		ssize_t n = recv(fd, text, sizeof(text), 0);

		if (n < 0)
			die("recv");
		printf("%.*s\n", (int)n, text);
		fflush(stdout);
	}
	return 0;
}

static const struct {
	const char *name;
	int operands;
	int (*call)(char **operands);
} calls[] = {
	{"write", 4, call_write},	{"read", 3, call_read},		{"truncate", 2, call_truncate},
	{"allocate", 4, call_allocate}, {"seek", 3, call_seek},		{"map", 4, call_map},
	{"copy", 5, call_copy},		{"open", 1, call_open},		{"fsync", 1, call_fsync},
	{"log", 2, call_log},		{"checklog", 2, call_checklog}, {"fdatasync", 1, call_fdatasync},
	{"listen", 2, call_listen},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(calls) / sizeof(calls[0]); i++)
		if (strcmp(argv[1], calls[i].name) == 0 && argc - 2 >= calls[i].operands)
			return calls[i].call(argv + 2);
	fputs("usage: mount-call CALL FILE ARG...\n", stderr);
	return 2;
}

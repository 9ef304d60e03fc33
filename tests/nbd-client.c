/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd-client URI COMMAND... : one connection, the commands in order. Ends with 1 at the first that goes
 * wrong.
 *
 *     write OFFSET LENGTH PATTERN [fua]           PATTERN is a byte (0x5a)
 *     read OFFSET LENGTH PATTERN                  and compare
 *     zero OFFSET LENGTH [fua] [no-hole] [fast]
 *     trim OFFSET LENGTH [fua]
 *     cache OFFSET LENGTH
 *     flush
 *     status OFFSET LENGTH [one]                  prints "OFFSET LENGTH data|hole,zero|..." lines
 *     can WHAT                                    prints WHAT=0 or WHAT=1
 *     fails ERRNO COMMAND                         the command is refused with EPERM, ENOSPC, ...
 *     sleep MS
 *
 * Numbers may end in K, M, G. Requests the server did not advertise are sent all the same.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#define MAX_WORDS 8

static struct nbd_handle *nbd;

static void die(const char *what)
{
	fprintf(stderr, "nbd-client: %s\n", what);
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	static const char units[] = "KMG";
	const char *unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		n <<= 10 * (unit - units + 1);
		end++;
	}
	if (end == text || *end)
		die("not a number");
	return n;
}

static uint32_t flags_of(char **words)
{
	static const struct {
		const char *word;
		uint32_t flag;
	} known[] = {
		{"fua", LIBNBD_CMD_FLAG_FUA},
		{"no-hole", LIBNBD_CMD_FLAG_NO_HOLE},
		{"fast", LIBNBD_CMD_FLAG_FAST_ZERO},
		{"one", LIBNBD_CMD_FLAG_REQ_ONE},
	};
	uint32_t flags = 0;

	for (; *words; words++)
		for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
			if (!strcmp(*words, known[i].word))
				flags |= known[i].flag;
	return flags;
}

static void *buffer(uint64_t length, int pattern)
{
	void *p = malloc(length ? length : 1);

	if (!p)
		die("no memory");
	return memset(p, pattern, length);
}

static int do_write(char **w)
{
	uint64_t length = number(w[2]);
	void *data = buffer(length, (int)number(w[3]));
	int r = nbd_pwrite(nbd, data, length, number(w[1]), flags_of(w + 4));

	free(data);
	return r;
}

static int do_read(char **w)
{
	uint64_t length = number(w[2]);
	int pattern = (int)number(w[3]);
	unsigned char *data = buffer(length, ~pattern);
	int r = nbd_pread(nbd, data, length, number(w[1]), 0);

	for (uint64_t i = 0; r == 0 && i < length; i++) {
		if (data[i] != pattern) {
			fprintf(stderr, "byte %" PRIu64 " is 0x%02x, expected 0x%02x\n", number(w[1]) + i,
				data[i], pattern);
			exit(1);
		}
	}
	free(data);
	return r;
}

static int do_zero(char **w)
{
	return nbd_zero(nbd, number(w[2]), number(w[1]), flags_of(w + 3));
}

static int do_trim(char **w)
{
	return nbd_trim(nbd, number(w[2]), number(w[1]), flags_of(w + 3));
}

static int do_cache(char **w)
{
	return nbd_cache(nbd, number(w[2]), number(w[1]), 0);
}

static int do_flush(char **w)
{
	(void)w;
	return nbd_flush(nbd, 0);
}

static int print_runs(void *offset, const char *metacontext, uint64_t at, uint32_t *entries, size_t nr,
		      int *error)
{
	(void)offset;
	(void)metacontext;
	(void)error;
	for (size_t i = 0; i + 1 < nr; i += 2) {
		static const char *const names[] = {"data", "hole", "zero", "hole,zero"};
		printf("%" PRIu64 " %" PRIu32 " %s\n", at, entries[i], names[entries[i + 1] & 3]);
		at += entries[i];
	}
	return 0;
}

static int do_status(char **w)
{
	return nbd_block_status(nbd, number(w[2]), number(w[1]),
				(nbd_extent_callback){.callback = print_runs}, flags_of(w + 3));
}

static int do_can(char **w)
{
	static const struct {
		const char *word;
		int (*ask)(struct nbd_handle *);
	} known[] = {
		{"read-only", nbd_is_read_only},
		{"flush", nbd_can_flush},
		{"fua", nbd_can_fua},
		{"trim", nbd_can_trim},
		{"zero", nbd_can_zero},
		{"fast-zero", nbd_can_fast_zero},
		{"cache", nbd_can_cache},
		{"multi-conn", nbd_can_multi_conn},
		{"df", nbd_can_df},
		{"rotational", nbd_is_rotational},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(w[1], known[i].word))
			return printf("%s=%d\n", w[1], known[i].ask(nbd)) < 0;
	die("can what?");
	return -1;
}

static int do_sleep(char **w)
{
	return usleep((useconds_t)number(w[1]) * 1000);
}

static const struct {
	const char *name;
	size_t arguments;
	int (*run)(char **words);
} commands[] = {
	{"write", 3, do_write},	  {"read", 3, do_read},	  {"zero", 2, do_zero},
	{"trim", 2, do_trim},	  {"cache", 2, do_cache}, {"flush", 0, do_flush},
	{"status", 2, do_status}, {"can", 1, do_can},	  {"sleep", 1, do_sleep},
};

static int run(char **words, size_t nr)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(words[0], commands[i].name))
			continue;
		if (nr < commands[i].arguments + 1)
			die("an argument is missing");
		return commands[i].run(words);
	}
	die("no such command");
	return -1;
}

/* The number of an errno by its name, as far as NBD knows them. */
static int errno_of(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {
		{"EPERM", EPERM},     {"EIO", EIO},
		{"ENOMEM", ENOMEM},   {"EINVAL", EINVAL},
		{"ENOSPC", ENOSPC},   {"EOVERFLOW", EOVERFLOW},
		{"ENOTSUP", ENOTSUP}, {"ESHUTDOWN", ESHUTDOWN},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(name, known[i].name))
			return known[i].number;
	die("no such errno");
	return 0;
}

static void command(const char *line)
{
	char *copy = strdup(line), *words[MAX_WORDS + 1] = {NULL}, *save;
	size_t nr = 0;
	int wanted = 0, got;

	for (char *w = strtok_r(copy, " ", &save); w && nr < MAX_WORDS; w = strtok_r(NULL, " ", &save))
		words[nr++] = w;
	if (!nr)
		die("empty command");
	char **first = words;
	if (!strcmp(words[0], "fails") && nr > 2) {
		wanted = errno_of(words[1]);
		first += 2;
		nr -= 2;
	}
	got = run(first, nr) == 0 ? 0 : nbd_get_errno() ? nbd_get_errno() : EIO;
	if (got != wanted) {
		fprintf(stderr, "%s: %s%s%s\n", line, wanted ? "expected to fail otherwise: " : "",
			got ? strerror(got) : "success", "");
		if (got)
			fprintf(stderr, "%s\n", nbd_get_error());
		exit(1);
	}
	free(copy);
}

int main(int argc, char **argv)
{
	nbd = nbd_create();
	if (argc < 2 || !nbd || nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
	    nbd_set_strict_mode(nbd, 0) || nbd_connect_uri(nbd, argv[1])) {
		fprintf(stderr, "nbd-client: %s\n", argc < 2 ? "URI is missing" : nbd_get_error());
		return 2;
	}
	for (int i = 2; i < argc; i++)
		command(argv[i]);
	if (nbd_shutdown(nbd, 0)) {
		fprintf(stderr, "nbd-client: %s\n", nbd_get_error());
		return 1;
	}
	nbd_close(nbd);
	return fflush(stdout) ? 1 : 0;
}

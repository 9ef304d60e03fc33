/* SPDX-License-Identifier: BSD-3-Clause */
/* The platter command. */
#include "cli/verb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const struct verb *const verbs[] = {
	/* what a disk is */
	&verb_info, &verb_map, &verb_measure, &verb_hash, &verb_compare, &verb_check, &verb_bench,
	/* making and changing it */
	&verb_create, &verb_convert, &verb_resize, &verb_read, &verb_write, &verb_zero, &verb_trim,
	&verb_compact, &verb_commit, &verb_rebase,
	/* showing it to others */
	&verb_mount, &verb_umount, &verb_serve, &verb_device,
	/* this command */
	&verb_kinds, &verb_version, &verb_help, NULL,
};

/* What was printed must have arrived: a full disk behind a redirection is a failure. */
static int finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "platter: cannot write the output: %s\n", strerror(errno));
	return status == STATUS_OK ? STATUS_FAILURE : status;
}

/*
 * A standard stream that the caller has closed must not be the number of a disk: what is printed would go there. What takes its
 * place cannot be read or written either. False when that is not to be had.
 */
static bool hold_streams(void)
{
	static const int unusable[] = {O_WRONLY, O_RDONLY, O_RDONLY};

	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", unusable[fd]) != fd)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	if (!hold_streams())
		return STATUS_FAILURE;
	if (argc < 2) {
		fprintf(stderr, "platter: a verb is missing\nTry 'platter --help'.\n");
		return STATUS_USAGE;
	}

	const char *name = argv[1];
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		print_help();
		return finish(STATUS_OK);
	}
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		name = verb_version.name;
	if (*name == '-') {
		fprintf(stderr, "platter: expected a verb before '%s'\nTry 'platter --help'.\n", name);
		return STATUS_USAGE;
	}

	const struct verb *verb = verb_find(name);
	if (!verb)
		return STATUS_USAGE;
	return finish(verb_main(verb, argc - 1, argv + 1));
}

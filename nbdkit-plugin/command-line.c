/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbdkit-plugin/command-line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Why read the command line of another program
 *
 * `nbdkit -r` has to open files read-only: they may be read-only themselves, and a server that never writes
 * must not take the lock of a writer. But disks are opened in .get_ready, before nbdkit forks, so that what
 * is wrong with them is printed before the prompt comes back and sets the exit status. nbdkit tells a plugin
 * about -r only when a client connects (.open), which is too late, and has no other call that would tell. So
 * the arguments are read from /proc/self/cmdline, by the rules of getopt_long(3) with nbdkit's options.
 *
 * Nothing unsafe follows from a mistake here. When -r is missed, the disk is opened writable, as without -r,
 * and nbdkit itself refuses the writes of its clients. When -r is seen where there is none, the export is
 * read-only.
 */

/* nbdkit's short options that take an argument, in the same word or the next. */
static const char short_with_argument[] = "DegipPtuU";

/* nbdkit's long options that take an argument. They can be shortened. */
static const char *const long_with_argument[] = {
	"debug",
	"export",
	"export-name",
	"exportname",
	"filter",
	"group",
	"ip-addr",
	"ipaddr",
	"log",
	"name",
	"pid-file",
	"pidfile",
	"mask-handshake",
	"port",
	"run",
	"threads",
	"timeout",
	"tls",
	"tls-psk",
	"tls-certificates",
	"unix",
	"user",
	"selinux-label",
	"tls-priority",
	NULL,
};

enum argument { ARGUMENT_OTHER, ARGUMENT_READ_ONLY, ARGUMENT_TAKES_NEXT };

static enum argument classify_long(const char *name)
{
	size_t length = strcspn(name, "=");

	/* "--r" could be --run: getopt refuses it. */
	if (length >= 2 && name[length] == '\0' &&
	    (strncmp("read-only", name, length) == 0 || strncmp("readonly", name, length) == 0))
		return ARGUMENT_READ_ONLY;
	if (name[length] == '=')
		return ARGUMENT_OTHER;
	for (size_t i = 0; long_with_argument[i]; i++)
		if (strncmp(long_with_argument[i], name, length) == 0)
			return ARGUMENT_TAKES_NEXT;
	return ARGUMENT_OTHER;
}

static enum argument classify_short(const char *cluster)
{
	for (; *cluster != '\0'; cluster++) {
		if (*cluster == 'r')
			return ARGUMENT_READ_ONLY;
		if (strchr(short_with_argument, *cluster) != NULL)
			return cluster[1] == '\0' ? ARGUMENT_TAKES_NEXT : ARGUMENT_OTHER;
	}
	return ARGUMENT_OTHER;
}

static enum argument classify(const char *argument)
{
	if (argument[0] != '-' || argument[1] == '\0')
		return ARGUMENT_OTHER;
	return argument[1] == '-' ? classify_long(argument + 2) : classify_short(argument + 1);
}

/* `arguments` is as /proc/PID/cmdline has them: each ended by NUL. */
static bool are_read_only(const char *arguments, size_t length)
{
	const char *const end = arguments + length;
	bool skip = true; /* the first one is the name of the program */

	for (const char *p = arguments; p < end && memchr(p, '\0', (size_t)(end - p)) != NULL;
	     p += strlen(p) + 1) {
		if (skip) {
			skip = false;
			continue;
		}
		if (strcmp(p, "--") == 0)
			return false;
		enum argument found = classify(p);
		if (found == ARGUMENT_READ_ONLY)
			return true;
		skip = found == ARGUMENT_TAKES_NEXT;
	}
	return false;
}

static char *read_all(const char *path, size_t *length)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return NULL;

	char *text = NULL;
	size_t size = 0, got;
	*length = 0;
	do {
		if (*length == size) {
			size = size * 2 + 4096;
			char *larger = realloc(text, size);
			if (!larger)
				break;
			text = larger;
		}
		got = fread(text + *length, 1, size - *length, file);
		*length += got;
	} while (got > 0);
	fclose(file);
	return text;
}

bool command_line_is_read_only(void)
{
	size_t length;
	char *arguments = read_all("/proc/self/cmdline", &length);
	bool found = arguments != NULL && are_read_only(arguments, length);

	free(arguments);
	return found;
}

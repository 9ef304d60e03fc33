/* SPDX-License-Identifier: BSD-3-Clause */
/* platter umount PATH... */
#include "cli/verb.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/mountpoint.h"

enum { OPTION_LAZY };

/* Until the server has flushed and closed its disks, which is when they can be opened again. */
static void wait_for_end(pid_t server)
{
	int fd = (int)syscall(SYS_pidfd_open, server, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return; /* gone already */
	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	close(fd);
}

static int unmount(const char *path, unsigned flags, struct error *err)
{
	pid_t server;
	int status;

	if (!mountpoint_is_ours(path))
		return error_set(err, -EINVAL, "'%s' is no mount of platter", path);
	server = mountpoint_server(path);
	status = mountpoint_unmount(path, flags, err);
	if (status == -EBUSY)
		return error_hint(err, "fuser -vm '%s' shows who uses it; --lazy takes it off nevertheless", path);
	if (!status && server > 0 && !(flags & UNMOUNT_LAZILY))
		wait_for_end(server);
	return status;
}

static int unmount_one(const char *operand, unsigned flags)
{
	CLEANUP_ERROR struct error err = {0};
	char *path = mountpoint_resolve(operand, &err);

	if (path && !unmount(path, flags, &err)) {
		free(path);
		return STATUS_OK;
	}
	fprintf(stderr, "platter umount: %s\n", error_text(&err));
	free(path);
	return STATUS_FAILURE;
}

static int umount_verb(const struct verb_arguments *arguments)
{
	unsigned flags = arguments->options[OPTION_LAZY] ? UNMOUNT_LAZILY : 0;
	int status = STATUS_OK;

	for (int i = 0; i < arguments->nr_operands; i++)
		if (unmount_one(arguments->operands[i], flags) != STATUS_OK)
			status = STATUS_FAILURE;
	return status;
}

const struct verb verb_umount = {
	.name = "umount",
	.operands = "PATH...",
	.min_operands = 1,
	.max_operands = INT_MAX,
	.summary = "Take mounts off again",
	.details = "Returns when everything is written and the disks are closed. Also takes off what a server that\n"
		   "was killed has left behind.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_LAZY] = {.name = "lazy", .letter = 'l', .help = "also while it is in use; do not wait"},
			{0},
		},
	.run = umount_verb,
};

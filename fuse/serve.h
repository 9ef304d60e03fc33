/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of a mount: from opening its disks until they are closed again. */
#ifndef PLATTER_FUSE_SERVE_H
#define PLATTER_FUSE_SERVE_H

#include <stdbool.h>

#include "core/error.h"
#include "core/exports.h"
#include "fuse/options.h"

/* Seconds that a signal to end waits for who still uses the mount, unless the user says otherwise. */
#define SERVE_DEFAULT_GRACE 10u

struct serve_request {
	const char *path;          /* a folder for several disks, or a file for one, whose name is "" */
	struct export_table *table; /* configured, not open; closed again when the call returns */
	struct mount_options options;
	bool control;
	bool partitions;
	const char *pid_file;      /* NULL: none */
	unsigned grace;            /* seconds */
	int ready_fd;              /* one byte is written and it is closed once the mount is there; -1: nobody waits */
};

/*
 * Opens, mounts and serves until the mount is taken off, or SIGINT, SIGTERM or SIGHUP ask for the end; then everything
 * written is flushed and the disks are closed. 0, or a negative errno with `err` set: it did not begin, or something could not
 * be saved. Called once in a process, before it has other threads.
 */
int serve(const struct serve_request *request, struct error *err);

#endif

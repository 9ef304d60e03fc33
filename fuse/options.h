/* SPDX-License-Identifier: BSD-3-Clause */
/* What can be said behind -o. */
#ifndef PLATTER_FUSE_OPTIONS_H
#define PLATTER_FUSE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/* Threads that serve one mount, unless the user says otherwise; they are made when all others are busy. */
#define MOUNT_DEFAULT_THREADS 32u
#define MOUNT_MAX_THREADS 1024u

struct mount_options {
	bool allow_other;   /* users other than the one who mounts may enter */
	bool auto_unmount;  /* fusermount3 waits and unmounts when the server dies */
	bool read_only;     /* disks are opened read-only, and the kernel mounts read-only */
	bool direct_io;     /* the kernel caches nothing of the files */
	bool parallel;      /* with direct_io: the kernel lets writers of one file in side by side */
	bool no_io_uring;   /* requests come by the device, also where the kernel offers rings */
	bool writeback;     /* writes are gathered in the page cache and arrive later */
	uid_t uid;          /* who owns the files */
	gid_t gid;
	mode_t mode;        /* of files; (mode_t)-1: 0600, or 0400 for a read-only disk */
	unsigned threads;   /* at most so many at once */
};

/* The defaults: owned by who calls. */
void mount_options_init(struct mount_options *o);

/*
 * Parses a comma-separated list on top of what `o` holds; the empty list is one. 0, or -EINVAL with `err` naming the
 * option, what it takes, and the nearest right name.
 */
int mount_options_parse(struct mount_options *o, const char *text, struct error *err);

/* One line for each option, for --help. Static. */
extern const char mount_options_help[];

#endif

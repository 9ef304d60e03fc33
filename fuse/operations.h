/* SPDX-License-Identifier: BSD-3-Clause */
/* What the kernel asks of a mount, answered. */
#ifndef PLATTER_FUSE_OPERATIONS_H
#define PLATTER_FUSE_OPERATIONS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "fuse/files.h"
#include "fuse/options.h"

/* The most bytes in one request: what the kernel can carry in 256 pages. */
#define REQUEST_MAX_BYTES (1u << 20)

/* What the operations are given as their session's user data. */
struct mounted {
	struct files files;
	const struct mount_options *options;
	void (*ready)(struct mounted *m); /* called once, when the kernel and we have agreed */

	/* The kernel holds a file for larger than it is, and has to look it up anew. Called on a thread that answers requests. */
	void (*forget)(struct mounted *m, struct file_entry *e);
};

/* Frees what the operations keep for the calling thread, which will carry out no more of them. */
void operations_end_thread(void);

extern const struct fuse_lowlevel_ops mount_operations;

#endif

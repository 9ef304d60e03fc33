/* SPDX-License-Identifier: BSD-3-Clause */
/* Mount points: what is mounted where, and how it is taken off again. */
#ifndef PLATTER_FUSE_MOUNTPOINT_H
#define PLATTER_FUSE_MOUNTPOINT_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"

/* The file system type that the kernel shows for our mounts is "fuse." and this. */
#define MOUNT_SUBTYPE "platter"

/* What it shows as their source (in df, for instance) is this, a colon, and the number of the process that serves. */
#define MOUNT_SOURCE "platter"

/* The absolute path of `path` without symbolic links, also where a dead mount lies on it. To be freed; NULL with `err` set. */
char *mountpoint_resolve(const char *path, struct error *err);

/* True when a mount of ours lies on the resolved path `path`, on top of whatever else does. */
bool mountpoint_is_ours(const char *path);

/* The device number of the mount of ours that lies on top of `path`; 0: none does. It tells one mount from the next one there. */
dev_t mountpoint_device(const char *path);

/* The process that serves the mount at `path`; 0: none lives, or it cannot be told. */
pid_t mountpoint_server(const char *path);

enum unmount_flags {
	UNMOUNT_LAZILY = 1 << 0, /* off the tree at once, ended when its last user has gone */
};

/*
 * Unmounts `path`, as root by the system call, else through fusermount3. What programs have written arrives at the server first.
 * 0; -EBUSY while somebody uses it; or another negative errno, with `err` set.
 */
int mountpoint_unmount(const char *path, unsigned flags, struct error *err);

#endif

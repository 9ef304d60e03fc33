/* SPDX-License-Identifier: BSD-3-Clause */
/* One writer of a file or several readers, never both: for formats whose readers keep what they have read. */
#ifndef PLATTER_CORE_CLAIM_H
#define PLATTER_CORE_CLAIM_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * A claim is an OFD lock (fcntl(2)), which survives fork(), on the first GiB of the file, whatever its size: so it
 * meets the locks that other disks take over whole files, and leaves alone the bytes from 1 GiB on where SQLite has its
 * locks. Beside it stands a table of this process: a file that is claimed here in a way that does not go with the new claim is
 * refused without being opened. For when any descriptor of a file is closed, all POSIX locks of the process on that file
 * go, also those that a library holds.
 */
struct file_claim {
	int fd; /* open for as long as the claim; -1: none */
	bool writer;
	dev_t device;
	ino_t inode;
};

#define FILE_CLAIM_NONE {.fd = -1}

/*
 * Opens the regular file `path`, for writing if `writer`, and claims it. -EBUSY with who may hold it in `err`. Where the
 * file system has no locks only this process's own claims count.
 */
int file_claim_take(struct file_claim *c, const char *path, bool writer, struct error *err);

/* Gives it up; last of all that is open of the file. Accepts one that was not taken. */
void file_claim_drop(struct file_claim *c);

#endif

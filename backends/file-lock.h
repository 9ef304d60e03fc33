/* SPDX-License-Identifier: BSD-3-Clause */
/* One writer a file. */
#ifndef PLATTER_BACKENDS_FILE_LOCK_H
#define PLATTER_BACKENDS_FILE_LOCK_H

#include "core/error.h"

/*
 * Takes an OFD write lock (fcntl(2)) over the whole file; it goes when the last copy of the descriptor is closed. -EBUSY
 * when another writer holds one, with the processes that have the file open named in `err`. Where the file
 * system has no locks it succeeds without.
 */
int file_lock_writer(int fd, const char *path, struct error *err);

#endif

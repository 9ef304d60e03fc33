/* SPDX-License-Identifier: BSD-3-Clause */
/* One writer a file, or readers whom nothing must change under. */
#ifndef PLATTER_CORE_FILE_LOCK_H
#define PLATTER_CORE_FILE_LOCK_H

#include "core/error.h"

/*
 * Takes an OFD write lock (fcntl(2)) over the whole file; it goes when the last copy of the descriptor is closed. -EBUSY
 * when another writer holds one, with the processes that have the file open named in `err`. Where the file
 * system has no locks it succeeds without.
 */
int file_lock_writer(int fd, const char *path, struct error *err);

/* The same for one of many readers, who keep writers out, as a writer keeps out them. */
int file_lock_readers(int fd, const char *path, struct error *err);

#endif

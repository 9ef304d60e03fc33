/* SPDX-License-Identifier: BSD-3-Clause */
/* Which other processes have a file open? For messages about locks. */
#ifndef PLATTER_CORE_HOLDERS_H
#define PLATTER_CORE_HOLDERS_H

#include <stddef.h>
#include <sys/stat.h>

/*
 * Writes up to three of the other processes that have `file` open to `text`, as in "12 (nbdkit), 34 (qemu-img)", and
 * returns how many: 0, and an empty text, where none can be seen.
 */
unsigned file_holders(const struct stat *file, char *text, size_t room);

#endif

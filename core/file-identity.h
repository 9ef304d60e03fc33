/* SPDX-License-Identifier: BSD-3-Clause */
/* By what the content of a regular file is known. */
#ifndef PLATTER_CORE_FILE_IDENTITY_H
#define PLATTER_CORE_FILE_IDENTITY_H

#include "core/identity.h"

/*
 * The identity of the open regular file. May wait: for the clock of the file system to pass the last change, so that
 * the next one is sure to be seen. 0, -EBUSY when it is being written all the time, or another
 * negative errno.
 */
int file_identity(int fd, struct identity *out);

#endif

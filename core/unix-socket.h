/* SPDX-License-Identifier: BSD-3-Clause */
/* The sockets that programs of ours listen on. */
#ifndef PLATTER_CORE_UNIX_SOCKET_H
#define PLATTER_CORE_UNIX_SOCKET_H

#include <sys/types.h>

#include "core/error.h"

/*
 * Makes a Unix stream socket at `path`, with `mode` less what umask(2) takes away, and gives its descriptor, which does not block.
 * Nobody can connect before listen(2). A socket that somebody has left there who has ended is replaced; one where somebody
 * listens, or any other file, is not: -EADDRINUSE. Who makes it unlinks it.
 */
int unix_socket_make(const char *path, mode_t mode, int *fd, struct error *err);

#endif

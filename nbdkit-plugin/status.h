/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk's status as the errno that nbdkit sends to the client. */
#ifndef PLATTER_NBDKIT_PLUGIN_STATUS_H
#define PLATTER_NBDKIT_PLUGIN_STATUS_H

#include <stdbool.h>

/* The errno for nbdkit_set_error(). `writing`: the request would have changed the disk. */
int status_to_nbd(int status, bool writing);

#endif

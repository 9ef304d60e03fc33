/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLATTER_FUSE_STATUS_H
#define PLATTER_FUSE_STATUS_H

/* The errno (positive) that a program gets for a status of core/disk.h; 0 for 0. */
int status_to_errno(int status);

#endif

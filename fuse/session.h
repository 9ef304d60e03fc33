/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection to the kernel's FUSE and the threads that answer on it. */
#ifndef PLATTER_FUSE_SESSION_H
#define PLATTER_FUSE_SESSION_H

#include "core/error.h"
#include "fuse/operations.h"

struct session;

/*
 * Mounts at `path` (resolved) what `m` holds. Nobody answers yet. 0, or a negative errno with `err` set. The process may
 * not fork any more. Signals that end the process should be blocked already: threads inherit that.
 */
int session_mount(const char *path, struct mounted *m, struct session **out, struct error *err);

/* Starts to answer. 0 or a negative errno with `err` set; then session_end() is still to be called. */
int session_start(struct session *s, struct error *err);

/* A descriptor that is readable (poll(2)) once the kernel has ended the connection: it was unmounted. */
int session_ended_fd(const struct session *s);

/* Tells the kernel that the attributes of an inode (the size) have changed. From a thread that answers no request. */
void session_attributes_changed(struct session *s, uint64_t inode);

/* Tells the kernel to look `name` in the folder `inode` up anew. From a thread that answers no request; may wait. */
void session_entry_changed(struct session *s, uint64_t inode, const char *name);

/*
 * Stops the threads after the request that each is at, and closes the connection: who still has files open gets errors. Does not
 * unmount.
 * Accepts NULL.
 */
void session_end(struct session *s);

#endif

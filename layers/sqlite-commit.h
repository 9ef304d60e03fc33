/* SPDX-License-Identifier: BSD-3-Clause */
/* What was written and is not in the database yet, and the thread that brings it there. */
#ifndef PLATTER_LAYERS_SQLITE_COMMIT_H
#define PLATTER_LAYERS_SQLITE_COMMIT_H

#include <pthread.h>

#include "core/gate.h"
#include "layers/sqlite-store.h"

struct resizing;

struct committer {
	const struct db_file *file;
	struct store *store;
	struct db_pool *readers;
	const bool *forget; /* zeroes need not be recorded: the layer is the bottom one */
	uint32_t block_size;
	unsigned log_pages; /* see sqlite-layer.h */

	/*
	 * Passed by requests, which see `active` and `frozen` and the store unchanged while they are inside; closed to
	 * change them.
	 */
	struct gate gate;
	struct layer *active; /* takes what is written; a RAM layer */
	struct layer *frozen; /* is being committed; NULL: nothing is */

	/* Work answered (bytes, and a little for every request), in total: ever, in frozen or committed, durable. */
	_Atomic uint64_t written, taken, durable;
	uint64_t committed; /* in the database, durable or not; the thread's */

	_Atomic int stuck; /* the status of the last commit, if it failed */
	_Atomic int final; /* a sync failed, with this status: nothing is written any more */
	_Atomic uint64_t retry_at;

	struct db *db; /* the thread's connection, made at the first use */

	struct wait_mutex starting;
	_Atomic bool started, stopping;
	pthread_t thread;
	struct wait_signal wake;  /* there is something to do */
	struct wait_signal ended; /* a commit or a resize has ended */
	struct resizing *_Atomic resizing; /* to be done by the thread */
	_Atomic uint64_t asked;   /* flushes */
	struct short_lock lock;   /* protects the three below */
	uint64_t answered;        /* flushes up to this one were tried; with this result: */
	int status;
	char text[240];
};

/* Makes the first stage. False when memory ran out. */
bool committer_init(struct committer *c);

/* Before a change, outside of the gate: waits for room; starts the thread. */
int committer_admit(struct committer *c, const struct io *io);

/* After a change, still inside the gate: `work` bytes. */
void committer_note(struct committer *c, uint64_t work);

/* Commits everything answered so far and makes it durable. */
int committer_flush(struct committer *c, const struct io *io);

/*
 * Commits what is staged, then cuts the store off at `size`, or clears what it grows by from `old` on (unless `forget`),
 * and notes the size. Requests past the smaller of them are kept away by the caller. One at a time.
 */
int committer_resize(struct committer *c, uint64_t old, uint64_t size, const struct io *io);

/* Ends the thread and closes the database; what is not committed is lost. Blocks. The status of what failed. */
int committer_close(struct committer *c, struct error *err);

#endif

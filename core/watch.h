/* SPDX-License-Identifier: BSD-3-Clause */
/* Somebody who is told how far long work has come, and who may end it. */
#ifndef PLATTER_CORE_WATCH_H
#define PLATTER_CORE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* Called from any thread that does the work. Whoever owns it has it begin his own state. */
struct watch {
	/* A new stretch of work of `total` bytes, called `what`, which stays. */
	void (*phase)(struct watch *w, const char *what, uint64_t total);

	/* So many more bytes of it are done. */
	void (*add)(struct watch *w, uint64_t bytes);

	/* The work is to end as soon as it can, with -EINTR. */
	bool (*stopped)(struct watch *w);
};

/* Each accepts NULL: nobody is told, and nobody ends it. */
static inline void watch_phase(struct watch *w, const char *what, uint64_t total)
{
	if (w)
		w->phase(w, what, total);
}

static inline void watch_add(struct watch *w, uint64_t bytes)
{
	if (w)
		w->add(w, bytes);
}

static inline bool watch_stopped(struct watch *w)
{
	return w && w->stopped(w);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* The io_uring of a loop. Internal to the loop. */
#ifndef PLATTER_CORE_RING_H
#define PLATTER_CORE_RING_H

#include <stdbool.h>
#include <stdint.h>

#include <liburing.h>

struct fiber;

/*
 * One operation; lives in the frame of the fiber that waits for it. Zero-initialised but for `fiber`,
 * `sqe`, `endless`.
 */
struct request {
	struct request *next; /* while it waits for room in the ring */
	struct fiber *fiber;
	struct io_uring_sqe sqe; /* user_data is set by the ring */
	int result;
	unsigned pending; /* completions still to come: its own, its cancellation's */
	bool endless;     /* may last for ever: is not counted against the limit */
	bool queued;      /* waits for room */
};

struct ring {
	struct io_uring uring;
	bool open;
	bool waits_by_poll; /* io_uring_enter(2) has no time limit before Linux 5.11 (EXT_ARG) */
	bool wake_armed;    /* a poll of the wake descriptor is under way */
	uint64_t supported; /* bit: opcode */
	unsigned in_flight; /* requests handed to the ring, but for endless ones */
	unsigned limit;     /* of them; keeps the completion queue from overflowing */
	struct request *head, *tail;
};

/* Features not to be used, for tests of what older kernels need. */
enum ring_without {
	RING_WITHOUT_FLAGS = 1 << 0,   /* IORING_SETUP_SINGLE_ISSUER and the like */
	RING_WITHOUT_TIMEOUT = 1 << 1, /* IORING_FEAT_EXT_ARG */
};

/* Opens a ring of about `entries` for the calling thread. 0 or a negative errno. */
int ring_open(struct ring *r, unsigned entries, unsigned without);

/* Closes it; nothing may be in flight. May be called by any thread. */
void ring_close(struct ring *r);

/* True when the kernel knows the operation. */
static inline bool ring_can(const struct ring *r, unsigned opcode)
{
	return r->open && opcode < 64 && (r->supported >> opcode & 1);
}

/* Starts a request; its fiber is woken when the result is there. */
void ring_start(struct ring *r, struct request *q);

/*
 * Asks a request that is pending to end soon. It ends as usual, with -ECANCELED if it does not end by
 * itself before. False when there is no room for the moment.
 */
bool ring_cancel(struct ring *r, struct request *q);

/* Submits what was started and collects what is done, without waiting. */
void ring_turn(struct ring *r);

/* True when ring_turn() would find something to do; costs no system call. */
bool ring_busy(const struct ring *r);

/*
 * The same, but waits until something is done or `wake_fd` is readable, at most `timeout_ns` (UINT64_MAX:
 * no limit). Returns true when wake_fd may be readable.
 */
bool ring_wait(struct ring *r, int wake_fd, uint64_t timeout_ns);

#endif

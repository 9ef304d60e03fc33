/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Room. A request is "in flight" from the moment it has a place in the submission queue until its
 * completion was collected. Of these there are never more than `limit`, and each may have one cancellation
 * under way, and there is the poll of the wake descriptor: 2 * limit + 1 completions fit the completion
 * queue, so that it does not overflow. What comes on top waits in a list here, first come, first served.
 * Only requests that may last for ever (polls) are not counted, or they would keep out all others: should
 * very many of them end in the same moment, the kernel keeps what does not fit (IORING_FEAT_NODROP) and
 * says so by a flag, or by -EBUSY, and both make us collect first.
 *
 * user_data of a completion:
 *
 *     address of a request       it has ended
 *     the same plus CANCEL       the cancellation of that request has ended
 *     WAKE                       the wake descriptor is readable
 *     LIBURING_UDATA_TIMEOUT     (library's own; not used here, but ignored)
 *
 * A request whose cancellation was started ends when both completions were seen: its memory may be reused
 * at once after that, and a late cancellation must not hit the next request at the same address.
 *
 * Flags by kernel version (io_uring_setup(2)), newest first; the first set that the kernel takes is used:
 * 6.1 DEFER_TASKRUN + SINGLE_ISSUER, 5.19 COOP_TASKRUN, 5.18 SUBMIT_ALL, none. TASKRUN_FLAG tells without a
 * system call that completions wait to be posted.
 *
 * Deliberately not done: registered ring descriptor (it would stay referenced by a thread that ran the loop
 * once), registered files and buffers (memory is the guests' and changes), SQPOLL (a second processor),
 * IOPOLL.
 */
#include "core/ring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "core/checkers.h"
#include "core/loop-internal.h"

#define CANCEL 1u
#define WAKE 2u

#define NS_PER_S UINT64_C(1000000000)
#define RETRY_NS UINT64_C(1000000)

/* ------------------------------------------------------------------ opening */

static const unsigned flag_sets[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_SUBMIT_ALL,
	0,
};

static int setup(struct ring *r, unsigned entries, unsigned without)
{
	size_t count = sizeof flag_sets / sizeof flag_sets[0];
	int status = -EINVAL;

	for (size_t i = without & RING_WITHOUT_FLAGS ? count - 1 : 0; i < count && status == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = flag_sets[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
			.cq_entries = entries * 8,
		};
		status = io_uring_queue_init_params(entries, &r->uring, &p);
	}
	return status;
}

static void probe(struct ring *r)
{
	struct io_uring_probe *p = io_uring_get_probe_ring(&r->uring);

	if (!p)
		return;
	for (int op = 0; op < 64; op++)
		if (io_uring_opcode_supported(p, op))
			r->supported |= UINT64_C(1) << op;
	io_uring_free_probe(p);
}

int ring_open(struct ring *r, unsigned entries, unsigned without)
{
	int status;

	/* valgrind (3.19) stops all threads while one waits in io_uring_enter(2) */
	if (checkers_in_valgrind())
		without = RING_WITHOUT_FLAGS | RING_WITHOUT_TIMEOUT;
	*r = (struct ring){0};
	/* before Linux 5.12 rings count as locked memory: take a smaller one rather than none */
	while ((status = setup(r, entries, without)) == -ENOMEM && entries > 8)
		entries /= 2;
	if (status < 0)
		return status;
	probe(r);
	/* without these (before Linux 5.6) it is not worth it */
	if (!(r->uring.features & IORING_FEAT_NODROP) || !(r->supported >> IORING_OP_READ & 1)) {
		io_uring_queue_exit(&r->uring);
		return -ENOSYS;
	}
	r->waits_by_poll = !(r->uring.features & IORING_FEAT_EXT_ARG) || without & RING_WITHOUT_TIMEOUT;
	r->limit = (*r->uring.cq.kring_entries - 1) / 2;
	r->open = true;
	return 0;
}

void ring_close(struct ring *r)
{
	if (!r->open)
		return;
	assert(r->in_flight == 0 && !r->head);
	io_uring_queue_exit(&r->uring);
	r->open = false;
	r->wake_armed = false;
}

/* ------------------------------------------------------------------ entering the kernel */

/*
 * What goes wrong here passes by itself (a signal, no memory for the moment), or is our bug (a foreign
 * thread, a descriptor closed behind our back). True when entering again at once may help.
 */
static bool enter_failed(int status)
{
	assert(status == -EINTR || status == -EAGAIN || status == -EBUSY || status == -ENOMEM ||
	       status == -ETIME);
	return status == -EINTR;
}

static void submit(struct ring *r)
{
	int status;

	do
		status = io_uring_submit_and_get_events(&r->uring);
	while (status < 0 && enter_failed(status));
}

/* A free entry of the submission queue; NULL when the kernel takes none for the moment. */
static struct io_uring_sqe *get_sqe(struct ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe) {
		submit(r);
		sqe = io_uring_get_sqe(&r->uring);
	}
	return sqe;
}

/* ------------------------------------------------------------------ requests */

static bool place(struct ring *r, struct request *q)
{
	struct io_uring_sqe *sqe;

	if (!q->endless && r->in_flight >= r->limit)
		return false;
	sqe = get_sqe(r);
	if (!sqe)
		return false;
	*sqe = q->sqe;
	sqe->user_data = (uintptr_t)q;
	r->in_flight += !q->endless;
	return true;
}

void ring_start(struct ring *r, struct request *q)
{
	q->pending = 1;
	if ((q->endless || !r->head) && place(r, q))
		return;
	q->queued = true;
	q->next = NULL;
	if (r->head)
		r->tail->next = q;
	else
		r->head = q;
	r->tail = q;
}

/* Moves requests from the list into the ring as far as there is room. */
static void refill(struct ring *r)
{
	struct request *q;

	while ((q = r->head) && place(r, q)) {
		r->head = q->next;
		q->queued = false;
	}
}

static void unlink_queued(struct ring *r, struct request *q)
{
	struct request *before = NULL;

	for (struct request *i = r->head; i != q; i = i->next)
		before = i;
	if (before)
		before->next = q->next;
	else
		r->head = q->next;
	if (r->tail == q)
		r->tail = before;
	q->queued = false;
}

static void finish_one(struct request *q)
{
	assert(q->pending > 0);
	if (--q->pending == 0)
		loop_wake(q->fiber);
}

bool ring_cancel(struct ring *r, struct request *q)
{
	struct io_uring_sqe *sqe;

	assert(q->pending > 0);
	if (q->queued) {
		unlink_queued(r, q);
		q->result = -ECANCELED;
		finish_one(q);
		return true;
	}
	sqe = get_sqe(r);
	if (!sqe)
		return false;
	*sqe = (struct io_uring_sqe){
		.opcode = IORING_OP_ASYNC_CANCEL,
		.fd = -1,
		.addr = (uintptr_t)q,
		.user_data = (uintptr_t)q | CANCEL,
	};
	q->pending++;
	return true;
}

/* ------------------------------------------------------------------ completions */

static void complete(struct ring *r, const struct io_uring_cqe *cqe)
{
	struct request *q;

	if (cqe->user_data == WAKE) {
		r->wake_armed = false;
		return;
	}
	if (cqe->user_data == LIBURING_UDATA_TIMEOUT)
		return;
	q = (struct request *)(uintptr_t)(cqe->user_data & ~(uint64_t)CANCEL);
	if (!(cqe->user_data & CANCEL)) {
		q->result = cqe->res;
		r->in_flight -= !q->endless;
	}
	finish_one(q);
}

static void reap(struct ring *r)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;

	io_uring_for_each_cqe(&r->uring, head, cqe) {
		complete(r, cqe);
		count++;
	}
	if (count)
		io_uring_cq_advance(&r->uring, count);
	if (r->head)
		refill(r);
}

/* True when the kernel has completions that it posts only when entered. */
static bool kernel_owes(const struct ring *r)
{
	return IO_URING_READ_ONCE(*r->uring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

bool ring_busy(const struct ring *r)
{
	return io_uring_sq_ready(&r->uring) || io_uring_cq_ready(&r->uring) || kernel_owes(r);
}

void ring_turn(struct ring *r)
{
	if (io_uring_sq_ready(&r->uring) || kernel_owes(r))
		submit(r);
	reap(r);
}

/* ------------------------------------------------------------------ waiting */

/* Watches the wake descriptor; false when that cannot be had for the moment. */
static bool arm_wake(struct ring *r, int wake_fd)
{
	struct io_uring_sqe *sqe;

	if (r->wake_armed || wake_fd < 0)
		return true;
	sqe = get_sqe(r);
	if (!sqe)
		return false;
	io_uring_prep_poll_add(sqe, wake_fd, POLLIN);
	sqe->user_data = WAKE;
	r->wake_armed = true;
	return true;
}

/* The descriptor of a ring is readable when there are completions. */
static void wait_by_poll(struct ring *r, uint64_t timeout_ns)
{
	struct timespec limit = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
				 .tv_nsec = (long)(timeout_ns % NS_PER_S)};
	struct pollfd p = {.fd = r->uring.ring_fd, .events = POLLIN};

	submit(r);
	if (!io_uring_cq_ready(&r->uring))
		ppoll(&p, 1, timeout_ns == UINT64_MAX ? NULL : &limit, NULL);
}

static void wait_by_enter(struct ring *r, uint64_t timeout_ns)
{
	struct __kernel_timespec limit = {.tv_sec = (int64_t)(timeout_ns / NS_PER_S),
					  .tv_nsec = (long long)(timeout_ns % NS_PER_S)};
	struct io_uring_cqe *cqe;
	int status = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1,
						      timeout_ns == UINT64_MAX ? NULL : &limit, NULL);

	if (status < 0)
		enter_failed(status);
}

bool ring_wait(struct ring *r, int wake_fd, uint64_t timeout_ns)
{
	if (!arm_wake(r, wake_fd) && timeout_ns > RETRY_NS)
		timeout_ns = RETRY_NS;
	if (r->waits_by_poll)
		wait_by_poll(r, timeout_ns);
	else
		wait_by_enter(r, timeout_ns);
	reap(r);
	return !r->wake_armed;
}

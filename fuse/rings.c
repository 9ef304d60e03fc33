/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FUSE over io_uring (Linux 6.14; Documentation/filesystems/fuse/fuse-io-uring.rst), without help by libfuse
 *
 * For each processor there is a queue, with entries that belong to the kernel or to us. The kernel gets an entry by REGISTER,
 * fills it with a request of a task that runs on that processor, and completes the command; COMMIT_AND_FETCH gives the
 * answer and the entry back. So a request costs one system call, and the thread that answers runs where the task has run, which waits
 * for it. Through /dev/fuse a sleeping thread is woken, on another processor as a rule; when that one has other work, this is most of
 * what a request takes. FORGET and INTERRUPT
 * still come by the device.
 *
 * An entry is two pieces of memory: headers, and a payload with everything behind the first argument. libfuse reads a
 * request from one piece. So there is room before the payload, into which both headers are copied, and libfuse is none the wiser. It
 * answers through the session's function for writing (session.c), which asks here first. Answers with data lie in the payload
 * already when they were made in rings_buffer().
 *
 * Who waits
 *
 *   A queue is led by one thread, which waits for requests, carries one out, answers, and waits again: nobody else is woken, and
 *   answering and waiting are one call. But a disk may take its time, and then the queue needs another leader. Two things see to that.
 *   What took longer than SLOW_NS makes the queue shared for SHARED_NS: the lead is given up before each request, to a follower who waits
 *   for that, or a new thread. And a sentinel looks at all queues each TICK_NS, while there is work: a leader that is still at the
 *   request of the last look is relieved; it finds out when it comes back, and becomes a follower.
 *
 *   `solo` is the number of the request that the leader carries out without having given up the lead, else 0: whoever turns it into 0,
 *   leader or sentinel, decides. The completion side of the ring and `taken` are the leader's alone; `led`, `followers` and the
 *   handing over of both are under `lock`. The submission side is under `submit`, except where the leader is alone: `serving` is 0,
 *   and only the leader makes it more.
 *
 * The first thread of a queue never leaves its processor: without that the gain is gone. What a leader starts would inherit it, so those
 * that follow take it back, and nothing else is started while a request is carried out.
 *
 * The kernel may offer rings and not want them a moment later, when its administrator has switched them off. Then REGISTER fails with
 * EOPNOTSUPP, and the threads leave: requests come by the device.
 *
 * The kernel completes a command by the thread that submitted it; when that one does something else just then it is interrupted, and
 * goes on.
 */
#include "fuse/rings.h"

#include <errno.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/checkers.h"
#include "core/wait.h"
#include "fuse/log.h"
#include "fuse/operations.h"

#define SLOW_NS UINT64_C(200000)
#define SHARED_NS UINT64_C(100000000)
#define TICK_NS UINT64_C(1000000)
#define TICKS_AWAKE 100u

#define ENTRIES 16u
#define ROOM 4096u /* before the payload, for headers */

/* ------------------------------------------------------------------ the protocol, linux/fuse.h since 7.42 */

enum { CMD_REGISTER = 1, CMD_COMMIT_AND_FETCH = 2 };

struct headers {
	char in_out[128]; /* struct fuse_in_header, struct fuse_out_header */
	char op_in[128];  /* the request's first argument */
	uint64_t flags, commit_id;
	uint32_t payload_bytes, padding;
	uint64_t reserved;
};

struct command {
	uint64_t flags, commit_id;
	uint16_t queue;
	uint8_t padding[6];
};

/* ------------------------------------------------------------------ */

struct entry {
	struct ring_queue *queue;
	struct headers *headers;
	char *payload;
	struct iovec iov[2];
	uint32_t command; /* CMD_ the last one */
	uint64_t unique;
	bool has_input; /* the payload is part of the request */
	bool answered;
};

struct ring_queue {
	struct rings *rings;
	unsigned id;
	struct io_uring uring;
	bool open;
	char *memory;
	struct entry entries[ENTRIES];
	pthread_mutex_t submit;

	pthread_mutex_t lock;
	pthread_cond_t vacant;
	bool led, over, refused;
	unsigned followers;

	uint64_t taken;
	_Atomic uint64_t solo;
	_Atomic unsigned serving; /* others than a leader with the lead */
	_Atomic uint64_t shared_until;
	uint64_t watched; /* the sentinel's: `solo` at the last look */
};

struct rings {
	struct fuse_session *fuse;
	int device;
	rings_more *more;
	void *argument;
	cpu_set_t processors; /* where this process may run */
	_Atomic bool stopping;

	pthread_mutex_t lock;
	pthread_cond_t decided;
	bool may_go, go;

	bool has_sentinel;
	pthread_t sentinel;
	_Atomic bool asleep; /* the sentinel */
	struct wait_signal wake;

	unsigned count;
	struct ring_queue queues[];
};

static __thread struct entry *current;

/* ------------------------------------------------------------------ commands */

/* `submit` held, or alone. */
static void prepare(struct ring_queue *q, struct entry *e, uint32_t command)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->uring); /* there is one for each entry */
	struct command c = {
		.queue = (uint16_t)q->id,
		.commit_id = command == CMD_REGISTER ? 0 : e->headers->commit_id,
	};

	checkers_releases(e); /* to who gets the entry back from the kernel, which no checker sees */
	e->command = command;
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, q->rings->device, command == CMD_REGISTER ? e->iov : NULL,
			 command == CMD_REGISTER ? 2 : 0, 0);
	sqe->cmd_op = command;
	io_uring_sqe_set_data(sqe, e);
	memcpy((char *)sqe + offsetof(struct io_uring_sqe, cmd), &c, sizeof(c)); /* SQE128: there is room behind it */
}

/* Where it was interrupted, or memory was short, it is still to be done. */
static int submit_all(struct ring_queue *q)
{
	int n;

	do
		n = io_uring_submit(&q->uring);
	while (n == -EINTR || n == -EAGAIN);
	return n;
}

static void prepare_and_submit(struct ring_queue *q, struct entry *e, uint32_t command)
{
	pthread_mutex_lock(&q->submit);
	prepare(q, e, command);
	submit_all(q);
	pthread_mutex_unlock(&q->submit);
}

static bool register_entries(struct ring_queue *q)
{
	for (unsigned i = 0; i < ENTRIES; i++)
		prepare(q, &q->entries[i], CMD_REGISTER);
	return submit_all(q) == ENTRIES;
}

/* ------------------------------------------------------------------ requests */

static void answer_error(struct entry *e, int error);

bool rings_answer(const struct iovec *iov, int count)
{
	const struct fuse_out_header *header = iov[0].iov_base;
	struct entry *e = current;
	char *to;

	if (!e || header->unique != e->unique || e->answered)
		return false;
	if (header->len > sizeof(*header) + REQUEST_MAX_BYTES) { /* there is no room for it, nor can the kernel have asked for it */
		answer_error(e, EIO);
		return true;
	}
	memcpy(e->headers->in_out, header, sizeof(*header));
	to = e->payload;
	for (int i = 1; i < count; i++) {
		if (to != iov[i].iov_base)
			memmove(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	e->headers->payload_bytes = (uint32_t)(to - e->payload);
	e->answered = true;
	return true;
}

void *rings_buffer(void)
{
	return current && !current->has_input ? current->payload : NULL;
}

static void answer_error(struct entry *e, int error)
{
	struct fuse_out_header out = {.len = sizeof(out), .error = -error, .unique = e->unique};
	struct iovec iov = {&out, sizeof(out)};

	rings_answer(&iov, 1);
}

/* libfuse gets the request as one piece: both headers stand right before the payload. */
static void carry_out(struct entry *e)
{
	struct fuse_in_header in;
	uint32_t payload = e->headers->payload_bytes, first;
	struct fuse_buf buffer;
	char *begin;

	memcpy(&in, e->headers->in_out, sizeof(in));
	e->unique = in.unique;
	e->has_input = payload > 0;
	e->answered = false;
	current = e;
	first = in.len - (uint32_t)sizeof(in) - payload;
	if (in.len < sizeof(in) + payload || first > sizeof(e->headers->op_in)) {
		answer_error(e, EIO);
	} else {
		begin = e->payload - first - sizeof(in);
		memcpy(begin, &in, sizeof(in));
		memcpy(begin + sizeof(in), e->headers->op_in, first);
		buffer = (struct fuse_buf){.mem = begin, .size = in.len};
		fuse_session_process_buf(e->queue->rings->fuse, &buffer);
		if (!e->answered) /* every request that comes this way wants an answer */
			answer_error(e, EIO);
	}
	current = NULL;
}

/* ------------------------------------------------------------------ leading */

enum next { NEXT_GOT, NEXT_AGAIN, NEXT_OVER };

/* A command has come back. */
static enum next take_back(struct ring_queue *q, struct io_uring_cqe *cqe, struct entry **out)
{
	struct entry *e = (struct entry *)(uintptr_t)cqe->user_data;
	int result = cqe->res;

	io_uring_cqe_seen(&q->uring, cqe);
	if (result == -EINTR || result == -EAGAIN) {
		prepare_and_submit(q, e, e->command);
		return NEXT_AGAIN;
	}
	q->refused = result == -EOPNOTSUPP && e->command == CMD_REGISTER;
	if (result < 0)
		return NEXT_OVER; /* ENOTCONN: the connection has ended */
	checkers_acquires(e);
	*out = e;
	return NEXT_GOT;
}

/* What the leader has `prepared` is submitted, too. */
static enum next next(struct ring_queue *q, bool *prepared, struct entry **out)
{
	struct io_uring_cqe *cqe = NULL;
	int status = 0;

	if (*prepared)
		status = io_uring_submit_and_wait(&q->uring, 1);
	*prepared = *prepared && status < 0;
	if (status >= 0 && io_uring_peek_cqe(&q->uring, &cqe))
		status = io_uring_wait_cqe(&q->uring, &cqe);
	if (status == -EINTR || status == -EAGAIN)
		return NEXT_AGAIN;
	return status < 0 ? NEXT_OVER : take_back(q, cqe, out);
}

static void give_up_lead(struct ring_queue *q)
{
	bool none;

	pthread_mutex_lock(&q->lock);
	q->led = false;
	none = !q->followers;
	pthread_cond_signal(&q->vacant);
	pthread_mutex_unlock(&q->lock);
	if (none)
		q->rings->more(q, q->rings->argument);
}

static bool is_stopping(const struct ring_queue *q)
{
	return atomic_load_explicit(&q->rings->stopping, memory_order_relaxed);
}

static void note_time(struct ring_queue *q, uint64_t since)
{
	uint64_t now = wait_now();

	if (now - since > SLOW_NS)
		atomic_store_explicit(&q->shared_until, now + SHARED_NS, memory_order_relaxed);
}

/* Carries it out after the lead was given up. */
static void serve_shared(struct ring_queue *q, struct entry *e, uint64_t now)
{
	atomic_fetch_add(&q->serving, 1);
	give_up_lead(q);
	carry_out(e);
	note_time(q, now);
	prepare_and_submit(q, e, CMD_COMMIT_AND_FETCH);
	atomic_fetch_sub(&q->serving, 1);
}

static void wake_sentinel(struct rings *r)
{
	if (atomic_load_explicit(&r->asleep, memory_order_relaxed) && atomic_exchange(&r->asleep, false))
		wait_signal_raise(&r->wake);
}

/* Carries it out while leading. False when the lead was taken away meanwhile. `prepared`: the answer is to be submitted. */
static bool serve_alone(struct ring_queue *q, struct entry *e, uint64_t now, bool *prepared)
{
	uint64_t number = ++q->taken;

	atomic_store(&q->solo, number);
	wake_sentinel(q->rings);
	carry_out(e);
	note_time(q, now);
	if (!atomic_compare_exchange_strong(&q->solo, &number, 0)) {
		prepare_and_submit(q, e, CMD_COMMIT_AND_FETCH);
		atomic_fetch_sub(&q->serving, 1); /* the sentinel counted it */
		return false;
	}
	if (atomic_load(&q->serving)) {
		prepare_and_submit(q, e, CMD_COMMIT_AND_FETCH);
	} else {
		prepare(q, e, CMD_COMMIT_AND_FETCH);
		*prepared = true;
	}
	return true;
}

/* Until the lead is given up or taken away. False: there is nothing to lead any more. */
static bool lead(struct ring_queue *q)
{
	bool prepared = false, leads = true;

	while (leads) {
		struct entry *e = NULL;
		enum next n = next(q, &prepared, &e);
		uint64_t now;

		if (n == NEXT_OVER || is_stopping(q))
			return false;
		if (n == NEXT_AGAIN)
			continue;
		now = wait_now();
		if (now < atomic_load_explicit(&q->shared_until, memory_order_relaxed)) {
			serve_shared(q, e, now);
			return true;
		}
		leads = serve_alone(q, e, now, &prepared);
	}
	return true;
}

/* Waits for the lead. False: there is nothing to lead any more. */
static bool become_leader(struct ring_queue *q)
{
	bool over;

	pthread_mutex_lock(&q->lock);
	q->followers++;
	while (q->led && !q->over && !is_stopping(q))
		pthread_cond_wait(&q->vacant, &q->lock);
	q->followers--;
	over = q->over || is_stopping(q);
	if (!over)
		q->led = true;
	pthread_mutex_unlock(&q->lock);
	return !over;
}

static void end_queue(struct ring_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->over = true;
	pthread_cond_broadcast(&q->vacant);
	pthread_mutex_unlock(&q->lock);
}

/* ------------------------------------------------------------------ the sentinel */

static bool look(struct ring_queue *q)
{
	uint64_t solo = atomic_load(&q->solo);
	bool stuck = solo && solo == q->watched;

	q->watched = solo;
	if (!stuck)
		return solo;
	atomic_fetch_add(&q->serving, 1);
	if (!atomic_compare_exchange_strong(&q->solo, &solo, 0)) {
		atomic_fetch_sub(&q->serving, 1);
		return true;
	}
	atomic_store_explicit(&q->shared_until, wait_now() + SHARED_NS, memory_order_relaxed);
	give_up_lead(q);
	return true;
}

static void *sentinel_main(void *argument)
{
	struct rings *r = argument;
	unsigned quiet = 0;

	while (!atomic_load(&r->stopping)) {
		uint32_t seen = wait_signal_count(&r->wake);
		bool busy = false;

		for (unsigned i = 0; i < r->count; i++)
			busy |= look(&r->queues[i]);
		quiet = busy ? 0 : quiet + 1;
		if (quiet < TICKS_AWAKE) {
			wait_signal_wait(&r->wake, seen, TICK_NS);
			continue;
		}
		atomic_store(&r->asleep, true);
		for (unsigned i = 0; i < r->count; i++)
			busy |= atomic_load(&r->queues[i].solo) != 0;
		if (!busy)
			wait_signal_wait(&r->wake, seen, WAIT_FOREVER);
		atomic_store(&r->asleep, false);
		quiet = 0;
	}
	return NULL;
}

/* ------------------------------------------------------------------ life */

static bool wait_for_go(struct rings *r)
{
	bool go;

	pthread_mutex_lock(&r->lock);
	while (!r->may_go)
		pthread_cond_wait(&r->decided, &r->lock);
	go = r->go;
	pthread_mutex_unlock(&r->lock);
	return go;
}

void rings_go(struct rings *r, bool go)
{
	pthread_mutex_lock(&r->lock);
	r->may_go = true;
	r->go = go;
	pthread_cond_broadcast(&r->decided);
	pthread_mutex_unlock(&r->lock);
}

/* The queue's first thread stays on its processor, which is what rings are quicker by; one that it has started may go anywhere. */
static void choose_processors(const struct ring_queue *q, bool first)
{
	cpu_set_t set = q->rings->processors;

	if (first && (q->id >= CPU_SETSIZE || !CPU_ISSET(q->id, &set)))
		return;
	if (first) {
		CPU_ZERO(&set);
		CPU_SET(q->id, &set);
	}
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set); /* it may be off, or forbidden */
}

bool rings_serve(struct ring_queue *q, bool first)
{
	choose_processors(q, first);
	if (first) {
		if (!wait_for_go(q->rings))
			return true;
		if (!register_entries(q)) {
			log_message("FUSE over io_uring: queue %u could not be registered", q->id);
			return false;
		}
	}
	while (become_leader(q))
		if (!lead(q))
			end_queue(q);
	return q->refused || is_stopping(q);
}

static int open_queue(struct rings *r, unsigned id)
{
	struct ring_queue *q = &r->queues[id];
	struct io_uring_params p = {.flags = IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL};
	size_t bytes = ROOM + REQUEST_MAX_BYTES;
	int status;

	q->rings = r;
	q->id = id;
	pthread_mutex_init(&q->submit, NULL);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->vacant, NULL);
	q->memory = mmap(NULL, ENTRIES * (bytes + ROOM), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->memory == MAP_FAILED) {
		q->memory = NULL;
		return -ENOMEM;
	}
	for (unsigned i = 0; i < ENTRIES; i++) {
		struct entry *e = &q->entries[i];
		e->queue = q;
		e->headers = (struct headers *)(q->memory + i * (bytes + ROOM));
		e->payload = (char *)e->headers + 2 * ROOM;
		e->iov[0] = (struct iovec){e->headers, sizeof(*e->headers)};
		e->iov[1] = (struct iovec){e->payload, REQUEST_MAX_BYTES};
	}
	status = io_uring_queue_init_params(ENTRIES * 2, &q->uring, &p);
	q->open = !status;
	return status;
}

/* The kernel has a queue for each processor that there may ever be. */
static unsigned possible_processors(void)
{
	unsigned first = 0, last = 0, count = 0;
	FILE *f = fopen("/sys/devices/system/cpu/possible", "re");
	int n;

	while (f && (n = fscanf(f, "%u-%u", &first, &last)) > 0) {
		count = (n == 2 ? last : first) + 1;
		if (fgetc(f) != ',')
			break;
	}
	if (f)
		fclose(f);
	return count ? count : (unsigned)sysconf(_SC_NPROCESSORS_CONF);
}

int rings_create(struct fuse_session *fuse, int device, rings_more *more, void *argument, struct rings **out, struct error *err)
{
	unsigned count = possible_processors();
	struct rings *r = calloc(1, sizeof(*r) + count * sizeof(r->queues[0]));
	int status = 0;

	if (!r)
		return error_set(err, -ENOMEM, "no memory");
	r->fuse = fuse;
	r->device = device;
	r->more = more;
	r->argument = argument;
	if (pthread_getaffinity_np(pthread_self(), sizeof(r->processors), &r->processors))
		CPU_ZERO(&r->processors);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->decided, NULL);
	for (; !status && r->count < count; r->count++)
		status = open_queue(r, r->count);
	if (!status) {
		status = -pthread_create(&r->sentinel, NULL, sentinel_main, r);
		r->has_sentinel = !status;
	}
	if (status) {
		rings_destroy(r);
		return error_set_errno(err, status, "FUSE over io_uring");
	}
	*out = r;
	return 0;
}

unsigned rings_count(const struct rings *r)
{
	return r->count;
}

struct ring_queue *rings_queue(struct rings *r, unsigned index)
{
	return &r->queues[index];
}

void rings_stop(struct rings *r)
{
	atomic_store(&r->stopping, true);
	wait_signal_raise(&r->wake);
	rings_go(r, false);
	for (unsigned i = 0; i < r->count; i++) {
		struct ring_queue *q = &r->queues[i];
		pthread_mutex_lock(&q->lock);
		pthread_cond_broadcast(&q->vacant);
		pthread_mutex_unlock(&q->lock);
	}
}

void rings_destroy(struct rings *r)
{
	if (!r)
		return;
	rings_stop(r);
	if (r->has_sentinel)
		pthread_join(r->sentinel, NULL);
	for (unsigned i = 0; i < r->count; i++) {
		struct ring_queue *q = &r->queues[i];
		if (q->open)
			io_uring_queue_exit(&q->uring);
		if (q->memory)
			munmap(q->memory, ENTRIES * (2 * ROOM + (size_t)REQUEST_MAX_BYTES));
	}
	free(r);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Watching descriptors. With a ring it is one request of it, which a timer cancels: whatever comes first,
 * the fiber goes on when the ring has let go of the request. Without a ring the loop itself sleeps in
 * poll(2) on everything that is watched; a thread each would use up the offload threads.
 */
#include "core/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "core/fiber.h"
#include "core/loop-internal.h"
#include "core/ring.h"
#include "core/wait.h"

#define NS_PER_S UINT64_C(1000000000)

/* A cancellation that found no room is tried again after this. */
#define RETRY_NS UINT64_C(1000000)

#define CONTAINER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

static uint64_t deadline_after(uint64_t timeout_ns)
{
	uint64_t now = wait_now();

	return timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
}

static int poll_for(struct pollfd *fds, nfds_t count, uint64_t timeout_ns)
{
	struct timespec limit = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
				 .tv_nsec = (long)(timeout_ns % NS_PER_S)};

	return ppoll(fds, count, timeout_ns == UINT64_MAX ? NULL : &limit, NULL);
}

static int result_of(short revents)
{
	return revents & POLLNVAL ? -EBADF : revents;
}

/* ------------------------------------------------------------------ plain threads */

static int poll_thread(int fd, short events, uint64_t timeout_ns)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t deadline = timeout_ns == UINT64_MAX ? UINT64_MAX : deadline_after(timeout_ns), now;
	int n;

	while ((n = poll_for(&p, 1, timeout_ns)) < 0) {
		if (errno != EINTR)
			return -errno;
		now = wait_now();
		if (deadline != UINT64_MAX)
			timeout_ns = deadline > now ? deadline - now : 0;
	}
	return n == 0 ? -ETIMEDOUT : result_of(p.revents);
}

/* ------------------------------------------------------------------ with a ring */

struct ring_poll {
	struct request request;
	struct timer timer;
	struct ring *ring;
};

static void ring_poll_timeout(struct timer *t)
{
	struct ring_poll *p = CONTAINER(t, struct ring_poll, timer);

	if (p->request.pending == 0)
		return; /* it has ended, and the fiber is on its way */
	if (ring_cancel(p->ring, &p->request))
		return;
	t->deadline = wait_now() + RETRY_NS;
	loop_timer_add(p->request.fiber, t);
}

static int poll_ring(struct fiber *f, struct ring *ring, int fd, short events, uint64_t timeout_ns)
{
	struct ring_poll p = {.request.fiber = f, .request.endless = true, .ring = ring};

	io_uring_prep_poll_add(&p.request.sqe, fd, (unsigned short)events);
	ring_start(ring, &p.request);
	if (timeout_ns != UINT64_MAX) {
		p.timer.deadline = deadline_after(timeout_ns);
		p.timer.fire = ring_poll_timeout;
		loop_timer_add(f, &p.timer);
	}
	loop_suspend(f);
	loop_timer_remove(f, &p.timer);
	if (p.request.result == -ECANCELED)
		return -ETIMEDOUT;
	return p.request.result < 0 ? p.request.result : result_of((short)p.request.result);
}

/* ------------------------------------------------------------------ without */

/* One entry more is for the wake descriptor. */
static int watches_grow(struct watches *ws)
{
	unsigned capacity = ws->capacity ? ws->capacity * 2 : 16;
	struct pollfd *fds;

	if (ws->count + 1 < ws->capacity)
		return 0;
	fds = reallocarray(ws->fds, capacity, sizeof *fds);
	if (!fds)
		return -ENOMEM;
	ws->fds = fds;
	ws->capacity = capacity;
	return 0;
}

int watches_add(struct watches *ws, struct poll_watch *w)
{
	if (watches_grow(ws) < 0)
		return -ENOMEM;
	w->active = true;
	w->prev = NULL;
	w->next = ws->first;
	if (w->next)
		w->next->prev = w;
	ws->first = w;
	ws->count++;
	return 0;
}

void watches_remove(struct watches *ws, struct poll_watch *w)
{
	if (!w->active)
		return;
	w->active = false;
	if (w->prev)
		w->prev->next = w->next;
	else
		ws->first = w->next;
	if (w->next)
		w->next->prev = w->prev;
	ws->count--;
}

/* Hands out what poll(2) found in fds[0..), which is in the order of the list. */
static void watches_deliver(struct watches *ws, const struct pollfd *fds)
{
	struct poll_watch *next;

	for (struct poll_watch *w = ws->first; w; w = next) {
		next = w->next;
		w->poll.revents = fds++->revents;
		if (!w->poll.revents)
			continue;
		watches_remove(ws, w);
		loop_wake(w->fiber);
	}
}

bool watches_wait(struct watches *ws, int wake_fd, uint64_t timeout_ns)
{
	struct pollfd only_wake, *fds = ws->fds ? ws->fds : &only_wake;
	nfds_t count = 1;
	bool wakes;

	fds[0] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
	for (struct poll_watch *w = ws->first; w; w = w->next)
		fds[count++] = w->poll;
	if (poll_for(fds, count, timeout_ns) <= 0)
		return false;
	wakes = fds[0].revents;
	watches_deliver(ws, fds + 1);
	return wakes;
}

void watches_free(struct watches *ws)
{
	assert(!ws->first);
	free(ws->fds);
	*ws = (struct watches){0};
}

struct plain_poll {
	struct poll_watch watch;
	struct timer timer;
};

static void plain_poll_timeout(struct timer *t)
{
	struct plain_poll *p = CONTAINER(t, struct plain_poll, timer);

	if (!p->watch.active)
		return; /* it was ready at the same time, and the fiber is on its way */
	watches_remove(loop_watches(p->watch.fiber), &p->watch);
	loop_wake(p->watch.fiber);
}

static int poll_plain(struct fiber *f, int fd, short events, uint64_t timeout_ns)
{
	struct plain_poll p = {.watch.fiber = f, .watch.poll = {.fd = fd, .events = events}};

	if (watches_add(loop_watches(f), &p.watch) < 0)
		return -ENOMEM;
	if (timeout_ns != UINT64_MAX) {
		p.timer.deadline = deadline_after(timeout_ns);
		p.timer.fire = plain_poll_timeout;
		loop_timer_add(f, &p.timer);
	}
	loop_suspend(f);
	loop_timer_remove(f, &p.timer);
	return p.watch.poll.revents ? result_of(p.watch.poll.revents) : -ETIMEDOUT;
}

int loop_poll(int fd, short events, uint64_t timeout_ns)
{
	struct fiber *f = loop_fiber();
	struct ring *ring;

	if (fd < 0)
		return -EBADF; /* poll(2) would wait for nothing */
	if (!f || timeout_ns == 0)
		return poll_thread(fd, events, timeout_ns);
	ring = loop_ring(f, IORING_OP_POLL_ADD);
	if (ring && ring_can(ring, IORING_OP_ASYNC_CANCEL))
		return poll_ring(f, ring, fd, events, timeout_ns);
	return poll_plain(f, fd, events, timeout_ns);
}

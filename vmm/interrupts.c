/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vector is told of by one write to its eventfd. Descriptors change at any time: QEMU takes all of them back and gives new
 * ones whenever the guest unmasks a vector that it has not used before, and none may be lost in between. So
 *
 *     raising    if there is a descriptor, writes; else sets `pending`, and looks once more
 *     giving     stores the descriptor, then tells of what is pending
 *
 * and with both sides sequentially consistent one of them sees the other. Who raises is inside a grace; an old
 * descriptor is closed when all are out.
 *
 * INTx is a level made of edges. The client takes one signal for "the line is high" and masks it by itself; it unmasks when the
 * guest has accessed a BAR, and if the line is high by then it has to be told anew.
 */
#include "vmm/interrupts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/grace.h"

struct vector {
	_Atomic int fd; /* -1: none */
	_Atomic bool masked, pending;
};

struct interrupts {
	struct grace raisers;
	unsigned count;
	_Atomic bool high, off; /* INTx, whose `pending` is not used: the line; it is not to be told of */
	struct vector intx;
	struct vector vectors[];
};

/* ------------------------------------------------------------------ telling */

/* The counter can only be full if nobody has read it for ages: then it says what it has to say. */
static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n;
}

static bool can_tell(struct vector *v, int *fd)
{
	*fd = atomic_load(&v->fd);
	return *fd >= 0 && !atomic_load(&v->masked);
}

/* Tells of what is pending if that can be. Inside the grace, or by who changes descriptors. */
static void tell_pending(struct vector *v)
{
	int fd;

	if (can_tell(v, &fd) && atomic_exchange(&v->pending, false))
		signal_fd(fd);
}

void interrupts_raise(struct interrupts *i, unsigned vector)
{
	_Atomic uint32_t *place;
	struct vector *v;
	int fd;

	if (vector >= i->count)
		return;
	v = &i->vectors[vector];
	place = grace_enter(&i->raisers);
	if (can_tell(v, &fd)) {
		signal_fd(fd);
	} else {
		atomic_store(&v->pending, true);
		tell_pending(v);
	}
	grace_leave(&i->raisers, place);
}

/* Tells that the line is high, and masks it, unless it is masked. */
static void tell_line(struct interrupts *i)
{
	int fd = atomic_load(&i->intx.fd);

	if (fd >= 0 && atomic_load(&i->high) && !atomic_load(&i->off) && !atomic_exchange(&i->intx.masked, true))
		signal_fd(fd);
}

void interrupts_set_line(struct interrupts *i, bool high)
{
	_Atomic uint32_t *place = grace_enter(&i->raisers);

	if (atomic_exchange(&i->high, high) != high && high)
		tell_line(i);
	grace_leave(&i->raisers, place);
}

uint64_t interrupts_pending(struct interrupts *i, unsigned first)
{
	uint64_t bits = 0;

	for (unsigned n = 0; n < 64 && first + n < i->count; n++)
		bits |= (uint64_t)atomic_load(&i->vectors[first + n].pending) << n;
	return bits;
}

/* ------------------------------------------------------------------ the client's side */

bool interrupts_can_use(int fd)
{
	static const char eventfd[] = "anon_inode:[eventfd]";
	char path[32], target[sizeof(eventfd)];
	int flags = fcntl(fd, F_GETFL);
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target));
	if (flags < 0 || n != sizeof(eventfd) - 1 || memcmp(target, eventfd, sizeof(eventfd) - 1))
		return false;
	return flags & O_NONBLOCK || !fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void close_old(struct interrupts *i, int fd)
{
	if (fd < 0)
		return;
	grace_wait(&i->raisers);
	close(fd);
}

void interrupts_set_vector(struct interrupts *i, unsigned vector, int fd)
{
	struct vector *v = &i->vectors[vector];
	int old = atomic_exchange(&v->fd, fd);

	tell_pending(v);
	close_old(i, old);
}

void interrupts_set_intx(struct interrupts *i, int fd)
{
	int old = atomic_exchange(&i->intx.fd, fd);

	atomic_store(&i->intx.masked, false);
	tell_line(i);
	close_old(i, old);
}

void interrupts_clear_vectors(struct interrupts *i)
{
	for (unsigned n = 0; n < i->count; n++)
		interrupts_set_vector(i, n, -1);
}

void interrupts_trigger(struct interrupts *i, unsigned vector)
{
	int fd = atomic_load(&i->vectors[vector].fd);

	if (fd >= 0)
		signal_fd(fd);
}

void interrupts_trigger_intx(struct interrupts *i)
{
	int fd = atomic_load(&i->intx.fd);

	if (fd >= 0)
		signal_fd(fd);
}

void interrupts_mask(struct interrupts *i, unsigned vector, bool masked)
{
	atomic_store(&i->vectors[vector].masked, masked);
	tell_pending(&i->vectors[vector]);
}

void interrupts_mask_intx(struct interrupts *i, bool masked)
{
	atomic_store(&i->intx.masked, masked);
	if (!masked)
		tell_line(i);
}

void interrupts_allow_intx(struct interrupts *i, bool allowed)
{
	atomic_store(&i->off, !allowed);
	if (allowed)
		tell_line(i);
}

void interrupts_reset(struct interrupts *i)
{
	for (unsigned n = 0; n < i->count; n++) {
		atomic_store(&i->vectors[n].masked, false);
		atomic_store(&i->vectors[n].pending, false);
	}
	atomic_store(&i->high, false);
	atomic_store(&i->off, false);
	atomic_store(&i->intx.masked, false);
}

/* ------------------------------------------------------------------ life */

unsigned interrupts_vectors(const struct interrupts *i)
{
	return i->count;
}

int interrupts_create(unsigned vectors, struct interrupts **out)
{
	size_t size = sizeof(struct interrupts) + vectors * sizeof(struct vector);
	struct interrupts *i = aligned_alloc(64, (size + 63) / 64 * 64);

	if (!i)
		return -ENOMEM;
	memset(i, 0, size);
	i->count = vectors;
	atomic_store(&i->intx.fd, -1);
	for (unsigned n = 0; n < vectors; n++)
		atomic_store(&i->vectors[n].fd, -1);
	*out = i;
	return 0;
}

void interrupts_destroy(struct interrupts *i)
{
	if (!i)
		return;
	interrupts_clear_vectors(i);
	interrupts_set_intx(i, -1);
	free(i);
}

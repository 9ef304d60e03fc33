/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server: a socket, and for the client that is connected
 *
 *   fiber        waits for                does
 *   serving      a client; then messages  carries out commands one after the other, and answers each with one sendmsg(2)
 *   reading      the socket               reads whole messages: commands go to `serving`, in order; replies to who waits for them
 *   others       room in the socket,      controllers' fibers that copy memory which the client has not given a descriptor
 *                a reply                  of: DMA_READ and DMA_WRITE, which are our commands to the client
 *
 * Reading goes on while a command is carried out, so a command may wait for what waits for the client (an unmap, for requests that
 * copy). The queue between the two is short: a client that sends faster than it is served waits in its socket.
 *
 * We keep our own commands back while we owe an answer to an access to a region: QEMU waits for that under the lock that it
 * needs to serve ours, so both would wait until it gives up (5 s) and the guest dies.
 *
 *   listening -> serving: a client connects -> leaving: it closes, breaks the protocol, or the server stops -> listening
 *
 * Leaving: nothing is received or sent any more and copies fail; memory is taken away, so that requests under way end; the device
 * is reset, which waits for them; what is mapped goes, descriptors of interrupts go. Only then is the next one accepted.
 *
 * A client breaks the protocol where we cannot tell any more where the next message begins, or what it meant by a descriptor: a size
 * that cannot be, too many descriptors, a command before the version was settled. All else is answered with an error.
 *
 * Locks: `lock` of the server, `sending`, `lock` of the connection; none is taken under another, and only `sending` is held
 * across a wait, for room in the socket.
 */
#include "vmm/vfio-user.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/unix-socket.h"
#include "vmm/vfio-user-internal.h"

/* Messages that were read and not carried out. */
#define QUEUE_LENGTH 32u

/* The largest message: an access of the largest size. */
#define MAX_BODY (VFIO_USER_MAX_TRANSFER + 4096u)

/* A client that does not take an answer for so long is sent away; a copy that is not answered for so long has failed. */
#define SEND_NS UINT64_C(10000000000)
#define COPY_NS UINT64_C(2000000000)

/* A DMA access that the client has not answered yet; on the stack of who waits for it. */
struct transfer {
	struct transfer *next;
	uint16_t id, command;
	void *ours; /* of a read */
	size_t length;
	int status;
	struct wait_signal done; /* raised once, when it is off the list */
};

struct connection {
	struct vfio_user *v;
	int fd;
	struct vfio_user_client client;
	_Atomic bool gone;
	struct wait_group fibers; /* reading, and copies under way */

	struct wait_mutex sending;

	struct wait_mutex lock; /* protects what follows */
	struct vfio_user_message *first, *last; /* the queue */
	unsigned queued;
	struct transfer *transfers;
	uint16_t next_id;
	struct wait_signal changed; /* the queue, or `gone` */

	_Atomic unsigned owed; /* accesses that are not answered */
	struct wait_signal answered;
};

static void say(struct vfio_user *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct vfio_user *v, const char *format, ...)
{
	char text[200];
	va_list list;

	if (!v->listener)
		return;
	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	v->listener->say(v->listener, text);
}

int vfio_user_spawn(struct vfio_user *v, void (*entry)(void *argument), void *argument)
{
	wait_group_add(&v->fibers, 1);
	if (!loop_spawn(v->loop, entry, argument))
		return 0;
	wait_group_done(&v->fibers);
	return -ENOMEM;
}

void vfio_user_ended(struct vfio_user *v)
{
	wait_group_done(&v->fibers);
}

/* ------------------------------------------------------------------ the end of a connection */

/* From any fiber: everybody who waits for the client finds out. */
static void hang_up(struct connection *c)
{
	if (atomic_exchange(&c->gone, true))
		return;
	shutdown(c->fd, SHUT_RDWR);
	wait_mutex_lock(&c->lock);
	for (struct transfer *t = c->transfers, *next; t; t = next) {
		next = t->next;
		t->status = -EFAULT;
		wait_signal_raise(&t->done);
	}
	c->transfers = NULL;
	wait_mutex_unlock(&c->lock);
	wait_signal_raise(&c->changed);
	wait_signal_raise(&c->answered);
}

static void free_message(struct vfio_user_message *m)
{
	for (unsigned i = 0; i < m->nr_fds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	free(m);
}

/* ------------------------------------------------------------------ sending */

/* All of it, beginning with the descriptor; iov is used up. 0, or the connection is over. */
static int send_all(struct connection *c, struct iovec *iov, size_t count, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	while (msg.msg_iovlen) {
		n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno != EAGAIN || loop_poll(c->fd, POLLOUT, SEND_NS) < 0))
			return -EPIPE;
		if (n <= 0)
			continue;
		msg.msg_controllen = 0;
		while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
			n -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + n;
			msg.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int send_message(struct connection *c, struct vfio_user_header *h, struct iovec *iov, size_t count, int fd)
{
	int status = -EPIPE;

	iov[0] = (struct iovec){h, sizeof(*h)};
	wait_mutex_lock(&c->sending);
	if (!atomic_load(&c->gone))
		status = send_all(c, iov, count, fd);
	wait_mutex_unlock(&c->sending);
	if (status)
		hang_up(c);
	return status;
}

static void send_reply(struct connection *c, const struct vfio_user_header *asked, int status, struct vfio_user_reply *r)
{
	struct vfio_user_header h = {
		.id = asked->id,
		.command = asked->command,
		.size = (uint32_t)(sizeof(h) + (status ? 0 : r->size)),
		.flags = VFIO_USER_TYPE_REPLY | (status ? VFIO_USER_ERROR : 0u),
		.error = status ? (uint32_t)-status : 0,
	};
	struct iovec iov[2] = {[1] = {r->body, status ? 0 : r->size}};

	send_message(c, &h, iov, status || !r->size ? 1 : 2, status ? -1 : r->fd);
}

/* ------------------------------------------------------------------ memory by message */

static bool is_access(const struct vfio_user_header *h)
{
	return (h->command == VFIO_USER_REGION_READ || h->command == VFIO_USER_REGION_WRITE) &&
	       !(h->flags & VFIO_USER_NO_REPLY);
}

static void wait_until_nothing_is_owed(struct connection *c)
{
	uint64_t until = wait_now() + COPY_NS, now;

	while ((now = wait_now()) < until) {
		uint32_t seen = wait_signal_count(&c->answered);
		if (!atomic_load(&c->owed) || atomic_load(&c->gone))
			return;
		wait_signal_wait(&c->answered, seen, until - now);
	}
}

static void begin_transfer(struct connection *c, struct transfer *t)
{
	wait_mutex_lock(&c->lock);
	t->id = c->next_id++;
	t->status = -EFAULT;
	if (atomic_load(&c->gone)) {
		wait_signal_raise(&t->done);
	} else {
		t->next = c->transfers;
		c->transfers = t;
	}
	wait_mutex_unlock(&c->lock);
}

/* Takes it off the list if it is there: nobody will answer it any more. */
static void end_transfer(struct connection *c, struct transfer *t)
{
	wait_mutex_lock(&c->lock);
	for (struct transfer **at = &c->transfers; *at; at = &(*at)->next)
		if (*at == t) {
			*at = t->next;
			break;
		}
	wait_mutex_unlock(&c->lock);
}

static int transfer(struct connection *c, uint64_t address, void *ours, size_t length, bool write)
{
	struct transfer t = {.command = write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ, .ours = ours, .length = length};
	struct vfio_user_dma_access a = {address, length};
	struct vfio_user_header h = {.command = t.command,
				     .size = (uint32_t)(sizeof(h) + sizeof(a) + (write ? length : 0))};
	struct iovec iov[3] = {[1] = {&a, sizeof(a)}, [2] = {ours, length}};

	wait_until_nothing_is_owed(c);
	begin_transfer(c, &t);
	h.id = t.id;
	if (!send_message(c, &h, iov, write ? 3 : 2, -1))
		wait_signal_wait(&t.done, 0, COPY_NS);
	end_transfer(c, &t);
	return t.status;
}

/* The connection, kept from being freed until wait_group_done(&c->fibers); NULL: there is none. */
static struct connection *borrow(struct vfio_user *v)
{
	struct connection *c;

	wait_mutex_lock(&v->lock);
	c = v->connection;
	if (c)
		wait_group_add(&c->fibers, 1);
	wait_mutex_unlock(&v->lock);
	return c;
}

static int copy_by_message(struct guest_copier *copier, uint64_t address, void *ours, size_t length, bool write)
{
	struct vfio_user *v = (struct vfio_user *)((char *)copier - offsetof(struct vfio_user, copier));
	struct connection *c = borrow(v);
	int status = c ? 0 : -EFAULT;

	while (length && !status) {
		size_t n = length < c->client.max_transfer ? length : c->client.max_transfer;
		status = transfer(c, address, ours, n, write);
		address += n;
		ours = (char *)ours + n;
		length -= n;
	}
	if (c)
		wait_group_done(&c->fibers);
	return status;
}

/* A reply of the client's. One to nothing that we ask, or not any more, is no harm. */
static void take_reply(struct connection *c, const struct vfio_user_message *m)
{
	struct transfer *t = NULL;

	wait_mutex_lock(&c->lock);
	for (struct transfer **at = &c->transfers; *at; at = &(*at)->next)
		if ((*at)->id == m->header.id && (*at)->command == m->header.command) {
			t = *at;
			*at = t->next;
			break;
		}
	if (t) {
		size_t data = t->command == VFIO_USER_DMA_READ ? t->length : 0;
		if (!(m->header.flags & VFIO_USER_ERROR) && m->size == sizeof(struct vfio_user_dma_access) + data) {
			memcpy(t->ours, m->body + sizeof(struct vfio_user_dma_access), data);
			t->status = 0;
		}
		wait_signal_raise(&t->done);
	}
	wait_mutex_unlock(&c->lock);
}

/* ------------------------------------------------------------------ receiving */

/* Takes descriptors out of what came; -EPROTO: too many, or something else. */
static int take_fds(struct msghdr *msg, struct vfio_user_message *m)
{
	int status = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (m->nr_fds < VFIO_USER_MAX_FDS) {
				m->fds[m->nr_fds++] = fd;
			} else {
				close(fd);
				status = -EPROTO;
			}
		}
	}
	return status;
}

/* Reads `length` bytes; descriptors into `m`. 0; -ENOTCONN: the client has closed; other errors. */
static int receive(struct connection *c, void *to, size_t length, struct vfio_user_message *m)
{
	char *at = to;

	while (length) {
		union {
			struct cmsghdr align;
			char space[CMSG_SPACE((VFIO_USER_MAX_FDS + 1) * sizeof(int))];
		} control;
		struct iovec iov = {at, length};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
				     .msg_controllen = sizeof(control.space)};
		ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n == 0)
			return -ENOTCONN;
		if (n < 0 && errno == EAGAIN) {
			int ready = loop_poll(c->fd, POLLIN, WAIT_FOREVER);
			if (ready < 0)
				return ready;
			continue;
		}
		if (n < 0 && errno != EINTR)
			return errno == ECONNRESET ? -ENOTCONN : -errno;
		if (n > 0 && take_fds(&msg, m))
			return -EPROTO;
		at += n > 0 ? n : 0;
		length -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* A whole message, or NULL and why. */
static struct vfio_user_message *receive_message(struct connection *c, int *status)
{
	struct vfio_user_message head = {0}, *m;
	size_t size;

	*status = receive(c, &head.header, sizeof(head.header), &head);
	if (!*status && (head.header.size < sizeof(head.header) || head.header.size - sizeof(head.header) > MAX_BODY)) {
		say(c->v, "client sent a message of %u bytes", head.header.size);
		*status = -EPROTO;
	}
	size = *status ? 0 : head.header.size - sizeof(head.header);
	m = malloc(sizeof(*m) + size + 1);
	if (!m) {
		for (unsigned i = 0; i < head.nr_fds; i++)
			close(head.fds[i]);
		*status = *status ? *status : -ENOMEM;
		return NULL;
	}
	memcpy(m, &head, sizeof(head));
	m->size = size;
	m->body[size] = '\0';
	if (!*status)
		*status = receive(c, m->body, size, m);
	if (!*status)
		return m;
	free_message(m);
	return NULL;
}

/* Hands a command to the fiber that serves, when there is room. */
static void enqueue(struct connection *c, struct vfio_user_message *m)
{
	m->next = NULL;
	if (is_access(&m->header))
		atomic_fetch_add(&c->owed, 1);
	wait_mutex_lock(&c->lock);
	while (c->queued >= QUEUE_LENGTH && !atomic_load(&c->gone)) {
		uint32_t seen = wait_signal_count(&c->changed);
		wait_mutex_unlock(&c->lock);
		if (!atomic_load(&c->gone))
			wait_signal_wait(&c->changed, seen, WAIT_FOREVER);
		wait_mutex_lock(&c->lock);
	}
	if (c->first)
		c->last->next = m;
	else
		c->first = m;
	c->last = m;
	c->queued++;
	wait_mutex_unlock(&c->lock);
	wait_signal_raise(&c->changed);
}

static void reading_main(void *argument)
{
	struct connection *c = argument;
	struct vfio_user_message *m;
	int status = 0;

	while (!status && (m = receive_message(c, &status))) {
		unsigned type = m->header.flags & VFIO_USER_TYPE_MASK;
		if (type == VFIO_USER_TYPE_COMMAND) {
			enqueue(c, m);
			continue;
		}
		if (type != VFIO_USER_TYPE_REPLY) {
			say(c->v, "client sent a message of type %u", type);
			status = -EPROTO;
		} else {
			take_reply(c, m);
		}
		free_message(m);
	}
	if (status != -ENOTCONN && !atomic_load(&c->gone))
		say(c->v, "client is sent away: %s", strerror(-status));
	hang_up(c);
	wait_group_done(&c->fibers);
}

/* ------------------------------------------------------------------ serving */

/* The next command, when there is one; NULL: the client has gone. */
static struct vfio_user_message *dequeue(struct connection *c)
{
	for (;;) {
		uint32_t seen = wait_signal_count(&c->changed);
		struct vfio_user_message *m;
		bool full;
		wait_mutex_lock(&c->lock);
		full = c->queued == QUEUE_LENGTH;
		m = c->first;
		if (m) {
			c->first = m->next;
			c->queued--;
		}
		wait_mutex_unlock(&c->lock);
		if (full)
			wait_signal_raise(&c->changed);
		if (m || atomic_load(&c->gone))
			return m;
		wait_signal_wait(&c->changed, seen, WAIT_FOREVER);
	}
}

static void serve_message(struct connection *c, struct vfio_user_message *m)
{
	bool greeted = c->client.greeted;
	struct vfio_user_reply r;
	int status = vfio_user_handle(c->v, &c->client, m, &r);

	if (!(m->header.flags & VFIO_USER_NO_REPLY))
		send_reply(c, &m->header, status, &r);
	if (is_access(&m->header)) {
		atomic_fetch_sub(&c->owed, 1);
		wait_signal_raise(&c->answered);
	}
	free(r.body);
	if (!greeted && !c->client.greeted) {
		say(c->v, "client is sent away: it did not begin with a version that is known here");
		hang_up(c);
	}
}

static void leave(struct vfio_user *v, struct connection *c)
{
	struct vfio_user_message *m;

	hang_up(c);
	wait_mutex_lock(&v->lock);
	v->connection = NULL;
	wait_mutex_unlock(&v->lock);
	guest_memory_clear(v->memory);
	vfio_user_reset_device(v);
	interrupts_clear_vectors(v->device->interrupts);
	vfio_user_set_intx(v, -1);
	wait_group_wait(&c->fibers);
	guest_memory_settle(v->memory);
	while ((m = dequeue(c)))
		free_message(m);
	close(c->fd);
	free(c);
	if (v->device->ops->left)
		v->device->ops->left(v->device);
	say(v, "client has gone");
}

static void serve_client(struct vfio_user *v, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	struct vfio_user_message *m;

	if (!c) {
		close(fd);
		return;
	}
	c->v = v;
	c->fd = fd;
	wait_group_add(&c->fibers, 1);
	if (loop_spawn(v->loop, reading_main, c)) {
		close(fd);
		free(c);
		return;
	}
	say(v, "client has connected");
	wait_mutex_lock(&v->lock);
	v->connection = c;
	wait_mutex_unlock(&v->lock);
	if (atomic_load(&v->stopping))
		hang_up(c);
	while (!atomic_load(&c->gone) && (m = dequeue(c))) {
		serve_message(c, m);
		free_message(m);
	}
	leave(v, c);
}

static void serving_main(void *argument)
{
	struct vfio_user *v = argument;

	while (!atomic_load(&v->stopping)) {
		int fd = accept4(v->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			serve_client(v, fd);
		else if (errno == EAGAIN)
			loop_poll(v->socket, POLLIN, WAIT_FOREVER);
		else if (!atomic_load(&v->stopping))
			wait_sleep(10000000); /* out of descriptors: for a moment, perhaps */
	}
	vfio_user_ended(v);
}

/* ------------------------------------------------------------------ life */

int vfio_user_create(const char *path, struct loop *loop, struct vfio_user_listener *listener, struct vfio_user **out,
		     struct error *err)
{
	struct vfio_user *v = calloc(1, sizeof(*v));
	int status = -ENOMEM;

	if (!v)
		return error_set(err, -ENOMEM, "no memory");
	v->loop = loop;
	v->listener = listener;
	v->socket = -1;
	v->copier.copy = copy_by_message;
	v->path = strdup(path);
	if (!v->path || guest_memory_create(&v->copier, &v->memory))
		error_set(err, -ENOMEM, "no memory");
	else
		status = unix_socket_make(v->path, 0777, &v->socket, err);
	if (status)
		vfio_user_destroy(v);
	else
		*out = v;
	return status;
}

struct guest_memory *vfio_user_memory(struct vfio_user *v)
{
	return v->memory;
}

int vfio_user_start(struct vfio_user *v, struct vmm_device *device, struct error *err)
{
	v->device = device;
	if (listen(v->socket, 4))
		return error_set_errno(err, -errno, "socket '%s'", v->path);
	return vfio_user_spawn(v, serving_main, v) ? error_set(err, -ENOMEM, "no memory for a fiber") : 0;
}

void vfio_user_stop(struct vfio_user *v)
{
	struct connection *c;

	atomic_store(&v->stopping, true);
	if (v->socket >= 0) {
		unlink(v->path);
		shutdown(v->socket, SHUT_RDWR);
	}
	c = borrow(v);
	if (c) {
		hang_up(c);
		wait_group_done(&c->fibers);
	}
	wait_group_wait(&v->fibers);
	if (v->socket >= 0)
		close(v->socket);
	v->socket = -1;
}

void vfio_user_destroy(struct vfio_user *v)
{
	if (!v)
		return;
	if (v->socket >= 0) {
		unlink(v->path);
		close(v->socket);
	}
	guest_memory_destroy(v->memory);
	free(v->path);
	free(v);
}

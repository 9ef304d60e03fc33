/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/vfio-client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/wait.h"

#define PATIENCE_NS (UINT64_C(10) * 1000 * 1000 * 1000)

enum { PAGE = 4096, MOST = 1 << 21 };

/* ------------------------------------------------------------------ messages */

bool client_connect(struct vfio_client *c, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memset(c, 0, sizeof(*c));
	c->ram_fd = c->reply_fd = -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd >= 0 && !connect(c->fd, (struct sockaddr *)&address, sizeof(address)))
		return true;
	close(c->fd);
	c->fd = -1;
	return false;
}

void client_close(struct vfio_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->reply_fd >= 0)
		close(c->reply_fd);
	if (c->ram)
		munmap(c->ram, CLIENT_RAM_BYTES);
	if (c->ram_fd >= 0)
		close(c->ram_fd);
	if (c->doorbells)
		munmap((void *)(uintptr_t)c->doorbells, PAGE);
	memset(c, 0, sizeof(*c));
	c->fd = c->ram_fd = c->reply_fd = -1;
}

void client_send_raw(struct vfio_client *c, const void *bytes, size_t size)
{
	const char *at = bytes;
	ssize_t n;

	for (; size && (n = send(c->fd, at, size, MSG_NOSIGNAL)) > 0; size -= (size_t)n)
		at += n;
}

uint16_t client_send(struct vfio_client *c, unsigned command, unsigned flags, const void *body, size_t size, const int *fds,
		     unsigned nr_fds)
{
	struct vfio_user_header h = {.id = c->next_id++, .command = (uint16_t)command, .size = (uint32_t)(sizeof(h) + size),
				     .flags = flags};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(253 * sizeof(int))];
	} control = {0};
	struct iovec iov = {&h, sizeof(h)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nr_fds) {
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){CMSG_LEN(nr_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, nr_fds * sizeof(int));
	}
	if (sendmsg(c->fd, &msg, MSG_NOSIGNAL) == sizeof(h))
		client_send_raw(c, body, size);
	return h.id;
}

/* `size` bytes; a descriptor that comes with them is kept. */
static bool receive(struct vfio_client *c, void *to, size_t size)
{
	char *at = to;

	while (size) {
		union {
			struct cmsghdr align;
			char space[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec iov = {at, size};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
				     .msg_controllen = sizeof(control.space)};
		ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return false;
		if (CMSG_FIRSTHDR(&msg) && CMSG_FIRSTHDR(&msg)->cmsg_type == SCM_RIGHTS)
			memcpy(&c->reply_fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
		at += n;
		size -= (size_t)n;
	}
	return true;
}

bool client_receive(struct vfio_client *c, struct vfio_user_header *h, void *body, size_t room)
{
	char rest[4096];
	size_t size;

	if (!receive(c, h, sizeof(*h)) || h->size < sizeof(*h))
		return false;
	size = c->reply_size = h->size - sizeof(*h);
	if (!receive(c, body, size < room ? size : room))
		return false;
	for (size -= size < room ? size : room; size;) {
		size_t n = size < sizeof(rest) ? size : sizeof(rest);
		if (!receive(c, rest, n))
			return false;
		size -= n;
	}
	return true;
}

void client_answer(struct vfio_client *c, const struct vfio_user_header *h, const void *body)
{
	const struct vfio_user_dma_access *a = body;
	bool good = a->address >= CLIENT_RAM && a->count <= CLIENT_RAM_BYTES &&
		    a->address - CLIENT_RAM <= CLIENT_RAM_BYTES - a->count;
	bool read = h->command == VFIO_USER_DMA_READ;
	struct vfio_user_header reply = {.id = h->id, .command = h->command, .size = sizeof(reply) + sizeof(*a),
					 .flags = VFIO_USER_TYPE_REPLY};

	if (!good) {
		reply.size = sizeof(reply);
		reply.flags |= VFIO_USER_ERROR;
		reply.error = EFAULT;
		client_send_raw(c, &reply, sizeof(reply));
		return;
	}
	if (read)
		reply.size += (uint32_t)a->count;
	else
		memcpy(c->ram + (a->address - CLIENT_RAM), a + 1, a->count);
	client_send_raw(c, &reply, sizeof(reply));
	client_send_raw(c, a, sizeof(*a));
	if (read)
		client_send_raw(c, c->ram + (a->address - CLIENT_RAM), a->count);
}

/* The reply to `id`; commands of the server's that come before it are answered. */
static int wait_reply(struct vfio_client *c, uint16_t id, unsigned command, void *reply, size_t room)
{
	char *buffer = malloc(MOST);
	struct vfio_user_header h;
	int status = -ENOMEM;

	while (buffer) {
		status = -EPIPE;
		if (!client_receive(c, &h, buffer, MOST))
			break;
		if ((h.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND) {
			client_answer(c, &h, buffer);
			continue;
		}
		status = h.id == id && h.command == command ? 0 : -EPROTO;
		if (!status && h.flags & VFIO_USER_ERROR)
			status = h.error && h.size == sizeof(h) ? -(int)h.error : -EPROTO;
		else if (!status && room)
			memcpy(reply, buffer, c->reply_size < room ? c->reply_size : room);
		break;
	}
	free(buffer);
	return status;
}

int client_call(struct vfio_client *c, unsigned command, const void *body, size_t size, const int *fds, unsigned nr_fds, void *reply,
		size_t room)
{
	uint16_t id = client_send(c, command, 0, body, size, fds, nr_fds);

	return wait_reply(c, id, command, reply, room);
}

int client_greet(struct vfio_client *c)
{
	static const char body[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}";

	return client_call(c, VFIO_USER_VERSION, body, sizeof(body), NULL, 0, NULL, 0);
}

/* ------------------------------------------------------------------ memory */

int client_map(struct vfio_client *c, uint64_t address, uint64_t size, uint64_t offset, int fd)
{
	struct vfio_user_dma_map map = {sizeof(map), VFIO_USER_MAP_READ | VFIO_USER_MAP_WRITE, offset, address, size};

	return client_call(c, VFIO_USER_DMA_MAP, &map, sizeof(map), &fd, fd >= 0, NULL, 0);
}

int client_unmap(struct vfio_client *c, uint64_t address, uint64_t size)
{
	struct vfio_user_dma_unmap unmap = {sizeof(unmap), 0, address, size};

	return client_call(c, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap), NULL, 0, NULL, 0);
}

int client_add_ram(struct vfio_client *c, bool by_descriptor)
{
	c->ram_fd = memfd_create("client", MFD_CLOEXEC);
	if (c->ram_fd < 0 || ftruncate(c->ram_fd, CLIENT_RAM_BYTES))
		return -errno;
	c->ram = mmap(NULL, CLIENT_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, c->ram_fd, 0);
	if (c->ram == MAP_FAILED) {
		c->ram = NULL;
		return -errno;
	}
	return client_map(c, CLIENT_RAM, CLIENT_RAM_BYTES, 0, by_descriptor ? c->ram_fd : -1);
}

void *client_alloc(struct vfio_client *c, size_t size)
{
	char *at = c->ram + c->used;

	c->used += (size + PAGE - 1) / PAGE * PAGE;
	if (c->used > CLIENT_RAM_BYTES)
		abort();
	memset(at, 0, size);
	return at;
}

uint64_t client_address(struct vfio_client *c, const volatile void *memory)
{
	return CLIENT_RAM + (uint64_t)((const volatile char *)memory - c->ram);
}

/* ------------------------------------------------------------------ regions and interrupts */

int client_read(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t *value)
{
	struct vfio_user_region_access a = {offset, region, size};
	struct {
		struct vfio_user_region_access a;
		uint64_t value;
	} reply = {.value = 0};
	int status = client_call(c, VFIO_USER_REGION_READ, &a, sizeof(a), NULL, 0, &reply, sizeof(reply));

	*value = reply.value;
	return status ? status : c->reply_size == sizeof(a) + size ? 0 : -EPROTO;
}

static uint16_t send_write(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t value, unsigned flags)
{
	struct {
		struct vfio_user_region_access a;
		uint64_t value;
	} body = {{offset, region, size}, value};

	return client_send(c, VFIO_USER_REGION_WRITE, flags, &body, sizeof(body.a) + size, NULL, 0);
}

int client_write(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
	return wait_reply(c, send_write(c, region, offset, size, value, 0), VFIO_USER_REGION_WRITE, NULL, 0);
}

void client_post(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
	send_write(c, region, offset, size, value, VFIO_USER_NO_REPLY);
}

int client_set_vectors(struct vfio_client *c, unsigned start, const int *fds, unsigned count)
{
	struct vfio_user_irq_set set = {sizeof(set), VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_TRIGGER, VFIO_USER_IRQ_MSIX, start,
					count};

	return client_call(c, VFIO_USER_SET_IRQS, &set, sizeof(set), fds, fds ? count : 0, NULL, 0);
}

bool client_map_doorbells(struct vfio_client *c)
{
	struct {
		struct vfio_user_region_info info;
		struct vfio_user_sparse sparse;
	} r = {.info = {.argsz = sizeof(r)}};
	void *page;

	if (client_call(c, VFIO_USER_GET_REGION_INFO, &r.info, sizeof(r.info), NULL, 0, &r, sizeof(r)) || c->reply_fd < 0)
		return false;
	page = mmap(NULL, r.sparse.size, PROT_READ | PROT_WRITE, MAP_SHARED, c->reply_fd, (off_t)(r.info.offset + r.sparse.offset));
	close(c->reply_fd);
	c->reply_fd = -1;
	if (page == MAP_FAILED)
		return false;
	c->doorbells = page;
	return true;
}

/* ------------------------------------------------------------------ NVMe */

static void ring(struct vfio_client *c, unsigned index, uint32_t value)
{
	if (c->doorbells)
		__atomic_store_n(&c->doorbells[index], value, __ATOMIC_RELEASE);
	else
		client_post(c, 0, NVME_REG_DOORBELLS + 4 * index, 4, value);
}

static void begin_queue(struct vfio_client *c, struct client_queue *q, unsigned id, unsigned depth)
{
	*q = (struct client_queue){.c = c, .id = id, .depth = depth, .phase = 1};
	q->sq = client_alloc(c, depth * sizeof(*q->sq));
	q->cq = client_alloc(c, depth * sizeof(*q->cq));
}

bool client_enable(struct vfio_client *c, struct client_queue *admin)
{
	uint64_t until = wait_now() + PATIENCE_NS, csts = 0;

	begin_queue(c, admin, 0, 32);
	if (client_write(c, VFIO_USER_REGION_CONFIG, 4, 2, 6))
		return false;
	client_post(c, 0, NVME_REG_AQA, 4, 31 | 31 << 16);
	client_post(c, 0, NVME_REG_ASQ, 8, client_address(c, admin->sq));
	client_post(c, 0, NVME_REG_ACQ, 8, client_address(c, admin->cq));
	client_post(c, 0, NVME_REG_CC, 4, NVME_CC_EN | 6 << 16 | 4 << 20);
	while (!(csts & NVME_CSTS_RDY) && wait_now() < until)
		if (client_read(c, 0, NVME_REG_CSTS, 4, &csts))
			return false;
	return csts & NVME_CSTS_RDY;
}

void client_submit(struct client_queue *q, const struct nvme_sqe *sqe)
{
	q->sq[q->tail] = *sqe;
	q->sq[q->tail].cid = put16(q->tail);
	q->tail = q->tail + 1 == q->depth ? 0 : q->tail + 1;
}

void client_ring(struct client_queue *q)
{
	ring(q->c, 2 * q->id, q->tail);
}

bool client_poll(struct client_queue *q, uint16_t *cid, uint16_t *status)
{
	const uint64_t *second = (const uint64_t *)(uintptr_t)&q->cq[q->head] + 1;
	uint64_t word = __atomic_load_n(second, __ATOMIC_ACQUIRE);

	if ((word >> 48 & 1) != q->phase)
		return false;
	*cid = (uint16_t)(word >> 32);
	*status = (uint16_t)(word >> 49 & 0x7ff);
	if (++q->head == q->depth) {
		q->head = 0;
		q->phase = !q->phase;
	}
	return true;
}

void client_ack(struct client_queue *q)
{
	ring(q->c, 2 * q->id + 1, q->head);
}

/* Commands of the server's that have come are answered. */
static void serve(struct vfio_client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	struct vfio_user_header h;
	char *buffer;

	if (poll(&p, 1, 0) <= 0)
		return;
	buffer = malloc(MOST);
	if (buffer && client_receive(c, &h, buffer, MOST) && (h.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND)
		client_answer(c, &h, buffer);
	free(buffer);
}

uint16_t client_run(struct client_queue *q, const struct nvme_sqe *sqe)
{
	uint64_t until = wait_now() + PATIENCE_NS;
	uint16_t cid, status;

	client_submit(q, sqe);
	client_ring(q);
	while (!client_poll(q, &cid, &status)) {
		if (wait_now() > until)
			return 0xffff;
		serve(q->c);
		wait_yield();
	}
	client_ack(q);
	return status;
}

bool client_create_queue(struct client_queue *admin, struct client_queue *q, unsigned id, unsigned depth, bool interrupts)
{
	struct nvme_sqe cq = {.opcode = NVME_ADMIN_CREATE_CQ, .cdw10 = put32(id | (depth - 1) << 16)};
	struct nvme_sqe sq = {.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = cq.cdw10, .cdw11 = put32(1 | id << 16)};

	begin_queue(admin->c, q, id, depth);
	cq.prp1 = put64(client_address(q->c, q->cq));
	cq.cdw11 = put32(interrupts ? 3 | id << 16 : 1);
	sq.prp1 = put64(client_address(q->c, q->sq));
	return !client_run(admin, &cq) && !client_run(admin, &sq);
}

uint16_t client_rw(struct client_queue *q, bool write, uint64_t lba, unsigned blocks, void *memory)
{
	struct nvme_sqe sqe = {.opcode = write ? NVME_IO_WRITE : NVME_IO_READ, .nsid = put32(1),
			       .prp1 = put64(client_address(q->c, memory)), .cdw10 = put32((uint32_t)lba),
			       .cdw11 = put32((uint32_t)(lba >> 32)), .cdw12 = put32(blocks - 1)};

	return client_run(q, &sqe);
}

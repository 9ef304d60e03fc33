/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client of vfio-user, message by message, with just enough of an NVMe driver to move data: for tests and the benchmark. It knows the
 * protocol by vmm/vfio-user-wire.h, and nothing else of the server.
 */
#ifndef PLATTER_TESTS_VFIO_CLIENT_H
#define PLATTER_TESTS_VFIO_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme/spec.h"
#include "vmm/vfio-user-wire.h"

/* Where its memory is for the device. */
#define CLIENT_RAM UINT64_C(0x100000)

enum { CLIENT_RAM_BYTES = 8 << 20 };

struct vfio_client {
	int fd; /* -1: not connected */
	uint16_t next_id;
	int ram_fd;
	char *ram;
	size_t used; /* of it */
	volatile uint32_t *doorbells; /* mapped; NULL: by message */
	size_t reply_size; /* of the body of the last reply */
	int reply_fd;      /* that came with it; -1: none. The caller's */
};

struct client_queue {
	struct vfio_client *c;
	unsigned id, depth, tail, head, phase;
	struct nvme_sqe *sq;
	volatile struct nvme_cqe *cq;
};

/* Connects; false where nobody listens. */
bool client_connect(struct vfio_client *c, const char *path);
void client_close(struct vfio_client *c);

/* Sends a header and a body with descriptors; the id. A failure shows at the next reply. */
uint16_t client_send(struct vfio_client *c, unsigned command, unsigned flags, const void *body, size_t size, const int *fds,
		     unsigned nr_fds);
void client_send_raw(struct vfio_client *c, const void *bytes, size_t size);

/* Receives one message: its header and up to `room` bytes of body. False: the server has closed. */
bool client_receive(struct vfio_client *c, struct vfio_user_header *h, void *body, size_t room);

/* A command and its reply: 0; the errno in the reply, negative; -EPIPE: closed; -EPROTO: that was no reply to it. */
int client_call(struct vfio_client *c, unsigned command, const void *body, size_t size, const int *fds, unsigned nr_fds, void *reply,
		size_t room);

int client_greet(struct vfio_client *c);

/* Maps memory at CLIENT_RAM, by descriptor or to be reached by messages. */
int client_add_ram(struct vfio_client *c, bool by_descriptor);
int client_map(struct vfio_client *c, uint64_t address, uint64_t size, uint64_t offset, int fd);
int client_unmap(struct vfio_client *c, uint64_t address, uint64_t size);

/* Memory of it, zeroed, whole pages. */
void *client_alloc(struct vfio_client *c, size_t size);
uint64_t client_address(struct vfio_client *c, const volatile void *memory);

/* Answers a DMA_READ or DMA_WRITE that has come. */
void client_answer(struct vfio_client *c, const struct vfio_user_header *h, const void *body);

/* Accesses to a region; memory commands that come meanwhile are answered. Status as of client_call(). */
int client_read(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t *value);
int client_write(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t value);
void client_post(struct vfio_client *c, unsigned region, uint64_t offset, unsigned size, uint64_t value);

/* Descriptors for vectors from `start` on. */
int client_set_vectors(struct vfio_client *c, unsigned start, const int *fds, unsigned count);

/* Maps the page of doorbells; false: there is none. */
bool client_map_doorbells(struct vfio_client *c);

/* ------------------------------------------------------------------ NVMe */

/* Makes the device a bus master, and enables the controller with an admin queue of 32 entries. */
bool client_enable(struct vfio_client *c, struct client_queue *admin);

/* An I/O queue pair; interrupts on vector `id`, or none. */
bool client_create_queue(struct client_queue *admin, struct client_queue *q, unsigned id, unsigned depth, bool interrupts);

/* Puts a command into the ring; its cid is where it lies. There must be room. */
void client_submit(struct client_queue *q, const struct nvme_sqe *sqe);
void client_ring(struct client_queue *q);

/* Takes the next completion; false: there is none yet. client_ack() tells of all that were taken. */
bool client_poll(struct client_queue *q, uint16_t *cid, uint16_t *status);
void client_ack(struct client_queue *q);

/* One command, waited for; its status, or 0xffff: none came in 10 s. */
uint16_t client_run(struct client_queue *q, const struct nvme_sqe *sqe);

/* Read or Write of `blocks` of 512 bytes, up to a page. */
uint16_t client_rw(struct client_queue *q, bool write, uint64_t lba, unsigned blocks, void *memory);

#endif

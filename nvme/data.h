/* SPDX-License-Identifier: BSD-3-Clause */
/* The guest's memory: small reads and writes of it, and the data of a command as a vector that disks take. */
#ifndef PLATTER_NVME_DATA_H
#define PLATTER_NVME_DATA_H

#include "nvme/internal.h"

/* Copies of guest memory. 0, -EFAULT where it cannot be reached, or what the host's read and write fail with. */
int nvme_guest_read(struct nvme *c, uint64_t address, void *to, size_t length);
int nvme_guest_write(struct nvme *c, uint64_t address, const void *from, size_t length);

/* A 32-bit word of guest memory, aligned, in one access: a load that acquires, a store that releases. */
int nvme_guest_load32(struct nvme *c, uint64_t address, uint32_t *value);
int nvme_guest_store32(struct nvme *c, uint64_t address, uint32_t value);

/* A completion entry, of which the second half, with the phase, becomes visible last and at once. */
int nvme_guest_post(struct nvme *c, uint64_t address, const struct nvme_cqe *cqe);

#define NVME_OWN_IOVECS 34u

struct nvme_bounce;

/* The data buffer of one command; on the stack of its fiber. */
struct nvme_data {
	struct vec v; /* for the disk */
	struct nvme *c;
	struct iovec *iov;
	size_t count, room, size;
	unsigned access;
	void *token;
	struct nvme_bounce *bounces;
	struct iovec own[NVME_OWN_IOVECS];
};

/*
 * The `length` bytes that the command's PRPs or SGL describe: mapped and held until nvme_data_unmap(). enum nvme_access says what the
 * controller does there. A status; where it is not NVME_OK nothing is held.
 */
uint16_t nvme_data_map(struct nvme_command *cmd, size_t length, unsigned access, struct nvme_data *d);

/* Ends it; `deliver`: what was put into `v` is to be seen by the guest, where that was not its own memory. A status. */
uint16_t nvme_data_unmap(struct nvme_data *d, bool deliver);

/* Data structures: sends to, or fetches from, the command's buffer, with guarded copies. A status. */
uint16_t nvme_data_send(struct nvme_command *cmd, const void *from, size_t length);
uint16_t nvme_data_fetch(struct nvme_command *cmd, void *to, size_t length);

/* Guarded copies between a mapped buffer, `from` bytes in, and memory of ours. A status. */
uint16_t nvme_data_gather(const struct nvme_data *d, size_t from, void *to, size_t length);

#endif

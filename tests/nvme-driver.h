/* SPDX-License-Identifier: BSD-3-Clause */
/* An NVMe driver in the same process: guest memory, rings and doorbells as a real one uses them. For tests and the benchmark. */
#ifndef PLATTER_TESTS_NVME_DRIVER_H
#define PLATTER_TESTS_NVME_DRIVER_H

#include <stdbool.h>

#include "core/grace.h"
#include "core/loop.h"
#include "core/wait.h"
#include "nvme/nvme.h"
#include "nvme/spec.h"

/* ------------------------------------------------------------------ guest memory */

enum {
	GUEST_RAM_BYTES = 32 << 20,
	GUEST_PAGE = 4096,
	GUEST_VECTORS = 80,
	GUEST_REGIONS = 5,
};

#define GUEST_RAM UINT64_C(0x100000)            /* of GUEST_RAM_BYTES; tests allocate here */
#define GUEST_SPLIT UINT64_C(0x40000000)        /* two regions of 1 MiB side by side, apart in the host */
#define GUEST_SPLIT_MIDDLE (GUEST_SPLIT + (1 << 20))
#define GUEST_UNMAPPED UINT64_C(0x80000000)     /* 1 MiB that can only be copied */
#define GUEST_ROM UINT64_C(0xc0000000)          /* 1 MiB that can only be read */
#define GUEST_NOWHERE UINT64_C(0x7000000000)    /* no memory */

struct guest_region {
	uint64_t address, size;
	char *memory;
	void *base; /* what to free */
	unsigned access; /* enum nvme_access */
	bool copied;     /* only by read and write */
};

struct guest {
	struct nvme_host host; /* first */
	struct guest_region regions[GUEST_REGIONS];
	uint64_t next; /* free memory */
	struct grace holders;
	_Atomic unsigned raised[GUEST_VECTORS];
	struct wait_signal raise;
	_Atomic unsigned long copies; /* calls of read and write */
};

/* Memory of `size` bytes, zeroed; `align` is a power of two. Never freed before guest_end(). */
uint64_t guest_alloc(struct guest *g, size_t size, size_t align);

/* Where an address of RAM, or of any region, is; it must be there. */
void *guest_at(struct guest *g, uint64_t address);

/* ------------------------------------------------------------------ the driver */

struct driver_queue {
	struct driver *d;
	unsigned id, cq_id, depth, cq_depth;
	uint64_t sq, cq;   /* guest addresses */
	unsigned tail, head;
	unsigned sq_head;  /* as completions told */
	bool phase;
	uint16_t next_cid;
	unsigned in_flight;
};

struct driver {
	struct guest guest;
	struct nvme *c;
	struct loop *loops[4];
	unsigned nr_loops;
	unsigned page_shift;
	uint64_t shadow, event_index; /* 0: registers only */
	struct driver_queue admin;
	struct nvme_cqe last; /* what driver_admin() and driver_io() waited for last */
};

/* A completion as a driver looks at it. */
struct driver_result {
	uint16_t status; /* SCT << 8 | SC */
	bool dnr;
	uint16_t cid, sqid, sqhd;
	uint32_t dw0, dw1;
};

/* A disabled controller on loops of its own, in fresh memory. Ends the program where that cannot be had. */
void driver_open(struct driver *d, const struct nvme_options *options, unsigned nr_loops);
void driver_close(struct driver *d);

/* The same on a loop that the caller runs. */
void driver_open_on(struct driver *d, const struct nvme_options *options, struct loop *loop);

/* Adds a disk by its spec; the namespace's id. Ends the program on failure. */
uint32_t driver_add(struct driver *d, const char *spec, const struct nvme_namespace_options *options);
uint32_t driver_add_disk(struct driver *d, struct disk *disk, const struct nvme_namespace_options *options);

uint32_t driver_read32(struct driver *d, uint64_t reg);
void driver_write32(struct driver *d, uint64_t reg, uint32_t value);
uint64_t driver_read64(struct driver *d, uint64_t reg);
void driver_write64(struct driver *d, uint64_t reg, uint64_t value);

/* Waits until (CSTS & mask) == value; false after a minute. */
bool driver_wait_csts(struct driver *d, uint32_t mask, uint32_t value);

/* Sets up admin queues of that depth and enables; false when RDY does not come. page_shift 12 to 16. */
bool driver_enable(struct driver *d, unsigned depth, unsigned page_shift);

/* EN to 0, and waits for RDY to be 0. */
bool driver_disable(struct driver *d);

/* Puts an entry into the ring, without ringing; its cid. There must be room. */
uint16_t driver_submit(struct driver_queue *q, const struct nvme_sqe *sqe);
void driver_ring(struct driver_queue *q);

/* Takes the next completion, if there is one; the head doorbell is written by driver_ack(). */
bool driver_poll(struct driver_queue *q, struct driver_result *result);
void driver_ack(struct driver_queue *q);

/* Waits for the next completion and acknowledges it; false after a minute. */
bool driver_wait(struct driver_queue *q, struct driver_result *result);

/* One command, from beginning to end; its status, or 0xffff where no completion came. */
uint16_t driver_run(struct driver_queue *q, const struct nvme_sqe *sqe, struct driver_result *result);

/* A pair of queues of the same id; status of the first command that failed. */
uint16_t driver_create_cq(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth, unsigned vector);
uint16_t driver_create_sq(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth, unsigned cq_id);
uint16_t driver_create_pair(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth);
uint16_t driver_delete(struct driver *d, bool sq, unsigned id);

/* ------------------------------------------------------------------ entries */

struct nvme_sqe driver_admin_command(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t cdw10, uint32_t cdw11);

/* Read, Write, ... of `blocks` blocks from `lba` on. */
struct nvme_sqe driver_rw(uint8_t opcode, uint32_t nsid, uint64_t lba, unsigned blocks, uint64_t prp1, uint64_t prp2);

/* Get Features, Set Features with a number. */
uint16_t driver_get_feature(struct driver *d, uint8_t fid, uint32_t nsid, uint32_t cdw11, uint32_t *value);
uint16_t driver_set_feature(struct driver *d, uint8_t fid, uint32_t nsid, uint32_t cdw11);

/* Identify into a page of guest memory, of which the address is returned in *page. */
uint16_t driver_identify(struct driver *d, uint8_t cns, uint32_t nsid, void **page);

/* Get Log Page of `size` bytes from `offset` on. */
uint16_t driver_log(struct driver *d, uint8_t lid, uint32_t nsid, size_t size, uint64_t offset, bool retain, void **page);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* An NVMe 2.0 controller as a device model: what carries it reads and writes its registers, and lends it threads. */
#ifndef PLATTER_NVME_NVME_H
#define PLATTER_NVME_NVME_H

#include <stdbool.h>
#include <stdint.h>

#include "core/disk.h"
#include "core/error.h"
#include "core/loop.h"
#include "nvme/host.h"

struct nvme;

#define NVME_MAX_QUEUES 64u /* I/O queue pairs, beside the admin queue */
#define NVME_MAX_VECTORS 2048u
#define NVME_MAX_DEPTH 4096u
#define NVME_MAX_NAMESPACES 1024u

/* Bytes of the register BAR: properties and doorbells of all queues. */
#define NVME_BAR_BYTES 0x4000u

/* Zero-initialised: defaults. Texts are copied. */
struct nvme_options {
	const char *serial;     /* up to 20 ASCII characters; NULL: "PLATTER0000001" */
	const char *model;      /* up to 40; NULL: "Platter NVMe Controller" */
	const char *nqn;        /* subsystem NQN, up to 223 bytes; NULL: made from the serial number */
	uint16_t vendor;        /* PCI vendor and subsystem vendor; 0: 0x1414 */
	uint16_t controller_id;
	unsigned queues;        /* I/O queue pairs; 0: 64 */
	unsigned vectors;       /* interrupt vectors; 0: queues + 1 */
	unsigned depth;         /* entries of the largest queue, 2 to 4096; 0: 4096 */
	unsigned mdts;          /* largest transfer is 4 KiB << mdts, 1 to 12; 0: 8, which is 1 MiB */
	unsigned namespaces;    /* largest namespace id; 0: 1024 */
	uint16_t temperature;   /* composite temperature that SMART tells, kelvin; 0: 303 */

	/*
	 * Doorbells in memory that the guest's accesses may reach without nvme_bar_write(): NVME_BAR_BYTES - 0x1000 bytes,
	 * aligned. Whoever gives them calls nvme_poll(). NULL: the controller has its own.
	 */
	uint32_t *doorbells;
};

/* Zero-initialised: defaults. */
struct nvme_namespace_options {
	uint32_t block_size;  /* bytes of a logical block, 512 or 4096, at least the disk's; 0: the disk's */
	bool read_only;       /* write-protected, as is a namespace of a read-only disk */
	uint8_t eui64[8];     /* all zero: none */
	uint8_t uuid[16];     /* all zero: none. The NGUID is the disk's id */
};

/*
 * A controller, disabled, whose fibers run on `loops`: the admin queue on the first, I/O queues on all in turn. `host` and loops
 * stay the caller's and outlive it; the loops may not have run yet. -EINVAL names the option.
 */
int nvme_create(const struct nvme_options *options, struct nvme_host *host, struct loop *const *loops, unsigned nr_loops,
		struct nvme **out, struct error *err);

/*
 * Waits until every command has ended, and frees it. The loops must run meanwhile. No other call may be under way, nor this one
 * from a fiber of the loops. Disks are closed; what a close reports is lost but for the first, in `err`. Accepts NULL.
 */
int nvme_destroy(struct nvme *c, struct error *err);

/*
 * Registers and doorbells, at byte `offset` of the BAR. From any thread, many at once; never waits. Reads of 1 to 8 bytes are
 * answered anywhere; writes have to be of 4 or 8 bytes in their places, others are ignored, as are those to what cannot be written.
 */
uint64_t nvme_bar_read(struct nvme *c, uint64_t offset, unsigned size);
void nvme_bar_write(struct nvme *c, uint64_t offset, unsigned size, uint64_t value);

/* Looks for doorbells that changed in shared memory; true: some have. From any thread; never waits. */
bool nvme_poll(struct nvme *c);

/*
 * Interrupts by the pin (PCIe Transport 1.0, 3.5.1.1) in place of messages, or by messages again, as at first. From any thread; never
 * waits. The host has `set_line`.
 */
void nvme_use_pin(struct nvme *c, bool pin);

/*
 * A conventional reset or function level reset: what was under way has ended, and no memory of the guest's is used any more, when
 * it returns. From a thread or a fiber of another loop than the controller's.
 */
void nvme_reset(struct nvme *c);

/*
 * Adds a namespace; nsid 0 takes the lowest free one. On success the reference to the disk is the controller's and *added (may
 * be NULL) the id. From any thread or fiber, at any time; guests hear of it.
 *
 *   -EEXIST  the id is taken      -EINVAL  the id is out of range, the block size is not one of the disk's, or it is a DVD
 */
int nvme_add_namespace(struct nvme *c, uint32_t nsid, struct disk *disk, const struct nvme_namespace_options *options,
		       uint32_t *added, struct error *err);

/*
 * Takes a namespace away: waits for the commands under way, closes the disk. -ENOENT; else what the close reported. Not from a fiber
 * that is inside a command.
 */
int nvme_remove_namespace(struct nvme *c, uint32_t nsid, struct error *err);

/*
 * Changes the size of a namespace's disk (bytes, whole blocks, not 0); guests hear of it. -ENOENT; else as disk_resize(). From any
 * thread or fiber.
 */
int nvme_resize_namespace(struct nvme *c, uint32_t nsid, uint64_t size, struct error *err);

/* The first namespace from *nsid on, and its bytes. False: there is none. From any thread or fiber. */
bool nvme_find_namespace(struct nvme *c, uint32_t *nsid, uint64_t *size);

/* What has happened, for tests and statistics. Taken at different moments. */
struct nvme_counters {
	uint64_t passes;     /* over a submission queue that found commands */
	uint64_t commands;   /* fetched */
	uint64_t interrupts; /* raised */
	uint32_t in_flight;  /* commands under way now */
	uint32_t most_in_flight;
};

void nvme_counters(struct nvme *c, struct nvme_counters *out);

/*
 * Replaces the fault script, for authors of drivers: nvme/script.c opens with the language. NULL or "" ends it. On failure the
 * old one stays. From any thread.
 */
int nvme_set_script(struct nvme *c, const char *text, struct error *err);

#endif

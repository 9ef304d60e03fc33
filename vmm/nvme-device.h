/* SPDX-License-Identifier: BSD-3-Clause */
/* The NVMe controller as a PCI device that can be carried to a virtual machine. */
#ifndef PLATTER_VMM_NVME_DEVICE_H
#define PLATTER_VMM_NVME_DEVICE_H

#include "nvme/nvme.h"
#include "vmm/device.h"

struct nvme_device;

enum nvme_device_doorbells {
	NVME_DOORBELLS_MESSAGES, /* every write of one arrives as a call; nobody polls */
	NVME_DOORBELLS_POLL,     /* on a page that clients may map, and that is looked at: all the time while there is work */
};

/*
 * A controller that works on `memory`, with `options` but for the doorbells; see nvme_create(), also for the loops. Polling is
 * done on the first of them.
 */
int nvme_device_create(const struct nvme_options *options, enum nvme_device_doorbells doorbells, struct guest_memory *memory,
		       struct loop *const *loops, unsigned nr_loops, struct nvme_device **out, struct error *err);

/* See nvme_destroy(): also what it reports, and from where it may be called. Accepts NULL. */
int nvme_device_destroy(struct nvme_device *d, struct error *err);

/* What a server carries, and the controller, to add namespaces to. */
struct vmm_device *nvme_device_vmm(struct nvme_device *d);
struct nvme *nvme_device_controller(struct nvme_device *d);

#endif

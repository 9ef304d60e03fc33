/* SPDX-License-Identifier: BSD-3-Clause */
/* A PCI device as what carries it to a virtual machine sees it. The seam between a controller and a server. */
#ifndef PLATTER_VMM_DEVICE_H
#define PLATTER_VMM_DEVICE_H

#include <stdint.h>

#include "vmm/interrupts.h"
#include "vmm/memory.h"
#include "vmm/pci.h"

struct vmm_device;

/* Called by one fiber of the server's loop, one after the other. */
struct vmm_device_ops {
	/* `size` bytes, 1, 2, 4 or 8, at a multiple of that, inside the BAR. Do not wait. */
	uint64_t (*read)(struct vmm_device *d, unsigned bar, uint64_t offset, unsigned size);
	void (*write)(struct vmm_device *d, unsigned bar, uint64_t offset, unsigned size, uint64_t value);

	/* As after power-on; when it returns, guest memory is not used any more. May wait. */
	void (*reset)(struct vmm_device *d);

	/* The client listens to INTx now, or does not any more. Does not wait. NULL: the device does not care. */
	void (*use_pin)(struct vmm_device *d, bool pin);

	/* After a reset: the client has gone, and with it what it was lent of `shared`. NULL: nothing to do. */
	void (*left)(struct vmm_device *d);
};

/* A part of a BAR that clients may map, so that their accesses do not arrive as calls. */
struct vmm_shared {
	int fd; /* -1: there is none. What lies at an offset of the BAR lies at the same of the file */
	unsigned bar;
	uint64_t offset, size; /* whole pages */
};

/* Embedded by whoever implements it; what it points to is his. */
struct vmm_device {
	const struct vmm_device_ops *ops;
	struct pci *pci;
	struct interrupts *interrupts;
	struct vmm_shared shared;
};

#endif

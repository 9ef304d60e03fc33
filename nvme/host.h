/* SPDX-License-Identifier: BSD-3-Clause */
/* What carries an NVMe controller gives it: the guest's memory, interrupts. The seam below the controller. */
#ifndef PLATTER_NVME_HOST_H
#define PLATTER_NVME_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct nvme_host;

enum nvme_access {
	NVME_GUEST_READ = 1 << 0,  /* the controller reads the guest's memory */
	NVME_GUEST_WRITE = 1 << 1, /* it writes there */
};

/*
 * All of this is called from fibers of the controller's loops, many at once, and may wait unless it says otherwise; `raise` and
 * `set_line` come from any thread. Statuses are 0 or a negative errno. The memory is the guest's: it may change at any time, and what is
 * mapped from a file may raise SIGBUS; the controller copies by core/safe-copy.h.
 */
struct nvme_host_ops {
	/*
	 * Where `length` bytes (not 0) of guest memory from `address` on lie: *run begins at `address` and covers 1 to `length`
	 * bytes, as much as lies in one piece. -EFAULT: there is no memory, or not for that access; -EOPNOTSUPP: there is, but it
	 * can only be reached by `read` and `write`. Does not wait. Called between `hold` and `release` alone.
	 */
	int (*map)(struct nvme_host *h, uint64_t address, size_t length, unsigned access, struct iovec *run);

	/* What was mapped, and will be, stays valid until `release`. Many at a time. The token is for `release`; any value will do. */
	void *(*hold)(struct nvme_host *h);
	void (*release)(struct nvme_host *h, void *token);

	/* Copy memory that cannot be mapped; -EFAULT as above. NULL where all of it can be. */
	int (*read)(struct nvme_host *h, uint64_t address, void *to, size_t length);
	int (*write)(struct nvme_host *h, uint64_t address, const void *from, size_t length);

	/* Raises an interrupt vector (MSI-X: a message). Must not wait, nor call the controller. */
	void (*raise)(struct nvme_host *h, unsigned vector);

	/* The level of the interrupt pin, where nvme_use_pin() has chosen that. Must not wait, nor call the controller. */
	void (*set_line)(struct nvme_host *h, bool high);
};

/* Embedded by whoever implements it. */
struct nvme_host {
	const struct nvme_host_ops *ops;
};

#endif

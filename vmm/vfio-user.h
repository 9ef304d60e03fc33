/* SPDX-License-Identifier: BSD-3-Clause */
/* A server of the vfio-user protocol: one PCI device for one client at a time, on a Unix socket. */
#ifndef PLATTER_VMM_VFIO_USER_H
#define PLATTER_VMM_VFIO_USER_H

#include "core/error.h"
#include "core/loop.h"
#include "vmm/device.h"

struct vfio_user;

/* Hears, in one line without a period, of clients that come, go, and are sent away. On the server's loop; does not wait. */
struct vfio_user_listener {
	void (*say)(struct vfio_user_listener *l, const char *text);
};

/*
 * Makes the socket `path` and the memory that clients will lend; nobody can connect yet. A socket that nobody listens to any more
 * is replaced. Fibers will run on `loop`, which is none that the device's reset waits for. `listener` may be NULL.
 */
int vfio_user_create(const char *path, struct loop *loop, struct vfio_user_listener *listener, struct vfio_user **out,
		     struct error *err);

/* Guest memory, for the device. */
struct guest_memory *vfio_user_memory(struct vfio_user *v);

/* Lets clients connect, one at a time: others wait in line. The device outlives vfio_user_stop(). */
int vfio_user_start(struct vfio_user *v, struct vmm_device *device, struct error *err);

/*
 * Sends the client away, with the device reset, and removes the socket. From a thread, with the loop running. Accepts a server that was
 * not started.
 */
void vfio_user_stop(struct vfio_user *v);

/* After vfio_user_stop(), and when the device is gone. Accepts NULL. */
void vfio_user_destroy(struct vfio_user *v);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the server: what messages mean (vfio-user-messages.c), and how they come and go (vfio-user.c). */
#ifndef PLATTER_VMM_VFIO_USER_INTERNAL_H
#define PLATTER_VMM_VFIO_USER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/wait.h"
#include "vmm/vfio-user-wire.h"
#include "vmm/vfio-user.h"

/* A message that has arrived whole. */
struct vfio_user_message {
	struct vfio_user_message *next; /* in the queue */
	struct vfio_user_header header;
	int fds[VFIO_USER_MAX_FDS]; /* those not taken (-1) are closed with it */
	unsigned nr_fds;
	size_t size; /* of the body, with one NUL behind it */
	uint8_t body[];
};

/* What is answered. */
struct vfio_user_reply {
	void *body; /* free() */
	size_t size;
	int fd; /* to go with it; -1: none. Stays the device's */
};

/* What a client has said of itself. */
struct vfio_user_client {
	bool greeted; /* VERSION is the first message, and comes once */
	uint32_t max_transfer; /* bytes of one DMA access */
};

struct vfio_user {
	struct loop *loop;
	struct vfio_user_listener *listener;
	char *path;
	int socket; /* that listens; -1: none */
	struct guest_memory *memory;
	struct guest_copier copier;
	struct vmm_device *device;
	_Atomic bool stopping;
	struct wait_group fibers;
	_Atomic bool unmasking; /* a fiber is going to unmask INTx */

	struct wait_mutex lock; /* protects what follows; held for moments only */
	struct connection *connection; /* NULL: no client */
};

/*
 * Carries out a command and makes the reply: 0, or a negative errno that is the reply, with nothing in `r`. May wait. On
 * the fiber of the client.
 */
int vfio_user_handle(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		     struct vfio_user_reply *r);

/* The device, its configuration space and its interrupts, as after power-on. Waits. */
void vfio_user_reset_device(struct vfio_user *v);

/* Gives INTx another descriptor, -1 for none, as interrupts_set_intx() does, and tells the device. */
void vfio_user_set_intx(struct vfio_user *v, int fd);

/* Runs entry(v) on a fiber that vfio_user_stop() waits for. 0 or -ENOMEM. */
int vfio_user_spawn(struct vfio_user *v, void (*entry)(void *argument), void *argument);

/* Such a fiber has ended. */
void vfio_user_ended(struct vfio_user *v);

#endif

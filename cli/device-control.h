/* SPDX-License-Identifier: BSD-3-Clause */
/* A socket through which namespaces of a running device are added, removed and resized. */
#ifndef PLATTER_CLI_DEVICE_CONTROL_H
#define PLATTER_CLI_DEVICE_CONTROL_H

#include "core/error.h"
#include "core/loop.h"
#include "nvme/nvme.h"

struct device_control;

/*
 * Listens on `path`, with fibers on `loop`, which is not the controller's. Disks are opened with `flags` (enum open_flags). One
 * command a line; each is answered with one line, "ok..." or "error: ...".
 */
int device_control_start(const char *path, struct nvme *controller, struct loop *loop, unsigned flags,
			 struct device_control **out, struct error *err);

/* Waits for the command under way, and removes the socket. From a thread, with the loop running. Accepts NULL. */
void device_control_stop(struct device_control *c);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bodies of vfio-user messages: each is a byte of command, one of flags, two of length, and so many bytes. Whatever they were, each has a
 * reply or an errno, and the device can be reset afterwards.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/open.h"
#include "vmm/nvme-device.h"
#include "vmm/vfio-user-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vfio_user *server;
static struct nvme_device *device;

static void must(bool good)
{
	if (!good)
		abort();
}

/* Once; it ends with the process. */
static void begin(void)
{
	static const struct nvme_options options = {.queues = 4};
	static struct loop *loop, *work;
	char path[64];
	struct disk *disk;

	snprintf(path, sizeof(path), "/tmp/platter-fuzz-%d.sock", (int)getpid());
	must(!loop_start(NULL, &loop, NULL) && !loop_start(NULL, &work, NULL));
	must(!vfio_user_create(path, loop, NULL, &server, NULL));
	unlink(path);
	must(!nvme_device_create(&options, NVME_DOORBELLS_POLL, vfio_user_memory(server), &work, 1, &device, NULL));
	must(!disk_open("mem:1M", 0, &disk, NULL));
	must(!nvme_add_namespace(nvme_device_controller(device), 0, disk, NULL, NULL, NULL));
	server->device = nvme_device_vmm(device);
}

static void check_reply(const struct vfio_user_message *m, int status, const struct vfio_user_reply *r)
{
	must(status <= 0 && status > -4096);
	must(status || r->size <= VFIO_USER_MAX_TRANSFER + sizeof(struct vfio_user_region_access));
	must(r->fd < 0 || m->header.command == VFIO_USER_GET_REGION_INFO);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vfio_user_client client = {.greeted = true, .max_transfer = VFIO_USER_MAX_TRANSFER};

	if (!server)
		begin();
	while (size >= 4) {
		size_t length = data[2] | (size_t)data[3] << 8;
		struct vfio_user_message *m;
		struct vfio_user_reply r;
		if (length > size - 4)
			length = size - 4;
		m = calloc(1, sizeof(*m) + length + 1);
		must(m);
		m->header.command = data[0] % 20;
		m->header.flags = data[1] & VFIO_USER_NO_REPLY;
		m->size = length;
		memcpy(m->body, data + 4, length);
		if (m->header.command == VFIO_USER_VERSION)
			client.greeted = false;
		check_reply(m, vfio_user_handle(server, &client, m, &r), &r);
		client.greeted = true;
		free(r.body);
		free(m);
		data += 4 + length;
		size -= 4 + length;
	}
	guest_memory_clear(server->memory);
	vfio_user_reset_device(server);
	guest_memory_settle(server->memory);
	return 0;
}

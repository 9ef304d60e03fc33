/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of the vfio-user server share: a server with an NVMe controller behind it, and a client of it. */
#ifndef PLATTER_TESTS_VFIO_LAB_H
#define PLATTER_TESTS_VFIO_LAB_H

#include "core/open.h"
#include "core/wait.h"
#include "tests/tap.h"
#include "tests/vfio-client.h"
#include "vmm/nvme-device.h"
#include "vmm/vfio-user.h"

enum { PAGE = 4096, CONFIG = VFIO_USER_REGION_CONFIG };

struct server {
	struct loop *loop, *work;
	struct vfio_user *v;
	struct nvme_device *d;
};

TAP_UNUSED static const char *socket_path(void)
{
	return tmppath("socket");
}

TAP_UNUSED static void bail(const char *what, const struct error *err)
{
	printf("Bail out! %s: %s\n", what, error_text(err));
	exit(99);
}

TAP_UNUSED static void start(struct server *s, const char *spec, enum nvme_device_doorbells doorbells)
{
	CLEANUP_ERROR struct error err = {0};
	struct nvme_options o = {.queues = 4};
	struct disk *disk;

	memset(s, 0, sizeof(*s));
	if (loop_start(NULL, &s->loop, &err) || loop_start(NULL, &s->work, &err) ||
	    vfio_user_create(socket_path(), s->loop, NULL, &s->v, &err) ||
	    nvme_device_create(&o, doorbells, vfio_user_memory(s->v), &s->work, 1, &s->d, &err) ||
	    disk_open(spec, 0, &disk, &err) ||
	    nvme_add_namespace(nvme_device_controller(s->d), 0, disk, NULL, NULL, &err) ||
	    vfio_user_start(s->v, nvme_device_vmm(s->d), &err))
		bail(spec, &err);
}

TAP_UNUSED static void stop(struct server *s)
{
	vfio_user_stop(s->v);
	nvme_device_destroy(s->d, NULL);
	loop_finish(s->work);
	loop_finish(s->loop);
	vfio_user_destroy(s->v);
}

/* A server, and a client that has greeted it. */
TAP_UNUSED static void meet(struct server *s, struct vfio_client *c)
{
	start(s, "mem:16M", NVME_DOORBELLS_MESSAGES);
	if (!client_connect(c, socket_path()) || client_greet(c))
		bail("cannot connect", NULL);
}

TAP_UNUSED static void part(struct server *s, struct vfio_client *c)
{
	client_close(c);
	stop(s);
}

TAP_UNUSED static int set_irqs(struct vfio_client *c, uint32_t flags, uint32_t index, uint32_t start_at, uint32_t count, int fd)
{
	struct vfio_user_irq_set set = {sizeof(set), flags, index, start_at, count};

	return client_call(c, VFIO_USER_SET_IRQS, &set, sizeof(set), &fd, fd >= 0, NULL, 0);
}

/* Writes a block with a pattern and reads it back into other memory. */
TAP_UNUSED static void move_data(struct vfio_client *c, struct client_queue *q)
{
	unsigned char *from = client_alloc(c, PAGE), *to = client_alloc(c, PAGE);

	for (unsigned i = 0; i < PAGE; i++)
		from[i] = (unsigned char)(i * 7 + i / 256);
	CHECK_EQ(client_rw(q, true, 100, 8, from), 0);
	CHECK_EQ(client_rw(q, false, 100, 8, to), 0);
	CHECK_MEM(to, from, PAGE);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vfio-user server as other clients than QEMU speak to it, by their sources: the messages, their sizes, order and descriptors. One is
 * that of Cloud Hypervisor (the crate vfio-user), one that of SPDK (lib/vfio_user/host).
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/vfio-lab.h"

/* A body, NUL and all, behind a version. */
static int greet(struct vfio_client *c, unsigned minor, const char *text, size_t size)
{
	char body[256] = {0};

	body[2] = (char)minor;
	memcpy(body + 4, text, size);
	return client_call(c, VFIO_USER_VERSION, body, 4 + size, NULL, 0, NULL, 0);
}

/* An answer about the device of the same size as the question. */
static void ask_device(struct vfio_client *c, uint32_t argsz, size_t size)
{
	struct vfio_user_device_info info = {.argsz = argsz};

	CHECK_EQ(client_call(c, VFIO_USER_DEVICE_GET_INFO, &info, size, NULL, 0, &info, sizeof(info)), 0);
	CHECK_EQ(c->reply_size, size);
	CHECK_EQ(info.flags & VFIO_USER_DEVICE_PCI, VFIO_USER_DEVICE_PCI);
	CHECK_EQ(info.regions, 9);
	CHECK_EQ(info.cap_offset, 0);
}

/* `size` bytes of question; the size of the answer's region, and of all of the answer. */
static uint64_t ask_region(struct vfio_client *c, uint32_t index, uint32_t argsz, size_t size, size_t answer)
{
	union {
		struct vfio_user_region_info info;
		char bytes[4096];
	} u = {.info = {.argsz = argsz, .index = index}};

	CHECK_EQ(client_call(c, VFIO_USER_GET_REGION_INFO, &u, size, NULL, 0, &u, sizeof(u)), 0);
	CHECK_EQ(c->reply_size, answer);
	CHECK_EQ(u.info.argsz > sizeof(u.info), index == 0);
	return u.info.size;
}

static void ask_irqs(struct vfio_client *c)
{
	for (uint32_t i = 0; i < 3; i++) {
		struct vfio_user_irq_info info = {.argsz = sizeof(info), .index = i};
		CHECK_EQ(client_call(c, VFIO_USER_GET_IRQ_INFO, &info, sizeof(info), NULL, 0, &info, sizeof(info)), 0);
		CHECK_EQ(c->reply_size, sizeof(info));
	}
}

/* BARs are sized by ones that are written and read again. */
static void size_bars(struct vfio_client *c)
{
	uint64_t value;

	CHECK_EQ(client_write(c, CONFIG, 0x10, 4, UINT32_MAX), 0);
	CHECK_EQ(client_read(c, CONFIG, 0x10, 4, &value), 0);
	CHECK_EQ(value, 0xffffc004);
	CHECK_EQ(client_write(c, CONFIG, 0x14, 4, UINT32_MAX), 0);
	CHECK_EQ(client_read(c, CONFIG, 0x14, 4, &value), 0);
	CHECK_EQ(value, UINT32_MAX);
	CHECK_EQ(client_write(c, CONFIG, 0x10, 4, 0), 0);
	CHECK_EQ(client_write(c, CONFIG, 0x14, 4, 0), 0);
}

static void move_some(struct vfio_client *c, bool interrupts)
{
	struct client_queue admin, q;

	if (CHECK(client_enable(c, &admin)) && CHECK(client_create_queue(&admin, &q, 1, 16, interrupts)))
		for (unsigned i = 0; i < 10; i++)
			move_data(c, &q);
}

/* Capabilities are at the top of the text; it maps after it has asked, with no more than one descriptor a message but for interrupts. */
static void check_cloud_hypervisor(unsigned minor, uint32_t device_argsz, size_t device_size, bool asks_twice)
{
	static const char text[] = "{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576,\"migration\":{\"pgsize\":4096}}";
	struct vfio_client c;
	struct server s;
	uint64_t n = 0;
	int fds[5];

	start(&s, "mem:16M", NVME_DOORBELLS_POLL);
	REQUIRE(client_connect(&c, socket_path()));
	CHECK_EQ(greet(&c, minor, text, sizeof(text)), 0);
	ask_device(&c, device_argsz, device_size);
	for (uint32_t i = 0; i < 9; i++) {
		ask_region(&c, i, asks_twice ? 32 : 1024, 32, i || asks_twice ? 32 : 64);
		if (!i && asks_twice)
			ask_region(&c, i, 64, 32, 64);
		CHECK_EQ(c.reply_fd >= 0, !i);
		if (c.reply_fd >= 0)
			close(c.reply_fd);
		c.reply_fd = -1;
	}
	ask_irqs(&c);
	size_bars(&c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	for (unsigned i = 0; i < 5; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(client_set_vectors(&c, 0, fds, 5), 0);
	CHECK(client_map_doorbells(&c));
	move_some(&c, true);
	CHECK_EQ(read(fds[1], &n, sizeof(n)), sizeof(n));
	CHECK(n > 0);
	CHECK_EQ(set_irqs(&c, 0x21, 2, 0, 0, -1), 0);
	CHECK_EQ(client_unmap(&c, CLIENT_RAM, CLIENT_RAM_BYTES), 0);
	CHECK_EQ(client_call(&c, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, NULL, 0), 0);
	for (unsigned i = 0; i < 5; i++)
		close(fds[i]);
	part(&s, &c);
}

static void test_cloud_hypervisor(void)
{
	check_cloud_hypervisor(0, 36, 20, true);
}

static void test_an_older_cloud_hypervisor(void)
{
	check_cloud_hypervisor(1, 32, 16, false);
}

/* All of the vectors at once, far more than we tell that a message may bring. */
static void test_many_vectors_in_one_message(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct nvme_options o = {.queues = 64};
	struct vfio_client c;
	struct server s = {0};
	int fds[65];
	uint64_t n = 0;

	if (loop_start(NULL, &s.loop, &err) || loop_start(NULL, &s.work, &err) ||
	    vfio_user_create(socket_path(), s.loop, NULL, &s.v, &err) ||
	    nvme_device_create(&o, NVME_DOORBELLS_MESSAGES, vfio_user_memory(s.v), &s.work, 1, &s.d, &err) ||
	    vfio_user_start(s.v, nvme_device_vmm(s.d), &err))
		bail("start", &err);
	REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c));
	for (unsigned i = 0; i < 65; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK_EQ(client_set_vectors(&c, 0, fds, 65), 0);
	CHECK_EQ(set_irqs(&c, 0x21, 2, 64, 1, -1), 0);
	CHECK_EQ(read(fds[64], &n, sizeof(n)), sizeof(n));
	for (unsigned i = 0; i < 65; i++)
		close(fds[i]);
	part(&s, &c);
}

/* No text behind the version, the id is always 0, the questions about regions are 4064 bytes long, memory is at its own address. */
static void test_spdk(void)
{
	struct vfio_user_dma_unmap unmap = {sizeof(unmap), 0, CLIENT_RAM, CLIENT_RAM_BYTES};
	struct vfio_client c;
	struct server s;

	start(&s, "mem:16M", NVME_DOORBELLS_POLL);
	REQUIRE(client_connect(&c, socket_path()));
	CHECK_EQ(greet(&c, 0, "", 0), 0);
	ask_device(&c, 16, 16);
	for (uint32_t i = 0; i < 9; i++) {
		c.next_id = 0;
		CHECK_EQ(ask_region(&c, i, 4064, 4064, i ? 32 : 64) != 0, i == 0 || i == 4 || i == 7);
		if (c.reply_fd >= 0)
			close(c.reply_fd);
		c.reply_fd = -1;
	}
	c.next_id = 0;
	CHECK_EQ(client_add_ram(&c, true), 0);
	CHECK(client_map_doorbells(&c));
	move_some(&c, false);
	CHECK_EQ(client_call(&c, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap), &c.ram_fd, 1, NULL, 0), 0);
	CHECK_EQ(client_map(&c, CLIENT_RAM, CLIENT_RAM_BYTES, 0, c.ram_fd), 0);
	part(&s, &c);
}

int main(void)
{
	TAP_RUN(test_cloud_hypervisor);
	TAP_RUN(test_an_older_cloud_hypervisor);
	TAP_RUN(test_many_vectors_in_one_message);
	TAP_RUN(test_spdk);
	return TAP_DONE();
}

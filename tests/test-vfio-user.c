/* SPDX-License-Identifier: BSD-3-Clause */
/* The vfio-user server, message by message, with an NVMe controller behind it. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "tests/vfio-lab.h"

/* True when the server has closed, within 5 s. */
static bool is_closed(struct vfio_client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	char byte;

	return poll(&p, 1, 5000) == 1 && recv(c->fd, &byte, 1, 0) <= 0;
}

/* ------------------------------------------------------------------ version */

static void test_version(void)
{
	static const char body[] = "\0\0\0\0{}";
	char reply[256] = "";
	struct vfio_client c;
	struct server s;

	start(&s, "mem:1M", NVME_DOORBELLS_MESSAGES);
	REQUIRE(client_connect(&c, socket_path()));
	CHECK_EQ(client_call(&c, VFIO_USER_VERSION, body, sizeof(body), NULL, 0, reply, sizeof(reply)), 0);
	CHECK_MEM(reply, "\0\0\0\0{\"capabilities\":{", 21);
	CHECK(c.reply_size < sizeof(reply) && reply[c.reply_size - 1] == '\0' && reply[c.reply_size - 2] == '}');
	CHECK_EQ(client_greet(&c), -EINVAL); /* once */
	part(&s, &c);
}

static void test_versions_that_are_refused(void)
{
	static const struct {
		const char *body;
		size_t size;
	} bad[] = {
		{"\1\0\0\0{}", 7},   {"\0\0\0\0{}", 6},  {"\0\0\0\0{}\0x", 8}, {"\0\0\0\0[]", 7},
		{"\0\0\0\0{\"a\":", 10}, {"\0\0\0", 3}, {"", 0},
	};
	struct vfio_client c;
	struct server s;

	start(&s, "mem:1M", NVME_DOORBELLS_MESSAGES);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		REQUIRE(client_connect(&c, socket_path()));
		CHECK_EQ(client_call(&c, VFIO_USER_VERSION, bad[i].body, bad[i].size, NULL, 0, NULL, 0), -EINVAL);
		CHECK(is_closed(&c));
		client_close(&c);
	}
	REQUIRE(client_connect(&c, socket_path()));
	CHECK_EQ(client_call(&c, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, NULL, 0), -EPROTO);
	CHECK(is_closed(&c));
	part(&s, &c);
}

/* ------------------------------------------------------------------ what there is */

static void test_device_info(void)
{
	enum { SIZE = VFIO_USER_DEVICE_INFO_BYTES };
	struct vfio_user_device_info info = {.argsz = SIZE};
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	CHECK_EQ(client_call(&c, VFIO_USER_DEVICE_GET_INFO, &info, SIZE, NULL, 0, &info, sizeof(info)), 0);
	CHECK_EQ(c.reply_size, SIZE);
	CHECK_EQ(info.flags, 3);
	CHECK_EQ(info.regions, 9);
	CHECK_EQ(info.irqs, 5);
	info.argsz = 15;
	CHECK_EQ(client_call(&c, VFIO_USER_DEVICE_GET_INFO, &info, SIZE, NULL, 0, NULL, 0), -EINVAL);
	CHECK_EQ(client_call(&c, VFIO_USER_DEVICE_GET_INFO, &info, SIZE - 1, NULL, 0, NULL, 0), -EINVAL);
	part(&s, &c);
}

static int ask_region(struct vfio_client *c, uint32_t index, uint32_t argsz, struct vfio_user_region_info *out)
{
	struct vfio_user_region_info info = {.argsz = argsz, .index = index};

	return client_call(c, VFIO_USER_GET_REGION_INFO, &info, sizeof(info), NULL, 0, out, sizeof(*out));
}

static void test_region_info(void)
{
	static const uint64_t sizes[9] = {[0] = 0x4000, [4] = 0x2000, [7] = 4096};
	struct vfio_user_region_info info;
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	for (uint32_t i = 0; i < 9; i++) {
		CHECK_EQ(ask_region(&c, i, sizeof(info), &info), 0);
		CHECK_EQ(info.size, sizes[i]);
		CHECK_EQ(info.flags, sizes[i] ? 3 : 0);
		CHECK_EQ(info.index, i);
	}
	CHECK_EQ(ask_region(&c, 9, sizeof(info), &info), -EINVAL);
	CHECK_EQ(ask_region(&c, 0, 31, &info), -EINVAL);
	part(&s, &c);
}

/* As QEMU asks: first without room for the capability, which must be told where it will be. */
static void test_the_page_of_doorbells_can_be_mapped(void)
{
	struct vfio_user_region_info info;
	struct vfio_client c;
	struct server s;

	start(&s, "mem:1M", NVME_DOORBELLS_POLL);
	REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c));
	CHECK_EQ(ask_region(&c, 0, sizeof(info), &info), 0);
	CHECK_EQ(info.argsz, 64);
	CHECK_EQ(info.flags, 15);
	CHECK_EQ(info.cap_offset, 32);
	CHECK_EQ(c.reply_size, 32);
	CHECK_EQ(c.reply_fd, -1);
	CHECK_EQ(ask_region(&c, 0, 64, &info), 0);
	CHECK_EQ(c.reply_size, 64);
	REQUIRE(c.reply_fd >= 0);
	CHECK_EQ(ftruncate(c.reply_fd, 0), -1); /* nobody can take it away from us */
	part(&s, &c);
}

static void test_irq_info(void)
{
	static const uint32_t counts[5] = {[0] = 1, [2] = 5};
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	for (uint32_t i = 0; i < 6; i++) {
		struct vfio_user_irq_info info = {.argsz = sizeof(info), .index = i};
		int status = client_call(&c, VFIO_USER_GET_IRQ_INFO, &info, sizeof(info), NULL, 0, &info, sizeof(info));
		CHECK_EQ(status, i < 5 ? 0 : -EINVAL);
		if (i < 5)
			CHECK_EQ(info.count, counts[i]);
	}
	part(&s, &c);
}

/* ------------------------------------------------------------------ regions */

static void test_configuration_space(void)
{
	struct vfio_client c;
	struct server s;
	uint64_t value;

	meet(&s, &c);
	CHECK_EQ(client_read(&c, CONFIG, 0, 4, &value), 0);
	CHECK_EQ(value, 0xb1111414);
	CHECK_EQ(client_write(&c, CONFIG, 0x3c, 1, 0x5a), 0);
	CHECK_EQ(client_read(&c, CONFIG, 0x38, 8, &value), 0);
	CHECK_EQ(value >> 32 & 0xff, 0x5a);
	CHECK_EQ(client_call(&c, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, NULL, 0), 0);
	CHECK_EQ(client_read(&c, CONFIG, 0x3c, 1, &value), 0);
	CHECK_EQ(value, 0);
	part(&s, &c);
}

static void test_registers_at_any_width(void)
{
	struct vfio_client c;
	struct server s;
	uint64_t whole, low, high, odd;

	meet(&s, &c);
	CHECK_EQ(client_read(&c, 0, 0, 8, &whole), 0);
	CHECK_EQ(client_read(&c, 0, 0, 4, &low), 0);
	CHECK_EQ(client_read(&c, 0, 4, 4, &high), 0);
	CHECK_EQ(client_read(&c, 0, 1, 7, &odd), 0);
	CHECK_EQ(whole, low | high << 32);
	CHECK_EQ(odd, whole >> 8);
	CHECK_EQ(client_write(&c, 0, NVME_REG_ASQ, 8, 0x123456789000), 0);
	CHECK_EQ(client_read(&c, 0, NVME_REG_ASQ + 4, 4, &high), 0);
	CHECK_EQ(high, 0x1234);
	part(&s, &c);
}

static void test_accesses_that_are_refused(void)
{
	static const struct vfio_user_region_access bad[] = {
		{0, 0, 0}, {0x4000, 0, 1}, {0x3ffd, 0, 4}, {UINT64_MAX, 0, 1}, {UINT64_MAX - 3, 0, 4}, {0, 1, 1},
		{0, 6, 1}, {0, 9, 1}, {0, UINT32_MAX, 1}, {0, 0, UINT32_MAX}, {4096, 7, 1}, {0, 7, 4097},
	};
	struct vfio_client c;
	struct server s;
	char body[32] = "";

	meet(&s, &c);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK_EQ(client_call(&c, VFIO_USER_REGION_READ, &bad[i], sizeof(bad[i]), NULL, 0, NULL, 0), -EINVAL);
		memcpy(body, &bad[i], sizeof(bad[i]));
		CHECK_EQ(client_call(&c, VFIO_USER_REGION_WRITE, body, sizeof(bad[i]) + (bad[i].count < 8 ? bad[i].count : 8),
				     NULL, 0, NULL, 0),
			 -EINVAL);
	}
	*(struct vfio_user_region_access *)body = (struct vfio_user_region_access){0, 7, 4};
	CHECK_EQ(client_call(&c, VFIO_USER_REGION_WRITE, body, 19, NULL, 0, NULL, 0), -EINVAL);
	CHECK_EQ(client_call(&c, VFIO_USER_REGION_WRITE, body, 21, NULL, 0, NULL, 0), -EINVAL);
	CHECK_EQ(client_call(&c, VFIO_USER_REGION_READ, body, 17, NULL, 0, NULL, 0), -EINVAL);
	part(&s, &c);
}

/* A posted write is not answered, even where it fails; what follows it is. */
static void test_posted_writes(void)
{
	struct vfio_client c;
	struct server s;
	uint64_t value;

	meet(&s, &c);
	client_post(&c, CONFIG, 0x3c, 1, 7);
	client_post(&c, 9, 0, 4, 7);
	CHECK_EQ(client_read(&c, CONFIG, 0x3c, 1, &value), 0);
	CHECK_EQ(value, 7);
	part(&s, &c);
}

static void test_a_device_that_sleeps_is_not_there(void)
{
	struct vfio_client c;
	struct server s;
	uint64_t value;

	meet(&s, &c);
	CHECK_EQ(client_write(&c, CONFIG, 0x44, 2, 3), 0);
	CHECK_EQ(client_read(&c, 0, NVME_REG_VS, 4, &value), 0);
	CHECK_EQ(value, UINT32_MAX);
	CHECK_EQ(client_write(&c, CONFIG, 0x44, 2, 0), 0);
	CHECK_EQ(client_read(&c, 0, NVME_REG_VS, 4, &value), 0);
	CHECK_EQ(value, NVME_VERSION_2_0);
	part(&s, &c);
}

/* ------------------------------------------------------------------ memory and interrupts */

static void test_maps_that_are_refused(void)
{
	struct vfio_user_dma_map map = {sizeof(map), 3, 0, 0x10000, PAGE};
	struct vfio_user_dma_unmap all = {sizeof(all), VFIO_USER_UNMAP_ALL, 0, 0};
	struct vfio_client c;
	struct server s;
	int fds[2];

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	fds[0] = fds[1] = c.ram_fd;
	CHECK_EQ(client_call(&c, VFIO_USER_DMA_MAP, &map, sizeof(map), fds, 2, NULL, 0), -EINVAL);
	CHECK_EQ(client_call(&c, VFIO_USER_DMA_MAP, &map, sizeof(map) - 1, fds, 1, NULL, 0), -EINVAL);
	CHECK_EQ(client_map(&c, CLIENT_RAM + PAGE, PAGE, 0, c.ram_fd), -EEXIST);
	CHECK_EQ(client_map(&c, 0, PAGE, CLIENT_RAM_BYTES, c.ram_fd), -EINVAL);
	CHECK_EQ(client_map(&c, 0, 0, 0, c.ram_fd), -EINVAL);
	CHECK_EQ(client_map(&c, 1, PAGE, 0, c.ram_fd), -EINVAL);
	CHECK_EQ(client_unmap(&c, CLIENT_RAM, UINT64_MAX - 4095), -EINVAL);
	all.size = PAGE;
	CHECK_EQ(client_call(&c, VFIO_USER_DMA_UNMAP, &all, sizeof(all), NULL, 0, NULL, 0), -EINVAL);
	all.size = 0;
	CHECK_EQ(client_call(&c, VFIO_USER_DMA_UNMAP, &all, sizeof(all), NULL, 0, NULL, 0), 0);
	CHECK_EQ(client_map(&c, CLIENT_RAM, PAGE, 0, c.ram_fd), 0);
	part(&s, &c);
}

/* QEMU does so behind an emulated IOMMU: the whole of the address space, in pieces that are powers of two. */
static void test_unmaps_of_nothing(void)
{
	struct vfio_user_dma_unmap unmap = {sizeof(unmap), 0, 0x80000000, 0x80000000};
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	CHECK_EQ(client_call(&c, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap), NULL, 0, &unmap, sizeof(unmap)), 0);
	CHECK_EQ(unmap.size, 0);
	CHECK_EQ(client_unmap(&c, UINT64_C(1) << 63, UINT64_C(1) << 63), 0);
	CHECK_EQ(client_map(&c, CLIENT_RAM, PAGE, 0, c.ram_fd), -EEXIST);
	CHECK_EQ(client_unmap(&c, 0, 0x80000000), 0); /* what is there goes */
	CHECK_EQ(client_map(&c, CLIENT_RAM, PAGE, 0, c.ram_fd), 0);
	part(&s, &c);
}

static void test_interrupts_that_are_refused(void)
{
	struct vfio_client c;
	struct server s;
	int ends[2], fd = eventfd(0, EFD_CLOEXEC);

	meet(&s, &c);
	REQUIRE(pipe(ends) == 0);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 0, 1, ends[1]), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 5, 1, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 2, UINT32_MAX, 2, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 0, UINT32_MAX, -1), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 0, 1, 1, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 1, 0, 1, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 5, 0, 1, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 0, 2, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x27, 2, 0, 1, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x31, 2, 0, 1, -1), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x22, 2, 0, 1, -1), -EINVAL); /* the byte is missing */
	CHECK_EQ(set_irqs(&c, 0x21, 2, 0, 1, fd), -EINVAL);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 0, 1, fd), 0);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 0, 1, -1), 0);
	CHECK_EQ(set_irqs(&c, 0x21, 2, 0, 0, -1), 0);
	close(ends[0]);
	close(ends[1]);
	close(fd);
	part(&s, &c);
}

static void test_a_loopback_interrupt(void)
{
	struct vfio_client c;
	struct server s;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t n = 0;

	meet(&s, &c);
	CHECK_EQ(set_irqs(&c, 0x24, 2, 3, 1, fd), 0);
	CHECK_EQ(set_irqs(&c, 0x21, 2, 3, 1, -1), 0);
	CHECK_EQ(read(fd, &n, sizeof(n)), sizeof(n));
	CHECK_EQ(n, 1);
	close(fd);
	part(&s, &c);
}

/* ------------------------------------------------------------------ data */

static void check_data(enum nvme_device_doorbells doorbells, bool by_descriptor)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;

	start(&s, "mem:16M", doorbells);
	REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c) && !client_add_ram(&c, by_descriptor));
	CHECK_EQ(client_map_doorbells(&c), doorbells == NVME_DOORBELLS_POLL);
	if (CHECK(client_enable(&c, &admin)) && CHECK(client_create_queue(&admin, &q, 1, 16, false)))
		for (unsigned i = 0; i < 20; i++) {
			move_data(&c, &q);
			if (i == 10)
				wait_sleep(20000000); /* who polls has gone to sleep */
		}
	part(&s, &c);
}

static void test_data_with_doorbells_by_message(void)
{
	check_data(NVME_DOORBELLS_MESSAGES, true);
}

static void test_data_with_doorbells_that_are_polled(void)
{
	check_data(NVME_DOORBELLS_POLL, true);
}

static void test_data_in_memory_without_a_descriptor(void)
{
	check_data(NVME_DOORBELLS_MESSAGES, false);
}

static void test_interrupts_of_completions(void)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;
	int fd = eventfd(0, EFD_CLOEXEC);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	if (CHECK(client_enable(&c, &admin)) && CHECK(client_create_queue(&admin, &q, 1, 16, true))) {
		CHECK_EQ(client_set_vectors(&c, 1, &fd, 1), 0);
		move_data(&c, &q);
		CHECK_EQ(poll(&p, 1, 5000), 1);
	}
	close(fd);
	part(&s, &c);
}

/* Without being a bus master it neither fetches nor posts. */
static void test_no_master_no_data(void)
{
	struct client_queue admin;
	struct vfio_client c;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = put32(1)};
	uint64_t csts = 0;
	uint16_t cid, status;

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	REQUIRE(client_enable(&c, &admin));
	CHECK_EQ(client_write(&c, CONFIG, 4, 2, 2), 0);
	sqe.prp1 = put64(client_address(&c, client_alloc(&c, PAGE)));
	client_submit(&admin, &sqe);
	client_ring(&admin);
	for (unsigned i = 0; i < 1000 && !(csts & NVME_CSTS_CFS); i++, wait_sleep(1000000))
		CHECK_EQ(client_read(&c, 0, NVME_REG_CSTS, 4, &csts), 0);
	CHECK(csts & NVME_CSTS_CFS);
	CHECK(!client_poll(&admin, &cid, &status));
	part(&s, &c);
}

/* As firmware does it with RAM: what is in use goes, and comes back in two pieces. */
static void test_memory_is_cut_and_joined_under_queues(void)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	REQUIRE(client_enable(&c, &admin) && client_create_queue(&admin, &q, 1, 16, false));
	for (unsigned i = 0; i < 50; i++) {
		uint64_t cut = (1 + i % 60) * PAGE;
		struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = put32(1), .cdw12 = put32(7)};
		uint16_t cid, status = 0xffff;
		sqe.prp1 = put64(client_address(&c, c.ram + (i % 8 + 100) * PAGE));
		client_submit(&q, &sqe);
		client_ring(&q);
		CHECK_EQ(client_unmap(&c, CLIENT_RAM, CLIENT_RAM_BYTES), 0);
		CHECK_EQ(client_map(&c, CLIENT_RAM, cut, 0, c.ram_fd), 0);
		CHECK_EQ(client_map(&c, CLIENT_RAM + cut, CLIENT_RAM_BYTES - cut, cut, c.ram_fd), 0);
		for (unsigned n = 0; n < 5000 && !client_poll(&q, &cid, &status); n++)
			wait_sleep(1000000);
		if (!CHECK_EQ(status, 0))
			break; /* the queue is lost */
		client_ack(&q);
	}
	part(&s, &c);
}

/*
 * A command that waits for memory to come back holds other memory. An unmap is answered nevertheless: only a client that has its answer
 * can bring back the first.
 */
static void test_unmap_beside_a_command_that_waits_for_memory(void)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = put32(1), .cdw12 = put32(7)};
	uint16_t cid, status = 0xffff;

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	REQUIRE(client_enable(&c, &admin) && client_create_queue(&admin, &q, 1, 16, false));
	sqe.prp1 = put64(client_address(&c, c.ram + 100 * PAGE));
	CHECK_EQ(client_unmap(&c, CLIENT_RAM + 100 * PAGE, PAGE), 0);
	client_submit(&q, &sqe);
	client_ring(&q);
	wait_sleep(20000000);
	CHECK_EQ(client_unmap(&c, CLIENT_RAM + 200 * PAGE, PAGE), 0);
	CHECK_EQ(client_map(&c, CLIENT_RAM + 100 * PAGE, PAGE, 100 * PAGE, c.ram_fd), 0);
	for (unsigned n = 0; n < 5000 && !client_poll(&q, &cid, &status); n++)
		wait_sleep(1000000);
	CHECK_EQ(status, 0);
	part(&s, &c);
}

/* ------------------------------------------------------------------ resets */

static void check_is_fresh(struct vfio_client *c)
{
	uint64_t value = 1;

	CHECK_EQ(client_read(c, 0, NVME_REG_CC, 4, &value), 0);
	CHECK_EQ(value, 0);
	CHECK_EQ(client_read(c, 0, NVME_REG_CSTS, 4, &value), 0);
	CHECK_EQ(value, 0);
	CHECK_EQ(client_read(c, 0, NVME_REG_ASQ, 8, &value), 0);
	CHECK_EQ(value, 0);
	CHECK_EQ(client_read(c, CONFIG, 4, 2, &value), 0);
	CHECK_EQ(value, 0);
}

static void test_function_level_reset(void)
{
	struct client_queue admin;
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	CHECK(client_enable(&c, &admin));
	CHECK_EQ(client_write(&c, CONFIG, 0x68, 2, 0x8000), 0);
	check_is_fresh(&c);
	CHECK(client_enable(&c, &admin));
	part(&s, &c);
}

/* Reads that take 20 ms are under way when the client goes; its bells stay behind. */
static void check_the_next_client(enum nvme_device_doorbells doorbells)
{
	struct client_queue admin, q;
	struct vfio_client c, next;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = put32(1), .cdw12 = put32(7)};

	start(&s, "delay:20ms:mem:16M", doorbells);
	for (unsigned i = 0; i < 3; i++) {
		REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c) && !client_add_ram(&c, true));
		client_map_doorbells(&c);
		if (CHECK(client_enable(&c, &admin)) && CHECK(client_create_queue(&admin, &q, 1, 16, false))) {
			sqe.prp1 = put64(client_address(&c, client_alloc(&c, PAGE)));
			for (unsigned n = 0; n < 10; n++)
				client_submit(&q, &sqe);
			client_ring(&q);
			wait_sleep(2000000);
		}
		close(c.fd);
		c.fd = -1;
		REQUIRE(client_connect(&next, socket_path()) && !client_greet(&next));
		check_is_fresh(&next);
		if (c.doorbells) {
			CHECK(client_map_doorbells(&next));
			c.doorbells[0] = 9; /* who is gone cannot ring any more */
			CHECK_EQ(next.doorbells[0], 0);
		}
		client_close(&next);
		client_close(&c);
	}
	stop(&s);
}

static void test_a_client_vanishes(void)
{
	check_the_next_client(NVME_DOORBELLS_MESSAGES);
}

static void test_a_client_with_mapped_doorbells_vanishes(void)
{
	check_the_next_client(NVME_DOORBELLS_POLL);
}

/* It owes answers to DMA_READs that will not come. */
static void test_a_client_that_copies_vanishes(void)
{
	struct client_queue admin;
	struct vfio_client c;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = put32(1)};

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, false), 0);
	REQUIRE(client_enable(&c, &admin));
	client_submit(&admin, &sqe);
	client_ring(&admin);
	wait_sleep(5000000);
	client_close(&c);
	REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c));
	check_is_fresh(&c);
	part(&s, &c);
}

static void test_a_client_shortens_its_memory(void)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = put32(1), .cdw12 = put32(7)};

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	REQUIRE(client_enable(&c, &admin) && client_create_queue(&admin, &q, 1, 16, false));
	sqe.prp1 = put64(client_address(&c, client_alloc(&c, PAGE)));
	client_submit(&q, &sqe);
	CHECK_EQ(ftruncate(c.ram_fd, 0), 0);
	client_ring(&q);
	wait_sleep(5000000);
	client_close(&c);
	REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c));
	check_is_fresh(&c);
	part(&s, &c);
}

static void test_the_server_stops_under_a_client(void)
{
	struct vfio_client c;
	struct server s;

	meet(&s, &c);
	stop(&s);
	CHECK(is_closed(&c));
	CHECK(access(socket_path(), F_OK) != 0);
	client_close(&c);
}

/* ------------------------------------------------------------------ hostile clients */

static void test_sizes_that_cannot_be(void)
{
	static const uint32_t sizes[] = {0, 15, (1 << 20) + 8192, UINT32_MAX};
	struct vfio_client c;
	struct server s;

	start(&s, "mem:1M", NVME_DOORBELLS_MESSAGES);
	for (unsigned i = 0; i < 4; i++) {
		struct vfio_user_header h = {.command = VFIO_USER_DEVICE_RESET, .size = sizes[i]};
		REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c));
		client_send_raw(&c, &h, sizeof(h));
		CHECK(is_closed(&c));
		client_close(&c);
	}
	stop(&s);
}

static void test_too_many_descriptors(void)
{
	struct vfio_client c;
	struct server s;
	int fds[VFIO_USER_MAX_FDS + 1];

	meet(&s, &c);
	for (unsigned i = 0; i <= VFIO_USER_MAX_FDS; i++)
		fds[i] = c.fd;
	client_send(&c, VFIO_USER_DEVICE_RESET, 0, NULL, 0, fds, VFIO_USER_MAX_FDS + 1);
	CHECK(is_closed(&c));
	part(&s, &c);
}

static void test_messages_in_pieces(void)
{
	static const char body[] = "\0\0\0\0{}";
	struct vfio_user_header h = {.id = 0, .command = VFIO_USER_VERSION, .size = sizeof(h) + sizeof(body)}, reply;
	struct vfio_client c;
	struct server s;
	char bytes[sizeof(h) + sizeof(body)], text[256];

	start(&s, "mem:1M", NVME_DOORBELLS_MESSAGES);
	REQUIRE(client_connect(&c, socket_path()));
	memcpy(bytes, &h, sizeof(h));
	memcpy(bytes + sizeof(h), body, sizeof(body));
	for (unsigned i = 0; i < sizeof(bytes); i++) {
		client_send_raw(&c, bytes + i, 1);
		wait_sleep(100000);
	}
	CHECK(client_receive(&c, &reply, text, sizeof(text)));
	CHECK_EQ(reply.flags, VFIO_USER_TYPE_REPLY);
	part(&s, &c);
}

/* More commands than are queued, before an answer is taken: all are answered, in order. */
static void test_many_commands_at_once(void)
{
	struct vfio_user_region_access a = {0, CONFIG, 4};
	struct vfio_user_header h;
	struct vfio_client c;
	struct server s;
	char body[64];
	uint16_t first = 0;

	meet(&s, &c);
	for (unsigned i = 0; i < 100; i++) {
		uint16_t id = client_send(&c, VFIO_USER_REGION_READ, 0, &a, sizeof(a), NULL, 0);
		first = i ? first : id;
	}
	for (unsigned i = 0; i < 100; i++) {
		REQUIRE(client_receive(&c, &h, body, sizeof(body)));
		CHECK_EQ(h.id, (uint16_t)(first + i));
	}
	part(&s, &c);
}

/* Any command with any body has one answer, and the server goes on. */
static void test_any_messages(void)
{
	struct vfio_client c;
	struct server s;
	uint32_t state = 1;
	unsigned char body[64];

	meet(&s, &c);
	for (unsigned i = 0; i < 3000; i++) {
		struct vfio_user_header h;
		unsigned command;
		size_t size;
		for (unsigned n = 0; n < sizeof(body); n++) {
			state = state * 1664525 + 1013904223;
			body[n] = (unsigned char)(state >> 30 ? 0 : state >> 16 & 0x27);
		}
		command = 2 + (state >> 10) % 18;
		size = (state >> 20) % 48;
		body[0] = sizeof(body); /* argsz */
		client_send(&c, command, 0, body, size, &c.fd, (state >> 5) % 5 == 0);
		REQUIRE(client_receive(&c, &h, body, sizeof(body)));
		CHECK_EQ(h.command, command);
		CHECK_EQ(h.flags & VFIO_USER_TYPE_MASK, VFIO_USER_TYPE_REPLY);
		if (c.reply_fd >= 0)
			close(c.reply_fd);
		c.reply_fd = -1;
	}
	part(&s, &c);
}

static void test_replies_to_nothing(void)
{
	struct vfio_client c;
	struct server s;
	uint64_t value;

	meet(&s, &c);
	client_send(&c, VFIO_USER_DMA_READ, VFIO_USER_TYPE_REPLY, "1234567890123456", 16, NULL, 0);
	CHECK_EQ(client_read(&c, CONFIG, 0, 4, &value), 0);
	client_send(&c, VFIO_USER_DMA_READ, 2, NULL, 0, NULL, 0); /* of no type that there is */
	CHECK(is_closed(&c));
	part(&s, &c);
}

static void test_sockets(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct vfio_user *v = NULL;
	struct loop *loop;
	struct server s;
	int fd;

	REQUIRE(loop_start(NULL, &loop, &err) == 0);
	start(&s, "mem:1M", NVME_DOORBELLS_MESSAGES);
	CHECK_EQ(vfio_user_create(socket_path(), loop, NULL, &v, &err), -EADDRINUSE);
	CHECK(strstr(error_text(&err), socket_path()));
	stop(&s);
	fd = open(socket_path(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK_EQ(vfio_user_create(socket_path(), loop, NULL, &v, NULL), -EADDRINUSE);
	close(fd);
	unlink(socket_path());
	CHECK_EQ(vfio_user_create("", loop, NULL, &v, NULL), -ENAMETOOLONG);
	/* one that somebody has left behind */
	CHECK_EQ(vfio_user_create(socket_path(), loop, NULL, &v, NULL), 0);
	REQUIRE(v);
	CHECK_EQ(link(socket_path(), tmppath("left")), 0);
	vfio_user_destroy(v);
	CHECK_EQ(rename(tmppath("left"), socket_path()), 0);
	CHECK_EQ(vfio_user_create(socket_path(), loop, NULL, &v, &err), 0);
	vfio_user_stop(v);
	vfio_user_destroy(v);
	loop_finish(loop);
}

int main(void)
{
	TAP_RUN(test_version);
	TAP_RUN(test_versions_that_are_refused);
	TAP_RUN(test_device_info);
	TAP_RUN(test_region_info);
	TAP_RUN(test_the_page_of_doorbells_can_be_mapped);
	TAP_RUN(test_irq_info);
	TAP_RUN(test_configuration_space);
	TAP_RUN(test_registers_at_any_width);
	TAP_RUN(test_accesses_that_are_refused);
	TAP_RUN(test_posted_writes);
	TAP_RUN(test_a_device_that_sleeps_is_not_there);
	TAP_RUN(test_maps_that_are_refused);
	TAP_RUN(test_unmaps_of_nothing);
	TAP_RUN(test_interrupts_that_are_refused);
	TAP_RUN(test_a_loopback_interrupt);
	TAP_RUN(test_data_with_doorbells_by_message);
	TAP_RUN(test_data_with_doorbells_that_are_polled);
	TAP_RUN(test_data_in_memory_without_a_descriptor);
	TAP_RUN(test_interrupts_of_completions);
	TAP_RUN(test_no_master_no_data);
	TAP_RUN(test_memory_is_cut_and_joined_under_queues);
	TAP_RUN(test_unmap_beside_a_command_that_waits_for_memory);
	TAP_RUN(test_function_level_reset);
	TAP_RUN(test_a_client_vanishes);
	TAP_RUN(test_a_client_with_mapped_doorbells_vanishes);
	TAP_RUN(test_a_client_that_copies_vanishes);
	TAP_RUN(test_a_client_shortens_its_memory);
	TAP_RUN(test_the_server_stops_under_a_client);
	TAP_RUN(test_sizes_that_cannot_be);
	TAP_RUN(test_too_many_descriptors);
	TAP_RUN(test_messages_in_pieces);
	TAP_RUN(test_many_commands_at_once);
	TAP_RUN(test_any_messages);
	TAP_RUN(test_replies_to_nothing);
	TAP_RUN(test_sockets);
	return TAP_DONE();
}

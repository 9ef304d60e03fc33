/* SPDX-License-Identifier: BSD-3-Clause */
/* INTx of the vfio-user server: an NVMe controller that interrupts by its pin. */
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/vfio-lab.h"

/* True when INTx was told of, in so many ms; the count is taken. */
static bool is_told(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t n = 0;

	return poll(&p, 1, ms) == 1 && read(fd, &n, sizeof(n)) == sizeof(n) && n == 1;
}

static uint64_t pci_status(struct vfio_client *c)
{
	uint64_t value = 0;

	CHECK_EQ(client_read(c, CONFIG, 6, 2, &value), 0);
	return value & 8;
}

/* UNMASK, as QEMU sends it with each access to a BAR. */
static void unmask_intx(struct vfio_client *c)
{
	CHECK_EQ(set_irqs(c, 0x11, 0, 0, 1, -1), 0);
}

/*
 * The pin is up as long as there are completions that nobody has consumed: it is told of again after each UNMASK, until the doorbell says
 * that there are none.
 */
static void check_intx(enum nvme_device_doorbells doorbells)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = put32(1), .cdw12 = put32(7)};
	uint16_t cid, status = 1;
	int fd = eventfd(0, EFD_CLOEXEC);

	start(&s, "mem:16M", doorbells);
	REQUIRE(client_connect(&c, socket_path()) && !client_greet(&c) && !client_add_ram(&c, true));
	/* the page of doorbells is there or not; QEMU takes it away from the guest while the pin is up */
	CHECK_EQ(set_irqs(&c, 0x24, 0, 0, 1, fd), 0);
	REQUIRE(client_enable(&c, &admin) && client_create_queue(&admin, &q, 1, 16, true));
	sqe.prp1 = put64(client_address(&c, client_alloc(&c, PAGE)));
	is_told(fd, 100); /* of the admin queue */
	wait_sleep(20000000);
	unmask_intx(&c);
	CHECK(!is_told(fd, 50));
	CHECK_EQ(pci_status(&c), 0);
	for (unsigned i = 0; i < 40; i++) {
		client_submit(&q, &sqe);
		client_submit(&q, &sqe);
		client_ring(&q);
		if (!CHECK(is_told(fd, 5000)))
			break;
		CHECK_EQ(pci_status(&c), 8);
		for (unsigned n = 0; n < 1000 && !client_poll(&q, &cid, &status); n++)
			wait_sleep(1000000);
		CHECK_EQ(status, 0);
		client_ack(&q);
		unmask_intx(&c);
		CHECK(is_told(fd, 5000)); /* one is left */
		for (unsigned n = 0; n < 1000 && !client_poll(&q, &cid, &status); n++)
			wait_sleep(1000000);
		client_ack(&q);
		unmask_intx(&c);
		if (i < 3)
			CHECK(!is_told(fd, 20));
		CHECK_EQ(pci_status(&c), 0);
	}
	close(fd);
	part(&s, &c);
}

static void test_intx(void)
{
	check_intx(NVME_DOORBELLS_MESSAGES);
}

static void test_intx_with_doorbells_that_are_polled(void)
{
	check_intx(NVME_DOORBELLS_POLL);
}

/* It is not told while INTMS has its bit, while the command register says so, or when messages are used. */
static void test_intx_is_switched_off(void)
{
	struct client_queue admin;
	struct vfio_client c;
	struct server s;
	int fd = eventfd(0, EFD_CLOEXEC), vector = eventfd(0, EFD_CLOEXEC);

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	CHECK_EQ(set_irqs(&c, 0x24, 0, 0, 1, fd), 0);
	REQUIRE(client_enable(&c, &admin));
	client_post(&c, 0, NVME_REG_INTMS, 4, 1);
	client_submit(&admin, &(struct nvme_sqe){.opcode = 0xff});
	client_ring(&admin);
	CHECK(!is_told(fd, 20));
	CHECK_EQ(pci_status(&c), 0);
	client_post(&c, 0, NVME_REG_INTMC, 4, 1);
	CHECK(is_told(fd, 1000));
	part(&s, &c);

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	CHECK_EQ(set_irqs(&c, 0x24, 0, 0, 1, fd), 0);
	REQUIRE(client_enable(&c, &admin));
	CHECK_EQ(client_write(&c, CONFIG, 4, 2, 6 | 1 << 10), 0);
	client_submit(&admin, &(struct nvme_sqe){.opcode = 0xff});
	client_ring(&admin);
	CHECK(!is_told(fd, 20));
	CHECK_EQ(pci_status(&c), 8);
	CHECK_EQ(client_write(&c, CONFIG, 4, 2, 6), 0);
	CHECK(is_told(fd, 1000));
	CHECK_EQ(set_irqs(&c, 0x21, 0, 0, 0, -1), 0);
	CHECK_EQ(pci_status(&c), 0);
	CHECK_EQ(client_set_vectors(&c, 0, &vector, 1), 0);
	client_submit(&admin, &(struct nvme_sqe){.opcode = 0xff});
	client_ring(&admin);
	CHECK(is_told(vector, 5000));
	close(fd);
	close(vector);
	part(&s, &c);
}

/*
 * With shadow doorbells the register is to be written at the next completion that is consumed, or nothing would take the interrupt back:
 * the event index is what the shadow was when the pin went up.
 */
static void test_intx_beside_shadow_doorbells(void)
{
	struct client_queue admin, q;
	struct vfio_client c;
	struct server s;
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_DOORBELL_BUFFER}, read = {.opcode = NVME_IO_READ, .nsid = put32(1)};
	volatile uint32_t *shadow, *event;
	uint16_t cid, status;
	int fd = eventfd(0, EFD_CLOEXEC);

	meet(&s, &c);
	CHECK_EQ(client_add_ram(&c, true), 0);
	CHECK_EQ(set_irqs(&c, 0x24, 0, 0, 1, fd), 0);
	REQUIRE(client_enable(&c, &admin));
	shadow = client_alloc(&c, PAGE);
	event = client_alloc(&c, PAGE);
	sqe.prp1 = put64(client_address(&c, shadow));
	sqe.prp2 = put64(client_address(&c, event));
	CHECK_EQ(client_run(&admin, &sqe), 0);
	REQUIRE(client_create_queue(&admin, &q, 1, 16, true));
	is_told(fd, 20);
	unmask_intx(&c);
	read.prp1 = put64(client_address(&c, client_alloc(&c, PAGE)));
	for (unsigned i = 0; i < 40; i++) {
		client_submit(&q, &read);
		shadow[2] = q.tail;
		client_ring(&q);
		if (!CHECK(is_told(fd, 5000)))
			break;
		CHECK_EQ(event[3], shadow[3]);
		CHECK(client_poll(&q, &cid, &status));
		shadow[3] = q.head;
		client_ack(&q);
		unmask_intx(&c);
	}
	close(fd);
	part(&s, &c);
}

int main(void)
{
	TAP_RUN(test_intx);
	TAP_RUN(test_intx_with_doorbells_that_are_polled);
	TAP_RUN(test_intx_is_switched_off);
	TAP_RUN(test_intx_beside_shadow_doorbells);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue entries of any content, and the memory they point to. A byte says what comes: an admin entry, an I/O entry, bytes of
 * memory, bells, a pause. Whatever it was, the controller can be reset and used again.
 */
#include "tests/fuzz/nvme-harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Most addresses are to hit memory: those with an even last byte but one become one in the first MiB. */
static struct le64 steer(struct le64 address)
{
	uint64_t value = get64(address);

	return value >> 40 & 1 ? address : put64(GUEST_RAM + (value & 0xfffff));
}

static void entry(struct harness *h, struct driver_queue *q, bool admin)
{
	struct nvme_sqe sqe;

	if (q->in_flight >= q->depth - 1)
		return;
	harness_take(h, &sqe, sizeof(sqe));
	sqe.prp1 = steer(sqe.prp1);
	if (!NVME_PSDT(sqe.flags))
		sqe.prp2 = steer(sqe.prp2);
	/* queues are deleted under the driver's feet otherwise, and it waits for completions */
	if (admin && sqe.opcode == NVME_ADMIN_DELETE_SQ)
		sqe.cdw10 = put32(2);
	driver_submit(q, &sqe);
}

static void memory(struct harness *h)
{
	uint32_t offset = harness_byte(h) | (uint32_t)harness_byte(h) << 8 | (uint32_t)(harness_byte(h) & 7) << 16;

	harness_take(h, guest_at(&h->d.guest, GUEST_RAM + offset), harness_byte(h));
}

static void collect(struct driver_queue *q)
{
	struct driver_result r;

	while (driver_poll(q, &r))
		driver_ack(q);
}

static void run(struct harness *h)
{
	harness_enable(h);
	while (h->size) {
		switch (harness_byte(h) % 6) {
		case 0:
			entry(h, &h->d.admin, true);
			break;
		case 1:
		case 2:
			entry(h, &h->io, false);
			break;
		case 3:
			memory(h);
			break;
		case 4:
			driver_ring(&h->io);
			driver_ring(&h->d.admin);
			break;
		default:
			harness_yield(20);
			collect(&h->io);
			collect(&h->d.admin);
		}
	}
	driver_ring(&h->io);
	driver_ring(&h->d.admin);
	harness_yield(200);
	harness_enable(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return harness_main(data, size, run);
}

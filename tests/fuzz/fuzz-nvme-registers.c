/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Register writes of any content, in any order: offset, size, value; a byte of 255 is a pause. The memory below holds entries of
 * the input's, too. Whatever it was, the controller can be reset and used again.
 */
#include "tests/fuzz/nvme-harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The low bytes of an offset: registers, or doorbells of the first queues. */
static uint64_t offset_of(uint8_t byte)
{
	return byte < 128 ? byte : NVME_REG_DOORBELLS + (byte - 128u);
}

static void write_one(struct harness *h, uint8_t where)
{
	uint64_t value = 0;
	uint8_t size = harness_byte(h);

	harness_take(h, &value, sizeof(value) / (size & 1 ? 1 : 2));
	if ((where & 0xf8) == NVME_REG_ASQ || (where & 0xf8) == NVME_REG_ACQ)
		value = GUEST_RAM + (value & 0xfffff);
	nvme_bar_write(h->d.c, offset_of(where), size & 1 ? 8 : 4, value);
	nvme_bar_read(h->d.c, offset_of(where), size % 9);
}

static void run(struct harness *h)
{
	if (harness_byte(h) & 1)
		harness_enable(h);
	harness_take(h, guest_at(&h->d.guest, GUEST_RAM), h->size / 2 < 4096 ? h->size / 2 : 4096);
	while (h->size) {
		uint8_t where = harness_byte(h);
		if (where == 255)
			harness_yield(harness_byte(h));
		else
			write_one(h, where);
	}
	harness_yield(50);
	harness_enable(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return harness_main(data, size, run);
}

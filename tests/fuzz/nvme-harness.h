/* SPDX-License-Identifier: BSD-3-Clause */
/* For the fuzz targets of the NVMe controller: a controller and its driver on one loop, run by this thread, for one input. */
#ifndef PLATTER_TESTS_FUZZ_NVME_HARNESS_H
#define PLATTER_TESTS_FUZZ_NVME_HARNESS_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/nvme-driver.h"

struct harness {
	struct driver d;
	struct driver_queue io;
	struct loop *loop;
	const uint8_t *data; /* what is left of the input */
	size_t size;
	void (*run)(struct harness *h);
	struct wait_signal done; /* raised once */
};

static inline void harness_must(bool good)
{
	if (!good)
		abort();
}

/* Takes up to `size` bytes of the input; what is not there is 0. */
static inline void harness_take(struct harness *h, void *to, size_t size)
{
	size_t n = h->size < size ? h->size : size;

	memset(to, 0, size);
	memcpy(to, h->data, n);
	h->data += n;
	h->size -= n;
}

static inline uint8_t harness_byte(struct harness *h)
{
	uint8_t byte;

	harness_take(h, &byte, 1);
	return byte;
}

/* Lets the controller go on for a while. */
static inline void harness_yield(unsigned count)
{
	while (count--)
		wait_yield();
}

/* Enables with an I/O queue; whatever was before. */
static inline void harness_enable(struct harness *h)
{
	h->d.guest.next = GUEST_RAM + (1 << 20); /* the first MiB is the input's */
	driver_write32(&h->d, NVME_REG_CC, 0);
	harness_must(driver_wait_csts(&h->d, NVME_CSTS_RDY | NVME_CSTS_CFS, 0));
	harness_must(driver_enable(&h->d, 64, 12));
	harness_must(driver_create_pair(&h->d, &h->io, 1, 64) == 0);
}

static inline void harness_fiber(void *argument)
{
	struct harness *h = argument;

	h->run(h);
	wait_signal_raise(&h->done);
}

/* The controller cannot be freed from a fiber of its loop. */
static inline void *harness_closer(void *argument)
{
	struct harness *h = argument;

	wait_signal_wait(&h->done, 0, WAIT_FOREVER);
	driver_close(&h->d);
	loop_stop(h->loop);
	return NULL;
}

static inline int harness_main(const uint8_t *data, size_t size, void (*run)(struct harness *h))
{
	struct harness *h = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);
	pthread_t closer;

	harness_must(h);
	memset(h, 0, sizeof(*h));
	h->data = data;
	h->size = size;
	h->run = run;
	harness_must(loop_create(NULL, &h->loop, NULL) == 0);
	driver_open_on(&h->d, &(const struct nvme_options){.mdts = 5, .queues = 4}, h->loop);
	driver_add(&h->d, "mem:1M", NULL);
	driver_add(&h->d, "prwrap:mem:256K;block=4096", NULL);
	harness_must(loop_spawn(h->loop, harness_fiber, h) == 0);
	harness_must(pthread_create(&closer, NULL, harness_closer, h) == 0);
	loop_run(h->loop);
	pthread_join(closer, NULL);
	loop_destroy(h->loop);
	free(h);
	return 0;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe on PCI (NVMe over PCIe Transport 1.0): registers and doorbells in BAR 0, MSI-X in BAR 4, and INTx for clients that want no messages.
 *
 * Doorbells come in one of two ways. As messages: each write is a call. Drivers that use shadow doorbells (Linux does) send few of
 * them while the controller is busy, and an idle controller costs nothing. Or on a page that the client maps: nobody hears of a
 * store there, so a fiber on the controller's own loop looks, at each turn while there is work and for SPIN_NS after; then ever
 * more seldom, down to once in SLEEP_MAX_NS, which a processor hardly notices. Client and controller then meet in memory alone. A
 * client that does not map the page sends messages, and is served either way.
 *
 * The page outlives no client: who has gone may have it mapped still, and would ring for the next one. So when a client leaves,
 * another page is put into its place.
 */
#include "vmm/nvme-device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/wait.h"
#include "nvme/spec.h"

#define MSIX_BAR 4u
#define DOORBELL_BYTES 4096u

#define SPIN_NS UINT64_C(200000)
#define SLEEP_MIN_NS UINT64_C(10000)
#define SLEEP_MAX_NS UINT64_C(2000000)

/* So many turns without work are made between two looks at the clock. */
#define TURNS 32u

_Static_assert(2 * (NVME_MAX_QUEUES + 1) * 4 <= DOORBELL_BYTES, "all doorbells are on one page");

struct nvme_device {
	struct vmm_device device; /* first */
	struct nvme_host host;
	struct pci pci;
	struct guest_memory *memory;
	struct nvme *controller;
	char *page; /* the BAR's memory of which doorbells are a part; NULL: messages */

	_Atomic bool stopping;
	struct wait_group poller;
};

static struct nvme_device *of_host(struct nvme_host *h)
{
	return (struct nvme_device *)((char *)h - offsetof(struct nvme_device, host));
}

/* ------------------------------------------------------------------ the controller's host */

_Static_assert((unsigned)NVME_GUEST_READ == GUEST_READ && (unsigned)NVME_GUEST_WRITE == GUEST_WRITE, "handed on as they are");

static int map(struct nvme_host *h, uint64_t address, size_t length, unsigned access, struct iovec *run)
{
	struct nvme_device *d = of_host(h);

	if (!pci_is_master(&d->pci))
		return -EFAULT;
	return guest_memory_map(d->memory, address, length, access, run);
}

static void *hold(struct nvme_host *h)
{
	return guest_memory_hold(of_host(h)->memory);
}

static void release(struct nvme_host *h, void *token)
{
	guest_memory_release(of_host(h)->memory, token);
}

static int read_memory(struct nvme_host *h, uint64_t address, void *to, size_t length)
{
	struct nvme_device *d = of_host(h);

	return pci_is_master(&d->pci) ? guest_memory_copy(d->memory, address, to, length, false) : -EFAULT;
}

static int write_memory(struct nvme_host *h, uint64_t address, const void *from, size_t length)
{
	struct nvme_device *d = of_host(h);

	return pci_is_master(&d->pci) ? guest_memory_copy(d->memory, address, (void *)(uintptr_t)from, length, true) : -EFAULT;
}

static void raise_vector(struct nvme_host *h, unsigned vector)
{
	interrupts_raise(of_host(h)->device.interrupts, vector);
}

static void set_line(struct nvme_host *h, bool high)
{
	struct nvme_device *d = of_host(h);

	pci_set_line(&d->pci, high);
	interrupts_set_line(d->device.interrupts, high);
}

static const struct nvme_host_ops host_ops = {
	.map = map,
	.hold = hold,
	.release = release,
	.read = read_memory,
	.write = write_memory,
	.raise = raise_vector,
	.set_line = set_line,
};

/* ------------------------------------------------------------------ the device */

/* Pending bits, as bytes would lie there. */
static uint64_t read_pending(struct nvme_device *d, uint64_t offset, unsigned size)
{
	uint64_t bits = interrupts_pending(d->device.interrupts, (unsigned)(offset / 8 * 64)) >> 8 * (offset % 8);

	return size == 8 ? bits : bits & ((UINT64_C(1) << 8 * size) - 1);
}

static uint64_t read_bar(struct vmm_device *device, unsigned bar, uint64_t offset, unsigned size)
{
	struct nvme_device *d = (struct nvme_device *)device;
	uint64_t pending = pci_pending_offset(d->pci.options.vectors);

	if (bar == 0)
		return nvme_bar_read(d->controller, offset, size);
	if (bar != MSIX_BAR)
		return 0;
	return offset < pending ? pci_table_read(&d->pci, offset, size) : read_pending(d, offset - pending, size);
}

static void write_bar(struct vmm_device *device, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
	struct nvme_device *d = (struct nvme_device *)device;
	unsigned vector = (unsigned)(offset / 16);

	if (bar == 0) {
		nvme_bar_write(d->controller, offset, size, value);
	} else if (bar == MSIX_BAR) {
		pci_table_write(&d->pci, offset, size, value);
		if (vector < d->pci.options.vectors)
			interrupts_mask(device->interrupts, vector, pci_vector_is_masked(&d->pci, vector));
	}
}

static void use_pin(struct vmm_device *device, bool pin)
{
	nvme_use_pin(((struct nvme_device *)device)->controller, pin);
}

static void reset(struct vmm_device *device)
{
	nvme_reset(((struct nvme_device *)device)->controller);
}

/* ------------------------------------------------------------------ the page of doorbells */

/* A file of the BAR's size, sealed: no client can make it shorter. */
static int make_page(void)
{
	int fd = memfd_create("platter-doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, NVME_BAR_BYTES) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		int status = -errno;
		close(fd);
		return status;
	}
	return fd;
}

/*
 * Puts another page there, in one step for who looks at it meanwhile: by mremap(2), since TSan takes what mmap(2) does to a page for a
 * write of its own. Where none can be had the old one stays.
 */
static void left(struct vmm_device *device)
{
	struct nvme_device *d = (struct nvme_device *)device;
	int fd = d->page ? make_page() : -1;
	void *page;

	if (fd < 0)
		return;
	page = mmap(NULL, NVME_BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED ||
	    mremap(page, NVME_BAR_BYTES, NVME_BAR_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, d->page) == MAP_FAILED) {
		if (page != MAP_FAILED)
			munmap(page, NVME_BAR_BYTES);
		close(fd);
		return;
	}
	close(device->shared.fd);
	device->shared.fd = fd;
}

static int share_page(struct nvme_device *d)
{
	int fd = make_page();

	if (fd < 0)
		return fd;
	d->page = mmap(NULL, NVME_BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (d->page == MAP_FAILED) {
		d->page = NULL;
		close(fd);
		return -ENOMEM;
	}
	d->device.shared = (struct vmm_shared){fd, 0, NVME_REG_DOORBELLS, DOORBELL_BYTES};
	return 0;
}

static bool is_busy(struct nvme_device *d)
{
	struct nvme_counters now;

	nvme_counters(d->controller, &now);
	return now.in_flight;
}

/* Lets the loop turn; sleeps when there was nothing for long. */
static void rest(struct nvme_device *d, uint64_t *since, uint64_t *sleep)
{
	uint64_t now = wait_now();

	if (!*since || is_busy(d))
		*since = now;
	if (now - *since < SPIN_NS) {
		*sleep = SLEEP_MIN_NS;
		wait_yield();
		return;
	}
	wait_sleep(*sleep);
	*sleep = *sleep * 2 < SLEEP_MAX_NS ? *sleep * 2 : SLEEP_MAX_NS;
}

static void poll_main(void *argument)
{
	struct nvme_device *d = argument;
	uint64_t since = 0, sleep = SLEEP_MIN_NS; /* since when there is nothing; 0: there was something just now */

	for (unsigned turn = 0; !atomic_load_explicit(&d->stopping, memory_order_relaxed); turn++) {
		if (nvme_poll(d->controller))
			since = 0;
		if (!since && turn % TURNS)
			wait_yield();
		else
			rest(d, &since, &sleep);
	}
	wait_group_done(&d->poller);
}

/* ------------------------------------------------------------------ life */

static const struct vmm_device_ops device_ops = {.read = read_bar, .write = write_bar, .reset = reset, .use_pin = use_pin,
						  .left = left};

/* Class 01 08 02: an I/O controller of NVM Express. */
static int describe(struct nvme_device *d, const struct nvme_options *o)
{
	unsigned vectors = o->vectors ? o->vectors : (o->queues ? o->queues : NVME_MAX_QUEUES) + 1;
	uint16_t vendor = o->vendor ? o->vendor : 0x1414;
	struct pci_options p = {
		.vendor = vendor,
		.device = 0xb111,
		.subsystem_vendor = vendor,
		.class_code = 0x010802,
		.pin = 1,
		.bars = {[0] = {PCI_BAR_MEMORY64, NVME_BAR_BYTES},
			 [MSIX_BAR] = {PCI_BAR_MEMORY, pci_msix_bytes(vectors)}},
		.vectors = vectors,
		.msix_bar = MSIX_BAR,
		.express = true,
	};
	int status = pci_begin(&d->pci, &p);

	return status ? status : interrupts_create(vectors, &d->device.interrupts);
}

static void free_all(struct nvme_device *d)
{
	interrupts_destroy(d->device.interrupts);
	pci_end(&d->pci);
	if (d->page)
		munmap(d->page, NVME_BAR_BYTES);
	if (d->device.shared.fd >= 0)
		close(d->device.shared.fd);
	free(d);
}

static int start(struct nvme_device *d, const struct nvme_options *options, struct loop *const *loops, unsigned nr_loops,
		 struct error *err)
{
	struct nvme_options o = *options;
	int status;

	if (d->page)
		o.doorbells = (uint32_t *)(d->page + NVME_REG_DOORBELLS);
	status = nvme_create(&o, &d->host, loops, nr_loops, &d->controller, err);
	if (status || !d->page)
		return status;
	wait_group_add(&d->poller, 1);
	status = loop_spawn(loops[0], poll_main, d);
	if (!status)
		return 0;
	wait_group_done(&d->poller);
	nvme_destroy(d->controller, NULL);
	return error_set(err, status, "no memory for a fiber");
}

int nvme_device_create(const struct nvme_options *options, enum nvme_device_doorbells doorbells, struct guest_memory *memory,
		       struct loop *const *loops, unsigned nr_loops, struct nvme_device **out, struct error *err)
{
	struct nvme_device *d = calloc(1, sizeof(*d));
	int status;

	if (!d)
		return error_set(err, -ENOMEM, "no memory");
	d->device = (struct vmm_device){.ops = &device_ops, .pci = &d->pci, .shared = {.fd = -1}};
	d->host.ops = &host_ops;
	d->memory = memory;
	status = describe(d, options);
	if (!status && doorbells == NVME_DOORBELLS_POLL)
		status = share_page(d);
	if (status)
		error_set_errno(err, status, "nvme: the device");
	else
		status = start(d, options, loops, nr_loops, err);
	if (status)
		free_all(d);
	else
		*out = d;
	return status;
}

int nvme_device_destroy(struct nvme_device *d, struct error *err)
{
	int status;

	if (!d)
		return 0;
	atomic_store(&d->stopping, true);
	wait_group_wait(&d->poller);
	status = nvme_destroy(d->controller, err);
	free_all(d);
	return status;
}

struct vmm_device *nvme_device_vmm(struct nvme_device *d)
{
	return &d->device;
}

struct nvme *nvme_device_controller(struct nvme_device *d)
{
	return d->controller;
}

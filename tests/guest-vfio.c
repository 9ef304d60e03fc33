/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guest-vfio GROUP ADDRESS ROUNDS : drives an NVMe controller from user space, in a guest, through vfio-pci and an IOMMU (the guest's
 * Documentation/driver-api/vfio.rst). It knows nothing of Platter.
 *
 * Each round resets the device, maps memory at another address of the IOMMU's, sets up an admin queue and one I/O queue there with
 * interrupts, writes and reads blocks of namespace 1 and compares them, takes pages of the data away and maps them anew between commands,
 * and in the end resets the device with commands under way. Exits with 0 when all went well.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "nvme/spec.h"

enum { PAGE = 4096, DEPTH = 32, DATA_PAGES = 16, PATIENCE_MS = 30000 };

/* In pages, from the beginning of what is mapped. */
enum { ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, FROM, TO = FROM + DATA_PAGES, PAGES = TO + DATA_PAGES };

struct ring {
	unsigned id, tail, head, phase;
	struct nvme_sqe *sq;
	volatile struct nvme_cqe *cq;
};

struct driver {
	int container, group, device, event;
	volatile uint32_t *bar;
	char *memory;
	uint64_t iova; /* of it */
	struct ring admin, io;
};

static void die(const char *what)
{
	fprintf(stderr, "guest-vfio: %s: %s\n", what, errno ? strerror(errno) : "no");
	exit(1);
}

static void require(bool truth, const char *what)
{
	if (!truth)
		die(what);
}

/* ------------------------------------------------------------------ VFIO */

static void map_pages(struct driver *d, unsigned page, unsigned count)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)d->memory + (size_t)page * PAGE,
		.iova = d->iova + (uint64_t)page * PAGE,
		.size = (uint64_t)count * PAGE,
	};

	require(!ioctl(d->container, VFIO_IOMMU_MAP_DMA, &map), "map");
}

static void unmap_pages(struct driver *d, unsigned page, unsigned count)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = d->iova + (uint64_t)page * PAGE, .size = (uint64_t)count * PAGE};

	require(!ioctl(d->container, VFIO_IOMMU_UNMAP_DMA, &unmap), "unmap");
}

/* Pages of data are mapped one by one: what was mapped at once cannot be unmapped in parts. */
static void map_memory(struct driver *d)
{
	map_pages(d, 0, FROM);
	for (unsigned i = FROM; i < PAGES; i++)
		map_pages(d, i, 1);
}

static uint64_t region(struct driver *d, unsigned index)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = index};

	require(!ioctl(d->device, VFIO_DEVICE_GET_REGION_INFO, &info), "region");
	return info.offset;
}

/* Memory and bus mastering on, which a reset switches off. */
static void enable_device(struct driver *d)
{
	uint16_t command = 6;

	require(pwrite(d->device, &command, 2, (off_t)region(d, VFIO_PCI_CONFIG_REGION_INDEX) + 4) == 2, "command register");
}

static void reset_device(struct driver *d)
{
	require(!ioctl(d->device, VFIO_DEVICE_RESET), "reset");
	enable_device(d);
}

/* Vector 1 tells of the I/O queue. */
static void set_interrupts(struct driver *d)
{
	struct {
		struct vfio_irq_set set;
		int fds[2];
	} s = {{.argsz = sizeof(s), .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX, .count = 2},
	       {-1, d->event}};

	require(!ioctl(d->device, VFIO_DEVICE_SET_IRQS, &s), "interrupts");
}

static void clear_interrupts(struct driver *d)
{
	struct vfio_irq_set s = {.argsz = sizeof(s), .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				 .index = VFIO_PCI_MSIX_IRQ_INDEX};

	require(!ioctl(d->device, VFIO_DEVICE_SET_IRQS, &s), "no interrupts");
}

static void open_device(struct driver *d, const char *group, const char *address)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};

	d->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	d->group = open(group, O_RDWR | O_CLOEXEC);
	require(d->container >= 0 && d->group >= 0, group);
	require(!ioctl(d->group, VFIO_GROUP_GET_STATUS, &status) && status.flags & VFIO_GROUP_FLAGS_VIABLE, "group");
	require(!ioctl(d->group, VFIO_GROUP_SET_CONTAINER, &d->container), "container");
	require(!ioctl(d->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "IOMMU");
	d->device = ioctl(d->group, VFIO_GROUP_GET_DEVICE_FD, address);
	require(d->device >= 0, address);
	enable_device(d);
	d->bar = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, d->device, (off_t)region(d, 0));
	d->memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	d->event = eventfd(0, EFD_CLOEXEC);
	require(d->bar != MAP_FAILED && d->memory != MAP_FAILED && d->event >= 0, "mmap");
}

/* ------------------------------------------------------------------ NVMe */

static void wait_for_ready(struct driver *d, unsigned ready)
{
	for (unsigned t = 0; t < PATIENCE_MS; t++, usleep(1000))
		if ((d->bar[NVME_REG_CSTS / 4] & NVME_CSTS_RDY) == ready)
			return;
	errno = ETIMEDOUT;
	die("CSTS.RDY");
}

static void begin_ring(struct driver *d, struct ring *r, unsigned id, unsigned page)
{
	*r = (struct ring){.id = id, .phase = 1, .sq = (void *)(d->memory + page * PAGE)};
	r->cq = (void *)(d->memory + (page + 1) * PAGE);
	memset(d->memory + page * PAGE, 0, 2 * PAGE);
}

static void submit(struct driver *d, struct ring *r, const struct nvme_sqe *sqe)
{
	r->sq[r->tail] = *sqe;
	r->sq[r->tail].cid = put16(r->tail);
	r->tail = (r->tail + 1) % DEPTH;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	d->bar[(NVME_REG_DOORBELLS + 8 * r->id) / 4] = r->tail;
}

/* The status of the next completion. Those of the I/O queue come with an interrupt. */
static unsigned complete(struct driver *d, struct ring *r)
{
	struct pollfd p = {.fd = d->event, .events = POLLIN};
	const uint64_t *second = (const uint64_t *)(uintptr_t)&r->cq[r->head] + 1;
	uint64_t word, n;

	for (unsigned t = 0; ((word = __atomic_load_n(second, __ATOMIC_ACQUIRE)) >> 48 & 1) != r->phase; t++) {
		errno = ETIMEDOUT;
		require(t < PATIENCE_MS, r->id ? "completion" : "completion of an admin command");
		if (!r->id)
			usleep(1000);
		else if (poll(&p, 1, PATIENCE_MS) == 1)
			require(read(d->event, &n, sizeof(n)) == sizeof(n), "eventfd");
		else
			die("interrupt");
	}
	r->head = (r->head + 1) % DEPTH;
	r->phase ^= r->head == 0;
	d->bar[(NVME_REG_DOORBELLS + 8 * r->id + 4) / 4] = r->head;
	return word >> 49 & 0x7ff;
}

static void admin(struct driver *d, const struct nvme_sqe *sqe, const char *what)
{
	submit(d, &d->admin, sqe);
	errno = 0;
	require(!complete(d, &d->admin), what);
}

static void enable_controller(struct driver *d)
{
	volatile uint32_t *b = d->bar;
	uint64_t sq = d->iova + ADMIN_SQ * PAGE, cq = d->iova + ADMIN_CQ * PAGE;

	wait_for_ready(d, 0);
	begin_ring(d, &d->admin, 0, ADMIN_SQ);
	b[NVME_REG_AQA / 4] = (DEPTH - 1) | (DEPTH - 1) << 16;
	b[NVME_REG_ASQ / 4] = (uint32_t)sq;
	b[NVME_REG_ASQ / 4 + 1] = (uint32_t)(sq >> 32);
	b[NVME_REG_ACQ / 4] = (uint32_t)cq;
	b[NVME_REG_ACQ / 4 + 1] = (uint32_t)(cq >> 32);
	b[NVME_REG_CC / 4] = NVME_CC_EN | 6 << 16 | 4 << 20;
	wait_for_ready(d, NVME_CSTS_RDY);
}

static void create_queue(struct driver *d)
{
	struct nvme_sqe cq = {.opcode = NVME_ADMIN_CREATE_CQ, .prp1 = put64(d->iova + IO_CQ * PAGE),
			      .cdw10 = put32(1 | (DEPTH - 1) << 16), .cdw11 = put32(3 | 1 << 16)};
	struct nvme_sqe sq = {.opcode = NVME_ADMIN_CREATE_SQ, .prp1 = put64(d->iova + IO_SQ * PAGE), .cdw10 = cq.cdw10,
			      .cdw11 = put32(1 | 1 << 16)};

	begin_ring(d, &d->io, 1, IO_SQ);
	admin(d, &cq, "Create I/O Completion Queue");
	admin(d, &sq, "Create I/O Submission Queue");
}

static void submit_page(struct driver *d, bool write, unsigned page, uint64_t lba)
{
	struct nvme_sqe sqe = {.opcode = write ? NVME_IO_WRITE : NVME_IO_READ, .nsid = put32(1),
			       .prp1 = put64(d->iova + (uint64_t)page * PAGE), .cdw10 = put32(lba), .cdw12 = put32(7)};

	submit(d, &d->io, &sqe);
}

static void move_pages(struct driver *d, bool write, unsigned page, uint64_t lba)
{
	for (unsigned i = 0; i < DATA_PAGES; i++)
		submit_page(d, write, page + i, lba + 8 * i);
	errno = 0;
	for (unsigned i = 0; i < DATA_PAGES; i++)
		require(!complete(d, &d->io), write ? "Write" : "Read");
}

static void round_of(struct driver *d, unsigned number)
{
	uint64_t lba = number % 16 * 8 * DATA_PAGES;

	d->iova = (UINT64_C(1) << (20 + number % 18)) + (uint64_t)number % 7 * PAGE;
	reset_device(d);
	map_memory(d);
	set_interrupts(d);
	enable_controller(d);
	create_queue(d);
	for (unsigned i = 0; i < DATA_PAGES * PAGE; i++)
		d->memory[FROM * PAGE + i] = (char)(i * 7 + i / PAGE + number);
	move_pages(d, true, FROM, lba);
	memset(d->memory + TO * PAGE, 0, DATA_PAGES * PAGE);
	for (unsigned i = 0; i < DATA_PAGES; i += 1 + number % 3) {
		unmap_pages(d, TO + i, 1);
		map_pages(d, TO + i, 1);
	}
	move_pages(d, false, TO, lba);
	errno = 0;
	require(!memcmp(d->memory + FROM * PAGE, d->memory + TO * PAGE, DATA_PAGES * PAGE), "data are what was written");
	for (unsigned i = 0; i < DATA_PAGES; i++)
		submit_page(d, false, TO + i, lba + 8 * i);
	reset_device(d);
	clear_interrupts(d);
	unmap_pages(d, 0, PAGES);
}

int main(int argc, char **argv)
{
	struct driver d = {0};

	if (argc != 4)
		return 2;
	open_device(&d, argv[1], argv[2]);
	for (int i = 0; i < atoi(argv[3]); i++)
		round_of(&d, (unsigned)i);
	puts("guest-vfio: all went well");
	return 0;
}

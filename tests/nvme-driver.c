/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/nvme-driver.h"

#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/checkers.h"
#include "core/open.h"
#include "tests/tap.h"

#define GUEST_ALIGN 65536u
#define PATIENCE_NS (UINT64_C(60) * 1000 * 1000 * 1000)

static void bail(const char *what, struct error *err)
{
	printf("Bail out! %s: %s\n", what, err ? error_text(err) : "failed");
	exit(99);
}

/* ------------------------------------------------------------------ guest memory */

static struct guest_region *find_region(struct guest *g, uint64_t address)
{
	for (unsigned i = 0; i < GUEST_REGIONS; i++)
		if (address - g->regions[i].address < g->regions[i].size)
			return &g->regions[i];
	return NULL;
}

static int map(struct nvme_host *h, uint64_t address, size_t length, unsigned access, struct iovec *run)
{
	struct guest_region *r = find_region((struct guest *)h, address);
	uint64_t left;

	if (!r || access & ~r->access)
		return -EFAULT;
	if (r->copied)
		return -EOPNOTSUPP;
	left = r->size - (address - r->address);
	run->iov_base = r->memory + (address - r->address);
	run->iov_len = left < length ? left : length;
	return 0;
}

static void *hold(struct nvme_host *h)
{
	return (void *)grace_enter(&((struct guest *)h)->holders);
}

static void release(struct nvme_host *h, void *token)
{
	grace_leave(&((struct guest *)h)->holders, token);
}

/* As if by messages: region by region, and somebody else runs meanwhile. */
static int copy(struct guest *g, uint64_t address, char *ours, size_t length, bool write)
{
	atomic_fetch_add(&g->copies, 1);
	while (length) {
		struct guest_region *r = find_region(g, address);
		size_t n;
		if (!r || !(r->access & (write ? NVME_GUEST_WRITE : NVME_GUEST_READ)))
			return -EFAULT;
		n = r->size - (address - r->address) < length ? r->size - (address - r->address) : length;
		wait_yield();
		if (write)
			memcpy(r->memory + (address - r->address), ours, n);
		else
			memcpy(ours, r->memory + (address - r->address), n);
		address += n;
		ours += n;
		length -= n;
	}
	return 0;
}

static int read_guest(struct nvme_host *h, uint64_t address, void *to, size_t length)
{
	return copy((struct guest *)h, address, to, length, false);
}

static int write_guest(struct nvme_host *h, uint64_t address, const void *from, size_t length)
{
	return copy((struct guest *)h, address, (char *)(uintptr_t)from, length, true);
}

static void raise_vector(struct nvme_host *h, unsigned vector)
{
	struct guest *g = (struct guest *)h;

	if (vector < GUEST_VECTORS)
		atomic_fetch_add(&g->raised[vector], 1);
	wait_signal_raise(&g->raise);
}

static const struct nvme_host_ops guest_ops = {
	.map = map,
	.hold = hold,
	.release = release,
	.read = read_guest,
	.write = write_guest,
	.raise = raise_vector,
};

/* Memory with nothing before and behind it. Pages that nobody touches cost nothing, in a build with sanitizers either. */
static void region_begin(struct guest_region *r)
{
	size_t whole = r->size + 3 * GUEST_ALIGN;
	void *base = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		bail("guest memory", NULL);
	r->base = base;
	r->memory = (char *)(((uintptr_t)base + 2 * GUEST_ALIGN - 1) & ~(uintptr_t)(GUEST_ALIGN - 1));
	if (mprotect(r->memory, r->size, PROT_READ | PROT_WRITE))
		bail("guest memory", NULL);
}

static void guest_begin(struct guest *g)
{
	static const struct guest_region regions[GUEST_REGIONS] = {
		{GUEST_RAM, GUEST_RAM_BYTES, NULL, NULL, NVME_GUEST_READ | NVME_GUEST_WRITE, false},
		{GUEST_SPLIT, 1 << 20, NULL, NULL, NVME_GUEST_READ | NVME_GUEST_WRITE, false},
		{GUEST_SPLIT_MIDDLE, 1 << 20, NULL, NULL, NVME_GUEST_READ | NVME_GUEST_WRITE, false},
		{GUEST_UNMAPPED, 1 << 20, NULL, NULL, NVME_GUEST_READ | NVME_GUEST_WRITE, true},
		{GUEST_ROM, 1 << 20, NULL, NULL, NVME_GUEST_READ, false},
	};

	memset(g, 0, sizeof(*g));
	g->host.ops = &guest_ops;
	g->next = GUEST_RAM;
	for (unsigned i = 0; i < GUEST_REGIONS; i++) {
		g->regions[i] = regions[i];
		region_begin(&g->regions[i]);
	}
}

static void guest_end(struct guest *g)
{
	for (unsigned i = 0; i < GUEST_REGIONS; i++)
		munmap(g->regions[i].base, g->regions[i].size + 3 * GUEST_ALIGN);
}

uint64_t guest_alloc(struct guest *g, size_t size, size_t align)
{
	uint64_t at = (g->next + align - 1) & ~(uint64_t)(align - 1);

	g->next = at + size;
	if (g->next > GUEST_RAM + GUEST_RAM_BYTES)
		bail("guest memory is used up", NULL);
	memset(guest_at(g, at), 0, size);
	return at;
}

void *guest_at(struct guest *g, uint64_t address)
{
	struct guest_region *r = find_region(g, address);

	if (!r)
		bail("no guest memory there", NULL);
	return r->memory + (address - r->address);
}

/* ------------------------------------------------------------------ life */

static void create(struct driver *d, const struct nvme_options *options)
{
	CLEANUP_ERROR struct error err = {0};

	if (nvme_create(options, &d->guest.host, d->loops, d->nr_loops, &d->c, &err))
		bail("nvme_create", &err);
}

void driver_open(struct driver *d, const struct nvme_options *options, unsigned nr_loops)
{
	CLEANUP_ERROR struct error err = {0};

	memset(d, 0, sizeof(*d));
	guest_begin(&d->guest);
	d->nr_loops = nr_loops;
	for (unsigned i = 0; i < nr_loops; i++)
		if (loop_start(NULL, &d->loops[i], &err))
			bail("loop", &err);
	create(d, options);
}

void driver_open_on(struct driver *d, const struct nvme_options *options, struct loop *loop)
{
	memset(d, 0, sizeof(*d));
	guest_begin(&d->guest);
	d->loops[0] = loop;
	d->nr_loops = 1;
	create(d, options);
	d->nr_loops = 0; /* not ours */
}

void driver_close(struct driver *d)
{
	CLEANUP_ERROR struct error err = {0};

	if (nvme_destroy(d->c, &err))
		tap_diag("close: %s", error_text(&err));
	for (unsigned i = 0; i < d->nr_loops; i++)
		loop_finish(d->loops[i]);
	guest_end(&d->guest);
}

uint32_t driver_add_disk(struct driver *d, struct disk *disk, const struct nvme_namespace_options *options)
{
	CLEANUP_ERROR struct error err = {0};
	uint32_t nsid;

	if (nvme_add_namespace(d->c, 0, disk, options, &nsid, &err))
		bail("namespace", &err);
	return nsid;
}

uint32_t driver_add(struct driver *d, const char *spec, const struct nvme_namespace_options *options)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *disk;

	if (disk_open(spec, 0, &disk, &err))
		bail(spec, &err);
	return driver_add_disk(d, disk, options);
}

/* ------------------------------------------------------------------ registers */

uint32_t driver_read32(struct driver *d, uint64_t reg)
{
	return (uint32_t)nvme_bar_read(d->c, reg, 4);
}

void driver_write32(struct driver *d, uint64_t reg, uint32_t value)
{
	nvme_bar_write(d->c, reg, 4, value);
}

uint64_t driver_read64(struct driver *d, uint64_t reg)
{
	return nvme_bar_read(d->c, reg, 8);
}

void driver_write64(struct driver *d, uint64_t reg, uint64_t value)
{
	nvme_bar_write(d->c, reg, 8, value);
}

/* Lets others run; on a thread, briefly sleeping now and then. */
static void relax(unsigned round)
{
	if (!loop_current() && round % 64 == 63)
		wait_sleep(50000);
	else
		wait_yield();
}

bool driver_wait_csts(struct driver *d, uint32_t mask, uint32_t value)
{
	uint64_t until = wait_now() + PATIENCE_NS;

	for (unsigned i = 0; wait_now() < until; i++) {
		if ((driver_read32(d, NVME_REG_CSTS) & mask) == value)
			return true;
		relax(i);
	}
	tap_diag("CSTS is 0x%x", driver_read32(d, NVME_REG_CSTS));
	return false;
}

static void queue_begin(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth)
{
	*q = (struct driver_queue){.d = d, .id = id, .cq_id = id, .depth = depth, .cq_depth = depth, .phase = true};
	q->sq = guest_alloc(&d->guest, depth * sizeof(struct nvme_sqe), (size_t)1 << d->page_shift);
	q->cq = guest_alloc(&d->guest, depth * sizeof(struct nvme_cqe), (size_t)1 << d->page_shift);
}

bool driver_enable(struct driver *d, unsigned depth, unsigned page_shift)
{
	d->page_shift = page_shift;
	queue_begin(d, &d->admin, 0, depth);
	driver_write32(d, NVME_REG_AQA, (depth - 1) | (depth - 1) << 16);
	driver_write64(d, NVME_REG_ASQ, d->admin.sq);
	driver_write64(d, NVME_REG_ACQ, d->admin.cq);
	driver_write32(d, NVME_REG_CC, NVME_CC_EN | (page_shift - 12) << 7 | 6 << 16 | 4 << 20);
	return driver_wait_csts(d, NVME_CSTS_RDY, NVME_CSTS_RDY);
}

bool driver_disable(struct driver *d)
{
	driver_write32(d, NVME_REG_CC, 0);
	d->shadow = d->event_index = 0;
	return driver_wait_csts(d, NVME_CSTS_RDY, 0);
}

/* ------------------------------------------------------------------ rings */

uint16_t driver_submit(struct driver_queue *q, const struct nvme_sqe *sqe)
{
	struct nvme_sqe *slot = guest_at(&q->d->guest, q->sq + q->tail * sizeof(*slot));
	uint16_t cid = q->next_cid++;

	*slot = *sqe;
	slot->cid = put16(cid);
	q->tail = (q->tail + 1) % q->depth;
	q->in_flight++;
	return cid;
}

/* True when a shadow doorbell that went from `old` to `new` asks for a write of the register (Base B.5). */
static bool is_asked_for(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static void ring_bell(struct driver *d, unsigned index, uint32_t value)
{
	uint32_t *shadow, *event, old;

	if (d->shadow && index >= 2) {
		shadow = guest_at(&d->guest, d->shadow + 4ul * index);
		event = guest_at(&d->guest, d->event_index + 4ul * index);
		old = le32toh(*shadow);
		__atomic_store_n(shadow, htole32(value), __ATOMIC_RELEASE);
		checkers_fence();
		if (!is_asked_for((uint16_t)le32toh(__atomic_load_n(event, __ATOMIC_ACQUIRE)), (uint16_t)value, (uint16_t)old))
			return;
	}
	driver_write32(d, NVME_REG_DOORBELLS + 4ul * index, value);
}

void driver_ring(struct driver_queue *q)
{
	ring_bell(q->d, 2 * q->id, q->tail);
}

bool driver_poll(struct driver_queue *q, struct driver_result *result)
{
	struct nvme_cqe *slot = guest_at(&q->d->guest, q->cq + q->head * sizeof(*slot));
	uint64_t second = le64toh(__atomic_load_n((uint64_t *)slot + 1, __ATOMIC_ACQUIRE));
	uint16_t status = (uint16_t)(second >> 48);

	if ((status & 1) != q->phase)
		return false;
	*result = (struct driver_result){
		.status = status >> 1 & 0x7ff,
		.dnr = status >> 15,
		.cid = (uint16_t)(second >> 32),
		.sqid = (uint16_t)(second >> 16),
		.sqhd = (uint16_t)second,
		.dw0 = get32(slot->dw0),
		.dw1 = get32(slot->dw1),
	};
	q->head++;
	if (q->head == q->cq_depth) {
		q->head = 0;
		q->phase = !q->phase;
	}
	q->sq_head = result->sqhd;
	q->in_flight--;
	return true;
}

void driver_ack(struct driver_queue *q)
{
	ring_bell(q->d, 2 * q->cq_id + 1, q->head);
}

bool driver_wait(struct driver_queue *q, struct driver_result *result)
{
	uint64_t until = wait_now() + PATIENCE_NS;

	for (unsigned i = 0; wait_now() < until; i++) {
		if (driver_poll(q, result)) {
			driver_ack(q);
			return true;
		}
		relax(i);
	}
	return false;
}

uint16_t driver_run(struct driver_queue *q, const struct nvme_sqe *sqe, struct driver_result *result)
{
	struct driver_result r;
	uint16_t cid = driver_submit(q, sqe);

	driver_ring(q);
	if (!driver_wait(q, &r)) {
		tap_diag("no completion for opcode 0x%x on queue %u", sqe->opcode, q->id);
		return 0xffff;
	}
	CHECK_EQ(r.cid, cid);
	CHECK_EQ(r.sqid, q->id);
	if (result)
		*result = r;
	return r.status;
}

/* ------------------------------------------------------------------ queues */

uint16_t driver_create_cq(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth, unsigned vector)
{
	struct nvme_sqe sqe;

	queue_begin(d, q, id, depth);
	sqe = driver_admin_command(NVME_ADMIN_CREATE_CQ, 0, q->cq, id | (depth - 1) << 16, 3 | vector << 16);
	return driver_run(&d->admin, &sqe, NULL);
}

uint16_t driver_create_sq(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth, unsigned cq_id)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_CREATE_SQ, 0, q->sq, id | (depth - 1) << 16, 1 | cq_id << 16);

	return driver_run(&d->admin, &sqe, NULL);
}

uint16_t driver_create_pair(struct driver *d, struct driver_queue *q, unsigned id, unsigned depth)
{
	uint16_t status = driver_create_cq(d, q, id, depth, id);

	return status ? status : driver_create_sq(d, q, id, depth, id);
}

uint16_t driver_delete(struct driver *d, bool sq, unsigned id)
{
	struct nvme_sqe sqe = driver_admin_command(sq ? NVME_ADMIN_DELETE_SQ : NVME_ADMIN_DELETE_CQ, 0, 0, id, 0);

	return driver_run(&d->admin, &sqe, NULL);
}

/* ------------------------------------------------------------------ entries */

struct nvme_sqe driver_admin_command(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t cdw10, uint32_t cdw11)
{
	return (struct nvme_sqe){.opcode = opcode, .nsid = put32(nsid), .prp1 = put64(prp1), .cdw10 = put32(cdw10),
				 .cdw11 = put32(cdw11)};
}

struct nvme_sqe driver_rw(uint8_t opcode, uint32_t nsid, uint64_t lba, unsigned blocks, uint64_t prp1, uint64_t prp2)
{
	struct nvme_sqe sqe = driver_admin_command(opcode, nsid, prp1, (uint32_t)lba, (uint32_t)(lba >> 32));

	sqe.prp2 = put64(prp2);
	sqe.cdw12 = put32(blocks - 1);
	return sqe;
}

uint16_t driver_get_feature(struct driver *d, uint8_t fid, uint32_t nsid, uint32_t cdw11, uint32_t *value)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_GET_FEATURES, nsid, 0, fid, cdw11);
	struct driver_result r = {0};
	uint16_t status = driver_run(&d->admin, &sqe, &r);

	*value = r.dw0;
	return status;
}

uint16_t driver_set_feature(struct driver *d, uint8_t fid, uint32_t nsid, uint32_t cdw11)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_SET_FEATURES, nsid, 0, fid, cdw11);

	return driver_run(&d->admin, &sqe, NULL);
}

uint16_t driver_identify(struct driver *d, uint8_t cns, uint32_t nsid, void **page)
{
	uint64_t at = guest_alloc(&d->guest, GUEST_PAGE, GUEST_PAGE);
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_IDENTIFY, nsid, at, cns, 0);

	*page = guest_at(&d->guest, at);
	memset(*page, 0xee, GUEST_PAGE);
	return driver_run(&d->admin, &sqe, NULL);
}

uint16_t driver_log(struct driver *d, uint8_t lid, uint32_t nsid, size_t size, uint64_t offset, bool retain, void **page)
{
	uint64_t at = guest_alloc(&d->guest, 2 * GUEST_PAGE, GUEST_PAGE);
	uint32_t dwords = (uint32_t)(size / 4 - 1);
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_GET_LOG, nsid, at,
						   lid | (uint32_t)retain << 15 | (dwords & 0xffff) << 16, dwords >> 16);

	sqe.prp2 = put64(at + GUEST_PAGE);
	sqe.cdw12 = put32(offset);
	sqe.cdw13 = put32(offset >> 32);
	*page = guest_at(&d->guest, at);
	return driver_run(&d->admin, &sqe, NULL);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Queues: creating and deleting, wrapping, full ones, many to one, shadow doorbells, interrupts, many commands in flight. */
#include <pthread.h>
#include <stdlib.h>

#include "core/checkers.h"
#include "tests/loops.h"
#include "tests/nvme-driver.h"
#include "tests/tap.h"
#include "tests/trap.h"

static struct driver d;
static struct driver_queue q, other;

/* A namespace and a controller that is ready. */
static void open_with(const char *spec, const struct nvme_options *options, unsigned nr_loops)
{
	driver_open(&d, options, nr_loops);
	driver_add(&d, spec, NULL);
	CHECK(driver_enable(&d, 64, 12));
}

static struct nvme_sqe flush(void)
{
	return driver_admin_command(NVME_IO_FLUSH, 1, 0, 0, 0);
}

static struct nvme_sqe read_block(uint64_t lba, uint64_t to)
{
	return driver_rw(NVME_IO_READ, 1, lba, 1, to, 0);
}

/* ------------------------------------------------------------------ creation */

static void test_queue_errors(void)
{
	static const struct {
		uint8_t opcode;
		uint32_t cdw10, cdw11;
		uint64_t prp1;
		uint16_t status;
	} cases[] = {
		{NVME_ADMIN_CREATE_CQ, 0 | 7 << 16, 3, GUEST_RAM, NVME_QID_INVALID},
		{NVME_ADMIN_CREATE_CQ, 65 | 7 << 16, 3, GUEST_RAM, NVME_QID_INVALID},
		{NVME_ADMIN_CREATE_CQ, 1 | 7 << 16, 3, GUEST_RAM, NVME_QID_INVALID}, /* is there */
		{NVME_ADMIN_CREATE_CQ, 2, 3, GUEST_RAM, NVME_QUEUE_SIZE_INVALID},
		{NVME_ADMIN_CREATE_CQ, 2 | 4096u << 16, 3, GUEST_RAM, NVME_QUEUE_SIZE_INVALID},
		{NVME_ADMIN_CREATE_CQ, 2 | 7 << 16, 2, GUEST_RAM, NVME_INVALID_FIELD}, /* not contiguous */
		{NVME_ADMIN_CREATE_CQ, 2 | 7 << 16, 3, GUEST_RAM + 8, NVME_PRP_INVALID_OFFSET},
		{NVME_ADMIN_CREATE_CQ, 2 | 7 << 16, 3 | 65u << 16, GUEST_RAM, NVME_VECTOR_INVALID},
		{NVME_ADMIN_CREATE_SQ, 2 | 7 << 16, 1 | 0 << 16, GUEST_RAM, NVME_CQ_INVALID},
		{NVME_ADMIN_CREATE_SQ, 2 | 7 << 16, 1 | 9 << 16, GUEST_RAM, NVME_CQ_INVALID},
		{NVME_ADMIN_CREATE_SQ, 0 | 7 << 16, 1 | 1 << 16, GUEST_RAM, NVME_QID_INVALID},
		{NVME_ADMIN_CREATE_SQ, 1 | 7 << 16, 1 | 1 << 16, GUEST_RAM, NVME_QID_INVALID},
		{NVME_ADMIN_CREATE_SQ, 0xffff | 7 << 16, 1 | 1 << 16, GUEST_RAM, NVME_QID_INVALID},
		{NVME_ADMIN_CREATE_SQ, 2, 1 | 1 << 16, GUEST_RAM, NVME_QUEUE_SIZE_INVALID},
		{NVME_ADMIN_CREATE_SQ, 2 | 7 << 16, 0 | 1 << 16, GUEST_RAM, NVME_INVALID_FIELD},
		{NVME_ADMIN_DELETE_SQ, 0, 0, 0, NVME_QID_INVALID},
		{NVME_ADMIN_DELETE_SQ, 2, 0, 0, NVME_QID_INVALID},
		{NVME_ADMIN_DELETE_SQ, 0xffff, 0, 0, NVME_QID_INVALID},
		{NVME_ADMIN_DELETE_CQ, 0, 0, 0, NVME_QID_INVALID},
		{NVME_ADMIN_DELETE_CQ, 2, 0, 0, NVME_QID_INVALID},
		{NVME_ADMIN_DELETE_CQ, 1, 0, 0, NVME_QUEUE_DELETION_INVALID},
	};

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nvme_sqe sqe = driver_admin_command(cases[i].opcode, 0, cases[i].prp1, cases[i].cdw10, cases[i].cdw11);
		struct driver_result r;
		if (!CHECK_EQ(driver_run(&d.admin, &sqe, &r), cases[i].status))
			tap_diag("case %u", i);
		CHECK(r.dnr);
	}
	driver_close(&d);
}

static void test_entry_sizes_first(void)
{
	open_with("mem:1M", NULL, 1);
	driver_write32(&d, NVME_REG_CC, NVME_CC_EN);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 8, 1), NVME_QUEUE_SIZE_INVALID);
	driver_write32(&d, NVME_REG_CC, NVME_CC_EN | 6 << 16 | 4 << 20);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 8, 1), 0);
	driver_close(&d);
}

static void test_create_and_delete(void)
{
	struct nvme_sqe sqe = flush();

	open_with("mem:1M", NULL, 2);
	for (unsigned i = 0; i < 20; i++) {
		CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
		CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
		CHECK_EQ(driver_delete(&d, true, 1), 0);
		CHECK_EQ(driver_delete(&d, false, 1), 0);
		CHECK_EQ(driver_create_pair(&d, &other, 64, 2), 0);
		CHECK_EQ(driver_run(&other, &sqe, NULL), 0);
		CHECK_EQ(driver_delete(&d, true, 64), 0);
		CHECK_EQ(driver_delete(&d, false, 64), 0);
	}
	driver_close(&d);
}

/* ------------------------------------------------------------------ rings */

static void test_wrap_and_phase(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 3), 0);
	for (unsigned i = 0; i < 50; i++) {
		CHECK_EQ(driver_run(&q, &sqe, &r), 0);
		CHECK_EQ(r.sqhd, (i + 1) % 3);
	}
	driver_close(&d);
}

/* Two entries, of which one is always free: the smallest queue. */
static void test_smallest_queue(void)
{
	struct nvme_sqe sqe = flush();

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 2), 0);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	driver_close(&d);
}

/* A fiber costs TSan a MiB, and seconds for thousands. */
#ifdef CHECKERS_TSAN
#define DEEPEST 63u
#define MANY 64u
#else
#define DEEPEST 4095u
#define MANY 256u
#endif

static void test_deepest_queue(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 4096), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < DEEPEST; i++)
			driver_submit(&q, &sqe);
		driver_ring(&q);
		for (unsigned i = 0; i < DEEPEST; i++)
			if (!CHECK(driver_wait(&q, &r)) || !CHECK_EQ(r.status, 0))
				break;
	}
	driver_close(&d);
}

/* Completions wait until the driver makes room, and none is lost. */
static void test_full_completion_queue(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;
	bool seen[16] = {false};

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 2, 1), 0);
	q.cq_depth = 2;
	q.depth = 32;
	q.sq = guest_alloc(&d.guest, 32 * 64, 4096);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 32, 1), 0);
	for (unsigned i = 0; i < 16; i++)
		driver_submit(&q, &sqe);
	driver_ring(&q);
	wait_sleep(5000000);
	for (unsigned i = 0; i < 16; i++) {
		REQUIRE(driver_wait(&q, &r));
		CHECK(r.cid < 16 && !seen[r.cid]);
		seen[r.cid] = true;
	}
	CHECK(!driver_poll(&q, &r));
	driver_close(&d);
}

/* The queue goes with its completions that found no room. */
static void test_delete_with_full_completion_queue(void)
{
	struct nvme_sqe sqe = flush();

	open_with("mem:1M", NULL, 2);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 2, 1), 0);
	q.depth = 32;
	q.sq = guest_alloc(&d.guest, 32 * 64, 4096);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 32, 1), 0);
	for (unsigned i = 0; i < 16; i++)
		driver_submit(&q, &sqe);
	driver_ring(&q);
	wait_sleep(2000000);
	CHECK_EQ(driver_delete(&d, true, 1), 0);
	CHECK_EQ(driver_delete(&d, false, 1), 0);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	driver_close(&d);
}

static void test_shared_completion_queue(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;
	unsigned from[4] = {0};

	open_with("mem:1M", NULL, 2);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 64, 1), 0);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 64, 1), 0);
	other = q;
	other.id = 3;
	other.tail = 0;
	other.sq = guest_alloc(&d.guest, 64 * 64, 4096);
	CHECK_EQ(driver_create_sq(&d, &other, 3, 64, 1), 0);
	for (unsigned i = 0; i < 20; i++) {
		driver_submit(&q, &sqe);
		driver_submit(&other, &sqe);
	}
	driver_ring(&q);
	driver_ring(&other);
	for (unsigned i = 0; i < 40; i++) {
		REQUIRE(driver_wait(&q, &r));
		CHECK_EQ(r.status, 0);
		from[r.sqid % 4]++;
	}
	CHECK_EQ(from[1], 20);
	CHECK_EQ(from[3], 20);
	CHECK_EQ(driver_delete(&d, false, 1), NVME_QUEUE_DELETION_INVALID);
	CHECK_EQ(driver_delete(&d, true, 3), 0);
	CHECK_EQ(driver_delete(&d, false, 1), NVME_QUEUE_DELETION_INVALID);
	CHECK_EQ(driver_delete(&d, true, 1), 0);
	CHECK_EQ(driver_delete(&d, false, 1), 0);
	driver_close(&d);
}

/* ------------------------------------------------------------------ doorbells that make no sense */

static bool error_event(uint8_t info)
{
	struct driver_result r;

	return CHECK(driver_wait(&d.admin, &r)) && CHECK_EQ(r.dw0, UINT32_C(1) << 16 | (uint32_t)info << 8);
}

static void test_doorbell_outside_the_ring(void)
{
	struct nvme_sqe event = driver_admin_command(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	driver_submit(&d.admin, &event);
	driver_ring(&d.admin);
	driver_write32(&d, NVME_REG_DOORBELLS + 8, 8);
	CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, NVME_CSTS_CFS));
	CHECK(error_event(1));
	CHECK_EQ(driver_delete(&d, true, 1), 0);
	CHECK(driver_disable(&d));
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), 0);
	CHECK(driver_enable(&d, 64, 12));
	driver_close(&d);
}

/* Looked at when the queue seems to be full. */
static void test_head_outside_the_ring(void)
{
	struct nvme_sqe sqe = flush();

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 2), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	driver_write32(&d, NVME_REG_DOORBELLS + 12, 2);
	driver_submit(&q, &sqe);
	driver_ring(&q);
	CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, NVME_CSTS_CFS));
	CHECK(driver_disable(&d));
	driver_close(&d);
}

static void test_doorbell_of_no_queue(void)
{
	static const unsigned bells[] = {2, 3, 8, 200, 3000}; /* of queues that could be, that could not, of none */
	struct nvme_sqe event = driver_admin_command(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);
	struct nvme_options two = {.queues = 2};
	void *page;

	open_with("mem:1M", &two, 1);
	for (unsigned i = 0; i < sizeof(bells) / sizeof(bells[0]); i++) {
		driver_submit(&d.admin, &event);
		driver_ring(&d.admin);
		driver_write32(&d, NVME_REG_DOORBELLS + 4 * bells[i], 1);
		CHECK(error_event(0));
		CHECK_EQ(driver_log(&d, NVME_LOG_ERRORS, 0, 64, 0, false, &page), 0);
	}
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
	driver_close(&d);
}

static void test_ring_without_memory(void)
{
	struct nvme_sqe sqe;

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 8, 1), 0);
	sqe = driver_admin_command(NVME_ADMIN_CREATE_SQ, 0, GUEST_NOWHERE, 1 | 7 << 16, 1 | 1 << 16);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	driver_write32(&d, NVME_REG_DOORBELLS + 8, 1);
	CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, NVME_CSTS_CFS));
	CHECK(driver_disable(&d));

	CHECK(driver_enable(&d, 64, 12));
	CHECK_EQ(driver_create_cq(&d, &q, 1, 8, 1), 0);
	CHECK_EQ(driver_delete(&d, false, 1), 0);
	sqe = driver_admin_command(NVME_ADMIN_CREATE_CQ, 0, GUEST_ROM, 1 | 7 << 16, 3 | 1 << 16);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 8, 1), 0);
	sqe = flush();
	driver_submit(&q, &sqe);
	driver_ring(&q);
	CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, NVME_CSTS_CFS));
	driver_close(&d);
}

/* Rings where memory can only be copied, or falls into two pieces. */
static void rings_at(uint64_t sq, uint64_t cq)
{
	struct nvme_sqe sqe;
	struct driver_result r;

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 128, 1), 0);
	CHECK_EQ(driver_delete(&d, false, 1), 0);
	q.sq = sq;
	q.cq = cq;
	sqe = driver_admin_command(NVME_ADMIN_CREATE_CQ, 0, cq, 1 | 127 << 16, 3 | 1 << 16);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 128, 1), 0);
	sqe = flush();
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 100; i++)
			driver_submit(&q, &sqe);
		driver_ring(&q);
		for (unsigned i = 0; i < 100; i++)
			REQUIRE(driver_wait(&q, &r));
	}
	driver_close(&d);
}

static void test_rings_in_two_pieces(void)
{
	rings_at(GUEST_SPLIT_MIDDLE - 4096, GUEST_RAM + (1 << 20));
}

#ifndef CHECKERS_TSAN /* copies of what another thread looks at: messages would bring an order of their own */
static void test_rings_that_are_copied(void)
{
	rings_at(GUEST_UNMAPPED, GUEST_UNMAPPED + 65536);
}
#endif

/* ------------------------------------------------------------------ shadow doorbells */

static void set_up_shadow(void)
{
	struct nvme_sqe sqe;
	uint64_t shadow = guest_alloc(&d.guest, 4096, 4096), event_index = guest_alloc(&d.guest, 4096, 4096);

	sqe = driver_admin_command(NVME_ADMIN_DOORBELL_BUFFER, 0, shadow, 0, 0);
	sqe.prp2 = put64(event_index);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	d.shadow = shadow;
	d.event_index = event_index;
}

static void test_shadow_doorbells(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	open_with("mem:1M", NULL, 2);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 32), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	set_up_shadow();
	CHECK_EQ(driver_create_pair(&d, &other, 2, 5), 0);
	for (unsigned i = 0; i < 300; i++) {
		CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
		CHECK_EQ(driver_run(&other, &sqe, NULL), 0);
	}
	for (unsigned i = 0; i < 31; i++)
		driver_submit(&q, &sqe);
	driver_ring(&q);
	for (unsigned i = 0; i < 31; i++)
		REQUIRE(driver_wait(&q, &r));
	/* a queue that is made anew begins at 0, whatever the shadow of the last one was: here 2 */
	CHECK_EQ(driver_run(&other, &sqe, NULL), 0);
	CHECK_EQ(driver_run(&other, &sqe, NULL), 0);
	CHECK_EQ(driver_delete(&d, true, 2), 0);
	CHECK_EQ(driver_delete(&d, false, 2), 0);
	CHECK_EQ(driver_create_pair(&d, &other, 2, 5), 0);
	CHECK_EQ(driver_run(&other, &sqe, NULL), 0);
	driver_close(&d);
}

/* Nothing is written there any more after a reset, and registers are the truth again. */
static void test_reset_forgets_shadow(void)
{
	struct nvme_sqe sqe = flush();
	uint64_t event_index;

	open_with("mem:1M", NULL, 1);
	set_up_shadow();
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	event_index = d.event_index;
	CHECK(driver_disable(&d));
	memset(guest_at(&d.guest, event_index), 0x55, 4096);
	CHECK(driver_enable(&d, 64, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	for (unsigned i = 0; i < 4096; i++)
		CHECK(((uint8_t *)guest_at(&d.guest, event_index))[i] == 0x55);
	driver_close(&d);
}

static void test_shadow_errors(void)
{
	struct nvme_sqe sqe;

	open_with("mem:1M", NULL, 1);
	sqe = driver_admin_command(NVME_ADMIN_DOORBELL_BUFFER, 0, GUEST_RAM + 8, 0, 0);
	sqe.prp2 = put64(GUEST_RAM);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), NVME_INVALID_FIELD);
	sqe.prp1 = put64(GUEST_RAM);
	sqe.prp2 = put64(0);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), NVME_INVALID_FIELD);
	sqe.prp2 = put64(GUEST_NOWHERE);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), NVME_DATA_TRANSFER_ERROR);
	driver_close(&d);
}

/* Doorbells in memory that the guest writes without telling us. */
static void test_polled_doorbells(void)
{
	uint32_t *bells = aligned_alloc(4096, NVME_BAR_BYTES - NVME_REG_DOORBELLS);
	struct nvme_options options = {.doorbells = bells};
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	memset(bells, 0, NVME_BAR_BYTES - NVME_REG_DOORBELLS);
	open_with("mem:1M", &options, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	for (unsigned i = 0; i < 20; i++) {
		driver_submit(&q, &sqe);
		__atomic_store_n(&bells[2], q.tail, __ATOMIC_RELEASE);
		nvme_poll(d.c);
		REQUIRE(driver_wait(&q, &r));
	}
	CHECK(driver_disable(&d));
	CHECK_EQ(bells[2], 0); /* a stale one would bring old commands back */
	driver_close(&d);
	free(bells);
}

/* A queue is made anew, and the first value that it is rung with is the last one of the queue before it. */
static void test_polled_doorbells_of_the_next_queue(void)
{
	uint32_t *bells = aligned_alloc(4096, NVME_BAR_BYTES - NVME_REG_DOORBELLS);
	struct nvme_options options = {.doorbells = bells};
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	memset(bells, 0, NVME_BAR_BYTES - NVME_REG_DOORBELLS);
	open_with("mem:1M", &options, 1);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
		driver_submit(&q, &sqe);
		__atomic_store_n(&bells[2], q.tail, __ATOMIC_RELEASE);
		nvme_poll(d.c);
		REQUIRE(driver_wait(&q, &r));
		CHECK_EQ(driver_delete(&d, true, 1), 0);
		CHECK_EQ(driver_delete(&d, false, 1), 0);
	}
	driver_close(&d);
	free(bells);
}

/* ------------------------------------------------------------------ interrupts */

static unsigned wait_raised(unsigned vector, unsigned at_least)
{
	uint64_t until = wait_now() + UINT64_C(5000000000);

	while (atomic_load(&d.guest.raised[vector]) < at_least && wait_now() < until)
		wait_sleep(100000);
	return atomic_load(&d.guest.raised[vector]);
}

static void test_interrupt_on_its_vector(void)
{
	struct nvme_sqe sqe = flush();

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_cq(&d, &q, 1, 8, 7), 0);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 8, 1), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(wait_raised(7, 1), 1);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(wait_raised(7, 2), 2);
	CHECK_EQ(atomic_load(&d.guest.raised[1]), 0);
	driver_close(&d);
}

/* One doorbell with 32 commands costs one pass and one interrupt. */
static void test_burst_is_one_pass(void)
{
	struct nvme_sqe sqe = flush();
	struct nvme_counters before, after;
	struct driver_result r;

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
	nvme_counters(d.c, &before);
	for (unsigned i = 0; i < 32; i++)
		driver_submit(&q, &sqe);
	driver_ring(&q);
	for (unsigned i = 0; i < 32; i++)
		REQUIRE(driver_wait(&q, &r));
	CHECK_EQ(wait_raised(1, 1), 1);
	nvme_counters(d.c, &after);
	CHECK_EQ(after.passes - before.passes, 1);
	CHECK_EQ(after.commands - before.commands, 32);
	driver_close(&d);
}

/*
 * What a burst reads is asked for before it is read, and only then: the bytes of each command, and the way to them before that where another
 * comes first. Block numbers that lead nowhere are nobody's.
 */
static void test_burst_is_asked_for(void)
{
	struct trap *t = trap_create(&(struct trap_options){0});
	struct nvme_sqe sqe;
	struct driver_result r;
	uint64_t to;
	unsigned data = 0, way = 0;

	driver_open(&d, NULL, 1);
	driver_add_disk(&d, &t->disk, NULL);
	CHECK(driver_enable(&d, 64, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
	to = guest_alloc(&d.guest, 5 * 512, 4096);
	trap_reset(t);
	for (unsigned i = 0; i < 5; i++) {
		sqe = i == 3 ? flush() : read_block(i == 4 ? UINT64_MAX / 512 : 10 + i, to + i * 512);
		driver_submit(&q, &sqe);
	}
	driver_ring(&q);
	for (unsigned i = 0; i < 5; i++)
		REQUIRE(driver_wait(&q, &r));
	for (unsigned i = 0; i < t->warms && i < TRAP_LOG; i++) {
		CHECK_EQ(t->warm[i].length, 512);
		CHECK(t->warm[i].offset >= 10 * 512 && t->warm[i].offset < 13 * 512);
		data |= (unsigned)(t->warm[i].flags == WARM_DATA) << (t->warm[i].offset / 512 - 10);
		way |= (unsigned)(t->warm[i].flags == WARM_WAY) << (t->warm[i].offset / 512 - 10);
	}
	CHECK_EQ(data, 7);
	CHECK_EQ(way, 6);
	CHECK_EQ(t->counts[TRAP_READ], 3);
	driver_close(&d);
}

/* Those behind a command that waits do not wait with it. */
static void test_burst_goes_on(void)
{
	struct driver_result r;
	uint16_t first;
	uint64_t to;

	open_with("delay:200:mem:1M", NULL, 1);
	CHECK_EQ(driver_add(&d, "mem:1M", NULL), 2);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
	to = guest_alloc(&d.guest, 9 * 512, 4096);
	first = q.next_cid;
	for (unsigned i = 0; i < 9; i++) {
		struct nvme_sqe sqe = driver_rw(NVME_IO_READ, i % 4 == 0 ? 1 : 2, i, 1, to + i * 512, 0);
		driver_submit(&q, &sqe);
	}
	driver_ring(&q);
	for (unsigned i = 0; i < 9; i++) {
		REQUIRE(driver_wait(&q, &r));
		CHECK_EQ(r.status, 0);
		CHECK_EQ((r.cid - first) % 4 == 0, i >= 6);
	}
	driver_close(&d);
}

/* Four entries or 25 ms. */
static void test_coalescing(void)
{
	struct nvme_sqe sqe = flush();
	uint64_t start;

	open_with("mem:1M", NULL, 1);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 8), 0);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_COALESCING, 0, 3 | 250 << 8), 0);
	start = wait_now();
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(wait_raised(1, 1), 1);
	CHECK(wait_now() - start >= 24000000);
	start = wait_now();
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	if (wait_now() - start < 20000000) { /* else the machine was too slow for this */
		CHECK_EQ(wait_raised(1, 2), 2);
		CHECK(wait_now() - start < 25000000);
	}
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_VECTOR, 0, 1 | 1 << 16), 0);
	wait_sleep(30000000);
	start = atomic_load(&d.guest.raised[1]);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(wait_raised(1, (unsigned)start + 1), start + 1);
	driver_close(&d);
}

/* ------------------------------------------------------------------ many at once */

/* The one colour of waiting: 256 commands wait in a disk that takes its time, on one thread. */
static void test_256_in_flight_on_one_thread(void)
{
	struct nvme_counters counters;
	struct driver_result r;
	uint64_t to, start;

	open_with("delay:200:mem:1G", NULL, 1);
	to = guest_alloc(&d.guest, 4096, 4096);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 512), 0);
	start = wait_now();
	for (unsigned i = 0; i < MANY; i++) {
		struct nvme_sqe sqe = read_block(i * 1000, to);
		driver_submit(&q, &sqe);
	}
	driver_ring(&q);
	for (unsigned i = 0; i < MANY; i++)
		REQUIRE(driver_wait(&q, &r));
	CHECK(wait_now() - start < UINT64_C(200000000) * MANY / 2); /* and not that many times as long */
	nvme_counters(d.c, &counters);
	CHECK_EQ(counters.most_in_flight, MANY);
	CHECK_EQ(counters.in_flight, 0);
	driver_close(&d);
}

static void test_reset_with_commands_in_flight(void)
{
	uint64_t to;

	open_with("delay:30:mem:1G", NULL, 2);
	to = guest_alloc(&d.guest, 80 * 512, 4096);
	for (unsigned round = 0; round < 5; round++) {
		CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
		CHECK_EQ(driver_create_pair(&d, &other, 2, 64), 0);
		for (unsigned i = 0; i < 40; i++) {
			struct nvme_sqe sqe = read_block(i, to + i * 512);
			driver_submit(&q, &sqe);
			sqe = read_block(i, to + (40 + i) * 512);
			driver_submit(&other, &sqe);
		}
		driver_ring(&q);
		driver_ring(&other);
		wait_sleep(round * 3000000);
		CHECK(driver_disable(&d));
		memset(guest_at(&d.guest, to), 0x5a, 512); /* nobody writes there any more */
		wait_sleep(5000000);
		CHECK_EQ(*(char *)guest_at(&d.guest, to), 0x5a);
		d.guest.next = to + 80 * 512;
		CHECK(driver_enable(&d, 64, 12));
	}
	driver_close(&d);
}

/* Those that are in a disk end there, and the deletion waits for them. */
static void test_delete_with_commands_in_flight(void)
{
	struct driver_result r;
	unsigned ended = 0;
	uint64_t to;

	open_with("delay:50:mem:1G", NULL, 2);
	to = guest_alloc(&d.guest, 4096, 4096);
	CHECK_EQ(driver_create_pair(&d, &q, 1, 64), 0);
	for (unsigned i = 0; i < 40; i++) {
		struct nvme_sqe sqe = read_block(i, to);
		driver_submit(&q, &sqe);
	}
	driver_ring(&q);
	wait_sleep(10000000);
	CHECK_EQ(driver_delete(&d, true, 1), 0);
	while (driver_poll(&q, &r)) {
		CHECK(r.status == 0 || r.status == NVME_ABORT_SQ_DELETED);
		ended++;
	}
	CHECK_EQ(ended, 40);
	CHECK_EQ(driver_delete(&d, false, 1), 0);
	driver_close(&d);
}

struct user {
	unsigned id, rounds;
	struct driver_queue queue;
	uint64_t to;
};

static void *use_queue(void *argument)
{
	struct user *u = argument;
	struct driver_result r;

	for (unsigned i = 0; i < u->rounds; i++) {
		for (unsigned j = 0; j < 30; j++) {
			struct nvme_sqe sqe = read_block((i * 30 + j) % 2048, u->to + j * 512);
			driver_submit(&u->queue, &sqe);
		}
		driver_ring(&u->queue);
		for (unsigned j = 0; j < 30; j++)
			if (!CHECK(driver_wait(&u->queue, &r)) || !CHECK_EQ(r.status, 0))
				return NULL;
	}
	return NULL;
}

static void test_many_queues_from_many_threads(void)
{
	enum { USERS = 6 };
	static struct user users[USERS];
	pthread_t threads[USERS];

	open_with("mem:1M", NULL, 2);
	for (unsigned i = 0; i < USERS; i++) {
		users[i] = (struct user){.id = i + 1, .rounds = rounds(200), .to = guest_alloc(&d.guest, 16384, 4096)};
		CHECK_EQ(driver_create_pair(&d, &users[i].queue, i + 1, 33), 0);
	}
	for (unsigned i = 0; i < USERS; i++)
		threads_start(&threads[i], 1, use_queue, &users[i]);
	threads_join(threads, USERS);
	driver_close(&d);
}

static void test_all_queues(void)
{
	static struct driver_queue queues[65];
	struct nvme_sqe sqe = flush();

	open_with("mem:1M", NULL, 2);
	for (unsigned i = 1; i <= 64; i++)
		CHECK_EQ(driver_create_pair(&d, &queues[i], i, 4), 0);
	for (unsigned i = 1; i <= 64; i++)
		CHECK_EQ(driver_run(&queues[i], &sqe, NULL), 0);
	driver_close(&d);
}

int main(void)
{
	TAP_RUN(test_queue_errors);
	TAP_RUN(test_entry_sizes_first);
	TAP_RUN(test_create_and_delete);
	TAP_RUN(test_wrap_and_phase);
	TAP_RUN(test_smallest_queue);
	TAP_RUN(test_deepest_queue);
	TAP_RUN(test_full_completion_queue);
	TAP_RUN(test_delete_with_full_completion_queue);
	TAP_RUN(test_shared_completion_queue);
	TAP_RUN(test_doorbell_outside_the_ring);
	TAP_RUN(test_head_outside_the_ring);
	TAP_RUN(test_doorbell_of_no_queue);
	TAP_RUN(test_ring_without_memory);
	TAP_RUN(test_rings_in_two_pieces);
#ifndef CHECKERS_TSAN
	TAP_RUN(test_rings_that_are_copied);
#endif
	TAP_RUN(test_shadow_doorbells);
	TAP_RUN(test_reset_forgets_shadow);
	TAP_RUN(test_shadow_errors);
	TAP_RUN(test_polled_doorbells);
	TAP_RUN(test_polled_doorbells_of_the_next_queue);
	TAP_RUN(test_interrupt_on_its_vector);
	TAP_RUN(test_burst_is_one_pass);
	TAP_RUN(test_burst_is_asked_for);
	TAP_RUN(test_burst_goes_on);
	TAP_RUN(test_coalescing);
	TAP_RUN(test_256_in_flight_on_one_thread);
	TAP_RUN(test_reset_with_commands_in_flight);
	TAP_RUN(test_delete_with_commands_in_flight);
	TAP_RUN(test_many_queues_from_many_threads);
	TAP_RUN(test_all_queues);
	return TAP_DONE();
}

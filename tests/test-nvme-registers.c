/* SPDX-License-Identifier: BSD-3-Clause */
/* The controller's registers and states: enabling, what cannot be enabled, resets and shutdown at any moment. */
#include <pthread.h>

#include "tests/nvme-driver.h"
#include "tests/tap.h"

static struct driver d;

static void open_driver(void)
{
	driver_open(&d, NULL, 1);
}

static void test_capabilities(void)
{
	uint64_t cap;

	open_driver();
	cap = driver_read64(&d, NVME_REG_CAP);
	CHECK_EQ(cap & 0xffff, 4095);      /* MQES */
	CHECK_EQ(cap >> 16 & 1, 1);        /* CQR */
	CHECK_EQ(cap >> 24 & 0xff, 0xff);  /* TO */
	CHECK_EQ(cap >> 32 & 15, 0);       /* DSTRD */
	CHECK_EQ(cap >> 36 & 1, 1);        /* NSSRS */
	CHECK_EQ(cap >> 37 & 0xff, 1);     /* CSS: NVM */
	CHECK_EQ(cap >> 48 & 15, 0);       /* MPSMIN */
	CHECK_EQ(cap >> 52 & 15, 4);       /* MPSMAX: 64 KiB */
	CHECK_EQ(cap >> 59 & 3, 1);        /* CRMS: ready with media */
	CHECK_EQ(driver_read32(&d, 4), cap >> 32);
	CHECK_EQ(driver_read32(&d, NVME_REG_VS), 0x20000);
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), 0);
	driver_close(&d);
}

static void test_small_and_odd_reads(void)
{
	open_driver();
	CHECK_EQ(nvme_bar_read(d.c, NVME_REG_VS + 2, 2), 2);
	CHECK_EQ(nvme_bar_read(d.c, NVME_REG_VS + 2, 1), 2);
	CHECK_EQ(nvme_bar_read(d.c, NVME_REG_DOORBELLS, 4), 0);
	CHECK_EQ(nvme_bar_read(d.c, UINT64_MAX, 8), 0);
	CHECK_EQ(nvme_bar_read(d.c, 0, 9), 0);
	driver_close(&d);
}

static void test_registers_are_stored(void)
{
	open_driver();
	driver_write64(&d, NVME_REG_ACQ, 0x123456789abcdef0);
	CHECK_EQ(driver_read64(&d, NVME_REG_ACQ), 0x123456789abcd000);
	driver_write32(&d, NVME_REG_ACQ, 0x1000);
	driver_write32(&d, NVME_REG_ACQ + 4, 7);
	CHECK_EQ(driver_read64(&d, NVME_REG_ACQ), 0x700001000);
	driver_write32(&d, NVME_REG_AQA, UINT32_MAX);
	CHECK_EQ(driver_read32(&d, NVME_REG_AQA), 0x0fff0fff);
	driver_write32(&d, NVME_REG_INTMS, 6);
	CHECK_EQ(driver_read32(&d, NVME_REG_INTMS), 6);
	driver_write32(&d, NVME_REG_INTMC, 2);
	CHECK_EQ(driver_read32(&d, NVME_REG_INTMC), 4);
	nvme_bar_write(d.c, NVME_REG_AQA, 2, 0);
	nvme_bar_write(d.c, NVME_REG_AQA + 2, 4, 0);
	driver_write32(&d, NVME_REG_VS, 0);
	CHECK_EQ(driver_read32(&d, NVME_REG_AQA), 0x0fff0fff);
	CHECK_EQ(driver_read32(&d, NVME_REG_VS), 0x20000);
	driver_close(&d);
}

static void test_enable_and_disable(void)
{
	open_driver();
	for (unsigned i = 0; i < 20; i++) {
		CHECK(driver_enable(&d, 8, 12));
		CHECK_EQ(driver_read32(&d, NVME_REG_CC) & 1, 1);
		CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
		CHECK(driver_disable(&d));
		CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), 0);
	}
	CHECK_EQ(driver_read64(&d, NVME_REG_ASQ), d.admin.sq); /* these survive a controller reset */
	driver_close(&d);
}

static void test_frozen_while_enabled(void)
{
	open_driver();
	CHECK(driver_enable(&d, 8, 12));
	driver_write64(&d, NVME_REG_ASQ, 0);
	driver_write32(&d, NVME_REG_AQA, 0);
	driver_write32(&d, NVME_REG_CC, NVME_CC_EN | 1 << 7 | 6 << 16 | 4 << 20);
	CHECK_EQ(driver_read64(&d, NVME_REG_ASQ), d.admin.sq);
	CHECK_EQ(driver_read32(&d, NVME_REG_AQA), 0x70007);
	CHECK_EQ(NVME_CC_MPS(driver_read32(&d, NVME_REG_CC)), 0);
	driver_close(&d);
}

/* Each of these is something that cannot be enabled; the next reset leads out of it. */
static void test_invalid_configurations(void)
{
	static const struct {
		uint32_t cc, aqa;
		uint64_t asq;
	} bad[] = {
		{5 << 7, 0x70007, GUEST_RAM},  /* pages of 128 KiB */
		{1 << 4, 0x70007, GUEST_RAM},  /* another command set */
		{1 << 11, 0x70007, GUEST_RAM}, /* another arbitration */
		{0, 0x70000, GUEST_RAM},       /* a queue of one entry */
		{0, 0x00007, GUEST_RAM},
		{4 << 7, 0x70007, GUEST_RAM + 4096}, /* not on a page of 64 KiB */
	};

	open_driver();
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		driver_write32(&d, NVME_REG_AQA, bad[i].aqa);
		driver_write64(&d, NVME_REG_ASQ, bad[i].asq);
		driver_write64(&d, NVME_REG_ACQ, GUEST_RAM + 65536);
		driver_write32(&d, NVME_REG_CC, NVME_CC_EN | bad[i].cc);
		CHECK(driver_wait_csts(&d, NVME_CSTS_CFS | NVME_CSTS_RDY, NVME_CSTS_CFS));
		driver_write32(&d, NVME_REG_CC, 0);
		CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, 0));
	}
	CHECK(driver_enable(&d, 8, 12));
	driver_close(&d);
}

static void test_page_sizes(void)
{
	open_driver();
	for (unsigned shift = 12; shift <= 16; shift++) {
		void *page;
		CHECK(driver_enable(&d, 4, shift));
		CHECK_EQ(driver_identify(&d, 1, 0, &page), 0);
		CHECK(driver_disable(&d));
	}
	driver_close(&d);
}

static void test_enable_again_at_once(void)
{
	uint32_t cc;
	void *page;

	open_driver();
	CHECK(driver_enable(&d, 8, 12));
	cc = driver_read32(&d, NVME_REG_CC);
	for (unsigned i = 0; i < 1000; i++) {
		driver_write32(&d, NVME_REG_CC, 0);
		driver_write32(&d, NVME_REG_CC, cc);
	}
	CHECK(driver_disable(&d));
	CHECK(driver_enable(&d, 8, 12));
	CHECK_EQ(driver_identify(&d, 1, 0, &page), 0);
	driver_close(&d);
}

static void test_shutdown_flushes(void)
{
	uint32_t nsid;

	open_driver();
	nsid = driver_add(&d, "mem:1M", NULL);
	CHECK_EQ(nsid, 1);
	CHECK(driver_enable(&d, 8, 12));
	driver_write32(&d, NVME_REG_CC, driver_read32(&d, NVME_REG_CC) | 1 << 14);
	CHECK(driver_wait_csts(&d, NVME_CSTS_SHST_MASK, NVME_CSTS_SHST_COMPLETE));
	CHECK(driver_disable(&d));
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), 0);
	CHECK(driver_enable(&d, 8, 12));
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
	driver_close(&d);
}

static void test_shutdown_while_disabled(void)
{
	open_driver();
	driver_write32(&d, NVME_REG_CC, 2 << 14);
	CHECK(driver_wait_csts(&d, NVME_CSTS_SHST_MASK, NVME_CSTS_SHST_COMPLETE));
	CHECK(driver_enable(&d, 8, 12));
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
	driver_close(&d);
}

static void *run_loop(void *loop)
{
	loop_run(loop);
	return NULL;
}

/* What is asked for before anybody looks is done in order: the reset ends the shutdown as well. */
static void test_reset_after_shutdown(void)
{
	struct loop *loop;
	pthread_t thread;

	REQUIRE(loop_create(NULL, &loop, NULL) == 0);
	driver_open_on(&d, NULL, loop);
	driver_write32(&d, NVME_REG_CC, NVME_CC_EN | 1 << 14);
	driver_write32(&d, NVME_REG_CC, 0);
	REQUIRE(pthread_create(&thread, NULL, run_loop, loop) == 0);
	wait_sleep(50000000);
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), 0);
	driver_close(&d);
	loop_stop(loop);
	pthread_join(thread, NULL);
	loop_destroy(loop);
}

static void test_subsystem_reset(void)
{
	open_driver();
	CHECK(driver_enable(&d, 8, 12));
	driver_write32(&d, NVME_REG_NSSR, 1);
	CHECK_EQ(driver_read32(&d, NVME_REG_CC) & 1, 1);
	driver_write32(&d, NVME_REG_NSSR, NVME_NSSR_MAGIC);
	CHECK(driver_wait_csts(&d, NVME_CSTS_RDY | NVME_CSTS_NSSRO, NVME_CSTS_NSSRO));
	CHECK_EQ(driver_read32(&d, NVME_REG_CC), 0);
	CHECK_EQ(driver_read64(&d, NVME_REG_ASQ), 0);
	CHECK(driver_enable(&d, 8, 12));
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_NSSRO);
	driver_write32(&d, NVME_REG_CSTS, NVME_CSTS_NSSRO);
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
	driver_close(&d);
}

static void test_conventional_reset(void)
{
	open_driver();
	nvme_reset(d.c);
	for (unsigned i = 0; i < 50; i++) {
		CHECK(driver_enable(&d, 8, 12));
		nvme_reset(d.c);
		CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), 0);
		CHECK_EQ(driver_read32(&d, NVME_REG_CC), 0);
		CHECK_EQ(driver_read32(&d, NVME_REG_AQA), 0);
	}
	driver_close(&d);
}

/* A masked vector is raised when it is unmasked. */
static void test_interrupt_mask(void)
{
	void *page;

	open_driver();
	CHECK(driver_enable(&d, 8, 12));
	driver_write32(&d, NVME_REG_INTMS, 1);
	CHECK_EQ(driver_identify(&d, 1, 0, &page), 0);
	wait_sleep(5000000);
	CHECK_EQ(atomic_load(&d.guest.raised[0]), 0);
	driver_write32(&d, NVME_REG_INTMC, 1);
	for (unsigned i = 0; i < 5000 && !atomic_load(&d.guest.raised[0]); i++)
		wait_sleep(1000000);
	CHECK_EQ(atomic_load(&d.guest.raised[0]), 1);
	driver_write32(&d, NVME_REG_INTMC, 1);
	CHECK_EQ(atomic_load(&d.guest.raised[0]), 1);
	driver_close(&d);
}

static void test_bad_options(void)
{
	static const struct nvme_options bad[] = {
		{.queues = 65}, {.depth = 1}, {.depth = 4097}, {.mdts = 13}, {.namespaces = 1025}, {.vectors = 2049},
		{.serial = "123456789012345678901"}, {.model = "bad\x01"},
	};
	struct loop *loop;
	struct nvme *c;

	REQUIRE(loop_create(NULL, &loop, NULL) == 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(nvme_create(&bad[i], NULL, &loop, 1, &c, NULL), -EINVAL);
	loop_destroy(loop);
}

int main(void)
{
	TAP_RUN(test_capabilities);
	TAP_RUN(test_small_and_odd_reads);
	TAP_RUN(test_registers_are_stored);
	TAP_RUN(test_enable_and_disable);
	TAP_RUN(test_frozen_while_enabled);
	TAP_RUN(test_invalid_configurations);
	TAP_RUN(test_page_sizes);
	TAP_RUN(test_enable_again_at_once);
	TAP_RUN(test_shutdown_flushes);
	TAP_RUN(test_shutdown_while_disabled);
	TAP_RUN(test_reset_after_shutdown);
	TAP_RUN(test_subsystem_reset);
	TAP_RUN(test_conventional_reset);
	TAP_RUN(test_interrupt_mask);
	TAP_RUN(test_bad_options);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Fault scripts of the NVMe controller: each word, and what is not a script. */
#include "tests/nvme-driver.h"
#include "tests/tap.h"

static struct driver d;
static struct driver_queue q;

static void begin(const char *script)
{
	CLEANUP_ERROR struct error err = {0};

	driver_open(&d, NULL, 1);
	driver_add(&d, "mem:1M", NULL);
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 16), 0);
	if (!CHECK_EQ(nvme_set_script(d.c, script, &err), 0))
		tap_diag("%s", error_text(&err));
}

static struct nvme_sqe flush(void)
{
	return driver_admin_command(NVME_IO_FLUSH, 1, 0, 0, 0);
}

static void test_status(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	begin("io opcode=0 after=2 times=3 status=0x281");
	for (unsigned i = 0; i < 8; i++) {
		CHECK_EQ(driver_run(&q, &sqe, &r), i >= 2 && i < 5 ? NVME_UNRECOVERED_READ : 0);
		CHECK_EQ(r.dnr, i >= 2 && i < 5);
	}
	driver_close(&d);
}

static void test_matches(void)
{
	struct nvme_sqe sqe = flush();
	void *page;

	begin("admin opcode=6 bytes=40:02/0f status=6 # lists\nqueue=2 status=6;cid=1 status=7\nnsid=9 status=2");
	CHECK_EQ(driver_identify(&d, 1, 0, &page), 0);
	CHECK_EQ(driver_identify(&d, 2, 0, &page), NVME_INTERNAL_ERROR);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_ABORT_REQUESTED);
	sqe.nsid = put32(9);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_FIELD);
	CHECK_EQ(nvme_set_script(d.c, NULL, NULL), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_NAMESPACE);
	driver_close(&d);
}

static void test_first_rule_counts(void)
{
	struct nvme_sqe sqe = flush();

	begin("io times=1 status=6; io status=7");
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INTERNAL_ERROR);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_ABORT_REQUESTED);
	driver_close(&d);
}

static void test_delay(void)
{
	struct nvme_sqe sqe = flush();
	uint64_t start;

	begin("io times=1 delay=50ms");
	start = wait_now();
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK(wait_now() - start >= 50000000);
	driver_close(&d);
}

/* A command that waits in a script is one that can be aborted, or ended by a reset. */
static void test_delay_can_be_aborted(void)
{
	struct nvme_sqe sqe = flush(), abort_sqe;
	struct driver_result r;
	uint16_t cid;

	begin("io delay=1000s");
	cid = driver_submit(&q, &sqe);
	driver_submit(&q, &sqe);
	driver_ring(&q);
	wait_sleep(5000000);
	abort_sqe = driver_admin_command(NVME_ADMIN_ABORT, 0, 0, 1 | (uint32_t)cid << 16, 0);
	CHECK_EQ(driver_run(&d.admin, &abort_sqe, &r), 0);
	CHECK_EQ(r.dw0 & 1, 0);
	CHECK(driver_wait(&q, &r));
	CHECK_EQ(r.cid, cid);
	CHECK_EQ(r.status, NVME_ABORT_REQUESTED);
	CHECK_EQ(driver_delete(&d, true, 1), 0);
	CHECK(driver_wait(&q, &r));
	CHECK_EQ(r.status, NVME_ABORT_SQ_DELETED);
	CHECK_EQ(driver_create_sq(&d, &q, 1, 16, 1), 0);
	driver_close(&d);
}

static void test_drop(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	begin("io times=1 drop");
	driver_submit(&q, &sqe);
	driver_ring(&q);
	wait_sleep(5000000);
	CHECK(!driver_poll(&q, &r));
	driver_submit(&q, &sqe);
	driver_ring(&q);
	CHECK(driver_wait(&q, &r));
	CHECK_EQ(r.cid, 1);
	driver_close(&d);
}

static void test_corrupt(void)
{
	struct nvme_sqe sqe = flush();
	struct driver_result r;

	begin("io corrupt=12:3412");
	driver_submit(&q, &sqe);
	driver_ring(&q);
	CHECK(driver_wait(&q, &r));
	CHECK_EQ(r.cid, 0x1234);
	CHECK_EQ(nvme_set_script(d.c, "io corrupt=0:0102030405", NULL), 0);
	CHECK_EQ(driver_run(&q, &sqe, &r), 0);
	CHECK_EQ(r.dw0, 0x04030201);
	CHECK_EQ(r.dw1, 5);
	driver_close(&d);
}

static void test_event(void)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);
	struct driver_result r;

	begin("event=2/0/4");
	driver_submit(&d.admin, &sqe);
	driver_ring(&d.admin);
	REQUIRE(driver_wait(&d.admin, &r));
	CHECK_EQ(r.dw0, UINT32_C(4) << 16 | 2);
	driver_close(&d);
}

static void test_stuck(void)
{
	begin("stuck");
	driver_write32(&d, NVME_REG_CC, 0);
	wait_sleep(10000000);
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
	CHECK_EQ(nvme_set_script(d.c, "", NULL), 0);
	CHECK(driver_wait_csts(&d, NVME_CSTS_RDY, 0));
	driver_close(&d);
}

static void test_what_is_no_script(void)
{
	static const struct {
		const char *text, *message;
	} bad[] = {
		{"io", "nvme script: rule 1 does nothing: it needs one of delay, status, drop, corrupt, event, stuck"},
		{"io drop; io fly", "nvme script: rule 2: there is no word 'fly'"},
		{"opcode=256 drop", "nvme script: rule 1: bad value for 'opcode'"},
		{"opcode drop", "nvme script: rule 1: bad value for 'opcode'"},
		{"opcode=-1 drop", "nvme script: rule 1: bad value for 'opcode'"},
		{"io=1 drop", "nvme script: rule 1: bad value for 'io'"},
		{"io drop=1", "nvme script: rule 1: bad value for 'drop'"},
		{"io delay=5h", "nvme script: rule 1: bad value for 'delay'"},
		{"io delay=99999999999999999999s", "nvme script: rule 1: bad value for 'delay'"},
		{"io status=0x800", "nvme script: rule 1: bad value for 'status'"},
		{"bytes=64:00 drop", "nvme script: rule 1: bad value for 'bytes'"},
		{"bytes=63:0000 drop", "nvme script: rule 1: bad value for 'bytes'"},
		{"bytes=1:0 drop", "nvme script: rule 1: bad value for 'bytes'"},
		{"bytes=1:00/0000 drop", "nvme script: rule 1: bad value for 'bytes'"},
		{"bytes=:00 drop", "nvme script: rule 1: bad value for 'bytes'"},
		{"io corrupt=16:00", "nvme script: rule 1: bad value for 'corrupt'"},
		{"io corrupt=15:0000", "nvme script: rule 1: bad value for 'corrupt'"},
		{"event=8/0/0", "nvme script: rule 1: bad value for 'event'"},
		{"event=1/2", "nvme script: rule 1: bad value for 'event'"},
	};
	struct nvme_sqe sqe = flush();

	begin("io status=6");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CLEANUP_ERROR struct error err = {0};
		CHECK_EQ(nvme_set_script(d.c, bad[i].text, &err), -EINVAL);
		CHECK_STR(error_text(&err), bad[i].message);
	}
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INTERNAL_ERROR); /* the old one stays */
	driver_close(&d);
}

int main(void)
{
	TAP_RUN(test_status);
	TAP_RUN(test_matches);
	TAP_RUN(test_first_rule_counts);
	TAP_RUN(test_delay);
	TAP_RUN(test_delay_can_be_aborted);
	TAP_RUN(test_drop);
	TAP_RUN(test_corrupt);
	TAP_RUN(test_event);
	TAP_RUN(test_stuck);
	TAP_RUN(test_what_is_no_script);
	return TAP_DONE();
}

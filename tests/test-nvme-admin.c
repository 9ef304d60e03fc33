/* SPDX-License-Identifier: BSD-3-Clause */
/* Admin commands: Identify, features, logs, events, Abort, Keep Alive, Format, Sanitize, Self-test. */
#include <stdlib.h>

#include "core/open.h"
#include "nvme/internal.h"
#include "tests/loops.h"
#include "tests/nvme-driver.h"
#include "tests/tap.h"
#include "tests/trap.h"

static struct driver d;
static struct driver_queue q;

static void begin(const char *spec)
{
	driver_open(&d, NULL, 2);
	if (spec)
		driver_add(&d, spec, NULL);
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 16), 0);
}

static uint16_t admin(uint8_t opcode, uint32_t nsid, uint32_t cdw10, uint32_t cdw11, struct driver_result *r)
{
	struct nvme_sqe sqe = driver_admin_command(opcode, nsid, 0, cdw10, cdw11);

	return driver_run(&d.admin, &sqe, r);
}

/* ------------------------------------------------------------------ identify */

static void test_identify_controller(void)
{
	struct nvme_id_controller *id;
	void *page;

	begin(NULL);
	CHECK_EQ(driver_identify(&d, 1, 0, &page), 0);
	id = page;
	CHECK_MEM(id->sn, "PLATTER0000001      ", 20);
	CHECK_EQ(get32(id->ver), 0x20000);
	CHECK_EQ(id->cntrltype, 1);
	CHECK_EQ(id->mdts, 8);
	CHECK_EQ(id->sqes, 0x66);
	CHECK_EQ(id->cqes, 0x44);
	CHECK_EQ(get32(id->nn), 1024);
	CHECK_EQ(get16(id->oacs), 0x112);
	CHECK_EQ(get16(id->oncs), 0x1ff);
	CHECK_EQ(id->vwc, 7);
	CHECK_STR(id->subnqn, "nqn.2014-08.org.nvmexpress:platter:PLATTER0000001");
	driver_close(&d);
}

static void test_identify_namespace(void)
{
	static const struct nvme_namespace_options options = {.eui64 = {1, 2, 3}, .uuid = {9}};
	struct nvme_id_namespace *id;
	uint8_t *bytes;
	void *page;

	begin(NULL);
	driver_add(&d, "mem:1M", &options);
	CHECK_EQ(driver_identify(&d, 0, 1, &page), 0);
	id = page;
	CHECK_EQ(get64(id->nsze), 2048);
	CHECK_EQ(get64(id->ncap), 2048);
	CHECK_EQ(id->nlbaf, 1);
	CHECK_EQ(id->flbas, 0);
	CHECK_EQ(id->lbaf[0].lbads, 9);
	CHECK_EQ(id->lbaf[1].lbads, 12);
	CHECK_EQ(id->dlfeat, 9);
	CHECK_EQ(id->nsfeat, 1 << 4 | 1 << 2);
	CHECK_EQ(get16(id->npdg), 4096 / 512 - 1);
	CHECK_EQ(id->nsattr, 0);
	CHECK_EQ(driver_identify(&d, 0, 2, &page), 0); /* not there: zeroes */
	CHECK_EQ(((uint8_t *)page)[0], 0);
	CHECK_EQ(driver_identify(&d, 0, 0, &page), NVME_INVALID_NAMESPACE);
	CHECK_EQ(driver_identify(&d, 0, 1025, &page), NVME_INVALID_NAMESPACE);
	CHECK_EQ(driver_identify(&d, 3, 1, &page), 0);
	bytes = page;
	CHECK_EQ(bytes[0], 1);
	CHECK_EQ(bytes[1], 8);
	CHECK_EQ(bytes[4], 1);
	CHECK_EQ(bytes[12], 3);
	CHECK_EQ(bytes[13], 16);
	CHECK_EQ(bytes[16], 9);
	CHECK_EQ(bytes[32], 4); /* command set NVM */
	CHECK_EQ(bytes[33], 1);
	CHECK_EQ(bytes[37], 0);
	driver_close(&d);
}

static void test_identify_lists(void)
{
	static const uint8_t lists[] = {0x02, 0x07, 0x10, 0x1a};
	void *page;

	begin("mem:1M");
	driver_add(&d, "mem:2M", NULL);
	for (unsigned i = 0; i < sizeof(lists); i++) {
		const struct le32 *ids;
		CHECK_EQ(driver_identify(&d, lists[i], 0, &page), 0);
		ids = page;
		CHECK_EQ(get32(ids[0]), 1);
		CHECK_EQ(get32(ids[1]), 2);
		CHECK_EQ(get32(ids[2]), 0);
		CHECK_EQ(driver_identify(&d, lists[i], 1, &page), 0);
		CHECK_EQ(get32(((struct le32 *)page)[0]), 2);
		CHECK_EQ(driver_identify(&d, lists[i], 0xfffffffe, &page), NVME_INVALID_NAMESPACE);
	}
	CHECK_EQ(driver_identify(&d, 0x13, 0, &page), 0);
	CHECK_EQ(get16(((struct le16 *)page)[0]), 1);
	driver_close(&d);
}

/* Of the controller that is asked for, in the upper half of CDW10. */
static uint16_t identify_of(uint8_t cns, uint16_t controller, void **page)
{
	uint64_t at = guest_alloc(&d.guest, GUEST_PAGE, GUEST_PAGE);
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_IDENTIFY, 0, at, (uint32_t)controller << 16 | cns, 0);

	*page = guest_at(&d.guest, at);
	return driver_run(&d.admin, &sqe, NULL);
}

static void test_identify_of_a_controller(void)
{
	const struct nvme_id_primary *primary;
	void *page;

	begin("mem:1M");
	CHECK_EQ(identify_of(0x14, 0, &page), 0);
	primary = page;
	CHECK_EQ(get16(primary->cntlid), 0);
	CHECK_EQ(primary->crt, 0); /* nothing that could be given to secondary controllers */
	CHECK_EQ(get16(primary->vqprt), 65);
	CHECK_EQ(get16(primary->viprt), 65);
	CHECK_EQ(identify_of(0x14, 1, &page), NVME_INVALID_FIELD);
	CHECK_EQ(identify_of(0x1c, 0xffff, &page), 0);
	CHECK_EQ(get64(((struct le64 *)page)[0]), 1);
	CHECK_EQ(get64(((struct le64 *)page)[1]), 0);
	CHECK_EQ(identify_of(0x1c, 0, &page), 0);
	CHECK_EQ(identify_of(0x1c, 1, &page), NVME_INVALID_FIELD);
	driver_close(&d);
}

static void test_identify_values_there_are(void)
{
	static const uint8_t known[] = {0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13, 0x14, 0x1a, 0x1b, 0x1c};
	bool is_known[256] = {false};
	void *page;

	begin("mem:1M");
	for (unsigned i = 0; i < sizeof(known); i++)
		is_known[known[i]] = true;
	for (unsigned i = 0; i < 256; i++) {
		uint64_t before = d.guest.next;
		if (!CHECK_EQ(driver_identify(&d, (uint8_t)i, 1, &page) == 0, is_known[i]))
			tap_diag("CNS 0x%x", i);
		d.guest.next = before;
	}
	driver_close(&d);
}

/* ------------------------------------------------------------------ features */

static void test_features_there_are(void)
{
	static const uint8_t known[] = {1, 2, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xf, 0x17, 0x82};
	bool is_known[256] = {false};
	uint32_t value;
	void *page;

	begin("mem:1M");
	for (unsigned i = 0; i < sizeof(known); i++)
		is_known[known[i]] = true;
	CHECK_EQ(driver_log(&d, NVME_LOG_FEATURES, 0, 1024, 0, false, &page), 0);
	for (unsigned fid = 0; fid < 256; fid++) {
		bool with_data = fid == 0xe || fid == 0x81, of_disk = fid == 0x83;
		uint32_t listed = get32(((struct le32 *)page)[fid]);
		CHECK_EQ(listed & 1, is_known[fid] || with_data || of_disk);
		if (with_data || of_disk)
			continue;
		CHECK_EQ(driver_get_feature(&d, (uint8_t)fid, 1, 0, &value) == 0, is_known[fid]);
		CHECK_EQ(driver_set_feature(&d, (uint8_t)fid, 0, 0) == NVME_INVALID_FIELD, !is_known[fid]);
	}
	driver_close(&d);
}

static void test_feature_round_trips(void)
{
	static const struct {
		uint8_t fid;
		uint32_t set, get;
	} cases[] = {
		{NVME_FEATURE_ARBITRATION, 0x01020304, 0x01020304}, {NVME_FEATURE_POWER, 0, 0},
		{NVME_FEATURE_TEMPERATURE, 400, 400},               {NVME_FEATURE_TEMPERATURE, 1u << 20 | 5, 1u << 20 | 5},
		{NVME_FEATURE_ERROR_RECOVERY, 0x1234, 0x1234},      {NVME_FEATURE_WRITE_CACHE, 0, 0},
		{NVME_FEATURE_WRITE_CACHE, 1, 1},                   {NVME_FEATURE_COALESCING, 0x0203, 0x0203},
		{NVME_FEATURE_ATOMICITY, 1, 1},                     {NVME_FEATURE_ASYNC_EVENTS, 0x100, 0x100},
		{NVME_FEATURE_KEEP_ALIVE, 100001, 100100},          {NVME_FEATURE_SANITIZE, 1, 1},
	};

	begin("mem:1M");
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t value = 0;
		CHECK_EQ(driver_set_feature(&d, cases[i].fid, 0, cases[i].set), 0);
		CHECK_EQ(driver_get_feature(&d, cases[i].fid, 0, cases[i].set, &value), 0);
		CHECK_EQ(value, cases[i].get);
	}
	driver_close(&d);
}

static void test_feature_errors(void)
{
	uint32_t value;

	begin("mem:1M");
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_POWER, 0, 1), NVME_INVALID_FIELD);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_TEMPERATURE, 0, 2 << 20), NVME_INVALID_FIELD);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_TEMPERATURE, 0, 1 << 16), NVME_INVALID_FIELD);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_QUEUES, 0, 0x30003), NVME_SEQUENCE_ERROR); /* there are some */
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_VECTOR, 0, 65), NVME_INVALID_FIELD);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ARBITRATION, 1, 0), NVME_FEATURE_NOT_PER_NAMESPACE);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ERROR_RECOVERY, 7, 0), NVME_INVALID_NAMESPACE);
	CHECK_EQ(driver_get_feature(&d, NVME_FEATURE_RESERVATION_MASK, 0, 0, &value), NVME_INVALID_NAMESPACE);
	CHECK_EQ(driver_get_feature(&d, NVME_FEATURE_RESERVATION_PERSISTENCE, 1, 0, &value), NVME_INVALID_FIELD);
	CHECK_EQ(admin(NVME_ADMIN_SET_FEATURES, 0, 1u << 31 | NVME_FEATURE_ARBITRATION, 0, NULL), NVME_FEATURE_NOT_SAVEABLE);
	driver_close(&d);
}

static void test_feature_select(void)
{
	struct driver_result r;

	begin("mem:1M");
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_TEMPERATURE, 0, 400), 0);
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, 1 << 8 | NVME_FEATURE_TEMPERATURE, 0, &r), 0);
	CHECK_EQ(r.dw0, 343);
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, 2 << 8 | NVME_FEATURE_TEMPERATURE, 0, &r), 0);
	CHECK_EQ(r.dw0, 343);
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, 3 << 8 | NVME_FEATURE_TEMPERATURE, 0, &r), 0);
	CHECK_EQ(r.dw0, 4);
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, 3 << 8 | NVME_FEATURE_ERROR_RECOVERY, 0, &r), 0);
	CHECK_EQ(r.dw0, 6);
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, 4 << 8 | NVME_FEATURE_TEMPERATURE, 0, &r), NVME_INVALID_FIELD);
	driver_close(&d);
}

static void test_number_of_queues(void)
{
	struct nvme_options three = {.queues = 3};
	struct driver_result r;

	driver_open(&d, &three, 1);
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(admin(NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_QUEUES, 0x00010063, &r), 0);
	CHECK_EQ(r.dw0, 0x00010002); /* two completion queues, and three submission queues, which is the most */
	CHECK_EQ(driver_create_cq(&d, &q, 3, 4, 1), NVME_QID_INVALID);
	CHECK_EQ(driver_create_cq(&d, &q, 2, 4, 1), 0);
	CHECK_EQ(admin(NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_QUEUES, 0xffff, &r), NVME_INVALID_FIELD);
	driver_close(&d);
}

static void test_timestamp(void)
{
	struct nvme_sqe sqe;
	uint64_t at;
	struct le64 *value;

	begin(NULL);
	at = guest_alloc(&d.guest, 4096, 4096);
	value = guest_at(&d.guest, at);
	*value = put64(UINT64_C(1700000000000));
	sqe = driver_admin_command(NVME_ADMIN_SET_FEATURES, 0, at, NVME_FEATURE_TIMESTAMP, 0);
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	wait_sleep(3000000);
	sqe.opcode = NVME_ADMIN_GET_FEATURES;
	CHECK_EQ(driver_run(&d.admin, &sqe, NULL), 0);
	CHECK((get64(*value) & 0xffffffffffff) >= UINT64_C(1700000000003));
	CHECK_EQ(value->byte[6], 2);
	driver_close(&d);
}

static void test_reset_sets_features_back(void)
{
	uint32_t value;

	begin("mem:1M");
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ARBITRATION, 0, 3), 0);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_WRITE_CACHE, 0, 0), 0);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ERROR_RECOVERY, 1, 1 << 16), 0);
	CHECK(driver_disable(&d));
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(driver_get_feature(&d, NVME_FEATURE_ARBITRATION, 0, 0, &value), 0);
	CHECK_EQ(value, 7); /* bursts have no limit */
	CHECK_EQ(driver_get_feature(&d, NVME_FEATURE_WRITE_CACHE, 0, 0, &value), 0);
	CHECK_EQ(value, 1);
	CHECK_EQ(driver_get_feature(&d, NVME_FEATURE_ERROR_RECOVERY, 1, 0, &value), 0);
	CHECK_EQ(value, 0);
	driver_close(&d);
}

/* ------------------------------------------------------------------ logs */

static void test_logs_there_are(void)
{
	static const uint8_t known[] = {0, 1, 2, 3, 4, 5, 6, 0x12, 0x80, 0x81};
	bool is_known[256] = {false};
	void *page, *list;

	begin("mem:1M");
	for (unsigned i = 0; i < sizeof(known); i++)
		is_known[known[i]] = true;
	CHECK_EQ(driver_log(&d, NVME_LOG_SUPPORTED, 0, 1024, 0, false, &list), 0);
	for (unsigned i = 0; i < 256; i++) {
		uint16_t status = driver_log(&d, (uint8_t)i, 0, 64, 0, true, &page);
		CHECK_EQ(status, is_known[i] ? 0 : NVME_LOG_PAGE_INVALID);
		CHECK_EQ(get32(((struct le32 *)list)[i]) & 1, is_known[i]);
	}
	driver_close(&d);
}

static void test_log_offsets(void)
{
	void *whole, *part;

	begin("mem:1M");
	CHECK_EQ(driver_log(&d, NVME_LOG_EFFECTS, 0, 4096, 0, false, &whole), 0);
	CHECK_EQ(get32(((struct le32 *)whole)[NVME_ADMIN_IDENTIFY]), 1);
	CHECK_EQ(get32(((struct le32 *)whole)[256 + NVME_IO_WRITE]), 3);
	CHECK_EQ(get32(((struct le32 *)whole)[256 + 0x10]), 0);
	CHECK_EQ(driver_log(&d, NVME_LOG_EFFECTS, 0, 64, 1024, false, &part), 0);
	CHECK_MEM(part, (char *)whole + 1024, 64);
	CHECK_EQ(((char *)part)[64], 0);
	memset(part, 0x55, 8192);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 8192, 508, false, &part), 0); /* 4 bytes are there */
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 4, 512, false, &part), 0);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 4, 516, false, &part), NVME_INVALID_FIELD);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 4, 2, false, &part), NVME_INVALID_FIELD);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 1, 512, 0, false, &part), NVME_INVALID_FIELD);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 1u << 30, 0, false, &part), 0); /* a length beyond all pages */
	driver_close(&d);
}

static void test_smart(void)
{
	struct nvme_sqe sqe;
	struct nvme_log_smart *log;
	void *page;
	uint64_t to;

	begin("mem:8M");
	to = guest_alloc(&d.guest, 4096, 4096);
	for (unsigned i = 0; i < 200; i++) {
		sqe = driver_rw(i % 2 ? NVME_IO_READ : NVME_IO_WRITE, 1, i, 8, to, 0);
		CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	}
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, NVME_NSID_ALL, 512, 0, false, &page), 0);
	log = page;
	CHECK_EQ(log->reads[0], 100);
	CHECK_EQ(log->writes[0], 100);
	CHECK_EQ(log->units_read[0], 1); /* thousands of 512 bytes, rounded up */
	CHECK_EQ(log->spare, 100);
	CHECK_EQ(get16(log->temperature), 303);
	CHECK_EQ(log->critical_warning, 0);
	CHECK_EQ(log->power_cycles[0], 1);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_TEMPERATURE, 0, 300), 0);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 512, 0, false, &page), 0);
	CHECK_EQ(((struct nvme_log_smart *)page)->critical_warning, 2);
	driver_close(&d);
}

static void test_error_log(void)
{
	struct nvme_sqe sqe;
	const struct nvme_log_error *log;
	void *page;

	begin("mem:1M");
	for (unsigned i = 0; i < 70; i++) {
		sqe = driver_rw(NVME_IO_READ, 1, 5000 + i, 1, GUEST_RAM, 0);
		CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_LBA_OUT_OF_RANGE);
	}
	CHECK_EQ(driver_log(&d, NVME_LOG_ERRORS, 0, 4096, 0, false, &page), 0);
	log = page;
	CHECK_EQ(get64(log[0].count), 70);
	CHECK_EQ(get64(log[0].lba), 5069);
	CHECK_EQ(get16(log[0].sqid), 1);
	CHECK_EQ(get16(log[0].cid), 69);
	CHECK_EQ(get16(log[0].status), 1 << 15 | NVME_LBA_OUT_OF_RANGE << 1);
	CHECK_EQ(get32(log[0].nsid), 1);
	CHECK_EQ(get64(log[63].count), 7);
	driver_close(&d);
}

/* ------------------------------------------------------------------ events */

static uint16_t request_event(void)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);
	uint16_t cid = driver_submit(&d.admin, &sqe);

	driver_ring(&d.admin);
	return cid;
}

static bool no_event(void)
{
	struct driver_result r;

	wait_sleep(3000000);
	return !driver_poll(&d.admin, &r);
}

#define NAMESPACE_EVENT (UINT32_C(4) << 16 | 2)

static void test_namespace_event(void)
{
	struct driver_result r;
	uint16_t cid;
	void *page;

	begin("mem:1M");
	cid = request_event();
	CHECK(no_event());
	driver_add(&d, "mem:1M", NULL);
	REQUIRE(driver_wait(&d.admin, &r));
	CHECK_EQ(r.cid, cid);
	CHECK_EQ(r.dw0, NAMESPACE_EVENT);
	request_event();
	CHECK_EQ(nvme_remove_namespace(d.c, 1, NULL), 0);
	CHECK(no_event()); /* not before the list has been read */
	CHECK_EQ(driver_log(&d, NVME_LOG_CHANGED_NAMESPACES, 0, 4096, 0, true, &page), 0);
	CHECK_EQ(get32(((struct le32 *)page)[0]), 2);
	CHECK_EQ(get32(((struct le32 *)page)[1]), 1);
	CHECK_EQ(driver_log(&d, NVME_LOG_CHANGED_NAMESPACES, 0, 4096, 0, false, &page), 0);
	CHECK_EQ(get32(((struct le32 *)page)[1]), 1); /* it was retained */
	CHECK_EQ(driver_log(&d, NVME_LOG_CHANGED_NAMESPACES, 0, 4096, 0, false, &page), 0);
	CHECK_EQ(get32(((struct le32 *)page)[0]), 0);
	driver_add(&d, "mem:1M", NULL);
	CHECK(driver_wait(&d.admin, &r));
	driver_close(&d);
}

static void test_event_that_is_switched_off(void)
{
	struct driver_result r;

	begin("mem:1M");
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_ASYNC_EVENTS, 0, 0), 0);
	request_event();
	driver_add(&d, "mem:1M", NULL);
	CHECK(no_event());
	{
		struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_SET_FEATURES, 0, 0, NVME_FEATURE_ASYNC_EVENTS, 0x100);
		uint32_t seen = 0;
		driver_submit(&d.admin, &sqe);
		driver_ring(&d.admin);
		for (unsigned i = 0; i < 2; i++) { /* the command's completion, and the event's */
			REQUIRE(driver_wait(&d.admin, &r));
			seen |= r.dw0;
		}
		CHECK_EQ(seen, NAMESPACE_EVENT);
	}
	driver_close(&d);
}

static void test_event_limit_and_abort(void)
{
	struct driver_result r;
	uint16_t cids[5];

	begin("mem:1M");
	for (unsigned i = 0; i < 5; i++)
		cids[i] = request_event();
	REQUIRE(driver_wait(&d.admin, &r));
	CHECK_EQ(r.cid, cids[4]);
	CHECK_EQ(r.status, NVME_ASYNC_LIMIT);
	{
		struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_ABORT, 0, 0, (uint32_t)cids[2] << 16, 0);
		unsigned aborted = 0;
		driver_submit(&d.admin, &sqe);
		driver_ring(&d.admin);
		for (unsigned i = 0; i < 2; i++) {
			REQUIRE(driver_wait(&d.admin, &r));
			if (r.cid == cids[2])
				aborted += r.status == NVME_ABORT_REQUESTED;
			else
				aborted += r.status == 0 && !(r.dw0 & 1);
		}
		CHECK_EQ(aborted, 2);
	}
	driver_add(&d, "mem:1M", NULL);
	REQUIRE(driver_wait(&d.admin, &r));
	CHECK_EQ(r.cid, cids[0]); /* the one that waited longest */
	driver_close(&d);
}

static void test_temperature_event(void)
{
	struct driver_result r;
	void *page;

	begin("mem:1M");
	request_event();
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_TEMPERATURE, 0, 300) || !driver_wait(&d.admin, &r), 0);
	CHECK_EQ(r.dw0, UINT32_C(2) << 16 | 1 << 8 | 1);
	CHECK_EQ(driver_log(&d, NVME_LOG_SMART, 0, 512, 0, false, &page), 0);
	driver_close(&d);
}

static void test_reset_forgets_requests(void)
{
	struct driver_result r;

	begin("mem:1M");
	request_event();
	request_event();
	CHECK(no_event());
	CHECK(driver_disable(&d));
	CHECK(driver_enable(&d, 16, 12));
	driver_add(&d, "mem:1M", NULL);
	CHECK(no_event());
	request_event();
	CHECK(driver_wait(&d.admin, &r));
	driver_close(&d);
}

/* ------------------------------------------------------------------ resizing */

static void test_resize_reaches_the_guest(void)
{
	struct driver_result r;
	struct trap *trap = trap_create(&(const struct trap_options){.flags = DISK_RESIZABLE});
	void *page;
	uint32_t nsid;

	begin(NULL);
	nsid = driver_add_disk(&d, &trap->disk, NULL);
	CHECK_EQ(driver_log(&d, NVME_LOG_CHANGED_NAMESPACES, 0, 4096, 0, false, &page), 0);
	request_event();
	CHECK(no_event());
	CHECK_EQ(disk_resize(&trap->disk, 3 << 20, &io_plain), 0);
	REQUIRE(driver_wait(&d.admin, &r));
	CHECK_EQ(r.dw0, NAMESPACE_EVENT);
	CHECK_EQ(driver_log(&d, NVME_LOG_CHANGED_NAMESPACES, 0, 4096, 0, false, &page), 0);
	CHECK_EQ(get32(((struct le32 *)page)[0]), nsid);
	CHECK_EQ(driver_identify(&d, 0, nsid, &page), 0);
	CHECK_EQ(get64(((struct nvme_id_namespace *)page)->nsze), 6144);
	driver_close(&d);
}

/* ------------------------------------------------------------------ namespaces */

static void test_adding_errors(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct trap *dvd = trap_create(&(const struct trap_options){.flags = DISK_REMOVABLE});
	struct trap *disk = trap_create(&(const struct trap_options){0});
	struct nvme_namespace_options odd = {.block_size = 1024};

	begin("mem:1M");
	CHECK_EQ(nvme_add_namespace(d.c, 0, &dvd->disk, NULL, NULL, &err), -EINVAL);
	CHECK_STR(error_text(&err), "dvd not supported with nvme");
	CHECK_EQ(nvme_add_namespace(d.c, 1, &disk->disk, NULL, NULL, &err), -EEXIST);
	CHECK_STR(error_text(&err), "nvme: namespace id conflict for 1");
	CHECK_EQ(nvme_add_namespace(d.c, 1025, &disk->disk, NULL, NULL, &err), -EINVAL);
	CHECK_STR(error_text(&err), "nvme: namespace id 1025 is out of range (must be 1..=1024)");
	CHECK_EQ(nvme_add_namespace(d.c, 0, &disk->disk, &odd, NULL, &err), -EINVAL);
	CHECK_EQ(nvme_remove_namespace(d.c, 7, &err), -ENOENT);
	CHECK_STR(error_text(&err), "nvme: namespace 7 not found");
	driver_close(&d);
	disk_close(&dvd->disk, NULL);
	disk_close(&disk->disk, NULL);
}

static void test_remove_waits_for_commands(void)
{
	struct nvme_sqe sqe;
	struct driver_result r;
	uint64_t to;

	begin("delay:50:mem:1M");
	to = guest_alloc(&d.guest, 4096, 4096);
	for (unsigned i = 0; i < 10; i++) {
		sqe = driver_rw(NVME_IO_READ, 1, i, 1, to, 0);
		driver_submit(&q, &sqe);
	}
	driver_ring(&q);
	wait_sleep(10000000);
	CHECK_EQ(nvme_remove_namespace(d.c, 1, NULL), 0);
	for (unsigned i = 0; i < 10; i++) {
		REQUIRE(driver_wait(&q, &r));
		CHECK(r.status == 0 || r.status == NVME_INVALID_NAMESPACE);
	}
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_INVALID_NAMESPACE);
	CHECK_EQ(driver_add(&d, "mem:1M", NULL), 1);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	driver_close(&d);
}

static void test_come_and_go(void)
{
	struct nvme_sqe sqe;
	struct driver_result r;
	uint64_t to;

	begin("mem:1M");
	to = guest_alloc(&d.guest, 4096, 4096);
	for (unsigned i = 0; i < rounds(60); i++) {
		sqe = driver_rw(NVME_IO_READ, 1 + i % 3, 0, 1, to, 0);
		for (unsigned j = 0; j < 10; j++)
			driver_submit(&q, &sqe);
		driver_ring(&q);
		nvme_remove_namespace(d.c, 1 + i % 3, NULL);
		driver_add(&d, "mem:1M", NULL);
		for (unsigned j = 0; j < 10; j++)
			REQUIRE(driver_wait(&q, &r));
	}
	driver_close(&d);
}

/* ------------------------------------------------------------------ abort */

/* And a little longer, so that it has begun. */
static void wait_until_fetched(void)
{
	struct nvme_counters counters = {0};

	for (unsigned i = 0; i < 5000 && !counters.in_flight; i++) {
		wait_sleep(1000000);
		nvme_counters(d.c, &counters);
	}
	wait_sleep(10000000);
}

static void test_abort(void)
{
	struct driver_result r, second;
	struct nvme_sqe sqe;
	uint16_t cid;

	begin("delay:100:mem:64M");
	/* a long one that goes step by step */
	sqe = driver_rw(NVME_IO_VERIFY, 1, 0, 65536, 0, 0);
	cid = driver_submit(&q, &sqe);
	driver_ring(&q);
	wait_sleep(10000000);
	CHECK_EQ(admin(NVME_ADMIN_ABORT, 0, 1 | (uint32_t)cid << 16, 0, &r), 0);
	CHECK_EQ(r.dw0 & 1, 0);
	CHECK(driver_wait(&q, &second));
	CHECK_EQ(second.status, NVME_ABORT_REQUESTED);
	/* one that is in the disk cannot be taken back */
	sqe = driver_rw(NVME_IO_READ, 1, 0, 1, guest_alloc(&d.guest, 4096, 4096), 0);
	cid = driver_submit(&q, &sqe);
	driver_ring(&q);
	wait_until_fetched();
	CHECK_EQ(admin(NVME_ADMIN_ABORT, 0, 1 | (uint32_t)cid << 16, 0, &r), 0);
	CHECK_EQ(r.dw0 & 1, 1);
	CHECK(driver_wait(&q, &second));
	CHECK_EQ(second.status, 0);
	CHECK_EQ(admin(NVME_ADMIN_ABORT, 0, 1 | 0x7777u << 16, 0, &r), 0);
	CHECK_EQ(r.dw0 & 1, 1);
	CHECK_EQ(admin(NVME_ADMIN_ABORT, 0, 9, 0, &r), NVME_INVALID_FIELD);
	driver_close(&d);
}

/* ------------------------------------------------------------------ keep alive */

static void test_keep_alive(void)
{
	void *page;

	begin("mem:1M");
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_KEEP_ALIVE, 0, 1), 0);
	CHECK_EQ(driver_set_feature(&d, NVME_FEATURE_KEEP_ALIVE, 0, 1000), 0);
	for (unsigned i = 0; i < 5; i++) {
		wait_sleep(300000000);
		CHECK_EQ(admin(NVME_ADMIN_KEEP_ALIVE, 0, 0, 0, NULL), 0);
	}
	CHECK_EQ(driver_read32(&d, NVME_REG_CSTS), NVME_CSTS_RDY);
	CHECK(driver_wait_csts(&d, NVME_CSTS_CFS, NVME_CSTS_CFS)); /* nothing comes any more */
	CHECK_EQ(driver_log(&d, NVME_LOG_ERRORS, 0, 64, 0, false, &page), 0);
	CHECK_EQ(get16(((struct nvme_log_error *)page)->status) >> 1 & 0xff, NVME_KEEP_ALIVE_EXPIRED);
	CHECK(driver_disable(&d));
	CHECK(driver_enable(&d, 16, 12));
	driver_close(&d);
}

/* ------------------------------------------------------------------ format, sanitize, self-test */

static void test_format(void)
{
	struct nvme_sqe sqe;
	void *page;
	uint64_t to;

	begin("mem:1M");
	to = guest_alloc(&d.guest, 4096, 4096);
	memset(guest_at(&d.guest, to), 7, 4096);
	sqe = driver_rw(NVME_IO_WRITE, 1, 100, 8, to, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, 1, 2, 0, NULL), NVME_FORMAT_INVALID);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, 1, 1 << 5, 0, NULL), NVME_FORMAT_INVALID);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, 1, 2 << 9, 0, NULL), NVME_INVALID_FIELD);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, 2, 0, 0, NULL), NVME_INVALID_NAMESPACE);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, 1, 1 | 1 << 9, 0, NULL), 0);
	CHECK_EQ(driver_identify(&d, 0, 1, &page), 0);
	CHECK_EQ(get64(((struct nvme_id_namespace *)page)->nsze), 256);
	CHECK_EQ(((struct nvme_id_namespace *)page)->flbas, 1);
	sqe = driver_rw(NVME_IO_READ, 1, 12, 1, to, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(*(char *)guest_at(&d.guest, to + 2048), 0);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, NVME_NSID_ALL, 0, 0, NULL), 0);
	CHECK_EQ(driver_identify(&d, 0, 1, &page), 0);
	CHECK_EQ(get64(((struct nvme_id_namespace *)page)->nsze), 2048);
	driver_close(&d);
}

static void test_format_in_progress(void)
{
	struct nvme_sqe sqe;
	struct driver_result r;

	begin("delay:500:mem:1M");
	sqe = driver_admin_command(NVME_ADMIN_FORMAT, 1, 0, 0, 0);
	driver_submit(&d.admin, &sqe);
	driver_ring(&d.admin);
	wait_sleep(20000000);
	sqe = driver_rw(NVME_IO_READ, 1, 0, 1, guest_alloc(&d.guest, 4096, 4096), 0);
	CHECK_EQ(driver_run(&q, &sqe, &r), NVME_FORMAT_IN_PROGRESS);
	CHECK(!r.dnr);
	CHECK(driver_wait(&d.admin, &r));
	CHECK_EQ(r.status, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	driver_close(&d);
}

static struct nvme_log_sanitize *sanitize_log(void)
{
	void *page;

	CHECK_EQ(driver_log(&d, NVME_LOG_SANITIZE, 0, 512, 0, false, &page), 0);
	return page;
}

static bool sanitized(unsigned state)
{
	uint64_t until = wait_now() + UINT64_C(10000000000);

	while ((get16(sanitize_log()->status) & 7) == NVME_SANITIZE_RUNNING && wait_now() < until)
		d.guest.next -= 2 * GUEST_PAGE;
	return (get16(sanitize_log()->status) & 7) == state;
}

static void test_sanitize(void)
{
	struct nvme_sqe sqe;
	uint64_t to;

	begin("delay:100:mem:1M");
	to = guest_alloc(&d.guest, 4096, 4096);
	CHECK_EQ(get16(sanitize_log()->status), 0);
	CHECK_EQ(get16(sanitize_log()->progress), 0xffff);
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 4, 0, NULL), NVME_INVALID_FIELD); /* no cryptographic erase */
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 3 | 2 << 4 | 1 << 8, 0x11223344, NULL), 0);
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 2, 0, NULL), NVME_SANITIZE_IN_PROGRESS);
	sqe = driver_rw(NVME_IO_READ, 1, 5, 1, to, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_SANITIZE_IN_PROGRESS);
	CHECK_EQ(admin(NVME_ADMIN_FORMAT, 1, 0, 0, NULL), NVME_SANITIZE_IN_PROGRESS);
	CHECK_EQ(get16(sanitize_log()->status) & 7, NVME_SANITIZE_RUNNING);
	/* a reset does not end it */
	CHECK(driver_disable(&d));
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(driver_create_pair(&d, &q, 1, 16), 0);
	CHECK(sanitized(NVME_SANITIZE_DONE));
	CHECK_EQ(get16(sanitize_log()->status) >> 3, 2);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(*(uint32_t *)guest_at(&d.guest, to), 0xeeddccbb); /* inverted in the second pass */
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 2, 0, NULL), 0);
	CHECK(sanitized(NVME_SANITIZE_DONE));
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(*(uint32_t *)guest_at(&d.guest, to), 0);
	driver_close(&d);
}

static void test_failed_sanitize(void)
{
	struct trap *trap = trap_create(&(const struct trap_options){0});
	struct nvme_sqe sqe;

	begin(NULL);
	driver_add_disk(&d, &trap->disk, NULL);
	trap_fail(trap, 1 << TRAP_ZEROES, 1, -EIO);
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 2, 0, NULL), 0);
	CHECK(sanitized(NVME_SANITIZE_FAILURE));
	sqe = driver_rw(NVME_IO_READ, 1, 5, 1, guest_alloc(&d.guest, 4096, 4096), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), NVME_SANITIZE_FAILED);
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 1, 0, NULL), NVME_SANITIZE_FAILED); /* it was restricted */
	trap_fail(trap, 1 << TRAP_ZEROES, 1, -EIO);
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 2 | 1 << 3, 0, NULL), 0);
	CHECK(sanitized(NVME_SANITIZE_FAILURE));
	CHECK_EQ(admin(NVME_ADMIN_SANITIZE, 0, 1, 0, NULL), 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	driver_close(&d);
}

static struct nvme_log_self_test *self_test_log(void)
{
	void *page;

	CHECK_EQ(driver_log(&d, NVME_LOG_SELF_TEST, 0, 564, 0, false, &page), 0);
	return page;
}

static unsigned self_test_ended(void)
{
	uint64_t until = wait_now() + UINT64_C(10000000000);

	while (self_test_log()->operation && wait_now() < until)
		d.guest.next -= 2 * GUEST_PAGE;
	return self_test_log()->results[0].status;
}

static void test_self_test(void)
{
	struct nvme_sqe sqe;

	begin("mem:8M");
	CHECK_EQ(self_test_log()->results[0].status, 0xf); /* nothing yet */
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 3, 0, NULL), NVME_INVALID_FIELD);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 9, 1, 0, NULL), NVME_INVALID_NAMESPACE);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 0, 1, 0, NULL), 0);
	CHECK_EQ(self_test_ended(), 0x10);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, NVME_NSID_ALL, 2, 0, NULL), 0);
	CHECK_EQ(self_test_ended(), 0x20);
	sqe = driver_rw(NVME_IO_WRITE_UNCORRECTABLE, 1, 5000, 1, 0, 0);
	CHECK_EQ(driver_run(&q, &sqe, NULL), 0);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 2, 0, NULL), 0);
	CHECK_EQ(self_test_ended(), 0x27);
	CHECK_EQ(get64(self_test_log()->results[0].lba), 5000);
	CHECK_EQ(get32(self_test_log()->results[0].nsid), 1);
	CHECK_EQ(self_test_log()->results[1].status, 0x20);
	driver_close(&d);
}

static void test_self_test_is_ended(void)
{
	begin("delay:20:mem:64M");
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 2, 0, NULL), 0);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 1, 0, NULL), NVME_SELF_TEST_IN_PROGRESS);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 15, 0, NULL), 0);
	CHECK_EQ(self_test_ended(), 0x21);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 1, 0, NULL), 0);
	CHECK(driver_disable(&d));
	CHECK(driver_enable(&d, 16, 12));
	CHECK_EQ(self_test_ended(), 0x12);
	CHECK_EQ(admin(NVME_ADMIN_SELF_TEST, 1, 2, 0, NULL), 0);
	driver_close(&d); /* while it runs */
}

static void test_unknown_admin_commands(void)
{
	static const uint8_t known[] = {0, 1, 2, 4, 5, 6, 8, 9, 0xa, 0xc, 0x14, 0x18, 0x7c, 0x80, 0x84};
	bool is_known[256] = {false};

	begin("mem:1M");
	for (unsigned i = 0; i < sizeof(known); i++)
		is_known[known[i]] = true;
	for (unsigned i = 0; i < 256; i++)
		if (i != NVME_ADMIN_ASYNC_EVENT)
			CHECK_EQ(admin((uint8_t)i, 0, 0, 0, NULL) == NVME_INVALID_OPCODE, !is_known[i]);
	driver_close(&d);
}

int main(void)
{
	TAP_RUN(test_identify_controller);
	TAP_RUN(test_identify_namespace);
	TAP_RUN(test_identify_lists);
	TAP_RUN(test_identify_of_a_controller);
	TAP_RUN(test_identify_values_there_are);
	TAP_RUN(test_features_there_are);
	TAP_RUN(test_feature_round_trips);
	TAP_RUN(test_feature_errors);
	TAP_RUN(test_feature_select);
	TAP_RUN(test_number_of_queues);
	TAP_RUN(test_timestamp);
	TAP_RUN(test_reset_sets_features_back);
	TAP_RUN(test_logs_there_are);
	TAP_RUN(test_log_offsets);
	TAP_RUN(test_smart);
	TAP_RUN(test_error_log);
	TAP_RUN(test_namespace_event);
	TAP_RUN(test_event_that_is_switched_off);
	TAP_RUN(test_event_limit_and_abort);
	TAP_RUN(test_temperature_event);
	TAP_RUN(test_reset_forgets_requests);
	TAP_RUN(test_resize_reaches_the_guest);
	TAP_RUN(test_adding_errors);
	TAP_RUN(test_remove_waits_for_commands);
	TAP_RUN(test_come_and_go);
	TAP_RUN(test_abort);
	TAP_RUN(test_keep_alive);
	TAP_RUN(test_format);
	TAP_RUN(test_format_in_progress);
	TAP_RUN(test_sanitize);
	TAP_RUN(test_failed_sanitize);
	TAP_RUN(test_self_test);
	TAP_RUN(test_self_test_is_ended);
	TAP_RUN(test_unknown_admin_commands);
	return TAP_DONE();
}

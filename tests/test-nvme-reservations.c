/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservations: two controllers, each with its host, over one disk. */
#include "core/open.h"
#include "tests/nvme-driver.h"
#include "tests/tap.h"

struct host {
	struct driver d;
	struct driver_queue q;
	uint64_t data;
};

static struct host a, b;

static void host_begin(struct host *h, struct disk *disk, uint16_t id)
{
	driver_open(&h->d, &(const struct nvme_options){.controller_id = id}, 1);
	driver_add_disk(&h->d, disk, NULL);
	CHECK(driver_enable(&h->d, 16, 12));
	CHECK_EQ(driver_create_pair(&h->d, &h->q, 1, 16), 0);
	h->data = guest_alloc(&h->d.guest, 8192, 4096);
}

static void begin(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *disk;

	if (disk_open(spec, 0, &disk, &err)) {
		printf("Bail out! %s\n", error_text(&err));
		exit(99);
	}
	host_begin(&a, disk, 1);
	host_begin(&b, disk_ref(disk), 2);
}

static void end(void)
{
	driver_close(&a.d);
	driver_close(&b.d);
}

static uint16_t set_id(struct host *h, uint8_t id, bool wide)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_SET_FEATURES, 0, h->data, NVME_FEATURE_HOST_ID, wide);

	memset(guest_at(&h->d.guest, h->data), id, 16);
	return driver_run(&h->d.admin, &sqe, NULL);
}

static uint16_t command(struct host *h, uint8_t opcode, uint32_t cdw10, uint64_t key, uint64_t other)
{
	struct nvme_sqe sqe = driver_admin_command(opcode, 1, h->data, cdw10, 0);
	struct nvme_reservation_keys *keys = guest_at(&h->d.guest, h->data);

	keys->current = put64(key);
	keys->other = put64(other);
	return driver_run(&h->q, &sqe, NULL);
}

static uint16_t reg(struct host *h, uint32_t action, uint64_t key, uint64_t new_key)
{
	return command(h, NVME_IO_RESERVATION_REGISTER, action, key, new_key);
}

static uint16_t acquire(struct host *h, uint32_t action, unsigned type, uint64_t key, uint64_t other)
{
	return command(h, NVME_IO_RESERVATION_ACQUIRE, action | type << 8, key, other);
}

static uint16_t release(struct host *h, uint32_t action, unsigned type, uint64_t key)
{
	return command(h, NVME_IO_RESERVATION_RELEASE, action | type << 8, key, 0);
}

static uint16_t io(struct host *h, uint8_t opcode)
{
	struct nvme_sqe sqe = driver_rw(opcode, 1, 0, 1, h->data + 4096, 0);

	return driver_run(&h->q, &sqe, NULL);
}

static uint16_t report(struct host *h, bool extended, unsigned size, void **page)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_IO_RESERVATION_REPORT, 1, h->data, size / 4 - 1, extended);

	*page = guest_at(&h->d.guest, h->data);
	memset(*page, 0x55, 4096);
	return driver_run(&h->q, &sqe, NULL);
}

/* ------------------------------------------------------------------ tests */

static void test_without_reservations(void)
{
	void *page;

	begin("mem:1M");
	CHECK_EQ(reg(&a, 0, 0, 1), NVME_INVALID_OPCODE);
	CHECK_EQ(acquire(&a, 0, 1, 1, 0), NVME_INVALID_OPCODE);
	CHECK_EQ(release(&a, 0, 1, 1), NVME_INVALID_OPCODE);
	CHECK_EQ(report(&a, false, 64, &page), NVME_INVALID_OPCODE);
	CHECK_EQ(driver_identify(&a.d, 0, 1, &page), 0);
	CHECK_EQ(((struct nvme_id_namespace *)page)->rescap, 0);
	end();
}

static void test_capabilities(void)
{
	void *page;

	begin("prwrap:mem:1M");
	CHECK_EQ(driver_identify(&a.d, 0, 1, &page), 0);
	CHECK_EQ(((struct nvme_id_namespace *)page)->rescap, 0xfe);
	end();
}

static void test_life(void)
{
	begin("prwrap:mem:1M");
	CHECK_EQ(set_id(&a, 1, true), 0);
	CHECK_EQ(set_id(&b, 2, true), 0);
	CHECK_EQ(acquire(&a, 0, 1, 0x11, 0), NVME_RESERVATION_CONFLICT); /* not registered */
	CHECK_EQ(reg(&a, 0, 0, 0x11), 0);
	CHECK_EQ(reg(&a, 0, 0, 0x12), NVME_RESERVATION_CONFLICT); /* registered with another key */
	CHECK_EQ(reg(&a, 2, 0x11, 0x12), 0);
	CHECK_EQ(reg(&b, 0, 0, 0x22), 0);
	CHECK_EQ(acquire(&a, 0, 1, 0x12, 0), 0); /* write exclusive */
	CHECK_EQ(io(&a, NVME_IO_WRITE), 0);
	CHECK_EQ(io(&b, NVME_IO_WRITE), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(io(&b, NVME_IO_WRITE_ZEROES), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(io(&b, NVME_IO_WRITE_UNCORRECTABLE), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(io(&b, NVME_IO_READ), 0);
	CHECK_EQ(acquire(&b, 0, 1, 0x22, 0), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(release(&a, 0, 2, 0x12), NVME_INVALID_FIELD); /* of another type */
	CHECK_EQ(release(&a, 0, 1, 0x12), 0);
	CHECK_EQ(io(&b, NVME_IO_WRITE), 0);
	CHECK_EQ(acquire(&b, 0, 2, 0x22, 0), 0); /* exclusive access */
	CHECK_EQ(io(&a, NVME_IO_READ), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(io(&a, NVME_IO_COMPARE), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(acquire(&a, 1, 2, 0x12, 0x22), 0); /* preempt */
	CHECK_EQ(io(&a, NVME_IO_READ), 0);
	CHECK_EQ(io(&b, NVME_IO_READ), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(reg(&a, 1, 0x12, 0), 0);
	CHECK_EQ(io(&b, NVME_IO_READ), 0);
	end();
}

static void test_fields(void)
{
	begin("prwrap:mem:1M");
	CHECK_EQ(reg(&a, 0, 0, 0), NVME_INVALID_FIELD);
	CHECK_EQ(reg(&a, 3, 0, 1), NVME_INVALID_FIELD);
	CHECK_EQ(reg(&a, 1u << 30, 0, 1), NVME_INVALID_FIELD);
	CHECK_EQ(reg(&a, 0, 0, 1), 0);
	CHECK_EQ(reg(&a, 1, 0, 0), NVME_RESERVATION_CONFLICT);
	CHECK_EQ(acquire(&a, 3, 1, 1, 0), NVME_INVALID_FIELD);
	CHECK_EQ(acquire(&a, 0, 0, 1, 0), NVME_INVALID_FIELD);
	CHECK_EQ(acquire(&a, 0, 7, 1, 0), NVME_INVALID_FIELD);
	CHECK_EQ(acquire(&a, 8, 1, 1, 0), NVME_INVALID_FIELD); /* IEKEY */
	CHECK_EQ(release(&a, 2, 1, 1), NVME_INVALID_FIELD);
	CHECK_EQ(release(&a, 8, 1, 1), NVME_INVALID_FIELD);
	CHECK_EQ(reg(&a, 1 | 8, 0, 0), 0); /* unregisters, whatever the key */
	CHECK_EQ(acquire(&a, 0, 1, 1, 0), NVME_RESERVATION_CONFLICT);
	end();
}

static void test_report(void)
{
	struct nvme_reservation_status *s;
	struct nvme_registrant_extended *e;
	void *page;

	begin("prwrap:mem:1M");
	CHECK_EQ(set_id(&a, 1, true), 0);
	CHECK_EQ(set_id(&b, 2, false), 0);
	CHECK_EQ(reg(&a, 0, 0, 0x11), 0);
	CHECK_EQ(reg(&b, 0, 0, 0x22), 0);
	CHECK_EQ(acquire(&a, 0, 5, 0x11, 0), 0);
	CHECK_EQ(report(&a, false, 4096, &page), NVME_HOST_ID_INCONSISTENT);
	CHECK_EQ(report(&b, true, 4096, &page), NVME_HOST_ID_INCONSISTENT);
	CHECK_EQ(report(&a, true, 4096, &page), 0);
	s = page;
	CHECK_EQ(get32(s->generation), 2);
	CHECK_EQ(s->type, 5);
	CHECK_EQ(get16(s->registrants), 2);
	CHECK_EQ(s->ptpls, 0);
	e = (struct nvme_registrant_extended *)((char *)page + 64);
	CHECK_EQ(get16(e[0].cntlid), 1);
	CHECK_EQ(e[0].holds, 1);
	CHECK_EQ(get64(e[0].key), 0x11);
	CHECK_EQ(e[0].hostid[15], 1);
	CHECK_EQ(get16(e[1].cntlid), 0xffff); /* another controller's */
	CHECK_EQ(get64(e[1].key), 0x22);
	CHECK_EQ(((uint8_t *)page)[64 + 128], 0x55);
	/* a buffer that is too small gets the beginning */
	CHECK_EQ(report(&b, false, 28, &page), 0);
	CHECK_EQ(get16(((struct nvme_reservation_status *)page)->registrants), 2);
	CHECK_EQ(((uint8_t *)page)[28], 0x55);
	end();
}

static void test_host_id_stays(void)
{
	begin("prwrap:mem:1M");
	CHECK_EQ(set_id(&a, 0, true), 0);
	CHECK_EQ(set_id(&a, 5, true), 0);
	CHECK_EQ(set_id(&a, 5, true), 0);
	CHECK_EQ(set_id(&a, 6, true), NVME_SEQUENCE_ERROR);
	CHECK(driver_disable(&a.d));
	CHECK(driver_enable(&a.d, 16, 12));
	CHECK_EQ(set_id(&a, 6, true), 0);
	end();
}

/* Registrations are the host's, and are there after a reset; those of a host without a name are not. */
static void test_reset(void)
{
	void *page;

	begin("prwrap:mem:1M");
	CHECK_EQ(set_id(&a, 1, true), 0);
	CHECK_EQ(reg(&a, 0, 0, 0x11), 0);
	CHECK_EQ(reg(&b, 0, 0, 0x22), 0); /* nameless */
	CHECK_EQ(acquire(&b, 0, 2, 0x22, 0), 0);
	CHECK_EQ(io(&a, NVME_IO_READ), NVME_RESERVATION_CONFLICT);
	CHECK(driver_disable(&b.d));
	CHECK_EQ(io(&a, NVME_IO_READ), 0);
	CHECK_EQ(report(&a, true, 4096, &page), 0);
	CHECK_EQ(get16(((struct nvme_reservation_status *)page)->registrants), 1);
	CHECK(driver_disable(&a.d));
	CHECK(driver_enable(&a.d, 16, 12));
	CHECK_EQ(driver_create_pair(&a.d, &a.q, 1, 16), 0);
	CHECK_EQ(report(&a, true, 4096, &page), 0);
	CHECK_EQ(get16(((struct nvme_reservation_status *)page)->registrants), 1);
	end();
}

static void request_event(struct host *h)
{
	struct nvme_sqe sqe = driver_admin_command(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0);

	driver_submit(&h->d.admin, &sqe);
	driver_ring(&h->d.admin);
}

static void test_notifications(void)
{
	const struct nvme_log_reservation *log;
	struct driver_result r;
	void *page;

	begin("prwrap:mem:1M");
	CHECK_EQ(set_id(&a, 1, true), 0);
	CHECK_EQ(set_id(&b, 2, true), 0);
	CHECK_EQ(reg(&a, 0, 0, 0x11), 0);
	CHECK_EQ(reg(&b, 0, 0, 0x22), 0);
	CHECK_EQ(acquire(&b, 0, 1, 0x22, 0), 0);
	request_event(&b);
	CHECK_EQ(acquire(&a, 1, 1, 0x11, 0x22), 0);
	REQUIRE(driver_wait(&b.d.admin, &r));
	CHECK_EQ(r.dw0, UINT32_C(0x80) << 16 | 6);
	CHECK_EQ(driver_log(&b.d, NVME_LOG_RESERVATION, 0, 64, 0, true, &page), 0);
	CHECK_EQ(driver_log(&b.d, NVME_LOG_RESERVATION, 0, 64, 0, false, &page), 0);
	log = page;
	CHECK_EQ(log->type, 1); /* its registration was preempted */
	CHECK_EQ(get32(log->nsid), 1);
	CHECK_EQ(get64(log->count), 1);
	CHECK_EQ(log->available, 0);
	CHECK_EQ(driver_log(&b.d, NVME_LOG_RESERVATION, 0, 64, 0, false, &page), 0);
	CHECK_EQ(((struct nvme_log_reservation *)page)->type, 0);
	/* masked */
	CHECK_EQ(reg(&b, 0, 0, 0x22), 0);
	CHECK_EQ(driver_set_feature(&b.d, NVME_FEATURE_RESERVATION_MASK, 1, 1 << 3), 0);
	CHECK_EQ(release(&a, 1, 0, 0x11), 0); /* clear */
	CHECK_EQ(driver_log(&b.d, NVME_LOG_RESERVATION, 0, 64, 0, false, &page), 0);
	CHECK_EQ(((struct nvme_log_reservation *)page)->type, 0);
	end();
}

static void test_persistence(void)
{
	char spec[700];
	uint32_t value;
	void *page;

	snprintf(spec, sizeof(spec), "prwrap;persist=%s:mem:1M", tmppath("reservations"));
	begin(spec);
	CHECK_EQ(set_id(&a, 1, true), 0);
	CHECK_EQ(driver_identify(&a.d, 0, 1, &page), 0);
	CHECK_EQ(((struct nvme_id_namespace *)page)->rescap, 0xff);
	CHECK_EQ(driver_set_feature(&a.d, NVME_FEATURE_RESERVATION_PERSISTENCE, 1, 1), NVME_FEATURE_NOT_CHANGEABLE);
	CHECK_EQ(reg(&a, 0, 0, 0x11), 0);
	CHECK_EQ(driver_get_feature(&a.d, NVME_FEATURE_RESERVATION_PERSISTENCE, 1, 0, &value), 0);
	CHECK_EQ(value, 0);
	CHECK_EQ(driver_set_feature(&a.d, NVME_FEATURE_RESERVATION_PERSISTENCE, 1, 1), 0);
	CHECK_EQ(driver_get_feature(&a.d, NVME_FEATURE_RESERVATION_PERSISTENCE, 1, 0, &value), 0);
	CHECK_EQ(value, 1);
	CHECK_EQ(reg(&a, 2u << 30 | 2, 0x11, 0x12), 0);
	CHECK_EQ(driver_get_feature(&a.d, NVME_FEATURE_RESERVATION_PERSISTENCE, 1, 0, &value), 0);
	CHECK_EQ(value, 0);
	end();
}

int main(void)
{
	TAP_RUN(test_without_reservations);
	TAP_RUN(test_capabilities);
	TAP_RUN(test_life);
	TAP_RUN(test_fields);
	TAP_RUN(test_report);
	TAP_RUN(test_host_id_stays);
	TAP_RUN(test_reset);
	TAP_RUN(test_notifications);
	TAP_RUN(test_persistence);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Get Log Page (Base 5.16). A page is made as a whole, as it is at the moment; the part that the host asked for is sent. Nothing
 * is sent beyond a page's end.
 */
#include <stdlib.h>
#include <string.h>

#include "nvme/data.h"
#include "nvme/internal.h"

#define PAGE_BYTES 4096u
#define CDW10_RETAIN (UINT32_C(1) << 15)

/* A page being made, all zero before; 4 KiB. Pages that belong to events are cleared here, unless the host wants them retained. */
typedef void page_function(struct nvme *c, uint8_t *page, bool retain);

static void put128(uint8_t *to, uint64_t value)
{
	struct le64 low = put64(value);

	memcpy(to, &low, sizeof(low));
}

/* ------------------------------------------------------------------ what is there */

static void fill_supported(struct nvme *c, uint8_t *page, bool retain);

static void fill_effects(struct nvme *c, uint8_t *page, bool retain)
{
	struct le32 *list = (struct le32 *)page;

	(void)c;
	(void)retain;
	for (unsigned i = 0; i < 256; i++) {
		list[i] = put32(nvme_command_effects(true, (uint8_t)i));
		list[256 + i] = put32(nvme_command_effects(false, (uint8_t)i));
	}
}

static void fill_features(struct nvme *c, uint8_t *page, bool retain)
{
	struct le32 *list = (struct le32 *)page;

	(void)c;
	(void)retain;
	for (unsigned i = 0; i < 256; i++)
		list[i] = put32(nvme_feature_effects(i));
}

static void fill_firmware(struct nvme *c, uint8_t *page, bool retain)
{
	(void)c;
	(void)retain;
	page[0] = 1; /* slot 1 is active */
	memcpy(page + 8, "1.0     ", 8);
}

/* ------------------------------------------------------------------ what happened */

/* Newest first. */
static void fill_errors(struct nvme *c, uint8_t *page, bool retain)
{
	struct nvme_log_error *list = (struct nvme_log_error *)page;

	short_lock_exclusive(&c->log_lock);
	for (uint64_t i = 0; i < NVME_ERROR_ENTRIES && i < c->nr_errors; i++)
		list[i] = c->errors[(c->nr_errors - 1 - i) % NVME_ERROR_ENTRIES];
	if (!retain)
		nvme_event_clear(c, NVME_LOG_ERRORS);
	short_unlock_exclusive(&c->log_lock);
}

static void fill_changed(struct nvme *c, uint8_t *page, bool retain)
{
	struct le32 *list = (struct le32 *)page;

	short_lock_exclusive(&c->log_lock);
	for (uint32_t i = 0; i < c->nr_changed; i++)
		list[i] = put32(c->changed[i]);
	if (!retain) {
		c->nr_changed = 0;
		nvme_event_clear(c, NVME_LOG_CHANGED_NAMESPACES);
	}
	short_unlock_exclusive(&c->log_lock);
}

/* The oldest notification, which is gone with that; the next one is told of anew. */
static void fill_reservation(struct nvme *c, uint8_t *page, bool retain)
{
	struct nvme_log_reservation *log = (struct nvme_log_reservation *)page;
	bool more = false;

	short_lock_exclusive(&c->log_lock);
	if (c->nr_reservations) {
		*log = c->reservations[c->first_reservation];
		log->available = (uint8_t)(c->nr_reservations - 1);
	}
	if (!retain && c->nr_reservations) {
		c->first_reservation = (c->first_reservation + 1) % NVME_RESERVATION_ENTRIES;
		c->nr_reservations--;
	}
	if (!retain) {
		nvme_event_clear(c, NVME_LOG_RESERVATION);
		more = c->nr_reservations;
	}
	short_unlock_exclusive(&c->log_lock);
	if (more)
		nvme_event(c, NVME_EVENT_RESERVATION);
}

static void fill_sanitize(struct nvme *c, uint8_t *page, bool retain)
{
	nvme_sanitize_log(c, (struct nvme_log_sanitize *)page);
	if (retain)
		return;
	short_lock_exclusive(&c->log_lock);
	nvme_event_clear(c, NVME_LOG_SANITIZE);
	short_unlock_exclusive(&c->log_lock);
}

static void fill_self_test(struct nvme *c, uint8_t *page, bool retain)
{
	(void)retain;
	short_lock_shared(&c->log_lock);
	memcpy(page, &c->self_test, sizeof(c->self_test));
	short_unlock_shared(&c->log_lock);
}

/* ------------------------------------------------------------------ SMART */

struct sums {
	uint64_t reads, writes, units_read, units_written;
};

static struct sums sum_lanes(struct nvme *c)
{
	struct sums s = {0};

	for (unsigned i = 0; i < c->nr_lanes; i++) {
		s.reads += atomic_load_explicit(&c->lanes[i].reads, memory_order_relaxed);
		s.writes += atomic_load_explicit(&c->lanes[i].writes, memory_order_relaxed);
		s.units_read += atomic_load_explicit(&c->lanes[i].units_read, memory_order_relaxed);
		s.units_written += atomic_load_explicit(&c->lanes[i].units_written, memory_order_relaxed);
	}
	return s;
}

static uint64_t busy_minutes(struct nvme *c)
{
	uint64_t ns = atomic_load(&c->busy_ns);

	if (atomic_load(&c->busy_lanes))
		ns += wait_now() - atomic_load(&c->busy_since);
	return ns / UINT64_C(60000000000);
}

static void fill_smart(struct nvme *c, uint8_t *page, bool retain)
{
	struct nvme_log_smart *log = (struct nvme_log_smart *)page;
	struct sums s = sum_lanes(c);

	log->critical_warning = nvme_temperature_warns(c) ? 1u << 1 : 0;
	log->temperature = put16(c->temperature);
	log->spare = 100;
	log->spare_threshold = 10;
	put128(log->units_read, (s.units_read + 999) / 1000);
	put128(log->units_written, (s.units_written + 999) / 1000);
	put128(log->reads, s.reads);
	put128(log->writes, s.writes);
	put128(log->busy_minutes, busy_minutes(c));
	put128(log->power_cycles, atomic_load(&c->power_cycles));
	put128(log->power_on_hours, nvme_power_on_hours(c));
	put128(log->unsafe_shutdowns, atomic_load(&c->unsafe_shutdowns));
	put128(log->media_errors, atomic_load(&c->media_errors));
	short_lock_exclusive(&c->log_lock);
	put128(log->error_entries, c->nr_errors);
	if (!retain)
		nvme_event_clear(c, NVME_LOG_SMART);
	short_unlock_exclusive(&c->log_lock);
}

uint64_t nvme_power_on_hours(const struct nvme *c)
{
	return (wait_now() - c->born_ns) / UINT64_C(3600000000000);
}

/* ------------------------------------------------------------------ the command */

static const struct {
	page_function *fill;
	uint16_t size;
} pages[256] = {
	[NVME_LOG_SUPPORTED] = {fill_supported, 1024},
	[NVME_LOG_ERRORS] = {fill_errors, NVME_ERROR_ENTRIES * sizeof(struct nvme_log_error)},
	[NVME_LOG_SMART] = {fill_smart, sizeof(struct nvme_log_smart)},
	[NVME_LOG_FIRMWARE] = {fill_firmware, 512},
	[NVME_LOG_CHANGED_NAMESPACES] = {fill_changed, 4096},
	[NVME_LOG_EFFECTS] = {fill_effects, 4096},
	[NVME_LOG_SELF_TEST] = {fill_self_test, sizeof(struct nvme_log_self_test)},
	[NVME_LOG_FEATURES] = {fill_features, 1024},
	[NVME_LOG_RESERVATION] = {fill_reservation, sizeof(struct nvme_log_reservation)},
	[NVME_LOG_SANITIZE] = {fill_sanitize, sizeof(struct nvme_log_sanitize)},
};

static void fill_supported(struct nvme *c, uint8_t *page, bool retain)
{
	struct le32 *list = (struct le32 *)page;

	(void)c;
	(void)retain;
	for (unsigned i = 0; i < 256; i++)
		list[i] = put32(pages[i].fill ? 1 : 0);
}

/* SMART of one namespace there is not (LPA bit 0); the others are the controller's whatever the namespace. */
static uint16_t check_page(struct nvme_command *cmd, uint8_t lid)
{
	uint32_t nsid = nvme_nsid(cmd);

	if (!pages[lid].fill)
		return nvme_fail_field(cmd, NVME_LOG_PAGE_INVALID, 40, 0);
	if (lid == NVME_LOG_SMART && nsid && nsid != NVME_NSID_ALL)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 4, 0);
	return NVME_OK;
}

uint16_t nvme_admin_get_log(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint8_t lid = (uint8_t)nvme_cdw10(cmd), page[PAGE_BYTES] = {0};
	uint64_t dwords = (nvme_cdw10(cmd) >> 16 | (uint64_t)(nvme_cdw11(cmd) & 0xffff) << 16) + 1;
	uint64_t offset = get32(cmd->sqe.cdw12) | (uint64_t)get32(cmd->sqe.cdw13) << 32;
	uint64_t length = dwords * 4;
	uint16_t status = check_page(cmd, lid);

	(void)n;
	if (status)
		return status;
	if (offset & 3 || offset > pages[lid].size || get32(cmd->sqe.cdw14) >> 23 & 1)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 48, 0);
	if (length > pages[lid].size - offset)
		length = pages[lid].size - offset;
	pages[lid].fill(cmd->c, page, nvme_cdw10(cmd) & CDW10_RETAIN);
	return nvme_data_send(cmd, page + offset, length);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Features (Base 5.14, 5.27): a table of which there are, what each can do, and what carries out a get and a set. Nothing is saved: a
 * controller of ours lives as long as its process, and what lasts is its owner's configuration.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nvme/data.h"
#include "nvme/internal.h"

enum capability { /* as Get Features tells with SEL 3 */
	PER_NAMESPACE = 1 << 1,
	CHANGEABLE = 1 << 2,
};

enum select { CURRENT, DEFAULT, SAVED, SUPPORTED };

#define CDW10_SAVE (UINT32_C(1) << 31)
#define ARBITRATION_DEFAULT 7u /* bursts have no limit: all that is new in a queue is fetched at once */
#define COMPOSITE_OVER 343u
#define ASYNC_DEFAULT 0x11fu
#define RESERVATION_MASK_BITS 0xeu

enum { AT_CDW11 = 44 };

typedef uint16_t feature_function(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n);

static uint16_t bad_field(struct nvme_command *cmd)
{
	return nvme_fail_field(cmd, NVME_INVALID_FIELD, AT_CDW11, 0);
}

/* ------------------------------------------------------------------ plain numbers */

#define PLAIN(name, field)                                                                                   \
	static uint16_t get_##name(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)       \
	{                                                                                                    \
		(void)n;                                                                                     \
		cmd->result = c->settings.field;                                                             \
		return NVME_OK;                                                                              \
	}

#define PLAIN_SET(name, field)                                                                               \
	PLAIN(name, field)                                                                                   \
	static uint16_t set_##name(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)       \
	{                                                                                                    \
		(void)n;                                                                                     \
		c->settings.field = nvme_cdw11(cmd);                                                         \
		return NVME_OK;                                                                              \
	}

PLAIN_SET(arbitration, arbitration)
PLAIN_SET(atomicity, atomicity)
PLAIN(power, power)
PLAIN(coalescing, coalescing)
PLAIN(async_events, async_events)
PLAIN(queues, queues)
PLAIN(sanitize, no_deallocate_response)

/* There is one power state. */
static uint16_t set_power(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)n;
	if (nvme_cdw11(cmd) & 0x1f)
		return bad_field(cmd);
	c->settings.power = nvme_cdw11(cmd) & 0xff;
	return NVME_OK;
}

static uint16_t set_coalescing(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)n;
	c->settings.coalescing = nvme_cdw11(cmd) & 0xffff;
	atomic_store(&c->coalescing, c->settings.coalescing);
	return NVME_OK;
}

static uint16_t set_async_events(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)n;
	c->settings.async_events = nvme_cdw11(cmd);
	wait_signal_raise(&c->events_changed); /* what was held back may be told now */
	return NVME_OK;
}

static uint16_t set_sanitize(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)n;
	c->settings.no_deallocate_response = nvme_cdw11(cmd) & 1;
	return NVME_OK;
}

/* ------------------------------------------------------------------ write cache */

static uint16_t get_write_cache(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)n;
	cmd->result = !atomic_load(&c->write_through);
	return NVME_OK;
}

/* Off: every write is durable before it is answered. What was written before is flushed now. */
static uint16_t set_write_cache(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	bool off = !(nvme_cdw11(cmd) & 1), was_off = atomic_exchange(&c->write_through, off);

	(void)n;
	if (off && !was_off)
		nvme_namespaces_flush(c);
	return NVME_OK;
}

/* ------------------------------------------------------------------ queues and vectors */

static uint16_t set_queues(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint32_t sqs = nvme_cdw11(cmd) & 0xffff, cqs = nvme_cdw11(cmd) >> 16, most = c->max_queues - 1;

	(void)n;
	if (sqs == 0xffff || cqs == 0xffff)
		return bad_field(cmd);
	for (unsigned i = 1; i <= NVME_MAX_QUEUES; i++)
		if (c->sqs[i] || c->cqs[i])
			return NVME_SEQUENCE_ERROR;
	cmd->result = c->settings.queues = (sqs < most ? sqs : most) | (cqs < most ? cqs : most) << 16;
	return NVME_OK;
}

static uint16_t get_vector(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint32_t vector = nvme_cdw11(cmd) & 0xffff;

	(void)n;
	if (vector >= c->max_vectors)
		return bad_field(cmd);
	cmd->result = vector | (uint32_t)(atomic_load(&c->no_coalescing[vector / 64]) >> vector % 64 & 1) << 16;
	return NVME_OK;
}

static uint16_t set_vector(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint32_t vector = nvme_cdw11(cmd) & 0xffff;
	uint64_t bit = UINT64_C(1) << vector % 64;

	(void)n;
	if (vector >= c->max_vectors)
		return bad_field(cmd);
	if (nvme_cdw11(cmd) >> 16 & 1)
		atomic_fetch_or(&c->no_coalescing[vector / 64], bit);
	else
		atomic_fetch_and(&c->no_coalescing[vector / 64], ~bit);
	return NVME_OK;
}

/* ------------------------------------------------------------------ temperature */

/* The composite temperature's threshold that the command means, or NULL; sensors there are none. */
static uint32_t *threshold(struct nvme_command *cmd, struct nvme *c, bool setting)
{
	uint32_t select = nvme_cdw11(cmd) >> 16 & 15, type = nvme_cdw11(cmd) >> 20 & 3;

	if (type > 1 || (select && !(setting && select == 15)))
		return NULL;
	return type ? &c->settings.under : &c->settings.over;
}

static uint16_t get_temperature(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	const uint32_t *t = threshold(cmd, c, false);

	(void)n;
	if (!t)
		return bad_field(cmd);
	cmd->result = *t | (nvme_cdw11(cmd) & 0x3f0000);
	return NVME_OK;
}

bool nvme_temperature_warns(const struct nvme *c)
{
	return c->temperature >= c->settings.over || c->temperature <= c->settings.under;
}

static uint16_t set_temperature(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint32_t *t = threshold(cmd, c, true);

	(void)n;
	if (!t)
		return bad_field(cmd);
	*t = nvme_cdw11(cmd) & 0xffff;
	if (nvme_temperature_warns(c))
		nvme_event(c, NVME_EVENT_TEMPERATURE);
	return NVME_OK;
}

/* ------------------------------------------------------------------ of namespaces */

/* Calls set(n, value) for the namespace, or for all where `n` is NULL. */
static void for_namespaces(struct nvme *c, struct nvme_namespace *n, void (*set)(struct nvme_namespace *n, uint32_t value),
			   uint32_t value)
{
	if (n) {
		set(n, value);
		return;
	}
	for (uint32_t id = 1; id <= c->max_nsid; id++) {
		n = nvme_namespace(c, id);
		if (n)
			set(n, value);
	}
}

static bool can_dulbe(const struct nvme_namespace *n)
{
	return disk_info(n->disk)->discard != DISK_DISCARD_IGNORED;
}

static void set_dulbe(struct nvme_namespace *n, uint32_t value)
{
	atomic_store(&n->dulbe, value && can_dulbe(n));
}

static uint16_t get_recovery(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	cmd->result = c->settings.recovery_limit | (n && atomic_load(&n->dulbe) ? 1u << 16 : 0);
	return NVME_OK;
}

/* The time limit is a recommendation, and there is nothing here that tries again. */
static uint16_t set_recovery(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint32_t dulbe = nvme_cdw11(cmd) >> 16 & 1;

	if (dulbe && n && !can_dulbe(n))
		return bad_field(cmd);
	c->settings.recovery_limit = nvme_cdw11(cmd) & 0xffff;
	for_namespaces(c, n, set_dulbe, dulbe);
	return NVME_OK;
}

static void set_mask(struct nvme_namespace *n, uint32_t value)
{
	atomic_store(&n->mask, value);
}

static uint16_t get_reservation_mask(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)c;
	if (!n)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	cmd->result = atomic_load(&n->mask);
	return NVME_OK;
}

static uint16_t set_reservation_mask(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	for_namespaces(c, n, set_mask, nvme_cdw11(cmd) & RESERVATION_MASK_BITS);
	return NVME_OK;
}

static uint16_t get_persistence(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	struct reservation_report report = {0};
	const struct io io = {.who = atomic_load(&c->who)};
	int status;

	if (!n)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	status = disk_report_reservations(n->disk, &report, &io);
	if (status)
		return status == -EOPNOTSUPP ? nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0) : nvme_ended(cmd, status, NULL);
	cmd->result = report.persists;
	free(report.registrants);
	return NVME_OK;
}

/*
 * The state belongs to the disk, which changes it with a registration; so a host that is registered can set it, by registering
 * with the key it has, and another cannot.
 */
static uint16_t set_persistence(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	struct reservation_report report = {0};
	const struct io io = {.who = atomic_load(&c->who)};
	struct reservation_request request = {.action = RESERVATION_REGISTER_IGNORING, .nvme = true,
					      .persist = nvme_cdw11(cmd) & 1};
	int status;

	if (!n)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	status = disk_report_reservations(n->disk, &report, &io);
	if (status)
		return status == -EOPNOTSUPP ? nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0) : nvme_ended(cmd, status, NULL);
	for (size_t i = 0; i < report.count; i++)
		if (!memcmp(report.registrants[i].who.id, io.who->id, sizeof(io.who->id)))
			request.new_key = report.registrants[i].key;
	free(report.registrants);
	if (!request.new_key || (request.persist && !report.can_persist))
		return NVME_FEATURE_NOT_CHANGEABLE;
	return nvme_ended(cmd, disk_reserve(n->disk, &request, &io), NULL);
}

/* ------------------------------------------------------------------ with data */

/* Base 5.27.1.14: milliseconds since 1970 in 48 bits, where they came from. */
static uint16_t get_timestamp(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint64_t since = (wait_now() - c->settings.timestamp_set_ns) / 1000000;
	struct le64 value = put64((c->settings.timestamp_ms + since) & UINT64_C(0xffffffffffff));

	(void)n;
	value.byte[6] = c->settings.timestamp_given ? 1 << 1 : 0;
	return nvme_data_send(cmd, &value, sizeof(value));
}

static uint16_t set_timestamp(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	struct le64 value;
	uint16_t status = nvme_data_fetch(cmd, &value, sizeof(value));

	(void)n;
	if (status)
		return status;
	c->settings.timestamp_ms = get64(value) & UINT64_C(0xffffffffffff);
	c->settings.timestamp_set_ns = wait_now();
	c->settings.timestamp_given = true;
	return NVME_OK;
}

static uint16_t get_keep_alive(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	(void)n;
	cmd->result = atomic_load(&c->keep_alive_ms);
	return NVME_OK;
}

/* Rounded up to the granularity that KAS tells, 100 ms. */
static uint16_t set_keep_alive(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	uint64_t ms = (nvme_cdw11(cmd) + UINT64_C(99)) / 100 * 100;

	(void)n;
	if (ms > UINT32_MAX)
		ms = UINT32_MAX / 100 * 100;
	atomic_store(&c->last_keep_alive, wait_now());
	atomic_store(&c->keep_alive_ms, (uint32_t)ms);
	wait_signal_raise(&c->keep_alive_changed);
	return NVME_OK;
}

static uint16_t get_host_id(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	bool wide = nvme_cdw11(cmd) & 1;

	(void)n;
	return nvme_data_send(cmd, c->settings.host_id, wide ? 16 : 8);
}

/*
 * Base 5.27.1.25. Once it is not 0 it stays until the next reset: registrations and requests under way go by it. A host that does
 * not say who it is, or says 0, is one that nobody else can be.
 */
static uint16_t set_host_id(struct nvme_command *cmd, struct nvme *c, struct nvme_namespace *n)
{
	static const uint8_t none[16];
	uint8_t id[16] = {0};
	bool wide = nvme_cdw11(cmd) & 1;
	uint16_t status = nvme_data_fetch(cmd, id, wide ? 16 : 8);

	(void)n;
	if (status)
		return status;
	if (c->settings.host_id_set)
		return memcmp(id, c->settings.host_id, sizeof(id)) ? NVME_SEQUENCE_ERROR : NVME_OK;
	if (!memcmp(id, none, sizeof(id)))
		return NVME_OK;
	memcpy(c->settings.host_id, id, sizeof(id));
	c->settings.host_id_set = true;
	c->settings.host_id_long = wide;
	short_lock_exclusive(&c->who_lock);
	memcpy(c->named.id, id, sizeof(id));
	atomic_store(&c->who, &c->named);
	short_unlock_exclusive(&c->who_lock);
	return NVME_OK;
}

/* ------------------------------------------------------------------ the table */

static const struct row {
	feature_function *get, *set;
	unsigned capabilities;
	uint32_t fallback; /* default */
} rows[256] = {
	[NVME_FEATURE_ARBITRATION] = {get_arbitration, set_arbitration, CHANGEABLE, ARBITRATION_DEFAULT},
	[NVME_FEATURE_POWER] = {get_power, set_power, CHANGEABLE, 0},
	[NVME_FEATURE_TEMPERATURE] = {get_temperature, set_temperature, CHANGEABLE, COMPOSITE_OVER},
	[NVME_FEATURE_ERROR_RECOVERY] = {get_recovery, set_recovery, CHANGEABLE | PER_NAMESPACE, 0},
	[NVME_FEATURE_WRITE_CACHE] = {get_write_cache, set_write_cache, CHANGEABLE, 1},
	[NVME_FEATURE_QUEUES] = {get_queues, set_queues, CHANGEABLE, 0},
	[NVME_FEATURE_COALESCING] = {get_coalescing, set_coalescing, CHANGEABLE, 0},
	[NVME_FEATURE_VECTOR] = {get_vector, set_vector, CHANGEABLE, 0},
	[NVME_FEATURE_ATOMICITY] = {get_atomicity, set_atomicity, CHANGEABLE, 0},
	[NVME_FEATURE_ASYNC_EVENTS] = {get_async_events, set_async_events, CHANGEABLE, ASYNC_DEFAULT},
	[NVME_FEATURE_TIMESTAMP] = {get_timestamp, set_timestamp, CHANGEABLE, 0},
	[NVME_FEATURE_KEEP_ALIVE] = {get_keep_alive, set_keep_alive, CHANGEABLE, 0},
	[NVME_FEATURE_SANITIZE] = {get_sanitize, set_sanitize, CHANGEABLE, 0},
	[NVME_FEATURE_HOST_ID] = {get_host_id, set_host_id, CHANGEABLE, 0},
	[NVME_FEATURE_RESERVATION_MASK] = {get_reservation_mask, set_reservation_mask, CHANGEABLE | PER_NAMESPACE, 0},
	[NVME_FEATURE_RESERVATION_PERSISTENCE] = {get_persistence, set_persistence, CHANGEABLE | PER_NAMESPACE, 0},
};

uint32_t nvme_feature_effects(unsigned fid)
{
	const struct row *row = &rows[fid];
	unsigned scope = row->capabilities & PER_NAMESPACE ? 1u << 20 : 1u << 21; /* Base 5.16.1.18: of what it is */

	return row->get ? 1u | scope : 0;
}

/* The default, which for a count is what there is. */
static uint16_t tell_default(struct nvme_command *cmd, uint8_t fid)
{
	uint32_t most = cmd->c->max_queues - 1;

	cmd->result = fid == NVME_FEATURE_QUEUES ? most | most << 16 : rows[fid].fallback;
	if (fid == NVME_FEATURE_TEMPERATURE && nvme_cdw11(cmd) >> 20 & 3)
		cmd->result = 0;
	return NVME_OK;
}

/* The namespace that the command names. `found` is NULL for none, or all. A status. */
static uint16_t find_namespace(struct nvme_command *cmd, struct nvme_namespace **found)
{
	uint32_t nsid = nvme_nsid(cmd);

	*found = nvme_namespace(cmd->c, nsid);
	if (!*found && nsid && nsid != NVME_NSID_ALL)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	return NVME_OK;
}

static uint16_t call(struct nvme_command *cmd, feature_function *function, bool per_namespace)
{
	_Atomic uint32_t *place = grace_enter(&cmd->c->inside);
	struct nvme_namespace *n = NULL;
	uint16_t status = per_namespace ? find_namespace(cmd, &n) : NVME_OK;

	if (!status)
		status = function(cmd, cmd->c, n);
	grace_leave(&cmd->c->inside, place);
	return status;
}

uint16_t nvme_admin_get_features(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint8_t fid = (uint8_t)nvme_cdw10(cmd);
	const struct row *row = &rows[fid];

	(void)n;
	if (!row->get)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0);
	switch (nvme_cdw10(cmd) >> 8 & 7) {
	case CURRENT:
		return call(cmd, row->get, row->capabilities & PER_NAMESPACE);
	case DEFAULT:
	case SAVED: /* of a feature that is not saveable: the default */
		return tell_default(cmd, fid);
	case SUPPORTED:
		cmd->result = row->capabilities;
		return NVME_OK;
	default:
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 41, 0);
	}
}

uint16_t nvme_admin_set_features(struct nvme_command *cmd, struct nvme_namespace *n)
{
	const struct row *row = &rows[(uint8_t)nvme_cdw10(cmd)];
	bool per_namespace = row->capabilities & PER_NAMESPACE;
	uint32_t nsid = nvme_nsid(cmd);

	(void)n;
	if (!row->set)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0);
	if (nvme_cdw10(cmd) & CDW10_SAVE)
		return nvme_fail_field(cmd, NVME_FEATURE_NOT_SAVEABLE, 43, 7);
	if (!per_namespace && nsid && nsid != NVME_NSID_ALL)
		return nvme_fail_field(cmd, NVME_FEATURE_NOT_PER_NAMESPACE, 4, 0);
	return call(cmd, row->set, per_namespace);
}

/* ------------------------------------------------------------------ reset */

void nvme_features_reset(struct nvme *c)
{
	uint32_t most = c->max_queues - 1;

	c->settings = (struct nvme_settings){
		.arbitration = ARBITRATION_DEFAULT,
		.over = COMPOSITE_OVER,
		.queues = most | most << 16,
		.async_events = ASYNC_DEFAULT,
		.timestamp_set_ns = wait_now(),
	};
	atomic_store(&c->coalescing, 0);
	atomic_store(&c->write_through, false);
	for (unsigned i = 0; i <= c->max_vectors / 64; i++)
		atomic_store(&c->no_coalescing[i], 0);
	atomic_store(&c->keep_alive_ms, 0);
	nvme_host_id_reset(c);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asynchronous events (Base 5.2) and the error log they lead to
 *
 *   happens        a bit in events_pending
 *   reported       by a fiber of its own, if a request waits, the host has not switched the event off (Async Event
 *                  Configuration), and none with the same log page was reported since that page was read. An event that cannot
 *                  be reported stays pending
 *   cleared        the host reads the log page without Retain Asynchronous Event: what is pending is in the page it got, and the next
 *                  one is reported again
 *
 * A reset forgets requests and what was reported.
 */
#include <string.h>

#include "nvme/internal.h"
#include "nvme/status.h"

#define ALWAYS 32u

static const struct {
	uint8_t type, info, log;
	uint8_t enabled_by; /* bit of Async Event Configuration (Base 5.27.1.8), or ALWAYS */
} kinds[NVME_EVENTS] = {
	[NVME_EVENT_DOORBELL_REGISTER] = {0, 0x00, NVME_LOG_ERRORS, ALWAYS},
	[NVME_EVENT_DOORBELL_VALUE] = {0, 0x01, NVME_LOG_ERRORS, ALWAYS},
	[NVME_EVENT_KEEP_ALIVE] = {0, 0x03, NVME_LOG_ERRORS, ALWAYS},
	[NVME_EVENT_TEMPERATURE] = {1, 0x01, NVME_LOG_SMART, 1},
	[NVME_EVENT_NAMESPACES] = {2, 0x00, NVME_LOG_CHANGED_NAMESPACES, 8},
	[NVME_EVENT_RESERVATION] = {6, 0x00, NVME_LOG_RESERVATION, ALWAYS},
	[NVME_EVENT_SANITIZED] = {6, 0x01, NVME_LOG_SANITIZE, ALWAYS},
	[NVME_EVENT_SCRIPT] = {0, 0, 0, ALWAYS},
};

/* ------------------------------------------------------------------ what happens */

void nvme_event(struct nvme *c, enum nvme_event event)
{
	short_lock_exclusive(&c->log_lock);
	c->events_pending |= UINT32_C(1) << event;
	short_unlock_exclusive(&c->log_lock);
	wait_signal_raise(&c->events_changed);
}

void nvme_event_clear(struct nvme *c, uint8_t log)
{
	for (unsigned i = 0; i < NVME_EVENTS; i++)
		if (kinds[i].log == log && i != NVME_EVENT_SCRIPT) {
			c->events_pending &= ~(UINT32_C(1) << i);
			c->events_masked &= ~(UINT32_C(1) << i);
		}
}

void nvme_log_error(struct nvme *c, const struct nvme_command *cmd, uint16_t status)
{
	struct nvme_log_error *e;

	short_lock_exclusive(&c->log_lock);
	e = &c->errors[c->nr_errors % NVME_ERROR_ENTRIES];
	*e = (struct nvme_log_error){
		.count = put64(++c->nr_errors),
		.sqid = put16(cmd ? cmd->sq->id : 0xffff),
		.cid = put16(cmd ? nvme_cid(cmd) : 0xffff),
		.status = put16(nvme_status_field(status)),
		.location = put16(cmd ? cmd->location : 0xffff),
		.lba = put64(cmd ? cmd->lba : 0),
		.nsid = put32(cmd ? nvme_nsid(cmd) : 0),
	};
	short_unlock_exclusive(&c->log_lock);
}

/* ------------------------------------------------------------------ requests; on the admin loop */

uint16_t nvme_event_request(struct nvme_command *cmd)
{
	struct nvme *c = cmd->c;

	if (c->nr_events_held > NVME_AERL)
		return NVME_ASYNC_LIMIT;
	c->events_held[c->nr_events_held++] = nvme_cid(cmd);
	cmd->no_completion = true;
	wait_signal_raise(&c->events_changed);
	return NVME_OK;
}

static void take_request(struct nvme *c, unsigned index)
{
	c->nr_events_held--;
	memmove(&c->events_held[index], &c->events_held[index + 1],
		(c->nr_events_held - index) * sizeof(c->events_held[0]));
}

/*
 * Posts a completion for a request that waits. It counts as a command under way, so that the queue does not go meanwhile.
 */
static void answer(struct nvme *c, unsigned index, uint16_t field, uint32_t dw0)
{
	struct nvme_sq *sq = c->sqs[0];
	uint16_t cid = c->events_held[index];

	take_request(c, index);
	sq->in_flight++;
	nvme_post(sq, cid, field, dw0, 0, NULL);
	sq->in_flight--;
	wait_signal_raise(&sq->bell->rung);
}

bool nvme_event_abort(struct nvme *c, uint16_t cid)
{
	for (unsigned i = 0; i < c->nr_events_held; i++)
		if (c->events_held[i] == cid) {
			answer(c, i, nvme_status_field(NVME_ABORT_REQUESTED), 0);
			return true;
		}
	return false;
}

/* ------------------------------------------------------------------ reporting */

static bool log_is_masked(const struct nvme *c, uint8_t log)
{
	for (unsigned i = 0; i < NVME_EVENTS; i++)
		if (c->events_masked >> i & 1 && kinds[i].log == log)
			return true;
	return false;
}

static bool may_report(const struct nvme *c, unsigned event)
{
	unsigned by = kinds[event].enabled_by;

	if (!(c->events_pending >> event & 1) || (by != ALWAYS && !(c->settings.async_events >> by & 1)))
		return false;
	return event == NVME_EVENT_SCRIPT || !log_is_masked(c, kinds[event].log);
}

/* The first event that may be reported; dword 0 of its completion. */
static bool take_event(struct nvme *c, uint32_t *dw0)
{
	bool found = false;

	short_lock_exclusive(&c->log_lock);
	for (unsigned i = 0; i < NVME_EVENTS && !found; i++) {
		if (!may_report(c, i))
			continue;
		found = true;
		c->events_pending &= ~(UINT32_C(1) << i);
		if (i == NVME_EVENT_SCRIPT) {
			*dw0 = c->script_event;
		} else {
			c->events_masked |= UINT32_C(1) << i;
			*dw0 = kinds[i].type | (uint32_t)kinds[i].info << 8 | (uint32_t)kinds[i].log << 16;
		}
	}
	short_unlock_exclusive(&c->log_lock);
	return found;
}

void nvme_events_main(void *argument)
{
	struct nvme *c = argument;
	uint32_t dw0 = 0;

	for (;;) {
		uint32_t seen = wait_signal_count(&c->events_changed);
		if (atomic_load(&c->ended))
			break;
		if (c->sqs[0] && !atomic_load(&c->resetting) && c->nr_events_held && take_event(c, &dw0))
			answer(c, 0, 0, dw0);
		else
			wait_signal_wait(&c->events_changed, seen, WAIT_FOREVER);
	}
	wait_group_done(&c->fibers);
}

void nvme_events_reset(struct nvme *c)
{
	c->nr_events_held = 0;
	short_lock_exclusive(&c->log_lock);
	c->nr_changed = 0;
	c->events_masked = 0;
	c->events_pending = c->nr_reservations ? UINT32_C(1) << NVME_EVENT_RESERVATION : 0;
	short_unlock_exclusive(&c->log_lock);
}

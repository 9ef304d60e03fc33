/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reservations (Base 8.19, 7.2 to 7.5): the commands become calls of disk_reserve(), as decorators/reservations.h says; what others
 * do to this host becomes notifications.
 *
 * Who the host is: its host identifier, or, where it has given none, an initiator that is made up, which nobody else is and which
 * loses its registrations with a reset (Base 5.27.1.25). Made-up ones have a port, given ones have not; reports show
 * them as 0.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "nvme/data.h"
#include "nvme/internal.h"

#define CDW10_IGNORE_KEY 8u
#define MADE_UP_PORT 1u

static const struct initiator *who(struct nvme *c)
{
	return atomic_load_explicit(&c->who, memory_order_acquire);
}

/* ------------------------------------------------------------------ who the host is */

void nvme_host_id_reset(struct nvme *c)
{
	struct initiator fresh = {.port = MADE_UP_PORT};

	if (getrandom(fresh.id, sizeof(fresh.id), 0) != sizeof(fresh.id))
		memcpy(fresh.id, &c->born_ns, sizeof(c->born_ns)); /* never seen; the clock is better than nothing */
	short_lock_exclusive(&c->who_lock);
	c->anonymous = fresh;
	memset(&c->named, 0, sizeof(c->named));
	atomic_store(&c->who, &c->anonymous);
	short_unlock_exclusive(&c->who_lock);
}

void nvme_reservations_forget(struct nvme *c)
{
	const struct reservation_request request = {.action = RESERVATION_REGISTER_IGNORING, .persist = -1};
	const struct io io = {.who = &c->anonymous};

	for (uint32_t id = 1; id <= c->max_nsid; id++) {
		_Atomic uint32_t *place = grace_enter(&c->inside);
		struct nvme_namespace *n = nvme_namespace(c, id);
		if (n && n->reservations && atomic_exchange(&n->anonymous_registered, false))
			disk_reserve(n->disk, &request, &io); /* where it is not registered any more that is a conflict */
		grace_leave(&c->inside, place);
	}
}

/* ------------------------------------------------------------------ notifications */

static bool is_host(struct nvme *c, const struct initiator *whom)
{
	const struct initiator *own;
	bool is;

	short_lock_shared(&c->who_lock);
	own = atomic_load(&c->who);
	is = !memcmp(whom->id, own->id, sizeof(own->id)) && whom->port == own->port;
	short_unlock_shared(&c->who_lock);
	return is;
}

/* Under a lock of the disk's: nothing here waits. */
static void told(struct reservation_watch *w, const struct initiator *whom, enum reservation_event event)
{
	static const uint8_t types[] = { /* Base 5.16.1.23 */
		[RESERVATION_EVENT_REGISTRATION_PREEMPTED] = 1,
		[RESERVATION_EVENT_RELEASED] = 2,
		[RESERVATION_EVENT_PREEMPTED] = 3,
	};
	struct nvme_namespace *n = NVME_CONTAINER(w, struct nvme_namespace, watch);
	struct nvme *c = n->c;
	struct nvme_log_reservation *log;

	if (!is_host(c, whom) || atomic_load(&n->mask) >> types[event] & 1)
		return;
	short_lock_exclusive(&c->log_lock);
	if (c->nr_reservations == NVME_RESERVATION_ENTRIES) { /* the oldest makes room; the count shows that it is missing */
		c->first_reservation = (c->first_reservation + 1) % NVME_RESERVATION_ENTRIES;
		c->nr_reservations--;
	}
	log = &c->reservations[(c->first_reservation + c->nr_reservations++) % NVME_RESERVATION_ENTRIES];
	*log = (struct nvme_log_reservation){.count = put64(++c->reservation_count), .type = types[event],
					     .nsid = put32(n->nsid)};
	short_unlock_exclusive(&c->log_lock);
	nvme_event(c, NVME_EVENT_RESERVATION);
}

void nvme_reservations_begin(struct nvme_namespace *n)
{
	struct reservation_report report = {0};

	n->watch.tell = told;
	if (disk_report_reservations(n->disk, &report, &io_plain))
		return;
	free(report.registrants);
	n->reservations = true;
	/* bit 0: persists through power loss; 1 to 6: the types; 7: IEKEY by NVMe 1.3 */
	n->reservation_types = (uint8_t)((report.types & 0x7e) | report.can_persist | 0x80);
	disk_watch_reservations(n->disk, &n->watch, true);
}

void nvme_reservations_end(struct nvme_namespace *n)
{
	if (n->reservations)
		disk_watch_reservations(n->disk, &n->watch, false);
}

/* ------------------------------------------------------------------ register, acquire, release */

static uint16_t no_such_action(struct nvme_command *cmd)
{
	return nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0);
}

static uint16_t reserve(struct nvme_command *cmd, struct nvme_namespace *n, struct reservation_request *request)
{
	struct failure failure = {0};
	const struct io io = {.who = who(cmd->c), .failure = &failure};
	int status;

	request->nvme = true;
	status = disk_reserve(n->disk, request, &io);
	if (!status && io.who == &cmd->c->anonymous)
		atomic_store(&n->anonymous_registered, true);
	/* here this is the number of registrants, not room for data */
	return status == -ENOSPC ? NVME_INTERNAL_ERROR : nvme_ended(cmd, status, &failure);
}

/* Change Persist Through Power Loss State, as `persist`; false where it is reserved. */
static bool read_persist(uint32_t cdw10, int *persist)
{
	static const int values[] = {-1, -2, 0, 1};

	*persist = values[cdw10 >> 30];
	return *persist != -2;
}

uint16_t nvme_io_reservation_register(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme_reservation_keys keys;
	struct reservation_request request = {.action = RESERVATION_REGISTER};
	uint32_t action = nvme_cdw10(cmd) & 7;
	bool ignore = nvme_cdw10(cmd) & CDW10_IGNORE_KEY;
	uint16_t status;

	if (!n->reservations)
		return NVME_INVALID_OPCODE;
	if (action > 2 || !read_persist(nvme_cdw10(cmd), &request.persist))
		return no_such_action(cmd);
	status = nvme_data_fetch(cmd, &keys, sizeof(keys));
	if (status)
		return status;
	if (action != 1 && !get64(keys.other))
		return NVME_INVALID_FIELD; /* keys are not 0 */
	request.new_key = action == 1 ? 0 : get64(keys.other);
	if (action && ignore)
		request.action = RESERVATION_REGISTER_IGNORING;
	else if (action && !get64(keys.current))
		return NVME_RESERVATION_CONFLICT; /* nobody has that key */
	else if (action)
		request.key = get64(keys.current);
	return reserve(cmd, n, &request);
}

uint16_t nvme_io_reservation_acquire(struct nvme_command *cmd, struct nvme_namespace *n)
{
	static const enum reservation_action actions[] = {RESERVATION_RESERVE, RESERVATION_PREEMPT,
							  RESERVATION_PREEMPT_ABORT};
	struct nvme_reservation_keys keys;
	uint32_t action = nvme_cdw10(cmd) & 7, type = nvme_cdw10(cmd) >> 8 & 0xff;
	struct reservation_request request = {.persist = -1};
	uint16_t status;

	if (!n->reservations)
		return NVME_INVALID_OPCODE;
	if (action > 2 || nvme_cdw10(cmd) & CDW10_IGNORE_KEY || !type || type > RESERVATION_EXCLUSIVE_ACCESS_ALL)
		return no_such_action(cmd);
	status = nvme_data_fetch(cmd, &keys, sizeof(keys));
	if (status)
		return status;
	request.action = actions[action];
	request.type = (enum reservation_type)type;
	request.key = get64(keys.current);
	request.new_key = action ? get64(keys.other) : 0;
	return reserve(cmd, n, &request);
}

uint16_t nvme_io_reservation_release(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct le64 key;
	uint32_t action = nvme_cdw10(cmd) & 7, type = nvme_cdw10(cmd) >> 8 & 0xff;
	struct reservation_request request = {.persist = -1};
	uint16_t status;

	if (!n->reservations)
		return NVME_INVALID_OPCODE;
	if (action > 1 || nvme_cdw10(cmd) & CDW10_IGNORE_KEY ||
	    (!action && (!type || type > RESERVATION_EXCLUSIVE_ACCESS_ALL)))
		return no_such_action(cmd);
	status = nvme_data_fetch(cmd, &key, sizeof(key));
	if (status)
		return status;
	request.action = action ? RESERVATION_CLEAR : RESERVATION_RELEASE;
	request.type = action ? RESERVATION_NONE : (enum reservation_type)type;
	request.key = get64(key);
	return reserve(cmd, n, &request);
}

/* ------------------------------------------------------------------ report */

/* FFFFh: a controller that is not this one (Base 7.4). */
static struct le16 controller_of(const struct nvme *c, const struct initiator *registrant, const struct initiator *own)
{
	return put16(memcmp(registrant->id, own->id, sizeof(own->id)) ? 0xffff : c->controller_id);
}

static void put_registrant(const struct nvme *c, const struct reservation_registrant *r, const struct initiator *own,
			   bool extended, char *to)
{
	static const uint8_t none[16];
	const uint8_t *id = r->who.port ? none : r->who.id;
	struct nvme_registrant_extended e = {.cntlid = controller_of(c, &r->who, own), .holds = r->holds, .key = put64(r->key)};
	struct nvme_registrant s = {.cntlid = e.cntlid, .holds = r->holds, .key = e.key};

	memcpy(e.hostid, id, sizeof(e.hostid));
	memcpy(s.hostid, id, sizeof(s.hostid));
	memcpy(to, extended ? (const void *)&e : (const void *)&s, extended ? sizeof(e) : sizeof(s));
}

/* The whole report; NULL without memory. */
static char *make_report(struct nvme *c, const struct reservation_report *report, bool extended, size_t *size)
{
	size_t each = extended ? sizeof(struct nvme_registrant_extended) : sizeof(struct nvme_registrant);
	size_t header = extended ? 64 : sizeof(struct nvme_reservation_status);
	struct nvme_reservation_status s = {.generation = put32(report->generation), .type = (uint8_t)report->type,
					    .registrants = put16(report->count), .ptpls = report->persists};
	char *all;

	*size = header + report->count * each;
	all = calloc(1, *size);
	if (!all)
		return NULL;
	memcpy(all, &s, sizeof(s));
	for (size_t i = 0; i < report->count; i++)
		put_registrant(c, &report->registrants[i], who(c), extended, all + header + i * each);
	return all;
}

uint16_t nvme_io_reservation_report(struct nvme_command *cmd, struct nvme_namespace *n)
{
	struct nvme_settings *s = &cmd->c->settings;
	struct reservation_report report = {0};
	bool extended = nvme_cdw11(cmd) & 1;
	uint64_t wanted = (nvme_cdw10(cmd) + UINT64_C(1)) * 4;
	const struct io io = {.who = who(cmd->c)};
	uint16_t status;
	size_t size;
	char *all;
	int result;

	if (!n->reservations)
		return NVME_INVALID_OPCODE;
	if (io.who == &cmd->c->named && s->host_id_long != extended)
		return nvme_fail_field(cmd, NVME_HOST_ID_INCONSISTENT, 44, 0);
	result = disk_report_reservations(n->disk, &report, &io);
	if (result)
		return nvme_ended(cmd, result, NULL);
	all = make_report(cmd->c, &report, extended, &size);
	free(report.registrants);
	if (!all)
		return NVME_INTERNAL_ERROR;
	status = nvme_data_send(cmd, all, wanted < size ? (size_t)wanted : size);
	free(all);
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent reservations by SPC-4 5.13 and NVMe Base 2.0 8.19
 *
 * Initiators register with a key; a registrant can reserve; keys serve to find out who has to be thrown out. A reservation
 * restricts what is not yet done by those who are left outside:
 *
 *                                        may it be done by
 *   type                          request   the holder   another registrant   anyone else
 *   none                          any       yes          yes                  yes
 *   write exclusive               read      yes          yes                  yes
 *                                 write     yes          -                    -
 *   exclusive access              any       yes          -                    -
 *   write exclusive, registrants  read      yes          yes                  yes
 *                                 write     yes          yes                  -
 *   exclusive access, registrants any       yes          yes                  -
 *   write exclusive, all          as write exclusive, registrants; every registrant is a holder
 *   exclusive access, all         as exclusive access, registrants; every registrant is a holder
 *
 * What is a read here and what a write follows the tables of SBC-3 4.17 and of NVMe's command groups: READ, VERIFY, PRE-FETCH and
 * GET LBA STATUS are reads; WRITE, WRITE SAME, UNMAP, SYNCHRONIZE CACHE, START STOP UNIT that ejects are writes, and so are
 * NVMe's Write Zeroes, Dataset Management and Flush. Nobody has a command for changing the size; that is a write.
 *
 * Actions. RK is the key that who asks says is his. Only a registrant whose key that is may do the actions marked *; any other gets
 * a conflict. The generation grows by one with all that succeed but RESERVE and RELEASE, and those REGISTERs that do nothing.
 *
 *   REGISTER            not registered   RK 0          key 0: nothing (NVMe: conflict); else registered
 *                                        RK not 0      conflict
 *                       registered       RK is right   key 0: unregistered; else the key changes
 *                                        RK is wrong   conflict (NVMe, RK 0 and the same key again: success)
 *   REGISTER_IGNORING   as REGISTER with the right RK
 *   RESERVE *           none yet, or who asks holds it with this type: success; else conflict
 *   RELEASE *           who asks does not hold: nothing. Holds it with another type: -EINVAL. Else it is released
 *   CLEAR *             released, and nobody is registered any more
 *   PREEMPT *           V are those registered with new_key
 *     the holder has new_key (or new_key is 0, and all hold)
 *                       V (all) but who asks are unregistered; who asks holds the reservation, with the new type
 *     else new_key is 0 -EINVAL
 *     else V is empty   conflict
 *     else              V are unregistered, who asks included; the type in the request does not matter
 *   PREEMPT_ABORT *     the same; the waiting for requests under way is the matter of who does I/O (prwrap.c)
 *   MOVE *              another initiator is registered with new_key and holds the reservation. -EINVAL where there is
 *                       none to move, for key 0 and for oneself; conflict where who asks does not hold it, or all do
 *
 * A reservation ends with the registration of its holder; one of all registrants with the last registration.
 *
 * Who hears of it (events): of CLEAR every other registrant that was (PREEMPTED); of PREEMPT those unregistered by another
 * (REGISTRATION_PREEMPTED), and, if the type is another now, the rest (RELEASED); of a RELEASE, or the end of the holder's
 * registration, the other registrants (RELEASED) where they had a part in it, that is not for the first two types.
 *
 * Not done: scopes other than the whole logical unit, which SPC-4 no longer has, and the reservations of SCSI-2.
 */
#include "decorators/reservations.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ initiators */

static const struct initiator this_process;

int initiator_compare(const struct initiator *a, const struct initiator *b)
{
	int order = memcmp(a->id, b->id, sizeof(a->id));

	return order ? order : (a->port > b->port) - (a->port < b->port);
}

const struct initiator *initiator_of(const struct io *io)
{
	return io->who ? io->who : &this_process;
}

static bool same(const struct initiator *a, const struct initiator *b)
{
	return initiator_compare(a, b) == 0;
}

/* ------------------------------------------------------------------ types */

bool reservation_type_of_all(enum reservation_type type)
{
	return type == RESERVATION_WRITE_EXCLUSIVE_ALL || type == RESERVATION_EXCLUSIVE_ACCESS_ALL;
}

static bool type_of_holder_alone(enum reservation_type type)
{
	return type == RESERVATION_WRITE_EXCLUSIVE || type == RESERVATION_EXCLUSIVE_ACCESS;
}

static bool valid_type(enum reservation_type type)
{
	return type >= RESERVATION_WRITE_EXCLUSIVE && type <= RESERVATION_EXCLUSIVE_ACCESS_ALL;
}

const char *reservation_type_name(enum reservation_type type)
{
	static const char *const names[] = {
		[RESERVATION_NONE] = "none",
		[RESERVATION_WRITE_EXCLUSIVE] = "write-exclusive",
		[RESERVATION_EXCLUSIVE_ACCESS] = "exclusive-access",
		[RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS] = "write-exclusive-registrants",
		[RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS] = "exclusive-access-registrants",
		[RESERVATION_WRITE_EXCLUSIVE_ALL] = "write-exclusive-all",
		[RESERVATION_EXCLUSIVE_ACCESS_ALL] = "exclusive-access-all",
	};

	return names[type];
}

/* ------------------------------------------------------------------ the list */

/* Where `who` is, or would be. */
static size_t place(const struct reservations *r, const struct initiator *who)
{
	size_t low = 0, high = r->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (initiator_compare(&r->list[middle].who, who) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct reservation_entry *find(const struct reservations *r, const struct initiator *who)
{
	size_t at = place(r, who);

	return at < r->count && same(&r->list[at].who, who) ? &r->list[at] : NULL;
}

static int make_room(struct reservations *r, size_t more)
{
	size_t room = r->count + more;
	struct reservation_entry *list;

	if (room <= r->room)
		return 0;
	room += room / 2;
	list = reallocarray(r->list, room, sizeof(*list));
	if (!list)
		return -ENOMEM;
	r->list = list;
	r->room = room;
	return 0;
}

/* There is room. */
static void put(struct reservations *r, const struct initiator *who, uint64_t key)
{
	size_t at = place(r, who);

	if (at == r->count || !same(&r->list[at].who, who)) {
		memmove(r->list + at + 1, r->list + at, (r->count - at) * sizeof(*r->list));
		r->list[at].who = *who;
		r->count++;
	}
	r->list[at].key = key;
}

static void take_out(struct reservations *r, const struct initiator *who)
{
	size_t at = place(r, who);

	if (at == r->count || !same(&r->list[at].who, who))
		return;
	r->count--;
	memmove(r->list + at, r->list + at + 1, (r->count - at) * sizeof(*r->list));
}

/* ------------------------------------------------------------------ questions */

bool reservations_registered(const struct reservations *r, const struct initiator *who)
{
	return find(r, who) != NULL;
}

bool reservations_holds(const struct reservations *r, const struct initiator *who)
{
	if (r->type == RESERVATION_NONE)
		return false;
	return reservation_type_of_all(r->type) ? reservations_registered(r, who) : same(&r->holder, who);
}

unsigned reservations_restrict(const struct reservations *r)
{
	switch (r->type) {
	case RESERVATION_NONE:
		return 0;
	case RESERVATION_WRITE_EXCLUSIVE:
	case RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS:
	case RESERVATION_WRITE_EXCLUSIVE_ALL:
		return RESERVATION_WRITE;
	default:
		return RESERVATION_READ | RESERVATION_WRITE;
	}
}

bool reservations_allow(const struct reservations *r, const struct initiator *who, enum reservation_access access)
{
	if (!(reservations_restrict(r) & access))
		return true;
	return type_of_holder_alone(r->type) ? same(&r->holder, who) : reservations_registered(r, who);
}

/* ------------------------------------------------------------------ one action */

struct change {
	struct reservations *r;
	const struct reservation_request *request;
	struct initiator who;
	struct reservation_news *news;
	const struct io *io;
};

static int conflict(const struct change *c, const char *why)
{
	return io_fail(c->io, -EBADE, "prwrap: reservation conflict: %s", why);
}

static int invalid(const struct change *c, const char *why)
{
	return io_fail(c->io, -EINVAL, "prwrap: reservations: %s", why);
}

/* There is room for one a registrant that was. */
static void tell(struct change *c, const struct initiator *who, enum reservation_event event)
{
	if (same(who, &c->who))
		return;
	c->news->list[c->news->count].who = *who;
	c->news->list[c->news->count++].event = event;
}

static void tell_all(struct change *c, enum reservation_event event)
{
	for (size_t i = 0; i < c->r->count; i++)
		tell(c, &c->r->list[i].who, event);
}

static void set_reservation(struct reservations *r, enum reservation_type type, const struct initiator *holder)
{
	r->type = type;
	r->holder = type == RESERVATION_NONE || reservation_type_of_all(type) ? this_process : *holder;
}

/* The first two types have restricted the other registrants, who need not know; of the rest they had a part. */
static void release(struct change *c)
{
	if (!type_of_holder_alone(c->r->type))
		tell_all(c, RESERVATION_EVENT_RELEASED);
	set_reservation(c->r, RESERVATION_NONE, NULL);
}

static int check_key(const struct change *c)
{
	const struct reservation_entry *mine = find(c->r, &c->who);

	if (!mine)
		return conflict(c, "who asks is not registered");
	if (mine->key != c->request->key)
		return conflict(c, "the key is not that of who asks");
	return 0;
}

static int check_type(const struct change *c)
{
	return valid_type(c->request->type) ? 0 : invalid(c, "there is no such type of reservation");
}

/* ------------------------------------------------------------------ registering */

static int check_registering(const struct change *c, const struct initiator *who)
{
	const struct reservation_request *q = c->request;
	const struct reservation_entry *entry = find(c->r, who);

	if (q->nvme && !q->new_key && !entry)
		return conflict(c, "who unregisters is not registered");
	if (q->action == RESERVATION_REGISTER_IGNORING)
		return 0;
	if (q->nvme && entry && !q->key && q->new_key == entry->key)
		return 0;
	if (!entry && q->key)
		return conflict(c, "who asks is not registered");
	if (entry && q->key != entry->key)
		return conflict(c, "who asks is registered with another key");
	return 0;
}

static int check_room(const struct change *c, size_t more)
{
	if (c->r->count + more > RESERVATIONS_MAX)
		return io_fail(c->io, -ENOSPC, "prwrap: %zu initiators are registered, and there can be %u", c->r->count,
			       RESERVATIONS_MAX);
	if (make_room(c->r, more))
		return io_fail(c->io, -ENOMEM, "prwrap: no memory");
	return 0;
}

/* After registrations ended. */
static void release_if_held_by_nobody(struct change *c)
{
	const struct reservations *r = c->r;

	if (r->type != RESERVATION_NONE && !(reservation_type_of_all(r->type) ? r->count > 0 : reservations_registered(r, &r->holder)))
		release(c);
}

static void keep_setting(struct change *c)
{
	if (c->request->persist >= 0)
		c->r->persists = c->request->persist;
}

/* Number 0 is who asks, the others are those in the list. */
static const struct initiator *nexus(const struct change *c, size_t number)
{
	return number ? &c->request->also[number - 1] : &c->who;
}

static int check_all_registering(const struct change *c, size_t *known)
{
	size_t fresh = 0;
	int status = 0;

	*known = 0;
	for (size_t i = 0; i <= c->request->nr_also && !status; i++) {
		status = check_registering(c, nexus(c, i));
		if (reservations_registered(c->r, nexus(c, i)))
			(*known)++;
		else
			fresh++;
	}
	return status || !c->request->new_key ? status : check_room(c, fresh);
}

static int do_register(struct change *c)
{
	uint64_t key = c->request->new_key;
	size_t known;
	int status = check_all_registering(c, &known);

	if (status || (!key && !known))
		return status;
	for (size_t i = 0; i <= c->request->nr_also; i++) {
		if (key)
			put(c->r, nexus(c, i), key);
		else
			take_out(c->r, nexus(c, i));
	}
	release_if_held_by_nobody(c);
	keep_setting(c);
	c->r->generation++;
	return 0;
}

static int check_move(const struct change *c)
{
	const struct reservation_request *q = c->request;
	int status = check_key(c);

	if (status)
		return status;
	if (c->r->type == RESERVATION_NONE)
		return invalid(c, "there is no reservation to move");
	if (reservation_type_of_all(c->r->type))
		return conflict(c, "a reservation of all registrants cannot be moved");
	if (!reservations_holds(c->r, &c->who))
		return conflict(c, "who asks does not hold the reservation");
	if (q->nr_also != 1 || same(&q->also[0], &c->who))
		return invalid(c, "a reservation is moved to one other initiator");
	if (!q->new_key)
		return invalid(c, "a reservation cannot be moved to key 0");
	return check_room(c, reservations_registered(c->r, &q->also[0]) ? 0 : 1);
}

static int do_move(struct change *c)
{
	int status = check_move(c);

	if (status)
		return status;
	put(c->r, &c->request->also[0], c->request->new_key);
	c->r->holder = c->request->also[0];
	if (c->request->unregister)
		take_out(c->r, &c->who);
	keep_setting(c);
	c->r->generation++;
	return 0;
}

/* ------------------------------------------------------------------ reserving */

static int do_reserve(struct change *c)
{
	int status = check_type(c);

	if (!status)
		status = check_key(c);
	if (status)
		return status;
	if (c->r->type == RESERVATION_NONE) {
		set_reservation(c->r, c->request->type, &c->who);
		return 0;
	}
	if (!reservations_holds(c->r, &c->who))
		return conflict(c, "another initiator holds the reservation");
	if (c->request->type != c->r->type)
		return conflict(c, "it is held with another type");
	return 0;
}

static int do_release(struct change *c)
{
	int status = check_type(c);

	if (!status)
		status = check_key(c);
	if (status || !reservations_holds(c->r, &c->who))
		return status;
	if (c->request->type != c->r->type)
		return invalid(c, "it is held with another type than the one to release");
	release(c);
	return 0;
}

static int do_clear(struct change *c)
{
	int status = check_key(c);

	if (status)
		return status;
	tell_all(c, RESERVATION_EVENT_PREEMPTED);
	set_reservation(c->r, RESERVATION_NONE, NULL);
	c->r->count = 0;
	c->r->generation++;
	return 0;
}

/* ------------------------------------------------------------------ preempting */

/* Is it the reservation that is meant, and not just registrations? */
static bool takes_over(const struct change *c)
{
	uint64_t victim = c->request->new_key;

	if (c->r->type == RESERVATION_NONE)
		return false;
	if (reservation_type_of_all(c->r->type))
		return !victim;
	return victim == find(c->r, &c->r->holder)->key;
}

static bool anybody_has(const struct reservations *r, uint64_t key)
{
	for (size_t i = 0; i < r->count; i++)
		if (r->list[i].key == key)
			return true;
	return false;
}

/* Unregisters who has the key, everybody for key 0. */
static void throw_out(struct change *c, bool spare_self)
{
	uint64_t key = c->request->new_key;
	size_t left = 0;

	for (size_t i = 0; i < c->r->count; i++) {
		struct reservation_entry *e = &c->r->list[i];
		if ((key && e->key != key) || (spare_self && same(&e->who, &c->who)))
			c->r->list[left++] = *e;
		else
			tell(c, &e->who, RESERVATION_EVENT_REGISTRATION_PREEMPTED);
	}
	c->r->count = left;
}

static int take_over(struct change *c)
{
	int status = check_type(c);

	if (status)
		return status;
	throw_out(c, true);
	if (c->request->type != c->r->type)
		tell_all(c, RESERVATION_EVENT_RELEASED);
	set_reservation(c->r, c->request->type, &c->who);
	c->r->generation++;
	return 0;
}

static int preempt_registrations(struct change *c)
{
	if (!c->request->new_key)
		return invalid(c, "key 0 preempts a reservation of all registrants, and there is none");
	if (!anybody_has(c->r, c->request->new_key))
		return conflict(c, "no registrant has the key that is to be preempted");
	throw_out(c, false);
	release_if_held_by_nobody(c);
	c->r->generation++;
	return 0;
}

static int do_preempt(struct change *c)
{
	int status = check_key(c);

	if (status)
		return status;
	return takes_over(c) ? take_over(c) : preempt_registrations(c);
}

/* ------------------------------------------------------------------ the door */

static bool registers(enum reservation_action action)
{
	return action == RESERVATION_REGISTER || action == RESERVATION_REGISTER_IGNORING;
}

static int check_request(const struct change *c, bool can_persist)
{
	const struct reservation_request *q = c->request;
	bool sets = registers(q->action) || q->action == RESERVATION_MOVE;

	if (q->nr_also && !sets)
		return invalid(c, "only registering concerns other initiators by name");
	if (q->nr_also >= RESERVATIONS_MAX)
		return io_fail(c->io, -ENOSPC, "prwrap: %zu initiators more are to be registered, and there can be %u",
			       q->nr_also, RESERVATIONS_MAX);
	if (sets && q->persist > 0 && !can_persist)
		return invalid(c, "there is no file in which they could persist (prwrap;persist=FILE:...)");
	return 0;
}

static int (*const actions[])(struct change *c) = {
	[RESERVATION_REGISTER] = do_register,
	[RESERVATION_REGISTER_IGNORING] = do_register,
	[RESERVATION_RESERVE] = do_reserve,
	[RESERVATION_RELEASE] = do_release,
	[RESERVATION_CLEAR] = do_clear,
	[RESERVATION_PREEMPT] = do_preempt,
	[RESERVATION_PREEMPT_ABORT] = do_preempt,
	[RESERVATION_MOVE] = do_move,
};

int reservations_apply(struct reservations *r, const struct reservation_request *request, bool can_persist,
		       struct reservation_news *news, const struct io *io)
{
	struct change c = {.r = r, .request = request, .who = *initiator_of(io), .news = news, .io = io};
	int status;

	if ((unsigned)request->action >= sizeof(actions) / sizeof(*actions))
		return invalid(&c, "there is no such action");
	status = check_request(&c, can_persist);
	if (status)
		return status;
	news->list = reallocarray(NULL, r->count + 1, sizeof(*news->list));
	if (!news->list)
		return io_fail(io, -ENOMEM, "prwrap: no memory");
	return actions[request->action](&c);
}

/* ------------------------------------------------------------------ copies */

int reservations_copy(struct reservations *to, const struct reservations *from)
{
	*to = *from;
	to->list = NULL;
	to->count = to->room = 0;
	if (make_room(to, from->count))
		return -ENOMEM;
	if (from->count)
		memcpy(to->list, from->list, from->count * sizeof(*from->list));
	to->count = from->count;
	return 0;
}

int reservations_report(const struct reservations *r, struct reservation_report *report)
{
	struct reservation_registrant *list = calloc(r->count ? r->count : 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < r->count; i++)
		list[i] = (struct reservation_registrant){.who = r->list[i].who,
							  .key = r->list[i].key,
							  .holds = reservations_holds(r, &r->list[i].who)};
	*report = (struct reservation_report){
		.generation = r->generation,
		.type = r->type,
		.persists = r->persists,
		.types = (1u << (RESERVATION_EXCLUSIVE_ACCESS_ALL + 1)) - 2,
		.count = r->count,
		.registrants = list,
	};
	return 0;
}

void reservations_clear(struct reservations *r)
{
	free(r->list);
	*r = (struct reservations){0};
}

void reservation_news_clear(struct reservation_news *news)
{
	free(news->list);
	*news = (struct reservation_news){0};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Persistent reservations as a state machine without I/O: who is registered, who holds what, and who may do what. */
#ifndef PLATTER_DECORATORS_RESERVATIONS_H
#define PLATTER_DECORATORS_RESERVATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/disk.h"

/*
 * Doors hand the commands of their clients to disk_reserve() in this form. What is not named is 0, but `persist`, which is -1
 * for "no change".
 *
 *   SCSI, SPC-4 6.16: service action            action                 key  new_key  other
 *   REGISTER                                    REGISTER               RK   SARK     persist: APTPL; also: SPEC_I_PT, ALL_TG_PT
 *   REGISTER AND IGNORE EXISTING KEY            REGISTER_IGNORING      -    SARK     persist: APTPL; also: ALL_TG_PT
 *   RESERVE, RELEASE                            RESERVE, RELEASE       RK   -        type
 *   CLEAR                                       CLEAR                  RK   -
 *   PREEMPT, PREEMPT AND ABORT                  PREEMPT, PREEMPT_ABORT RK   SARK     type
 *   REGISTER AND MOVE                           MOVE                   RK   SARK     persist: APTPL; unregister: UNREG; also: whereto
 *
 *   NVMe Base 2.0, 8.19; `nvme` is set          action                 key    new_key  other
 *   Register, register                          REGISTER               0      NRKEY    persist: CPTPL 0 -1, 2 0, 3 1
 *   Register, unregister                        REGISTER               CRKEY  0        the same
 *   Register, replace                           REGISTER               CRKEY  NRKEY    the same
 *   the last two with IEKEY                     REGISTER_IGNORING      -      0/NRKEY  the same
 *   Acquire, acquire                            RESERVE                CRKEY  -        type: RTYPE
 *   Acquire, preempt (and abort)                PREEMPT(_ABORT)        CRKEY  PRKEY    type: RTYPE
 *   Release, release                            RELEASE                CRKEY  -        type: RTYPE
 *   Release, clear                              CLEAR                  CRKEY  -
 *
 * A door that serves NVMe answers by itself what can be seen in the command alone: NRKEY of 0 where one is registered (invalid
 * field), CRKEY of 0 in unregister and replace (conflict, since no registrant has that key). ALL_TG_PT and SPEC_I_PT become a
 * list in `also`, made by the door, which knows its ports; with two of both, all pairs.
 *
 *   status    SCSI                                               NVMe
 *   -EBADE    RESERVATION CONFLICT                               Reservation Conflict
 *   -EINVAL   ILLEGAL REQUEST: INVALID FIELD IN PARAMETER LIST;  Invalid Field in Command
 *             INVALID RELEASE OF PERSISTENT RESERVATION for RELEASE
 *   -ENOSPC   ILLEGAL REQUEST: INSUFFICIENT REGISTRATION RESOURCES  Internal Error
 *
 *   event                    SCSI unit attention      NVMe notification
 *   PREEMPTED                RESERVATIONS PREEMPTED   Reservation Preempted
 *   REGISTRATION_PREEMPTED   REGISTRATIONS PREEMPTED  Registration Preempted
 *   RELEASED                 RESERVATIONS RELEASED    Reservation Released
 */

/* So many can be registered; a list of all of them is 256 KiB. NVMe's report can count 65,535. */
#define RESERVATIONS_MAX 8192u

struct reservation_entry {
	struct initiator who;
	uint64_t key; /* never 0 */
};

/* Zero-initialised: nobody is registered. */
struct reservations {
	uint32_t generation;
	enum reservation_type type;
	bool persists;
	struct initiator holder; /* of the types up to EXCLUSIVE_ACCESS_REGISTRANTS; of others every registrant is one */
	struct reservation_entry *list; /* in the order of initiator_compare() */
	size_t count, room;
};

/* Scope cleanup. */
#define CLEANUP_RESERVATIONS __attribute__((cleanup(reservations_clear)))

/* What became of others in one action. */
struct reservation_news {
	size_t count;
	struct {
		struct initiator who;
		enum reservation_event event;
	} *list;
};

/* Scope cleanup. */
#define CLEANUP_NEWS __attribute__((cleanup(reservation_news_clear)))

/* Kinds of access: what a request asks for, and what a reservation keeps from some. */
enum reservation_access {
	RESERVATION_READ = 1 << 0,  /* read, extents, prefetch */
	RESERVATION_WRITE = 1 << 1, /* write, flush, discard, write_zeroes, resize, eject */
};

/* Negative, 0, positive. */
int initiator_compare(const struct initiator *a, const struct initiator *b);

/* Who a request comes from. */
const struct initiator *initiator_of(const struct io *io);

/*
 * Carries out one action for io->who and says in `news`, which is empty before, whom it concerns besides. `can_persist`: there
 * is where to keep the state. On failure nothing has changed and there is no news.
 */
int reservations_apply(struct reservations *r, const struct reservation_request *request, bool can_persist,
		       struct reservation_news *news, const struct io *io);

/* May `who` do that? */
bool reservations_allow(const struct reservations *r, const struct initiator *who, enum reservation_access access);

/* What is not allowed to everybody; 0: everything is. */
unsigned reservations_restrict(const struct reservations *r);

/* Is `who` registered, and a holder? */
bool reservations_registered(const struct reservations *r, const struct initiator *who);
bool reservations_holds(const struct reservations *r, const struct initiator *who);

/* Does every registrant hold this type? */
bool reservation_type_of_all(enum reservation_type type);

/* "none", "write-exclusive", "exclusive-access-registrants", ... */
const char *reservation_type_name(enum reservation_type type);

/* Makes `to`, which is empty, the same as `from`. 0 or -ENOMEM. */
int reservations_copy(struct reservations *to, const struct reservations *from);

/* Fills in the report, but for can_persist. 0 or -ENOMEM. */
int reservations_report(const struct reservations *r, struct reservation_report *report);

/* Frees what hangs on them; they are empty afterwards. */
void reservations_clear(struct reservations *r);
void reservation_news_clear(struct reservation_news *news);

#endif

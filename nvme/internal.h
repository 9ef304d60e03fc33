/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the controller, shared by the files of nvme/. controller.c opens with what belongs to whom. */
#ifndef PLATTER_NVME_INTERNAL_H
#define PLATTER_NVME_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gate.h"
#include "core/grace.h"
#include "core/loop.h"
#include "core/short-lock.h"
#include "core/vec.h"
#include "core/wait.h"
#include "nvme/host.h"
#include "nvme/nvme.h"
#include "nvme/spec.h"

#define NVME_PAGE_MIN_SHIFT 12u
#define NVME_PAGE_MAX_SHIFT 16u
#define NVME_SQE_SHIFT 6u
#define NVME_CQE_SHIFT 4u
#define NVME_ERROR_ENTRIES 64u
#define NVME_AERL 3u /* asynchronous event requests, one less */
#define NVME_RESERVATION_ENTRIES 64u
#define NVME_BELLS (2u * (NVME_MAX_QUEUES + 1))

#define NVME_CONTAINER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

struct nvme_command;
struct nvme_script;

/* ------------------------------------------------------------------ queues */

/* A doorbell register's other half: who waits for it. */
struct nvme_bell {
	_Alignas(64) struct wait_signal rung;
	_Atomic uint32_t polled; /* nvme_poll(): the value it saw last */
	_Atomic bool used;       /* there is such a queue */

	/* of a completion queue */
	struct wait_signal posted; /* something is new for the fiber that interrupts */
	bool asserts;              /* there are entries that the pin tells of; under the controller's lock */
};

/* What is counted on one loop: written there alone. */
struct nvme_lane {
	_Alignas(64) struct loop *loop;
	_Atomic uint64_t passes, commands, interrupts;
	_Atomic uint64_t reads, writes, units_read, units_written, media_errors; /* units of 512 bytes */
	_Atomic uint32_t in_flight, most_in_flight; /* commands of I/O queues */
};

static inline void nvme_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Of its lane's loop, but for `stopping`; `nr_sqs` is the admin loop's. */
struct nvme_cq {
	struct nvme *c;
	struct nvme_lane *lane;
	uint16_t id, vector;
	bool interrupts;
	uint64_t address;
	uint32_t size, head, tail;
	bool phase;
	bool told;        /* the fiber that interrupts has been told of what was posted */
	bool failed;
	uint32_t pending; /* entries posted since the last interrupt */
	struct nvme_bell *bell;
	_Atomic bool stopping;
	struct wait_group ended; /* its fiber */
	unsigned nr_sqs;
};

/* Of the loop of its completion queue, but for `stopping`. */
struct nvme_sq {
	struct nvme *c;
	struct nvme_cq *cq;
	uint16_t id;
	uint64_t address;
	uint32_t size, head;
	struct nvme_command *commands, *free; /* `size` of them */
	struct nvme_command *fused;           /* the first half, waiting for the second */
	struct nvme_command *ready, *ready_last; /* to be carried out, in order */
	uint32_t in_flight;
	bool starved; /* it would fetch more if there were a command */
	bool failed;
	struct nvme_bell *bell;
	_Atomic bool stopping; /* nothing is fetched any more; what can be broken off is */
	struct wait_group ended;

	/* the admin loop's */
	unsigned users; /* that look for a command to abort: it is not freed before they are gone */
	struct wait_signal unused;
};

/* ------------------------------------------------------------------ commands */

/* Who waits for a command that is to be aborted. */
struct nvme_abort {
	bool aborted;
	struct wait_signal ended; /* raised once */
};

/* From where it is fetched until its completion is posted. Of its queue's loop, but for `broken`. */
struct nvme_command {
	struct nvme_sqe sqe;
	struct nvme *c;
	struct nvme_sq *sq;
	struct nvme_command *next;  /* in the free list, or in what waits to be carried out */
	struct nvme_command *other; /* the second half of a fused pair; NULL in that itself */
	uint32_t result, result_high; /* dwords 0 and 1 of the completion */
	uint16_t status;              /* enum nvme_status */
	uint16_t location;            /* byte << 0, bit << 8 of the field that was wrong; 0xffff: none */
	uint64_t lba;                 /* where it failed, for the error log */
	bool busy;
	bool begun;                   /* its fiber runs */
	bool breakable;               /* and looks at `broken` now and then */
	bool no_completion;           /* dropped, or an event request that waits */
	struct nvme_abort *ticket;    /* who wants it aborted */
	uint8_t corrupt_offset, corrupt_length; /* a script's: bytes of the completion to be replaced */
	uint8_t corrupt[16];
	_Atomic uint16_t broken; /* 0, or the status that it shall end with as soon as it can */
	struct wait_signal breaking;
};

static inline uint32_t nvme_cdw10(const struct nvme_command *cmd)
{
	return get32(cmd->sqe.cdw10);
}
static inline uint32_t nvme_cdw11(const struct nvme_command *cmd)
{
	return get32(cmd->sqe.cdw11);
}
static inline uint32_t nvme_cdw12(const struct nvme_command *cmd)
{
	return get32(cmd->sqe.cdw12);
}
static inline uint32_t nvme_nsid(const struct nvme_command *cmd)
{
	return get32(cmd->sqe.nsid);
}
static inline uint16_t nvme_cid(const struct nvme_command *cmd)
{
	return get16(cmd->sqe.cid);
}

/* Status of a command that shall be broken off, or NVME_OK. Asked between the steps of what takes long. */
static inline uint16_t nvme_broken(struct nvme_command *cmd)
{
	return atomic_load_explicit(&cmd->broken, memory_order_relaxed);
}

/* Records which field was wrong, for the error log; returns `status`. `byte` is an offset in the queue entry. */
uint16_t nvme_fail_field(struct nvme_command *cmd, uint16_t status, unsigned byte, unsigned bit);

/* ------------------------------------------------------------------ namespaces */

/* Blocks that Write Uncorrectable made unreadable: [lba, lba + blocks) in units of 512 bytes, in order, apart. */
struct nvme_bad_range {
	uint64_t first, end; /* bytes */
};

struct nvme_namespace {
	struct nvme *c;
	uint32_t nsid;
	struct disk *disk;
	_Atomic unsigned block_shift; /* of the format in use; changes under `formatting` only */
	bool read_only;
	uint8_t eui64[8], uuid[16];
	_Atomic bool formatting;   /* commands are refused */
	_Atomic bool dulbe;        /* reads of deallocated blocks fail (Error Recovery feature) */
	_Atomic uint32_t mask;     /* Reservation Notification Mask: bit (1 << notification type) */
	bool reservations;         /* the disk has them */
	_Atomic bool anonymous_registered; /* perhaps: a host without a name has made a reservation command here */
	uint8_t reservation_types; /* RESCAP */
	struct reservation_watch watch;
	struct gate writers; /* Compare and Write, as one, keeps them out */

	struct short_lock bad_lock; /* protects the list */
	_Atomic size_t nr_bad;
	struct nvme_bad_range *bad;

	_Atomic bool leaving;     /* what works on it for long gives up */
	struct wait_signal ended; /* raised once, by the fiber that waits for another size, when it ends */
};

/* ------------------------------------------------------------------ events */

/* In the order in which they are reported (Base 5.2). */
enum nvme_event {
	NVME_EVENT_DOORBELL_REGISTER,
	NVME_EVENT_DOORBELL_VALUE,
	NVME_EVENT_KEEP_ALIVE,
	NVME_EVENT_TEMPERATURE,
	NVME_EVENT_NAMESPACES,
	NVME_EVENT_RESERVATION,
	NVME_EVENT_SANITIZED,
	NVME_EVENT_SCRIPT, /* what a fault script makes up */
	NVME_EVENTS,
};

/* ------------------------------------------------------------------ the controller */

/* Features of the controller that are plain numbers; current values, reset with it. */
struct nvme_settings {
	uint32_t arbitration, power, recovery_limit, coalescing, atomicity, async_events;
	uint32_t over, under; /* temperature thresholds, kelvin */
	bool no_write_cache;
	uint32_t queues;      /* as in the result of Number of Queues: both counts, one less */
	bool queues_set;
	uint64_t timestamp_ms, timestamp_set_ns;
	bool timestamp_given;
	bool no_deallocate_response; /* Sanitize Config: NODRM */
	uint8_t host_id[16];
	bool host_id_set, host_id_long;
};

struct nvme_registers {
	uint32_t cc, csts, aqa, intms;
	uint64_t asq, acq;
};

/* As SSTAT has it; in those that forbid commands bit 1 is set. */
enum nvme_sanitize_state {
	NVME_SANITIZE_NEVER = 0,
	NVME_SANITIZE_DONE = 1,
	NVME_SANITIZE_RUNNING = 2,
	NVME_SANITIZE_FAILURE = 3,
	NVME_SANITIZE_LEFT = 0x100, /* failed, and the host has left that behind */
};

/* How a self-test ended (Base 5.16.1.7). */
enum nvme_self_test_outcome {
	NVME_SELF_TEST_PASSED = 0,
	NVME_SELF_TEST_ABORTED = 1,
	NVME_SELF_TEST_RESET = 2,
	NVME_SELF_TEST_FORMAT = 4,
	NVME_SELF_TEST_FAILED = 7,
	NVME_SELF_TEST_SANITIZE = 9,
};

struct nvme {
	/* frozen */
	struct nvme_host *host;
	struct nvme_lane *lanes; /* one for each loop; the admin queue is on the first */
	unsigned nr_lanes;
	unsigned max_queues, max_vectors, max_depth, mdts, max_nsid;
	uint16_t vendor, controller_id, temperature;
	char serial[21], model[41], nqn[224];
	uint64_t born_ns;

	/* registers */
	struct short_lock lock; /* protects what follows up to the next heading; nothing is taken under it */
	struct nvme_registers regs;
	bool reset_wanted;      /* EN went to 0, or more: */
	bool reset_all;         /* the registers as well */
	bool subsystem_reset;   /* and it shows in CSTS.NSSRO */
	uint32_t reset_ticket;  /* nvme_reset() draws one, and waits until it is over */
	bool shutdown_wanted;
	bool stuck;             /* script: CSTS does not change any more */
	uint32_t stuck_csts;    /* but is shown like this */
	bool ending;
	uint32_t vectors_masked; /* raised while INTMS kept them */
	_Atomic bool any_masked; /* INTMS is not 0; read without the lock */
	_Atomic bool pin;        /* interrupts are by the pin; read without the lock */
	unsigned asserting;      /* completion queues that do */
	bool line;               /* the level that the host knows */

	/* the control fiber */
	_Atomic bool ended;         /* fibers are to end */
	struct wait_signal control; /* something for it to do */
	struct wait_signal settled; /* it has done something */
	_Atomic uint32_t resets;    /* ticket of the last one that is over */
	struct wait_group fibers;   /* control, background work, watchers */
	_Atomic bool resetting;     /* what runs long gives up */

	/* doorbells */
	_Atomic uint32_t *doorbells; /* NVME_BELLS used */
	void *own_doorbells;
	struct nvme_bell *bells;     /* [NVME_BELLS] */
	_Atomic unsigned nr_bells;   /* nobody rings those from here on: no queue has had them since the last reset */
	_Atomic uint64_t shadow, event_index; /* guest addresses; 0: none */

	/* the admin loop's, but that I/O loops read `page_shift` and `settings` words while there are queues */
	struct nvme_sq *sqs[NVME_MAX_QUEUES + 1];
	struct nvme_cq *cqs[NVME_MAX_QUEUES + 1];
	unsigned page_shift;
	struct nvme_settings settings;
	_Atomic uint32_t coalescing;       /* as in the feature */
	_Atomic bool write_through;        /* the volatile write cache is off */
	_Atomic uint64_t *no_coalescing;   /* bit a vector */
	uint16_t events_held[NVME_AERL + 1]; /* command ids of event requests */
	unsigned nr_events_held;

	/* who asks; written under who_lock: `anonymous`, or, from when the host has said who it is until the next reset, `named` */
	struct initiator anonymous, named;
	const struct initiator *_Atomic who;
	struct short_lock who_lock;

	/* namespaces */
	struct grace inside; /* commands that look at a namespace */
	struct nvme_namespace *_Atomic *namespaces; /* [max_nsid + 1] */
	struct wait_mutex namespaces_lock; /* held while one is added or removed */

	/* events and logs: from any thread */
	struct short_lock log_lock; /* protects what follows up to the next heading */
	uint32_t events_pending, events_masked; /* bits (1 << enum nvme_event) */
	uint32_t script_event;
	struct nvme_log_error errors[NVME_ERROR_ENTRIES];
	uint64_t nr_errors;
	uint32_t *changed; /* [max_nsid], in order of change */
	uint32_t nr_changed;
	struct nvme_log_reservation reservations[NVME_RESERVATION_ENTRIES];
	unsigned first_reservation, nr_reservations;
	uint64_t reservation_count;
	struct nvme_log_self_test self_test;
	struct wait_signal events_changed; /* for the fiber that delivers them */

	/* counters */
	_Atomic uint64_t power_cycles, unsafe_shutdowns, media_errors;
	_Atomic uint64_t busy_ns, busy_since;
	_Atomic uint32_t busy_lanes;

	/* keep alive */
	_Atomic uint64_t last_keep_alive;
	_Atomic uint32_t keep_alive_ms; /* 0: off */
	struct wait_signal keep_alive_changed;

	/* background work */
	_Atomic uint32_t sanitize_state; /* enum nvme_sanitize_state */
	_Atomic uint32_t sanitize_progress;
	_Atomic uint32_t sanitize_passes; /* done */
	uint32_t sanitize_cdw10;          /* changes while none runs */
	_Atomic uint32_t self_testing;    /* 0: none; else the code of what runs */
	_Atomic unsigned self_test_stop;  /* how it is to end, if not by itself */
	struct wait_signal self_test_ended;

	/* fault script */
	struct nvme_script *_Atomic script;
	struct wait_mutex script_lock; /* one is set at a time */
	struct grace script_users;     /* commands that look at it */
};

/* ------------------------------------------------------------------ registers.c */

/* Sets and clears bits of CSTS. From any thread. */
void nvme_change_csts(struct nvme *c, uint32_t clear, uint32_t set);

/* CSTS as it is now, whatever a script shows. */
uint32_t nvme_csts(struct nvme *c);

/* The controller cannot go on with a queue, and can tell nobody through it: CSTS.CFS. */
void nvme_set_fatal(struct nvme *c);

/* Raises a vector, unless INTMS keeps it: then it is raised when INTMC lets it. */
void nvme_interrupt(struct nvme *c, unsigned vector);

/* The completion queue of a doorbell has entries for the pin to tell of, or has none any more. True: it has now, and had not. */
bool nvme_assert_pin(struct nvme *c, unsigned index, bool on);

/* ------------------------------------------------------------------ queues.c */

/* Makes a queue and starts its fiber on the completion queue's loop. 0 or -ENOMEM. On the admin loop. */
int nvme_cq_start(struct nvme *c, uint16_t id, uint64_t address, uint32_t size, bool interrupts, uint16_t vector);
int nvme_sq_start(struct nvme *c, uint16_t id, uint64_t address, uint32_t size, struct nvme_cq *cq);

/* Has the queue end, without waiting. From any thread. */
void nvme_sq_stop(struct nvme_sq *sq);

/* Waits until it has ended, and frees it. On the admin loop. */
void nvme_sq_finish(struct nvme_sq *sq);
void nvme_cq_finish(struct nvme_cq *cq);

/*
 * Posts a completion; waits for room. On the loop of the queue. It is dropped where the queue ends or has failed. `field` is the
 * status word without phase; `cmd` (may be NULL) is where a script left what to corrupt.
 */
void nvme_post(struct nvme_sq *sq, uint16_t cid, uint16_t field, uint32_t dw0, uint32_t dw1,
	       const struct nvme_command *cmd);

/* The command has ended: posts its completion, and gives it back. On the loop of its queue. */
void nvme_command_end(struct nvme_command *cmd);

/* Calls visit(cmd, argument) for each command of the queue that is under way, until that returns true. On its loop. */
bool nvme_sq_visit(struct nvme_sq *sq, bool (*visit)(struct nvme_command *cmd, void *argument), void *argument);

/* ------------------------------------------------------------------ commands.c */

/* Fiber of a command, or of a fused pair. */
void nvme_command_main(void *cmd);

/*
 * Has what an I/O command that will be carried out next reads, if it does, come to the processor, and the way to what the one behind it
 * (`next`) reads; see disk_warm().
 */
void nvme_commands_warm(struct nvme_command *cmd);

/* The command's effects as in the Commands Supported and Effects log page; 0: there is no such command. */
uint32_t nvme_command_effects(bool admin, uint8_t opcode);

/* Status of a disk request, with what it says of a failure recorded for the log. `lba`: where. */
uint16_t nvme_ended(struct nvme_command *cmd, int status, const struct failure *failure);

/* ------------------------------------------------------------------ controller.c */

/* Ends all queues of a controller that is to be reset or freed; on the control fiber. */
void nvme_stop_queues(struct nvme *c);

/* ------------------------------------------------------------------ events.c */

/* Something happened that hosts may have asked to hear of. From any thread; does not wait. */
void nvme_event(struct nvme *c, enum nvme_event event);

/* The log page was read: events that it belongs to may be told of again. Under log_lock. */
void nvme_event_clear(struct nvme *c, uint8_t log);

/* Asynchronous Event Request: keeps the command. A status. */
uint16_t nvme_event_request(struct nvme_command *cmd);

/* Ends an event request that waits, with that status. False: there is none. */
bool nvme_event_abort(struct nvme *c, uint16_t cid);

/* Event requests and what was reported are forgotten, as by a reset. */
void nvme_events_reset(struct nvme *c);

/* The fiber that delivers. */
void nvme_events_main(void *c);

/* Adds an entry to the error log. From any thread. `cmd` may be NULL. */
void nvme_log_error(struct nvme *c, const struct nvme_command *cmd, uint16_t status);

/* ------------------------------------------------------------------ namespaces.c */

/* The namespace of that id, or NULL. Valid while the caller is inside c->inside. */
struct nvme_namespace *nvme_namespace(struct nvme *c, uint32_t nsid);

/* Bytes of the namespace, in whole blocks. */
uint64_t nvme_namespace_size(const struct nvme_namespace *n);

/* It goes onto the list of changed namespaces. */
void nvme_namespace_changed(struct nvme *c, uint32_t nsid);

/* The features and settings of namespaces are what they are after a reset. */
void nvme_namespaces_reset(struct nvme *c);

/* Ends all of them, when the controller is freed; 0 or what the first failing close reported. */
int nvme_namespaces_end(struct nvme *c, struct error *err);

/* Flushes every disk, as a shutdown has it. */
void nvme_namespaces_flush(struct nvme *c);

/* Blocks that were made unreadable (Write Uncorrectable). */
int nvme_bad_add(struct nvme_namespace *n, uint64_t offset, uint64_t length);
bool nvme_bad_find(struct nvme_namespace *n, uint64_t offset, uint64_t length, uint64_t *where);
void nvme_bad_remove(struct nvme_namespace *n, uint64_t offset, uint64_t length);

/* ------------------------------------------------------------------ io.c, copy.c, reservations.c */

typedef uint16_t nvme_handler(struct nvme_command *cmd, struct nvme_namespace *n);

nvme_handler nvme_io_flush, nvme_io_read, nvme_io_write, nvme_io_write_zeroes, nvme_io_dataset,
	nvme_io_write_uncorrectable, nvme_io_compare, nvme_io_verify, nvme_io_copy, nvme_io_reservation_register,
	nvme_io_reservation_acquire, nvme_io_reservation_release, nvme_io_reservation_report;

/* Compare, then Write (compare->other), with no other write between them; sets the status of the second. */
nvme_handler nvme_io_fused;

/* The range of the command, in bytes, and whether it may be: SLBA in CDW 10 and 11, NLB in CDW 12. A status. */
uint16_t nvme_io_range(struct nvme_command *cmd, const struct nvme_namespace *n, uint64_t *offset, uint64_t *length);

/* Finds out what the disk's reservations are, and watches them. */
void nvme_reservations_begin(struct nvme_namespace *n);
void nvme_reservations_end(struct nvme_namespace *n);

/* A host without an identifier of its own loses its registrations with a reset (Base 8.19). */
void nvme_reservations_forget(struct nvme *c);

/* ------------------------------------------------------------------ admin.c and what belongs to it */

nvme_handler nvme_admin_create_cq, nvme_admin_create_sq, nvme_admin_delete_cq, nvme_admin_delete_sq, nvme_admin_abort,
	nvme_admin_keep_alive, nvme_admin_doorbell_buffer, nvme_admin_identify, nvme_admin_get_log,
	nvme_admin_get_features, nvme_admin_set_features, nvme_admin_async_event, nvme_admin_format,
	nvme_admin_sanitize, nvme_admin_self_test;

/* Log2 of the block sizes that the namespace can be formatted with, in the order of its LBA formats; how many. */
unsigned nvme_format_shifts(const struct nvme_namespace *n, unsigned shifts[2]);

/* Values that a reset gives back to features. */
void nvme_features_reset(struct nvme *c);

/* The composite temperature is over or under its thresholds. */
bool nvme_temperature_warns(const struct nvme *c);

uint64_t nvme_power_on_hours(const struct nvme *c);

/* What the Feature Identifiers log says of one; 0: there is no such feature. */
uint32_t nvme_feature_effects(unsigned fid);

/* Makes up who the host is, until it says so itself. */
void nvme_host_id_reset(struct nvme *c);

/* The fiber that watches whether Keep Alive commands come. */
void nvme_keep_alive_main(void *c);

/* Fills in the log page of the sanitize operation; in units of background work. */
void nvme_sanitize_log(struct nvme *c, struct nvme_log_sanitize *log);

/* Whether a Sanitize operation, under way or failed, forbids a command; a status. */
uint16_t nvme_sanitize_allows(struct nvme *c, const struct nvme_command *cmd, bool admin);

/* Ends a self-test that runs, with that outcome, and waits for it. */
void nvme_self_test_end(struct nvme *c, unsigned outcome);

/* A reset ends a short self-test. */
void nvme_self_test_reset(struct nvme *c);

/* ------------------------------------------------------------------ script.c */

/* What a script does to a command before it is carried out. True: that was all, cmd->status says how it ends. */
bool nvme_script_before(struct nvme_command *cmd);

/* When the controller is freed. */
void nvme_script_end(struct nvme *c);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The controller: states, and how it comes into and out of them
 *
 *                 CC.EN  CSTS.RDY  queues   leads to
 *   disabled      0      0         none     enabling: CC.EN set to 1
 *   enabling      1      0         none     ready; failed, where AQA, ASQ, ACQ or CC ask for what cannot be (CSTS.CFS)
 *   ready         1      1         admin+   resetting: CC.EN set to 0, NSSR, nvme_reset(). A queue that fails sets CSTS.CFS and no more
 *   failed        1      0         none     resetting
 *   resetting     any    as it was ending   disabled, or enabling if CC.EN was set to 1 meanwhile
 *
 * Shutdown (CC.SHN) is beside these: every disk is flushed, then CSTS.SHST says that it is complete. Commands go on being served;
 * a driver that shuts down has deleted its queues.
 *
 * Accesses to the BAR only say what is wanted (registers.c): a flag for each of reset and shutdown, and CC itself. One fiber, of
 * control, does it, one thing after the other, so a guest can write what it likes as fast as it likes: a reset that was asked for
 * happens before the enabling that was asked for after it, and several resets in a row are one.
 *
 * A reset, in order:
 *
 *   1  `resetting`: no completion is posted any more; long commands are told to give up (nvme_broken())
 *   2  the admin queue stops, and its commands end. From then on nobody else makes or deletes queues
 *   3  all I/O submission queues stop at once, and their commands end, each when its disk does: what has been
 *      handed to a disk cannot be taken back, and its buffer is the guest's until then
 *   4  completion queues end; features, events and doorbells are as after power-on; RDY is 0
 *
 * So no memory of the guest's is used any more once RDY is 0.
 *
 * Who may touch what
 *
 *   regs, *_wanted                  anyone, under `lock`
 *   doorbells, bells                anyone; there as long as the controller
 *   sqs[], cqs[], settings          the admin loop: the fiber of control and those of admin commands. They wait in between, so
 *                                   each looks again after it has
 *   a completion queue and the submission queues that use it, with their commands
 *                                   the loop of its lane (queues.c)
 *   namespaces[]                    read by anyone inside `inside`; changed under namespaces_lock (namespaces.c)
 *   logs, pending events            anyone, under log_lock
 *
 * Locks: namespaces_lock is held across waits, before any other. `lock`, `log_lock` and a namespace's bad_lock are short locks:
 * nothing is taken and nothing waits under them.
 *
 * What the rules of the seam give (host.h): memory is held only while data is moved or an entry is copied; a host that wants to take
 * memory away waits for that, and a guest cannot keep it waiting longer than its slowest disk request.
 *
 * Deliberately not done: more than one controller a subsystem, metadata and protection information, command sets other than
 * NVM, controller and host memory buffers, weighted round robin, INTx, namespace management by the guest, firmware update,
 * security commands, directives, telemetry, power states other than one. None of them shows in a capability.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

/* ------------------------------------------------------------------ enabling */

static bool is_aligned(uint64_t address, unsigned shift)
{
	return !(address & ((UINT64_C(1) << shift) - 1));
}

/* What CC, AQA, ASQ and ACQ ask for can be had. */
static bool can_enable(struct nvme *c, const struct nvme_registers *r)
{
	unsigned shift = NVME_PAGE_MIN_SHIFT + NVME_CC_MPS(r->cc);
	uint32_t sq = r->aqa & 0xfff, cq = r->aqa >> 16;

	if (shift > NVME_PAGE_MAX_SHIFT || NVME_CC_CSS(r->cc) || NVME_CC_AMS(r->cc))
		return false;
	/* the admin queues may have 4096 entries whatever MQES says, but no less than 2 (Base 3.1.3.8) */
	if (!sq || !cq || !is_aligned(r->asq, shift) || !is_aligned(r->acq, shift))
		return false;
	c->page_shift = shift;
	return true;
}

static int start_admin_queues(struct nvme *c, const struct nvme_registers *r)
{
	int status = nvme_cq_start(c, 0, r->acq, (r->aqa >> 16) + 1, true, 0);

	if (status)
		return status;
	status = nvme_sq_start(c, 0, r->asq, (r->aqa & 0xfff) + 1, c->cqs[0]);
	if (status)
		nvme_cq_finish(c->cqs[0]);
	return status;
}

static void enable(struct nvme *c)
{
	struct nvme_registers r;

	short_lock_exclusive(&c->lock);
	r = c->regs;
	if (!NVME_CC_SHN(r.cc))
		c->regs.csts &= ~NVME_CSTS_SHST_MASK;
	short_unlock_exclusive(&c->lock);
	if (!can_enable(c, &r) || start_admin_queues(c, &r)) {
		nvme_set_fatal(c);
		return;
	}
	nvme_change_csts(c, 0, NVME_CSTS_RDY);
	/* doorbells rung before there was a queue are not to be missed, nor believed: they were set to 0 */
}

/* ------------------------------------------------------------------ reset */

void nvme_stop_queues(struct nvme *c)
{
	if (c->sqs[0]) {
		nvme_sq_stop(c->sqs[0]);
		nvme_sq_finish(c->sqs[0]);
	}
	for (unsigned i = 1; i <= NVME_MAX_QUEUES; i++)
		if (c->sqs[i])
			nvme_sq_stop(c->sqs[i]);
	for (unsigned i = 1; i <= NVME_MAX_QUEUES; i++)
		if (c->sqs[i])
			nvme_sq_finish(c->sqs[i]);
	for (unsigned i = 0; i <= NVME_MAX_QUEUES; i++)
		if (c->cqs[i])
			nvme_cq_finish(c->cqs[i]);
}

/* Everything that a controller level reset sets back (Base 3.7.2), but for registers. */
static void forget(struct nvme *c)
{
	atomic_store(&c->shadow, 0);
	atomic_store(&c->event_index, 0);
	for (unsigned i = 0; i < NVME_BELLS; i++) {
		atomic_store(&c->doorbells[i], 0);
		atomic_store(&c->bells[i].polled, 0);
	}
	atomic_store(&c->nr_bells, 0);
	nvme_events_reset(c);
	nvme_reservations_forget(c);
	nvme_features_reset(c);
	nvme_namespaces_reset(c);
	nvme_self_test_reset(c);
}

static void reset_registers(struct nvme *c, bool all, bool subsystem)
{
	short_lock_exclusive(&c->lock);
	c->regs.csts = subsystem ? NVME_CSTS_NSSRO : c->regs.csts & NVME_CSTS_NSSRO;
	c->regs.intms = c->vectors_masked = 0;
	atomic_store(&c->any_masked, false);
	if (all) {
		c->regs.aqa = 0;
		c->regs.asq = c->regs.acq = 0;
	}
	short_unlock_exclusive(&c->lock);
}

static void reset(struct nvme *c, bool all, bool subsystem, uint32_t ticket)
{
	atomic_store(&c->resetting, true);
	nvme_stop_queues(c);
	forget(c);
	reset_registers(c, all, subsystem);
	atomic_store(&c->resetting, false);
	atomic_store(&c->resets, ticket);
	wait_signal_raise(&c->settled);
}

static void shut_down(struct nvme *c)
{
	nvme_namespaces_flush(c);
	short_lock_exclusive(&c->lock);
	/* a reset that was asked for meanwhile comes after it */
	c->regs.csts = (c->regs.csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_COMPLETE;
	short_unlock_exclusive(&c->lock);
}

/* ------------------------------------------------------------------ the fiber of control */

enum work { NOTHING, RESET, SHUT_DOWN, ENABLE, END };

/* What is to be done next; takes the wish for it. */
static enum work next_work(struct nvme *c, bool *all, bool *subsystem, uint32_t *ticket)
{
	enum work work = NOTHING;

	short_lock_exclusive(&c->lock);
	if (c->ending) {
		work = END;
	} else if (c->reset_wanted) {
		*all = c->reset_all;
		*subsystem = c->subsystem_reset;
		*ticket = c->reset_ticket;
		c->reset_wanted = c->reset_all = c->subsystem_reset = false;
		c->shutdown_wanted &= NVME_CC_SHN(c->regs.cc) != 0; /* one from before is over with the reset */
		work = RESET;
	} else if (c->shutdown_wanted) {
		c->shutdown_wanted = false;
		work = SHUT_DOWN;
	} else if (c->regs.cc & NVME_CC_EN && !(c->regs.csts & (NVME_CSTS_RDY | NVME_CSTS_CFS))) {
		work = ENABLE;
	}
	short_unlock_exclusive(&c->lock);
	return work;
}

static void control_main(void *argument)
{
	struct nvme *c = argument;
	enum work work;
	bool all = false, subsystem = false;
	uint32_t ticket = 0;

	do {
		uint32_t seen = wait_signal_count(&c->control);
		work = next_work(c, &all, &subsystem, &ticket);
		if (work == RESET)
			reset(c, all, subsystem, ticket);
		else if (work == SHUT_DOWN)
			shut_down(c);
		else if (work == ENABLE)
			enable(c);
		else if (work == NOTHING)
			wait_signal_wait(&c->control, seen, WAIT_FOREVER);
	} while (work != END);
	reset(c, true, false, ticket);
	wait_group_done(&c->fibers);
}

void nvme_reset(struct nvme *c)
{
	uint32_t ticket;

	short_lock_exclusive(&c->lock);
	if (c->regs.csts & NVME_CSTS_RDY && (c->regs.csts & NVME_CSTS_SHST_MASK) != NVME_CSTS_SHST_COMPLETE)
		atomic_fetch_add(&c->unsafe_shutdowns, 1);
	ticket = ++c->reset_ticket;
	c->reset_wanted = c->reset_all = true;
	c->shutdown_wanted = c->stuck = false;
	c->regs.cc = 0;
	short_unlock_exclusive(&c->lock);
	atomic_fetch_add(&c->power_cycles, 1);
	wait_signal_raise(&c->control);
	for (;;) {
		uint32_t seen = wait_signal_count(&c->settled);
		if ((int32_t)(atomic_load(&c->resets) - ticket) >= 0)
			return;
		wait_signal_wait(&c->settled, seen, WAIT_FOREVER);
	}
}

/* ------------------------------------------------------------------ options */

static int check_number(const char *name, unsigned value, unsigned min, unsigned max, struct error *err)
{
	if (value >= min && value <= max)
		return 0;
	return error_set(err, -EINVAL, "nvme: %s %u is not from %u to %u", name, value, min, max);
}

static int set_text(char *to, size_t room, const char *value, const char *name, struct error *err)
{
	size_t length = strlen(value);

	if (length >= room)
		return error_set(err, -EINVAL, "nvme: %s '%s' is longer than %zu characters", name, value, room - 1);
	for (size_t i = 0; i < length; i++)
		if (value[i] < 0x20 || value[i] > 0x7e)
			return error_set(err, -EINVAL, "nvme: %s has a character that is not printable ASCII", name);
	memcpy(to, value, length + 1);
	return 0;
}

static int set_texts(struct nvme *c, const struct nvme_options *o, struct error *err)
{
	int status = set_text(c->serial, sizeof(c->serial), o->serial ? o->serial : "PLATTER0000001", "serial number", err);

	if (!status)
		status = set_text(c->model, sizeof(c->model), o->model ? o->model : "Platter NVMe Controller", "model", err);
	if (!status && o->nqn)
		return set_text(c->nqn, sizeof(c->nqn), o->nqn, "NQN", err);
	if (!status)
		snprintf(c->nqn, sizeof(c->nqn), "nqn.2014-08.org.nvmexpress:platter:%s", c->serial);
	return status;
}

static int set_options(struct nvme *c, const struct nvme_options *o, struct error *err)
{
	int status;

	c->max_queues = o->queues ? o->queues : NVME_MAX_QUEUES;
	c->max_vectors = o->vectors ? o->vectors : c->max_queues + 1;
	c->max_depth = o->depth ? o->depth : NVME_MAX_DEPTH;
	c->mdts = o->mdts ? o->mdts : 8;
	c->max_nsid = o->namespaces ? o->namespaces : NVME_MAX_NAMESPACES;
	c->vendor = o->vendor ? o->vendor : 0x1414;
	c->controller_id = o->controller_id;
	c->temperature = o->temperature ? o->temperature : 303;
	status = check_number("queues", c->max_queues, 1, NVME_MAX_QUEUES, err);
	if (!status)
		status = check_number("vectors", c->max_vectors, 1, NVME_MAX_VECTORS, err);
	if (!status)
		status = check_number("depth", c->max_depth, 2, NVME_MAX_DEPTH, err);
	if (!status)
		status = check_number("mdts", c->mdts, 1, 12, err);
	if (!status)
		status = check_number("namespaces", c->max_nsid, 1, NVME_MAX_NAMESPACES, err);
	return status ? status : set_texts(c, o, err);
}

/* ------------------------------------------------------------------ life */

static void *zeroed(size_t count, size_t size)
{
	void *p = aligned_alloc(64, (count * size + 63) / 64 * 64);

	if (p)
		memset(p, 0, count * size);
	return p;
}

static void free_all(struct nvme *c)
{
	free(c->lanes);
	free(c->bells);
	free(c->own_doorbells);
	free((void *)c->no_coalescing);
	free((void *)c->namespaces);
	free(c->changed);
	free(c);
}

static int allocate(struct nvme *c, const struct nvme_options *o, struct loop *const *loops, unsigned nr_loops)
{
	c->lanes = zeroed(nr_loops, sizeof(*c->lanes));
	c->bells = zeroed(NVME_BELLS, sizeof(*c->bells));
	c->own_doorbells = o->doorbells ? NULL : calloc(1, NVME_BAR_BYTES - NVME_REG_DOORBELLS);
	c->doorbells = o->doorbells ? (_Atomic uint32_t *)o->doorbells : c->own_doorbells;
	c->no_coalescing = calloc(c->max_vectors / 64 + 1, sizeof(*c->no_coalescing));
	c->namespaces = calloc(c->max_nsid + 1u, sizeof(*c->namespaces));
	c->changed = calloc(c->max_nsid, sizeof(*c->changed));
	if (!c->lanes || !c->bells || !c->doorbells || !c->no_coalescing || !c->namespaces || !c->changed)
		return -ENOMEM;
	c->nr_lanes = nr_loops;
	for (unsigned i = 0; i < nr_loops; i++)
		c->lanes[i].loop = loops[i];
	return 0;
}

/* Tells the fibers to end. */
static void end(struct nvme *c)
{
	short_lock_exclusive(&c->lock);
	c->ending = true;
	short_unlock_exclusive(&c->lock);
	atomic_store(&c->ended, true);
	atomic_store(&c->resetting, true);
	wait_signal_raise(&c->control);
	wait_signal_raise(&c->events_changed);
	wait_signal_raise(&c->keep_alive_changed);
}

static int start_fibers(struct nvme *c)
{
	static void (*const entries[])(void *argument) = {control_main, nvme_events_main, nvme_keep_alive_main};

	for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		wait_group_add(&c->fibers, 1);
		if (loop_spawn(c->lanes[0].loop, entries[i], c)) {
			wait_group_done(&c->fibers);
			end(c);
			wait_group_wait(&c->fibers);
			return -ENOMEM;
		}
	}
	return 0;
}

int nvme_create(const struct nvme_options *options, struct nvme_host *host, struct loop *const *loops, unsigned nr_loops,
		struct nvme **out, struct error *err)
{
	static const struct nvme_options defaults;
	struct nvme *c = zeroed(1, sizeof(*c));
	int status;

	if (!c)
		return error_set(err, -ENOMEM, "nvme: no memory");
	c->host = host;
	c->born_ns = wait_now();
	for (unsigned i = 0; i < NVME_SELF_TEST_RESULTS; i++)
		c->self_test.results[i].status = 0xf; /* there is none */
	atomic_store(&c->power_cycles, 1);
	status = set_options(c, options ? options : &defaults, err);
	if (!status) {
		status = allocate(c, options ? options : &defaults, loops, nr_loops);
		if (status)
			error_set(err, status, "nvme: no memory");
	}
	if (!status) {
		nvme_features_reset(c);
		status = start_fibers(c);
		if (status)
			error_set(err, status, "nvme: no memory for fibers");
	}
	if (status)
		free_all(c);
	else
		*out = c;
	return status;
}

int nvme_destroy(struct nvme *c, struct error *err)
{
	int status;

	if (!c)
		return 0;
	end(c);
	wait_group_wait(&c->fibers);
	status = nvme_namespaces_end(c, err);
	nvme_script_end(c);
	free_all(c);
	return status;
}

void nvme_counters(struct nvme *c, struct nvme_counters *out)
{
	*out = (struct nvme_counters){0};
	for (unsigned i = 0; i < c->nr_lanes; i++) {
		struct nvme_lane *l = &c->lanes[i];
		out->passes += atomic_load_explicit(&l->passes, memory_order_relaxed);
		out->commands += atomic_load_explicit(&l->commands, memory_order_relaxed);
		out->interrupts += atomic_load_explicit(&l->interrupts, memory_order_relaxed);
		out->in_flight += atomic_load_explicit(&l->in_flight, memory_order_relaxed);
		out->most_in_flight += atomic_load_explicit(&l->most_in_flight, memory_order_relaxed);
	}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues
 *
 * A completion queue belongs to one loop, and with it all submission queues whose completions go there: what happens to their
 * heads, tails, phases and commands happens on one thread, without a lock. Others only ring: a doorbell is a word in memory and a
 * signal, both of which are there as long as the controller, whatever becomes of the queue.
 *
 *   fiber              waits for                       does
 *   of each SQ         its tail doorbell               fetches all that is new in one pass, has runners carry it out, and looks
 *                                                      again; sleeps when nothing came meanwhile
 *   runner             the disk of a command           carries out what was fetched, one command after the other (commands.c), each
 *                                                      with its completion
 *   of each CQ         entries posted                  raises the interrupt, once for all that was posted while it was on its
 *                                                      way to the processor, or when coalescing says so; or puts the pin up,
 *                                                      until all are consumed
 *
 * Commands that need not wait have run to their end before their queue is looked at again, so with a disk in memory a burst of
 * commands costs one pass, one runner, one interrupt, and no system call. A runner whose command waits is held up with it: then
 * the queue's own fiber comes to run, finds that there is more to be carried out, and makes another one. So each command that waits has
 * a fiber to itself, and those that do not share one, whose stack the processor still holds.
 *
 * A full completion queue holds up the fibers of those commands that have ended; they wait for its head doorbell. A queue has
 * as many commands as it has entries, so a guest that does not collect completions stops being served before it costs memory.
 *
 * What ends a queue: its deletion or a reset (`stopping`): nothing is fetched any more, commands that can be broken off are, the
 * others run to their end, and then the fiber ends. What fails it: its memory cannot be reached, or a doorbell says what cannot
 * be. Then it is left alone until it is deleted, an event tells of it, and CSTS.CFS is set (Base 9.5): the ring's state is lost, and
 * for a submission queue there is no completion that could say so.
 *
 * Shadow doorbells (Base B.5), where there are any, are the truth for I/O queues; a write to the register only wakes. Before it
 * sleeps a queue asks for that write by putting what it knows into the event index, and looks once more. The admin queue
 * keeps to registers, since drivers do not update its shadow.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/checkers.h"
#include "core/safe-copy.h"
#include "nvme/data.h"
#include "nvme/internal.h"
#include "nvme/status.h"

/* So many commands a runner carries out before others on the loop have their turn. */
#define RUN 64u

#define unlikely(x) __builtin_expect(!!(x), 0)

static unsigned sq_index(uint16_t id)
{
	return 2u * id;
}

static unsigned cq_index(uint16_t id)
{
	return 2u * id + 1;
}

/* ------------------------------------------------------------------ doorbells */

/* The value of a doorbell; 0 or a negative errno. */
static int read_bell(struct nvme *c, uint16_t id, unsigned index, uint32_t *value)
{
	uint64_t shadow = id ? atomic_load_explicit(&c->shadow, memory_order_acquire) : 0;

	if (unlikely(shadow))
		return nvme_guest_load32(c, shadow + 4u * index, value);
	*value = le32toh(atomic_load_explicit(&c->doorbells[index], memory_order_acquire));
	return 0;
}

/*
 * A new queue begins at 0, and can be rung for. What nvme_poll() saw of the last queue of this number counts no more: the first ring for
 * the new one may be the same value. On the admin loop, as all that begins queues.
 */
static void begin_bell(struct nvme *c, unsigned index)
{
	atomic_store(&c->doorbells[index], 0);
	atomic_store(&c->bells[index].polled, 0);
	atomic_store(&c->bells[index].used, true);
	if (index >= atomic_load(&c->nr_bells))
		atomic_store(&c->nr_bells, index + 1);
}

static void end_bell(struct nvme *c, unsigned index)
{
	atomic_store(&c->bells[index].used, false);
}

/* Asks for a write of the register when the shadow moves on from `known`. */
static void ask_for_bell(struct nvme *c, uint16_t id, unsigned index, uint32_t known)
{
	uint64_t at = id ? atomic_load_explicit(&c->event_index, memory_order_acquire) : 0;

	if (!at)
		return;
	nvme_guest_store32(c, at + 4u * index, known); /* where that fails, reading the shadow does, too */
	checkers_fence();
}

/* ------------------------------------------------------------------ completion queues */

static void cq_fail(struct nvme_cq *cq)
{
	cq->failed = true;
	nvme_set_fatal(cq->c);
	wait_signal_raise(&cq->bell->rung); /* whoever waits for room */
}

static uint32_t cq_used(const struct nvme_cq *cq)
{
	return cq->tail >= cq->head ? cq->tail - cq->head : cq->size - cq->head + cq->tail;
}

static bool cq_is_full(const struct nvme_cq *cq)
{
	return cq_used(cq) == cq->size - 1;
}

/* Takes over what the guest says it has consumed. False when the queue has failed. */
static bool cq_look(struct nvme_cq *cq)
{
	uint32_t head, consumed;

	if (read_bell(cq->c, cq->id, cq_index(cq->id), &head)) {
		cq_fail(cq);
		return false;
	}
	consumed = head >= cq->head ? head - cq->head : cq->size - cq->head + head;
	if (head >= cq->size || consumed > cq_used(cq)) {
		nvme_log_error(cq->c, NULL, NVME_INVALID_FIELD);
		nvme_event(cq->c, NVME_EVENT_DOORBELL_VALUE);
		cq_fail(cq);
		return false;
	}
	cq->head = head;
	return true;
}

/* Waits for room for one entry. False where there will be none. */
static bool cq_wait_for_room(struct nvme_cq *cq, struct nvme_sq *sq)
{
	for (;;) {
		uint32_t seen = wait_signal_count(&cq->bell->rung);
		if (cq->failed || !cq_look(cq))
			return false;
		if (!cq_is_full(cq))
			return true;
		if (atomic_load(&sq->stopping))
			return false;
		ask_for_bell(cq->c, cq->id, cq_index(cq->id), cq->head);
		if (!cq_look(cq))
			return false;
		if (cq_is_full(cq))
			wait_signal_wait(&cq->bell->rung, seen, WAIT_FOREVER);
	}
}

/* How many entries may gather, and how long, before there is an interrupt. 0: none shall wait. */
static unsigned cq_gathers(const struct nvme_cq *cq, uint64_t *time_ns)
{
	uint32_t set = atomic_load_explicit(&cq->c->coalescing, memory_order_relaxed);

	*time_ns = (set >> 8 & 0xff) * UINT64_C(100000);
	if (!cq->id || !*time_ns ||
	    atomic_load_explicit(&cq->c->no_coalescing[cq->vector / 64], memory_order_relaxed) >> cq->vector % 64 & 1)
		return 0;
	return set & 0xff;
}

static void cq_tell(struct nvme_cq *cq)
{
	uint64_t time;

	cq->pending++;
	if (cq->told && cq->pending != cq_gathers(cq, &time) + 1)
		return;
	cq->told = true;
	wait_signal_raise(&cq->bell->posted);
}

static void cq_post(struct nvme_cq *cq, struct nvme_cqe *cqe)
{
	uint64_t address = cq->address + (uint64_t)cq->tail * sizeof(*cqe);

	cqe->status.byte[0] = (uint8_t)((cqe->status.byte[0] & ~1u) | cq->phase);
	if (++cq->tail == cq->size) {
		cq->tail = 0;
		cq->phase = !cq->phase;
	}
	checkers_releases(cq->c);
	if (unlikely(nvme_guest_post(cq->c, address, cqe)))
		cq_fail(cq);
	else if (cq->interrupts)
		cq_tell(cq);
}

void nvme_post(struct nvme_sq *sq, uint16_t cid, uint16_t field, uint32_t dw0, uint32_t dw1,
	       const struct nvme_command *cmd)
{
	struct nvme_cq *cq = sq->cq;
	struct nvme_cqe cqe = {.dw0 = put32(dw0), .dw1 = put32(dw1), .sqid = put16(sq->id), .cid = put16(cid),
			       .status = put16(field)};

	if (atomic_load_explicit(&cq->c->resetting, memory_order_relaxed) || cq->failed)
		return;
	if (unlikely(cq_is_full(cq)) && !cq_wait_for_room(cq, sq))
		return;
	cqe.sqhd = put16(sq->head);
	if (unlikely(cmd && cmd->corrupt_length))
		memcpy((uint8_t *)&cqe + cmd->corrupt_offset, cmd->corrupt, cmd->corrupt_length);
	cq_post(cq, &cqe);
}

static void cq_interrupt(struct nvme_cq *cq)
{
	cq->pending = 0;
	nvme_count(&cq->lane->interrupts, 1);
	nvme_interrupt(cq->c, cq->vector);
}

/*
 * The pin tells of entries until they are consumed. The next doorbell has to be a write of the register, shadow or not: it is what
 * takes the interrupt back, and where the guest saves itself that write, nobody else does. So it is asked for before anything is told.
 */
static void cq_assert(struct nvme_cq *cq)
{
	uint32_t known;
	bool well;

	cq->pending = 0;
	cq->told = false;
	do {
		known = cq->head;
		ask_for_bell(cq->c, cq->id, cq_index(cq->id), known);
		well = !cq->failed && cq_look(cq);
	} while (well && cq->head != known);
	if (nvme_assert_pin(cq->c, cq_index(cq->id), well && cq_used(cq)))
		nvme_count(&cq->lane->interrupts, 1);
}

/* The fiber of a completion queue. */
static void cq_main(void *argument)
{
	struct nvme_cq *cq = argument;
	uint64_t time;

	for (;;) {
		uint32_t seen = wait_signal_count(&cq->bell->posted);
		if (atomic_load(&cq->stopping))
			break;
		if (atomic_load(&cq->c->pin)) {
			if (cq->interrupts)
				cq_assert(cq);
			wait_signal_wait(&cq->bell->posted, seen, WAIT_FOREVER);
		} else if (!cq->pending) {
			cq->told = false;
			wait_signal_wait(&cq->bell->posted, seen, WAIT_FOREVER);
		} else if (cq->pending > cq_gathers(cq, &time) ||
			   wait_signal_wait(&cq->bell->posted, seen, time) == -ETIMEDOUT) {
			cq_interrupt(cq);
		}
	}
	nvme_assert_pin(cq->c, cq_index(cq->id), false);
	if (cq->pending && !atomic_load(&cq->c->pin))
		cq_interrupt(cq);
	wait_group_done(&cq->ended);
}

int nvme_cq_start(struct nvme *c, uint16_t id, uint64_t address, uint32_t size, bool interrupts, uint16_t vector)
{
	struct nvme_cq *cq = calloc(1, sizeof(*cq));

	if (!cq)
		return -ENOMEM;
	cq->c = c;
	cq->lane = &c->lanes[id ? (id - 1u) % c->nr_lanes : 0];
	cq->id = id;
	cq->vector = vector;
	cq->interrupts = interrupts;
	cq->address = address;
	cq->size = size;
	cq->phase = true;
	cq->bell = &c->bells[cq_index(id)];
	begin_bell(c, cq_index(id));
	wait_group_add(&cq->ended, 1);
	if (loop_spawn(cq->lane->loop, cq_main, cq)) {
		end_bell(c, cq_index(id));
		free(cq);
		return -ENOMEM;
	}
	c->cqs[id] = cq;
	return 0;
}

void nvme_cq_finish(struct nvme_cq *cq)
{
	cq->c->cqs[cq->id] = NULL;
	end_bell(cq->c, cq_index(cq->id));
	atomic_store(&cq->stopping, true);
	wait_signal_raise(&cq->bell->posted);
	wait_group_wait(&cq->ended);
	free(cq);
}

/* ------------------------------------------------------------------ commands come and go */

static void lane_begins(struct nvme *c, struct nvme_lane *lane)
{
	uint32_t n = atomic_load_explicit(&lane->in_flight, memory_order_relaxed) + 1;

	if (n > atomic_load_explicit(&lane->most_in_flight, memory_order_relaxed))
		atomic_store_explicit(&lane->most_in_flight, n, memory_order_relaxed);
	atomic_store_explicit(&lane->in_flight, n, memory_order_relaxed);
	if (n == 1 && atomic_fetch_add(&c->busy_lanes, 1) == 0)
		atomic_store(&c->busy_since, wait_now());
}

static void lane_ends(struct nvme *c, struct nvme_lane *lane)
{
	uint32_t n = atomic_load_explicit(&lane->in_flight, memory_order_relaxed) - 1;

	atomic_store_explicit(&lane->in_flight, n, memory_order_relaxed);
	if (n == 0 && atomic_fetch_sub(&c->busy_lanes, 1) == 1)
		atomic_fetch_add(&c->busy_ns, wait_now() - atomic_load(&c->busy_since));
}

static struct nvme_command *command_get(struct nvme_sq *sq)
{
	struct nvme_command *cmd = sq->free;

	if (unlikely(!cmd)) {
		sq->starved = true;
		return NULL;
	}
	sq->free = cmd->next;
	return cmd;
}

static void command_put(struct nvme_command *cmd)
{
	struct nvme_sq *sq = cmd->sq;

	cmd->busy = false;
	cmd->next = sq->free;
	sq->free = cmd;
	sq->in_flight--;
	if (sq->id)
		lane_ends(sq->c, sq->cq->lane);
	if (unlikely(sq->starved || atomic_load_explicit(&sq->stopping, memory_order_relaxed))) {
		sq->starved = false;
		wait_signal_raise(&sq->bell->rung);
	}
}

static void command_begin(struct nvme_command *cmd)
{
	cmd->other = NULL;
	cmd->result = cmd->result_high = 0;
	cmd->location = 0xffff;
	cmd->lba = 0;
	cmd->status = NVME_OK;
	cmd->busy = true;
	cmd->begun = cmd->breakable = cmd->no_completion = false;
	cmd->ticket = NULL;
	cmd->corrupt_length = 0;
	atomic_store_explicit(&cmd->broken, 0, memory_order_relaxed);
	cmd->sq->in_flight++;
	if (cmd->sq->id)
		lane_begins(cmd->c, cmd->sq->cq->lane);
}

void nvme_command_end(struct nvme_command *cmd)
{
	struct nvme_abort *ticket = cmd->ticket;

	cmd->breakable = false;
	if (unlikely(cmd->status && cmd->status != NVME_COMPARE_FAILURE))
		nvme_log_error(cmd->c, cmd, cmd->status);
	if (!cmd->no_completion)
		nvme_post(cmd->sq, nvme_cid(cmd), nvme_status_field(cmd->status), cmd->result, cmd->result_high, cmd);
	command_put(cmd);
	if (unlikely(ticket)) {
		ticket->aborted = cmd->status == NVME_ABORT_REQUESTED;
		wait_signal_raise(&ticket->ended);
	}
}

bool nvme_sq_visit(struct nvme_sq *sq, bool (*visit)(struct nvme_command *cmd, void *argument), void *argument)
{
	for (uint32_t i = 0; i < sq->size; i++)
		if (sq->commands[i].busy && visit(&sq->commands[i], argument))
			return true;
	return false;
}

/* ------------------------------------------------------------------ fetching */

static void ready_push(struct nvme_sq *sq, struct nvme_command *cmd)
{
	cmd->next = NULL;
	if (sq->ready)
		sq->ready_last->next = cmd;
	else
		sq->ready = cmd;
	sq->ready_last = cmd;
}

/*
 * A runner. What comes next is on its way to the processor while the present one is carried out. After its last command the queue is there
 * still, since its fiber does not come to run before this one has ended.
 */
static void run_commands(void *argument)
{
	struct nvme_sq *sq = argument;
	struct nvme_command *cmd;

	for (unsigned i = 0; i < RUN && (cmd = sq->ready); i++) {
		sq->ready = cmd->next;
		if (sq->ready)
			nvme_commands_warm(sq->ready);
		nvme_command_main(cmd);
	}
}

static void run_all(struct nvme_sq *sq)
{
	while (sq->ready) {
		/* without memory for a fiber the queue's own does it: slowly, but it goes on */
		if (unlikely(loop_spawn(sq->cq->lane->loop, run_commands, sq)))
			run_commands(sq);
		else
			wait_yield();
	}
}

static void end_with(struct nvme_command *cmd, uint16_t status)
{
	cmd->status = status;
	nvme_command_end(cmd);
}

/* The first half of a fused pair whose second half did not come behind it (Base 3.4.2). */
static void fused_is_alone(struct nvme_sq *sq)
{
	struct nvme_command *first = sq->fused;

	sq->fused = NULL;
	if (first)
		end_with(first, NVME_ABORT_MISSING_FUSED);
}

static void begin(struct nvme_sq *sq, struct nvme_command *cmd)
{
	unsigned fuse = NVME_FUSE(cmd->sqe.flags);
	struct nvme_command *first;

	command_begin(cmd);
	if (unlikely(fuse || sq->fused) && sq->id) {
		if (fuse != NVME_FUSE_SECOND)
			fused_is_alone(sq);
		if (fuse == NVME_FUSE_FIRST) {
			sq->fused = cmd;
			return;
		}
		if (fuse == NVME_FUSE_SECOND) {
			first = sq->fused;
			sq->fused = NULL;
			if (!first) {
				end_with(cmd, NVME_ABORT_MISSING_FUSED);
				return;
			}
			first->other = cmd;
			cmd = first;
		}
	}
	ready_push(sq, cmd);
}

static void sq_fail(struct nvme_sq *sq)
{
	sq->failed = true;
	nvme_set_fatal(sq->c);
}

/* What was copied, in order, to be begun when nothing is held any more. */
struct fetched {
	struct nvme_command *first, **end;
	uint64_t count;
};

/* Takes up to `count` entries from the head on, which do not go around the ring's end. 0 or -errno. */
static int fetch_copies(struct nvme_sq *sq, const char *from, uint32_t count, struct fetched *list)
{
	for (uint32_t n = 0; n < count; n++) {
		struct nvme_command *cmd = command_get(sq);
		int status;
		if (!cmd)
			return 0;
		status = from ? safe_copy(&cmd->sqe, from + (size_t)n * sizeof(cmd->sqe), sizeof(cmd->sqe))
			      : nvme_guest_read(sq->c, sq->address + (uint64_t)sq->head * sizeof(cmd->sqe), &cmd->sqe,
						sizeof(cmd->sqe));
		if (unlikely(status)) {
			cmd->next = sq->free;
			sq->free = cmd;
			return status;
		}
		sq->head = sq->head + 1 == sq->size ? 0 : sq->head + 1;
		cmd->next = NULL;
		*list->end = cmd;
		list->end = &cmd->next;
		list->count++;
	}
	return 0;
}

static int fetch_run(struct nvme_sq *sq, uint32_t count, struct fetched *list)
{
	struct nvme_host *h = sq->c->host;
	uint64_t address = sq->address + (uint64_t)sq->head * sizeof(struct nvme_sqe);
	void *token = h->ops->hold(h);
	struct iovec run;
	int status = h->ops->map(h, address, count * sizeof(struct nvme_sqe), NVME_GUEST_READ, &run);

	if (!status && run.iov_len >= sizeof(struct nvme_sqe))
		status = fetch_copies(sq, run.iov_base, (uint32_t)(run.iov_len / sizeof(struct nvme_sqe)), list);
	else if (!status || status == -EOPNOTSUPP)
		status = fetch_copies(sq, NULL, 1, list);
	h->ops->release(h, token);
	return status;
}

/* The tail doorbell; false where there is nothing new, or no sense in it. */
static bool sq_look(struct nvme_sq *sq, uint32_t *tail)
{
	if (sq->failed)
		return false;
	if (read_bell(sq->c, sq->id, sq_index(sq->id), tail)) {
		sq_fail(sq);
		return false;
	}
	if (*tail == sq->head)
		return false;
	if (unlikely(*tail >= sq->size)) {
		nvme_log_error(sq->c, NULL, NVME_INVALID_FIELD);
		nvme_event(sq->c, NVME_EVENT_DOORBELL_VALUE);
		sq_fail(sq);
		return false;
	}
	return true;
}

/* One pass: takes all that is new. False when that was nothing. */
static bool sq_fetch(struct nvme_sq *sq)
{
	struct fetched list = {.end = &list.first};
	struct nvme_command *next;
	uint32_t tail;

	if (!sq_look(sq, &tail))
		return false;
	checkers_acquires(sq->c); /* a guest uses a buffer again when the command before has ended, on whatever queue; no checker sees that */
	while (sq->head != tail && !sq->starved) {
		if (fetch_run(sq, tail > sq->head ? tail - sq->head : sq->size - sq->head, &list)) {
			sq_fail(sq);
			break;
		}
	}
	if (sq->id && list.first)
		nvme_commands_warm(list.first);
	for (struct nvme_command *cmd = list.first; cmd; cmd = next) {
		next = cmd->next;
		begin(sq, cmd);
	}
	if (sq->head == tail)
		fused_is_alone(sq);
	if (list.count) {
		nvme_count(&sq->cq->lane->passes, 1);
		nvme_count(&sq->cq->lane->commands, list.count);
	}
	return list.count;
}

static bool break_off(struct nvme_command *cmd, void *argument)
{
	(void)argument;
	atomic_store(&cmd->broken, NVME_ABORT_SQ_DELETED);
	wait_signal_raise(&cmd->breaking);
	return false;
}

/* Ends what was fetched, in one way or another. */
static void sq_drain(struct nvme_sq *sq)
{
	fused_is_alone(sq);
	nvme_sq_visit(sq, break_off, NULL);
	wait_signal_raise(&sq->cq->bell->rung); /* those that wait for room */
	for (;;) {
		uint32_t seen = wait_signal_count(&sq->bell->rung);
		if (!sq->in_flight)
			return;
		wait_signal_wait(&sq->bell->rung, seen, WAIT_FOREVER);
	}
}

/* The fiber of a submission queue. */
static void sq_main(void *argument)
{
	struct nvme_sq *sq = argument;

	for (;;) {
		uint32_t seen = wait_signal_count(&sq->bell->rung), tail;
		if (atomic_load(&sq->stopping))
			break;
		if (sq_fetch(sq)) {
			run_all(sq);
			continue;
		}
		ask_for_bell(sq->c, sq->id, sq_index(sq->id), sq->head);
		if (sq->starved || !sq->id || !atomic_load(&sq->c->shadow) || !sq_look(sq, &tail))
			wait_signal_wait(&sq->bell->rung, seen, WAIT_FOREVER);
	}
	sq_drain(sq);
	wait_group_done(&sq->ended);
}

/* ------------------------------------------------------------------ life */

int nvme_sq_start(struct nvme *c, uint16_t id, uint64_t address, uint32_t size, struct nvme_cq *cq)
{
	struct nvme_sq *sq = calloc(1, sizeof(*sq));

	if (sq)
		sq->commands = calloc(size, sizeof(*sq->commands));
	if (!sq || !sq->commands) {
		free(sq);
		return -ENOMEM;
	}
	sq->c = c;
	sq->cq = cq;
	sq->id = id;
	sq->address = address;
	sq->size = size;
	sq->bell = &c->bells[sq_index(id)];
	for (uint32_t i = size; i-- > 0;) {
		sq->commands[i].c = c;
		sq->commands[i].sq = sq;
		sq->commands[i].next = sq->free;
		sq->free = &sq->commands[i];
	}
	begin_bell(c, sq_index(id));
	wait_group_add(&sq->ended, 1);
	if (loop_spawn(cq->lane->loop, sq_main, sq)) {
		end_bell(c, sq_index(id));
		free(sq->commands);
		free(sq);
		return -ENOMEM;
	}
	cq->nr_sqs++;
	c->sqs[id] = sq;
	return 0;
}

void nvme_sq_stop(struct nvme_sq *sq)
{
	end_bell(sq->c, sq_index(sq->id));
	atomic_store(&sq->stopping, true);
	wait_signal_raise(&sq->bell->rung);
}

void nvme_sq_finish(struct nvme_sq *sq)
{
	wait_group_wait(&sq->ended);
	while (sq->users) {
		uint32_t seen = wait_signal_count(&sq->unused);
		wait_signal_wait(&sq->unused, seen, WAIT_FOREVER);
	}
	sq->c->sqs[sq->id] = NULL;
	sq->cq->nr_sqs--;
	free(sq->commands);
	free(sq);
}

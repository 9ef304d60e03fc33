/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prwrap: gives a disk persistent reservations, and keeps to them
 *
 * decorators/reservations.c has the rules; here they meet requests, which come many at a time.
 *
 *   now          who is registered and who holds what: replaced as a whole, under `lock`
 *   restricted   what in `now` is not allowed to everybody (RESERVATION_READ, _WRITE), or 0; an atomic of its own
 *   changing     one action at a time: it works on a copy of `now`, saves that if it is to persist, and puts it in place.
 *                Held while the file is written and while watches are told, not while requests are waited for
 *   grace        where requests count themselves in and out
 *
 * A request comes in, looks at `restricted`, and if what it wants is not in there, that was all: two additions on a cache line
 * of its thread, and a load. Only else it takes `lock`, shared, and looks itself up.
 *
 * What is decided holds for the whole request: one that was let through runs to its end, whatever is reserved meanwhile, which
 * SPC-4 5.13.1 leaves open. PREEMPT_ABORT is for who needs to know more: it returns when every request is out that was let
 * through before it, so that from then on nothing gets to the disk below that the new reservation would not allow. No request is
 * cut off for this: what was under way ends as it ends, and the answer says how, since a disk below cannot take back half a
 * write. So there is no -ECANCELED from here; a door that has requests in a queue of its own ends them with it when the
 * watch tells of their initiator. All that is under way is waited for, also that of others, but newcomers are not held up, nor
 * are other actions.
 *
 * A failed action changes nothing, here or in the file. The file comes first: what is enforced and reported has been saved.
 *
 * This process itself (io->who NULL or all zero), which is also every client of a door that knows no initiators, is an initiator
 * like any other and kept out like any other, with one exception: its flush, which changes nothing anybody can read, and without
 * which a disk that somebody has reserved could not be closed. A request of no bytes, and a discard where discards are
 * ignored, does nothing and conflicts with nothing: it does not come here.
 */
#include "kinds.h"

#include <errno.h>

#include "core/grace.h"
#include "core/node.h"
#include "core/short-lock.h"
#include "decorators/reservations-file.h"
#include "decorators/reservations.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

struct prwrap {
	struct disk disk;
	struct grace grace;
	_Atomic unsigned restricted; /* enum reservation_access; changes under `lock` */
	bool fixed;                  /* opened read-only over a file: no actions */
	struct short_lock lock;      /* protects `now`; nothing is taken under it */
	struct reservations now;
	struct wait_mutex changing; /* protects what follows; taken before `lock` */
	struct reservations_file file;
	struct reservation_watch *watches;
};

/* ------------------------------------------------------------------ requests */

static __attribute__((noinline)) int look_up(struct prwrap *p, enum reservation_access access, const struct io *io)
{
	enum reservation_type type;
	bool allowed;

	short_lock_shared(&p->lock);
	type = p->now.type;
	allowed = reservations_allow(&p->now, initiator_of(io), access);
	short_unlock_shared(&p->lock);
	if (allowed)
		return 0;
	return io_fail(io, -EBADE, "prwrap: reservation conflict: another initiator has a reservation (%s)",
		       reservation_type_name(type));
}

/* To be called inside the grace. */
static inline int check(struct prwrap *p, enum reservation_access access, const struct io *io)
{
	if (unlikely(atomic_load(&p->restricted) & access))
		return look_up(p, access, io);
	return 0;
}

static int prwrap_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_READ, io);

	if (!status)
		status = disk_read(d->children[0], v, offset, io);
	grace_leave(&p->grace, place);
	return status;
}

static int prwrap_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_WRITE, io);

	if (!status)
		status = disk_write(d->children[0], v, offset, io);
	grace_leave(&p->grace, place);
	return status;
}

static bool is_this_process(const struct io *io)
{
	static const struct initiator this_process;

	return !initiator_compare(initiator_of(io), &this_process);
}

static int prwrap_flush(struct disk *d, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = is_this_process(io) ? 0 : check(p, RESERVATION_WRITE, io);

	if (!status)
		status = disk_flush(d->children[0], io);
	grace_leave(&p->grace, place);
	return status;
}

static int prwrap_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_WRITE, io);

	if (!status)
		status = disk_discard(d->children[0], offset, length, io);
	grace_leave(&p->grace, place);
	return status;
}

static int prwrap_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_WRITE, io);

	if (!status)
		status = disk_write_zeroes(d->children[0], offset, length, io);
	grace_leave(&p->grace, place);
	return status;
}

static int prwrap_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_READ, io);

	if (!status)
		status = disk_extents(d->children[0], out, io);
	grace_leave(&p->grace, place);
	return status;
}

/* A hint shows nobody anything: reservations do not matter. */
static void prwrap_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	disk_warm(d->children[0], offset, length, what);
}

static int prwrap_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_READ, io);

	if (!status)
		status = disk_prefetch(d->children[0], offset, length, io);
	grace_leave(&p->grace, place);
	return status;
}

static int prwrap_resize(struct disk *d, uint64_t size, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_WRITE, io);

	if (!status)
		status = disk_resize(d->children[0], size, io);
	grace_leave(&p->grace, place);
	return status;
}

static int prwrap_eject(struct disk *d, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	_Atomic uint32_t *place = grace_enter(&p->grace);
	int status = check(p, RESERVATION_WRITE, io);

	if (!status)
		status = disk_eject(d->children[0], io);
	grace_leave(&p->grace, place);
	return status;
}

/* It shows the bytes of the disk below. */
static int prwrap_identity(struct disk *d, struct identity *out)
{
	return disk_identity(d->children[0], out);
}

/* ------------------------------------------------------------------ actions */

/* Puts `next` in place, and what was there into it. */
static void put_in_place(struct prwrap *p, struct reservations *next)
{
	struct reservations old;

	short_lock_exclusive(&p->lock);
	old = p->now;
	p->now = *next;
	atomic_store(&p->restricted, reservations_restrict(next));
	short_unlock_exclusive(&p->lock);
	*next = old;
}

/* With `changing` held, so that `now` stays. */
static int change(struct prwrap *p, const struct reservation_request *request, struct reservation_news *news,
		  const struct io *io)
{
	CLEANUP_RESERVATIONS struct reservations next = {0};
	int status;

	if (p->fixed)
		return io_fail(io, -EROFS, "prwrap: the disk was opened read-only, and its reservations are in '%s'",
			       p->file.path);
	if (reservations_copy(&next, &p->now))
		return io_fail(io, -ENOMEM, "prwrap: no memory");
	status = reservations_apply(&next, request, p->file.path != NULL, news, io);
	if (!status && p->file.path)
		status = reservations_file_save(&p->file, &next, io);
	if (!status)
		put_in_place(p, &next);
	return status;
}

static void tell_watches(struct prwrap *p, const struct reservation_news *news)
{
	for (struct reservation_watch *w = p->watches; w; w = w->next)
		for (size_t i = 0; i < news->count; i++)
			w->tell(w, &news->list[i].who, news->list[i].event);
}

static int prwrap_reserve(struct disk *d, const struct reservation_request *request, const struct io *io)
{
	CLEANUP_NEWS struct reservation_news news = {0};
	struct prwrap *p = (struct prwrap *)d;
	int status;

	wait_mutex_lock(&p->changing);
	status = change(p, request, &news, io);
	if (!status)
		tell_watches(p, &news);
	wait_mutex_unlock(&p->changing);
	if (!status && request->action == RESERVATION_PREEMPT_ABORT)
		grace_wait(&p->grace);
	return status;
}

static int prwrap_report(struct disk *d, struct reservation_report *report, const struct io *io)
{
	struct prwrap *p = (struct prwrap *)d;
	int status;

	short_lock_shared(&p->lock);
	status = reservations_report(&p->now, report);
	short_unlock_shared(&p->lock);
	if (status)
		return io_fail(io, status, "prwrap: no memory");
	report->can_persist = p->file.path && !p->fixed;
	return 0;
}

static int prwrap_watch(struct disk *d, struct reservation_watch *w, bool on)
{
	struct prwrap *p = (struct prwrap *)d;
	struct reservation_watch **at = &p->watches;

	wait_mutex_lock(&p->changing);
	if (on) {
		w->next = p->watches;
		p->watches = w;
	} else {
		while (*at && *at != w)
			at = &(*at)->next;
		if (*at)
			*at = w->next;
	}
	wait_mutex_unlock(&p->changing);
	return 0;
}

/* ------------------------------------------------------------------ the kind */

static void prwrap_describe(struct disk *d, json_t *object)
{
	struct prwrap *p = (struct prwrap *)d;
	enum reservation_type type;
	size_t count;
	bool persists;

	short_lock_shared(&p->lock);
	type = p->now.type;
	count = p->now.count;
	persists = p->now.persists;
	short_unlock_shared(&p->lock);
	json_object_set_new(object, "reservation", json_string(reservation_type_name(type)));
	json_object_set_new(object, "registrants", json_integer((json_int_t)count));
	if (!p->file.path)
		return;
	json_object_set_new(object, "persist", json_string(p->file.path));
	json_object_set_new(object, "persists", json_boolean(persists));
}

static int prwrap_close(struct disk *d, bool abandoned, struct error *err)
{
	struct prwrap *p = (struct prwrap *)d;

	(void)err;
	reservations_file_close(&p->file, abandoned);
	reservations_clear(&p->now);
	return 0;
}

static const struct disk_ops prwrap_ops = {
	.read = prwrap_read,
	.write = prwrap_write,
	.flush = prwrap_flush,
	.discard = prwrap_discard,
	.write_zeroes = prwrap_write_zeroes,
	.extents = prwrap_extents,
	.prefetch = prwrap_prefetch,
	.warm = prwrap_warm,
	.resize = prwrap_resize,
	.eject = prwrap_eject,
	.reserve = prwrap_reserve,
	.report_reservations = prwrap_report,
	.watch_reservations = prwrap_watch,
	.identity = prwrap_identity,
	.describe = prwrap_describe,
	.close = prwrap_close,
};

static int open_file(struct prwrap *p, const struct open_request *request, struct error *err)
{
	const char *path = spec_text(request->spec, "persist");
	bool read_only = request->flags & OPEN_READ_ONLY;
	int status;

	p->file = (struct reservations_file)RESERVATIONS_FILE_NONE;
	if (!path)
		return 0;
	p->fixed = read_only;
	status = reservations_file_open(&p->file, path, read_only, &p->now, err);
	atomic_store(&p->restricted, reservations_restrict(&p->now));
	return status;
}

static int prwrap_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct prwrap *p = disk_new(sizeof(*p), "prwrap", &prwrap_ops, request->children, 1);
	int status;

	if (!p)
		return error_set(err, -ENOMEM, "no memory");
	disk_inherit(&p->disk);
	status = open_file(p, request, err);
	if (!status)
		status = disk_publish(&p->disk, disk_size(request->children[0]), err);
	if (status) {
		prwrap_close(&p->disk, true, NULL);
		disk_drop_new(&p->disk);
		return status;
	}
	*out = &p->disk;
	return 0;
}

static const struct spec_field prwrap_fields[] = {
	{.name = "persist",
	 .role = SPEC_OPTION,
	 .type = SPEC_TEXT,
	 .help = "file in which reservations outlive a power loss, for initiators that ask for it; made where it is missing"},
	{0},
};

const struct disk_kind prwrap_kind = {
	.name = "prwrap",
	.summary = "persistent reservations, as of SCSI and NVMe, for a disk",
	.children = KIND_WRAPS,
	.fields = prwrap_fields,
	.open = prwrap_open,
};

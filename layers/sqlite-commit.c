/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Staging and committing
 *
 * A write goes into `active`, a RAM layer, and is answered. A thread of its own brings it into the database, in one
 * transaction for all that came together meanwhile:
 *
 *     take      close the gate; active becomes frozen, an empty one active; open the gate
 *     commit    everything in frozen, in order of offset, in one transaction
 *     publish   close the gate; the store shows the new content, frozen is dropped; open the gate
 *     sync      for a flush: the log is synced (the database runs with synchronous=NORMAL, in which a commit does not)
 *     check     when the log has grown long its pages are brought into the database file
 *
 * A request sees active, then frozen, then the store, and all three stay what they are while it is inside the gate. So what
 * it does not find in frozen the running transaction does not touch, whether its own view of the database is from before or
 * after the commit.
 *
 * When a commit fails, frozen stays and goes on to serve reads; the next flush, or a writer that needs room, tries again.
 * SQLite's roll back does no harm: nothing is only there. As long as it fails writes are taken until active is full,
 * then refused with that status, -ENOSPC usually. A failed sync is final: nobody knows what of the log is on the disk.
 *
 * Why a thread: a flush from a fiber may not block its loop, and many flushes at the same time share one commit. It is made at
 * the first write, since the process may fork before.
 *
 * Commits begin: for a flush at once; when TAKE_BYTES are staged; a second after the first write of a stage. With
 * LIMIT_BYTES staged writers wait.
 */
#include "layers/sqlite-commit.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>


#define TAKE_BYTES (UINT64_C(16) << 20)
#define LIMIT_BYTES (UINT64_C(64) << 20)
#define IDLE_NS UINT64_C(1000000000)
#define RETRY_NS UINT64_C(1000000000)
#define PIECE_BYTES (UINT64_C(1) << 20) /* copied out of the stage at a time */
#define STAGE_BYTES (UINT64_C(1) << 63) /* stages have no end of their own */
#define LOG_AT_MOST 8u                  /* times as long may the log get before readers have to wait */

static struct layer *new_stage(const struct committer *c)
{
	return ram_layer_create(STAGE_BYTES, c->block_size, 0);
}

static void drop_stage(struct layer *stage)
{
	if (stage)
		stage->ops->close(stage, true, NULL);
}

bool committer_init(struct committer *c)
{
	c->active = new_stage(c);
	return c->active != NULL;
}

static uint64_t staged(struct committer *c)
{
	uint64_t taken = atomic_load(&c->taken); /* first: it never passes `written` */

	return atomic_load(&c->written) - taken;
}

/* ------------------------------------------------------------------ one transaction */

/* All of [offset, offset + v->size) of a run that is data; pages of zeroes may be among larger blocks. */
static int read_stage(struct layer *stage, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = 0;

	for (size_t done = 0; done < v->size && !status;) {
		struct vec rest = vec_slice(v, done, v->size - done);
		struct layer_run run;
		status = stage->ops->read(stage, &rest, offset + done, &run, io);
		if (!status && run.presence != LAYER_DATA)
			vec_zero(&rest, 0, run.length);
		done += run.length;
	}
	return status;
}

static int put_run(struct committer *c, char *piece, uint64_t offset, uint64_t length, const struct io *io)
{
	int status = 0;

	while (length && !status) {
		size_t n = length < PIECE_BYTES ? (size_t)length : PIECE_BYTES;
		status = read_stage(c->frozen, &VEC_FLAT(piece, n), offset, io);
		if (!status)
			status = c->store->ops->put(c->store, c->db, offset, piece, n, io);
		offset += n;
		length -= n;
	}
	return status;
}

/* Everything in frozen. */
static int put_frozen(struct committer *c, char *piece, const struct io *io)
{
	uint64_t offset = 0;
	struct layer *stage = c->frozen;
	int status = 0;

	while (offset < STAGE_BYTES && !status) {
		struct layer_run run;
		status = stage->ops->map(stage, offset, STAGE_BYTES - offset, &run, io);
		if (!status && run.presence == LAYER_DATA)
			status = put_run(c, piece, offset, run.length, io);
		else if (!status && run.presence == LAYER_ZERO)
			status = c->store->ops->clear(c->store, c->db, offset, run.length, *c->forget, io);
		offset += run.length;
	}
	return status;
}

static int open_writer(struct committer *c, const struct io *io)
{
	int status = c->db ? 0 : db_open(c->file, DB_WRITER, DB_SMALL_CACHE, &c->db, io);

	return status == -EBUSY || status == -EROFS ? -EIO : status;
}

/* Where memory runs out this fails, too. Then the next transaction does it. */
static int roll_back(struct committer *c, const struct io *io)
{
	return sqlite3_get_autocommit(c->db->sql) ? 0 : db_exec(c->db, "ROLLBACK", "writing", io);
}

static int begin(struct committer *c, const struct io *io)
{
	int status = open_writer(c, io);

	if (!status)
		status = roll_back(c, io);
	if (!status)
		status = db_exec(c->db, "BEGIN IMMEDIATE", "writing", io);
	if (!status)
		gather_attach(&c->db->log, &c->db->database, c->db->sql);
	return status;
}

static void note_sync_failure(struct committer *c, int rc)
{
	if (db_is_sync_failure(rc))
		atomic_store(&c->final, -EIO);
}

/* What ends a transaction: `status` is that of what was done in it. After success the caller publishes. */
static int end(struct committer *c, int status, const struct io *io)
{
	if (!status)
		status = c->store->ops->finish(c->store, c->db, io);
	if (!status)
		status = db_exec(c->db, "COMMIT", "committing", io);
	if (!status)
		return 0;
	note_sync_failure(c, sqlite3_extended_errcode(c->db->sql));
	roll_back(c, &io_plain);
	c->store->ops->undo(c->store);
	return status;
}

/* Shows what was committed, under the closed gate. Returns what the caller has to drop. */
static struct layer *publish(struct committer *c)
{
	struct layer *frozen;

	gate_close(&c->gate);
	c->store->ops->publish(c->store);
	frozen = c->frozen;
	c->frozen = NULL;
	db_pool_renew(c->readers);
	gate_open(&c->gate);
	return frozen;
}

static int take(struct committer *c, const struct io *io)
{
	struct layer *fresh = new_stage(c);

	if (!fresh)
		return io_fail(io, -ENOMEM, "no memory");
	gate_close(&c->gate);
	c->frozen = c->active;
	c->active = fresh;
	atomic_store(&c->taken, atomic_load(&c->written));
	gate_open(&c->gate);
	return 0;
}

static int commit_frozen(struct committer *c, const struct io *io)
{
	char *piece = malloc(PIECE_BYTES);
	int status;

	if (!piece)
		return io_fail(io, -ENOMEM, "no memory");
	status = begin(c, io);
	if (!status)
		status = end(c, put_frozen(c, piece, io), io);
	free(piece);
	if (status)
		return status;
	drop_stage(publish(c));
	c->committed = atomic_load(&c->taken);
	return 0;
}

/* ------------------------------------------------------------------ a commit */

/* Brings the log into the database file. */
static void check_log(struct committer *c, int how)
{
	note_sync_failure(c, sqlite3_wal_checkpoint_v2(c->db->sql, NULL, how, NULL, NULL));
}

/* If it fails, the log is as good. Readers may keep it from its end again and again: in the end they have to wait. */
static void shorten_log(struct committer *c)
{
	unsigned pages = c->db ? (unsigned)c->db->log_pages : 0;

	if (pages < c->log_pages)
		return;
	check_log(c, SQLITE_CHECKPOINT_PASSIVE);
	if (pages / LOG_AT_MOST < c->log_pages)
		return;
	gate_close(&c->gate);
	db_pool_renew(c->readers);
	check_log(c, SQLITE_CHECKPOINT_RESTART);
	gate_open(&c->gate);
}

static int sync_log(struct committer *c, const struct io *io)
{
	int status = 0;

	if (atomic_load(&c->durable) == c->committed)
		return 0;
	status = db_sync_log(c->db, io);
	if (status)
		atomic_store(&c->final, status);
	else
		atomic_store(&c->durable, c->committed);
	return status;
}

static int refuse_final(struct committer *c, const struct io *io)
{
	return io_fail(io, -EIO, "'%s': an earlier flush failed, so what was written before may be lost; nothing more is written",
		       c->file->name);
}

/* What could not be committed before, then what has come since. */
static int commit(struct committer *c, bool durably, const struct io *io)
{
	int status = 0;

	if (atomic_load(&c->final))
		return refuse_final(c, io);
	if (c->frozen)
		status = commit_frozen(c, io);
	if (!status && staged(c))
		status = take(c, io);
	if (!status && c->frozen)
		status = commit_frozen(c, io);
	atomic_store(&c->retry_at, wait_now() + RETRY_NS);
	atomic_store(&c->stuck, status);
	if (!status && durably)
		status = sync_log(c, io);
	return status;
}

/* ------------------------------------------------------------------ the thread */

/* What flushes that were asked for up to `asked` are told. */
static void answer(struct committer *c, uint64_t asked, int status, const struct failure *why)
{
	short_lock_exclusive(&c->lock);
	c->answered = asked;
	c->status = status;
	memcpy(c->text, why->text, sizeof(c->text));
	short_unlock_exclusive(&c->lock);
	wait_signal_raise(&c->ended);
}
_Static_assert(sizeof(((struct committer *)0)->text) == sizeof(((struct failure *)0)->text), "copied whole");

/* Flushes that were asked for up to `asked` are answered by what begins now. */
static void work(struct committer *c)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	uint64_t asked = atomic_load(&c->asked);
	int status = commit(c, asked != c->answered, &io);

	answer(c, asked, status, &why);
	if (!status)
		shorten_log(c);
}

static bool is_urgent(struct committer *c)
{
	return atomic_load(&c->resizing) || atomic_load(&c->asked) != c->answered ||
	       (staged(c) >= TAKE_BYTES && !atomic_load(&c->stuck));
}

/*
 * Waits until it is time for the stage that was begun at `*since` (0: none was), or something cannot wait: true. The end is looked at
 * after the signal: who asks for it raises it.
 */
static bool wait_for_work(struct committer *c, uint64_t *since)
{
	uint64_t pause = atomic_load(&c->stuck) ? 5 * IDLE_NS : IDLE_NS, now = wait_now();
	uint32_t seen = wait_signal_count(&c->wake);

	if (atomic_load(&c->stopping))
		return false;
	if (is_urgent(c))
		return true;
	if (!staged(c))
		*since = 0;
	else if (!*since)
		*since = now;
	if (*since && now >= *since + pause)
		return true;
	wait_signal_wait(&c->wake, seen, *since ? *since + pause - now : WAIT_FOREVER);
	return false;
}

static void do_resize(struct committer *c);

static void *committer_main(void *argument)
{
	struct committer *c = argument;
	uint64_t since = 0;

	while (!atomic_load(&c->stopping)) {
		if (!wait_for_work(c, &since))
			continue;
		since = 0;
		if (atomic_load(&c->resizing))
			do_resize(c);
		else
			work(c);
	}
	return NULL;
}

static int start_thread(struct committer *c)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&c->thread, NULL, committer_main, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -error;
}

static int start(struct committer *c, const struct io *io)
{
	int status = 0;

	wait_mutex_lock(&c->starting);
	if (!atomic_load(&c->started))
		status = start_thread(c);
	if (!status)
		atomic_store(&c->started, true);
	wait_mutex_unlock(&c->starting);
	return status ? io_fail(io, -ENOMEM, "'%s': cannot start a thread: %s", c->file->name, strerror(-status)) : 0;
}

/* ------------------------------------------------------------------ requests */

/* Commits what there is now, waiting for it. */
static int commit_now(struct committer *c, const struct io *io)
{
	uint64_t wanted = atomic_load(&c->written);
	uint64_t number = atomic_fetch_add(&c->asked, 1) + 1;

	wait_signal_raise(&c->wake);
	for (;;) {
		uint32_t seen = wait_signal_count(&c->ended);
		char text[sizeof(c->text)];
		bool over;
		int status;
		if (atomic_load(&c->durable) >= wanted)
			return 0;
		short_lock_shared(&c->lock);
		over = c->answered >= number;
		status = c->status;
		memcpy(text, c->text, sizeof(text));
		short_unlock_shared(&c->lock);
		if (over)
			return status ? io_fail(io, status, "%s", text) : 0;
		wait_signal_wait(&c->ended, seen, WAIT_FOREVER);
	}
}

/* Full: the thread is on its way, or cannot go on. */
static int wait_for_room(struct committer *c, const struct io *io)
{
	uint32_t seen = wait_signal_count(&c->ended);
	int status = atomic_load(&c->stuck);

	if (staged(c) < LIMIT_BYTES)
		return 0;
	if (atomic_load(&c->final))
		return refuse_final(c, io);
	if (!status) {
		wait_signal_raise(&c->wake);
		wait_signal_wait(&c->ended, seen, IDLE_NS);
		return 0;
	}
	if (wait_now() >= atomic_load(&c->retry_at))
		return commit_now(c, io);
	return io_fail(io, status, "'%s': there is no room for what was written before", c->file->name);
}

int committer_admit(struct committer *c, const struct io *io)
{
	int status = 0;

	if (atomic_load_explicit(&c->final, memory_order_relaxed))
		return refuse_final(c, io);
	if (!atomic_load_explicit(&c->started, memory_order_acquire))
		status = start(c, io);
	while (!status && staged(c) >= LIMIT_BYTES)
		status = wait_for_room(c, io);
	return status;
}

void committer_note(struct committer *c, uint64_t work)
{
	uint64_t old = atomic_fetch_add(&c->written, work), taken = atomic_load(&c->taken);

	if (old == taken || (old - taken < TAKE_BYTES && old + work - taken >= TAKE_BYTES))
		wait_signal_raise(&c->wake);
}

int committer_flush(struct committer *c, const struct io *io)
{
	if (atomic_load(&c->final))
		return refuse_final(c, io);
	if (atomic_load(&c->durable) == atomic_load(&c->written))
		return 0;
	return commit_now(c, io);
}

/* ------------------------------------------------------------------ size and end */

struct resizing {
	uint64_t old, size;
	const struct io *io;
	int status;
};

/* A transaction that nothing staged stood for was committed: so that the next flush syncs it. */
static void count_resize(struct committer *c)
{
	atomic_fetch_add(&c->written, 1); /* first: see staged() */
	c->committed = atomic_fetch_add(&c->taken, 1) + 1;
}

/* All that was staged is committed. */
static int resize_store(struct committer *c, const struct resizing *r)
{
	int status = begin(c, r->io);

	if (status)
		return status;
	status = schema_set_size(c->db, r->size, r->io);
	if (!status && r->size < r->old)
		status = c->store->ops->clear(c->store, c->db, r->size, r->old - r->size, true, r->io);
	else if (!status && !*c->forget)
		status = c->store->ops->clear(c->store, c->db, r->old, r->size - r->old, false, r->io);
	status = end(c, status, r->io);
	if (!status) {
		count_resize(c);
		publish(c);
	}
	return status;
}

/* On the thread. Who asked may free the resizing as soon as it is no longer there. */
static void do_resize(struct committer *c)
{
	struct resizing *r = atomic_load(&c->resizing);

	r->status = commit(c, false, r->io);
	if (!r->status)
		r->status = resize_store(c, r);
	atomic_store(&c->resizing, NULL);
	wait_signal_raise(&c->ended);
}

int committer_resize(struct committer *c, uint64_t old, uint64_t size, const struct io *io)
{
	struct resizing r = {.old = old, .size = size, .io = io};
	int status = start(c, io);

	if (status)
		return status;
	/* who checked the old size and went in is out again, and what it did in the stage */
	gate_close(&c->gate);
	gate_open(&c->gate);
	atomic_store(&c->resizing, &r);
	wait_signal_raise(&c->wake);
	for (;;) {
		uint32_t seen = wait_signal_count(&c->ended);
		if (!atomic_load(&c->resizing))
			return r.status;
		wait_signal_wait(&c->ended, seen, WAIT_FOREVER);
	}
}

/* After a failed sync the log is left as it is: what a second one says of it is worth nothing. */
static int close_database(struct committer *c, struct error *err)
{
	int rc;

	if (atomic_load(&c->final)) {
		sqlite3_db_config(c->db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		return 0;
	}
	rc = sqlite3_wal_checkpoint_v2(c->db->sql, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	if (!db_is_sync_failure(rc))
		return 0;
	sqlite3_db_config(c->db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	return error_set(err, -EIO, "closing '%s': %s", c->file->name, sqlite3_errmsg(c->db->sql));
}

int committer_close(struct committer *c, struct error *err)
{
	int status = 0;

	if (atomic_load(&c->started)) {
		atomic_store(&c->stopping, true);
		wait_signal_raise(&c->wake);
		pthread_join(c->thread, NULL);
	}
	if (c->db)
		status = close_database(c, err);
	db_close(c->db);
	drop_stage(c->active);
	drop_stage(c->frozen);
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The SQLite layer: what is written is staged in memory and committed to a database file
 *
 *   sqlite-layer.c     the operations of a layer (this file)
 *   sqlite-commit.c    the stages, the thread that commits, flush
 *   sqlite-store.h     where the content lies: sqlite-blocks.c (with sqlite-index.c), sqlite-original.c
 *   sqlite-schema.c    geometry and checks; sqlite-create.c: a new file
 *   sqlite-db.c        connections, statements, failures; sqlite-map.c: the file in memory, for readers
 *
 * A read looks at the stages, then at what is kept in memory of the store, and only then takes a connection; in a fiber
 * what calls SQLite runs on an offload thread. All of it happens inside the committer's gate.
 *
 * Opening checks the file through a connection of its own, which is closed again: connections (and the thread) are made by
 * the requests, since the process may fork before them. What keeps other users away meanwhile is the claim of the file.
 */
#include "layers/sqlite-layer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/aio.h"
#include "core/holders.h"
#include "layers/sqlite-commit.h"

#define LOG_PAGES 16384u
#define REQUEST_WORK 512 /* what a request counts beside its bytes, as memory of the stage */

struct sqlite_layer {
	struct layer layer;
	struct db_file file;
	struct db_geometry geometry; /* as it was opened */
	bool was_created;
	_Atomic uint64_t size;
	struct store *store;
	struct db_pool readers;
	struct committer committer;
};

static struct sqlite_layer *layer_of(struct layer *l)
{
	return (struct sqlite_layer *)l;
}

/* ------------------------------------------------------------------ inside the gate */

/* Goes in if the range lies inside the disk. */
static int enter(struct sqlite_layer *s, uint64_t offset, uint64_t length, const struct io *io)
{
	uint64_t size;

	gate_enter(&s->committer.gate);
	size = atomic_load(&s->size);
	if (offset + length <= size)
		return 0;
	gate_leave(&s->committer.gate);
	return io_fail(io, -ERANGE, "'%s': past the end, %" PRIu64 " bytes", s->file.name, size);
}

static void leave(struct sqlite_layer *s)
{
	gate_leave(&s->committer.gate);
}

static int begin_change(struct sqlite_layer *s, uint64_t offset, uint64_t length, const struct io *io)
{
	int status = committer_admit(&s->committer, io);

	return status ? status : enter(s, offset, length, io);
}

static int end_change(struct sqlite_layer *s, uint64_t work, int status)
{
	committer_note(&s->committer, work + REQUEST_WORK);
	leave(s);
	return status;
}

/* ------------------------------------------------------------------ reading */

/* One question to the store. */
struct question {
	struct sqlite_layer *s;
	struct db *db;
	const struct vec *v;
	uint64_t offset, length;
	struct layer_run *run;
	const struct io *io;
};

static int call_load(void *argument)
{
	struct question *q = argument;
	int status = db_begin_reading(q->db, q->io);

	if (!status)
		status = q->s->store->ops->load(q->s->store, q->db, q->v, q->offset, q->length, q->run, q->io);
	return status == -EBUSY || status == -EROFS ? -EIO : status;
}

static int ask_database(struct question *q)
{
	struct sqlite_layer *s = q->s;
	int status = db_pool_take(&s->readers, &q->db, q->io);

	if (status)
		return status;
	status = aio_offload(call_load, q);
	db_pool_return(&s->readers, q->db);
	return status;
}

static int ask_store(struct question *q)
{
	const struct store_ops *ops = q->s->store->ops;

	if (ops->find && ops->find(q->s->store, q->offset, q->length, q->run) &&
	    (!q->v || q->run->presence != LAYER_DATA))
		return 0;
	return ask_database(q);
}

/*
 * A block that a stage has in pages of data and pages of zeroes is taken whole, as data; so is one run after another
 * of the same block. Only blocks larger than a page come here.
 */
static int read_mixed_block(struct layer *stage, const struct vec *v, uint64_t offset, struct layer_run *run,
			    const struct io *io)
{
	uint32_t block = stage->info.block_size;
	int status = 0;

	for (uint64_t done = 0; done < block && !status; done += run->length) {
		struct vec rest = vec_slice(v, done, block - done);
		status = stage->ops->read(stage, &rest, offset + done, run, io);
		if (!status && run->presence != LAYER_DATA)
			vec_zero(&rest, 0, run->length);
	}
	*run = (struct layer_run){.presence = LAYER_DATA, .length = block};
	return status;
}

static int read_stage(struct layer *stage, const struct vec *v, uint64_t offset, struct layer_run *run,
		      const struct io *io)
{
	uint32_t block = stage->info.block_size;
	int status = stage->ops->read(stage, v, offset, run, io);

	if (status || !(run->length % block))
		return status;
	if (run->length < block)
		return read_mixed_block(stage, v, offset, run, io);
	run->length -= run->length % block;
	return 0;
}

/* What a stage says of the first run, at most `*length`; false: it is absent, and *length is how far. */
static bool ask_stage(struct layer *stage, const struct vec *v, uint64_t offset, uint64_t *length,
		      struct layer_run *run, int *status, const struct io *io)
{
	struct vec part;

	if (!stage)
		return false;
	if (v) {
		part = vec_slice(v, 0, *length);
		*status = read_stage(stage, &part, offset, run, io);
	} else {
		*status = stage->ops->map(stage, offset, *length, run, io);
	}
	if (*status || run->presence != LAYER_ABSENT)
		return true;
	*length = run->length;
	return false;
}

/* The first run, with its bytes if there is a `v`. Inside the gate. */
static int find_run(struct sqlite_layer *s, const struct vec *v, uint64_t offset, uint64_t length,
		    struct layer_run *run, const struct io *io)
{
	struct question q = {.s = s, .offset = offset, .run = run, .io = io};
	struct vec part;
	int status;

	if (ask_stage(s->committer.active, v, offset, &length, run, &status, io) ||
	    ask_stage(s->committer.frozen, v, offset, &length, run, &status, io))
		return status;
	q.length = length;
	if (v) {
		part = vec_slice(v, 0, length);
		q.v = &part;
	}
	return ask_store(&q);
}

static int sqlite_read(struct layer *l, const struct vec *v, uint64_t offset, struct layer_run *run,
		       const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);
	int status = enter(s, offset, v->size, io);

	if (status)
		return status;
	status = find_run(s, v, offset, v->size, run, io);
	leave(s);
	return status;
}

static int sqlite_map(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *run,
		      const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);
	int status = enter(s, offset, length, io);

	if (status)
		return status;
	status = find_run(s, NULL, offset, length, run, io);
	leave(s);
	run->extent_flags = 0;
	return status;
}

/* ------------------------------------------------------------------ writing */

static int sqlite_write(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);
	struct layer *stage;
	int status = begin_change(s, offset, v->size, io);

	if (status)
		return status;
	stage = s->committer.active;
	return end_change(s, v->size, stage->ops->write(stage, v, offset, io));
}

/* What neither the frozen stage nor the store has is filled in the active one, which knows itself what it has. */
static int fill_run(struct sqlite_layer *s, const struct vec *rest, uint64_t offset, uint64_t *done,
		    const struct io *io)
{
	struct layer *active = s->committer.active;
	struct question q = {.s = s, .offset = offset, .io = io};
	struct layer_run run;
	struct vec v;
	int status;

	q.run = &run;
	q.length = rest->size;
	if (!ask_stage(s->committer.frozen, NULL, offset, &q.length, &run, &status, io))
		status = ask_store(&q);
	if (status)
		return status;
	*done = run.length;
	if (run.presence != LAYER_ABSENT)
		return 0;
	v = vec_slice(rest, 0, run.length);
	return active->ops->fill(active, &v, offset, io);
}

static int sqlite_fill(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);
	int status;

	if (s->file.read_only)
		return io_fail(io, -EROFS, "'%s' is open read-only", s->file.name);
	status = begin_change(s, offset, v->size, io);
	if (status)
		return status;
	for (uint64_t at = 0, done = 0; at < v->size && !status; at += done) {
		struct vec rest = vec_slice(v, at, v->size - at);
		status = fill_run(s, &rest, offset + at, &done, io);
	}
	return end_change(s, v->size, status);
}

/* A stage must say that it is zero, whatever lies below: absent means there that nothing has changed. */
static int sqlite_write_zeroes(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
			       const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);
	struct layer *stage;
	int status = begin_change(s, offset, length, io);

	(void)below_zero;
	if (status)
		return status;
	stage = s->committer.active;
	return end_change(s, 0, stage->ops->write_zeroes(stage, offset, length, false, io));
}

/* In OpenVMM's schema zeroes over another layer take a row for each sector: there the hint is not followed. */
static int sqlite_discard(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
			  const struct io *io)
{
	if (layer_of(l)->geometry.original && !l->bottom)
		return 0;
	return sqlite_write_zeroes(l, offset, length, below_zero, io);
}

static int sqlite_flush(struct layer *l, const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);

	return s->file.read_only ? 0 : committer_flush(&s->committer, io);
}

/* ------------------------------------------------------------------ size */

static int sqlite_resize(struct layer *l, uint64_t size, const struct io *io)
{
	struct sqlite_layer *s = layer_of(l);
	uint64_t old = atomic_load(&s->size);
	int status;

	if (s->geometry.original)
		return io_fail(io, -EOPNOTSUPP, "'%s': a disk in this schema cannot change its size", s->file.name);
	if (size < old)
		atomic_store(&s->size, size);
	status = size == old ? 0 : committer_resize(&s->committer, old, size, io);
	atomic_store(&s->size, status ? old : size);
	return status;
}

static uint64_t sqlite_size(struct layer *l)
{
	return atomic_load(&layer_of(l)->size);
}

/* ------------------------------------------------------------------ looking inside */

static void add_file_size(json_t *object, const char *key, const char *path, const char *ending)
{
	char name[600];
	struct stat st;

	if ((size_t)snprintf(name, sizeof(name), "%s%s", path, ending) < sizeof(name) && !stat(name, &st))
		json_object_set_new(object, key, json_integer((json_int_t)st.st_size));
}

static void sqlite_describe(struct layer *l, json_t *object)
{
	struct sqlite_layer *s = layer_of(l);
	uint64_t taken = atomic_load(&s->committer.taken);

	json_object_set_new(object, "path", json_string(s->file.name)); /* nothing where it is not UTF-8 */
	json_object_set_new(object, "schema", json_string(s->geometry.original ? "openvmm" : "platter"));
	add_file_size(object, "file_bytes", s->file.path, "");
	add_file_size(object, "log_bytes", s->file.path, "-wal");
	json_object_set_new(object, "staged_bytes",
			    json_integer((json_int_t)(atomic_load(&s->committer.written) - taken)));
}

/* ------------------------------------------------------------------ closing */

struct closing {
	struct sqlite_layer *s;
	struct error *err;
};

static int call_close(void *argument)
{
	struct closing *c = argument;

	db_pool_close(&c->s->readers);
	return committer_close(&c->s->committer, c->err);
}

static void remove_created(const struct sqlite_layer *s)
{
	static const char *const endings[] = {"-wal", ""};
	char *name;

	for (unsigned i = 0; i < 2; i++) {
		if (asprintf(&name, "%s%s", s->file.path, endings[i]) < 0)
			continue;
		unlink(name);
		free(name);
	}
}

static int flush_for_close(struct sqlite_layer *s, struct error *err)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	int status = sqlite_flush(&s->layer, &io);

	return status ? error_set(err, status, "%s", why.text) : 0;
}

static int sqlite_close(struct layer *l, bool abandoned, struct error *err)
{
	struct sqlite_layer *s = layer_of(l);
	int status = abandoned ? 0 : flush_for_close(s, err), now;
	struct closing c = {.s = s, .err = status ? NULL : err};

	now = aio_offload(call_close, &c);
	if (!status)
		status = now;
	if (abandoned && s->was_created)
		remove_created(s);
	if (s->store)
		s->store->ops->destroy(s->store);
	db_file_drop(&s->file);
	free(s);
	return status;
}

static const struct layer_ops sqlite_ops = {
	.read = sqlite_read,
	.map = sqlite_map,
	.write = sqlite_write,
	.fill = sqlite_fill,
	.write_zeroes = sqlite_write_zeroes,
	.discard = sqlite_discard,
	.flush = sqlite_flush,
	.resize = sqlite_resize,
	.size = sqlite_size,
	.describe = sqlite_describe,
	.close = sqlite_close,
};

/* ------------------------------------------------------------------ opening */

/* Failures of the database are told as those of a request are. */
static int explain(struct error *err, int status, const struct failure *why, const struct db_file *f)
{
	char holders[160];
	struct stat st;

	if (status == -ENODATA)
		status = -EINVAL;
	error_set(err, status, "%s", why->text[0] ? why->text : "cannot be opened");
	if (status == -EBUSY && !fstat(f->claim.fd, &st) && file_holders(&st, holders, sizeof(holders)))
		error_hint(err, "open in process %s", holders);
	if (status == -EROFS && f->read_only)
		error_hint(err, "it was not closed properly: open it once for writing");
	return status;
}

struct checking {
	struct db_file *file;
	struct db_geometry *out;
	const struct io *io;
};

static int call_check(void *argument)
{
	struct checking *c = argument;
	struct db *db;
	int status = db_open(c->file, DB_CHECKER, DB_SMALL_CACHE, &db, c->io);

	if (status)
		return status;
	status = schema_read(db, c->out, c->io);
	db_close(db);
	return status;
}

/* What the file says of the disk. The connection is closed again. */
static int check_file(struct sqlite_layer *s, struct error *err)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	struct checking c = {.file = &s->file, .out = &s->geometry, .io = &io};
	int status = aio_offload(call_check, &c);

	return status ? explain(err, status, &why, &s->file) : 0;
}

static void fill_in_info(struct sqlite_layer *s)
{
	const struct db_geometry *g = &s->geometry;
	struct disk_info *info = &s->layer.info;
	bool writable = !s->file.read_only && !g->logically_read_only;

	*info = (struct disk_info){
		.block_size = g->block_size,
		.physical_block_size = g->physical_block_size,
		.discard_granularity = g->block_size > 4096 ? g->block_size : 4096,
		.discard = g->original ? DISK_DISCARD_UNSPECIFIED : DISK_DISCARD_ZEROES,
		.flags = (g->original ? 0 : DISK_FAST_ZERO | DISK_RESIZABLE) | (writable ? 0 : DISK_READ_ONLY) |
			 (g->has_id ? DISK_HAS_ID : 0),
	};
	memcpy(info->id, g->id, sizeof(info->id));
}

static int make_parts(struct sqlite_layer *s, const struct sqlite_layer_options *o, struct error *err)
{
	const struct db_geometry *g = &s->geometry;

	s->store = g->original ? original_store_create(g) : block_store_create(g);
	db_pool_init(&s->readers, &s->file);
	s->committer.file = &s->file;
	s->committer.store = s->store;
	s->committer.readers = &s->readers;
	s->committer.forget = &s->layer.bottom;
	s->committer.block_size = g->block_size;
	s->committer.log_pages = o->log_pages ? o->log_pages : LOG_PAGES;
	atomic_init(&s->size, g->size);
	if (!s->store || (!s->file.read_only && !committer_init(&s->committer)))
		return error_set(err, -ENOMEM, "no memory");
	return 0;
}

static int create(const struct sqlite_layer_options *o, struct error *err)
{
	struct db_geometry g = {
		.size = o->size,
		.block_size = o->block_size,
		.physical_block_size = o->physical_block_size ? o->physical_block_size : o->block_size,
		.has_id = o->give_id,
	};

	if (o->read_only)
		return error_set(err, -EROFS, "create would write, but the disk is opened read-only");
	if (o->block_size < DISK_MIN_BLOCK || o->block_size > DISK_MAX_BLOCK || (o->block_size & (o->block_size - 1)))
		return error_set(err, -EINVAL, "block size %" PRIu32 " is not a power of two from %u to %u",
				 o->block_size, DISK_MIN_BLOCK, DISK_MAX_BLOCK);
	if (!o->size || o->size % o->block_size || o->size > DISK_MAX_END)
		return error_set(err, -EINVAL,
				 "size %" PRIu64 " is not 1 or more blocks of %" PRIu32 " bytes, up to %" PRIu64 " bytes",
				 o->size, o->block_size, (uint64_t)DISK_MAX_END);
	if (g.has_id && getrandom(g.id, sizeof(g.id), 0) != sizeof(g.id))
		return error_set_errno(err, -errno, "no random id");
	return schema_create(o->path, &g, err);
}

/* Makes the file if that is asked for, and claims it. Somebody else may take it in between: then it is his. */
static int obtain_file(struct sqlite_layer *s, const struct sqlite_layer_options *o, struct error *err)
{
	int status = o->create ? create(o, err) : 0;

	if (status)
		return status;
	status = db_file_claim(&s->file, o->path, o->read_only, err);
	if ((status == -EACCES || status == -EROFS) && !o->read_only)
		error_hint(err, "add ;ro to open it read-only");
	if (status && o->create && status != -EBUSY)
		unlink(o->path);
	return status;
}

static int open_steps(struct sqlite_layer *s, const struct sqlite_layer_options *o, struct error *err)
{
	int status = obtain_file(s, o, err);

	if (!status)
		status = check_file(s, err);
	s->was_created = o->create && status != -EBUSY;
	if (!status)
		status = make_parts(s, o, err);
	return status;
}

int sqlite_layer_open(const struct sqlite_layer_options *o, struct layer **out, struct error *err)
{
	struct sqlite_layer *s = aligned_alloc(64, sizeof(*s));
	int status;

	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	memset(s, 0, sizeof(*s));
	s->file.claim.fd = -1;
	s->layer.ops = &sqlite_ops;
	s->layer.kind = "sqlite";
	status = open_steps(s, o, err);
	if (status) {
		if (s->file.path)
			sqlite_close(&s->layer, true, NULL);
		else
			free(s);
		return status;
	}
	fill_in_info(s);
	*out = &s->layer;
	return 0;
}

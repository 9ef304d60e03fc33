/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * OpenVMM's table: a row for each sector that is present, NULL for one that is zero
 *
 * Nothing is kept in memory: presence is what a query for the range gives. A range of zeroes over other layers takes a row for
 * each sector, which is why discard, being a hint, is left out there (see sqlite-layer.c).
 */
#include "layers/sqlite-store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define MAX_ROWS 65536u /* looked at for one run without data */

struct original_store {
	struct store store;
	uint32_t sector_size;
};

enum statement {
	GET_SECTORS,
	PUT_SECTOR,
	DROP_SECTORS,
};

static const char *const texts[] = {
	[GET_SECTORS] = "SELECT sector, data FROM sectors WHERE sector>=?1 AND sector<?2 ORDER BY sector",
	[PUT_SECTOR] = "INSERT OR REPLACE INTO sectors(sector, data) VALUES(?1,?2)",
	[DROP_SECTORS] = "DELETE FROM sectors WHERE sector>=?1 AND sector<?2",
};

static struct original_store *store_of(struct store *s)
{
	return (struct original_store *)s;
}

static int bind(struct db *db, enum statement which, uint64_t a, uint64_t b, sqlite3_stmt **s, const struct io *io)
{
	int status = db_statement(db, texts, which, s, io);

	if (status)
		return status;
	sqlite3_bind_int64(*s, 1, (sqlite3_int64)a);
	sqlite3_bind_int64(*s, 2, (sqlite3_int64)b);
	return 0;
}

/* ------------------------------------------------------------------ reading */

/* A run being found, in sectors. */
struct scan {
	struct original_store *store;
	struct db *db;
	sqlite3_stmt *s;
	const struct vec *v;
	uint64_t first, next, end;
	enum presence presence;
};

static int check_row(const struct scan *c, uint64_t sector, const struct io *io)
{
	int type = sqlite3_column_type(c->s, 1);

	if (type == SQLITE_NULL)
		return 0;
	if (type == SQLITE_BLOB && sqlite3_column_bytes(c->s, 1) == (int)c->store->sector_size)
		return 0;
	return db_damaged(c->db, io, "sector %" PRIu64 " is neither NULL nor %" PRIu32 " bytes", sector,
			  c->store->sector_size);
}

/* Takes a row into the run: 1, or 0 when the run ends before it, or a failure. */
static int take_row(struct scan *c, const struct io *io)
{
	uint64_t sector = (uint64_t)sqlite3_column_int64(c->s, 0);
	bool is_zero = sqlite3_column_type(c->s, 1) == SQLITE_NULL;
	enum presence presence = is_zero ? LAYER_ZERO : LAYER_DATA;
	uint32_t size = c->store->sector_size;
	int status = check_row(c, sector, io);

	if (!status && sector < c->next) /* SQLite does not look whether the tree it searches is sorted */
		status = db_damaged(c->db, io, "the rows of 'sectors' are out of order");
	if (status)
		return status;
	if (c->next == c->first && sector == c->first)
		c->presence = presence;
	else if (sector != c->next || presence != c->presence)
		return 0;
	if (presence == LAYER_DATA && c->v)
		vec_scatter(c->v, (sector - c->first) * size, sqlite3_column_blob(c->s, 1), size);
	c->next = sector + 1;
	return 1;
}

static int scan_rows(struct scan *c, const struct io *io)
{
	int rc, status = 1;

	for (unsigned rows = 0; status == 1 && c->next < c->end; rows++) {
		if (rows == MAX_ROWS && !c->v)
			return 0;
		rc = sqlite3_step(c->s);
		if (rc == SQLITE_DONE)
			break;
		if (rc != SQLITE_ROW)
			return db_fail(c->db, rc, "reading", io);
		status = take_row(c, io);
	}
	if (status < 0)
		return status;
	if (c->next == c->first) /* absent up to the row at hand, or all of it */
		c->next = status ? c->end : (uint64_t)sqlite3_column_int64(c->s, 0);
	return 0;
}

static int original_load(struct store *s, struct db *db, const struct vec *v, uint64_t offset, uint64_t length,
			 struct layer_run *run, const struct io *io)
{
	struct original_store *o = store_of(s);
	struct scan c = {.store = o,
			 .db = db,
			 .v = v,
			 .first = offset / o->sector_size,
			 .next = offset / o->sector_size,
			 .end = (offset + length) / o->sector_size,
			 .presence = LAYER_ABSENT};
	int status = bind(db, GET_SECTORS, c.first, c.end, &c.s, io);

	if (status)
		return status;
	status = scan_rows(&c, io);
	sqlite3_reset(c.s);
	*run = (struct layer_run){.presence = c.presence, .length = (c.next - c.first) * o->sector_size};
	return status;
}

/* ------------------------------------------------------------------ changing */

static int put_sector(struct db *db, uint64_t sector, const char *bytes, uint32_t size, const struct io *io)
{
	sqlite3_stmt *s;
	int status = db_statement(db, texts, PUT_SECTOR, &s, io);

	if (status)
		return status;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)sector);
	if (bytes && !memory_is_zero(bytes, size))
		sqlite3_bind_blob(s, 2, bytes, (int)size, SQLITE_STATIC);
	else
		sqlite3_bind_null(s, 2);
	return db_run(db, s, "writing", io);
}

static int original_put(struct store *s, struct db *db, uint64_t offset, const char *bytes, size_t length,
			const struct io *io)
{
	uint32_t size = store_of(s)->sector_size;
	int status = 0;

	for (size_t at = 0; at < length && !status; at += size)
		status = put_sector(db, (offset + at) / size, bytes + at, size, io);
	return status;
}

static int original_clear(struct store *s, struct db *db, uint64_t offset, uint64_t length, bool forget,
			  const struct io *io)
{
	uint32_t size = store_of(s)->sector_size;
	uint64_t sector = offset / size, end = (offset + length) / size;
	sqlite3_stmt *drop;
	int status = 0;

	if (forget) {
		status = bind(db, DROP_SECTORS, sector, end, &drop, io);
		return status ? status : db_run(db, drop, "writing", io);
	}
	while (sector < end && !status)
		status = put_sector(db, sector++, NULL, size, io);
	return status;
}

static int original_finish(struct store *s, struct db *db, const struct io *io)
{
	(void)s;
	(void)db;
	(void)io;
	return 0;
}

static void nothing(struct store *s)
{
	(void)s;
}

static void original_destroy(struct store *s)
{
	free(store_of(s));
}

static const struct store_ops original_ops = {
	.load = original_load,
	.put = original_put,
	.clear = original_clear,
	.finish = original_finish,
	.publish = nothing,
	.undo = nothing,
	.destroy = original_destroy,
};

struct store *original_store_create(const struct db_geometry *g)
{
	struct original_store *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->store.ops = &original_ops;
	o->sector_size = g->block_size;
	return &o->store;
}

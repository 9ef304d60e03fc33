/* SPDX-License-Identifier: BSD-3-Clause */
#include "layers/sqlite-schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "core/disk.h"

#define SCHEMA_VERSION 1

const char *const schema_tables[SCHEMA_TABLES][2] = {
	{"meta", "CREATE TABLE meta(key TEXT PRIMARY KEY NOT NULL, value NOT NULL) WITHOUT ROWID"},
	{"blocks", "CREATE TABLE blocks(block INTEGER PRIMARY KEY, data BLOB NOT NULL)"},
	{"regions", "CREATE TABLE regions(region INTEGER PRIMARY KEY, data BLOB, zero BLOB)"},
	{"zero_spans", "CREATE TABLE zero_spans(first INTEGER PRIMARY KEY, count INTEGER NOT NULL)"},
};

/* ------------------------------------------------------------------ a query used once */

static int ask(struct db *db, const char *text, const char *argument, sqlite3_stmt **out, const struct io *io)
{
	int status, rc = sqlite3_prepare_v2(db->sql, text, -1, out, NULL);

	if (!rc && argument)
		rc = sqlite3_bind_text(*out, 1, argument, -1, SQLITE_STATIC);
	if (!rc)
		return 0;
	status = db_fail(db, rc, "reading its schema", io);
	sqlite3_finalize(*out);
	return status;
}

/* 1: a row; 0: none; or a failure. */
static int next_row(struct db *db, sqlite3_stmt *s, const struct io *io)
{
	int rc = sqlite3_step(s);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : db_fail(db, rc, "reading its schema", io);
}

/* ------------------------------------------------------------------ our schema */

static int check_table(struct db *db, const char *const table[2], const struct io *io)
{
	sqlite3_stmt *s;
	const char *text;
	int status = ask(db, "SELECT sql FROM sqlite_schema WHERE type='table' AND name=?", table[0], &s, io);

	if (status)
		return status;
	status = next_row(db, s, io);
	text = status == 1 ? (const char *)sqlite3_column_text(s, 0) : NULL;
	if (status == 0 || (status == 1 && (!text || strcmp(text, table[1]))))
		status = db_damaged(db, io, "its table '%s' is %s", table[0],
				    status ? "not as Platter makes it" : "missing");
	sqlite3_finalize(s);
	return status < 0 ? status : 0;
}

/*
 * Rows are written with INSERT OR REPLACE, and REPLACE goes for all that is unique: with another unique index, or such a column
 * of OpenVMM's table, a row would push out others. The rowid has none, so whatever there is is another one. Indexes that are
 * not unique cost time and do no harm.
 */
static int refuse_unique(struct db *db, const char *table, const struct io *io)
{
	sqlite3_stmt *s;
	int status = ask(db, "SELECT 1 FROM pragma_index_list(?1) WHERE \"unique\"", table, &s, io);

	if (status)
		return status;
	status = next_row(db, s, io);
	if (status == 1)
		status = io_fail(io, -EINVAL, "'%s': its table '%s' has a unique index, through which writing would lose data",
				 db->file->name, table);
	sqlite3_finalize(s);
	return status;
}

static int meta_number(struct db *db, const char *key, uint64_t *out, const struct io *io)
{
	sqlite3_stmt *s;
	int status = ask(db, "SELECT value FROM meta WHERE key=?", key, &s, io);

	if (status)
		return status;
	status = next_row(db, s, io);
	if (status == 0)
		status = db_damaged(db, io, "meta has no '%s'", key);
	else if (status == 1 && (sqlite3_column_type(s, 0) != SQLITE_INTEGER || sqlite3_column_int64(s, 0) < 0))
		status = db_damaged(db, io, "the value of '%s' in meta is not a number from 0 up", key);
	else if (status == 1)
		*out = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return status < 0 ? status : 0;
}

static int meta_id(struct db *db, struct db_geometry *out, const struct io *io)
{
	sqlite3_stmt *s;
	int status = ask(db, "SELECT value FROM meta WHERE key='id'", NULL, &s, io);

	if (status)
		return status;
	status = next_row(db, s, io);
	if (status == 1 && (sqlite3_column_type(s, 0) != SQLITE_BLOB || sqlite3_column_bytes(s, 0) != sizeof(out->id))) {
		status = db_damaged(db, io, "the 'id' in meta is not %zu bytes", sizeof(out->id));
	} else if (status == 1) {
		memcpy(out->id, sqlite3_column_blob(s, 0), sizeof(out->id));
		out->has_id = true;
	}
	sqlite3_finalize(s);
	return status < 0 ? status : 0;
}

static bool is_block_size(uint64_t n, uint64_t least, uint64_t most)
{
	return n >= least && n <= most && !(n & (n - 1));
}

/* The largest physical block that is believed; larger ones are of no use to anybody. */
#define MAX_PHYSICAL (UINT64_C(1) << 24)

static int check_sizes(struct db *db, uint64_t size, uint64_t block, uint64_t physical, const struct io *io)
{
	if (!is_block_size(block, DISK_MIN_BLOCK, DISK_MAX_BLOCK))
		return db_damaged(db, io, "the block size %" PRIu64 " is not a power of two from %u to %u", block,
				  DISK_MIN_BLOCK, DISK_MAX_BLOCK);
	if (!is_block_size(physical, block, MAX_PHYSICAL))
		return db_damaged(db, io, "the physical block size %" PRIu64 " is not a power of two from %" PRIu64
				  " to %" PRIu64, physical, block, MAX_PHYSICAL);
	if (!size || size % block || size > DISK_MAX_END)
		return db_damaged(db, io, "the size %" PRIu64 " is not 1 or more blocks of %" PRIu64
				  " bytes up to %" PRIu64, size, block, (uint64_t)DISK_MAX_END);
	return 0;
}

static int read_ours(struct db *db, struct db_geometry *out, const struct io *io)
{
	uint64_t block = 0, physical = 0;
	int64_t version = 0;
	int status = db_number(db, "PRAGMA user_version", &version, io);

	if (!status && version > SCHEMA_VERSION)
		return io_fail(io, -EINVAL, "'%s' has version %" PRId64 " of the schema, this program knows %d",
			       db->file->name, version, SCHEMA_VERSION);
	if (!status && version < SCHEMA_VERSION)
		return db_damaged(db, io, "its schema version is %" PRId64, version);
	for (size_t i = 0; i < SCHEMA_TABLES && !status; i++)
		status = check_table(db, schema_tables[i], io);
	for (size_t i = 1; i < SCHEMA_TABLES && !status; i++) /* `meta` is only updated */
		status = refuse_unique(db, schema_tables[i][0], io);
	if (!status)
		status = meta_number(db, "size", &out->size, io);
	if (!status)
		status = meta_number(db, "block_size", &block, io);
	if (!status)
		status = meta_number(db, "physical_block_size", &physical, io);
	if (!status)
		status = meta_id(db, out, io);
	if (!status)
		status = check_sizes(db, out->size, block, physical, io);
	out->block_size = (uint32_t)block;
	out->physical_block_size = (uint32_t)physical;
	return status;
}

int schema_set_size(struct db *db, uint64_t size, const struct io *io)
{
	sqlite3_stmt *s;
	int status = ask(db, "UPDATE meta SET value=?2 WHERE key=?1", "size", &s, io);

	if (status)
		return status;
	sqlite3_bind_int64(s, 2, (int64_t)size);
	status = db_run(db, s, "resize", io);
	sqlite3_finalize(s);
	return status;
}

/* ------------------------------------------------------------------ OpenVMM's schema */

/*
 * sectors(sector INTEGER NOT NULL PRIMARY KEY, data BLOB) and meta(metadata TEXT NOT NULL), in whatever words: what counts is
 * that they are plain tables with these columns, that `sector` is the rowid, and that `data` may be NULL (else REPLACE would put
 * the default there, if it has one).
 */
static int has_columns(struct db *db, const char *table, const char *columns, const struct io *io)
{
	sqlite3_stmt *s;
	int status = ask(db, "SELECT (SELECT group_concat(name||' '||upper(type)||' '||pk||' '||hidden||"
				  "iif(name='data' AND \"notnull\", ' NOT NULL', ''), ', ') FROM pragma_table_xinfo(?1)) IS ?2 "
				  "AND EXISTS (SELECT 1 FROM pragma_table_list(?1) WHERE type='table' AND wr=0 AND schema='main')",
			      table, &s, io);

	if (status)
		return status;
	sqlite3_bind_text(s, 2, columns, -1, SQLITE_STATIC);
	status = next_row(db, s, io);
	if (status == 1)
		status = sqlite3_column_int(s, 0);
	sqlite3_finalize(s);
	return status;
}

static int json_member(struct db *db, json_t *o, const char *key, uint64_t *out, const struct io *io)
{
	json_t *value = json_object_get(o, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return db_damaged(db, io, "its metadata has no '%s' that is a number from 0 up", key);
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int read_metadata(struct db *db, json_t *o, struct db_geometry *out, const struct io *io)
{
	uint64_t block = 0, sectors = 0;
	int status = json_member(db, o, "sector_size", &block, io);

	if (!status)
		status = json_member(db, o, "sector_count", &sectors, io);
	if (!status && !json_is_boolean(json_object_get(o, "logically_read_only")))
		status = db_damaged(db, io, "its metadata has no 'logically_read_only' that is true or false");
	if (!status && block && sectors > DISK_MAX_END / block)
		status = db_damaged(db, io, "%" PRIu64 " sectors of %" PRIu64 " bytes are more than %" PRIu64 " bytes",
				    sectors, block, (uint64_t)DISK_MAX_END);
	if (!status)
		status = check_sizes(db, sectors * block, block, block, io);
	out->size = sectors * block;
	out->block_size = out->physical_block_size = (uint32_t)block;
	out->logically_read_only = json_is_true(json_object_get(o, "logically_read_only"));
	return status;
}

static int read_original(struct db *db, struct db_geometry *out, const struct io *io)
{
	sqlite3_stmt *s;
	json_t *o = NULL;
	int status = ask(db, "SELECT metadata FROM meta LIMIT 2", NULL, &s, io);

	if (status)
		return status;
	out->original = true;
	status = next_row(db, s, io);
	if (status == 0)
		status = db_damaged(db, io, "its table 'meta' is empty");
	if (status == 1 && sqlite3_column_type(s, 0) == SQLITE_TEXT)
		o = json_loads((const char *)sqlite3_column_text(s, 0), 0, NULL);
	if (status == 1)
		status = next_row(db, s, io);
	if (status == 1)
		status = db_damaged(db, io, "its table 'meta' has more than one row");
	if (!status && !json_is_object(o))
		status = db_damaged(db, io, "its metadata is not a JSON object");
	if (!status)
		status = read_metadata(db, o, out, io);
	json_decref(o);
	sqlite3_finalize(s);
	return status;
}

static int is_original(struct db *db, const struct io *io)
{
	int status = has_columns(db, "sectors", "sector INTEGER 1 0, data BLOB 0 0", io);

	return status == 1 ? has_columns(db, "meta", "metadata TEXT 0 0", io) : status;
}

/* ------------------------------------------------------------------ which of them */

static int refuse_foreign(struct db *db, int64_t application, const struct io *io)
{
	if (application)
		return io_fail(io, -EINVAL, "'%s' is a database of another program (application_id 0x%08" PRIx64 "), not a disk",
			       db->file->name, (uint64_t)application & UINT32_MAX);
	return io_fail(io, -EINVAL, "'%s' is a database, but has not the tables of a disk", db->file->name);
}

int schema_read(struct db *db, struct db_geometry *out, const struct io *io)
{
	int64_t application = 0;
	int status = db_number(db, "PRAGMA application_id", &application, io);

	*out = (struct db_geometry){0};
	if (status)
		return status;
	if (application == SCHEMA_APPLICATION_ID)
		return read_ours(db, out, io);
	status = application ? 0 : is_original(db, io);
	if (!status)
		return refuse_foreign(db, application, io);
	if (status > 0)
		status = refuse_unique(db, "sectors", io);
	return status ? status : read_original(db, out, io);
}

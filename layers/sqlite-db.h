/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections to the database of a layer: how they are opened, their statements, what their failures mean. */
#ifndef PLATTER_LAYERS_SQLITE_DB_H
#define PLATTER_LAYERS_SQLITE_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/claim.h"
#include "core/io.h"
#include "core/short-lock.h"
#include "core/wait.h"
#include "layers/sqlite-gather.h"
#include "layers/sqlite-map.h"

/* ------------------------------------------------------------------ the file */

/* A database file that is claimed. */
struct db_file {
	char *name; /* as it was given, for messages */
	char *path; /* absolute, without links */
	bool read_only;
	struct file_claim claim;
};

/* Finds and claims it. On failure there is nothing to be dropped. */
int db_file_claim(struct db_file *f, const char *path, bool read_only, struct error *err);
void db_file_drop(struct db_file *f);

/* ------------------------------------------------------------------ one connection */

#define DB_STATEMENTS 24u

/* Used by one thread at a time. */
struct db {
	sqlite3 *sql;
	const struct db_file *file;
	struct db *next;   /* in the pool */
	bool is_preferred; /* by the pool: the one with the large cache, if one has it */
	int log_pages;     /* the writer: of the log, after its last commit */
	struct mapped_file mapped; /* a reader's */
	struct gathered_file log, database; /* the writer's */
	sqlite3_blob *row; /* see db_read_row() */
	unsigned rows_read;
	sqlite3_stmt *statements[DB_STATEMENTS];
};

enum db_role {
	DB_CHECKER, /* the first, when the disk is opened: finds out at once who else is there */
	DB_WRITER,  /* the one that changes things */
	DB_READER,  /* beside it, or of a file that is open read-only */
};

/*
 * Blocks. The status is that of a request, or of an open: 0 or a negative errno, with the reason in `io`. `cache_bytes`: what it
 * may keep of the file in memory.
 */
int db_open(const struct db_file *f, enum db_role role, unsigned cache_bytes, struct db **out, const struct io *io);

#define DB_SMALL_CACHE (8u << 20)
#define DB_LARGE_CACHE (64u << 20)
#define DB_MAPPED_CACHE (2u << 20) /* where a page costs a copy: more than the processor's caches hold only makes it slower */

/* Blocks. Accepts NULL. */
void db_close(struct db *db);

/*
 * The statement `index` of `texts`, made at its first use, with nothing bound; *out is NULL where that fails.
 * A connection is used with one list of texts only.
 */
int db_statement(struct db *db, const char *const *texts, unsigned index, sqlite3_stmt **out, const struct io *io);

/* Steps a statement that gives no rows, and resets it. */
int db_run(struct db *db, sqlite3_stmt *s, const char *doing, const struct io *io);

/*
 * A quick way to `size` bytes at `offset` of the column `data` in a row of `table`, if that is `whole` bytes. False when it
 * did not work, for whatever reason: then the statement that asks for the row says what is wrong. For readers, in a
 * read transaction; always of the same table.
 */
bool db_read_row(struct db *db, const char *table, int64_t row, int whole, void *out, int size, int offset);

/* Runs SQL text that gives no rows. */
int db_exec(struct db *db, const char *text, const char *doing, const struct io *io);

/* The first column of the first row as a number. */
int db_number(struct db *db, const char *text, int64_t *out, const struct io *io);

/* Says that SQLite failed with `rc` while `doing` this; the status for it. */
int db_fail(struct db *db, int rc, const char *doing, const struct io *io);

/* Says what is wrong with the content of the file; the status for it. */
int db_damaged(struct db *db, const struct io *io, const char *format, ...)
	__attribute__((format(printf, 3, 4), cold));

/* Syncs the log, so that all commits so far are durable. */
int db_sync_log(struct db *db, const struct io *io);

/* True when a failure of db_sync_log() or of a commit was one of syncing, which cannot be made good. */
bool db_is_sync_failure(int rc);

/* ------------------------------------------------------------------ the readers' connections */

/*
 * Idle connections, made on demand. Each keeps its read transaction open between requests, until db_pool_renew().
 * Taken and returned by threads and fibers.
 */
struct db_pool {
	const struct db_file *file;
	struct short_lock lock; /* protects the three below */
	struct db *idle;
	unsigned count;  /* open, idle or not */
	unsigned enough; /* as many were open when one more could not be opened; 0: it was not so, or not since they were renewed */
	struct wait_signal returned;
	struct db_map map; /* changed while no connection is in use */
};

/* Before anything else, and before threads: maps the file. */
void db_pool_init(struct db_pool *p, const struct db_file *f);

/*
 * Takes a connection, waiting for one where the most there may be are in use. It fails only if not even the first can be opened.
 */
int db_pool_take(struct db_pool *p, struct db **out, const struct io *io);
void db_pool_return(struct db_pool *p, struct db *db);

/* Blocks. The content changed, and no connection is in use: the next request of each sees what is new. */
void db_pool_renew(struct db_pool *p);

/* Blocks. Closes all; none is in use. */
void db_pool_close(struct db_pool *p);

/* Begins the read transaction of a connection that has none. To be called before its first statement of a request. */
int db_begin_reading(struct db *db, const struct io *io);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SQLite writes its log by frames, with two system calls for each page (24 bytes, then 4 KiB), and a checkpoint copies it page by page,
 * with a read and a write for each. Where bytes are written in order, which is what a disk that is filled gives, one call for
 * many pages does. So, of the methods of the writer's two open files (https://www.sqlite.org/c3ref/io_methods.html), xWrite
 * gathers what goes on where the last write ended, and xRead reads ahead in the log where reads go on in order.
 *
 * What was gathered is in the file
 *
 *   before a commit is   a frame says in its header that it is the last of a transaction (https://www.sqlite.org/fileformat2.html,
 *                        section 4.1); from there on nothing is gathered, until a frame comes that is not. Other connections look for
 *                        nothing behind the last commit that the index of the log shows, and it shows one only when
 *                        these writes have returned
 *   before it is synced  a sync covers what was written before it. During a checkpoint the others look for these pages in the log until the
 *                        index says that they were copied, which it says after the sync
 *   before anything else is asked of the file: reading, size, truncation
 *   before a write that does not go on in order
 *
 * A failure is told by the call that made it necessary. So SQLite may hear of it at a later frame than the one that could not be written,
 * but not after the commit, and not after the sync.
 *
 * What was read ahead is forgotten when the log is written to, synced (which is how a checkpoint begins) or truncated. Nobody else
 * writes to it.
 */
#include "layers/sqlite-gather.h"

#include <stdlib.h>
#include <string.h>

#define ROOM (124 << 10) /* SQLite's own file methods take the length of a call modulo 128 KiB */
#define LOG_HEADER 32
#define FRAME_HEADER 24

static struct gathered_file *gathered_of(sqlite3_file *file)
{
	return (struct gathered_file *)file->pMethods;
}

/* Whatever happens, nothing is gathered afterwards: a write that failed is not made by a later call, which nobody expects. */
static int let_go(struct gathered_file *f, sqlite3_file *file)
{
	int written = f->written;

	f->written = f->read = 0;
	return written ? f->real->xWrite(file, f->memory, written, f->at) : SQLITE_OK;
}

static bool has_memory(struct gathered_file *f)
{
	if (!f->memory)
		f->memory = malloc(ROOM);
	return f->memory != NULL;
}

/* ------------------------------------------------------------------ writing */

/* The number of pages of the database after the commit: not 0 in the header of a frame that ends a transaction. */
static bool ends_transaction(const unsigned char *header)
{
	return header[4] | header[5] | header[6] | header[7];
}

/* Keeps `plain` up to date: the header of the log, and what is longer or shorter than that of a frame, say nothing. */
static void look_at_frame(struct gathered_file *f, const void *from, int size, sqlite3_int64 offset)
{
	if (f->is_log && size == FRAME_HEADER && offset >= LOG_HEADER)
		f->plain = ends_transaction(from);
}

static int gathering_write(sqlite3_file *file, const void *from, int size, sqlite3_int64 offset)
{
	struct gathered_file *f = gathered_of(file);
	int rc = SQLITE_OK;

	look_at_frame(f, from, size, offset);
	if (f->plain || size > ROOM - f->written || offset != f->at + f->written)
		rc = let_go(f, file);
	if (rc)
		return rc;
	if (f->plain || size > ROOM || !has_memory(f))
		return f->real->xWrite(file, from, size, offset);
	f->read = 0;
	if (!f->written)
		f->at = offset;
	memcpy(f->memory + f->written, from, (size_t)size);
	f->written += size;
	return SQLITE_OK;
}

/* ------------------------------------------------------------------ reading */

/* Reads what lies at `offset`, at least `size` bytes, into the memory. False where that cannot be had. */
static bool read_ahead(struct gathered_file *f, sqlite3_file *file, int size, sqlite3_int64 offset)
{
	sqlite3_int64 end;

	f->read = 0;
	if (f->real->xFileSize(file, &end) || end - offset < size || !has_memory(f))
		return false;
	f->at = offset;
	if (end - offset > ROOM)
		end = offset + ROOM;
	if (f->real->xRead(file, f->memory, (int)(end - offset), offset))
		return false;
	f->read = (int)(end - offset);
	return true;
}

static bool is_ahead(const struct gathered_file *f, int size, sqlite3_int64 offset)
{
	return offset >= f->at && offset + size <= f->at + f->read;
}

static int gathering_read(sqlite3_file *file, void *to, int size, sqlite3_int64 offset)
{
	struct gathered_file *f = gathered_of(file);
	bool in_order = f->is_log && offset == f->next && size < ROOM;
	int rc = f->written ? let_go(f, file) : SQLITE_OK;

	if (rc)
		return rc;
	f->next = offset + size + FRAME_HEADER;
	if (!is_ahead(f, size, offset) && !(in_order && read_ahead(f, file, size, offset)))
		return f->real->xRead(file, to, size, offset);
	memcpy(to, f->memory + (offset - f->at), (size_t)size);
	return SQLITE_OK;
}

/* ------------------------------------------------------------------ all else */

static int gathering_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	struct gathered_file *f = gathered_of(file);
	int rc = let_go(f, file);

	return rc ? rc : f->real->xTruncate(file, size);
}

static int gathering_sync(sqlite3_file *file, int flags)
{
	struct gathered_file *f = gathered_of(file);
	int rc = let_go(f, file);

	return rc ? rc : f->real->xSync(file, flags);
}

static int gathering_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
	struct gathered_file *f = gathered_of(file);
	int rc = f->written ? let_go(f, file) : SQLITE_OK;

	return rc ? rc : f->real->xFileSize(file, size);
}

/* What is gathered still belongs to a transaction that was not committed, or to a checkpoint that failed. */
static int gathering_close(sqlite3_file *file)
{
	return gathered_of(file)->real->xClose(file);
}

/* ------------------------------------------------------------------ attaching */

static void attach(struct gathered_file *f, sqlite3 *sql, int which, bool is_log)
{
	sqlite3_file *file = NULL;

	if (sqlite3_file_control(sql, "main", which, &file) || !file || !file->pMethods)
		return;
	f->real = file->pMethods;
	f->is_log = is_log;
	f->methods = *f->real;
	if (f->methods.iVersion > 3) /* what a later version adds is not in the copy */
		f->methods.iVersion = 3;
	f->methods.xClose = gathering_close;
	f->methods.xRead = gathering_read;
	f->methods.xWrite = gathering_write;
	f->methods.xTruncate = gathering_truncate;
	f->methods.xSync = gathering_sync;
	f->methods.xFileSize = gathering_file_size;
	file->pMethods = &f->methods;
}

void gather_attach(struct gathered_file *log, struct gathered_file *database, sqlite3 *sql)
{
	if (!log->real)
		attach(log, sql, SQLITE_FCNTL_JOURNAL_POINTER, true);
	if (log->real && !database->real)
		attach(database, sql, SQLITE_FCNTL_FILE_POINTER, false);
}

void gather_free(struct gathered_file *f)
{
	free(f->memory);
	f->memory = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a database file is opened
 *
 *   writing   in WAL mode through SQLite's VFS "unix-excl": it locks all other processes out, keeps the index of the log in
 *             memory instead of a shared file, and makes no system call for the locks of a reader. All connections of
 *             the process use it, and all are opened for writing, since a read-only one would take (and give up!)
 *             locks of its own.
 *   reading   nobody else writes as long as our claim lasts. A file that was closed properly is opened as immutable, which works
 *             on read-only media and folders. One with a log or a journal beside it was not: it is opened without
 *             locks ("unix-none") in exclusive locking mode, so that the log is read, its index is kept in memory and
 *             nothing is written. A journal that would have to be rolled back is an error then.
 *
 * Against SQLite in other processes a reader holds what SQLite calls a shared lock, on one of the 510 bytes it consists of
 * ("File Locking And Concurrency In SQLite Version 3", section 3, and its os.h); the others tell whether a connection
 * of SQLite proper is there. In WAL mode that lock does not keep writers out: a file whose header says WAL must not be
 * written to by others while it is read here.
 *
 * The file may be a stranger's: nothing in its schema may run code (triggers, views, extensions are off), strings are
 * limited, and SQLite does not map it into memory, where a file that shrinks would kill the process (see sqlite-map.c).
 */
#include "layers/sqlite-db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/aio.h"
#include "core/holders.h"

#define SHARED_FIRST 0x40000002
#define SHARED_SIZE 510

#define BUSY_MS 10000 /* connections of this process meet while one recovers the log, or closes it */
#define MAX_READERS 8u
#define MAX_PATH 512u /* of SQLite's unix VFS, with "-journal" */

/* ------------------------------------------------------------------ failures */

bool db_is_sync_failure(int rc)
{
	return rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC;
}

static int io_status(int rc, int error)
{
	if (rc == SQLITE_IOERR_NOMEM)
		return -ENOMEM;
	if (rc == SQLITE_IOERR_SHORT_READ || rc == SQLITE_IOERR_CORRUPTFS)
		return -ENODATA;
	return error == ENOSPC || error == EDQUOT || error == EFBIG ? -ENOSPC : -EIO;
}

/* `error`: what the system said, where it was asked. */
static int status_of(int rc, int error)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_FORMAT:
	case SQLITE_MISMATCH:
	case SQLITE_TOOBIG:
		return -ENODATA;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EROFS;
	case SQLITE_IOERR:
		return io_status(rc, error);
	case SQLITE_CANTOPEN:
		return error ? -error : -EIO;
	default:
		return -EIO;
	}
}

int db_fail(struct db *db, int rc, const char *doing, const struct io *io)
{
	int error = sqlite3_system_errno(db->sql);
	bool system = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN;
	int status = status_of(rc, system ? error : 0);
	const char *text = sqlite3_errcode(db->sql) == (rc & 0xff) || sqlite3_extended_errcode(db->sql) == rc
				   ? sqlite3_errmsg(db->sql)
				   : sqlite3_errstr(rc);

	if (status == -ENODATA)
		return io_fail_medium(io, MEDIUM_UNRECOVERED_READ, "'%s': %s: %s", db->file->name, doing, text);
	if (system && error)
		return io_fail(io, status, "'%s': %s: %s (%s)", db->file->name, doing, text, strerror(error));
	return io_fail(io, status, "'%s': %s: %s", db->file->name, doing, text);
}

int db_damaged(struct db *db, const struct io *io, const char *format, ...)
{
	char text[160];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return io_fail_medium(io, MEDIUM_UNRECOVERED_READ, "'%s' is damaged: %s", db->file->name, text);
}

/* ------------------------------------------------------------------ the file */

static int is_lock_held(const struct db_file *f, struct flock *l)
{
	return !fcntl(f->claim.fd, F_OFD_GETLK, l) && l->l_type != F_UNLCK;
}

static int refuse_foreign(const struct db_file *f, const struct flock *l, struct error *err)
{
	char text[160];
	struct stat st;

	error_set(err, -EBUSY, "'%s' is open in another process", f->name);
	if (!fstat(f->claim.fd, &st) && file_holders(&st, text, sizeof(text)))
		return error_hint(err, "%s", text);
	return l->l_pid > 0 ? error_hint(err, "process %ld", (long)l->l_pid) : -EBUSY;
}

/* True when the header (https://www.sqlite.org/fileformat.html, section 1.3, offset 18) says WAL. */
static bool header_says_wal(int fd)
{
	unsigned char version[2];

	return pread(fd, version, sizeof(version), 18) == sizeof(version) && version[1] == 2;
}

/* What a reader has to know of SQLite elsewhere; see above. */
static int lock_as_reader(struct db_file *f, struct error *err)
{
	struct flock mine = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = SHARED_FIRST, .l_len = 1};
	struct flock others = {.l_type = F_WRLCK,
			       .l_whence = SEEK_SET,
			       .l_start = SHARED_FIRST + 1,
			       .l_len = SHARED_SIZE - 1};

	if (fcntl(f->claim.fd, F_OFD_SETLK, &mine) && (errno == EAGAIN || errno == EACCES))
		return refuse_foreign(f, &mine, err);
	if (is_lock_held(f, &others) && (others.l_type == F_WRLCK || header_says_wal(f->claim.fd)))
		return refuse_foreign(f, &others, err);
	return 0;
}

int db_file_claim(struct db_file *f, const char *path, bool read_only, struct error *err)
{
	int status;

	*f = (struct db_file){.read_only = read_only, .claim = FILE_CLAIM_NONE};
	f->name = strdup(path);
	f->path = realpath(path, NULL);
	if (!f->path || !f->name)
		status = error_set_errno(err, f->name ? -errno : -ENOMEM, "cannot open '%s'", path);
	else if (strlen(f->path) + sizeof("-journal") > MAX_PATH)
		status = error_set(err, -ENAMETOOLONG, "'%s': SQLite takes paths of at most %u bytes", path,
				   MAX_PATH);
	else
		status = file_claim_take(&f->claim, path, !read_only, err);
	if (!status && read_only)
		status = lock_as_reader(f, err);
	if (status)
		db_file_drop(f);
	return status;
}

void db_file_drop(struct db_file *f)
{
	file_claim_drop(&f->claim);
	free(f->name);
	free(f->path);
	f->name = f->path = NULL;
}

/* ------------------------------------------------------------------ opening */

static bool stands_beside(const struct db_file *f, const char *ending)
{
	char path[MAX_PATH + 16];
	struct stat st;

	snprintf(path, sizeof(path), "%s%s", f->path, ending);
	return !stat(path, &st) && st.st_size;
}

/* The path as a URI: SQLite's only way to be told that a file is immutable. */
static void make_uri(const char *path, char *out)
{
	static const char hex[] = "0123456789abcdef";

	out += sprintf(out, "file://");
	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("/._-", c)) {
			*out++ = (char)c;
		} else {
			*out++ = '%';
			*out++ = hex[c >> 4];
			*out++ = hex[c & 15];
		}
	}
	strcpy(out, "?immutable=1");
}

static int open_connection(struct db *db, bool *immutable)
{
	const struct db_file *f = db->file;
	const int common = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
	char uri[3 * MAX_PATH + 32];

	*immutable = false;
	if (!f->read_only)
		return sqlite3_open_v2(f->path, &db->sql, common | SQLITE_OPEN_READWRITE, "unix-excl");
	if (stands_beside(f, "-wal") || stands_beside(f, "-journal"))
		return sqlite3_open_v2(f->path, &db->sql, common | SQLITE_OPEN_READONLY, "unix-none");
	*immutable = true;
	make_uri(f->path, uri);
	return sqlite3_open_v2(uri, &db->sql, common | SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, "unix-none");
}

static int note_log(void *db, sqlite3 *sql, const char *schema, int pages)
{
	(void)sql;
	(void)schema;
	((struct db *)db)->log_pages = pages;
	return SQLITE_OK;
}

static void make_safe(struct db *db)
{
	static const int settings[][2] = {
		{SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
		{SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
		{SQLITE_DBCONFIG_ENABLE_FKEY, 0},
		{SQLITE_DBCONFIG_DQS_DML, 0},        {SQLITE_DBCONFIG_DQS_DDL, 0},
		{SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
	};
	static const int limits[][2] = {
		{SQLITE_LIMIT_LENGTH, 1 << 20},    {SQLITE_LIMIT_SQL_LENGTH, 1 << 16}, {SQLITE_LIMIT_ATTACHED, 0},
		{SQLITE_LIMIT_TRIGGER_DEPTH, 0},   {SQLITE_LIMIT_COLUMN, 64},          {SQLITE_LIMIT_EXPR_DEPTH, 32},
		{SQLITE_LIMIT_WORKER_THREADS, 0},  {SQLITE_LIMIT_COMPOUND_SELECT, 4},
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
		sqlite3_db_config(db->sql, settings[i][0], settings[i][1], NULL);
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++)
		sqlite3_limit(db->sql, limits[i][0], limits[i][1]);
}

static const char common_pragmas[] = "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; "
				     "PRAGMA ignore_check_constraints=ON";

static int configure(struct db *db, enum db_role role, unsigned cache_bytes, bool immutable, const struct io *io)
{
	static const char opening[] = "opening it";
	char text[sizeof(common_pragmas) + 64];
	int status = 0;

	make_safe(db);
	snprintf(text, sizeof(text), "%s; PRAGMA cache_size=-%u", common_pragmas, cache_bytes / 1024);
	sqlite3_busy_timeout(db->sql, role == DB_CHECKER ? 0 : BUSY_MS);
	if (db->file->read_only && !immutable) /* first of all: it says how the log is opened */
		status = db_exec(db, "PRAGMA locking_mode=EXCLUSIVE", opening, io);
	if (!status)
		status = db_exec(db, text, opening, io);
	if (status || db->file->read_only)
		return status;
	if (role == DB_READER)
		return db_exec(db, "PRAGMA query_only=ON; PRAGMA wal_autocheckpoint=0", opening, io);
	sqlite3_wal_hook(db->sql, note_log, db);
	return db_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=FAST; "
			   "PRAGMA max_page_count=4294967294; PRAGMA journal_size_limit=67108864", opening, io);
}

int db_open(const struct db_file *f, enum db_role role, unsigned cache_bytes, struct db **out, const struct io *io)
{
	struct db *db = calloc(1, sizeof(*db));
	bool immutable;
	int rc, status;

	if (!db)
		return io_fail(io, -ENOMEM, "no memory");
	db->file = f;
	rc = open_connection(db, &immutable);
	if (rc && !db->sql)
		status = io_fail(io, -ENOMEM, "no memory");
	else
		status = rc ? db_fail(db, rc, "opening it", io) : configure(db, role, cache_bytes, immutable, io);
	if (status)
		db_close(db);
	else
		*out = db;
	return status;
}

void db_close(struct db *db)
{
	if (!db)
		return;
	sqlite3_blob_close(db->row);
	for (unsigned i = 0; i < DB_STATEMENTS; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->sql);
	gather_free(&db->log);
	gather_free(&db->database);
	free(db);
}

/* ------------------------------------------------------------------ statements */

int db_statement(struct db *db, const char *const *texts, unsigned index, sqlite3_stmt **out, const struct io *io)
{
	sqlite3_stmt **s = &db->statements[index];
	int rc = 0;

	if (*s)
		sqlite3_reset(*s);
	else
		rc = sqlite3_prepare_v3(db->sql, texts[index], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
	*out = *s;
	return rc ? db_fail(db, rc, "preparing a statement", io) : 0;
}

int db_run(struct db *db, sqlite3_stmt *s, const char *doing, const struct io *io)
{
	int rc = sqlite3_step(s), status = 0;

	if (rc != SQLITE_DONE && rc != SQLITE_ROW)
		status = db_fail(db, rc, doing, io);
	sqlite3_reset(s);
	return status;
}

int db_exec(struct db *db, const char *text, const char *doing, const struct io *io)
{
	int rc = sqlite3_exec(db->sql, text, NULL, NULL, NULL);

	return rc ? db_fail(db, rc, doing, io) : 0;
}

int db_number(struct db *db, const char *text, int64_t *out, const struct io *io)
{
	sqlite3_stmt *s;
	int status = 0, rc = sqlite3_prepare_v2(db->sql, text, -1, &s, NULL);

	if (!rc)
		rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		*out = sqlite3_column_int64(s, 0);
	else
		status = rc == SQLITE_DONE ? db_damaged(db, io, "no answer to %s", text)
					   : db_fail(db, rc, "reading it", io);
	sqlite3_finalize(s);
	return status;
}

/*
 * Incremental I/O saves a fifth of what a statement costs. Its handle is made anew after each commit, at some cost, so it
 * is not for the first rows. It must not be open when a transaction ends: it would keep it.
 */
#define ROWS_BY_STATEMENT 16u

bool db_read_row(struct db *db, const char *table, int64_t row, int whole, void *out, int size, int offset)
{
	int rc;

	if (db->rows_read < ROWS_BY_STATEMENT) {
		db->rows_read++;
		return false;
	}
	if (db->row)
		rc = sqlite3_blob_reopen(db->row, row);
	else
		rc = sqlite3_blob_open(db->sql, "main", table, "data", row, 0, &db->row);
	if (!rc && sqlite3_blob_bytes(db->row) == whole && !sqlite3_blob_read(db->row, out, size, offset))
		return true;
	sqlite3_blob_close(db->row);
	db->row = NULL;
	return false;
}

int db_sync_log(struct db *db, const struct io *io)
{
	sqlite3_file *log = NULL;
	int rc = sqlite3_file_control(db->sql, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);

	if (!rc && log && log->pMethods)
		rc = log->pMethods->xSync(log, SQLITE_SYNC_NORMAL);
	if (!rc)
		return 0;
	return io_fail(io, -EIO, "'%s': flush: %s (%s)", db->file->name, sqlite3_errstr(rc), strerror(errno));
}

/* ------------------------------------------------------------------ the pool */

int db_begin_reading(struct db *db, const struct io *io)
{
	return sqlite3_get_autocommit(db->sql) ? db_exec(db, "BEGIN", "reading", io) : 0;
}

static void end_reading(struct db *db)
{
	sqlite3_blob_close(db->row);
	db->row = NULL;
	db->rows_read = 0;
	if (!sqlite3_get_autocommit(db->sql))
		sqlite3_exec(db->sql, "COMMIT", NULL, NULL, NULL);
}

void db_pool_init(struct db_pool *p, const struct db_file *f)
{
	p->file = f;
	db_map_renew(&p->map, f->claim.fd);
}

static unsigned most_readers(const struct db_pool *p)
{
	return p->enough ? p->enough : MAX_READERS;
}

/* An idle connection; NULL with *room: a new one may be made (it is counted). */
static struct db *pop_idle(struct db_pool *p, bool *room, bool *first)
{
	struct db *db;

	short_lock_exclusive(&p->lock);
	db = p->idle;
	*room = !db && p->count < most_readers(p);
	*first = !p->count;
	if (db)
		p->idle = db->next;
	else if (*room)
		p->count++;
	short_unlock_exclusive(&p->lock);
	return db;
}

struct pool_opening {
	struct db_pool *pool;
	unsigned cache_bytes;
	struct db **out;
	const struct io *io;
};

static int call_open(void *argument)
{
	struct pool_opening *o = argument;

	int status = db_open(o->pool->file, DB_READER, o->cache_bytes, o->out, o->io);

	if (!status)
		mapped_file_attach(&(*o->out)->mapped, (*o->out)->sql, &o->pool->map);
	return status;
}

/* A connection that was counted could not be opened. Are there others to wait for? */
static bool do_without(struct db_pool *p)
{
	bool others;

	short_lock_exclusive(&p->lock);
	p->count--;
	p->enough = p->count;
	others = p->count;
	short_unlock_exclusive(&p->lock);
	wait_signal_raise(&p->returned);
	return others;
}

/* The first is taken before all others, so most reads come through it. */
static unsigned cache_for(const struct db_pool *p, bool first)
{
	if (p->map.at)
		return DB_MAPPED_CACHE;
	return first ? DB_LARGE_CACHE : DB_SMALL_CACHE;
}

/* *out is NULL where it is one too many for memory or the open files of the process. */
static int add_connection(struct db_pool *p, bool first, struct db **out, const struct io *io)
{
	struct pool_opening o = {.pool = p, .cache_bytes = cache_for(p, first), .out = out, .io = io};
	int status = aio_offload(call_open, &o);

	if (!status) {
		(*out)->is_preferred = first;
		return 0;
	}
	*out = NULL;
	if (do_without(p))
		return 0;
	return status == -EBUSY || status == -EROFS ? -EIO : status;
}

int db_pool_take(struct db_pool *p, struct db **out, const struct io *io)
{
	int status = 0;

	*out = NULL;
	while (!*out && !status) {
		uint32_t seen = wait_signal_count(&p->returned);
		bool room, first;
		*out = pop_idle(p, &room, &first);
		if (room)
			status = add_connection(p, first, out, io);
		else if (!*out)
			wait_signal_wait(&p->returned, seen, WAIT_FOREVER);
	}
	return status;
}

void db_pool_return(struct db_pool *p, struct db *db)
{
	struct db **at = &p->idle;
	bool was_empty;

	short_lock_exclusive(&p->lock);
	was_empty = !p->idle && p->count >= most_readers(p);
	if (p->idle && p->idle->is_preferred)
		at = &p->idle->next;
	db->next = *at;
	*at = db;
	short_unlock_exclusive(&p->lock);
	if (was_empty)
		wait_signal_raise(&p->returned);
}

static struct db *take_all(struct db_pool *p)
{
	struct db *all;

	short_lock_exclusive(&p->lock);
	all = p->idle;
	p->idle = NULL;
	p->enough = 0;
	short_unlock_exclusive(&p->lock);
	return all;
}

void db_pool_renew(struct db_pool *p)
{
	struct db *db = take_all(p);

	db_map_renew(&p->map, p->file->claim.fd);
	while (db) {
		struct db *next = db->next;
		end_reading(db);
		db_pool_return(p, db);
		db = next;
	}
	wait_signal_raise(&p->returned);
}

void db_pool_close(struct db_pool *p)
{
	struct db *db = take_all(p);

	while (db) {
		struct db *next = db->next;
		end_reading(db);
		db_close(db);
		db = next;
	}
	p->count = 0;
	db_map_drop(&p->map);
}

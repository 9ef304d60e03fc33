/* SPDX-License-Identifier: BSD-3-Clause */
/* Fewer and larger system calls for the connection that writes a database. */
#ifndef PLATTER_LAYERS_SQLITE_GATHER_H
#define PLATTER_LAYERS_SQLITE_GATHER_H

#include <sqlite3.h>
#include <stdbool.h>

/* How one file of a connection, the log or the database, is written, for as long as the connection is open. */
struct gathered_file {
	sqlite3_io_methods methods; /* first: SQLite hands us this address */
	const sqlite3_io_methods *real;
	bool is_log;
	bool plain;            /* the log: it goes on with the frame of a commit, which is written at once */
	char *memory;          /* what `written` and `read` stand in, one at a time; NULL until needed */
	int written;           /* bytes that SQLite takes for written and the file does not have yet, */
	sqlite3_int64 at;      /* from here on in the file; or, with written being 0, the place of what was read ahead */
	int read;              /* bytes that were read ahead */
	sqlite3_int64 next;    /* where the next read begins if it goes on in order */
};

/*
 * Attaches to both files of a connection that has the WAL open, once: later calls do nothing. The structures are the connection's
 * until gather_free(), after sqlite3_close(). Without memory the files are written as ever.
 */
void gather_attach(struct gathered_file *log, struct gathered_file *database, sqlite3 *sql);
void gather_free(struct gathered_file *f);

#endif

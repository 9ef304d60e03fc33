/* SPDX-License-Identifier: BSD-3-Clause */
/* The file of a database in memory, for its readers: a page is copied from there, without a system call. */
#ifndef PLATTER_LAYERS_SQLITE_MAP_H
#define PLATTER_LAYERS_SQLITE_MAP_H

#include <sqlite3.h>
#include <stddef.h>

/* What of the file is mapped; zero-initialised, nothing is. */
struct db_map {
	const char *at;
	size_t size;
};

/*
 * Maps as much as the file has now, if that is more than before and its file system is one where what is written and what is mapped
 * are the same. Nobody reads meanwhile. Otherwise, and if it fails, the file is read as ever.
 */
void db_map_renew(struct db_map *m, int fd);
void db_map_drop(struct db_map *m);

/* In a connection, for as long as it is open: how its file is read. */
struct mapped_file {
	sqlite3_io_methods methods; /* first: SQLite hands us this address */
	const sqlite3_io_methods *real;
	const struct db_map *map;
};

/* Makes the connection read through the map, as far as that goes. */
void mapped_file_attach(struct mapped_file *f, sqlite3 *sql, const struct db_map *map);

#endif

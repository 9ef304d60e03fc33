/* SPDX-License-Identifier: BSD-3-Clause */
/* What says of a database that it is a disk, and of what size: our schema and that of OpenVMM. */
#ifndef PLATTER_LAYERS_SQLITE_SCHEMA_H
#define PLATTER_LAYERS_SQLITE_SCHEMA_H

#include "layers/sqlite-db.h"

#define SCHEMA_APPLICATION_ID 0x506c7472 /* "Pltr" */
#define SCHEMA_TABLES 4

/*
 * Our tables: name, and the text that makes it. It is compared with what a file has, letter by letter: a table with other
 * columns, checks or defaults is not ours.
 */
extern const char *const schema_tables[SCHEMA_TABLES][2];

struct db_geometry {
	bool original;            /* OpenVMM's schema */
	bool logically_read_only; /* its mark for a disk that may only be filled as a cache */
	bool has_id;
	uint8_t id[16];
	uint64_t size;                /* bytes */
	uint32_t block_size;          /* of the disk */
	uint32_t physical_block_size;
};

/* Reads and checks everything but the content. Blocks. */
int schema_read(struct db *db, struct db_geometry *out, const struct io *io);

/* Notes a new size, in a transaction that is open. Blocks. */
int schema_set_size(struct db *db, uint64_t size, const struct io *io);

/*
 * Makes a database of our schema at `path`, whole or not at all: an existing file is left as it is (-EEXIST). It is
 * durable when this returns.
 */
int schema_create(const char *path, const struct db_geometry *g, struct error *err);

#endif

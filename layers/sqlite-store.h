/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the content of a disk lies in its database: our tables (sqlite-blocks.c) and OpenVMM's (sqlite-original.c). */
#ifndef PLATTER_LAYERS_SQLITE_STORE_H
#define PLATTER_LAYERS_SQLITE_STORE_H

#include "layers/layer.h"
#include "layers/sqlite-db.h"
#include "layers/sqlite-schema.h"

struct store;

/*
 * Reading goes on in many threads, each with a connection of its own and a read transaction. The writer has one
 * transaction at a time, to which put and clear are called with ranges that rise and do not overlap; they are in force for
 * readers after publish, which is called, as undo, while nobody reads. All but find, publish and undo block.
 *
 *   find     what memory knows of the first run; false: nothing, load must be asked. Answers LAYER_DATA without bytes.
 *            NULL: knows nothing
 *   load     the first run, with its bytes if v is given (of which length bytes may be used)
 *   put      these bytes are here
 *   clear    the range reads as zero, or with `forget` is absent
 *   finish   writes what put and clear kept back; before the commit
 */
struct store_ops {
	bool (*find)(struct store *s, uint64_t offset, uint64_t length, struct layer_run *run);
	int (*load)(struct store *s, struct db *db, const struct vec *v, uint64_t offset, uint64_t length,
		    struct layer_run *run, const struct io *io);
	int (*put)(struct store *s, struct db *db, uint64_t offset, const char *bytes, size_t length,
		   const struct io *io);
	int (*clear)(struct store *s, struct db *db, uint64_t offset, uint64_t length, bool forget,
		     const struct io *io);
	int (*finish)(struct store *s, struct db *db, const struct io *io);
	void (*publish)(struct store *s);
	void (*undo)(struct store *s);
	void (*destroy)(struct store *s);
};

struct store {
	const struct store_ops *ops;
};

/* NULL when memory ran out. */
struct store *block_store_create(const struct db_geometry *g);
struct store *original_store_create(const struct db_geometry *g);

#endif

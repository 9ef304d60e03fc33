/* SPDX-License-Identifier: BSD-3-Clause */
/* A layer that is one SQLite database file. docs/formats/sqlite-layer.md tells what is in it. */
#ifndef PLATTER_LAYERS_SQLITE_LAYER_H
#define PLATTER_LAYERS_SQLITE_LAYER_H

#include "core/error.h"
#include "layers/layer.h"

struct sqlite_layer_options {
	const char *path;
	bool read_only;
	unsigned log_pages;           /* the log is brought into the database when it has so many of 4 KiB; 0: 16384 */
	bool create;                  /* make the file, which must not exist; what follows counts only then */
	bool give_id;                 /* the new disk gets a random id; else the layer has none */
	uint64_t size;                /* bytes, whole blocks */
	uint32_t block_size;          /* a logical block of a disk */
	uint32_t physical_block_size; /* 0: the logical block */
};

/*
 * Opens the database, or makes and opens it. Either *out is a layer, given up with its close operation, or nothing is left
 * behind and `err` says why. The file has one writer or any number of readers, in all processes together.
 */
int sqlite_layer_open(const struct sqlite_layer_options *options, struct layer **out, struct error *err);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the data of a disk lies, as JSON: what platter-map(1) prints, of every format the same. */
#ifndef PLATTER_FORMATS_RUN_LIST_H
#define PLATTER_FORMATS_RUN_LIST_H

#include <stdint.h>

#include <jansson.h>

#include "layers/layer.h"

/*
 * An array of {offset, length, kind: "data" | "zero" | "absent"} and, for data, "at", its place in the file; neighbours that adjoin in both
 * are one. `rows` is made by who begins the list.
 */
struct run_list {
	json_t *rows;
	uint64_t offset; /* of the last run, which may go on */
	uint64_t length;
	enum presence presence;
	uint64_t at;
};

/* The next run, of `length` bytes; `at` counts of LAYER_DATA. */
void run_list_add(struct run_list *l, enum presence presence, uint64_t length, uint64_t at);

/* There is no other: the last one goes to the rows. */
void run_list_end(struct run_list *l);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* What a check tells of each structure of a VHDX file; rows are those of formats/structures.h. For formats/vhdx-check.c alone. */
#ifndef PLATTER_FORMATS_VHDX_STRUCTURES_H
#define PLATTER_FORMATS_VHDX_STRUCTURES_H

#include <jansson.h>

#include "formats/vhdx-file.h"

/* The file identifier and both headers. */
void vhdx_note_headers(json_t *list, struct container *c, const struct vhdx_headers *h);

/* `entries` that are to be replayed; 0: the log is empty. */
void vhdx_note_log(json_t *list, const struct vhdx_header *h, uint32_t entries);

void vhdx_note_tables(json_t *list, const struct vhdx_regions *r);

/* The metadata region and its items, of a file that could be opened. */
void vhdx_note_metadata(json_t *list, const struct vhdx *x);

/* Regions that are not known. */
void vhdx_note_regions(json_t *list, const struct vhdx *x);

#endif

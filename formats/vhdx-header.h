/* SPDX-License-Identifier: BSD-3-Clause */
/* The first MiB of a VHDX file: headers and region tables. */
#ifndef PLATTER_FORMATS_VHDX_HEADER_H
#define PLATTER_FORMATS_VHDX_HEADER_H

#include "formats/container.h"
#include "formats/vhdx-format.h"

/* ------------------------------------------------------------------ headers ([MS-VHDX] 2.2.2) */

struct vhdx_header {
	uint64_t sequence;
	struct guid file_write; /* another one for each session that changed the file */
	struct guid data_write; /* ... that changed what the disk holds; children know their parent by it */
	struct guid log;        /* null: the log is empty */
	uint16_t log_version;
	uint32_t log_length;    /* bytes, a multiple of 1 MiB */
	uint64_t log_offset;
};

struct vhdx_headers {
	struct vhdx_header current;
	unsigned slot;     /* where it lies: 0 or 1 */
	bool valid[2];
	char why[2][80];   /* not valid: the reason */
};

/*
 * Finds the current header: of the valid ones the one with the higher sequence number. Two with the same number are accepted
 * when they are equal, as Disk2vhd writes them.
 */
int vhdx_headers_load(struct container *c, struct vhdx_headers *out, struct error *err);

/*
 * Writes `next`, with the following sequence number, to the slot that is not current and makes it so; the caller has flushed what
 * must come before it and flushes afterwards (2.2.2.1).
 */
int vhdx_header_store(struct container *c, struct vhdx_headers *h, const struct vhdx_header *next, const struct io *io);

/* Stores the current one again with a new FileWriteGuid, durably: what who changes the file in any way begins with (2.2.2). */
int vhdx_header_begin(struct container *c, struct vhdx_headers *h, struct error *err);

/* The 4 KiB of a header. */
void vhdx_header_encode(const struct vhdx_header *h, uint8_t page[VHDX_PAGE]);

/* ------------------------------------------------------------------ region tables (2.2.3) */

struct vhdx_region {
	struct guid id;
	uint64_t offset; /* bytes, a multiple of 1 MiB */
	uint32_t length;
	bool required;
};

struct vhdx_regions {
	struct vhdx_region bat, metadata;
	struct vhdx_region *all; /* owned; in the order of offsets */
	unsigned count;
	unsigned copy;           /* the table that was read: 0, or 1 when the first is no good */
	bool valid[2];
	bool differ;             /* both are valid and are not the same */
	char why[2][80];
};

/* Reads the region table; regions lie inside the file and touch neither each other nor the log nor the first MiB. */
int vhdx_regions_load(struct container *c, const struct vhdx_header *h, struct vhdx_regions *out, struct error *err);
void vhdx_regions_free(struct vhdx_regions *r);

/* Both tables' 64 KiB, with the checksum. */
void vhdx_regions_encode(const struct vhdx_region *regions, unsigned count, uint8_t *table);

#endif

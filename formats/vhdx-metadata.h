/* SPDX-License-Identifier: BSD-3-Clause */
/* The metadata region of a VHDX file: what disk it is ([MS-VHDX] 2.6). */
#ifndef PLATTER_FORMATS_VHDX_METADATA_H
#define PLATTER_FORMATS_VHDX_METADATA_H

#include "formats/container.h"
#include "formats/vhdx-format.h"
#include "formats/vhdx-header.h"

struct vhdx_metadata {
	uint64_t size;           /* of the disk, bytes */
	uint32_t block_size;     /* of a payload block, bytes: power of two, 1 to 256 MiB */
	uint32_t logical_sector;
	uint32_t physical_sector;
	bool leave_allocated;    /* a fixed disk */
	bool has_parent;
	struct guid id;          /* page 83 */
	uint64_t size_offset;    /* where in the file the size lies */
	uint64_t locator_offset; /* where the parent locator lies; 0: there is none */
	uint32_t locator_length;
};

/* Reads all items that are known; one that is required and is not is refused. */
int vhdx_metadata_load(struct container *c, const struct vhdx_region *region, struct vhdx_metadata *out, struct error *err);

/*
 * Writes the region's table and items (the locator is `locator_length` bytes at `locator`) to `region`, zeroed memory of 1 MiB.
 * The offsets in `m` are set as if the region began at `offset`.
 */
void vhdx_metadata_encode(struct vhdx_metadata *m, const void *locator, uint64_t offset, uint8_t *region);

/* ------------------------------------------------------------------ what follows from it */

/* Payload blocks that one sector bitmap block tells of (2.4). */
static inline uint32_t vhdx_chunk_ratio(const struct vhdx_metadata *m)
{
	return (uint32_t)(VHDX_CHUNK_SECTORS * m->logical_sector / m->block_size);
}

static inline uint64_t vhdx_blocks(uint64_t size, uint32_t block_size)
{
	return size / block_size + (size % block_size != 0);
}

/* Entries that the block allocation table needs for a disk of `size` bytes (2.5). */
uint64_t vhdx_bat_entries(const struct vhdx_metadata *m, uint64_t size);

/* Where in the table the entry of payload block `block` stands, and that of the sector bitmap block of `chunk`. */
static inline uint64_t vhdx_payload_index(uint64_t block, uint32_t ratio_shift)
{
	return block + (block >> ratio_shift);
}

static inline uint64_t vhdx_bitmap_index(uint64_t chunk, uint32_t ratio_shift)
{
	return (chunk << ratio_shift) + chunk + (UINT64_C(1) << ratio_shift);
}

#endif

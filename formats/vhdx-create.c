/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making VHDX files
 *
 * The order in the file is that of Windows: log, metadata, block allocation table, blocks. The signature at the very beginning is
 * written last, when everything else is durable.
 */
#include "formats/vhdx.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"
#include "formats/utf16.h"
#include "formats/vhdx-file.h"
#include "formats/vhdx-locator.h"

#define CREATOR "Platter"
#define LOG_BYTES (1u << 20)
#define METADATA_BYTES (1u << 20)
#define DYNAMIC_BLOCK (32u << 20)
#define SMALL_BLOCK (2u << 20)

/* A file in the making. */
struct making {
	struct container *c;
	struct vhdx_metadata meta;
	struct vhdx_region regions[2]; /* metadata, table */
	struct guid file_write, data_write;
	void *locator;
	uint64_t first_block; /* where they begin */
	uint64_t blocks;
};

/* ------------------------------------------------------------------ what is asked for */

static bool is_sector(uint32_t n)
{
	return n == 512 || n == 4096;
}

static int check(const struct vhdx_metadata *m, const struct vhdx_create_options *o, struct error *err)
{
	if (m->block_size < VHDX_MIN_BLOCK || m->block_size > VHDX_MAX_BLOCK || (m->block_size & (m->block_size - 1)))
		return error_set(err, -EINVAL, "block size %" PRIu32 " is not a power of two from 1 MiB to 256 MiB", m->block_size);
	if (!is_sector(m->logical_sector) || !is_sector(m->physical_sector))
		return error_set(err, -EINVAL, "sectors of %" PRIu32 " (logical) and %" PRIu32 " bytes (physical) are not 512 or 4096",
				 m->logical_sector, m->physical_sector);
	if (m->physical_sector < m->logical_sector)
		return error_set(err, -EINVAL, "physical sectors of %" PRIu32 " bytes are smaller than logical ones of %" PRIu32,
				 m->physical_sector, m->logical_sector);
	if (!m->size || m->size % m->logical_sector || m->size > VHDX_MAX_SIZE)
		return error_set(err, -EINVAL, "size %" PRIu64 " is not 1 or more sectors of %" PRIu32 " bytes, up to 64 TiB", m->size,
				 m->logical_sector);
	if (o->has_parent && o->fixed)
		return error_set(err, -EINVAL, "a disk with a parent is not fixed");
	if (o->has_parent && !o->parent_relative && !o->parent_absolute)
		return error_set(err, -EINVAL, "there is no path of the parent");
	return 0;
}

static int take_options(struct making *k, const struct vhdx_create_options *o, struct error *err)
{
	k->meta = (struct vhdx_metadata){
		.size = o->size,
		.block_size = o->block_size ? o->block_size : o->fixed || o->has_parent ? SMALL_BLOCK : DYNAMIC_BLOCK,
		.logical_sector = o->logical_sector ? o->logical_sector : 512,
		.physical_sector = o->physical_sector ? o->physical_sector : 4096,
		.leave_allocated = o->fixed,
		.has_parent = o->has_parent,
		.id = o->id,
	};
	if ((guid_is_null(&k->meta.id) && guid_random(&k->meta.id)) || guid_random(&k->file_write) || guid_random(&k->data_write))
		return error_set(err, -EIO, "no random numbers");
	return check(&k->meta, o, err);
}

static void lay_out(struct making *k)
{
	static const struct guid bat = VHDX_REGION_BAT, metadata = VHDX_REGION_METADATA;
	uint64_t table = vhdx_bat_entries(&k->meta, k->meta.size) * 8;

	table = (table + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
	k->regions[0] = (struct vhdx_region){metadata, VHDX_MIB + LOG_BYTES, METADATA_BYTES, true};
	k->regions[1] = (struct vhdx_region){bat, k->regions[0].offset + METADATA_BYTES, (uint32_t)table, true};
	k->first_block = k->regions[1].offset + table;
	k->blocks = k->meta.leave_allocated ? vhdx_blocks(k->meta.size, k->meta.block_size) : 0;
}

/* ------------------------------------------------------------------ writing */

static int write_headers(struct making *k, struct error *err)
{
	struct vhdx_header h = {
		.file_write = k->file_write, .data_write = k->data_write, .log_length = LOG_BYTES, .log_offset = VHDX_MIB};
	uint8_t *table = malloc(VHDX_TABLE_BYTES), *page = malloc(VHDX_PAGE);
	int status = table && page ? 0 : error_set(err, -ENOMEM, "no memory");

	if (!status)
		vhdx_regions_encode(k->regions, 2, table);
	for (unsigned i = 0; i < 2 && !status; i++) {
		h.sequence = i + 1;
		vhdx_header_encode(&h, page);
		status = container_store(k->c, page, VHDX_PAGE, VHDX_HEADER_OFFSET(i), err);
		if (!status)
			status = container_store(k->c, table, VHDX_TABLE_BYTES, VHDX_TABLE_OFFSET(i), err);
	}
	free(table);
	free(page);
	return status;
}

static int write_metadata(struct making *k, struct error *err)
{
	uint8_t *region = calloc(1, METADATA_BYTES);
	int status;

	if (!region)
		return error_set(err, -ENOMEM, "no memory");
	vhdx_metadata_encode(&k->meta, k->locator, k->regions[0].offset, region);
	status = container_store(k->c, region, METADATA_BYTES, k->regions[0].offset, err);
	free(region);
	return status;
}

/* The entry at `index` of a fixed disk's table: its blocks lie in a row. */
static uint64_t fixed_entry(const struct making *k, uint64_t index)
{
	uint64_t ratio = vhdx_chunk_ratio(&k->meta), block = index - index / (ratio + 1);

	if (index % (ratio + 1) == ratio || block >= k->blocks)
		return 0;
	return (k->first_block + block * k->meta.block_size) | VHDX_FULL;
}

static int write_table(struct making *k, struct error *err)
{
	uint64_t part = VHDX_MIB / 8, entries = k->blocks ? vhdx_bat_entries(&k->meta, k->meta.size) : 0;
	uint8_t *buffer = malloc(VHDX_MIB);
	int status = buffer ? 0 : error_set(err, -ENOMEM, "no memory");

	for (uint64_t at = 0; at < entries && !status; at += part) {
		for (uint64_t i = 0; i < part; i++)
			le64_put(buffer + 8 * i, fixed_entry(k, at + i));
		status = container_store(k->c, buffer, VHDX_MIB, k->regions[1].offset + at * 8, err);
	}
	free(buffer);
	return status;
}

/* The log has its space from the beginning, so that a full file system cannot keep it from being written; so have fixed blocks. */
static int allocate(struct making *k, struct error *err)
{
	struct container *c = k->c;
	struct failure why = {0};
	const struct io io = {.failure = &why};
	uint64_t data = k->blocks * k->meta.block_size;
	int status = container_set_size(c, k->first_block + data, err);

	if (status)
		return status;
	status = c->ops->zero(c, VHDX_MIB, LOG_BYTES, false, &io);
	if (!status && data)
		status = c->ops->zero(c, k->first_block, data, false, &io);
	return status ? error_set(err, status, "%s", why.text) : 0;
}

static int write_signature(struct making *k, struct error *err)
{
	uint8_t id[VHDX_CREATOR_OFFSET + VHDX_CREATOR_BYTES] = VHDX_SIGNATURE;
	size_t bytes;
	void *creator;

	if (utf16_from_utf8(CREATOR, UTF16_LE, &creator, &bytes))
		return error_set(err, -ENOMEM, "no memory");
	memcpy(id + VHDX_CREATOR_OFFSET, creator, bytes);
	free(creator);
	return container_store(k->c, id, sizeof(id), 0, err);
}

static int write_all(struct making *k, struct error *err)
{
	int status = allocate(k, err);

	if (!status)
		status = write_headers(k, err);
	if (!status)
		status = write_metadata(k, err);
	if (!status)
		status = write_table(k, err);
	if (!status)
		status = container_sync(k->c, err);
	if (!status)
		status = write_signature(k, err);
	return status ? status : container_sync(k->c, err);
}

int vhdx_create(struct container *c, const struct vhdx_create_options *o, struct error *err)
{
	struct making k = {.c = c};
	int status = take_options(&k, o, err);

	if (!status && o->has_parent)
		status = vhdx_locator_encode(&o->parent, NULL, o->parent_relative, o->parent_absolute, &k.locator,
					     &k.meta.locator_length, err);
	if (status)
		return status;
	lay_out(&k);
	status = write_all(&k, err);
	free(k.locator);
	return status;
}

/* ------------------------------------------------------------------ children */

static int options_of_parent(const char *parent, struct vhdx_create_options *o, struct error *err)
{
	struct container *c;
	struct layer *l;
	int status = container_open(parent, CONTAINER_READ_ONLY | CONTAINER_SHARED, &c, err);

	if (status)
		return status;
	status = vhdx_layer_open(c, &l, err);
	if (status) {
		container_close(c, false, NULL);
		return error_prefix(err, "'%s'", parent);
	}
	if (!o->size)
		o->size = l->ops->size(l);
	o->logical_sector = l->info.block_size;
	o->physical_sector = l->info.physical_block_size;
	memcpy(&o->id, l->info.id, sizeof(o->id));
	o->has_parent = true;
	o->parent = vhdx_data_write_guid(l);
	l->ops->close(l, false, NULL);
	return 0;
}

static int create_file(const char *path, const struct vhdx_create_options *o, struct error *err)
{
	struct container *c;
	int status = container_open(path, CONTAINER_CREATE, &c, err);

	if (status)
		return status;
	status = vhdx_create(c, o, err);
	if (status)
		container_close(c, true, NULL);
	else
		status = container_close(c, false, err);
	return status;
}

int vhdx_child_options(const char *path, const char *parent, struct vhdx_create_options *o, struct error *err)
{
	int status = vhdx_locator_paths(path, parent, (char **)&o->parent_relative, (char **)&o->parent_absolute, err);

	return status ? status : options_of_parent(parent, o, err);
}

void vhdx_child_options_free(struct vhdx_create_options *o)
{
	free((char *)(uintptr_t)o->parent_relative);
	free((char *)(uintptr_t)o->parent_absolute);
	o->parent_relative = o->parent_absolute = NULL;
}

int vhdx_create_child(const char *path, const char *parent, uint32_t block_size, struct error *err)
{
	struct vhdx_create_options o = {.block_size = block_size};
	int status = vhdx_child_options(path, parent, &o, err);

	if (!status)
		status = create_file(path, &o, err);
	vhdx_child_options_free(&o);
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/vhdx-header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/crc32c.h"
#include "formats/endian.h"

/* The checksum of a structure that has one in its bytes 4 to 7, which count as zero. */
static uint32_t checksum(const uint8_t *data, size_t size)
{
	static const uint8_t nothing[4];
	uint32_t crc = crc32c(0, data, 4);

	crc = crc32c(crc, nothing, 4);
	return crc32c(crc, data + 8, size - 8);
}

/* ------------------------------------------------------------------ headers */

void vhdx_header_encode(const struct vhdx_header *h, uint8_t page[VHDX_PAGE])
{
	struct vhdx_raw_header *raw = (void *)page;

	memset(page, 0, VHDX_PAGE);
	memcpy(raw->signature, "head", 4);
	le64_put(raw->sequence, h->sequence);
	raw->file_write = h->file_write;
	raw->data_write = h->data_write;
	raw->log = h->log;
	le16_put(raw->log_version, h->log_version);
	le16_put(raw->version, 1);
	le32_put(raw->log_length, h->log_length);
	le64_put(raw->log_offset, h->log_offset);
	le32_put(raw->checksum, checksum(page, VHDX_PAGE));
}

/* False, with the reason, where it is none. */
static bool decode(const uint8_t *page, struct vhdx_header *h, char why[80])
{
	const struct vhdx_raw_header *raw = (const void *)page;

	*h = (struct vhdx_header){
		.sequence = le64_get(raw->sequence),
		.file_write = raw->file_write,
		.data_write = raw->data_write,
		.log = raw->log,
		.log_version = le16_get(raw->log_version),
		.log_length = le32_get(raw->log_length),
		.log_offset = le64_get(raw->log_offset),
	};
	if (memcmp(raw->signature, "head", 4))
		return snprintf(why, 80, "no signature"), false;
	if (le32_get(raw->checksum) != checksum(page, VHDX_PAGE))
		return snprintf(why, 80, "checksum %08" PRIx32 " instead of %08" PRIx32, le32_get(raw->checksum),
				checksum(page, VHDX_PAGE)), false;
	if (le16_get(raw->version) != 1)
		return snprintf(why, 80, "version %u instead of 1", le16_get(raw->version)), false;
	return true;
}

static int choose(struct vhdx_headers *out, const struct vhdx_header h[2], const uint8_t *pages, struct error *err)
{
	if (!out->valid[0] && !out->valid[1])
		return error_set(err, -EINVAL, "neither header is valid: the one at 64 KiB has %s, the one at 128 KiB %s", out->why[0],
				 out->why[1]);
	if (out->valid[0] && out->valid[1] && h[0].sequence == h[1].sequence && memcmp(pages, pages + VHDX_PAGE, VHDX_PAGE))
		return error_set(err, -EINVAL, "both headers have the sequence number %" PRIu64 ", but they are not the same",
				 h[0].sequence);
	out->slot = !out->valid[0] || (out->valid[1] && h[1].sequence > h[0].sequence);
	out->current = h[out->slot];
	return 0;
}

static int check_log_place(const struct container *c, const struct vhdx_header *h, struct error *err)
{
	uint64_t size = container_size(c);

	if (!h->log_length && guid_is_null(&h->log))
		return 0;
	if (h->log_version && !guid_is_null(&h->log))
		return error_set(err, -EOPNOTSUPP, "the log is of version %u, of which nothing is known but 0", h->log_version);
	if (h->log_offset % VHDX_MIB || h->log_length % VHDX_MIB || !h->log_length || h->log_offset < VHDX_MIB)
		return error_set(err, -EINVAL, "the log, %" PRIu32 " bytes at %" PRIu64 ", does not lie on whole MiB behind the first",
				 h->log_length, h->log_offset);
	if (h->log_offset > size || h->log_length > size - h->log_offset)
		return error_set(err, -EINVAL, "the log, %" PRIu32 " bytes at %" PRIu64 ", ends behind the file's end at %" PRIu64,
				 h->log_length, h->log_offset, size);
	return 0;
}

int vhdx_headers_load(struct container *c, struct vhdx_headers *out, struct error *err)
{
	uint8_t pages[2 * VHDX_PAGE];
	struct vhdx_header h[2];
	char signature[8];
	int status = 0;

	memset(out, 0, sizeof(*out));
	if (container_size(c) < VHDX_MIB)
		return error_set(err, -EINVAL, "it has %" PRIu64 " bytes, fewer than any VHDX file", container_size(c));
	status = container_load(c, signature, sizeof(signature), 0, err);
	if (!status && memcmp(signature, VHDX_SIGNATURE, 8))
		return error_set(err, -EINVAL, "it does not begin with \"vhdxfile\": it is no VHDX file");
	for (unsigned i = 0; i < 2 && !status; i++) {
		status = container_load(c, pages + i * VHDX_PAGE, VHDX_PAGE, VHDX_HEADER_OFFSET(i), err);
		out->valid[i] = !status && decode(pages + i * VHDX_PAGE, &h[i], out->why[i]);
	}
	if (!status)
		status = choose(out, h, pages, err);
	return status ? status : check_log_place(c, &out->current, err);
}

int vhdx_header_store(struct container *c, struct vhdx_headers *h, const struct vhdx_header *next, const struct io *io)
{
	struct vhdx_header header = *next;
	uint8_t page[VHDX_PAGE];
	int status;

	if (h->current.sequence == UINT64_MAX)
		return io_fail(io, -EIO, "'%s': the header's sequence number is the last that there is", c->name);
	header.sequence = h->current.sequence + 1;
	vhdx_header_encode(&header, page);
	status = container_write(c, page, VHDX_PAGE, VHDX_HEADER_OFFSET(!h->slot), io);
	if (status)
		return status;
	h->slot = !h->slot;
	h->current = header;
	h->valid[h->slot] = true;
	return 0;
}

int vhdx_header_begin(struct container *c, struct vhdx_headers *h, struct error *err)
{
	struct vhdx_header next = h->current;
	struct failure why = {0};
	int status = guid_random(&next.file_write);

	if (status)
		return error_set_errno(err, status, "no random numbers");
	status = vhdx_header_store(c, h, &next, &(struct io){.failure = &why});
	return status ? error_set(err, status, "%s", why.text) : container_sync(c, err);
}

/* ------------------------------------------------------------------ region tables */

void vhdx_regions_encode(const struct vhdx_region *regions, unsigned count, uint8_t *table)
{
	struct vhdx_raw_table *head = (void *)table;
	struct vhdx_raw_region *raw = (void *)(table + sizeof(*head));

	memset(table, 0, VHDX_TABLE_BYTES);
	memcpy(head->signature, "regi", 4);
	le32_put(head->count, count);
	for (unsigned i = 0; i < count; i++) {
		raw[i].id = regions[i].id;
		le64_put(raw[i].offset, regions[i].offset);
		le32_put(raw[i].length, regions[i].length);
		le32_put(raw[i].flags, regions[i].required ? VHDX_REGION_REQUIRED : 0);
	}
	le32_put(head->checksum, checksum(table, VHDX_TABLE_BYTES));
}

static bool table_is_valid(const uint8_t *table, char why[80])
{
	const struct vhdx_raw_table *head = (const void *)table;
	uint32_t sum = checksum(table, VHDX_TABLE_BYTES);

	if (memcmp(head->signature, "regi", 4))
		return snprintf(why, 80, "no signature"), false;
	if (le32_get(head->checksum) != sum)
		return snprintf(why, 80, "checksum %08" PRIx32 " instead of %08" PRIx32, le32_get(head->checksum), sum), false;
	if (le32_get(head->count) > VHDX_MAX_REGIONS)
		return snprintf(why, 80, "%" PRIu32 " regions, more than the limit of %u", le32_get(head->count), VHDX_MAX_REGIONS),
		       false;
	return true;
}

static int check_region(const struct container *c, const struct vhdx_region *r, struct error *err)
{
	char id[GUID_TEXT_MAX];

	if (r->offset % VHDX_MIB || r->length % VHDX_MIB || !r->length || r->offset < VHDX_MIB)
		return error_set(err, -EINVAL,
				 "region table: region %s, %" PRIu32 " bytes at %" PRIu64 ", does not lie on whole MiB behind the first",
				 guid_text(&r->id, id), r->length, r->offset);
	if (r->offset > container_size(c) || r->length > container_size(c) - r->offset)
		return error_set(err, -EINVAL,
				 "region table: region %s, %" PRIu32 " bytes at %" PRIu64 ", ends behind the file's end at %" PRIu64,
				 guid_text(&r->id, id), r->length, r->offset, container_size(c));
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct vhdx_region *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

static int check_overlaps(const struct vhdx_regions *r, const struct vhdx_header *h, struct error *err)
{
	char a[GUID_TEXT_MAX], b[GUID_TEXT_MAX];

	for (unsigned i = 0; i < r->count; i++) {
		const struct vhdx_region *x = &r->all[i];
		if (h->log_length && overlap(x->offset, x->length, h->log_offset, h->log_length))
			return error_set(err, -EINVAL, "region table: region %s at %" PRIu64 " overlaps the log at %" PRIu64,
					 guid_text(&x->id, a), x->offset, h->log_offset);
		if (i && overlap(x->offset, x->length, x[-1].offset, x[-1].length))
			return error_set(err, -EINVAL, "region table: regions %s and %s overlap at %" PRIu64, guid_text(&x[-1].id, a),
					 guid_text(&x->id, b), x->offset);
	}
	return 0;
}

/* Notes the two regions that are known, and refuses those that would have to be. */
static int know_region(struct vhdx_regions *out, const struct vhdx_region *r, struct error *err)
{
	static const struct guid bat = VHDX_REGION_BAT, metadata = VHDX_REGION_METADATA;
	struct vhdx_region *known = guid_equal(&r->id, &bat) ? &out->bat : guid_equal(&r->id, &metadata) ? &out->metadata : NULL;
	char id[GUID_TEXT_MAX];

	if (!known && r->required)
		return error_set(err, -EOPNOTSUPP, "region table: region %s is required and not known", guid_text(&r->id, id));
	if (known && known->length)
		return error_set(err, -EINVAL, "region table: region %s is there twice", guid_text(&r->id, id));
	if (known)
		*known = *r;
	return 0;
}

static int take_regions(const struct container *c, const uint8_t *table, struct vhdx_regions *out, struct error *err)
{
	const struct vhdx_raw_region *raw = (const void *)(table + sizeof(struct vhdx_raw_table));
	uint32_t count = le32_get(((const struct vhdx_raw_table *)(const void *)table)->count);
	int status = 0;

	out->all = calloc(count ? count : 1, sizeof(*out->all));
	if (!out->all)
		return error_set(err, -ENOMEM, "no memory");
	for (; out->count < count && !status; out->count++, raw++) {
		struct vhdx_region *r = &out->all[out->count];
		*r = (struct vhdx_region){raw->id, le64_get(raw->offset), le32_get(raw->length),
					  le32_get(raw->flags) & VHDX_REGION_REQUIRED};
		status = check_region(c, r, err);
		if (!status)
			status = know_region(out, r, err);
	}
	qsort(out->all, out->count, sizeof(*out->all), by_offset);
	return status;
}

static int load_tables(struct container *c, uint8_t *tables, struct vhdx_regions *out, struct error *err)
{
	int status = container_load(c, tables, 2 * VHDX_TABLE_BYTES, VHDX_TABLE_OFFSET(0), err);

	for (unsigned i = 0; i < 2 && !status; i++)
		out->valid[i] = table_is_valid(tables + i * VHDX_TABLE_BYTES, out->why[i]);
	if (status)
		return status;
	if (!out->valid[0] && !out->valid[1])
		return error_set(err, -EINVAL, "neither region table is valid: the one at 192 KiB has %s, the one at 256 KiB %s",
				 out->why[0], out->why[1]);
	out->copy = !out->valid[0];
	out->differ = out->valid[0] && out->valid[1] && memcmp(tables, tables + VHDX_TABLE_BYTES, VHDX_TABLE_BYTES);
	return 0;
}

int vhdx_regions_load(struct container *c, const struct vhdx_header *h, struct vhdx_regions *out, struct error *err)
{
	uint8_t *tables = malloc(2 * VHDX_TABLE_BYTES);
	int status;

	memset(out, 0, sizeof(*out));
	status = tables ? load_tables(c, tables, out, err) : error_set(err, -ENOMEM, "no memory");
	if (!status)
		status = take_regions(c, tables + out->copy * VHDX_TABLE_BYTES, out, err);
	free(tables);
	if (!status && (!out->bat.length || !out->metadata.length))
		status = error_set(err, -EINVAL, "region table: there is no region for the %s",
				   out->bat.length ? "metadata" : "block allocation table");
	if (!status)
		status = check_overlaps(out, h, err);
	if (status)
		vhdx_regions_free(out);
	return status;
}

void vhdx_regions_free(struct vhdx_regions *r)
{
	free(r->all);
	r->all = NULL;
}

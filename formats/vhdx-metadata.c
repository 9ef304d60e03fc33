/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/vhdx-metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"

/* An item of the table, its place checked. */
struct item {
	struct guid id;
	uint64_t offset; /* in the file */
	uint32_t length;
	uint32_t flags;
};

enum known { PARAMETERS, SIZE, ID, LOGICAL, PHYSICAL, LOCATOR, KNOWN };

static const struct {
	struct guid id;
	const char *name;
	uint32_t length; /* 0: any */
	bool of_disk;
} known_items[KNOWN] = {
	[PARAMETERS] = {VHDX_ITEM_PARAMETERS, "file parameters", 8, false},
	[SIZE] = {VHDX_ITEM_SIZE, "virtual disk size", 8, true},
	[ID] = {VHDX_ITEM_ID, "virtual disk id", 16, true},
	[LOGICAL] = {VHDX_ITEM_LOGICAL, "logical sector size", 4, true},
	[PHYSICAL] = {VHDX_ITEM_PHYSICAL, "physical sector size", 4, true},
	[LOCATOR] = {VHDX_ITEM_LOCATOR, "parent locator", 0, false},
};

/* ------------------------------------------------------------------ the table */

struct table {
	struct container *c;
	const struct vhdx_region *region;
	struct item *items;
	unsigned count;
	const struct item *known[KNOWN];
};

static int check_item(const struct table *t, const struct item *i, const struct vhdx_raw_item *raw, struct error *err)
{
	uint32_t offset = le32_get(raw->offset);
	char id[GUID_TEXT_MAX];

	guid_text(&i->id, id);
	if (guid_is_null(&i->id))
		return error_set(err, -EINVAL, "metadata: an item has no name");
	if ((i->flags & VHDX_ITEM_USER) && (i->flags & VHDX_ITEM_REQUIRED))
		return error_set(err, -EINVAL, "metadata: item %s is a user's and required", id);
	if (!i->length && !offset)
		return 0;
	if (!i->length || i->length > VHDX_MAX_ITEM_BYTES || offset < VHDX_METADATA_TABLE_BYTES ||
	    (uint64_t)offset + i->length > t->region->length)
		return error_set(err, -EINVAL,
				 "metadata: item %s, %" PRIu32 " bytes at %" PRIu32 " of the region, does not lie in its 1 to %u bytes "
				 "behind the table and before the end at %" PRIu32,
				 id, i->length, offset, VHDX_MAX_ITEM_BYTES, t->region->length);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	int order = memcmp(&x->id, &y->id, sizeof(x->id));

	return order ? order : (int)(x->flags & VHDX_ITEM_USER) - (int)(y->flags & VHDX_ITEM_USER);
}

static int by_place(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* No name twice, no byte in two items. */
static int check_items(struct table *t, struct error *err)
{
	char id[GUID_TEXT_MAX];

	qsort(t->items, t->count, sizeof(*t->items), by_place);
	for (unsigned i = 1; i < t->count; i++)
		if (t->items[i - 1].length && t->items[i].length &&
		    t->items[i - 1].offset + t->items[i - 1].length > t->items[i].offset)
			return error_set(err, -EINVAL, "metadata: item %s overlaps another one", guid_text(&t->items[i].id, id));
	qsort(t->items, t->count, sizeof(*t->items), by_name);
	for (unsigned i = 1; i < t->count; i++)
		if (!by_name(&t->items[i - 1], &t->items[i]))
			return error_set(err, -EINVAL, "metadata: item %s is there twice", guid_text(&t->items[i].id, id));
	return 0;
}

static int read_table(struct table *t, const uint8_t *raw_table, struct error *err)
{
	const struct vhdx_raw_items *head = (const void *)raw_table;
	const struct vhdx_raw_item *raw = (const void *)(raw_table + sizeof(*head));
	unsigned count = le16_get(head->count), users = 0;
	int status = 0;

	if (memcmp(head->signature, "metadata", 8))
		return error_set(err, -EINVAL, "metadata: the region at %" PRIu64 " has no signature", t->region->offset);
	if (count > VHDX_MAX_ITEMS)
		return error_set(err, -EINVAL, "metadata: %u items, more than the limit of %u", count, VHDX_MAX_ITEMS);
	t->items = calloc(count ? count : 1, sizeof(*t->items));
	if (!t->items)
		return error_set(err, -ENOMEM, "no memory");
	for (; t->count < count && !status; t->count++, raw++) {
		struct item *i = &t->items[t->count];
		*i = (struct item){raw->id, t->region->offset + le32_get(raw->offset), le32_get(raw->length), le32_get(raw->flags)};
		users += i->flags & VHDX_ITEM_USER;
		status = check_item(t, i, raw, err);
	}
	if (!status && users > VHDX_MAX_USER_ITEMS)
		status = error_set(err, -EINVAL, "metadata: %u items of users, more than the limit of %u", users, VHDX_MAX_USER_ITEMS);
	return status ? status : check_items(t, err);
}

/* ------------------------------------------------------------------ the items */

static int know_item(struct table *t, const struct item *i, struct error *err)
{
	static const struct guid incomplete = VHDX_ITEM_INCOMPLETE;
	char id[GUID_TEXT_MAX];

	if (i->flags & VHDX_ITEM_USER)
		return 0;
	for (unsigned k = 0; k < KNOWN; k++)
		if (guid_equal(&i->id, &known_items[k].id)) {
			t->known[k] = i;
			return 0;
		}
	if (guid_equal(&i->id, &incomplete))
		return error_set(err, -EINVAL, "metadata: the program that made this file did not finish");
	if (i->flags & VHDX_ITEM_REQUIRED)
		return error_set(err, -EOPNOTSUPP, "metadata: item %s is required and not known", guid_text(&i->id, id));
	return 0;
}

static int check_known(const struct table *t, unsigned k, struct error *err)
{
	const struct item *i = t->known[k];

	if (!i && k == LOCATOR)
		return 0;
	if (!i)
		return error_set(err, -EINVAL, "metadata: there is no item for the %s", known_items[k].name);
	if (!i->length || (known_items[k].length && i->length != known_items[k].length))
		return error_set(err, -EINVAL, "metadata: the %s has %" PRIu32 " bytes instead of %" PRIu32, known_items[k].name, i->length,
				 known_items[k].length);
	if (known_items[k].of_disk != !!(i->flags & VHDX_ITEM_VIRTUAL_DISK))
		return error_set(err, -EINVAL, "metadata: the %s is %s marked as one of the virtual disk", known_items[k].name,
				 known_items[k].of_disk ? "not" : "wrongly");
	return 0;
}

static int load_items(const struct table *t, uint8_t values[KNOWN][16], struct error *err)
{
	int status = 0;

	for (unsigned k = 0; k < KNOWN && !status; k++) {
		status = check_known(t, k, err);
		if (!status && k != LOCATOR)
			status = container_load(t->c, values[k], t->known[k]->length, t->known[k]->offset, err);
	}
	return status;
}

static bool is_sector(uint32_t n)
{
	return n == 512 || n == 4096;
}

static int check_values(const struct vhdx_metadata *m, uint32_t bits, struct error *err)
{
	if (bits & ~(VHDX_LEAVE_ALLOCATED | VHDX_HAS_PARENT))
		return error_set(err, -EOPNOTSUPP, "metadata: file parameters have the bits %#" PRIx32 ", of which not all are known", bits);
	if (m->block_size < VHDX_MIN_BLOCK || m->block_size > VHDX_MAX_BLOCK || (m->block_size & (m->block_size - 1)))
		return error_set(err, -EINVAL, "metadata: block size %" PRIu32 " is not a power of two from 1 to 256 MiB", m->block_size);
	if (!is_sector(m->logical_sector) || !is_sector(m->physical_sector))
		return error_set(err, -EINVAL, "metadata: sectors of %" PRIu32 " (logical) and %" PRIu32 " bytes (physical), not 512 or 4096",
				 m->logical_sector, m->physical_sector);
	if (!m->size || m->size % m->logical_sector || m->size > VHDX_MAX_SIZE)
		return error_set(err, -EINVAL, "metadata: virtual disk size %" PRIu64 " is not 1 or more sectors, up to 64 TiB", m->size);
	if (m->has_parent && !m->locator_offset)
		return error_set(err, -EINVAL, "metadata: there is a parent, but no parent locator");
	return 0;
}

static int take_items(const struct table *t, struct vhdx_metadata *m, struct error *err)
{
	uint8_t values[KNOWN][16];
	uint32_t bits;
	int status = load_items(t, values, err);

	if (status)
		return status;
	bits = le32_get(values[PARAMETERS] + 4);
	*m = (struct vhdx_metadata){
		.size = le64_get(values[SIZE]),
		.block_size = le32_get(values[PARAMETERS]),
		.logical_sector = le32_get(values[LOGICAL]),
		.physical_sector = le32_get(values[PHYSICAL]),
		.leave_allocated = bits & VHDX_LEAVE_ALLOCATED,
		.has_parent = bits & VHDX_HAS_PARENT,
		.size_offset = t->known[SIZE]->offset,
	};
	memcpy(&m->id, values[ID], sizeof(m->id));
	if (t->known[LOCATOR]) {
		m->locator_offset = t->known[LOCATOR]->offset;
		m->locator_length = t->known[LOCATOR]->length;
	}
	if (m->physical_sector < m->logical_sector)
		m->physical_sector = m->logical_sector;
	return check_values(m, bits, err);
}

int vhdx_metadata_load(struct container *c, const struct vhdx_region *region, struct vhdx_metadata *out, struct error *err)
{
	struct table t = {.c = c, .region = region};
	uint8_t *raw = malloc(VHDX_METADATA_TABLE_BYTES);
	int status;

	memset(out, 0, sizeof(*out));
	status = raw ? container_load(c, raw, VHDX_METADATA_TABLE_BYTES, region->offset, err) : error_set(err, -ENOMEM, "no memory");
	if (!status)
		status = read_table(&t, raw, err);
	for (unsigned i = 0; i < t.count && !status; i++)
		status = know_item(&t, &t.items[i], err);
	if (!status)
		status = take_items(&t, out, err);
	free(raw);
	free(t.items);
	return status;
}

uint64_t vhdx_bat_entries(const struct vhdx_metadata *m, uint64_t size)
{
	uint64_t ratio = vhdx_chunk_ratio(m), blocks = vhdx_blocks(size, m->block_size);

	if (m->has_parent)
		return (blocks + ratio - 1) / ratio * (ratio + 1);
	return blocks + (blocks - 1) / ratio;
}

/* ------------------------------------------------------------------ writing one */

static void encode_item(uint8_t *region, unsigned k, uint32_t offset, uint32_t length, const void *value)
{
	struct vhdx_raw_items *head = (void *)region;
	unsigned index = le16_get(head->count);
	struct vhdx_raw_item *raw = (void *)(region + sizeof(*head) + index * sizeof(*raw));

	raw->id = known_items[k].id;
	le32_put(raw->offset, offset);
	le32_put(raw->length, length);
	le32_put(raw->flags, VHDX_ITEM_REQUIRED | (known_items[k].of_disk ? VHDX_ITEM_VIRTUAL_DISK : 0));
	le16_put(head->count, (uint16_t)(index + 1));
	memcpy(region + offset, value, length);
}

void vhdx_metadata_encode(struct vhdx_metadata *m, const void *locator, uint64_t offset, uint8_t *region)
{
	uint8_t parameters[8], size[8], logical[4], physical[4];
	uint32_t at = VHDX_METADATA_TABLE_BYTES;

	memcpy(region, "metadata", 8);
	le32_put(parameters, m->block_size);
	le32_put(parameters + 4, (m->leave_allocated ? VHDX_LEAVE_ALLOCATED : 0) | (m->has_parent ? VHDX_HAS_PARENT : 0));
	le64_put(size, m->size);
	le32_put(logical, m->logical_sector);
	le32_put(physical, m->physical_sector);
	encode_item(region, PARAMETERS, at, 8, parameters);
	encode_item(region, SIZE, at + 8, 8, size);
	encode_item(region, ID, at + 16, 16, &m->id);
	encode_item(region, LOGICAL, at + 32, 4, logical);
	encode_item(region, PHYSICAL, at + 36, 4, physical);
	m->size_offset = offset + at + 8;
	m->locator_offset = 0;
	if (m->has_parent) {
		encode_item(region, LOCATOR, at + 40, m->locator_length, locator);
		m->locator_offset = offset + at + 40;
	}
}

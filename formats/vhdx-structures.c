/* SPDX-License-Identifier: BSD-3-Clause */
/* What a check tells of each structure of a VHDX file, beside what is wrong with it ([MS-VHDX] 2). */
#include "formats/vhdx-structures.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"
#include "formats/structures.h"
#include "formats/utf16.h"
#include "formats/vhdx-locator.h"

#define NAME_MAX_BYTES 96u

/* ------------------------------------------------------------------ the first MiB */

/* Who made the file; "" where that is not said, or not in Unicode. */
static void creator_of(struct container *c, char text[NAME_MAX_BYTES])
{
	uint8_t raw[VHDX_CREATOR_BYTES];
	size_t bytes = 0;
	char *utf8;

	text[0] = '\0';
	if (container_load(c, raw, sizeof(raw), VHDX_CREATOR_OFFSET, NULL))
		return;
	while (bytes < sizeof(raw) && (raw[bytes] || raw[bytes + 1]))
		bytes += 2;
	if (!bytes || utf16_to_utf8(raw, bytes, UTF16_LE, &utf8))
		return;
	snprintf(text, NAME_MAX_BYTES, "%s", utf8);
	free(utf8);
}

void vhdx_note_headers(json_t *list, struct container *c, const struct vhdx_headers *h)
{
	char creator[NAME_MAX_BYTES];

	creator_of(c, creator);
	structures_add(list, "file identifier", 0, VHDX_HEADER_OFFSET(0), true, "%s%s", creator[0] ? "made by " : "does not say who made it",
		       creator);
	for (unsigned i = 0; i < 2; i++) {
		const char *name = i ? "header 2" : "header 1";
		if (!h->valid[i])
			structures_add(list, name, VHDX_HEADER_OFFSET(i), VHDX_PAGE, false, "not valid: %s", h->why[i]);
		else if (h->slot == i)
			structures_add(list, name, VHDX_HEADER_OFFSET(i), VHDX_PAGE, true, "the current one, sequence number %" PRIu64,
				       h->current.sequence);
		else
			structures_add(list, name, VHDX_HEADER_OFFSET(i), VHDX_PAGE, true, "the one before the current one");
	}
}

void vhdx_note_log(json_t *list, const struct vhdx_header *h, uint32_t entries)
{
	uint64_t offset = h->log_length ? h->log_offset : STRUCTURE_NOWHERE;

	if (entries > 0)
		structures_add(list, "log", offset, h->log_length, false, "%" PRIu32 " entries are to be replayed", entries);
	else
		structures_add(list, "log", offset, h->log_length, true, "%s", h->log_length ? "empty" : "there is none");
}

void vhdx_note_tables(json_t *list, const struct vhdx_regions *r)
{
	for (unsigned i = 0; i < 2; i++) {
		const char *name = i ? "region table 2" : "region table 1";
		if (!r->valid[i])
			structures_add(list, name, VHDX_TABLE_OFFSET(i), VHDX_TABLE_BYTES, false, "not valid: %s", r->why[i]);
		else
			structures_add(list, name, VHDX_TABLE_OFFSET(i), VHDX_TABLE_BYTES, !(i && r->differ), "%u regions%s", r->count,
				       i && r->differ ? ", not the same as in the first" : "");
	}
}

/* ------------------------------------------------------------------ metadata */

static const struct {
	struct guid id;
	const char *name;
} item_names[] = {
	{VHDX_ITEM_PARAMETERS, "file parameters"},     {VHDX_ITEM_SIZE, "virtual disk size"},
	{VHDX_ITEM_ID, "virtual disk id"},             {VHDX_ITEM_LOGICAL, "logical sector size"},
	{VHDX_ITEM_PHYSICAL, "physical sector size"},  {VHDX_ITEM_LOCATOR, "parent locator"},
};

static const char *name_of_item(const struct vhdx_raw_item *item)
{
	for (size_t i = 0; i < sizeof(item_names) / sizeof(item_names[0]); i++)
		if (!(le32_get(item->flags) & VHDX_ITEM_USER) && guid_equal(&item->id, &item_names[i].id))
			return item_names[i].name;
	return "metadata item";
}

static void say_locator(const struct vhdx *x, char text[400])
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_locator l;
	size_t used = 0;

	if (vhdx_locator_load(x->file, &x->meta, &l, &err)) {
		snprintf(text, 400, "%s", error_text(&err));
		return;
	}
	for (size_t i = 0; i < l.names.count && used < 400; i++)
		used += (size_t)snprintf(text + used, 400 - used, "%s%s", i > 0 ? "; " : "",
					 l.names.list[i].text ? l.names.list[i].text : l.names.list[i].problem);
	if (!l.names.count)
		snprintf(text, 400, "names no parent");
	vhdx_locator_free(&l);
}

/* What the item says. */
static void say_item(const struct vhdx *x, const char *name, const struct vhdx_raw_item *item, char text[400])
{
	const struct vhdx_metadata *m = &x->meta;
	char id[GUID_TEXT_MAX];

	if (!strcmp(name, "file parameters"))
		snprintf(text, 400, "blocks of %" PRIu32 " bytes%s%s", m->block_size, m->leave_allocated ? ", all allocated" : "",
			 m->has_parent ? ", has a parent" : "");
	else if (!strcmp(name, "virtual disk size"))
		snprintf(text, 400, "%" PRIu64 " bytes", m->size);
	else if (!strcmp(name, "virtual disk id"))
		snprintf(text, 400, "%s", guid_text(&m->id, id));
	else if (!strcmp(name, "logical sector size"))
		snprintf(text, 400, "%" PRIu32 " bytes", m->logical_sector);
	else if (!strcmp(name, "physical sector size"))
		snprintf(text, 400, "%" PRIu32 " bytes", m->physical_sector);
	else if (!strcmp(name, "parent locator"))
		say_locator(x, text);
	else
		snprintf(text, 400, "%s, not known", guid_text(&item->id, id));
}

/* All of it was found good when the file was opened. */
void vhdx_note_metadata(json_t *list, const struct vhdx *x)
{
	const struct vhdx_region *region = &x->regions.metadata;
	uint8_t *raw = malloc(VHDX_METADATA_TABLE_BYTES);
	const struct vhdx_raw_item *item = (const void *)(raw + sizeof(struct vhdx_raw_items));
	unsigned count;

	if (!raw || container_load(x->file, raw, VHDX_METADATA_TABLE_BYTES, region->offset, NULL)) {
		free(raw);
		return;
	}
	count = le16_get(((const struct vhdx_raw_items *)(const void *)raw)->count);
	structures_add(list, "metadata region", region->offset, region->length, true, "%u items", count);
	for (unsigned i = 0; i < count && i < VHDX_MAX_ITEMS; i++, item++) {
		const char *name = name_of_item(item);
		char text[400] = "";
		say_item(x, name, item, text);
		structures_add(list, name, region->offset + le32_get(item->offset), le32_get(item->length), true, "%s", text);
	}
	free(raw);
}

void vhdx_note_regions(json_t *list, const struct vhdx *x)
{
	char id[GUID_TEXT_MAX];

	for (unsigned i = 0; i < x->regions.count; i++) {
		const struct vhdx_region *r = &x->regions.all[i];
		if (!guid_equal(&r->id, &x->regions.bat.id) && !guid_equal(&r->id, &x->regions.metadata.id))
			structures_add(list, "region", r->offset, r->length, true, "%s, not known", guid_text(&r->id, id));
	}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What becomes of a differencing file and its parent: another parent, or its content in the parent
 *
 * The locator is an item of the metadata. A new one goes where no item is, and the log has it and the table that points there in one
 * entry, so that the old one or the new one is found, whole. Who wants the child to show the same afterwards (platter-rebase(1)) compares
 * first what lies below it with what will, and writes to the child what it shows where they differ: that changes nothing to be seen, so
 * the power may go before the child names the other parent; and the DataWriteGuid stays (vhdx_keep_data_id()), so that children of the
 * child go on.
 *
 * Merging changes the parent, and with it the parent's DataWriteGuid. So that the chain can be opened after a power cut at any point, the
 * child first names both, the old one and that of the session to come, as parent_linkage and parent_linkage2 (2.6.2.6.3); then the
 * parent is written to; then the child names the new one alone. What was merged reads the same from either, so merging again after
 * an interruption is right.
 */
#include "formats/vhdx-writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/endian.h"
#include "formats/vhdx-locator.h"

/* ------------------------------------------------------------------ storing a locator */

/* The raw table of items, and where there is room behind them. */
struct table {
	uint8_t *raw;
	struct vhdx_raw_item *locator;
	uint64_t end; /* of the last other item, in the region, rounded up to pages */
};

static int load_table(struct vhdx *x, struct table *t, const struct io *io)
{
	static const struct guid id = VHDX_ITEM_LOCATOR;
	struct vhdx_raw_item *item;
	int status;

	*t = (struct table){.raw = malloc(VHDX_METADATA_TABLE_BYTES), .end = VHDX_METADATA_TABLE_BYTES};
	if (!t->raw)
		return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	status = container_read(x->file, t->raw, VHDX_METADATA_TABLE_BYTES, x->regions.metadata.offset, io);
	item = (void *)(t->raw + sizeof(struct vhdx_raw_items));
	for (unsigned i = 0; i < le16_get(((struct vhdx_raw_items *)(void *)t->raw)->count) && !status; i++, item++) {
		uint64_t end = (uint64_t)le32_get(item->offset) + le32_get(item->length);
		if (guid_equal(&item->id, &id) && !(le32_get(item->flags) & VHDX_ITEM_USER))
			t->locator = item;
		else if (end > t->end)
			t->end = end;
	}
	t->end = (t->end + VHDX_PAGE - 1) & ~(uint64_t)(VHDX_PAGE - 1);
	if (!status && !t->locator)
		status = io_fail(io, -EINVAL, "'%s' has no parent", x->file->name);
	return status;
}

static uint64_t whole_pages(uint64_t n)
{
	return (n + VHDX_PAGE - 1) & ~(uint64_t)(VHDX_PAGE - 1);
}

/* Where the new item goes: behind the others, or behind the old one where that is in the way. So it takes turns. */
static int find_room(struct vhdx *x, const struct table *t, uint32_t length, uint64_t *at, const struct io *io)
{
	uint64_t old = le32_get(t->locator->offset), old_end = whole_pages(old + le32_get(t->locator->length));

	*at = t->end;
	if (old < *at + whole_pages(length) && *at < old_end)
		*at = old_end;
	if (*at + whole_pages(length) <= x->regions.metadata.length)
		return 0;
	return io_fail(io, -ENOSPC, "'%s': the metadata region, %" PRIu32 " bytes, has no room for a parent locator of %" PRIu32 " bytes",
		       x->file->name, x->regions.metadata.length, length);
}

static int log_locator(struct vhdx *x, struct table *t, const uint8_t *item, uint32_t length, uint64_t at, const struct io *io)
{
	uint64_t region = x->regions.metadata.offset;
	uint64_t entry = (uint64_t)((uint8_t *)t->locator - t->raw) / VHDX_PAGE * VHDX_PAGE;
	struct vhdx_logged pages[VHDX_ENTRY_PAGES];
	uint32_t count = 0;

	if ((length + VHDX_PAGE - 1) / VHDX_PAGE + 1 > VHDX_ENTRY_PAGES)
		return io_fail(io, -EINVAL, "'%s': a parent locator of %" PRIu32 " bytes is too long", x->file->name, length);
	le32_put(t->locator->offset, (uint32_t)at);
	le32_put(t->locator->length, length);
	pages[count++] = (struct vhdx_logged){region + entry, t->raw + entry};
	for (uint32_t done = 0; done < length; done += VHDX_PAGE)
		pages[count++] = (struct vhdx_logged){region + at + done, item + done};
	return vhdx_commit_pages(x, pages, count, io);
}

/* An item of 32 bytes never lies across pages: the table begins with 32. `item` is as long as whole pages. */
static int store_locator(struct vhdx *x, const uint8_t *item, uint32_t length, const struct io *io)
{
	struct table t;
	uint64_t at = 0;
	int status = vhdx_begin(x, io);

	if (status)
		return status;
	status = load_table(x, &t, io);
	if (!status)
		status = find_room(x, &t, length, &at, io);
	if (!status)
		status = log_locator(x, &t, item, length, at, io);
	free(t.raw);
	if (status)
		return status;
	x->meta.locator_offset = x->regions.metadata.offset + at;
	x->meta.locator_length = length;
	return 0;
}

/* ------------------------------------------------------------------ files that are open already */

/* A layer in the container, which stays the caller's: end_layer() ends it. The child's structure changes, but not what it holds. */
static int begin_child(struct container *c, struct layer **out, struct error *err)
{
	int status = vhdx_layer_open(c, out, err);

	if (status)
		return error_prefix(err, "'%s'", c->name);
	if (!vhdx_has_parent(*out)) {
		vhdx_layer_release(*out);
		return error_set(err, -EINVAL, "'%s' has no parent", c->name);
	}
	vhdx_keep_data_id(*out);
	return 0;
}

/* What `status` says, or what could not be saved. */
static int end_layer(struct layer *l, int status, struct error *err)
{
	bool failed = status && status != -EINTR; /* who was stopped leaves a file that was closed */
	int now = vhdx_writer_close(vhdx_of(l), failed, status ? NULL : err);

	vhdx_layer_release(l);
	return status ? status : now;
}

static bool is_file(const struct container *c, const char *path)
{
	struct stat st;

	return c->is_file && !stat(path, &st) && st.st_dev == c->device && st.st_ino == c->inode;
}

static int compare_sectors(const struct layer *child, const struct layer *parent, const char *name, struct error *err)
{
	if (parent->info.block_size == child->info.block_size)
		return 0;
	return error_set(err, -EINVAL, "'%s' has sectors of %u bytes, the child of %u", name, parent->info.block_size,
			 child->info.block_size);
}

/* ------------------------------------------------------------------ another parent */

/* The child names the parent by `linkage`, and by `pending` as well unless that is NULL. */
static int name_parent(struct layer *child, const struct vhdx_names *names, const struct guid *linkage, const struct guid *pending,
		       struct error *err)
{
	struct failure why = {0};
	uint32_t length;
	void *item;
	int status = vhdx_locator_encode(linkage, pending, names->relative, names->absolute, &item, &length, err);

	if (status)
		return status;
	status = store_locator(vhdx_of(child), item, length, &(struct io){.failure = &why});
	free(item);
	return status ? error_set(err, status, "%s", why.text) : 0;
}

/* The DataWriteGuid of the file in `parent`, if it can be the parent of the child. */
static int guid_of_parent(struct container *parent, const struct layer *child, struct guid *out, struct error *err)
{
	struct layer *l;
	int status = vhdx_layer_open_as(parent, true, &l, err);

	if (status)
		return error_prefix(err, "'%s'", parent->name);
	*out = vhdx_data_write_guid(l);
	status = compare_sectors(child, l, parent->name, err);
	vhdx_layer_release(l);
	return status;
}

int vhdx_rebase_in(struct container *child, struct container *parent, const struct vhdx_names *names, struct error *err)
{
	struct guid linkage;
	struct layer *l;
	int status = begin_child(child, &l, err);

	if (status)
		return status;
	status = guid_of_parent(parent, l, &linkage, err);
	if (!status)
		status = name_parent(l, names, &linkage, NULL, err);
	return end_layer(l, status, err);
}

/* ------------------------------------------------------------------ into the parent */

static int merge(struct layer *child, struct layer *parent, const struct vhdx_names *names, struct error *err)
{
	struct guid old = vhdx_data_write_guid(parent), next;
	struct failure why = {0};
	int status = guid_random(&next);

	if (status)
		return error_set_errno(err, status, "no random numbers");
	status = name_parent(child, names, &old, &next, err);
	if (status)
		return status;
	vhdx_of(parent)->writer->next_data = next;
	status = layer_merge_down(child, parent, vhdx_of(child)->file->watch, &(struct io){.failure = &why});
	if (status)
		return error_set(err, status, "%s", why.text[0] ? why.text : strerror(-status));
	if (!atomic_load(&vhdx_of(parent)->writer->begun)) /* the child held nothing */
		next = old;
	return name_parent(child, names, &next, NULL, err);
}

/* The parent must be what the child was made over. */
static int check_linkage(struct layer *child, struct layer *parent, const char *name, struct error *err)
{
	struct guid has = vhdx_data_write_guid(parent);
	char found[GUID_TEXT_MAX], wanted[GUID_TEXT_MAX];
	struct vhdx_locator locator;
	bool same;
	int status = vhdx_locator_load(vhdx_of(child)->file, &vhdx_of(child)->meta, &locator, err);

	if (status)
		return status;
	same = guid_equal(&locator.linkage[0], &has) || (locator.has_linkage[1] && guid_equal(&locator.linkage[1], &has));
	vhdx_locator_free(&locator);
	if (!same)
		return error_set(err, -ESTALE, "'%s' is not as it was when the child was made: its DataWriteGuid is %s, the child names %s",
				 name, guid_text(&has, found), guid_text(&locator.linkage[0], wanted));
	return compare_sectors(child, parent, name, err);
}

int vhdx_merge_in(struct container *child, struct container *parent, const struct vhdx_names *names, struct error *err)
{
	struct layer *above, *below;
	int status = begin_child(child, &above, err);

	if (status)
		return status;
	status = vhdx_layer_open(parent, &below, err);
	if (status)
		return end_layer(above, error_prefix(err, "'%s'", parent->name), err);
	status = check_linkage(above, below, parent->name, err);
	if (!status)
		status = merge(above, below, names, err);
	status = end_layer(below, status, err);
	return end_layer(above, status, err);
}

/* ------------------------------------------------------------------ by their paths */

typedef int change(struct container *child, struct container *parent, const struct vhdx_names *names, struct error *err);

static int change_over(struct container *child, const char *path, const char *parent, unsigned flags, change *what, struct error *err)
{
	struct container *below;
	struct vhdx_names names;
	int status;

	if (is_file(child, parent))
		return error_set(err, -ELOOP, "'%s' cannot be its own parent", parent);
	status = container_open(parent, flags, &below, err);
	if (status)
		return status;
	status = vhdx_locator_paths(path, parent, &names.relative, &names.absolute, err);
	if (!status)
		status = what(child, below, &names, err);
	free(names.relative);
	free(names.absolute);
	if (status)
		container_close(below, false, NULL);
	else
		status = container_close(below, false, err);
	return status;
}

/* `flags` of the parent. */
static int change_files(const char *path, const char *parent, unsigned flags, change *what, struct watch *watch, struct error *err)
{
	struct container *child;
	int status = container_open(path, 0, &child, err);

	if (status)
		return status;
	child->watch = watch;
	status = change_over(child, path, parent, flags, what, err);
	if (status)
		container_close(child, false, NULL);
	else
		status = container_close(child, false, err);
	return status;
}

int vhdx_rebase(const char *path, const char *parent, struct error *err)
{
	return change_files(path, parent, CONTAINER_READ_ONLY | CONTAINER_SHARED, vhdx_rebase_in, NULL, err);
}

int vhdx_merge(const char *path, const char *parent, struct watch *watch, struct error *err)
{
	return change_files(path, parent, 0, vhdx_merge_in, watch, err);
}

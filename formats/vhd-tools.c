/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another parent for a differencing image
 *
 * The header is of two sectors, and says with both of them who the parent is: a power cut in the middle of writing it would leave neither
 * the old nor the new one. But the footer says where the header lies, and is of one sector. So:
 *
 *   step                                                         the header that counts
 *   1 the footer moves to the end of a longer file; flush        the old one
 *   2 names and a copy of the new header before it; flush        the old one
 *   3 both footers name the copy, the one at the end first       the new one, in its copy
 *   4 the new header in its place; flush                         the same
 *   5 both footers name that                                     the new one, where all others have it
 *
 * The footer at the end is the one that is believed; where it is missing the one at the front is taken, which names an older header, but one
 * that is whole. What held the old names is not used again.
 */
#include "formats/vhd-tools.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/vhd-image.h"

static int open_image(struct container *c, const struct vhd_options *o, struct vhd **v, struct error *err)
{
	const struct vhd_open_options how = {.lax = o->lax, .size_rule = o->size_rule};

	return vhd_image_open(c, &how, v, err);
}

static int explain(int status, const struct failure *why, const struct vhd *v, struct error *err)
{
	if (!status || (err && err->status))
		return status;
	return why->text[0] ? error_set(err, status, "%s", why->text) : error_set_errno(err, status, "'%s'", v->c->name);
}

/* ------------------------------------------------------------------ blocks */

static int count(struct vhd *v, uint64_t *found, const struct io *io)
{
	int status = 0;

	for (uint32_t block = 0; block < v->max_entries && !status; block++) {
		struct vhd_page *p;
		bool absent = false;
		if (!(block & (VHD_PAGE_ENTRIES - 1)))
			status = vhd_page_is_absent(v, block, &absent, io);
		if (absent)
			block += VHD_PAGE_ENTRIES - 1;
		if (status || absent)
			continue;
		status = vhd_page_get(v, block, &p, io);
		if (!status)
			*found += atomic_load(&p->at[block & (VHD_PAGE_ENTRIES - 1)]) != VHD_ABSENT;
	}
	return status;
}

int vhd_count_blocks(struct container *c, const struct vhd_options *o, uint64_t *found, struct error *err)
{
	struct failure why = {0};
	struct vhd *v;
	int status = open_image(c, o, &v, err);

	if (status)
		return status;
	*found = 0;
	if (v->type != VHD_FIXED)
		status = explain(count(v, found, &(struct io){.failure = &why}), &why, v, err);
	vhd_image_close(v, true, NULL);
	return status;
}

/* ------------------------------------------------------------------ the header */

/* The header lies at `at`, durably, and both footers say so. */
static int use_header(struct vhd *v, const struct vhd_header *h, uint64_t at, const struct io *io)
{
	int status = container_write(v->c, h, sizeof(*h), at, io);

	if (!status)
		status = v->c->ops->flush(v->c, io);
	if (status)
		return status;
	v->footer.data_offset = htobe64(at);
	vhd_footer_seal(&v->footer);
	status = vhd_footer_move(v, v->footer_at, io);
	if (!status)
		status = container_write(v->c, &v->footer, sizeof(v->footer), 0, io);
	return status ? status : v->c->ops->flush(v->c, io);
}

/* `names_end`: where the names end, and there is room for the header. */
static int replace_header(struct vhd *v, const struct vhd_header *h, uint64_t names_end, const struct io *io)
{
	uint64_t home = be64toh(v->footer.data_offset);
	int status = use_header(v, h, names_end, io);

	return status ? status : use_header(v, h, home, io);
}

/* ------------------------------------------------------------------ who the parent is */

static int check_parent(struct vhd *v, const char *parent, struct error *err)
{
	struct stat st;

	if (v->type != VHD_DIFFERENCING)
		return error_set(err, -EINVAL, "'%s' has no parent", v->c->name);
	if (v->c->read_only)
		return error_set(err, -EROFS, "'%s' is open for reading only", v->c->name);
	if (!parent)
		return 0;
	if (stat(parent, &st))
		return error_set_errno(err, -errno, "'%s'", parent);
	if (v->c->is_file && st.st_dev == v->c->device && st.st_ino == v->c->inode)
		return error_set(err, -ELOOP, "'%s' cannot be its own parent", parent);
	return 0;
}

static int set_parent(struct vhd *v, const struct vhd_options *o, const char *parent, bool raw, const struct io *io, struct error *err)
{
	struct vhd_header h = v->header;
	uint64_t begin = (v->footer_at + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR, end = begin, size;
	int status = check_parent(v, parent, err);

	if (!status)
		status = vhd_ask_parent(parent, raw, o, h.parent_id, &size, err);
	if (!status)
		status = vhd_name_parent(NULL, v->c->name, parent, &h, &end, err);
	if (!status)
		status = vhd_footer_move(v, end + sizeof(h), io);
	end = begin;
	if (!status)
		status = vhd_name_parent(v->c, v->c->name, parent, &h, &end, err);
	if (status)
		return status;
	h.parent_time = 0;
	vhd_header_seal(&h);
	return replace_header(v, &h, end, io);
}

int vhd_set_parent(struct container *c, const struct vhd_options *o, const char *parent, bool raw, struct error *err)
{
	struct failure why = {0};
	struct vhd *v;
	int status = open_image(c, o, &v, err);

	if (status)
		return status;
	status = explain(set_parent(v, o, parent, raw, &(struct io){.failure = &why}, err), &why, v, err);
	vhd_image_close(v, true, NULL); /* it is durable */
	return status;
}

/* Time and checksum are in the first sector. */
static int forget_time(struct vhd *v, const struct io *io, struct error *err)
{
	int status = check_parent(v, NULL, err);

	if (status || !v->header.parent_time)
		return status;
	v->header.parent_time = 0;
	vhd_header_seal(&v->header);
	status = container_write(v->c, &v->header, VHD_SECTOR, be64toh(v->footer.data_offset), io);
	return status ? status : v->c->ops->flush(v->c, io);
}

int vhd_allow_change(struct container *c, const struct vhd_options *o, struct error *err)
{
	struct failure why = {0};
	struct vhd *v;
	int status = open_image(c, o, &v, err);

	if (status)
		return status;
	status = explain(forget_time(v, &(struct io){.failure = &why}, err), &why, v, err);
	vhd_image_close(v, true, NULL);
	return status;
}

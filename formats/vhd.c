/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd: a VHD image with its parents as a disk, or the image alone as a layer. */
#include "formats/vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/node.h"
#include "kinds.h"

enum create_type { CREATE_DYNAMIC, CREATE_FIXED, CREATE_FULL, CREATE_DIFFERENCING };

static const char *const create_types[] = {"dynamic", "fixed", "full", "differencing", NULL};
static const char *const size_rules[] = {"auto", "current", "chs", NULL};

static struct vhd_options options_of(const struct spec *spec)
{
	return (struct vhd_options){
		.lax = spec_given(spec, "lax"),
		.size_rule = (enum vhd_size_rule)spec_number(spec, "size"),
	};
}

/* ------------------------------------------------------------------ create= */

/* The image file that parent= names: its path, and whether it is raw. */
static int parent_path(const struct spec *spec, struct spec **parsed, struct vhd_create_options *o, struct error *err)
{
	const char *kind;
	int status;

	if (!spec_given(spec, "parent"))
		return error_set(err, -EINVAL, "a differencing disk needs a parent: parent=SPEC");
	status = spec_parse(spec_text(spec, "parent"), parsed, err);
	if (status) {
		error_prefix(err, "parent");
		return status;
	}
	kind = (*parsed)->kind->name;
	if (strcmp(kind, "vhd") && strcmp(kind, "file"))
		return error_set(err, -EINVAL, "a child can name a vhd or a raw file as its parent, not %s", kind);
	o->parent = spec_text(*parsed, "path");
	o->raw_parent = !strcmp(kind, "file");
	return 0;
}

/* `below_size`: of a layer under it, 0 where there is none. */
static int create_options(const struct spec *spec, uint64_t below_size, struct spec **parsed, struct vhd_create_options *o,
			  struct error *err)
{
	static const enum vhd_type types[] = {VHD_DYNAMIC, VHD_FIXED, VHD_FIXED, VHD_DIFFERENCING};
	enum create_type type = (enum create_type)spec_number(spec, "type");
	bool over = below_size && !spec_given(spec, "type");

	*o = (struct vhd_create_options){
		.type = over ? VHD_DIFFERENCING : types[type],
		.size = spec_number(spec, "create"),
		.block_size = (uint32_t)spec_number(spec, "block"),
		.full = type == CREATE_FULL,
		.exact = spec_given(spec, "exact") || below_size,
		.child = spec_text(spec, "path"),
	};
	if (!o->size)
		o->size = below_size;
	if (o->type == VHD_FIXED && spec_given(spec, "block"))
		return error_set(err, -EINVAL, "a fixed disk has no blocks: block= is for the other types");
	if (o->type == VHD_DIFFERENCING && !below_size)
		return parent_path(spec, parsed, o, err);
	if (!o->size)
		return error_set(err, -EINVAL, "the size is missing (create=SIZE): only a differencing disk has it from its parent");
	return 0;
}

static int create_image(const struct spec *spec, uint64_t below_size, struct container **out, struct error *err)
{
	CLEANUP_SPEC struct spec *parsed = NULL;
	const struct vhd_options read = options_of(spec);
	struct vhd_create_options o;
	int status = create_options(spec, below_size, &parsed, &o, err);

	if (status)
		return status;
	o.read = &read;
	status = vhd_create_check(&o, err);
	if (!status)
		status = container_open(o.child, CONTAINER_CREATE, out, err);
	if (status)
		return status;
	status = vhd_create(*out, &o, err);
	if (status)
		container_close(*out, true, NULL);
	return status;
}

/* ------------------------------------------------------------------ opening */

/* The container, made or opened. Readers keep writers out, since what they have read of the image they do not read again. */
static int open_container(const struct open_request *request, uint64_t below_size, struct container **out, struct error *err)
{
	const struct spec *spec = request->spec;
	bool read_only = request->flags & OPEN_READ_ONLY || spec_given(spec, "ro");

	if (spec_given(spec, "create") && read_only)
		return error_set(err, -EROFS, "create= would write, but the disk is opened read-only");
	if (spec_given(spec, "create"))
		return create_image(spec, below_size, out, err);
	if (spec_given(spec, "type") || spec_given(spec, "block") || spec_given(spec, "exact"))
		return error_set(err, -EINVAL, "type=, block= and exact are for a new image, with create=; one that exists knows its own");
	return container_open(spec_text(spec, "path"), read_only ? CONTAINER_READ_ONLY | CONTAINER_SHARED : 0, out, err);
}

static int vhd_open(const struct open_request *request, struct disk **out, struct error *err)
{
	const struct vhd_options options = options_of(request->spec);
	struct parent_policy policy = parent_policy_of(request->spec);
	struct container *c;
	int status = open_container(request, 0, &c, err);

	if (status)
		return status;
	status = vhd_disk_open("vhd", c, &options, &policy, request->flags | (c->read_only ? (unsigned)OPEN_READ_ONLY : 0), out, err);
	if (status)
		container_close(c, true, NULL);
	return status;
}

/* What lies below is what the user has put there: nothing is looked for. */
static int vhd_open_layer(const struct open_request *request, const struct layer_below *below, struct layer **out, struct error *err)
{
	const struct vhd_options options = options_of(request->spec);
	struct container *c;
	int status;

	if (spec_given(request->spec, "parents") || spec_given(request->spec, "parent") || spec_given(request->spec, "ignore-change"))
		return error_set(err, -EINVAL, "as a layer it lies upon the next one: parents=, parent= and ignore-change have no meaning");
	status = open_container(request, below ? below->size : 0, &c, err);
	if (status)
		return status;
	status = vhd_layer_open(c, &options, out, err);
	if (status)
		container_close(c, true, NULL);
	return status;
}

static const struct spec_field vhd_fields[] = {
	{.name = "path",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .required = true,
	 .help = "image file"},
	{.name = "create",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .bare = true,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = VHD_MAX_SECTORS * VHD_SECTOR,
	 .help = "make the image, which must not exist, for a disk of this size, whole MiB; differencing: of its parent's"},
	{.name = "type",
	 .role = SPEC_OPTION,
	 .type = SPEC_WORD,
	 .words = create_types,
	 .fallback = "dynamic",
	 .help = "of a new image; full is fixed with its space allocated"},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "2M",
	 .min = VHD_MIN_BLOCK,
	 .max = VHD_MAX_BLOCK,
	 .help = "size of the blocks of a new image, a power of two"},
	{.name = "exact",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "the size of a new image need not be whole MiB"},
	{.name = "ro",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "open read-only"},
	PARENT_FIELDS,
	{.name = "size",
	 .role = SPEC_OPTION,
	 .type = SPEC_WORD,
	 .words = size_rules,
	 .fallback = "auto",
	 .help = "which field of the footer is the size; auto: that which the program means that made the image"},
	{.name = "lax",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "take wrong checksums"},
	{0},
};

const struct disk_kind vhd_kind = {
	.name = "vhd",
	.summary = "VHD image: fixed, dynamic or differencing",
	.children = KIND_LEAF,
	.fields = vhd_fields,
	.open = vhd_open,
	.open_layer = vhd_open_layer,
};

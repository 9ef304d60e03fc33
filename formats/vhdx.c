/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx: a disk in a VHDX file, or such a layer of a stack. */
#include "kinds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/open.h"
#include "formats/vhdx.h"

static unsigned flags_of(const struct open_request *request)
{
	return request->flags | (spec_given(request->spec, "ro") ? (unsigned)OPEN_READ_ONLY : 0);
}

/* ------------------------------------------------------------------ create= */

/* As in the table of fields. */
enum create_type { CREATE_DYNAMIC, CREATE_FIXED, CREATE_DIFFERENCING };

static bool is_type(const struct spec *spec, enum create_type type)
{
	return spec_number(spec, "type") == type;
}

/* The VHDX file that parent= names; *parsed is to be freed. */
static int parent_path(const struct spec *spec, struct spec **parsed, const char **path, struct error *err)
{
	int status;

	if (!spec_given(spec, "parent"))
		return error_set(err, -EINVAL, "a differencing disk needs a parent: parent=SPEC");
	status = spec_parse(spec_text(spec, "parent"), parsed, err);
	if (status)
		return error_prefix(err, "parent");
	if (strcmp((*parsed)->kind->name, "vhdx"))
		return error_set(err, -EINVAL, "a child can name a vhdx as its parent, not %s", (*parsed)->kind->name);
	*path = spec_text(*parsed, "path");
	return 0;
}

static int child_options(const struct spec *spec, struct vhdx_create_options *o, struct error *err)
{
	CLEANUP_SPEC struct spec *parsed = NULL;
	const char *parent = NULL;
	int status = parent_path(spec, &parsed, &parent, err);

	if (status)
		return status;
	if (spec_given(spec, "sector") || spec_given(spec, "physical"))
		return error_set(err, -EINVAL, "the sectors of a differencing disk are its parent's: sector= and physical= are for the other types");
	return vhdx_child_options(spec_text(spec, "path"), parent, o, err);
}

/* What the spec says of a new disk. */
static int create_options(const struct spec *spec, struct vhdx_create_options *o, struct error *err)
{
	*o = (struct vhdx_create_options){
		.size = spec_number(spec, "create"),
		.fixed = is_type(spec, CREATE_FIXED),
		.block_size = (uint32_t)spec_number(spec, "block"),
		.logical_sector = (uint32_t)spec_number(spec, "sector"),
		.physical_sector = (uint32_t)spec_number(spec, "physical"),
	};
	if (is_type(spec, CREATE_DIFFERENCING))
		return child_options(spec, o, err);
	if (spec_given(spec, "parent"))
		return error_set(err, -EINVAL, "of the new disks only a differencing one has a parent: type=differencing");
	if (!o->size)
		return error_set(err, -EINVAL, "the size is missing (create=SIZE): only a differencing disk has it from its parent");
	return 0;
}

static int create_file(const char *path, const struct vhdx_create_options *o, struct container **out, struct error *err)
{
	int status = container_open(path, CONTAINER_CREATE, out, err);

	if (status)
		return status;
	status = vhdx_create(*out, o, err);
	if (status)
		container_close(*out, true, NULL);
	return status;
}

static int create(const struct open_request *request, struct container **out, struct error *err)
{
	struct vhdx_create_options o = {0};
	int status;

	if (flags_of(request) & OPEN_READ_ONLY)
		return error_set(err, -EROFS, "create= would write, but the disk is opened read-only");
	status = create_options(request->spec, &o, err);
	if (!status)
		status = create_file(spec_text(request->spec, "path"), &o, out, err);
	vhdx_child_options_free(&o);
	return status;
}

/* ------------------------------------------------------------------ opening */

static int check_options(const struct spec *spec, struct error *err)
{
	static const char *const names[] = {"type", "block", "sector", "physical"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && !spec_given(spec, "create"); i++)
		if (spec_given(spec, names[i]))
			return error_set(err, -EINVAL, "%s= is for a new disk, with create=; one that exists knows its own", names[i]);
	return 0;
}

/* Who only reads keeps writers out: what was read of the file's structure is kept in memory. */
static int open_container(const struct open_request *request, struct container **out, struct error *err)
{
	bool read_only = flags_of(request) & OPEN_READ_ONLY;
	int status = check_options(request->spec, err);

	if (status)
		return status;
	if (spec_given(request->spec, "create"))
		return create(request, out, err);
	return container_open(spec_text(request->spec, "path"), read_only ? CONTAINER_READ_ONLY | CONTAINER_SHARED : 0, out, err);
}

static int explain(const struct open_request *request, int status, struct error *err)
{
	error_prefix(err, "'%s'", spec_text(request->spec, "path"));
	return status;
}

/* The file alone over a disk that the user names as its parent. */
static int open_over(const struct open_request *request, struct container *c, const char *parent, struct disk **out,
		     struct error *err)
{
	struct layer_place top = {0};
	struct disk *below = NULL;
	int status = disk_open(parent, OPEN_READ_ONLY, &below, err);

	if (status)
		return error_prefix(err, "parent");
	status = vhdx_layer_open(c, &top.layer, err);
	if (!status) {
		if (!vhdx_has_parent(top.layer))
			status = error_set(err, -EINVAL, "it has no parent, so parent= is not for it");
		else
			status = layered_create_over("vhdx", &top, below, flags_of(request), out, err);
		if (!status)
			return 0;
		top.layer->ops->close(top.layer, true, NULL);
	} else {
		container_close(c, true, NULL);
	}
	disk_abandon(below);
	return status;
}

static int open_chain(const struct open_request *request, struct container *c, const struct parent_policy *policy, struct disk **out,
		      struct error *err)
{
	struct vhdx_chain chain;
	int status = vhdx_chain_open(c, policy, &chain, err);

	if (status) {
		container_close(c, true, NULL);
		return status;
	}
	status = layered_create("vhdx", chain.places, chain.count, NULL, 0, flags_of(request), out, err);
	if (status)
		vhdx_chain_abandon(&chain);
	else
		free(chain.places);
	return status;
}

static int vhdx_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct parent_policy policy = parent_policy_of(request->spec);
	struct container *c;
	int status = open_container(request, &c, err);

	if (status)
		return status;
	if (policy.parent)
		status = open_over(request, c, policy.parent, out, err);
	else
		status = open_chain(request, c, &policy, out, err);
	return status ? explain(request, status, err) : 0;
}

static int vhdx_open_layer(const struct open_request *request, const struct layer_below *below, struct layer **out,
			   struct error *err)
{
	struct container *c;
	int status;

	(void)below;
	if (spec_given(request->spec, "parents") || spec_given(request->spec, "parent"))
		return error_set(err, -EINVAL, "parents= and parent= are for a disk; of a layer the parent is what lies below it");
	status = open_container(request, &c, err);
	if (status)
		return status;
	status = vhdx_layer_open(c, out, err);
	if (!status)
		return 0;
	container_close(c, true, NULL);
	return explain(request, status, err);
}

static const char *const types[] = {"dynamic", "fixed", "differencing", NULL};

static const struct spec_field vhdx_fields[] = {
	{.name = "path",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .required = true,
	 .help = "VHDX file"},
	{.name = "create",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .bare = true,
	 .unit = "bytes",
	 .min = 512,
	 .max = UINT64_C(64) << 40,
	 .help = "make the file, which must not exist, for a disk of this size; differencing: of its parent's"},
	{.name = "type",
	 .role = SPEC_OPTION,
	 .type = SPEC_WORD,
	 .fallback = "dynamic",
	 .words = types,
	 .help = "of a new disk: space is taken when it is written to, or all from the beginning; differencing: over parent="},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = 1 << 20,
	 .max = 256 << 20,
	 .help = "payload block of a new disk, a power of two; default: 32M; fixed and differencing: 2M"},
	{.name = "sector",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "512",
	 .min = 512,
	 .max = 4096,
	 .help = "logical sector of a new disk, 512 or 4096"},
	{.name = "physical",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "4096",
	 .min = 512,
	 .max = 4096,
	 .help = "physical sector of a new disk, 512 or 4096"},
	{.name = "ro",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "open read-only"},
	PARENT_FIELDS,
	{0},
};

const struct disk_kind vhdx_kind = {
	.name = "vhdx",
	.summary = "disk in a VHDX file",
	.children = KIND_LEAF,
	.fields = vhdx_fields,
	.open = vhdx_open,
	.open_layer = vhdx_open_layer,
};

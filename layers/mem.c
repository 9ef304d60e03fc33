/* SPDX-License-Identifier: BSD-3-Clause */
/* mem: a RAM disk, or a RAM layer of a stack. memdiff: a RAM layer over another disk, which is opened read-only. */
#include "kinds.h"

#include <errno.h>
#include <stddef.h>

#include "core/node.h"
#include "layers/layer.h"

/* A stack with a new RAM layer on top of `below`, or of nothing else. */
static int open_over(const struct open_request *request, uint64_t size, uint32_t block_size,
		     struct disk *below, struct disk **out, struct error *err)
{
	struct layer_place top = {.layer = ram_layer_create(size, block_size, 0)};
	const char *kind = request->spec->kind->name;
	int status;

	if (!top.layer)
		return error_set(err, -ENOMEM, "no memory");
	status = below ? layered_create_over(kind, &top, below, request->flags, out, err)
		       : layered_create(kind, &top, 1, NULL, 0, request->flags, out, err);
	if (status)
		top.layer->ops->close(top.layer, true, NULL);
	return status;
}

static int mem_open(const struct open_request *request, struct disk **out, struct error *err)
{
	if (!spec_given(request->spec, "size"))
		return error_set(err, -EINVAL,
				 "the size is missing (mem:SIZE): only over another layer it may be left out");
	return open_over(request, spec_number(request->spec, "size"),
			 (uint32_t)spec_number(request->spec, "block"), NULL, out, err);
}

/* What is not given is as below. */
static int mem_open_layer(const struct open_request *request, const struct layer_below *below,
			  struct layer **out, struct error *err)
{
	const struct spec *spec = request->spec;
	uint64_t size = spec_number(spec, "size");
	uint32_t block = (uint32_t)spec_number(spec, "block");
	int status;

	if (!below && !spec_given(spec, "size"))
		return error_set(err, -EINVAL, "the size is missing (mem:SIZE): there is no layer below to take it from");
	if (below && !spec_given(spec, "size"))
		size = below->size;
	if (below && !spec_given(spec, "block"))
		block = below->info->block_size;
	status = disk_check_size(size, block, "size", err);
	if (status)
		return status;
	*out = ram_layer_create(size, block, 0);
	return *out ? 0 : error_set(err, -ENOMEM, "no memory");
}

static int memdiff_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct disk *below = request->children[0];

	return open_over(request, disk_size(below), disk_info(below)->block_size, below, out, err);
}

static unsigned read_only_below(const struct spec *spec, unsigned index, unsigned flags)
{
	(void)spec;
	(void)index;
	return flags | OPEN_READ_ONLY;
}

static const struct spec_field mem_fields[] = {
	{.name = "size",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_END,
	 .help = "size of the disk, whole blocks; a layer without one is as large as what lies below"},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "512",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_BLOCK,
	 .help = "logical block size, a power of two"},
	{0},
};

static const struct spec_field no_fields[] = {{0}};

const struct disk_kind mem_kind = {
	.name = "mem",
	.summary = "RAM disk that takes memory only for what is written",
	.children = KIND_LEAF,
	.fields = mem_fields,
	.open = mem_open,
	.open_layer = mem_open_layer,
};

const struct disk_kind memdiff_kind = {
	.name = "memdiff",
	.summary = "changes kept in RAM over a disk that is not touched",
	.children = KIND_WRAPS,
	.fields = no_fields,
	.child_flags = read_only_below,
	.open = memdiff_open,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* sql: a disk in an SQLite database, or such a layer of a stack. sqldiff: changes kept in one over a disk that is not touched. */
#include "kinds.h"

#include <errno.h>

#include "layers/layer.h"
#include "layers/sqlite-layer.h"

/* `create`: how a database is asked for. */
static int open_layer(const struct open_request *request, unsigned flags, struct sqlite_layer_options *options,
		      const char *create, struct layer **out, struct error *err)
{
	int status;

	options->path = spec_text(request->spec, "path");
	options->create = spec_given(request->spec, "create");
	options->read_only = flags & OPEN_READ_ONLY;
	status = sqlite_layer_open(options, out, err);
	if (status == -ENOENT && !options->create)
		error_hint(err, "add %s to make it", create);
	return status;
}

static int open_over(const struct open_request *request, unsigned flags, struct sqlite_layer_options *options,
		     const char *create, struct disk *below, struct disk **out, struct error *err)
{
	struct layer_place top = {0};
	const char *kind = request->spec->kind->name;
	int status = open_layer(request, flags, options, create, &top.layer, err);

	if (status)
		return status;
	status = below ? layered_create_over(kind, &top, below, flags, out, err)
		       : layered_create(kind, &top, 1, NULL, 0, flags, out, err);
	if (status)
		top.layer->ops->close(top.layer, true, NULL);
	return status;
}

static unsigned sql_flags(const struct open_request *request)
{
	return request->flags | (spec_given(request->spec, "ro") ? (unsigned)OPEN_READ_ONLY : 0);
}

/* What the spec says of a new disk; the size is 0 where it says none. */
static int sql_options(const struct open_request *request, struct sqlite_layer_options *options, struct error *err)
{
	const struct spec *spec = request->spec;

	*options = (struct sqlite_layer_options){
		.size = spec_number(spec, "create"),
		.block_size = (uint32_t)spec_number(spec, "block"),
	};
	options->physical_block_size = options->block_size > 4096 ? options->block_size : 4096;
	if (!spec_given(spec, "create") && spec_given(spec, "block"))
		return error_set(err, -EINVAL, "block= is for a new database, with create=; one that exists knows its own");
	return 0;
}

static int refuse_no_size(struct error *err)
{
	return error_set(err, -EINVAL,
			 "the size is missing (create=SIZE): only over another layer it may be left out");
}

static int sql_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct sqlite_layer_options options;
	int status = sql_options(request, &options, err);

	if (status)
		return status;
	if (spec_given(request->spec, "create") && !options.size)
		return refuse_no_size(err);
	options.give_id = true;
	return open_over(request, sql_flags(request), &options, ";create=SIZE", NULL, out, err);
}

/* What is not given is as below. Over something else it has no id of its own, which would hide that of the disk below. */
static int sql_open_layer(const struct open_request *request, const struct layer_below *below,
			  struct layer **out, struct error *err)
{
	struct sqlite_layer_options options;
	int status = sql_options(request, &options, err);

	if (status)
		return status;
	if (below && !options.size)
		options.size = below->size;
	if (below && !spec_given(request->spec, "block")) {
		options.block_size = below->info->block_size;
		options.physical_block_size = below->info->physical_block_size;
	}
	if (spec_given(request->spec, "create") && !options.size)
		return refuse_no_size(err);
	options.give_id = !below;
	return open_layer(request, sql_flags(request), &options, below ? ";create" : ";create=SIZE", out, err);
}

static int sqldiff_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct disk *below = request->children[0];
	struct sqlite_layer_options options = {
		.size = disk_size(below),
		.block_size = disk_info(below)->block_size,
		.physical_block_size = disk_info(below)->physical_block_size,
	};

	return open_over(request, request->flags, &options, ";create", below, out, err);
}

static unsigned read_only_below(const struct spec *spec, unsigned index, unsigned flags)
{
	(void)spec;
	(void)index;
	return flags | OPEN_READ_ONLY;
}

static const struct spec_field sql_fields[] = {
	{.name = "path",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .required = true,
	 .help = "database file"},
	{.name = "create",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .bare = true,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_END,
	 .help = "make the database, which must not exist, for a disk of this size; over another layer, of its size"},
	{.name = "ro",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "open read-only"},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .fallback = "512",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_BLOCK,
	 .help = "logical block size of a new disk, a power of two"},
	{0},
};

static const struct spec_field sqldiff_fields[] = {
	{.name = "path",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .required = true,
	 .help = "database file"},
	{.name = "create",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "make the database, which must not exist, for a disk as large as the one below"},
	{0},
};

const struct disk_kind sql_kind = {
	.name = "sql",
	.summary = "disk in an SQLite database",
	.children = KIND_LEAF,
	.fields = sql_fields,
	.open = sql_open,
	.open_layer = sql_open_layer,
};

const struct disk_kind sqldiff_kind = {
	.name = "sqldiff",
	.summary = "changes kept in an SQLite database over a disk that is not touched",
	.children = KIND_WRAPS,
	.fields = sqldiff_fields,
	.child_flags = read_only_below,
	.open = sqldiff_open,
};

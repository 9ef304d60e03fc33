/* SPDX-License-Identifier: BSD-3-Clause */
/* platter create SPEC [SIZE] */
#include "cli/verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/disks.h"
#include "cli/output.h"
#include "cli/tools.h"
#include "core/open.h"

static bool can_create(const struct kind_tools *tools)
{
	return tools->create != NULL;
}

static int check_size(const struct spec *spec, const struct kind_tools *tools, const char *size, struct error *err)
{
	bool given = spec_given(spec, "create") && spec_number(spec, "create") > 0, over = tools_over(tools, spec);

	if (over && size)
		return error_set(err, -EINVAL, "%s: it is as large as the disk below, and takes no SIZE: '%s' is too much", spec->kind->name, size);
	if (!over && given && size)
		return error_set(err, -EINVAL, "%s: create= and SIZE both tell how large it is to be; one of them will do", spec->kind->name);
	if (!over && !given && !size)
		return error_set(err, -EINVAL, "%s: how large is it to be? SIZE is missing, such as 10G", spec->kind->name);
	return 0;
}

static int prepare(struct spec *spec, const char *size, uint64_t bytes, struct error *err)
{
	const struct kind_tools *tools = tools_find(spec->kind);
	int status;

	if (!tools || !tools->create)
		return tools_refuse(spec->kind, "created", can_create, err);
	status = check_size(spec, tools, size, err);
	if (status)
		return status;
	if (!tools_over(tools, spec) && !size)
		return 0; /* create= is in the spec */
	if (tools->create_child && tools_over(tools, spec))
		status = tools->create_child(spec, err);
	else
		status = tools->create(spec, bytes, err);
	return status ? error_prefix(err, "%s", spec->kind->name) : 0;
}

static int create_disk(const char *text, const char *size, uint64_t bytes, struct error *err)
{
	CLEANUP_SPEC struct spec *spec = NULL;
	struct disk *disk;
	int status = spec_parse(text, &spec, err);

	if (!status)
		status = prepare(spec, size, bytes, err);
	if (!status)
		status = disk_open_spec(spec, 0, &disk, err);
	return status ? status : disk_close(disk, err);
}

static int create(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	const char *size = a->nr_operands > 1 ? a->operands[1] : NULL;
	uint64_t bytes = 0;

	if (size && size_parse(size, &bytes, &err))
		return verb_usage_error(&verb_create, "SIZE: %s", error_text(&err));
	return create_disk(a->operands[0], size, bytes, &err) ? operand_failed("create", a->operands[0], &err) : STATUS_OK;
}

const struct verb verb_create = {
	.name = "create",
	.operands = "SPEC [SIZE]",
	.min_operands = 1,
	.max_operands = 2,
	.summary = "Make a new, empty disk",
	.details = "SPEC names the file to be made and all it shall be, such as 'sql:data.db;block=4096'. A file that is\n"
		   "there is never overwritten. A disk over another one is as large as that, and takes no SIZE.\n",
	.options = (const struct verb_option[]){{0}},
	.run = create,
};

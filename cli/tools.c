/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/tools.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"
#include "core/kind.h"
#include "formats/vhdx.h"

/* ------------------------------------------------------------------ changing specs */

static struct spec_value *value_of(struct spec *spec, const char *name)
{
	return &spec->values[kind_field(spec->kind, name) - spec->kind->fields];
}

int spec_set_text(struct spec *spec, const char *name, const char *text, struct error *err)
{
	struct spec_value *value = value_of(spec, name);
	char *copy = strdup(text);

	if (!copy)
		return error_set(err, -ENOMEM, "no memory");
	free(value->text);
	value->text = copy;
	value->given = true;
	return 0;
}

void spec_set_number(struct spec *spec, const char *name, uint64_t number)
{
	struct spec_value *value = value_of(spec, name);

	value->number = number;
	value->given = true;
}

void spec_unset(struct spec *spec, const char *name)
{
	struct spec_value *value = value_of(spec, name);

	free(value->text);
	*value = (struct spec_value){0};
}

/* ------------------------------------------------------------------ the kinds */

static int create_with_size(struct spec *spec, uint64_t size, struct error *err)
{
	const struct spec_field *field = kind_field(spec->kind, "create");

	if (size < field->min || size > field->max)
		return error_set(err, -ERANGE, "%" PRIu64 " bytes: a disk of this kind has at least %" PRIu64 " and at most %" PRIu64,
				 size, field->min, field->max);
	spec_set_number(spec, "create", size);
	return 0;
}

static int create_over(struct spec *spec, uint64_t size, struct error *err)
{
	(void)size;
	(void)err;
	spec_set_number(spec, "create", 1);
	return 0;
}

/* ------------------------------------------------------------------ vhd and vhdx */

/* The word for the type in `type=`; -1: it is not one of them. */
static int type_word(const struct spec *spec, const char *word)
{
	const struct spec_field *field = kind_field(spec->kind, "type");

	for (int i = 0; field->words[i]; i++)
		if (!strcmp(field->words[i], word))
			return i;
	return -1;
}

/* A size of any sectors is what a copy needs. */
static int create_vhd(struct spec *spec, uint64_t size, struct error *err)
{
	if (spec_given(spec, "type") && (int)spec_number(spec, "type") == type_word(spec, "differencing"))
		return error_set(err, -EINVAL, "a differencing disk needs a parent: parent=SPEC");
	return create_with_size(spec, size, err);
}

/* Only differencing disks have parents. */
static int create_vhd_child(struct spec *spec, struct error *err)
{
	int differencing = type_word(spec, "differencing");

	if (spec_given(spec, "type") && (int)spec_number(spec, "type") != differencing)
		return error_set(err, -EINVAL, "parent= is for type=differencing");
	spec_set_number(spec, "type", (uint64_t)differencing);
	spec_set_number(spec, "create", 0); /* the parent's size */
	return 0;
}

/* The file that parent= names. */
static int vhdx_parent_path(const struct spec *spec, struct spec **parent, struct error *err)
{
	int status = spec_parse(spec_text(spec, "parent"), parent, err);

	if (status)
		return error_prefix(err, "parent");
	if (strcmp((*parent)->kind->name, "vhdx"))
		return error_set(err, -EINVAL, "a child can name a vhdx as its parent, not %s", (*parent)->kind->name);
	return 0;
}

static int create_vhdx_child(struct spec *spec, struct error *err)
{
	static const char *const parents[] = {"type", "sector", "physical"};
	CLEANUP_SPEC struct spec *parent = NULL;
	int status = 0;

	for (size_t i = 0; i < sizeof(parents) / sizeof(*parents); i++)
		if (spec_given(spec, parents[i]) &&
		    (i > 0 || (int)spec_number(spec, "type") != type_word(spec, "differencing")))
			return error_set(err, -EINVAL, "with parent= it is differencing and has the parent's sectors: %s= is not for it",
					 parents[i]);
	status = vhdx_parent_path(spec, &parent, err);
	if (!status)
		status = vhdx_create_child(spec_text(spec, "path"), spec_text(parent, "path"), (uint32_t)spec_number(spec, "block"), err);
	if (status)
		return status;
	spec_unset(spec, "type");
	spec_unset(spec, "block");
	return 0;
}

static const struct kind_tools tools[] = {
	{.kind = "file", .path = "path", .block = "block", .block_from = 1024, .takes_size = true, .create = create_with_size},
	{.kind = "sql", .path = "path", .block = "block", .block_from = 1024, .takes_size = true, .create = create_with_size},
	{.kind = "sqldiff", .path = "path", .block = "block", .block_from = 1024, .create = create_over},
	{.kind = "vhd",
	 .path = "path",
	 .parent = "parent",
	 .takes_size = true,
	 .create = create_vhd,
	 .create_child = create_vhd_child,
	 .image = &vhd_image_tools},
	{.kind = "vhdx",
	 .path = "path",
	 .block = "sector",
	 .block_from = 4096,
	 .parent = "parent",
	 .takes_size = true,
	 .create = create_with_size,
	 .create_child = create_vhdx_child,
	 .image = &vhdx_image_tools},
};

bool tools_over(const struct kind_tools *t, const struct spec *spec)
{
	return !t->takes_size || (t->parent && spec_given(spec, t->parent));
}

#define NR_TOOLS (sizeof(tools) / sizeof(tools[0]))

const struct kind_tools *tools_find(const struct disk_kind *kind)
{
	for (size_t i = 0; i < NR_TOOLS; i++)
		if (strcmp(tools[i].kind, kind->name) == 0)
			return &tools[i];
	return NULL;
}

int tools_refuse(const struct disk_kind *kind, const char *what, bool (*can)(const struct kind_tools *), struct error *err)
{
	char list[160] = "";
	size_t used = 0;

	for (size_t i = 0; i < NR_TOOLS && used < sizeof(list); i++)
		if (can(&tools[i]))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "",
						 tools[i].kind);
	return error_set(err, -EOPNOTSUPP, "%s: cannot be %s (%s can)", kind->name, what, list);
}

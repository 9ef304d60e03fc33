/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/tools.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/kind.h"

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

/* ------------------------------------------------------------------ the kinds */

static int create_with_size(struct spec *spec, uint64_t size, struct error *err)
{
	const struct spec_field *field = kind_field(spec->kind, "create");

	if (size < field->min || size > field->max)
		return error_set(err, -ERANGE, "%" PRIu64 " bytes: a disk has at least %" PRIu64 " and at most %" PRIu64,
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

static const struct kind_tools tools[] = {
	{.kind = "file", .path = "path", .takes_size = true, .create = create_with_size},
	{.kind = "sql", .path = "path", .takes_size = true, .create = create_with_size},
	{.kind = "sqldiff", .path = "path", .create = create_over},
};

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

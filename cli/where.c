/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/where.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Of the kinds that show what is below, byte for byte. */
static bool is_unchanged(const char *kind)
{
	static const char *const kinds[] = {"ro", "slice", "part", "prwrap", "delay"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

struct where where_in_file(json_t *tree)
{
	struct where w = {0};

	for (json_t *node = tree; node; node = json_array_get(json_object_get(node, "children"), 0)) {
		const char *kind = json_string_value(json_object_get(node, "kind"));
		const json_t *offset = json_object_get(node, "offset");
		if (!kind)
			return w;
		if (strcmp(kind, "file") == 0) {
			w.path = json_string_value(json_object_get(node, "path"));
			return w;
		}
		if (!is_unchanged(kind))
			return w;
		w.shift += offset ? (uint64_t)json_integer_value(offset) : 0; /* inside the disk below, so no overflow */
	}
	return w;
}

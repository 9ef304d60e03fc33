/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/tree-text.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/spec.h"

const char *print_bytes(uint64_t bytes, char buffer[BYTES_TEXT_MAX])
{
	char human[SIZE_TEXT_MAX];

	size_print_human(bytes, human);
	if (bytes < 1024)
		snprintf(buffer, BYTES_TEXT_MAX, "%s", human);
	else
		snprintf(buffer, BYTES_TEXT_MAX, "%s (%" PRIu64 " bytes)", human, bytes);
	return buffer;
}

/* What disk_describe() says of every kind; the rest is the kind's own. */
static bool is_common(const char *key)
{
	static const char *const common[] = {
		"kind",
		"size",
		"block_size",
		"physical_block_size",
		"discard_alignment",
		"read_only",
		"fua",
		"rotational",
		"removable",
		"discard_granularity",
		"fast_zero",
		"volatile",
		"resizable",
		"id",
		"discard",
		"stats",
		"children",
	};

	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
		if (strcmp(key, common[i]) == 0)
			return true;
	return false;
}

static bool ends_with(const char *word, const char *ending)
{
	size_t length = strlen(word), end = strlen(ending);

	return length >= end && strcmp(word + length - end, ending) == 0;
}

/* "stored_bytes" is "stored", since the unit stands behind the value. */
static void print_key(FILE *out, const char *key)
{
	size_t length = strlen(key);

	if (ends_with(key, "_bytes"))
		length -= strlen("_bytes");
	else if (ends_with(key, "_ns") || ends_with(key, "_ms"))
		length -= strlen("_ns");
	for (size_t i = 0; i < length; i++)
		fputc(key[i] == '_' ? ' ' : key[i], out);
}

static void print_integer(FILE *out, const char *key, json_int_t value)
{
	static const char *const bytes[] = {"bytes", "size", "offset", "length"};
	char text[BYTES_TEXT_MAX];

	for (size_t i = 0; value >= 0 && i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		if (ends_with(key, bytes[i])) {
			fprintf(out, "%s", print_bytes((uint64_t)value, text));
			return;
		}
	}
	fprintf(out, "%" JSON_INTEGER_FORMAT "%s", value,
	       ends_with(key, "_ns")   ? " ns"
	       : ends_with(key, "_ms") ? " ms"
				       : "");
}

static void print_value(FILE *out, const char *key, json_t *value);

/* One line for an object inside of a node: "layer ram, size 1 GiB, ..."; what is false is left out. */
static void print_object(FILE *out, json_t *object)
{
	const char *key, *comma = "";
	json_t *value;

	json_object_foreach(object, key, value)
	{
		if (json_is_false(value))
			continue;
		fprintf(out, "%s", comma);
		print_key(out, key);
		if (!json_is_true(value)) {
			fputc(' ', out);
			print_value(out, key, value);
		}
		comma = ", ";
	}
}

static void print_value(FILE *out, const char *key, json_t *value)
{
	if (json_is_string(value))
		fprintf(out, "%s", json_string_value(value));
	else if (json_is_integer(value))
		print_integer(out, key, json_integer_value(value));
	else if (json_is_boolean(value))
		fprintf(out, "%s", json_is_true(value) ? "yes" : "no");
	else if (json_is_object(value))
		print_object(out, value);
	else
		json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* A fact of the node; a list takes a line for each entry. */
static void print_fact(FILE *out, const char *lead, const char *key, json_t *value)
{
	json_t *entry;
	size_t i;

	fprintf(out, "%s  ", lead);
	print_key(out, key);
	if (!json_is_array(value)) {
		fprintf(out, ": ");
		print_value(out, key, value);
	} else {
		fprintf(out, ":");
		json_array_foreach(value, i, entry)
		{
			fprintf(out, "\n%s    ", lead);
			print_value(out, key, entry);
		}
	}
	fprintf(out, "\n");
}

/* `file  1 GiB, block 512 bytes, read-only` */
static void print_node_line(FILE *out, json_t *node)
{
	char text[SIZE_TEXT_MAX];
	const json_t *size = json_object_get(node, "size"), *block = json_object_get(node, "block_size");

	fprintf(out, "%s  %s", json_string_value(json_object_get(node, "kind")),
	       size_print_human((uint64_t)json_integer_value(size), text));
	fprintf(out, ", block %s", size_print_human((uint64_t)json_integer_value(block), text));
	if (json_is_true(json_object_get(node, "read_only")))
		fprintf(out, ", read-only");
	if (json_is_true(json_object_get(node, "volatile")))
		fprintf(out, ", volatile");
	fprintf(out, "\n");
}

/* Prints the node and what is below it; `lead` stands in front of every line but the first. */
void tree_print(FILE *out, json_t *node, const char *lead)
{
	json_t *children = json_object_get(node, "children"), *child, *value;
	const size_t nr_children = json_array_size(children);
	const char *key;
	size_t i;

	char *side;

	print_node_line(out, node);
	if (asprintf(&side, "%s%s", lead, nr_children > 0 ? "│" : " ") < 0)
		return;
	json_object_foreach(node, key, value)
	{
		if (!is_common(key))
			print_fact(out, side, key, value);
	}
	free(side);
	json_array_foreach(children, i, child)
	{
		bool last = i + 1 == nr_children;
		char *deeper;
		if (asprintf(&deeper, "%s%s", lead, last ? "   " : "│  ") < 0)
			return;
		fprintf(out, "%s%s ", lead, last ? "└─" : "├─");
		tree_print(out, child, deeper);
		free(deeper);
	}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Specs as JSON:
 *
 *     {"kind": "crypt", "cipher": "xts-aes-256", "keyfile": "k", "spec": {"kind": "mem", "size": 1048576}}
 *
 * A member is a row of the kind, called as the row. The disk below is "spec", a list of them "specs"; each
 * of them may also be a string that holds a spec as text. A flag is true or false, and so is a mark of a
 * member of a list. A number may be a JSON integer or the text that stands in a spec ("1G"). A text that is
 * not UTF-8, which JSON has no strings for, is {"bytes": "hexadecimal"}.
 */
#include "core/spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/nearest.h"
#include "core/spec-internal.h"

/* ------------------------------------------------------------------ errors */

/* A step into the JSON; lives on the stack of who takes it. */
struct json_path {
	const struct json_path *up; /* NULL: the root */
	const char *key;            /* NULL: `index` of an array */
	size_t index;
};

static void put_path(FILE *out, const struct json_path *path)
{
	char echo[SPEC_ECHO_MAX];

	if (!path) {
		fputc('$', out);
		return;
	}
	put_path(out, path->up);
	if (path->key)
		fprintf(out, ".%s", spec_echo(path->key, strlen(path->key), echo));
	else
		fprintf(out, "[%zu]", path->index);
}

/* Puts the path in front of the error. */
static int fail_at(const struct json_path *path, int status, struct error *err)
{
	CLEANUP_TEXT char *text = NULL;
	size_t size;
	FILE *out;

	if (!err)
		return status;
	out = open_memstream(&text, &size);
	if (!out)
		return status;
	put_path(out, path);
	if (!fclose(out))
		error_prefix(err, "%s", text);
	return status;
}

/* Callers can make strings that hold a NUL, which would end the text early. */
static bool is_text(const json_t *json)
{
	return json_is_string(json) && strlen(json_string_value(json)) == json_string_length(json);
}

/* "a string" and the like, for "found ..."; short ones in full. */
static const char *describe(const json_t *json, char buffer[SPEC_ECHO_MAX])
{
	static const char *const types[] = {
		[JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
		[JSON_REAL] = "a number that is not whole", [JSON_TRUE] = "true", [JSON_FALSE] = "false",
		[JSON_NULL] = "null",
	};

	if (json_is_array(json) && !json_array_size(json))
		return "an empty array";
	if (json_is_string(json) && !is_text(json))
		return "a string with a NUL character";
	if (!json_is_integer(json))
		return types[json_typeof(json)];
	snprintf(buffer, SPEC_ECHO_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
	return buffer;
}

static int expected(const struct json_path *path, const char *what, const json_t *json, struct error *err)
{
	char buffer[SPEC_ECHO_MAX];

	error_set(err, -EINVAL, "expected %s, found %s", what, describe(json, buffer));
	return fail_at(path, -EINVAL, err);
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory");
}

/* ------------------------------------------------------------------ values */

static int hex_value(char c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)((p - digits) % 16) : -1;
}

/* From pairs of hexadecimal digits; NULL in *out when they are not such, or hold a NUL. */
static int read_hex(const char *hex, char **out, struct error *err)
{
	size_t length = strlen(hex) / 2;
	CLEANUP_TEXT char *text = malloc(length + 1);

	*out = NULL;
	if (!text)
		return no_memory(err);
	for (size_t i = 0; i < length; i++) {
		int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);

		if (high < 0 || low < 0 || !(high | low))
			return 0;
		text[i] = (char)(high << 4 | low);
	}
	if (hex[2 * length])
		return 0;
	text[length] = '\0';
	*out = text;
	text = NULL;
	return 0;
}

static int read_bytes(const json_t *json, const struct json_path *path, char **out, struct error *err)
{
	const json_t *hex = json_object_get(json, "bytes");
	int status;

	if (!json_is_string(hex) || json_object_size(json) != 1)
		return expected(path, "a string or {\"bytes\": \"HEX\"}", json, err);
	status = read_hex(json_string_value(hex), out, err);
	if (status || *out)
		return status;
	error_set(err, -EINVAL, "\"bytes\" must be pairs of hexadecimal digits, none of them 00");
	return fail_at(path, -EINVAL, err);
}

/* The value as a user would type it. */
static int value_to_text(const json_t *json, const struct spec_field *field, const struct json_path *path,
			 char **out, struct error *err)
{
	if (json_is_object(json) && field->type == SPEC_TEXT)
		return read_bytes(json, path, out, err);
	if (is_text(json))
		*out = strdup(json_string_value(json));
	else if (!json_is_integer(json) || field->type == SPEC_TEXT || field->type == SPEC_WORD)
		return expected(path,
				field->type == SPEC_TEXT || field->type == SPEC_WORD ? "a string"
										       : "an integer or a string",
				json, err);
	else if (asprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(json)) < 0)
		*out = NULL;
	return *out ? 0 : no_memory(err);
}

static int read_value(const json_t *json, struct spec *s, unsigned index, const struct json_path *path,
		      struct error *err)
{
	const struct spec_field *field = &s->kind->fields[index];
	char *text = NULL;
	int status;

	if (field->type == SPEC_FLAG) {
		if (!json_is_boolean(json))
			return expected(path, "true or false", json, err);
		if (json_is_true(json))
			spec_set_flag(s, index);
		return 0;
	}
	if (field->bare && json_is_boolean(json)) {
		if (json_is_true(json))
			spec_set_bare(s, index);
		return 0;
	}
	status = value_to_text(json, field, path, &text, err);
	if (status)
		return status;
	status = spec_set(s, index, text, err);
	return status ? fail_at(path, status, err) : 0;
}

/* ------------------------------------------------------------------ nodes */

static int read_spec(const json_t *json, const struct spec_place *place, const struct json_path *path,
		     struct spec **out, struct error *err);

/* The member that holds what is below; NULL: none. */
static const char *child_key(const struct disk_kind *kind)
{
	static const char *const keys[] = {[KIND_WRAPS] = "spec", [KIND_JOINS] = "specs", [KIND_LEAF] = NULL};

	return keys[kind->children];
}

static int read_child(const json_t *json, struct spec *s, const struct spec_place *place,
		      const struct json_path *path, struct error *err)
{
	struct spec_place below = *place;
	CLEANUP_SPEC struct spec *child = NULL;
	int status;

	below.depth++;
	below.list = s->kind->children == KIND_JOINS ? s->kind : NULL;
	status = read_spec(json, &below, path, &child, err);
	if (status)
		return status;
	status = spec_add_child(s, child, err);
	if (status)
		return fail_at(path, status, err);
	child = NULL;
	return 0;
}

static int read_children(const json_t *json, struct spec *s, const struct spec_place *place,
			 const struct json_path *path, struct error *err)
{
	if (s->kind->children == KIND_WRAPS)
		return read_child(json, s, place, path, err);
	if (!json_is_array(json) || !json_array_size(json))
		return expected(path, "an array of disks", json, err);
	for (size_t i = 0; i < json_array_size(json); i++) {
		struct json_path step = {.up = path, .index = i};
		int status = read_child(json_array_get(json, i), s, place, &step, err);

		if (status)
			return status;
	}
	return 0;
}

static int refuse_key(const struct disk_kind *kind, const char *key, const struct json_path *path,
		      struct error *err)
{
	struct nearest near = nearest_to(key, strlen(key));
	char echo[SPEC_ECHO_MAX];

	for (const struct spec_field *field = kind->fields; field->name; field++)
		nearest_try(&near, field->name);
	if (child_key(kind))
		nearest_try(&near, child_key(kind));
	error_set(err, -EINVAL, "%s has no \"%s\"", kind->name, spec_echo(key, strlen(key), echo));
	if (near.word)
		error_hint(err, "did you mean \"%s\"?", near.word);
	return fail_at(path, -EINVAL, err);
}

static int read_mark(const json_t *json, struct spec *s, unsigned index, const struct json_path *path,
		     struct error *err)
{
	if (!json_is_boolean(json))
		return expected(path, "true or false", json, err);
	if (json_is_true(json))
		s->marks |= 1u << index;
	return 0;
}

static int read_member(const char *key, const json_t *json, struct spec *s, const struct spec_place *place,
		       const struct json_path *path, struct error *err)
{
	struct json_path step = {.up = path, .key = key};
	const struct spec_field *field = kind_field(s->kind, key);

	if (!strcmp(key, "kind"))
		return 0;
	if (child_key(s->kind) && !strcmp(key, child_key(s->kind)))
		return read_children(json, s, place, &step, err);
	if (!field && kind_mark(place->list, key, strlen(key)) >= 0)
		return read_mark(json, s, (unsigned)kind_mark(place->list, key, strlen(key)), &step, err);
	if (!field)
		return refuse_key(s->kind, key, path, err);
	return read_value(json, s, (unsigned)(field - s->kind->fields), &step, err);
}

/* All that must be there is there. */
static int check_complete(const struct spec *s, const struct json_path *path, struct error *err)
{
	const char *missing = NULL;

	for (unsigned i = 0; s->kind->fields[i].name && !missing; i++)
		if (s->kind->fields[i].required && !s->values[i].given)
			missing = s->kind->fields[i].name;
	if (!missing && !s->nr_children)
		missing = child_key(s->kind);
	if (!missing)
		return 0;
	error_set(err, -EINVAL, "%s needs \"%s\"", s->kind->name, missing);
	return fail_at(path, -EINVAL, err);
}

static int read_members(const json_t *json, struct spec *s, const struct spec_place *place,
			const struct json_path *path, struct error *err)
{
	const char *key;
	json_t *member;
	int status;

	json_object_foreach((json_t *)json, key, member) {
		status = read_member(key, member, s, place, path, err);
		if (status)
			return status;
	}
	status = check_complete(s, path, err);
	return status ? status : spec_set_defaults(s, err);
}

static int find_kind(const json_t *json, const struct json_path *path, const struct disk_kind **out,
		     struct error *err)
{
	const char *name = json_string_value(json_object_get(json, "kind")), *nearest;
	char echo[SPEC_ECHO_MAX];

	if (!name) {
		error_set(err, -EINVAL, "expected \"kind\": the name of a kind of disk");
		return fail_at(path, -EINVAL, err);
	}
	*out = kind_find(name);
	if (*out)
		return 0;
	nearest = kind_nearest(name);
	error_set(err, -EINVAL, "unknown kind of disk '%s'", spec_echo(name, strlen(name), echo));
	if (nearest)
		error_hint(err, "did you mean '%s'?", nearest);
	return fail_at(&(struct json_path){.up = path, .key = "kind"}, -EINVAL, err);
}

static int read_object(const json_t *json, const struct spec_place *place, const struct json_path *path,
		       struct spec **out, struct error *err)
{
	CLEANUP_SPEC struct spec *s = NULL;
	const struct disk_kind *kind;
	int status;

	status = find_kind(json, path, &kind, err);
	if (status)
		return status;
	status = spec_new(kind, place->depth + 1, place->budget, &s, err);
	if (status)
		return fail_at(path, status, err);
	s->column = place->column;
	status = read_members(json, s, place, path, err);
	if (status)
		return status;
	*out = s;
	s = NULL;
	return 0;
}

/* A string holds a spec as text; its columns are its own, and those of no use to the caller. */
static int read_string(const json_t *json, const struct spec_place *place, const struct json_path *path,
		       struct spec **out, struct error *err)
{
	struct spec_place below = *place;
	int status;

	below.outer = place;
	below.file = NULL;
	status = spec_parse_text(json_string_value(json), json_string_length(json), &below, out, err);
	return status ? fail_at(path, status, err) : 0;
}

static int read_spec(const json_t *json, const struct spec_place *place, const struct json_path *path,
		     struct spec **out, struct error *err)
{
	if (json_is_object(json))
		return read_object(json, place, path, out, err);
	if (is_text(json))
		return read_string(json, place, path, out, err);
	return expected(path, "an object or a string that holds a spec", json, err);
}

int spec_parse_json(const json_t *json, const struct spec_place *place, struct spec **out, struct error *err)
{
	return read_spec(json, place, NULL, out, err);
}

int spec_from_json(const json_t *json, struct spec **out, struct error *err)
{
	struct spec_budget budget = {.bytes = SPEC_MAX_TEXT, .nodes = SPEC_MAX_NODES};
	struct spec_place place = {.budget = &budget};

	*out = NULL;
	return spec_parse_json(json, &place, out, err);
}

/* ------------------------------------------------------------------ to JSON */

static json_t *bytes_to_json(const char *text)
{
	size_t length = strlen(text);
	CLEANUP_TEXT char *hex = malloc(2 * length + 1);

	if (!hex)
		return NULL;
	for (size_t i = 0; i < length; i++)
		sprintf(hex + 2 * i, "%02x", (unsigned char)text[i]);
	hex[2 * length] = '\0';
	return json_pack("{ss}", "bytes", hex);
}

static json_t *value_to_json(const struct spec *s, unsigned index)
{
	enum spec_type type = s->kind->fields[index].type;
	uint64_t number = s->values[index].number;
	char buffer[SIZE_TEXT_MAX];
	const char *text;

	if (type == SPEC_FLAG || spec_is_bare(s, index))
		return json_true();
	if ((type == SPEC_SIZE || type == SPEC_NUMBER) && number <= INT64_MAX)
		return json_integer((json_int_t)number);
	text = spec_value_text(s, index, buffer);
	return utf8_valid(text) ? json_string_nocheck(text) : bytes_to_json(text);
}

static int add_values(json_t *object, const struct spec *s)
{
	for (unsigned i = 0; s->kind->fields[i].name; i++)
		if (s->values[i].given &&
		    json_object_set_new(object, s->kind->fields[i].name, value_to_json(s, i)))
			return -ENOMEM;
	return 0;
}

static int add_marks(json_t *member, const struct disk_kind *list, unsigned marks)
{
	for (unsigned i = 0; marks >> i; i++)
		if (marks >> i & 1 && json_object_set_new(member, list->marks[i].name, json_true())) {
			json_decref(member);
			return -ENOMEM;
		}
	return 0;
}

static json_t *children_to_json(const struct spec *s)
{
	json_t *array;

	if (s->kind->children == KIND_WRAPS)
		return spec_to_json(s->children[0]);
	array = json_array();
	for (unsigned i = 0; i < s->nr_children; i++) {
		json_t *member = spec_to_json(s->children[i]);

		if (add_marks(member, s->kind, s->children[i]->marks) || json_array_append_new(array, member)) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

json_t *spec_to_json(const struct spec *s)
{
	json_t *object = json_pack("{ss}", "kind", s->kind->name);
	int status = object ? add_values(object, s) : -ENOMEM;

	if (!status && s->nr_children)
		status = json_object_set_new(object, child_key(s->kind), children_to_json(s));
	if (!status)
		return object;
	json_decref(object);
	return NULL;
}

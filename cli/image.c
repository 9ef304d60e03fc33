/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tools.h"
#include "core/kind.h"
#include "core/open.h"

#define NULL_ID "00000000-0000-0000-0000-000000000000"

/* ------------------------------------------------------------------ one image */

bool image_is_kind(const struct kind_tools *tools)
{
	return tools->image != NULL;
}

int image_find(const char *text, const char *done, struct image *out, struct error *err)
{
	const struct kind_tools *tools;
	int status = spec_parse(text, &out->spec, err);

	if (status)
		return status;
	tools = tools_find(out->spec->kind);
	if (!tools || !tools->image)
		return tools_refuse(out->spec->kind, done, image_is_kind, err);
	if (spec_given(out->spec, "create"))
		return error_set(err, -EINVAL, "%s: create= is for a new disk, and this one must be there", tools->kind);
	out->tools = tools->image;
	out->path = spec_text(out->spec, tools->path);
	return 0;
}

void image_free(struct image *image)
{
	spec_free(image->spec);
	*image = (struct image){0};
}

int image_open(const struct image *image, bool writable, struct container **out, struct error *err)
{
	if (writable && spec_given(image->spec, "ro"))
		return error_set(err, -EROFS, "'%s' is to be opened read-only, says ro in its SPEC", image->path);
	return container_open(image->path, writable ? 0 : CONTAINER_READ_ONLY | CONTAINER_SHARED, out, err);
}

/* ------------------------------------------------------------------ chains */

/* A node of the kind `like` has, with its options for reading, that names another file. */
static int spec_of_file(const struct spec *like, const char *kind, const char *path, struct spec **out, struct error *err)
{
	static const char *const kept[] = {"lax", "size"};
	char text[64];
	int status;

	snprintf(text, sizeof(text), "%s:x", kind);
	status = spec_parse(text, out, err);
	if (!status)
		status = spec_set_text(*out, "path", path, err);
	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept) && !status; i++)
		if (like->kind == (*out)->kind && kind_field(like->kind, kept[i]) && spec_given(like, kept[i]))
			spec_set_number(*out, kept[i], spec_number(like, kept[i]));
	return status;
}

/* A child by Xen knows a raw file as its parent by a null id. */
static bool parent_is_raw(const struct chain_file *child)
{
	struct container *c;
	json_t *info = NULL;
	const char *id;
	bool raw;

	if (container_open(child->path, CONTAINER_READ_ONLY | CONTAINER_SHARED, &c, NULL))
		return false;
	if (child->tools->info(c, child->spec, &info, NULL))
		info = NULL;
	container_close(c, false, NULL);
	id = json_string_value(json_object_get(info, "parent_id"));
	raw = id && !strcmp(id, NULL_ID);
	json_decref(info);
	return raw;
}

static int add_file(struct chain *chain, const struct image *image, json_t *layer, struct error *err)
{
	const char *kind = json_string_value(json_object_get(layer, "layer"));
	const char *path = json_string_value(json_object_get(layer, "path"));
	struct chain_file *f = &chain->files[chain->count];
	bool raw;
	int status;

	if (!kind || !path)
		return error_set(err, -EINVAL, "'%s': what is below it is no image file, or its name is not UTF-8", image->path);
	raw = chain->count > 0 && parent_is_raw(f - 1);
	if (!raw && strcmp(kind, image->spec->kind->name))
		return error_set(err, -EINVAL, "'%s' is below it, and no %s image", path, image->spec->kind->name);
	status = spec_of_file(image->spec, raw ? "file" : kind, path, &f->spec, err);
	if (status)
		return status;
	f->path = spec_text(f->spec, "path");
	f->tools = raw ? NULL : image->tools;
	chain->count++;
	return 0;
}

int chain_find(const struct image *image, struct chain *out, struct error *err)
{
	struct disk *disk;
	json_t *tree, *layers, *layer;
	size_t i;
	int status = disk_open_spec(image->spec, OPEN_READ_ONLY, &disk, err);

	if (status)
		return status;
	tree = disk_describe(disk);
	disk_close(disk, NULL); /* nothing was written */
	layers = json_object_get(tree, "layers");
	out->files = calloc(json_array_size(layers) + 1, sizeof(*out->files));
	if (!tree || !out->files)
		status = error_set(err, -ENOMEM, "no memory");
	json_array_foreach(layers, i, layer) {
		if (!status)
			status = add_file(out, image, layer, err);
	}
	json_decref(tree);
	return status;
}

void chain_free(struct chain *chain)
{
	for (size_t i = 0; i < chain->count; i++)
		spec_free(chain->files[i].spec);
	free(chain->files);
	*chain = (struct chain){0};
}

int chain_open(const struct chain *chain, size_t first, struct disk **out, struct error *err)
{
	json_t *files = json_array(), *stack;
	struct spec *spec = NULL;
	int status;

	for (size_t i = first; i < chain->count; i++)
		json_array_append_new(files, spec_to_json(chain->files[i].spec));
	stack = json_pack("{s:s, s:o}", "kind", "layers", "specs", files);
	status = stack ? spec_from_json(stack, &spec, err) : error_set(err, -ENOMEM, "no memory");
	json_decref(stack);
	if (!status)
		status = disk_open_spec(spec, OPEN_READ_ONLY, out, err);
	spec_free(spec);
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
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

/* ------------------------------------------------------------------ info */

static json_t *info_of(const struct image *image)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *c;
	json_t *report = NULL;
	int status = image_open(image, false, &c, &err);

	if (!status) {
		status = image->tools->info(c, image->spec, &report, &err);
		container_close(c, false, NULL);
	}
	if (status)
		report = json_pack("{s:s}", "error", error_text(&err));
	json_object_set_new(report, "file", json_string(image->path));
	return report;
}

static void list_info(const struct spec *spec, json_t *list)
{
	const struct kind_tools *tools = tools_find(spec->kind);

	if (tools && tools->image)
		json_array_append_new(list, info_of(&(struct image){.spec = (struct spec *)(uintptr_t)spec,
								    .tools = tools->image,
								    .path = spec_text(spec, tools->path)}));
	for (unsigned i = 0; i < spec->nr_children; i++)
		list_info(spec->children[i], list);
}

json_t *image_list_info(const struct spec *spec)
{
	json_t *list = json_array();

	if (list)
		list_info(spec, list);
	return list;
}

/* ------------------------------------------------------------------ chains */

/* A node of this kind that names the file. */
static int spec_of_file(const struct spec *like, const char *kind, const char *path, struct spec **out, struct error *err)
{
	static const char *const kept[] = {"lax", "size"};
	char text[64];
	int status;

	snprintf(text, sizeof(text), "%s:x", kind);
	status = spec_parse(text, out, err);
	if (!status)
		status = spec_set_text(*out, "path", path, err);
	if (!status && !like && kind_field((*out)->kind, "lax"))
		spec_set_number(*out, "lax", 1);
	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept) && !status && like; i++)
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

static int add_file(struct chain *chain, const struct spec *like, const json_t *layer, struct error *err)
{
	const char *name = json_string_value(json_object_get(layer, "layer"));
	const char *path = json_string_value(json_object_get(layer, "path"));
	const struct disk_kind *kind = name ? kind_find(name) : NULL;
	const struct kind_tools *tools = kind ? tools_find(kind) : NULL;
	struct chain_file *f = &chain->files[chain->count];
	bool raw;
	int status;

	if (!tools || !tools->image || !path)
		return error_set(err, -EINVAL, "layer %zu is no image file, or its name is not UTF-8", chain->count);
	raw = chain->count > 0 && f[-1].tools && parent_is_raw(f - 1);
	status = spec_of_file(like, raw ? "file" : name, path, &f->spec, err);
	if (status)
		return status;
	f->path = spec_text(f->spec, "path");
	f->tools = raw ? NULL : tools->image;
	chain->count++;
	return 0;
}

int chain_of_layers(const json_t *layers, const struct spec *like, struct chain *out, struct error *err)
{
	json_t *layer;
	size_t i;
	int status = 0;

	out->files = calloc(json_array_size(layers) + 1, sizeof(*out->files));
	if (!out->files)
		return error_set(err, -ENOMEM, "no memory");
	json_array_foreach(layers, i, layer)
	{
		if (!status)
			status = add_file(out, like, layer, err);
	}
	return status;
}

int chain_find(const struct image *image, struct chain *out, struct error *err)
{
	struct disk *disk;
	json_t *tree;
	int status = disk_open_spec(image->spec, OPEN_READ_ONLY, &disk, err);

	if (status)
		return status;
	tree = disk_describe(disk);
	disk_close(disk, NULL); /* nothing was written */
	if (tree)
		status = chain_of_layers(json_object_get(tree, "layers"), image->spec, out, err);
	else
		status = error_set(err, -ENOMEM, "no memory");
	json_decref(tree);
	return status ? error_about(err, image->path) : 0;
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

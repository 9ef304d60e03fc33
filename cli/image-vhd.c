/* SPDX-License-Identifier: BSD-3-Clause */
/* What can be done to VHD images. */
#include "cli/image.h"

#include <errno.h>

#include "formats/vhd-tools.h"
#include "formats/vhd.h"

static struct vhd_options options_of(const struct spec *spec)
{
	return (struct vhd_options){
		.lax = spec_given(spec, "lax"),
		.size_rule = (enum vhd_size_rule)spec_number(spec, "size"),
	};
}

static int info(struct container *c, const struct spec *spec, json_t **report, struct error *err)
{
	const struct vhd_options o = options_of(spec);
	uint64_t blocks;
	int status = vhd_info(c, &o, report, err);

	if (status || !json_object_get(*report, "bat_entries"))
		return status;
	status = vhd_count_blocks(c, &o, &blocks, err);
	if (status)
		json_decref(*report);
	else
		json_object_set_new(*report, "use", json_pack("{s:I}", "full", (json_int_t)blocks));
	return status;
}

static int map(struct container *c, const struct spec *spec, json_t **report, struct error *err)
{
	const struct vhd_options o = options_of(spec);

	return vhd_map(c, &o, report, err);
}

/* An image that is none has one problem: why not. */
static int tell_unusable(const struct error *why, json_t **report, struct error *err)
{
	const char *text = error_text(why);

	*report = json_pack("{s:[{s:s, s:s, s:n}], s:[{s:s, s:n, s:n, s:b, s:s}], s:i, s:i, s:n}", "problems", "where", "file", "what", text,
			    "repair", "structures", "structure", "footer and header", "offset", "length", "sound", 0, "found", text,
			    "nr_problems", 1, "nr_repairable", 0, "use");
	return *report ? 0 : error_set(err, -ENOMEM, "no memory");
}

/* Every problem that is found can be repaired. */
static int check(struct container *c, const struct spec *spec, bool repair, json_t **report, struct error *err)
{
	const struct vhd_options o = options_of(spec);
	CLEANUP_ERROR struct error why = {0};
	json_t *found, *list, *row;
	size_t i;
	int status = vhd_check(c, &o, repair, &found, &why);

	if (status == -EINVAL)
		return tell_unusable(&why, report, err);
	if (status)
		return error_move(err, &why);
	list = json_array();
	json_array_foreach(json_object_get(found, "problems"), i, row)
		json_array_append_new(list, json_pack("{s:n, s:O, s:O}", "where", "what", json_object_get(row, "what"), "repair",
						      json_object_get(row, "repair")));
	*report = json_pack("{s:o, s:O, s:O, s:O, s:{s:O, s:O}}", "problems", list, "structures",
			    json_object_get(found, "structures"), "nr_problems", json_object_get(found, "nr_problems"),
			    "nr_repairable", json_object_get(found, "nr_problems"), "use", "full", json_object_get(found, "blocks"),
			    "unused_bytes", json_object_get(found, "unused_bytes"));
	json_decref(found);
	return *report ? 0 : error_set(err, -ENOMEM, "no memory");
}

static int compact(struct container *c, const struct spec *spec, bool scan, json_t **report, struct error *err)
{
	const struct vhd_options o = options_of(spec);
	json_t *made;
	int status;

	if (!scan)
		return error_set(err, -EOPNOTSUPP, "--no-scan is for vhdx; of a vhd blocks are always read");
	status = vhd_compact(c, &o, &made, err);
	if (status)
		return status;
	*report = json_pack("{s:O, s:O, s:O, s:O}", "before_bytes", json_object_get(made, "before"), "after_bytes",
			    json_object_get(made, "after"), "dropped_blocks", json_object_get(made, "dropped"), "moved_blocks",
			    json_object_get(made, "moved"));
	json_decref(made);
	return *report ? 0 : error_set(err, -ENOMEM, "no memory");
}

static int open_layer(struct container *c, const struct spec *spec, struct layer **out, struct error *err)
{
	const struct vhd_options o = options_of(spec);

	return vhd_layer_open(c, &o, out, err);
}

static int set_parent(const char *path, const struct spec *spec, const char *parent, bool raw, struct error *err)
{
	const struct vhd_options o = options_of(spec);
	struct container *c;
	int status = container_open(path, 0, &c, err), now;

	if (status)
		return status;
	status = vhd_set_parent(c, &o, parent, raw, err);
	now = container_close(c, false, status ? NULL : err);
	return status ? status : now;
}

static int allow_change(struct container *c, const struct spec *spec, struct error *err)
{
	const struct vhd_options o = options_of(spec);

	return vhd_allow_change(c, &o, err);
}

const struct image_tools vhd_image_tools = {
	.info = info,
	.map = map,
	.check = check,
	.compact = compact,
	.open_layer = open_layer,
	.set_parent = set_parent,
	.allow_change = allow_change,
};

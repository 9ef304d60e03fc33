/* SPDX-License-Identifier: BSD-3-Clause */
/* What can be done to VHDX files. */
#include "cli/image.h"

#include <errno.h>

#include "formats/vhdx-tools.h"
#include "formats/vhdx.h"

static int info(struct container *c, const struct spec *spec, json_t **report, struct error *err)
{
	(void)spec;
	return vhdx_info(c, report, err);
}

static int map(struct container *c, const struct spec *spec, json_t **report, struct error *err)
{
	(void)spec;
	return vhdx_list_runs(c, report, err);
}

static int check(struct container *c, const struct spec *spec, bool repair, json_t **report, struct error *err)
{
	struct vhdx_findings f;
	json_t *list = json_array(), *row;
	size_t i;
	int status = vhdx_check(c, repair, &f, err);

	(void)spec;
	json_array_foreach(f.list, i, row)
		json_array_append_new(list, json_pack("{s:O, s:O, s:O}", "where", json_object_get(row, "what"), "what",
						      json_object_get(row, "problem"), "repair", json_object_get(row, "repair")));
	if (!status)
		*report = json_pack("{s:O, s:O, s:I, s:I, s:O?}", "problems", list, "structures", f.structures, "nr_problems", (json_int_t)f.errors, "nr_repairable",
				    (json_int_t)f.repaired, "use", f.summary);
	json_decref(list);
	vhdx_findings_free(&f);
	return status || *report ? status : error_set(err, -ENOMEM, "no memory");
}

static int compact(struct container *c, const struct spec *spec, bool scan, json_t **report, struct error *err)
{
	struct vhdx_compact_result done;
	int status = vhdx_compact(c, scan, &done, err);

	(void)spec;
	if (status)
		return status;
	*report = json_pack("{s:I, s:I, s:I, s:I}", "before_bytes", (json_int_t)done.before, "after_bytes", (json_int_t)done.after,
			    "dropped_blocks", (json_int_t)done.zeroed, "moved_blocks", (json_int_t)done.moved);
	return *report ? 0 : error_set(err, -ENOMEM, "no memory");
}

static int open_layer(struct container *c, const struct spec *spec, struct layer **out, struct error *err)
{
	(void)spec;
	return vhdx_layer_open(c, out, err);
}

static int set_parent(const char *path, const struct spec *spec, const char *parent, bool raw, struct error *err)
{
	(void)spec;
	(void)raw; /* only a vhd can have a raw file as its parent */
	return vhdx_rebase(path, parent, err);
}

const struct image_tools vhdx_image_tools = {
	.info = info,
	.map = map,
	.check = check,
	.compact = compact,
	.open_layer = open_layer,
	.set_parent = set_parent,
	.merge = vhdx_merge,
};

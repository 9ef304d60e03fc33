/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/vhdx-tools.h"

#include <errno.h>
#include <inttypes.h>

#include "formats/run-list.h"
#include "formats/vhdx-file.h"
#include "formats/vhdx-locator.h"
#include "formats/vhdx-log.h"

static json_t *guid_to_json(const struct guid *g)
{
	char text[GUID_TEXT_MAX];

	return json_string(guid_text(g, text));
}

/* ------------------------------------------------------------------ info */

/* Which of the two counts, or why one is not valid. */
static json_t *headers_to_json(const struct vhdx_headers *h)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < 2; i++)
		json_array_append_new(list, h->valid[i] ? json_pack("{s:b, s:b}", "valid", 1, "current", (int)(h->slot == i))
							: json_pack("{s:b, s:b, s:s}", "valid", 0, "current", 0, "why", h->why[i]));
	return list;
}

static int log_to_json(struct container *c, const struct vhdx_header *h, json_t **out, struct error *err)
{
	struct vhdx_log log;
	int status;

	*out = json_pack("{s:b, s:I, s:I}", "empty", (int)guid_is_null(&h->log), "offset", (json_int_t)h->log_offset, "length",
			 (json_int_t)h->log_length);
	if (guid_is_null(&h->log))
		return 0;
	status = vhdx_log_load(c, h, &log, err);
	if (status)
		return status;
	json_object_set_new(*out, "entries", json_integer(log.count));
	vhdx_log_free(&log);
	return 0;
}

static int add_parents(const struct vhdx *x, json_t *report, struct error *err)
{
	json_t *names = json_array(), *linkage = json_array();
	struct vhdx_locator l;
	int status = vhdx_locator_load(x->file, &x->meta, &l, err);

	json_object_set_new(report, "parents", names);
	json_object_set_new(report, "linkage", linkage);
	if (status)
		return status;
	for (unsigned i = 0; i < 2; i++)
		if (l.has_linkage[i])
			json_array_append_new(linkage, guid_to_json(&l.linkage[i]));
	for (size_t i = 0; i < l.names.count; i++)
		json_array_append_new(names, l.names.list[i].text ? json_string(l.names.list[i].text)
								  : json_sprintf("(%s)", l.names.list[i].problem));
	vhdx_locator_free(&l);
	return 0;
}

static json_t *describe(const struct vhdx *x)
{
	const struct vhdx_metadata *m = &x->meta;
	const char *type = m->has_parent ? "differencing" : m->leave_allocated ? "fixed" : "dynamic";

	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:o}", "format", "vhdx", "type", type, "size",
			 (json_int_t)m->size, "block_bytes", (json_int_t)m->block_size, "bat_entries",
			 (json_int_t)vhdx_blocks(m->size, m->block_size), "logical_sector", (json_int_t)m->logical_sector, "physical_sector",
			 (json_int_t)m->physical_sector, "id", guid_to_json(&m->id), "data_write_id",
			 guid_to_json(&x->headers.current.data_write), "file_bytes", (json_int_t)container_size(x->file), "sequence",
			 json_sprintf("%" PRIu64, x->headers.current.sequence));
}

/* The file as it is, before a replay in memory. */
static int add_log(struct container *c, json_t *report, struct error *err)
{
	struct vhdx_headers h;
	json_t *log = NULL;
	int status = vhdx_headers_load(c, &h, err);

	if (!status)
		status = log_to_json(c, &h.current, &log, err);
	if (!status)
		json_object_set_new(report, "headers", headers_to_json(&h));
	if (!status)
		json_object_set_new(report, "log", log);
	else
		json_decref(log);
	return status;
}

static int add_use(struct container *c, json_t *report, struct error *err)
{
	struct vhdx_findings f;
	int status = vhdx_check(c, false, &f, err);

	if (status)
		return status;
	json_object_set(report, "use", f.summary);
	vhdx_findings_free(&f);
	return 0;
}

int vhdx_info(struct container *c, json_t **report, struct error *err)
{
	struct layer *l;
	int status = vhdx_layer_open_as(c, true, &l, err);

	if (status)
		return status;
	*report = describe(vhdx_of(l));
	status = *report ? 0 : error_set(err, -ENOMEM, "no memory");
	if (!status && vhdx_has_parent(l))
		status = add_parents(vhdx_of(l), *report, err);
	vhdx_layer_release(l);
	if (!status)
		status = add_log(c, *report, err);
	if (!status)
		status = add_use(c, *report, err);
	if (status)
		json_decref(*report);
	return status;
}

/* ------------------------------------------------------------------ map */

static int list_runs(struct vhdx *x, json_t *rows, const struct io *io)
{
	struct run_list list = {.rows = rows};
	uint64_t size = atomic_load(&x->size);
	struct vhdx_run run;

	for (uint64_t at = 0; at < size; at += run.length) {
		int status = vhdx_map_loading(x, at, size - at, &run, io);
		if (status)
			return status;
		run_list_add(&list, run.presence, run.length, run.offset);
	}
	run_list_end(&list);
	return 0;
}

int vhdx_list_runs(struct container *c, json_t **report, struct error *err)
{
	struct failure why = {0};
	struct layer *l;
	int status = vhdx_layer_open_as(c, true, &l, err);

	if (status)
		return status;
	*report = json_array();
	status = *report ? list_runs(vhdx_of(l), *report, &(struct io){.failure = &why}) : -ENOMEM;
	vhdx_layer_release(l);
	if (!status)
		return 0;
	json_decref(*report);
	return error_set(err, status, "%s", why.text[0] ? why.text : "no memory");
}

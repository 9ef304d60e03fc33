/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling about an image, and mending it
 *
 * A check opens the image as leniently as it goes (checksums are not looked at, BAT entries neither) and looks at each thing by
 * itself. A repair writes in the order of everything else: entries first, by a commit, then header and footers.
 */
#include "formats/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/run-list.h"
#include "formats/structures.h"
#include "formats/vhd-image.h"

static int open_image(struct container *c, const struct vhd_options *o, struct vhd **v, struct error *err)
{
	const struct vhd_open_options how = {.lax = o->lax, .size_rule = o->size_rule};

	return vhd_image_open(c, &how, v, err);
}

static int give_report(json_t *made, json_t **report, struct error *err)
{
	*report = made;
	return made ? 0 : error_set(err, -ENOMEM, "no memory");
}

/* ------------------------------------------------------------------ info */

static json_t *printable(const char *bytes, size_t size)
{
	char text[16];

	for (size_t i = 0; i < size; i++)
		text[i] = (unsigned char)bytes[i] < 0x80 && bytes[i] >= ' ' ? bytes[i] : '?';
	return json_stringn(text, size);
}

static json_t *id_text(const uint8_t id[16])
{
	char text[37], *p = text;

	for (unsigned i = 0; i < 16; i++)
		p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
	return json_string(text);
}

static json_t *parents_of(const struct vhd *v)
{
	struct parent_names names = {0};
	json_t *list = json_array();

	vhd_parent_names(v, &names);
	for (size_t i = 0; i < names.count; i++)
		json_array_append_new(list, names.list[i].text ? json_string(names.list[i].text)
							       : json_sprintf("(%s)", names.list[i].problem));
	parent_names_free(&names);
	return list;
}

static void add_blocks(const struct vhd *v, json_t *report)
{
	json_object_set_new(report, "block_bytes", json_integer(vhd_block_bytes(v)));
	json_object_set_new(report, "bat_entries", json_integer(be32toh(v->header.max_entries)));
	json_object_set_new(report, "bat_offset", json_integer((json_int_t)v->bat_offset));
	if (v->type != VHD_DIFFERENCING)
		return;
	json_object_set_new(report, "parent_id", id_text(v->header.parent_id));
	json_object_set_new(report, "parents", parents_of(v));
}

int vhd_info(struct container *c, const struct vhd_options *o, json_t **report, struct error *err)
{
	static const char *const types[] = {[VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic", [VHD_DIFFERENCING] = "differencing"};
	const struct vhd_open_options how = {.lax = o->lax, .size_rule = o->size_rule, .unchecked = true};
	const struct vhd_footer *f;
	struct vhd *v;
	json_t *r;
	int status = vhd_image_open(c, &how, &v, err);

	if (status)
		return status;
	f = &v->footer;
	r = json_pack("{s:s, s:s, s:I, s:I, s:I}", "format", "vhd", "type", types[v->type], "size", (json_int_t)v->size, "current_size",
		      (json_int_t)be64toh(f->current_size), "geometry_size", (json_int_t)vhd_geometry_bytes(f));
	json_object_set_new(r, "creator", printable(f->creator, 4));
	json_object_set_new(r, "creator_os", printable(f->creator_os, 4));
	json_object_set_new(r, "creator_version", json_sprintf("%" PRIu32 ".%" PRIu32, be32toh(f->creator_version) >> 16,
							       be32toh(f->creator_version) & 0xffff));
	json_object_set_new(r, "id", id_text(f->id));
	json_object_set_new(r, "footer_missing", json_boolean(v->footer_missing));
	json_object_set_new(r, "file_bytes", json_integer((json_int_t)container_size(c)));
	if (v->type != VHD_FIXED)
		add_blocks(v, r);
	vhd_image_close(v, true, NULL);
	return give_report(r, report, err);
}

/* ------------------------------------------------------------------ map */

static int list_runs(struct vhd *v, json_t *rows, const struct io *io)
{
	struct run_list list = {.rows = rows};
	uint64_t size = atomic_load(&v->size);
	struct vhd_run run;

	for (uint64_t at = 0; at < size; at += run.length) {
		int status = vhd_find(v, at, size - at, &run, io);
		if (status)
			return status;
		run_list_add(&list, run.presence, run.length, run.at);
	}
	run_list_end(&list);
	return 0;
}

int vhd_map(struct container *c, const struct vhd_options *o, json_t **report, struct error *err)
{
	const struct vhd_open_options how = {.lax = o->lax, .size_rule = o->size_rule, .unchecked = true};
	struct failure why = {0};
	json_t *list;
	struct vhd *v;
	int status = vhd_image_open(c, &how, &v, err);

	if (status)
		return status;
	list = json_array();
	status = list ? list_runs(v, list, &(struct io){.failure = &why}) : 0;
	vhd_image_close(v, true, NULL);
	if (status) {
		json_decref(list);
		return error_set(err, status, "%s", why.text);
	}
	return give_report(list, report, err);
}

/* ------------------------------------------------------------------ check */

#define MOST_LISTED 1000u
#define MOST_REPAIRED 100000u /* entries: what is that wrong is no image */

struct check {
	struct vhd *v;
	bool repair;
	json_t *problems, *structures;
	uint64_t nr_problems; /* of which only so many are listed */
	uint32_t nr_blocks;
	uint32_t first, last;       /* sectors: where the first block begins, and the last one does */
	uint64_t bad_bitmaps;
	uint64_t used;       /* bytes that blocks take */
	bool footers, header; /* are to be written */
	struct failure why;
	struct io io;
};

static void __attribute__((format(printf, 3, 4))) add_problem(struct check *k, const char *repair, const char *format, ...)
{
	char what[400];
	va_list args;

	if (k->nr_problems++ >= MOST_LISTED)
		return;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	json_array_append_new(k->problems, json_pack("{s:s, s:s, s:b}", "what", what, "repair", repair, "repaired", (int)k->repair));
}

/* One row: sound if nothing was found since `before` problems were. */
#define NOTE(k, name, offset, length, before, ...)                                                                                      \
	structures_judge((k)->structures, name, offset, length,                                                                         \
			 &(struct structure_problems){(k)->problems, "what", before, (k)->nr_problems}, __VA_ARGS__)

static void check_end_footer(struct check *k, struct error *e)
{
	struct vhd *v = k->v;
	struct vhd_footer f;

	if (v->footer_missing)
		add_problem(k, "the copy at the front is written to the end", "there is no footer at the end");
	else if (v->footer_at % VHD_SECTOR)
		return; /* of 511 bytes: it is found, and a check does not make it longer */
	else if (!container_load(v->c, &f, sizeof(f), v->footer_at, e) && vhd_footer_check(&f, VHD_STRICT, "footer at the end", e))
		add_problem(k, "its checksum is made right", "%s", error_text(e));
	else
		return;
	k->footers = true;
}

static void check_front_footer(struct check *k)
{
	CLEANUP_ERROR struct error front = {0};
	struct vhd *v = k->v;
	struct vhd_footer f;

	if (!container_load(v->c, &f, sizeof(f), 0, &front) && vhd_footer_check(&f, VHD_STRICT, "copy at the front", &front))
		add_problem(k, "it is written anew", "%s", error_text(&front));
	else if (memcmp(&f, &v->footer, sizeof(f)) && !v->footer_missing)
		add_problem(k, "it is written anew", "the copy at the front is not like the footer at the end");
	else
		return;
	k->footers = true;
}

static void check_footers(struct check *k)
{
	static const char *const types[] = {[VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic", [VHD_DIFFERENCING] = "differencing"};
	CLEANUP_ERROR struct error e = {0};
	struct vhd *v = k->v;
	uint64_t before = k->nr_problems;

	check_end_footer(k, &e);
	NOTE(k, "footer", v->footer_missing ? STRUCTURE_NOWHERE : v->footer_at, VHD_SECTOR, before, "%s, of %" PRIu64 " bytes", types[v->type],
	     atomic_load(&v->size));
	if (v->type == VHD_FIXED)
		return;
	before = k->nr_problems;
	check_front_footer(k);
	NOTE(k, "copy of the footer", 0, VHD_SECTOR, before, "the same as the footer");
}

static void check_header(struct check *k)
{
	CLEANUP_ERROR struct error e = {0};
	uint64_t before = k->nr_problems;

	if (vhd_header_check(&k->v->header, VHD_STRICT, &e)) {
		add_problem(k, "its checksum is made right", "%s", error_text(&e));
		k->header = true;
	}
	NOTE(k, "dynamic header", be64toh(k->v->footer.data_offset), sizeof(k->v->header), before, "blocks of %" PRIu64 " bytes",
	     (uint64_t)vhd_block_bytes(k->v));
}

/* Each with the name it has; one that is not inside of the file is not followed. */
static void note_locators(struct check *k)
{
	struct parent_names names = {0};
	char said[300] = "";
	size_t used = 0;

	if (k->v->type != VHD_DIFFERENCING)
		return;
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &k->v->header.locators[i];
		uint64_t at = be64toh(l->offset), length = be32toh(l->length), size = container_size(k->v->c);
		bool inside = at <= size && length <= size - at;
		if (at)
			structures_add(k->structures, "parent locator", at, length, inside, "%.4s%s", l->code,
				       inside ? "" : ", outside of the file");
	}
	if (vhd_parent_names(k->v, &names))
		return;
	for (size_t i = 0; i < names.count && used < sizeof(said); i++)
		used += (size_t)snprintf(said + used, sizeof(said) - used, "%s%s", i > 0 ? "; " : "",
					 names.list[i].text ? names.list[i].text : names.list[i].problem);
	structures_add(k->structures, "parent names", STRUCTURE_NOWHERE, STRUCTURE_NOWHERE, names.count > 0, "%s", said);
	parent_names_free(&names);
}

static int forget_entry(struct check *k, uint32_t block)
{
	struct vhd_page *p;
	int status = vhd_page_get(k->v, block, &p, &k->io);

	if (status)
		return status;
	atomic_store(&p->at[block & (VHD_PAGE_ENTRIES - 1)], VHD_ABSENT);
	vhd_page_dirty(k->v, p, block);
	return 0;
}

static int note_entry(void *context, uint32_t block, uint32_t at, const char *what)
{
	struct check *k = context;

	if (k->nr_problems >= MOST_REPAIRED)
		return io_fail(&k->io, -EINVAL, "'%s': more than %u BAT entries are wrong", k->v->c->name, MOST_REPAIRED);
	add_problem(k, "the entry is made absent", "BAT entry %" PRIu32 ", sector %" PRIu32 ": the block overlaps %s", block, at, what);
	return k->repair ? forget_entry(k, block) : 0;
}

/* Sectors of the block that the disk has; in the file, others may be the footer. */
static uint32_t sectors_inside(const struct vhd *v, uint32_t block)
{
	uint64_t begin = (uint64_t)block << v->block_shift, size = atomic_load(&v->size), rest = size > begin ? size - begin : 0;

	return (uint32_t)((rest < vhd_block_bytes(v) ? rest : vhd_block_bytes(v)) / VHD_SECTOR);
}

/* A bit that is clear over data, in a block that is inside of the file: who looks at bitmaps reads zeroes there. */
static int hides_data(struct check *k, uint32_t at, const struct vhd_bitmap *b, unsigned char *piece, bool *hides)
{
	struct vhd *v = k->v;
	uint32_t sectors = sectors_inside(v, b->block);
	int status = 0;

	for (uint32_t i = 0; i < sectors && !*hides && !status; i++) {
		uint64_t from = vhd_data_of(v, at) + (uint64_t)i * VHD_SECTOR;
		if (atomic_load(&b->bits[i / 64]) << i % 64 >> 63)
			continue;
		status = container_read(v->c, piece, VHD_SECTOR, from, &k->io);
		*hides = !status && !memory_is_zero(piece, VHD_SECTOR);
	}
	return status;
}

static int check_bitmap(struct check *k, struct vhd_page *p, uint32_t block, uint32_t at)
{
	unsigned char piece[VHD_SECTOR];
	struct vhd_bitmap *b;
	bool hides = false;
	int status = vhd_bitmap_get(k->v, p, block, at, &b, &k->io);

	if (status || b == VHD_BITMAP_FULL)
		return status;
	status = hides_data(k, at, b, piece, &hides);
	if (status || !hides)
		return status;
	k->bad_bitmaps++;
	add_problem(k, "all of its bits are set", "block %" PRIu32 ": its bitmap says of sectors with data that there is none", block);
	return k->repair ? vhd_mark_present(k->v, p, block, at, 0, vhd_block_bytes(k->v), &k->io) : 0;
}

/* Blocks that are there after all, and the bitmaps of a dynamic disk that nobody has to look at. */
static int check_blocks(struct check *k)
{
	struct vhd *v = k->v;
	uint64_t told = 0;
	int status = 0;

	watch_phase(v->c->watch, "check", (uint64_t)v->max_entries << v->block_shift);
	for (uint32_t block = 0; block < v->max_entries && !status; block++) {
		struct vhd_page *p;
		uint32_t at;
		bool absent = false;
		if (!(block & (VHD_PAGE_ENTRIES - 1))) {
			watch_add(v->c->watch, ((uint64_t)block << v->block_shift) - told);
			told = (uint64_t)block << v->block_shift;
			if (watch_stopped(v->c->watch))
				return io_fail(&k->io, -EINTR, "'%s': stopped by a signal", v->c->name);
			status = vhd_page_is_absent(v, block, &absent, &k->io);
		}
		if (status || absent) {
			block += VHD_PAGE_ENTRIES - 1;
			continue;
		}
		status = vhd_page_get(v, block, &p, &k->io);
		at = status ? VHD_ABSENT : atomic_load(&p->at[block & (VHD_PAGE_ENTRIES - 1)]);
		if (at == VHD_ABSENT)
			continue;
		k->first = !k->nr_blocks || at < k->first ? at : k->first;
		k->last = at > k->last ? at : k->last;
		k->nr_blocks++;
		k->used += vhd_block_sectors(v) * VHD_SECTOR;
		if (!v->bitmaps_count && at && vhd_data_of(v, at) + (uint64_t)sectors_inside(v, block) * VHD_SECTOR <= container_size(v->c))
			status = check_bitmap(k, p, block, at);
	}
	watch_add(v->c->watch, ((uint64_t)v->max_entries << v->block_shift) - told);
	return status;
}

static int write_repairs(struct check *k)
{
	struct vhd *v = k->v;
	int status = v->type == VHD_FIXED ? 0 : vhd_flush(v, &k->io);

	if (!status && k->header) {
		vhd_header_seal(&v->header);
		status = container_write(v->c, &v->header, sizeof(v->header), be64toh(v->footer.data_offset), &k->io);
	}
	if (!status && k->footers) {
		vhd_footer_seal(&v->footer);
		status = vhd_footer_move(v, v->footer_at, &k->io);
		if (!status && v->type != VHD_FIXED)
			status = container_write(v->c, &v->footer, sizeof(v->footer), 0, &k->io);
	}
	return status ? status : v->c->ops->flush(v->c, &k->io);
}

static void note_blocks(struct check *k)
{
	struct vhd *v = k->v;
	uint64_t first = k->nr_blocks ? (uint64_t)k->first * VHD_SECTOR : STRUCTURE_NOWHERE;
	uint64_t length = k->nr_blocks ? ((uint64_t)k->last - k->first + vhd_block_sectors(v)) * VHD_SECTOR : 0;

	structures_add(k->structures, "data blocks", first, length, true, "%" PRIu32 " of %" PRIu32, k->nr_blocks,
		       atomic_load(&v->max_entries));
	structures_add(k->structures, "sector bitmaps", first, length, !k->bad_bitmaps, "one before each block%s",
		       k->bad_bitmaps		   ? "; some hide data"
		       : v->bitmaps_count ? ""
					  : ", all set where there is data");
}

static int check_dynamic(struct check *k, struct error *err)
{
	struct vhd *v = k->v;
	uint64_t before;
	int status;

	check_header(k);
	note_locators(k);
	before = k->nr_problems;
	status = vhd_scan(v, note_entry, k, err);
	if (status)
		return k->why.text[0] ? error_set(err, status, "%s", k->why.text) : status;
	NOTE(k, "block allocation table", atomic_load(&v->bat_offset), vhd_bat_bytes(v->max_entries), before, "%" PRIu32 " entries",
	     atomic_load(&v->max_entries));
	status = check_blocks(k);
	if (!status)
		note_blocks(k);
	return status;
}

static int run_check(struct check *k, struct error *err)
{
	struct vhd *v = k->v;
	int status = 0;

	check_footers(k);
	if (v->type != VHD_FIXED)
		status = check_dynamic(k, err);
	else
		structures_add(k->structures, "data", 0, atomic_load(&v->size), true, "all of the disk");
	if (status && err && err->status)
		return status;
	if (!status && k->repair)
		status = write_repairs(k);
	return status ? error_set(err, status, "%s", k->why.text) : 0;
}

static uint64_t unused_bytes(const struct check *k)
{
	struct vhd_taken taken[VHD_MAX_TAKEN];
	uint64_t used = k->used, all = container_size(k->v->c);

	if (k->v->type == VHD_FIXED)
		return 0;
	for (unsigned n = vhd_list_taken(k->v, taken); n; n--)
		used += taken[n - 1].end - taken[n - 1].begin;
	return used < all ? all - used : 0;
}

int vhd_check(struct container *c, const struct vhd_options *o, bool repair, json_t **report, struct error *err)
{
	const struct vhd_open_options how = {.lax = true, .size_rule = o->size_rule, .unchecked = true};
	struct check k = {.repair = repair && !c->read_only, .problems = json_array(), .structures = json_array()};
	json_t *r = NULL;
	int status = k.problems && k.structures ? vhd_image_open(c, &how, &k.v, err) : error_set(err, -ENOMEM, "no memory");

	k.io.failure = &k.why;
	if (status) {
		json_decref(k.problems);
		json_decref(k.structures);
		return status;
	}
	status = run_check(&k, err);
	if (!status)
		r = json_pack("{s:O, s:O, s:I, s:I, s:I}", "problems", k.problems, "structures", k.structures, "nr_problems", (json_int_t)k.nr_problems, "blocks", (json_int_t)k.nr_blocks, "unused_bytes",
			      (json_int_t)unused_bytes(&k));
	json_decref(k.problems);
	json_decref(k.structures);
	vhd_image_close(k.v, true, NULL);
	return status ? status : give_report(r, report, err);
}

/* ------------------------------------------------------------------ resize */

int vhd_resize(struct container *c, const struct vhd_options *o, uint64_t size, struct error *err)
{
	struct failure why = {0};
	struct vhd *v;
	int status = open_image(c, o, &v, err), now;

	if (status)
		return status;
	status = vhd_image_resize(v, size, &(struct io){.failure = &why});
	if (status)
		error_set(err, status, "%s", why.text);
	now = vhd_image_close(v, status, status ? NULL : err);
	return status ? status : now;
}

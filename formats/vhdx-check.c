/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looking for damage in a VHDX file, and mending it
 *
 * What is mended without guessing:
 *
 *   the log                     replayed
 *   a header that is not valid  written anew from the one that is
 *   a region table, the same    or when both are valid and differ: from the first, which readers use
 *   an entry of the table       a state that does not go with the kind of disk, an offset where there must be none, reserved bits: the
 *                               rest of the entry stays. One that points where nothing can be becomes "not present"
 *   the end of the file         whole MiB
 *
 * Not mended, since it means to choose what is lost: two entries that point at the same space, a log that cannot be replayed, metadata.
 * Entries and region tables go through the log, as all changes do (2.3): in a file that has none they stay as they are. Before anything
 * is mended the header has a new FileWriteGuid (2.2.2).
 */
#include "formats/vhdx.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"
#include "formats/structures.h"
#include "formats/vhdx-file.h"
#include "formats/vhdx-log.h"
#include "formats/vhdx-structures.h"

#define SCAN_BYTES (1u << 20)
#define MOST_FINDINGS 1000u /* that are told one by one */
#define ENTRY_PAGES 80u     /* fit in a log of 1 MiB */

struct checking {
	struct container *c;
	bool repair;
	bool begun;             /* the header has a new FileWriteGuid */
	struct vhdx_headers headers;
	struct vhdx_findings *out;
	struct vhdx *x;
	uint8_t *used;          /* a bit for each MiB */
	uint64_t mib;
	uint64_t states[8];
	uint64_t bitmaps;
	uint64_t used_mib;
	uint64_t first_block, last_block, first_bitmap, last_bitmap; /* bytes: where the first begins and the last ends */
	const char *stage;      /* what is looked at, should it fail */
	uint8_t *mended;        /* pages to be written, and where */
	uint64_t *targets;
	size_t nr_mended, room;
};

/* ------------------------------------------------------------------ telling */

__attribute__((format(printf, 4, 5))) static void tell(struct checking *k, const char *what, const char *repair, const char *format,
						       ...)
{
	char problem[300];
	va_list args;

	va_start(args, format);
	vsnprintf(problem, sizeof(problem), format, args);
	va_end(args);
	k->out->errors++;
	k->out->repaired += repair != NULL;
	if (json_array_size(k->out->list) < MOST_FINDINGS)
		json_array_append_new(k->out->list, json_pack("{s:s, s:s, s:s?}", "what", what, "problem", problem, "repair", repair));
}

/* What is mended through the log is not where there is none. */
static const char *through_log(const struct checking *k, const char *repair)
{
	return k->headers.current.log_length ? repair : NULL;
}

/* Before the first change: the damaged header, if there is one, becomes the current one, with the content of the other. */
static int begin_mending(struct checking *k, struct error *err)
{
	int status = k->begun ? 0 : vhdx_header_begin(k->c, &k->headers, err);

	k->begun = k->begun || !status;
	return status;
}

/* ------------------------------------------------------------------ headers and log */

static int check_headers(struct checking *k, struct error *err)
{
	const bool good[2] = {k->headers.valid[0], k->headers.valid[1]};

	for (unsigned i = 0; i < 2; i++)
		if (!good[i])
			tell(k, i ? "header at 128 KiB" : "header at 64 KiB", "written anew from the other one", "not valid: %s",
			     k->headers.why[i]);
	return k->repair && !(good[0] && good[1]) ? begin_mending(k, err) : 0;
}

static int check_log(struct checking *k, struct error *err)
{
	struct vhdx_log log;
	int status;

	if (guid_is_null(&k->headers.current.log)) {
		vhdx_note_log(k->out->structures, &k->headers.current, 0);
		return 0;
	}
	status = vhdx_log_load(k->c, &k->headers.current, &log, err);
	if (status)
		return status;
	vhdx_note_log(k->out->structures, &k->headers.current, log.count);
	tell(k, "log", "replayed", "%" PRIu32 " entries are not in their places yet: the file was not closed", log.count);
	if (k->repair)
		status = vhdx_log_replay(&log, &k->headers, err);
	k->begun = k->begun || (k->repair && !status);
	vhdx_log_free(&log);
	return status;
}

/* ------------------------------------------------------------------ what is to be written */

static int keep_page(struct checking *k, uint64_t target, const uint8_t *page, struct error *err)
{
	if (k->nr_mended == k->room) {
		size_t room = k->room ? 2 * k->room : 16;
		uint8_t *pages = reallocarray(k->mended, room, VHDX_PAGE);
		uint64_t *targets;
		if (pages)
			k->mended = pages;
		targets = pages ? reallocarray(k->targets, room, sizeof(*targets)) : NULL;
		if (!targets)
			return error_set(err, -ENOMEM, "no memory");
		k->targets = targets;
		k->room = room;
	}
	memcpy(k->mended + k->nr_mended * VHDX_PAGE, page, VHDX_PAGE);
	k->targets[k->nr_mended++] = target;
	return 0;
}

/* One entry of the log with some of the pages; then it is replayed, as if somebody had been interrupted. */
static int mend_some(struct checking *k, size_t first, uint32_t count, struct error *err)
{
	struct vhdx_header next = k->headers.current;
	struct vhdx_logged pages[ENTRY_PAGES];
	struct vhdx_log_entry e = {.sequence = 1, .flushed_size = container_size(k->c) & ~(VHDX_MIB - 1)};
	uint8_t *entry = malloc(vhdx_log_entry_size(count));
	struct failure why = {0};
	struct vhdx_log log;
	int status = entry && !guid_random(&next.log) ? 0 : error_set(err, -ENOMEM, "no memory");

	e.last_size = (container_size(k->c) + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
	next.log_version = 0;
	for (uint32_t i = 0; i < count; i++)
		pages[i] = (struct vhdx_logged){k->targets[first + i], k->mended + (first + i) * VHDX_PAGE};
	if (!status) {
		vhdx_log_encode(&e, &next.log, pages, count, entry);
		status = container_store(k->c, entry, vhdx_log_entry_size(count), next.log_offset, err);
	}
	free(entry);
	if (!status)
		status = container_sync(k->c, err);
	if (!status && vhdx_header_store(k->c, &k->headers, &next, &(struct io){.failure = &why}))
		status = error_set(err, -EIO, "%s", why.text);
	if (!status)
		status = container_sync(k->c, err);
	if (!status)
		status = vhdx_log_load(k->c, &k->headers.current, &log, err);
	if (status)
		return status;
	status = vhdx_log_replay(&log, &k->headers, err);
	vhdx_log_free(&log);
	return status;
}

static int mend_pages(struct checking *k, struct error *err)
{
	int status = k->nr_mended ? begin_mending(k, err) : 0;

	if (k->nr_mended && !status)
		watch_phase(k->c->watch, "repair", k->nr_mended * VHDX_PAGE);
	for (size_t i = 0; i < k->nr_mended && !status; i += ENTRY_PAGES) {
		uint32_t count = (uint32_t)(k->nr_mended - i < ENTRY_PAGES ? k->nr_mended - i : ENTRY_PAGES);
		status = mend_some(k, i, count, err);
		watch_add(k->c->watch, (uint64_t)count * VHDX_PAGE);
	}
	return status;
}

/* ------------------------------------------------------------------ region tables */

static int mend_table(struct checking *k, unsigned copy, struct error *err)
{
	uint8_t *table = malloc(VHDX_TABLE_BYTES);
	int status = table ? container_load(k->c, table, VHDX_TABLE_BYTES, VHDX_TABLE_OFFSET(!copy), err)
			   : error_set(err, -ENOMEM, "no memory");

	for (uint32_t at = 0; at < VHDX_TABLE_BYTES && !status; at += VHDX_PAGE)
		status = keep_page(k, VHDX_TABLE_OFFSET(copy) + at, table + at, err);
	free(table);
	return status;
}

static int check_tables(struct checking *k, const struct vhdx_regions *r, struct error *err)
{
	int status = 0;

	vhdx_note_tables(k->out->structures, r);
	for (unsigned i = 0; i < 2 && !status; i++) {
		if (r->valid[i] && !(i && r->differ))
			continue;
		tell(k, i ? "region table at 256 KiB" : "region table at 192 KiB", through_log(k, "written anew from the other one"),
		     "%s%s", r->valid[i] ? "is not the same as the first" : "not valid: ", r->valid[i] ? "" : r->why[i]);
		if (k->repair && through_log(k, ""))
			status = mend_table(k, i, err);
	}
	return status;
}

/* ------------------------------------------------------------------ space */

/* False where a part of it is in use already. */
static bool use(struct checking *k, uint64_t offset, uint64_t length)
{
	uint64_t end = (offset + length + VHDX_MIB - 1) / VHDX_MIB;
	bool good = true;

	for (uint64_t i = offset / VHDX_MIB; i < end && i < k->mib; i++) {
		if (k->used[i / 8] >> i % 8 & 1)
			good = false;
		else
			k->used_mib++;
		k->used[i / 8] |= (uint8_t)(1u << i % 8);
	}
	return good;
}

static int begin_space(struct checking *k, struct error *err)
{
	const struct vhdx *x = k->x;

	k->mib = container_size(x->file) / VHDX_MIB + x->meta.block_size / VHDX_MIB + 2;
	k->used = calloc(1, k->mib / 8 + 1);
	if (!k->used)
		return error_set(err, -ENOMEM, "no memory");
	use(k, 0, VHDX_MIB);
	use(k, x->log_offset, x->log_length);
	for (unsigned i = 0; i < x->regions.count; i++)
		use(k, x->regions.all[i].offset, x->regions.all[i].length);
	return 0;
}

/* ------------------------------------------------------------------ the table */

/* An entry that is looked at. */
struct entry {
	uint64_t index, block; /* of a sector bitmap block: its chunk */
	bool is_bitmap;
	uint64_t value, mended;
};

static bool points(uint64_t value)
{
	return VHDX_STATE(value) == VHDX_FULL || VHDX_STATE(value) == VHDX_PARTIAL;
}

static void tell_entry(struct checking *k, const struct entry *e, const char *repair, const char *why)
{
	char what[80];

	snprintf(what, sizeof(what), "%s %" PRIu64, e->is_bitmap ? "sector bitmap of chunk" : "entry of block", e->block);
	tell(k, what, through_log(k, repair), "%#018" PRIx64 " %s", e->value, why);
}

/* What can be mended of the entry alone. */
static void check_form(struct checking *k, struct entry *e)
{
	const struct vhdx *x = k->x;

	if (VHDX_RESERVED(e->mended)) {
		tell_entry(k, e, "they are cleared", "has reserved bits set");
		e->mended &= ~VHDX_RESERVED(e->mended);
	}
	if (!e->is_bitmap && VHDX_STATE(e->mended) == 4) {
		tell_entry(k, e, "it becomes \"not present\"", "has a state that is not known");
		e->mended = 0;
	}
	if (!e->is_bitmap && VHDX_STATE(e->mended) == VHDX_PARTIAL && !x->meta.has_parent) {
		tell_entry(k, e, "it becomes fully present", "is partially present, on a disk without a parent");
		e->mended = VHDX_OFFSET(e->mended) | VHDX_FULL;
	}
	if (!e->is_bitmap && !points(e->mended) && VHDX_OFFSET(e->mended) &&
	    (VHDX_STATE(e->mended) == VHDX_NOT_PRESENT || VHDX_STATE(e->mended) == VHDX_ZERO)) {
		tell_entry(k, e, "the offset is cleared", "has an offset, which in this state must be 0");
		e->mended = VHDX_STATE(e->mended);
	}
}

static const char *fault_of(struct checking *k, const struct entry *e)
{
	return e->is_bitmap ? vhdx_bitmap_fault(k->x, e->mended) : vhdx_entry_fault(k->x, e->block, e->mended);
}

/* Space that a block has kept though it holds nothing: without it, it holds nothing either. */
static void check_kept_place(struct checking *k, struct entry *e)
{
	const char *why = vhdx_range_fault(k->x, VHDX_OFFSET(e->mended), k->x->meta.block_size);

	if (!why && !use(k, VHDX_OFFSET(e->mended), k->x->meta.block_size))
		why = "points at what something else has";
	if (!why)
		return;
	tell_entry(k, e, "the offset is cleared", why);
	e->mended = VHDX_STATE(e->mended);
}

static bool keeps_place(const struct entry *e)
{
	enum vhdx_state state = VHDX_STATE(e->mended);

	return !e->is_bitmap && VHDX_OFFSET(e->mended) && (state == VHDX_UNDEFINED || state == VHDX_UNMAPPED);
}

static void check_place(struct checking *k, struct entry *e)
{
	const char *why;

	if (keeps_place(e))
		check_kept_place(k, e);
	if (!points(e->mended))
		return;
	why = fault_of(k, e);
	if (why) {
		tell_entry(k, e, e->is_bitmap ? NULL : "it becomes \"not present\"", why);
		if (!e->is_bitmap)
			e->mended = 0;
	} else if (!use(k, VHDX_OFFSET(e->mended), e->is_bitmap ? VHDX_MIB : k->x->meta.block_size)) {
		tell_entry(k, e, NULL, "points at what something else has");
	}
}

/* A partial block needs the sector bitmap of its chunk. */
static void check_bitmap(struct checking *k, const struct entry *e)
{
	uint64_t index = vhdx_bitmap_index(e->block >> k->x->ratio_shift, k->x->ratio_shift), value;
	uint8_t raw[8];

	if (e->is_bitmap || VHDX_STATE(e->mended) != VHDX_PARTIAL)
		return;
	if (container_load(k->x->file, raw, 8, atomic_load(&k->x->bat_offset) + index * 8, NULL))
		return;
	value = le64_get(raw);
	if (!points(value))
		tell_entry(k, e, NULL, "is partially present, but its chunk has no sector bitmap");
}

static bool is_looked_at(const struct checking *k, const struct entry *e)
{
	if (e->is_bitmap)
		return k->x->meta.has_parent;
	return e->block < vhdx_blocks(k->x->meta.size, k->x->meta.block_size);
}

static void note_place(struct checking *k, const struct entry *e)
{
	uint64_t *first = e->is_bitmap ? &k->first_bitmap : &k->first_block, *last = e->is_bitmap ? &k->last_bitmap : &k->last_block;
	uint64_t begin = VHDX_OFFSET(e->mended), end = begin + (e->is_bitmap ? VHDX_MIB : k->x->meta.block_size);

	if (!points(e->mended))
		return;
	*first = begin < *first || !*last ? begin : *first;
	*last = end > *last ? end : *last;
}

/* True when the entry is to be another one. */
static bool check_entry(struct checking *k, struct entry *e)
{
	uint64_t ratio = UINT64_C(1) << k->x->ratio_shift;

	e->is_bitmap = e->index % (ratio + 1) == ratio;
	e->block = e->is_bitmap ? e->index / (ratio + 1) : e->index - e->index / (ratio + 1);
	e->mended = e->value;
	if (!is_looked_at(k, e))
		return false;
	check_form(k, e);
	check_place(k, e);
	check_bitmap(k, e);
	note_place(k, e);
	if (e->is_bitmap)
		k->bitmaps += points(e->mended);
	else
		k->states[VHDX_STATE(e->mended)]++;
	return e->mended != e->value;
}

/* ------------------------------------------------------------------ all entries */

static int check_page(struct checking *k, uint64_t number, uint8_t *page, struct error *err)
{
	bool changed = false;

	for (unsigned i = 0; i < VHDX_WORDS; i++) {
		struct entry e = {.index = number * VHDX_WORDS + i, .value = le64_get(page + 8 * i)};
		if (!check_entry(k, &e))
			continue;
		le64_put(page + 8 * i, e.mended);
		changed = true;
	}
	return changed && k->repair && through_log(k, "") ? keep_page(k, atomic_load(&k->x->bat_offset) + number * VHDX_PAGE, page, err) : 0;
}

static int check_entries(struct checking *k, struct error *err)
{
	uint64_t entries = vhdx_bat_entries(&k->x->meta, k->x->meta.size), pages = (entries + VHDX_WORDS - 1) / VHDX_WORDS;
	uint8_t *buffer = malloc(SCAN_BYTES);
	int status = buffer ? 0 : error_set(err, -ENOMEM, "no memory");

	for (uint64_t n = 0; n < pages && !status;) {
		uint64_t most = pages - n < SCAN_BYTES / VHDX_PAGE ? pages - n : SCAN_BYTES / VHDX_PAGE;
		status = container_load(k->x->file, buffer, most * VHDX_PAGE, atomic_load(&k->x->bat_offset) + n * VHDX_PAGE, err);
		for (uint64_t i = 0; i < most && !status; i++)
			status = check_page(k, n + i, buffer + i * VHDX_PAGE, err);
		n += most;
		watch_add(k->c->watch, most * VHDX_PAGE);
		if (!status && watch_stopped(k->c->watch))
			status = error_set(err, -EINTR, "stopped by a signal");
	}
	free(buffer);
	if (!status && k->x->regions.bat.length > pages * VHDX_PAGE)
		watch_add(k->c->watch, k->x->regions.bat.length - pages * VHDX_PAGE);
	return status;
}

/* ------------------------------------------------------------------ how far it is */

static uint64_t log_bytes(const struct checking *k)
{
	return guid_is_null(&k->headers.current.log) ? 0 : k->headers.current.log_length;
}

/* The structures that are gone through, in bytes; regions as far as they can be told before the log is replayed. */
static void begin_phase(struct checking *k)
{
	struct vhdx_regions regions;
	uint64_t bytes = VHDX_MIB + log_bytes(k);

	if (!vhdx_regions_load(k->c, &k->headers.current, &regions, NULL)) {
		bytes += (uint64_t)regions.metadata.length + regions.bat.length;
		vhdx_regions_free(&regions);
	}
	watch_phase(k->c->watch, "check", bytes);
	watch_add(k->c->watch, VHDX_MIB); /* the headers and tables that all this is known from */
}

/* ------------------------------------------------------------------ all of it */

static int check_end(struct checking *k, struct error *err)
{
	uint64_t size = container_size(k->x->file), whole = (size + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
	int status = 0;

	structures_add(k->out->structures, "end of the file", size, 0, size == whole, "%" PRIu64 " bytes, %swhole MiB", size,
		       size == whole ? "" : "not ");
	if (size == whole)
		return 0;
	tell(k, "end of the file", "it becomes longer", "%" PRIu64 " bytes are not whole MiB", size);
	if (k->repair)
		status = begin_mending(k, err);
	if (k->repair && !status)
		status = container_set_size(k->c, whole, err);
	return status || !k->repair ? status : container_sync(k->c, err);
}

static void summarize(struct checking *k)
{
	uint64_t all = container_size(k->x->file) / VHDX_MIB, unused = all > k->used_mib ? all - k->used_mib : 0;

	k->out->summary = json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "not_present", (json_int_t)k->states[VHDX_NOT_PRESENT], "undefined",
		(json_int_t)k->states[VHDX_UNDEFINED], "zero", (json_int_t)k->states[VHDX_ZERO], "unmapped",
		(json_int_t)(k->states[VHDX_UNMAPPED] + k->states[VHDX_UNMAPPED_095]), "full", (json_int_t)k->states[VHDX_FULL],
		"partial", (json_int_t)k->states[VHDX_PARTIAL], "sector_bitmaps", (json_int_t)k->bitmaps, "used_bytes",
		(json_int_t)(k->used_mib * VHDX_MIB), "unused_bytes", (json_int_t)(unused * VHDX_MIB));
}

/* Blocks as a whole: of a large disk there are millions. */
static void note_blocks(const struct checking *k)
{
	uint64_t full = k->states[VHDX_FULL], partial = k->states[VHDX_PARTIAL];
	json_t *list = k->out->structures;

	structures_add(list, "payload blocks", full + partial ? k->first_block : STRUCTURE_NOWHERE,
		       full + partial ? k->last_block - k->first_block : 0, true,
		       "%" PRIu64 " fully and %" PRIu64 " partially present, %" PRIu64 " zero, %" PRIu64 " not present, %" PRIu64 " others",
		       full, partial, k->states[VHDX_ZERO], k->states[VHDX_NOT_PRESENT],
		       k->states[VHDX_UNDEFINED] + k->states[VHDX_UNMAPPED] + k->states[VHDX_UNMAPPED_095]);
	if (k->x->meta.has_parent)
		structures_add(list, "sector bitmap blocks", k->bitmaps ? k->first_bitmap : STRUCTURE_NOWHERE,
			       k->bitmaps ? k->last_bitmap - k->first_bitmap : 0, true, "%" PRIu64, k->bitmaps);
}

static int check_and_note_entries(struct checking *k, struct error *err)
{
	const struct vhdx_region *bat = &k->x->regions.bat;
	struct structure_problems p = {.problems = k->out->list, .key = "problem", .before = k->out->errors};
	int status = check_entries(k, err);

	if (status)
		return status;
	p.now = k->out->errors;
	structures_judge(k->out->structures, "block allocation table", bat->offset, bat->length, &p, "%" PRIu64 " entries",
			 vhdx_bat_entries(&k->x->meta, k->x->meta.size));
	note_blocks(k);
	return 0;
}

static int check_layer(struct checking *k, struct error *err)
{
	int status = check_tables(k, &k->x->regions, err);

	if (!status) {
		vhdx_note_metadata(k->out->structures, k->x);
		vhdx_note_regions(k->out->structures, k->x);
		status = begin_space(k, err);
	}
	if (!status)
		status = check_and_note_entries(k, err);
	if (!status && k->repair)
		status = mend_pages(k, err);
	if (!status)
		status = check_end(k, err);
	if (!status)
		summarize(k);
	free(k->used);
	free(k->mended);
	free(k->targets);
	return status;
}

/* A file that cannot be opened at all has one finding: why not. */
static int tell_unusable(struct checking *k, struct error *why)
{
	if (why->status == -EIO || why->status == -ENOMEM || why->status == -EINTR)
		return why->status;
	structures_add(k->out->structures, k->stage, STRUCTURE_NOWHERE, STRUCTURE_NOWHERE, false, "%s", error_text(why));
	tell(k, "file", NULL, "%s", error_text(why));
	return 0;
}

static int check_file(struct checking *k, struct error *why)
{
	struct layer *l;
	uint64_t log;
	int status;

	k->stage = "file identifier and headers";
	status = vhdx_headers_load(k->c, &k->headers, why);
	if (status)
		return status;
	begin_phase(k);
	vhdx_note_headers(k->out->structures, k->c, &k->headers);
	status = check_headers(k, why);
	k->stage = "log";
	log = log_bytes(k);
	if (!status)
		status = check_log(k, why);
	if (status)
		return status;
	watch_add(k->c->watch, log);
	k->stage = "regions and metadata";
	status = vhdx_layer_open_as(k->c, true, &l, why);
	if (status)
		return status;
	k->stage = "blocks";
	k->x = vhdx_of(l);
	watch_add(k->c->watch, k->x->regions.metadata.length);
	status = check_layer(k, why);
	vhdx_layer_release(l);
	return status;
}

int vhdx_check(struct container *c, bool repair, struct vhdx_findings *out, struct error *err)
{
	CLEANUP_ERROR struct error why = {0};
	struct checking k = {.c = c, .repair = repair, .out = out};
	int status;

	*out = (struct vhdx_findings){.list = json_array(), .structures = json_array()};
	if (repair && c->read_only)
		return error_set(err, -EROFS, "'%s' is open for reading only", c->name);
	status = check_file(&k, &why);
	if (status)
		status = tell_unusable(&k, &why);
	if (status)
		error_move(err, &why);
	return status;
}

void vhdx_findings_free(struct vhdx_findings *f)
{
	json_decref(f->list);
	json_decref(f->structures);
	json_decref(f->summary);
	*f = (struct vhdx_findings){0};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Our tables: units of data, maps of what is data and what is zero for each region of 2 MiB, spans of zero regions
 *
 *     blocks       rows of one unit each: 4 KiB, or the disk's block where that is larger
 *     regions      two bit maps, a bit for each block of the disk
 *     zero_spans   runs of whole regions that are zero
 *
 * Invariants of what is committed
 *   a region with a row is what its maps say: data, else zero, else absent; no block is both. A region without one is zero
 *     if a span covers it, else absent. So writing into a span makes a row and leaves the span as it is.
 *   a unit has a row in `blocks` exactly if one of its blocks is data. The bytes of its other blocks mean nothing.
 *   spans do not overlap, nor touch.
 * What is read is checked against them as far as it is looked at: a row that is missing, of another length or type, or
 * outside the disk is an error of the medium.
 *
 * Changing: the maps of one region at a time are held (`current`), and the bytes of at most one unit of which only a part
 * changes (`patch`), which lies in that region. They are written when the next region or unit comes.
 */
#include "layers/sqlite-store.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "layers/sqlite-index.h"

#define UNIT_BYTES 4096u
#define MAX_REGIONS (UINT64_C(1) << (63 - REGION_SHIFT))
#define MAX_WORDS (REGION_BYTES / DISK_MIN_BLOCK / 64)

/* The unit whose row is being changed in part. */
struct patch {
	bool open;
	bool loaded; /* the bytes are there, and have changed */
	uint64_t unit;
	char *bytes;
};

struct block_store {
	struct store store;
	uint32_t block_size, unit_size;
	struct region_index index;

	/* the writer's */
	struct region *current;
	bool current_changed;
	struct patch patch;
	struct region *changed; /* maps that were written */
	bool spans_changed;     /* regions were changed that are not in that list */
};

enum statement {
	GET_UNIT,
	GET_UNITS,
	GET_REGION,
	REGION_BEFORE,
	SPAN_AT,
	SPAN_AFTER,
	PUT_UNIT,
	DROP_UNITS,
	PUT_REGION,
	DROP_REGIONS,
	PUT_SPAN,
	DROP_SPANS,
};

static const char *const texts[] = {
	[GET_UNIT] = "SELECT data FROM blocks WHERE block=?1",
	[GET_UNITS] = "SELECT block, data FROM blocks WHERE block BETWEEN ?1 AND ?2 ORDER BY block",
	[GET_REGION] = "SELECT region, data, zero FROM regions WHERE region>=?1 ORDER BY region LIMIT 1",
	[REGION_BEFORE] = "SELECT region FROM regions WHERE region<?1 ORDER BY region DESC LIMIT 1",
	[SPAN_AT] = "SELECT first, count FROM zero_spans WHERE first<=?1 ORDER BY first DESC LIMIT 2",
	[SPAN_AFTER] = "SELECT first FROM zero_spans WHERE first>?1 ORDER BY first LIMIT 1",
	[PUT_UNIT] = "INSERT OR REPLACE INTO blocks VALUES(?1,?2)",
	[DROP_UNITS] = "DELETE FROM blocks WHERE block BETWEEN ?1 AND ?2",
	[PUT_REGION] = "INSERT OR REPLACE INTO regions VALUES(?1,?2,?3)",
	[DROP_REGIONS] = "DELETE FROM regions WHERE region BETWEEN ?1 AND ?2",
	[PUT_SPAN] = "INSERT OR REPLACE INTO zero_spans VALUES(?1,?2)",
	[DROP_SPANS] = "DELETE FROM zero_spans WHERE first BETWEEN ?1 AND ?2",
};
_Static_assert(sizeof(texts) / sizeof(*texts) <= DB_STATEMENTS, "they fit in a connection");

static struct block_store *store_of(struct store *s)
{
	return (struct block_store *)s;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------ statements with numbers */

/* The statement with its one or two numbers bound; NULL on failure. */
static int bind(struct db *db, enum statement which, uint64_t a, uint64_t b, sqlite3_stmt **s, const struct io *io)
{
	int status = db_statement(db, texts, which, s, io);

	if (status)
		return status;
	sqlite3_bind_int64(*s, 1, (sqlite3_int64)a);
	if (sqlite3_bind_parameter_count(*s) == 2)
		sqlite3_bind_int64(*s, 2, (sqlite3_int64)b);
	return 0;
}

static int run(struct db *db, enum statement which, uint64_t a, uint64_t b, const struct io *io)
{
	sqlite3_stmt *s;
	int status = bind(db, which, a, b, &s, io);

	return status ? status : db_run(db, s, "writing", io);
}

/* Steps to a row: 1, or 0 when there is none, or a failure. */
static int next_row(struct db *db, sqlite3_stmt *s, const struct io *io)
{
	int rc = sqlite3_step(s);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : db_fail(db, rc, "reading", io);
}

/* As next_row() of the statement with one number bound, which is to be reset if it is not NULL. */
static int first_row(struct db *db, enum statement which, uint64_t argument, sqlite3_stmt **s, const struct io *io)
{
	int status = bind(db, which, argument, 0, s, io);

	return status ? status : next_row(db, *s, io);
}

/* A column that is a region's number, or a count of them: 0 .. MAX_REGIONS. */
static int region_column(struct db *db, sqlite3_stmt *s, int column, uint64_t *out, const struct io *io)
{
	sqlite3_int64 n = sqlite3_column_int64(s, column);

	if (sqlite3_column_type(s, column) != SQLITE_INTEGER || n < 0 || (uint64_t)n > MAX_REGIONS)
		return db_damaged(db, io, "a region's number or count, %lld, is not one from 0 to %" PRIu64,
				  (long long)n, MAX_REGIONS);
	*out = (uint64_t)n;
	return 0;
}

/* The first row's first column; *found false when there is none. */
static int ask_region(struct db *db, enum statement which, uint64_t argument, bool *found, uint64_t *out,
		      const struct io *io)
{
	sqlite3_stmt *s;
	int status = first_row(db, which, argument, &s, io);

	*found = status == 1;
	if (status == 1)
		status = region_column(db, s, 0, out, io);
	if (s)
		sqlite3_reset(s);
	return status;
}

/* ------------------------------------------------------------------ reading maps */

static int read_map(struct block_store *b, struct db *db, sqlite3_stmt *s, int column, uint64_t number,
		    uint64_t *map, const struct io *io)
{
	unsigned bytes = sqlite_index_bits(&b->index) / 8;
	int type = sqlite3_column_type(s, column);

	if (type == SQLITE_NULL)
		return 0;
	if (type != SQLITE_BLOB || sqlite3_column_bytes(s, column) != (int)bytes)
		return db_damaged(db, io, "a map of region %" PRIu64 " is not %u bytes", number, bytes);
	memcpy(map, sqlite3_column_blob(s, column), bytes);
	for (unsigned w = 0; w < sqlite_index_words(&b->index); w++)
		map[w] = le64toh(map[w]);
	return 0;
}

/* From a row of GET_REGION. */
static int read_region(struct block_store *b, struct db *db, sqlite3_stmt *s, struct region *r, const struct io *io)
{
	uint64_t *data = region_data(r), *zero = region_zero(&b->index, r);
	int status = read_map(b, db, s, 1, r->number, data, io);

	if (!status)
		status = read_map(b, db, s, 2, r->number, zero, io);
	for (unsigned w = 0; w < sqlite_index_words(&b->index) && !status; w++)
		if (data[w] & zero[w])
			status = db_damaged(db, io, "region %" PRIu64 " has a block that is both data and zero",
					    r->number);
	return status;
}

/* A search gave a row that was not asked for: so the tree of the table is not sorted. SQLite does not look at that. */
static int out_of_order(struct db *db, const char *table, const struct io *io)
{
	return db_damaged(db, io, "the rows of '%s' are out of order", table);
}

/* The span in a row of SPAN_AT. */
static int read_span(struct db *db, sqlite3_stmt *s, uint64_t region, uint64_t *first, uint64_t *end, const struct io *io)
{
	uint64_t count = 0;
	int status = region_column(db, s, 0, first, io);

	if (!status)
		status = region_column(db, s, 1, &count, io);
	if (status)
		return status;
	if (*first > region)
		return out_of_order(db, "zero_spans", io);
	if (!count || count > MAX_REGIONS - *first)
		return db_damaged(db, io, "the span of zeroes at region %" PRIu64 " has %" PRIu64 " regions", *first,
				  count);
	*end = *first + count;
	return 0;
}

/* The one before it, which is the statement's second row, ends before it. */
static int check_span_before(struct db *db, sqlite3_stmt *s, uint64_t first, const struct io *io)
{
	uint64_t before = 0, before_end = 0;
	int status = next_row(db, s, io);

	if (status == 1)
		status = read_span(db, s, first, &before, &before_end, io);
	if (!status && before_end > first)
		status = db_damaged(db, io, "the spans of zeroes at regions %" PRIu64 " and %" PRIu64 " overlap", before,
				    first);
	return status;
}

/* Does a span cover the region? With [*first, *end) of the last span that begins at or before it; *end 0: there is none. */
static int find_span(struct db *db, uint64_t region, uint64_t *first, uint64_t *end, const struct io *io)
{
	sqlite3_stmt *s;
	int status = first_row(db, SPAN_AT, region, &s, io);

	*first = *end = 0;
	if (status == 1) {
		status = read_span(db, s, region, first, end, io);
		if (!status)
			status = check_span_before(db, s, *first, io);
	}
	if (s)
		sqlite3_reset(s);
	return status;
}

/* Whatever the tables say, a gap has the region that was asked for. */
static int check_gap(struct db *db, uint64_t region, const struct gap *gap, const struct io *io)
{
	if (gap->first <= region && region < gap->end)
		return 0;
	return out_of_order(db, "regions' or 'zero_spans", io);
}

/* `region` has no row; the next one that has is `next`. How far around it is that so, and is it zero? */
static int find_gap(struct db *db, uint64_t region, uint64_t next, struct gap *gap, const struct io *io)
{
	uint64_t before = 0, first, end, after = MAX_REGIONS;
	bool found;
	int status = ask_region(db, REGION_BEFORE, region, &found, &before, io);

	gap->first = found ? before + 1 : 0;
	gap->end = next;
	if (!status)
		status = find_span(db, region, &first, &end, io);
	if (!status && end > region) {
		gap->presence = LAYER_ZERO;
		gap->first = gap->first > first ? gap->first : first;
		gap->end = min64(gap->end, end);
		return check_gap(db, region, gap, io);
	}
	if (!status)
		status = ask_region(db, SPAN_AFTER, region, &found, &after, io);
	if (status)
		return status;
	gap->presence = LAYER_ABSENT;
	gap->first = gap->first > end ? gap->first : end;
	gap->end = min64(gap->end, found ? after : MAX_REGIONS);
	return check_gap(db, region, gap, io);
}

/*
 * What the database says of a region: *out, or a gap where it has no row. Both are checked.
 */
static int load_region(struct block_store *b, struct db *db, uint64_t number, struct region **out, struct gap *gap,
		       const struct io *io)
{
	sqlite3_stmt *s;
	uint64_t next = MAX_REGIONS, first, end;
	int status = first_row(db, GET_REGION, number, &s, io);

	*out = NULL;
	if (status == 1)
		status = region_column(db, s, 0, &next, io);
	if (!status && next == number) {
		*out = region_new(&b->index, number);
		status = *out ? read_region(b, db, s, *out, io) : io_fail(io, -ENOMEM, "no memory");
	}
	if (s)
		sqlite3_reset(s);
	if (!status && *out) {
		status = find_span(db, number, &first, &end, io);
		(*out)->in_span = end > number;
	} else if (!status) {
		status = find_gap(db, number, next, gap, io);
	}
	if (status) {
		free(*out);
		*out = NULL;
	}
	return status;
}

static bool block_store_find(struct store *s, uint64_t offset, uint64_t length, struct layer_run *run)
{
	return sqlite_index_find(&store_of(s)->index, offset, length, run);
}

static int learn(struct block_store *b, struct db *db, uint64_t offset, const struct io *io)
{
	struct region *r;
	struct gap gap;
	int status = load_region(b, db, offset >> REGION_SHIFT, &r, &gap, io);

	if (status)
		return status;
	if (r)
		sqlite_index_add_region(&b->index, r);
	else
		sqlite_index_add_gap(&b->index, &gap, offset >> REGION_SHIFT);
	return 0;
}

/* ------------------------------------------------------------------ reading data */

/* A unit's row, column `column`, is what it must be. */
static int check_unit(struct block_store *b, struct db *db, sqlite3_stmt *s, int column, uint64_t unit,
		      const struct io *io)
{
	if (sqlite3_column_type(s, column) == SQLITE_BLOB && sqlite3_column_bytes(s, column) == (int)b->unit_size)
		return 0;
	return db_damaged(db, io, "block %" PRIu64 " is not %" PRIu32 " bytes", unit, b->unit_size);
}

static int missing(struct db *db, uint64_t unit, const struct io *io)
{
	return db_damaged(db, io, "block %" PRIu64 " is missing", unit);
}

/* Part [begin, end) of one unit to byte `to` of `v`. */
static int read_unit(struct block_store *b, struct db *db, uint64_t unit, uint32_t begin, uint32_t end,
		     const struct vec *v, size_t to, const struct io *io)
{
	sqlite3_stmt *s;
	int status = first_row(db, GET_UNIT, unit, &s, io);

	if (status == 0)
		status = missing(db, unit, io);
	else if (status == 1)
		status = check_unit(b, db, s, 0, unit, io);
	if (!status)
		vec_scatter(v, to, (const char *)sqlite3_column_blob(s, 0) + begin, end - begin);
	if (s)
		sqlite3_reset(s);
	return status;
}

/* The rows of a range of several units, in order. */
static int read_rows(struct block_store *b, struct db *db, sqlite3_stmt *s, const struct vec *v, uint64_t offset,
		     uint64_t length, const struct io *io)
{
	uint64_t done = 0;

	while (done < length) {
		uint64_t unit = (offset + done) / b->unit_size;
		uint32_t begin = (uint32_t)((offset + done) % b->unit_size);
		uint64_t n = min64(b->unit_size - begin, length - done);
		int status = next_row(db, s, io);
		if (status == 0 || (status == 1 && (uint64_t)sqlite3_column_int64(s, 0) != unit))
			return missing(db, unit, io);
		if (status == 1)
			status = check_unit(b, db, s, 1, unit, io);
		if (status)
			return status;
		vec_scatter(v, done, (const char *)sqlite3_column_blob(s, 1) + begin, n);
		done += n;
	}
	return 0;
}

static int read_data(struct block_store *b, struct db *db, const struct vec *v, uint64_t offset, uint64_t length,
		     const struct io *io)
{
	uint64_t first = offset / b->unit_size, last = (offset + length - 1) / b->unit_size;
	uint32_t begin = (uint32_t)(offset % b->unit_size);
	sqlite3_stmt *s;
	void *flat;
	int status;

	if (first == last && (flat = vec_flat(v, 0, length)) &&
	    db_read_row(db, "blocks", (int64_t)first, (int)b->unit_size, flat, (int)length, (int)begin))
		return 0;
	if (first == last)
		return read_unit(b, db, first, begin, begin + (uint32_t)length, v, 0, io);
	status = bind(db, GET_UNITS, first, last, &s, io);
	if (status)
		return status;
	status = read_rows(b, db, s, v, offset, length, io);
	sqlite3_reset(s);
	return status;
}

/* Loads maps until the first run is known, or is long. */
static int block_store_load(struct store *s, struct db *db, const struct vec *v, uint64_t offset, uint64_t length,
			    struct layer_run *run, const struct io *io)
{
	struct block_store *b = store_of(s);
	int status = 0;

	while (!status && !sqlite_index_find(&b->index, offset, length, run))
		status = learn(b, db, offset, io);
	if (status || !v || run->presence != LAYER_DATA)
		return status;
	return read_data(b, db, v, offset, run->length, io);
}

/* ------------------------------------------------------------------ changing: maps */

static uint64_t region_of(uint64_t offset)
{
	return offset >> REGION_SHIFT;
}

static unsigned bit_of(const struct block_store *b, uint64_t offset)
{
	return (unsigned)((offset & (REGION_BYTES - 1)) / b->block_size);
}

/* The bits of a unit of the current region. */
static void unit_bits(const struct block_store *b, uint64_t unit, unsigned *first, unsigned *end)
{
	*first = bit_of(b, unit * b->unit_size);
	*end = *first + b->unit_size / b->block_size;
}

static int bind_map(struct db *db, sqlite3_stmt *s, int column, const uint64_t *map, unsigned bits, const struct io *io)
{
	uint64_t little[MAX_WORDS];
	int rc;

	for (unsigned w = 0; w * 64 < bits; w++)
		little[w] = htole64(map[w]);
	if (map_any(map, 0, bits))
		rc = sqlite3_bind_blob(s, column, little, (int)(bits / 8), SQLITE_TRANSIENT);
	else
		rc = sqlite3_bind_null(s, column);
	return rc ? db_fail(db, rc, "writing", io) : 0;
}

static int write_region(struct block_store *b, struct db *db, struct region *r, const struct io *io)
{
	unsigned bits = sqlite_index_bits(&b->index);
	sqlite3_stmt *s;
	int status;

	if (!r->in_span && !map_any(region_data(r), 0, bits) && !map_any(region_zero(&b->index, r), 0, bits))
		return run(db, DROP_REGIONS, r->number, r->number, io);
	status = db_statement(db, texts, PUT_REGION, &s, io);
	if (status)
		return status;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)r->number);
	status = bind_map(db, s, 2, region_data(r), bits, io);
	if (!status)
		status = bind_map(db, s, 3, region_zero(&b->index, r), bits, io);
	return status ? status : db_run(db, s, "writing", io);
}

static int write_unit(struct block_store *b, struct db *db, uint64_t unit, const char *bytes, const struct io *io)
{
	sqlite3_stmt *s;
	int status = bind(db, PUT_UNIT, unit, 0, &s, io);

	if (status)
		return status;
	sqlite3_bind_blob(s, 2, bytes, (int)b->unit_size, SQLITE_STATIC);
	return db_run(db, s, "writing", io);
}

/* Writes the unit that was changed in part, or drops its row if nothing of it is data any more. */
static int close_patch(struct block_store *b, struct db *db, const struct io *io)
{
	struct patch *p = &b->patch;
	unsigned first, end;

	if (!p->open)
		return 0;
	p->open = false;
	unit_bits(b, p->unit, &first, &end);
	if (!map_any(region_data(b->current), first, end))
		return run(db, DROP_UNITS, p->unit, p->unit, io);
	if (!p->loaded)
		return 0;
	return write_unit(b, db, p->unit, p->bytes, io);
}

static int close_region(struct block_store *b, struct db *db, const struct io *io)
{
	int status = close_patch(b, db, io);

	if (status || !b->current)
		return status;
	if (b->current_changed) {
		status = write_region(b, db, b->current, io);
		b->current->next = b->changed;
		b->changed = b->current;
	} else {
		free(b->current);
	}
	b->current = NULL;
	b->current_changed = false;
	return status;
}

static int open_region(struct block_store *b, struct db *db, uint64_t number, const struct io *io)
{
	struct gap gap;
	int status;

	if (b->current && b->current->number == number)
		return 0;
	status = close_region(b, db, io);
	if (status)
		return status;
	b->current = sqlite_index_copy(&b->index, number);
	if (b->current)
		return 0;
	status = load_region(b, db, number, &b->current, &gap, io);
	if (status || b->current)
		return status;
	b->current = region_new(&b->index, number);
	if (!b->current)
		return io_fail(io, -ENOMEM, "no memory");
	if (gap.presence == LAYER_ZERO) {
		b->current->in_span = true;
		map_set(region_zero(&b->index, b->current), 0, sqlite_index_bits(&b->index), true);
	}
	return 0;
}

/* ------------------------------------------------------------------ changing: data */

static int open_patch(struct block_store *b, struct db *db, uint64_t unit, const struct io *io)
{
	int status = 0;

	if (b->patch.open && b->patch.unit == unit)
		return 0;
	status = close_patch(b, db, io);
	b->patch.open = !status;
	b->patch.loaded = false;
	b->patch.unit = unit;
	return status;
}

/* The bytes of the unit as they are, for a part of them to be changed. */
static int load_patch(struct block_store *b, struct db *db, uint64_t unit, const struct io *io)
{
	unsigned first, end;
	int status = open_patch(b, db, unit, io);

	if (status || b->patch.loaded)
		return status;
	unit_bits(b, unit, &first, &end);
	if (map_any(region_data(b->current), first, end))
		status = read_unit(b, db, unit, 0, b->unit_size, &VEC_FLAT(b->patch.bytes, b->unit_size), 0, io);
	else
		memset(b->patch.bytes, 0, b->unit_size);
	b->patch.loaded = !status;
	return status;
}

static int put_unit(struct block_store *b, struct db *db, uint64_t offset, const char *bytes, size_t length,
		    const struct io *io)
{
	uint64_t unit = offset / b->unit_size;
	int status;

	if (length == b->unit_size)
		return write_unit(b, db, unit, bytes, io);
	status = load_patch(b, db, unit, io);
	if (!status)
		memcpy(b->patch.bytes + offset % b->unit_size, bytes, length);
	return status;
}

static void mark_data(struct block_store *b, uint64_t offset, uint64_t length)
{
	unsigned first = bit_of(b, offset), end = first + (unsigned)(length / b->block_size);

	if (map_set(region_data(b->current), first, end, true))
		b->current_changed = true;
	map_set(region_zero(&b->index, b->current), first, end, false);
}

static int block_store_put(struct store *s, struct db *db, uint64_t offset, const char *bytes, size_t length,
			   const struct io *io)
{
	struct block_store *b = store_of(s);
	int status = 0;

	while (length && !status) {
		size_t n = (size_t)min64(b->unit_size - offset % b->unit_size, length);
		status = open_region(b, db, region_of(offset), io);
		if (!status)
			status = put_unit(b, db, offset, bytes, n, io);
		if (!status)
			mark_data(b, offset, n);
		offset += n;
		bytes += n;
		length -= n;
	}
	return status;
}

/* ------------------------------------------------------------------ changing: zeroes */

static void mark_cleared(struct block_store *b, uint64_t offset, uint64_t length, bool forget)
{
	unsigned first = bit_of(b, offset), end = first + (unsigned)(length / b->block_size);

	if (map_set(region_data(b->current), first, end, false))
		b->current_changed = true;
	if (map_set(region_zero(&b->index, b->current), first, end, !forget))
		b->current_changed = true;
}

/* A part of one region. Units that are cleared in part are looked at when they are closed. */
static int clear_part(struct block_store *b, struct db *db, uint64_t offset, uint64_t length, bool forget,
		      const struct io *io)
{
	uint64_t end = offset + length;
	uint64_t first = (offset + b->unit_size - 1) / b->unit_size, last = end / b->unit_size;
	unsigned bit = bit_of(b, offset);
	int status = open_region(b, db, region_of(offset), io);

	if (status)
		return status;
	if (!map_any(region_data(b->current), bit, bit + (unsigned)(length / b->block_size))) {
		mark_cleared(b, offset, length, forget);
		return 0;
	}
	if (offset % b->unit_size)
		status = open_patch(b, db, offset / b->unit_size, io);
	mark_cleared(b, offset, length, forget);
	if (!status && first < last)
		status = run(db, DROP_UNITS, first, last - 1, io);
	if (!status && end % b->unit_size && last >= first)
		status = open_patch(b, db, last, io);
	return status;
}

/* Regions [first, end) are covered by one span with those that overlap or touch them. */
static int add_span(struct db *db, uint64_t first, uint64_t end, const struct io *io)
{
	uint64_t low = first, high = end, at = end, span_first, span_end;
	int status;

	for (;;) {
		status = find_span(db, at, &span_first, &span_end, io);
		if (status || !span_end || span_end < first)
			break;
		low = min64(low, span_first);
		high = span_end > high ? span_end : high;
		if (!span_first)
			break;
		at = span_first - 1;
	}
	if (!status)
		status = run(db, DROP_SPANS, low, end, io);
	return status ? status : run(db, PUT_SPAN, low, high - low, io);
}

/* No span covers regions [first, end) any more. */
static int remove_span(struct db *db, uint64_t first, uint64_t end, const struct io *io)
{
	uint64_t left_first, left_end = 0, right_first, right_end;
	int status = find_span(db, end - 1, &right_first, &right_end, io);

	if (!status && first)
		status = find_span(db, first - 1, &left_first, &left_end, io);
	if (!status)
		status = run(db, DROP_SPANS, first, end - 1, io);
	if (!status && first && left_end > first)
		status = run(db, PUT_SPAN, left_first, first - left_first, io);
	if (!status && right_end > end)
		status = run(db, PUT_SPAN, end, right_end - end, io);
	return status;
}

static int clear_regions(struct block_store *b, struct db *db, uint64_t first, uint64_t end, bool forget,
			 const struct io *io)
{
	uint64_t units = REGION_BYTES / b->unit_size;
	int status = close_region(b, db, io);

	b->spans_changed = true;
	if (!status)
		status = run(db, DROP_UNITS, first * units, end * units - 1, io);
	if (!status)
		status = run(db, DROP_REGIONS, first, end - 1, io);
	if (status)
		return status;
	return forget ? remove_span(db, first, end, io) : add_span(db, first, end, io);
}

static int block_store_clear(struct store *s, struct db *db, uint64_t offset, uint64_t length, bool forget,
			     const struct io *io)
{
	struct block_store *b = store_of(s);
	uint64_t end = offset + length;
	int status = 0;

	while (offset < end && !status) {
		uint64_t inside = offset & (REGION_BYTES - 1);
		uint64_t n = min64(REGION_BYTES - inside, end - offset);
		if (n == REGION_BYTES) {
			n = (end - offset) & ~(REGION_BYTES - 1);
			status = clear_regions(b, db, region_of(offset), region_of(offset + n), forget, io);
		} else {
			status = clear_part(b, db, offset, n, forget, io);
		}
		offset += n;
	}
	return status;
}

/* ------------------------------------------------------------------ ending a transaction */

static int block_store_finish(struct store *s, struct db *db, const struct io *io)
{
	return close_region(store_of(s), db, io);
}

static void block_store_publish(struct store *s)
{
	struct block_store *b = store_of(s);

	if (b->spans_changed)
		sqlite_index_forget(&b->index);
	sqlite_index_replace(&b->index, b->changed);
	b->changed = NULL;
	b->spans_changed = false;
}

static void block_store_undo(struct store *s)
{
	struct block_store *b = store_of(s);

	free(b->current);
	region_free_list(b->changed);
	b->current = b->changed = NULL;
	b->current_changed = b->spans_changed = false;
	b->patch.open = false;
}

static void block_store_destroy(struct store *s)
{
	struct block_store *b = store_of(s);

	block_store_undo(s);
	sqlite_index_destroy(&b->index);
	free(b->patch.bytes);
	free(b);
}

static const struct store_ops block_store_ops = {
	.find = block_store_find,
	.load = block_store_load,
	.put = block_store_put,
	.clear = block_store_clear,
	.finish = block_store_finish,
	.publish = block_store_publish,
	.undo = block_store_undo,
	.destroy = block_store_destroy,
};

struct store *block_store_create(const struct db_geometry *g)
{
	struct block_store *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->store.ops = &block_store_ops;
	b->block_size = g->block_size;
	b->unit_size = g->block_size > UNIT_BYTES ? g->block_size : UNIT_BYTES;
	b->patch.bytes = malloc(b->unit_size);
	if (b->patch.bytes && sqlite_index_init(&b->index, g->block_size))
		return &b->store;
	free(b->patch.bytes);
	free(b);
	return NULL;
}

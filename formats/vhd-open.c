/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading what an image says of itself
 *
 * Nothing in the file is believed before it was compared with the file: the header lies inside, the BAT lies inside and has an entry for
 * every block. For reading that is enough, each entry is looked at when it is used. Who writes must know more, since a block that overlaps
 * another one, or the BAT, would destroy it: then every entry is looked at, in pieces, which for 2 TiB are 4 MiB.
 */
#include "formats/vhd-image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/utf16.h"

#define SCAN_PIECE (256u << 10)
#define MAX_LOCATOR (64u << 10)

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------ the footer */

struct opening {
	struct vhd *v;
	const struct vhd_open_options *options;
	struct error *err;
};

static enum vhd_strictness strictness_of(const struct opening *o)
{
	return o->options->lax ? VHD_LAX : VHD_STRICT;
}

static bool has_cookie(const struct vhd_footer *f)
{
	return !memcmp(f->cookie, "conectix", 8);
}

/* The last 512 bytes; or the last 511, which is what Virtual PC before 2004 wrote. */
static int load_last(struct opening *o, struct vhd_footer *f, struct error *err)
{
	struct vhd *v = o->v;
	uint64_t size = container_size(v->c);
	int status;

	if (size < VHD_SECTOR)
		return error_set(err, -EINVAL, "a file of %" PRIu64 " bytes has no room for a footer", size);
	v->footer_at = size - VHD_SECTOR;
	status = container_load(v->c, f, VHD_SECTOR, v->footer_at, err);
	if (!status && !has_cookie(f)) {
		struct vhd_footer shorter = {0};
		status = container_load(v->c, &shorter, VHD_SECTOR - 1, v->footer_at + 1, err);
		if (!status && has_cookie(&shorter)) {
			*f = shorter;
			v->footer_at++;
		}
	}
	return status ? status : vhd_footer_check(f, strictness_of(o), "footer at the end", err);
}

/* As if a footer were to come behind all that is there. */
static void take_copy(struct vhd *v, const struct vhd_footer *copy)
{
	v->footer = *copy;
	v->footer_missing = true;
	v->footer_at = (container_size(v->c) + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

/* ------------------------------------------------------------------ the footer of a fixed disk whose growth was cut short */

/*
 * The file was made longer, and the new footer is not there: then the old one is the last thing in the file that is not zero. A fixed
 * disk has no copy at the front.
 */

#define STRAY_PIECE (64u << 10)
#define STRAY_MOST (UINT64_C(1) << 30) /* zeroes to look through where the file system does not tell holes */

/* The end of the last data, by what the container says of holes; 0: there is none, or it cannot say. */
static uint64_t end_of_data(struct container *c)
{
	uint64_t size = container_size(c) / VHD_SECTOR * VHD_SECTOR, end = 0, next = 0;

	while (next < size) {
		CLEANUP_EXTENTS struct extents e = {0};
		extents_init(&e, next, size - next, 64);
		if (c->ops->extents(c, &e, VHD_SECTOR, &io_plain) || !e.count)
			return 0;
		for (size_t i = 0; i < e.count; i++)
			if (!(e.list[i].flags & EXTENT_ZERO))
				end = e.list[i].offset + e.list[i].length;
		next = extents_next(&e);
	}
	return end;
}

/* The last sector before `end` that is not zero, in `sector`; its offset, or UINT64_MAX. */
static uint64_t last_nonzero(struct container *c, uint64_t end, struct vhd_footer *sector)
{
	uint64_t least = end > STRAY_MOST ? end - STRAY_MOST : 0, found = UINT64_MAX;
	unsigned char *piece = malloc(STRAY_PIECE);

	while (piece && end > least && found == UINT64_MAX) {
		uint64_t n = end - least < STRAY_PIECE ? end - least : STRAY_PIECE;
		end -= n;
		if (container_read(c, piece, n, end, &io_plain))
			break;
		for (uint64_t at = n; at && found == UINT64_MAX; at -= VHD_SECTOR)
			if (!memory_is_zero(piece + at - VHD_SECTOR, VHD_SECTOR)) {
				found = end + at - VHD_SECTOR;
				memcpy(sector, piece + at - VHD_SECTOR, VHD_SECTOR);
			}
	}
	free(piece);
	return found;
}

static bool find_stray(struct vhd *v)
{
	struct vhd_footer f;
	uint64_t at = last_nonzero(v->c, end_of_data(v->c), &f);

	if (at == UINT64_MAX || !has_cookie(&f) || vhd_footer_check(&f, VHD_STRICT, "", NULL) || be32toh(f.type) != VHD_FIXED)
		return false;
	v->footer = f;
	v->footer_missing = true;
	v->footer_at = at;
	return true;
}

static int load_footer(struct opening *o)
{
	CLEANUP_ERROR struct error at_end = {0}, at_front = {0};
	struct vhd *v = o->v;
	struct vhd_footer copy;
	int status = load_last(o, &v->footer, &at_end);

	if (!status)
		return 0;
	status = container_load(v->c, &copy, sizeof(copy), 0, &at_front);
	if (!status)
		status = vhd_footer_check(&copy, strictness_of(o), "copy at the front", &at_front);
	if (status && find_stray(v))
		return 0;
	if (status)
		return error_set(o->err, at_end.status, "%s; %s", error_text(&at_end), error_text(&at_front));
	if (be32toh(copy.type) == VHD_FIXED)
		return error_move(o->err, &at_end); /* a disk with an image in its first sector */
	take_copy(v, &copy);
	return 0;
}

/* ------------------------------------------------------------------ the header */

static int load_header(struct opening *o)
{
	struct vhd *v = o->v;
	uint64_t at = be64toh(v->footer.data_offset);
	int status;

	if (at % VHD_SECTOR)
		return error_set(o->err, -EINVAL, "footer: offset %" PRIu64 " of the dynamic header is not a whole sector", at);
	if (at < VHD_SECTOR)
		return error_set(o->err, -EINVAL, "footer: a dynamic header at 0 lies over the copy of the footer");
	if (at > container_size(v->c) || container_size(v->c) - at < sizeof(v->header))
		return error_set(o->err, -EINVAL, "footer: a dynamic header at %" PRIu64 " ends behind the file", at);
	status = container_load(v->c, &v->header, sizeof(v->header), at, o->err);
	return status ? error_prefix(o->err, "dynamic header"), status : vhd_header_check(&v->header, strictness_of(o), o->err);
}

static int check_bat(struct opening *o)
{
	struct vhd *v = o->v;
	uint32_t block = be32toh(v->header.block_size), entries = be32toh(v->header.max_entries);
	uint32_t needed = vhd_blocks_of(atomic_load(&v->size), block);
	uint64_t at = be64toh(v->header.bat_offset), size = min64(container_size(v->c), v->footer_at), room;
	uint64_t header = be64toh(v->footer.data_offset);
	uint32_t most;

	if (entries < needed)
		return error_set(o->err, -EINVAL, "dynamic header: %" PRIu32 " BAT entries are too few for %" PRIu32 " blocks", entries,
				 needed);
	room = at < size ? (size - at) / 4 : 0;
	if (room < needed)
		return error_set(o->err, -EINVAL,
				 "dynamic header: a BAT of %" PRIu32 " entries at %" PRIu64 " ends behind the file, which has %" PRIu64 " bytes",
				 needed, at, size);
	if (at < VHD_SECTOR || (at < header + sizeof(v->header) && header < at + (uint64_t)needed * 4))
		return error_set(o->err, -EINVAL, "dynamic header: a BAT of %" PRIu32 " entries at %" PRIu64 " lies over %s", needed, at,
				 at < VHD_SECTOR ? "the copy of the footer" : "the header");
	most = (uint32_t)(VHD_MAX_SECTORS * VHD_SECTOR / block + 1);
	if (most < needed)
		most = needed;
	v->nr_pages = (most + VHD_PAGE_ENTRIES - 1) / VHD_PAGE_ENTRIES;
	if (entries > room)
		entries = (uint32_t)room;
	if (entries > needed && entries - needed > needed + VHD_PAGE_ENTRIES)
		entries = 2 * needed + VHD_PAGE_ENTRIES; /* what is behind that is of no disk's that this one may become */
	v->max_entries = entries < most ? entries : most;
	v->bat_offset = at;
	v->block_shift = (uint32_t)__builtin_ctz(block);
	v->bitmap_bytes = vhd_bitmap_bytes(block);
	return 0;
}

static int make_pages(struct opening *o)
{
	struct vhd *v = o->v;

	v->pages = calloc(v->nr_pages, sizeof(*v->pages));
	return v->pages ? 0 : error_set(o->err, -ENOMEM, "no memory");
}

/* ------------------------------------------------------------------ the whole BAT, for writing */

static void take(struct vhd_taken *list, unsigned *count, uint64_t begin, uint64_t length, const char *what)
{
	if (length && begin + length > begin)
		list[(*count)++] = (struct vhd_taken){begin, begin + length, what};
}

unsigned vhd_list_taken(const struct vhd *v, struct vhd_taken list[VHD_MAX_TAKEN])
{
	uint64_t bat_end = v->bat_offset + vhd_bat_bytes(v->max_entries);
	unsigned count = 0;

	take(list, &count, 0, VHD_SECTOR, "the copy of the footer");
	take(list, &count, be64toh(v->footer.data_offset), sizeof(v->header), "the dynamic header");
	take(list, &count, v->bat_offset, vhd_bat_bytes(v->max_entries), "the BAT");
	if (vhd_is_by_xen(&v->footer))
		take(list, &count, bat_end, VHD_SECTOR + vhd_bat_bytes(v->max_entries / 32), "the batmap");
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &v->header.locators[i];
		if (l->offset && be32toh(l->length) <= MAX_LOCATOR)
			take(list, &count, be64toh(l->offset), be32toh(l->length), "a parent locator");
	}
	if (!v->footer_missing)
		take(list, &count, v->footer_at, VHD_SECTOR, "the footer");
	return count;
}

struct scan {
	struct vhd *v;
	struct vhd_taken taken[VHD_MAX_TAKEN];
	unsigned nr_taken;
	uint64_t front_end; /* of what is taken but the footer: most blocks lie between the two */
	uint32_t *buckets; /* the place that begins in each block's worth of sectors, or 0 */
	uint64_t nr_buckets;
	vhd_bad_entry *bad;
	void *context;
	struct error *err;
};

static int refuse_entry(void *context, uint32_t block, uint32_t at, const char *what)
{
	struct error *err = context;

	error_set(err, -EINVAL, "BAT entry %" PRIu32 ", sector %" PRIu32 ": the block overlaps %s", block, at, what);
	error_hint(err, "open it with ;ro, or repair it with platter check");
	return -EINVAL;
}

/* What of the block is used: what is behind the end of the disk need not be there. */
static uint64_t end_of_block(const struct vhd *v, uint32_t block, uint32_t at)
{
	uint64_t begin = (uint64_t)block << v->block_shift, size = atomic_load(&v->size), used = vhd_block_bytes(v);

	if (begin < size && size - begin < used)
		used = size - begin;
	return vhd_data_of(v, at) + used;
}

static int scan_entry(struct scan *s, uint32_t block, uint32_t at)
{
	struct vhd *v = s->v;
	uint64_t begin = (uint64_t)at * VHD_SECTOR, end = end_of_block(v, block, at), n = at / vhd_block_sectors(v);

	if (end > container_size(v->c))
		return s->bad(s->context, block, at, "the end of the file");
	for (unsigned i = 0; (begin < s->front_end || end > v->footer_at) && i < s->nr_taken; i++)
		if (begin < s->taken[i].end && end > s->taken[i].begin)
			return s->bad(s->context, block, at, s->taken[i].what);
	for (uint64_t i = n ? n - 1 : 0; i <= n + 1 && i < s->nr_buckets; i++)
		if (s->buckets[i] && (at > s->buckets[i] ? at - s->buckets[i] : s->buckets[i] - at) < vhd_block_sectors(v))
			return s->bad(s->context, block, at, "another one");
	s->buckets[n] = at;
	if (begin + vhd_block_sectors(v) * VHD_SECTOR > v->space.used_end)
		v->space.used_end = begin + vhd_block_sectors(v) * VHD_SECTOR;
	return 0;
}

static int scan_entries(struct scan *s, uint32_t *piece)
{
	struct vhd *v = s->v;
	const uint32_t most = SCAN_PIECE / 4;
	int status = 0;

	for (uint32_t from = 0, n; from < v->max_entries && !status; from += n) {
		n = v->max_entries - from < most ? v->max_entries - from : most;
		status = container_load(v->c, piece, (size_t)n * 4, v->bat_offset + (uint64_t)from * 4, s->err);
		for (uint32_t i = 0; i < n && !status; i++)
			if (piece[i] != VHD_ABSENT)
				status = scan_entry(s, from + i, be32toh(piece[i]));
	}
	return status;
}

static int scan_carefully(struct scan *s)
{
	struct vhd *v = s->v;
	uint32_t *piece = malloc(SCAN_PIECE);
	int status = -ENOMEM;

	s->nr_buckets = min64(container_size(v->c) / VHD_SECTOR, UINT32_MAX) / vhd_block_sectors(v) + 2;
	s->buckets = calloc(s->nr_buckets, sizeof(*s->buckets));
	if (piece && s->buckets)
		status = scan_entries(s, piece);
	else
		error_set(s->err, status, "no memory");
	free(piece);
	free(s->buckets);
	return status;
}

/*
 * The same with a store for each entry, since it is done whenever an image is opened for writing: it only tells images in which nothing is
 * wrong from those where something may be. Places are kept by the block's worth of sectors in which they begin, in which there cannot be
 * two; then neighbours are compared, in the order of the file.
 */
struct glance {
	struct vhd *v;
	uint32_t *places;   /* or 0 */
	uint64_t nr_places;
	uint32_t least, most;
};

static bool glance_at(struct glance *g, const uint32_t *piece, uint32_t n)
{
	unsigned shift = g->v->block_shift - VHD_SECTOR_SHIFT;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = be32toh(piece[i]);
		if (at == VHD_ABSENT)
			continue;
		if (at >> shift >= g->nr_places || g->places[at >> shift])
			return false;
		g->places[at >> shift] = at;
		g->least = at < g->least ? at : g->least;
		g->most = at > g->most ? at : g->most;
	}
	return true;
}

/* No two of them, nor the first or last one and what else there is, are nearer than a block is long. */
static bool are_apart(const struct glance *g, uint64_t front_end, uint64_t end)
{
	uint64_t length = vhd_block_sectors(g->v), last = 0;

	if (g->least > g->most) /* there is none */
		return true;
	if ((uint64_t)g->least * VHD_SECTOR < front_end || (g->most + length) * VHD_SECTOR > end)
		return false;
	for (uint64_t i = 0; i < g->nr_places; i++) {
		uint32_t at = g->places[i];
		if (at && last && at - last < length)
			return false;
		last = at ? at : last;
	}
	return true;
}

int vhd_scan_quickly(struct vhd *v, bool *clean, struct error *err)
{
	uint64_t front_end = v->space.used_end, end = min64(v->footer_at, container_size(v->c));
	struct glance g = {.v = v, .least = UINT32_MAX};
	uint32_t *piece;
	int status = 0;

	*clean = false;
	g.nr_places = (container_size(v->c) >> v->block_shift) + 1;
	if (g.nr_places > 2 * (uint64_t)v->max_entries + VHD_PAGE_ENTRIES) /* memory for a file that is mostly something else */
		return 0;
	piece = malloc(SCAN_PIECE);
	g.places = calloc(g.nr_places, sizeof(*g.places));
	*clean = piece && g.places;
	for (uint32_t from = 0, n; from < v->max_entries && *clean && !status; from += n) {
		n = v->max_entries - from < SCAN_PIECE / 4 ? v->max_entries - from : SCAN_PIECE / 4;
		status = container_load(v->c, piece, (size_t)n * 4, v->bat_offset + (uint64_t)from * 4, err);
		*clean = !status && glance_at(&g, piece, n);
	}
	*clean = *clean && are_apart(&g, front_end, end);
	if (*clean && g.least <= g.most)
		v->space.used_end = (g.most + vhd_block_sectors(v)) * VHD_SECTOR;
	free(piece);
	free(g.places);
	return status;
}

int vhd_scan(struct vhd *v, vhd_bad_entry *bad, void *context, struct error *err)
{
	struct scan s = {.v = v, .bad = bad, .context = context, .err = err};
	bool clean;
	int status;

	s.nr_taken = vhd_list_taken(v, s.taken);
	for (unsigned i = 0; i < s.nr_taken; i++)
		if (s.taken[i].begin != v->footer_at && s.taken[i].end > v->space.used_end)
			v->space.used_end = s.taken[i].end;
	s.front_end = v->space.used_end;
	status = vhd_scan_quickly(v, &clean, err);
	return status || clean ? status : scan_carefully(&s);
}

/* ------------------------------------------------------------------ fixed disks */

static int check_fixed(struct opening *o)
{
	struct vhd *v = o->v;
	uint64_t size = atomic_load(&v->size);

	if (size <= v->footer_at)
		return 0;
	return error_set(o->err, -EINVAL, "footer: the disk has %" PRIu64 " bytes, but only %" PRIu64 " lie before the footer", size,
			 v->footer_at);
}

/* ------------------------------------------------------------------ opening and closing */

static int open_steps(struct opening *o)
{
	struct vhd *v = o->v;
	int status = load_footer(o);

	if (status)
		return status;
	v->type = (enum vhd_type)be32toh(v->footer.type);
	v->bitmaps_count = v->type == VHD_DIFFERENCING || vhd_is_by_xen(&v->footer);
	atomic_store(&v->size, vhd_disk_size(&v->footer, o->options->size_rule));
	if (v->type == VHD_FIXED)
		return check_fixed(o);
	status = load_header(o);
	if (!status)
		status = check_bat(o);
	if (!status)
		status = make_pages(o);
	return status || v->c->read_only || o->options->unchecked ? status : vhd_scan(v, refuse_entry, o->err, o->err);
}

/* What the power has cut short. A reader would see the old footer as data. */
static int finish_growth(struct vhd *v, struct error *err)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	int status = vhd_finish_growth(v, &io);

	if (status == -EROFS)
		return error_set(err, status, "its growth was cut short; open it once for writing");
	return status ? error_set(err, status, "%s", why.text) : 0;
}

/*
 * Who writes may move the footer, and until it is there again the copy is all there is: it must say the same, which it does not where a resize was cut
 * short between the two, or where it was lost.
 */
static int mend_copy(struct vhd *v, struct error *err)
{
	struct vhd_footer copy;
	int status;

	if (v->type == VHD_FIXED || v->footer_missing || vhd_footer_check(&v->footer, VHD_STRICT, "", NULL))
		return 0;
	status = container_load(v->c, &copy, sizeof(copy), 0, err);
	if (status || !memcmp(&copy, &v->footer, sizeof(copy)))
		return status;
	status = container_store(v->c, &v->footer, sizeof(v->footer), 0, err);
	return status ? status : container_sync(v->c, err);
}

int vhd_image_open(struct container *c, const struct vhd_open_options *options, struct vhd **out, struct error *err)
{
	struct vhd *v = aligned_alloc(64, sizeof(*v));
	struct opening o = {.v = v, .options = options, .err = err};
	int status;

	if (!v)
		return error_set(err, -ENOMEM, "no memory");
	memset(v, 0, sizeof(*v));
	v->c = c;
	v->parent_size = UINT64_MAX;
	status = open_steps(&o);
	if (!status)
		status = finish_growth(v, err);
	if (!status && !c->read_only && !options->unchecked)
		status = mend_copy(v, err);
	if (status) {
		error_prefix(err, "'%s'", c->name);
		vhd_blocks_free(v);
		free(v);
		return status;
	}
	*out = v;
	return 0;
}

int vhd_image_raw(struct container *c, struct vhd **out, struct error *err)
{
	struct vhd *v;

	if (container_size(c) < VHD_SECTOR)
		return error_set(err, -EINVAL, "it is smaller than a sector");
	v = aligned_alloc(64, sizeof(*v));
	if (!v)
		return error_set(err, -ENOMEM, "no memory");
	memset(v, 0, sizeof(*v));
	v->c = c;
	v->type = VHD_FIXED;
	v->is_raw = true;
	atomic_store(&v->size, container_size(c) / VHD_SECTOR * VHD_SECTOR);
	*out = v;
	return 0;
}

int vhd_image_close(struct vhd *v, bool abandoned, struct error *err)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	int status = 0;

	if (!abandoned && !v->c->read_only) {
		status = vhd_flush(v, &io);
		if (!status && v->type != VHD_FIXED)
			status = vhd_trim(v, &io);
		if (status)
			error_set(err, status, "%s", why.text);
	}
	vhd_blocks_free(v);
	free(v);
	return status;
}

/* ------------------------------------------------------------------ names of the parent */

static int add_problem(struct parent_names *names, const char *problem)
{
	int status = parent_names_add(names, PARENT_RELATIVE, "", 0);

	if (!status) {
		free(names->list[names->count - 1].text);
		names->list[names->count - 1].text = NULL;
		names->list[names->count - 1].problem = problem;
	}
	return status;
}

/* By the text, since writers do not keep to what the code says: absolute names are found where relative ones should be. */
static void find_form(struct parent_names *names)
{
	struct parent_name *n = &names->list[names->count - 1];

	if (n->text)
		n->form = parent_form_of(n->text);
}

static int add_locator(const struct vhd *v, const struct vhd_locator *l, bool utf16, struct parent_names *names)
{
	uint32_t length = be32toh(l->length);
	uint64_t at = be64toh(l->offset);
	unsigned char *text;
	int status;

	if (!length)
		return 0;
	if (length > MAX_LOCATOR || at > container_size(v->c) || length > container_size(v->c) - at)
		return add_problem(names, "a parent locator lies outside of the file");
	text = malloc(length);
	if (!text)
		return -ENOMEM;
	status = container_load(v->c, text, length, at, NULL);
	if (status)
		status = add_problem(names, "a parent locator cannot be read");
	else if (utf16)
		status = parent_names_add_utf16(names, PARENT_RELATIVE, text, length, UTF16_LE);
	else
		status = parent_names_add(names, PARENT_RELATIVE, (const char *)text, length);
	free(text);
	if (!status)
		find_form(names);
	return status;
}

/* Up to the first NUL: what stands behind it is not always NUL. */
static int add_header_name(const struct vhd *v, struct parent_names *names)
{
	const uint8_t *name = v->header.parent_name;
	size_t n = 0;
	int status;

	while (n < sizeof(v->header.parent_name) && (name[n] || name[n + 1]))
		n += 2;
	if (!n)
		return 0;
	status = parent_names_add_utf16(names, PARENT_RELATIVE, name, n, UTF16_BE);
	if (!status)
		find_form(names);
	return status;
}

int vhd_parent_names(const struct vhd *v, struct parent_names *names)
{
	static const struct {
		char code[5];
		bool utf16;
	} codes[] = {{"W2ru", true}, {"MacX", false}, {"W2ku", true}, {"Wi2r", false}, {"Wi2k", false}};
	int status = 0;

	for (unsigned c = 0; c < sizeof(codes) / sizeof(*codes); c++)
		for (unsigned i = 0; i < VHD_LOCATORS && !status; i++)
			if (!memcmp(v->header.locators[i].code, codes[c].code, 4))
				status = add_locator(v, &v->header.locators[i], codes[c].utf16, names);
	return status ? status : add_header_name(v, names);
}

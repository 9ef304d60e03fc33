/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The power goes while a file is made, resized, made smaller, mended, merged into its parent or given another one: what is left opens, checks
 * clean, and holds what it did before or after; and the work can be done again on it.
 *
 * A scene is one to three files in memory, and states: what the disk is to hold, one after the other. The calls on all files are one
 * row of moments; a cut is made at one of them, of each file with its own part of what was not flushed. What holds then is the last
 * state that was answered, or the next one if it was begun.
 *
 * CRASH_CUTS, CRASH_REFEREE and SEED as for test-vhdx-crash.
 */
#include "tests/vhdx-cuts.h"

#include "cli/merge.h"
#include "formats/endian.h"
#include "formats/vhdx-file.h"
#include "formats/vhdx-locator.h"

#define SECTOR 512u
#define MODEL (8 * MIB) /* of the disk, that is compared in whole */
#define MODEL_SECTORS (MODEL / SECTOR)
#define MOST_STATES 40u
#define MOST_FILES 3u
#define REFEREE_EVERY 100u

struct state {
	uint64_t size;
	uint32_t *tags; /* of the first MODEL_SECTORS; behind the size they mean nothing. Behind them all is zero */
	unsigned begun, answered; /* moments */
};

/* Calls that each file had seen when one of them was answered. */
struct moment {
	unsigned calls[MOST_FILES];
};

struct scene {
	const char *name;
	struct recorder *files[MOST_FILES]; /* the one that is opened first */
	unsigned nr_files;
	uint32_t block; /* of the file that make_scene() makes; 0: 1 MiB */
	uint64_t over; /* without other files: a base of this size shows through */
	bool (*again)(struct scene *cut);
	struct state states[MOST_STATES];
	unsigned nr_states;
	struct moment *moments;
	unsigned nr_moments, room;
	struct random random;
};

/* ------------------------------------------------------------------ one row of moments */

static struct scene *watched;
static const struct container_ops *below;

static int noted(int status)
{
	struct scene *s = watched;

	if (s->nr_moments == s->room) {
		s->room = s->room ? 2 * s->room : 256;
		s->moments = realloc(s->moments, s->room * sizeof(*s->moments));
	}
	for (unsigned i = 0; i < s->nr_files; i++)
		s->moments[s->nr_moments].calls[i] = recorder_calls(s->files[i]);
	s->nr_moments++;
	return status;
}

static int watched_write(struct container *c, const struct vec *v, uint64_t offset, bool durable, const struct io *io)
{
	return noted(below->write(c, v, offset, durable, io));
}

static int watched_flush(struct container *c, const struct io *io)
{
	return noted(below->flush(c, io));
}

static int watched_resize(struct container *c, uint64_t size, const struct io *io)
{
	return noted(below->resize(c, size, io));
}

static int watched_zero(struct container *c, uint64_t offset, uint64_t length, bool unmap, const struct io *io)
{
	return noted(below->zero(c, offset, length, unmap, io));
}

/* From now on what is done to the files of the scene is a row of moments. What they hold is durable. */
static void watch(struct scene *s)
{
	static struct container_ops ops;

	below = recorder_container(s->files[0])->ops;
	ops = *below;
	ops.write = watched_write;
	ops.flush = watched_flush;
	ops.resize = watched_resize;
	ops.zero = watched_zero;
	watched = s;
	for (unsigned i = 0; i < s->nr_files; i++) {
		recorder_begin(s->files[i]);
		recorder_container(s->files[i])->ops = &ops;
	}
	noted(0);
}

static void unwatch(struct scene *s)
{
	for (unsigned i = 0; i < s->nr_files; i++)
		recorder_container(s->files[i])->ops = below;
}

/* ------------------------------------------------------------------ states */

/* A new state like the last one, which begins now. */
static struct state *begin_state(struct scene *s)
{
	struct state *next = &s->states[s->nr_states++], *last = s->nr_states > 1 ? next - 1 : NULL;

	*next = last ? *last : (struct state){0};
	next->tags = calloc(MODEL_SECTORS, sizeof(*next->tags));
	if (last)
		memcpy(next->tags, last->tags, MODEL_SECTORS * sizeof(*next->tags));
	next->begun = s->nr_moments;
	next->answered = UINT32_MAX;
	return next;
}

/* It is durable from now on. */
static void end_state(struct scene *s)
{
	s->states[s->nr_states - 1].answered = s->nr_moments - 1;
}

/* The disk has this size and these tags in one state; *why tells a sector that has not. */
static bool is_in(const struct state *state, struct disk *d, uint64_t *why)
{
	static uint8_t data[CUTS_PIECE];
	uint64_t size = disk_size(d), end = size < MODEL ? size : MODEL;
	uint32_t tag;

	*why = UINT64_MAX;
	if (size != state->size)
		return false;
	for (uint64_t at = 0, length; at < end; at += length) {
		length = end - at < CUTS_PIECE ? end - at : CUTS_PIECE;
		if (!CHECK_EQ(disk_read(d, &VEC_FLAT(data, length), at, &io_plain), 0))
			return false;
		for (uint64_t i = 0; i < length; i += SECTOR) {
			*why = (at + i) / SECTOR;
			if (!tag_read(data + i, SECTOR, &tag) || tag != state->tags[*why])
				return false;
		}
	}
	for (uint64_t at = end, step = (size - end) / 16 + MIB; at < size; at += step) {
		uint64_t place = at & ~(uint64_t)(SECTOR - 1);
		*why = place / SECTOR;
		if (disk_read(d, &VEC_FLAT(data, SECTOR), place, &io_plain) || !memory_is_zero(data, SECTOR))
			return false;
	}
	return true;
}

/* The last state that was promised at the moment, or one that was begun. */
static bool judge(const struct scene *s, struct disk *d, unsigned moment)
{
	unsigned promised = 0;
	uint64_t why, first = 0;

	for (unsigned i = 1; i < s->nr_states; i++)
		promised = s->states[i].answered <= moment ? i : promised;
	for (unsigned i = promised; i < s->nr_states && (i == promised || s->states[i].begun <= moment); i++) {
		if (is_in(&s->states[i], d, &why))
			return true;
		first = i == promised ? why : first;
	}
	tap_diag("%s: size %" PRIu64 ", promised was %" PRIu64 "; sector %" PRIu64 " is not as it was", s->name, disk_size(d),
		 s->states[promised].size, first);
	return false;
}

/* ------------------------------------------------------------------ opening what is left */

static bool is_parent(struct layer *child, struct layer *parent)
{
	struct guid has = vhdx_data_write_guid(parent);
	struct vhdx_locator l;
	bool same;

	if (!CHECK_EQ(vhdx_locator_load(vhdx_of(child)->file, &vhdx_of(child)->meta, &l, NULL), 0))
		return false;
	same = guid_equal(&l.linkage[0], &has) || (l.has_linkage[1] && guid_equal(&l.linkage[1], &has));
	vhdx_locator_free(&l);
	return same;
}

/* The one among the other files that the child names, as a layer; NULL: none. */
static struct layer *open_parent(struct scene *s, struct layer *child)
{
	for (unsigned i = 1; i < s->nr_files; i++) {
		struct layer *l;
		recorder_set_read_only(s->files[i], true);
		if (!CHECK_EQ(vhdx_layer_open(recorder_container(s->files[i]), &l, NULL), 0))
			return NULL;
		if (is_parent(child, l)) {
			recorder_hold(s->files[i]);
			return l;
		}
		vhdx_layer_release(l);
	}
	tap_diag("%s: the child names none of the files", s->name);
	return NULL;
}

static struct disk *open_child(struct scene *s)
{
	struct layer_place places[2] = {0};
	struct disk *d = NULL;
	bool read_only = recorder_container(s->files[0])->read_only;

	if (!CHECK_EQ(vhdx_layer_open(recorder_container(s->files[0]), &places[0].layer, NULL), 0))
		return NULL;
	places[1].layer = open_parent(s, places[0].layer);
	if (!places[1].layer)
		return NULL;
	CHECK_EQ(layered_create("vhdx", places, 2, NULL, 0, read_only ? OPEN_READ_ONLY : 0, &d, NULL), 0);
	return d;
}

/* The files stay open for others. */
static struct disk *open_scene(struct scene *s)
{
	recorder_hold(s->files[0]);
	if (s->nr_files > 1)
		return open_child(s);
	if (s->over)
		return lab_open_over(recorder_container(s->files[0]), base_create(s->over, SECTOR), s->name);
	return lab_open(recorder_container(s->files[0]), s->name);
}

static void close_files(struct scene *s)
{
	for (unsigned i = 0; i < s->nr_files; i++)
		container_close(recorder_container(s->files[i]), false, NULL);
}

/* ------------------------------------------------------------------ cuts */

static bool opens_and_holds(const struct scene *s, struct scene *cut, unsigned moment, bool writing)
{
	struct disk *d;
	bool good;

	for (unsigned i = 0; i < cut->nr_files; i++)
		recorder_set_read_only(cut->files[i], !writing || i);
	d = open_scene(cut);
	good = d && judge(s, d, moment);
	if (d)
		CHECK_EQ(disk_close(d, NULL), 0);
	return good;
}

static bool files_check_clean(struct scene *cut)
{
	bool good = true;

	for (unsigned i = 0; i < cut->nr_files; i++)
		good = checks_clean(cut->files[i], false) && good;
	return good;
}

static bool judge_mended(const struct scene *s, struct scene *cut, unsigned moment)
{
	struct scene mended = {.name = s->name, .nr_files = 1, .files = {referee_mended(cut->files[0])}};
	bool good = mended.files[0] && opens_and_holds(s, &mended, moment, false);

	if (mended.files[0])
		close_files(&mended);
	return good;
}

static bool work_again(const struct scene *s, struct scene *cut, unsigned moment)
{
	for (unsigned i = 0; i < cut->nr_files; i++)
		recorder_set_read_only(cut->files[i], false);
	return !s->again || (CHECK(s->again(cut)) && opens_and_holds(s, cut, moment, false) && files_check_clean(cut));
}

static bool try_cut(struct scene *s, unsigned moment, enum unflushed_order order, uint64_t seed, bool referee)
{
	struct scene cut = {.name = s->name, .nr_files = s->nr_files, .over = s->over};
	bool good;

	for (unsigned i = 0; i < s->nr_files; i++)
		cut.files[i] = recorder_cut(s->files[i], s->moments[moment].calls[i], order, seed + i);
	good = CHECK(files_check_clean(&cut));
	good = good && (!referee || judge_mended(s, &cut, moment));
	good = good && opens_and_holds(s, &cut, moment, seed % 4 == 0) && work_again(s, &cut, moment);
	close_files(&cut);
	if (!good) {
		CHECK(!"what was left is good");
		for (unsigned i = 0; i < s->nr_files; i++)
			recorder_tell(s->files[i], s->moments[moment].calls[i], order, seed + i);
	}
	return good;
}

/* Cuts the scene, whose work is done. Its files stay. */
static void cut_scene_but_keep(struct scene *s, unsigned usual)
{
	unsigned wanted = cuts_wanted(usual), every = s->nr_files > 1 || s->over ? 0 : referee_every(REFEREE_EVERY);

	unwatch(s);
	for (unsigned i = 0; i < wanted; i++) {
		unsigned moment = (unsigned)random_below(&s->random, s->nr_moments);
		enum unflushed_order order = random_once_in(&s->random, 4) ? UNFLUSHED_IN_ORDER : UNFLUSHED_ANY;
		if (!try_cut(s, moment, order, random_next(&s->random), every && i % every == 0))
			break;
	}
	for (unsigned i = 0; i < s->nr_states; i++)
		free(s->states[i].tags);
	free(s->moments);
}

static void cut_scene(struct scene *s, unsigned usual)
{
	cut_scene_but_keep(s, usual);
	close_files(s);
}

/* ------------------------------------------------------------------ content */

static void put(struct disk *d, struct state *state, uint64_t sector, uint64_t count, uint32_t tag)
{
	uint8_t *data = malloc(count * SECTOR);

	tag_fill(data, (uint32_t)(count * SECTOR), tag);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, count * SECTOR), sector * SECTOR, &io_plain), 0);
	for (uint64_t i = 0; i < count; i++)
		state->tags[sector + i] = tag;
	free(data);
}

static void discard(struct disk *d, struct state *state, uint64_t sector, uint64_t count)
{
	CHECK_EQ(disk_discard(d, sector * SECTOR, count * SECTOR, &io_plain), 0);
	memset(state->tags + sector, 0, count * sizeof(*state->tags));
}

static void show_base(struct state *state)
{
	for (uint64_t i = 0; i < MODEL_SECTORS; i++)
		state->tags[i] = base_tag(i);
}

/* Some whole blocks, some parts; every other one of the first half freed again; some of nothing but zeroes. */
static void fill_disk(struct scene *s, struct disk *d)
{
	struct state *state = &s->states[0];

	for (unsigned block = 0; block < 8; block++) {
		uint64_t first = block * (MIB / SECTOR);
		if (block % 3)
			put(d, state, first + 8 * block, 16, 0x1000 + block);
		else
			put(d, state, first, MIB / SECTOR, 0x1000 + block);
	}
	put(d, state, 6 * MIB / SECTOR, MIB / SECTOR, 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	for (unsigned block = 0; block < 5; block += 2)
		discard(d, state, block * (MIB / SECTOR), MIB / SECTOR);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
}

static struct vhdx_create_options options_of(bool child)
{
	return (struct vhdx_create_options){
		.size = MODEL, .block_size = MIB, .has_parent = child, .parent_relative = ".\\parent.vhdx"};
}

/* A file with content, in its first state; closed. */
static void make_scene(struct scene *s, bool child)
{
	struct vhdx_create_options o = options_of(child);
	struct state *state = begin_state(s);
	struct disk *d;

	o.block_size = s->block ? s->block : o.block_size;
	s->random = random_stream(child);
	s->over = child ? MODEL : 0;
	s->files[0] = lab_create(&o);
	s->nr_files = 1;
	state->size = MODEL;
	if (child)
		show_base(state);
	d = open_scene(s);
	REQUIRE(d != NULL);
	fill_disk(s, d);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ another size */

/* What lies behind the end is gone, and zero when the disk has grown over it again. */
static void resize_state(struct state *state, uint64_t size)
{
	uint64_t end = size < state->size ? size : state->size;

	for (uint64_t i = end / SECTOR; i < MODEL_SECTORS; i++)
		state->tags[i] = 0;
	state->size = size;
}

static void do_resize(struct scene *s, struct disk *d, uint64_t size)
{
	resize_state(begin_state(s), size);
	CHECK_EQ(disk_resize(d, size, &io_plain), 0);
	end_state(s);
}

/* One sector is old or new. */
static void do_write(struct scene *s, struct disk *d, uint32_t tag)
{
	struct state *state = begin_state(s);
	uint64_t end = state->size < MODEL ? state->size : MODEL;

	put(d, state, random_below(&s->random, end / SECTOR), 1, tag);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	end_state(s);
}

static void resizes(bool child)
{
	struct scene s = {.name = child ? "resize of a child" : "resize"};
	struct disk *d;

	make_scene(&s, child);
	watch(&s);
	d = open_scene(&s);
	REQUIRE(d != NULL);
	for (unsigned i = 0; i < 12; i++) {
		uint64_t size = (1 + random_below(&s.random, MODEL_SECTORS)) * SECTOR;
		do_resize(&s, d, i == 5 ? UINT64_C(200) << 30 : i == 8 ? UINT64_C(3) << 30 : size);
		do_write(&s, d, 0x2000 + i);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
	cut_scene(&s, 150);
}

static void test_resize(void)
{
	resizes(false);
}

static void test_resize_of_a_child(void)
{
	resizes(true);
}

/* ------------------------------------------------------------------ a smaller file */

static bool compact(struct scene *s)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_compact_result result;

	if (!vhdx_compact(recorder_container(s->files[0]), true, &result, &err))
		return true;
	tap_diag("%s: %s", s->name, error_text(&err));
	return false;
}

static void compacts(bool child)
{
	struct scene s = {.name = child ? "compact of a child" : "compact", .again = compact};

	make_scene(&s, child);
	watch(&s);
	CHECK(compact(&s));
	CHECK(s.nr_moments > 10);
	cut_scene(&s, 150);
}

static void test_compact(void)
{
	compacts(false);
}

static void test_compact_of_a_child(void)
{
	compacts(true);
}

/* ------------------------------------------------------------------ a damaged file */

static void poke64(struct recorder *r, uint64_t offset, uint64_t n)
{
	uint8_t raw[8];

	le64_put(raw, n);
	CHECK_EQ(container_write(recorder_container(r), raw, 8, offset, &io_plain), 0);
}

static bool repair(struct scene *s)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_findings f;
	bool good = !vhdx_check(recorder_container(s->files[0]), true, &f, &err);

	if (!good) {
		tap_diag("%s: %s", s->name, error_text(&err));
		return false;
	}
	good = f.errors == f.repaired;
	vhdx_findings_free(&f);
	return good && checks_clean(s->files[0], true);
}

/* A header, a region table, an entry with a place that it must not have, and an end that is not on a whole MiB. */
static void test_repair(void)
{
	struct scene s = {.name = "repair", .again = repair};
	struct recorder *r;

	make_scene(&s, false);
	r = s.files[0];
	poke64(r, VHDX_HEADER_OFFSET(1) + 100, 1);
	poke64(r, VHDX_TABLE_OFFSET(1) + 1000, 1); /* QEMU reads the first one only */
	poke64(r, 3 * MIB + 8 * 2, 5 * MIB | VHDX_ZERO);
	CHECK_EQ(container_set_size(recorder_container(r), container_size(recorder_container(r)) + SECTOR, NULL), 0);
	watch(&s);
	CHECK(repair(&s));
	CHECK(s.nr_moments > 4);
	cut_scene(&s, 100);
}

/* ------------------------------------------------------------------ into the parent, and another parent */

/* Every third MiB from the first on is full of the tag. */
static struct recorder *make_file(const struct vhdx_create_options *o, uint32_t tag, unsigned first)
{
	struct recorder *r = lab_create(o);
	struct disk *d;
	uint8_t *data = malloc(MIB);

	recorder_hold(r);
	d = lab_open(recorder_container(r), "parent");
	tag_fill(data, MIB, tag);
	for (unsigned i = first; i < 8 && d; i += 3)
		CHECK_EQ(disk_write(d, &VEC_FLAT(data, MIB - 4096), i * MIB + 4096, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	free(data);
	return r;
}

static void show_parent(struct state *state, uint32_t tag)
{
	for (unsigned i = 0; i < 8; i += 3)
		for (uint64_t k = 8; k < MIB / SECTOR; k++)
			state->tags[i * (MIB / SECTOR) + k] = tag;
}

static struct guid guid_of(struct recorder *r)
{
	struct guid id = {{0}};
	struct layer *l;

	recorder_set_read_only(r, true);
	if (CHECK_EQ(vhdx_layer_open(recorder_container(r), &l, NULL), 0)) {
		id = vhdx_data_write_guid(l);
		vhdx_layer_release(l);
	}
	recorder_set_read_only(r, false);
	return id;
}

/* A child over the first of `parents` files, which hold the same unless `differ`. */
static void make_family(struct scene *s, unsigned parents, bool differ)
{
	struct vhdx_create_options o = options_of(false), of_child = options_of(true);
	struct state *state = begin_state(s);
	struct disk *d;

	s->random = random_stream(2 + parents);
	o.block_size = 2 * MIB;
	for (s->nr_files = 1; s->nr_files <= parents; s->nr_files++)
		s->files[s->nr_files] = make_file(&o, 0x4000, differ ? s->nr_files - 1 : 0);
	of_child.parent = guid_of(s->files[1]);
	s->files[0] = lab_create(&of_child);
	state->size = MODEL;
	show_parent(state, 0x4000);
	d = open_scene(s);
	REQUIRE(d != NULL);
	fill_disk(s, d);
	CHECK_EQ(disk_close(d, NULL), 0);
	for (unsigned i = 0; i < s->nr_files; i++)
		recorder_set_read_only(s->files[i], false);
}

static const struct vhdx_names names = {.relative = (char *)".\\parent.vhdx", .absolute = (char *)"\\images\\parent.vhdx"};

static bool merge(struct scene *s)
{
	CLEANUP_ERROR struct error err = {0};

	if (!vhdx_merge_in(recorder_container(s->files[0]), recorder_container(s->files[1]), &names, &err))
		return true;
	tap_diag("%s: %s", s->name, error_text(&err));
	return false;
}

static void test_merge(void)
{
	struct scene s = {.name = "merge", .again = merge};

	make_family(&s, 1, false);
	watch(&s);
	CHECK(merge(&s));
	cut_scene(&s, 200);
}

static bool rebase(struct scene *s)
{
	CLEANUP_ERROR struct error err = {0};

	if (!vhdx_rebase_in(recorder_container(s->files[0]), recorder_container(s->files[2]), &names, &err))
		return true;
	tap_diag("%s: %s", s->name, error_text(&err));
	return false;
}

static void test_rebase(void)
{
	struct scene s = {.name = "rebase", .again = rebase};

	make_family(&s, 2, false);
	watch(&s);
	CHECK(rebase(&s));
	cut_scene(&s, 100);
}

static struct progress *progress;

/* One of the other files as a disk, which is looked at only. */
static struct disk *look_at(struct recorder *r)
{
	recorder_set_read_only(r, true);
	recorder_hold(r);
	return lab_open(recorder_container(r), "parent");
}

/* As platter-rebase(1) does it: what the child lacks and the other parent does not hold like that comes to the child, then the name. */
static bool keep_content(struct scene *s)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *now, *next = look_at(s->files[2]);
	struct layer_place parent = {0};
	struct layer *child;
	uint64_t bytes;
	int status;

	recorder_hold(s->files[0]);
	if (!next || !CHECK_EQ(vhdx_layer_open(recorder_container(s->files[0]), &child, NULL), 0))
		return false;
	vhdx_keep_data_id(child);
	parent.layer = open_parent(s, child);
	if (!parent.layer || !CHECK_EQ(layered_create("vhdx", &parent, 1, NULL, 0, OPEN_READ_ONLY, &now, NULL), 0))
		return false;
	status = merge_keep_content(child, now, next, progress, &bytes, &err);
	if (status)
		tap_diag("%s: %s", s->name, error_text(&err));
	CHECK_EQ(child->ops->close(child, status != 0, NULL), 0);
	CHECK_EQ(disk_close(now, NULL), 0);
	CHECK_EQ(disk_close(next, NULL), 0);
	return !status;
}

static bool safe_rebase(struct scene *s)
{
	return keep_content(s) && rebase(s);
}

static void test_safe_rebase(void)
{
	struct scene s = {.name = "safe rebase", .again = safe_rebase};
	struct guid id, now;

	make_family(&s, 2, true);
	id = guid_of(s.files[0]);
	watch(&s);
	CHECK(safe_rebase(&s));
	cut_scene_but_keep(&s, 100);
	now = guid_of(s.files[0]);
	CHECK(guid_equal(&now, &id)); /* children of the child go on */
	close_files(&s);
}

/* ------------------------------------------------------------------ growing over what was logged */

static struct disk *open_with_few_pages(struct scene *s, struct layer **child)
{
	struct layer_place top = {0};
	struct disk *d = NULL;

	recorder_hold(s->files[0]);
	if (!CHECK_EQ(vhdx_layer_open(recorder_container(s->files[0]), &top.layer, NULL), 0))
		return NULL;
	*child = top.layer;
	vhdx_of(top.layer)->pages.limit = 2;
	CHECK_EQ(layered_create_over("vhdx", &top, base_create(s->over, SECTOR), 0, &d, NULL), 0);
	return d;
}

/*
 * Entries that are many are written in their places at once: the log may not hold what they were before. At 2 TiB the last entry of a chunk
 * is the last of its page, so nothing else is logged between.
 */
static void test_growing_again(void)
{
	struct scene s = {.name = "growing again", .block = 256 << 20};
	const uint64_t large = UINT64_C(20) << 40;
	struct layer *child;
	unsigned answered;
	struct disk *d;

	make_scene(&s, true);
	s.over = large;
	watch(&s);
	d = open_with_few_pages(&s, &child);
	REQUIRE(d != NULL);
	do_resize(&s, d, large);
	do_resize(&s, d, UINT64_C(2) << 40);
	for (uint64_t n = 500; n < 520; n++)
		CHECK_EQ(vhdx_page_load(vhdx_of(child), n, &io_plain), 0);
	CHECK(!vhdx_page_peek(vhdx_of(child), 21));
	do_resize(&s, d, large);
	answered = s.states[s.nr_states - 1].answered;
	CHECK_EQ(disk_close(d, NULL), 0);
	unwatch(&s);
	for (unsigned n = answered; n < s.nr_moments && n < answered + 5; n++)
		if (!try_cut(&s, n, UNFLUSHED_ANY, 4 * n + 1, false)) /* one that is opened for reading */
			break;
	cut_scene(&s, 30);
}

/* ------------------------------------------------------------------ making */

/* It is no file of this kind, or all of one. */
static bool is_nothing_or_new(struct recorder *r, bool child, bool answered)
{
	struct scene s = {.name = "making", .files = {r}, .nr_files = 1, .over = child ? MODEL : 0};
	struct state *state = begin_state(&s);
	bool good = true;
	uint64_t why;

	state->size = MODEL;
	if (child)
		show_base(state);
	for (unsigned read_only = 0; read_only < 2 && good; read_only++) {
		struct layer *l;
		struct disk *d;
		recorder_set_read_only(r, read_only);
		good = !answered;
		if (vhdx_layer_open(recorder_container(r), &l, NULL))
			continue;
		vhdx_layer_release(l);
		d = open_scene(&s);
		good = d && is_in(state, d, &why) && checks_clean(r, true);
		if (d)
			CHECK_EQ(disk_close(d, NULL), 0);
	}
	free(state->tags);
	return good;
}

static void check_creation(const struct vhdx_create_options *o)
{
	struct recorder *r = recorder_create("new.vhdx");

	recorder_begin(r);
	CHECK_EQ(vhdx_create(recorder_container(r), o, NULL), 0);
	for (unsigned n = 0, last = recorder_calls(r); n <= last; n++)
		for (uint64_t seed = 0; seed < 24; seed++) {
			struct recorder *cut = recorder_cut(r, n, UNFLUSHED_ANY, seed);
			bool good = CHECK(is_nothing_or_new(cut, o->has_parent, n == last));
			container_close(recorder_container(cut), false, NULL);
			if (good)
				continue;
			recorder_tell(r, n, UNFLUSHED_ANY, seed);
			n = last;
			break;
		}
	container_close(recorder_container(r), false, NULL);
}

static void test_making(void)
{
	struct vhdx_create_options o = options_of(false), of_child = options_of(true);

	check_creation(&o);
	check_creation(&of_child);
	o.fixed = true;
	check_creation(&o);
}

int main(void)
{
	CHECK_EQ(progress_begin(&progress, "test", PROGRESS_NONE, NULL), 0);
	TAP_RUN(test_making);
	TAP_RUN(test_resize);
	TAP_RUN(test_resize_of_a_child);
	TAP_RUN(test_compact);
	TAP_RUN(test_compact_of_a_child);
	TAP_RUN(test_repair);
	TAP_RUN(test_merge);
	TAP_RUN(test_rebase);
	TAP_RUN(test_safe_rebase);
	TAP_RUN(test_growing_again);
	progress_end(progress);
	return TAP_DONE();
}

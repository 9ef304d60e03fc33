/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A power cut after every call of what changes a VHD as a whole: making, resizing, compacting, repairing, another parent. At each the image opens,
 * holds the old or the new, and what was begun can be done again, to the same end. Workloads of requests, and resizing beside them, are cut in
 * test-vhd-crash.c.
 */
#include "tests/tap.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "cli/merge.h"
#include "core/node.h"
#include "core/open.h"
#include "formats/vhd-image.h"
#include "formats/vhd-tools.h"
#include "formats/vhd.h"
#include "tests/contract.h"
#include "tests/recorder.h"

#define BLOCK 16384u
#define BLOCK_SECTORS (BLOCK / VHD_SECTOR)
#define BLOCKS 24u
#define SECTORS (BLOCKS * BLOCK_SECTORS)
#define MAX_SECTORS (200u * BLOCK_SECTORS) /* needs a second sector of BAT */
#define BELOW 0xee      /* what each byte of the parent is */
#define UNREADABLE 0xdd /* a sector that gives an error */
#define TORN 0xdc

/* What a disk holds: of each sector the byte that it is full of; and what the image says of its parent. */
struct view {
	uint32_t sectors;
	unsigned char byte[MAX_SECTORS];
	char parent[4096];
};

struct lab {
	enum vhd_type type;
	const char *creator; /* as if somebody else had made the image; NULL: us */
	int (*verb)(const struct lab *l, struct container *c);
	uint32_t to;         /* resize: sectors */
	bool damaged;        /* before the verb has been at it the image may not open for writing */
	bool moves;          /* with the parent that it names the disk below it is another one */
	struct recorder *r;
	struct view old, new;
};

static struct disk *base, *other;
static struct progress *progress;

/* What the image calls the file that `other` stands for. */
#define OTHER "other.vhd"

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void make_base(void)
{
	unsigned char *data = must(malloc(MAX_SECTORS * VHD_SECTOR));

	memset(data, BELOW, MAX_SECTORS * VHD_SECTOR);
	CHECK_EQ(disk_open("mem:8M", 0, &base, NULL), 0);
	CHECK_EQ(disk_write(base, &VEC_FLAT(data, MAX_SECTORS * VHD_SECTOR), 0, &io_plain), 0);
	free(data);
}

/* Shorter than the child; the same as `base` in part, zero in part, and in part something else. Its file is there to be named. */
static void make_other(void)
{
	const struct vhd_create_options o = {.type = VHD_DYNAMIC, .size = 320 << 10, .exact = true};
	unsigned char *data = must(malloc(320 << 10));
	struct container *c;

	CHECK_EQ(container_open(tmppath(OTHER), CONTAINER_CREATE, &c, NULL), 0);
	CHECK_EQ(vhd_create(c, &o, NULL), 0);
	CHECK_EQ(container_close(c, false, NULL), 0);
	memset(data, BELOW, 320 << 10);
	memset(data + (40 << 10), 0, 60 << 10);
	memset(data + (150 << 10), 0x77, 70 << 10);
	CHECK_EQ(disk_open("mem:320K", 0, &other, NULL), 0);
	CHECK_EQ(disk_write(other, &VEC_FLAT(data, 320 << 10), 0, &io_plain), 0);
	free(data);
}

/* ------------------------------------------------------------------ the image */

/* The parent's id and names, as text; "" where there is none. */
static void tell_parent(struct recorder *r, char text[4096])
{
	static const struct vhd_options lax = {.lax = true};
	json_t *info = NULL;
	char *parents;

	text[0] = 0;
	if (vhd_info(recorder_container(r), &lax, &info, NULL))
		return;
	parents = json_dumps(json_object_get(info, "parents"), 0);
	if (parents)
		snprintf(text, 4096, "%s %s", json_string_value(json_object_get(info, "parent_id")), parents);
	free(parents);
	json_decref(info);
}

static struct disk *below(const struct lab *l, struct recorder *r)
{
	char text[4096];

	tell_parent(r, text);
	return l->moves && strstr(text, OTHER) ? other : base;
}

/* The recorder stays when the disk is closed. */
static struct disk *open_disk(const struct lab *l, struct recorder *r, bool lax)
{
	const struct vhd_options options = {.lax = lax};
	struct layer_place places[2] = {0};
	unsigned flags = recorder_container(r)->read_only ? OPEN_READ_ONLY : 0;
	struct disk *d = NULL;
	CLEANUP_ERROR struct error err = {0};

	if (vhd_layer_open(recorder_container(r), &options, &places[0].layer, &err)) {
		if (l->r)
			tap_diag("%s", error_text(&err));
		return NULL;
	}
	recorder_hold(r);
	if (l->type == VHD_DIFFERENCING)
		places[1].layer = must(disk_layer_create(below(l, r)));
	CHECK_EQ(layered_create("vhd", places, l->type == VHD_DIFFERENCING ? 2 : 1, NULL, 0, flags, &d, NULL), 0);
	return d;
}

static void put(struct disk *d, uint32_t sector, uint32_t count, unsigned char byte)
{
	unsigned char *data = must(malloc((size_t)count * VHD_SECTOR));

	memset(data, byte, (size_t)count * VHD_SECTOR);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, (size_t)count * VHD_SECTOR), (uint64_t)sector * VHD_SECTOR, &io_plain), 0);
	free(data);
}

/* Blocks that never were, whole ones, parts, and ones that were and are zero. */
static void fill_block(struct disk *d, uint32_t block)
{
	uint32_t first = block * BLOCK_SECTORS;
	unsigned char byte = (unsigned char)(block + 1);

	switch (block % 6) {
	case 1:
	case 4:
		put(d, first, BLOCK_SECTORS, byte);
		break;
	case 2:
		put(d, first + 5, 3, byte);
		put(d, first + 31, 1, byte);
		break;
	case 3:
		put(d, first, BLOCK_SECTORS, byte);
		CHECK_EQ(disk_write_zeroes(d, (uint64_t)first * VHD_SECTOR, BLOCK, &io_plain), 0);
		break;
	case 5:
		put(d, first, BLOCK_SECTORS, byte);
		CHECK_EQ(disk_discard(d, (uint64_t)first * VHD_SECTOR, BLOCK, &io_plain), 0);
	}
}

static void set_creator(struct container *c, const char *creator)
{
	struct vhd_footer f;

	CHECK_EQ(container_read(c, &f, sizeof(f), 0, &io_plain), 0);
	memcpy(f.creator, creator, 4);
	vhd_footer_seal(&f);
	CHECK_EQ(container_write(c, &f, sizeof(f), 0, &io_plain), 0);
	CHECK_EQ(container_write(c, &f, sizeof(f), container_size(c) - sizeof(f), &io_plain), 0);
}

static uint32_t entry_of(struct container *c, uint32_t block)
{
	uint32_t entry;

	CHECK_EQ(container_read(c, &entry, 4, 1536 + (uint64_t)block * 4, &io_plain), 0);
	return be32toh(entry);
}

static void set_entry(struct container *c, uint32_t block, uint32_t at)
{
	uint32_t entry = htobe32(at);

	CHECK_EQ(container_write(c, &entry, 4, 1536 + (uint64_t)block * 4, &io_plain), 0);
}

/* Of a block: as if a session had ended before a bit was set. */
static void clear_bitmap(struct container *c, uint32_t block)
{
	CHECK_EQ(c->ops->zero(c, (uint64_t)entry_of(c, block) * VHD_SECTOR, VHD_SECTOR, false, &io_plain), 0);
}

static void make_image(struct lab *l)
{
	const struct vhd_create_options o = {
		.type = l->type, .size = SECTORS * VHD_SECTOR, .block_size = l->type == VHD_FIXED ? 0 : BLOCK, .exact = true};
	struct container *c;
	struct disk *d;

	l->r = recorder_create("a.vhd");
	c = recorder_container(l->r);
	CHECK_EQ(vhd_create(c, &o, NULL), 0);
	if (l->creator)
		set_creator(c, l->creator);
	d = open_disk(l, l->r, false);
	for (uint32_t i = BLOCKS; i--;) /* the last ones lie in front */
		fill_block(d, i);
	CHECK_EQ(disk_close(d, NULL), 0);
	if (l->type == VHD_DIFFERENCING)
		clear_bitmap(c, 11);
}

/* ------------------------------------------------------------------ what is seen */

static unsigned char byte_of(const unsigned char *p)
{
	return memcmp(p, p + 1, VHD_SECTOR - 1) ? TORN : *p;
}

static void look(struct disk *d, struct recorder *r, struct view *view)
{
	unsigned char data[VHD_SECTOR];

	memset(view, 0, sizeof(*view));
	tell_parent(r, view->parent);
	view->sectors = (uint32_t)(disk_size(d) / VHD_SECTOR);
	for (uint32_t i = 0; i < view->sectors; i++)
		view->byte[i] = disk_read(d, &VEC_FLAT(data, VHD_SECTOR), (uint64_t)i * VHD_SECTOR, &io_plain) ? UNREADABLE : byte_of(data);
}

/* Read-only, whatever is wrong with it; nothing is changed. */
static bool see(const struct lab *l, struct recorder *r, struct view *view)
{
	struct disk *d;

	recorder_set_read_only(r, true);
	d = open_disk(l, r, true);
	if (d)
		look(d, r, view);
	if (d)
		CHECK_EQ(disk_close(d, NULL), 0);
	recorder_set_read_only(r, false);
	return d != NULL;
}

/*
 * Of an image that was sound: the old size with what it held, or the new one. A repair may have come to any part of it. A fixed image that
 * shrinks has its new footer in what it gives up.
 */
static bool is_legal(const struct lab *l, const struct view *v)
{
	if (v->sectors != l->old.sectors && v->sectors != l->new.sectors) {
		tap_diag("its size is %" PRIu32 " sectors", v->sectors);
		return false;
	}
	if (strcmp(v->parent, l->old.parent) != 0 && strcmp(v->parent, l->new.parent) != 0) {
		tap_diag("its parent is %s", v->parent);
		return false;
	}
	for (uint32_t i = 0; i < v->sectors; i++) {
		bool old = v->byte[i] == l->old.byte[i] && i < l->old.sectors && (l->damaged || v->sectors == l->old.sectors);
		bool new = v->byte[i] == l->new.byte[i] && i < l->new.sectors && (l->damaged || v->sectors == l->new.sectors);
		bool given_up = l->type == VHD_FIXED && i >= l->new.sectors;
		if (!old && !new && !given_up) {
			tap_diag("sector %" PRIu32 " of %" PRIu32 " holds %02x", i, v->sectors, v->byte[i]);
			return false;
		}
	}
	return true;
}

/* How many things are wrong with it; but for footers, of which one may be missing as long as the other is there, none of an image that is sound. */
static bool is_clean(struct recorder *r, bool but_for_footers)
{
	static const struct vhd_options strict;
	CLEANUP_ERROR struct error err = {0};
	json_t *report = NULL, *list;
	bool clean = CHECK_EQ(vhd_check(recorder_container(r), &strict, false, &report, &err), 0);

	if (!clean)
		tap_diag("%s", error_text(&err));
	list = json_object_get(report, "problems");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *what = json_string_value(json_object_get(json_array_get(list, i), "what"));
		if (but_for_footers && strstr(what, "footer"))
			continue;
		tap_diag("%s", what);
		clean = false;
	}
	json_decref(report);
	return clean;
}

/* ------------------------------------------------------------------ cuts */

static bool opens_as_it_should(const struct lab *l, struct recorder *cut)
{
	struct view *found = must(malloc(sizeof(*found)));
	struct disk *d = open_disk(l, cut, false);
	bool good = d != NULL;

	if (d) {
		look(d, cut, found);
		good = is_legal(l, found);
		good = CHECK_EQ(disk_close(d, NULL), 0) && good;
	}
	free(found);
	return good && is_clean(cut, false);
}

static bool can_be_done_again(const struct lab *l, struct recorder *cut)
{
	struct view *found = must(malloc(sizeof(*found)));
	bool good = !l->verb(l, recorder_container(cut)) && is_clean(cut, false) && see(l, cut, found);

	if (good && (found->sectors != l->new.sectors || memcmp(found->byte, l->new.byte, found->sectors) != 0 ||
		     strcmp(found->parent, l->new.parent) != 0)) {
		tap_diag("done again, it holds something else");
		good = false;
	}
	free(found);
	return good;
}

/* `open`: before it is done again, somebody opens it, which may tidy up. */
static bool check_cut(const struct lab *l, struct recorder *cut, bool open)
{
	struct view *found = must(malloc(sizeof(*found)));
	bool good = l->damaged ? see(l, cut, found) && is_legal(l, found) : is_clean(cut, true);

	if (good && open && !l->damaged)
		good = opens_as_it_should(l, cut);
	good = good && can_be_done_again(l, cut);
	free(found);
	container_close(recorder_container(cut), false, NULL);
	return good;
}

static bool check_cuts(const struct lab *l, unsigned n, unsigned seeds)
{
	static const enum unflushed_order orders[] = {UNFLUSHED_ANY, UNFLUSHED_IN_ORDER};

	for (unsigned o = 0; o < 2; o++) {
		uint64_t states = recorder_states(l->r, n, orders[o]), count = states < seeds ? states : seeds;
		for (uint64_t k = 0; k < count; k++) {
			uint64_t seed = states <= seeds ? k : k * 1000 + n;
			struct recorder *cut = states <= seeds ? recorder_cut_state(l->r, n, orders[o], seed) : recorder_cut(l->r, n, orders[o], seed);
			if (CHECK(check_cut(l, cut, (k + n) % 2)))
				continue;
			recorder_tell(l->r, n, orders[o], seed);
			return false;
		}
	}
	return true;
}

/* From here the image is as it is, and durable. */
static void run_lab(struct lab *l)
{
	unsigned seeds = (getenv("CRASH_LONG") ? 200 : 16) / contract_slowness();
	unsigned step = contract_slowness() > 1 ? 13 : 1; /* under checkers they are here for memory, not for every order */

	recorder_begin(l->r);
	CHECK(see(l, l->r, &l->old));
	CHECK_EQ(l->verb(l, recorder_container(l->r)), 0);
	CHECK(is_clean(l->r, false));
	CHECK(see(l, l->r, &l->new));
	for (unsigned n = 0; n <= recorder_calls(l->r); n += step)
		if (!check_cuts(l, n, seeds ? seeds : 1))
			break;
	tap_diag("%u calls were cut", recorder_calls(l->r));
}

static void drop(struct lab *l)
{
	container_close(recorder_container(l->r), false, NULL);
	free(l);
}

static struct lab *new_lab(struct lab like)
{
	struct lab *l = must(malloc(sizeof(*l)));

	*l = like;
	make_image(l);
	return l;
}

/* ------------------------------------------------------------------ resize */

static int resize(const struct lab *l, struct container *c)
{
	static const struct vhd_options strict;

	return vhd_resize(c, &strict, (uint64_t)l->to * VHD_SECTOR, NULL);
}

/* What is in both is the same; what is added is zero, also over a longer parent. */
static void check_resize(enum vhd_type type, const char *creator, uint32_t to)
{
	struct lab *l = new_lab((struct lab){.type = type, .creator = creator, .verb = resize, .to = to});
	uint32_t kept = to < SECTORS ? to : SECTORS;

	run_lab(l);
	CHECK_EQ(l->old.sectors, SECTORS);
	CHECK_EQ(l->new.sectors, to);
	CHECK_MEM(l->new.byte, l->old.byte, kept);
	CHECK(memory_is_zero(l->new.byte + kept, to - kept));
	drop(l);
}

static void test_growing(void)
{
	check_resize(VHD_DYNAMIC, NULL, SECTORS + 3 * BLOCK_SECTORS + 7);
	check_resize(VHD_DYNAMIC, "tap", SECTORS + 40 * BLOCK_SECTORS);
	check_resize(VHD_DIFFERENCING, NULL, SECTORS + 3 * BLOCK_SECTORS + 7);
	check_resize(VHD_FIXED, NULL, SECTORS + 77);
}

static void test_growing_past_the_bat(void)
{
	check_resize(VHD_DYNAMIC, NULL, MAX_SECTORS);
	check_resize(VHD_DYNAMIC, "test", MAX_SECTORS - 1);
}

static void test_shrinking(void)
{
	check_resize(VHD_DYNAMIC, NULL, SECTORS - 3 * BLOCK_SECTORS - 7);
	check_resize(VHD_DYNAMIC, "tap", 5 * BLOCK_SECTORS);
	check_resize(VHD_DIFFERENCING, NULL, 8 * BLOCK_SECTORS + 6);
	check_resize(VHD_FIXED, NULL, SECTORS - 77);
}

/* Growing moves the footer, and trusts the copy meanwhile: it must have come to the medium with the size. */
static void test_a_new_block_right_after_growing(void)
{
	struct lab *l = new_lab((struct lab){.type = VHD_DYNAMIC});
	struct disk *d = open_disk(l, l->r, false), *found;
	const uint32_t to = SECTORS + 3 * BLOCK_SECTORS;
	unsigned resized;

	recorder_begin(l->r);
	CHECK_EQ(disk_resize(d, (uint64_t)to * VHD_SECTOR, &io_plain), 0);
	resized = recorder_calls(l->r);
	put(d, SECTORS, BLOCK_SECTORS, 1);
	CHECK_EQ(disk_close(d, NULL), 0);
	for (unsigned n = resized; n <= recorder_calls(l->r); n++)
		for (uint64_t seed = 0; seed < 32; seed++) {
			struct recorder *cut = recorder_cut(l->r, n, UNFLUSHED_ANY, seed);
			found = open_disk(l, cut, false);
			if (!CHECK(found && disk_size(found) == (uint64_t)to * VHD_SECTOR))
				recorder_tell(l->r, n, UNFLUSHED_ANY, seed);
			disk_close(found, NULL);
			container_close(recorder_container(cut), false, NULL);
		}
	drop(l);
}

/* ------------------------------------------------------------------ compact */

static int compact(const struct lab *l, struct container *c)
{
	static const struct vhd_options strict;
	json_t *report = NULL;
	int status = vhd_compact(c, &strict, &report, NULL);

	(void)l;
	json_decref(report);
	return status;
}

static void check_compact(enum vhd_type type, const char *creator)
{
	struct lab *l = new_lab((struct lab){.type = type, .creator = creator, .verb = compact});
	uint64_t before = container_size(recorder_container(l->r));

	if (type == VHD_DIFFERENCING)
		clear_bitmap(recorder_container(l->r), 22); /* holds nothing now, far in front */
	run_lab(l);
	CHECK_MEM(&l->new, &l->old, sizeof(l->old));
	CHECK(container_size(recorder_container(l->r)) < before);
	drop(l);
}

static void test_compacting(void)
{
	check_compact(VHD_DYNAMIC, NULL);
	check_compact(VHD_DYNAMIC, "test");
	check_compact(VHD_DIFFERENCING, NULL);
}

/* ------------------------------------------------------------------ repair */

static int repair(const struct lab *l, struct container *c)
{
	static const struct vhd_options strict;
	json_t *report = NULL;
	int status = vhd_check(c, &strict, true, &report, NULL);

	(void)l;
	json_decref(report);
	return status;
}

static void damage_front(struct container *c)
{
	CHECK_EQ(c->ops->zero(c, 0, VHD_SECTOR, false, &io_plain), 0);
}

static void damage_end(struct container *c)
{
	CHECK_EQ(c->ops->zero(c, container_size(c) - VHD_SECTOR, VHD_SECTOR, false, &io_plain), 0);
}

static void damage_header(struct container *c)
{
	static const char byte = 7;

	CHECK_EQ(container_write(c, &byte, 1, VHD_SECTOR + 36, &io_plain), 0); /* of the checksum */
}

/* Blocks 6 and 12 never were. */
static void damage_entries(struct container *c)
{
	set_entry(c, 6, entry_of(c, 4) + 1);
	set_entry(c, 12, 0x7fffffff);
}

static void damage_bitmap(struct container *c)
{
	clear_bitmap(c, 1);
	clear_bitmap(c, 16);
}

/* All that was not damaged is there; what was damaged beyond repair is zero. */
static void check_repair(void (*const damages[])(struct container *c))
{
	struct lab *l = new_lab((struct lab){.type = VHD_DYNAMIC, .verb = repair, .damaged = true});

	for (unsigned i = 0; damages[i]; i++)
		damages[i](recorder_container(l->r));
	run_lab(l);
	CHECK_EQ(l->new.sectors, SECTORS);
	for (uint32_t i = 0; i < SECTORS; i++) {
		uint32_t block = i / BLOCK_SECTORS, in = i % BLOCK_SECTORS, kind = block % 6;
		bool there = kind == 1 || kind == 4 || (kind == 2 && ((in >= 5 && in < 8) || in == 31));
		CHECK_EQ(l->new.byte[i], there ? block + 1 : 0);
	}
	drop(l);
}

static void test_repairing(void)
{
	check_repair((void (*const[])(struct container *)){damage_front, NULL});
	check_repair((void (*const[])(struct container *)){damage_end, NULL});
	check_repair((void (*const[])(struct container *)){damage_header, NULL});
	check_repair((void (*const[])(struct container *)){damage_entries, NULL});
	check_repair((void (*const[])(struct container *)){damage_bitmap, NULL});
	check_repair((void (*const[])(struct container *)){damage_front, damage_header, damage_entries, damage_bitmap, NULL});
	check_repair((void (*const[])(struct container *)){damage_end, damage_header, damage_entries, damage_bitmap, NULL});
}

/* ------------------------------------------------------------------ another parent */

static int set_parent(const struct lab *l, struct container *c)
{
	static const struct vhd_options strict;
	CLEANUP_ERROR struct error err = {0};
	int status = vhd_set_parent(c, &strict, tmppath(OTHER), false, &err);

	(void)l;
	if (status)
		tap_diag("%s", error_text(&err));
	return status;
}

/* As platter-rebase(1) does it: what the child lacks and the other parent does not hold like that comes to the child, then the name. */
static int rebase(const struct lab *l, struct container *c)
{
	static const struct vhd_options strict;
	CLEANUP_ERROR struct error err = {0};
	struct layer *child;
	uint64_t bytes;
	int status = vhd_layer_open(c, &strict, &child, &err), closed;

	if (!status) {
		struct disk *now = below(l, recorder_of(c));
		recorder_hold(recorder_of(c));
		status = merge_keep_content(child, now, other, progress, &bytes, &err);
		closed = child->ops->close(child, status != 0, NULL);
		status = status ? status : closed;
	}
	if (status)
		tap_diag("%s", error_text(&err));
	return status ? status : set_parent(l, c);
}

static void check_rebase(int (*verb)(const struct lab *l, struct container *c), bool moves)
{
	struct lab *l = new_lab((struct lab){.type = VHD_DIFFERENCING, .verb = verb, .moves = moves});

	run_lab(l);
	CHECK_EQ(l->new.sectors, SECTORS);
	CHECK_MEM(l->new.byte, l->old.byte, SECTORS);
	CHECK(!strstr(l->old.parent, OTHER));
	CHECK(strstr(l->new.parent, OTHER) != NULL);
	drop(l);
}

static void test_another_parent(void)
{
	check_rebase(set_parent, false);
}

static void test_rebasing(void)
{
	check_rebase(rebase, true);
}

/* ------------------------------------------------------------------ making */

/* All of the image, for who reads it only, who looks at no more than he has to, and for who opens it for writing; or no image to either. */
static bool is_nothing_or_new(struct recorder *r, enum vhd_type type, bool answered)
{
	struct lab l = {.type = type};
	struct view *found = must(malloc(sizeof(*found)));
	bool good = true;

	for (unsigned read_only = 0; read_only < 2 && good; read_only++) {
		struct disk *d;
		recorder_set_read_only(r, read_only);
		d = open_disk(&l, r, false);
		good = d || !answered;
		if (!d)
			continue;
		look(d, r, found);
		good = found->sectors == SECTORS;
		for (uint32_t i = 0; i < SECTORS && good; i++)
			good = found->byte[i] == (type == VHD_DIFFERENCING ? BELOW : 0);
		CHECK_EQ(disk_close(d, NULL), 0);
		good = good && is_clean(r, false);
	}
	free(found);
	return good;
}

static void check_creation(enum vhd_type type, bool full)
{
	const struct vhd_create_options o = {
		.type = type, .size = SECTORS * VHD_SECTOR, .block_size = type == VHD_FIXED ? 0 : BLOCK, .full = full, .exact = true};
	struct recorder *r = recorder_create("a.vhd");

	recorder_begin(r);
	CHECK_EQ(vhd_create(recorder_container(r), &o, NULL), 0);
	for (unsigned n = 0; n <= recorder_calls(r); n++)
		for (uint64_t seed = 0; seed < 64; seed++) {
			struct recorder *cut = recorder_cut(r, n, seed % 4 ? UNFLUSHED_ANY : UNFLUSHED_IN_ORDER, seed);
			bool good = CHECK(is_nothing_or_new(cut, type, n == recorder_calls(r)));
			container_close(recorder_container(cut), false, NULL);
			if (good)
				continue;
			recorder_tell(r, n, seed % 4 ? UNFLUSHED_ANY : UNFLUSHED_IN_ORDER, seed);
			n = recorder_calls(r);
			break;
		}
	container_close(recorder_container(r), false, NULL);
}

static void test_making(void)
{
	check_creation(VHD_FIXED, false);
	check_creation(VHD_FIXED, true);
	check_creation(VHD_DYNAMIC, false);
	check_creation(VHD_DIFFERENCING, false);
}

int main(void)
{
	mallopt(M_TRIM_THRESHOLD, 256 << 20); /* memory of one cut is there for the next */
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	CHECK_EQ(progress_begin(&progress, "test", PROGRESS_NONE, NULL), 0);
	make_base();
	make_other();
	TAP_RUN(test_making);
	TAP_RUN(test_growing);
	TAP_RUN(test_growing_past_the_bat);
	TAP_RUN(test_shrinking);
	TAP_RUN(test_a_new_block_right_after_growing);
	TAP_RUN(test_compacting);
	TAP_RUN(test_repairing);
	TAP_RUN(test_another_parent);
	TAP_RUN(test_rebasing);
	disk_close(other, NULL);
	disk_close(base, NULL);
	progress_end(progress);
	return TAP_DONE();
}

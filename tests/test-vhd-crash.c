/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A power cut after every call that a random workload makes, in every order that a medium may bring the unflushed ones to itself: the
 * image opens, each sector holds what was promised or what may have come after it, and goes on to work.
 */
#include "tests/tap.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "core/node.h"
#include "core/open.h"
#include "formats/vhd-image.h"
#include "formats/vhd.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/recorder.h"

#define SECTORS 1600u /* of the disk: 12 blocks of 64 KiB and a part of one */
#define MAX_SECTORS 2400u
#define SECTOR VHD_SECTOR
#define OPS 70u

/* A sector holds a tag, 64 times; 0 is zero. */
typedef uint64_t tag;

/* What an operation has done, and between which calls of the container. */
struct op {
	enum { WRITE, ZEROES, DISCARD, FLUSH, RESIZE } kind;
	unsigned begin, end; /* recorder_calls() before and after */
	bool fua;
	uint32_t first, count; /* sectors; RESIZE: the new size and the old one */
	tag *tags;             /* what the sectors hold after it */
};

struct story {
	enum vhd_type type;
	const char *creator; /* as if somebody else had made the image; NULL: us */
	bool resizes;
	struct recorder *r;
	struct random random;
	uint32_t sectors, start_sectors;
	tag now[MAX_SECTORS], start[MAX_SECTORS];
	struct op ops[OPS + 1];
	unsigned nr_ops;
	tag next;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ------------------------------------------------------------------ the disk */

/* What lies below a differencing image: each sector its own tag, or zero. Longer than the child. */
static tag base_tag(uint32_t sector)
{
	return sector % 7 ? UINT64_C(0xba5e000000000000) | sector : 0;
}

static void fill_sector(unsigned char *p, tag t)
{
	for (unsigned i = 0; i < SECTOR / sizeof(t); i++)
		memcpy(p + i * sizeof(t), &t, sizeof(t));
}

/* Made once: to fill it takes longer than everything else that is done for a cut. */
static struct disk *base;

static void make_base(void)
{
	unsigned char *data = must(malloc(MAX_SECTORS * SECTOR));

	for (uint32_t i = 0; i < MAX_SECTORS; i++)
		fill_sector(data + (size_t)i * SECTOR, base_tag(i));
	CHECK_EQ(disk_open("mem:1200K", 0, &base, NULL), 0);
	CHECK_EQ(disk_write(base, &VEC_FLAT(data, MAX_SECTORS * SECTOR), 0, &io_plain), 0);
	free(data);
}

/* The recorder stays when the disk is closed. */
static struct disk *open_disk(const struct story *s, struct recorder *r)
{
	CLEANUP_ERROR struct error err = {0};
	const struct vhd_options options = {0};
	struct layer_place places[2] = {0};
	struct disk *d = NULL;

	if (vhd_layer_open(recorder_container(r), &options, &places[0].layer, &err)) {
		tap_diag("%s", error_text(&err));
		return NULL;
	}
	recorder_hold(r);
	if (s->type == VHD_DIFFERENCING)
		places[1].layer = must(disk_layer_create(base));
	CHECK_EQ(layered_create("vhd", places, s->type == VHD_DIFFERENCING ? 2 : 1, NULL, 0, 0, &d, &err), 0);
	return d;
}

static void make_image(struct story *s)
{
	const struct vhd_create_options o = {
		.type = s->type, .size = SECTORS * SECTOR, .block_size = s->type == VHD_FIXED ? 0 : 64 << 10, .exact = true};
	struct container *c;

	s->r = recorder_create("a.vhd");
	c = recorder_container(s->r);
	CHECK_EQ(vhd_create(c, &o, NULL), 0);
	if (s->creator) {
		struct vhd_footer f;
		CHECK_EQ(container_read(c, &f, sizeof(f), 0, &io_plain), 0);
		memcpy(f.creator, s->creator, 4);
		vhd_footer_seal(&f);
		CHECK_EQ(container_write(c, &f, sizeof(f), 0, &io_plain), 0);
		CHECK_EQ(container_write(c, &f, sizeof(f), container_size(c) - sizeof(f), &io_plain), 0);
	}
	s->sectors = SECTORS;
	for (uint32_t i = 0; i < MAX_SECTORS; i++)
		s->now[i] = s->type == VHD_DIFFERENCING && i < SECTORS ? base_tag(i) : 0;
}

/* ------------------------------------------------------------------ the workload */

/* All of its tags are alike if it is like itself one tag further. */
static tag read_tag(const unsigned char *p)
{
	tag t;

	memcpy(&t, p, sizeof(t));
	return memcmp(p, p + sizeof(t), SECTOR - sizeof(t)) ? UINT64_MAX : t; /* torn */
}

/* In pieces that stay in the cache. */
static void read_tags(struct disk *d, uint32_t first, uint32_t count, tag *out)
{
	static unsigned char data[128 * SECTOR];

	for (uint32_t done = 0, n; done < count; done += n) {
		n = count - done < 128 ? count - done : 128;
		CHECK_EQ(disk_read(d, &VEC_FLAT(data, n * SECTOR), (uint64_t)(first + done) * SECTOR, &io_plain), 0);
		for (uint32_t i = 0; i < n; i++)
			out[done + i] = read_tag(data + i * SECTOR);
	}
}

static struct op *begin_op(struct story *s, int kind)
{
	struct op *op = &s->ops[s->nr_ops++];

	*op = (struct op){.kind = kind, .begin = recorder_calls(s->r)};
	op->fua = random_once_in(&s->random, 6);
	op->count = (uint32_t)random_below(&s->random, random_once_in(&s->random, 5) ? 300 : 10) + 1;
	op->first = (uint32_t)random_below(&s->random, s->sectors);
	if (op->count > s->sectors - op->first)
		op->count = s->sectors - op->first;
	return op;
}

static void do_write(struct story *s, struct disk *d)
{
	struct op *op = begin_op(s, WRITE);
	unsigned char *data = must(malloc((size_t)op->count * SECTOR));
	bool zero = random_once_in(&s->random, 8);

	for (uint32_t i = 0; i < op->count; i++) {
		s->now[op->first + i] = zero ? 0 : ++s->next;
		fill_sector(data + (size_t)i * SECTOR, s->now[op->first + i]);
	}
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, (size_t)op->count * SECTOR), (uint64_t)op->first * SECTOR,
			    &(struct io){.flags = op->fua ? IO_FUA : 0}), 0);
	free(data);
}

static void do_clear(struct story *s, struct disk *d)
{
	struct op *op = begin_op(s, random_once_in(&s->random, 2) ? ZEROES : DISCARD);
	const struct io io = {.flags = (op->fua ? IO_FUA : 0) | (random_once_in(&s->random, 2) ? IO_MAY_UNMAP : 0)};
	uint64_t at = (uint64_t)op->first * SECTOR, length = (uint64_t)op->count * SECTOR;

	if (op->kind == DISCARD) {
		CHECK_EQ(disk_discard(d, at, length, &io), 0);
		read_tags(d, op->first, op->count, s->now + op->first); /* what it has become is up to it */
		return;
	}
	CHECK_EQ(disk_write_zeroes(d, at, length, &io), 0);
	memset(s->now + op->first, 0, op->count * sizeof(tag));
}

static void do_resize(struct story *s, struct disk *d)
{
	struct op *op = begin_op(s, RESIZE);
	uint32_t sectors = (uint32_t)random_below(&s->random, MAX_SECTORS) + 1;

	op->count = s->sectors;
	op->first = sectors;
	CHECK_EQ(disk_resize(d, (uint64_t)sectors * SECTOR, &io_plain), 0);
	if (sectors < s->sectors)
		memset(s->now + sectors, 0, (s->sectors - sectors) * sizeof(tag));
	s->sectors = sectors;
}

static void end_op(struct story *s)
{
	struct op *op = &s->ops[s->nr_ops - 1];

	op->end = recorder_calls(s->r);
	if (op->kind == FLUSH || op->kind == RESIZE)
		return;
	op->tags = must(calloc(op->count, sizeof(tag)));
	memcpy(op->tags, s->now + op->first, op->count * sizeof(tag));
}

static void do_something(struct story *s, struct disk *d)
{
	unsigned what = (unsigned)random_below(&s->random, 20);

	if (what < 3) {
		begin_op(s, FLUSH);
		CHECK_EQ(disk_flush(d, &io_plain), 0);
	} else if (what < 7) {
		do_clear(s, d);
	} else if (what < 9 && s->resizes) {
		do_resize(s, d);
	} else {
		do_write(s, d);
	}
	end_op(s);
}

/* What the disk reads as is what the model says. */
static void check_now(struct story *s, struct disk *d)
{
	tag *found = must(calloc(s->sectors, sizeof(tag)));

	CHECK_EQ(disk_size(d), (uint64_t)s->sectors * SECTOR);
	read_tags(d, 0, s->sectors, found);
	CHECK_MEM(found, s->now, s->sectors * sizeof(tag));
	free(found);
}

/* Two sessions: the second one finds blocks, and its first growth the footer of the first. */
static void live(struct story *s)
{
	struct disk *d = open_disk(s, s->r);

	for (unsigned i = 0; i < 10; i++)
		do_something(s, d);
	CHECK_EQ(disk_close(d, NULL), 0);
	for (unsigned i = 0; i < s->nr_ops; i++)
		free(s->ops[i].tags);
	s->nr_ops = 0;
	recorder_begin(s->r);
	memcpy(s->start, s->now, sizeof(s->start));
	s->start_sectors = s->sectors;
	d = open_disk(s, s->r);
	if (!d)
		return;
	check_now(s, d);
	for (unsigned i = 0; i < OPS; i++)
		do_something(s, d);
	check_now(s, d);
	begin_op(s, FLUSH); /* closing is one, and more */
	CHECK_EQ(disk_close(d, NULL), 0);
	end_op(s);
}

/* ------------------------------------------------------------------ what may be found */

/* Whether the sector may hold `found` when the power went after `n` calls. */
static bool is_legal(const struct story *s, uint32_t sector, tag found, unsigned n)
{
	tag now = s->start[sector];
	bool legal = now == found;

	for (unsigned i = 0; i < s->nr_ops && s->ops[i].begin < n; i++) {
		const struct op *op = &s->ops[i];
		bool done = op->end <= n;
		if (op->kind == FLUSH) {
			legal = done ? now == found : legal;
		} else if (op->kind == RESIZE) {
			if (sector >= op->first && sector < op->count) { /* cut off, and zero when it comes back */
				now = done ? 0 : now;
				legal = done ? found == 0 : true;
			} else {
				legal = done ? now == found : legal;
			}
		} else if (sector >= op->first && sector < op->first + op->count) {
			now = done ? op->tags[sector - op->first] : now;
			legal = done && op->fua ? now == found : legal || op->tags[sector - op->first] == found;
		}
	}
	return legal;
}

static bool size_is_legal(const struct story *s, uint64_t size, unsigned n)
{
	bool legal = size == (uint64_t)s->start_sectors * SECTOR;

	for (unsigned i = 0; i < s->nr_ops && s->ops[i].begin < n; i++)
		if (s->ops[i].kind == RESIZE)
			legal = (s->ops[i].end > n && legal) || size == (uint64_t)s->ops[i].first * SECTOR;
	return legal;
}

/* Each sector is legal; *found keeps what there is. */
static bool content_is_legal(const struct story *s, struct disk *d, unsigned n, tag *found)
{
	uint32_t sectors = (uint32_t)(disk_size(d) / SECTOR);
	bool good = true;

	read_tags(d, 0, sectors, found);
	for (uint32_t i = 0; i < sectors && good; i++)
		if (!is_legal(s, i, found[i], n)) {
			tap_diag("sector %" PRIu32 " of %" PRIu32 " holds %" PRIx64, i, sectors, found[i]);
			good = false;
		}
	return good;
}

/* Nothing is left that would have to be repaired. */
static bool is_clean(struct recorder *cut)
{
	static const struct vhd_options strict;
	json_t *report = NULL, *list;
	bool clean = CHECK_EQ(vhd_check(recorder_container(cut), &strict, false, &report, NULL), 0);

	list = json_object_get(report, "problems");
	if (json_array_size(list)) {
		tap_diag("check: %s", json_string_value(json_object_get(json_array_get(list, 0), "what")));
		clean = false;
	}
	json_decref(report);
	return clean;
}

/* It goes on to work: writes one sector of each block, and finds nothing of others around it, now and when it is opened again. */
static bool works_on(const struct story *s, struct recorder *cut, struct disk *d, tag *content)
{
	uint32_t sectors = (uint32_t)(disk_size(d) / SECTOR);
	static tag again[MAX_SECTORS];
	unsigned char data[SECTOR];
	bool good = true;

	for (uint32_t i = 5; i < sectors; i += 128) {
		content[i] = UINT64_C(0xaf7e000000000000) | i;
		fill_sector(data, content[i]);
		good = good && !disk_write(d, &VEC_FLAT(data, SECTOR), (uint64_t)i * SECTOR, &io_plain);
	}
	good = CHECK_EQ(disk_close(d, NULL), 0) && is_clean(cut) && good;
	d = open_disk(s, cut);
	if (!d)
		return false;
	read_tags(d, 0, sectors, again);
	for (uint32_t i = 0; i < sectors && good; i++)
		if (again[i] != content[i]) {
			tap_diag("later, sector %" PRIu32 " holds %" PRIx64 ", not %" PRIx64, i, again[i], content[i]);
			good = false;
		}
	disk_close(d, NULL);
	return good;
}

static bool check_cut(const struct story *s, struct recorder *cut, unsigned n, bool on)
{
	static tag found[MAX_SECTORS];
	struct disk *d = open_disk(s, cut);
	bool good = d && size_is_legal(s, disk_size(d), n) && content_is_legal(s, d, n, found);

	if (d && !size_is_legal(s, disk_size(d), n))
		tap_diag("its size is %" PRIu64, disk_size(d));
	if (good && on)
		good = works_on(s, cut, d, found);
	else if (d)
		disk_close(d, NULL);
	container_close(recorder_container(cut), false, NULL);
	return good;
}

static bool check_cuts(struct story *s, unsigned n, unsigned seeds)
{
	static const enum unflushed_order orders[] = {UNFLUSHED_ANY, UNFLUSHED_IN_ORDER};

	for (unsigned o = 0; o < 2; o++) {
		uint64_t states = recorder_states(s->r, n, orders[o]);
		if (states <= seeds) {
			for (uint64_t k = 0; k < states; k++)
				if (!CHECK(check_cut(s, recorder_cut_state(s->r, n, orders[o], k), n, !k))) {
					recorder_tell(s->r, n, orders[o], k);
					return false;
				}
			continue;
		}
		for (unsigned seed = 0; seed < seeds; seed++)
			if (!CHECK(check_cut(s, recorder_cut(s->r, n, orders[o], seed * 1000 + n), n, seed % 4 == 0))) {
				recorder_tell(s->r, n, orders[o], seed * 1000 + n);
				return false;
			}
	}
	return true;
}

static void check_story(enum vhd_type type, const char *creator, bool resizes, uint64_t stream)
{
	struct story *s = must(calloc(1, sizeof(*s)));
	unsigned seeds = (getenv("CRASH_LONG") ? 200 : 12) / contract_slowness();
	unsigned step = contract_slowness() > 1 ? 7 : 1; /* under checkers they are here for memory, not for every order */

	*s = (struct story){.type = type, .creator = creator, .resizes = resizes, .random = random_stream(stream)};
	make_image(s);
	live(s);
	for (unsigned n = 0; n <= recorder_calls(s->r); n += step)
		if (!check_cuts(s, n, seeds ? seeds : 1))
			break;
	tap_diag("%u calls were cut", recorder_calls(s->r));
	for (unsigned i = 0; i < s->nr_ops; i++)
		free(s->ops[i].tags);
	container_close(recorder_container(s->r), false, NULL);
	free(s);
}

static void test_dynamic(void)
{
	check_story(VHD_DYNAMIC, NULL, false, 1);
}

static void test_dynamic_by_others(void)
{
	check_story(VHD_DYNAMIC, "test", false, 2);
}

/* There the bitmaps count. */
static void test_dynamic_by_xen(void)
{
	check_story(VHD_DYNAMIC, "tap", false, 8);
}

static void test_differencing(void)
{
	check_story(VHD_DIFFERENCING, NULL, false, 3);
}

static void test_fixed(void)
{
	check_story(VHD_FIXED, NULL, false, 4);
}

static void test_dynamic_that_is_resized(void)
{
	check_story(VHD_DYNAMIC, NULL, true, 5);
}

static void test_differencing_that_is_resized(void)
{
	check_story(VHD_DIFFERENCING, NULL, true, 6);
}

static void test_fixed_that_is_resized(void)
{
	check_story(VHD_FIXED, NULL, true, 7);
}

int main(void)
{
	mallopt(M_TRIM_THRESHOLD, 256 << 20); /* memory of one cut is there for the next */
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	make_base();
	TAP_RUN(test_dynamic);
	TAP_RUN(test_dynamic_by_others);
	TAP_RUN(test_dynamic_by_xen);
	TAP_RUN(test_differencing);
	TAP_RUN(test_fixed);
	TAP_RUN(test_dynamic_that_is_resized);
	TAP_RUN(test_differencing_that_is_resized);
	TAP_RUN(test_fixed_that_is_resized);
	disk_close(base, NULL);
	return TAP_DONE();
}

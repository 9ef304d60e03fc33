/* SPDX-License-Identifier: BSD-3-Clause */
/* The RAM layer: presence of each sector, the shape of its tree, what it costs, what it gives back, races of resize. */
#include <pthread.h>

#include "core/open.h"
#include "core/wait.h"
#include "layers/layer.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"

#define SECTOR 512u
#define PAGE 4096u
#define LEAF (UINT64_C(2) << 20)
#define LARGEST ((UINT64_C(1) << 63) - 512)

static char ones[LEAF + PAGE];
static char zeroes[LEAF + PAGE];

/* ------------------------------------------------------------------ short forms */

static struct layer *make(uint64_t size, bool bottom)
{
	struct layer *l = ram_layer_create(size, SECTOR, 0);

	if (!l)
		abort();
	l->bottom = bottom;
	return l;
}

static void end(struct layer *l)
{
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

static int put(struct layer *l, const void *data, uint64_t offset, uint64_t length)
{
	return l->ops->write(l, &VEC_FLAT(data, length), offset, &io_plain);
}

static int fill(struct layer *l, const void *data, uint64_t offset, uint64_t length)
{
	return l->ops->fill(l, &VEC_FLAT(data, length), offset, &io_plain);
}

static int zero(struct layer *l, uint64_t offset, uint64_t length)
{
	return l->ops->write_zeroes(l, offset, length, false, &io_plain);
}

static int forget(struct layer *l, uint64_t offset, uint64_t length)
{
	return l->ops->discard(l, offset, length, true, &io_plain);
}

static struct layer_run run_at(struct layer *l, uint64_t offset, uint64_t length)
{
	struct layer_run run = {.length = 0};

	CHECK_EQ(l->ops->map(l, offset, length, &run, &io_plain), 0);
	CHECK(run.length > 0 && run.length <= length);
	return run;
}

static void expect_run(struct layer *l, uint64_t offset, uint64_t length, enum presence presence, uint64_t expected)
{
	struct layer_run run = run_at(l, offset, length);

	CHECK_EQ(run.presence, presence);
	CHECK_EQ(run.length, expected);
}

/* The whole range is one run. */
static void expect(struct layer *l, uint64_t offset, uint64_t length, enum presence presence)
{
	expect_run(l, offset, length, presence, length);
}

static struct ram_usage usage(struct layer *l)
{
	struct ram_usage u;

	ram_layer_usage(l, &u);
	return u;
}

static uint64_t process_resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long long size = 0, pages = 0;

	if (!f || fscanf(f, "%llu %llu", &size, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ------------------------------------------------------------------ presence */

static void test_new_layer_is_absent(void)
{
	struct layer *l = make(LARGEST, false);

	expect(l, 0, LARGEST, LAYER_ABSENT);
	expect(l, LARGEST - SECTOR, SECTOR, LAYER_ABSENT);
	CHECK_EQ(usage(l).stored, 0);
	CHECK(usage(l).total < 16384);
	end(l);
}

static void test_each_sector_has_its_own_presence(void)
{
	struct layer *l = make(1 << 20, false);
	char out[PAGE];
	struct layer_run run;

	CHECK_EQ(put(l, ones, 3 * SECTOR, SECTOR), 0);
	CHECK_EQ(zero(l, 5 * SECTOR, SECTOR), 0);
	expect_run(l, 0, PAGE, LAYER_ABSENT, 3 * SECTOR);
	expect_run(l, 3 * SECTOR, PAGE, LAYER_DATA, SECTOR);
	expect_run(l, 4 * SECTOR, PAGE, LAYER_ABSENT, SECTOR);
	expect_run(l, 5 * SECTOR, PAGE, LAYER_ZERO, SECTOR);
	expect_run(l, 6 * SECTOR, 1 << 16, LAYER_ABSENT, 1 << 16);
	memset(out, 7, sizeof(out));
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(out, PAGE), 3 * SECTOR, &run, &io_plain), 0);
	CHECK_EQ(run.length, SECTOR);
	CHECK(!memcmp(out, ones, SECTOR) && out[SECTOR] == 7);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(out + SECTOR, SECTOR), 5 * SECTOR, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ZERO);
	CHECK_EQ(out[SECTOR], 7); /* zero and absent touch nothing */
	end(l);
}

/* Neighbouring pages, leaves, and nothing in between: one run. */
static void test_runs_are_as_long_as_they_can_be(void)
{
	struct layer *l = make(64 * LEAF, false);

	CHECK_EQ(put(l, ones, LEAF - PAGE - SECTOR, LEAF + PAGE), 0);
	expect_run(l, 0, 64 * LEAF, LAYER_ABSENT, LEAF - PAGE - SECTOR);
	expect_run(l, LEAF - PAGE - SECTOR, 8 * LEAF, LAYER_DATA, LEAF + PAGE);
	expect_run(l, 2 * LEAF - SECTOR, 60 * LEAF, LAYER_ABSENT, 60 * LEAF);
	CHECK_EQ(zero(l, 3 * LEAF, 10 * LEAF), 0);
	expect_run(l, 3 * LEAF, 60 * LEAF, LAYER_ZERO, 10 * LEAF);
	end(l);
}

static void test_zeroes_are_seen_in_writes(void)
{
	struct layer *l = make(1 << 20, false);

	CHECK_EQ(put(l, zeroes, 0, 3 * PAGE), 0);
	expect(l, 0, 3 * PAGE, LAYER_ZERO);
	CHECK_EQ(usage(l).stored, 0);
	CHECK_EQ(put(l, ones, 0, PAGE), 0);
	CHECK_EQ(usage(l).stored, PAGE);
	CHECK_EQ(put(l, zeroes, 0, PAGE), 0);
	CHECK_EQ(usage(l).stored, 0);
	expect(l, 0, 3 * PAGE, LAYER_ZERO);
	end(l);
}

/* In the bottom layer zero and absent are one. */
static void test_bottom_records_no_zeroes(void)
{
	struct layer *l = make(LARGEST, true);

	CHECK_EQ(put(l, zeroes, 0, LEAF), 0);
	CHECK_EQ(zero(l, 0, LARGEST), 0);
	expect(l, 0, LARGEST, LAYER_ABSENT);
	CHECK_EQ(put(l, ones, 0, 2 * PAGE), 0);
	CHECK_EQ(put(l, zeroes, 0, PAGE), 0);
	CHECK_EQ(zero(l, PAGE, PAGE), 0);
	expect(l, 0, 1 << 30, LAYER_ABSENT);
	CHECK_EQ(usage(l).stored, 0);
	end(l);
}

/* A page loses its memory with its last sector. */
static void test_page_freed_sector_by_sector(void)
{
	struct layer *l = make(1 << 20, false);

	CHECK_EQ(put(l, ones, PAGE, PAGE), 0);
	for (unsigned i = 0; i < 8; i++) {
		CHECK_EQ(usage(l).stored, PAGE);
		if (i % 2)
			CHECK_EQ(zero(l, PAGE + i * SECTOR, SECTOR), 0);
		else
			CHECK_EQ(forget(l, PAGE + i * SECTOR, SECTOR), 0);
	}
	CHECK_EQ(usage(l).stored, 0);
	for (unsigned i = 0; i < 8; i++)
		expect(l, PAGE + i * SECTOR, SECTOR, i % 2 ? LAYER_ZERO : LAYER_ABSENT);
	end(l);
}

static void test_forgetting_over_zero_background(void)
{
	struct layer *l = make(8 * LEAF, false);

	CHECK_EQ(zero(l, 0, 8 * LEAF), 0);
	CHECK_EQ(put(l, ones, LEAF + SECTOR, SECTOR), 0);
	expect_run(l, LEAF, LEAF, LAYER_ZERO, SECTOR);
	expect_run(l, LEAF + 2 * SECTOR, 8 * LEAF, LAYER_ZERO, 7 * LEAF - 2 * SECTOR);
	CHECK_EQ(forget(l, LEAF, PAGE), 0);
	expect_run(l, LEAF, LEAF, LAYER_ABSENT, PAGE);
	expect_run(l, LEAF + PAGE, LEAF, LAYER_ZERO, LEAF);
	CHECK_EQ(forget(l, 0, 8 * LEAF), 0);
	expect(l, 0, 8 * LEAF, LAYER_ABSENT);
	end(l);
}

/* ------------------------------------------------------------------ fill */

static void test_fill_keeps_what_is_there(void)
{
	struct layer *l = make(1 << 20, false);
	char out[PAGE], data[PAGE];
	struct layer_run run;

	memset(data, 'd', sizeof(data));
	CHECK_EQ(put(l, ones, 2 * SECTOR, SECTOR), 0);
	CHECK_EQ(zero(l, 4 * SECTOR, SECTOR), 0);
	CHECK_EQ(fill(l, data, 0, PAGE), 0);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(out, PAGE), 0, &run, &io_plain), 0);
	CHECK_EQ(run.length, 4 * SECTOR);
	CHECK(!memcmp(out, data, 2 * SECTOR) && !memcmp(out + 2 * SECTOR, ones, SECTOR) && out[3 * SECTOR] == 'd');
	expect(l, 4 * SECTOR, SECTOR, LAYER_ZERO);
	expect(l, 5 * SECTOR, 3 * SECTOR, LAYER_DATA);
	CHECK_EQ(fill(l, ones, 0, PAGE), 0);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(out, PAGE), 0, &run, &io_plain), 0);
	CHECK(out[0] == 'd');
	end(l);
}

static void test_fill_with_zeroes(void)
{
	struct layer *l = make(4 * LEAF, false);

	CHECK_EQ(fill(l, zeroes, LEAF - SECTOR, 2 * SECTOR), 0);
	expect_run(l, LEAF - SECTOR, LEAF, LAYER_ZERO, 2 * SECTOR);
	CHECK_EQ(usage(l).stored, 0);
	CHECK_EQ(fill(l, ones, LEAF - SECTOR, 2 * SECTOR), 0);
	expect_run(l, LEAF - SECTOR, LEAF, LAYER_ZERO, 2 * SECTOR);
	end(l);
}

#define DUEL_PAGES 64u

struct duel {
	struct layer *layer;
	_Atomic unsigned next_page;
	bool writes;
};

/* A filler offers 'f' for all pages over and over, while a writer goes through them once. */
static void *duel_thread(void *argument)
{
	struct duel *d = argument;
	char data[PAGE];

	memset(data, 'f', sizeof(data));
	do
		for (unsigned page = 0; page < DUEL_PAGES; page++)
			CHECK_EQ(fill(d->layer, data, (uint64_t)page * PAGE, PAGE), 0);
	while (atomic_load(&d->next_page) < DUEL_PAGES);
	return NULL;
}

static void check_duel(unsigned round)
{
	struct duel d = {.layer = make(1 << 20, false)};
	pthread_t threads[2];
	char data[PAGE], out[PAGE];
	struct layer_run run;

	memset(data, 'w', sizeof(data));
	for (unsigned i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, duel_thread, &d))
			abort();
	for (unsigned page = 0; page < DUEL_PAGES; page++) {
		uint64_t at = (uint64_t)page * PAGE + round % 8 * SECTOR;
		CHECK_EQ(put(d.layer, data, at, SECTOR), 0);
		atomic_store(&d.next_page, page + 1);
		if (page % 16 == 0)
			wait_yield();
		CHECK_EQ(d.layer->ops->read(d.layer, &VEC_FLAT(out, SECTOR), at, &run, &io_plain), 0);
		CHECK(out[0] == 'w' && out[SECTOR - 1] == 'w');
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (unsigned page = 0; page < DUEL_PAGES; page++) {
		CHECK_EQ(d.layer->ops->read(d.layer, &VEC_FLAT(out, PAGE), (uint64_t)page * PAGE, &run, &io_plain), 0);
		CHECK_EQ(run.length, PAGE);
		for (unsigned s = 0; s < 8; s++)
			CHECK_EQ(out[s * SECTOR], s == round % 8 ? 'w' : 'f');
	}
	end(d.layer);
}

static void test_fill_beside_writes(void)
{
	for (unsigned round = 0; round < 40 / contract_slowness(); round++)
		check_duel(round);
}

/* ------------------------------------------------------------------ the tree */

static const uint64_t levels[] = {
	1, 62, 63, 64, 65, 127, 128, 4094, 4095, 4096, 4097, 262143, 262144, 262145, 16777215, 16777216,
	UINT64_C(1073741823), UINT64_C(1073741824), UINT64_C(68719476735), UINT64_C(68719476736),
	UINT64_C(4398046511102), UINT64_C(4398046511103),
};

#define NR_LEVELS (sizeof(levels) / sizeof(*levels))

/* Two pages across each boundary between leaf and level, all there at once. */
static void test_boundaries_between_levels(void)
{
	struct layer *l = make(LARGEST, false);
	char data[2 * SECTOR], out[2 * SECTOR];
	struct layer_run run;

	for (size_t i = 0; i < NR_LEVELS; i++) {
		memset(data, (int)i + 1, sizeof(data));
		CHECK_EQ(put(l, data, levels[i] * LEAF - SECTOR, 2 * SECTOR), 0);
	}
	for (size_t i = 0; i < NR_LEVELS; i++) {
		uint64_t at = levels[i] * LEAF - SECTOR;
		expect_run(l, at - SECTOR, 4 * SECTOR, LAYER_ABSENT, SECTOR);
		CHECK_EQ(l->ops->read(l, &VEC_FLAT(out, sizeof(out)), at, &run, &io_plain), 0);
		CHECK_EQ(run.presence, LAYER_DATA);
		CHECK_EQ(run.length, 2 * SECTOR);
		CHECK(out[0] == (char)(i + 1) && out[2 * SECTOR - 1] == (char)(i + 1));
		expect_run(l, at + 2 * SECTOR, 2 * SECTOR, LAYER_ABSENT, 2 * SECTOR);
	}
	CHECK_EQ(usage(l).stored, 2 * NR_LEVELS * PAGE);
	end(l);
}

/* From the beginning to the end: as many runs as there are. */
static void test_runs_across_levels(void)
{
	struct layer *l = make(LARGEST, false);
	uint64_t at = 0;

	for (size_t i = 0; i < NR_LEVELS; i++)
		CHECK_EQ(put(l, ones, levels[i] * LEAF - SECTOR, 2 * SECTOR), 0);
	for (size_t i = 0; i < NR_LEVELS; i++) {
		expect_run(l, at, LARGEST - at, LAYER_ABSENT, levels[i] * LEAF - SECTOR - at);
		at = levels[i] * LEAF - SECTOR;
		expect_run(l, at, LARGEST - at, LAYER_DATA, 2 * SECTOR);
		at += 2 * SECTOR;
	}
	expect(l, at, LARGEST - at, LAYER_ABSENT);
	end(l);
}

/* Ranges that begin or end at, before and after each boundary; what is beside them stays. */
static void check_clear(uint64_t begin, uint64_t length, bool to_zero)
{
	struct layer *l = make(LARGEST, false);
	enum presence cleared = to_zero ? LAYER_ZERO : LAYER_ABSENT;
	uint64_t stop = begin + length;

	CHECK_EQ(put(l, ones, begin - SECTOR, SECTOR), 0);
	CHECK_EQ(put(l, ones, begin, SECTOR), 0);
	CHECK_EQ(put(l, ones, begin + length / 2 / SECTOR * SECTOR, SECTOR), 0);
	CHECK_EQ(put(l, ones, stop - SECTOR, SECTOR), 0);
	if (stop < LARGEST)
		CHECK_EQ(put(l, ones, stop, SECTOR), 0);
	CHECK_EQ(to_zero ? zero(l, begin, length) : forget(l, begin, length), 0);
	expect(l, begin - SECTOR, SECTOR, LAYER_DATA);
	expect_run(l, begin, LARGEST - begin, cleared, length);
	if (stop < LARGEST)
		expect(l, stop, SECTOR, LAYER_DATA);
	CHECK(usage(l).total < (1 << 20));
	end(l);
}

static void test_clear_at_boundaries(void)
{
	for (size_t i = 0; i < NR_LEVELS; i++)
		for (size_t j = i; j < NR_LEVELS; j++) {
			uint64_t begin = levels[i] * LEAF, stop = levels[j] * LEAF;
			for (unsigned variant = 0; variant < 8; variant++) {
				uint64_t from = begin - (variant & 1 ? SECTOR : 0);
				uint64_t to = stop + (variant & 2 ? SECTOR : 0);
				if (to > from)
					check_clear(from, to - from, variant & 4);
			}
		}
	check_clear(SECTOR, LARGEST - SECTOR, true);
	check_clear(SECTOR, LARGEST - SECTOR, false);
}

/* The layer and a flat array, over a few leaves, with all that a layer can be asked. */
static void check_random(struct layer *l, unsigned char *truth, uint64_t sectors, struct random *r)
{
	uint64_t from = random_below(r, sectors), n = random_below(r, random_once_in(r, 4) ? sectors : 40) + 1;
	enum presence presence = random_below(r, 3);
	bool filling = random_once_in(r, 4);

	if (n > sectors - from)
		n = sectors - from;
	if (n > sizeof(ones) / SECTOR && presence == LAYER_DATA)
		n = sizeof(ones) / SECTOR;
	if (presence == LAYER_DATA)
		CHECK_EQ(filling ? fill(l, ones, from * SECTOR, n * SECTOR) : put(l, ones, from * SECTOR, n * SECTOR), 0);
	else
		CHECK_EQ(presence == LAYER_ZERO ? zero(l, from * SECTOR, n * SECTOR)
						: forget(l, from * SECTOR, n * SECTOR), 0);
	for (uint64_t i = from; i < from + n; i++)
		if (!filling || presence != LAYER_DATA || truth[i] == LAYER_ABSENT)
			truth[i] = (unsigned char)presence;
}

static void check_truth(struct layer *l, const unsigned char *truth, uint64_t sectors)
{
	for (uint64_t at = 0; at < sectors;) {
		struct layer_run run = run_at(l, at * SECTOR, (sectors - at) * SECTOR);
		uint64_t stop = at + run.length / SECTOR;
		CHECK(stop == sectors || truth[stop] != truth[at]); /* as long as it can be */
		while (at < stop)
			if (!CHECK_EQ(truth[at++], run.presence))
				return;
	}
}

static void test_random_presence(void)
{
	enum { SECTORS = 3 * 4096 + 77 }; /* 3 leaves and a bit */
	struct layer *l = make(SECTORS * SECTOR, false);
	unsigned char *truth = calloc(1, SECTORS);
	struct random r = random_stream(1);

	REQUIRE(truth != NULL);
	for (unsigned i = 0; i < 2000 / contract_slowness() && !tap_errors; i++) {
		uint64_t window = random_once_in(&r, 3) ? SECTORS : 64; /* much to and fro in a few pages */
		check_random(l, truth, window, &r);
		if (random_once_in(&r, 8))
			check_truth(l, truth, SECTORS);
	}
	check_truth(l, truth, SECTORS);
	CHECK_EQ(forget(l, 0, SECTORS * SECTOR), 0);
	CHECK_EQ(usage(l).stored, 0);
	free(truth);
	end(l);
}

/* ------------------------------------------------------------------ what it costs */

/* Some pages beyond a hundredth: each allocator begins with something. */
static void check_price(struct layer *l, uint64_t before, uint64_t pages)
{
	struct ram_usage u = usage(l);
	uint64_t now = process_resident();

	CHECK_EQ(u.stored, pages * PAGE);
	if (!CHECK(u.total <= u.stored + u.stored / 100 + (64 << 10)))
		tap_diag("%llu bytes for %llu", (unsigned long long)u.total, (unsigned long long)u.stored);
	if (contract_slowness() > 1)
		return;
	if (!CHECK(now - before <= u.stored + u.stored / 100 + (1 << 20)))
		tap_diag("resident %llu for %llu", (unsigned long long)(now - before), (unsigned long long)u.stored);
	CHECK(now - before + (1 << 20) >= u.total * 98 / 100); /* it does not say more than it takes */
}

static void test_price_of_sequential_fill(void)
{
	uint64_t size = (512 << 20) / contract_slowness() / LEAF * LEAF, before = process_resident();
	struct layer *l = make(1 << 30, true);

	for (uint64_t at = 0; at < size; at += LEAF)
		CHECK_EQ(put(l, ones, at, LEAF), 0);
	check_price(l, before, size / PAGE);
	end(l);
}

/* `percent` of the first `size` bytes of 1 GiB in pages, each once, in a random order. */
static void check_price_at_random(uint64_t size, unsigned percent)
{
	uint64_t pages = size / PAGE / (contract_slowness() > 1 ? 8 : 1), filled = pages * percent / 100;
	uint64_t before = process_resident();
	struct layer *l = make(1 << 30, true);
	struct random r = random_stream(percent);

	for (uint64_t i = 0; i < filled;) {
		uint64_t at = random_below(&r, pages) * PAGE;
		if (run_at(l, at, PAGE).presence == LAYER_DATA)
			continue;
		CHECK_EQ(put(l, ones, at, PAGE), 0);
		i++;
	}
	check_price(l, before, filled);
	CHECK_EQ(forget(l, 0, 1 << 30), 0);
	CHECK_EQ(usage(l).stored, 0);
	CHECK(usage(l).total < (4 << 20));
	if (contract_slowness() == 1)
		CHECK(process_resident() <= before + (8 << 20));
	end(l);
}

static void test_price_of_random_fill(void)
{
	check_price_at_random(256 << 20, 25);
	check_price_at_random(1 << 30, 5);
	check_price_at_random(1 << 30, 1);
}

/* Writing and discarding the same over and over does not grow. */
static void test_memory_does_not_creep(void)
{
	struct layer *l = make(64 * LEAF, false);
	uint64_t before = 0;

	for (unsigned i = 0; i < 50; i++) {
		uint64_t at = i % 7 * LEAF + i * SECTOR;
		CHECK_EQ(put(l, ones, at, LEAF), 0);
		CHECK_EQ(i % 2 ? zero(l, 0, 64 * LEAF) : forget(l, 0, 64 * LEAF), 0);
		CHECK_EQ(usage(l).stored, 0);
		if (i == 10)
			before = usage(l).total;
	}
	CHECK(usage(l).total <= before + (8 * 128 + 8) * PAGE);
	end(l);
}

/* ------------------------------------------------------------------ huge disks */

static void check_huge(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;
	CLEANUP_EXTENTS struct extents e;
	uint64_t size;
	char out[SECTOR];

	REQUIRE(disk_open(spec, 0, &d, &err) == 0);
	size = disk_size(d);
	CHECK_EQ(disk_write(d, &VEC_FLAT(ones, SECTOR), size - SECTOR, &io_plain), 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(ones, SECTOR), size / 3 / SECTOR * SECTOR, &io_plain), 0);
	extents_init(&e, 0, size, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 4);
	CHECK_EQ(disk_write_zeroes(d, 0, size, &io_plain), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(out, SECTOR), size - SECTOR, &io_plain), 0);
	CHECK(memory_is_zero(out, SECTOR));
	CHECK_EQ(disk_discard(d, 0, size, &io_plain), 0);
	CHECK_EQ(disk_discard(d, SECTOR, size - 2 * SECTOR, &io_plain), 0);
	extents_free(&e);
	extents_init(&e, 0, size, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].flags, EXTENT_ZERO | EXTENT_HOLE);
	CHECK_EQ(disk_resize(d, SECTOR, &io_plain), 0);
	CHECK_EQ(disk_resize(d, LARGEST, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_huge(void)
{
	check_huge("mem:9223372036854775296");
	check_huge("mem:8191P");
	check_huge("memdiff:mem:8191P");
	check_huge("memdiff:null:9223372036854775296");
}

static void test_thousand_huge_disks_at_once(void)
{
	static struct disk *disks[1000];

	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(disk_open("mem:8191P", 0, &disks[i], NULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(disk_close(disks[i], NULL), 0);
}

/* ------------------------------------------------------------------ size */

static void test_past_the_end(void)
{
	struct layer *l = make(4 * LEAF, false);
	struct failure failure = {0};
	struct io io = {.failure = &failure};

	CHECK_EQ(put(l, ones, 4 * LEAF - SECTOR, 2 * SECTOR), -ERANGE);
	CHECK_EQ(l->ops->write(l, &VEC_FLAT(ones, SECTOR), 4 * LEAF, &io), -ERANGE);
	CHECK(strstr(failure.text, "8388608 bytes") != NULL);
	CHECK_EQ(fill(l, ones, 4 * LEAF, SECTOR), -ERANGE);
	CHECK_EQ(put(l, ones, 4 * LEAF - SECTOR, SECTOR), 0);
	end(l);
}

static void test_what_is_cut_off_is_forgotten(void)
{
	struct layer *l = make(8 * LEAF, false);

	CHECK_EQ(put(l, ones, LEAF, LEAF), 0);
	CHECK_EQ(zero(l, 2 * LEAF, LEAF), 0);
	CHECK_EQ(l->ops->resize(l, LEAF + 5 * SECTOR, &io_plain), 0);
	CHECK_EQ(l->ops->size(l), LEAF + 5 * SECTOR);
	CHECK_EQ(usage(l).stored, PAGE);
	CHECK_EQ(l->ops->resize(l, 8 * LEAF, &io_plain), 0);
	expect_run(l, LEAF, 7 * LEAF, LAYER_DATA, 5 * SECTOR);
	expect(l, LEAF + 5 * SECTOR, 7 * LEAF - 5 * SECTOR, LAYER_ABSENT);
	end(l);
}

#define RACE_SIZE (4 * LEAF)

struct race {
	struct layer *layer;
	_Atomic bool stop;
	_Atomic unsigned next;
};

static void *write_in_race(void *argument)
{
	struct race *z = argument;
	struct random r = random_stream(20 + atomic_fetch_add(&z->next, 1));

	while (!atomic_load(&z->stop)) {
		uint64_t at = random_below(&r, RACE_SIZE / SECTOR) * SECTOR;
		uint64_t n = (random_below(&r, 64) + 1) * SECTOR;
		int status = n > RACE_SIZE - at ? 0 : random_once_in(&r, 5) ? zero(z->layer, at, n)
									     : put(z->layer, ones, at, n);
		if (status)
			CHECK_EQ(status, -ERANGE);
	}
	return NULL;
}

/*
 * While writers go on at the old size, the layer is cut, and looked at right after: what is beyond the end may not hold data,
 * nor get any later.
 */
static void test_resize_beside_writers(void)
{
	struct race z = {.layer = make(RACE_SIZE, false)};
	struct random r = random_stream(19);
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, write_in_race, &z))
			abort();
	for (unsigned i = 0; i < 400 / contract_slowness(); i++) {
		uint64_t size = (random_below(&r, RACE_SIZE / SECTOR) + 1) * SECTOR;
		CHECK_EQ(z.layer->ops->resize(z.layer, size, &io_plain), 0);
		for (unsigned look = 0; look < 2; look++) {
			for (uint64_t at = size; at < RACE_SIZE;) {
				struct layer_run run = run_at(z.layer, at, RACE_SIZE - at);
				CHECK(run.presence != LAYER_DATA);
				at += run.length;
			}
			wait_yield();
		}
		CHECK_EQ(z.layer->ops->resize(z.layer, RACE_SIZE, &io_plain), 0);
		wait_sleep(20000);
	}
	atomic_store(&z.stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(z.layer->ops->resize(z.layer, SECTOR, &io_plain), 0);
	CHECK(usage(z.layer).stored <= PAGE);
	end(z.layer);
}

/* ------------------------------------------------------------------ geometry */

static void test_blocks_larger_than_pages(void)
{
	struct layer *l = ram_layer_create(16 << 20, 65536, 0);

	REQUIRE(l != NULL);
	CHECK_EQ(l->info.block_size, 65536);
	CHECK_EQ(l->info.physical_block_size, 65536);
	CHECK_EQ(l->info.discard_granularity, 65536);
	CHECK_EQ(put(l, ones, 65536, 65536), 0);
	expect(l, 65536, 65536, LAYER_DATA);
	expect(l, 0, 65536, LAYER_ABSENT);
	end(l);
	l = ram_layer_create(1 << 20, 512, 4096);
	REQUIRE(l != NULL);
	CHECK_EQ(l->info.physical_block_size, 4096);
	end(l);
}

int main(void)
{
	memset(ones, 1, sizeof(ones));
	TAP_RUN(test_new_layer_is_absent);
	TAP_RUN(test_each_sector_has_its_own_presence);
	TAP_RUN(test_runs_are_as_long_as_they_can_be);
	TAP_RUN(test_zeroes_are_seen_in_writes);
	TAP_RUN(test_bottom_records_no_zeroes);
	TAP_RUN(test_page_freed_sector_by_sector);
	TAP_RUN(test_forgetting_over_zero_background);
	TAP_RUN(test_fill_keeps_what_is_there);
	TAP_RUN(test_fill_with_zeroes);
	TAP_RUN(test_fill_beside_writes);
	TAP_RUN(test_boundaries_between_levels);
	TAP_RUN(test_runs_across_levels);
	TAP_RUN(test_clear_at_boundaries);
	TAP_RUN(test_random_presence);
	TAP_RUN(test_price_of_sequential_fill);
	TAP_RUN(test_price_of_random_fill);
	TAP_RUN(test_memory_does_not_creep);
	TAP_RUN(test_huge);
	TAP_RUN(test_thousand_huge_disks_at_once);
	TAP_RUN(test_past_the_end);
	TAP_RUN(test_what_is_cut_off_is_forgotten);
	TAP_RUN(test_resize_beside_writers);
	TAP_RUN(test_blocks_larger_than_pages);
	return TAP_DONE();
}

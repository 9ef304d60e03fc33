/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The power goes at any moment: after each call that changed the file, with any legal part of what was not flushed, what opens
 * again holds what was promised, and old or new content where nothing was.
 *
 * CRASH_CUTS in the environment is how many cuts are tried (2,000; fewer under checkers); SEED makes a run the same as an earlier one.
 */
#include "tests/vhdx-lab.h"

#include <inttypes.h>

#include "core/open.h"
#include "tests/contract.h"

#define MIB (UINT64_C(1) << 20)
#define MOST_STEPS 400u

/* ------------------------------------------------------------------ what is promised */

/*
 * Every write is of whole sectors of one tag, so the content of a sector is one number. The history of each sector is kept as the
 * list of the steps that changed it.
 */
struct step {
	uint64_t sector, count;
	uint32_t tag;        /* what it wrote; 0: zeroes */
	unsigned answered;   /* recorder's calls when it was answered */
	unsigned begun;      /* ... when it began */
};

struct promise { /* a flush that was answered */
	unsigned answered;
	unsigned steps; /* that were answered before it began */
};

struct history {
	struct step steps[MOST_STEPS];
	unsigned nr_steps;
	struct promise promises[MOST_STEPS];
	unsigned nr_promises;
};

/* ------------------------------------------------------------------ a workload */

struct workload {
	const char *name;
	struct vhdx_create_options options;
	bool over; /* something else, which shows through */
	unsigned steps;
	unsigned flush_every;
};

struct run {
	const struct workload *w;
	struct recorder *r;
	struct disk *d;
	struct history h;
	uint32_t sector;
	struct random random;
};

static uint32_t base_tag(uint64_t sector)
{
	return 0x80000000u | (uint32_t)sector;
}

static void fill(uint8_t *p, uint32_t sector, uint32_t tag)
{
	for (uint32_t i = 0; i + 4 <= sector; i += 4)
		memcpy(p + i, &tag, 4);
}

/* A disk of the same size whose sectors are told apart. */
static struct disk *make_base(uint64_t size, uint32_t sector)
{
	char spec[80];
	struct disk *d;
	uint8_t *data = malloc(size);

	snprintf(spec, sizeof(spec), "mem:%" PRIu64 ";block=%" PRIu32, size, sector);
	if (!data || disk_open(spec, 0, &d, NULL)) {
		printf("Bail out! no base\n");
		exit(99);
	}
	for (uint64_t s = 0; s < size / sector; s++)
		fill(data + s * sector, sector, base_tag(s));
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, size), 0, &io_plain), 0);
	free(data);
	return d;
}

static struct disk *open_disk(const struct workload *w, struct container *c, const char *what)
{
	uint32_t sector = w->options.logical_sector ? w->options.logical_sector : 512;

	return w->over ? lab_open_over(c, make_base(w->options.size, sector), what) : lab_open(c, what);
}

static void note_promise(struct run *t, unsigned steps)
{
	t->h.promises[t->h.nr_promises++] = (struct promise){recorder_calls(t->r), steps};
}

/* Clustered, so that blocks are written to again, freed and taken by others. */
static void choose_range(struct run *t, struct step *s)
{
	uint64_t sectors = t->w->options.size / t->sector, block = MIB / t->sector;

	s->count = random_once_in(&t->random, 6) ? block : 1 + random_below(&t->random, 24);
	s->sector = random_below(&t->random, sectors / block) * block;
	if (s->count != block)
		s->sector += random_below(&t->random, 4) * (block / 4) + random_below(&t->random, 16);
	if (s->sector + s->count > sectors)
		s->sector = sectors - s->count;
}

static int do_write(struct run *t, const struct step *s, unsigned flags)
{
	uint8_t *data = malloc(s->count * t->sector);
	int status;

	fill(data, (uint32_t)(s->count * t->sector), s->tag);
	status = disk_write(t->d, &VEC_FLAT(data, s->count * t->sector), s->sector * t->sector, &(struct io){.flags = flags});
	free(data);
	return status;
}

static void do_step(struct run *t, unsigned number)
{
	struct step s = {.tag = number + 1, .begun = recorder_calls(t->r)};
	unsigned flags = random_once_in(&t->random, 12) ? IO_FUA : 0;
	uint64_t what = random_below(&t->random, 8);

	choose_range(t, &s);
	if (what < 2) {
		s.tag = 0;
		if (random_once_in(&t->random, 2)) {
			s.sector -= s.sector % (MIB / t->sector);
			s.count = MIB / t->sector;
		}
		flags |= IO_MAY_UNMAP;
		CHECK_EQ(disk_write_zeroes(t->d, s.sector * t->sector, s.count * t->sector, &(struct io){.flags = flags}), 0);
	} else {
		CHECK_EQ(do_write(t, &s, flags), 0);
	}
	s.answered = recorder_calls(t->r);
	t->h.steps[t->h.nr_steps++] = s;
}

static void do_work(struct run *t)
{
	for (unsigned i = 0; i < t->w->steps; i++) {
		do_step(t, i);
		if (random_once_in(&t->random, t->w->flush_every)) {
			unsigned steps = t->h.nr_steps;
			CHECK_EQ(disk_flush(t->d, &io_plain), 0);
			note_promise(t, steps);
		}
	}
}

/* ------------------------------------------------------------------ judging what is there after a cut */

static uint32_t original_tag(const struct run *t, uint64_t sector)
{
	return t->w->over ? base_tag(sector) : 0;
}

/* Steps before this one are promised to be there when the power goes after call n. */
static unsigned promised_steps(const struct history *h, unsigned n)
{
	unsigned steps = 0;

	for (unsigned i = 0; i < h->nr_promises; i++)
		if (h->promises[i].answered <= n)
			steps = h->promises[i].steps;
	return steps;
}

/* May the sector hold the tag? What was promised last, or anything that was begun later. */
static bool may_hold(const struct run *t, uint64_t sector, uint32_t tag, unsigned n, unsigned promised)
{
	uint32_t last = original_tag(t, sector);

	for (unsigned i = 0; i < t->h.nr_steps; i++) {
		const struct step *s = &t->h.steps[i];
		if (sector < s->sector || sector >= s->sector + s->count)
			continue;
		if (i < promised)
			last = s->tag;
		else if (s->begun <= n && s->tag == tag)
			return true;
	}
	return tag == last;
}

static bool judge(const struct run *t, struct disk *d, unsigned n)
{
	unsigned promised = promised_steps(&t->h, n), bad = 0;
	uint64_t size = t->w->options.size;
	uint8_t *data = malloc(size);

	if (!CHECK_EQ(disk_read(d, &VEC_FLAT(data, size), 0, &io_plain), 0))
		bad = 1;
	for (uint64_t s = 0; s < size / t->sector && bad < 3; s++) {
		uint32_t first, word;
		memcpy(&first, data + s * t->sector, 4);
		for (uint32_t i = 4; i < t->sector && bad < 3; i += 4) {
			memcpy(&word, data + s * t->sector + i, 4);
			if (word != first && t->sector == 512) {
				tap_diag("sector %" PRIu64 " is torn", s);
				bad++;
			}
		}
		if (may_hold(t, s, first, n, promised))
			continue;
		tap_diag("sector %" PRIu64 " holds %#" PRIx32 ", promised were %u of %u steps", s, first, promised, t->h.nr_steps);
		bad++;
	}
	free(data);
	return !bad;
}

/* Opens what a cut left, for reading, then for writing, and looks at it; writes to it; opens it once more. */
static bool try_cut(struct run *t, unsigned n, enum unflushed_order order, uint64_t seed)
{
	static char again[4096];
	struct recorder *left = recorder_cut(t->r, n, order, seed);
	struct disk *d;
	bool good;

	recorder_set_read_only(left, seed % 2);
	d = open_disk(t->w, recorder_container(left), "after the cut");
	good = d && judge(t, d, n);
	if (good && !(seed % 2))
		good = CHECK_EQ(disk_write(d, &VEC_FLAT(again, sizeof(again)), 0, &io_plain), 0) && CHECK_EQ(disk_flush(d, &io_plain), 0);
	if (d)
		CHECK_EQ(disk_close(d, NULL), 0);
	if (!good) {
		CHECK(!"what was left is good");
		recorder_tell(t->r, n, order, seed);
	}
	return good;
}

static unsigned cuts_wanted(void)
{
	const char *text = getenv("CRASH_CUTS");

	return text ? (unsigned)atoi(text) : contract_slowness() > 1 ? 400 / contract_slowness() : 2000;
}

static void crash(const struct workload *w, unsigned share)
{
	struct run *t = calloc(1, sizeof(*t));
	unsigned calls;

	t->w = w;
	t->sector = w->options.logical_sector ? w->options.logical_sector : 512;
	t->random = random_stream(w->steps);
	t->r = lab_create(&w->options);
	t->d = open_disk(w, recorder_container(t->r), w->name);
	if (CHECK(t->d != NULL)) {
		do_work(t);
		calls = recorder_calls(t->r);
		for (unsigned i = 0; i < cuts_wanted() / share; i++) {
			unsigned n = (unsigned)random_below(&t->random, calls + 1);
			enum unflushed_order order = random_once_in(&t->random, 4) ? UNFLUSHED_IN_ORDER : UNFLUSHED_ANY;
			if (!try_cut(t, n, order, random_next(&t->random)))
				break;
		}
		CHECK_EQ(disk_close(t->d, NULL), 0);
	}
	free(t);
}

/* ------------------------------------------------------------------ */

static void test_dynamic(void)
{
	static const struct workload w = {.name = "dynamic",
					  .options = {.size = 24 * MIB, .block_size = MIB},
					  .steps = 120,
					  .flush_every = 5};
	crash(&w, 4);
}

static void test_often_flushed(void)
{
	static const struct workload w = {.name = "often flushed",
					  .options = {.size = 16 * MIB + 512 * 7, .block_size = MIB},
					  .steps = 350,
					  .flush_every = 1};
	crash(&w, 4);
}

static void test_large_sectors(void)
{
	static const struct workload w = {.name = "4 KiB sectors",
					  .options = {.size = 24 * MIB, .block_size = 2 * MIB, .logical_sector = 4096},
					  .steps = 100,
					  .flush_every = 4};
	crash(&w, 8);
}

static void test_differencing(void)
{
	static const struct workload w = {.name = "differencing",
					  .options = {.size = 16 * MIB,
						      .block_size = MIB,
						      .has_parent = true,
						      .parent_relative = ".\\base.vhdx"},
					  .over = true,
					  .steps = 120,
					  .flush_every = 5};
	crash(&w, 4);
}

static void test_differencing_large_sectors(void)
{
	static const struct workload w = {.name = "differencing, 4 KiB sectors",
					  .options = {.size = 20 * MIB,
						      .block_size = 2 * MIB,
						      .logical_sector = 4096,
						      .has_parent = true,
						      .parent_relative = ".\\base.vhdx"},
					  .over = true,
					  .steps = 150,
					  .flush_every = 3};
	crash(&w, 8);
}

/* ------------------------------------------------------------------ a log that is full */

/*
 * Entries of such sizes that the log is full while the entry that a replay begins with stands where the next one has to go. Each block
 * has its entry in another page of the table.
 */
static const unsigned groups[] = {57, 65, 65, 65, 65, 30};
#define NR_GROUPS (sizeof(groups) / sizeof(*groups))

static void write_block(struct disk *d, unsigned n)
{
	uint8_t data[512];

	fill(data, sizeof(data), n + 1);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, sizeof(data)), n * 512 * MIB, &io_plain), 0);
}

/* The first `promised` blocks hold what was written, of the others each that or nothing. */
static bool judge_blocks(struct disk *d, unsigned promised, unsigned count)
{
	uint8_t data[512];
	uint32_t tag;

	for (unsigned n = 0; n < count; n++) {
		if (!CHECK_EQ(disk_read(d, &VEC_FLAT(data, sizeof(data)), n * 512 * MIB, &io_plain), 0))
			return false;
		memcpy(&tag, data, 4);
		if (tag == n + 1 || (!tag && n >= promised))
			continue;
		tap_diag("block %u holds %#" PRIx32 ", %u blocks were promised", n, tag, promised);
		return false;
	}
	return true;
}

static void test_a_full_log(void)
{
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = UINT64_C(180) << 30, .block_size = MIB});
	struct disk *d = lab_open(recorder_container(r), "full log"), *left;
	unsigned calls[NR_GROUPS], blocks[NR_GROUPS], count = 0, step = contract_slowness();

	REQUIRE(d != NULL);
	for (unsigned g = 0; g < NR_GROUPS; g++) {
		for (unsigned i = 0; i < groups[g]; i++)
			write_block(d, count++);
		CHECK_EQ(disk_flush(d, &io_plain), 0);
		calls[g] = recorder_calls(r);
		blocks[g] = count;
	}
	for (unsigned n = 0; n <= recorder_calls(r); n += step) {
		enum unflushed_order order = n % 3 ? UNFLUSHED_ANY : UNFLUSHED_IN_ORDER;
		struct recorder *cut = recorder_cut(r, n, order, n);
		unsigned promised = 0;
		for (unsigned g = 0; g < NR_GROUPS; g++)
			promised = calls[g] <= n ? blocks[g] : promised;
		recorder_set_read_only(cut, true);
		left = lab_open(recorder_container(cut), "after the cut");
		if (!CHECK(left && judge_blocks(left, promised, count))) {
			recorder_tell(r, n, order, n);
			break;
		}
		CHECK_EQ(disk_close(left, NULL), 0);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

int main(void)
{
	TAP_RUN(test_a_full_log);
	TAP_RUN(test_dynamic);
	TAP_RUN(test_often_flushed);
	TAP_RUN(test_large_sectors);
	TAP_RUN(test_differencing);
	TAP_RUN(test_differencing_large_sectors);
	return TAP_DONE();
}

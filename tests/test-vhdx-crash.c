/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The power goes at any moment: after each call that changed the file, with any legal part of what was not flushed, what opens
 * again holds what was promised, and old or new content where nothing was.
 *
 * In the environment: CRASH_CUTS, how many cuts are tried (1,200; fewer under checkers); CRASH_REFEREE, every how many of them qemu-img has to
 * agree (50; 1 all); SEED makes a run the same as an earlier one.
 */
#include "tests/vhdx-cuts.h"

#define MOST_STEPS 400u
#define REFEREE_EVERY 50u

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
	bool failed;         /* of each sector it may have been done or not */
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
	unsigned *touching; /* the steps that changed each sector, those of sector s from touching[first[s]] to touching[first[s + 1]] */
	unsigned *first;
};

/* ------------------------------------------------------------------ a workload */

struct workload {
	const char *name;
	struct vhdx_create_options options;
	bool over;  /* something else, which shows through */
	bool fails; /* now and then the file system is full */
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
	unsigned cuts;
};

static struct disk *open_disk(const struct workload *w, struct container *c, const char *what)
{
	uint32_t sector = w->options.logical_sector ? w->options.logical_sector : 512;

	return w->over ? lab_open_over(c, base_create(w->options.size, sector), what) : lab_open(c, what);
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

	tag_fill(data, (uint32_t)(s->count * t->sector), s->tag);
	status = disk_write(t->d, &VEC_FLAT(data, s->count * t->sector), s->sector * t->sector, &(struct io){.flags = flags});
	free(data);
	return status;
}

/* One of the calls that the next request makes finds no space. */
static void fill_up(struct run *t)
{
	unsigned kinds = 1u << RECORDER_WRITE | 1u << RECORDER_RESIZE | 1u << RECORDER_ZERO;

	recorder_fail(t->r, kinds, t->w->fails && random_once_in(&t->random, 8) ? 1 + (unsigned)random_below(&t->random, 4) : 0, -ENOSPC);
}

static void do_step(struct run *t, unsigned number)
{
	int status;
	struct step s = {.tag = number + 1, .begun = recorder_calls(t->r)};
	unsigned flags = random_once_in(&t->random, 12) ? IO_FUA : 0;
	uint64_t what = random_below(&t->random, 8);

	choose_range(t, &s);
	fill_up(t);
	if (what < 2) {
		s.tag = 0;
		if (random_once_in(&t->random, 2)) {
			s.sector -= s.sector % (MIB / t->sector);
			s.count = MIB / t->sector;
		}
		flags |= IO_MAY_UNMAP;
		status = disk_write_zeroes(t->d, s.sector * t->sector, s.count * t->sector, &(struct io){.flags = flags});
	} else {
		status = do_write(t, &s, flags);
	}
	CHECK(!status || t->w->fails);
	s.failed = status;
	s.answered = recorder_calls(t->r);
	t->h.steps[t->h.nr_steps++] = s;
}

static void do_work(struct run *t)
{
	for (unsigned i = 0; i < t->w->steps; i++) {
		do_step(t, i);
		if (random_once_in(&t->random, t->w->flush_every)) {
			unsigned steps = t->h.nr_steps;
			int status;
			fill_up(t);
			status = disk_flush(t->d, &io_plain);
			CHECK(!status || t->w->fails);
			if (!status)
				note_promise(t, steps);
		}
	}
}

/* ------------------------------------------------------------------ judging what is there after a cut */

static uint32_t original_tag(const struct run *t, uint64_t sector)
{
	return t->w->over ? base_tag(sector) : 0;
}

static bool touches(const struct step *s, uint64_t sector)
{
	return sector >= s->sector && sector < s->sector + s->count;
}

/* So that judging does not look at every step for every sector. */
static void sort_steps(struct run *t)
{
	uint64_t sectors = t->w->options.size / t->sector;
	unsigned count = 0;

	for (unsigned i = 0; i < t->h.nr_steps; i++)
		count += (unsigned)t->h.steps[i].count;
	t->h.touching = calloc(count + 1, sizeof(*t->h.touching));
	t->h.first = calloc(sectors + 1, sizeof(*t->h.first));
	count = 0;
	for (uint64_t s = 0; s < sectors; s++) {
		for (unsigned i = 0; i < t->h.nr_steps; i++)
			if (touches(&t->h.steps[i], s))
				t->h.touching[count++] = i;
		t->h.first[s + 1] = count;
	}
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

/* May the sector hold the tag? What was promised last, what has failed since, or anything that was begun later. */
static bool may_hold(const struct run *t, uint64_t sector, uint32_t tag, unsigned n, unsigned promised)
{
	uint32_t last = original_tag(t, sector);
	bool maybe = false;

	for (unsigned k = t->h.first[sector]; k < t->h.first[sector + 1]; k++) {
		const struct step *s = &t->h.steps[t->h.touching[k]];
		if (t->h.touching[k] < promised && s->failed)
			maybe = maybe || s->tag == tag;
		else if (t->h.touching[k] < promised)
			last = s->tag, maybe = false;
		else if (s->begun <= n && s->tag == tag)
			return true;
	}
	return maybe || tag == last;
}

static bool judge_sector(const struct run *t, const uint8_t *data, uint64_t sector, unsigned n, unsigned promised)
{
	uint32_t tag;

	if (!tag_read(data, t->sector, &tag) && t->sector == 512) {
		tap_diag("sector %" PRIu64 " is torn", sector);
		return false;
	}
	if (may_hold(t, sector, tag, n, promised))
		return true;
	tap_diag("sector %" PRIu64 " holds %#" PRIx32 ", promised were %u of %u steps", sector, tag, promised, t->h.nr_steps);
	return false;
}

static bool judge(const struct run *t, struct disk *d, unsigned n)
{
	static uint8_t data[CUTS_PIECE];
	unsigned promised = promised_steps(&t->h, n), bad = 0;
	uint64_t size = t->w->options.size;

	if (!CHECK_EQ(disk_size(d), size))
		return false;
	for (uint64_t at = 0, length; at < size && bad < 3; at += length) {
		length = size - at < CUTS_PIECE ? size - at : CUTS_PIECE;
		if (!CHECK_EQ(disk_read(d, &VEC_FLAT(data, length), at, &io_plain), 0))
			return false;
		for (uint64_t i = 0; i < length && bad < 3; i += t->sector)
			bad += !judge_sector(t, data + i, (at + i) / t->sector, n, promised);
	}
	return !bad;
}

/* What qemu-img makes of the file holds the same, and has no log that is left. */
static bool judge_mended(struct run *t, struct recorder *left, unsigned n)
{
	struct recorder *mended = referee_mended(left);
	struct disk *d;
	bool good;

	if (!mended)
		return false;
	recorder_set_read_only(mended, true);
	good = CHECK(checks_clean(mended, false));
	d = open_disk(t->w, recorder_container(mended), "after qemu-img");
	good = CHECK(d && judge(t, d, n)) && good;
	if (d)
		CHECK_EQ(disk_close(d, NULL), 0);
	return good;
}

static bool write_again(struct disk *d)
{
	static char again[4096];

	return CHECK_EQ(disk_write(d, &VEC_FLAT(again, sizeof(again)), 0, &io_plain), 0) && CHECK_EQ(disk_flush(d, &io_plain), 0);
}

/* Opens what a cut left, for reading or writing, and looks at it; writes to it; closes it and looks for damage. */
static bool judge_cut(struct run *t, struct recorder *left, unsigned n, bool writing)
{
	struct disk *d;
	bool good = writing || CHECK(checks_clean(left, false));

	recorder_set_read_only(left, !writing);
	recorder_hold(left);
	d = open_disk(t->w, recorder_container(left), "after the cut");
	good = good && d && judge(t, d, n) && (!writing || write_again(d));
	if (d)
		CHECK_EQ(disk_close(d, NULL), 0);
	good = good && (!writing || CHECK(checks_clean(left, true)));
	container_close(recorder_container(left), false, NULL);
	return good;
}

static bool try_cut(struct run *t, unsigned n, enum unflushed_order order, uint64_t seed)
{
	unsigned every = t->w->over || t->sector != 512 ? 0 : referee_every(REFEREE_EVERY);
	struct recorder *left = recorder_cut(t->r, n, order, seed);
	bool good = !every || t->cuts++ % every || judge_mended(t, left, n);

	good = judge_cut(t, left, n, !(seed % 2)) && good;
	if (!good) {
		CHECK(!"what was left is good");
		recorder_tell(t->r, n, order, seed);
	}
	return good;
}

static void crash_again(const struct workload *w, unsigned share, unsigned run)
{
	struct run *t = calloc(1, sizeof(*t));
	unsigned calls;

	t->w = w;
	t->sector = w->options.logical_sector ? w->options.logical_sector : 512;
	t->random = random_stream(w->steps + 1000 * run);
	t->r = lab_create(&w->options);
	t->d = open_disk(w, recorder_container(t->r), w->name);
	if (CHECK(t->d != NULL)) {
		do_work(t);
		sort_steps(t);
		calls = recorder_calls(t->r);
		for (unsigned i = 0; i < cuts_wanted(1200) / share; i++) {
			unsigned n = (unsigned)random_below(&t->random, calls + 1);
			enum unflushed_order order = random_once_in(&t->random, 4) ? UNFLUSHED_IN_ORDER : UNFLUSHED_ANY;
			if (!try_cut(t, n, order, random_next(&t->random)))
				break;
		}
		recorder_fail(t->r, 0, 0, 0);
		CHECK(!disk_close(t->d, NULL) || w->fails);
	}
	free(t->h.touching);
	free(t->h.first);
	free(t);
}

static void crash(const struct workload *w, unsigned share)
{
	crash_again(w, share, 0);
}

/* ------------------------------------------------------------------ */

static void test_dynamic(void)
{
	static const struct workload w = {.name = "dynamic",
					  .options = {.size = 12 * MIB, .block_size = MIB},
					  .steps = 120,
					  .flush_every = 5};
	crash(&w, 4);
}

static void test_often_flushed(void)
{
	static const struct workload w = {.name = "often flushed",
					  .options = {.size = 10 * MIB + 512 * 7, .block_size = MIB},
					  .steps = 350,
					  .flush_every = 1};
	crash(&w, 4);
}

static void test_large_sectors(void)
{
	static const struct workload w = {.name = "4 KiB sectors",
					  .options = {.size = 12 * MIB, .block_size = 2 * MIB, .logical_sector = 4096},
					  .steps = 100,
					  .flush_every = 4};
	crash(&w, 8);
}

/* Of the whole size from the beginning: but for zeroes, nothing but the headers changes beside the data. */
static void test_fixed(void)
{
	static const struct workload w = {.name = "fixed",
					  .options = {.size = 8 * MIB + 512 * 9, .block_size = MIB, .fixed = true},
					  .steps = 110,
					  .flush_every = 4};
	crash(&w, 8);
}

static void test_differencing(void)
{
	static const struct workload w = {.name = "differencing",
					  .options = {.size = 10 * MIB,
						      .block_size = MIB,
						      .has_parent = true,
						      .parent_relative = ".\\base.vhdx"},
					  .over = true,
					  .steps = 120,
					  .flush_every = 5};
	crash(&w, 4);
}

/* What could not be written is old or new, and all else as it was promised; in one part of the runs the log or the table fails for good. */
static void test_no_space(void)
{
	static const struct workload w = {.name = "no space",
					  .options = {.size = 10 * MIB,
						      .block_size = MIB,
						      .has_parent = true,
						      .parent_relative = ".\\base.vhdx"},
					  .over = true,
					  .fails = true,
					  .steps = 90,
					  .flush_every = 4};

	for (unsigned run = 0; run < 4; run++)
		crash_again(&w, 32, run);
}

static void test_differencing_large_sectors(void)
{
	static const struct workload w = {.name = "differencing, 4 KiB sectors",
					  .options = {.size = 12 * MIB,
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

	tag_fill(data, sizeof(data), n + 1);
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
	TAP_RUN(test_fixed);
	TAP_RUN(test_large_sectors);
	TAP_RUN(test_differencing);
	TAP_RUN(test_no_space);
	TAP_RUN(test_differencing_large_sectors);
	return TAP_DONE();
}

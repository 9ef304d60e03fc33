/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Faults: whom rules strike and how, again the same by a seed; limits; changes at run time. The cache is in test-
 * fault-power.
 */
#include <errno.h>
#include <pthread.h>

#include "core/open.h"
#include "core/wait.h"
#include "decorators/fault-limit.h"
#include "decorators/fault-rules.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define MS UINT64_C(1000000)
#define BIT(op) (1u << (op))

/* ------------------------------------------------------------------ what the disk sleeps */

void __real_wait_sleep(uint64_t ns);
void __wrap_wait_sleep(uint64_t ns);

/* The test's own thread is the only one that sleeps while it is `recording`. */
static struct {
	bool recording;
	unsigned count;
	uint64_t last, sum;
} naps;

void __wrap_wait_sleep(uint64_t ns)
{
	if (!naps.recording) {
		__real_wait_sleep(ns);
		return;
	}
	naps.count++;
	naps.last = ns;
	naps.sum += ns;
}

/* ------------------------------------------------------------------ a disk of the test's own under it */

static const struct trap_options full = {
	.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE | DISK_REMOVABLE,
	.discard = DISK_DISCARD_ZEROES,
};

static struct trap *trap;

static struct disk *open_over_trap(const char *settings)
{
	char spec[600];

	trap = trap_create(&full);
	memset(trap->content, 'o', trap->capacity);
	snprintf(spec, sizeof(spec), "fault:%s:null:1M", settings);
	return trap_wrap(spec, &trap->disk);
}

static void close_disk(struct disk *d)
{
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* One request of the operation, for the second block. */
static int ask(struct disk *d, enum trap_op op, struct failure *failure)
{
	const struct io io = {.failure = failure};

	return trap_ask(d, op, 0, &io);
}

static int ask_at(struct disk *d, enum trap_op op, uint64_t offset, size_t length)
{
	static char memory[1 << 16];

	memset(memory, 'n', length);
	switch (op) {
	case TRAP_READ:
		return disk_read(d, &VEC_FLAT(memory, length), offset, &io_plain);
	case TRAP_WRITE:
		return disk_write(d, &VEC_FLAT(memory, length), offset, &io_plain);
	case TRAP_DISCARD:
		return disk_discard(d, offset, length, &io_plain);
	default:
		return disk_write_zeroes(d, offset, length, &io_plain);
	}
}

static const enum trap_op operations[] = {TRAP_READ, TRAP_WRITE, TRAP_FLUSH, TRAP_DISCARD, TRAP_ZEROES};

/* ------------------------------------------------------------------ errors */

static const struct {
	const char *name;
	int status;
	int medium; /* -1: what suits the operation */
} errors[] = {
	{"io", -EIO, -1},
	{"medium", -ENODATA, -1},
	{"medium-read", -ENODATA, MEDIUM_UNRECOVERED_READ},
	{"medium-write", -ENODATA, MEDIUM_WRITE_FAULT},
	{"medium-guard", -ENODATA, MEDIUM_GUARD_CHECK},
	{"medium-app", -ENODATA, MEDIUM_APPLICATION_TAG_CHECK},
	{"medium-ref", -ENODATA, MEDIUM_REFERENCE_TAG_CHECK},
	{"nospace", -ENOSPC, -1},
	{"readonly", -EROFS, -1},
	{"range", -ERANGE, -1},
	{"invalid", -EINVAL, -1},
	{"unreachable", -EFAULT, -1},
	{"reserved", -EBADE, -1},
	{"aborted", -ECANCELED, -1},
	{"unsupported", -EOPNOTSUPP, -1},
	{"nomemory", -ENOMEM, -1},
	{"nomedium", -ENOMEDIUM, -1},
};

/* With its status, its text, its kind of medium error, and nothing done. */
static void check_error(size_t i, size_t o)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "zeroes"};
	enum medium_error suits = operations[o] == TRAP_READ ? MEDIUM_UNRECOVERED_READ : MEDIUM_WRITE_FAULT;
	struct failure failure = {0};
	char settings[60], begins[100];
	struct disk *d;

	snprintf(settings, sizeof(settings), "%s=%s", names[o], errors[i].name);
	snprintf(begins, sizeof(begins), "fault: rule 1 (%s): request 1", settings);
	d = open_over_trap(settings);
	for (size_t other = 0; other < 5; other++)
		if (other != o)
			CHECK_EQ(ask(d, operations[other], NULL), 0);
	trap_reset(trap);
	CHECK_EQ(ask(d, operations[o], &failure), errors[i].status);
	CHECK_EQ(failure.status, errors[i].status);
	if (!CHECK(!strncmp(failure.text, begins, strlen(begins))))
		tap_diag("%s", failure.text);
	if (errors[i].status == -ENODATA)
		CHECK_EQ(failure.medium, errors[i].medium < 0 ? suits : (enum medium_error)errors[i].medium);
	CHECK_EQ(trap->count, 0);
	trap_reset(trap);
	disk_close(d, NULL);
}

static void test_every_status_for_every_operation(void)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		for (size_t o = 0; o < 5; o++)
			check_error(i, o);
}

static void test_no_rules_strike_nobody(void)
{
	struct disk *d = open_over_trap("");

	for (size_t o = 0; o < 5; o++)
		CHECK_EQ(ask(d, operations[o], NULL), 0);
	CHECK_EQ(trap->count, 5);
	close_disk(d);
}

static void test_operations_together(void)
{
	struct disk *d = open_over_trap("write/zeroes=io,times=2+any=nospace,times=1");

	CHECK_EQ(ask(d, TRAP_WRITE, NULL), -EIO);
	CHECK_EQ(ask(d, TRAP_FLUSH, NULL), -ENOSPC);
	CHECK_EQ(ask(d, TRAP_READ, NULL), 0);
	CHECK_EQ(ask(d, TRAP_ZEROES, NULL), -EIO);
	CHECK_EQ(ask(d, TRAP_ZEROES, NULL), 0);
	close_disk(d);
}

/* A request that was done, and failed. */
static void test_late(void)
{
	struct disk *d = open_over_trap("write=io,late");

	CHECK_EQ(ask_at(d, TRAP_WRITE, 512, 512), -EIO);
	CHECK_EQ(trap->content[512], 'n');
	close_disk(d);
}

static void test_medium_error_names_the_first_bad_block(void)
{
	struct disk *d = open_over_trap("read=medium,at=8K,len=4K");
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	static char memory[16384];

	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 16384), 4096, &io), -ENODATA);
	CHECK(strstr(failure.text, "block 16") != NULL);
	failure = (struct failure){0};
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 512), 8192 + 1024, &io), -ENODATA);
	CHECK(strstr(failure.text, "block 18") != NULL);
	close_disk(d);
}

/* ------------------------------------------------------------------ whom */

/* Writes of one block, 'x' for each that was struck. */
static const char *pattern(struct disk *d, unsigned count)
{
	static char text[2][1001];
	static unsigned which;
	char *out = text[which++ % 2];

	for (unsigned i = 0; i < count; i++)
		out[i] = ask(d, TRAP_WRITE, NULL) ? 'x' : '.';
	out[count] = 0;
	return out;
}

static void check_pattern(const char *settings, const char *expected)
{
	struct disk *d = open_over_trap(settings);

	if (!CHECK_STR(pattern(d, (unsigned)strlen(expected)), expected))
		tap_diag("%s", settings);
	close_disk(d);
}

static void test_counts(void)
{
	check_pattern("write=io,every=3", "..x..x..x..x");
	check_pattern("write=io,after=4", "....xxxxxxxx");
	check_pattern("write=io,after=2,every=3", "....x..x..x.");
	check_pattern("write=io,times=3", "xxx.........");
	check_pattern("write=io,once", "x...........");
	check_pattern("write=io,every=2,times=2", ".x.x........");
	check_pattern("write=io,nth=1", "x...........");
	check_pattern("write=io,nth=5", "....x.......");
	check_pattern("write=io,after=1,times=2,every=4", "....x...x...");
	check_pattern("write=io,rate=100%,every=2", ".x.x.x");
	check_pattern("write=io,every=2+write=nospace,every=2", ".xxx.xxx.xxx");
}

/* Whatever touches the range, and nothing else; a flush never does. */
static void test_ranges(void)
{
	struct disk *d = open_over_trap("any=io,at=4K,len=1K");

	CHECK_EQ(ask_at(d, TRAP_READ, 3584, 512), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 3584, 1024), -EIO);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 4096, 512), -EIO);
	CHECK_EQ(ask_at(d, TRAP_DISCARD, 4608, 512), -EIO);
	CHECK_EQ(ask_at(d, TRAP_ZEROES, 0, 65536), -EIO);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 5120, 512), 0);
	CHECK_EQ(ask(d, TRAP_FLUSH, NULL), 0);
	close_disk(d);
	d = open_over_trap("read=io,len=512");
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 512), -EIO);
	CHECK_EQ(ask_at(d, TRAP_READ, 512, 512), 0);
	close_disk(d);
	d = open_over_trap("read=io,at=512K,len=7E");
	CHECK_EQ(ask_at(d, TRAP_READ, 512 << 10, 512), -EIO);
	CHECK_EQ(ask_at(d, TRAP_READ, (1 << 20) - 512, 512), -EIO);
	close_disk(d);
}

/* Of 100,000, with room for six standard deviations. */
static void test_rate(void)
{
	struct disk *d = open_over_trap("write=io,rate=2.5%");
	unsigned struck = 0;

	for (unsigned i = 0; i < 100000; i++)
		struck += ask(d, TRAP_WRITE, NULL) != 0;
	CHECK(struck > 2204 && struck < 2796);
	close_disk(d);
}

/* Writes are not moved by reads in between. */
static void test_same_seed_same_faults(void)
{
	struct disk *a = open_over_trap("write=io,rate=20%;seed=7"), *b, *c;
	const char *first = pattern(a, 300);
	char again[301];

	b = open_over_trap("write=io,rate=20%+read=io,rate=50%;seed=7");
	for (unsigned i = 0; i < 300; i++) {
		ask(b, TRAP_READ, NULL);
		again[i] = ask(b, TRAP_WRITE, NULL) ? 'x' : '.';
	}
	again[300] = 0;
	CHECK_STR(first, again);
	c = open_over_trap("write=io,rate=20%;seed=8");
	CHECK(strcmp(pattern(c, 300), again));
	close_disk(a);
	close_disk(b);
	close_disk(c);
}

/* Without a seed there is one all the same, and describe tells it. */
static void test_described_seed_replays(void)
{
	struct disk *a = open_over_trap("write=io,rate=20%"), *b;
	json_t *o = disk_describe(a);
	char settings[100];

	snprintf(settings, sizeof(settings), "write=io,rate=20%%;seed=%s", json_string_value(json_object_get(o, "seed")));
	b = open_over_trap(settings);
	CHECK_STR(pattern(a, 300), pattern(b, 300));
	json_decref(o);
	close_disk(a);
	close_disk(b);
}

static json_int_t described(struct disk *d, size_t rule, const char *what)
{
	json_t *o = disk_describe(d);
	json_int_t n = json_integer_value(json_object_get(json_array_get(json_object_get(o, "rules"), rule), what));

	json_decref(o);
	return n;
}

static void test_described_counts(void)
{
	struct disk *d = open_over_trap("write=io,every=4+any=nospace,every=3");

	pattern(d, 10);
	ask(d, TRAP_READ, NULL);
	CHECK_EQ(described(d, 0, "asked"), 10);
	CHECK_EQ(described(d, 0, "struck"), 2);
	CHECK_EQ(described(d, 1, "asked"), 9);
	CHECK_EQ(described(d, 1, "struck"), 3);
	close_disk(d);
}

/* ------------------------------------------------------------------ bad blocks */

static void test_bad_blocks_heal(void)
{
	struct disk *d = open_over_trap("read=medium,at=4K,len=4K,heal");

	CHECK_EQ(ask_at(d, TRAP_READ, 0, 16384), -ENODATA);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 4096, 1024), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 4096, 1024), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 4096, 1536), -ENODATA);
	CHECK_EQ(ask_at(d, TRAP_DISCARD, 5120, 512), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 5120, 512), -ENODATA);
	CHECK_EQ(ask_at(d, TRAP_ZEROES, 5120, 1024), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 4096, 2048), 0);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 16384), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 16384), 0);
	close_disk(d);
}

/* A write that fails heals nothing, whether a rule or the disk below is to blame. */
static void test_failed_writes_do_not_heal(void)
{
	struct disk *d = open_over_trap("read=medium,len=4K,heal+write=io,once");

	CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 4096), -EIO);
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 512), -ENODATA);
	trap_fail(trap, BIT(TRAP_WRITE), 1, -ENOSPC);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 4096), -ENOSPC);
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 512), -ENODATA);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 4096), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 512), 0);
	close_disk(d);
}

/* ------------------------------------------------------------------ torn and dropped */

/* Which of the first `n` blocks are new: bit 0 is the first. */
static uint64_t new_blocks(unsigned n)
{
	uint64_t blocks = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned char c = trap->content[i * 512];
		CHECK(c == 'o' || c == 'n' || c == 0);
		for (unsigned j = 1; j < 512; j++)
			CHECK_EQ(trap->content[i * 512 + j], c);
		blocks |= (uint64_t)(c != 'o') << i;
	}
	memset(trap->content, 'o', 16384);
	return blocks;
}

/* Every length but the whole comes up, and only beginnings do. */
static void check_torn(const char *settings, enum trap_op op, int status)
{
	struct disk *d = open_over_trap(settings);
	unsigned seen = 0;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t blocks;
		CHECK_EQ(ask_at(d, op, 0, 8 * 512), status);
		blocks = new_blocks(9);
		CHECK(blocks < 0xff && !(blocks & (blocks + 1)));
		seen |= 1u << __builtin_popcountll(blocks);
	}
	CHECK_EQ(seen, 0xff);
	CHECK_EQ(ask_at(d, op, 0, 512), status);
	CHECK_EQ(new_blocks(1), 0);
	close_disk(d);
}

static void test_torn(void)
{
	check_torn("write=torn", TRAP_WRITE, -EIO);
	check_torn("zeroes=torn", TRAP_ZEROES, -EIO);
	check_torn("discard=torn", TRAP_DISCARD, -EIO);
	check_torn("write=torn,quiet", TRAP_WRITE, 0);
}

static void test_torn_anywhere(void)
{
	struct disk *d = open_over_trap("write=torn,scatter");
	uint64_t ever = 0, always = 0xff;
	bool gap = false;

	for (unsigned i = 0; i < 3000; i++) {
		uint64_t blocks;
		CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 8 * 512), -EIO);
		blocks = new_blocks(9);
		CHECK(blocks < 0xff);
		ever |= blocks;
		always &= blocks;
		gap = gap || (blocks & (blocks + 1));
	}
	CHECK(ever == 0xff && !always && gap);
	CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 512), -EIO);
	CHECK_EQ(new_blocks(1), 0);
	close_disk(d);
}

static void test_torn_again_the_same(void)
{
	for (unsigned round = 0; round < 2; round++) {
		static uint64_t first[50];
		struct disk *d = open_over_trap("write=torn,scatter,quiet;seed=3");
		for (unsigned i = 0; i < 50; i++) {
			CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 16 * 512), 0);
			if (!round)
				first[i] = new_blocks(16);
			else
				CHECK_EQ(new_blocks(16), first[i]);
		}
		close_disk(d);
	}
}

static void test_dropped(void)
{
	struct disk *d = open_over_trap("write/flush/discard/zeroes=drop");

	for (size_t o = 1; o < 5; o++)
		CHECK_EQ(ask(d, operations[o], NULL), 0);
	CHECK_EQ(trap->count, 0);
	CHECK_EQ(trap->content[512], 'o');
	close_disk(d);
}

/* ------------------------------------------------------------------ wrong data */

static unsigned bits_that_differ(const unsigned char *a, const unsigned char *b, size_t size)
{
	unsigned n = 0;

	for (size_t i = 0; i < size; i++)
		n += (unsigned)__builtin_popcount(a[i] ^ b[i]);
	return n;
}

static void test_corrupt_reads(void)
{
	struct disk *d = open_over_trap("read=corrupt,every=2;seed=1");
	unsigned char found[2][4096], old[4096];

	memset(old, 'o', sizeof(old));
	CHECK_EQ(disk_read(d, &VEC_FLAT(found[0], 4096), 0, &io_plain), 0);
	CHECK_EQ(bits_that_differ(found[0], old, 4096), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(found[0], 4096), 0, &io_plain), 0);
	CHECK_EQ(bits_that_differ(found[0], old, 4096), 1);
	CHECK_MEM(trap->content, old, 4096);
	close_disk(d);
	d = open_over_trap("read=corrupt,every=2;seed=1");
	CHECK_EQ(disk_read(d, &VEC_FLAT(found[1], 4096), 0, &io_plain), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(found[1], 4096), 0, &io_plain), 0);
	CHECK_MEM(found[1], found[0], 4096);
	close_disk(d);
}

/* What is wrong stays so; the memory of the caller does not change. */
static void test_corrupt_writes(void)
{
	struct disk *d = open_over_trap("write=corrupt,bits=5");
	struct random r = random_stream(1);
	unsigned char expected[4096];
	struct scatter s;
	unsigned wrong;

	scatter_make(&s, &r, 4096);
	random_fill(&r, expected, 4096);
	scatter_put(&s, expected);
	CHECK_EQ(disk_write(d, &s.vec, 8192, &io_plain), 0);
	wrong = bits_that_differ(trap->content + 8192, expected, 4096);
	CHECK(wrong >= 1 && wrong <= 5);
	scatter_get(&s, trap->content);
	CHECK_MEM(trap->content, expected, 4096);
	CHECK(scatter_guarded(&s));
	scatter_free(&s);
	close_disk(d);
}

static void test_misplaced(void)
{
	struct disk *d = open_over_trap("read/write=misplace");

	for (unsigned i = 0; i < 100; i++) {
		trap_reset(trap);
		CHECK_EQ(ask_at(d, i % 2 ? TRAP_READ : TRAP_WRITE, 8192, 1024), 0);
		CHECK_EQ(trap->count, 1);
		CHECK(trap->log[0].offset != 8192);
		CHECK_EQ(trap->log[0].length, 1024);
		CHECK_EQ(trap->log[0].offset % 512, 0);
	}
	for (unsigned i = 8192; i < 8192 + 512; i++)
		CHECK(trap->content[i] == 'o' || trap->content[8192 - 512] == 'n' || trap->content[8192 + 512] == 'n');
	trap_reset(trap);
	CHECK_EQ(disk_write_zeroes(d, 0, 1 << 20, &io_plain), 0);
	close_disk(d);
}

/* The whole disk has no other place. */
static void test_misplaced_on_a_full_disk(void)
{
	static char memory[1 << 20];
	struct disk *d = open_over_trap("write=misplace");

	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, sizeof(memory)), 0, &io_plain), 0);
	CHECK_EQ(trap->log[0].offset, 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, sizeof(memory) - 512), 0, &io_plain), 0);
	CHECK_EQ(trap->log[1].offset, 512);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, sizeof(memory) - 512), 512, &io_plain), 0);
	CHECK_EQ(trap->log[2].offset, 0);
	close_disk(d);
}

/* ------------------------------------------------------------------ time */

static void test_stall(void)
{
	struct disk *d = open_over_trap("read=stall,time=20s,every=2");

	naps = (typeof(naps)){.recording = true};
	CHECK_EQ(ask(d, TRAP_READ, NULL), 0);
	CHECK_EQ(naps.count, 0);
	CHECK_EQ(ask(d, TRAP_READ, NULL), 0);
	CHECK_EQ(naps.last, 20000 * MS);
	CHECK_EQ(trap->counts[TRAP_READ], 2);
	naps.recording = false;
	close_disk(d);
}

/* Requests are admitted at even distances; what a pause has saved up comes at once. */
static void test_limit_in_its_own_time(void)
{
	struct fault_limit l = {.per_second = 1000}, burst = {.per_second = 1000, .burst_ns = 5 * MS}, none = {0};

	CHECK_EQ(fault_limit_take(&none, 1000000, 50), 0);
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(fault_limit_take(&l, 1, 100 * MS), i * MS);
	CHECK_EQ(fault_limit_take(&l, 1, 200 * MS), 0);
	CHECK_EQ(fault_limit_take(&l, 3, 200 * MS), 1 * MS);
	CHECK_EQ(fault_limit_take(&l, 1, 200 * MS), 4 * MS);
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(fault_limit_take(&burst, 1, 100 * MS), i < 5 ? 0 : (i - 5) * MS);
	CHECK_EQ(fault_limit_take(&burst, UINT64_MAX, 1000 * MS), 0);
	CHECK_EQ(fault_limit_take(&burst, 1, 1000 * MS), FAULT_LIMIT_LONGEST_NS - 5 * MS);
}

static void test_limits_of_each_kind(void)
{
	struct disk *d = open_over_trap(";read-iops=1;write-rate=1K");

	naps = (typeof(naps)){.recording = true};
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(ask(d, TRAP_READ, NULL), 0);
	CHECK(naps.sum > 5900 * MS && naps.sum <= 6000 * MS); /* 0, 1, 2 and 3 s, and some of the time that passed */
	naps.sum = 0;
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(ask(d, TRAP_WRITE, NULL), 0);
	CHECK(naps.sum > 1400 * MS && naps.sum <= 1500 * MS); /* 0, 0.5 and 1 s */
	naps.count = 0;
	CHECK_EQ(ask(d, TRAP_FLUSH, NULL) + ask(d, TRAP_ZEROES, NULL) + ask(d, TRAP_DISCARD, NULL), 0);
	CHECK_EQ(naps.count, 0);
	naps.recording = false;
	close_disk(d);
}

static void *read_in_thread(void *disk)
{
	char memory[512];

	for (unsigned i = 0; i < 25; i++)
		CHECK_EQ(disk_read(disk, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	return NULL;
}

/* 100 reads by four threads at 1000 a second: no less than 99 ms, and not that much for each thread. */
static void test_limit_is_shared(void)
{
	struct disk *d = open_over_trap(";read-iops=1000");
	uint64_t begin = wait_now();
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, read_in_thread, d))
			abort();
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(wait_now() - begin >= 99 * MS);
	CHECK(wait_now() - begin < 10000 * MS);
	close_disk(d);
}

/* ------------------------------------------------------------------ changes at run time */

static char control_path[300], reply_path[320];

static struct disk *open_controlled(const char *name, const char *settings)
{
	char text[400];

	snprintf(control_path, sizeof(control_path), "%s", tmppath(name));
	snprintf(reply_path, sizeof(reply_path), "%s.reply", control_path);
	snprintf(text, sizeof(text), "%s;control=%s", settings, control_path);
	return open_over_trap(text);
}

/* Writes the line and waits for what came of it. */
static void say(const char *line, const char *expected)
{
	char text[400] = "";
	FILE *file;

	unlink(reply_path);
	file = fopen(control_path, "w");
	REQUIRE(file && fprintf(file, "%s\n", line) > 0 && !fclose(file));
	for (unsigned tries = 0; tries < 10000 && !strchr(text, '\n'); tries++) {
		file = fopen(reply_path, "r");
		if (file && !fgets(text, sizeof(text), file))
			text[0] = 0;
		if (file)
			fclose(file);
		__real_wait_sleep(MS);
	}
	if (!CHECK(strstr(text, expected)))
		tap_diag("%s: %s", line, text);
}

static void test_rules_change(void)
{
	struct disk *d = open_controlled("rules", "write=io,every=2");

	CHECK_STR(pattern(d, 5), ".x.x.");
	say("write=nospace,every=2", "ok 1");
	CHECK_STR(pattern(d, 4), ".x.x"); /* counted anew */
	CHECK_EQ(ask(d, TRAP_READ, NULL), 0);
	say("read=io", "ok 2");
	CHECK_STR(pattern(d, 4), "....");
	CHECK_EQ(ask(d, TRAP_READ, NULL), -EIO);
	say("raed=io", "did you mean 'read'");
	CHECK_EQ(ask(d, TRAP_READ, NULL), -EIO);
	say(";cache", "cache: cannot be changed");
	say(";control=/x", "control: cannot be changed");
	say(";seed=1", "ok 3");
	CHECK_EQ(ask(d, TRAP_READ, NULL), 0);
	close_disk(d);
}

/* From no rules at all, and the first request is the one that begins to watch. */
static void test_rules_come_and_go(void)
{
	struct disk *d = open_controlled("come", "");

	CHECK_EQ(ask(d, TRAP_FLUSH, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		say("flush=io", "ok");
		CHECK_EQ(ask(d, TRAP_FLUSH, NULL), -EIO);
		say(";read-iops=1000000", "ok");
		CHECK_EQ(ask(d, TRAP_FLUSH, NULL), 0);
	}
	close_disk(d);
}

static void test_changed_seed_replays(void)
{
	struct disk *d = open_controlled("seed", "write=io,rate=30%;seed=5");
	char first[201];

	snprintf(first, sizeof(first), "%s", pattern(d, 200));
	say("write=io,rate=30%;seed=6", "ok");
	CHECK(strcmp(pattern(d, 200), first));
	say("write=io,rate=30%;seed=5", "ok");
	CHECK_STR(pattern(d, 200), first);
	say("write=io,rate=30%", "ok"); /* the seed stays, and it begins anew all the same */
	CHECK_STR(pattern(d, 200), first);
	close_disk(d);
}

static void test_bad_blocks_are_bad_again(void)
{
	struct disk *d = open_controlled("bad", "read=medium,len=4K,heal");

	CHECK_EQ(ask_at(d, TRAP_WRITE, 0, 4096), 0);
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 4096), 0);
	say("read=medium,len=4K,heal", "ok");
	CHECK_EQ(ask_at(d, TRAP_READ, 0, 4096), -ENODATA);
	close_disk(d);
}

struct traffic {
	struct disk *disk;
	_Atomic bool stop;
	_Atomic unsigned requests, next;
};

/* Whatever the rules are, a request answers one of the statuses that some of them have. Each has a place of its own. */
static void *make_traffic(void *argument)
{
	struct traffic *t = argument;
	uint64_t place = atomic_fetch_add(&t->next, 1) * UINT64_C(65536);
	char memory[4096];

	memset(memory, 'n', sizeof(memory));
	for (unsigned i = 0; !atomic_load(&t->stop); i++) {
		uint64_t offset = place + i % 16 * 4096;
		struct failure failure = {0};
		struct io io = {.failure = &failure};
		int status = i % 3   ? disk_write(t->disk, &VEC_FLAT(memory, 4096), offset, &io)
			     : i % 2 ? disk_read(t->disk, &VEC_FLAT(memory, 4096), offset, &io)
				     : disk_flush(t->disk, &io);
		CHECK(!status || status == -EIO || status == -ENODATA);
		CHECK(!status || !strncmp(failure.text, "fault: rule 1 (", 15));
		atomic_fetch_add(&t->requests, 1);
	}
	return NULL;
}

static void test_rules_change_under_traffic(void)
{
	struct traffic t = {.disk = open_controlled("traffic", "write=io,every=7")};
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, make_traffic, &t))
			abort();
	while (!atomic_load(&t.requests))
		wait_yield();
	for (unsigned i = 0; i < 30; i++)
		say(i % 3 == 0 ? "any=io,every=2" : i % 3 == 1 ? "" : "read=medium,len=1M,heal", i % 3 == 1 ? "" : "ok");
	atomic_store(&t.stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	say("", "");
	disk_close(t.disk, NULL);
}

/* ------------------------------------------------------------------ what it is */

static void check_identity(const char *settings, bool expected)
{
	struct trap *t = trap_create(&full);
	struct identity identity;
	char spec[400];
	struct disk *d;

	t->disk.info.flags |= DISK_HAS_ID;
	snprintf(spec, sizeof(spec), "fault:%s:null:1M", settings);
	d = trap_wrap(spec, &t->disk);
	CHECK_EQ(!!(disk_info(d)->flags & DISK_HAS_ID), expected);
	close_disk(d);
	snprintf(spec, sizeof(spec), "fault:%s:null:1M", settings);
	REQUIRE(!disk_open(spec, 0, &d, NULL));
	if (!CHECK_EQ(!disk_identity(d, &identity), expected))
		tap_diag("%s", settings);
	close_disk(d);
}

static void test_identity_where_reads_are_true(void)
{
	char settings[400];

	check_identity("", true);
	check_identity("write=corrupt+read=io+write=drop;read-iops=5", true);
	check_identity("read=corrupt,rate=1%", false);
	check_identity("write=io+read/write=misplace", false);
	check_identity(";cache", false);
	snprintf(settings, sizeof(settings), ";control=%s", tmppath("identity"));
	check_identity(settings, false);
}

static void test_fua_is_that_of_the_disk_below(void)
{
	const struct trap_options plain = {0};
	struct io fua = {.flags = IO_FUA};
	char block[512] = "";
	struct disk *d;

	trap = trap_create(&plain);
	d = trap_wrap("fault:flush=io:null:1M", &trap->disk);
	CHECK(!(disk_info(d)->flags & DISK_FUA));
	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 512), 0, &fua), -EIO); /* a write and a flush */
	disk_close(d, NULL);
	d = open_over_trap("flush=io");
	CHECK(disk_info(d)->flags & DISK_FUA);
	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 512), 0, &fua), 0);
	CHECK_EQ(trap->log[0].flags, IO_FUA);
	disk_close(d, NULL);
}

/* ------------------------------------------------------------------ what is refused */

static const struct {
	const char *rules, *says;
} refused[] = {
	{"wirte=io", "character 1: 'wirte' is no operation; did you mean 'write'?"},
	{"write/raed=io", "character 7: 'raed' is no operation; did you mean 'read'?"},
	{"write=oi", "character 7: 'oi' is no action; did you mean 'io'?"},
	{"write=qqqq", "character 7: 'qqqq' is no action, which are io, medium"},
	{"write", "character 1: expected OPERATION=ACTION, such as write=io, found 'write'"},
	{"write=io+", "character 10: expected OPERATION=ACTION"},
	{"=io", "character 1: '' is no operation, which are read, write"},
	{"write=io,evry=3", "character 10: 'evry' is no condition; did you mean 'every'?"},
	{"write=io,", "character 10: '' is no condition, which are at, len"},
	{"write=io,every=0", "character 16: expected a number from 1 for every, found '0'"},
	{"write=io,every=x", "character 16: expected a number from 1 for every, found 'x'"},
	{"write=io,every", "character 10: every needs a value"},
	{"write=io,once=1", "character 10: once takes no value"},
	{"write=io,once,once", "character 15: once is given twice"},
	{"write=io,nth=3,every=2", "character 16: every and nth exclude each other"},
	{"write=io,every=2,nth=3", "character 18: nth and every exclude each other"},
	{"write=io,once,times=3", "times and once exclude each other"},
	{"read=medium,len=4K,heal,late", "late and heal exclude each other"},
	{"write=io,rate=2", "character 15: expected a part of all for rate, such as 0.1%"},
	{"write=io,rate=0%", "expected a part of all"},
	{"write=io,rate=101%", "expected a part of all"},
	{"write=io,rate=.%", "expected a part of all"},
	{"write=io,rate=1.2.3%", "expected a part of all"},
	{"write=io,rate=99999999999999999999%", "expected a part of all"},
	{"write=io,rate=0.0000000001%", "expected a part of all"},
	{"write=io,at=1M", "at needs len"},
	{"write=io,len=0", "len is to be more than 0"},
	{"write=io,at=x,len=1", "expected bytes for at, such as 64K, found 'x'"},
	{"write=io,at=16E,len=1", "expected bytes for at"},
	{"write=io,at=8E,len=1", "expected bytes for at"},
	{"flush=io,at=0,len=1", "a flush has no range"},
	{"write/flush=io,len=1", "a flush has no range"},
	{"read=drop", "character 6: drop is not for read"},
	{"flush=torn", "torn is not for flush"},
	{"any=corrupt", "corrupt is not for flush"},
	{"zeroes=misplace", "misplace is not for zeroes"},
	{"read=stall", "stall needs time"},
	{"read=stall,time=2h", "expected a time up to 3600s"},
	{"read=stall,time=3601s", "expected a time up to 3600s"},
	{"read=io,time=3s", "time does not go with io"},
	{"write=io,quiet", "quiet does not go with io"},
	{"write=torn,late", "late does not go with torn"},
	{"write=corrupt,bits=4097", "bits is to be at most 4096"},
	{"read=medium,heal", "heal is for read=medium with a range"},
	{"read=medium,len=2T,heal", "of at most 1T"},
	{"read=io,len=4K,heal", "heal is for read=medium"},
	{"write=medium,len=4K,heal", "heal is for read=medium"},
	{"read=io\n", "'io?' is no action; did you mean 'io'?"},
	{"any=io,at=1", "at needs len"},
};

static void test_refused_rules(void)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		CLEANUP_ERROR struct error err = {0};
		struct fault_rules rules;
		CHECK_EQ(fault_rules_parse(refused[i].rules, &rules, &err), -EINVAL);
		CHECK(!rules.list && !rules.count);
		if (!CHECK(strstr(error_text(&err), refused[i].says)))
			tap_diag("%s: %s", refused[i].rules, error_text(&err));
	}
}

/* Every request asks all of them. */
static void test_too_many_rules(void)
{
	CLEANUP_ERROR struct error err = {0};
	static char text[9 * (FAULT_RULES_MAX + 1)];
	struct fault_rules rules;

	for (unsigned i = 0; i < FAULT_RULES_MAX; i++)
		strcat(text, i ? "+read=io" : "read=io");
	CHECK_EQ(fault_rules_parse(text, &rules, &err), 0);
	CHECK_EQ(rules.count, FAULT_RULES_MAX);
	fault_rules_free(&rules);
	CHECK_EQ(fault_rules_parse(strcat(text, "+read=io"), &rules, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "more than 1024"));
}

static void check_refused_spec(const char *spec, const char *says)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	CHECK_EQ(disk_open(spec, 0, &d, &err), -EINVAL);
	if (!CHECK(strstr(error_text(&err), says)))
		tap_diag("%s: %s", spec, error_text(&err));
}

static void test_refused_options(void)
{
	check_refused_spec("fault:wirte=io:mem:1M", "fault: rules, character 1: 'wirte'");
	check_refused_spec("fault:;atomic=4K:mem:1M", "atomic: is for a cache");
	check_refused_spec("fault:;in-order:mem:1M", "in-order: is for a cache");
	check_refused_spec("fault:;cache;atomic=1K:mem:1M;block=4096", "no whole blocks of 4096 bytes");
	check_refused_spec("fault:;cache=1K:mem:1M", "4");
	check_refused_spec("fault:;power=dim:mem:1M", "dim");
}

int main(void)
{
	TAP_RUN(test_no_rules_strike_nobody);
	TAP_RUN(test_every_status_for_every_operation);
	TAP_RUN(test_operations_together);
	TAP_RUN(test_late);
	TAP_RUN(test_medium_error_names_the_first_bad_block);
	TAP_RUN(test_counts);
	TAP_RUN(test_ranges);
	TAP_RUN(test_rate);
	TAP_RUN(test_same_seed_same_faults);
	TAP_RUN(test_described_seed_replays);
	TAP_RUN(test_described_counts);
	TAP_RUN(test_bad_blocks_heal);
	TAP_RUN(test_failed_writes_do_not_heal);
	TAP_RUN(test_torn);
	TAP_RUN(test_torn_anywhere);
	TAP_RUN(test_torn_again_the_same);
	TAP_RUN(test_dropped);
	TAP_RUN(test_corrupt_reads);
	TAP_RUN(test_corrupt_writes);
	TAP_RUN(test_misplaced);
	TAP_RUN(test_misplaced_on_a_full_disk);
	TAP_RUN(test_stall);
	TAP_RUN(test_limit_in_its_own_time);
	TAP_RUN(test_limits_of_each_kind);
	TAP_RUN(test_limit_is_shared);
	TAP_RUN(test_rules_change);
	TAP_RUN(test_rules_come_and_go);
	TAP_RUN(test_changed_seed_replays);
	TAP_RUN(test_bad_blocks_are_bad_again);
	TAP_RUN(test_rules_change_under_traffic);
	TAP_RUN(test_identity_where_reads_are_true);
	TAP_RUN(test_fua_is_that_of_the_disk_below);
	TAP_RUN(test_refused_rules);
	TAP_RUN(test_too_many_rules);
	TAP_RUN(test_refused_options);
	return TAP_DONE();
}

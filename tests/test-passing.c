/* SPDX-License-Identifier: BSD-3-Clause */
/* What must come through every wrapper unchanged: failures of each kind, who asks, reservations, eject, sizes, geometry. */
#include <pthread.h>
#include <sys/stat.h>

#include "core/open.h"
#include "core/wait.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define BIT(op) (1u << (op))

/* ------------------------------------------------------------------ wrappers over a disk of the test's own */

/* The leaf in each spec only stands for the trap, which takes its place. */
static const struct wrapper {
	const char *spec;
	uint64_t offset; /* of the window on the trap */
	bool changes_pass;
	bool size_passes;
	bool resize_passes;
	bool reserves; /* has reservations of its own */
} wrappers[] = {
	{"slice:4096:null:1M", 4096, true, true},
	{"ro:null:1M", 0, false, true},
	{"memdiff:null:1M", 0, false, true},
	{"prwrap:null:1M", 0, true, true, true, true},
	{"delay:0:null:1M", 0, true, true},
	{"fault::null:1M", 0, true, true, true},
	{"crypt:xts-aes-256:KEY;holes=zero:null:1M", 0, true, true},
};

#define NR_WRAPPERS (sizeof(wrappers) / sizeof(*wrappers))

static const char *key_path(void)
{
	const char *path = tmppath("key");
	FILE *f = fopen(path, "w");

	for (unsigned i = 0; i < 64; i++)
		if (!f || fprintf(f, "%02x", i) < 0)
			exit(99);
	if (fclose(f) || chmod(path, 0600))
		exit(99);
	return path;
}

/* KEY in the text stands for a key file. */
static struct disk *wrap(const char *pattern, struct disk *child)
{
	const char *key = strstr(pattern, "KEY");
	char text[600];

	snprintf(text, sizeof(text), "%.*s%s%s", key ? (int)(key - pattern) : 0, pattern, key ? key_path() : "",
		 key ? key + 3 : pattern);
	return trap_wrap(text, child);
}

static const struct trap_options full = {
	.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE | DISK_REMOVABLE | DISK_ROTATIONAL,
	.discard = DISK_DISCARD_ZEROES,
};

/* ------------------------------------------------------------------ failures */

static const int statuses[] = {-ERANGE,	    -EINVAL,	 -EIO,	   -ENODATA, -EFAULT, -EROFS,
			       -EBADE,	    -ECANCELED,	 -EOPNOTSUPP, -ENOSPC,  -ENOMEM, -ENOMEDIUM};

#define NR_STATUSES (sizeof(statuses) / sizeof(*statuses))

static const struct initiator who = {.id = {1, 2, 3}, .port = 4};

static int call(struct disk *d, enum trap_op op, struct failure *failure)
{
	struct io io = {.who = &who, .failure = failure};
	struct reservation_request request = {.action = RESERVATION_REGISTER};
	struct reservation_report report;

	if (op == TRAP_RESERVE)
		return disk_reserve(d, &request, &io);
	if (op == TRAP_REPORT)
		return disk_report_reservations(d, &report, &io);
	return trap_ask(d, op, 4096, &io);
}

/* Does the wrapper hand the operation on? */
static bool passes(const struct wrapper *w, enum trap_op op)
{
	if (op == TRAP_WRITE || op == TRAP_DISCARD || op == TRAP_ZEROES)
		return w->changes_pass;
	if (op == TRAP_RESIZE)
		return w->resize_passes; /* slice: a window; ro: refused; memdiff: its own */
	if (op == TRAP_RESERVE || op == TRAP_REPORT)
		return !w->reserves;
	if (op == TRAP_FLUSH)
		return w->offset || strncmp(w->spec, "memdiff", 7);
	return true;
}

static void check_failure(struct trap *t, struct disk *d, const struct wrapper *w, enum trap_op op, int status)
{
	struct failure failure = {0};

	trap_reset(t);
	t->fail_medium = MEDIUM_APPLICATION_TAG_CHECK;
	trap_fail(t, BIT(op), 1, status);
	if (!CHECK_EQ(call(d, op, &failure), status))
		tap_diag("%s: operation %d, status %d", w->spec, op, status);
	CHECK_EQ(failure.status, status);
	CHECK_STR(failure.text, status == -ENODATA ? "trap: medium" : "trap: sprung");
	if (status == -ENODATA)
		CHECK_EQ(failure.medium, MEDIUM_APPLICATION_TAG_CHECK);
	CHECK(t->count == 1 || op == TRAP_PREFETCH); /* memdiff asks first what lies where */
	CHECK(t->log[0].who == &who);
	CHECK_EQ(call(d, op, NULL), 0); /* the next one works again */
}

static void test_failures_pass(void)
{
	for (size_t i = 0; i < NR_WRAPPERS; i++) {
		struct trap *t = trap_create(&full);
		struct disk *d = wrap(wrappers[i].spec, &t->disk);
		for (enum trap_op op = 0; op < TRAP_OPS; op++)
			for (size_t s = 0; s < NR_STATUSES && passes(&wrappers[i], op); s++)
				check_failure(t, d, &wrappers[i], op, statuses[s]);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

/* All wrappers on top of each other. */
static void test_failures_pass_a_pile(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap("memdiff:null:1M", &t->disk);
	const struct wrapper pile = {.spec = "pile"};

	d = wrap("ro:null:1M", wrap("slice:512:null:1M", wrap("crypt:xts-aes-256:KEY:null:1M", d)));
	for (size_t s = 0; s < NR_STATUSES; s++)
		check_failure(t, d, &pile, TRAP_READ, statuses[s]);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* A request that comes down in several: the first failure ends it, wherever it is. */
static void test_nth_of_a_split_read_fails(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap("memdiff:null:1M", &t->disk);
	static char memory[16 * 512];

	memset(memory, 'x', sizeof(memory));
	for (uint64_t block = 1; block < 16; block += 2)
		CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), block * 512, &io_plain), 0);
	for (unsigned nth = 1; nth <= 9; nth++) {
		trap_fail(t, BIT(TRAP_READ), nth, -ENODATA);
		CHECK_EQ(disk_read(d, &VEC_FLAT(memory, sizeof(memory)), 0, &io_plain), nth <= 8 ? -ENODATA : 0);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ calls */

static void test_offsets_and_flags(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap("slice:4096,64K:null:1M", wrap("slice:8192:null:1M", &t->disk));
	struct io io = {.flags = IO_FUA | IO_MAY_UNMAP | IO_FAST_ONLY, .who = &who};
	CLEANUP_EXTENTS struct extents e;
	char block[1024];

	disk_read(d, &VEC_FLAT(block, 1024), 512, &io_plain);
	disk_write(d, &VEC_FLAT(block, 1024), 65536 - 1024, &io);
	disk_write_zeroes(d, 0, 65536, &io);
	disk_discard(d, 1024, 512, &io_plain);
	disk_prefetch(d, 0, 512, &io_plain);
	extents_init(&e, 512, 1024, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].offset, 512);
	CHECK_EQ(t->count, 6);
	CHECK_EQ(t->log[0].offset, 12288 + 512);
	CHECK_EQ(t->log[1].offset, 12288 + 65536 - 1024);
	CHECK_EQ(t->log[1].flags, io.flags);
	CHECK(t->log[1].who == &who);
	CHECK_EQ(t->log[2].offset, 12288);
	CHECK_EQ(t->log[2].length, 65536);
	CHECK_EQ(t->log[2].flags, io.flags);
	CHECK_EQ(t->log[3].offset, 12288 + 1024);
	CHECK_EQ(t->log[4].offset, 12288);
	CHECK_EQ(t->log[5].offset, 12288 + 512);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* What would ask for bytes that are not the disk's own, or that it does not have, is not passed on. */
static void test_warming(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap("slice:4096,64K:null:1M", pass_create(&t->disk));

	disk_warm(d, 100, 4000, WARM_WAY);
	disk_warm(d, 65535, 1, WARM_DATA);
	disk_warm(d, 65535, 2, WARM_DATA);
	disk_warm(d, 65536, 1, WARM_DATA);
	disk_warm(d, 0, 0, WARM_DATA);
	disk_warm(d, UINT64_MAX, UINT64_MAX, WARM_DATA);
	CHECK_EQ(t->warms, 2);
	CHECK_EQ(t->warm[0].offset, 4096 + 100);
	CHECK_EQ(t->warm[0].length, 4000);
	CHECK_EQ(t->warm[0].flags, WARM_WAY);
	CHECK_EQ(t->warm[1].offset, 4096 + 65535);
	CHECK_EQ(t->warm[1].flags, WARM_DATA);
	d = wrap("delay:0:null:1M", d);
	disk_warm(d, 0, 512, WARM_DATA);
	CHECK_EQ(t->warms, 2);
	CHECK_EQ(t->count, 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* memdiff and ro never change what is below. */
static void test_nothing_is_written_below(void)
{
	static const char *const specs[] = {"memdiff:null:1M", "ro:null:1M"};

	for (size_t i = 0; i < 2; i++) {
		struct trap *t = trap_create(&full);
		struct disk *d = wrap(specs[i], &t->disk);
		for (enum trap_op op = 0; op < TRAP_OPS; op++)
			call(d, op, NULL);
		CHECK_EQ(t->counts[TRAP_WRITE] + t->counts[TRAP_DISCARD] + t->counts[TRAP_ZEROES] +
				 t->counts[TRAP_RESIZE], 0);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

static void test_reservations_and_eject(void)
{
	for (size_t i = 0; i < NR_WRAPPERS; i++) {
		struct trap *t = trap_create(&full);
		struct disk *d = wrap(wrappers[i].spec, &t->disk);
		struct reservation_request request = {.action = RESERVATION_PREEMPT, .key = 77};
		struct reservation_report report;
		struct io io = {.who = &who};
		if (wrappers[i].reserves) {
			CHECK_EQ(disk_close(d, NULL), 0);
			continue;
		}
		CHECK_EQ(disk_reserve(d, &request, &io), 0);
		CHECK_EQ(disk_report_reservations(d, &report, &io), 0);
		CHECK_EQ(report.generation, 7);
		CHECK_EQ(disk_eject(d, &io), 0);
		CHECK_EQ(t->count, 3);
		CHECK_EQ(t->log[0].length, 77);
		for (unsigned c = 0; c < 3; c++)
			CHECK(t->log[c].who == &who);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

/* ------------------------------------------------------------------ facts */

static void test_flags_stay_true(void)
{
	for (size_t i = 0; i < NR_WRAPPERS; i++) {
		struct trap *t = trap_create(&full);
		struct disk *d = wrap(wrappers[i].spec, &t->disk);
		CHECK(disk_info(d)->flags & DISK_REMOVABLE);
		CHECK(disk_info(d)->flags & DISK_ROTATIONAL);
		CHECK_EQ(disk_info(d)->discard, DISK_DISCARD_ZEROES);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

static const struct {
	uint32_t granularity, alignment, offset, expected;
} windows[] = {
	{4096, 0, 0, 0},	  {4096, 0, 512, 3584}, {4096, 512, 512, 0},	   {4096, 512, 1024, 3584},
	{65536, 4096, 66048, 3584}, {512, 0, 512, 0},	  {65536, 0, 65536 * 3, 0}, {3 * 512, 512, 1024, 1024},
};

/* A granule of the slice is a granule of the disk below. */
static void test_granules_of_a_slice(void)
{
	for (size_t i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
		struct trap *t = trap_create(&full);
		struct disk *d;
		char spec[64];
		t->disk.info.discard_granularity = windows[i].granularity;
		t->disk.info.discard_alignment = windows[i].alignment;
		snprintf(spec, sizeof(spec), "slice:%u:null:1M", windows[i].offset);
		d = wrap(spec, &t->disk);
		CHECK_EQ(disk_info(d)->discard_alignment, windows[i].expected);
		CHECK_EQ((windows[i].offset + disk_info(d)->discard_alignment) % windows[i].granularity,
			 windows[i].alignment % windows[i].granularity);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

/* Granules of more than 2 GiB: sums do not fit in 32 bits. */
static void test_huge_granules_of_a_slice(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d;

	t->disk.info.discard_granularity = 0xc0000000;
	t->disk.info.discard_alignment = 0xb0000000;
	d = wrap("slice:512:null:1M", &t->disk);
	CHECK_EQ(disk_info(d)->discard_alignment, 0xb0000000 - 512);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_id(void)
{
	static const char *const specs[] = {"memdiff:null:1M", "ro:null:1M", "prwrap:null:1M", "slice:0:null:1M",
					    "crypt:xts-aes-256:KEY:null:1M"};

	for (size_t i = 0; i < 5; i++) {
		struct trap *t = trap_create(&full);
		struct disk *d;
		t->disk.info.flags |= DISK_HAS_ID;
		memset(t->disk.info.id, 0x5a, 16);
		d = wrap(specs[i], &t->disk);
		CHECK_EQ(!!(disk_info(d)->flags & DISK_HAS_ID), i < 3); /* a window is not the disk, nor is what was decrypted */
		CHECK(i >= 3 || !memcmp(disk_info(d)->id, t->disk.info.id, 16));
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

static void test_promise_of_discard(void)
{
	for (enum disk_discard promise = DISK_DISCARD_IGNORED; promise <= DISK_DISCARD_ZEROES; promise++) {
		const struct trap_options options = {.discard = promise};
		struct trap *t = trap_create(&options);
		struct disk *d = wrap("slice:512:null:1M", &t->disk);
		CHECK_EQ(disk_info(d)->discard, promise);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

/* ------------------------------------------------------------------ sizes */

struct wait {
	struct disk *disk;
	uint64_t known, size;
	int status;
};

static void *wait_for_size(void *argument)
{
	struct wait *w = argument;

	w->status = disk_wait_resize(w->disk, w->known, WAIT_FOREVER, &w->size);
	return NULL;
}

/* The disk below changes by itself; who waits on the wrapper hears of it. */
static void check_size_passes(const char *spec, uint64_t below, uint64_t expected)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap(spec, &t->disk);
	struct wait w = {.disk = d, .known = disk_size(d)};
	pthread_t thread;

	if (pthread_create(&thread, NULL, wait_for_size, &w))
		abort();
	disk_set_size(&t->disk, below);
	pthread_join(thread, NULL);
	CHECK_EQ(w.status, 0);
	if (!CHECK_EQ(w.size, expected))
		tap_diag("%s", spec);
	CHECK_EQ(disk_size(d), expected);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_sizes_pass(void)
{
	check_size_passes("ro:null:1M", 2 << 20, 2 << 20);
	check_size_passes("ro:null:1M", 4096, 4096);
	check_size_passes("delay:0:null:1M", 2 << 20, 2 << 20);
	check_size_passes("fault:;cache:null:1M", 2 << 20, 2 << 20);
	check_size_passes("slice:4096:null:1M", 2 << 20, (2 << 20) - 4096);
	check_size_passes("slice:4096:null:1M", 8192, 4096);
	check_size_passes("slice:4096,8192:null:1M", 8192, 4096);
	check_size_passes("slice:4096,8192:null:1M", 4096, 0);
	check_size_passes("slice:4096,8192:null:1M", 512, 0);
	check_size_passes("memdiff:null:1M", 2 << 20, 2 << 20);
	check_size_passes("crypt:xts-aes-256:KEY:null:1M", 2 << 20, 2 << 20);
	check_size_passes("crypt:xts-aes-256:KEY:null:1M", 4096, 4096);
}

/* A window that was cut off, and comes back. */
static void test_window_outside(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap("slice:4096,8192:null:1M", &t->disk);
	char block[512];

	disk_set_size(&t->disk, 512);
	CHECK_EQ(disk_read(d, &VEC_FLAT(block, 512), 0, &io_plain), -ERANGE);
	CHECK_EQ(disk_read(d, &VEC_FLAT(block, 0), 0, &io_plain), 0);
	disk_set_size(&t->disk, 1 << 20);
	CHECK_EQ(disk_size(d), 8192);
	CHECK_EQ(disk_read(d, &VEC_FLAT(block, 512), 8192 - 512, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* A memdiff keeps its size when the disk below shrinks, and reads zeroes there. */
static void test_memdiff_over_a_shrinking_disk(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = wrap("memdiff:null:1M", &t->disk);
	char block[1024];

	memset(t->content, 'x', t->capacity);
	disk_set_size(&t->disk, 4096);
	CHECK_EQ(disk_size(d), 1 << 20);
	CHECK_EQ(disk_read(d, &VEC_FLAT(block, 1024), 4096 - 512, &io_plain), 0);
	CHECK(block[511] == 'x' && memory_is_zero(block + 512, 512));
	CHECK_EQ(disk_close(d, NULL), 0);
}

int main(void)
{
	TAP_RUN(test_failures_pass);
	TAP_RUN(test_failures_pass_a_pile);
	TAP_RUN(test_nth_of_a_split_read_fails);
	TAP_RUN(test_offsets_and_flags);
	TAP_RUN(test_warming);
	TAP_RUN(test_nothing_is_written_below);
	TAP_RUN(test_reservations_and_eject);
	TAP_RUN(test_flags_stay_true);
	TAP_RUN(test_granules_of_a_slice);
	TAP_RUN(test_huge_granules_of_a_slice);
	TAP_RUN(test_id);
	TAP_RUN(test_promise_of_discard);
	TAP_RUN(test_sizes_pass);
	TAP_RUN(test_window_outside);
	TAP_RUN(test_memdiff_over_a_shrinking_disk);
	return TAP_DONE();
}

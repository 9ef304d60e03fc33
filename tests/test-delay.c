/* SPDX-License-Identifier: BSD-3-Clause */
/* Delays: how long each operation waits, by which distribution, again the same by a seed, and side by side. */
#include <errno.h>
#include <pthread.h>

#include "core/chance.h"
#include "core/loop.h"
#include "core/open.h"
#include "core/wait.h"
#include "decorators/schedule.h"
#include "tests/loops.h"

#define MS UINT64_C(1000000)

/* ------------------------------------------------------------------ what the disk sleeps */

void __real_wait_sleep(uint64_t ns);
void __wrap_wait_sleep(uint64_t ns);

/* The test's own thread is the only one that sleeps while it is `recording`. */
static struct {
	bool recording;
	unsigned count;
	uint64_t last, slept[4096];
} naps;

void __wrap_wait_sleep(uint64_t ns)
{
	if (!naps.recording) {
		__real_wait_sleep(ns);
		return;
	}
	naps.last = ns;
	naps.slept[naps.count++ % 4096] = ns;
}

static struct disk *open_disk(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (!CHECK_EQ(disk_open(spec, 0, &d, &err), 0)) {
		tap_diag("%s", error_text(&err));
		exit(99);
	}
	memset(&naps, 0, sizeof(naps));
	naps.recording = true;
	return d;
}

static void close_disk(struct disk *d)
{
	naps.recording = true;
	CHECK_EQ(disk_close(d, NULL), 0);
	naps.recording = false;
}

static char block[4096];

static uint64_t nap_of_read(struct disk *d)
{
	naps.last = 0;
	CHECK_EQ(disk_read(d, &VEC_FLAT(block, 512), 0, &io_plain), 0);
	return naps.last;
}

static uint64_t nap_of_write(struct disk *d)
{
	naps.last = 0;
	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 512), 512, &io_plain), 0);
	return naps.last;
}

static uint64_t nap_of_flush(struct disk *d)
{
	naps.last = 0;
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	return naps.last;
}

static uint64_t nap_of_discard(struct disk *d)
{
	naps.last = 0;
	CHECK_EQ(disk_discard(d, 0, 4096, &io_plain), 0);
	return naps.last;
}

static uint64_t nap_of_zeroes(struct disk *d)
{
	naps.last = 0;
	CHECK_EQ(disk_write_zeroes(d, 0, 4096, &io_plain), 0);
	return naps.last;
}

/* ------------------------------------------------------------------ one time for all, and one for each */

static void test_every_request_waits(void)
{
	struct disk *d = open_disk("delay:3:mem:1M");

	CHECK_EQ(nap_of_read(d), 3 * MS);
	CHECK_EQ(nap_of_write(d), 3 * MS);
	CHECK_EQ(nap_of_flush(d), 3 * MS);
	CHECK_EQ(nap_of_discard(d), 3 * MS);
	CHECK_EQ(nap_of_zeroes(d), 3 * MS);
	CHECK_EQ(naps.count, 5);
	close_disk(d);
}

static void test_questions_and_hints_do_not_wait(void)
{
	struct disk *d = open_disk("delay:3:mem:1M");
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 0, 4096, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(disk_prefetch(d, 0, 4096, &io_plain), 0);
	CHECK_EQ(disk_resize(d, 2 << 20, &io_plain), 0);
	CHECK_EQ(disk_size(d), 2 << 20);
	json_decref(disk_describe(d));
	CHECK_EQ(naps.count, 0);
	close_disk(d);
}

static void test_operations_have_their_own_times(void)
{
	struct disk *d = open_disk("delay:1;read=2;write=300us;flush=4s;discard=5000ns;zeroes=0:mem:1M");

	CHECK_EQ(nap_of_read(d), 2 * MS);
	CHECK_EQ(nap_of_write(d), 300000);
	CHECK_EQ(nap_of_flush(d), 4000 * MS);
	CHECK_EQ(nap_of_discard(d), 5000);
	CHECK_EQ(nap_of_zeroes(d), 0);
	CHECK_EQ(naps.count, 4);
	close_disk(d);
}

/* What is set for all does not count where an operation has a time of its own. */
static void test_own_time_is_all_there_is(void)
{
	struct disk *d = open_disk("delay:10;jitter=5;write=1;zeroes-p99=90:mem:1M");
	bool differs = false;

	for (unsigned i = 0; i < 100; i++) {
		uint64_t nap = nap_of_read(d);
		CHECK(nap >= 5 * MS && nap <= 15 * MS);
		differs = differs || nap != 10 * MS;
		CHECK_EQ(nap_of_write(d), 1 * MS);
	}
	CHECK(differs);
	differs = false;
	for (unsigned i = 0; i < 100; i++)
		differs = nap_of_zeroes(d) > 15 * MS || differs;
	CHECK(differs);
	close_disk(d);
}

static void test_no_time_is_no_wait(void)
{
	struct disk *d = open_disk("delay:0:mem:1M");

	CHECK_EQ(nap_of_read(d) + nap_of_write(d) + nap_of_flush(d) + nap_of_discard(d) + nap_of_zeroes(d), 0);
	CHECK_EQ(naps.count, 0);
	close_disk(d);
}

/* FUA of a disk that does not know it is a write and a flush, and both wait. */
static void test_fua(void)
{
	struct disk *d = open_disk("delay:1;flush=7:null:1M");
	struct io fua = {.flags = IO_FUA};
	unsigned naps_expected = disk_info(d)->flags & DISK_FUA ? 1 : 2;

	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 512), 0, &fua), 0);
	CHECK_EQ(naps.count, naps_expected);
	close_disk(d);
}

/* ------------------------------------------------------------------ distributions */

static void test_jitter_is_even(void)
{
	const struct schedule s = {.time = 1000, .jitter = 1000};
	uint64_t low = UINT64_MAX, high = 0, sum = 0;

	for (unsigned i = 0; i < 100000; i++) {
		uint64_t ns = schedule_draw(&s, chance_at(1, 2, i));
		low = ns < low ? ns : low;
		high = ns > high ? ns : high;
		sum += ns;
	}
	CHECK_EQ(low, 0);
	CHECK_EQ(high, 2000);
	CHECK(sum / 100000 > 985 && sum / 100000 < 1015);
}

/* Half are below the time, 99 in 100 below the p99: of 100,000, with room for six standard deviations. */
static void test_tail_is_where_it_was_ordered(void)
{
	const struct schedule s = {.time = MS, .p99 = 40 * MS};
	unsigned below_median = 0, below_p99 = 0, below_tenth = 0;

	for (unsigned i = 0; i < 100000; i++) {
		uint64_t ns = schedule_draw(&s, chance_at(3, 0, i));
		below_median += ns < s.time;
		below_p99 += ns < s.p99;
		below_tenth += ns < MS / 10;
	}
	CHECK(below_median > 49050 && below_median < 50950);
	CHECK(below_p99 > 98811 && below_p99 < 99189);
	CHECK(below_tenth > 6800 && below_tenth < 7900); /* 7.33 %: ln(10) is 1.452 deviations of ln(40)/2.326 */
}

static void test_no_wait_is_longer_than_the_longest(void)
{
	const struct schedule s = {.time = SCHEDULE_LONGEST_NS, .p99 = SCHEDULE_LONGEST_NS};
	const struct schedule wide = {.time = 1000 * MS, .p99 = SCHEDULE_LONGEST_NS};

	CHECK_EQ(schedule_draw(&s, 12345), SCHEDULE_LONGEST_NS);
	for (unsigned i = 0; i < 10000; i++)
		CHECK(schedule_draw(&wide, chance_at(0, 0, i)) <= SCHEDULE_LONGEST_NS);
	CHECK(schedule_draw(&wide, 0) <= SCHEDULE_LONGEST_NS);
	CHECK(schedule_draw(&wide, UINT64_MAX) <= SCHEDULE_LONGEST_NS);
}

static void test_no_two_numbers_are_the_same(void)
{
	for (unsigned i = 0; i < 1000; i++) {
		CHECK(chance_at(1, 1, i) != chance_at(1, 1, i + 1));
		CHECK(chance_at(1, 1, i) != chance_at(1, 2, i));
		CHECK(chance_at(1, 1, i) != chance_at(2, 1, i));
	}
}

/* ------------------------------------------------------------------ again the same */

/* Reads are not moved by writes in between. */
static void test_same_seed_same_waits(void)
{
	struct disk *a = open_disk("delay:5;p99=50;seed=7:mem:1M");
	uint64_t first[50];
	struct disk *b;

	for (unsigned i = 0; i < 50; i++)
		first[i] = nap_of_read(a);
	close_disk(a);
	b = open_disk("delay:5;p99=50;seed=7:mem:1M");
	for (unsigned i = 0; i < 50; i++) {
		CHECK(nap_of_write(b) != first[i]); /* a stream of its own */
		CHECK_EQ(nap_of_read(b), first[i]);
	}
	close_disk(b);
}

static void test_other_seed_other_waits(void)
{
	struct disk *a = open_disk("delay:5;p99=50;seed=7:mem:1M"), *b = open_disk("delay:5;p99=50;seed=8:mem:1M");
	unsigned same = 0;

	for (unsigned i = 0; i < 50; i++)
		same += nap_of_read(a) == nap_of_read(b);
	CHECK(same < 3);
	close_disk(a);
	close_disk(b);
}

/* Without a seed there is one all the same, and describe tells it. */
static void test_described_seed_replays(void)
{
	struct disk *a = open_disk("delay:5;p99=50:mem:1M"), *b;
	json_t *o = disk_describe(a);
	char spec[100];

	snprintf(spec, sizeof(spec), "delay:5;p99=50;seed=%s:mem:1M", json_string_value(json_object_get(o, "seed")));
	b = open_disk(spec);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(nap_of_read(a), nap_of_read(b));
	json_decref(o);
	close_disk(a);
	close_disk(b);
}

static json_int_t changes_of(struct disk *d)
{
	json_t *o = disk_describe(d);
	json_int_t n = json_integer_value(json_object_get(json_object_get(o, "control"), "changes"));

	json_decref(o);
	return n;
}

/* A seed that comes by the control file begins all streams anew. */
static void test_changed_seed_replays(void)
{
	char spec[400], path[300];
	uint64_t first[20];
	struct disk *d;
	FILE *file;

	snprintf(path, sizeof(path), "%s", tmppath("control"));
	snprintf(spec, sizeof(spec), "delay:5;p99=50;seed=7;control=%s:mem:1M", path);
	d = open_disk(spec);
	for (unsigned i = 0; i < 20; i++)
		first[i] = nap_of_read(d);
	file = fopen(path, "w");
	REQUIRE(file && fputs("5;p99=50;seed=7\n", file) >= 0 && !fclose(file));
	for (unsigned tries = 0; changes_of(d) < 1 && tries < 10000; tries++)
		__real_wait_sleep(MS);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(nap_of_read(d), first[i]);
	close_disk(d);
}

static void test_described_times(void)
{
	struct disk *d = open_disk("delay:5;read=2;write-p99=50:mem:1M");
	json_t *o = disk_describe(d), *delays = json_object_get(o, "delays");

	CHECK_EQ(json_integer_value(json_object_get(json_object_get(delays, "read"), "time_ns")), 2 * MS);
	CHECK_EQ(json_integer_value(json_object_get(json_object_get(delays, "write"), "p99_ns")), 50 * MS);
	CHECK_EQ(json_integer_value(json_object_get(json_object_get(delays, "flush"), "time_ns")), 5 * MS);
	json_decref(o);
	close_disk(d);
}

/* ------------------------------------------------------------------ what is refused */

static void check_refused(const char *spec, const char *says)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	CHECK_EQ(disk_open(spec, 0, &d, &err), -EINVAL);
	if (!CHECK(strstr(error_text(&err), says) != NULL))
		tap_diag("%s: %s", spec, error_text(&err));
}

static void test_refused_settings(void)
{
	check_refused("delay::mem:1M", "expected TIME");
	check_refused("delay:1;jitter=2:mem:1M", "read: jitter of 2ms is more than the time, 1ms");
	check_refused("delay:5;p99=2:mem:1M", "read: p99 of 2ms is less than the time, 5ms");
	check_refused("delay:0;p99=2:mem:1M", "read: p99 of 2ms needs a time above 0");
	check_refused("delay:5;jitter=1;p99=9:mem:1M", "read: jitter and p99 exclude each other");
	check_refused("delay:5;flush=4;flush-jitter=5:mem:1M", "flush: jitter of 5ms is more than the time, 4ms");
	check_refused("delay:5;zeroes-p99=4:mem:1M", "zeroes: p99 of 4ms");
	check_refused("delay:3601s:mem:1M", "3600s");
	check_refused("delay:soon:mem:1M", "soon");
}

/* ------------------------------------------------------------------ side by side */

static void *read_in_thread(void *disk)
{
	char memory[512];

	CHECK_EQ(disk_read(disk, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	return NULL;
}

/* Sixteen waits of 200 ms take less than eight of them one after the other would. */
static void test_threads_wait_side_by_side(void)
{
	struct disk *d = open_disk("delay:200:null:1M");
	uint64_t begin = wait_now();
	pthread_t threads[16];

	naps.recording = false;
	for (unsigned i = 0; i < 16; i++)
		if (pthread_create(&threads[i], NULL, read_in_thread, d))
			abort();
	for (unsigned i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	CHECK(wait_now() - begin >= 200 * MS);
	CHECK(wait_now() - begin < 16 * 200 * MS / 2);
	close_disk(d);
}

static void read_in_fiber(void *disk)
{
	read_in_thread(disk);
}

static void test_fibers_wait_side_by_side(void)
{
	struct disk *d = open_disk("delay:50:null:1M");
	uint64_t begin = wait_now();

	naps.recording = false;
	run_fibers(&mode_ring, 64, read_in_fiber, d);
	CHECK(wait_now() - begin >= 50 * MS);
	CHECK(wait_now() - begin < 64 * 50 * MS / 4);
	close_disk(d);
}

int main(void)
{
	TAP_RUN(test_every_request_waits);
	TAP_RUN(test_questions_and_hints_do_not_wait);
	TAP_RUN(test_operations_have_their_own_times);
	TAP_RUN(test_own_time_is_all_there_is);
	TAP_RUN(test_no_time_is_no_wait);
	TAP_RUN(test_fua);
	TAP_RUN(test_jitter_is_even);
	TAP_RUN(test_tail_is_where_it_was_ordered);
	TAP_RUN(test_no_wait_is_longer_than_the_longest);
	TAP_RUN(test_no_two_numbers_are_the_same);
	TAP_RUN(test_same_seed_same_waits);
	TAP_RUN(test_other_seed_other_waits);
	TAP_RUN(test_described_seed_replays);
	TAP_RUN(test_changed_seed_replays);
	TAP_RUN(test_described_times);
	TAP_RUN(test_refused_settings);
	TAP_RUN(test_threads_wait_side_by_side);
	TAP_RUN(test_fibers_wait_side_by_side);
	return TAP_DONE();
}

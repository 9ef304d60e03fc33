/* SPDX-License-Identifier: BSD-3-Clause */
/* The seam: what core/disk.c does for every node, and what core/node.c puts where a kind leaves something out. */
#include "core/disk.h"

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>

#include "core/loop.h"
#include "core/wait.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define DEPTH 64
#define BIT(op) (1u << (op))

static char memory[3 << 20];

static void close_good(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(disk_close(d, &err), 0);
	CHECK_STR(err.text, NULL);
}

static struct disk *pile(struct disk *d, unsigned count)
{
	while (count--)
		d = pass_create(d);
	return d;
}

/* ------------------------------------------------------------------ forwarding */

/* The only call that came down is this one. */
static void expect_call(struct trap *t, enum trap_op op, uint64_t offset, uint64_t length, const struct io *io)
{
	CHECK_EQ(t->count, 1);
	CHECK_EQ(t->log[0].op, op);
	CHECK_EQ(t->log[0].offset, offset);
	CHECK_EQ(t->log[0].length, length);
	CHECK_EQ(t->log[0].flags, io->flags);
	CHECK(t->log[0].who == io->who);
	trap_reset(t);
}

static void send_all(struct disk *d, struct trap *t)
{
	const struct initiator who = {.port = 9};
	struct io io = {.who = &who}, all = {.flags = IO_FUA | IO_MAY_UNMAP | IO_FAST_ONLY, .who = &who};
	struct io fua = {.flags = IO_FUA, .who = &who};
	CLEANUP_EXTENTS struct extents e;

	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 1024), 512, &io), 0);
	expect_call(t, TRAP_READ, 512, 1024, &io);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 1024, &fua), 0);
	expect_call(t, TRAP_WRITE, 1024, 512, &fua);
	CHECK_EQ(disk_flush(d, &io), 0);
	expect_call(t, TRAP_FLUSH, 0, 0, &io);
	CHECK_EQ(disk_discard(d, 512, 4096, &fua), 0);
	expect_call(t, TRAP_DISCARD, 512, 4096, &fua);
	CHECK_EQ(disk_write_zeroes(d, 512, 2048, &all), 0);
	expect_call(t, TRAP_ZEROES, 512, 2048, &all);
	extents_init(&e, 1024, 512, 5);
	CHECK_EQ(disk_extents(d, &e, &io), 0);
	expect_call(t, TRAP_EXTENTS, 1024, 512, &io);
	CHECK_EQ(disk_prefetch(d, 0, 512, &io), 0);
	expect_call(t, TRAP_PREFETCH, 0, 512, &io);
}

static void send_all_others(struct disk *d, struct trap *t)
{
	const struct initiator who = {.port = 9};
	struct reservation_request request = {.action = RESERVATION_PREEMPT, .key = 5};
	struct reservation_report report;
	struct io io = {.who = &who};

	CHECK_EQ(disk_resize(d, 4096, &io), 0);
	expect_call(t, TRAP_RESIZE, 0, 4096, &io);
	CHECK_EQ(disk_size(d), 4096);
	CHECK_EQ(disk_eject(d, &io), 0);
	expect_call(t, TRAP_EJECT, 0, 0, &io);
	CHECK_EQ(disk_reserve(d, &request, &io), 0);
	expect_call(t, TRAP_RESERVE, RESERVATION_PREEMPT, 5, &io);
	CHECK_EQ(disk_report_reservations(d, &report, &io), 0);
	CHECK_EQ(report.generation, 7);
	expect_call(t, TRAP_REPORT, 0, 0, &io);
}

static const struct trap_options full = {
	.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE,
	.discard = DISK_DISCARD_ZEROES,
};

static void test_everything_passes_64_nodes(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pile(&t->disk, DEPTH);

	send_all(d, t);
	send_all_others(d, t);
	CHECK_EQ(disk_info(d)->flags, full.flags);
	CHECK(!memcmp(disk_info(d), disk_info(&t->disk), sizeof(struct disk_info)));
	close_good(d);
}

static void test_contract_over_64_nodes(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pile(&t->disk, DEPTH);

	/* the trap's memory has no locks of its own */
	CHECK_EQ(contract_run_on(&(struct contract){.name = "64 nodes",
						    .without = CONTRACT_THREADS | CONTRACT_FIBERS | CONTRACT_RESIZE},
				 d), 0);
	close_good(d);
}

/* ------------------------------------------------------------------ what a leaf leaves out */

static void test_leaf_that_only_reads(void)
{
	const struct trap_options bare = {.flags = DISK_RESIZABLE, .without = ~BIT(TRAP_READ)};
	struct trap *t = trap_create(&bare);
	struct reservation_request request = {.action = RESERVATION_CLEAR};
	struct reservation_report report;
	struct disk *d = &t->disk;
	CLEANUP_EXTENTS struct extents e;

	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain), -EROFS);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, 512, &io_plain), 0);
	CHECK_EQ(disk_prefetch(d, 0, 512, &io_plain), 0);
	CHECK_EQ(disk_write_zeroes(d, 0, 512, &io_plain), -EROFS);
	CHECK_EQ(disk_resize(d, 512, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_eject(d, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_reserve(d, &request, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_report_reservations(d, &report, &io_plain), -EOPNOTSUPP);
	extents_init(&e, 512, 4096, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].flags, EXTENT_DATA);
	CHECK_EQ(e.list[0].length, 4096);
	CHECK_EQ(t->count, 0);
	close_good(d);
}

/* Each length around the size of a piece and of a request; nothing outside the range is touched. */
static void check_zeroed(struct trap *t, uint64_t offset, uint64_t length)
{
	memset(t->content, 0xaa, t->capacity);
	CHECK_EQ(disk_write_zeroes(&t->disk, offset, length, &io_plain), 0);
	for (uint64_t at = 0; at < t->capacity; at++) {
		bool inside = at >= offset && at < offset + length;
		if (t->content[at] != (inside ? 0 : 0xaa)) {
			CHECK(!"zeroes exactly where they were asked for");
			return;
		}
	}
}

static void test_zeroes_written_out(void)
{
	const struct trap_options plain = {.size = 3 << 20, .without = BIT(TRAP_ZEROES)};
	struct trap *t = trap_create(&plain);

	check_zeroed(t, 0, 512);
	check_zeroed(t, 512, 4096);
	check_zeroed(t, 512, (1 << 20) - 512);
	check_zeroed(t, 512, 1 << 20);
	check_zeroed(t, 512, (1 << 20) + 512);
	check_zeroed(t, 0, 3 << 20);
	trap_reset(t);
	CHECK_EQ(disk_write_zeroes(&t->disk, 0, (2 << 20) + 512, &io_plain), 0);
	CHECK_EQ(t->counts[TRAP_WRITE], 3);
	CHECK_EQ(t->log[2].length, 512);
	close_good(&t->disk);
}

static void test_zeroes_written_out_stop_at_a_failure(void)
{
	const struct trap_options plain = {.size = 3 << 20, .without = BIT(TRAP_ZEROES)};
	struct trap *t = trap_create(&plain);
	struct io fua = {.flags = IO_FUA};

	trap_fail(t, BIT(TRAP_WRITE), 2, -ENOSPC);
	CHECK_EQ(disk_write_zeroes(&t->disk, 0, 3 << 20, &fua), -ENOSPC);
	CHECK_EQ(t->counts[TRAP_WRITE], 2);
	CHECK_EQ(t->counts[TRAP_FLUSH], 0);
	close_good(&t->disk);
}

static void test_zeroes_written_out_with_fua(void)
{
	const struct trap_options plain = {.size = 3 << 20, .flags = DISK_FUA, .without = BIT(TRAP_ZEROES)};
	struct trap *t = trap_create(&plain);
	struct io fua = {.flags = IO_FUA};

	CHECK_EQ(disk_write_zeroes(&t->disk, 0, 3 << 20, &fua), 0);
	CHECK_EQ(t->counts[TRAP_WRITE], 3);
	CHECK_EQ(t->counts[TRAP_FLUSH], 1); /* one at the end is enough */
	CHECK_EQ(t->log[3].op, TRAP_FLUSH);
	trap_fail(t, BIT(TRAP_FLUSH), 1, -EIO);
	CHECK_EQ(disk_write_zeroes(&t->disk, 0, 512, &fua), -EIO);
	close_good(&t->disk);
}

/* ------------------------------------------------------------------ FUA and the other flags */

static int change(struct disk *d, enum trap_op op, const struct io *io)
{
	if (op == TRAP_WRITE)
		return disk_write(d, &VEC_FLAT(memory, 512), 0, io);
	return op == TRAP_DISCARD ? disk_discard(d, 0, 512, io) : disk_write_zeroes(d, 0, 512, io);
}

static const enum trap_op changes[] = {TRAP_WRITE, TRAP_DISCARD, TRAP_ZEROES};

static void test_fua_becomes_a_flush(void)
{
	const struct trap_options no_fua = {.discard = DISK_DISCARD_ZEROES};
	struct trap *t = trap_create(&no_fua);
	struct io fua = {.flags = IO_FUA};

	for (size_t i = 0; i < 3; i++) {
		CHECK_EQ(change(&t->disk, changes[i], &fua), 0);
		CHECK_EQ(t->count, 2);
		CHECK_EQ(t->log[0].op, changes[i]);
		CHECK_EQ(t->log[0].flags, 0);
		CHECK_EQ(t->log[1].op, TRAP_FLUSH);
		CHECK_EQ(t->log[1].flags, 0);
		trap_reset(t);
		CHECK_EQ(change(&t->disk, changes[i], &io_plain), 0);
		CHECK_EQ(t->count, 1);
		trap_reset(t);
	}
	close_good(&t->disk);
}

static void test_fua_failures(void)
{
	const struct trap_options no_fua = {.discard = DISK_DISCARD_ZEROES};
	struct trap *t = trap_create(&no_fua);
	struct io fua = {.flags = IO_FUA};

	for (size_t i = 0; i < 3; i++) {
		trap_fail(t, BIT(changes[i]), 1, -ENOSPC);
		CHECK_EQ(change(&t->disk, changes[i], &fua), -ENOSPC);
		CHECK_EQ(t->counts[TRAP_FLUSH], 0);
		trap_fail(t, BIT(TRAP_FLUSH), 1, -EIO);
		CHECK_EQ(change(&t->disk, changes[i], &fua), -EIO);
		trap_reset(t);
	}
	close_good(&t->disk);
}

/* Once on the way down is enough, whoever does it. */
static void test_fua_through_nodes_that_lack_it(void)
{
	const struct trap_options no_fua = {.discard = DISK_DISCARD_ZEROES};
	struct trap *t = trap_create(&no_fua);
	struct disk *d = pile(&t->disk, 3);
	struct io fua = {.flags = IO_FUA};

	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &fua), 0);
	CHECK_EQ(t->counts[TRAP_WRITE], 1);
	CHECK_EQ(t->counts[TRAP_FLUSH], 1);
	close_good(d);
}

static void test_fua_that_is_known_goes_down(void)
{
	struct trap *t = trap_create(&full);
	struct io fua = {.flags = IO_FUA};

	for (size_t i = 0; i < 3; i++) {
		CHECK_EQ(change(&t->disk, changes[i], &fua), 0);
		CHECK_EQ(t->count, 1);
		CHECK_EQ(t->log[0].flags, IO_FUA);
		trap_reset(t);
	}
	close_good(&t->disk);
}

static void test_fast_only_without_fast_zero(void)
{
	const struct trap_options slow = {.flags = DISK_FUA};
	struct trap *t = trap_create(&slow);
	struct failure failure = {0};
	struct io fast = {.flags = IO_FAST_ONLY | IO_FUA, .failure = &failure};

	CHECK_EQ(disk_write_zeroes(&t->disk, 0, 512, &fast), -EOPNOTSUPP);
	CHECK_EQ(t->count, 0);
	CHECK(strstr(failure.text, "fast") != NULL);
	CHECK_EQ(disk_write_zeroes(&t->disk, 1 << 20, 512, &fast), -ERANGE);
	close_good(&t->disk);
}

static void test_ignored_discard_stays_above(void)
{
	const struct trap_options ignores = {.discard = DISK_DISCARD_IGNORED};
	struct trap *t = trap_create(&ignores);
	struct io fua = {.flags = IO_FUA};

	CHECK_EQ(disk_discard(&t->disk, 0, 512, &fua), 0);
	CHECK_EQ(disk_discard(&t->disk, 0, 1 << 20, &io_plain), 0);
	CHECK_EQ(disk_discard(&t->disk, 512, 1 << 20, &io_plain), -ERANGE);
	CHECK_EQ(t->count, 0);
	close_good(&t->disk);
}

static void test_nothing_is_done_for_length_zero(void)
{
	struct trap *t = trap_create(&full);
	struct io fua = {.flags = IO_FUA};
	CLEANUP_EXTENTS struct extents e;

	extents_init(&e, 1 << 20, 0, 1);
	CHECK_EQ(disk_read(&t->disk, &VEC_FLAT(memory, 0), 1 << 20, &io_plain), 0);
	CHECK_EQ(disk_write(&t->disk, &VEC_FLAT(memory, 0), 0, &fua), 0);
	CHECK_EQ(disk_discard(&t->disk, 0, 0, &fua), 0);
	CHECK_EQ(disk_write_zeroes(&t->disk, 0, 0, &fua), 0);
	CHECK_EQ(disk_prefetch(&t->disk, 0, 0, &io_plain), 0);
	CHECK_EQ(disk_extents(&t->disk, &e, &io_plain), 0);
	CHECK_EQ(e.count, 0);
	CHECK_EQ(t->count, 0);
	close_good(&t->disk);
}

static void test_read_only(void)
{
	const struct trap_options ro = {.flags = DISK_READ_ONLY | DISK_RESIZABLE, .discard = DISK_DISCARD_IGNORED};
	struct trap *t = trap_create(&ro);

	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(change(&t->disk, changes[i], &io_plain), -EROFS);
	CHECK_EQ(disk_resize(&t->disk, 512, &io_plain), -EROFS);
	CHECK_EQ(t->count, 0);
	close_good(&t->disk);
}

/* ------------------------------------------------------------------ geometry */

static int publish(uint32_t block, uint32_t physical, uint32_t granularity, uint32_t alignment, uint64_t size,
		   struct error *err)
{
	static const struct disk_ops nothing;
	struct trap *t = trap_create(&(struct trap_options){0});
	struct disk *child = &t->disk, *d = disk_new(sizeof(*d), "odd", &nothing, &child, 1);
	int status;

	d->info = (struct disk_info){.block_size = block,
				     .physical_block_size = physical,
				     .discard_granularity = granularity,
				     .discard_alignment = alignment};
	status = disk_publish(d, size, err);
	if (status) {
		disk_drop_new(d);
		d = child;
	}
	close_good(d);
	return status;
}

static void test_geometry_is_checked(void)
{
	static const struct {
		uint32_t block, physical, granularity, alignment;
		uint64_t size;
		int status;
		const char *text;
	} rows[] = {
		{512, 512, 512, 0, 512, 0, NULL},
		{65536, 65536, 65536, 0, 65536, 0, NULL},
		{512, 4096, 1 << 30, 512, 512, 0, NULL},
		{512, 512, 512, 0, (UINT64_C(1) << 63) - 512, 0, NULL},
		{0, 512, 512, 0, 512, -EINVAL, "block size of 0 bytes"},
		{256, 512, 512, 0, 512, -EINVAL, "block size of 256 bytes"},
		{1000, 1024, 1000, 0, 1000, -EINVAL, "block size of 1000 bytes"},
		{131072, 131072, 131072, 0, 131072, -EINVAL, "block size of 131072 bytes"},
		{4096, 512, 4096, 0, 4096, -EINVAL, "physical block size of 512 bytes"},
		{512, 1000, 512, 0, 512, -EINVAL, "physical block size of 1000 bytes"},
		{512, 512, 0, 0, 512, -EINVAL, "discard granularity of 0 bytes"},
		{4096, 4096, 512, 0, 4096, -EINVAL, "discard granularity of 512 bytes"},
		{512, 512, 512, 512, 512, -EINVAL, "alignment 512"},
		{512, 512, 512, 0, 0, -EINVAL, "disk size is 0"},
		{512, 512, 512, 0, 1000, -EINVAL, "1000 bytes is not a multiple of the block size, 512 bytes"},
		{512, 512, 512, 0, UINT64_C(1) << 63, -ERANGE, "the largest is 9223372036854775296 bytes"},
		{4096, 4096, 4096, 0, UINT64_MAX, -ERANGE, "the largest is 9223372036854771712 bytes"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		CLEANUP_ERROR struct error err = {0};
		CHECK_EQ(publish(rows[i].block, rows[i].physical, rows[i].granularity, rows[i].alignment,
				 rows[i].size, &err), rows[i].status);
		if (rows[i].text && !CHECK(strstr(error_text(&err), rows[i].text) != NULL))
			tap_diag("%s", error_text(&err));
	}
}

/* ------------------------------------------------------------------ counters */

static void test_counters(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pass_create(&t->disk);
	struct stat_totals s;

	for (unsigned i = 0; i < 5; i++)
		disk_read(d, &VEC_FLAT(memory, 1024), 0, &io_plain);
	disk_read(d, &VEC_FLAT(memory, 512), 1 << 20, &io_plain);
	trap_fail(t, BIT(TRAP_WRITE), 1, -EIO);
	disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain);
	disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain);
	disk_flush(d, &io_plain);
	disk_discard(d, 0, 4096, &io_plain);
	disk_stats(d, &s);
	CHECK_EQ(s.started[STAT_READ], 6);
	CHECK_EQ(s.finished[STAT_READ], 6);
	CHECK_EQ(s.errors[STAT_READ], 1);
	CHECK_EQ(s.bytes[STAT_READ], 5 * 1024);
	CHECK_EQ(s.started[STAT_WRITE], 2);
	CHECK_EQ(s.errors[STAT_WRITE], 1);
	CHECK_EQ(s.bytes[STAT_WRITE], 512);
	CHECK_EQ(s.finished[STAT_FLUSH], 1);
	CHECK_EQ(s.bytes[STAT_DISCARD], 4096);
	CHECK_EQ(s.started[STAT_EXTENTS], 0);
	disk_stats(&t->disk, &s);
	CHECK_EQ(s.started[STAT_READ], 5); /* the refused one did not come down */
	close_good(d);
}

#define MANY_THREADS 100 /* more than there are slots */
#define EACH (10000 / contract_slowness())

struct crowd {
	struct disk *disk;
	pthread_barrier_t barrier;
};

static void *read_in_crowd(void *argument)
{
	struct crowd *c = argument;
	char block[512];

	pthread_barrier_wait(&c->barrier); /* all are alive at once */
	for (unsigned i = 0; i < EACH; i++)
		disk_read(c->disk, &VEC_FLAT(block, 512), 0, &io_plain);
	pthread_barrier_wait(&c->barrier);
	return NULL;
}

static void test_counters_of_more_threads_than_slots(void)
{
	const struct trap_options plain = {0};
	struct trap *t = trap_create(&plain);
	struct crowd c = {.disk = &t->disk};
	pthread_t threads[MANY_THREADS];
	struct stat_totals s;

	disk_measure_latency(&t->disk, true);
	for (unsigned round = 1; round <= 2; round++) { /* the second takes over the indexes of the first */
		uint64_t timed = 0;
		pthread_barrier_init(&c.barrier, NULL, MANY_THREADS);
		for (unsigned i = 0; i < MANY_THREADS; i++)
			if (pthread_create(&threads[i], NULL, read_in_crowd, &c))
				abort();
		for (unsigned i = 0; i < MANY_THREADS; i++)
			pthread_join(threads[i], NULL);
		pthread_barrier_destroy(&c.barrier);
		disk_stats(&t->disk, &s);
		CHECK_EQ(s.started[STAT_READ], round * MANY_THREADS * EACH);
		CHECK_EQ(s.finished[STAT_READ], round * MANY_THREADS * EACH);
		CHECK_EQ(s.bytes[STAT_READ], (uint64_t)round * MANY_THREADS * EACH * 512);
		for (unsigned b = 0; b < STAT_BUCKETS; b++)
			timed += s.latency[STAT_READ][b];
		CHECK_EQ(timed, round * MANY_THREADS * EACH);
	}
	close_good(&t->disk);
}

static uint64_t timed_reads(struct disk *d)
{
	struct stat_totals s;
	uint64_t n = 0;

	disk_stats(d, &s);
	for (unsigned b = 0; b < STAT_BUCKETS; b++)
		n += s.latency[STAT_READ][b];
	return n;
}

static void test_latency_is_measured_where_asked(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pass_create(&t->disk);

	disk_read(d, &VEC_FLAT(memory, 512), 0, &io_plain);
	CHECK_EQ(timed_reads(d), 0);
	disk_measure_latency(d, true);
	disk_read(d, &VEC_FLAT(memory, 512), 0, &io_plain);
	disk_read(d, &VEC_FLAT(memory, 512), 1 << 20, &io_plain); /* a refused one counts, too */
	CHECK_EQ(timed_reads(d), 2);
	CHECK_EQ(timed_reads(&t->disk), 0);
	disk_measure_latency(d, false);
	disk_read(d, &VEC_FLAT(memory, 512), 0, &io_plain);
	CHECK_EQ(timed_reads(d), 2);
	close_good(d);
}

static void test_percentiles(void)
{
	uint64_t b[STAT_BUCKETS] = {0};

	CHECK_EQ(stat_percentile_ns(b, 0.5), 0);
	b[3] = 1;
	CHECK_EQ(stat_percentile_ns(b, 0), 16);
	CHECK_EQ(stat_percentile_ns(b, 0.5), 16);
	CHECK_EQ(stat_percentile_ns(b, 1), 16);
	b[10] = 98;
	b[20] = 1;
	CHECK_EQ(stat_percentile_ns(b, 0.01), 16);
	CHECK_EQ(stat_percentile_ns(b, 0.5), 2048);
	CHECK_EQ(stat_percentile_ns(b, 0.99), 2048);
	CHECK_EQ(stat_percentile_ns(b, 0.999), 2 << 20);
	b[STAT_BUCKETS - 1] = 1000000;
	CHECK_EQ(stat_percentile_ns(b, 1), UINT64_C(1) << STAT_BUCKETS);
	for (enum stat_op op = 0; op < STAT_OPS; op++)
		CHECK(stat_op_name(op)[0]);
}

/* ------------------------------------------------------------------ sizes */

struct waiter_thread {
	struct disk *disk;
	uint64_t known, size;
	int status;
	pthread_t thread;
};

static void *wait_for_size(void *argument)
{
	struct waiter_thread *w = argument;

	w->status = disk_wait_resize(w->disk, w->known, WAIT_FOREVER, &w->size);
	return NULL;
}

/* Waiters at every level hear of a change at the bottom. */
static void test_sizes_go_up(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pile(&t->disk, DEPTH), *level = d;
	struct waiter_thread w[DEPTH + 1];

	for (unsigned i = 0; i <= DEPTH; i++, level = disk_child(level, 0)) {
		w[i] = (struct waiter_thread){.disk = level, .known = 1 << 20};
		if (pthread_create(&w[i].thread, NULL, wait_for_size, &w[i]))
			abort();
	}
	CHECK(level == NULL);
	wait_sleep(5000000);
	disk_set_size(&t->disk, 2048);
	for (unsigned i = 0; i <= DEPTH; i++) {
		pthread_join(w[i].thread, NULL);
		CHECK_EQ(w[i].status, 0);
		CHECK_EQ(w[i].size, 2048);
		CHECK_EQ(disk_size(w[i].disk), 2048);
	}
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 512), 2048, &io_plain), -ERANGE);
	close_good(d);
}

static void *change_sizes(void *argument)
{
	for (unsigned i = 1; i <= 1000; i++)
		disk_set_size(argument, i * 512);
	return NULL;
}

/* Whatever the order, all agree in the end. */
static void test_sizes_agree_after_a_race(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pile(&t->disk, 5);
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, change_sizes, &t->disk))
			abort();
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (struct disk *level = d; level; level = disk_child(level, 0))
		CHECK_EQ(disk_size(level), disk_size(&t->disk));
	close_good(d);
}

static void test_wait_limits(void)
{
	struct trap *t = trap_create(&full);
	uint64_t size = 0;

	CHECK_EQ(disk_wait_resize(&t->disk, 1 << 20, 0, &size), -ETIMEDOUT);
	CHECK_EQ(disk_wait_resize(&t->disk, 1 << 20, 1000000, &size), -ETIMEDOUT);
	CHECK_EQ(size, 1 << 20);
	CHECK_EQ(disk_wait_resize(&t->disk, 0, WAIT_FOREVER, &size), 0);
	disk_cancel_resize_waits(&t->disk); /* of the past: later waits are not affected */
	CHECK_EQ(disk_wait_resize(&t->disk, 1 << 20, 1000000, &size), -ETIMEDOUT);
	close_good(&t->disk);
}

static void *set_size_later(void *argument)
{
	wait_sleep(5000000);
	disk_set_size(argument, 512);
	return NULL;
}

/* A limit so far away that the clock cannot count to it is no limit. */
static void test_wait_nearly_forever(void)
{
	struct trap *t = trap_create(&full);
	pthread_t thread;
	uint64_t size = 0;

	if (pthread_create(&thread, NULL, set_size_later, &t->disk))
		abort();
	CHECK_EQ(disk_wait_resize(&t->disk, 1 << 20, WAIT_FOREVER - 1, &size), 0);
	CHECK_EQ(size, 512);
	pthread_join(thread, NULL);
	close_good(&t->disk);
}

/* ------------------------------------------------------------------ closing */

static void test_close_nothing(void)
{
	CHECK_EQ(disk_close(NULL, NULL), 0);
	disk_abandon(NULL);
	disk_drop_new(NULL);
}

static void test_last_reference_closes(void)
{
	struct trap *t = trap_create(&full);
	bool abandoned = true;
	unsigned closed = 0;

	t->closed = &closed;
	t->abandoned = &abandoned;
	CHECK(disk_ref(&t->disk) == &t->disk);
	CHECK_EQ(disk_close(&t->disk, NULL), 0);
	CHECK_EQ(closed, 0);
	CHECK_EQ(t->counts[TRAP_FLUSH], 0);
	CHECK_EQ(disk_close(&t->disk, NULL), 0);
	CHECK_EQ(closed, 1);
	CHECK_EQ(abandoned, false);
}

static void test_abandon_tells_all(void)
{
	struct trap *t = trap_create(&full);
	bool abandoned = false;
	unsigned closed = 0;

	t->closed = &closed;
	t->abandoned = &abandoned;
	t->close_status = -EIO;
	disk_abandon(pile(&t->disk, 3));
	CHECK_EQ(closed, 1);
	CHECK_EQ(abandoned, true);
}

static void test_close_reports_a_failed_flush(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct trap *t = trap_create(&full);
	unsigned closed = 0;

	t->closed = &closed;
	t->close_status = -ENOSPC; /* the first failure is the one to tell */
	trap_fail(t, BIT(TRAP_FLUSH), 1, -EIO);
	CHECK_EQ(disk_close(pile(&t->disk, 2), &err), -EIO);
	CHECK_EQ(err.status, -EIO);
	CHECK_STR(error_text(&err), "flush before close: trap: sprung");
	CHECK_EQ(closed, 1);
}

static void test_close_reports_what_the_kind_says(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct trap *t = trap_create(&full);

	t->close_status = -ENOSPC;
	CHECK_EQ(disk_close(pile(&t->disk, 2), &err), -ENOSPC);
	CHECK_STR(error_text(&err), "pass: pass: trap: sprung at close");
	t = trap_create(&full);
	t->close_status = -ENOSPC;
	CHECK_EQ(disk_close(pile(&t->disk, 2), NULL), -ENOSPC);
}

static void test_read_only_is_not_flushed(void)
{
	const struct trap_options ro = {.flags = DISK_READ_ONLY};
	struct trap *t = trap_create(&ro);

	trap_fail(t, BIT(TRAP_FLUSH), 1, -EIO);
	close_good(&t->disk);
}

/* Two children: both are closed, the first failure is told. */
static void test_close_of_several_children(void)
{
	static const struct disk_ops nothing;
	CLEANUP_ERROR struct error err = {0};
	struct trap *a = trap_create(&full), *b = trap_create(&full);
	struct disk *children[2] = {&a->disk, &b->disk}, *d = disk_new(sizeof(*d), "two", &nothing, children, 2);
	unsigned closed = 0;

	disk_inherit(d);
	CHECK_EQ(disk_publish(d, 1 << 20, NULL), 0);
	a->closed = b->closed = &closed;
	a->close_status = -EIO;
	b->close_status = -ENOSPC;
	CHECK(disk_child(d, 0) == &a->disk && disk_child(d, 1) == &b->disk && !disk_child(d, 2));
	CHECK_EQ(disk_close(d, &err), -EIO);
	CHECK_STR(error_text(&err), "two: trap: sprung at close");
	CHECK_EQ(closed, 2);
}

/* ------------------------------------------------------------------ describing */

static void test_describe(void)
{
	struct trap *t = trap_create(&full);
	struct disk *d = pile(&t->disk, 2);
	json_t *o, *child, *reads;

	disk_measure_latency(d, true);
	disk_read(d, &VEC_FLAT(memory, 1024), 0, &io_plain);
	o = disk_describe(d);
	CHECK_STR(json_string_value(json_object_get(o, "kind")), "pass");
	CHECK_STR(json_string_value(json_object_get(o, "discard")), "zeroes");
	CHECK(json_is_true(json_object_get(o, "fua")));
	CHECK(json_is_false(json_object_get(o, "rotational")));
	CHECK(!json_object_get(o, "id"));
	reads = json_object_get(json_object_get(o, "stats"), "read");
	CHECK_EQ(json_integer_value(json_object_get(reads, "operations")), 1);
	CHECK_EQ(json_integer_value(json_object_get(reads, "bytes")), 1024);
	CHECK(json_integer_value(json_object_get(reads, "p50_ns")) > 0);
	CHECK(!json_object_get(json_object_get(o, "stats"), "write"));
	child = json_array_get(json_object_get(o, "children"), 0);
	child = json_array_get(json_object_get(child, "children"), 0);
	CHECK_STR(json_string_value(json_object_get(child, "kind")), "trap");
	CHECK(!json_object_get(child, "children"));
	CHECK(!json_object_get(json_object_get(json_object_get(child, "stats"), "read"), "p50_ns"));
	json_decref(o);
	close_good(d);
}

int main(void)
{
	TAP_RUN(test_everything_passes_64_nodes);
	TAP_RUN(test_contract_over_64_nodes);
	TAP_RUN(test_leaf_that_only_reads);
	TAP_RUN(test_zeroes_written_out);
	TAP_RUN(test_zeroes_written_out_stop_at_a_failure);
	TAP_RUN(test_zeroes_written_out_with_fua);
	TAP_RUN(test_fua_becomes_a_flush);
	TAP_RUN(test_fua_failures);
	TAP_RUN(test_fua_through_nodes_that_lack_it);
	TAP_RUN(test_fua_that_is_known_goes_down);
	TAP_RUN(test_fast_only_without_fast_zero);
	TAP_RUN(test_ignored_discard_stays_above);
	TAP_RUN(test_nothing_is_done_for_length_zero);
	TAP_RUN(test_read_only);
	TAP_RUN(test_geometry_is_checked);
	TAP_RUN(test_counters);
	TAP_RUN(test_counters_of_more_threads_than_slots);
	TAP_RUN(test_latency_is_measured_where_asked);
	TAP_RUN(test_percentiles);
	TAP_RUN(test_sizes_go_up);
	TAP_RUN(test_sizes_agree_after_a_race);
	TAP_RUN(test_wait_limits);
	TAP_RUN(test_wait_nearly_forever);
	TAP_RUN(test_close_nothing);
	TAP_RUN(test_last_reference_closes);
	TAP_RUN(test_abandon_tells_all);
	TAP_RUN(test_close_reports_a_failed_flush);
	TAP_RUN(test_close_reports_what_the_kind_says);
	TAP_RUN(test_read_only_is_not_flushed);
	TAP_RUN(test_close_of_several_children);
	TAP_RUN(test_describe);
	return TAP_DONE();
}

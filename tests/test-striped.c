/* SPDX-License-Identifier: BSD-3-Clause */
/* Stripes: where bytes lie, what goes to which member and how, failures, facts of the whole, sizes that change. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/open.h"
#include "core/wait.h"
#include "decorators/striped-map.h"
#include "tests/loops.h"
#include "tests/model.h"
#include "tests/trap.h"

#define BIT(op) (1u << (op))
#define K 1024u

/* ------------------------------------------------------------------ memory is counted, and runs out */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);

static struct {
	_Atomic unsigned count;
	bool none; /* there is none left for lists */
} memory;

void *__wrap_malloc(size_t size)
{
	memory.count++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	memory.count++;
	return __real_calloc(count, size);
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
	memory.count++;
	return memory.none ? NULL : __real_reallocarray(old, count, size);
}

/* ------------------------------------------------------------------ a stripe over disks of the test's own */

#define MOST 12u

struct stripe {
	struct disk *disk;
	struct trap *traps[MOST];
	unsigned count;
};

static const struct trap_options full = {
	.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE | DISK_REMOVABLE,
	.discard = DISK_DISCARD_ZEROES,
};

/* Opens `parameters` ("4K", "4K;truncate") over s->traps; `err` may be NULL. */
static int put_together(struct stripe *s, const char *parameters, struct error *err)
{
	CLEANUP_SPEC struct spec *spec = NULL;
	struct disk *children[MOST];
	struct open_request request = {.children = children};
	char text[300];

	snprintf(text, sizeof(text), "striped:%s:[null:1M", parameters);
	for (unsigned i = 0; i < s->count; i++)
		children[i] = &s->traps[i]->disk;
	for (unsigned i = 1; i < s->count; i++)
		strcat(text, ",null:1M");
	strcat(text, "]");
	if (!CHECK_EQ(spec_parse(text, &spec, NULL), 0))
		exit(99);
	request.spec = spec;
	return spec->kind->open(&request, &s->disk, err);
}

static void make_traps(struct stripe *s, unsigned count, const struct trap_options *options)
{
	*s = (struct stripe){.count = count};
	for (unsigned i = 0; i < count; i++)
		s->traps[i] = trap_create(options);
}

static void make_stripe(struct stripe *s, const char *parameters, unsigned count, const struct trap_options *options)
{
	CLEANUP_ERROR struct error err = {0};

	make_traps(s, count, options);
	if (!CHECK_EQ(put_together(s, parameters, &err), 0)) {
		tap_diag("%s", error_text(&err));
		exit(99);
	}
}

static void end_stripe(struct stripe *s)
{
	CHECK_EQ(disk_close(s->disk, NULL), 0);
}

static void reset_traps(struct stripe *s)
{
	for (unsigned i = 0; i < s->count; i++)
		trap_reset(s->traps[i]);
}

static void abandon_traps(struct stripe *s)
{
	for (unsigned i = 0; i < s->count; i++)
		disk_abandon(&s->traps[i]->disk);
}

/* The member had one call, of that operation, range and flags. */
static void check_only_call(struct stripe *s, unsigned member, enum trap_op op, uint64_t offset, uint64_t length,
			    unsigned flags)
{
	const struct trap *t = s->traps[member];

	if (!CHECK_EQ(t->count, 1))
		tap_diag("member %u", member);
	CHECK_EQ(t->log[0].op, op);
	CHECK_EQ(t->log[0].offset, offset);
	CHECK_EQ(t->log[0].length, length);
	CHECK_EQ(t->log[0].flags, flags);
}

/* ------------------------------------------------------------------ the map */

static const struct {
	uint64_t chunk;
	unsigned members;
} shapes[] = {{512, 1}, {512, 2}, {4096, 3}, {1536, 4}, {131072, 7}, {UINT64_C(1) << 40, 4096}};

#define NR_SHAPES (sizeof(shapes) / sizeof(*shapes))

/* Said in another way: byte after byte. */
static void test_map_deals_chunks_in_turn(void)
{
	for (size_t i = 0; i < NR_SHAPES; i++) {
		struct stripe_map m;
		uint64_t chunk = shapes[i].chunk, number = 0, bases[] = {0, chunk * shapes[i].members * 5};
		stripe_map_init(&m, chunk, shapes[i].members);
		for (unsigned row = 0; row < 2; row++)
			for (unsigned member = 0; member < shapes[i].members; member++, number++) {
				struct stripe_place first = stripe_place(&m, bases[1] + number * chunk);
				struct stripe_place last = stripe_place(&m, bases[1] + number * chunk + chunk - 1);
				CHECK_EQ(first.member, member);
				CHECK_EQ(first.offset, (5 + row) * chunk);
				CHECK_EQ(first.left, chunk);
				CHECK_EQ(last.member, member);
				CHECK_EQ(last.offset, (6 + row) * chunk - 1);
				CHECK_EQ(last.left, 1);
			}
	}
}

static void test_map_there_and_back(void)
{
	struct random r = random_stream(1);

	for (unsigned i = 0; i < 20000; i++) {
		struct stripe_map m;
		uint64_t at = random_next(&r) >> (1 + random_below(&r, 60));
		struct stripe_place p;
		stripe_map_init(&m, shapes[i % NR_SHAPES].chunk, shapes[i % NR_SHAPES].members);
		p = stripe_place(&m, at);
		CHECK_EQ(stripe_offset(&m, p.member, p.offset), at);
		CHECK_EQ(stripe_share(&m, at, p.member), p.offset);
		CHECK_EQ(stripe_share(&m, at + 1, p.member), p.offset + 1);
	}
}

/* Shares add up to the whole. */
static void test_shares_add_up(void)
{
	struct random r = random_stream(2);

	for (unsigned i = 0; i < 2000; i++) {
		struct stripe_map m;
		uint64_t end = random_below(&r, 1 << 24), sum = 0;
		stripe_map_init(&m, shapes[i % 5].chunk, shapes[i % 5].members);
		for (unsigned member = 0; member < m.members; member++)
			sum += stripe_share(&m, end, member);
		CHECK_EQ(sum, end);
	}
}

static void test_map_at_the_end_of_numbers(void)
{
	struct stripe_map m;

	stripe_map_init(&m, 512, 4);
	CHECK(stripe_offset(&m, 3, DISK_MAX_END) == UINT64_MAX);
	CHECK_EQ(stripe_size(&m, DISK_MAX_END), (uint64_t)DISK_MAX_END / 2048 * 2048);
	CHECK_EQ(stripe_size(&m, 511), 0);
	stripe_map_init(&m, UINT64_C(1) << 40, 4096);
	CHECK_EQ(stripe_row(&m), UINT64_C(1) << 52);
}

/* ------------------------------------------------------------------ content */

/* Written through the stripe, looked up in the members by the definition. */
static void test_bytes_lie_where_they_should(void)
{
	struct random r = random_stream(3);
	static unsigned char data[64 * K];
	struct stripe s;

	make_stripe(&s, "3K", 3, &full);
	random_fill(&r, data, sizeof(data));
	CHECK_EQ(disk_write(s.disk, &VEC_FLAT(data, sizeof(data)), 512, &io_plain), 0);
	for (size_t i = 0; i < sizeof(data); i++) {
		uint64_t at = 512 + i, chunk = at / (3 * K);
		if (s.traps[chunk % 3]->content[chunk / 3 * 3 * K + at % (3 * K)] != data[i]) {
			CHECK(!"as defined");
			break;
		}
	}
	end_stripe(&s);
}

/* Any memory, any range, also with more members and pieces than are kept in place. */
static void check_scattered(const char *parameters, unsigned members, bool no_memory)
{
	const struct trap_options options = {.size = 64 * K};
	struct random r = random_stream(4);
	struct model m;
	struct stripe s;

	make_stripe(&s, parameters, members, &options);
	model_make(&m, disk_size(s.disk), 512);
	memory.none = no_memory;
	for (unsigned i = 0; i < rounds(200); i++) {
		struct scatter memory_of;
		uint64_t offset, length;
		model_range(&m, &r, 64 * K, &offset, &length);
		random_fill(&r, m.bytes + offset, length);
		scatter_make(&memory_of, &r, length);
		scatter_put(&memory_of, m.bytes + offset);
		CHECK_EQ(disk_write(s.disk, &memory_of.vec, offset, &io_plain), 0);
		CHECK(scatter_guarded(&memory_of));
		scatter_free(&memory_of);
		CHECK(model_agrees(&m, s.disk, offset, length));
	}
	CHECK(model_agrees(&m, s.disk, 0, m.size));
	memory.none = false;
	model_free(&m);
	end_stripe(&s);
}

static void test_scattered_memory(void)
{
	check_scattered("512", 2, false);
	check_scattered("1536", 3, false);
	check_scattered("512", 12, false);
	check_scattered("64K", 1, false);
}

static void test_no_memory_for_lists(void)
{
	check_scattered("512", 2, true);
	check_scattered("512", 12, true);
}

/* More chunks than one batch holds: 4 MiB of chunks of 512 bytes. */
static void test_long_requests_go_in_batches(void)
{
	const struct trap_options options = {.size = 2 << 20};
	struct random r = random_stream(5);
	char *data = malloc(4 << 20), *back = malloc(4 << 20);
	struct stripe s;

	make_stripe(&s, "512", 2, &options);
	random_fill(&r, data, 4 << 20);
	CHECK_EQ(disk_write(s.disk, &VEC_FLAT(data, 4 << 20), 0, &io_plain), 0);
	CHECK_EQ(disk_read(s.disk, &VEC_FLAT(back, 4 << 20), 0, &io_plain), 0);
	CHECK(memcmp(data, back, 4 << 20) == 0);
	CHECK_EQ(s.traps[0]->counts[TRAP_WRITE], 8);
	free(data);
	free(back);
	end_stripe(&s);
}

/* ------------------------------------------------------------------ what the members are asked */

/* The caller's own vector, and no memory. */
static void test_one_chunk_goes_down_as_it_is(void)
{
	struct io io = {.flags = IO_FUA};
	char data[4096];
	struct stripe s;
	unsigned before;

	make_stripe(&s, "4K", 4, &full);
	disk_read(s.disk, &VEC_FLAT(data, 512), 8192, &io_plain); /* counters of this thread are made */
	disk_write(s.disk, &VEC_FLAT(data, 512), 8192, &io_plain);
	reset_traps(&s);
	before = memory.count;
	CHECK_EQ(disk_write(s.disk, &VEC_FLAT(data, 4096), 5 * 4096 + 4 * 4096, &io), 0);
	CHECK_EQ(memory.count, before + 0);
	check_only_call(&s, 1, TRAP_WRITE, 2 * 4096, 4096, IO_FUA);
	reset_traps(&s);
	before = memory.count;
	CHECK_EQ(disk_read(s.disk, &VEC_FLAT(data, 1024), 2 * 4096 + 3072, &io_plain), 0);
	CHECK_EQ(memory.count, before);
	check_only_call(&s, 2, TRAP_READ, 3072, 1024, 0);
	CHECK_EQ(s.traps[0]->count + s.traps[1]->count + s.traps[3]->count, 0);
	end_stripe(&s);
}

/* Each member is asked once, whatever the number of chunks. */
static void test_one_request_a_member(void)
{
	static char data[64 * K];
	struct io fua = {.flags = IO_FUA};
	struct stripe s;

	make_stripe(&s, "4K", 4, &full);
	CHECK_EQ(disk_write(s.disk, &VEC_FLAT(data, sizeof(data)), 6 * K, &fua), 0);
	check_only_call(&s, 0, TRAP_WRITE, 4 * K, 16 * K, IO_FUA);
	check_only_call(&s, 1, TRAP_WRITE, 2 * K, 16 * K, IO_FUA);
	check_only_call(&s, 2, TRAP_WRITE, 0, 16 * K, IO_FUA);
	check_only_call(&s, 3, TRAP_WRITE, 0, 16 * K, IO_FUA);
	reset_traps(&s);
	CHECK_EQ(disk_read(s.disk, &VEC_FLAT(data, 8 * K), 10 * K, &io_plain), 0);
	check_only_call(&s, 2, TRAP_READ, 2 * K, 2 * K, 0);
	check_only_call(&s, 3, TRAP_READ, 0, 4 * K, 0);
	check_only_call(&s, 0, TRAP_READ, 4 * K, 2 * K, 0);
	CHECK_EQ(s.traps[1]->count, 0);
	end_stripe(&s);
}

static void test_ranges_go_to_each_member_once(void)
{
	struct io zero = {.flags = IO_MAY_UNMAP | IO_FAST_ONLY | IO_FUA};
	struct stripe s;

	make_stripe(&s, "4K", 3, &full);
	CHECK_EQ(disk_discard(s.disk, 0, 300 * K, &io_plain), 0);
	for (unsigned i = 0; i < 3; i++)
		check_only_call(&s, i, TRAP_DISCARD, 0, 100 * K, 0);
	reset_traps(&s);
	CHECK_EQ(disk_write_zeroes(s.disk, 6 * K, 4 * K, &zero), 0);
	check_only_call(&s, 1, TRAP_ZEROES, 2 * K, 2 * K, zero.flags);
	check_only_call(&s, 2, TRAP_ZEROES, 0, 2 * K, zero.flags);
	CHECK_EQ(s.traps[0]->count, 0);
	reset_traps(&s);
	CHECK_EQ(disk_prefetch(s.disk, 12 * K, 12 * K, &io_plain), 0);
	for (unsigned i = 0; i < 3; i++)
		check_only_call(&s, i, TRAP_PREFETCH, 4 * K, 4 * K, 0);
	end_stripe(&s);
}

static void test_flush_and_eject_reach_all(void)
{
	struct stripe s;

	make_stripe(&s, "4K", 5, &full);
	CHECK_EQ(disk_flush(s.disk, &io_plain), 0);
	for (unsigned i = 0; i < 5; i++)
		check_only_call(&s, i, TRAP_FLUSH, 0, 0, 0);
	reset_traps(&s);
	CHECK_EQ(disk_eject(s.disk, &io_plain), 0);
	for (unsigned i = 0; i < 5; i++)
		check_only_call(&s, i, TRAP_EJECT, 0, 0, 0);
	end_stripe(&s);
}

/* Half a stripe is not ejected, and one member's reservations are not the stripe's. */
static void test_what_cannot_be_done_reaches_nobody(void)
{
	const struct trap_options fixed = {.flags = DISK_FUA};
	struct reservation_request request = {.action = RESERVATION_REGISTER};
	struct reservation_report report;
	struct stripe s;

	make_traps(&s, 2, &full);
	disk_abandon(&s.traps[1]->disk);
	s.traps[1] = trap_create(&fixed);
	CHECK_EQ(put_together(&s, "4K", NULL), 0);
	CHECK_EQ(disk_eject(s.disk, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_reserve(s.disk, &request, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_report_reservations(s.disk, &report, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_resize(s.disk, 8 * K, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(s.traps[0]->count + s.traps[1]->count, 0);
	end_stripe(&s);
}

/* One that is true of its first member only. */
static void test_reservations_of_a_member_are_not_the_stripes(void)
{
	struct reservation_watch watch = {0};
	struct reservation_report report;
	struct disk *d = NULL;

	REQUIRE(!disk_open("striped::[prwrap:null:1M,prwrap:null:1M]", 0, &d, NULL));
	CHECK_EQ(disk_report_reservations(d, &report, &io_plain), -EOPNOTSUPP);
	CHECK_EQ(disk_watch_reservations(d, &watch, true), -EOPNOTSUPP);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ at the same time */

static void read_all(struct disk *d)
{
	static char data[16 * K];

	CHECK_EQ(disk_read(d, &VEC_FLAT(data, 16 * K), 0, &io_plain), 0);
}

static void flush_all(struct disk *d)
{
	CHECK_EQ(disk_flush(d, &io_plain), 0);
}

/* One that takes 40 ms: four of them take less than three would, at least once in some tries on a busy machine. */
static void check_together(void (*call)(struct disk *d), struct disk *d)
{
	uint64_t took = UINT64_MAX;

	for (unsigned i = 0; i < 10 && took >= 120000000; i++) {
		uint64_t begin = wait_now();
		call(d);
		took = wait_now() - begin;
		CHECK(took >= 40000000);
	}
	CHECK(took < 120000000);
}

static void work_together(void *argument)
{
	check_together(read_all, argument);
	check_together(flush_all, argument);
}

static void members_work_together(const struct loop_mode *mode)
{
	struct disk *d = NULL;

	REQUIRE(!disk_open("striped:4K:[delay:40:null:1M,delay:40:null:1M,delay:40:null:1M,delay:40:null:1M]", 0, &d, NULL));
	run_in_mode(mode, work_together, d);
	CHECK_EQ(disk_close(d, NULL), 0);
}
MODE_TESTS(members_work_together)

/* ------------------------------------------------------------------ failures */

static const int statuses[] = {-ERANGE, -EINVAL, -EIO, -ENODATA, -EFAULT, -EROFS, -EBADE, -ECANCELED, -EOPNOTSUPP, -ENOSPC,
			       -ENOMEM, -ENOMEDIUM};

static const enum trap_op fallible[] = {TRAP_READ,    TRAP_WRITE,    TRAP_FLUSH, TRAP_DISCARD,
					TRAP_ZEROES,  TRAP_PREFETCH, TRAP_EXTENTS, TRAP_EJECT};

static int call(struct disk *d, enum trap_op op, uint64_t offset, uint64_t length, struct failure *failure)
{
	CLEANUP_EXTENTS struct extents e = {0};
	struct io io = {.failure = failure};
	static char data[64 * K];

	extents_init(&e, offset, length, SIZE_MAX);
	switch (op) {
	case TRAP_READ:
		return disk_read(d, &VEC_FLAT(data, length), offset, &io);
	case TRAP_WRITE:
		return disk_write(d, &VEC_FLAT(data, length), offset, &io);
	case TRAP_FLUSH:
		return disk_flush(d, &io);
	case TRAP_DISCARD:
		return disk_discard(d, offset, length, &io);
	case TRAP_ZEROES:
		return disk_write_zeroes(d, offset, length, &io);
	case TRAP_PREFETCH:
		return disk_prefetch(d, offset, length, &io);
	case TRAP_EXTENTS:
		return disk_extents(d, &e, &io);
	case TRAP_EJECT:
		return disk_eject(d, &io);
	default:
		return disk_resize(d, length, &io);
	}
}

static void check_failure(struct stripe *s, enum trap_op op, uint64_t length, int status)
{
	struct failure failure = {0};

	reset_traps(s);
	s->traps[1]->fail_medium = MEDIUM_GUARD_CHECK;
	trap_fail(s->traps[1], BIT(op), 1, status);
	if (!CHECK_EQ(call(s->disk, op, 4 * K, length, &failure), status))
		tap_diag("operation %d, status %d", op, status);
	CHECK_EQ(failure.status, status);
	CHECK_STR(failure.text, status == -ENODATA ? "striped: member 2: trap: medium" : "striped: member 2: trap: sprung");
	if (status == -ENODATA)
		CHECK_EQ(failure.medium, MEDIUM_GUARD_CHECK);
	CHECK_EQ(call(s->disk, op, 4 * K, length, NULL), 0);
	trap_fail(s->traps[1], BIT(op), 1, status);
	CHECK_EQ(call(s->disk, op, 4 * K, length, NULL), status); /* nobody wants to know why */
}

/* In one chunk, and in a request over all members. */
static void test_failures_keep_their_kind_and_name_the_member(void)
{
	struct stripe s;

	make_stripe(&s, "4K", 3, &full);
	for (size_t o = 0; o < sizeof(fallible) / sizeof(*fallible); o++)
		for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
			check_failure(&s, fallible[o], 4 * K, statuses[i]);
			check_failure(&s, fallible[o], 40 * K, statuses[i]);
		}
	end_stripe(&s);
}

/* The first in the request, not the first member; the others have done their part. */
static void test_first_of_several_failures(void)
{
	struct failure failure = {0};
	struct stripe s;

	make_stripe(&s, "4K", 4, &full);
	for (unsigned i = 0; i < 4; i++)
		trap_fail(s.traps[i], BIT(TRAP_WRITE), 1, i == 2 ? 0 : i == 3 ? -ENOSPC : -EIO);
	CHECK_EQ(call(s.disk, TRAP_WRITE, 8 * K, 16 * K, &failure), -ENOSPC); /* 2 is well, 3 is first to fail, then 0, 1 */
	CHECK_STR(failure.text, "striped: member 4: trap: sprung");
	CHECK_EQ(failure.status, -ENOSPC);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(s.traps[i]->count, 1);
	end_stripe(&s);
}

static void test_member_without_words(void)
{
	struct failure failure = {0};
	struct stripe s;

	make_stripe(&s, "4K", 2, &full);
	disk_set_size(&s.traps[1]->disk, 4 * K);
	CHECK_EQ(disk_size(s.disk), 8 * K);
	CHECK_EQ(call(s.disk, TRAP_READ, 8 * K, 4 * K, &failure), -ERANGE);
	CHECK(strstr(failure.text, "striped: read of 4096 bytes at 8192") != NULL);
	end_stripe(&s);
}

/* ------------------------------------------------------------------ facts */

static void check_flags(unsigned first, unsigned second, unsigned expected)
{
	const struct trap_options a = {.flags = first}, b = {.flags = second};
	struct stripe s = {.count = 2};

	s.traps[0] = trap_create(&a);
	s.traps[1] = trap_create(&b);
	CHECK_EQ(put_together(&s, "4K", NULL), 0);
	CHECK_EQ(disk_info(s.disk)->flags, expected);
	end_stripe(&s);
}

static void test_flags(void)
{
	const unsigned all = DISK_FUA | DISK_FAST_ZERO | DISK_REMOVABLE | DISK_RESIZABLE;
	const unsigned any = DISK_READ_ONLY | DISK_ROTATIONAL | DISK_VOLATILE;

	check_flags(all | any | DISK_HAS_ID, all | any | DISK_HAS_ID, all | any);
	check_flags(all, 0, 0);
	check_flags(0, any, any);
	for (unsigned flag = 1; flag <= DISK_RESIZABLE; flag <<= 1)
		check_flags(flag, 0, flag & any);
}

static void check_discard(const uint32_t facts[2][3], const char *chunk, uint32_t promise, uint32_t granularity)
{
	struct stripe s = {.count = 2};

	for (unsigned i = 0; i < 2; i++) {
		const struct trap_options options = {.discard = facts[i][0]};
		s.traps[i] = trap_create(&options);
		s.traps[i]->disk.info.discard_granularity = facts[i][1];
		s.traps[i]->disk.info.discard_alignment = facts[i][2];
	}
	CHECK_EQ(put_together(&s, chunk, NULL), 0);
	CHECK_EQ(disk_info(s.disk)->discard, promise);
	CHECK_EQ(disk_info(s.disk)->discard_granularity, granularity);
	CHECK_EQ(disk_info(s.disk)->discard_alignment, 0);
	end_stripe(&s);
}

static void test_discard_of_the_whole(void)
{
	enum { I = DISK_DISCARD_IGNORED, U = DISK_DISCARD_UNSPECIFIED, Z = DISK_DISCARD_ZEROES };

	check_discard((const uint32_t[2][3]){{I, 512, 0}, {I, 512, 0}}, "4K", I, 512);
	check_discard((const uint32_t[2][3]){{Z, 512, 0}, {Z, 512, 0}}, "4K", Z, 512);
	check_discard((const uint32_t[2][3]){{Z, 512, 0}, {U, 512, 0}}, "4K", U, 512);
	check_discard((const uint32_t[2][3]){{Z, 512, 0}, {I, 512, 0}}, "4K", U, 512);
	check_discard((const uint32_t[2][3]){{Z, 512, 0}, {Z, 4096, 0}}, "64K", Z, 4096);
	check_discard((const uint32_t[2][3]){{Z, 1536, 0}, {Z, 1024, 0}}, "6K", Z, 3072);
	check_discard((const uint32_t[2][3]){{Z, 65536, 0}, {Z, 512, 0}}, "4K", Z, 131072); /* rows */
	check_discard((const uint32_t[2][3]){{Z, 1536, 0}, {Z, 1536, 0}}, "4K", Z, 24576);
	check_discard((const uint32_t[2][3]){{Z, 4096, 512}, {Z, 4096, 512}}, "64K", U, 512); /* across chunks */
	check_discard((const uint32_t[2][3]){{Z, 0x80000000, 0}, {Z, 512, 0}}, "4K", U, 512); /* too large a row */
	check_discard((const uint32_t[2][3]){{I, 4096, 512}, {I, 4096, 0}}, "64K", I, 512);
}

static void check_refused(struct stripe *s, const char *parameters, int status, const char *says)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(put_together(s, parameters, &err), status);
	if (!CHECK(strstr(error_text(&err), says) != NULL))
		tap_diag("%s", error_text(&err));
	abandon_traps(s);
}

static void test_refused(void)
{
	const struct trap_options small = {.size = 512 * K}, coarse = {.block_size = 4096}, huge = {.size = UINT64_C(3) << 61};
	struct stripe s;

	make_traps(&s, 3, &full);
	disk_abandon(&s.traps[2]->disk);
	s.traps[2] = trap_create(&small);
	check_refused(&s, "4K", -EINVAL, "member 3 (trap) has 524288 bytes, member 1 (trap) has 1048576; all must be of one size "
		      "(';truncate'");
	make_traps(&s, 2, &full);
	disk_abandon(&s.traps[1]->disk);
	s.traps[1] = trap_create(&coarse);
	check_refused(&s, "4K", -EINVAL, "member 2 (trap) has blocks of 4096 bytes, member 1 (trap) of 512");
	make_traps(&s, 2, &coarse);
	check_refused(&s, "5K", -EINVAL, "chunk of 5120 bytes is not a multiple of the block size, 4096 bytes");
	make_traps(&s, 2, &full);
	check_refused(&s, "2M", -EINVAL, "member 1 (trap) has 1048576 bytes, less than one chunk of 2097152");
	make_traps(&s, 2, &huge);
	check_refused(&s, "4K", -ERANGE, "are too large; the largest stripe of them is 9223372036854767616 bytes");
}

static void test_smallest_counts_where_said(void)
{
	const struct trap_options small = {.size = 500 * K};
	struct stripe s;
	json_t *o;

	make_traps(&s, 3, &full);
	disk_abandon(&s.traps[1]->disk);
	s.traps[1] = trap_create(&small);
	CHECK_EQ(put_together(&s, "64K;truncate", NULL), 0);
	CHECK_EQ(disk_size(s.disk), 3 * 448 * K);
	o = disk_describe(s.disk);
	CHECK_EQ(json_integer_value(json_object_get(o, "unused")), (2 * (1024 - 448) + 52) * K);
	CHECK_EQ(json_integer_value(json_object_get(o, "chunk")), 64 * K);
	json_decref(o);
	end_stripe(&s);
}

static void test_default_chunk(void)
{
	struct disk *d = NULL;

	REQUIRE(!disk_open("striped::[null:1M,null:1M]", 0, &d, NULL));
	CHECK_EQ(disk_size(d), 2 << 20);
	json_t *o = disk_describe(d);
	CHECK_EQ(json_integer_value(json_object_get(o, "chunk")), 131072);
	json_decref(o);
	disk_close(d, NULL);
}

/* ------------------------------------------------------------------ identity */

static const char *make_file(const char *name, size_t size)
{
	const char *path = tmppath(name);
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)size))
		printf("Bail out! cannot make %s\n", path);
	close(fd);
	return path;
}

static struct identity identity_of(const char *chunk, const char *first, const char *second)
{
	struct identity id = {0};
	struct disk *d = NULL;
	char spec[1200];

	snprintf(spec, sizeof(spec), "striped:%s:[file:%s;ro,file:%s;ro]", chunk, first, second);
	if (CHECK_EQ(disk_open(spec, 0, &d, NULL), 0))
		CHECK_EQ(disk_identity(d, &id), 0);
	disk_close(d, NULL);
	return id;
}

static void test_identity_is_that_of_all_members(void)
{
	const char *a = make_file("a", 1 << 20), *b = make_file("b", 1 << 20);
	struct identity first = identity_of("64K", a, b), again = identity_of("64K", a, b), other;

	CHECK_STR(first.name, again.name);
	CHECK_STR(first.version, again.version);
	CHECK(strncmp(first.name, "striped:65536x2:", 16) == 0);
	other = identity_of("64K", b, a);
	CHECK(strcmp(first.name, other.name) != 0);
	other = identity_of("32K", a, b);
	CHECK(strcmp(first.name, other.name) != 0);
	REQUIRE(!truncate(b, 2 << 20) && !truncate(b, 1 << 20));
	again = identity_of("64K", a, b);
	CHECK_STR(first.name, again.name);
	CHECK(strcmp(first.version, again.version) != 0);
}

static void test_no_identity_without_one_of_each(void)
{
	struct identity id;
	struct disk *d = NULL;
	char spec[600];

	snprintf(spec, sizeof(spec), "striped:64K:[file:%s;ro,mem:1M]", make_file("c", 1 << 20));
	REQUIRE(!disk_open(spec, OPEN_READ_ONLY, &d, NULL));
	CHECK_EQ(disk_identity(d, &id), -EOPNOTSUPP);
	disk_close(d, NULL);
}

/* Closing lets go of the files for good, also of those that a flush in a ring has just used. */
static void test_files_can_be_opened_again_at_once(void)
{
	const char *a = make_file("again-a", 1 << 20), *b = make_file("again-b", 1 << 20);
	static char data[8 * K];
	char spec[1200];

	snprintf(spec, sizeof(spec), "striped:4K:[file:%s,file:%s]", a, b);
	for (unsigned i = 0; i < rounds(1000); i++) {
		CLEANUP_ERROR struct error err = {0};
		struct disk *d = NULL;
		if (!CHECK_EQ(disk_open(spec, 0, &d, &err), 0)) {
			tap_diag("round %u: %s", i, error_text(&err));
			break;
		}
		CHECK_EQ(disk_write(d, &VEC_FLAT(data, sizeof(data)), 0, &io_plain), 0);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
}

/* ------------------------------------------------------------------ extents */

/* Data on one member only, zero elsewhere; and a whole that is the same everywhere is one run. */
static void test_extents_of_all_members(void)
{
	CLEANUP_EXTENTS struct extents e = {0}, whole = {0};
	struct disk *d = NULL;
	char data[4096];

	memset(data, 'x', sizeof(data));
	REQUIRE(!disk_open("striped:4K:[mem:1M,mem:1M,mem:1M]", 0, &d, NULL));
	extents_init(&whole, 0, disk_size(d), SIZE_MAX);
	CHECK_EQ(disk_extents(d, &whole, &io_plain), 0);
	CHECK_EQ(whole.count, 1);
	CHECK(whole.list[0].flags & EXTENT_ZERO);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 4096), 4 * 4096, &io_plain), 0);
	extents_init(&e, 0, disk_size(d), SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 3);
	CHECK_EQ(e.list[1].offset, 4 * 4096);
	CHECK_EQ(e.list[1].length, 4096);
	CHECK_EQ(e.list[1].flags, EXTENT_DATA);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* A walk by chunks would take years. */
static void test_extents_of_a_huge_stripe(void)
{
	CLEANUP_EXTENTS struct extents e = {0};
	struct disk *d = NULL;

	REQUIRE(!disk_open("striped:512:[null:1024P,null:1024P,null:1024P]", 0, &d, NULL));
	extents_init(&e, 512, disk_size(d) - 1024, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].length, disk_size(d) - 1024);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_extents_without_memory_or_room(void)
{
	CLEANUP_EXTENTS struct extents e = {0};
	struct stripe s;

	make_stripe(&s, "4K", 2, &full);
	extents_init(&e, 0, 64 * K, 1);
	CHECK_EQ(disk_extents(s.disk, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].length, 64 * K);
	end_stripe(&s);
}

/* ------------------------------------------------------------------ sizes */

static void test_size_follows_the_members(void)
{
	struct stripe s;

	make_stripe(&s, "64K", 3, &full);
	CHECK_EQ(disk_size(s.disk), 3 << 20);
	disk_set_size(&s.traps[0]->disk, 2 << 20);
	disk_set_size(&s.traps[2]->disk, 3 << 20);
	CHECK_EQ(disk_size(s.disk), 3 << 20);
	disk_set_size(&s.traps[1]->disk, 2 << 20);
	CHECK_EQ(disk_size(s.disk), 6 << 20);
	disk_set_size(&s.traps[1]->disk, 100 * K);
	CHECK_EQ(disk_size(s.disk), 3 * 64 * K);
	disk_set_size(&s.traps[1]->disk, 4 * K);
	CHECK_EQ(disk_size(s.disk), 0);
	end_stripe(&s);
}

static void test_resize_is_by_rows(void)
{
	struct failure failure = {0};
	struct stripe s;

	make_stripe(&s, "64K", 4, &full);
	CHECK_EQ(call(s.disk, TRAP_RESIZE, 0, (4 << 20) + 64 * K, &failure), -EINVAL);
	CHECK_STR(failure.text, "striped: resize: 4259840 bytes are not whole rows of 262144 bytes: 4 members, chunks of 65536 bytes");
	CHECK_EQ(disk_resize(s.disk, 8 << 20, &io_plain), 0);
	CHECK_EQ(disk_size(s.disk), 8 << 20);
	for (unsigned i = 0; i < 4; i++)
		check_only_call(&s, i, TRAP_RESIZE, 0, 2 << 20, 0);
	CHECK_EQ(disk_resize(s.disk, 256 * K, &io_plain), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(disk_size(&s.traps[i]->disk), 64 * K);
	end_stripe(&s);
}

/* What members have beyond their share holds old bytes. */
static void test_growing_shows_no_old_bytes(void)
{
	const struct trap_options odd = {.flags = DISK_RESIZABLE, .size = 100 * K, .capacity = 1 << 20};
	static char data[256 * K];
	struct stripe s;

	make_stripe(&s, "64K", 2, &odd);
	for (unsigned i = 0; i < 2; i++)
		memset(s.traps[i]->content, 'o', 100 * K);
	CHECK_EQ(disk_size(s.disk), 128 * K);
	CHECK_EQ(disk_resize(s.disk, 256 * K, &io_plain), 0);
	CHECK_EQ(disk_read(s.disk, &VEC_FLAT(data, sizeof(data)), 0, &io_plain), 0);
	CHECK_EQ(data[128 * K - 1], 'o');
	CHECK(memory_is_zero(data + 128 * K, 128 * K));
	end_stripe(&s);
}

/* Growing that fails half way has changed nothing. */
static void test_growing_fails_as_a_whole(void)
{
	struct failure failure = {0};
	struct stripe s;

	make_stripe(&s, "64K", 3, &full);
	trap_fail(s.traps[2], BIT(TRAP_RESIZE), 1, -ENOSPC);
	CHECK_EQ(call(s.disk, TRAP_RESIZE, 0, 6 << 20, &failure), -ENOSPC);
	CHECK_STR(failure.text, "striped: member 3: trap: sprung");
	CHECK_EQ(disk_size(s.disk), 3 << 20);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(disk_size(&s.traps[i]->disk), 1 << 20);
	end_stripe(&s);
}

static void test_shrinking_that_fails_says_so(void)
{
	struct failure failure = {0};
	struct stripe s;

	make_stripe(&s, "64K", 3, &full);
	trap_fail(s.traps[0], BIT(TRAP_RESIZE), 1, -EIO);
	CHECK_EQ(call(s.disk, TRAP_RESIZE, 0, 3 * 64 * K, &failure), -EIO);
	CHECK_EQ(disk_size(s.disk), 3 << 20);
	trap_fail(s.traps[1], BIT(TRAP_RESIZE), 1, -EIO);
	CHECK_EQ(call(s.disk, TRAP_RESIZE, 0, 3 * 64 * K, NULL), -EIO);
	CHECK_EQ(disk_size(s.disk), 3 * 64 * K);
	CHECK_EQ(disk_resize(s.disk, 3 << 20, &io_plain), 0); /* and back again */
	CHECK_EQ(disk_size(s.disk), 3 << 20);
	end_stripe(&s);
}

int main(void)
{
	TAP_RUN(test_map_deals_chunks_in_turn);
	TAP_RUN(test_map_there_and_back);
	TAP_RUN(test_shares_add_up);
	TAP_RUN(test_map_at_the_end_of_numbers);
	TAP_RUN(test_bytes_lie_where_they_should);
	TAP_RUN(test_scattered_memory);
	TAP_RUN(test_no_memory_for_lists);
	TAP_RUN(test_long_requests_go_in_batches);
	TAP_RUN(test_one_chunk_goes_down_as_it_is);
	TAP_RUN(test_one_request_a_member);
	TAP_RUN(test_ranges_go_to_each_member_once);
	TAP_RUN(test_flush_and_eject_reach_all);
	TAP_RUN(test_what_cannot_be_done_reaches_nobody);
	TAP_RUN(test_reservations_of_a_member_are_not_the_stripes);
	RUN_MODE_TESTS(members_work_together);
	TAP_RUN(test_failures_keep_their_kind_and_name_the_member);
	TAP_RUN(test_first_of_several_failures);
	TAP_RUN(test_member_without_words);
	TAP_RUN(test_flags);
	TAP_RUN(test_discard_of_the_whole);
	TAP_RUN(test_refused);
	TAP_RUN(test_smallest_counts_where_said);
	TAP_RUN(test_default_chunk);
	TAP_RUN(test_identity_is_that_of_all_members);
	TAP_RUN(test_no_identity_without_one_of_each);
	TAP_RUN(test_files_can_be_opened_again_at_once);
	TAP_RUN(test_extents_of_all_members);
	TAP_RUN(test_extents_of_a_huge_stripe);
	TAP_RUN(test_extents_without_memory_or_room);
	TAP_RUN(test_size_follows_the_members);
	TAP_RUN(test_resize_is_by_rows);
	TAP_RUN(test_growing_shows_no_old_bytes);
	TAP_RUN(test_growing_fails_as_a_whole);
	TAP_RUN(test_shrinking_that_fails_says_so);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The byte view: any byte of a disk of blocks, and neighbours who never lose each other's bytes. */
#include "core/bytes.h"

#include <pthread.h>

#include "core/loop.h"
#include "core/open.h"
#include "core/wait.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define BIT(op) (1u << (op))
#define MIB (UINT64_C(1) << 20)

/* The view holds the only reference. */
static struct bytes *open_view(const char *spec)
{
	struct bytes *b = NULL;
	struct disk *d = NULL;

	if (!CHECK_EQ(disk_open(spec, 0, &d, NULL), 0) || !CHECK_EQ(bytes_create(d, &b), 0))
		exit(1);
	disk_close(d, NULL);
	return b;
}

static int read_and_yield(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = disk_read(disk_child(d, 0), v, offset, io);

	wait_yield();
	return status;
}

/* A disk under which others come by between the read and the write of a read-modify-write. */
static struct bytes *open_slow_view(const char *spec)
{
	static const struct disk_ops slow = {.read = read_and_yield};
	struct disk *child = NULL, *d;
	struct bytes *b = NULL;

	if (!CHECK_EQ(disk_open(spec, 0, &child, NULL), 0))
		exit(1);
	d = disk_new(sizeof(*d), "slow", &slow, &child, 1);
	disk_inherit(d);
	if (!CHECK_EQ(disk_publish(d, disk_size(child), NULL), 0) || !CHECK_EQ(bytes_create(d, &b), 0))
		exit(1);
	disk_close(d, NULL);
	return b;
}

static struct bytes *trap_view(struct trap *t)
{
	struct bytes *b = NULL;

	if (!CHECK_EQ(bytes_create(&t->disk, &b), 0))
		exit(1);
	disk_close(&t->disk, NULL);
	return b;
}

static void end(struct bytes *b)
{
	CHECK_EQ(bytes_destroy(b, NULL), 0);
}

/* ------------------------------------------------------------------ against a flat model */

struct trial {
	struct bytes *bytes;
	struct model model;
	struct random random;
};

static void any_range(struct trial *t, uint64_t *offset, uint64_t *length)
{
	struct random *r = &t->random;
	uint64_t size = t->model.size, most = random_once_in(r, 10) ? size : random_once_in(r, 2) ? 20 : 9000;

	*offset = random_below(r, size);
	if (random_once_in(r, 3)) /* near a block's boundary, or a region's */
		*offset = *offset / t->model.block * t->model.block;
	if (random_once_in(r, 5) && size > MIB)
		*offset = MIB - random_below(r, 600);
	*length = random_below(r, most) + 1;
	if (*length > size - *offset || random_once_in(r, 30))
		*length = size - *offset;
}

static void check_read(struct trial *t, uint64_t offset, uint64_t length)
{
	unsigned char *found = malloc(length + 1);
	struct scatter s;

	if (!found)
		abort();
	scatter_make(&s, &t->random, length);
	CHECK_EQ(bytes_read(t->bytes, &s.vec, offset, &io_plain), 0);
	scatter_get(&s, found);
	CHECK_MEM(found, t->model.bytes + offset, length);
	CHECK(scatter_guarded(&s));
	scatter_free(&s);
	free(found);
}

static void check_write(struct trial *t, uint64_t offset, uint64_t length)
{
	struct io io = {.flags = random_once_in(&t->random, 10) ? IO_FUA : 0};
	struct scatter s;

	random_fill(&t->random, t->model.bytes + offset, length);
	scatter_make(&s, &t->random, length);
	scatter_put(&s, t->model.bytes + offset);
	CHECK_EQ(bytes_write(t->bytes, &s.vec, offset, &io), 0);
	CHECK(scatter_guarded(&s));
	scatter_free(&s);
}

static void check_zero(struct trial *t, uint64_t offset, uint64_t length)
{
	struct io io = {.flags = (unsigned)random_below(&t->random, 2 * IO_FAST_ONLY)};
	int status = bytes_write_zeroes(t->bytes, offset, length, &io);
	bool partial = (offset | length) % t->model.block;

	if ((io.flags & IO_FAST_ONLY) && partial)
		CHECK_EQ(status, -EOPNOTSUPP);
	else if (CHECK_EQ(status, 0))
		memset(t->model.bytes + offset, 0, length);
}

/* The edges keep their content. */
static void check_discard(struct trial *t, uint64_t offset, uint64_t length)
{
	uint64_t b = t->model.block, begin = (offset + b - 1) / b * b, stop = (offset + length) / b * b;

	CHECK_EQ(bytes_discard(t->bytes, offset, length, &io_plain), 0);
	if (begin < stop)
		CHECK(model_discarded(&t->model, bytes_disk(t->bytes), begin, stop - begin));
}

static void check_extents(struct trial *t, uint64_t offset, uint64_t length)
{
	CLEANUP_EXTENTS struct extents e;
	size_t max = random_once_in(&t->random, 2) ? SIZE_MAX : 1;
	uint64_t next = offset;

	extents_init(&e, offset, length, max);
	CHECK_EQ(bytes_extents(t->bytes, &e, &io_plain), 0);
	CHECK(e.count > 0 && e.count <= max);
	for (size_t i = 0; i < e.count; i++) {
		CHECK_EQ(e.list[i].offset, next);
		next += e.list[i].length;
		if (e.list[i].flags & EXTENT_ZERO)
			CHECK(memory_is_zero(t->model.bytes + e.list[i].offset, e.list[i].length));
	}
	CHECK(next == offset + length || (e.count == max && next < offset + length));
}

static void run_trial(const char *spec)
{
	struct trial t = {.bytes = open_view(spec), .random = random_stream(1)};
	struct disk *d = bytes_disk(t.bytes);

	model_make(&t.model, disk_size(d), disk_info(d)->block_size);
	CHECK(model_learn(&t.model, d));
	for (unsigned i = 0; i < 600 / contract_slowness() && !tap_errors; i++) {
		uint64_t offset, length;
		static void (*const checks[])(struct trial *, uint64_t, uint64_t) = {
			check_read, check_write, check_write, check_zero, check_discard, check_extents};
		any_range(&t, &offset, &length);
		checks[random_below(&t.random, 6)](&t, offset, length);
		CHECK_EQ(bytes_prefetch(t.bytes, offset, length, &io_plain), 0);
	}
	CHECK(model_agrees(&t.model, d, 0, t.model.size));
	CHECK_EQ(bytes_flush(t.bytes, &io_plain), 0);
	model_free(&t.model);
	end(t.bytes);
}

static void test_any_byte(void)
{
	run_trial("mem:2101248"); /* two regions and one page */
	run_trial("mem:2101248;block=4096");
	run_trial("memdiff:mem:1088K;block=64K");
	run_trial("mem:512");
}

/* ------------------------------------------------------------------ limits */

static void test_past_the_end(void)
{
	struct bytes *b = open_view("mem:8K;block=4096");
	static char memory[8192 + 1] = "x";
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	static const uint64_t cases[][2] = {
		{8192, 1},	     {8191, 2},		       {8193, 0},	      {0, 8193},
		{UINT64_MAX, 1},     {UINT64_MAX, 2},	       {UINT64_MAX - 4095, 4096}, {UINT64_MAX - 4096, 4097},
		{INT64_MAX, 1},	     {UINT64_C(1) << 63, 512}, {1, 8192},	      {UINT64_MAX - 2, 8192},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		CLEANUP_EXTENTS struct extents e;
		uint64_t offset = cases[i][0], length = cases[i][1];
		extents_init(&e, offset, length, SIZE_MAX);
		CHECK_EQ(bytes_read(b, &VEC_FLAT(memory, length), offset, &io_plain), -ERANGE);
		CHECK_EQ(bytes_write(b, &VEC_FLAT(memory, length), offset, &io_plain), -ERANGE);
		CHECK_EQ(bytes_discard(b, offset, length, &io_plain), -ERANGE);
		CHECK_EQ(bytes_write_zeroes(b, offset, length, &io_plain), -ERANGE);
		CHECK_EQ(bytes_prefetch(b, offset, length, &io_plain), -ERANGE);
		CHECK_EQ(bytes_extents(b, &e, &io_plain), -ERANGE);
	}
	bytes_read(b, &VEC_FLAT(memory, 2), 8191, &io);
	CHECK(strstr(failure.text, "8192 bytes") != NULL);
	end(b);
}

static void test_length_zero(void)
{
	struct bytes *b = open_view("mem:8K;block=4096");
	CLEANUP_EXTENTS struct extents e;

	for (uint64_t at = 0; at <= 8192; at += 819) {
		extents_init(&e, at, 0, SIZE_MAX);
		CHECK_EQ(bytes_read(b, &VEC_FLAT("", 0), at, &io_plain), 0);
		CHECK_EQ(bytes_write(b, &VEC_FLAT("", 0), at, &io_plain), 0);
		CHECK_EQ(bytes_discard(b, at, 0, &io_plain), 0);
		CHECK_EQ(bytes_write_zeroes(b, at, 0, &io_plain), 0);
		CHECK_EQ(bytes_prefetch(b, at, 0, &io_plain), 0);
		CHECK_EQ(bytes_extents(b, &e, &io_plain), 0);
		CHECK_EQ(e.count, 0);
	}
	end(b);
}

/* As large as a disk can be: nothing at its end overflows. */
static void test_end_of_the_largest_disk(void)
{
	struct bytes *b = open_view("mem:9223372036854710272;block=64K");
	uint64_t size = disk_size(bytes_disk(b));
	CLEANUP_EXTENTS struct extents e;
	char out[3];

	CHECK_EQ(bytes_write(b, &VEC_FLAT("abc", 3), size - 3, &io_plain), 0);
	CHECK_EQ(bytes_read(b, &VEC_FLAT(out, 3), size - 3, &io_plain), 0);
	CHECK_MEM(out, "abc", 3);
	CHECK_EQ(bytes_write_zeroes(b, size - 2, 2, &io_plain), 0);
	CHECK_EQ(bytes_read(b, &VEC_FLAT(out, 3), size - 3, &io_plain), 0);
	CHECK_MEM(out, "a\0", 3);
	CHECK_EQ(bytes_write_zeroes(b, 1, size - 1, &io_plain), 0);
	CHECK_EQ(bytes_read(b, &VEC_FLAT(out, 3), size - 3, &io_plain), 0);
	CHECK(memory_is_zero(out, 3));
	CHECK_EQ(bytes_discard(b, 1, size - 2, &io_plain), 0);
	extents_init(&e, 1, size - 2, SIZE_MAX);
	CHECK_EQ(bytes_extents(b, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].length, size - 2);
	end(b);
}

static void test_read_only(void)
{
	struct trap *t = trap_create(&(struct trap_options){.flags = DISK_READ_ONLY});
	struct bytes *b = trap_view(t);
	char out[3];

	CHECK_EQ(bytes_read(b, &VEC_FLAT(out, 3), 5, &io_plain), 0);
	CHECK_EQ(bytes_write(b, &VEC_FLAT("abc", 3), 5, &io_plain), -EROFS);
	CHECK_EQ(bytes_write(b, &VEC_FLAT("", 0), 5, &io_plain), -EROFS);
	CHECK_EQ(bytes_write_zeroes(b, 5, 3, &io_plain), -EROFS);
	CHECK_EQ(bytes_write_zeroes(b, 5, 0, &io_plain), -EROFS);
	CHECK_EQ(bytes_discard(b, 5, 3, &io_plain), -EROFS);
	CHECK_EQ(bytes_discard(b, 5, 5000, &io_plain), -EROFS);
	CHECK_EQ(bytes_write(b, &VEC_FLAT("abc", 3), MIB, &io_plain), -ERANGE);
	end(b);
}

/* ------------------------------------------------------------------ what goes down */

static void test_one_request_for_an_unaligned_write(void)
{
	struct trap *t = trap_create(&(struct trap_options){.flags = DISK_FUA});
	struct bytes *b = trap_view(t);
	struct initiator who = {.port = 1};
	struct io io = {.flags = IO_FUA, .who = &who};
	static char data[5000];

	memset(data, 'x', sizeof(data));
	memset(t->content, 'o', 8192);
	CHECK_EQ(bytes_write(b, &VEC_FLAT(data, 5000), 100, &io), 0);
	CHECK_EQ(t->count, 3); /* each edge, and all of it at once */
	CHECK_EQ(t->log[0].op, TRAP_READ);
	CHECK_EQ(t->log[0].offset, 0);
	CHECK_EQ(t->log[0].length, 512);
	CHECK_EQ(t->log[1].op, TRAP_READ);
	CHECK_EQ(t->log[1].offset, 4608);
	CHECK_EQ(t->log[2].op, TRAP_WRITE);
	CHECK_EQ(t->log[2].offset, 0);
	CHECK_EQ(t->log[2].length, 5120);
	CHECK_EQ(t->log[2].flags, IO_FUA);
	CHECK(t->log[2].who == &who);
	for (unsigned i = 0; i < 8192; i++)
		if (t->content[i] != (i >= 100 && i < 5100 ? 'x' : 'o'))
			CHECK(!"written where it was asked for");
	end(b);
}

static void test_whole_blocks_pass(void)
{
	struct trap *t = trap_create(&(struct trap_options){.flags = DISK_FUA | DISK_FAST_ZERO});
	struct bytes *b = trap_view(t);
	struct io io = {.flags = IO_FUA | IO_MAY_UNMAP | IO_FAST_ONLY};
	static char data[1024];

	CHECK_EQ(bytes_write(b, &VEC_FLAT(data, 1024), 512, &io), 0);
	CHECK_EQ(bytes_write_zeroes(b, 512, 1024, &io), 0);
	CHECK_EQ(bytes_read(b, &VEC_FLAT(data, 1024), 512, &io), 0);
	CHECK_EQ(t->count, 3);
	CHECK_EQ(t->log[1].flags, io.flags);
	end(b);
}

static void test_flags_of_partial_zeroes(void)
{
	struct trap *t = trap_create(&(struct trap_options){.flags = DISK_FUA | DISK_FAST_ZERO});
	struct bytes *b = trap_view(t);
	struct io io = {.flags = IO_FUA | IO_MAY_UNMAP};

	CHECK_EQ(bytes_write_zeroes(b, 100, 2000, &io), 0);
	CHECK_EQ(t->counts[TRAP_READ], 2);
	CHECK_EQ(t->counts[TRAP_WRITE], 2);
	CHECK_EQ(t->counts[TRAP_ZEROES], 1);
	for (unsigned i = 0; i < t->count; i++) {
		if (t->log[i].op == TRAP_WRITE)
			CHECK_EQ(t->log[i].flags, IO_FUA); /* each is durable when the call returns */
		if (t->log[i].op == TRAP_ZEROES)
			CHECK_EQ(t->log[i].flags, io.flags);
	}
	end(b);
}

/* An edge that cannot be read, or a write that fails: the status comes back and nothing is lost. */
static void test_failures(void)
{
	for (unsigned nth = 1; nth <= 3; nth++) {
		struct trap *t = trap_create(&(struct trap_options){0});
		struct bytes *b = trap_view(t);
		memset(t->content, 'o', 8192);
		trap_fail(t, BIT(TRAP_READ) | BIT(TRAP_WRITE), nth, -ENODATA);
		CHECK_EQ(bytes_write(b, &VEC_FLAT("0123456789", 10), 505, &io_plain), -ENODATA);
		CHECK(t->content[505] == 'o' && t->content[514] == 'o');
		CHECK_EQ(bytes_write(b, &VEC_FLAT("0123456789", 10), 505, &io_plain), 0); /* no lock is left */
		CHECK_MEM(t->content + 505, "0123456789", 10);
		trap_fail(t, BIT(TRAP_READ) | BIT(TRAP_WRITE), nth, -EIO);
		CHECK_EQ(bytes_write_zeroes(b, 505, 10, &io_plain), -EIO);
		CHECK_EQ(bytes_write_zeroes(b, 505, 10, &io_plain), 0);
		CHECK(memory_is_zero(t->content + 505, 10) && t->content[504] == 'o' && t->content[515] == 'o');
		end(b);
	}
}

static void test_destroy_reports(void)
{
	struct trap *t = trap_create(&(struct trap_options){0});
	struct bytes *b = trap_view(t);
	CLEANUP_ERROR struct error err = {0};

	trap_fail(t, BIT(TRAP_FLUSH), 1, -EIO);
	CHECK_EQ(bytes_destroy(b, &err), -EIO);
	CHECK(strstr(error_text(&err), "flush before close") != NULL);
	CHECK_EQ(bytes_destroy(NULL, NULL), 0);
}

/* ------------------------------------------------------------------ neighbours */

#define OWNERS 6u
#define SPAN 3u /* bytes of a zeroer */
#define NR_BYTES (5 * 4096u + 300)

/*
 * Byte i of the window belongs to owner i / SPAN mod OWNERS. Each changes its own bytes only, one by one or SPAN at once, and
 * checks all that is its own, while the others do the same in the same blocks. One more owns a wasteland of two blocks, one on
 * each side of the boundary of two regions, and some bytes of the blocks beside them: it writes and zeroes all of it at once,
 * and discards it and more, since edges are kept.
 */
struct village {
	struct bytes *bytes;
	uint64_t window;
	uint64_t waste, waste_end; /* bytes */
	struct wait_group ended;
	_Atomic unsigned next, living;
	char truth[NR_BYTES];
};

static bool in_wasteland(const struct village *v, uint64_t i)
{
	return v->window + i >= v->waste && v->window + i < v->waste_end;
}

static void check_own(struct village *v, unsigned owner)
{
	char *found = malloc(NR_BYTES);

	if (!found)
		abort();
	CHECK_EQ(bytes_read(v->bytes, &VEC_FLAT(found, NR_BYTES), v->window, &io_plain), 0);
	for (unsigned i = 0; i < NR_BYTES; i++)
		if (i / SPAN % OWNERS == owner && !in_wasteland(v, i) && found[i] != v->truth[i]) {
			CHECK(!"a neighbour took a byte");
			tap_diag("byte %u is %d, not %d", i, found[i], v->truth[i]);
			break;
		}
	free(found);
}

static void change_own(struct village *v, unsigned owner, struct random *r)
{
	unsigned spans = NR_BYTES / SPAN / OWNERS;
	unsigned i = ((unsigned)random_below(r, spans) * OWNERS + owner) * SPAN;
	char value = (char)random_below(r, 256);

	if (in_wasteland(v, i) || in_wasteland(v, i + SPAN - 1))
		return;
	if (random_once_in(r, 4)) {
		CHECK_EQ(bytes_write_zeroes(v->bytes, v->window + i, SPAN, &io_plain), 0);
		memset(v->truth + i, 0, SPAN);
		return;
	}
	i += (unsigned)random_below(r, SPAN);
	CHECK_EQ(bytes_write(v->bytes, &VEC_FLAT(&value, 1), v->window + i, &io_plain), 0);
	v->truth[i] = value;
}

static void live(struct village *v, unsigned owner)
{
	struct random r = random_stream(60 + owner);

	for (unsigned i = 0; i < 3000 / contract_slowness(); i++) {
		change_own(v, owner, &r);
		if (i % 50 == 0)
			check_own(v, owner);
	}
	check_own(v, owner);
	atomic_fetch_sub(&v->living, 1);
}

static void lay_waste(struct village *v)
{
	struct random r = random_stream(59);
	uint64_t length = v->waste_end - v->waste;
	char *data = calloc(1, length);

	if (!data)
		abort();
	do {
		uint64_t before = random_below(&r, 200), after = random_below(&r, 200);
		CHECK_EQ(bytes_write(v->bytes, &VEC_FLAT(data, length), v->waste, &io_plain), 0);
		CHECK_EQ(bytes_discard(v->bytes, v->waste - before, before + length + after, &io_plain), 0);
		CHECK_EQ(bytes_write_zeroes(v->bytes, v->waste, length, &io_plain), 0);
		wait_yield();
	} while (atomic_load(&v->living));
	free(data);
}

static void villager(void *argument)
{
	struct village *v = argument;
	unsigned number = atomic_fetch_add(&v->next, 1);

	if (number < OWNERS)
		live(v, number);
	else
		lay_waste(v);
	wait_group_done(&v->ended);
}

static void *villager_thread(void *argument)
{
	villager(argument);
	return NULL;
}

/* `fibers`: every second one is a fiber, on two loops in turn; the others are threads, which know nothing of loops. */
static void run_village(const char *spec, bool fibers)
{
	static struct village v;
	struct loop *loops[2] = {NULL, NULL};
	pthread_t threads[OWNERS + 1];
	unsigned nr_threads = 0;
	uint64_t block;

	memset(&v, 0, sizeof(v));
	v.bytes = fibers ? open_slow_view(spec) : open_view(spec);
	block = disk_info(bytes_disk(v.bytes))->block_size;
	v.window = MIB - 2 * 4096 - 77;
	v.waste = MIB - block - 10;
	v.waste_end = MIB + block + 10;
	atomic_store(&v.living, OWNERS);
	wait_group_add(&v.ended, OWNERS + 1);
	for (unsigned i = 0; fibers && i < 2; i++)
		CHECK_EQ(loop_start(NULL, &loops[i], NULL), 0);
	for (unsigned i = 0; i <= OWNERS; i++) {
		if (fibers && i % 3)
			CHECK_EQ(loop_spawn(loops[i % 2], villager, &v), 0);
		else if (pthread_create(&threads[nr_threads++], NULL, villager_thread, &v))
			abort();
	}
	wait_group_wait(&v.ended);
	while (nr_threads)
		pthread_join(threads[--nr_threads], NULL);
	for (unsigned i = 0; i < OWNERS; i++)
		check_own(&v, i);
	for (unsigned i = 0; fibers && i < 2; i++)
		loop_finish(loops[i]);
	end(v.bytes);
}

static void test_neighbours_in_threads(void)
{
	run_village("mem:2M;block=512", false);
	run_village("mem:2M;block=4096", false);
}

static void test_neighbours_in_fibers(void)
{
	run_village("mem:2M;block=512", true);
	run_village("mem:2M;block=4096", true);
}

/* A disk that waits in the middle of each request lets the others in. */
static void test_neighbours_on_a_file(void)
{
	char spec[600];

	snprintf(spec, sizeof(spec), "file:%s;create=2M;block=4096", tmppath("village"));
	run_village(spec, true);
}

/* ------------------------------------------------------------------ two edges in different regions */

/*
 * Two write long ranges over the boundary of two regions; those of the first begin some bytes before the second's, in the same
 * block, or end some bytes after them. These bytes are the first's own.
 */
struct pair {
	struct bytes *bytes;
	uint64_t offset[2], end[2], own; /* own: a byte of the first */
	struct wait_group ended;
	_Atomic unsigned next;
};

static void write_long(void *argument)
{
	struct pair *p = argument;
	unsigned number = atomic_fetch_add(&p->next, 1);
	uint64_t length = p->end[number] - p->offset[number];
	char data[3 * 512], found;

	for (unsigned i = 0; i < 200; i++) {
		memset(data, (int)i, sizeof(data));
		CHECK_EQ(bytes_write(p->bytes, &VEC_FLAT(data, length), p->offset[number], &io_plain), 0);
		for (unsigned look = 0; look < 3; look++) { /* it stays so while the other goes on */
			CHECK_EQ(bytes_read(p->bytes, &VEC_FLAT(&found, 1), p->own, &io_plain), 0);
			if (!number)
				CHECK_EQ(found, (char)i);
		}
	}
	wait_group_done(&p->ended);
}

static void check_pair(struct pair *p)
{
	struct loop *loop = NULL;

	p->bytes = open_slow_view("mem:2M");
	CHECK_EQ(loop_start(NULL, &loop, NULL), 0);
	wait_group_add(&p->ended, 2);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(loop_spawn(loop, write_long, p), 0);
	wait_group_wait(&p->ended);
	loop_finish(loop);
	end(p->bytes);
}

static void test_edges_in_different_regions(void)
{
	struct pair head = {.offset = {MIB - 20, MIB - 10}, .end = {MIB + 512, MIB + 512}, .own = MIB - 15};
	struct pair tail = {.offset = {MIB - 512, MIB - 512}, .end = {MIB + 20, MIB + 10}, .own = MIB + 15};

	check_pair(&head);
	check_pair(&tail);
}

/* ------------------------------------------------------------------ many locks at once */

struct crowd {
	struct bytes *bytes;
	_Atomic unsigned next;
};

/* Long unaligned ranges, up to all of the disk, in every order: nobody waits for ever. */
static void *change_long_ranges(void *argument)
{
	struct crowd *c = argument;
	struct random r = random_stream(80 + atomic_fetch_add(&c->next, 1));
	uint64_t size = disk_size(bytes_disk(c->bytes));
	char block[4096];

	random_fill(&r, block, sizeof(block));
	for (unsigned i = 0; i < 400 / contract_slowness(); i++) {
		uint64_t offset = random_below(&r, size - 1) + 1;
		uint64_t length = random_below(&r, random_once_in(&r, 2) ? size - offset : 3000) + 1;
		if (length > size - offset)
			length = size - offset;
		if (random_once_in(&r, 3))
			CHECK_EQ(bytes_discard(c->bytes, offset, length, &io_plain), 0);
		else if (random_once_in(&r, 2) || length > sizeof(block))
			CHECK_EQ(bytes_write_zeroes(c->bytes, offset, length, &io_plain), 0);
		else
			CHECK_EQ(bytes_write(c->bytes, &VEC_FLAT(block, length), offset, &io_plain), 0);
	}
	return NULL;
}

static void test_long_ranges_at_once(void)
{
	struct crowd c = {.bytes = open_view("mem:200M;block=4096")}; /* more regions than locks */
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, change_long_ranges, &c))
			abort();
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	end(c.bytes);
}

int main(void)
{
	TAP_RUN(test_any_byte);
	TAP_RUN(test_past_the_end);
	TAP_RUN(test_length_zero);
	TAP_RUN(test_end_of_the_largest_disk);
	TAP_RUN(test_read_only);
	TAP_RUN(test_one_request_for_an_unaligned_write);
	TAP_RUN(test_whole_blocks_pass);
	TAP_RUN(test_flags_of_partial_zeroes);
	TAP_RUN(test_failures);
	TAP_RUN(test_destroy_reports);
	TAP_RUN(test_neighbours_in_threads);
	TAP_RUN(test_neighbours_in_fibers);
	TAP_RUN(test_neighbours_on_a_file);
	TAP_RUN(test_edges_in_different_regions);
	TAP_RUN(test_long_ranges_at_once);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks made of layers: random stacks against a flat array, read caches, sizes, what goes down and what does not, building. */
#include <inttypes.h>
#include <pthread.h>

#include "core/open.h"
#include "core/wait.h"
#include "layers/layer.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define B 512u
#define BIT(op) (1u << (op))

/* ------------------------------------------------------------------ short forms */

static struct layer *ram(uint64_t blocks)
{
	struct layer *l = ram_layer_create(blocks * B, B, 0);

	if (!l)
		abort();
	return l;
}

static void put(struct layer *l, uint64_t block, uint64_t count, char value)
{
	char *data = malloc(count * B);

	if (!data)
		abort();
	memset(data, value, count * B);
	CHECK_EQ(l->ops->write(l, &VEC_FLAT(data, count * B), block * B, &io_plain), 0);
	free(data);
}

static struct disk *build(const struct layer_place *places, unsigned count)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (layered_create("layered", places, count, NULL, 0, 0, &d, &err)) {
		tap_diag("%s", error_text(&err));
		CHECK(!"it builds");
		exit(1);
	}
	return d;
}

/* The same over a disk at the bottom, which the last place is for. */
static struct disk *build_over(struct layer_place *places, unsigned count, struct disk *base)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	places[count - 1].layer = disk_layer_create(base);
	if (layered_create("layered", places, count, &base, 1, 0, &d, &err)) {
		tap_diag("%s", error_text(&err));
		CHECK(!"it builds");
		exit(1);
	}
	return d;
}

/* The blocks' first bytes as text: '.' for zero. Whole blocks must be of one byte. */
static const char *show(struct disk *d, uint64_t block, uint64_t count)
{
	static char text[64], data[64 * B];

	memset(data, '?', sizeof(data));
	if (!CHECK_EQ(disk_read(d, &VEC_FLAT(data, count * B), block * B, &io_plain), 0))
		return "";
	for (uint64_t i = 0; i < count; i++) {
		for (unsigned at = 1; at < B; at++)
			CHECK(data[i * B + at] == data[i * B]);
		text[i] = data[i * B] ? data[i * B] : '.';
	}
	text[count] = 0;
	return text;
}

static void write_blocks(struct disk *d, uint64_t block, uint64_t count, char value)
{
	char data[64 * B];

	memset(data, value, count * B);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, count * B), block * B, &io_plain), 0);
}

static void close_good(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(disk_close(d, &err), 0);
	CHECK_STR(err.text, NULL);
}

static unsigned bytes_stored(struct layer *l)
{
	struct ram_usage u;

	ram_layer_usage(l, &u);
	return (unsigned)u.stored;
}

/* ------------------------------------------------------------------ overlay */

static void test_upper_layers_hide_lower_ones(void)
{
	struct layer_place p[3] = {{.layer = ram(10)}, {.layer = ram(10)}, {.layer = ram(10)}};
	struct disk *d;

	put(p[2].layer, 0, 8, 'c');
	put(p[1].layer, 2, 3, 'b');
	put(p[1].layer, 6, 1, 0);
	put(p[0].layer, 3, 1, 'a');
	d = build(p, 3);
	CHECK_STR(show(d, 0, 10), "ccbabc.c..");
	write_blocks(d, 6, 1, 'x');
	CHECK_STR(show(d, 0, 10), "ccbabcxc..");
	CHECK_EQ(disk_discard(d, 0, 3 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 10), "...abcxc..");
	CHECK_EQ(disk_write_zeroes(d, 3 * B, 2 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 10), ".....cxc..");
	close_good(d);
}

/* A child larger than its parent: zeroes past the parent's end, where it begins and across it. */
static void test_child_larger_than_parent(void)
{
	struct layer_place p[2] = {{.layer = ram(20)}, {.layer = ram(8)}};
	struct disk *d;

	put(p[1].layer, 0, 8, 'p');
	put(p[0].layer, 10, 1, 'c');
	d = build(p, 2);
	CHECK_EQ(disk_size(d), 20 * B);
	CHECK_STR(show(d, 0, 20), "pppppppp..c.........");
	CHECK_STR(show(d, 6, 4), "pp..");
	CHECK_STR(show(d, 8, 4), "..c.");
	CHECK_STR(show(d, 9, 1), ".");
	CHECK_STR(show(d, 19, 1), ".");
	write_blocks(d, 7, 2, 'x');
	CHECK_STR(show(d, 6, 4), "pxx.");
	CHECK_EQ(disk_discard(d, 6 * B, 5 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 20), "pppppp..............");
	close_good(d);
}

static void test_child_smaller_than_parent(void)
{
	struct layer_place p[2] = {{.layer = ram(4)}, {.layer = ram(8)}};
	struct disk *d;

	put(p[1].layer, 0, 8, 'p');
	d = build(p, 2);
	CHECK_EQ(disk_size(d), 4 * B);
	CHECK_STR(show(d, 0, 4), "pppp");
	CHECK_EQ(disk_resize(d, 8 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 8), "pppp...."); /* what is added is zero, whatever lies below */
	close_good(d);
}

/* The smallest of the layers in between limits what is seen of those below it. */
static void test_small_layer_in_between(void)
{
	struct layer_place p[4] = {{.layer = ram(12)}, {.layer = ram(12)}, {.layer = ram(5)}, {.layer = ram(12)}};
	struct disk *d;

	put(p[3].layer, 0, 12, 'd');
	put(p[2].layer, 4, 1, 'c');
	put(p[1].layer, 7, 1, 'b');
	d = build(p, 4);
	CHECK_STR(show(d, 0, 12), "ddddc..b....");
	close_good(d);
}

static void test_thousand_layers(void)
{
	enum { N = 1000 };
	static struct layer_place p[N];
	static unsigned char data[N * B];
	CLEANUP_EXTENTS struct extents e;
	struct disk *d;

	for (unsigned i = 0; i < N; i++) {
		p[i].layer = ram(N);
		put(p[i].layer, i, 1, (char)(i % 250 + 1));
		if (i)
			put(p[i].layer, i - 1, 1, 'x'); /* hidden */
	}
	d = build(p, N);
	CHECK_EQ(disk_read(d, &VEC_FLAT(data, sizeof(data)), 0, &io_plain), 0);
	for (unsigned i = 0; i < N; i++)
		CHECK_EQ(data[i * B], i % 250 + 1);
	extents_init(&e, 0, N * B, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(disk_prefetch(d, 0, N * B, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, N * B, &io_plain), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(data, sizeof(data)), 0, &io_plain), 0);
	CHECK(memory_is_zero(data, sizeof(data)));
	close_good(d);
}

/* ------------------------------------------------------------------ read caches */

static const struct trap_options base_options = {
	.size = 64 * B,
	.flags = DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE,
	.discard = DISK_DISCARD_ZEROES,
};

static struct trap *make_base(void)
{
	struct trap *t = trap_create(&base_options);

	for (uint64_t i = 0; i < 64; i++)
		memset(t->content + i * B, (int)('A' + i % 26), B);
	return t;
}

/* One request that misses the cache, meets the layer above, and then hits the cache. */
static void test_hit_after_miss_in_one_request(void)
{
	struct trap *base = make_base();
	struct layer_place p[3] = {{.layer = ram(64)}, {.layer = ram(64), .read_cache = true}};
	struct disk *d;

	put(p[0].layer, 3, 1, 'd');
	put(p[1].layer, 5, 3, 'c');
	d = build_over(p, 3, &base->disk);
	CHECK_STR(show(d, 0, 8), "ABCdEccc");
	CHECK_STR(show(d, 0, 12), "ABCdEcccIJKL");
	close_good(d);
}

static void test_cache_is_filled_once(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64), .read_cache = true}};
	struct disk *d = build_over(p, 2, &base->disk);

	CHECK_STR(show(d, 4, 4), "EFGH");
	CHECK_EQ(base->counts[TRAP_READ], 1);
	CHECK_STR(show(d, 4, 4), "EFGH");
	CHECK_EQ(base->counts[TRAP_READ], 1);
	CHECK_STR(show(d, 2, 8), "CDEFGHIJ");
	CHECK_EQ(base->counts[TRAP_READ], 3); /* only the two gaps */
	CHECK_EQ(base->log[1].length + base->log[2].length, 4 * B);
	CHECK_STR(show(d, 0, 12), "ABCDEFGHIJKL");
	CHECK_EQ(base->counts[TRAP_WRITE], 0);
	close_good(d);
}

/* The writes of the disk are not the cache's when it lies below the write path. */
static void test_cache_below_the_write_path(void)
{
	struct trap *base = make_base();
	struct layer_place p[3] = {{.layer = ram(64)}, {.layer = ram(64), .read_cache = true}};
	struct disk *d = build_over(p, 3, &base->disk);

	write_blocks(d, 1, 2, 'w');
	CHECK_STR(show(d, 0, 5), "AwwDE");
	CHECK_EQ(bytes_stored(p[1].layer), 4096);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(base->counts[TRAP_WRITE] + base->counts[TRAP_FLUSH], 0);
	CHECK_EQ(disk_discard(d, 0, 64 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 5), ".....");
	close_good(d);
}

/* Two caches on top of each other: both are filled by one read. */
static void test_two_caches(void)
{
	struct trap *base = make_base();
	struct layer_place p[4] = {{.layer = ram(64)}, {.layer = ram(64), .read_cache = true},
				   {.layer = ram(64), .read_cache = true}};
	struct disk *d = build_over(p, 4, &base->disk);
	struct layer_run run;

	CHECK_STR(show(d, 10, 3), "KLM");
	for (unsigned i = 1; i <= 2; i++) {
		CHECK_EQ(p[i].layer->ops->map(p[i].layer, 10 * B, 10 * B, &run, &io_plain), 0);
		CHECK_EQ(run.presence, LAYER_DATA);
		CHECK_EQ(run.length, 3 * B);
	}
	CHECK_EQ(p[0].layer->ops->map(p[0].layer, 0, 64 * B, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ABSENT);
	close_good(d);
}

/* Larger than the private memory of one fill. */
static void test_large_fill(void)
{
	enum { SIZE = 5 << 20 };
	struct trap *base = trap_create(&(struct trap_options){.size = SIZE + B});
	struct layer_place p[2] = {{.layer = ram(SIZE / B + 1), .read_cache = true}};
	struct random r = random_stream(3);
	unsigned char *out = malloc(SIZE + B);
	struct disk *d;

	REQUIRE(out != NULL);
	random_fill(&r, base->content, base->capacity);
	d = build_over(p, 2, &base->disk);
	for (unsigned round = 0; round < 2; round++) {
		memset(out, 0xee, SIZE + B);
		CHECK_EQ(disk_read(d, &VEC_FLAT(out, SIZE), B, &io_plain), 0);
		CHECK_MEM(out, base->content + B, base->capacity - B);
		CHECK(memory_is_zero(out + base->capacity - B, SIZE - base->capacity + B));
	}
	free(out);
	close_good(d);
}

static int refuse_fill(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	(void)l;
	(void)v;
	(void)offset;
	return io_fail(io, -ENOSPC, "the cache is full");
}

/* A fill that fails is no failure of the read, and is counted. */
static void test_failed_fill(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64), .read_cache = true}};
	struct layer_ops ops = *p[0].layer->ops;
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	struct disk *d;
	char out[2 * B];
	json_t *o;

	ops.fill = refuse_fill;
	p[0].layer->ops = &ops;
	d = build_over(p, 2, &base->disk);
	CHECK_EQ(disk_read(d, &VEC_FLAT(out, sizeof(out)), B, &io), 0);
	CHECK(out[0] == 'B' && out[B] == 'C');
	CHECK_EQ(failure.status, 0);
	o = disk_describe(d);
	CHECK_EQ(json_integer_value(json_object_get(o, "failed_fills")), 1);
	json_decref(o);
	close_good(d);
}

/* A read that fails below leaves nothing in the cache. */
static void test_failed_read_fills_nothing(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64), .read_cache = true}};
	struct disk *d = build_over(p, 2, &base->disk);
	char out[4 * B];

	trap_fail(base, BIT(TRAP_READ), 1, -ENODATA);
	CHECK_EQ(disk_read(d, &VEC_FLAT(out, sizeof(out)), 0, &io_plain), -ENODATA);
	CHECK_EQ(bytes_stored(p[0].layer), 0);
	CHECK_STR(show(d, 0, 4), "ABCD");
	close_good(d);
}

struct cache_race {
	struct disk *disk;
	_Atomic bool stop;
};

static void *read_in_race(void *argument)
{
	struct cache_race *z = argument;
	char out[64 * B];

	while (!atomic_load(&z->stop))
		CHECK_EQ(disk_read(z->disk, &VEC_FLAT(out, sizeof(out)), 0, &io_plain), 0);
	return NULL;
}

/* What is written while the cache is being filled from below stays. */
static void test_writes_beside_fills(void)
{
	for (unsigned round = 0; round < 200 / contract_slowness() + 3; round++) {
		struct trap *base = make_base();
		struct layer_place p[2] = {{.layer = ram(64), .read_cache = true}};
		struct cache_race z = {.disk = build_over(p, 2, &base->disk)};
		pthread_t threads[2];
		for (unsigned i = 0; i < 2; i++)
			if (pthread_create(&threads[i], NULL, read_in_race, &z))
				abort();
		for (uint64_t block = 0; block < 64; block++)
			write_blocks(z.disk, block, 1, 'w');
		atomic_store(&z.stop, true);
		for (unsigned i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		CHECK_STR(show(z.disk, 0, 20), "wwwwwwwwwwwwwwwwwwww");
		CHECK_STR(show(z.disk, 44, 20), "wwwwwwwwwwwwwwwwwwww");
		close_good(z.disk);
	}
}

/* ------------------------------------------------------------------ write-through */

static void test_write_through(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64), .write_through = true}};
	struct io fua = {.flags = IO_FUA};
	struct disk *d = build_over(p, 2, &base->disk);
	char out[B] = "y";

	write_blocks(d, 1, 2, 'w');
	CHECK_EQ(base->content[B], 'w');
	CHECK_EQ(disk_write(d, &VEC_FLAT(out, B), 0, &fua), 0);
	CHECK_EQ(base->log[base->count - 1].flags, IO_FUA);
	CHECK_EQ(disk_write_zeroes(d, 3 * B, B, &io_plain), 0);
	CHECK_EQ(base->content[3 * B], 0);
	CHECK_EQ(disk_discard(d, 4 * B, B, &io_plain), 0);
	CHECK_EQ(base->content[4 * B], 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(base->counts[TRAP_FLUSH], 1);
	CHECK_STR(show(d, 1, 6), "ww..FG");
	CHECK(!(disk_info(d)->flags & DISK_VOLATILE)); /* all is below */
	close_good(d);
}

static void test_write_through_failures(void)
{
	static const enum trap_op ops[] = {TRAP_WRITE, TRAP_DISCARD, TRAP_ZEROES, TRAP_FLUSH};
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64), .write_through = true}};
	struct disk *d = build_over(p, 2, &base->disk);
	char out[B] = "y";

	for (unsigned i = 0; i < 4; i++) {
		struct failure failure = {0};
		struct io io = {.failure = &failure};
		int status;
		trap_fail(base, BIT(ops[i]), 1, -ENOSPC);
		if (i == 0)
			status = disk_write(d, &VEC_FLAT(out, B), 0, &io);
		else if (i == 1)
			status = disk_discard(d, 0, B, &io);
		else
			status = i == 2 ? disk_write_zeroes(d, 0, B, &io) : disk_flush(d, &io);
		CHECK_EQ(status, -ENOSPC);
		CHECK_STR(failure.text, "trap: sprung");
	}
	close_good(d);
}

/* The layer below is smaller: what has no room there stays above. */
static void test_write_through_to_a_smaller_layer(void)
{
	struct layer_place p[2] = {{.layer = ram(12), .write_through = true}, {.layer = ram(6)}};
	struct disk *d = build(p, 2);

	write_blocks(d, 4, 4, 'w');
	CHECK_STR(show(d, 0, 12), "....wwww....");
	CHECK_EQ(disk_write_zeroes(d, 5 * B, 2 * B, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 10 * B, 2 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 12), "....w..w....");
	close_good(d);
}

/* ------------------------------------------------------------------ random stacks */

#define MOST_LAYERS 8u
#define MOST_BLOCKS 600u

struct stack {
	struct layer_place places[MOST_LAYERS];
	unsigned count;
	struct trap *base; /* the bottom layer, or NULL */
	struct disk *disk;
	struct model model;
	unsigned char presence[MOST_LAYERS][MOST_BLOCKS];
	char value[MOST_LAYERS][MOST_BLOCKS];
	uint64_t blocks[MOST_LAYERS];
};

/* Data of `value`, zero or absent in runs. */
static void populate(struct stack *s, unsigned i, struct random *r)
{
	struct layer *l = s->places[i].layer;

	for (uint64_t at = 0; at < s->blocks[i];) {
		uint64_t n = random_below(r, 12) + 1;
		enum presence presence = random_below(r, 3);
		char value = (char)(random_below(r, 100) + 1);
		if (n > s->blocks[i] - at)
			n = s->blocks[i] - at;
		if (presence != LAYER_ABSENT)
			put(l, at, n, presence == LAYER_DATA ? value : 0);
		for (uint64_t b = at; b < at + n; b++) {
			s->presence[i][b] = (unsigned char)presence;
			s->value[i][b] = presence == LAYER_DATA ? value : 0;
		}
		at += n;
	}
}

static void populate_base(struct stack *s, unsigned i, struct random *r)
{
	for (uint64_t b = 0; b < s->blocks[i]; b++) {
		s->presence[i][b] = LAYER_DATA;
		s->value[i][b] = (char)random_below(r, 100);
		memset(s->base->content + b * B, s->value[i][b], B);
	}
}

static void make_layer(struct stack *s, unsigned i, struct random *r)
{
	bool last = i + 1 == s->count;

	s->blocks[i] = random_below(r, MOST_BLOCKS) + 1;
	if (last && random_once_in(r, 2)) {
		s->base = trap_create(&(struct trap_options){.size = s->blocks[i] * B,
							     .capacity = MOST_BLOCKS * B,
							     .flags = base_options.flags,
							     .discard = DISK_DISCARD_ZEROES});
		populate_base(s, i, r);
		s->places[i].layer = disk_layer_create(&s->base->disk);
		return;
	}
	s->places[i] = (struct layer_place){.layer = ram(s->blocks[i]), .read_cache = !last && random_once_in(r, 3)};
	populate(s, i, r);
}

/* What the stack must show, by the plainest reading of the rule. */
static char expected(const struct stack *s, uint64_t block)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (block >= s->blocks[i])
			return 0;
		if (s->presence[i][block] != LAYER_ABSENT)
			return s->value[i][block];
	}
	return 0;
}

static void make_stack(struct stack *s, struct random *r)
{
	struct disk *base;
	unsigned through;

	memset(s, 0, sizeof(*s));
	s->count = (unsigned)random_below(r, MOST_LAYERS) + 1;
	through = random_once_in(r, 3) ? (unsigned)random_below(r, s->count) : 0;
	for (unsigned i = 0; i < s->count; i++)
		make_layer(s, i, r);
	for (unsigned i = 0; i < through; i++)
		s->places[i].write_through = true;
	base = s->base ? &s->base->disk : NULL;
	if (layered_create("stack", s->places, s->count, &base, base != NULL, 0, &s->disk, NULL))
		abort();
	model_make(&s->model, s->blocks[0] * B, B);
	for (uint64_t b = 0; b < s->blocks[0]; b++)
		memset(s->model.bytes + b * B, expected(s, b), B);
}

static void say_stack(const struct stack *s)
{
	for (unsigned i = 0; i < s->count; i++)
		tap_diag("layer %u: %s, %" PRIu64 " blocks%s%s", i, s->places[i].layer->kind, s->blocks[i],
			 s->places[i].read_cache ? ", read cache" : "",
			 s->places[i].write_through ? ", write-through" : "");
}

static void check_stack_extents(struct stack *s, uint64_t offset, uint64_t length)
{
	CLEANUP_EXTENTS struct extents e;
	uint64_t next = offset;

	extents_init(&e, offset, length, SIZE_MAX);
	if (!CHECK_EQ(disk_extents(s->disk, &e, &io_plain), 0))
		return;
	for (size_t i = 0; i < e.count; i++) {
		CHECK_EQ(e.list[i].offset, next);
		next += e.list[i].length;
		if (e.list[i].flags & EXTENT_ZERO)
			CHECK(memory_is_zero(s->model.bytes + e.list[i].offset, e.list[i].length));
	}
	CHECK_EQ(next, offset + length);
}

static void write_stack(struct stack *s, struct random *r, uint64_t offset, uint64_t length)
{
	unsigned char *data = s->model.bytes + offset;
	struct scatter scatter;

	random_fill(r, data, length);
	if (random_once_in(r, 4))
		memset(data, 0, length);
	scatter_make(&scatter, r, length);
	scatter_put(&scatter, data);
	CHECK_EQ(disk_write(s->disk, &scatter.vec, offset, &io_plain), 0);
	scatter_free(&scatter);
}

static void resize_stack(struct stack *s, struct random *r)
{
	uint64_t size = (random_below(r, MOST_BLOCKS) + 1) * B;
	struct model m;

	if (!(disk_info(s->disk)->flags & DISK_RESIZABLE))
		return;
	CHECK_EQ(disk_resize(s->disk, size, &io_plain), 0);
	model_make(&m, size, B);
	memcpy(m.bytes, s->model.bytes, size < s->model.size ? size : s->model.size);
	model_free(&s->model);
	s->model = m;
	CHECK(model_agrees(&s->model, s->disk, 0, size));
}

static void use_stack(struct stack *s, struct random *r)
{
	uint64_t offset, length;

	model_range(&s->model, r, MOST_BLOCKS * B, &offset, &length);
	switch (random_below(r, 12)) {
	case 0:
	case 1:
	case 2:
		write_stack(s, r, offset, length);
		break;
	case 3:
		CHECK_EQ(disk_write_zeroes(s->disk, offset, length, &io_plain), 0);
		memset(s->model.bytes + offset, 0, length);
		break;
	case 4:
		CHECK_EQ(disk_discard(s->disk, offset, length, &io_plain), 0);
		CHECK(model_discarded(&s->model, s->disk, offset, length));
		break;
	case 5:
		check_stack_extents(s, offset, length);
		break;
	case 6:
		CHECK_EQ(disk_prefetch(s->disk, offset, length, &io_plain), 0);
		break;
	case 7:
		if (random_once_in(r, 4))
			resize_stack(s, r);
		break;
	default:
		CHECK(model_agrees(&s->model, s->disk, offset, length));
	}
}

static void test_random_stacks(void)
{
	struct random r = random_stream(1);

	for (unsigned i = 0; i < 400 / contract_slowness() && !tap_errors; i++) {
		static struct stack s;
		make_stack(&s, &r);
		for (unsigned step = 0; step < 60 && !tap_errors; step++)
			use_stack(&s, &r);
		CHECK(model_agrees(&s.model, s.disk, 0, s.model.size));
		if (tap_errors)
			say_stack(&s);
		model_free(&s.model);
		close_good(s.disk);
	}
}

/* ------------------------------------------------------------------ sizes */

/* What was cut off does not come back from below. */
static void test_shrink_then_grow(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64)}};
	struct disk *d = build_over(p, 2, &base->disk);

	CHECK_EQ(disk_resize(d, 4 * B, &io_plain), 0);
	CHECK_EQ(disk_resize(d, 64 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 8), "ABCD....");
	write_blocks(d, 5, 1, 'w');
	CHECK_STR(show(d, 0, 8), "ABCD.w..");
	CHECK_EQ(disk_discard(d, 3 * B, 3 * B, &io_plain), 0);
	CHECK_STR(show(d, 0, 8), "ABC.....");
	CHECK_EQ(base->counts[TRAP_RESIZE], 0);
	close_good(d);
}

static void test_follows_its_base(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64)}};
	struct disk *d = build_over(p, 2, &base->disk);

	disk_set_size(&base->disk, 100 * B);
	CHECK_EQ(disk_size(d), 100 * B);
	write_blocks(d, 99, 1, 'w');
	CHECK_STR(show(d, 98, 2), ".w");
	disk_set_size(&base->disk, 10 * B); /* not downwards */
	CHECK_EQ(disk_size(d), 100 * B);
	CHECK_STR(show(d, 8, 4), "IJ..");
	disk_set_size(&base->disk, 64 * B);
	CHECK_STR(show(d, 8, 4), "IJKL");
	close_good(d);
}

/* Once resized by its user it has its own size. */
static void test_own_size_stays(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64)}};
	struct disk *d = build_over(p, 2, &base->disk);

	CHECK_EQ(disk_resize(d, 70 * B, &io_plain), 0);
	disk_set_size(&base->disk, 100 * B);
	CHECK_EQ(disk_size(d), 70 * B);
	memset(base->content, 'z', base->capacity);
	CHECK_STR(show(d, 62, 4), "zz..");
	close_good(d);
}

#define RESIZERS 3u

static const struct layer_ops *quick_ops;

/* Lets the others in before the disk learns of it. */
static int resize_slowly(struct layer *l, uint64_t size, const struct io *io)
{
	int status = quick_ops->resize(l, size, io);

	wait_yield();
	return status;
}

struct resizers {
	struct disk *disk;
	struct layer *top;
	pthread_barrier_t barrier;
	_Atomic unsigned next;
};

/* All resize once; in between the first looks. */
static void *resize_in_step(void *argument)
{
	struct resizers *z = argument;
	unsigned number = atomic_fetch_add(&z->next, 1);
	struct random r = random_stream(40 + number);

	for (unsigned i = 0; i < 1000 / contract_slowness(); i++) {
		pthread_barrier_wait(&z->barrier);
		CHECK_EQ(disk_resize(z->disk, (random_below(&r, 64) + 1) * B, &io_plain), 0);
		pthread_barrier_wait(&z->barrier);
		if (!number && disk_size(z->disk) != z->top->ops->size(z->top))
			CHECK(!"the disk is as large as its top layer");
	}
	return NULL;
}

static void test_resizes_at_once(void)
{
	struct trap *base = make_base();
	struct layer_place p[2] = {{.layer = ram(64)}};
	struct layer_ops slow = *p[0].layer->ops;
	struct resizers z = {.top = p[0].layer};
	pthread_t threads[RESIZERS];

	quick_ops = p[0].layer->ops;
	slow.resize = resize_slowly;
	p[0].layer->ops = &slow;
	z.disk = build_over(p, 2, &base->disk);
	pthread_barrier_init(&z.barrier, NULL, RESIZERS);
	for (unsigned i = 0; i < RESIZERS; i++)
		if (pthread_create(&threads[i], NULL, resize_in_step, &z))
			abort();
	for (unsigned i = 0; i < RESIZERS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&z.barrier);
	close_good(z.disk);
}

/* ------------------------------------------------------------------ building */

static void expect_refused(struct layer_place *places, unsigned count, unsigned flags, int status, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	CHECK_EQ(layered_create("stack", places, count, NULL, 0, flags, &d, &err), status);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
	for (unsigned i = 0; i < count && i < 4; i++)
		places[i].layer->ops->close(places[i].layer, true, NULL);
}

static void test_building_errors(void)
{
	struct trap *base = make_base(), *ro = trap_create(&(struct trap_options){.flags = DISK_READ_ONLY});

	expect_refused(NULL, 0, 0, -EINVAL, "no layers");
	expect_refused((struct layer_place[]){{.layer = ram(1)},
					      {.layer = disk_layer_create(&base->disk), .read_cache = true},
					      {.layer = ram(1)}},
		       3, 0, -EINVAL, "layer 1 (disk) cannot be a read cache");
	expect_refused((struct layer_place[]){{.layer = ram(1)}, {.layer = ram(1), .read_cache = true}}, 2, 0, -EINVAL,
		       "layer 1 (ram): nothing below it to cache");
	expect_refused((struct layer_place[]){{.layer = ram(8)}, {.layer = ram_layer_create(4096, 4096, 0)}}, 2, 0,
		       -EINVAL, "layer 0 (ram) has blocks of 512 bytes, the bottom layer of 4096");
	expect_refused((struct layer_place[]){{.layer = ram(1), .write_through = true}}, 1, 0, -EINVAL,
		       "layer 0 (ram): nothing to write through to");
	expect_refused((struct layer_place[]){{.layer = ram(1)}, {.layer = ram(1), .write_through = true},
					      {.layer = ram(1)}},
		       3, 0, -EINVAL, "layer 1 (ram): nothing to write through to");
	expect_refused((struct layer_place[]){{.layer = ram(1), .write_through = true},
					      {.layer = disk_layer_create(&ro->disk)}},
		       2, 0, -EROFS, "layer 1 (disk) is read-only, the disk is not");
	close_good(&base->disk);
	close_good(&ro->disk);
}

static void test_too_many_layers(void)
{
	enum { N = 4097 };
	static struct layer_place p[N];
	CLEANUP_ERROR struct error err = {0};
	struct layer *one = ram(1);
	struct disk *d = NULL;

	for (unsigned i = 0; i < N; i++)
		p[i].layer = one;
	CHECK_EQ(layered_create("stack", p, N, NULL, 0, 0, &d, &err), -EINVAL);
	CHECK_STR(error_text(&err), "4097 layers are more than the limit of 4096");
	one->ops->close(one, true, NULL);
}

static void test_bad_geometry(void)
{
	expect_refused((struct layer_place[]){{.layer = ram_layer_create(1000, 512, 0)}}, 1, 0, -EINVAL,
		       "not a multiple of the block size");
	expect_refused((struct layer_place[]){{.layer = ram_layer_create(3000, 1000, 0)}}, 1, 0, -EINVAL,
		       "block size of 1000");
	expect_refused((struct layer_place[]){{.layer = ram(0)}}, 1, 0, -EINVAL, "size is 0");
}

static struct disk *make_odd_base(void)
{
	struct trap *base = trap_create(&(struct trap_options){.size = 64 * B, .flags = DISK_ROTATIONAL | DISK_HAS_ID,
							       .discard = DISK_DISCARD_UNSPECIFIED});

	base->disk.info.physical_block_size = 4096;
	base->disk.info.discard_granularity = 65536;
	memset(base->disk.info.id, 9, 16);
	return &base->disk;
}

static void test_facts_are_merged(void)
{
	struct layer_place p[3] = {{.layer = ram(64), .write_through = true}};
	struct disk *d = build_over(p, 2, make_odd_base());

	CHECK_EQ(disk_info(d)->flags, DISK_ROTATIONAL | DISK_HAS_ID); /* no FUA, fast zero, resize: one lacks them */
	CHECK_EQ(disk_info(d)->discard, DISK_DISCARD_UNSPECIFIED);
	CHECK_EQ(disk_info(d)->discard_granularity, 65536);
	CHECK_EQ(disk_info(d)->physical_block_size, 4096);
	CHECK_EQ(disk_info(d)->id[15], 9);
	close_good(d);
	p[0] = (struct layer_place){.layer = ram(64)};
	d = build_over(p, 2, make_odd_base());
	CHECK_EQ(disk_info(d)->flags, DISK_ROTATIONAL | DISK_HAS_ID | DISK_FUA | DISK_FAST_ZERO | DISK_RESIZABLE |
					      DISK_VOLATILE);
	CHECK_EQ(disk_info(d)->discard, DISK_DISCARD_ZEROES);
	CHECK_EQ(disk_info(d)->discard_granularity, 4096);
	close_good(d);
}

/* A persistent diff over a volatile base is volatile, under a volatile read cache it is not. */
static void test_volatile(void)
{
	static const struct {
		bool lost[3], cache[3], through[3], expected;
	} rows[] = {
		{{0, 0, 0}, {0}, {0}, false},
		{{1, 0, 0}, {0}, {0}, true},
		{{1, 0, 0}, {0}, {1}, false},
		{{0, 1, 0}, {0}, {0}, true},
		{{0, 1, 0}, {0, 1}, {0}, false},
		{{0, 0, 1}, {0, 1}, {0}, true},
		{{1, 1, 0}, {0}, {1, 1}, false},
		{{1, 1, 0}, {0}, {1, 0}, true},
		{{1, 1, 1}, {0}, {1, 1}, true},
	};

	for (size_t row = 0; row < sizeof(rows) / sizeof(*rows); row++) {
		struct layer_place p[3];
		struct disk *d;
		for (unsigned i = 0; i < 3; i++) {
			p[i] = (struct layer_place){ram(4), rows[row].cache[i], rows[row].through[i]};
			if (!rows[row].lost[i])
				p[i].layer->info.flags &= ~(unsigned)DISK_VOLATILE;
		}
		d = build(p, 3);
		if (!CHECK_EQ(!!(disk_info(d)->flags & DISK_VOLATILE), rows[row].expected))
			tap_diag("row %zu", row);
		close_good(d);
	}
}

/* ------------------------------------------------------------------ joins */

static void expect_layers(const char *spec, unsigned layers, const char *below)
{
	struct disk *d = NULL;
	json_t *o;

	REQUIRE(disk_open(spec, 0, &d, NULL) == 0);
	o = disk_describe(d);
	if (!CHECK_EQ(json_array_size(json_object_get(o, "layers")), layers))
		tap_diag("%s", spec);
	json_decref(o);
	CHECK_STR(disk_child(d, 0) ? disk_kind_name(disk_child(d, 0)) : NULL, below);
	write_blocks(d, 1, 1, 'w');
	CHECK_STR(show(d, 0, 3), ".w.");
	close_good(d);
}

static void test_stacks_are_joined(void)
{
	expect_layers("mem:1M", 1, NULL);
	expect_layers("memdiff:mem:1M", 2, NULL);
	expect_layers("memdiff:memdiff:memdiff:mem:1M", 4, NULL);
	expect_layers("memdiff:null:1M", 2, "null");
	expect_layers("memdiff:memdiff:null:1M", 3, "null");
	expect_layers("memdiff:ro:mem:1M", 2, "ro");
	expect_layers("memdiff:slice:0:memdiff:null:1M", 2, "slice");
}

/* The stack below had a write path of its own; it is not the new one's. */
static void test_joined_stack_has_its_own_write_path(void)
{
	struct trap *base = make_base();
	struct layer_place below[2] = {{.layer = ram(64), .write_through = true}};
	struct layer_place top = {.layer = ram(64)};
	struct disk *d, *joined = NULL;

	d = build_over(below, 2, &base->disk);
	write_blocks(d, 0, 1, 'x');
	CHECK_EQ(base->counts[TRAP_WRITE], 1);
	CHECK_EQ(layered_create_over("joined", &top, d, 0, &joined, NULL), 0);
	write_blocks(joined, 1, 1, 'w');
	CHECK_EQ(base->counts[TRAP_WRITE], 1);
	CHECK_STR(show(joined, 0, 4), "xwCD");
	disk_set_size(&base->disk, 100 * B); /* the base knows its new parent */
	CHECK_EQ(disk_size(joined), 64 * B); /* the layer in between has not grown */
	close_good(joined);
}

static void test_join_fails_whole(void)
{
	struct trap *base = make_base();
	struct layer_place below[2] = {{.layer = ram(64)}};
	struct layer_place top = {.layer = ram_layer_create(4096, 4096, 0)};
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = build_over(below, 2, &base->disk), *joined = NULL;

	CHECK_EQ(layered_create_over("joined", &top, d, 0, &joined, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "layer 0") != NULL);
	top.layer->ops->close(top.layer, true, NULL);
	write_blocks(d, 1, 1, 'w'); /* what was there is as it was */
	CHECK_STR(show(d, 0, 4), "AwCD");
	disk_set_size(&base->disk, 100 * B);
	CHECK_EQ(disk_size(d), 100 * B);
	close_good(d);
}

int main(void)
{
	TAP_RUN(test_upper_layers_hide_lower_ones);
	TAP_RUN(test_child_larger_than_parent);
	TAP_RUN(test_child_smaller_than_parent);
	TAP_RUN(test_small_layer_in_between);
	TAP_RUN(test_thousand_layers);
	TAP_RUN(test_hit_after_miss_in_one_request);
	TAP_RUN(test_cache_is_filled_once);
	TAP_RUN(test_cache_below_the_write_path);
	TAP_RUN(test_two_caches);
	TAP_RUN(test_large_fill);
	TAP_RUN(test_failed_fill);
	TAP_RUN(test_failed_read_fills_nothing);
	TAP_RUN(test_writes_beside_fills);
	TAP_RUN(test_write_through);
	TAP_RUN(test_write_through_failures);
	TAP_RUN(test_write_through_to_a_smaller_layer);
	TAP_RUN(test_random_stacks);
	TAP_RUN(test_shrink_then_grow);
	TAP_RUN(test_follows_its_base);
	TAP_RUN(test_own_size_stays);
	TAP_RUN(test_resizes_at_once);
	TAP_RUN(test_building_errors);
	TAP_RUN(test_too_many_layers);
	TAP_RUN(test_bad_geometry);
	TAP_RUN(test_facts_are_merged);
	TAP_RUN(test_volatile);
	TAP_RUN(test_stacks_are_joined);
	TAP_RUN(test_joined_stack_has_its_own_write_path);
	TAP_RUN(test_join_fails_whole);
	return TAP_DONE();
}

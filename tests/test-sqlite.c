/* SPDX-License-Identifier: BSD-3-Clause */
/* The SQLite layer: what is written is there, in the three states, at once, after a commit, and after opening it again. */
#include "tests/loops.h"
#include "tests/model.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "layers/sqlite-index.h"
#include "layers/sqlite-layer.h"

#define SIZE (UINT64_C(7) * 1024 * 1024 + 3 * 65536)

/* ------------------------------------------------------------------ a layer and what it must hold */

struct truth {
	struct layer *layer;
	char path[512];
	uint64_t size;
	uint32_t block;
	bool bottom;
	unsigned char *bytes;
	unsigned char *presence; /* of each block */
	struct random random;
};

static bool reopen_as(struct truth *t, bool create, bool read_only)
{
	CLEANUP_ERROR struct error err = {0};
	const struct sqlite_layer_options o = {
		.path = t->path, .create = create, .read_only = read_only, .size = t->size, .block_size = t->block};

	if (t->layer && !CHECK_EQ(t->layer->ops->close(t->layer, false, &err), 0))
		tap_diag("%s", error_text(&err));
	t->layer = NULL;
	if (!CHECK_EQ(sqlite_layer_open(&o, &t->layer, &err), 0)) {
		tap_diag("%s", error_text(&err));
		return false;
	}
	t->layer->bottom = t->bottom;
	return true;
}

static bool reopen(struct truth *t, bool create)
{
	return reopen_as(t, create, false);
}

static bool open_read_only(struct truth *t)
{
	return reopen_as(t, false, true);
}

static bool begin(struct truth *t, const char *name, uint64_t size, uint32_t block, bool bottom)
{
	*t = (struct truth){.size = size, .block = block, .bottom = bottom, .random = random_stream(block)};
	snprintf(t->path, sizeof(t->path), "%s", tmppath(name));
	unlink(t->path);
	t->bytes = calloc(1, size);
	t->presence = calloc(1, size / block);
	if (!t->bytes || !t->presence) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return reopen(t, true);
}

/* What SQLite itself says of the file. */
static void check_integrity(const char *path)
{
	sqlite3_stmt *s;
	sqlite3 *sql;

	CHECK_EQ(sqlite3_open_v2(path, &sql, SQLITE_OPEN_READONLY, NULL), 0);
	CHECK_EQ(sqlite3_prepare_v2(sql, "PRAGMA integrity_check", -1, &s, NULL), 0);
	CHECK_EQ(sqlite3_step(s), SQLITE_ROW);
	CHECK_STR((const char *)sqlite3_column_text(s, 0), "ok");
	sqlite3_finalize(s);
	sqlite3_close(sql);
}

static void end(struct truth *t)
{
	if (t->layer)
		CHECK_EQ(t->layer->ops->close(t->layer, false, NULL), 0);
	check_integrity(t->path);
	free(t->bytes);
	free(t->presence);
}

/* Is a run of the layer what the truth says? Zeroes may be anything but absent, over other layers; in the bottom anything. */
static bool run_is_true(const struct truth *t, const struct layer_run *run, uint64_t offset, const unsigned char *bytes)
{
	static const unsigned char zeroes[65536];

	for (uint64_t at = offset; at < offset + run->length; at += t->block) {
		enum presence expected = t->presence[at / t->block];
		const unsigned char *content = run->presence == LAYER_DATA ? bytes + (at - offset) : zeroes;
		if (!t->bottom && (run->presence == LAYER_ABSENT) != (expected == LAYER_ABSENT)) {
			tap_diag("at %" PRIu64 ": presence %d, expected %d", at, run->presence, expected);
			return false;
		}
		if (bytes && memcmp(content, t->bytes + at, t->block)) {
			tap_diag("at %" PRIu64 ": other bytes (presence %d, expected %d)", at, run->presence, expected);
			return false;
		}
	}
	return true;
}

static void check_range(struct truth *t, uint64_t offset, uint64_t length, bool with_bytes)
{
	unsigned char *bytes = malloc(length);
	struct layer *l = t->layer;

	for (uint64_t at = 0; at < length;) {
		struct layer_run run = {.length = 0};
		struct vec v = VEC_FLAT(bytes + at, length - at);
		int status = with_bytes ? l->ops->read(l, &v, offset + at, &run, &io_plain)
					: l->ops->map(l, offset + at, length - at, &run, &io_plain);
		if (!CHECK_EQ(status, 0) || !CHECK(run.length > 0 && run.length <= length - at && run.length % t->block == 0) ||
		    !CHECK(run_is_true(t, &run, offset + at, with_bytes ? bytes + at : NULL)))
			break;
		at += run.length;
	}
	free(bytes);
}

static void check_all(struct truth *t)
{
	check_range(t, 0, t->size, true);
	check_range(t, 0, t->size, false);
}

/* ------------------------------------------------------------------ operations on both */

static void set(struct truth *t, uint64_t offset, uint64_t length, const void *bytes, enum presence presence)
{
	if (bytes)
		memcpy(t->bytes + offset, bytes, length);
	else
		memset(t->bytes + offset, 0, length);
	memset(t->presence + offset / t->block, presence, length / t->block);
}

static void some_bytes(struct truth *t, unsigned char *bytes, uint64_t length)
{
	random_fill(&t->random, bytes, length);
	for (uint64_t at = 0; at < length; at += t->block)
		if (random_once_in(&t->random, 5))
			memset(bytes + at, 0, t->block);
}

static void do_write(struct truth *t, uint64_t offset, uint64_t length)
{
	unsigned char *bytes = malloc(length);

	some_bytes(t, bytes, length);
	CHECK_EQ(t->layer->ops->write(t->layer, &VEC_FLAT(bytes, length), offset, &io_plain), 0);
	set(t, offset, length, bytes, LAYER_DATA);
	free(bytes);
}

/* What a child wrote that had a copy of this truth. */
static void do_write_in_truth(struct truth *t, uint64_t offset, uint64_t length)
{
	unsigned char *bytes = malloc(length);

	some_bytes(t, bytes, length);
	set(t, offset, length, bytes, LAYER_DATA);
	free(bytes);
}

static void do_fill(struct truth *t, uint64_t offset, uint64_t length)
{
	unsigned char *bytes = malloc(length);

	some_bytes(t, bytes, length);
	CHECK_EQ(t->layer->ops->fill(t->layer, &VEC_FLAT(bytes, length), offset, &io_plain), 0);
	for (uint64_t at = 0; at < length; at += t->block)
		if (t->presence[(offset + at) / t->block] == LAYER_ABSENT)
			set(t, offset + at, t->block, bytes + at, LAYER_DATA);
	free(bytes);
}

static void do_zero(struct truth *t, uint64_t offset, uint64_t length, bool discard)
{
	struct layer *l = t->layer;

	CHECK_EQ((discard ? l->ops->discard : l->ops->write_zeroes)(l, offset, length, false, &io_plain), 0);
	set(t, offset, length, NULL, LAYER_ZERO);
}

static void random_range(struct truth *t, uint64_t *offset, uint64_t *length)
{
	uint64_t blocks = t->size / t->block, most = random_once_in(&t->random, 4) ? blocks : 64;

	*offset = random_below(&t->random, blocks) * t->block;
	*length = (1 + random_below(&t->random, most)) * t->block;
	if (*length > t->size - *offset)
		*length = t->size - *offset;
}

static void random_step(struct truth *t)
{
	uint64_t offset, length, what = random_below(&t->random, 100);

	random_range(t, &offset, &length);
	if (what < 35)
		do_write(t, offset, length);
	else if (what < 45 && !t->bottom) /* in the bottom layer zeroes may have become absent: a fill may change them */
		do_fill(t, offset, length);
	else if (what < 60)
		do_zero(t, offset, length, what & 1);
	else if (what < 65)
		CHECK_EQ(t->layer->ops->flush(t->layer, &io_plain), 0);
	else if (what < 66)
		reopen(t, false);
	else
		check_range(t, offset, length, what & 1);
}

static void random_steps(const char *name, uint32_t block, bool bottom)
{
	struct truth t;

	if (begin(&t, name, SIZE, block, bottom)) {
		for (unsigned i = 0; i < rounds(600) && t.layer && !atomic_load(&tap_errors); i++)
			random_step(&t);
		check_all(&t);
		if (reopen(&t, false))
			check_all(&t);
	}
	end(&t);
}

static void test_random_512(void)
{
	random_steps("r512", 512, false);
}

static void test_random_512_bottom(void)
{
	random_steps("r512b", 512, true);
}

static void test_random_4096(void)
{
	random_steps("r4096", 4096, false);
}

static void test_random_65536(void)
{
	random_steps("r65536", 65536, false);
}

/* ------------------------------------------------------------------ one by one */

static uint64_t rows(const char *path, const char *query)
{
	sqlite3_stmt *s;
	sqlite3 *sql;
	uint64_t n = UINT64_MAX;

	if (!sqlite3_open_v2(path, &sql, SQLITE_OPEN_READONLY, NULL) && !sqlite3_prepare_v2(sql, query, -1, &s, NULL)) {
		if (sqlite3_step(s) == SQLITE_ROW)
			n = (uint64_t)sqlite3_column_int64(s, 0);
		sqlite3_finalize(s);
	}
	sqlite3_close(sql);
	return n;
}

/* Bytes of which no block is zero, as one of do_write() may be. */
static void do_write_data(struct truth *t, uint64_t offset, uint64_t length)
{
	unsigned char *bytes = malloc(length);

	memset(bytes, 0xa5, length);
	CHECK_EQ(t->layer->ops->write(t->layer, &VEC_FLAT(bytes, length), offset, &io_plain), 0);
	set(t, offset, length, bytes, LAYER_DATA);
	free(bytes);
}

/* A unit that has no data block left has no row; one of which a block is left keeps it. */
static void test_parts_of_a_unit(void)
{
	struct truth t;

	REQUIRE(begin(&t, "parts", 4 << 20, 512, false));
	do_write(&t, 4096, 4096);
	do_write_data(&t, 12288 + 512, 1024);
	CHECK(reopen(&t, false));
	do_zero(&t, 4096, 2048, false);
	CHECK(reopen(&t, false));
	check_all(&t);
	do_zero(&t, 4096 + 2048, 2048, false);
	do_write_data(&t, 12288 + 2048, 512);
	CHECK(reopen(&t, false));
	check_all(&t);
	end(&t);
	CHECK_EQ(rows(t.path, "SELECT count(*) FROM blocks"), 1);
	CHECK_EQ(rows(t.path, "SELECT block FROM blocks"), 3);
}

/* Zeroes of any length are one row, and merge. */
static void test_zeroes_are_spans(void)
{
	struct truth t = {.size = UINT64_C(64) << 40, .block = 512};
	struct layer_run run;

	snprintf(t.path, sizeof(t.path), "%s", tmppath("spans"));
	REQUIRE(reopen(&t, true));
	CHECK_EQ(t.layer->ops->discard(t.layer, 0, UINT64_C(1) << 40, false, &io_plain), 0);
	CHECK_EQ(t.layer->ops->flush(t.layer, &io_plain), 0);
	CHECK_EQ(t.layer->ops->discard(t.layer, UINT64_C(2) << 40, UINT64_C(62) << 40, false, &io_plain), 0);
	CHECK_EQ(t.layer->ops->flush(t.layer, &io_plain), 0);
	CHECK_EQ(t.layer->ops->map(t.layer, 0, t.size, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ZERO);
	CHECK_EQ(run.length, UINT64_C(1) << 40);
	CHECK_EQ(t.layer->ops->map(t.layer, run.length, t.size - run.length, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ABSENT);
	CHECK_EQ(run.length, UINT64_C(1) << 40);
	CHECK_EQ(t.layer->ops->write_zeroes(t.layer, UINT64_C(1) << 40, UINT64_C(1) << 40, false, &io_plain), 0);
	CHECK_EQ(t.layer->ops->close(t.layer, false, NULL), 0);
	CHECK_EQ(rows(t.path, "SELECT count(*) FROM zero_spans"), 1);
	CHECK_EQ(rows(t.path, "SELECT count FROM zero_spans"), (UINT64_C(64) << 40) / (2 << 20));
	CHECK_EQ(rows(t.path, "SELECT count(*) FROM regions"), 0);
}

/* What stands on nothing forgets instead. */
static void test_bottom_forgets(void)
{
	struct truth t;

	REQUIRE(begin(&t, "bottom", 8 << 20, 512, true));
	do_write(&t, 0, 8 << 20);
	CHECK_EQ(t.layer->ops->flush(t.layer, &io_plain), 0);
	do_zero(&t, 0, 8 << 20, true);
	CHECK(reopen(&t, false));
	check_all(&t);
	end(&t);
	CHECK_EQ(rows(t.path, "SELECT (SELECT count(*) FROM blocks) + (SELECT count(*) FROM regions) + "
			      "(SELECT count(*) FROM zero_spans)"), 0);
}

static void test_resize(void)
{
	struct truth t;
	struct layer_run run;
	unsigned char block[512] = {1};

	REQUIRE(begin(&t, "resize", SIZE, 512, false));
	do_write(&t, 0, SIZE);
	CHECK_EQ(t.layer->ops->resize(t.layer, 5 * 512, &io_plain), 0);
	CHECK_EQ(t.layer->ops->size(t.layer), 5 * 512);
	CHECK_EQ(t.layer->ops->write(t.layer, &VEC_FLAT(block, 512), 5 * 512, &io_plain), -ERANGE);
	CHECK_EQ(t.layer->ops->read(t.layer, &VEC_FLAT(block, 512), 5 * 512, &run, &io_plain), -ERANGE);
	t.size = 5 * 512;
	check_all(&t);
	CHECK(reopen(&t, false));
	CHECK_EQ(t.layer->ops->size(t.layer), 5 * 512);
	CHECK_EQ(t.layer->ops->resize(t.layer, SIZE, &io_plain), 0);
	t.size = SIZE;
	set(&t, 5 * 512, SIZE - 5 * 512, NULL, LAYER_ZERO); /* also over what is below */
	check_all(&t);
	CHECK(reopen(&t, false));
	check_all(&t);
	end(&t);
	CHECK_EQ(rows(t.path, "SELECT count(*) FROM blocks"), 1);
}

/* The log is all there is of it then; the next writer and readers find it. */
static void test_killed_after_flush(void)
{
	struct truth t;
	pid_t child;
	int status;

	REQUIRE(begin(&t, "killed", SIZE, 512, false));
	CHECK_EQ(t.layer->ops->close(t.layer, false, NULL), 0);
	t.layer = NULL;
	child = fork();
	if (!child) {
		bool good = reopen(&t, false);
		do_write(&t, 512, 1 << 20);
		_exit(good && !t.layer->ops->flush(t.layer, &io_plain) ? 0 : 1);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK(open_read_only(&t));
	do_write_in_truth(&t, 512, 1 << 20);
	check_all(&t);
	CHECK(reopen(&t, false));
	check_all(&t);
	end(&t);
}

/* ------------------------------------------------------------------ the index */

static bool index_knows(struct region_index *x, uint64_t region)
{
	struct layer_run run = {.length = 0};

	return sqlite_index_find(x, region << REGION_SHIFT, REGION_BYTES, &run) && run.presence == LAYER_ABSENT;
}

/*
 * One reader's view is from after a commit that put a row between the gaps, the other's from before it. If what the second
 * found were left out it would ask the database again and again.
 */
static void test_gaps_of_two_views(void)
{
	const struct gap after[] = {{51, 100, LAYER_ABSENT}, {0, 20, LAYER_ABSENT}}, before = {0, 100, LAYER_ABSENT};
	struct region_index x;

	REQUIRE(sqlite_index_init(&x, 512));
	sqlite_index_add_gap(&x, &after[0], 60);
	sqlite_index_add_gap(&x, &before, 30);
	CHECK(index_knows(&x, 30) && index_knows(&x, 0) && index_knows(&x, 60) && index_knows(&x, 99));
	CHECK(!index_knows(&x, 100));
	sqlite_index_forget(&x);
	sqlite_index_add_gap(&x, &after[0], 51);
	sqlite_index_add_gap(&x, &after[1], 7);
	sqlite_index_add_gap(&x, &before, 40);
	CHECK_EQ(x.nr_gaps, 3);
	CHECK_EQ(x.gaps[1].first, 20);
	CHECK_EQ(x.gaps[1].end, 51);
	sqlite_index_destroy(&x);
}

/* ------------------------------------------------------------------ at the same time */

#define WORKERS 4u
#define STRIPE 16384u

struct crowd {
	struct layer *layer;
	_Atomic unsigned next;
};

/* Each worker writes blocks of its own number in its own stripes, and reads what others write: whole numbers. */
static void work(void *argument)
{
	struct crowd *c = argument;
	unsigned me = atomic_fetch_add(&c->next, 1) % WORKERS;
	struct random r = random_stream(100 + me);
	struct layer *l = c->layer;
	unsigned char *mine = malloc(4096);

	for (unsigned i = 0; i < rounds(300); i++) {
		uint64_t stripe = random_below(&r, 64), at = (stripe * WORKERS + me) * STRIPE + random_below(&r, 4) * 4096;
		uint64_t any = random_below(&r, 64 * WORKERS * 4) * 4096;
		struct layer_run run;
		memset(mine, (int)(1 + i % 250), 4096);
		CHECK_EQ(l->ops->write(l, &VEC_FLAT(mine, 4096), at, &io_plain), 0);
		if (random_once_in(&r, 20))
			CHECK_EQ(l->ops->flush(l, &io_plain), 0);
		memset(mine, 0, 4096);
		CHECK_EQ(l->ops->read(l, &VEC_FLAT(mine, 4096), at, &run, &io_plain), 0);
		CHECK(run.presence == LAYER_DATA && run.length == 4096 && mine[0] == 1 + i % 250 && mine[4095] == mine[0]);
		CHECK_EQ(l->ops->read(l, &VEC_FLAT(mine, 4096), any, &run, &io_plain), 0);
		CHECK(run.presence == LAYER_ABSENT || (run.length == 4096 && mine[0] && mine[0] == mine[4095]));
	}
	free(mine);
}

static void *work_on_thread(void *argument)
{
	work(argument);
	return NULL;
}

static void crowd(const struct loop_mode *mode)
{
	struct truth t;
	struct crowd c = {.layer = NULL};
	pthread_t threads[WORKERS];

	REQUIRE(begin(&t, "crowd", 8 << 20, 4096, false));
	c.layer = t.layer;
	if (mode->on_thread) {
		threads_start(threads, WORKERS, work_on_thread, &c);
		threads_join(threads, WORKERS);
	} else {
		run_fibers(mode, WORKERS, work, &c);
	}
	end(&t);
}
MODE_TESTS(crowd)

/* A fill never takes the place of what was written, committed or not. */
static void *fill_on_thread(void *argument)
{
	struct crowd *c = argument;
	struct layer *l = c->layer;
	unsigned char *bytes = malloc(65536);

	memset(bytes, 0xff, 65536);
	for (unsigned i = 0; i < rounds(200); i++)
		CHECK_EQ(l->ops->fill(l, &VEC_FLAT(bytes, 65536), i % 16 * 65536, &io_plain), 0);
	free(bytes);
	return NULL;
}

static void test_fill_beside_writes(void)
{
	struct truth t;
	struct crowd c = {.layer = NULL};
	pthread_t thread;
	struct layer_run run;
	unsigned char bytes[512];

	REQUIRE(begin(&t, "fill", 1 << 20, 512, false));
	c.layer = t.layer;
	threads_start(&thread, 1, fill_on_thread, &c);
	for (unsigned i = 0; i < 2048; i += 3) {
		memset(bytes, 7, sizeof(bytes));
		CHECK_EQ(t.layer->ops->write(t.layer, &VEC_FLAT(bytes, 512), i * 512, &io_plain), 0);
		if (i % 64 == 0)
			CHECK_EQ(t.layer->ops->flush(t.layer, &io_plain), 0);
	}
	threads_join(&thread, 1);
	for (unsigned i = 0; i < 2048; i += 3) {
		CHECK_EQ(t.layer->ops->read(t.layer, &VEC_FLAT(bytes, 512), i * 512, &run, &io_plain), 0);
		CHECK(run.presence == LAYER_DATA && bytes[0] == 7);
	}
	end(&t);
}

/* ------------------------------------------------------------------ opening */

static int try_open(const char *path, bool create, bool read_only, struct layer **l, struct error *err)
{
	const struct sqlite_layer_options o = {
		.path = path, .create = create, .read_only = read_only, .size = 1 << 20, .block_size = 512, .give_id = true};

	return sqlite_layer_open(&o, l, err);
}

static void test_create_never_overwrites(void)
{
	CLEANUP_ERROR struct error err = {0};
	const char *path = tmppath("exists");
	struct layer *l;

	CHECK_EQ(try_open(path, true, false, &l, &err), 0);
	CHECK(l->info.flags & DISK_HAS_ID);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	CHECK_EQ(try_open(path, true, false, &l, &err), -EEXIST);
	CHECK(strstr(error_text(&err), "exists already") != NULL);
	CHECK_EQ(rows(path, "SELECT value FROM meta WHERE key='size'"), 1 << 20);
}

/* The log of a database that is gone would be replayed into the new one. */
static void test_create_refuses_a_log_of_another(void)
{
	CLEANUP_ERROR struct error err = {0};
	const char *path = tmppath("reborn");
	struct layer *l;
	char log[512];
	FILE *f;

	snprintf(log, sizeof(log), "%s-wal", path);
	f = fopen(log, "w");
	REQUIRE(f != NULL);
	fputs("x", f);
	fclose(f);
	CHECK_EQ(try_open(path, true, false, &l, &err), -EEXIST);
	CHECK(strstr(error_text(&err), "left from another database") != NULL);
	CHECK(access(path, F_OK) != 0);
}

static void test_abandoned_creation_leaves_nothing(void)
{
	const char *path = tmppath("abandoned");
	struct layer *l;

	CHECK_EQ(try_open(path, true, false, &l, NULL), 0);
	CHECK_EQ(l->ops->close(l, true, NULL), 0);
	CHECK(access(path, F_OK) != 0);
}

static void test_one_writer_or_readers(void)
{
	CLEANUP_ERROR struct error err = {0};
	const char *path = tmppath("users");
	struct layer *writer, *a, *b;

	CHECK_EQ(try_open(path, true, false, &writer, NULL), 0);
	CHECK_EQ(try_open(path, false, false, &a, &err), -EBUSY);
	CHECK_EQ(try_open(path, false, true, &a, &err), -EBUSY);
	CHECK_EQ(writer->ops->close(writer, false, NULL), 0);
	CHECK_EQ(try_open(path, false, true, &a, NULL), 0);
	CHECK_EQ(try_open(path, false, true, &b, NULL), 0);
	CHECK_EQ(try_open(path, false, false, &writer, &err), -EBUSY);
	CHECK_EQ(a->ops->close(a, false, NULL), 0);
	CHECK_EQ(b->ops->close(b, false, NULL), 0);
	CHECK_EQ(try_open(path, false, false, &writer, NULL), 0);
	CHECK_EQ(writer->ops->close(writer, false, NULL), 0);
}

/* The process forks between open and the first request, as servers do. */
static void test_fork_after_open(void)
{
	const char *path = tmppath("forked");
	unsigned char bytes[512] = {9};
	struct layer_run run;
	struct layer *l;
	pid_t child;
	int status;

	CHECK_EQ(try_open(path, true, false, &l, NULL), 0);
	child = fork();
	if (!child) {
		bool good = !l->ops->write(l, &VEC_FLAT(bytes, 512), 1024, &io_plain) && !l->ops->flush(l, &io_plain) &&
			    !l->ops->close(l, false, NULL);
		_exit(good ? 0 : 1);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK_EQ(l->ops->close(l, true, NULL), 0); /* was made by this open: gone */
	CHECK(access(path, F_OK) != 0);
	CHECK_EQ(try_open(path, true, false, &l, NULL), 0);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 512), 1024, &run, &io_plain), 0);
	CHECK_EQ(run.presence, LAYER_ABSENT);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

struct thief {
	pthread_t thread;
	const char *path;
	_Atomic bool stop;
	struct layer *l;
};

/* Opens the file as soon as it is there. */
static void *thief_main(void *argument)
{
	struct thief *t = argument;
	const struct sqlite_layer_options o = {.path = t->path};

	while (!atomic_load(&t->stop) && (access(t->path, F_OK) || sqlite_layer_open(&o, &t->l, NULL)))
		;
	return NULL;
}

/* False: nothing was stolen. */
static bool steal(const char *path)
{
	const struct sqlite_layer_options o = {.path = path, .create = true, .size = SIZE, .block_size = 512};
	struct thief t = {.path = path};
	struct layer *l;
	int status;

	CHECK_EQ(pthread_create(&t.thread, NULL, thief_main, &t), 0);
	status = sqlite_layer_open(&o, &l, NULL);
	atomic_store(&t.stop, true);
	pthread_join(t.thread, NULL);
	CHECK(!status || status == -EBUSY);
	if (!status)
		CHECK_EQ(l->ops->close(l, false, NULL), 0);
	if (!t.l)
		return false;
	CHECK_EQ(access(path, F_OK), 0);
	CHECK_EQ(t.l->ops->close(t.l, false, NULL), 0);
	return true;
}

/* A file that was just made and is somebody else's by now is not removed. */
static void test_stolen_while_created(void)
{
	const char *path = tmppath("stolen");

	for (unsigned i = 0; i < 200 && !steal(path); i++)
		unlink(path);
}

int main(void)
{
	TAP_RUN(test_random_512);
	TAP_RUN(test_random_512_bottom);
	TAP_RUN(test_random_4096);
	TAP_RUN(test_random_65536);
	TAP_RUN(test_parts_of_a_unit);
	TAP_RUN(test_zeroes_are_spans);
	TAP_RUN(test_bottom_forgets);
	TAP_RUN(test_resize);
	TAP_RUN(test_killed_after_flush);
	TAP_RUN(test_gaps_of_two_views);
	RUN_MODE_TESTS(crowd);
	TAP_RUN(test_fill_beside_writes);
	TAP_RUN(test_create_never_overwrites);
	TAP_RUN(test_stolen_while_created);
	TAP_RUN(test_create_refuses_a_log_of_another);
	TAP_RUN(test_abandoned_creation_leaves_nothing);
	TAP_RUN(test_one_writer_or_readers);
	TAP_RUN(test_fork_after_open);
	return TAP_DONE();
}

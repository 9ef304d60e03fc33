/* SPDX-License-Identifier: BSD-3-Clause */
/* Databases that are damaged, foreign, or made by OpenVMM: an error that says why, or the right data; never anything else. */
#include "tests/loops.h"
#include "tests/model.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "layers/sqlite-layer.h"

#define SIZE (UINT64_C(6) << 20)

static int try_open(const char *path, bool read_only, struct layer **l, struct error *err)
{
	const struct sqlite_layer_options o = {.path = path, .read_only = read_only};

	return sqlite_layer_open(&o, l, err);
}

static void close_layer(struct layer *l)
{
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* ------------------------------------------------------------------ databases */

static void sql(const char *path, const char *text)
{
	sqlite3 *db;
	char *message = NULL;

	CHECK_EQ(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL), 0);
	if (!CHECK_EQ(sqlite3_exec(db, text, NULL, NULL, &message), 0))
		tap_diag("%s: %s", text, message);
	sqlite3_free(message);
	CHECK_EQ(sqlite3_close(db), 0);
}

/* A database with data, zeroes and absent blocks. */
static const char *make_ours(const char *name, uint32_t block)
{
	const char *path = tmppath(name);
	const struct sqlite_layer_options o = {.path = path, .create = true, .size = SIZE, .block_size = block};
	struct random r = random_stream(60);
	static char bytes[65536];
	struct layer *l;

	unlink(path);
	CHECK_EQ(sqlite_layer_open(&o, &l, NULL), 0);
	for (uint64_t at = 0; at + sizeof(bytes) < SIZE; at += sizeof(bytes) * (1 + random_below(&r, 3))) {
		memset(bytes, (int)(1 + at / sizeof(bytes) % 200), sizeof(bytes));
		CHECK_EQ(l->ops->write(l, &VEC_FLAT(bytes, sizeof(bytes) - 4096), at, &io_plain), 0);
	}
	CHECK_EQ(l->ops->write_zeroes(l, 1 << 20, 1 << 19, false, &io_plain), 0);
	CHECK_EQ(l->ops->write_zeroes(l, 4 << 20, 2 << 20, false, &io_plain), 0);
	close_layer(l);
	return path;
}

/* Opening is refused, and the error has this in it. */
static void refuses(const char *path, const char *words)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer *l;

	for (unsigned read_only = 0; read_only < 2; read_only++) {
		if (!CHECK(try_open(path, read_only, &l, &err) < 0)) {
			close_layer(l);
			continue;
		}
		if (!CHECK(strstr(error_text(&err), words) != NULL))
			tap_diag("expected '%s': %s", words, error_text(&err));
	}
}

static void test_no_database(void)
{
	const char *path = tmppath("text");
	FILE *f = fopen(path, "w");

	for (unsigned i = 0; i < 1000; i++)
		fputs("this is no database\n", f);
	fclose(f);
	refuses(path, "not a database");
	refuses(tmppath("missing"), "No such file");
	refuses(tmpdir(), "not a regular file");
}

static void test_foreign(void)
{
	const char *path = tmppath("foreign");

	sql(path, "CREATE TABLE places(name)");
	refuses(path, "has not the tables of a disk");
	sql(path, "PRAGMA application_id=252006673");
	refuses(path, "another program");
}

/* One statement at a time makes it wrong, each on a fresh file. */
static void test_wrong_facts(void)
{
	static const char *const cases[][2] = {
		{"UPDATE meta SET value=0 WHERE key='size'", "the size 0"},
		{"UPDATE meta SET value=513 WHERE key='size'", "the size 513"},
		{"UPDATE meta SET value=-512 WHERE key='size'", "'size'"},
		{"UPDATE meta SET value='1048576' WHERE key='size'", "'size'"},
		{"UPDATE meta SET value=3.5 WHERE key='size'", "'size'"},
		{"DELETE FROM meta WHERE key='size'", "no 'size'"},
		{"UPDATE meta SET value=256 WHERE key='block_size'", "block size 256"},
		{"UPDATE meta SET value=131072 WHERE key='block_size'", "block size 131072"},
		{"UPDATE meta SET value=4294967808 WHERE key='block_size'", "block size 4294967808"},
		{"UPDATE meta SET value=256 WHERE key='physical_block_size'", "physical block size 256"},
		{"INSERT INTO meta VALUES('id', x'00')", "'id'"},
		{"PRAGMA user_version=2", "version 2"},
		{"PRAGMA user_version=0", "version is 0"},
		{"DROP TABLE zero_spans", "'zero_spans' is missing"},
		{"DROP TABLE blocks; CREATE TABLE blocks(block INTEGER PRIMARY KEY, data BLOB NOT NULL, more)",
		 "'blocks' is not as"},
		{"DROP TABLE blocks; CREATE VIEW blocks AS SELECT region AS block, data FROM regions", "'blocks' is missing"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *path = make_ours("facts", 512);
		sql(path, cases[i][0]);
		refuses(path, cases[i][1]);
	}
}

/* Reads all of it; how many calls failed. */
static unsigned failures(struct layer *l, char *text)
{
	struct failure why = {0};
	const struct io io = {.failure = &why};
	uint64_t size = l->ops->size(l), at = 0;
	static char bytes[65536];
	unsigned failed = 0;

	while (at < size) {
		struct layer_run run = {.length = 0};
		uint64_t n = size - at < sizeof(bytes) ? size - at : sizeof(bytes);
		int status = l->ops->read(l, &VEC_FLAT(bytes, n), at, &run, &io);
		failed += status != 0;
		at += status ? n : run.length;
	}
	if (text)
		strcpy(text, why.text);
	return failed;
}

/* What opens, since nothing of it is looked at then, fails where it is read. */
static void test_wrong_content(void)
{
	static const char *const cases[][2] = {
		{"DELETE FROM blocks WHERE block=1", "block 1 is missing"},
		{"UPDATE blocks SET data=zeroblob(4095) WHERE block=1", "block 1 is not 4096 bytes"},
		{"UPDATE blocks SET data=printf('%04096d', 1) WHERE block=1", "block 1 is not 4096 bytes"},
		{"UPDATE regions SET data=zeroblob(511) WHERE region=0", "map of region 0"},
		{"UPDATE regions SET data=17 WHERE region=0", "map of region 0"},
		{"UPDATE regions SET zero=data WHERE region=0", "both data and zero"},
		{"UPDATE zero_spans SET count=0", "span of zeroes"},
		{"UPDATE zero_spans SET count=-1", "not one from 0"},
		{"UPDATE zero_spans SET count=9223372036854775807", "not one from 0"},
		{"UPDATE zero_spans SET first=-5", NULL},
		{"INSERT INTO regions VALUES(-1, NULL, NULL)", NULL},
		{"INSERT INTO blocks VALUES(-1, x'00')", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *path = make_ours("content", 512);
		char text[240];
		struct layer *l;
		sql(path, cases[i][0]);
		REQUIRE(CHECK_EQ(try_open(path, i & 1, &l, NULL), 0));
		if (!cases[i][1])
			failures(l, NULL);
		else if (CHECK(failures(l, text) > 0) && !CHECK(strstr(text, cases[i][1]) != NULL))
			tap_diag("expected '%s': %s", cases[i][1], text);
		close_layer(l);
	}
}

/* ------------------------------------------------------------------ any byte */

/* A random change of the file. */
static void spoil(const char *path, struct random *r)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		return;
	if (random_once_in(r, 10)) {
		CHECK_EQ(ftruncate(fd, (off_t)random_below(r, (uint64_t)st.st_size)), 0);
	} else {
		for (unsigned n = 1 + (unsigned)random_below(r, 20); n; n--) {
			uint64_t at = random_once_in(r, 2) ? random_below(r, 8 * 4096) : random_below(r, (uint64_t)st.st_size);
			unsigned char byte = (unsigned char)random_next(r);
			CHECK_EQ(pwrite(fd, &byte, 1, (off_t)at), 1);
		}
	}
	close(fd);
}

static void copy(const char *from, const char *to)
{
	static char bytes[1 << 16];
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	size_t n;

	while (in && out && (n = fread(bytes, 1, sizeof(bytes), in)) > 0)
		fwrite(bytes, 1, n, out);
	if (in)
		fclose(in);
	if (out)
		fclose(out);
}

/* Whatever it is: reads, writes, flushes and closes end, with errors or without. */
static void use(struct layer *l, struct random *r)
{
	uint64_t size = l->ops->size(l);
	char bytes[4096];

	failures(l, NULL);
	if (l->info.flags & DISK_READ_ONLY)
		return;
	random_fill(r, bytes, sizeof(bytes));
	for (unsigned i = 0; i < 20; i++) {
		uint64_t at = random_below(r, size / l->info.block_size) * l->info.block_size;
		size_t n = l->info.block_size;
		if (n <= sizeof(bytes))
			l->ops->write(l, &VEC_FLAT(bytes, n), at, &io_plain);
		l->ops->discard(l, at, n, false, &io_plain);
	}
	l->ops->flush(l, &io_plain);
	l->ops->resize(l, l->info.block_size, &io_plain);
}

static void test_random_damage(void)
{
	char good[512], bad[512], log[520];
	struct random r = random_stream(61);
	unsigned opened = 0, n = rounds(400);

	snprintf(good, sizeof(good), "%s", make_ours("good", 512));
	snprintf(bad, sizeof(bad), "%s", tmppath("bad"));
	snprintf(log, sizeof(log), "%s-wal", bad);
	for (unsigned i = 0; i < n; i++) {
		struct layer *l;
		copy(good, bad);
		unlink(log);
		spoil(bad, &r);
		if (try_open(bad, i & 1, &l, NULL))
			continue;
		opened++;
		use(l, &r);
		l->ops->close(l, false, NULL);
	}
	tap_diag("%u of %u damaged files opened", opened, n);
}

/* ------------------------------------------------------------------ OpenVMM's */

#define ORIGINAL_TABLES \
	"PRAGMA journal_mode=WAL; CREATE TABLE sectors (\n -- a comment\n sector INTEGER NOT NULL,\n data BLOB,\n" \
	"PRIMARY KEY (sector)\n); CREATE TABLE meta (metadata TEXT NOT NULL -- stored as JSON\n);"

static const char *make_original(const char *name, const char *more)
{
	const char *path = tmppath(name);

	unlink(path);
	sql(path, ORIGINAL_TABLES);
	sql(path, more);
	return path;
}

#define META(text) "INSERT INTO meta VALUES(json('" text "'))"
#define GOOD_META META("{\"logically_read_only\":false,\"sector_count\":2048,\"sector_size\":512}")

static enum presence state_at(struct layer *l, uint64_t sector, char *bytes)
{
	struct layer_run run = {.presence = LAYER_ABSENT};

	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 512), sector * 512, &run, &io_plain), 0);
	CHECK_EQ(run.length, 512);
	return run.presence;
}

static void test_original_is_read(void)
{
	const char *path = make_original("original", GOOD_META ";INSERT INTO sectors VALUES(3, CAST(printf('%0512d', 7) AS BLOB)),"
							       "(4, NULL), (5, NULL), (7, zeroblob(512)), (2047, zeroblob(512))");
	struct layer_run run;
	char bytes[512];
	struct layer *l;

	for (unsigned read_only = 0; read_only < 2; read_only++) {
		REQUIRE(CHECK_EQ(try_open(path, read_only, &l, NULL), 0));
		CHECK_EQ(l->ops->size(l), 1 << 20);
		CHECK_EQ(state_at(l, 2, bytes), LAYER_ABSENT);
		CHECK_EQ(state_at(l, 3, bytes), LAYER_DATA);
		CHECK(bytes[0] == '0' && bytes[511] == '7');
		CHECK_EQ(state_at(l, 4, bytes), LAYER_ZERO);
		CHECK_EQ(state_at(l, 2047, bytes), LAYER_DATA);
		CHECK_EQ(l->ops->map(l, 0, 1 << 20, &run, &io_plain), 0);
		CHECK(run.presence == LAYER_ABSENT && run.length == 3 * 512);
		CHECK_EQ(l->ops->map(l, 4 * 512, (1 << 20) - 4 * 512, &run, &io_plain), 0);
		CHECK(run.presence == LAYER_ZERO && run.length == 2 * 512);
		close_layer(l);
	}
}

static uint64_t number(const char *path, const char *query)
{
	sqlite3_stmt *s = NULL;
	sqlite3 *db;
	uint64_t n = UINT64_MAX;

	CHECK_EQ(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), 0);
	CHECK_EQ(sqlite3_prepare_v2(db, query, -1, &s, NULL), 0);
	if (CHECK_EQ(sqlite3_step(s), SQLITE_ROW))
		n = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return n;
}

static void test_original_is_written(void)
{
	const char *path = make_original("rewritten", GOOD_META);
	char bytes[4096];
	struct layer *l;

	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	memset(bytes, 9, sizeof(bytes));
	memset(bytes + 512, 0, 512);
	CHECK_EQ(l->ops->write(l, &VEC_FLAT(bytes, 4096), 5 * 512, &io_plain), 0);
	CHECK_EQ(l->ops->write_zeroes(l, 10 * 512, 512, false, &io_plain), 0);
	CHECK_EQ(l->ops->flush(l, &io_plain), 0);
	CHECK_EQ(state_at(l, 5, bytes), LAYER_DATA);
	CHECK(bytes[0] == 9 && bytes[511] == 9);
	CHECK_EQ(state_at(l, 10, bytes), LAYER_ZERO);
	CHECK_EQ(l->ops->resize(l, 512, &io_plain), -EOPNOTSUPP);
	close_layer(l);
	CHECK_EQ(number(path, "SELECT count(*) FROM sectors"), 8);
	CHECK_EQ(number(path, "SELECT group_concat(sector) = '6,10' FROM (SELECT sector FROM sectors WHERE data IS NULL ORDER BY 1)"), 1);
	CHECK_EQ(number(path, "SELECT min(length(data)) = 512 AND max(length(data)) = 512 FROM sectors"), 1);
	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	l->bottom = true;
	CHECK_EQ(l->ops->discard(l, 0, 1 << 20, true, &io_plain), 0);
	close_layer(l);
	CHECK_EQ(number(path, "SELECT count(*) FROM sectors"), 0);
}

static void test_original_read_only_mark(void)
{
	const char *path = make_original("cache", META("{\"logically_read_only\":true,\"sector_count\":8,\"sector_size\":4096}"));
	char bytes[4096] = {5};
	struct layer_run run;
	struct layer *l;

	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	CHECK(l->info.flags & DISK_READ_ONLY);
	CHECK_EQ(l->info.block_size, 4096);
	CHECK_EQ(l->ops->fill(l, &VEC_FLAT(bytes, 4096), 4096, &io_plain), 0);
	close_layer(l);
	REQUIRE(CHECK_EQ(try_open(path, true, &l, NULL), 0));
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 4096), 4096, &run, &io_plain), 0);
	CHECK(run.presence == LAYER_DATA && bytes[0] == 5);
	close_layer(l);
}

static void test_original_wrong(void)
{
	static const char *const cases[][2] = {
		{"SELECT 1", "'meta' is empty"},
		{GOOD_META ";" GOOD_META, "more than one row"},
		{"INSERT INTO meta VALUES('{')", "not a JSON object"},
		{"INSERT INTO meta VALUES(x'7b7d')", "not a JSON object"},
		{META("[]"), "not a JSON object"},
		{META("{\"logically_read_only\":false,\"sector_count\":2048}"), "sector_size"},
		{META("{\"logically_read_only\":false,\"sector_count\":-1,\"sector_size\":512}"), "sector_count"},
		{META("{\"logically_read_only\":false,\"sector_count\":8,\"sector_size\":0}"), "block size 0"},
		{META("{\"logically_read_only\":false,\"sector_count\":8,\"sector_size\":513}"), "block size 513"},
		{META("{\"logically_read_only\":false,\"sector_count\":0,\"sector_size\":512}"), "the size 0"},
		{META("{\"logically_read_only\":false,\"sector_count\":18014398509481984,\"sector_size\":512}"), "more than"},
		{META("{\"logically_read_only\":1,\"sector_count\":8,\"sector_size\":512}"), "logically_read_only"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		refuses(make_original("wrong", cases[i][0]), cases[i][1]);
	refuses(make_original("view", "DROP TABLE sectors; CREATE VIEW sectors AS SELECT 1 AS sector, x'00' AS data;" GOOD_META),
		"has not the tables");
	refuses(make_original("text-key", "DROP TABLE sectors; CREATE TABLE sectors(sector TEXT PRIMARY KEY, data BLOB);" GOOD_META),
		"has not the tables");
	refuses(make_original("default", "DROP TABLE sectors; CREATE TABLE sectors(sector INTEGER PRIMARY KEY, data BLOB NOT NULL DEFAULT x'01');"
					 GOOD_META),
		"has not the tables"); /* a sector of zeroes would become what the default is */
}

static void test_original_wrong_sector(void)
{
	const char *path = make_original("short", GOOD_META ";INSERT INTO sectors VALUES(1, x'00')");
	char text[240];
	struct layer *l;

	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	CHECK(failures(l, text) > 0);
	CHECK(strstr(text, "sector 1 is neither") != NULL);
	close_layer(l);
}

/* Triggers in a stranger's file do not run. */
static void test_no_code_runs(void)
{
	const char *path = make_original("trigger", GOOD_META ";CREATE TABLE victim(x); CREATE TRIGGER t AFTER INSERT ON sectors BEGIN "
						     "INSERT INTO victim VALUES(1); END");
	char bytes[512] = {1};
	struct layer *l;

	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	CHECK_EQ(l->ops->write(l, &VEC_FLAT(bytes, 512), 0, &io_plain), 0);
	close_layer(l);
	CHECK_EQ(number(path, "SELECT count(*) FROM sectors"), 1);
	CHECK_EQ(number(path, "SELECT count(*) FROM victim"), 0);
}

/* ------------------------------------------------------------------ rows out of order */

static unsigned big_endian(const unsigned char *p, unsigned bytes)
{
	unsigned n = 0;

	for (unsigned i = 0; i < bytes; i++)
		n = n << 8 | p[i];
	return n;
}

/*
 * Reads the last leaf of a table of more than one: where it lies in the file; 0: there is none. "Database File Format", section
 * 1.6: a page of a tree's inside (5) has its last child at 8, a leaf (13) the number of its cells at 3.
 */
static off_t last_leaf(int fd, const char *path, const char *table, unsigned char page[4096])
{
	char query[100];
	unsigned number_of;

	snprintf(query, sizeof(query), "SELECT rootpage FROM sqlite_schema WHERE name='%s'", table);
	number_of = (unsigned)number(path, query);
	if (fd < 0 || pread(fd, page, 4096, (off_t)(number_of - 1) * 4096) != 4096 || page[0] != 5)
		return 0;
	number_of = big_endian(page + 8, 4);
	if (pread(fd, page, 4096, (off_t)(number_of - 1) * 4096) != 4096 || page[0] != 13)
		return 0;
	return (off_t)(number_of - 1) * 4096;
}

/*
 * Deletes the last row of the last leaf but one, and gives the first row of the last leaf another key (under 128): so the search
 * for what was deleted, which goes on from the end of its leaf, meets a row that it did not ask for. Returns the key that was
 * deleted. A cell is its length and key, as varints, and the rest; the place of the first one is at 8.
 */
static uint64_t disorder(const char *path, const char *table, const char *key_column, unsigned char key)
{
	char query[200];
	unsigned char page[4096];
	int fd = open(path, O_RDWR | O_CLOEXEC);
	off_t at = last_leaf(fd, path, table, page);
	uint64_t gone;
	unsigned cell;

	snprintf(query, sizeof(query), "SELECT %s FROM %s ORDER BY 1 DESC LIMIT 1 OFFSET %u", key_column, table,
		 big_endian(page + 3, 2));
	gone = number(path, query);
	snprintf(query, sizeof(query), "PRAGMA journal_mode=DELETE; DELETE FROM %s WHERE %s=%" PRIu64, table, key_column, gone);
	sql(path, query);
	for (cell = big_endian(page + 8, 2); cell < 4094 && page[cell] & 0x80;)
		cell++;
	CHECK(at && cell < 4094 && page[cell + 1] < 0x80 && pwrite(fd, &key, 1, at + cell + 1) == 1);
	close(fd);
	return gone;
}

/* A row before the range that was asked for is no reason to answer with a run of less than nothing. */
static void test_original_out_of_order(void)
{
	const char *path = make_original("order", GOOD_META ";WITH n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 40) "
							    "INSERT INTO sectors SELECT i, zeroblob(512) FROM n");
	uint64_t key = disorder(path, "sectors", "sector", 2);
	struct failure why = {0};
	const struct io io = {.failure = &why};
	char bytes[512];
	struct layer_run run = {.length = 0};
	struct layer *l;

	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 512), key * 512, &run, &io), -ENODATA);
	CHECK(strstr(why.text, "out of order") != NULL);
	CHECK_EQ(l->ops->map(l, key * 512, 512, &run, &io), -ENODATA);
	close_layer(l);
}

static void test_regions_out_of_order(void)
{
	const char *path = tmppath("regions");
	const struct sqlite_layer_options o = {.path = path, .create = true, .size = UINT64_C(1) << 30, .block_size = 512};
	struct failure why = {0};
	const struct io io = {.failure = &why};
	char bytes[512] = {1};
	struct layer_run run = {.length = 0};
	uint64_t key;
	struct layer *l;

	REQUIRE(CHECK_EQ(sqlite_layer_open(&o, &l, NULL), 0));
	for (uint64_t region = 10; region < 60; region++)
		CHECK_EQ(l->ops->write(l, &VEC_FLAT(bytes, 512), region << 21, &io_plain), 0);
	close_layer(l);
	key = disorder(path, "regions", "region", 2);
	REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 512), key << 21, &run, &io), -ENODATA);
	CHECK(strstr(why.text, "out of order") != NULL);
	close_layer(l);
}

/* Whichever of them is looked at first: reading ends, and does not take zeroes for absent. */
static void test_overlapping_spans(void)
{
	static const uint64_t orders[][3] = {{50, 3, 20}, {3, 50, 20}, {20, 5, 3}};

	for (size_t i = 0; i < 3; i++) {
		const char *path = tmppath("overlap");
		const struct sqlite_layer_options o = {.path = path, .create = true, .size = UINT64_C(1) << 30, .block_size = 512};
		struct layer_run run = {.length = 0};
		char bytes[512];
		struct layer *l;

		unlink(path);
		REQUIRE(CHECK_EQ(sqlite_layer_open(&o, &l, NULL), 0));
		close_layer(l);
		sql(path, "INSERT INTO zero_spans VALUES(0, 100), (5, 1)");
		REQUIRE(CHECK_EQ(try_open(path, i & 1, &l, NULL), 0));
		for (unsigned n = 0; n < 3; n++) {
			int status = l->ops->read(l, &VEC_FLAT(bytes, 512), orders[i][n] << 21, &run, &io_plain);
			CHECK(status == -ENODATA || (!status && run.length == 512 && run.presence == LAYER_ZERO));
		}
		close_layer(l);
	}
}

/* An index that lets one row take the place of another would lose data. */
static void test_unique_index(void)
{
	const char *path = make_ours("unique", 512);

	sql(path, "DELETE FROM blocks; CREATE UNIQUE INDEX only ON blocks(data)");
	refuses(path, "unique");
	path = make_original("unique-original", GOOD_META ";CREATE UNIQUE INDEX only ON sectors(data)");
	refuses(path, "unique");
	path = make_original("unique-column", "DROP TABLE sectors; CREATE TABLE sectors(sector INTEGER NOT NULL PRIMARY KEY, data BLOB UNIQUE);"
					      GOOD_META);
	refuses(path, "unique");
	path = make_original("descending", "DROP TABLE sectors; CREATE TABLE sectors(sector INTEGER PRIMARY KEY DESC, data BLOB);"
					   GOOD_META); /* which SQLite does not take for the rowid */
	refuses(path, "unique");
	path = make_original("plain-index", GOOD_META ";CREATE INDEX some ON sectors(data)");
	{
		struct layer *l;
		REQUIRE(CHECK_EQ(try_open(path, false, &l, NULL), 0));
		close_layer(l);
	}
}

int main(void)
{
	TAP_RUN(test_no_database);
	TAP_RUN(test_foreign);
	TAP_RUN(test_wrong_facts);
	TAP_RUN(test_wrong_content);
	TAP_RUN(test_random_damage);
	TAP_RUN(test_original_is_read);
	TAP_RUN(test_original_is_written);
	TAP_RUN(test_original_read_only_mark);
	TAP_RUN(test_original_wrong);
	TAP_RUN(test_original_wrong_sector);
	TAP_RUN(test_no_code_runs);
	TAP_RUN(test_original_out_of_order);
	TAP_RUN(test_regions_out_of_order);
	TAP_RUN(test_overlapping_spans);
	TAP_RUN(test_unique_index);
	return TAP_DONE();
}

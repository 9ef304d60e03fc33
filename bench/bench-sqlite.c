/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-sqlite: the SQLite layer against SQLite itself and against one row a sector
 *
 * Writing: the layer takes a disk of data in pieces of 1 MiB, in order, and a flush. The peer is one prepared INSERT of the same
 * units of 4 KiB into a plain table, in one transaction, and its commit: once with SQLite's default journal, once in WAL mode
 * without a checkpoint. All are durable at the end.
 *
 * Reading: 4 KiB at random places, one after another, of a disk that is full of data and lies in the page cache. The peer is the
 * scheme of OpenVMM's layer: a row for each sector of 512 bytes, a SELECT of the range in order through one connection, prepared
 * once, each sector copied out of SQLite and then into the caller's buffer ("copied twice", as it is there); and the
 * same with one copy, to be fair to it. Three times: anywhere on the disk, on a part of 48 MiB, and anywhere with four threads
 * at a time, of which the peer lets one after the other in.
 *
 * Peers take turns in rounds; a ratio is taken within a round, and the median of the ratios is what counts.
 */
#include <getopt.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <unistd.h>

#include "bench/measure.h"
#include "layers/sqlite-layer.h"

#define UNIT 4096u
#define SECTOR 512u
#define PIECE (1u << 20)
#define MAX_ROUNDS 21u

static struct {
	unsigned rounds, reads;
	uint64_t write_bytes, read_bytes;
} options = {.rounds = 7, .reads = 50000, .write_bytes = UINT64_C(1) << 30, .read_bytes = UINT64_C(512) << 20};

static char folder[] = "bench-sqlite.XXXXXX";
static char *payload; /* PIECE bytes */

/* ------------------------------------------------------------------ files */

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void remove_database(const char *name)
{
	static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
	char path[160];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s%s", folder, name, endings[i]);
		unlink(path);
	}
}

static void clean_up(void)
{
	remove_database("layer");
	remove_database("plain");
	remove_database("sectors");
	rmdir(folder);
}

/* ------------------------------------------------------------------ the layer */

static struct layer *open_layer(uint64_t create)
{
	CLEANUP_ERROR struct error err = {0};
	const struct sqlite_layer_options o = {
		.path = path_of("layer"), .create = create != 0, .size = create, .block_size = SECTOR};
	struct layer *l;

	if (sqlite_layer_open(&o, &l, &err))
		bench_die("%s", error_text(&err));
	l->bottom = true;
	return l;
}

static void close_layer(struct layer *l)
{
	CLEANUP_ERROR struct error err = {0};

	if (l->ops->close(l, false, &err))
		bench_die("%s", error_text(&err));
}

static void fill_layer(struct layer *l, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += PIECE)
		if (l->ops->write(l, &VEC_FLAT(payload, PIECE), at, &io_plain))
			bench_die("a write failed");
	if (l->ops->flush(l, &io_plain))
		bench_die("the flush failed");
}

static double write_layer(void)
{
	struct layer *l;
	uint64_t begun;
	double ns;

	remove_database("layer");
	l = open_layer(options.write_bytes);
	begun = wait_now();
	fill_layer(l, options.write_bytes);
	ns = (double)(wait_now() - begun);
	close_layer(l);
	return ns;
}

/* ------------------------------------------------------------------ plain SQLite */

static void must(sqlite3 *sql, int rc)
{
	if (rc != SQLITE_OK && rc != SQLITE_DONE)
		bench_die("SQLite: %s", sqlite3_errmsg(sql));
}

static sqlite3 *open_plain(const char *name, const char *setup)
{
	sqlite3 *sql;

	if (sqlite3_open_v2(path_of(name), &sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL))
		bench_die("cannot open a database");
	must(sql, sqlite3_exec(sql, setup, NULL, NULL, NULL));
	return sql;
}

/* Rows 0 .. of `size` bytes each, in one transaction. */
static void insert_rows(sqlite3 *sql, const char *text, uint64_t bytes, unsigned size)
{
	sqlite3_stmt *s;

	must(sql, sqlite3_exec(sql, "BEGIN", NULL, NULL, NULL));
	must(sql, sqlite3_prepare_v2(sql, text, -1, &s, NULL));
	for (uint64_t at = 0; at < bytes; at += size) {
		sqlite3_bind_int64(s, 1, (sqlite3_int64)(at / size));
		sqlite3_bind_blob(s, 2, payload + at % PIECE, (int)size, SQLITE_STATIC);
		must(sql, sqlite3_step(s));
		sqlite3_reset(s);
	}
	sqlite3_finalize(s);
	must(sql, sqlite3_exec(sql, "COMMIT", NULL, NULL, NULL));
}

static double write_plain(bool wal)
{
	sqlite3 *sql;
	uint64_t begun;
	double ns;

	remove_database("plain");
	sql = open_plain("plain", wal ? "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL;"
					"CREATE TABLE t(block INTEGER PRIMARY KEY, data BLOB)"
				      : "PRAGMA synchronous=FULL; CREATE TABLE t(block INTEGER PRIMARY KEY, data BLOB)");
	begun = wait_now();
	insert_rows(sql, "INSERT INTO t VALUES(?,?)", options.write_bytes, UNIT);
	ns = (double)(wait_now() - begun);
	sqlite3_close(sql);
	remove_database("plain");
	return ns;
}

static double write_journal(void)
{
	return write_plain(false);
}

static double write_wal(void)
{
	return write_plain(true);
}

/* ------------------------------------------------------------------ reading */

#define MAX_THREADS 4u

static struct layer *full_layer;
static sqlite3 *sectors;
static sqlite3_stmt *sector_range;
static pthread_mutex_t sectors_lock = PTHREAD_MUTEX_INITIALIZER;

/* What a contest asks for. */
static unsigned threads = 1;
static uint64_t spread; /* bytes of the disk that are read */

/* One thread's part of the reads. */
struct reader {
	pthread_t thread;
	void (*read)(struct reader *r);
	uint64_t place;
	char *buffer;
};

static uint64_t random_unit(struct reader *r)
{
	return bench_random(&r->place) % (spread / UNIT);
}

static void read_layer(struct reader *r)
{
	struct layer_run run;

	if (full_layer->ops->read(full_layer, &VEC_FLAT(r->buffer, UNIT), random_unit(r) * UNIT, &run, &io_plain) ||
	    run.presence != LAYER_DATA || run.length != UNIT)
		bench_die("a read failed");
}

/* One read of the peer. */
static void read_sectors(struct reader *r, bool twice)
{
	const int64_t first = (int64_t)(random_unit(r) * (UNIT / SECTOR));
	char *copies[UNIT / SECTOR], *buffer = r->buffer;
	unsigned n = 0;

	pthread_mutex_lock(&sectors_lock);
	sqlite3_bind_int64(sector_range, 1, first);
	sqlite3_bind_int64(sector_range, 2, first + UNIT / SECTOR);
	while (sqlite3_step(sector_range) == SQLITE_ROW && n < UNIT / SECTOR) {
		copies[n] = twice ? malloc(SECTOR) : buffer + (sqlite3_column_int64(sector_range, 0) - first) * SECTOR;
		memcpy(copies[n++], sqlite3_column_blob(sector_range, 1), SECTOR);
	}
	sqlite3_reset(sector_range);
	pthread_mutex_unlock(&sectors_lock);
	if (n != UNIT / SECTOR)
		bench_die("a read of sectors failed");
	for (unsigned i = 0; i < n && twice; i++) {
		memcpy(buffer + i * SECTOR, copies[i], SECTOR);
		free(copies[i]);
	}
}

static void read_twice(struct reader *r)
{
	read_sectors(r, true);
}

static void read_once(struct reader *r)
{
	read_sectors(r, false);
}

static void *reader_main(void *argument)
{
	struct reader *r = argument;

	for (unsigned i = 0; i < options.reads / threads; i++)
		r->read(r);
	return NULL;
}

static double read_all(void (*read)(struct reader *r))
{
	static struct reader readers[MAX_THREADS];
	uint64_t begun;

	for (unsigned i = 0; i < threads; i++) {
		readers[i].read = read;
		readers[i].place += i + 1;
		if (!readers[i].buffer)
			readers[i].buffer = bench_payload(UNIT);
	}
	begun = wait_now();
	for (unsigned i = 1; i < threads; i++)
		if (pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]))
			bench_die("cannot start a thread");
	reader_main(&readers[0]);
	for (unsigned i = 1; i < threads; i++)
		pthread_join(readers[i].thread, NULL);
	return (double)(wait_now() - begun);
}

static double read_from_layer(void)
{
	return read_all(read_layer);
}

static double read_copied_twice(void)
{
	return read_all(read_twice);
}

static double read_copied_once(void)
{
	return read_all(read_once);
}

static void prepare_reading(void)
{
	struct layer *l;

	remove_database("layer");
	l = open_layer(options.read_bytes);
	fill_layer(l, options.read_bytes);
	close_layer(l);
	full_layer = open_layer(0);
	sectors = open_plain("sectors", "PRAGMA journal_mode=WAL;"
					"CREATE TABLE sectors(sector INTEGER NOT NULL PRIMARY KEY, data BLOB)");
	insert_rows(sectors, "INSERT INTO sectors VALUES(?,?)", options.read_bytes, SECTOR);
	sqlite3_close(sectors);
	sectors = open_plain("sectors", "SELECT 1");
	must(sectors, sqlite3_prepare_v2(sectors, "SELECT sector, data FROM sectors WHERE sector>=? AND sector<? ORDER BY sector",
					 -1, &sector_range, NULL));
}

static void end_reading(void)
{
	close_layer(full_layer);
	sqlite3_finalize(sector_range);
	sqlite3_close(sectors);
}

/* ------------------------------------------------------------------ rounds */

struct contest {
	const char *name, *peers[2];
	double (*ours)(void);
	double (*theirs[2])(void);
	double (*rate)(double ns);
	const char *unit;
	double goal;
};

static double as_mib(double ns)
{
	return (double)options.write_bytes / (1 << 20) / (ns / 1e9);
}

static double as_us(double ns)
{
	return ns / options.reads / 1000;
}

/* Times of one round, in an order that moves. */
static void take_turns(const struct contest *c, unsigned round, double times[3])
{
	double (*const all[3])(void) = {c->ours, c->theirs[0], c->theirs[1]};

	for (unsigned i = 0; i < 3; i++)
		times[(i + round) % 3] = all[(i + round) % 3]();
}

static void hold(const struct contest *c)
{
	double rates[3][MAX_ROUNDS], ratios[2][MAX_ROUNDS], times[3];

	for (unsigned round = 0; round < options.rounds; round++) {
		take_turns(c, round, times);
		for (unsigned i = 0; i < 3; i++)
			rates[i][round] = c->rate(times[i]);
		for (unsigned i = 0; i < 2; i++)
			ratios[i][round] = times[i + 1] / times[0];
	}
	printf("%-32s %10.2f %s\n", c->name, bench_spread_of(rates[0], options.rounds).median, c->unit);
	for (unsigned i = 0; i < 2; i++) {
		struct bench_spread r = bench_spread_of(ratios[i], options.rounds);
		printf("  %-30s %10.2f %s; the layer is %.2f times as fast (quartiles %.2f to %.2f; goal %.1f)\n", c->peers[i],
		       bench_spread_of(rates[i + 1], options.rounds).median, c->unit, r.median, r.low, r.high, c->goal);
	}
}

static void usage(FILE *out)
{
	fputs("usage: bench-sqlite [--quick] [--rounds N]\n", out);
}

static void parse(int argc, char **argv)
{
	static const struct option list[] = {
		{"quick", no_argument, NULL, 'q'}, {"rounds", required_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'}, {0}};
	int o;

	while ((o = getopt_long(argc, argv, "", list, NULL)) >= 0) {
		if (o == 'q') {
			options.rounds = 3;
			options.reads = 5000;
			options.write_bytes = options.read_bytes = UINT64_C(64) << 20;
		} else if (o == 'r') {
			options.rounds = (unsigned)strtoul(optarg, NULL, 10);
		} else {
			usage(o == 'h' ? stdout : stderr);
			exit(o != 'h');
		}
	}
	if (!options.rounds || options.rounds > MAX_ROUNDS)
		bench_die("--rounds is 1 to %u", MAX_ROUNDS);
}

int main(int argc, char **argv)
{
	static const struct contest writing = {
		.name = "sequential write and flush",
		.peers = {"one INSERT, default journal", "one INSERT, WAL"},
		.ours = write_layer,
		.theirs = {write_journal, write_wal},
		.rate = as_mib,
		.unit = "MiB/s",
		.goal = 0.5,
	};
	struct contest reading = {
		.name = "random 4 KiB reads",
		.peers = {"row a sector, copied twice", "row a sector, copied once"},
		.ours = read_from_layer,
		.theirs = {read_copied_twice, read_copied_once},
		.rate = as_us,
		.unit = "us",
		.goal = 3,
	};

	parse(argc, argv);
	if (!mkdtemp(folder))
		bench_die("cannot make a folder here");
	atexit(clean_up);
	payload = bench_payload(PIECE);
	hold(&writing);
	prepare_reading();
	spread = options.read_bytes;
	hold(&reading);
	reading.name = "the same, four at a time";
	threads = MAX_THREADS;
	hold(&reading);
	reading.name = "the same, one, within 48 MiB";
	threads = 1;
	spread = UINT64_C(48) << 20;
	hold(&reading);
	end_reading();
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The SQLite layer when the system below it fails: no room, a failed write or sync, a power cut
 *
 * SQLite lets its system calls be replaced; fdatasync() and fsync(), which it does not, are defined here and found before
 * those of the C library. Power cuts are played on copies: what was written is remembered, what was synced is
 * durable, and of the rest any part may or may not have reached the disk when the power went.
 */
#include "tests/loops.h"
#include "tests/model.h"

#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "core/wait.h"
#include "layers/sqlite-layer.h"

#define BLOCK 512u
#define LOG_PAGES 400u /* so few that the log is begun anew again and again */

/* ------------------------------------------------------------------ the system below */

static struct {
	_Atomic int write_error;  /* errno of every write; 0: it works */
	_Atomic int read_error;
	_Atomic int sync_error;
	_Atomic int open_error;
	_Atomic bool slow_clock;    /* asking for the time takes 50 ms */
	_Atomic unsigned reads;     /* of other files than logs */
	_Atomic unsigned writes, log_reads;
	_Atomic bool hold_reads;    /* they wait until it is false */
	_Atomic unsigned held;
	_Atomic unsigned log_syncs; /* of files whose name ends in -wal */
} below;

static struct shadow *shadow_of(int fd);
static void shadow_write(struct shadow *s, const void *bytes, size_t size, uint64_t offset);
static void shadow_truncate(struct shadow *s, uint64_t size);
static void shadow_sync(struct shadow *s);

static bool is_log(int fd)
{
	char link[64], name[600];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	return n > 4 && !memcmp(name + n - 4, "-wal", 4);
}

static int sync_file(int fd, long call)
{
	struct shadow *s = shadow_of(fd);

	if (atomic_load(&below.sync_error)) {
		errno = atomic_load(&below.sync_error);
		return -1;
	}
	if (is_log(fd))
		atomic_fetch_add(&below.log_syncs, 1);
	if (s)
		shadow_sync(s);
	return (int)syscall(call, fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	return sync_file(fd, SYS_fdatasync);
}

__attribute__((visibility("default"))) int fsync(int fd)
{
	return sync_file(fd, SYS_fsync);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *t)
{
	const struct timespec pause = {.tv_nsec = 50000000};

	if (atomic_load(&below.slow_clock))
		syscall(SYS_nanosleep, &pause, NULL);
	return (int)syscall(SYS_clock_gettime, clock, t);
}

static ssize_t shim_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	struct shadow *s = shadow_of(fd);

	atomic_fetch_add(&below.writes, 1);
	if (atomic_load(&below.write_error)) {
		errno = atomic_load(&below.write_error);
		return -1;
	}
	if (s)
		shadow_write(s, bytes, size, (uint64_t)offset);
	return pwrite(fd, bytes, size, offset);
}

static ssize_t shim_pread(int fd, void *bytes, size_t size, off_t offset)
{
	atomic_fetch_add(is_log(fd) ? &below.log_reads : &below.reads, 1);
	if (atomic_load(&below.hold_reads))
		atomic_fetch_add(&below.held, 1);
	while (atomic_load(&below.hold_reads))
		wait_sleep(1000000);
	if (atomic_load(&below.read_error)) {
		errno = atomic_load(&below.read_error);
		return -1;
	}
	return pread(fd, bytes, size, offset);
}

static int shim_open(const char *path, int flags, int mode)
{
	if (atomic_load(&below.open_error)) {
		errno = atomic_load(&below.open_error);
		return -1;
	}
	return open(path, flags, mode);
}

static int shim_ftruncate(int fd, off_t size)
{
	struct shadow *s = shadow_of(fd);

	if (s)
		shadow_truncate(s, (uint64_t)size);
	return ftruncate(fd, size);
}

static void install_shims(void)
{
	sqlite3_vfs *vfs = sqlite3_vfs_find("unix-excl");

	CHECK_EQ(vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr)shim_pwrite), 0);
	CHECK_EQ(vfs->xSetSystemCall(vfs, "pread64", (sqlite3_syscall_ptr)shim_pread), 0);
	CHECK_EQ(vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr)shim_open), 0);
	CHECK_EQ(vfs->xSetSystemCall(vfs, "ftruncate", (sqlite3_syscall_ptr)shim_ftruncate), 0);
}

/* ------------------------------------------------------------------ layers */

static struct layer *open_layer(const char *path, uint64_t create)
{
	CLEANUP_ERROR struct error err = {0};
	const struct sqlite_layer_options o = {.path = path,
					       .log_pages = LOG_PAGES,
					       .create = create != 0,
					       .size = create,
					       .block_size = BLOCK};
	struct layer *l = NULL;

	if (!CHECK_EQ(sqlite_layer_open(&o, &l, &err), 0))
		tap_diag("%s", error_text(&err));
	return l;
}

/* Writes a run of blocks that all hold `value`. */
static int put(struct layer *l, uint64_t offset, size_t length, int value, struct failure *why)
{
	const struct io io = {.failure = why};
	char *bytes = malloc(length);
	int status;

	memset(bytes, value, length);
	status = l->ops->write(l, &VEC_FLAT(bytes, length), offset, &io);
	free(bytes);
	return status;
}

static bool reads_as(struct layer *l, uint64_t offset, size_t length, int value)
{
	char *bytes = malloc(length);
	bool good = true;

	for (size_t at = 0; at < length && good;) {
		struct layer_run run = {.length = 0};
		good = !l->ops->read(l, &VEC_FLAT(bytes + at, length - at), offset + at, &run, &io_plain) &&
		       run.presence == LAYER_DATA;
		at += run.length;
	}
	for (size_t i = 0; i < length && good; i++)
		good = bytes[i] == (char)value;
	free(bytes);
	return good;
}

static int flush(struct layer *l)
{
	return l->ops->flush(l, &io_plain);
}

/* ------------------------------------------------------------------ sync */

static void test_flush_syncs_the_log(void)
{
	struct layer *l = open_layer(tmppath("synced"), 1 << 20);
	unsigned before;

	REQUIRE(l != NULL);
	for (int i = 1; i < 4; i++) {
		CHECK_EQ(put(l, 0, 4096, i, NULL), 0);
		before = atomic_load(&below.log_syncs);
		CHECK_EQ(flush(l), 0);
		CHECK(atomic_load(&below.log_syncs) > before);
	}
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* Nothing is staged any more, but what the thread has committed meanwhile is not durable yet. */
static void test_flush_after_a_commit_without_sync(void)
{
	struct layer *l = open_layer(tmppath("later"), 1 << 20);
	unsigned before;
	json_t *object;

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4096, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(put(l, 8192, 4096, 2, NULL), 0);
	for (unsigned i = 0; i < 400; i++) {
		object = json_object();
		l->ops->describe(l, object);
		bool staged = json_integer_value(json_object_get(object, "staged_bytes")) != 0;
		json_decref(object);
		if (!staged)
			break;
		wait_sleep(20000000);
	}
	wait_sleep(200000000);
	before = atomic_load(&below.log_syncs);
	CHECK_EQ(flush(l), 0);
	CHECK(atomic_load(&below.log_syncs) > before);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* A new size is a change like any other. */
static void test_flush_after_a_resize(void)
{
	struct layer *l = open_layer(tmppath("resized"), 1 << 20);
	unsigned before;

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4096, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(l->ops->resize(l, 2 << 20, &io_plain), 0);
	before = atomic_load(&below.log_syncs);
	CHECK_EQ(flush(l), 0);
	CHECK(atomic_load(&below.log_syncs) > before);
	before = atomic_load(&below.log_syncs);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(atomic_load(&below.log_syncs), before);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* The thread that commits is told to end when it is about to wait, and has been asked whether it is to end before. */
static void test_close_as_it_goes_to_sleep(void)
{
	struct layer *l = open_layer(tmppath("asleep"), 1 << 20);
	const struct timespec pause = {.tv_nsec = 10000000};

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4096, 1, NULL), 0);
	atomic_store(&below.slow_clock, true);
	CHECK_EQ(flush(l), 0);
	syscall(SYS_nanosleep, &pause, NULL);
	alarm(60);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	alarm(0);
	atomic_store(&below.slow_clock, false);
}

static void test_failed_sync_is_final(void)
{
	const char *path = tmppath("unsynced");
	struct layer *l = open_layer(path, 1 << 20);
	CLEANUP_ERROR struct error err = {0};
	struct failure why = {0};

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4096, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(put(l, 4096, 4096, 2, NULL), 0);
	atomic_store(&below.sync_error, EIO);
	CHECK_EQ(flush(l), -EIO);
	atomic_store(&below.sync_error, 0);
	CHECK_EQ(flush(l), -EIO);
	CHECK_EQ(put(l, 0, 4096, 3, &why), -EIO);
	CHECK(strstr(why.text, "earlier flush failed") != NULL);
	CHECK(reads_as(l, 0, 4096, 1));
	CHECK(reads_as(l, 4096, 4096, 2));
	CHECK_EQ(l->ops->close(l, false, &err), -EIO);
	CHECK(err.text != NULL);
	l = open_layer(path, 0);
	REQUIRE(l != NULL);
	CHECK(reads_as(l, 0, 4096, 1));
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* ------------------------------------------------------------------ no room */

#define MIB (UINT64_C(1) << 20)

static void test_no_room_loses_nothing(void)
{
	const char *path = tmppath("full");
	struct layer *l = open_layer(path, 256 * MIB);
	struct failure why = {0};
	uint64_t taken = 0;
	int status = 0;

	if (checkers_in_valgrind())
		SKIP("minutes under valgrind");
	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, MIB, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	atomic_store(&below.write_error, ENOSPC);
	CHECK_EQ(put(l, MIB / 2, MIB, 2, NULL), 0);
	CHECK_EQ(flush(l), -ENOSPC);
	while (taken < 200 && !status) {
		status = put(l, (2 + taken) * MIB, MIB, 3, &why);
		taken += !status;
	}
	CHECK_EQ(status, -ENOSPC);
	CHECK(why.text[0] != 0);
	CHECK(taken > 16 && taken < 200);
	tap_diag("%" PRIu64 " MiB were taken without room; then: %s", taken, why.text);
	CHECK(reads_as(l, 0, MIB / 2, 1) && reads_as(l, MIB / 2, MIB, 2) && reads_as(l, 2 * MIB, taken * MIB, 3));
	CHECK_EQ(flush(l), -ENOSPC);
	atomic_store(&below.write_error, 0);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(put(l, 240 * MIB, MIB, 4, NULL), 0);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	l = open_layer(path, 0);
	REQUIRE(l != NULL);
	CHECK(reads_as(l, 0, MIB / 2, 1) && reads_as(l, MIB / 2, MIB, 2) && reads_as(l, 2 * MIB, taken * MIB, 3));
	CHECK(reads_as(l, 240 * MIB, MIB, 4));
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* A writer that found no room gets on without a flush once there is some. */
static void test_room_is_found_by_writers(void)
{
	struct layer *l = open_layer(tmppath("room"), 256 * MIB);
	int status = 0;

	if (checkers_in_valgrind())
		SKIP("minutes under valgrind");
	REQUIRE(l != NULL);
	atomic_store(&below.write_error, ENOSPC);
	for (uint64_t i = 0; i < 200 && !status; i++)
		status = put(l, i * MIB, MIB, 1, NULL);
	CHECK_EQ(status, -ENOSPC);
	atomic_store(&below.write_error, 0);
	for (unsigned i = 0; i < 100 && status; i++) {
		wait_sleep(50000000);
		status = put(l, 255 * MIB, MIB, 1, NULL);
	}
	CHECK_EQ(status, 0);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* What cannot be saved at the end is told. */
static void test_close_without_room(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer *l = open_layer(tmppath("full-close"), MIB);

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4096, 1, NULL), 0);
	atomic_store(&below.write_error, ENOSPC);
	CHECK_EQ(l->ops->close(l, false, &err), -ENOSPC);
	atomic_store(&below.write_error, 0);
	CHECK(err.text && strstr(err.text, "full-close") != NULL);
}

static void test_resize_without_room(void)
{
	const char *path = tmppath("full-resize");
	struct layer *l = open_layer(path, 4 * MIB);

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4 * MIB, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	atomic_store(&below.write_error, ENOSPC);
	CHECK_EQ(l->ops->resize(l, MIB, &io_plain), -ENOSPC);
	CHECK_EQ(l->ops->size(l), 4 * MIB);
	CHECK(reads_as(l, 0, 4 * MIB, 1));
	atomic_store(&below.write_error, 0);
	CHECK_EQ(l->ops->resize(l, MIB, &io_plain), 0);
	CHECK(reads_as(l, 0, MIB, 1));
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	l = open_layer(path, 0);
	CHECK(l && l->ops->size(l) == MIB && reads_as(l, 0, MIB, 1));
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* A write that fails for another reason is tried again by the next flush. */
static void test_failed_write_is_tried_again(void)
{
	struct layer *l = open_layer(tmppath("retry"), MIB);

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 4096, 1, NULL), 0);
	atomic_store(&below.write_error, EIO);
	CHECK_EQ(flush(l), -EIO);
	CHECK(reads_as(l, 0, 4096, 1));
	atomic_store(&below.write_error, 0);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* 2,048 units are some 2,300 pages: each is written to the log, read from there, and written to the file, by no call of its own. */
static void test_filling_makes_few_system_calls(void)
{
	struct layer *l = open_layer(tmppath("filled"), 16 * MIB);
	unsigned writes = atomic_load(&below.writes), reads = atomic_load(&below.log_reads);

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 8 * MIB, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	writes = atomic_load(&below.writes) - writes;
	reads = atomic_load(&below.log_reads) - reads;
	tap_diag("%u writes, %u reads of the log", writes, reads);
	CHECK(writes < 600);
	CHECK(reads < 300);
}

/* SQLite takes EIO of a read for a damaged file, which a medium error is. What is not in the file yet is read from the log. */
static void test_failed_read(void)
{
	struct layer *l = open_layer(tmppath("unread"), MIB);
	struct failure why = {0};
	const struct io io = {.failure = &why};
	struct layer_run run;
	char bytes[4096];

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 8192, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	CHECK(reads_as(l, 0, 4096, 1));
	atomic_store(&below.read_error, EIO);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 4096), 4096, &run, &io), -ENODATA);
	CHECK(strstr(why.text, "unread") != NULL);
	atomic_store(&below.read_error, 0);
	CHECK(reads_as(l, 0, 8192, 1));
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* ------------------------------------------------------------------ the file in memory */

/* Those that layers/sqlite-map.c maps, or else this cannot run. */
static bool is_mapped(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs))
		return false;
	return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC || fs.f_type == OVERLAYFS_SUPER_MAGIC;
}

static void test_reads_make_no_system_calls(void)
{
	const char *path = tmppath("mapped");
	struct layer *l = open_layer(path, 16 * MIB);
	unsigned before;

	if (!is_mapped(tmpdir()))
		SKIP("files of this file system are not mapped");
	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 8 * MIB, 1, NULL), 0); /* the log becomes long, so it is brought into the file */
	CHECK_EQ(flush(l), 0);
	CHECK_EQ(put(l, 8 * MIB, 4096, 1, NULL), 0);
	CHECK_EQ(flush(l), 0);
	CHECK(reads_as(l, 0, 4096, 1));
	before = atomic_load(&below.reads);
	CHECK(reads_as(l, 0, 8 * MIB + 4096, 1));
	CHECK_EQ(atomic_load(&below.reads), before);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	l = open_layer(path, 0);
	REQUIRE(l && reads_as(l, 0, 4096, 1));
	before = atomic_load(&below.reads);
	CHECK(reads_as(l, 0, 8 * MIB + 4096, 1));
	CHECK_EQ(atomic_load(&below.reads), before);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* Somebody cuts off what is mapped: an error, as if it were read with system calls. */
static void test_file_shrinks(void)
{
	const char *path = tmppath("shrunk");
	struct layer *l = open_layer(path, 16 * MIB);
	struct failure why = {0};
	const struct io io = {.failure = &why};
	struct layer_run run;
	char bytes[4096];

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, 8 * MIB, 1, NULL), 0);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	l = open_layer(path, 0);
	REQUIRE(l && reads_as(l, 0, 4096, 1));
	CHECK_EQ(truncate(path, 65536), 0);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 4096), 6 * MIB, &run, &io), -ENODATA);
	CHECK(strstr(why.text, "shrunk") != NULL);
	l->ops->close(l, false, NULL);
}

/* ------------------------------------------------------------------ no connection */

struct late_reader {
	pthread_t thread;
	struct layer *l;
	uint64_t offset;
	bool good;
};

static void *late_reader_main(void *argument)
{
	struct late_reader *r = argument;

	r->good = reads_as(r->l, r->offset, 4096, 1);
	return NULL;
}

static void start_reader(struct late_reader *r, struct layer *l, uint64_t offset)
{
	*r = (struct late_reader){.l = l, .offset = offset};
	CHECK_EQ(pthread_create(&r->thread, NULL, late_reader_main, r), 0);
}

/* With no file to be had for a second connection, whoever wants it waits for the first. */
static void test_one_connection_is_enough(void)
{
	struct layer *l = open_layer(tmppath("one"), 16 * MIB);
	struct late_reader first, second;

	REQUIRE(l != NULL);
	CHECK_EQ(put(l, 0, MIB, 1, NULL), 0);
	CHECK_EQ(flush(l), 0); /* into the log, from which reads are system calls */
	CHECK(reads_as(l, 0, 4096, 1));
	atomic_store(&below.hold_reads, true);
	start_reader(&first, l, MIB / 2);
	while (!atomic_load(&below.held))
		wait_sleep(1000000);
	atomic_store(&below.open_error, EMFILE);
	start_reader(&second, l, MIB - 4096);
	wait_sleep(50000000);
	atomic_store(&below.hold_reads, false);
	pthread_join(first.thread, NULL);
	pthread_join(second.thread, NULL);
	atomic_store(&below.open_error, 0);
	CHECK(first.good && second.good);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* The first of all is another matter. */
static void test_no_connection(void)
{
	struct layer *l = open_layer(tmppath("none"), MIB);
	struct failure why = {0};
	const struct io io = {.failure = &why};
	struct layer_run run = {.length = 0};
	char bytes[4096];

	REQUIRE(l != NULL);
	atomic_store(&below.open_error, EMFILE);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 4096), 0, &run, &io), -EMFILE);
	CHECK(strstr(why.text, "Too many open files") != NULL);
	atomic_store(&below.open_error, 0);
	CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, 4096), 0, &run, &io), 0);
	CHECK_EQ(run.presence, LAYER_ABSENT);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

/* ------------------------------------------------------------------ power cuts: what is on the disk */

struct pending {
	struct pending *next;
	bool truncates;
	uint64_t offset; /* or the new size */
	size_t size;
	unsigned char bytes[];
};

/* A file as it would be found: `bytes` is durable, what is pending may be. */
struct shadow {
	const char *ending;
	ino_t inode;
	unsigned char *bytes;
	uint64_t size;
	struct pending *first, **last;
};

static struct {
	pthread_mutex_t lock; /* protects all of it */
	bool on;
	char path[512];
	struct shadow files[2];
} power = {.lock = PTHREAD_MUTEX_INITIALIZER, .files = {{.ending = ""}, {.ending = "-wal"}}};

#define MAX_CUTS 100u
static struct cut {
	unsigned flushed, begun;
	unsigned char *bytes[2];
	uint64_t size[2];
} cuts[MAX_CUTS];
static unsigned nr_cuts;
static _Atomic unsigned flushed_round, begun_round;
static struct random cut_random;

/* By name, for a log may be made anew. */
static struct shadow *shadow_of(int fd)
{
	char link[64], name[600];
	ssize_t n;

	if (!power.on)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	if (n < 0)
		return NULL;
	name[n] = 0;
	if (strncmp(name, power.path, strlen(power.path)))
		return NULL;
	for (unsigned i = 0; i < 2; i++)
		if (!strcmp(name + strlen(power.path), power.files[i].ending))
			return &power.files[i];
	return NULL;
}

/* Memory comes in larger steps than files grow in. */
static void image_resize(unsigned char **bytes, uint64_t *size, uint64_t to)
{
	const uint64_t step = UINT64_C(1) << 20;

	if (!*bytes || to / step != *size / step)
		*bytes = realloc(*bytes, (to / step + 1) * step);
	if (!*bytes) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	if (to > *size)
		memset(*bytes + *size, 0, to - *size);
	*size = to;
}

/* Of a write, whole sectors from the beginning on; of a truncation, all. */
static void image_apply(unsigned char **bytes, uint64_t *size, const struct pending *p, size_t length)
{
	if (p->truncates) {
		image_resize(bytes, size, p->offset);
		return;
	}
	if (p->offset + length > *size)
		image_resize(bytes, size, p->offset + length);
	memcpy(*bytes + p->offset, p->bytes, length);
}

static void add_pending(struct shadow *s, bool truncates, uint64_t offset, const void *bytes, size_t size)
{
	struct pending *p = malloc(sizeof(*p) + size);

	*p = (struct pending){.truncates = truncates, .offset = offset, .size = size};
	if (size)
		memcpy(p->bytes, bytes, size);
	pthread_mutex_lock(&power.lock);
	if (!s->first)
		s->last = &s->first;
	*s->last = p;
	s->last = &p->next;
	pthread_mutex_unlock(&power.lock);
}

/* What is found when the power goes now. Under the lock. */
static void cut_power(void)
{
	struct cut *c = &cuts[nr_cuts];
	unsigned mode = (unsigned)random_below(&cut_random, 3); /* nothing, everything, or some of what is pending */

	if (nr_cuts == MAX_CUTS)
		return;
	c->flushed = atomic_load(&flushed_round);
	for (unsigned i = 0; i < 2; i++) {
		struct shadow *s = &power.files[i];
		image_resize(&c->bytes[i], &c->size[i], s->size);
		if (s->size)
			memcpy(c->bytes[i], s->bytes, s->size);
		for (struct pending *p = s->first; p && mode; p = p->next) {
			size_t length = mode == 2 ? random_below(&cut_random, p->size / 512 + 1) * 512 : p->size;
			if (mode == 1 || random_once_in(&cut_random, 2))
				image_apply(&c->bytes[i], &c->size[i], p, length);
		}
	}
	c->begun = atomic_load(&begun_round);
	nr_cuts++;
}

static void shadow_write(struct shadow *s, const void *bytes, size_t size, uint64_t offset)
{
	add_pending(s, false, offset, bytes, size);
	pthread_mutex_lock(&power.lock);
	if (random_once_in(&cut_random, 120))
		cut_power();
	pthread_mutex_unlock(&power.lock);
}

static void shadow_truncate(struct shadow *s, uint64_t size)
{
	add_pending(s, true, size, NULL, 0);
}

static void shadow_sync(struct shadow *s)
{
	pthread_mutex_lock(&power.lock);
	if (random_once_in(&cut_random, 2))
		cut_power();
	while (s->first) {
		struct pending *p = s->first;
		image_apply(&s->bytes, &s->size, p, p->size);
		s->first = p->next;
		free(p);
	}
	pthread_mutex_unlock(&power.lock);
}

/* ------------------------------------------------------------------ power cuts: the test */

#define CUT_BLOCKS 300u

static void write_image(const char *ending, const unsigned char *bytes, uint64_t size)
{
	char name[600];
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", tmppath("found"), ending);
	unlink(name);
	f = fopen(name, "w");
	if (!f || fwrite(bytes, 1, size, f) != size)
		printf("Bail out! cannot write %s\n", name);
	if (f)
		fclose(f);
}

static void check_found(const struct cut *c, unsigned number)
{
	struct layer *l;

	write_image("", c->bytes[0], c->size[0]);
	write_image("-wal", c->bytes[1], c->size[1]);
	l = open_layer(tmppath("found"), 0);
	for (unsigned b = 0; l && b < CUT_BLOCKS; b++) {
		unsigned char bytes[BLOCK] = {0};
		struct layer_run run;
		bool whole = true;
		CHECK_EQ(l->ops->read(l, &VEC_FLAT(bytes, BLOCK), b * 3 * BLOCK, &run, &io_plain), 0);
		for (unsigned i = 1; i < BLOCK; i++)
			whole = whole && bytes[i] == bytes[0];
		if (!CHECK(whole && bytes[0] >= c->flushed && bytes[0] <= c->begun)) {
			tap_diag("cut %u, block %u is %u; flushed was %u, begun %u", number, b, bytes[0], c->flushed, c->begun);
			break;
		}
	}
	if (l)
		CHECK_EQ(l->ops->close(l, false, NULL), 0);
}

static void begin_recording(const char *path)
{
	struct stat st;
	FILE *f = fopen(path, "r");

	snprintf(power.path, sizeof(power.path), "%s", path);
	cut_random = random_stream(70);
	for (unsigned i = 0; i < 2; i++)
		power.files[i].size = 0;
	if (!f || fstat(fileno(f), &st))
		return;
	image_resize(&power.files[0].bytes, &power.files[0].size, (uint64_t)st.st_size);
	CHECK_EQ(fread(power.files[0].bytes, 1, (size_t)st.st_size, f), st.st_size);
	fclose(f);
	power.on = true;
}

/* Every third block, so that units are written in part. */
static void test_power_cuts(void)
{
	const char *path = tmppath("power");
	struct layer *l = open_layer(path, CUT_BLOCKS * 3 * BLOCK);

	REQUIRE(l != NULL);
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	begin_recording(path);
	l = open_layer(path, 0);
	REQUIRE(l != NULL);
	for (unsigned round = 1; round <= (checkers_in_valgrind() ? 6u : 30u); round++) {
		atomic_store(&begun_round, round);
		for (unsigned b = 0; b < CUT_BLOCKS; b++)
			CHECK_EQ(put(l, b * 3 * BLOCK, BLOCK, (int)round, NULL), 0);
		if (round % 3)
			CHECK_EQ(flush(l), 0);
		if (round % 3)
			atomic_store(&flushed_round, round);
	}
	CHECK_EQ(l->ops->close(l, false, NULL), 0);
	power.on = false;
	CHECK(nr_cuts > 3);
	for (unsigned i = 0; i < nr_cuts && !atomic_load(&tap_errors); i++)
		check_found(&cuts[i], i);
	tap_diag("%u power cuts", nr_cuts);
}

int main(void)
{
	install_shims();
	TAP_RUN(test_flush_syncs_the_log);
	TAP_RUN(test_flush_after_a_commit_without_sync);
	TAP_RUN(test_flush_after_a_resize);
	TAP_RUN(test_close_as_it_goes_to_sleep);
	TAP_RUN(test_failed_sync_is_final);
	TAP_RUN(test_no_room_loses_nothing);
	TAP_RUN(test_room_is_found_by_writers);
	TAP_RUN(test_close_without_room);
	TAP_RUN(test_resize_without_room);
	TAP_RUN(test_failed_write_is_tried_again);
	TAP_RUN(test_filling_makes_few_system_calls);
	TAP_RUN(test_failed_read);
	TAP_RUN(test_reads_make_no_system_calls);
	TAP_RUN(test_file_shrinks);
	TAP_RUN(test_one_connection_is_enough);
	TAP_RUN(test_no_connection);
	TAP_RUN(test_power_cuts);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The gold image: the file stays as it is whatever is written; when it is shortened, what is lost is an error and what was
 * written stays; holes cost nothing. What all disks have in common is in test-contract.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/open.h"
#include "core/wait.h"
#include "tests/contract.h"
#include "tests/loops.h"
#include "tests/model.h"
#include "tests/tap.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define PAGE ((uint64_t)sysconf(_SC_PAGESIZE))

/* ------------------------------------------------------------------ short forms */

static char memory[4 << 20], other[4 << 20];

static struct disk *open_as(const char *path, const char *options, unsigned flags)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;
	char spec[1200];

	snprintf(spec, sizeof(spec), "mmap:\"%s\"%s", path, options);
	if (disk_open(spec, flags, &d, &err)) {
		tap_diag("%s", error_text(&err));
		CHECK(!"it opens");
		exit(1);
	}
	return d;
}

static struct disk *open_good(const char *path)
{
	return open_as(path, "", 0);
}

static void close_good(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(disk_close(d, &err), 0);
	CHECK_STR(err.text, NULL);
}

/* Bytes that tell where they belong, none of them zero. */
static void fill(char *to, uint64_t offset, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (char)(1 + (offset + i) * 31 % 251);
}

/* A file of `size` bytes: fill() in [from, end), holes elsewhere. */
static const char *make_file(const char *name, uint64_t size, uint64_t from, uint64_t end)
{
	const char *path = tmppath(name);
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	char *bytes = malloc(end - from + 1);

	fill(bytes, from, end - from);
	if (fd < 0 || ftruncate(fd, (off_t)size) ||
	    pwrite(fd, bytes, end - from, (off_t)from) != (ssize_t)(end - from))
		printf("Bail out! cannot make %s\n", path);
	free(bytes);
	close(fd);
	return path;
}

static const char *make_full(const char *name, uint64_t size)
{
	return make_file(name, size, 0, size);
}

static int do_read(struct disk *d, void *to, uint64_t offset, uint64_t size)
{
	return disk_read(d, &VEC_FLAT(to, size), offset, &io_plain);
}

static int do_write(struct disk *d, const void *from, uint64_t offset, uint64_t size)
{
	return disk_write(d, &VEC_FLAT(from, size), offset, &io_plain);
}

/* The range reads as fill() says. */
static bool is_filled(struct disk *d, uint64_t offset, uint64_t size)
{
	fill(other, offset, size);
	return do_read(d, memory, offset, size) == 0 && memcmp(memory, other, size) == 0;
}

static bool is_all(struct disk *d, uint64_t offset, uint64_t size, char byte)
{
	memset(other, byte, size);
	return do_read(d, memory, offset, size) == 0 && memcmp(memory, other, size) == 0;
}

static bool write_all(struct disk *d, uint64_t offset, uint64_t size, char byte)
{
	memset(other, byte, size);
	return do_write(d, other, offset, size) == 0;
}

static uint64_t private_bytes(struct disk *d)
{
	json_t *o = disk_describe(d);
	uint64_t n = (uint64_t)json_integer_value(json_object_get(o, "private_bytes"));

	CHECK(json_is_string(json_object_get(o, "path")));
	json_decref(o);
	return n;
}

/* ------------------------------------------------------------------ opening */

static unsigned count_entries(const char *folder)
{
	DIR *dir = opendir(folder);
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static void expect_refused(const char *path, const char *options, int status, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;
	unsigned fds = count_entries("/proc/self/fd");
	char spec[1200];

	snprintf(spec, sizeof(spec), "mmap:\"%s\"%s", path, options);
	CHECK_EQ(disk_open(spec, 0, &d, &err), status);
	CHECK(d == NULL);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
}

static void test_refused(void)
{
	const char *fifo = tmppath("fifo");

	expect_refused(tmppath("missing"), "", -ENOENT, "missing");
	expect_refused(tmpdir(), "", -EISDIR, "is a directory");
	expect_refused(make_full("empty", 0), "", -EINVAL, "is empty");
	expect_refused(make_full("odd", 1000), "", -EINVAL, "truncate -s %512");
	expect_refused(make_full("odd", 5120), ";block=4096", -EINVAL, "truncate -s %4096");
	CHECK_EQ(mkfifo(fifo, 0600), 0);
	expect_refused(fifo, "", -EINVAL, "neither a regular file nor a block device");
	expect_refused("/dev/null", "", -EINVAL, "neither a regular file nor a block device");
}

/* Larger than any address space. */
static void test_too_large(void)
{
	int fd = memfd_create("large", MFD_CLOEXEC);
	char path[64];

	if (checkers_in_valgrind())
		SKIP("valgrind has an answer of its own to that");
	if (fd < 0 || ftruncate(fd, (off_t)1 << 60))
		SKIP("no file of 1 EiB can be had");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	expect_refused(path, "", -ENOMEM, "cannot map 1152921504606846976 bytes");
	close(fd);
}

static void test_facts(void)
{
	const char *path = make_full("facts", 5 * 512);
	struct disk *d = open_good(path), *ro = open_as(path, "", OPEN_READ_ONLY);

	CHECK_EQ(disk_info(d)->block_size, 512);
	CHECK_EQ(disk_info(d)->physical_block_size, PAGE);
	CHECK_EQ(disk_info(d)->discard, DISK_DISCARD_ZEROES);
	CHECK_EQ(disk_info(d)->flags, DISK_VOLATILE | DISK_FUA | DISK_FAST_ZERO);
	CHECK_EQ(disk_info(ro)->flags, DISK_READ_ONLY | DISK_FUA | DISK_FAST_ZERO);
	CHECK_EQ(disk_resize(d, 1024, &io_plain), -EOPNOTSUPP);
	CHECK(is_filled(d, 0, 5 * 512) && is_filled(ro, 0, 5 * 512));
	close_good(ro);
	close_good(d);
}

/* A page holds several blocks, and a block several pages. */
static void test_contract_with_large_blocks(void)
{
	static const char *const options[] = {";block=1024", ";block=8192", ";block=65536"};
	const char *path = make_file("contract", 80 * 65536, 65536 + 512, 30 * 65536 + 4096);
	struct contract c = {.size = 80 * 65536};
	char spec[700];

	for (size_t i = 0; i < 3; i++) {
		snprintf(spec, sizeof(spec), "mmap:%s%s", path, options[i]);
		c.spec = spec;
		CHECK_EQ(contract_run(&c), 0);
	}
}

/* ------------------------------------------------------------------ the file stays as it is */

/* The descriptor of this process that stands for `path`; -1: none. */
static int find_fd(const char *path)
{
	struct stat wanted, st;

	if (stat(path, &wanted))
		return -1;
	for (int fd = 0; fd < 1024; fd++)
		if (!fstat(fd, &st) && st.st_ino == wanted.st_ino && st.st_dev == wanted.st_dev)
			return fd;
	return -1;
}

static void change_a_lot(struct disk *d)
{
	struct random r = random_stream(60);
	struct model m = {.size = disk_size(d), .block = disk_info(d)->block_size};

	for (unsigned i = 0; i < rounds(400); i++) {
		uint64_t offset, length;
		model_range(&m, &r, MIB, &offset, &length);
		random_fill(&r, memory, length);
		if (random_once_in(&r, 4))
			CHECK_EQ(disk_discard(d, offset, length, &io_plain), 0);
		else if (random_once_in(&r, 4))
			CHECK_EQ(disk_write_zeroes(d, offset, length, &io_plain), 0);
		else
			CHECK_EQ(do_write(d, memory, offset, length), 0);
	}
	CHECK_EQ(disk_flush(d, &io_plain), 0);
}

static void test_file_never_changes(void)
{
	const char *path = make_file("gold", 3 * MIB + 512, 4096, 2 * MIB + 100);
	struct stat before, after;
	struct disk *d;
	int fd;

	CHECK_EQ(chmod(path, 0444), 0);
	d = open_good(path);
	fd = find_fd(path);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQ(stat(path, &before), 0);
	change_a_lot(d);
	close_good(d);
	CHECK_EQ(stat(path, &after), 0);
	CHECK_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
	CHECK_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	CHECK_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
	CHECK_EQ(after.st_blocks, before.st_blocks);
	d = open_good(path);
	CHECK(is_filled(d, 4096, 2 * MIB - 4096));
	CHECK(is_all(d, 0, 4096, 0) && is_all(d, 2 * MIB + 512, MIB, 0));
	close_good(d);
}

static void test_opens_are_private(void)
{
	const char *path = make_full("gold", MIB);
	struct disk *a = open_good(path), *b = open_good(path);

	CHECK(write_all(a, 0, 4096, 'a') && write_all(b, 2048, 4096, 'b'));
	CHECK_EQ(disk_discard(b, 512 * KIB, 64 * KIB, &io_plain), 0);
	CHECK(is_all(a, 0, 4096, 'a') && is_filled(a, 4096, MIB - 4096));
	CHECK(is_filled(b, 0, 2048) && is_all(b, 2048, 4096, 'b') && is_filled(b, 6144, 512 * KIB - 6144));
	CHECK(is_all(b, 512 * KIB, 64 * KIB, 0));
	close_good(b);
	close_good(a);
}

/* Bytes of the file that this process has in a mapping of it. */
static unsigned long long mapped_bytes(const char *path)
{
	unsigned long long kib = 0, total = 0;
	FILE *f = fopen("/proc/self/smaps", "re");
	bool inside = false;
	char line[1000];

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, path))
			inside = true;
		else if (inside && sscanf(line, "Rss: %llu kB", &kib) == 1)
			total += kib * KIB, inside = false;
	}
	if (f)
		fclose(f);
	return total;
}

static void read_half(void *argument)
{
	CHECK(is_filled(argument, 0, 512 * KIB));
}

/* A fiber does not touch the mapping, where it would hold up its thread. */
static void test_who_uses_the_mapping(void)
{
	const char *path = make_full("whose", MIB);
	struct disk *d = open_good(path);

	run_fibers(&mode_ring, 1, read_half, d);
	CHECK_EQ(mapped_bytes(path), 0);
	read_half(d);
	CHECK(mapped_bytes(path) >= 512 * KIB);
	close_good(d);
}

/* nbdkit forks between opening and the first request. */
static void test_fork(void)
{
	struct disk *d = open_good(make_full("gold", MIB));
	int status = -1;
	pid_t pid;

	CHECK(write_all(d, 0, 4096, 'p'));
	pid = fork();
	if (!pid)
		_exit(is_all(d, 0, 4096, 'p') && write_all(d, 0, 4096, 'c') && is_all(d, 0, 4096, 'c') &&
				      is_filled(d, 4096, 4096)
			      ? 0
			      : 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK(is_all(d, 0, 4096, 'p'));
	close_good(d);
}

/* As the manual says: in what is untouched somebody else's changes show; not where the disk was written, nor in holes. */
static void test_changes_by_others(void)
{
	const char *path = make_file("gold", 3 * MIB, 0, MIB);
	struct disk *d = open_good(path);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	unsigned char x = 'x';
	bool knows_holes;

	CHECK(write_all(d, 0, 512, 'w'));
	CHECK_EQ(disk_discard(d, 8192, 4096, &io_plain), 0);
	knows_holes = lseek(fd, MIB, SEEK_DATA) < 0;
	for (off_t at = 1024; at < (off_t)(3 * MIB); at += 4096)
		CHECK_EQ(pwrite(fd, &x, 1, at), 1);
	close(fd);
	CHECK(is_all(d, 0, 512, 'w') && is_filled(d, 512, 3584));
	CHECK_EQ(do_read(d, memory, 4096, 4096), 0);
	CHECK_EQ(memory[1024], 'x');
	CHECK(is_all(d, 8192, 4096, 0));
	if (knows_holes)
		CHECK(is_all(d, MIB, 2 * MIB, 0));
	close_good(d);
}

/* ------------------------------------------------------------------ the file is shortened */

static int read_failing(struct disk *d, uint64_t offset, uint64_t size, const char *text)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = disk_read(d, &VEC_FLAT(memory, size), offset, &io);

	if (status && !CHECK(strstr(failure.text, text) != NULL))
		tap_diag("%s", failure.text);
	return status;
}

#define SHORTENED "was shortened by somebody else: it has"

/* 64 pages of data and 64 of hole, of which some were written. */
static struct disk *open_shortened(const char **path, off_t size)
{
	struct disk *d;

	*path = make_file("short", 128 * PAGE, 0, 64 * PAGE);
	d = open_good(*path);
	CHECK(write_all(d, 40 * PAGE, 2 * PAGE, 'p'));
	CHECK_EQ(disk_write_zeroes(d, 50 * PAGE, PAGE, &io_plain), 0);
	CHECK(write_all(d, 100 * PAGE, PAGE, 'q'));
	CHECK_EQ(truncate(*path, size), 0);
	return d;
}

static void check_shortened(void *argument)
{
	struct disk *d = argument;

	CHECK(is_filled(d, 0, 10 * PAGE));
	CHECK(is_filled(d, 10 * PAGE, 512));
	CHECK_EQ(read_failing(d, 10 * PAGE, PAGE, SHORTENED), -EIO); /* ends within the page */
	CHECK_EQ(read_failing(d, 10 * PAGE + 512, 512, SHORTENED), -EIO);
	CHECK_EQ(read_failing(d, 10 * PAGE + 1024, 512, SHORTENED), -EIO);
	CHECK_EQ(read_failing(d, 11 * PAGE, 512, SHORTENED), -EIO);
	CHECK_EQ(read_failing(d, 0, 64 * PAGE, SHORTENED), -EIO);
	CHECK_EQ(read_failing(d, 9 * PAGE, 4 * PAGE, SHORTENED), -EIO);
	CHECK(is_all(d, 40 * PAGE, 2 * PAGE, 'p')); /* what was written stays */
	CHECK(is_all(d, 50 * PAGE, PAGE, 0));
	CHECK(is_all(d, 100 * PAGE, PAGE, 'q'));
	CHECK_EQ(disk_write(d, &VEC_FLAT("", 0), 0, &io_plain), 0);
}

static void check_writes_to_what_is_gone(void *argument)
{
	struct disk *d = argument;
	struct failure failure = {0};
	struct io io = {.failure = &failure};

	memset(memory, 'n', 512);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 20 * PAGE, &io), -EIO); /* the rest of the page is not known */
	CHECK(strstr(failure.text, SHORTENED) != NULL);
	CHECK_EQ(disk_write_zeroes(d, 20 * PAGE + 512, 512, &io_plain), -EIO);
	CHECK(write_all(d, 21 * PAGE, PAGE, 'n') && is_all(d, 21 * PAGE, PAGE, 'n'));
	CHECK(write_all(d, 21 * PAGE, 512, 'o') && is_all(d, 21 * PAGE + 512, PAGE - 512, 'n'));
	CHECK_EQ(disk_discard(d, 22 * PAGE, PAGE, &io_plain), 0);
	CHECK(is_all(d, 22 * PAGE, PAGE, 0));
	CHECK_EQ(disk_prefetch(d, 0, 128 * PAGE, &io_plain), 0);
}

static void shortened(const struct loop_mode *mode)
{
	const char *path;
	struct disk *d = open_shortened(&path, (off_t)(10 * PAGE + 1000));

	run_in_mode(mode, check_shortened, d);
	run_in_mode(mode, check_writes_to_what_is_gone, d);
	CHECK_EQ(truncate(path, (off_t)(128 * PAGE)), 0);
	CHECK(is_all(d, 40 * PAGE, 2 * PAGE, 'p')); /* nor is it replaced by what the file has now */
	CHECK(is_all(d, 100 * PAGE, PAGE, 'q'));
	CHECK(is_all(d, 30 * PAGE, PAGE, 0));
	close_good(d);
}

MODE_TESTS(shortened)

/* A hole as it was when the disk was opened is there still. */
static void test_holes_are_not_lost(void)
{
	const char *path;
	struct disk *d = open_shortened(&path, 0);
	CLEANUP_EXTENTS struct extents e = {0};

	extents_init(&e, 64 * PAGE, 64 * PAGE, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	for (size_t i = 0; i < e.count; i++)
		if (e.list[i].flags & EXTENT_ZERO)
			CHECK(is_all(d, e.list[i].offset, e.list[i].length, 0));
	CHECK_EQ(read_failing(d, 0, 512, SHORTENED), -EIO);
	close_good(d);
}

struct race {
	struct disk *disk;
	const char *path;
	_Atomic bool stop;
	_Atomic unsigned read, failed;
};

/* What comes back is the file's, or zero when it has grown again; and failures are -EIO. */
static void read_in_race(void *argument)
{
	struct race *r = argument;
	struct random random = random_stream(70);
	char *mine = malloc(16 * PAGE), *expected = malloc(16 * PAGE);

	do {
		uint64_t offset = random_below(&random, 112) * PAGE, size = (1 + random_below(&random, 16)) * PAGE;
		int status = do_read(r->disk, mine, offset, size);
		fill(expected, offset, size);
		for (uint64_t i = 0; i < size && !status; i++)
			if (mine[i] && mine[i] != expected[i]) {
				CHECK(!"bytes of the file");
				break;
			}
		atomic_fetch_add(status ? &r->failed : &r->read, 1);
		if (status)
			CHECK_EQ(status, -EIO);
		wait_yield();
	} while (!atomic_load(&r->stop));
	free(mine);
	free(expected);
}

static void *read_in_race_thread(void *argument)
{
	read_in_race(argument);
	return NULL;
}

static void test_shortened_while_read(void)
{
	const char *path = make_full("race", 128 * PAGE);
	struct race r = {.disk = open_good(path), .path = path};
	pthread_t threads[3];
	struct loop *l;

	REQUIRE(loop_start(NULL, &l, NULL) == 0);
	threads_start(threads, 3, read_in_race_thread, &r);
	CHECK_EQ(loop_spawn(l, read_in_race, &r), 0);
	for (unsigned i = 0; i < rounds(2000); i++) {
		CHECK_EQ(truncate(path, (off_t)(i * 7919 % (128 * PAGE))), 0);
		wait_yield();
		CHECK_EQ(truncate(path, (off_t)(128 * PAGE)), 0);
	}
	atomic_store(&r.stop, true);
	threads_join(threads, 3);
	loop_finish(l);
	CHECK(atomic_load(&r.read) > 0);
	close_good(r.disk);
}

/* The other side of the copy. */
static void test_memory_to_read_into_is_gone(void)
{
	const char *gone = make_full("gone", 0);
	struct disk *d = open_good(make_full("gold", MIB));
	int fd = open(gone, O_RDWR | O_CLOEXEC);
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct failure failure = {0};
	struct io io = {.failure = &failure};

	CHECK_EQ(disk_read(d, &VEC_FLAT(p, 512), 0, &io), -EFAULT);
	CHECK(strstr(failure.text, "the memory to read into is gone") != NULL);
	munmap(p, PAGE);
	close(fd);
	close_good(d);
}

/* ------------------------------------------------------------------ holes and zeroes */

/* Has the page cache the page of the file at `offset`? */
static bool is_cached(const char *path, uint64_t offset)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	unsigned char there = 0;

	CHECK_EQ(mincore(p, PAGE, &there), 0);
	munmap(p, PAGE);
	close(fd);
	return there & 1;
}

static bool can_tell_holes(const char *path, off_t hole)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool can = lseek(fd, hole, SEEK_HOLE) == hole;

	close(fd);
	return can;
}

static unsigned flags_at(struct disk *d, uint64_t offset)
{
	CLEANUP_EXTENTS struct extents e = {0};

	extents_init(&e, offset, disk_info(d)->block_size, 1);
	return CHECK_EQ(disk_extents(d, &e, &io_plain), 0) && e.count ? e.list[0].flags : ~0u;
}

/* Data in the middle of two large holes, not at the borders of anything. */
static void test_holes(void)
{
	const char *path = make_file("holes", 40 * MIB + 512, 10 * MIB + 64 * KIB, 10 * MIB + 128 * KIB);
	const unsigned hole = EXTENT_ZERO | EXTENT_HOLE;
	CLEANUP_EXTENTS struct extents e = {0};
	struct disk *d;

	if (!can_tell_holes(path, 0))
		SKIP("this file system does not tell holes");
	d = open_good(path);
	extents_init(&e, 0, disk_size(d), SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	if (CHECK_EQ(e.count, 3)) {
		CHECK_EQ(e.list[0].flags, hole);
		CHECK_EQ(e.list[1].offset, 10 * MIB + 64 * KIB);
		CHECK_EQ(e.list[1].length, 64 * KIB);
		CHECK_EQ(e.list[1].flags, EXTENT_DATA);
		CHECK_EQ(e.list[2].flags, hole);
	}
	CHECK(is_all(d, 0, MIB, 0));
	CHECK(!is_cached(path, 512 * KIB)); /* it was not read */
	CHECK(write_all(d, 512, 512, 0) && write_all(d, 20 * MIB, MIB, 0));
	CHECK_EQ(disk_write_zeroes(d, 30 * MIB + 512, 3 * MIB, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, 10 * MIB, &io_plain), 0);
	CHECK_EQ(private_bytes(d), 0);
	CHECK(write_all(d, 20 * MIB + 512, 512, 'w'));
	CHECK_EQ(private_bytes(d), PAGE);
	CHECK_EQ(flags_at(d, 20 * MIB), EXTENT_DATA);
	CHECK_EQ(flags_at(d, 20 * MIB + PAGE), hole);
	CHECK(is_all(d, 20 * MIB, 512, 0) && is_all(d, 20 * MIB + 512, 512, 'w') && is_all(d, 20 * MIB + 1024, MIB, 0));
	close_good(d);
}

static uint64_t resident(void)
{
	unsigned long long total = 0, pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f || fscanf(f, "%llu %llu", &total, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return pages * PAGE;
}

/* What a process has is its own, and no checker's beside it. */
#if defined(CHECKERS_ASAN) || defined(CHECKERS_TSAN)
#define MEMORY_COUNTS 0
#else
#define MEMORY_COUNTS (!checkers_in_valgrind())
#endif

/* The file's old bytes do not come back, the memory does. */
static void test_memory_is_given_back(void)
{
	struct disk *d = open_good(make_full("gold", 32 * MIB));
	uint64_t before = resident();

	for (uint64_t at = 0; at < 32 * MIB; at += MIB)
		CHECK(write_all(d, at, MIB, 'w'));
	CHECK_EQ(private_bytes(d), 32 * MIB);
	CHECK(resident() >= before + 31 * MIB || !MEMORY_COUNTS);
	CHECK_EQ(disk_discard(d, 4096, 32 * MIB - 8192, &io_plain), 0);
	CHECK_EQ(private_bytes(d), 8192);
	CHECK(resident() < before + 4 * MIB || !MEMORY_COUNTS);
	CHECK(is_all(d, 0, 4096, 'w') && is_all(d, 4096, MIB, 0) && is_all(d, 31 * MIB, MIB - 4096, 0));
	CHECK(write_all(d, 8192, 512, 'v') && is_all(d, 8192 + 512, MIB, 0) && is_all(d, 4096, 4096, 0));
	close_good(d);
}

/* Pieces of the map that are zero as a whole stay so when a part of them is written. */
static void test_discarded_at_once(void)
{
	struct disk *d = open_good(make_full("gold", 8 * MIB + 512));

	CHECK_EQ(disk_discard(d, 0, 8 * MIB + 512, &io_plain), 0);
	CHECK_EQ(flags_at(d, 8 * MIB), EXTENT_ZERO | EXTENT_HOLE);
	CHECK(write_all(d, 3 * MIB + 512, 512, 'w') && write_all(d, 6 * MIB, MIB, 'v'));
	CHECK(is_all(d, 0, 3 * MIB + 512, 0) && is_all(d, 3 * MIB + 512, 512, 'w'));
	CHECK(is_all(d, 3 * MIB + 1024, 3 * MIB - 1024, 0) && is_all(d, 6 * MIB, MIB, 'v'));
	CHECK(is_all(d, 7 * MIB, MIB + 512, 0));
	close_good(d);
}

/* Zeroes over data that is the file's: whole pages are fast, a part of one would have to be copied. */
static void test_fast_zeroes_are_fast(void)
{
	struct disk *d = open_good(make_full("gold", MIB));
	const struct io fast = {.flags = IO_FAST_ONLY};

	CHECK_EQ(disk_write_zeroes(d, 512, 512, &fast), -EOPNOTSUPP);
	CHECK_EQ(disk_write_zeroes(d, PAGE, PAGE + 512, &fast), -EOPNOTSUPP);
	CHECK_EQ(disk_write_zeroes(d, PAGE - 512, PAGE + 512, &fast), -EOPNOTSUPP);
	CHECK(is_filled(d, 0, MIB)); /* nothing of it was done */
	CHECK_EQ(private_bytes(d), 0);
	CHECK_EQ(disk_write_zeroes(d, PAGE, 2 * PAGE, &fast), 0);
	CHECK_EQ(disk_write_zeroes(d, PAGE + 512, 512, &fast), 0);
	CHECK_EQ(private_bytes(d), 0);
	CHECK(write_all(d, 8 * PAGE, 512, 'w'));
	CHECK_EQ(disk_write_zeroes(d, 8 * PAGE, 512, &fast), 0);
	CHECK(is_all(d, 8 * PAGE, 512, 0) && is_filled(d, 8 * PAGE + 512, PAGE - 512));
	CHECK(is_all(d, PAGE, 2 * PAGE, 0) && is_filled(d, 0, PAGE));
	close_good(d);
}

/* ------------------------------------------------------------------ little memory */

/* Writes every `step` bytes until nothing more goes; how many went, and *status what ended it. */
static unsigned write_until_full(struct disk *d, uint64_t step, int *status)
{
	unsigned n = 0;

	memset(other, 'w', PAGE);
	*status = 0;
	while (n * step < disk_size(d) && !(*status = do_write(d, other, n * step, PAGE)))
		n++;
	return n;
}

/* May have `mib` MiB of data more than it has. */
static void limit_data(uint64_t mib)
{
	struct rlimit limit;
	unsigned long long data = 0;
	char line[200];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmData: %llu kB", &data);
	if (f)
		fclose(f);
	limit = (struct rlimit){data * KIB + mib * MIB, data * KIB + mib * MIB};
	setrlimit(RLIMIT_DATA, &limit);
}

/* The whole of it is not to be had, 64 MiB are; what was written before they ran out is there and can be given up. */
static int live_with_little(const char *path)
{
	struct disk *d;
	unsigned n;
	int status;

	limit_data(64);
	d = open_good(path);
	n = write_until_full(d, 3 * MIB, &status);
	if (status != -ENOSPC || n < 20 || n > 64)
		return 1;
	for (unsigned i = 0; i < n; i++)
		if (!is_all(d, i * 3 * MIB, PAGE, 'w') || !is_all(d, i * 3 * MIB + PAGE, 512, 0))
			return 2;
	if (!is_all(d, n * 3 * MIB, MIB, 0) || disk_discard(d, 0, 3 * MIB, &io_plain) || !is_all(d, 0, PAGE, 0))
		return 3;
	return disk_close(d, NULL) ? 4 : 0;
}

static void test_little_memory(void)
{
	const char *path = make_file("little", 1024 * MIB, 0, 0);
	int status = -1;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(live_with_little(path));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

int main(void)
{
	TAP_RUN(test_refused);
	TAP_RUN(test_too_large);
	TAP_RUN(test_facts);
	TAP_RUN(test_contract_with_large_blocks);
	TAP_RUN(test_file_never_changes);
	TAP_RUN(test_opens_are_private);
	TAP_RUN(test_who_uses_the_mapping);
	TAP_RUN(test_fork);
	TAP_RUN(test_changes_by_others);
	RUN_MODE_TESTS(shortened);
	TAP_RUN(test_holes_are_not_lost);
	TAP_RUN(test_shortened_while_read);
	TAP_RUN(test_memory_to_read_into_is_gone);
	TAP_RUN(test_holes);
	TAP_RUN(test_memory_is_given_back);
	TAP_RUN(test_discarded_at_once);
	TAP_RUN(test_fast_zeroes_are_fast);
	TAP_RUN_IF(MEMORY_COUNTS, test_little_memory); /* a checker needs more */
	return TAP_DONE();
}

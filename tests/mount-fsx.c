/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount-fsx [NAME=VALUE...] FILE... : random operations on files, compared with copies of them in memory.
 * (The idea is that of Apple's fsx; it is not its code.)
 *
 *     seed=N       the same operations again; printed at the beginning
 *     operations=N so many (2000)
 *     block=N      sizes may change, in steps of N bytes (0: they do not)
 *     max=N        up to this size (4 MiB)
 *     map=0        no shared mappings
 *     direct=0     no O_DIRECT
 *     seek=0       no SEEK_DATA and SEEK_HOLE
 *
 * Each file gets a copy FILE.model in the current folder at the end. 1 when anything was not as in the model,
 * and then the last operations.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/mount-random.h"

#define MAX_FILES 4
#define MAX_LENGTH (UINT64_C(256) << 10)
#define PAGE 4096
#define HISTORY 40

struct file {
	const char *path;
	int fd, direct;
	unsigned char *model;
	unsigned char
		*map; /* of all that it may become; its pages stay dirty until somebody wants them written */
	uint64_t size;
};

static struct file files[MAX_FILES];
static unsigned nr_files;
static uint64_t block, max_size;
static bool with_map, with_direct, with_seek;
static unsigned char *buffer;

/* ------------------------------------------------------------------ what was done */

static char history[HISTORY][160];
static uint64_t nr_done;

static __attribute__((format(printf, 1, 2))) void note(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(history[nr_done++ % HISTORY], sizeof(history[0]), format, arguments);
	va_end(arguments);
}

static __attribute__((noreturn, format(printf, 1, 2))) void wrong(const char *format, ...)
{
	va_list arguments;

	for (uint64_t i = nr_done > HISTORY ? nr_done - HISTORY : 0; i < nr_done; i++)
		printf("%" PRIu64 ": %s\n", i, history[i % HISTORY]);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	exit(1);
}

static void expect(const char *what, int64_t got, int64_t wanted)
{
	if (got != wanted)
		wrong("%s: %" PRId64 " (%s), not %" PRId64, what, got, got < 0 ? strerror(errno) : "-",
		      wanted);
}

static void compare(const struct file *f, const char *what, const unsigned char *data, uint64_t offset,
		    uint64_t length)
{
	uint64_t at = 0, end;

	while (at < length && data[at] == f->model[offset + at])
		at++;
	if (at == length)
		return;
	for (end = length; data[end - 1] == f->model[offset + end - 1]; end--)
		;
	wrong("%s of %s: bytes %" PRIu64 " to %" PRIu64 " differ: the first is 0x%02x, not 0x%02x", what,
	      f->path, offset + at, offset + end, data[at], f->model[offset + at]);
}

/* ------------------------------------------------------------------ operations */

struct range {
	uint64_t offset, length;
};

/* Inside of the file, or with `beyond` perhaps across its end or behind it. */
static struct range any_range(const struct file *f, bool beyond)
{
	struct range r = {random_below(f->size + (beyond ? f->size / 8 : 0)), 1 + random_below(MAX_LENGTH)};

	/* Often small, and often at round places. */
	if (random_below(2))
		r.length = 1 + random_below(3 * PAGE);
	if (random_below(3) == 0)
		r.offset &= ~(uint64_t)(PAGE - 1);
	if (random_below(3) == 0)
		r.length = (r.length + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	if (!beyond && r.length > f->size - r.offset)
		r.length = f->size - r.offset;
	return r;
}

static uint64_t seen(const struct file *f, struct range r)
{
	if (r.offset >= f->size)
		return 0;
	return f->size - r.offset < r.length ? f->size - r.offset : r.length;
}

static int some_fd(const struct file *f, const char **how)
{
	bool direct = with_direct && random_below(4) == 0;

	*how = direct ? " direct" : "";
	return direct ? f->direct : f->fd;
}

static void do_read(struct file *f)
{
	struct range r = any_range(f, true);
	const char *how;
	int fd = some_fd(f, &how);

	note("read%s %s %" PRIu64 " +%" PRIu64, how, f->path, r.offset, r.length);
	expect("read", pread(fd, buffer, r.length, (off_t)r.offset), (int64_t)seen(f, r));
	compare(f, "read", buffer, r.offset, seen(f, r));
}

static void do_write(struct file *f)
{
	const char *how;
	int fd = some_fd(f, &how);
	struct range r = any_range(f, false);

	random_fill(buffer, r.length);
	note("write%s %s %" PRIu64 " +%" PRIu64, how, f->path, r.offset, r.length);
	expect("write", pwrite(fd, buffer, r.length, (off_t)r.offset), (int64_t)r.length);
	memcpy(f->model + r.offset, buffer, r.length);
}

/* The mapping that stays, or one of the range alone. */
static unsigned char *get_map(const struct file *f, struct range r, bool stays)
{
	uint64_t skip = r.offset % PAGE;
	unsigned char *map;

	if (stays)
		return f->map + r.offset;
	map = mmap(NULL, r.length + skip, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd,
		   (off_t)(r.offset - skip));
	if (map == MAP_FAILED)
		wrong("mmap: %s", strerror(errno));
	return map + skip;
}

static void do_map(struct file *f)
{
	struct range r = any_range(f, false);
	uint64_t skip = r.offset % PAGE;
	bool write = random_below(2), stays = random_below(2);
	unsigned char *map;

	if (!with_map) {
		do_read(f);
		return;
	}
	note("map %s%s %s %" PRIu64 " +%" PRIu64, write ? "write" : "read", stays ? ", stays," : "", f->path,
	     r.offset, r.length);
	map = get_map(f, r, stays);
	compare(f, "map", map, r.offset, r.length);
	if (write) {
		random_fill(buffer, r.length);
		memcpy(map, buffer, r.length);
		memcpy(f->model + r.offset, buffer, r.length);
		if (random_below(4) == 0)
			expect("msync", msync(map - skip, r.length + skip, MS_SYNC), 0);
	}
	if (!stays)
		munmap(map - skip, r.length + skip);
}

static void do_truncate(struct file *f)
{
	uint64_t size = block ? (1 + random_below(max_size / block)) * block : f->size;

	/* Not always as far as it goes. */
	if (block && random_below(2) && size < f->size / 2)
		size = f->size - f->size / 4 / block * block;
	note("truncate %s %" PRIu64 " to %" PRIu64, f->path, f->size, size);
	expect("truncate", random_below(2) ? ftruncate(f->fd, (off_t)size) : truncate(f->path, (off_t)size),
	       0);
	if (size < f->size)
		memset(f->model + size, 0, f->size - size);
	f->size = size;
}

static void do_punch(struct file *f)
{
	struct range r = any_range(f, true);

	note("punch %s %" PRIu64 " +%" PRIu64, f->path, r.offset, r.length);
	expect("punch", fallocate(f->fd, 3, (off_t)r.offset, (off_t)r.length), 0);
	memset(f->model + r.offset, 0, seen(f, r));
}

static void do_zero(struct file *f)
{
	struct range r = any_range(f, true);
	bool keep = !block || random_below(2);

	if (!keep) {
		/* The new end is a whole block. */
		uint64_t end = (r.offset + r.length + block - 1) / block * block;

		if (end > max_size)
			end = max_size;
		if (end <= r.offset)
			return;
		r.length = end - r.offset;
		if (end > f->size)
			f->size = end;
	}
	note("zero%s %s %" PRIu64 " +%" PRIu64, keep ? " keep" : "", f->path, r.offset, r.length);
	expect("zero", fallocate(f->fd, keep ? 17 : 16, (off_t)r.offset, (off_t)r.length), 0);
	memset(f->model + r.offset, 0, seen(f, r));
}

static bool overlap(struct range a, struct range b)
{
	return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

static void do_copy(struct file *to)
{
	struct file *from = &files[random_below(nr_files)];
	struct range a = any_range(from, false), b = any_range(to, false);
	off_t in = (off_t)a.offset, out = (off_t)b.offset;

	a.length = b.length = a.length < b.length ? a.length : b.length;
	if (from == to && overlap(a, b))
		return;
	note("copy %s %" PRIu64 " +%" PRIu64 " to %s %" PRIu64, from->path, a.offset, a.length, to->path,
	     b.offset);
	expect("copy", copy_file_range(from->fd, &in, to->fd, &out, a.length, 0), (int64_t)a.length);
	memcpy(to->model + b.offset, from->model + a.offset, a.length);
}

static bool is_zero(const struct file *f, uint64_t from, uint64_t to)
{
	while (from < to && f->model[from] == 0)
		from++;
	return from == to;
}

/* What is called a hole reads as zero, and what is not data is a hole. */
static void do_seek(struct file *f)
{
	uint64_t offset = random_below(f->size);
	off_t found;

	if (!with_seek)
		return;
	note("seek %s %" PRIu64, f->path, offset);
	found = lseek(f->fd, (off_t)offset, SEEK_DATA);
	if (found < 0 && errno != ENXIO)
		wrong("SEEK_DATA: %s", strerror(errno));
	if (!is_zero(f, offset, found < 0 ? f->size : (uint64_t)found))
		wrong("SEEK_DATA from %" PRIu64 " found %" PRId64 " and left out data", offset,
		      (int64_t)found);
	found = lseek(f->fd, (off_t)offset, SEEK_HOLE);
	if (found < (off_t)offset || (uint64_t)found > f->size)
		wrong("SEEK_HOLE from %" PRIu64 " found %" PRId64, offset, (int64_t)found);
	if ((uint64_t)found < f->size && f->model[found] != 0)
		wrong("SEEK_HOLE from %" PRIu64 " found data at %" PRId64, offset, (int64_t)found);
}

static void do_stat(struct file *f)
{
	struct stat st;

	note("stat %s", f->path);
	expect("stat", random_below(2) ? fstat(f->fd, &st) : stat(f->path, &st), 0);
	expect("size", st.st_size, (int64_t)f->size);
}

static void do_sync(struct file *f)
{
	note("sync %s", f->path);
	expect("fsync", random_below(2) ? fsync(f->fd) : fdatasync(f->fd), 0);
	if (random_below(2))
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void open_file(struct file *f)
{
	f->fd = open(f->path, O_RDWR | O_CLOEXEC);
	f->direct = with_direct ? open(f->path, O_RDWR | O_CLOEXEC | O_DIRECT) : -1;
	if (f->fd < 0 || (with_direct && f->direct < 0))
		wrong("open %s: %s", f->path, strerror(errno));
	f->map = with_map ? mmap(NULL, max_size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0) : NULL;
	if (f->map == MAP_FAILED)
		wrong("mmap %s: %s", f->path, strerror(errno));
}

static void close_file(struct file *f)
{
	if (f->map)
		munmap(f->map, max_size);
	expect("close", close(f->fd), 0);
	if (f->direct >= 0)
		close(f->direct);
}

static void do_reopen(struct file *f)
{
	note("reopen %s", f->path);
	close_file(f);
	open_file(f);
}

/* More often those that stand here more often. */
static void (*const operations[])(struct file *f) = {
	do_read, do_read, do_read, do_write, do_write, do_write, do_map,  do_map,  do_map,    do_punch,
	do_zero, do_copy, do_copy, do_seek,  do_seek,  do_stat,	 do_sync, do_sync, do_reopen, do_truncate,
};

/* ------------------------------------------------------------------ beginning and end */

static void begin(struct file *f, const char *path)
{
	struct stat st;

	f->path = path;
	expect("stat", stat(path, &st), 0);
	f->size = (uint64_t)st.st_size;
	if (f->size > max_size)
		wrong("%s is larger than max=%" PRIu64, path, max_size);
	open_file(f);
	f->model = calloc(1, max_size + MAX_LENGTH * 2 + max_size / 4);
	if (!f->model)
		wrong("no memory");
	expect("read", pread(f->fd, f->model, f->size, 0), (int64_t)f->size);
}

static void finish(struct file *f)
{
	unsigned char *data = malloc(f->size);
	char name[256];
	const char *last = strrchr(f->path, '/');
	FILE *out;

	expect("read", data ? pread(f->fd, data, f->size, 0) : -1, (int64_t)f->size);
	compare(f, "all", data, 0, f->size);
	free(data);
	close_file(f);
	snprintf(name, sizeof(name), "%s.model", last ? last + 1 : f->path);
	out = fopen(name, "we");
	if (!out || fwrite(f->model, 1, f->size, out) != f->size || fclose(out) != 0)
		wrong("cannot write %s", name);
	free(f->model);
}

static uint64_t any_seed(void)
{
	uint32_t seed;

	return getrandom(&seed, sizeof(seed), 0) == sizeof(seed) ? seed : 1;
}

int main(int argc, char **argv)
{
	uint64_t count = argument_number(argv + 1, "operations", 2000);

	random_state = argument_number(argv + 1, "seed", any_seed());
	printf("seed=%" PRIu64 "\n", random_state);
	fflush(stdout);
	block = argument_number(argv + 1, "block", 0);
	max_size = argument_number(argv + 1, "max", UINT64_C(4) << 20);
	with_map = argument_number(argv + 1, "map", 1);
	with_direct = argument_number(argv + 1, "direct", 1);
	with_seek = argument_number(argv + 1, "seek", 1);
	buffer = aligned_alloc(PAGE, MAX_LENGTH + PAGE);
	for (int i = 1; buffer && i < argc; i++)
		if (!strchr(argv[i], '=') && nr_files < MAX_FILES)
			begin(&files[nr_files++], argv[i]);
	if (!nr_files) {
		fputs("usage: mount-fsx [NAME=VALUE...] FILE...\n", stderr);
		return 2;
	}
	for (uint64_t i = 0; i < count; i++)
		operations[random_below(sizeof(operations) / sizeof(operations[0]))](
			&files[random_below(nr_files)]);
	for (unsigned i = 0; i < nr_files; i++)
		finish(&files[i]);
	free(buffer);
	return 0;
}

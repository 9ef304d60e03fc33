/* SPDX-License-Identifier: BSD-3-Clause */
/* Files: what is refused at open and leaves nothing behind, locks, shortened and full files, flushes that fail, how zeroes are made. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "core/file-io.h"
#include "core/aio.h"
#include "core/open.h"
#include "core/wait.h"
#include "tests/model.h"
#include "tests/tap.h"

#define MIB (UINT64_C(1) << 20)

/* ------------------------------------------------------------------ between the file and the system (linked with --wrap) */

/* Zero-initialised: everything goes through. */
static struct {
	int sync_status; /* of every aio_fdatasync() */
	_Atomic unsigned syncs, synced; /* begun and ended */
	bool slow, told; /* a sync takes a while; its failure is told once, as the kernel does */
	int dsync_status; /* of every write with RWF_DSYNC */
	unsigned writes, dsyncs;
	size_t most;     /* bytes a transfer moves at most; 0: no limit */
	bool stuck;      /* transfers move nothing */
	int refused_modes; /* fallocate() does not know these */
	bool refuse_all;
	unsigned falloc[3]; /* calls: zero range, punch, allocate */
	size_t memory, length; /* alignment that every piece must have; 0: any */
} seam;

ssize_t __real_aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t __real_aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t __real_aio_pread(int fd, void *p, size_t size, uint64_t offset);
ssize_t __real_aio_pwrite(int fd, const void *p, size_t size, uint64_t offset);
int __real_aio_fdatasync(int fd);
int __real_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
ssize_t __wrap_aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t __wrap_aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t __wrap_aio_pread(int fd, void *p, size_t size, uint64_t offset);
ssize_t __wrap_aio_pwrite(int fd, const void *p, size_t size, uint64_t offset);
int __wrap_aio_fdatasync(int fd);
int __wrap_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);

/* Checks the pieces, and cuts them to what a transfer may move. */
static size_t check_pieces(const struct iovec *iov, size_t count, struct iovec *cut)
{
	size_t n = 0, left = seam.most ? seam.most : SIZE_MAX;

	CHECK(count > 0 && count <= 64);
	for (; n < count && left; n++) {
		cut[n] = iov[n];
		if (cut[n].iov_len > left)
			cut[n].iov_len = left;
		left -= cut[n].iov_len;
		if (seam.memory)
			CHECK((uintptr_t)iov[n].iov_base % seam.memory == 0 && iov[n].iov_len % seam.length == 0);
	}
	return n;
}

ssize_t __wrap_aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags)
{
	struct iovec cut[64];
	size_t n = check_pieces(iov, count, cut);

	return seam.stuck ? 0 : __real_aio_preadv(fd, cut, n, offset, flags);
}

ssize_t __wrap_aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags)
{
	struct iovec cut[64];
	size_t n = check_pieces(iov, count, cut);

	seam.writes++;
	if (flags & RWF_DSYNC) {
		seam.dsyncs++;
		if (seam.dsync_status)
			return seam.dsync_status;
	}
	return seam.stuck ? 0 : __real_aio_pwritev(fd, cut, n, offset, flags);
}

static size_t check_piece(const void *p, size_t size)
{
	struct iovec cut[64] = {{0}};

	return check_pieces(&(struct iovec){(void *)p, size}, 1, cut) ? cut[0].iov_len : 0;
}

ssize_t __wrap_aio_pread(int fd, void *p, size_t size, uint64_t offset)
{
	size = check_piece(p, size);
	return seam.stuck ? 0 : __real_aio_pread(fd, p, size, offset);
}

ssize_t __wrap_aio_pwrite(int fd, const void *p, size_t size, uint64_t offset)
{
	size = check_piece(p, size);
	seam.writes++;
	return seam.stuck ? 0 : __real_aio_pwrite(fd, p, size, offset);
}

int __wrap_aio_fdatasync(int fd)
{
	int status = seam.told ? 0 : seam.sync_status;

	seam.syncs++;
	if (seam.slow) {
		seam.told = true;
		wait_sleep(3000000);
	}
	status = status ? status : __real_aio_fdatasync(fd);
	seam.synced++;
	return status;
}

int __wrap_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	seam.falloc[mode & FALLOC_FL_ZERO_RANGE ? 0 : mode & FALLOC_FL_PUNCH_HOLE ? 1 : 2]++;
	if ((mode & seam.refused_modes) || seam.refuse_all)
		return -EOPNOTSUPP;
	return __real_aio_fallocate(fd, mode, offset, length);
}

static void seam_reset(void)
{
	memset(&seam, 0, sizeof(seam));
}

/* ------------------------------------------------------------------ short forms */

static char memory[3 << 20], other[3 << 20];

/* The spec "file:PATH" with `options`, in double quotes so that any name goes. */
static const char *file_spec(const char *path, const char *options)
{
	static char spec[1200];

	snprintf(spec, sizeof(spec), "file:\"%s\"%s", path, options);
	return spec;
}

static struct disk *open_good(const char *path, const char *options)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (disk_open(file_spec(path, options), 0, &d, &err)) {
		tap_diag("%s", error_text(&err));
		CHECK(!"it opens");
		exit(1);
	}
	return d;
}

static struct disk *make(const char *name, const char *options)
{
	const char *path = tmppath(name);

	unlink(path);
	return open_good(path, options);
}

static void close_good(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(disk_close(d, &err), 0);
	CHECK_STR(err.text, NULL);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* It does not open, says `text`, and leaves no descriptor. */
static void expect_spec_refused(const char *spec, unsigned flags, int status, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;
	unsigned fds = count_fds();

	CHECK_EQ(disk_open(spec, flags, &d, &err), status);
	CHECK(d == NULL);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
	CHECK_EQ(count_fds(), fds);
}

static void expect_refused(const char *path, const char *options, int status, const char *text)
{
	expect_spec_refused(file_spec(path, options), 0, status, text);
}

static void put_file(const char *path, uint64_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	close(fd);
}

/* ------------------------------------------------------------------ refused at open */

static void test_missing(void)
{
	expect_refused(tmppath("nobody"), "", -ENOENT, "nobody': No such file or directory (add ;create=SIZE to make it)");
	expect_refused(tmppath("no/where"), "", -ENOENT, "No such file");
	expect_refused(tmppath("no/where"), ";create=1M", -ENOENT, "No such file or directory");
	CHECK(!exists(tmppath("nobody")));
}

static void test_directory(void)
{
	expect_refused(tmpdir(), "", -EISDIR, "is a directory");
	expect_refused(tmpdir(), ";ro", -EISDIR, "is a directory");
	expect_refused(tmpdir(), ";create=1M", -EEXIST, "exists already");
}

/* Nobody will ever open the other end. */
static void test_fifo_does_not_hang(void)
{
	const char *path = tmppath("fifo");

	REQUIRE(mkfifo(path, 0600) == 0);
	expect_refused(path, "", -EINVAL, "neither a regular file nor a block device");
	expect_refused(path, ";ro", -EINVAL, "neither a regular file nor a block device");
}

static void test_character_device(void)
{
	expect_refused("/dev/null", "", -EINVAL, "neither a regular file nor a block device");
}

static void test_odd_sizes(void)
{
	const char *path = tmppath("odd");

	put_file(path, 0);
	expect_refused(path, "", -EINVAL, "is empty");
	put_file(path, 1000);
	expect_refused(path, "", -EINVAL, "odd', 1000 bytes, is not a multiple of the block size, 512 bytes (truncate -s %512");
	put_file(path, 1024);
	expect_refused(path, ";block=4096", -EINVAL, "block size, 4096 bytes");
	expect_refused(path, ";block=1000", -EINVAL, "1000");
	close_good(open_good(path, ""));
}

/* root may write everything, unless this thread gives that up for a while (capabilities(7)). */
static void override_permissions(bool on)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	uint32_t bit = CAP_TO_MASK(CAP_DAC_OVERRIDE);

	CHECK(!syscall(SYS_capget, &header, data));
	if (on)
		data[0].effective |= data[0].permitted & bit;
	else
		data[0].effective &= ~bit;
	CHECK(!syscall(SYS_capset, &header, data));
}

static void test_no_permission(void)
{
	const char *path = tmppath("locked");

	put_file(path, 4096);
	chmod(path, 0400);
	override_permissions(false);
	expect_refused(path, "", -EACCES, "(add ;ro to open it read-only)");
	close_good(open_good(path, ";ro"));
	override_permissions(true);
}

/* A kind's open may be called by somebody who wants no text. */
static void test_refused_without_text(void)
{
	static const char *const options[] = {"", ";create=1000", ";create=1M", ";create=1M;ro"};

	put_file(tmppath("odd"), 1000);
	for (unsigned i = 0; i < 4; i++) {
		CLEANUP_SPEC struct spec *spec = NULL;
		struct open_request request = {0};
		struct disk *d = NULL;
		REQUIRE(spec_parse(file_spec(tmppath("odd"), options[i]), &spec, NULL) == 0);
		request.spec = spec;
		CHECK(spec->kind->open(&request, &d, NULL) < 0);
	}
	CHECK_EQ(disk_open(file_spec(tmppath("odd"), ""), 0, &(struct disk *){NULL}, NULL), -EINVAL);
}

/* ------------------------------------------------------------------ create */

static void test_create(void)
{
	struct disk *d = make("new", ";create=1M");
	struct stat st;

	CHECK_EQ(disk_size(d), MIB);
	CHECK(stat(tmppath("new"), &st) == 0 && st.st_size == 1 << 20 && st.st_blocks == 0);
	close_good(d);
	CHECK(exists(tmppath("new")));
	expect_refused(tmppath("new"), ";create=2M", -EEXIST, "new' exists already; create= never overwrites a file");
	CHECK(stat(tmppath("new"), &st) == 0 && st.st_size == 1 << 20);
}

static void test_create_is_undone(void)
{
	static const char *const specs[] = {
		"file:\"%s\";create=1000", /* not whole blocks */
		"file:\"%s\";create=2560;block=1024",
		"slice:8M:file:\"%s\";create=1M",
		"slice:100:file:\"%s\";create=1M",
		"slice:0,1000:file:\"%s\";create=1M",
		"slice:512,1M:file:\"%s\";create=1M",
		"slice:0:slice:1M:file:\"%s\";create=1M",
	};

	for (unsigned i = 0; i < sizeof(specs) / sizeof(*specs); i++) {
		char spec[1200], *path = strdup(tmppath("undone"));
		struct disk *d = NULL;
		snprintf(spec, sizeof(spec), specs[i], path);
		if (!CHECK(disk_open(spec, 0, &d, NULL) < 0))
			disk_close(d, NULL);
		if (!CHECK(!exists(path)))
			tap_diag("%s", spec);
		free(path);
	}
}

/* What was there before is never removed. */
static void test_failed_open_keeps_old_files(void)
{
	char spec[1200];

	put_file(tmppath("old"), 4096);
	snprintf(spec, sizeof(spec), "slice:8M:file:\"%s\"", tmppath("old"));
	expect_spec_refused(spec, 0, -ERANGE, "offset 8388608 is at or past the end");
	CHECK(exists(tmppath("old")));
	expect_refused(tmppath("old"), ";create=1M", -EEXIST, "exists");
	CHECK(exists(tmppath("old")));
}

static void test_create_read_only(void)
{
	char spec[1200];

	expect_refused(tmppath("wish"), ";create=1M;ro", -EROFS, "create= would write");
	snprintf(spec, sizeof(spec), "memdiff:file:\"%s\";create=1M", tmppath("wish"));
	expect_spec_refused(spec, 0, -EROFS, "create= would write");
	expect_spec_refused(file_spec(tmppath("wish"), ";create=1M"), OPEN_READ_ONLY, -EROFS, "create= would write");
	CHECK(!exists(tmppath("wish")));
}

static void test_names(void)
{
	static const char *const names[] = {"a b", "a:b;c,d", "[x]", "\xff\xfe", "%s%n"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct disk *d = make(names[i], ";create=64K");
		json_t *o = disk_describe(d);
		CHECK(json_is_object(o));
		json_decref(o);
		CHECK(exists(tmppath(names[i])));
		close_good(d);
	}
}

/* ------------------------------------------------------------------ locks */

static void test_second_writer_is_refused(void)
{
	struct disk *d = make("shared", ";create=1M"), *reader;

	expect_refused(tmppath("shared"), "", -EBUSY, "shared' is locked by another writer");
	reader = open_good(tmppath("shared"), ";ro"); /* a reader beside it is fine */
	memset(memory, 'w', 512);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	CHECK_EQ(disk_read(reader, &VEC_FLAT(other, 512), 0, &io_plain), 0);
	CHECK_MEM(other, memory, 512);
	close_good(d);
	d = open_good(tmppath("shared"), ""); /* the lock is gone with the writer, not with the reader */
	expect_refused(tmppath("shared"), "", -EBUSY, "locked");
	close_good(reader);
	expect_refused(tmppath("shared"), "", -EBUSY, "locked");
	close_good(d);
}

static void be_the_other_process(const char *path, int ready, int done)
{
	struct disk *d = NULL;
	char c = disk_open(file_spec(path, ""), 0, &d, NULL) ? 'n' : 'y';

	if (write(ready, &c, 1) == 1 && read(done, &c, 1) >= 0)
		disk_close(d, NULL);
	_exit(0);
}

static void test_the_other_writer_is_named(void)
{
	int ready[2], done[2];
	char c = 0, text[64];
	pid_t child;

	put_file(tmppath("held"), 4096);
	REQUIRE(pipe(ready) == 0 && pipe(done) == 0);
	child = fork();
	if (!child) {
		close(done[1]);
		be_the_other_process(tmppath("held"), ready[1], done[0]);
	}
	CHECK(read(ready[0], &c, 1) == 1 && c == 'y');
	snprintf(text, sizeof(text), "(open in process %ld (", (long)child);
	expect_refused(tmppath("held"), "", -EBUSY, text);
	close(done[1]);
	waitpid(child, NULL, 0);
	close_good(open_good(tmppath("held"), ""));
	close(done[0]);
	close(ready[0]);
	close(ready[1]);
}

/* ------------------------------------------------------------------ changed behind our back */

static void test_shortened_by_somebody_else(void)
{
	struct disk *d = make("short", ";create=1M");
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	CLEANUP_EXTENTS struct extents e;

	REQUIRE(truncate(tmppath("short"), 5000) == 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 4096), 0, &io_plain), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 4096), 4096, &io), -EIO); /* in part there */
	CHECK(strstr(failure.text, "short' was shortened by somebody else: it has 5000 bytes, the disk 1048576"));
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 512), MIB - 512, &io_plain), -EIO);
	failure = (struct failure){0};
	extents_init(&e, 0, MIB, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io), -EIO);
	CHECK(strstr(failure.text, "shortened") != NULL);
	extents_free(&e);
	extents_init(&e, 0, 4096, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), MIB - 512, &io_plain), 0); /* a write makes it whole again */
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 4096), 4096, &io_plain), 0);
	close_good(d);
}

static void test_lengthened_by_somebody_else(void)
{
	struct disk *d = make("long", ";create=1M");

	REQUIRE(truncate(tmppath("long"), 2 << 20) == 0);
	CHECK_EQ(disk_size(d), MIB);
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 512), MIB, &io_plain), -ERANGE);
	close_good(d);
}

static void test_resize_changes_the_file(void)
{
	struct disk *d = make("sized", ";create=1M");
	struct stat st;

	CHECK_EQ(disk_resize(d, 3 * MIB, &io_plain), 0);
	CHECK(stat(tmppath("sized"), &st) == 0 && st.st_size == 3 << 20);
	CHECK_EQ(disk_resize(d, 512, &io_plain), 0);
	CHECK(stat(tmppath("sized"), &st) == 0 && st.st_size == 512);
	close_good(d);
	d = open_good(tmppath("sized"), ";ro");
	CHECK_EQ(disk_resize(d, MIB, &io_plain), -EROFS);
	close_good(d);
}

/* ------------------------------------------------------------------ a full file system */

/* A tmpfs of 1 MiB; seen by this process only, but in a chroot, whose / is no mount point that could be made private. */
static bool mount_small(const char *path)
{
	if (!unshare(CLONE_NEWNS))
		(void)!mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL);
	return mkdir(path, 0700) == 0 && mount("tmpfs", path, "tmpfs", 0, "size=1m") == 0;
}

static void fill_it_up(struct disk *d)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	uint64_t at = 0;
	int status = 0;

	memset(memory, 'f', 65536);
	while (!status && at < 8 * MIB) {
		status = disk_write(d, &VEC_FLAT(memory, 65536), at, &io);
		at += 65536;
	}
	CHECK_EQ(status, -ENOSPC);
	CHECK(strstr(failure.text, "No space left") != NULL);
	CHECK_EQ(disk_read(d, &VEC_FLAT(other, 65536), 0, &io_plain), 0); /* it still serves */
	CHECK_MEM(other, memory, 65536);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 65536), 0, &io_plain), 0); /* and writes where it has room */
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(disk_write_zeroes(d, 7 * MIB, MIB, &(struct io){.flags = IO_MAY_UNMAP}), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(other, 65536), 7 * MIB, &io_plain), 0);
	CHECK_EQ(disk_discard(d, 0, MIB / 2, &io_plain), 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 65536), 7 * MIB, &io_plain), 0); /* what was given back can be used */
	close_good(d);
}

static void test_full(void)
{
	char path[600];

	snprintf(path, sizeof(path), "%s", tmppath("small"));
	if (!mount_small(path))
		SKIP("a small tmpfs cannot be mounted here");
	strcat(path, "/disk");
	fill_it_up(open_good(path, ";create=8M"));
	CHECK(umount2(tmppath("small"), MNT_DETACH) == 0);
}

/* ------------------------------------------------------------------ durability */

/* Nothing is written any more; reading goes on. */
static void expect_dead(struct disk *d)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure}, fua = {.flags = IO_FUA};
	unsigned writes = seam.writes, syncs = seam.syncs;

	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io), -EIO);
	CHECK(strstr(failure.text, "an earlier flush failed (") && strstr(failure.text, "nothing more is written"));
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &fua), -EIO);
	CHECK_EQ(disk_flush(d, &io_plain), -EIO);
	CHECK_EQ(disk_discard(d, 0, 4096, &io_plain), -EIO);
	CHECK_EQ(disk_write_zeroes(d, 0, 4096, &io_plain), -EIO);
	CHECK_EQ(disk_resize(d, 2 * MIB, &io_plain), -EIO);
	CHECK_EQ(disk_read(d, &VEC_FLAT(other, 512), 0, &io_plain), 0);
	CHECK_EQ(seam.writes, writes);
	CHECK_EQ(seam.syncs, syncs); /* it is never tried again */
}

static void expect_bad_close(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(disk_close(d, &err), -EIO);
	CHECK(strstr(error_text(&err), "flush before close") != NULL);
	seam_reset();
}

static void test_failed_flush_is_final(void)
{
	struct disk *d = make("doomed", ";create=1M");
	struct failure failure = {0};
	struct io io = {.failure = &failure};

	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	seam.sync_status = -EIO;
	CHECK_EQ(disk_flush(d, &io), -EIO);
	CHECK(strstr(failure.text, "doomed': flush: Input/output error") != NULL);
	seam.sync_status = 0; /* the next one would succeed: the kernel has forgotten */
	expect_dead(d);
	expect_bad_close(d);
	close_good(open_good(tmppath("doomed"), "")); /* opened anew it lives */
}

static void test_flush_that_finds_the_disk_full_is_final(void)
{
	struct disk *d = make("doomed", ";create=1M");

	seam.sync_status = -ENOSPC;
	CHECK_EQ(disk_flush(d, &io_plain), -ENOSPC);
	seam.sync_status = 0;
	expect_dead(d);
	expect_bad_close(d);
}

static void test_failed_fua_is_final(void)
{
	struct disk *d = make("doomed", ";create=1M");
	struct io fua = {.flags = IO_FUA};

	seam.dsync_status = -EIO;
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &fua), -EIO);
	seam.dsync_status = 0;
	expect_dead(d);
	expect_bad_close(d);
}

static void test_flush_of_fua_zeroes_is_final(void)
{
	struct disk *d = make("doomed", ";create=1M");
	struct io fua = {.flags = IO_FUA};

	seam.sync_status = -EIO;
	CHECK_EQ(disk_write_zeroes(d, 0, 4096, &fua), -EIO);
	seam.sync_status = 0;
	expect_dead(d);
	expect_bad_close(d);
}

#define FLUSHERS 6u

struct flusher {
	struct disk *disk;
	int status;
	bool covered; /* a sync that began after the flush was asked for has ended */
	pthread_t thread;
};

static void *flush_once(void *argument)
{
	struct flusher *f = argument;
	unsigned begun = atomic_load(&seam.syncs);

	f->status = disk_flush(f->disk, &io_plain);
	f->covered = atomic_load(&seam.synced) > begun;
	return NULL;
}

static void flush_together(struct disk *d, struct flusher *f)
{
	for (unsigned i = 0; i < FLUSHERS; i++) {
		f[i] = (struct flusher){.disk = d};
		if (pthread_create(&f[i].thread, NULL, flush_once, &f[i]))
			abort();
	}
	for (unsigned i = 0; i < FLUSHERS; i++)
		pthread_join(f[i].thread, NULL);
}

/* The kernel tells one of them only; none may answer that all is well. */
static void test_failed_flush_is_final_for_all_at_once(void)
{
	struct disk *d = make("doomed", ";create=1M");
	struct flusher f[FLUSHERS];

	seam.sync_status = -EIO;
	seam.slow = true;
	flush_together(d, f);
	for (unsigned i = 0; i < FLUSHERS; i++)
		CHECK_EQ(f[i].status, -EIO);
	CHECK_EQ(seam.syncs, 1);
	seam.slow = false;
	expect_dead(d);
	expect_bad_close(d);
}

/* Those that wait share a flush, but only one that began after they asked. */
static void test_flushes_at_once(void)
{
	struct disk *d = make("shared-flush", ";create=1M");
	struct flusher f[FLUSHERS];

	seam.slow = true;
	for (unsigned round = 0; round < 5; round++) {
		flush_together(d, f);
		for (unsigned i = 0; i < FLUSHERS; i++) {
			CHECK_EQ(f[i].status, 0);
			CHECK(f[i].covered);
		}
	}
	CHECK(seam.syncs <= 5 * FLUSHERS);
	close_good(d);
	seam_reset();
}

static void test_fua_is_one_durable_write(void)
{
	struct disk *d = make("fua", ";create=1M");
	struct io fua = {.flags = IO_FUA};

	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	CHECK_EQ(seam.dsyncs + seam.syncs, 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &fua), 0);
	CHECK_EQ(seam.dsyncs, 1);
	CHECK_EQ(seam.syncs, 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(seam.syncs, 1);
	CHECK_EQ(disk_discard(d, 0, 4096, &fua), 0);
	CHECK_EQ(disk_write_zeroes(d, 0, 4096, &fua), 0);
	CHECK_EQ(seam.syncs, 3);
	close_good(d);
	CHECK_EQ(seam.syncs, 4); /* at close */
	seam_reset();
}

/* A file system that does not know RWF_DSYNC is asked once. */
static void test_fua_without_dsync(void)
{
	struct disk *d = make("fua", ";create=1M");
	struct io fua = {.flags = IO_FUA};

	seam.dsync_status = -EOPNOTSUPP;
	memset(memory, 'x', 512);
	for (unsigned i = 1; i <= 3; i++) {
		CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &fua), 0);
		CHECK_EQ(seam.syncs, i);
		CHECK_EQ(seam.dsyncs, 1);
	}
	CHECK_EQ(disk_read(d, &VEC_FLAT(other, 512), 0, &io_plain), 0);
	CHECK_MEM(other, memory, 512);
	close_good(d);
	seam_reset();
}

static void test_read_only_never_syncs(void)
{
	struct disk *d = make("fua", ";create=1M");

	close_good(d);
	seam_reset();
	d = open_good(tmppath("fua"), ";ro");
	close_good(d);
	CHECK_EQ(seam.syncs, 0);
}

/* ------------------------------------------------------------------ transfers */

static void test_short_transfers_go_on(void)
{
	struct disk *d = make("bits", ";create=4M");
	struct random r = random_stream(1);

	for (size_t most = 1; most < 2000000; most = most * 5 + 3) {
		size_t size = most < 100 ? 4096 : 2 << 20;
		struct scatter s;
		scatter_make(&s, &r, size);
		random_fill(&r, memory, size);
		scatter_put(&s, memory);
		seam.most = most;
		CHECK_EQ(disk_write(d, &s.vec, 512, &io_plain), 0);
		memset(other, 0, size);
		scatter_put(&s, other);
		CHECK_EQ(disk_read(d, &s.vec, 512, &io_plain), 0);
		seam.most = 0;
		scatter_get(&s, other);
		CHECK_MEM(other, memory, size);
		CHECK(scatter_guarded(&s));
		scatter_free(&s);
	}
	close_good(d);
}

/* A system call that moves nothing is not asked for ever. */
static void test_stuck_transfers_fail(void)
{
	struct disk *d = make("bits", ";create=1M");

	seam.stuck = true;
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 512), 0, &io_plain), -EIO);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain), -ENOSPC);
	seam_reset();
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	close_good(d);
}

static void test_direct_with_any_memory(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct random r = random_stream(2);
	struct disk *d = NULL;

	put_file(tmppath("direct"), 8 << 20);
	if (disk_open(file_spec(tmppath("direct"), ";direct"), 0, &d, &err)) {
		CHECK(strstr(error_text(&err), "leave out ;direct") != NULL);
		SKIP("no direct I/O in this folder");
	}
	seam.memory = seam.length = disk_info(d)->block_size;
	for (unsigned i = 0; i < 40; i++) {
		uint64_t b = disk_info(d)->block_size;
		uint64_t length = (random_below(&r, (3 << 20) / b) + 1) * b, offset = random_below(&r, 4 * MIB / b) * b;
		struct scatter s;
		scatter_make(&s, &r, length);
		random_fill(&r, memory, length);
		scatter_put(&s, memory);
		CHECK_EQ(disk_write(d, &s.vec, offset, &io_plain), 0);
		memset(other, 0, length);
		scatter_put(&s, other);
		CHECK_EQ(disk_read(d, &s.vec, offset, &io_plain), 0);
		scatter_get(&s, other);
		CHECK_MEM(other, memory, length);
		CHECK(scatter_guarded(&s));
		scatter_free(&s);
	}
	seam_reset();
	close_good(d);
}

static void test_status_of_system_calls(void)
{
	static const int rows[][2] = {
		{ENOSPC, ENOSPC}, {EDQUOT, ENOSPC},	  {EFBIG, ENOSPC},     {EROFS, EROFS},	   {EPERM, EROFS},
		{EIO, EIO},	  {EBADF, EIO},	  {EINVAL, EIO},       {ENODATA, ENODATA}, {EILSEQ, ENODATA},
		{EFAULT, EFAULT}, {ENOMEM, ENOMEM}, {EBADE, EBADE},    {ENOMEDIUM, ENOMEDIUM},
		{EOPNOTSUPP, EOPNOTSUPP}, {ENXIO, EIO}, {ETIMEDOUT, EIO},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		CHECK_EQ(file_status(-rows[i][0]), -rows[i][1]);
}

/* ------------------------------------------------------------------ zeroes */

static void fill_data(struct disk *d)
{
	memset(memory, 'd', MIB);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, MIB), 0, &io_plain), 0);
}

static int zero_in(struct disk *d, unsigned flags)
{
	struct io io = {.flags = flags};
	int status = disk_write_zeroes(d, 4096, 65536, &io);
	char expected = status ? 'd' : 0;

	CHECK_EQ(disk_read(d, &VEC_FLAT(other, MIB), 0, &io_plain), 0);
	CHECK(other[0] == 'd' && other[4095] == 'd' && other[4096 + 65536] == 'd');
	for (unsigned i = 4096; i < 4096 + 65536; i++)
		if (other[i] != expected) {
			CHECK(!"all or nothing is zero");
			break;
		}
	fill_data(d);
	return status;
}

static void test_ways_to_zero(void)
{
	struct disk *d = make("zeroes", ";create=1M");

	fill_data(d);
	for (unsigned flags = 0; flags < 2 * IO_FAST_ONLY; flags++)
		CHECK_EQ(zero_in(d, flags), 0);
	seam_reset();
	seam.refused_modes = FALLOC_FL_ZERO_RANGE;
	CHECK_EQ(zero_in(d, 0), 0);
	CHECK_EQ(seam.falloc[1], 1); /* punched */
	CHECK_EQ(seam.falloc[2], 1); /* and allocated again */
	CHECK_EQ(zero_in(d, IO_MAY_UNMAP), 0);
	CHECK_EQ(seam.falloc[1], 2);
	CHECK_EQ(seam.falloc[2], 1);
	seam_reset();
	seam.refused_modes = FALLOC_FL_PUNCH_HOLE;
	CHECK_EQ(zero_in(d, IO_MAY_UNMAP), 0);
	seam_reset();
	close_good(d);
}

static void test_zeroes_without_any_help(void)
{
	struct disk *d = make("zeroes", ";create=1M");
	unsigned before;

	fill_data(d);
	seam.refuse_all = true;
	for (unsigned flags = 0; flags < 2 * IO_FAST_ONLY; flags++)
		CHECK_EQ(zero_in(d, flags), flags & IO_FAST_ONLY ? -EOPNOTSUPP : 0);
	before = seam.writes;
	CHECK_EQ(zero_in(d, IO_FUA), 0);
	CHECK(seam.writes > before && seam.syncs > 0);
	seam_reset();
	close_good(d);
}

/* ------------------------------------------------------------------ extents */

static void expect_run(const struct extents *e, size_t i, uint64_t offset, uint64_t length, unsigned flags)
{
	if (!CHECK(i < e->count))
		return;
	CHECK_EQ(e->list[i].offset, offset);
	CHECK_EQ(e->list[i].length, length);
	CHECK_EQ(e->list[i].flags, flags);
}

static void test_holes_are_found(void)
{
	struct disk *d = make("sparse", ";create=1M");
	CLEANUP_EXTENTS struct extents e;
	unsigned hole = EXTENT_ZERO | EXTENT_HOLE;

	memset(memory, 'd', 8192);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 8192), 65536, &io_plain), 0);
	CHECK_EQ(disk_write(d, &VEC_FLAT(memory, 4096), MIB - 4096, &io_plain), 0);
	extents_init(&e, 0, MIB, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 4);
	expect_run(&e, 0, 0, 65536, hole);
	expect_run(&e, 1, 65536, 8192, EXTENT_DATA);
	expect_run(&e, 2, 65536 + 8192, MIB - 4096 - 65536 - 8192, hole);
	expect_run(&e, 3, MIB - 4096, 4096, EXTENT_DATA);
	CHECK_EQ(disk_discard(d, 65536, 8192, &io_plain), 0);
	extents_free(&e);
	extents_init(&e, 4096, MIB - 8192, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	expect_run(&e, 0, 4096, MIB - 8192, hole);
	close_good(d);
}

/* A block that is in part data is data. */
static void test_holes_smaller_than_blocks(void)
{
	struct disk *d = make("coarse", ";create=1M;block=64K");
	CLEANUP_EXTENTS struct extents e;
	int fd = open(tmppath("coarse"), O_WRONLY | O_CLOEXEC);

	CHECK(pwrite(fd, "x", 1, 3 * 65536 + 40000) == 1);
	CHECK(pwrite(fd, "x", 1, 7 * 65536) == 1);
	CHECK(pwrite(fd, "x", 1, 8 * 65536 + 65535) == 1);
	close(fd);
	extents_init(&e, 0, MIB, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 5);
	expect_run(&e, 0, 0, 3 * 65536, EXTENT_ZERO | EXTENT_HOLE);
	expect_run(&e, 1, 3 * 65536, 65536, EXTENT_DATA);
	expect_run(&e, 2, 4 * 65536, 3 * 65536, EXTENT_ZERO | EXTENT_HOLE);
	expect_run(&e, 3, 7 * 65536, 2 * 65536, EXTENT_DATA);
	expect_run(&e, 4, 9 * 65536, MIB - 9 * 65536, EXTENT_ZERO | EXTENT_HOLE);
	for (uint64_t at = 0; at < MIB; at += 65536) {
		extents_free(&e);
		extents_init(&e, at, 65536, 1);
		CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
		CHECK_EQ(e.count, 1);
		expect_run(&e, 0, at, 65536, at == 3 * 65536 || at == 7 * 65536 || at == 8 * 65536
						     ? EXTENT_DATA : EXTENT_ZERO | EXTENT_HOLE);
	}
	close_good(d);
}

/* ------------------------------------------------------------------ descriptors */

/* The flags that the file of this name is open with, by /proc. */
static int flags_of_open(const char *path)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int flags = -1;

	while (dir && (entry = readdir(dir))) {
		char link[600] = "";
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
		if (n > 0 && !strcmp(link, path))
			flags = fcntl(atoi(entry->d_name), F_GETFL);
	}
	if (dir)
		closedir(dir);
	return flags;
}

static void test_descriptor(void)
{
	struct disk *d = make("plain", ";create=1M");
	char path[PATH_MAX];

	REQUIRE(realpath(tmppath("plain"), path) != NULL);
	CHECK_EQ(flags_of_open(path) & O_ACCMODE, O_RDWR);
	close_good(d);
	CHECK_EQ(flags_of_open(path), -1);
	d = open_good(tmppath("plain"), ";ro");
	CHECK_EQ(flags_of_open(path) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
	close_good(d);
	d = open_good(tmppath("plain"), "");
	CHECK_EQ(flags_of_open(path) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
	close_good(d);
}

int main(void)
{
	TAP_RUN(test_missing);
	TAP_RUN(test_directory);
	TAP_RUN(test_fifo_does_not_hang);
	TAP_RUN(test_character_device);
	TAP_RUN(test_odd_sizes);
	TAP_RUN(test_no_permission);
	TAP_RUN(test_refused_without_text);
	TAP_RUN(test_create);
	TAP_RUN(test_create_is_undone);
	TAP_RUN(test_failed_open_keeps_old_files);
	TAP_RUN(test_create_read_only);
	TAP_RUN(test_names);
	TAP_RUN(test_second_writer_is_refused);
	TAP_RUN(test_the_other_writer_is_named);
	TAP_RUN(test_shortened_by_somebody_else);
	TAP_RUN(test_lengthened_by_somebody_else);
	TAP_RUN(test_resize_changes_the_file);
	TAP_RUN(test_full);
	TAP_RUN(test_failed_flush_is_final);
	TAP_RUN(test_flush_that_finds_the_disk_full_is_final);
	TAP_RUN(test_failed_fua_is_final);
	TAP_RUN(test_flush_of_fua_zeroes_is_final);
	TAP_RUN(test_failed_flush_is_final_for_all_at_once);
	TAP_RUN(test_flushes_at_once);
	TAP_RUN(test_fua_is_one_durable_write);
	TAP_RUN(test_fua_without_dsync);
	TAP_RUN(test_read_only_never_syncs);
	TAP_RUN(test_short_transfers_go_on);
	TAP_RUN(test_stuck_transfers_fail);
	TAP_RUN(test_direct_with_any_memory);
	TAP_RUN(test_status_of_system_calls);
	TAP_RUN(test_ways_to_zero);
	TAP_RUN(test_zeroes_without_any_help);
	TAP_RUN(test_holes_are_found);
	TAP_RUN(test_holes_smaller_than_blocks);
	TAP_RUN(test_descriptor);
	return TAP_DONE();
}

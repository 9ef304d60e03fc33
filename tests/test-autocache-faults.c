/* SPDX-License-Identifier: BSD-3-Clause */
/* autocache when the system says no: full and broken media, transfers that come short, no holes; and how it writes. */
#include <linux/falloc.h>
#include <sched.h>
#include <sys/mount.h>

#include "core/aio.h"
#include "core/wait.h"
#include "tests/autocache.h"

/* ------------------------------------------------------------------ between the cache and the system (linked with --wrap) */

/* Zero-initialised: everything goes through. Only files of caches are meant; by the beginning of their names. */
static struct {
	const char *reads, *writes; /* of the file with this name fail */
	int read_status, write_status;
	bool until_punched;  /* writes fail until something was punched */
	uint64_t limit;      /* writes to data at or past it are EFBIG; 0: none */
	size_t most;         /* bytes a transfer moves; 0: no limit */
	bool no_punch;
	uint64_t later_ns;   /* how much later it is */
	unsigned data_writes;
	uint64_t data_bytes, largest;
} seam;

ssize_t __real_aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t __real_aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
int __real_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
uint64_t __real_wait_now(void);
ssize_t __wrap_aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
ssize_t __wrap_aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags);
int __wrap_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
uint64_t __wrap_wait_now(void);

/* The name of a file of a cache, "" for others. */
static const char *name_of(int fd)
{
	static _Thread_local char path[800];
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = 0;
	return strstr(path, ".platter/") ? strstr(path, ".platter/") + 9 : "";
}

static bool is(const char *name, int fd)
{
	return name && !strcmp(name_of(fd), name);
}

static ssize_t cut_first(const struct iovec *iov, struct iovec *out)
{
	*out = *iov;
	if (out->iov_len > seam.most)
		out->iov_len = seam.most;
	return 1;
}

ssize_t __wrap_aio_preadv(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags)
{
	struct iovec cut;

	if (is(seam.reads, fd))
		return seam.read_status;
	if (seam.most && *name_of(fd))
		return __real_aio_preadv(fd, &cut, (size_t)cut_first(iov, &cut), offset, flags);
	return __real_aio_preadv(fd, iov, count, offset, flags);
}

ssize_t __wrap_aio_pwritev(int fd, const struct iovec *iov, size_t count, uint64_t offset, int flags)
{
	struct iovec cut;
	bool data = is("data", fd);
	ssize_t n;

	if (is(seam.writes, fd))
		return seam.write_status;
	if (data && seam.limit && offset >= seam.limit)
		return -EFBIG;
	if (seam.most && *name_of(fd))
		return __real_aio_pwritev(fd, &cut, (size_t)cut_first(iov, &cut), offset, flags);
	n = __real_aio_pwritev(fd, iov, count, offset, flags);
	if (data && n > 0) {
		seam.data_writes++;
		seam.data_bytes += (uint64_t)n;
		seam.largest = (uint64_t)n > seam.largest ? (uint64_t)n : seam.largest;
	}
	return n;
}

int __wrap_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	if (seam.no_punch && (mode & FALLOC_FL_PUNCH_HOLE) && *name_of(fd))
		return -EOPNOTSUPP;
	if (seam.until_punched && is("data", fd))
		seam.writes = NULL;
	return __real_aio_fallocate(fd, mode, offset, length);
}

uint64_t __wrap_wait_now(void)
{
	return __real_wait_now() + seam.later_ns;
}

static void seam_reset(void)
{
	memset(&seam, 0, sizeof(seam));
}

/* ------------------------------------------------------------------ */

static void test_no_room_at_all(void)
{
	struct image m;
	struct disk *d;

	use_root("no-room");
	image_make(&m, "image", 3 * MIB, 1);
	seam.writes = "data";
	seam.write_status = -ENOSPC;
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK(all_agrees(d, &m));
	CHECK(told(d, "failed_writes") > 0);
	CHECK(told(d, "skipped_bytes") > 0);
	CHECK_EQ(told(d, "filled_bytes"), 0);
	CHECK_STR(told_text(d, "state"), "paused");
	seam.writes = NULL; /* somebody made room; it is tried again after a while */
	CHECK(all_agrees(d, &m));
	CHECK_EQ(told(d, "filled_bytes"), 0);
	seam.later_ns = UINT64_C(11000000000);
	CHECK_STR(told_text(d, "state"), "filling");
	CHECK(all_agrees(d, &m));
	CHECK(told(d, "filled_bytes") > 0);
	uint64_t below = read_below(d);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), below);
	close_good(d);
	seam_reset();
	image_free(&m);
}

/* Full, but there is something to evict. */
static void test_room_is_made(void)
{
	struct image m;
	struct disk *d;

	use_root("make-room");
	image_make(&m, "image", 12 * MIB, 2);
	d = open_cache("", &m);
	CHECK(agrees(d, &m, 0, 8 * MIB, 65536));
	seam.writes = "data";
	seam.write_status = -ENOSPC;
	seam.until_punched = true;
	CHECK(agrees(d, &m, 8 * MIB, 4 * MIB, 65536));
	CHECK_EQ(told(d, "evictions"), 1);
	CHECK(told(d, "evicted_bytes") > 0);
	CHECK_EQ(told(d, "failed_writes"), 0);
	CHECK_STR(told_text(d, "state"), "filling");
	uint64_t below = read_below(d);
	CHECK(agrees(d, &m, 8 * MIB, 4 * MIB, 65536)); /* what was filled last was not evicted */
	CHECK_EQ(read_below(d), below);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(told(d, "dropped_blocks"), 0); /* what we evict ourselves we do not believe to be there */
	close_good(d);
	seam_reset();
	image_free(&m);
}

/* A file system of 2 MiB for an image of 12. */
static void test_a_small_file_system(void)
{
	struct image m;
	struct disk *d;
	char path[600];

	snprintf(path, sizeof(path), "%s", use_root("small"));
	if (!unshare(CLONE_NEWNS))
		(void)!mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL);
	if (mkdir(path, 0700) || mount("tmpfs", path, "tmpfs", 0, "size=2m"))
		SKIP("a small tmpfs cannot be mounted here");
	image_make(&m, "image", 12 * MIB, 3);
	d = open_cache(";max=1G", &m);
	for (int i = 0; i < 3; i++)
		CHECK(agrees(d, &m, 0, m.size, 65536));
	CHECK(told(d, "evictions") > 0);
	CHECK(told(d, "cached_bytes") <= 2 * MIB);
	close_good(d);
	d = open_cache(";max=1G", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	CHECK_EQ(umount2(path, MNT_DETACH), 0);
	image_free(&m);
}

static void fill_up(const char *path)
{
	static char memory[65536];
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	size_t size = sizeof(memory);

	memset(memory, 'f', size);
	while (fd >= 0 && size) {
		ssize_t n = write(fd, memory, size);
		size = n > 0 ? size : size / 2;
	}
	close(fd);
}

/* There is not even room for a new folder's files: an old cache that nobody uses goes; without one it is an error. */
static void test_no_room_to_begin(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct image m;
	struct disk *d;
	char path[600], name[700], spec[700];

	snprintf(path, sizeof(path), "%s", use_root("begin"));
	if (mkdir(path, 0700) || mount("tmpfs", path, "tmpfs", 0, "size=2m"))
		SKIP("a small tmpfs cannot be mounted here");
	image_make(&m, "image", MIB, 13);
	memset(m.bytes, 'x', MIB);
	image_rewrite(&m);
	d = open_cache("old;max=1G", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	snprintf(name, sizeof(name), "%s/filler", path);
	fill_up(name);
	d = open_cache("new;max=1G", &m);
	CHECK_EQ(count_entries(path, "old"), 0);
	CHECK(agrees(d, &m, 0, MIB / 2, 65536));
	CHECK_EQ(told(d, "failed_writes"), 0);
	CHECK(told(d, "filled_bytes") > 0);
	fill_up(name); /* begins anew, but "new" is in use */
	snprintf(name, sizeof(name), "%s/filler-2", path);
	fill_up(name);
	snprintf(spec, sizeof(spec), "autocache:newer:file:%s", m.path);
	struct disk *none = NULL;
	CHECK_EQ(disk_open(spec, 0, &none, &err), -ENOSPC);
	CHECK(strstr(error_text(&err), "the cache 'newer.platter': No space left on device") != NULL);
	CHECK(agrees(d, &m, 0, MIB / 2, 65536));
	close_good(d);
	CHECK_EQ(umount2(path, MNT_DETACH), 0);
	image_free(&m);
}

/* The spec comes before the environment, and that before a part of the file system. */
static void test_the_default_maximum(void)
{
	struct image m;
	struct disk *d;

	use_root("default-max");
	image_make(&m, "image", 65536, 4);
	d = open_cache("", &m);
	CHECK(told(d, "max_bytes") >= MIB && told(d, "max_bytes") <= UINT64_C(10) << 30);
	close_good(d);
	setenv("PLATTER_AUTO_CACHE_MAX", "3M", 1);
	d = open_cache("", &m);
	CHECK_EQ(told(d, "max_bytes"), 3 * MIB);
	close_good(d);
	d = open_cache(";max=2M", &m);
	CHECK_EQ(told(d, "max_bytes"), 2 * MIB);
	close_good(d);
	unsetenv("PLATTER_AUTO_CACHE_MAX");
	image_free(&m);
}

static void test_a_broken_medium(void)
{
	static const char *const files[] = {"data", "index"};
	struct image m;
	struct disk *d;

	use_root("broken");
	image_make(&m, "image", 3 * MIB, 5);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	for (int i = 0; i < 2; i++) {
		d = open_cache("", &m);
		seam.reads = files[i];
		seam.read_status = -EIO;
		CHECK(all_agrees(d, &m));
		CHECK(agrees(d, &m, 0, 65536, 512));
		CHECK(told(d, i ? "failed_index_pages" : "failed_reads") > 0);
		seam_reset();
		close_good(d);
	}
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(told(d, "dropped_blocks"), 0);
	close_good(d);
	image_free(&m);
}

/* What cannot be written down is cold the next time, no more. */
static void test_an_index_that_cannot_be_written(void)
{
	struct image m;
	struct disk *d;

	use_root("no-index");
	image_make(&m, "image", 3 * MIB, 6);
	seam.writes = "index";
	seam.write_status = -EIO;
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	uint64_t below = read_below(d);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), below);
	close_good(d);
	seam_reset();
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), m.size);
	close_good(d);
	image_free(&m);
}

static void test_a_file_system_without_holes(void)
{
	struct image m;
	struct disk *d;

	use_root("no-punch");
	image_make(&m, "image", 9 * MIB, 7);
	seam.no_punch = true;
	d = open_cache(";max=2M", &m);
	for (int i = 0; i < 3; i++)
		CHECK(agrees(d, &m, 0, m.size, 65536));
	CHECK(told(d, "evictions") > 1);
	CHECK(told(d, "cached_bytes") <= 4 * MIB);
	close_good(d);
	seam_reset();
	image_free(&m);
}

static void test_short_transfers(void)
{
	struct image m;
	struct disk *d;

	use_root("short");
	image_make(&m, "image", MIB, 8);
	seam.most = 5000;
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK(agrees(d, &m, 0, m.size, 65536));
	CHECK_EQ(read_below(d), m.size);
	close_good(d);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(told(d, "failed_reads") + told(d, "failed_writes"), 0);
	close_good(d);
	seam_reset();
	image_free(&m);
}

/* Data whose place is past the longest file there can be is not kept; all else is. */
static void test_past_the_longest_file(void)
{
	struct image m;
	struct disk *d;

	use_root("long");
	image_make(&m, "image", 4 * MIB, 9);
	seam.limit = MIB;
	d = open_cache("", &m);
	CHECK(agrees(d, &m, 2 * MIB, 2 * MIB, 65536));
	CHECK(agrees(d, &m, 0, MIB, 65536));
	CHECK_STR(told_text(d, "state"), "filling");
	uint64_t below = read_below(d);
	CHECK(agrees(d, &m, 0, MIB, 65536));
	CHECK_EQ(read_below(d), below);
	close_good(d);
	seam_reset();
	image_free(&m);
}

/* A whole MiB of data is one write, and the index is written once for all of it. */
static void test_fills_are_large(void)
{
	struct random r = random_stream(10);
	struct image m;
	struct disk *d;

	use_root("large");
	image_make(&m, "image", 4 * MIB, 10);
	random_fill(&r, m.bytes, m.size);
	image_rewrite(&m);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(seam.data_writes, 4);
	CHECK_EQ(seam.largest, MIB);
	CHECK_EQ(seam.data_bytes, m.size);
	close_good(d);
	seam_reset();
	image_free(&m);
}

/* While it fills it writes the index down now and then: another opening finds it, as one would after a crash. */
static void test_entries_are_written_down_now_and_then(void)
{
	struct image m;
	struct disk *a, *b;

	use_root("now-and-then");
	image_make(&m, "image", 2 * MIB, 11);
	a = open_cache("", &m);
	CHECK(agrees(a, &m, 0, MIB, 65536));
	b = open_cache("", &m);
	CHECK(agrees(b, &m, 0, 4096, 4096));
	CHECK_EQ(read_below(b), 4096); /* not yet */
	close_good(b);
	seam.later_ns = UINT64_C(6000000000);
	CHECK(agrees(a, &m, MIB, 65536, 65536));
	b = open_cache("", &m);
	CHECK(agrees(b, &m, 0, MIB, 65536));
	CHECK_EQ(read_below(b), 0);
	close_good(b);
	close_good(a);
	seam_reset();
	image_free(&m);
}

/* The change is noticed at the next look; from then on it reads through, and nothing of it is kept. */
static void test_a_change_is_noticed_while_filling(void)
{
	struct image m;
	struct disk *d;

	use_root("noticed");
	image_make(&m, "image", 2 * MIB, 12);
	d = open_cache("k", &m);
	CHECK(agrees(d, &m, 0, 65536, 65536));
	image_change(&m, 65536 + 7);
	CHECK(agrees(d, &m, 65536, 65536, 65536));
	seam.later_ns = UINT64_C(6000000000);
	CHECK(agrees(d, &m, MIB, 65536, 65536));
	CHECK_STR(told_text(d, "state"), "off: the source has changed");
	image_change(&m, 7);
	CHECK(all_agrees(d, &m)); /* it is the source that is read */
	CHECK_EQ(told(d, "filled_bytes") <= 3 * 65536, 1);
	close_good(d);
	d = open_cache("k", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), m.size);
	close_good(d);
	seam_reset();
	image_free(&m);
}

int main(void)
{
	TAP_RUN(test_no_room_at_all);
	TAP_RUN(test_room_is_made);
	TAP_RUN(test_a_small_file_system);
	TAP_RUN(test_no_room_to_begin);
	TAP_RUN(test_the_default_maximum);
	TAP_RUN(test_a_broken_medium);
	TAP_RUN(test_an_index_that_cannot_be_written);
	TAP_RUN(test_a_file_system_without_holes);
	TAP_RUN(test_short_transfers);
	TAP_RUN(test_past_the_longest_file);
	TAP_RUN(test_fills_are_large);
	TAP_RUN(test_entries_are_written_down_now_and_then);
	TAP_RUN(test_a_change_is_noticed_while_filling);
	return TAP_DONE();
}

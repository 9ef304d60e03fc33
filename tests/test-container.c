/* SPDX-License-Identifier: BSD-3-Clause */
/* A file as the container of an image: bytes at any offset, a size that moves, and who may have it. */
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/aio.h"
#include "formats/container.h"

/* ------------------------------------------------------------------ between the container and the system (linked with --wrap) */

static struct {
	int sync_status;
	bool no_fallocate;
} seam;

int __real_aio_fdatasync(int fd);
int __real_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
int __wrap_aio_fdatasync(int fd);
int __wrap_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length);

int __wrap_aio_fdatasync(int fd)
{
	return seam.sync_status ? seam.sync_status : __real_aio_fdatasync(fd);
}

int __wrap_aio_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	return seam.no_fallocate ? -EOPNOTSUPP : __real_aio_fallocate(fd, mode, offset, length);
}

/* ------------------------------------------------------------------ */

static struct container *open_container(const char *name, unsigned flags)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *c = NULL;

	if (container_open(tmppath(name), flags, &c, &err))
		tap_diag("%s", error_text(&err));
	CHECK(c != NULL);
	return c;
}

static int refusal(const char *name, unsigned flags, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *c = NULL;
	int status = container_open(tmppath(name), flags, &c, &err);

	CHECK(c == NULL);
	CHECK(strstr(error_text(&err), text) != NULL);
	return status;
}

static uint64_t file_size(const char *name)
{
	struct stat st;

	CHECK_EQ(stat(tmppath(name), &st), 0);
	return (uint64_t)st.st_size;
}

static void test_bytes_at_any_offset(void)
{
	struct container *c = open_container("bytes", CONTAINER_CREATE);
	char back[8] = "";

	CHECK_EQ(container_size(c), 0);
	CHECK_EQ(container_write(c, "hello", 5, 1021, &io_plain), 0);
	CHECK_EQ(container_size(c), 1026);
	CHECK_EQ(file_size("bytes"), 1026);
	CHECK_EQ(container_read(c, back, 6, 1020, &io_plain), 0);
	CHECK(!memcmp(back, "\0hello", 6));
	CHECK_EQ(c->ops->write(c, &VEC_FLAT("J", 1), 1021, true, &io_plain), 0);
	CHECK_EQ(container_size(c), 1026);
	CHECK_EQ(c->ops->flush(c, &io_plain), 0);
	CHECK_EQ(container_close(c, false, NULL), 0);
}

static void test_reading_behind_the_end_is_an_error(void)
{
	struct container *c = open_container("end", CONTAINER_CREATE);
	CLEANUP_ERROR struct error err = {0};
	struct failure failure = {0};
	char back[8];

	CHECK_EQ(container_write(c, "12345", 5, 0, &io_plain), 0);
	CHECK_EQ(container_read(c, back, 6, 0, &(struct io){.failure = &failure}), -EIO);
	CHECK(strstr(failure.text, "behind its end at 5") != NULL);
	CHECK_EQ(container_load(c, back, 6, 0, &err), -EIO);
	CHECK(strstr(error_text(&err), "which has 5 bytes") != NULL);
	CHECK_EQ(container_load(c, back, 5, 0, &err), 0);
	container_close(c, false, NULL);
}

static void test_size_moves_both_ways(void)
{
	struct container *c = open_container("size", CONTAINER_CREATE);
	char back[4] = "xxx";

	CHECK_EQ(container_write(c, "abcdef", 6, 0, &io_plain), 0);
	CHECK_EQ(container_set_size(c, 3, NULL), 0);
	CHECK_EQ(container_size(c), 3);
	CHECK_EQ(container_set_size(c, 9, NULL), 0);
	CHECK_EQ(container_read(c, back, 3, 2, &io_plain), 0);
	CHECK(!memcmp(back, "c\0\0", 3));
	CHECK_EQ(file_size("size"), 9);
	container_close(c, false, NULL);
}

static void check_zeroing(const char *name, bool unmap)
{
	struct container *c = open_container(name, CONTAINER_CREATE);
	static char data[3 << 20], back[3 << 20];

	memset(data, 'x', sizeof(data));
	CHECK_EQ(container_write(c, data, sizeof(data), 0, &io_plain), 0);
	CHECK_EQ(c->ops->zero(c, 1000, (2 << 20) + 100, unmap, &io_plain), 0);
	CHECK_EQ(container_size(c), sizeof(data));
	CHECK_EQ(container_read(c, back, sizeof(back), 0, &io_plain), 0);
	memset(data + 1000, 0, (2 << 20) + 100);
	CHECK(!memcmp(data, back, sizeof(data)));
	container_close(c, false, NULL);
}

static void test_zeroing(void)
{
	check_zeroing("zero1", false);
	check_zeroing("zero2", true);
}

static void test_zeroing_without_support(void)
{
	seam.no_fallocate = true;
	check_zeroing("zero3", false);
	check_zeroing("zero4", true);
	seam.no_fallocate = false;
}

static void test_extents_tell_holes(void)
{
	struct container *c = open_container("extents", CONTAINER_CREATE);
	CLEANUP_EXTENTS struct extents e = {0};

	CHECK_EQ(container_set_size(c, 3 << 20, NULL), 0);
	CHECK_EQ(container_write(c, "x", 1, 1 << 20, &io_plain), 0);
	extents_init(&e, 0, 3 << 20, SIZE_MAX);
	CHECK_EQ(c->ops->extents(c, &e, 512, &io_plain), 0);
	CHECK_EQ(e.count, 3);
	CHECK_EQ(e.list[0].flags, EXTENT_ZERO | EXTENT_HOLE);
	CHECK_EQ(e.list[1].offset, 1 << 20);
	CHECK_EQ(e.list[1].flags, EXTENT_DATA);
	container_close(c, false, NULL);
}

static void test_a_failed_flush_is_final(void)
{
	struct container *c = open_container("final", CONTAINER_CREATE);
	struct failure failure = {0};

	CHECK_EQ(container_write(c, "x", 1, 0, &io_plain), 0);
	seam.sync_status = -EIO;
	CHECK_EQ(c->ops->flush(c, &io_plain), -EIO);
	seam.sync_status = 0; /* the next one would succeed: the kernel has forgotten */
	CHECK_EQ(c->ops->flush(c, &io_plain), -EIO);
	CHECK_EQ(container_write(c, "x", 1, 0, &(struct io){.failure = &failure}), -EIO);
	CHECK(strstr(failure.text, "earlier flush failed") != NULL);
	CHECK_EQ(c->ops->resize(c, 7, &io_plain), -EIO);
	CHECK_EQ(c->ops->zero(c, 0, 1, false, &io_plain), -EIO);
	container_close(c, false, NULL);
}

static void test_one_writer(void)
{
	struct container *c = open_container("writer", CONTAINER_CREATE), *reader;

	CHECK_EQ(refusal("writer", 0, "locked by another writer"), -EBUSY);
	CHECK_EQ(refusal("writer", CONTAINER_READ_ONLY | CONTAINER_SHARED, "locked by another writer"), -EBUSY);
	reader = open_container("writer", CONTAINER_READ_ONLY);
	container_close(reader, false, NULL);
	container_close(c, false, NULL);
}

static void test_shared_readers_keep_writers_out(void)
{
	struct container *a, *b;

	container_close(open_container("shared", CONTAINER_CREATE), false, NULL);
	a = open_container("shared", CONTAINER_READ_ONLY | CONTAINER_SHARED);
	b = open_container("shared", CONTAINER_READ_ONLY | CONTAINER_SHARED);
	CHECK(container_is_same(a, b));
	CHECK_EQ(refusal("shared", 0, "locked by readers"), -EBUSY);
	container_close(a, false, NULL);
	container_close(b, false, NULL);
	a = open_container("shared", 0);
	container_close(a, false, NULL);
}

static void test_a_reader_changes_nothing(void)
{
	struct container *c;

	container_close(open_container("reader", CONTAINER_CREATE), false, NULL);
	c = open_container("reader", CONTAINER_READ_ONLY);
	CHECK_EQ(container_write(c, "x", 1, 0, &io_plain), -EROFS);
	CHECK_EQ(c->ops->resize(c, 7, &io_plain), -EROFS);
	CHECK_EQ(c->ops->flush(c, &io_plain), 0);
	CHECK_EQ(file_size("reader"), 0);
	container_close(c, false, NULL);
}

static void test_creating(void)
{
	struct container *c = open_container("new", CONTAINER_CREATE);

	CHECK_EQ(refusal("new", CONTAINER_CREATE, "never overwrites"), -EEXIST);
	container_close(c, true, NULL);
	CHECK_EQ(access(tmppath("new"), F_OK), -1);
	c = open_container("new", CONTAINER_CREATE);
	container_close(c, false, NULL);
	c = open_container("new", 0);
	container_close(c, true, NULL); /* it did not make the file */
	CHECK_EQ(access(tmppath("new"), F_OK), 0);
}

static void test_what_is_no_file(void)
{
	CHECK_EQ(mkdir(tmppath("folder"), 0700), 0);
	CHECK_EQ(mkfifo(tmppath("fifo"), 0600), 0);
	CHECK_EQ(refusal("folder", CONTAINER_READ_ONLY, "is a directory"), -EISDIR);
	CHECK_EQ(refusal("fifo", CONTAINER_READ_ONLY, "neither a regular file"), -EINVAL);
	CHECK_EQ(refusal("missing", 0, "No such file"), -ENOENT);
}

int main(void)
{
	TAP_RUN(test_bytes_at_any_offset);
	TAP_RUN(test_reading_behind_the_end_is_an_error);
	TAP_RUN(test_size_moves_both_ways);
	TAP_RUN(test_zeroing);
	TAP_RUN(test_zeroing_without_support);
	TAP_RUN(test_extents_tell_holes);
	TAP_RUN(test_a_failed_flush_is_final);
	TAP_RUN(test_one_writer);
	TAP_RUN(test_shared_readers_keep_writers_out);
	TAP_RUN(test_a_reader_changes_nothing);
	TAP_RUN(test_creating);
	TAP_RUN(test_what_is_no_file);
	return TAP_DONE();
}

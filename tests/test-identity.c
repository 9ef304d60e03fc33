/* SPDX-License-Identifier: BSD-3-Clause */
/* By what a disk's content is known: it stays while the content stays, changes with it, and is not claimed without grounds. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "core/open.h"
#include "tests/tap.h"
#include "tests/trap.h"

static const char *image(const char *name, uint64_t size)
{
	const char *path = tmppath(name);
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	if (!CHECK(fd >= 0) || !CHECK_EQ(ftruncate(fd, (off_t)size), 0))
		exit(99);
	close(fd);
	return path;
}

static struct disk *must_open(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (!CHECK_EQ(disk_open(spec, OPEN_READ_ONLY, &d, &err), 0)) {
		tap_diag("%s", error_text(&err));
		exit(99);
	}
	return d;
}

/* Opens PREFIX file:PATH for a moment. */
static int identity_of(const char *prefix, const char *path, struct identity *id)
{
	char spec[2048];
	struct disk *d;
	int status;

	snprintf(spec, sizeof(spec), "%s%s%s", prefix, path ? "file:" : "", path ? path : "");
	d = must_open(spec);
	status = disk_identity(d, id);
	disk_close(d, NULL);
	return status;
}

static void scribble(const char *path, char c, off_t at)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static bool is_plain(const char *text)
{
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~')
			return false;
	return *text;
}

static void test_a_file_keeps_it(void)
{
	const char *path = image("kept", 8192);
	struct identity a, b;

	CHECK_EQ(identity_of("", path, &a), 0);
	CHECK_EQ(identity_of("", path, &b), 0);
	CHECK_STR(a.name, b.name);
	CHECK_STR(a.version, b.version);
	CHECK(is_plain(a.name) && is_plain(a.version));
}

/* Each time right after the identity was taken, when the clock of the file system has hardly moved. */
static void test_every_change_changes_it(void)
{
	const char *path = image("changed", 8192);
	struct identity a, b;

	CHECK_EQ(identity_of("", path, &a), 0);
	for (int i = 0; i < 40; i++) {
		scribble(path, (char)i, i);
		CHECK_EQ(identity_of("", path, &b), 0);
		CHECK_STR(a.name, b.name);
		CHECK(strcmp(a.version, b.version) != 0);
		a = b;
	}
}

/* What tools do that want to hide it, or just to keep dates. */
static void test_mtime_set_back(void)
{
	const char *path = image("dated", 8192);
	struct identity a, b;
	struct stat st;

	CHECK_EQ(identity_of("", path, &a), 0);
	CHECK_EQ(stat(path, &st), 0);
	scribble(path, 'x', 5);
	CHECK_EQ(utimensat(AT_FDCWD, path, (struct timespec[]){st.st_atim, st.st_mtim}, 0), 0);
	CHECK_EQ(identity_of("", path, &b), 0);
	CHECK(strcmp(a.version, b.version) != 0);
}

static void test_size_and_inode(void)
{
	const char *path = image("sized", 8192), *other = image("other", 8192);
	struct identity a, b;

	CHECK_EQ(identity_of("", path, &a), 0);
	CHECK_EQ(truncate(path, 16384), 0);
	CHECK_EQ(identity_of("", path, &b), 0);
	CHECK(strcmp(a.version, b.version) != 0);
	CHECK_EQ(identity_of("", other, &b), 0);
	CHECK(strcmp(a.name, b.name) != 0);
}

/* A stamp of whole seconds may be one of a coarse clock; one from the future never repeats. */
static void test_strange_stamps(void)
{
	const char *path = image("strange", 8192);
	const struct timespec epoch[2] = {{0, 0}, {0, 0}}, far[2] = {{4102444800, 5}, {4102444800, 5}};
	struct identity a, b;

	CHECK_EQ(utimensat(AT_FDCWD, path, epoch, 0), 0);
	CHECK_EQ(identity_of("", path, &a), 0);
	CHECK_EQ(utimensat(AT_FDCWD, path, far, 0), 0);
	CHECK_EQ(identity_of("", path, &b), 0);
	CHECK(strcmp(a.version, b.version) != 0);
}

static void test_windows(void)
{
	const char *path = image("window", 65536);
	struct identity whole, a, b, c;

	CHECK_EQ(identity_of("", path, &whole), 0);
	CHECK_EQ(identity_of("slice:0,4096:", path, &a), 0);
	CHECK_EQ(identity_of("slice:4096,4096:", path, &b), 0);
	CHECK_EQ(identity_of("slice:4096,8192:", path, &c), 0);
	CHECK(strcmp(whole.name, a.name) && strcmp(a.name, b.name) && strcmp(b.name, c.name));
	CHECK_STR(a.version, whole.version);
	CHECK_STR(c.version, whole.version);
	scribble(path, 'x', 0);
	CHECK_EQ(identity_of("slice:4096,8192:", path, &b), 0);
	CHECK_STR(b.name, c.name);
	CHECK(strcmp(b.version, c.version) != 0);
}

/* So many windows in each other that the name has no room: none rather than a part of one. */
static void test_a_name_too_long(void)
{
	const char *path = image("deep", 65536);
	char prefix[64 * 16] = "";
	struct identity id;

	for (int i = 0; i < 48; i++)
		strcat(prefix, "slice:0,32768:");
	CHECK_EQ(identity_of(prefix, path, &id), -EOPNOTSUPP);
	prefix[5 * strlen("slice:0,32768:")] = 0;
	CHECK_EQ(identity_of(prefix, path, &id), 0);
}

static void test_null(void)
{
	struct identity a, b;

	CHECK_EQ(identity_of("null:1M", NULL, &a), 0);
	CHECK_EQ(identity_of("null:2M", NULL, &b), 0);
	CHECK(strcmp(a.version, b.version) != 0);
}

/* RAM, and what can differ from the disk below. */
static void test_who_has_none(void)
{
	const char *path = image("below", 8192);
	struct identity id;

	CHECK_EQ(identity_of("mem:1M", NULL, &id), -EOPNOTSUPP);
	CHECK_EQ(identity_of("memdiff:", path, &id), -EOPNOTSUPP);
	CHECK_EQ(identity_of("ro:memdiff:", path, &id), -EOPNOTSUPP);
}

static int give_identity(struct disk *d, struct identity *out)
{
	(void)d;
	strcpy(out->name, "n");
	strcpy(out->version, "v");
	return 0;
}

static int read_by_itself(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	return disk_read(d->children[0], v, offset, io);
}

/* A decorator that leaves reading to its child has the child's; one that reads by itself, and does not say, has none. */
static void test_the_shared_default(void)
{
	static const struct disk_ops reads = {.read = read_by_itself};
	struct trap *t = trap_create(&(const struct trap_options){0});
	struct disk *pass, *reader;
	struct identity id;

	CHECK_EQ(disk_identity(&t->disk, &id), -EOPNOTSUPP);
	t->disk.ops.identity = give_identity;
	pass = pass_create(&t->disk);
	CHECK_EQ(disk_identity(pass, &id), 0);
	CHECK_STR(id.name, "n");
	CHECK_STR(id.version, "v");
	reader = disk_new(sizeof(*reader), "reader", &reads, &pass, 1);
	disk_inherit(reader);
	CHECK_EQ(disk_publish(reader, disk_size(pass), NULL), 0);
	CHECK_EQ(disk_identity(reader, &id), -EOPNOTSUPP);
	CHECK_STR(id.name, "");
	CHECK_EQ(disk_close(reader, NULL), 0);
}

int main(void)
{
	TAP_RUN(test_a_file_keeps_it);
	TAP_RUN(test_every_change_changes_it);
	TAP_RUN(test_mtime_set_back);
	TAP_RUN(test_size_and_inode);
	TAP_RUN(test_strange_stamps);
	TAP_RUN(test_windows);
	TAP_RUN(test_a_name_too_long);
	TAP_RUN(test_null);
	TAP_RUN(test_who_has_none);
	TAP_RUN(test_the_shared_default);
	return TAP_DONE();
}

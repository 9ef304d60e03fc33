/* SPDX-License-Identifier: BSD-3-Clause */
/* A file has one writer or several readers, in this process and in others. */
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "core/claim.h"

static const char *make_file(const char *name)
{
	const char *path = tmppath(name);
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return path;
}

static void test_writers_exclude_each_other(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct file_claim a, b;
	const char *path = make_file("writers");

	CHECK_EQ(file_claim_take(&a, path, true, NULL), 0);
	CHECK_EQ(file_claim_take(&b, path, true, &err), -EBUSY);
	CHECK(strstr(error_text(&err), "of this process") != NULL);
	file_claim_drop(&b);
	file_claim_drop(&a);
	CHECK_EQ(file_claim_take(&b, path, true, NULL), 0);
	file_claim_drop(&b);
}

static void test_readers_share_and_keep_writers_out(void)
{
	struct file_claim a, b, c;
	const char *path = make_file("readers");

	CHECK_EQ(file_claim_take(&a, path, false, NULL), 0);
	CHECK_EQ(file_claim_take(&b, path, false, NULL), 0);
	CHECK_EQ(file_claim_take(&c, path, true, NULL), -EBUSY);
	file_claim_drop(&a);
	CHECK_EQ(file_claim_take(&c, path, true, NULL), -EBUSY);
	file_claim_drop(&b);
	CHECK_EQ(file_claim_take(&c, path, true, NULL), 0);
	CHECK_EQ(file_claim_take(&a, path, false, NULL), -EBUSY);
	file_claim_drop(&c);
}

static void test_another_name_is_the_same_file(void)
{
	char other[512];
	struct file_claim a, b;
	const char *path = make_file("one-name");

	snprintf(other, sizeof(other), "%s", tmppath("other-name"));
	CHECK_EQ(link(path, other), 0);
	CHECK_EQ(file_claim_take(&a, path, true, NULL), 0);
	CHECK_EQ(file_claim_take(&b, other, true, NULL), -EBUSY);
	file_claim_drop(&a);
}

/* A refused claim must not open the file: closing it would drop the POSIX locks of whoever has it. */
static void test_refusal_leaves_posix_locks(void)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512};
	struct file_claim a, b;
	const char *path = make_file("posix");
	int status;
	pid_t child;

	CHECK_EQ(file_claim_take(&a, path, true, NULL), 0);
	CHECK_EQ(fcntl(a.fd, F_SETLK, &l), 0);
	CHECK_EQ(file_claim_take(&b, path, true, NULL), -EBUSY);
	child = fork();
	if (!child) {
		l.l_type = F_WRLCK;
		_exit(fcntl(a.fd, F_GETLK, &l) ? 2 : l.l_type == F_UNLCK);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	file_claim_drop(&a);
}

static void test_another_process_is_named(void)
{
	const char *path = make_file("processes");
	int ready[2], done[2], status;
	char byte, expected[32];
	CLEANUP_ERROR struct error err = {0};
	struct file_claim a;
	pid_t child;

	REQUIRE(!pipe(ready) && !pipe(done));
	child = fork();
	if (!child) {
		int failed = file_claim_take(&a, path, true, NULL);
		close(done[1]);
		if (write(ready[1], "x", 1) != 1 || read(done[0], &byte, 1) < 0)
			failed = 1;
		_exit(failed != 0);
	}
	close(done[0]);
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	CHECK_EQ(file_claim_take(&a, path, true, &err), -EBUSY);
	snprintf(expected, sizeof(expected), "process %ld (", (long)child);
	if (!CHECK(strstr(error_text(&err), expected) != NULL))
		tap_diag("%s", error_text(&err));
	CHECK_EQ(file_claim_take(&a, path, false, NULL), -EBUSY);
	close(done[1]);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK_EQ(file_claim_take(&a, path, true, NULL), 0);
	file_claim_drop(&a);
	close(ready[0]);
	close(ready[1]);
}

/* It survives the fork of who took it, as long as one of the two has it. */
static void test_survives_fork(void)
{
	const char *path = make_file("forked");
	struct file_claim a, b;
	int status;
	pid_t child;

	CHECK_EQ(file_claim_take(&a, path, true, NULL), 0);
	child = fork();
	if (!child)
		_exit(0);
	CHECK(waitpid(child, &status, 0) == child);
	child = fork();
	if (!child) {
		/* as another program would: without the table */
		struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		int fd = open(path, O_RDWR | O_CLOEXEC);
		_exit(fcntl(fd, F_OFD_SETLK, &l) ? 0 : 1);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	file_claim_drop(&a);
	CHECK_EQ(file_claim_take(&b, path, true, NULL), 0);
	file_claim_drop(&b);
}

static void test_what_cannot_be_claimed(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct file_claim a;

	CHECK_EQ(file_claim_take(&a, tmppath("nothing"), true, &err), -ENOENT);
	CHECK_EQ(a.fd, -1);
	CHECK_EQ(file_claim_take(&a, tmpdir(), true, &err), -EISDIR);
	CHECK_EQ(file_claim_take(&a, "/dev/null", true, &err), -EINVAL);
	file_claim_drop(&a);
}

int main(void)
{
	TAP_RUN(test_writers_exclude_each_other);
	TAP_RUN(test_readers_share_and_keep_writers_out);
	TAP_RUN(test_another_name_is_the_same_file);
	TAP_RUN(test_refusal_leaves_posix_locks);
	TAP_RUN(test_another_process_is_named);
	TAP_RUN(test_survives_fork);
	TAP_RUN(test_what_cannot_be_claimed);
	return TAP_DONE();
}

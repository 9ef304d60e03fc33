/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors of opening, and of requests: recorded once, context in front, readable without memory, safe from several threads. */
#include "core/error.h"

#include <pthread.h>

#include "core/io.h"
#include "tests/tap.h"

static void test_zero_is_none(void)
{
	struct error err = {0};

	CHECK_EQ(error_prefix(&err, "context"), 0);
	CHECK_EQ(error_hint(&err, "hint"), 0);
	CHECK_STR(err.text, NULL);
	CHECK(error_text(&err) != NULL);
	error_clear(&err);
	error_clear(NULL);
}

static void test_chain(void)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(error_set(&err, -EINVAL, "size %d is odd", 7), -EINVAL);
	CHECK_EQ(error_prefix(&err, "file '%s'", "a%sb"), -EINVAL);
	CHECK_EQ(error_prefix(&err, "memdiff"), -EINVAL);
	CHECK_EQ(error_hint(&err, "add %d", 1), -EINVAL);
	CHECK_EQ(err.status, -EINVAL);
	CHECK_STR(error_text(&err), "memdiff: file 'a%sb': size 7 is odd (add 1)");
}

static void test_set_replaces(void)
{
	CLEANUP_ERROR struct error err = {0};

	error_set(&err, -EIO, "first");
	error_set(&err, -ENOENT, "second");
	CHECK_EQ(err.status, -ENOENT);
	CHECK_STR(err.text, "second");
}

/* The new text may be made of the old one. */
static void test_set_from_itself(void)
{
	CLEANUP_ERROR struct error err = {0};

	error_set(&err, -EIO, "inner");
	error_set(&err, -EINVAL, "outer (%s)", error_text(&err));
	CHECK_STR(err.text, "outer (inner)");
	error_prefix(&err, "again %s", error_text(&err));
	CHECK_STR(err.text, "again outer (inner): outer (inner)");
	error_set_errno(&err, -ENOENT, "%s", error_text(&err));
	CHECK_STR(err.text, "again outer (inner): outer (inner): No such file or directory");
}

static void test_errno(void)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(error_set_errno(&err, -ENOSPC, "writing '%s'", "x"), -ENOSPC);
	CHECK_STR(err.text, "writing 'x': No space left on device");
}

static void test_nobody_wants_text(void)
{
	CHECK_EQ(error_set(NULL, -EIO, "x"), -EIO);
	CHECK_EQ(error_set_errno(NULL, -EIO, "x"), -EIO);
	error_prefix(NULL, "x");
	error_hint(NULL, "x");
}

static void test_move(void)
{
	CLEANUP_ERROR struct error to = {0};
	struct error from = {0};

	error_set(&to, -EIO, "old");
	error_set(&from, -ENOENT, "new");
	CHECK_EQ(error_move(&to, &from), -ENOENT);
	CHECK_STR(to.text, "new");
	CHECK_EQ(to.status, -ENOENT);
	CHECK_EQ(from.status, 0);
	CHECK_STR(from.text, NULL);
	error_set(&from, -EIO, "dropped");
	CHECK_EQ(error_move(NULL, &from), -EIO);
	CHECK_STR(from.text, NULL);
}

/* Where memory runs out the status's own text stands in. */
static void test_text_without_memory(void)
{
	struct error err = {.status = -ENOSPC};

	CHECK_STR(error_text(&err), "No space left on device");
}

static void test_long_text(void)
{
	CLEANUP_ERROR struct error err = {0};
	char long_name[5000];

	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = 0;
	error_set(&err, -EINVAL, "%s", long_name);
	for (int i = 0; i < 100; i++)
		error_prefix(&err, "level %d", i);
	CHECK(strstr(err.text, "level 99: level 98") == err.text);
	CHECK(strstr(err.text, long_name) != NULL);
}

/* ------------------------------------------------------------------ requests */

static void test_first_failure_stays(void)
{
	struct failure f = {0};
	struct io io = {.failure = &f};

	CHECK_EQ(io_fail(&io, -EIO, "disk %d", 1), -EIO);
	CHECK_EQ(io_fail(&io, -EROFS, "disk 2"), -EROFS);
	CHECK_EQ(f.status, -EIO);
	CHECK_STR(f.text, "disk 1");
	CHECK_EQ(io_fail(&io_plain, -EIO, "nobody listens"), -EIO);
}

static void test_medium(void)
{
	struct failure f = {0};
	struct io io = {.failure = &f};

	CHECK_EQ(io_fail_medium(&io, MEDIUM_GUARD_CHECK, "guard"), -ENODATA);
	CHECK_EQ(f.status, -ENODATA);
	CHECK_EQ(f.medium, MEDIUM_GUARD_CHECK);
	CHECK_STR(f.text, "guard");
}

static void test_failure_text_is_cut(void)
{
	struct failure f = {0};
	struct io io = {.failure = &f};
	char text[1000];

	memset(text, 't', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	io_fail(&io, -EIO, "%s", text);
	CHECK_EQ(strlen(f.text), sizeof(f.text) - 1);
}

static void test_other_flags(void)
{
	struct failure f = {0};
	struct initiator who = {.port = 3};
	struct io io = {.flags = IO_FUA, .who = &who, .failure = &f};
	struct io copy = io_with_flags(&io, IO_MAY_UNMAP);

	CHECK_EQ(copy.flags, IO_MAY_UNMAP);
	CHECK(copy.who == &who && copy.failure == &f);
	CHECK_EQ(io.flags, IO_FUA);
}

static void *fail_often(void *argument)
{
	for (int i = 0; i < 100; i++)
		io_fail(argument, -EIO, "thread %d", i);
	return NULL;
}

static void test_failure_of_several_threads(void)
{
	struct failure f = {0};
	struct io io = {.failure = &f};
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, fail_often, &io))
			abort();
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(f.status, -EIO);
	CHECK_STR(f.text, "thread 0");
}

int main(void)
{
	TAP_RUN(test_zero_is_none);
	TAP_RUN(test_chain);
	TAP_RUN(test_set_replaces);
	TAP_RUN(test_set_from_itself);
	TAP_RUN(test_errno);
	TAP_RUN(test_nobody_wants_text);
	TAP_RUN(test_move);
	TAP_RUN(test_text_without_memory);
	TAP_RUN(test_long_text);
	TAP_RUN(test_first_failure_stays);
	TAP_RUN(test_medium);
	TAP_RUN(test_failure_text_is_cut);
	TAP_RUN(test_other_flags);
	TAP_RUN(test_failure_of_several_threads);
	return TAP_DONE();
}

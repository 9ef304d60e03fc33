/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Unit tests that print TAP.
 *
 *     static void test_addition(void)
 *     {
 *             CHECK_EQ(1 + 1, 2);
 *     }
 *
 *     int main(void)
 *     {
 *             TAP_RUN(test_addition);
 *             return TAP_DONE();
 *     }
 *
 * CHECK...() say what is wrong and go on; they may be used from any thread or fiber, and in any function, while
 * a test runs. REQUIRE() and SKIP() return from the function they stand in. TEST=substring in the environment
 * runs only the tests whose name contains it.
 */
#ifndef PLATTER_TESTS_TAP_H
#define PLATTER_TESTS_TAP_H

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* True when `cond` holds, so that `if (!CHECK(x)) goto out;` can be written. */
#define CHECK(cond) tap_check(!!(cond), __FILE__, __LINE__, #cond)

/* Integers are equal; prints both when they are not. */
#define CHECK_EQ(a, b) \
	tap_check_eq((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)

/* Strings are equal, or both NULL. */
#define CHECK_STR(a, b) tap_check_str((a), (b), __FILE__, __LINE__, #a " equals " #b)

/* `size` bytes are equal; prints where the first difference is. */
#define CHECK_MEM(a, b, size) tap_check_mem((a), (b), (size), __FILE__, __LINE__, #a " equals " #b)

/* CHECK, and return from a void function when it fails. */
#define REQUIRE(cond) \
	do { \
		if (!CHECK(cond)) \
			return; \
	} while (0)

/* The running test cannot run here: says why and returns. Only in the test function itself. */
#define SKIP(reason) \
	do { \
		tap_skip_reason = (reason); \
		return; \
	} while (0)

#define TAP_RUN(function) tap_run(#function, (function))

/* The same where that is a test of this program at all: of one that is built with checkers some are none, and nothing is missing. */
#define TAP_RUN_IF(condition, function) \
	do { \
		if (condition) \
			TAP_RUN(function); \
		else \
			(void)(function); \
	} while (0)

/* Prints the plan; the value for main() to return. */
#define TAP_DONE() tap_done()

#define TAP_UNUSED __attribute__((unused))

/* One for all files of a program, so that helpers can check, too. */
#define TAP_SHARED __attribute__((weak))

TAP_SHARED int tap_count;          /* tests that ran; main thread only */
TAP_SHARED int tap_failed;         /* tests that failed; main thread only */
TAP_SHARED _Atomic int tap_errors; /* failed checks in the running test */
TAP_SHARED const char *tap_skip_reason;

/* A diagnostic line. One call of printf, so that lines of several threads do not mix. */
TAP_UNUSED __attribute__((format(printf, 1, 2))) static void tap_diag(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	for (char *c = text; *c; c++)
		if (*c == '\n')
			*c = ' ';
	printf("# %s\n", text);
	fflush(stdout);
}

TAP_UNUSED static bool tap_check(bool good, const char *file, int line, const char *what)
{
	if (!good) {
		atomic_fetch_add(&tap_errors, 1);
		tap_diag("%s:%d: not true: %s", file, line, what);
	}
	return good;
}

TAP_UNUSED static bool tap_check_eq(long long a, long long b, const char *file, int line, const char *what)
{
	if (a != b) {
		atomic_fetch_add(&tap_errors, 1);
		tap_diag("%s:%d: not true: %s: %lld (0x%llx) and %lld (0x%llx)", file, line, what, a, a, b, b);
	}
	return a == b;
}

TAP_UNUSED static bool tap_check_str(const char *a, const char *b, const char *file, int line, const char *what)
{
	bool good = a && b ? strcmp(a, b) == 0 : a == b;

	if (!good) {
		atomic_fetch_add(&tap_errors, 1);
		tap_diag("%s:%d: not true: %s", file, line, what);
		tap_diag("  left:  %s%s%s", a ? "'" : "", a ? a : "NULL", a ? "'" : "");
		tap_diag("  right: %s%s%s", b ? "'" : "", b ? b : "NULL", b ? "'" : "");
	}
	return good;
}

TAP_UNUSED static bool tap_check_mem(const void *a, const void *b, size_t size, const char *file, int line,
				     const char *what)
{
	const unsigned char *left = a, *right = b;
	size_t at = 0;

	while (at < size && left[at] == right[at])
		at++;
	if (at < size) {
		atomic_fetch_add(&tap_errors, 1);
		tap_diag("%s:%d: not true: %s: byte %zu of %zu is 0x%02x and 0x%02x", file, line, what, at, size,
			 left[at], right[at]);
	}
	return at == size;
}

TAP_UNUSED static void tap_run(const char *name, void (*function)(void))
{
	const char *only = getenv("TEST");

	if (strncmp(name, "test_", 5) == 0)
		name += 5;
	if (only && !strstr(name, only))
		return;
	setvbuf(stdout, NULL, _IOLBF, 0);
	atomic_store(&tap_errors, 0);
	tap_skip_reason = NULL;
	function();
	tap_count++;
	if (atomic_load(&tap_errors) > 0) {
		tap_failed++;
		printf("not ok %d - %s\n", tap_count, name);
	} else if (tap_skip_reason) {
		printf("ok %d - %s # SKIP %s\n", tap_count, name, tap_skip_reason);
	} else {
		printf("ok %d - %s\n", tap_count, name);
	}
	fflush(stdout);
}

TAP_UNUSED static int tap_done(void)
{
	if (tap_count)
		printf("1..%d\n", tap_count);
	else
		printf("1..0 # SKIP there is no test of the name that was asked for\n");
	fflush(stdout);
	return tap_failed ? 1 : 0;
}

TAP_SHARED char tap_tmp[256];
TAP_SHARED pid_t tap_tmp_owner;

TAP_UNUSED static int tap_tmp_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

TAP_UNUSED static void tap_tmp_remove(void)
{
	if (getpid() == tap_tmp_owner)
		nftw(tap_tmp, tap_tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* A private folder, made at the first call and removed when the process exits. */
TAP_UNUSED static const char *tmpdir(void)
{
	const char *parent = getenv("TMPDIR");

	if (tap_tmp[0])
		return tap_tmp;
	snprintf(tap_tmp, sizeof tap_tmp, "%s/platter-test.XXXXXX", parent && parent[0] ? parent : "/tmp");
	tap_tmp_owner = getpid();
	if (!mkdtemp(tap_tmp)) {
		printf("Bail out! cannot make the folder %s: %s\n", tap_tmp, strerror(errno));
		exit(99);
	}
	atexit(tap_tmp_remove);
	return tap_tmp;
}

/* "FOLDER/name" in tmpdir(); good until the eighth next call, on the main thread. */
TAP_UNUSED static const char *tmppath(const char *name)
{
	static char paths[8][512];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof paths[0], "%s/%s", tmpdir(), name);
	return path;
}

#endif

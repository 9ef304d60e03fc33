/* SPDX-License-Identifier: BSD-3-Clause */
/* Names inside of images, and which files they may lead to. */
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "formats/parent.h"
#include "formats/utf16.h"

/* ------------------------------------------------------------------ between the search and the system (linked with --wrap) */

static bool no_openat2;
static void (*before_open)(void); /* in the moment before a file of that name is opened, once */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d);

long __wrap_syscall(long number, long a, long b, long c, long d)
{
	if (number == SYS_openat2 && no_openat2) {
		errno = ENOSYS;
		return -1;
	}
	return __real_syscall(number, a, b, c, d);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode = 0;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	if (before_open && strstr(path, "/inner.vhd")) {
		before_open();
		before_open = NULL;
	}
	return __real_open(path, flags, mode);
}

/* ------------------------------------------------------------------ UTF-16 */

static void check_round_trip(const char *text, const char *le, size_t bytes)
{
	char be[64], *back = NULL;
	void *out = NULL;
	size_t n = 0;

	for (size_t i = 0; i < bytes; i++)
		be[i] = le[i ^ 1];
	CHECK_EQ(utf16_from_utf8(text, UTF16_LE, &out, &n), 0);
	if (CHECK_EQ(n, bytes))
		CHECK_MEM(out, le, bytes);
	free(out);
	CHECK_EQ(utf16_from_utf8(text, UTF16_BE, &out, &n), 0);
	if (CHECK_EQ(n, bytes))
		CHECK_MEM(out, be, bytes);
	free(out);
	CHECK_EQ(utf16_to_utf8(le, bytes, UTF16_LE, &back), 0);
	CHECK_STR(back, text);
	free(back);
	CHECK_EQ(utf16_to_utf8(be, bytes, UTF16_BE, &back), 0);
	CHECK_STR(back, text);
	free(back);
}

static void test_utf16_both_ways(void)
{
	check_round_trip("", "", 0);
	check_round_trip("a.vhd", "a\0.\0v\0h\0d\0", 10);
	check_round_trip("\xc3\xa4\xdf\xbf", "\xe4\x00\xff\x07", 4);
	check_round_trip("\xe2\x82\xac\xef\xbf\xbf", "\xac\x20\xff\xff", 4);
	check_round_trip("x\xf0\x9f\x92\xbe\xf4\x8f\xbf\xbf", "x\0\x3d\xd8\xbe\xdc\xff\xdb\xff\xdf", 10);
}

static void check_bad_utf16(const char *le, size_t bytes)
{
	char *out = NULL;

	CHECK_EQ(utf16_to_utf8(le, bytes, UTF16_LE, &out), -EILSEQ);
	CHECK(!out);
}

static void test_malformed_utf16_is_no_name(void)
{
	check_bad_utf16("a", 1);
	check_bad_utf16("a\0\0\0b\0", 6);
	check_bad_utf16("\x3d\xd8", 2);
	check_bad_utf16("\x3d\xd8x\0", 4);
	check_bad_utf16("\xbe\xdc", 2);
	check_bad_utf16("\xbe\xdc\x3d\xd8", 4);
	check_bad_utf16("\x3d\xd8\x3d\xd8\xbe\xdc", 6);
}

static void check_bad_utf8(const char *text)
{
	void *out = NULL;
	size_t n;

	CHECK_EQ(utf16_from_utf8(text, UTF16_LE, &out, &n), -EILSEQ);
	CHECK(!out);
}

static void test_malformed_utf8_is_refused(void)
{
	check_bad_utf8("\x80");
	check_bad_utf8("\xc0\x80");
	check_bad_utf8("\xc3");
	check_bad_utf8("\xe0\x80\x80");
	check_bad_utf8("\xe2\x82");
	check_bad_utf8("\xed\xa0\x80");
	check_bad_utf8("\xf4\x90\x80\x80");
	check_bad_utf8("\xf8\x88\x80\x80\x80");
}

/* ------------------------------------------------------------------ a folder of files */

static void make_file(const char *name)
{
	int fd = open(tmppath(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, name, strlen(name)) > 0);
	close(fd);
}

/* home/ is where the child is, and below it in/ and Mixed/; out/ lies beside it. */
static void make_files(void)
{
	static const char *const folders[] = {"home", "home/in", "home/Mixed", "out", "out/deep", NULL};
	static const char *const files[] = {"home/child.vhd", "home/base.vhd", "home/in/inner.vhd", "home/Mixed/Case.VHD",
					    "out/secret.vhd", "out/deep/far.vhd", NULL};

	for (unsigned i = 0; folders[i]; i++)
		mkdir(tmppath(folders[i]), 0700);
	for (unsigned i = 0; files[i]; i++)
		make_file(files[i]);
}

/* What the parent is expected to be: its content, which is its name; others are refused. NULL: the first. */
struct wanted {
	const char *name;
	char found[64];
};

static int accept_file(void *context, struct container *c, struct error *err)
{
	struct wanted *w = context;
	uint64_t size = container_size(c);

	if (size >= sizeof(w->found))
		return error_set(err, -EINVAL, "too large");
	CHECK_EQ(container_load(c, w->found, size, 0, NULL), 0);
	w->found[size] = 0;
	if (w->name && strcmp(w->found, w->name))
		return error_set(err, -ESTALE, "not the one");
	container_close(c, false, NULL);
	return 0;
}

static struct container *child_container(const char *name)
{
	struct container *c = NULL;

	CHECK_EQ(container_open(tmppath(name), CONTAINER_READ_ONLY, &c, NULL), 0);
	return c;
}

/* Looks for the parent of home/child.vhd under one name. */
static int find(enum parent_form form, const char *name, const struct parent_policy *policy, struct wanted *w, struct error *err)
{
	struct container *child = child_container("home/child.vhd");
	struct parent_names names = {0};
	int status;

	w->found[0] = 0;
	CHECK_EQ(parent_names_add(&names, form, name, strlen(name)), 0);
	status = parent_find(&names, policy, &(struct parent_chain){.container = child}, accept_file, w, err);
	parent_names_free(&names);
	container_close(child, false, NULL);
	return status;
}

static const struct parent_policy by_default;

static void check_found(enum parent_form form, const char *name, const struct parent_policy *policy, const char *file)
{
	CLEANUP_ERROR struct error err = {0};
	struct wanted w = {0};

	if (!CHECK_EQ(find(form, name, policy, &w, &err), 0))
		tap_diag("%s: %s", name, error_text(&err));
	CHECK_STR(w.found, file);
}

/* `text` is part of the reason. */
static void check_refused(enum parent_form form, const char *name, const struct parent_policy *policy, int status, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct wanted w = {0};

	CHECK_EQ(find(form, name, policy, &w, &err), status);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s: %s", name, error_text(&err));
	CHECK_STR(w.found, "");
}

static void test_forms_are_told_apart(void)
{
	CHECK_EQ(parent_form_of("C:\\x\\y.vhd"), PARENT_WINDOWS);
	CHECK_EQ(parent_form_of("\\\\server\\share\\y.vhd"), PARENT_WINDOWS);
	CHECK_EQ(parent_form_of("\\\\?\\Volume{00000000-0000-0000-0000-000000000000}\\y.vhd"), PARENT_VOLUME);
	CHECK_EQ(parent_form_of("/mnt/y.vhd"), PARENT_POSIX);
	CHECK_EQ(parent_form_of("file:///mnt/y.vhd"), PARENT_POSIX);
	CHECK_EQ(parent_form_of("y.vhd"), PARENT_RELATIVE);
	CHECK_EQ(parent_form_of(".\\in\\y.vhd"), PARENT_RELATIVE);
	CHECK_EQ(parent_form_of(""), PARENT_RELATIVE);
}

static void test_relative_names(void)
{
	check_found(PARENT_RELATIVE, "base.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_RELATIVE, ".\\base.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_RELATIVE, "./in/inner.vhd", &by_default, "home/in/inner.vhd");
	check_found(PARENT_RELATIVE, "in\\\\.\\..\\in\\inner.vhd", &by_default, "home/in/inner.vhd");
}

static void test_case_is_looked_past(void)
{
	check_found(PARENT_RELATIVE, ".\\BASE.VHD", &by_default, "home/base.vhd");
	check_found(PARENT_RELATIVE, "mixed\\case.vhd", &by_default, "home/Mixed/Case.VHD");
	make_file("home/BasE.vhd");
	check_refused(PARENT_RELATIVE, "BASE.VHD", &by_default, -ENOENT, "No such file"); /* which of the two? */
	check_found(PARENT_RELATIVE, "BasE.vhd", &by_default, "home/BasE.vhd");
	unlink(tmppath("home/BasE.vhd"));
}

static void test_absolute_names_give_their_last_part(void)
{
	check_found(PARENT_WINDOWS, "C:\\VMs\\base.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_WINDOWS, "\\\\server\\share\\base.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_VOLUME, "\\\\?\\Volume{12}\\VMs\\base.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_POSIX, "/nowhere/base.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_POSIX, "file://localhost/nowhere/b%61se.vhd", &by_default, "home/base.vhd");
	check_found(PARENT_POSIX, "file:///C:/nowhere/base.vhd", &by_default, "home/base.vhd");
	check_refused(PARENT_POSIX, "file:///nowhere/b%00se.vhd", &by_default, -EILSEQ, "no URL");
	check_refused(PARENT_POSIX, "file:///nowhere/b%6", &by_default, -EILSEQ, "no URL");
}

static void check_outside(void)
{
	char absolute[600];

	snprintf(absolute, sizeof(absolute), "%s", tmppath("out/secret.vhd"));
	check_refused(PARENT_RELATIVE, "..\\out\\secret.vhd", &by_default, -EPERM, "outside of the folder");
	check_refused(PARENT_RELATIVE, "in/../../out/secret.vhd", &by_default, -EPERM, "parents=DIR");
	check_refused(PARENT_POSIX, absolute, &by_default, -EPERM, "parents=any");
	check_refused(PARENT_RELATIVE, "../../../../../../../etc/passwd", &by_default, -EPERM, "parent=SPEC");
	check_refused(PARENT_POSIX, "/etc/passwd", &by_default, -EPERM, "'/etc/passwd': it lies outside");
}

static void test_outside_is_refused(void)
{
	check_outside();
}

static void check_links(void)
{
	symlink("in/inner.vhd", tmppath("home/inside.vhd"));
	symlink("../out/secret.vhd", tmppath("home/leak.vhd"));
	symlink(tmppath("out"), tmppath("home/folder"));
	check_found(PARENT_RELATIVE, "inside.vhd", &by_default, "home/in/inner.vhd");
	check_refused(PARENT_RELATIVE, "leak.vhd", &by_default, -EPERM, "a link leads out");
	check_refused(PARENT_RELATIVE, "folder/secret.vhd", &by_default, -EPERM, "a link leads out");
	check_refused(PARENT_RELATIVE, "FOLDER/Secret.vhd", &by_default, -ENOENT, "No such file");
	unlink(tmppath("home/inside.vhd"));
	unlink(tmppath("home/leak.vhd"));
	unlink(tmppath("home/folder"));
}

static void test_links_do_not_lead_out(void)
{
	check_links();
}

static void test_without_openat2(void)
{
	no_openat2 = true;
	check_outside();
	check_links();
	check_found(PARENT_RELATIVE, "MIXED/CASE.vhd", &by_default, "home/Mixed/Case.VHD");
	check_refused(PARENT_RELATIVE, "missing.vhd", &by_default, -ENOENT, "No such file");
	no_openat2 = false;
}

/* The folder home/in gives way to a link that leads out. */
static void swap_folder(void)
{
	CHECK_EQ(rename(tmppath("home/in"), tmppath("home/was-in")), 0);
	CHECK_EQ(symlink("../out/deep", tmppath("home/in")), 0);
}

static void test_without_openat2_a_swapped_folder_is_seen(void)
{
	make_file("out/deep/inner.vhd");
	no_openat2 = true;
	before_open = swap_folder;
	check_refused(PARENT_RELATIVE, "in/inner.vhd", &by_default, -EPERM, "leads out");
	CHECK(!before_open);
	no_openat2 = false;
	unlink(tmppath("home/in"));
	CHECK_EQ(rename(tmppath("home/was-in"), tmppath("home/in")), 0);
}

static void test_parents_in_another_folder(void)
{
	char out[600];
	struct parent_policy policy = {.parents = out};

	snprintf(out, sizeof(out), "%s", tmppath("out"));
	check_found(PARENT_RELATIVE, "..\\out\\secret.vhd", &policy, "out/secret.vhd");
	check_found(PARENT_RELATIVE, "base.vhd", &policy, "home/base.vhd");
	check_found(PARENT_WINDOWS, "D:\\VMs\\deep\\far.vhd", &policy, "out/deep/far.vhd");
	check_found(PARENT_WINDOWS, "D:\\VMs\\Deep\\Far.vhd", &policy, "out/deep/far.vhd");
	check_found(PARENT_VOLUME, "\\\\?\\Volume{12}\\secret.vhd", &policy, "out/secret.vhd");
	check_refused(PARENT_RELATIVE, "../../../../etc/passwd", &policy, -EPERM, "outside");
	snprintf(out, sizeof(out), "%s", tmppath("missing"));
	check_refused(PARENT_RELATIVE, "base.vhd", &policy, -ENOENT, "parents=");
}

static void test_parents_anywhere(void)
{
	const struct parent_policy policy = {.parents = "any"};
	char absolute[600], windows[610];

	snprintf(absolute, sizeof(absolute), "%s", tmppath("out/secret.vhd"));
	snprintf(windows, sizeof(windows), "C:%s", absolute);
	for (char *c = windows; *c; c++)
		*c = *c == '/' ? '\\' : *c;
	check_found(PARENT_RELATIVE, "..\\out\\secret.vhd", &policy, "out/secret.vhd");
	check_found(PARENT_POSIX, absolute, &policy, "out/secret.vhd");
	check_found(PARENT_WINDOWS, windows, &policy, "out/secret.vhd");
	symlink(absolute, tmppath("home/leak.vhd"));
	check_found(PARENT_RELATIVE, "leak.vhd", &policy, "out/secret.vhd");
	unlink(tmppath("home/leak.vhd"));
	check_refused(PARENT_RELATIVE, "../out/missing.vhd", &policy, -ENOENT, "parent=SPEC");
}

static void test_every_place_is_told(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *child = child_container("home/child.vhd");
	struct wanted w = {.name = "home/in/inner.vhd"};
	struct parent_names names = {0};
	struct parent_chain chain = {.container = child};

	parent_names_add_utf16(&names, PARENT_RELATIVE, "\x3d\xd8", 2, UTF16_LE);
	parent_names_add_utf16(&names, PARENT_RELATIVE, "a\0\0\0\0\0", 6, UTF16_LE);
	parent_names_add(&names, PARENT_RELATIVE, "base.vhd", 9);
	parent_names_add(&names, PARENT_POSIX, "/etc/passwd", 11);
	CHECK_EQ(parent_find(&names, &by_default, &chain, accept_file, &w, &err), -ESTALE);
	CHECK(strstr(error_text(&err), "a name of the parent is not UTF-16; '") != NULL);
	CHECK(strstr(error_text(&err), "/home/a': No such file") != NULL);
	CHECK(strstr(error_text(&err), "/home/base.vhd': not the one") != NULL);
	CHECK(strstr(error_text(&err), "'/etc/passwd': it lies outside") != NULL);
	error_clear(&err);
	parent_names_add(&names, PARENT_RELATIVE, "in/inner.vhd", 12);
	CHECK_EQ(parent_find(&names, &by_default, &chain, accept_file, &w, &err), 0);
	CHECK_STR(w.found, "home/in/inner.vhd");
	parent_names_free(&names);
	CHECK_EQ(parent_find(&names, &by_default, &chain, accept_file, &w, &err), -ENOENT);
	CHECK(strstr(error_text(&err), "names none") != NULL);
	CHECK_EQ(parent_find(&names, &by_default, &chain, accept_file, &w, NULL), -ENOENT);
	container_close(child, false, NULL);
}

static void test_cycles_are_seen_at_once(void)
{
	struct container *child = child_container("home/child.vhd"), *base = child_container("home/base.vhd");
	const struct parent_chain top = {.container = child}, second = {.container = base, .child = &top};
	CLEANUP_ERROR struct error err = {0};
	struct parent_names names = {0};
	struct wanted w = {0};

	link(tmppath("home/child.vhd"), tmppath("home/in/alias.vhd"));
	parent_names_add(&names, PARENT_RELATIVE, "in/alias.vhd", 12);
	CHECK_EQ(parent_find(&names, &by_default, &second, accept_file, &w, &err), -ELOOP);
	CHECK(strstr(error_text(&err), "cycle") != NULL);
	CHECK_EQ(parent_find(&names, &by_default, &top, accept_file, &w, &err), -ELOOP);
	parent_names_free(&names);
	unlink(tmppath("home/in/alias.vhd"));
	container_close(child, false, NULL);
	container_close(base, false, NULL);
}

static void test_depth_is_bounded(void)
{
	struct container *child = child_container("home/child.vhd");
	static struct parent_chain chain[PARENT_MAX_DEPTH];
	CLEANUP_ERROR struct error err = {0};
	struct parent_names names = {0};
	struct wanted w = {0};

	for (unsigned i = 0; i < PARENT_MAX_DEPTH; i++)
		chain[i] = (struct parent_chain){.container = child, .child = i ? &chain[i - 1] : NULL};
	parent_names_add(&names, PARENT_RELATIVE, "base.vhd", 8);
	CHECK_EQ(parent_find(&names, &by_default, &chain[PARENT_MAX_DEPTH - 2], accept_file, &w, &err), 0);
	CHECK_EQ(parent_find(&names, &by_default, &chain[PARENT_MAX_DEPTH - 1], accept_file, &w, &err), -ELOOP);
	CHECK(strstr(error_text(&err), "limit of 1024") != NULL);
	parent_names_free(&names);
	container_close(child, false, NULL);
}

static void test_a_folder_or_fifo_is_no_parent(void)
{
	mkfifo(tmppath("home/fifo"), 0600);
	check_refused(PARENT_RELATIVE, "in", &by_default, -EISDIR, "is a directory");
	check_refused(PARENT_RELATIVE, "fifo", &by_default, -EINVAL, "neither a regular file");
	unlink(tmppath("home/fifo"));
}

int main(void)
{
	make_files();
	TAP_RUN(test_utf16_both_ways);
	TAP_RUN(test_malformed_utf16_is_no_name);
	TAP_RUN(test_malformed_utf8_is_refused);
	TAP_RUN(test_forms_are_told_apart);
	TAP_RUN(test_relative_names);
	TAP_RUN(test_case_is_looked_past);
	TAP_RUN(test_absolute_names_give_their_last_part);
	TAP_RUN(test_outside_is_refused);
	TAP_RUN(test_links_do_not_lead_out);
	TAP_RUN(test_without_openat2);
	TAP_RUN(test_without_openat2_a_swapped_folder_is_seen);
	TAP_RUN(test_parents_in_another_folder);
	TAP_RUN(test_parents_anywhere);
	TAP_RUN(test_every_place_is_told);
	TAP_RUN(test_cycles_are_seen_at_once);
	TAP_RUN(test_depth_is_bounded);
	TAP_RUN(test_a_folder_or_fifo_is_no_parent);
	return TAP_DONE();
}

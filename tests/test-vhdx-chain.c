/* SPDX-License-Identifier: BSD-3-Clause */
/* Differencing VHDX files over their parents, as files in folders. */
#include "tests/tap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core/open.h"
#include "formats/vhdx.h"

#define MIB (UINT64_C(1) << 20)

static struct disk *open_spec(const char *format, const char *name, unsigned flags)
{
	CLEANUP_ERROR struct error err = {0};
	char spec[700];
	struct disk *d = NULL;

	snprintf(spec, sizeof(spec), format, tmppath(name));
	if (disk_open(spec, flags, &d, &err))
		tap_diag("%s", error_text(&err));
	CHECK(d != NULL);
	return d;
}

static int refusal(const char *format, const char *name, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	char spec[700];
	struct disk *d = NULL;
	int status;

	snprintf(spec, sizeof(spec), format, tmppath(name));
	status = disk_open(spec, 0, &d, &err);
	CHECK(d == NULL);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
	return status;
}

static void put(struct disk *d, uint64_t offset, int byte, size_t length)
{
	char *data = malloc(length);

	memset(data, byte, length);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, length), offset, &io_plain), 0);
	free(data);
}

static bool holds(struct disk *d, uint64_t offset, int byte, size_t length)
{
	unsigned char *data = malloc(length);
	bool good = !disk_read(d, &VEC_FLAT(data, length), offset, &io_plain) && data[0] == byte && !memcmp(data, data + 1, length - 1);

	free(data);
	return good;
}

static void make_child(const char *name, const char *parent, uint32_t block)
{
	CLEANUP_ERROR struct error err = {0};
	char path[512];

	snprintf(path, sizeof(path), "%s", tmppath(name));
	unlink(path);
	if (!CHECK_EQ(vhdx_create_child(path, tmppath(parent), block, &err), 0))
		tap_diag("%s", error_text(&err));
}

static void make_original(void)
{
	struct disk *d = open_spec("vhdx:%s;create=20M;block=2M", "original.vhdx", 0);

	put(d, 0, 'a', 20 * MIB);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* A base of 20 MiB of 'a': a copy, since making one means waiting until it is durable. */
static void make_base(const char *name)
{
	char command[1200], original[512];

	snprintf(original, sizeof(original), "%s", tmppath("original.vhdx"));
	if (access(original, F_OK))
		make_original();
	snprintf(command, sizeof(command), "cp -f '%s' '%s'", original, tmppath(name));
	CHECK_EQ(system(command), 0);
}

/* ------------------------------------------------------------------ */

static void test_three_of_different_blocks(void)
{
	struct stat before, after;
	struct disk *d;

	make_base("base.vhdx");
	make_child("one.avhdx", "base.vhdx", 1 << 20);
	d = open_spec("%s", "one.avhdx", 0);
	put(d, 3 * MIB + 512, 'b', 1024);
	put(d, 8 * MIB, 'b', 2 * MIB);
	CHECK_EQ(disk_write_zeroes(d, 12 * MIB, MIB, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	make_child("two.vhdx", "one.avhdx", 8 << 20);
	CHECK_EQ(stat(tmppath("one.avhdx"), &before), 0);
	d = open_spec("%s", "two.vhdx", 0);
	put(d, 3 * MIB + 1024, 'c', 512);
	put(d, 12 * MIB + 4096, 'c', 512);
	for (unsigned i = 0; i < 2; i++) {
		CHECK(holds(d, 0, 'a', 3 * MIB + 512));
		CHECK(holds(d, 3 * MIB + 512, 'b', 512));
		CHECK(holds(d, 3 * MIB + 1024, 'c', 512));
		CHECK(holds(d, 3 * MIB + 1536, 'a', 5 * MIB - 1536));
		CHECK(holds(d, 8 * MIB, 'b', 2 * MIB));
		CHECK(holds(d, 12 * MIB, 0, 4096));
		CHECK(holds(d, 12 * MIB + 4096, 'c', 512));
		CHECK(holds(d, 12 * MIB + 4608, 0, MIB - 4608));
		CHECK(holds(d, 13 * MIB, 'a', 7 * MIB));
		CHECK_EQ(disk_close(d, NULL), 0);
		d = open_spec("%s", "two.vhdx", i ? OPEN_READ_ONLY : 0);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(stat(tmppath("one.avhdx"), &after), 0);
	CHECK_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec); /* parents are never touched */
	CHECK_EQ(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec);
}

static void test_a_parent_that_was_changed(void)
{
	struct disk *d;

	make_base("changed.vhdx");
	make_child("of-changed.vhdx", "changed.vhdx", 0);
	d = open_spec("%s", "changed.vhdx", 0);
	put(d, 0, 'n', 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(refusal("%s", "of-changed.vhdx", "its DataWriteGuid is {"), -ESTALE);
	refusal("%s", "of-changed.vhdx", "the child names {");
	d = open_spec("vhdx:%s;ignore-change", "of-changed.vhdx", 0);
	CHECK(holds(d, 0, 'n', 512));
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* Nobody writes to a parent while a child is open, and the other way round. */
static void test_parents_are_locked(void)
{
	struct disk *child, *parent;

	make_base("locked.vhdx");
	make_child("of-locked.vhdx", "locked.vhdx", 0);
	child = open_spec("%s", "of-locked.vhdx", 0);
	CHECK_EQ(refusal("%s", "locked.vhdx", "locked.vhdx"), -EBUSY);
	CHECK_EQ(disk_close(child, NULL), 0);
	parent = open_spec("%s", "locked.vhdx", 0);
	CHECK_EQ(refusal("%s", "of-locked.vhdx", "locked.vhdx"), -EBUSY);
	CHECK_EQ(disk_close(parent, NULL), 0);
	child = open_spec("%s", "of-locked.vhdx", OPEN_READ_ONLY); /* two readers of one parent */
	parent = open_spec("%s", "locked.vhdx", OPEN_READ_ONLY);
	CHECK_EQ(disk_close(child, NULL), 0);
	CHECK_EQ(disk_close(parent, NULL), 0);
}

static void test_a_missing_parent_is_told(void)
{
	make_base("gone.vhdx");
	make_child("of-gone.vhdx", "gone.vhdx", 0);
	unlink(tmppath("gone.vhdx"));
	CHECK_EQ(refusal("%s", "of-gone.vhdx", "gone.vhdx'"), -ENOENT);
}

static void test_a_parent_outside_is_not_followed(void)
{
	struct disk *d;

	mkdir(tmppath("outside"), 0700);
	mkdir(tmppath("inside"), 0700);
	make_base("outside/base.vhdx");
	make_child("inside/child.vhdx", "outside/base.vhdx", 0);
	CHECK_EQ(refusal("%s", "inside/child.vhdx", "parents="), -EPERM);
	d = open_spec("vhdx:%s;parents=any", "inside/child.vhdx", 0);
	CHECK(holds(d, 5 * MIB, 'a', MIB));
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_a_child_that_is_its_own_parent(void)
{
	make_base("loop.vhdx");
	make_child("of-loop.vhdx", "loop.vhdx", 0);
	make_child("loop2.vhdx", "of-loop.vhdx", 0);
	rename(tmppath("loop2.vhdx"), tmppath("loop.vhdx"));
	CHECK_EQ(refusal("vhdx:%s;ro;ignore-change", "of-loop.vhdx", "loop.vhdx"), -ELOOP);
	CHECK_EQ(refusal("vhdx:%s;ignore-change", "of-loop.vhdx", "loop.vhdx"), -ELOOP);
}

/* The parent is what the user says. */
static void test_another_parent(void)
{
	CLEANUP_ERROR struct error err = {0};
	char spec[1200];
	struct disk *d;

	make_base("named.vhdx");
	make_child("of-named.vhdx", "named.vhdx", 0);
	snprintf(spec, sizeof(spec), "vhdx:%s;parent=mem:20M", tmppath("of-named.vhdx"));
	REQUIRE(disk_open(spec, 0, &d, &err) == 0);
	CHECK(holds(d, 0, 0, 20 * MIB));
	CHECK_EQ(disk_close(d, NULL), 0);
	refusal("vhdx:%s;parent=mem:20M", "named.vhdx", "has no parent");
}

/* What lies behind the parent's end is zero. */
static void test_a_child_larger_than_its_parent(void)
{
	struct disk *d;

	make_base("small.vhdx");
	make_child("larger.vhdx", "small.vhdx", 0);
	d = open_spec("%s", "larger.vhdx", 0);
	CHECK_EQ(disk_resize(d, 50 * MIB, &io_plain), 0);
	put(d, 49 * MIB, 'z', 4096);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = open_spec("%s", "larger.vhdx", 0);
	CHECK_EQ(disk_size(d), 50 * MIB);
	CHECK(holds(d, 19 * MIB, 'a', MIB));
	CHECK(holds(d, 20 * MIB, 0, 29 * MIB));
	CHECK(holds(d, 49 * MIB, 'z', 4096));
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* Every fifth of 40 children holds something: each that is opened means opening all below it. */
static void test_a_deep_chain(void)
{
	char name[40], parent[40];
	struct disk *d;

	make_base("d0.vhdx");
	for (unsigned i = 1; i <= 40; i++) {
		snprintf(name, sizeof(name), "d%u.vhdx", i);
		snprintf(parent, sizeof(parent), "d%u.vhdx", i - 1);
		make_child(name, parent, 0);
		if (i % 5)
			continue;
		d = open_spec("%s", name, 0);
		put(d, i * 8192, (int)i, 512);
		CHECK_EQ(disk_close(d, NULL), 0);
	}
	d = open_spec("%s", "d40.vhdx", OPEN_READ_ONLY);
	for (unsigned i = 5; i <= 40; i += 5)
		CHECK(holds(d, i * 8192, (int)i, 512) && holds(d, i * 8192 + 512, 'a', 512));
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_a_spec_makes_a_child(void)
{
	CLEANUP_ERROR struct error err = {0};
	char spec[1500], path[512];
	struct disk *d;

	make_base("of-spec.vhdx");
	snprintf(path, sizeof(path), "%s", tmppath("by-spec.vhdx"));
	snprintf(spec, sizeof(spec), "vhdx:%s;create;type=differencing;block=1M;parent=%s", path, tmppath("of-spec.vhdx"));
	REQUIRE(disk_open(spec, 0, &d, &err) == 0);
	CHECK_EQ(disk_size(d), 20 * MIB);
	put(d, 5 * MIB, 'b', 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = open_spec("%s", "by-spec.vhdx", 0); /* by the name that it has for its parent */
	CHECK(holds(d, 5 * MIB, 'b', 512));
	CHECK(holds(d, 5 * MIB + 512, 'a', 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	snprintf(spec, sizeof(spec), "vhdx:%s;create=30M;type=differencing;parent=%s", tmppath("longer.vhdx"), path);
	REQUIRE(disk_open(spec, 0, &d, &err) == 0);
	CHECK_EQ(disk_size(d), 30 * MIB);
	CHECK(holds(d, 5 * MIB, 'b', 512));
	CHECK(holds(d, 20 * MIB, 0, 10 * MIB));
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_a_spec_makes_a_fixed_file(void)
{
	struct disk *d = open_spec("vhdx:%s;create=20M;type=fixed", "fixed.vhdx", 0);
	json_t *told = disk_describe(d), *layers = json_object_get(told, "layers");
	struct stat st;

	CHECK_STR(json_string_value(json_object_get(json_array_get(layers, 0), "type")), "fixed");
	json_decref(told);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(stat(tmppath("fixed.vhdx"), &st), 0);
	CHECK((uint64_t)st.st_size >= 20 * MIB && (uint64_t)st.st_blocks * 512 >= 20 * MIB);
}

static void test_a_spec_that_makes_no_child(void)
{
	refusal("vhdx:%s;create;type=differencing", "none.vhdx", "needs a parent");
	refusal("vhdx:%s;create;type=differencing;parent=mem:1M", "none.vhdx", "not mem");
	refusal("vhdx:%s;create;type=differencing;sector=4096;parent=x.vhdx", "none.vhdx", "are its parent's");
	refusal("vhdx:%s;create;type=differencing;parent=/nowhere/x.vhdx", "none.vhdx", "/nowhere/x.vhdx");
	refusal("vhdx:%s;create=1M;parent=x.vhdx", "none.vhdx", "type=differencing");
	refusal("vhdx:%s;create", "none.vhdx", "the size is missing");
	CHECK(access(tmppath("none.vhdx"), F_OK) != 0);
}

/* ------------------------------------------------------------------ other parents */

static void merge(const char *child, const char *parent, int status)
{
	CLEANUP_ERROR struct error err = {0};
	char path[512];

	snprintf(path, sizeof(path), "%s", tmppath(child));
	if (!CHECK_EQ(vhdx_merge(path, tmppath(parent), NULL, &err), status))
		tap_diag("%s", error_text(&err));
}

static void check_merged(const char *name)
{
	struct disk *d = open_spec("%s", name, 0);

	REQUIRE(d != NULL);
	CHECK(holds(d, 0, 'a', 5 * MIB));
	CHECK(holds(d, 5 * MIB, 'b', 512));
	CHECK(holds(d, 5 * MIB + 512, 'a', 3 * MIB - 512));
	CHECK(holds(d, 8 * MIB, 0, 2 * MIB));
	CHECK(holds(d, 10 * MIB, 'c', 3 * MIB));
	CHECK(holds(d, 13 * MIB, 'a', 7 * MIB));
	CHECK(holds(d, 20 * MIB, 0, 5 * MIB));
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_merging_into_the_parent(void)
{
	struct disk *d;

	make_base("below.vhdx");
	make_child("above.vhdx", "below.vhdx", 1 << 20);
	d = open_spec("%s", "above.vhdx", 0);
	put(d, 5 * MIB, 'b', 512);
	CHECK_EQ(disk_write_zeroes(d, 8 * MIB, 2 * MIB, &(struct io){.flags = IO_MAY_UNMAP}), 0);
	put(d, 10 * MIB, 'c', 3 * MIB);
	CHECK_EQ(disk_resize(d, 25 * MIB, &io_plain), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	for (unsigned i = 0; i < 3; i++) { /* and again: it changes nothing */
		merge("above.vhdx", "below.vhdx", 0);
		check_merged("above.vhdx");
	}
	d = open_spec("%s", "below.vhdx", 0);
	put(d, 0, 'x', 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	merge("above.vhdx", "below.vhdx", -ESTALE);
}

static void test_another_parent_by_name(void)
{
	CLEANUP_ERROR struct error err = {0};
	char path[512];
	struct disk *d;

	make_base("first.vhdx");
	make_base("second.vhdx");
	d = open_spec("%s", "second.vhdx", 0);
	put(d, 4 * MIB, 's', 512);
	CHECK_EQ(disk_close(d, NULL), 0);
	make_child("rebased.vhdx", "first.vhdx", 0);
	snprintf(path, sizeof(path), "%s", tmppath("rebased.vhdx"));
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(vhdx_rebase(path, tmppath(i % 2 ? "first.vhdx" : "second.vhdx"), &err), 0);
	d = open_spec("%s", "rebased.vhdx", 0);
	CHECK(holds(d, 4 * MIB, 's', 512));
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(vhdx_rebase(path, path, &err), -ELOOP);
	CHECK_EQ(vhdx_rebase(tmppath("first.vhdx"), tmppath("second.vhdx"), &err), -EINVAL);
}

int main(void)
{
	TAP_RUN(test_merging_into_the_parent);
	TAP_RUN(test_another_parent_by_name);
	TAP_RUN(test_three_of_different_blocks);
	TAP_RUN(test_a_parent_that_was_changed);
	TAP_RUN(test_parents_are_locked);
	TAP_RUN(test_a_missing_parent_is_told);
	TAP_RUN(test_a_parent_outside_is_not_followed);
	TAP_RUN(test_a_child_that_is_its_own_parent);
	TAP_RUN(test_another_parent);
	TAP_RUN(test_a_child_larger_than_its_parent);
	TAP_RUN(test_a_deep_chain);
	TAP_RUN(test_a_spec_makes_a_child);
	TAP_RUN(test_a_spec_makes_a_fixed_file);
	TAP_RUN(test_a_spec_that_makes_no_child);
	return TAP_DONE();
}

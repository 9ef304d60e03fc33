/* SPDX-License-Identifier: BSD-3-Clause */
/* What can be said behind -o, and what cannot. */
#include "tests/tap.h"

#include "fuse/options.h"

/* 0 when `text` is taken on top of the defaults. */
static int parse(struct mount_options *o, const char *text)
{
	mount_options_init(o);
	return mount_options_parse(o, text, NULL);
}

/* It is refused, and the message holds `wanted`. */
static bool refuses(const char *text, const char *wanted)
{
	CLEANUP_ERROR struct error err = {0};
	struct mount_options o;
	bool good;

	mount_options_init(&o);
	good = mount_options_parse(&o, text, &err) == -EINVAL && strstr(error_text(&err), wanted);
	if (!good)
		tap_diag("'%s' gives: %s", text, error_text(&err));
	return good;
}

static void test_defaults(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, ""), 0);
	CHECK(!o.allow_other && !o.auto_unmount && !o.read_only && !o.direct_io && !o.parallel &&
	      !o.writeback);
	CHECK_EQ(o.uid, geteuid());
	CHECK_EQ(o.gid, getegid());
	CHECK_EQ(o.mode, (mode_t)-1);
	CHECK_EQ(o.threads, MOUNT_DEFAULT_THREADS);
}

static void test_each_flag_sets_its_own(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, "allow_other"), 0);
	CHECK(o.allow_other && !o.auto_unmount && !o.read_only && !o.direct_io && !o.parallel &&
	      !o.writeback);
	CHECK_EQ(parse(&o, "auto_unmount"), 0);
	CHECK(!o.allow_other && o.auto_unmount && !o.read_only && !o.direct_io && !o.parallel &&
	      !o.writeback);
	CHECK_EQ(parse(&o, "ro"), 0);
	CHECK(!o.allow_other && !o.auto_unmount && o.read_only && !o.direct_io && !o.parallel &&
	      !o.writeback);
	CHECK_EQ(parse(&o, "direct_io"), 0);
	CHECK(!o.allow_other && !o.auto_unmount && !o.read_only && o.direct_io && !o.parallel &&
	      !o.writeback);
	CHECK_EQ(parse(&o, "parallel_direct_writes,direct_io"), 0);
	CHECK(!o.allow_other && !o.auto_unmount && !o.read_only && o.direct_io && o.parallel && !o.writeback);
	CHECK_EQ(parse(&o, "writeback"), 0);
	CHECK(!o.allow_other && !o.auto_unmount && !o.read_only && !o.direct_io && !o.parallel &&
	      o.writeback);
}

static void test_values(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, "uid=1234,gid=56,mode=0640,threads=7"), 0);
	CHECK_EQ(o.uid, 1234);
	CHECK_EQ(o.gid, 56);
	CHECK_EQ(o.mode, 0640);
	CHECK_EQ(o.threads, 7);
}

static void test_limits(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, "uid=4294967294,gid=0,mode=0,threads=1024"), 0);
	CHECK_EQ(o.uid, 4294967294u);
	CHECK_EQ(o.gid, 0);
	CHECK_EQ(o.mode, 0);
	CHECK_EQ(o.threads, MOUNT_MAX_THREADS);
	CHECK_EQ(parse(&o, "threads=1,mode=777"), 0);
	CHECK_EQ(o.mode, 0777);
	CHECK_EQ(o.threads, 1);
	CHECK(refuses("uid=4294967295", "uid=4294967295"));
	CHECK(refuses("gid=4294967296", "gid=4294967296"));
	CHECK(refuses("uid=18446744073709551616", "uid=1844674407370955161"));
	CHECK(refuses("mode=1000", "0 to 777"));
	CHECK(refuses("threads=1025", "from 1 to 1024"));
	CHECK(refuses("threads=0", "from 1 to 1024"));
}

static void test_names_of_users(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, "uid=root,gid=root"), 0);
	CHECK_EQ(o.uid, 0);
	CHECK_EQ(o.gid, 0);
	CHECK(refuses("uid=no-such-user", "no such user"));
	CHECK(refuses("gid=no-such-group", "no such group"));
}

static void test_values_that_are_none(void)
{
	CHECK(refuses("mode=8", "mode=8: expected octal"));
	CHECK(refuses("mode=-1", "expected octal"));
	CHECK(refuses("mode=", "expected octal"));
	CHECK(refuses("mode=0x1f", "expected octal"));
	CHECK(refuses("threads= 1", "threads= 1"));
	CHECK(refuses("threads=1 ", "expected a number"));
	CHECK(refuses("threads=+1", "expected a number"));
	CHECK(refuses("threads=1=2", "expected a number"));
	CHECK(refuses("uid=", "uid="));
	CHECK(refuses("uid", "uid wants a value"));
	CHECK(refuses("mode", "mode wants a value"));
	CHECK(refuses("ro=1", "ro takes no value"));
	CHECK(refuses("ro=", "ro takes no value"));
}

static void test_unknown_names(void)
{
	CHECK(refuses("direct_oi", "'direct_oi'"));
	CHECK(refuses("direct_oi", "did you mean 'direct_io'"));
	CHECK(refuses("thread=4", "did you mean 'threads'"));
	CHECK(refuses("r", "'r'"));
	CHECK(refuses("rox", "'rox'"));
	CHECK(refuses("RO", "'RO'"));
	CHECK(refuses("=", "''"));
	CHECK(refuses("ro, direct_io", "' direct_io'"));
	CHECK(refuses("zzzzzzzzzzzzzzz", "no mount option 'zzzzzzzzzzzzzzz'"));
}

static void test_empty_items_are_skipped(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, ",,ro,,"), 0);
	CHECK(o.read_only);
	CHECK_EQ(parse(&o, ","), 0);
}

static void test_several_lists_add_up(void)
{
	struct mount_options o;

	CHECK_EQ(parse(&o, "ro,threads=3"), 0);
	CHECK_EQ(mount_options_parse(&o, "threads=4,allow_other", NULL), 0);
	CHECK(o.read_only && o.allow_other);
	CHECK_EQ(o.threads, 4);
}

static void test_combinations(void)
{
	CHECK(refuses("parallel_direct_writes", "works with direct_io only"));
	CHECK(refuses("writeback,direct_io", "exclude each other"));
	CHECK(refuses("direct_io,writeback", "exclude each other"));
}

/* Help tells of every option: what it names is taken, and what is taken is in it. */
static void test_help(void)
{
	static const char *const names[] = {
		"allow_other", "auto_unmount", "direct_io", "parallel_direct_writes",
		"writeback",   "ro ",	       "uid=",	    "gid=",
		"mode=",       "threads="};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		CHECK(strstr(mount_options_help, names[i]) != NULL);
}

int main(void)
{
	TAP_RUN(test_defaults);
	TAP_RUN(test_each_flag_sets_its_own);
	TAP_RUN(test_values);
	TAP_RUN(test_limits);
	TAP_RUN(test_names_of_users);
	TAP_RUN(test_values_that_are_none);
	TAP_RUN(test_unknown_names);
	TAP_RUN(test_empty_items_are_skipped);
	TAP_RUN(test_several_lists_add_up);
	TAP_RUN(test_combinations);
	TAP_RUN(test_help);
	return TAP_DONE();
}

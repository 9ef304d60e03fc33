/* SPDX-License-Identifier: BSD-3-Clause */
/* Where caches lie: keys of any bytes, roots, who comes first, who removes what, processes that are killed. */
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/wait.h"
#include "layers/autocache-name.h"
#include "layers/autocache-store.h"
#include "layers/autocache-sum.h"
#include "tests/autocache.h"
#include "tests/loops.h"

/* ------------------------------------------------------------------ names */

static const char *name_of(const char *key)
{
	static char names[2][CACHE_NAME_MAX];
	static unsigned next;
	char *name = names[next++ % 2];

	cache_name_of_key(key, name);
	return name;
}

static void test_names_of_keys(void)
{
	static const char *const rows[][2] = {
		{"base-1_2.img", "base-1_2.img.platter"},
		{"00112233445566778899aabbccddeeff", "00112233445566778899aabbccddeeff.platter"},
		{"..", "%2E..platter"},
		{".lock", "%2Elock.platter"},
		{"../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.platter"},
		{"a b:c;d", "a%20b%3Ac%3Bd.platter"},
		{"100%", "100%25.platter"},
		{"\x01\n\x7f\xff\xc3\xa9", "%01%0A%7F%FF%C3%A9.platter"},
		{"@x~y", "%40x%7Ey.platter"},
		{"~", "%7E.platter"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		CHECK_STR(name_of(rows[i][0]), rows[i][1]);
}

/* Whatever the bytes: a plain file name, another one for each. */
static void test_no_two_keys_meet(void)
{
	struct random r = random_stream(1);

	for (int i = 0; i < 20000; i++) {
		char a[400], b[400];
		size_t length = 1 + random_below(&r, random_once_in(&r, 4) ? 380 : 6), at = random_below(&r, length);
		const char *x, *y;
		for (size_t k = 0; k < length; k++)
			a[k] = (char)(1 + random_below(&r, 255));
		a[length] = 0;
		memcpy(b, a, length + 1);
		b[at] = (char)(1 + (unsigned char)b[at] % 255);
		x = name_of(a);
		y = name_of(b);
		if (!CHECK(strcmp(x, y) || !strcmp(a, b)))
			return;
		CHECK(cache_name_is(x) && strlen(x) < CACHE_NAME_MAX && !strchr(x, '/') && x[0] != '.');
		for (const char *c = x; *c; c++)
			CHECK(*c > ' ' && *c <= '~');
	}
}

/* A key that spells the escape, or the cut form, of another. */
static void test_keys_that_imitate(void)
{
	char lengthy[600], imitation[CACHE_NAME_MAX];
	struct identity id = {.name = "file:1:2:3"};

	CHECK(strcmp(name_of("a/b"), name_of("a%2Fb")));
	memset(lengthy, 'k', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = 0;
	strcpy(imitation, name_of(lengthy));
	*strstr(imitation, ".platter") = 0;
	CHECK(strlen(imitation) == 150);
	CHECK(strcmp(name_of(imitation), name_of(lengthy)));
	cache_name_of_identity(&id, imitation);
	CHECK(imitation[0] == '@' && cache_name_is(imitation));
	*strstr(imitation, ".platter") = 0;
	CHECK(name_of(imitation)[0] == '%');
}

/* Keys as they come in specs; nothing appears outside the root. */
static void test_evil_keys_in_specs(void)
{
	static const char *const keys[] = {"..", "\"../../x\"", "\"/etc\"", "\"a:b;c\"", "\"\\x01\\n\"", "\".platter-new-1\"",
					   "\".lock\"", "header", "\"%2e\"", "\"\\xff\\xfe\""};
	const size_t count = sizeof(keys) / sizeof(*keys);
	struct image m;
	char parent[600], root[700];

	snprintf(parent, sizeof(parent), "%s", tmppath("evil"));
	snprintf(root, sizeof(root), "%s/a/b/root", parent);
	setenv("PLATTER_AUTO_CACHE_PATH", root, 1);
	image_make(&m, "image", 65536, 2);
	for (size_t i = 0; i < count; i++)
		for (int again = 0; again < 2; again++) {
			struct disk *d = open_cache(keys[i], &m);
			CHECK(all_agrees(d, &m));
			CHECK_EQ(read_below(d), again ? 0 : m.size);
			close_good(d);
		}
	CHECK_EQ(count_entries(root, ""), count);
	CHECK_EQ(count_entries(parent, ""), 1);
	image_free(&m);
}

/* Without a child of its own each the three forms are told apart as in the grammar. */
static void test_forms_of_the_spec(void)
{
	static const char *const rows[][2] = {
		{"autocache::null:1M", ""},
		{"autocache:mykey:null:1M", "mykey"},
		{"autocache:\"any key\":null:1M", "any key"},
		{"autocache:;max=1G:null:1M", ""},
		{"autocache:k;max=1G;root=/x:null:1M", "k"},
		{"autocache:k;root=\"/a:b\":memdiff:null:1M", "k"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		CLEANUP_SPEC struct spec *spec = NULL;
		CLEANUP_ERROR struct error err = {0};
		if (!CHECK_EQ(spec_parse(rows[i][0], &spec, &err), 0)) {
			tap_diag("%s", error_text(&err));
			continue;
		}
		const char *key = spec_text(spec, "key");
		CHECK_STR(key ? key : "", rows[i][1]);
	}
}

/* ------------------------------------------------------------------ the format, as its page tells it */

/* A second reading of docs/formats/autocache.md, bit by bit. */
static void test_entries_are_as_documented(void)
{
	const uint64_t nonce = UINT64_C(0x0123456789abcdef), unit = UINT64_C(0x123456789), hash = UINT64_C(0xfedcba9876543210);
	struct sums s = {.nonce = nonce};
	uint64_t x = nonce ^ ((unit * 256 + 0x0f) * UINT64_C(0x9e3779b97f4a7c15)), salt;

	x = (x ^ (x / 65536 / 65536)) * UINT64_C(0xd6e8feb86659fd93);
	salt = x ^ (x / 65536 / 65536);
	CHECK_EQ(sum_entry(&s, unit, 0x0f, hash), (hash ^ salt) / 256 * 256 + 0x0f);
}

/* ------------------------------------------------------------------ roots */

static void clear_environment(void)
{
	unsetenv("PLATTER_AUTO_CACHE_PATH");
	unsetenv("OPENVMM_AUTO_CACHE_PATH");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	unsetenv("PLATTER_AUTO_CACHE_MAX");
}

static void expect_root(const char *given, const char *expected)
{
	CLEANUP_ERROR struct error err = {0};
	char *root = NULL;
	struct stat st;

	CHECK_EQ(cache_root(given, &root, &err), 0);
	CHECK_STR(root, expected);
	CHECK(!stat(expected, &st) && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700);
	free(root);
}

/* Each before the next; what is empty, and an XDG path that is not absolute, does not count. */
static void test_which_root(void)
{
	char home[300], expected[400];

	clear_environment();
	snprintf(home, sizeof(home), "%s", tmppath("home"));
	snprintf(expected, sizeof(expected), "%s/.cache/platter", home);
	setenv("HOME", home, 1);
	expect_root(NULL, expected);
	setenv("XDG_CACHE_HOME", "not/absolute", 1);
	expect_root(NULL, expected);
	setenv("XDG_CACHE_HOME", home, 1);
	snprintf(expected, sizeof(expected), "%s/platter", home);
	expect_root(NULL, expected);
	setenv("OPENVMM_AUTO_CACHE_PATH", tmppath("original"), 1);
	expect_root(NULL, tmppath("original"));
	setenv("PLATTER_AUTO_CACHE_PATH", "", 1);
	expect_root(NULL, tmppath("original"));
	setenv("PLATTER_AUTO_CACHE_PATH", tmppath("ours"), 1);
	expect_root(NULL, tmppath("ours"));
	expect_root(tmppath("given"), tmppath("given"));
}

static void expect_error(const char *spec, int status, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (!CHECK_EQ(disk_open(spec, 0, &d, &err), status))
		disk_close(d, NULL);
	if (!CHECK(strstr(error_text(&err), text) != NULL))
		tap_diag("%s", error_text(&err));
}

static void test_no_root(void)
{
	char spec[700];
	int fd;

	clear_environment();
	expect_error("autocache::null:1M", -ENOENT,
		     "none of PLATTER_AUTO_CACHE_PATH, OPENVMM_AUTO_CACHE_PATH, XDG_CACHE_HOME (an absolute path) and HOME "
		     "is set (set one of them, or add ;root=PATH)");
	fd = open(tmppath("a-file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	snprintf(spec, sizeof(spec), "autocache:;root=%s/x:null:1M", tmppath("a-file"));
	expect_error(spec, -ENOTDIR, "(PLATTER_AUTO_CACHE_PATH or ;root=PATH names another one)");
	setenv("PLATTER_AUTO_CACHE_PATH", tmppath("root-max"), 1);
	setenv("PLATTER_AUTO_CACHE_MAX", "lots", 1);
	expect_error("autocache::null:1M", -EINVAL, "PLATTER_AUTO_CACHE_MAX: ");
	setenv("PLATTER_AUTO_CACHE_MAX", "4K", 1);
	expect_error("autocache::null:1M", -EINVAL, "PLATTER_AUTO_CACHE_MAX of 4096 bytes is less than 1048576 bytes (1M)");
	unsetenv("PLATTER_AUTO_CACHE_MAX");
}

/* With the capability to do what permissions forbid, or without. */
static void override_permissions(bool on)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	const unsigned bits = 1u << CAP_DAC_OVERRIDE;

	if (syscall(SYS_capget, &header, data))
		return;
	data[0].effective = on ? data[0].effective | (data[0].permitted & bits) : data[0].effective & ~bits;
	syscall(SYS_capset, &header, data);
}

static void set_modes(const char *folder, mode_t folders, mode_t files)
{
	static const char *const names[] = {"header", "data", "index", "recency"};
	char path[900];

	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		chmod(path, files);
	}
	chmod(folder, folders);
	chmod(getenv("PLATTER_AUTO_CACHE_PATH"), folders);
}

/* A root that cannot be written to serves what it holds; what it lacks is read through. */
static void test_read_only_root(void)
{
	char folder[800];
	struct image m;
	struct disk *d;

	use_root("read-only");
	image_make(&m, "image", MIB, 3);
	d = open_cache("k", &m);
	CHECK(agrees(d, &m, 0, MIB / 2, 65536));
	snprintf(folder, sizeof(folder), "%s", told_text(d, "folder"));
	close_good(d);
	set_modes(folder, 0500, 0400);
	override_permissions(false);
	d = open_cache("k", &m);
	CHECK_STR(told_text(d, "state"), "read-only");
	CHECK(all_agrees(d, &m));
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), MIB);
	CHECK(told(d, "skipped_bytes") >= MIB);
	close_good(d);
	char spec[900];
	snprintf(spec, sizeof(spec), "autocache:other:file:%s", m.path);
	expect_error(spec, -EACCES, "cannot make the cache 'other.platter'");
	image_change(&m, 0);
	snprintf(spec, sizeof(spec), "autocache:k:file:%s", m.path);
	expect_error(spec, -EACCES, "the cache 'k.platter'"); /* cannot be replaced */
	override_permissions(true);
	set_modes(folder, 0700, 0600);
	image_free(&m);
}

static void test_something_else_with_the_name(void)
{
	struct image m;
	char path[900];

	const char *root = use_root("occupied");
	image_make(&m, "image", 65536, 4);
	mkdir(root, 0700);
	snprintf(path, sizeof(path), "%s/k.platter", root);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	char spec[900];
	snprintf(spec, sizeof(spec), "autocache:k:file:%s", m.path);
	expect_error(spec, -ENOTDIR, "cannot open the folder of the cache 'k.platter': Not a directory");
	image_free(&m);
}

/* A root given by mistake, with folders of the user's: nothing of it is touched. */
static void test_foreign_folders_stay(void)
{
	static const char *const foreign[] = {"photos", "photos.platter/holidays", ".platter-old-mine/precious"};
	struct image m;
	struct disk *d;
	char path[900];

	const char *root = use_root("foreign");
	mkdir(root, 0700);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "mkdir -p $(dirname '%s/%s') && echo x > '%s/%s'", root, foreign[i], root, foreign[i]);
		CHECK_EQ(system(path), 0);
	}
	image_make(&m, "image", 5 * MIB, 5);
	d = open_cache(";max=1M", &m);
	for (int i = 0; i < 3; i++)
		CHECK(all_agrees(d, &m));
	CHECK(told(d, "evictions") > 0);
	close_good(d);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", root, foreign[i]);
		CHECK_EQ(access(path, F_OK), 0);
	}
	image_free(&m);
}

/* ------------------------------------------------------------------ other caches */

/* The one that was not used for the longest time goes first; what is in use stays. */
static void test_unused_caches_make_room(void)
{
	struct image m;
	struct disk *d, *used;
	char path[900];

	const char *root = use_root("unused");
	image_make(&m, "image", 3 * MIB, 6);
	memset(m.bytes, 'x', m.size);
	image_rewrite(&m);
	close_good(open_cache("used", &m));
	used = open_cache("used", &m); /* one that is found is in use as much as one that was made */
	CHECK(all_agrees(used, &m));
	snprintf(path, sizeof(path), "%s/used.platter/header", root);
	CHECK_EQ(utimensat(AT_FDCWD, path, (struct timespec[]){{500, 0}, {500, 0}}, 0), 0); /* the oldest of all */
	for (int i = 0; i < 3; i++) {
		char key[8] = {(char)('a' + i), 0};
		d = open_cache(key, &m);
		CHECK(all_agrees(d, &m));
		close_good(d);
		snprintf(path, sizeof(path), "%s/%s.platter/header", root, key);
		CHECK_EQ(utimensat(AT_FDCWD, path, (struct timespec[]){{1000 + i, 0}, {1000 + (i + 1) % 3, 0}}, 0), 0);
	}
	/* 12 MiB are there; in the order of their age: used, c, a, b */
	d = open_cache("new;max=13M", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(told(d, "caches_removed"), 1);
	CHECK_EQ(count_entries(root, "c.platter"), 0);
	CHECK_EQ(count_entries(root, "a.platter"), 1);
	CHECK_EQ(count_entries(root, "b.platter"), 1);
	close_good(d);
	d = open_cache("newer;max=7M", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(count_entries(root, "used.platter"), 1);
	CHECK_EQ(count_entries(root, "a.platter") + count_entries(root, "b.platter") + count_entries(root, "new.platter"), 0);
	CHECK(all_agrees(used, &m));
	CHECK_EQ(read_below(used), m.size);
	close_good(d);
	close_good(used);
	image_free(&m);
}

/* What somebody began and did not live to finish goes; what somebody is at stays. */
static void test_leftovers_are_swept(void)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	struct image m;
	char path[900];
	int fd;

	const char *root = use_root("leftovers");
	mkdir(root, 0700);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/.platter-new-%d", root, i);
		mkdir(path, 0700);
		strcat(path, "/header");
		if (i)
			close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
	image_make(&m, "image", 65536, 7);
	close_good(open_cache("", &m));
	CHECK_EQ(count_entries(root, ".platter-new-"), 1);
	close(fd);
	close_good(open_cache("", &m));
	CHECK_EQ(count_entries(root, ".platter-new-"), 0);
	image_free(&m);
}

/* ------------------------------------------------------------------ processes */

static pid_t child(void (*body)(const struct image *m, unsigned stream), const struct image *m, unsigned stream)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		exit(99);
	if (!pid) {
		atomic_store(&tap_errors, 0);
		body(m, stream);
		_exit(atomic_load(&tap_errors) ? 1 : 0);
	}
	return pid;
}

static void expect_good_end(pid_t pid)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void open_and_read(const struct image *m, unsigned stream)
{
	struct disk *d = open_cache("race", m);

	(void)stream;
	CHECK(all_agrees(d, m));
	close_good(d);
}

/* Many begin at once: one cache, nothing left over. */
static void test_who_makes_it(void)
{
	struct image m;
	pid_t pids[8];

	const char *root = use_root("race");
	image_make(&m, "image", MIB, 8);
	for (unsigned round = 0; round < rounds(8); round++) {
		for (unsigned i = 0; i < 8; i++)
			pids[i] = child(open_and_read, &m, i);
		for (unsigned i = 0; i < 8; i++)
			expect_good_end(pids[i]);
		CHECK_EQ(count_entries(root, "race"), 1);
		image_change(&m, round); /* the next time all find an old one, which one of them replaces */
	}
	close_good(open_cache("race", &m));
	CHECK_EQ(count_entries(root, ".platter"), 0);
	image_free(&m);
}

static void read_and_evict(const struct image *m, unsigned stream)
{
	struct random r = random_stream(stream);
	struct disk *d = open_cache("shared;max=2M", m);

	for (unsigned i = 0; i < rounds(300); i++) {
		uint64_t at = random_below(&r, m->size / 512) * 512, n = 512 << random_below(&r, 10);
		CHECK(agrees(d, m, at, n < m->size - at ? n : m->size - at, 1 << 18));
	}
	close_good(d);
}

/* Two fill one cache, and each evicts what the other has just put there. */
static void test_two_processes(void)
{
	struct image m;
	pid_t pids[2];

	use_root("shared");
	image_make(&m, "image", 7 * MIB, 9);
	pids[0] = child(read_and_evict, &m, 91);
	pids[1] = child(read_and_evict, &m, 92);
	expect_good_end(pids[0]);
	expect_good_end(pids[1]);
	struct disk *d = open_cache("shared", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	image_free(&m);
}

static void read_for_ever(const struct image *m, unsigned stream)
{
	struct random r = random_stream(stream);

	for (;;) {
		struct disk *d = open_cache(random_once_in(&r, 2) ? "killed;max=2M" : "killed", m);
		for (unsigned i = random_below(&r, 60); i; i--) {
			uint64_t at = random_below(&r, m->size / 512) * 512, n = 512 << random_below(&r, 11);
			if (!agrees(d, m, at, n < m->size - at ? n : m->size - at, 1 << 20))
				_exit(1);
		}
		close_good(d);
		if (random_once_in(&r, 5)) { /* one that is in the middle of making or removing */
			char command[900];
			snprintf(command, sizeof(command), "rm -f '%s/killed.platter/header'", getenv("PLATTER_AUTO_CACHE_PATH"));
			(void)!system(command);
		}
	}
}

/* Killed at any moment, two at a time; whoever comes next is served right, and in the end there is nothing left over. */
static void test_killed_processes(void)
{
	struct random r = random_stream(10);
	struct image m;

	const char *root = use_root("killed");
	image_make(&m, "image", 5 * MIB, 10);
	for (unsigned i = 0; i < rounds(40); i++) {
		pid_t pids[2] = {child(read_for_ever, &m, 1000 + 2 * i), child(read_for_ever, &m, 1001 + 2 * i)};
		wait_sleep(random_below(&r, 60000000));
		for (int k = 0; k < 2; k++) {
			int status = 0;
			kill(pids[k], SIGKILL);
			CHECK_EQ(waitpid(pids[k], &status, 0), pids[k]);
			CHECK(WIFSIGNALED(status)); /* it had found nothing wrong */
		}
		struct disk *d = open_cache("killed", &m);
		CHECK(all_agrees(d, &m));
		CHECK(agrees(d, &m, 0, m.size, 7680));
		close_good(d);
	}
	CHECK_EQ(count_entries(root, ".platter"), 0);
	CHECK_EQ(count_entries(root, "killed"), 1);
	image_free(&m);
}

/* nbdkit opens, forks, and serves in the child: the lock and the memory go with it. */
static void test_fork_after_open(void)
{
	struct image m;
	struct disk *d;
	pid_t pid;

	const char *root = use_root("forked");
	image_make(&m, "image", MIB, 11);
	d = open_cache("", &m);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		bool good = all_agrees(d, &m);
		_exit(!good || disk_close(d, NULL));
	}
	expect_good_end(pid);
	disk_close(d, NULL); /* nothing was filled here */
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), 0);
	close_good(d);
	CHECK_EQ(count_entries(root, ".platter"), 0);
	image_free(&m);
}

/* ------------------------------------------------------------------ units */

static const enum sum_way ways[] = {SUM_PLAIN, SUM_AVX2, SUM_AVX512};

/* At any address, with any registers. */
static void test_copies_are_hashed_as_the_library_does(void)
{
	char from[2 * UNIT], to[2 * UNIT];
	struct random r = random_stream(11);
	uint64_t hash;

	for (unsigned i = 0; i < 300; i++) {
		size_t a = random_below(&r, 130), b = random_below(&r, 130);
		random_fill(&r, from, sizeof(from));
		memset(to, 0x5a, sizeof(to));
		CHECK_EQ(sum_copy_by(ways[i % 3], to + b, from + a, &hash), 0);
		CHECK_MEM(to + b, from + a, UNIT);
		CHECK_EQ(to[b + UNIT], 0x5a);
		CHECK_EQ(hash, sum_hash(from + a));
	}
}

/* The second half of a unit is past the end of the file. */
static void test_copies_of_what_is_gone_fail(void)
{
	int fd = open(tmppath("short"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char to[UNIT], *map;
	uint64_t hash;

	CHECK(!ftruncate(fd, (off_t)page));
	map = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, fd, 0);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(sum_copy_by(ways[i], to, map + page - UNIT / 2, &hash), -EFAULT);
		CHECK_EQ(sum_copy_by(ways[i], to, map + page, &hash), -EFAULT);
		CHECK_EQ(sum_copy_by(ways[i], to, map, &hash), 0);
		CHECK_EQ(hash, sum_hash(map));
	}
	munmap(map, 2 * page);
	close(fd);
}

int main(void)
{
	TAP_RUN(test_copies_are_hashed_as_the_library_does);
	TAP_RUN(test_copies_of_what_is_gone_fail);
	TAP_RUN(test_names_of_keys);
	TAP_RUN(test_no_two_keys_meet);
	TAP_RUN(test_keys_that_imitate);
	TAP_RUN(test_evil_keys_in_specs);
	TAP_RUN(test_forms_of_the_spec);
	TAP_RUN(test_entries_are_as_documented);
	TAP_RUN(test_which_root);
	TAP_RUN(test_no_root);
	TAP_RUN(test_read_only_root);
	TAP_RUN(test_something_else_with_the_name);
	TAP_RUN(test_foreign_folders_stay);
	TAP_RUN(test_unused_caches_make_room);
	TAP_RUN(test_leftovers_are_swept);
	TAP_RUN(test_who_makes_it);
	TAP_RUN(test_two_processes);
	TAP_RUN(test_killed_processes);
	TAP_RUN(test_fork_after_open);
	return TAP_DONE();
}

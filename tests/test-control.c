/* SPDX-License-Identifier: BSD-3-Clause */
/* Control files: what changes the settings of an open disk, what changes nothing, and what is said about it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "core/open.h"
#include "core/wait.h"
#include "tests/tap.h"

#define MS UINT64_C(1000000)

static char path[300], reply[310];

static void use_file(const char *name)
{
	snprintf(path, sizeof(path), "%s", tmppath(name));
	snprintf(reply, sizeof(reply), "%s.reply", path);
}

static void put(const char *file, const void *bytes, size_t size)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
		printf("Bail out! cannot write %s\n", file);
	close(fd);
}

static void say(const char *text)
{
	put(path, text, strlen(text));
}

static int try_open(struct disk **d, struct error *err)
{
	char spec[400];

	snprintf(spec, sizeof(spec), "delay:1us;control=%s:mem:1M", path);
	return disk_open(spec, 0, d, err);
}

static struct disk *open_disk(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (!CHECK_EQ(try_open(&d, &err), 0)) {
		tap_diag("%s", error_text(&err));
		exit(99);
	}
	return d;
}

static void use_once(struct disk *d)
{
	char block[512];

	CHECK_EQ(disk_read(d, &VEC_FLAT(block, 512), 0, &io_plain), 0);
}

/* What is described: time of an operation, changes. */
static uint64_t described(struct disk *d, const char *object, const char *operation, const char *value)
{
	json_t *all = disk_describe(d), *o = json_object_get(all, object);
	uint64_t n;

	if (operation)
		o = json_object_get(o, operation);
	n = (uint64_t)json_integer_value(json_object_get(o, value));
	json_decref(all);
	return n;
}

static uint64_t time_of_read(struct disk *d)
{
	return described(d, "delays", "read", "time_ns");
}

/* The reply, when there is a new one that is whole; it is taken away. */
static bool take_reply(char *text, size_t room)
{
	int fd = open(reply, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, room - 1);
	close(fd);
	if (n <= 0 || text[n - 1] != '\n')
		return false;
	text[n - 1] = 0;
	unlink(reply);
	return true;
}

static void expect_reply(const char *begins)
{
	char text[700] = "(none)";
	unsigned tries = 0;

	while (!take_reply(text, sizeof(text)) && tries++ < 10000)
		wait_sleep(1 * MS);
	if (!CHECK(strstr(text, begins) != NULL))
		tap_diag("reply: %s; expected: %s", text, begins);
}

/* ------------------------------------------------------------------ what changes settings */

static void test_no_file_yet(void)
{
	struct disk *d;

	use_file("none-yet");
	d = open_disk();
	CHECK_EQ(time_of_read(d), 1000);
	use_once(d);
	say("2us;write=3us\n");
	expect_reply("ok 1");
	CHECK_EQ(time_of_read(d), 2000);
	CHECK_EQ(described(d, "delays", "write", "time_ns"), 3000);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_file_counts_at_open(void)
{
	struct disk *d;

	use_file("at-open");
	say("7us\n");
	d = open_disk();
	CHECK_EQ(time_of_read(d), 7000);
	CHECK_EQ(described(d, "control", NULL, "changes"), 1);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* Between opening and the first request nobody watches. */
static void test_change_before_the_first_request(void)
{
	struct disk *d;

	use_file("before-first");
	say("7us\n");
	d = open_disk();
	say("8us\n");
	CHECK_EQ(time_of_read(d), 7000);
	use_once(d);
	expect_reply("ok 2");
	CHECK_EQ(time_of_read(d), 8000);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_renamed_over(void)
{
	char other[310];
	struct disk *d;

	use_file("renamed");
	snprintf(other, sizeof(other), "%s.new", path);
	d = open_disk();
	use_once(d);
	for (unsigned i = 1; i <= 3; i++) {
		char line[40];
		snprintf(line, sizeof(line), "%uus\n", 10 * i);
		put(other, line, strlen(line));
		CHECK_EQ(rename(other, path), 0);
		snprintf(line, sizeof(line), "ok %u", i);
		expect_reply(line);
		CHECK_EQ(time_of_read(d), 10000 * i);
	}
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* From no wait at all: the request that looks at one word only sees it. */
static void test_waits_can_be_switched_on_and_off(void)
{
	struct disk *d;
	uint64_t begin;

	use_file("on-off");
	say("0\n");
	d = open_disk();
	use_once(d);
	say("30;flush=0\n");
	expect_reply("ok 2");
	begin = wait_now();
	use_once(d);
	CHECK(wait_now() - begin >= 30 * MS);
	say("0\n");
	expect_reply("ok 3");
	CHECK_EQ(time_of_read(d), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_several_disks_follow_one_file(void)
{
	struct disk *disks[3];

	use_file("shared");
	for (unsigned i = 0; i < 3; i++)
		use_once(disks[i] = open_disk());
	say("4us\n");
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned tries = 0; time_of_read(disks[i]) != 4000 && tries < 10000; tries++)
			wait_sleep(MS);
		CHECK_EQ(time_of_read(disks[i]), 4000);
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(disk_close(disks[i], NULL), 0);
}

/* ------------------------------------------------------------------ what changes nothing */

static const struct {
	const char *text, *says;
} bad[] = {
	{"5us", "does not end with a newline"},
	{"5us;write=2", "does not end with a newline"},
	{"5us\nx", "does not end with a newline"},
	{"5us\n6us\n", "not one line"},
	{"\n", "expected TIME"},
	{"soon\n", "soon"},
	{"5us;blink=1\n", "blink"},
	{"5us;jitter=6us\n", "read: jitter of 6us is more than the time, 5us"},
	{"5us;control=/x\n", "another file cannot be named"},
	{"5us:ro\n", "only settings of delay can stand here"},
	{"5us:delay:6us\n", "only settings of delay can stand here"},
	{"5us:mem:1M\n", "error: "},
	{"5us:@/etc/passwd\n", "error: "},
};

static void test_bad_lines_change_nothing(void)
{
	struct disk *d;

	use_file("bad");
	d = open_disk();
	use_once(d);
	say("9us;write=8us\n");
	expect_reply("ok 1");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		say(bad[i].text);
		expect_reply(bad[i].says);
		CHECK_EQ(time_of_read(d), 9000);
		CHECK_EQ(described(d, "delays", "write", "time_ns"), 8000);
	}
	put(path, "5us\0;x\n", 7);
	expect_reply("not one line of text");
	CHECK_EQ(described(d, "control", NULL, "changes"), 1);
	say("3us\n");
	expect_reply("ok 2");
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_long_line(void)
{
	static char text[70000];
	struct disk *d;

	use_file("long");
	d = open_disk();
	use_once(d);
	memset(text, '1', sizeof(text));
	text[sizeof(text) - 1] = '\n';
	put(path, text, sizeof(text));
	expect_reply("longer than 65536 bytes");
	CHECK_EQ(time_of_read(d), 1000);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* Neither a moment of the file, nor an end of what was set. */
static void test_empty_and_removed_say_nothing(void)
{
	struct disk *d;

	use_file("empty");
	d = open_disk();
	use_once(d);
	say("9us\n");
	expect_reply("ok 1");
	say("");
	CHECK_EQ(unlink(path), 0);
	say("6us\n");
	expect_reply("ok 2");
	CHECK_EQ(time_of_read(d), 6000);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_bad_file_at_open(void)
{
	CLEANUP_ERROR struct error err = {0}, folder = {0};
	struct disk *d = NULL;

	use_file("bad-at-open");
	say("5us");
	CHECK_EQ(try_open(&d, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "control: '") && strstr(error_text(&err), "does not end with a newline"));
	use_file("no/such/folder");
	CHECK_EQ(try_open(&d, &folder), -ENOENT);
	CHECK(strstr(error_text(&folder), "delay: control: the folder of '") != NULL);
}

static void test_only_regular_files(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	use_file("fifo");
	CHECK_EQ(mkfifo(path, 0600), 0);
	CHECK_EQ(try_open(&d, &err), -EINVAL);
	CHECK(strstr(error_text(&err), "is not a regular file") != NULL);
}

/* ------------------------------------------------------------------ never half */

struct writer {
	_Atomic bool stop;
};

/* Piece by piece, as slow writers do, with the newline last; now and then cut off in the middle. */
static void *write_in_pieces(void *argument)
{
	struct writer *w = argument;
	static const char *const lines[] = {"1us;write=1us;flush=1us\n", "2us;write=2us;flush=2us\n"};

	for (unsigned i = 0; !atomic_load(&w->stop); i++) {
		const char *line = lines[i % 2];
		size_t end = i % 5 == 4 ? strlen(line) / 2 : strlen(line);
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		for (size_t at = 0; at < end; at++)
			if (write(fd, line + at, 1) != 1)
				abort();
		close(fd);
	}
	return NULL;
}

static void test_settings_are_never_half(void)
{
	struct writer w = {0};
	pthread_t thread;
	struct disk *d;

	use_file("pieces");
	d = open_disk();
	use_once(d);
	if (pthread_create(&thread, NULL, write_in_pieces, &w))
		abort();
	for (unsigned i = 0; i < 300 || (described(d, "control", NULL, "changes") < 20 && i < 20000); i++) {
		json_t *all = disk_describe(d), *delays = json_object_get(all, "delays");
		json_t *read = json_object_get(delays, "read"), *write = json_object_get(delays, "write");
		CHECK_EQ(json_integer_value(json_object_get(read, "time_ns")),
			 json_integer_value(json_object_get(write, "time_ns")));
		json_decref(all);
		use_once(d);
	}
	CHECK(described(d, "control", NULL, "changes") >= 20);
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ life */

static unsigned count_entries(const char *folder)
{
	DIR *dir = opendir(folder);
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* A thread from the first request to the end; then it is as if nothing had been. */
static void test_thread_comes_and_goes(void)
{
	unsigned threads = count_entries("/proc/self/task"), fds = count_entries("/proc/self/fd");
	struct disk *d;

	use_file("thread");
	d = open_disk();
	CHECK_EQ(count_entries("/proc/self/task"), threads);
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
	use_once(d);
	CHECK_EQ(count_entries("/proc/self/task"), threads + 1);
	say("2us\n");
	expect_reply("ok");
	say("3us\n");
	for (unsigned tries = 0; access(reply, F_OK) && tries < 10000; tries++)
		wait_sleep(MS);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK(count_entries("/proc/self/task") <= threads + 1); /* one that was joined may still be listed */
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
	CHECK_EQ(access(reply, F_OK), -1);
	CHECK_EQ(access(path, F_OK), 0);
}

/* A stranger's link where the reply goes is replaced, not followed. */
static void test_reply_follows_no_link(void)
{
	const char *victim = tmppath("victim");
	struct disk *d;
	char text[8] = "";
	int fd;

	use_file("linked");
	put(victim, "mine", 4);
	d = open_disk();
	use_once(d);
	CHECK_EQ(symlink(victim, reply), 0);
	say("2us\n");
	for (unsigned tries = 0; time_of_read(d) != 2000 && tries < 10000; tries++)
		wait_sleep(MS);
	CHECK_EQ(disk_close(d, NULL), 0);
	fd = open(victim, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(fd, text, sizeof(text)), 4);
	CHECK_STR(text, "mine");
	close(fd);
}

int main(void)
{
	TAP_RUN(test_no_file_yet);
	TAP_RUN(test_file_counts_at_open);
	TAP_RUN(test_change_before_the_first_request);
	TAP_RUN(test_renamed_over);
	TAP_RUN(test_waits_can_be_switched_on_and_off);
	TAP_RUN(test_several_disks_follow_one_file);
	TAP_RUN(test_bad_lines_change_nothing);
	TAP_RUN(test_long_line);
	TAP_RUN(test_empty_and_removed_say_nothing);
	TAP_RUN(test_bad_file_at_open);
	TAP_RUN(test_only_regular_files);
	TAP_RUN(test_settings_are_never_half);
	TAP_RUN(test_thread_comes_and_goes);
	TAP_RUN(test_reply_follows_no_link);
	return TAP_DONE();
}

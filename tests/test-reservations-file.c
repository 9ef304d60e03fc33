/* SPDX-License-Identifier: BSD-3-Clause */
/* The file of persistent reservations: what is in it after each action, after a power loss at each step, and when it is damaged. */
#include "tests/tap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/loop.h"
#include "core/open.h"
#include "decorators/reservations-file.h"
#include "tests/loops.h"
#include "tests/model.h"

static const struct initiator initiators[] = {{.id = {1}, .port = 7}, {.id = {2}, .port = 513}, {.id = {255}}};

/* ------------------------------------------------------------------ system calls that fail, or are the last */

enum call { WRITE, SYNC_FILE, RENAME, LINK, SYNC_FOLDER, TRUNCATE, CALLS };

static struct {
	unsigned made[CALLS], count;
	enum call order[64];
	unsigned fail_at; /* the call, from 1, that fails; 0: none */
	int fail_errno;
	unsigned cut_at; /* the call before which the power goes */
	bool cut_after;  /* or after it */
} calls;

static bool is_folder(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISDIR(st.st_mode);
}

/* A process that ends stands for the power: what was not synced may be gone, which test_order_of_syncs looks after. */
static bool refused(enum call call)
{
	calls.made[call]++;
	if (calls.count < 64)
		calls.order[calls.count] = call;
	if (++calls.count == calls.cut_at && !calls.cut_after)
		_exit(0);
	errno = calls.fail_errno;
	return calls.count == calls.fail_at;
}

static int done(int result)
{
	if (calls.count == calls.cut_at)
		_exit(0);
	return result;
}

ssize_t __real_pwrite(int fd, const void *bytes, size_t size, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __real_renameat(int from_folder, const char *from, int to_folder, const char *to);
int __wrap_renameat(int from_folder, const char *from, int to_folder, const char *to);
int __real_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags);
int __wrap_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags);

/* In pieces, as it may be. */
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	return refused(WRITE) ? -1 : done((int)__real_pwrite(fd, bytes, size > 40 ? 40 : size, offset));
}

int __wrap_fsync(int fd)
{
	return refused(is_folder(fd) ? SYNC_FOLDER : SYNC_FILE) ? -1 : done(__real_fsync(fd));
}

int __wrap_ftruncate(int fd, off_t size)
{
	return refused(TRUNCATE) ? -1 : done(__real_ftruncate(fd, size));
}

int __wrap_renameat(int from_folder, const char *from, int to_folder, const char *to)
{
	return refused(RENAME) ? -1 : done(__real_renameat(from_folder, from, to_folder, to));
}

int __wrap_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
	return refused(LINK) ? -1 : done(__real_linkat(from_folder, from, to_folder, to, flags));
}

static void forget_calls(void)
{
	memset(&calls, 0, sizeof(calls));
}

/* ------------------------------------------------------------------ disks over a file */

static char file[300], fresh[310];

static void begin(void)
{
	forget_calls();
	snprintf(file, sizeof(file), "%s", tmppath("reservations"));
	snprintf(fresh, sizeof(fresh), "%s.new", file);
	unlink(file);
	unlink(fresh);
}

static int open_disk(unsigned flags, struct disk **d, struct error *err)
{
	char spec[400];

	snprintf(spec, sizeof(spec), "prwrap;persist=%s:mem:1M", file);
	return disk_open(spec, flags, d, err);
}

static struct disk *must_open(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (!CHECK_EQ(open_disk(0, &d, &err), 0)) {
		tap_diag("%s", error_text(&err));
		exit(99);
	}
	return d;
}

static int act(struct disk *d, unsigned who, struct reservation_request q)
{
	struct io io = {.who = &initiators[who]};

	return disk_reserve(d, &q, &io);
}

static int join(struct disk *d, unsigned who, uint64_t key, int persist)
{
	return act(d, who, (struct reservation_request){
				   .action = RESERVATION_REGISTER_IGNORING, .new_key = key, .persist = persist});
}

static int reserve(struct disk *d, unsigned who, uint64_t key, enum reservation_type type)
{
	return act(d, who, (struct reservation_request){.action = RESERVATION_RESERVE, .key = key, .type = type});
}

/* "persists type keys... (holder*)" */
static const char *state(struct disk *d)
{
	static char text[200];
	struct reservation_report r;
	size_t used;

	if (disk_report_reservations(d, &r, &io_plain))
		return "no report";
	used = (size_t)sprintf(text, "%s %d", r.persists ? "on" : "off", r.type);
	for (size_t i = 0; i < r.count; i++)
		used += (size_t)sprintf(text + used, " %" PRIu64 "%s", r.registrants[i].key, r.registrants[i].holds ? "*" : "");
	free(r.registrants);
	return text;
}

static void check_opened_again(const char *expected)
{
	struct disk *d = must_open();

	CHECK_STR(state(d), expected);
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_persists_when_asked_for(void)
{
	struct disk *d;

	begin();
	d = must_open();
	CHECK_STR(state(d), "off 0");
	CHECK_EQ(join(d, 1, 21, 1), 0);
	CHECK_EQ(join(d, 0, UINT64_MAX, -1), 0);
	CHECK_EQ(reserve(d, 1, 21, RESERVATION_EXCLUSIVE_ACCESS), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	d = must_open();
	CHECK_STR(state(d), "on 2 18446744073709551615 21*");
	CHECK_EQ(disk_flush(d, &(struct io){.who = &initiators[0]}), -EBADE); /* enforced from the start */
	CHECK_EQ(disk_flush(d, &(struct io){.who = &initiators[1]}), 0);
	CHECK_EQ(act(d, 1, (struct reservation_request){.action = RESERVATION_RELEASE, .key = 21, .type = 2}), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("on 0 18446744073709551615 21");
	CHECK(access(fresh, F_OK));
}

static void test_does_not_persist_otherwise(void)
{
	struct disk *d;

	begin();
	d = must_open();
	CHECK_EQ(join(d, 1, 21, 0), 0);
	CHECK_EQ(reserve(d, 1, 21, RESERVATION_WRITE_EXCLUSIVE_ALL), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("off 0");
	d = must_open();
	CHECK_EQ(join(d, 1, 21, 1), 0);
	CHECK_EQ(reserve(d, 1, 21, RESERVATION_WRITE_EXCLUSIVE_ALL), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("on 5 21*");
	d = must_open();
	CHECK_EQ(join(d, 0, 22, 0), 0);
	CHECK_STR(state(d), "off 5 22* 21*");
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("off 0");
}

/* The last word of who registers counts, and without a file it cannot be "on". */
static void test_report_says_whether_it_can(void)
{
	struct reservation_report r;
	struct disk *d;

	begin();
	d = must_open();
	CHECK_EQ(disk_report_reservations(d, &r, &io_plain), 0);
	CHECK(r.can_persist);
	free(r.registrants);
	CHECK_EQ(disk_close(d, NULL), 0);
	REQUIRE(CHECK_EQ(disk_open("prwrap:mem:1M", 0, &d, NULL), 0));
	CHECK_EQ(disk_report_reservations(d, &r, &io_plain), 0);
	CHECK(!r.can_persist);
	free(r.registrants);
	CHECK_EQ(join(d, 0, 1, 1), -EINVAL);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* ------------------------------------------------------------------ power */

static void test_order_of_syncs(void)
{
	struct disk *d;

	begin();
	d = must_open();
	CHECK_EQ(calls.made[LINK], 1);
	forget_calls();
	CHECK_EQ(join(d, 0, 1, 1), 0);
	CHECK_EQ(calls.made[RENAME], 1);
	CHECK_EQ(calls.order[0], TRUNCATE);
	CHECK_EQ(calls.order[1], WRITE);
	CHECK_EQ(calls.order[2], WRITE);
	CHECK_EQ(calls.order[3], SYNC_FILE);
	CHECK_EQ(calls.order[4], RENAME);
	CHECK_EQ(calls.order[5], SYNC_FOLDER);
	CHECK_EQ(calls.count, 6);
	CHECK_EQ(reserve(d, 0, 1, 1), 0);
	CHECK_EQ(calls.count, 12);
	CHECK_EQ(reserve(d, 0, 1, 1), 0); /* it is there already */
	CHECK_EQ(calls.count, 12);
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* The child is cut off before or after its call number `at`; whether it said that it was done. */
static bool act_until_cut(unsigned at, bool after)
{
	int answer[2];
	char byte;
	pid_t child;
	ssize_t n;

	CHECK_EQ(pipe(answer), 0);
	child = fork();
	if (!child) {
		struct disk *d = must_open();
		forget_calls();
		calls.cut_at = at;
		calls.cut_after = after;
		byte = join(d, 1, 2, -1) ? 'f' : 's';
		calls.cut_at = 0;
		if (write(answer[1], &byte, 1) != 1)
			_exit(1);
		_exit(0);
	}
	close(answer[1]);
	n = read(answer[0], &byte, 1);
	close(answer[0]);
	waitpid(child, NULL, 0);
	return n == 1 && byte == 's';
}

static void check_cut(unsigned at, bool after)
{
	struct disk *d;
	bool answered, old;

	begin();
	d = must_open();
	CHECK_EQ(join(d, 0, 1, 1), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	forget_calls();
	answered = act_until_cut(at, after);
	d = must_open();
	old = !strcmp(state(d), "on 0 1");
	if (!CHECK(answered ? !old : old || !strcmp(state(d), "on 0 1 2")))
		tap_diag("cut %s call %u: %s", after ? "after" : "before", at, state(d));
	CHECK_EQ(answered, at > 7); /* six calls and one write more */
	CHECK_EQ(join(d, 2, 3, -1), 0); /* and it goes on */
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again(old ? "on 0 1 3" : "on 0 1 2 3");
}

static void test_power_loss_at_each_step(void)
{
	for (unsigned at = 1; at <= 8; at++) {
		check_cut(at, false);
		check_cut(at, true);
	}
}

/* While it is made there is none, or a whole one. */
static void test_power_loss_while_it_is_made(void)
{
	for (unsigned at = 1; at <= 6; at++) {
		pid_t child;
		begin();
		child = fork();
		if (!child) {
			calls.cut_at = at;
			must_open();
			_exit(0);
		}
		waitpid(child, NULL, 0);
		check_opened_again("off 0");
	}
}

/* After link(2), before the other name is gone. */
static void test_power_loss_between_names(void)
{
	struct disk *d;

	begin();
	d = must_open();
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(link(file, fresh), 0);
	d = must_open();
	CHECK_EQ(join(d, 0, 1, 1), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("on 0 1");
}

/* An action whose state cannot be saved is not done. */
static void test_failed_save_changes_nothing(void)
{
	for (unsigned at = 1; at <= 7; at++) {
		struct failure failure = {0};
		struct io io = {.who = &initiators[1], .failure = &failure};
		struct reservation_request q = {.action = RESERVATION_REGISTER, .new_key = 2, .persist = -1};
		struct disk *d;
		char expected[400];
		begin();
		d = must_open();
		CHECK_EQ(join(d, 0, 1, 1), 0);
		forget_calls();
		calls.fail_at = at;
		calls.fail_errno = ENOSPC;
		CHECK_EQ(disk_reserve(d, &q, &io), -EIO);
		snprintf(expected, sizeof(expected), "prwrap: reservations cannot be saved in '%.150s': No space left on device", file);
		CHECK_STR(failure.text, expected);
		CHECK_STR(state(d), "on 0 1");
		CHECK(access(fresh, F_OK));
		forget_calls();
		CHECK_EQ(join(d, 2, 3, -1), 0);
		CHECK_EQ(disk_close(d, NULL), 0);
		check_opened_again("on 0 1 3");
	}
}

/* Many saves in a fiber: they are done elsewhere. */
static void save_in_fiber(void *argument)
{
	struct disk *d = argument;

	for (uint64_t i = 1; i <= 20; i++)
		CHECK_EQ(join(d, (unsigned)(i % 2), i, 1), 0);
}

static void test_saves_from_fibers(void)
{
	struct disk *d;

	begin();
	d = must_open();
	run_fibers(&mode_ring, 4, save_in_fiber, d);
	CHECK_STR(state(d), "on 0 20 19");
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("on 0 20 19");
}

/* ------------------------------------------------------------------ who may have it */

static void test_one_disk(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d, *second = NULL, *reader = NULL;

	begin();
	d = must_open();
	for (unsigned i = 0; i < 2; i++) { /* as it was made, and replaced */
		CHECK_EQ(open_disk(0, &second, &err), -EBUSY);
		CHECK(strstr(error_text(&err), "it is in use by another disk") != NULL);
		CHECK_EQ(join(d, 0, 1, 1), 0);
	}
	REQUIRE(CHECK_EQ(open_disk(OPEN_READ_ONLY, &reader, NULL), 0));
	CHECK_STR(state(reader), "on 0 1");
	CHECK_EQ(join(reader, 1, 1, -1), -EROFS);
	CHECK_EQ(disk_close(reader, NULL), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	check_opened_again("on 0 1");
}

static void test_read_only_makes_no_file(void)
{
	struct disk *d = NULL;

	begin();
	REQUIRE(CHECK_EQ(open_disk(OPEN_READ_ONLY, &d, NULL), 0));
	CHECK_STR(state(d), "off 0");
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK(access(file, F_OK));
}

/* Who failed to open leaves no file, and none that was there before is touched. */
static void test_failed_open_leaves_nothing(void)
{
	char spec[500];
	struct disk *d = NULL;

	begin();
	snprintf(spec, sizeof(spec), "slice:2M:prwrap;persist=%s:mem:1M", file);
	CHECK(disk_open(spec, 0, &d, NULL) < 0);
	CHECK(access(file, F_OK));
	CHECK_EQ(disk_close(must_open(), NULL), 0);
	CHECK(disk_open(spec, 0, &d, NULL) < 0);
	CHECK_EQ(access(file, F_OK), 0);
}

static void check_refused(int status, const char *message)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	CHECK_EQ(open_disk(0, &d, &err), status);
	if (!CHECK(strstr(error_text(&err), message) != NULL))
		tap_diag("%s", error_text(&err));
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void test_places_that_do_not_do(void)
{
	begin();
	CHECK_EQ(mkdir(file, 0700), 0);
	check_refused(-EISDIR, "");
	CHECK_EQ(rmdir(file), 0);
	CHECK_EQ(mkfifo(file, 0600), 0);
	check_refused(-EINVAL, "it is not a regular file");
	CHECK_EQ(unlink(file), 0);
	snprintf(file, sizeof(file), "%s/no/such", tmpdir());
	check_refused(-ENOENT, "its folder cannot be opened");
	snprintf(file, sizeof(file), "%s/", tmpdir());
	check_refused(-EISDIR, "");
}

static void test_symbolic_link_and_mode_stay(void)
{
	char link_name[300];
	struct disk *d;
	struct stat st;

	begin();
	d = must_open();
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(chmod(file, 0640), 0);
	snprintf(link_name, sizeof(link_name), "%s", tmppath("link"));
	CHECK_EQ(symlink(file, link_name), 0);
	snprintf(file, sizeof(file), "%s", link_name);
	d = must_open();
	CHECK_EQ(join(d, 0, 1, 1), 0);
	CHECK_EQ(disk_close(d, NULL), 0);
	CHECK_EQ(lstat(link_name, &st), 0);
	CHECK(S_ISLNK(st.st_mode));
	CHECK_EQ(stat(link_name, &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0640);
	check_opened_again("on 0 1");
	unlink(link_name);
}

/* ------------------------------------------------------------------ damage */

#define HEADER 32u
#define ROW 32u

struct bytes {
	uint8_t *list;
	size_t size;
};

static struct bytes three_registrants(enum reservation_type type)
{
	struct reservation_entry list[3] = {
		{.who = initiators[0], .key = 5}, {.who = initiators[1], .key = 6}, {.who = initiators[2], .key = 6}};
	const struct reservations r = {
		.type = type, .persists = true, .holder = type && type < 5 ? initiators[1] : (struct initiator){.port = 0},
		.list = list, .count = 3};
	struct bytes b;

	if (!CHECK_EQ(reservations_encode(&r, &b.list, &b.size), 0))
		exit(99);
	return b;
}

static int decode(const struct bytes *b, const char *message)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	CLEANUP_ERROR struct error err = {0};
	struct bytes again = {0};
	int status = reservations_decode(b->list, b->size, &r, &err);

	if (message && !CHECK(strstr(error_text(&err), message) != NULL))
		tap_diag("%s", error_text(&err));
	if (!status && CHECK_EQ(reservations_encode(&r, &again.list, &again.size), 0)) {
		CHECK_EQ(again.size, b->size);
		CHECK_MEM(again.list, b->list, b->size);
	}
	free(again.list);
	CHECK(!status || (!r.list && !r.count));
	return status;
}

static void test_bytes(void)
{
	struct bytes b = three_registrants(RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS);

	CHECK_EQ(b.size, HEADER + 3 * ROW);
	CHECK_MEM(b.list, "PLTRESV1", 8);
	CHECK_MEM(b.list + 16, "\3\0\0\0\4\0\0\0\1\0\0\0\1\0\0\0", 16);
	CHECK_MEM(b.list + HEADER + ROW, "\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\6\0\0\0\0\0\0\0\1\2\0\0\0\0\0\0", ROW);
	for (enum reservation_type type = 0; type < 7; type++) {
		struct bytes other = three_registrants(type);
		CHECK_EQ(decode(&other, NULL), 0);
		free(other.list);
	}
	free(b.list);
}

static void test_every_bit_and_every_length(void)
{
	struct bytes b = three_registrants(RESERVATION_WRITE_EXCLUSIVE);

	for (size_t bit = 0; bit < 8 * b.size; bit++) {
		b.list[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK_EQ(decode(&b, NULL), -EBADMSG);
		b.list[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t size = b.size; size--;) {
		struct bytes cut = {malloc(size + !size), size};
		memcpy(cut.list, b.list, size);
		CHECK_EQ(decode(&cut, NULL), -EBADMSG);
		free(cut.list);
	}
	CHECK_EQ(decode(&b, NULL), 0);
	free(b.list);
}

/* XXH3 again, as the file says it is: of what follows it. */
static void seal(struct bytes *b)
{
	extern unsigned long long XXH3_64bits(const void *bytes, size_t size);
	uint64_t sum = XXH3_64bits(b->list + 16, b->size - 16);

	memcpy(b->list + 8, &sum, 8);
}

static void test_lies_with_a_right_checksum(void)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *message;
	} lies[] = {
		{0, 'X', "it is no file of persistent reservations (it does not begin with PLTRESV1)"},
		{16, 2, "it has 128 bytes, and not the 96 that 2 registrants take"},
		{17, 0x20, "count of 8195 is more than the 8192 registrants that there can be"},
		{20, 7, "type of 7 is no type of reservation"},
		{20, 0, "holder of 1 is no registrant, or none may be there"},
		{20, 5, "holder of 1 is no registrant, or none may be there"},
		{24, 3, "holder of 3 is no registrant"},
		{28, 0, "count of 3 where nothing persists"},
		{28, 2, "persists of 2 is neither 0 nor 1"},
		{HEADER + 16, 0, "registrant of 0 has key 0"},
		{HEADER + ROW + 31, 1, "registrant of 1 has bytes that should be zero"},
		{HEADER + ROW, 0, "registrant of 1 is out of order"},
		{HEADER, 3, "registrant of 1 is out of order"},
	};

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct bytes b = three_registrants(RESERVATION_WRITE_EXCLUSIVE);
		b.list[lies[i].at] = lies[i].value;
		seal(&b);
		CHECK_EQ(decode(&b, lies[i].message), -EBADMSG);
		free(b.list);
	}
}

static void test_all_hold_but_nobody_is_there(void)
{
	const struct reservations r = {.type = RESERVATION_EXCLUSIVE_ACCESS_ALL, .persists = true};
	struct bytes b;

	REQUIRE(CHECK_EQ(reservations_encode(&r, &b.list, &b.size), 0));
	CHECK_EQ(decode(&b, "type of 6 needs a registrant"), -EBADMSG);
	free(b.list);
}

static void put_file(const void *bytes, size_t size)
{
	int fd = open(file, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	close(fd);
}

static void test_damaged_files_are_refused_and_kept(void)
{
	struct stat st;

	begin();
	put_file("", 0);
	check_refused(-EBADMSG, "it has 0 bytes, and a file of persistent reservations has at least 32 (remove it");
	put_file("somebody's letter, of more than 32 bytes", 40);
	check_refused(-EBADMSG, "it is no file of persistent reservations");
	CHECK_EQ(stat(file, &st), 0);
	CHECK_EQ(st.st_size, 40);
	CHECK_EQ(truncate(file, 1 << 30), 0);
	check_refused(-EBADMSG, "it has 1073741824 bytes, and a file of persistent reservations at most 262176");
}

static void test_as_many_as_can_be(void)
{
	struct reservations r = {.persists = true, .count = RESERVATIONS_MAX};
	struct bytes b;

	r.list = calloc(r.count, sizeof(*r.list));
	for (size_t i = 0; i < r.count; i++)
		r.list[i] = (struct reservation_entry){.who.id = {(uint8_t)(i >> 8), (uint8_t)i}, .key = 1 + i};
	REQUIRE(CHECK_EQ(reservations_encode(&r, &b.list, &b.size), 0));
	CHECK_EQ(b.size, 262176);
	CHECK_EQ(decode(&b, NULL), 0);
	free(b.list);
	free(r.list);
}

int main(void)
{
	TAP_RUN(test_persists_when_asked_for);
	TAP_RUN(test_does_not_persist_otherwise);
	TAP_RUN(test_report_says_whether_it_can);
	TAP_RUN(test_order_of_syncs);
	TAP_RUN(test_power_loss_at_each_step);
	TAP_RUN(test_power_loss_while_it_is_made);
	TAP_RUN(test_power_loss_between_names);
	TAP_RUN(test_failed_save_changes_nothing);
	TAP_RUN(test_saves_from_fibers);
	TAP_RUN(test_one_disk);
	TAP_RUN(test_read_only_makes_no_file);
	TAP_RUN(test_failed_open_leaves_nothing);
	TAP_RUN(test_places_that_do_not_do);
	TAP_RUN(test_symbolic_link_and_mode_stay);
	TAP_RUN(test_bytes);
	TAP_RUN(test_every_bit_and_every_length);
	TAP_RUN(test_lies_with_a_right_checksum);
	TAP_RUN(test_all_hold_but_nobody_is_there);
	TAP_RUN(test_damaged_files_are_refused_and_kept);
	TAP_RUN(test_as_many_as_can_be);
	return TAP_DONE();
}

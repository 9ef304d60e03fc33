/* SPDX-License-Identifier: BSD-3-Clause */
/* The volatile cache of fault: what it holds, what reaches the disk below and when, and what a power cut leaves. */
#include <errno.h>
#include <pthread.h>

#include "core/loop.h"
#include "core/open.h"
#include "core/wait.h"
#include "decorators/fault-cache.h"
#include "tests/loops.h"
#include "tests/model.h"
#include "tests/trap.h"

#define MS UINT64_C(1000000)
#define BLOCKS 64u
#define SIZE (BLOCKS * 512u)

static struct trap *trap;

static struct disk *open_over(const struct trap_options *options, const char *settings)
{
	char spec[600];

	trap = trap_create(options);
	snprintf(spec, sizeof(spec), "fault:%s:null:1M", settings);
	return trap_wrap(spec, &trap->disk);
}

static struct disk *open_over_trap(const char *settings)
{
	const struct trap_options options = {
		.size = SIZE,
		.flags = DISK_FAST_ZERO | DISK_RESIZABLE | DISK_REMOVABLE,
		.discard = DISK_DISCARD_ZEROES,
	};

	return open_over(&options, settings);
}

static void close_disk(struct disk *d)
{
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* Blocks full of one byte. */
static int put_blocks(struct disk *d, unsigned first, unsigned count, char byte, unsigned flags)
{
	const struct io io = {.flags = flags};
	char memory[SIZE];

	memset(memory, byte, count * 512);
	return disk_write(d, &VEC_FLAT(memory, count * 512), first * 512, &io);
}

/* The byte of which the block is full, on the disk or below it; -1: it is a mixture. */
static int block_of(const unsigned char *memory)
{
	for (unsigned i = 1; i < 512; i++)
		if (memory[i] != memory[0])
			return -1;
	return memory[0];
}

static int get_block(struct disk *d, unsigned block)
{
	unsigned char memory[512];

	return disk_read(d, &VEC_FLAT(memory, 512), block * 512, &io_plain) ? -2 : block_of(memory);
}

static int below(unsigned block)
{
	return block_of(trap->content + block * 512);
}

/* ------------------------------------------------------------------ what is held */

static void test_writes_are_held_until_a_flush(void)
{
	struct disk *d = open_over_trap(";cache");

	CHECK_EQ(put_blocks(d, 2, 3, 'a', 0), 0);
	CHECK_EQ(put_blocks(d, 3, 1, 'b', 0), 0);
	CHECK_EQ(disk_write_zeroes(d, 4 * 512, 512, &io_plain), 0);
	CHECK_EQ(trap->count, 0);
	CHECK_EQ(get_block(d, 2), 'a');
	CHECK_EQ(get_block(d, 3), 'b');
	CHECK_EQ(get_block(d, 4), 0);
	CHECK_EQ(trap->counts[TRAP_READ], 0); /* all of it was held */
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(below(2), 'a');
	CHECK_EQ(below(3), 'b');
	CHECK_EQ(below(4), 0);
	CHECK_EQ(trap->counts[TRAP_FLUSH], 1);
	CHECK_EQ(get_block(d, 3), 'b');
	CHECK_EQ(trap->counts[TRAP_READ], 1);
	close_disk(d);
}

static void test_reads_mix_what_is_held_and_what_is_below(void)
{
	struct disk *d = open_over_trap(";cache");
	unsigned char memory[8 * 512];

	memset(trap->content, 'o', SIZE);
	CHECK_EQ(put_blocks(d, 1, 1, 'a', 0), 0);
	CHECK_EQ(disk_discard(d, 3 * 512, 2 * 512, &io_plain), 0);
	CHECK_EQ(put_blocks(d, 7, 2, 'b', 0), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(memory, sizeof(memory)), 0, &io_plain), 0);
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(block_of(memory + i * 512), "oao\0\0oob"[i]);
	close_disk(d);
}

/* With the flag, since the disk below may have a cache as well. */
static void test_fua_reaches_the_disk_below(void)
{
	const struct trap_options options = {.size = SIZE, .flags = DISK_FUA | DISK_FAST_ZERO};
	struct disk *d = open_over(&options, ";cache");
	struct io fua = {.flags = IO_FUA | IO_MAY_UNMAP};

	CHECK(disk_info(d)->flags & DISK_FUA);
	CHECK_EQ(put_blocks(d, 0, 4, 'a', 0), 0);
	CHECK_EQ(put_blocks(d, 1, 1, 'b', IO_FUA), 0);
	CHECK_EQ(below(0), 0);
	CHECK_EQ(below(1), 'b');
	CHECK_EQ(trap->log[0].flags, IO_FUA);
	CHECK_EQ(disk_write_zeroes(d, 2 * 512, 512, &fua), 0);
	CHECK_EQ(trap->log[1].op, TRAP_ZEROES);
	CHECK_EQ(trap->log[1].flags, IO_FUA | IO_MAY_UNMAP);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(below(0), 'a');
	CHECK_EQ(below(1), 'b');
	CHECK_EQ(below(2), 0);
	CHECK_EQ(below(3), 'a');
	close_disk(d);
}

static void test_fua_over_a_disk_without_it(void)
{
	struct disk *d = open_over_trap(";cache");

	CHECK(disk_info(d)->flags & DISK_FUA);
	CHECK_EQ(put_blocks(d, 1, 1, 'b', IO_FUA), 0);
	CHECK_EQ(below(1), 'b');
	CHECK_EQ(trap->counts[TRAP_FLUSH], 1);
	close_disk(d);
}

/* Oldest first. */
static void test_full_cache_writes_back(void)
{
	struct disk *d = open_over_trap(";cache=16K");

	for (unsigned i = 0; i < 60; i++)
		CHECK_EQ(put_blocks(d, i, 1, 'a', 0), 0);
	CHECK_EQ(below(0), 'a');
	CHECK_EQ(below(20), 'a');
	CHECK_EQ(below(40), 0);
	CHECK_EQ(below(59), 0);
	CHECK_EQ(trap->counts[TRAP_FLUSH], 0);
	for (unsigned i = 0; i < 60; i++)
		CHECK_EQ(get_block(d, i), 'a');
	close_disk(d);
}

static void test_close_writes_back(void)
{
	CLEANUP_ERROR struct error err = {0};
	const char *path = tmppath("closed");
	char spec[600];
	struct disk *d;

	snprintf(spec, sizeof(spec), "fault:flush=drop;cache:file:%s;create=32K", path);
	REQUIRE(!disk_open(spec, 0, &d, &err));
	CHECK_EQ(put_blocks(d, 5, 1, 'a', 0), 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	close_disk(d);
	snprintf(spec, sizeof(spec), "file:%s", path);
	REQUIRE(!disk_open(spec, 0, &d, &err));
	CHECK_EQ(get_block(d, 5), 'a');
	close_disk(d);
}

static void test_close_tells_what_could_not_be_written(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = open_over_trap("flush=drop;cache");

	CHECK_EQ(put_blocks(d, 5, 1, 'a', 0), 0);
	trap_fail(trap, 1u << TRAP_WRITE, 1, -ENOSPC);
	CHECK_EQ(disk_close(d, &err), -ENOSPC);
	CHECK(strstr(error_text(&err), "cache: trap: sprung"));
}

/* A flush that failed may be made again. */
static void test_failed_flush_keeps_all(void)
{
	struct disk *d = open_over_trap(";cache");

	CHECK_EQ(put_blocks(d, 1, 1, 'a', 0), 0);
	CHECK_EQ(put_blocks(d, 9, 1, 'b', 0), 0);
	trap_fail(trap, 1u << TRAP_WRITE, 2, -EIO);
	CHECK_EQ(disk_flush(d, &io_plain), -EIO);
	CHECK_EQ(get_block(d, 9), 'b');
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(below(9), 'b');
	close_disk(d);
}

static void test_zeroes_keep_their_kind(void)
{
	struct io unmap = {.flags = IO_MAY_UNMAP}, fast = {.flags = IO_FAST_ONLY};
	struct disk *d = open_over_trap(";cache");

	CHECK_EQ(disk_write_zeroes(d, 0, 512, &io_plain), 0);
	CHECK_EQ(disk_write_zeroes(d, 1024, 512, &unmap), 0);
	CHECK_EQ(disk_discard(d, 2048, 512, &io_plain), 0);
	CHECK_EQ(disk_write_zeroes(d, 4096, 512, &fast), 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(trap->counts[TRAP_ZEROES], 4);
	CHECK_EQ(trap->log[0].flags, 0);
	CHECK_EQ(trap->log[1].flags, IO_MAY_UNMAP);
	CHECK_EQ(trap->log[2].flags, IO_MAY_UNMAP);
	CHECK_EQ(trap->log[3].flags, 0);
	close_disk(d);
}

static void test_resize_and_eject_write_back_first(void)
{
	struct disk *d = open_over_trap(";cache");

	CHECK_EQ(put_blocks(d, 60, 2, 'a', 0), 0);
	CHECK_EQ(disk_resize(d, 2 * SIZE, &io_plain), 0);
	CHECK_EQ(below(61), 'a');
	CHECK_EQ(disk_size(d), 2 * SIZE);
	CHECK_EQ(put_blocks(d, 3, 1, 'b', 0), 0);
	CHECK_EQ(disk_eject(d, &io_plain), 0);
	CHECK_EQ(below(3), 'b');
	close_disk(d);
}

/* What is held past the end of a disk that became smaller by itself is dropped. */
static void test_disk_below_becomes_smaller(void)
{
	struct disk *d = open_over_trap(";cache");

	CHECK_EQ(put_blocks(d, 30, 4, 'a', 0), 0);
	CHECK_EQ(put_blocks(d, 40, 2, 'a', 0), 0);
	disk_set_size(&trap->disk, 32 * 512);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(below(31), 'a');
	CHECK_EQ(below(32), 0);
	CHECK_EQ(below(40), 0);
	close_disk(d);
}

static void test_extents_show_what_is_held_as_data(void)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_EXTENTS struct extents e;
	struct disk *d;

	REQUIRE(!disk_open("fault:;cache:mem:1M", 0, &d, &err));
	CHECK_EQ(put_blocks(d, 16, 2, 'a', 0), 0);
	extents_init(&e, 0, 1 << 20, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 3);
	CHECK_EQ(e.list[1].offset, 8192);
	CHECK_EQ(e.list[1].length, 1024);
	CHECK_EQ(e.list[1].flags, EXTENT_DATA);
	CHECK(e.list[0].flags & EXTENT_ZERO && e.list[2].flags & EXTENT_ZERO);
	close_disk(d);
}

/* A disk between cache and trap, behind whose reads something happens. */
static struct {
	struct disk *top;
	unsigned left; /* so many more times */
	char next;
} behind_reads;

/* What the read has just missed comes to the disk below. */
static int read_and_flush(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = disk_read(d->children[0], v, offset, io);

	if (behind_reads.left) {
		behind_reads.left--;
		CHECK_EQ(disk_flush(behind_reads.top, &io_plain), 0);
		if (behind_reads.left)
			CHECK_EQ(put_blocks(behind_reads.top, 0, 1, behind_reads.next++, 0), 0);
	}
	return status;
}

static struct disk *open_over_hook(void)
{
	static const struct disk_ops ops = {.read = read_and_flush};
	const struct trap_options options = {.size = SIZE};
	struct disk *below, *d;

	trap = trap_create(&options);
	below = &trap->disk;
	d = disk_new(sizeof(*d), "hook", &ops, &below, 1);
	disk_inherit(d);
	if (disk_publish(d, SIZE, NULL))
		abort();
	return trap_wrap("fault:;cache:null:1M", d);
}

/* Not even a moment is there at which what was written is neither held nor below; however often it moves. */
static void test_reads_miss_nothing_that_moves(void)
{
	for (unsigned times = 1; times <= 3; times++) {
		struct disk *d = open_over_hook();
		unsigned char memory[1024];
		CHECK_EQ(put_blocks(d, 0, 1, 'a', 0), 0);
		behind_reads = (typeof(behind_reads)){.top = d, .left = times, .next = 'b'};
		CHECK_EQ(disk_read(d, &VEC_FLAT(memory, 1024), 0, &io_plain), 0);
		CHECK_EQ(behind_reads.left, 0);
		CHECK_EQ(block_of(memory), 'a' + (int)times - 1);
		CHECK_EQ(trap->counts[TRAP_READ], times + 1);
		close_disk(d);
	}
}

/* ------------------------------------------------------------------ power cuts */

/* Strikes the next flush: what it would have made durable is what is at stake. */
static int cut(struct disk *d)
{
	return disk_flush(d, &io_plain);
}

static void test_cut_keeps_what_was_flushed(void)
{
	unsigned old = 0, new = 0, newest = 0;

	for (unsigned seed = 0; seed < 100; seed++) {
		char settings[60];
		struct disk *d;
		snprintf(settings, sizeof(settings), "flush=reset,nth=2;cache;seed=%u", seed);
		d = open_over_trap(settings);
		CHECK_EQ(put_blocks(d, 0, 32, 'a', 0), 0);
		CHECK_EQ(disk_flush(d, &io_plain), 0);
		CHECK_EQ(put_blocks(d, 16, 32, 'b', 0), 0);
		CHECK_EQ(put_blocks(d, 24, 1, 'c', 0), 0);
		CHECK_EQ(cut(d), -EIO);
		for (unsigned i = 0; i < BLOCKS; i++) {
			int c = below(i);
			CHECK_EQ(get_block(d, i), c);
			if (i < 16)
				CHECK_EQ(c, 'a');
			else if (i >= 48)
				CHECK_EQ(c, 0);
			else
				CHECK(c == (i < 32 ? 'a' : 0) || c == 'b' || (i == 24 && c == 'c'));
		}
		old += below(24) == 'a';
		new += below(24) == 'b';
		newest += below(24) == 'c';
		close_disk(d);
	}
	CHECK(old && new && newest);
}

static void test_cut_in_order(void)
{
	bool torn = false;

	for (unsigned seed = 0; seed < 100; seed++) {
		char settings[60];
		struct disk *d;
		unsigned kept = 0;
		snprintf(settings, sizeof(settings), "flush=reset,once;cache;in-order;seed=%u", seed);
		d = open_over_trap(settings);
		for (unsigned i = 0; i < BLOCKS; i += 4)
			CHECK_EQ(put_blocks(d, i, 4, 'a', 0), 0);
		CHECK_EQ(cut(d), -EIO);
		while (kept < BLOCKS && below(kept) == 'a')
			kept++;
		for (unsigned i = kept; i < BLOCKS; i++)
			CHECK_EQ(below(i), 0);
		torn = torn || kept % 4;
		close_disk(d);
	}
	CHECK(torn);
}

static void test_larger_units(void)
{
	struct disk *d = open_over_trap("flush=reset;cache;atomic=4K");

	for (unsigned i = 0; i < 50; i++) {
		CHECK_EQ(disk_write_zeroes(d, 0, SIZE, &(struct io){.flags = IO_FUA}), 0);
		CHECK_EQ(put_blocks(d, 0, BLOCKS, 'a', 0), 0);
		CHECK_EQ(cut(d), -EIO);
		for (unsigned block = 0; block < BLOCKS; block++)
			CHECK_EQ(below(block), below(block / 8 * 8));
	}
	CHECK_EQ(disk_close(d, NULL), -EIO); /* its flush is struck, too */
}

static void test_same_seed_same_cut(void)
{
	static unsigned char first[SIZE];
	bool differs = false;

	for (unsigned round = 0; round < 4; round++) {
		struct disk *d = open_over_trap(round == 3 ? "flush=reset,once;cache;seed=2" : "flush=reset,once;cache;seed=1");
		for (unsigned i = 0; i < 200; i++)
			CHECK_EQ(put_blocks(d, i * 7 % 61, 3, (char)i, 0), 0);
		CHECK_EQ(cut(d), -EIO);
		if (!round)
			memcpy(first, trap->content, SIZE);
		else if (round < 3)
			CHECK_MEM(trap->content, first, SIZE);
		else
			differs = memcmp(trap->content, first, SIZE);
		close_disk(d);
	}
	CHECK(differs);
}

static void test_fua_survives_every_cut(void)
{
	for (unsigned seed = 0; seed < 60; seed++) {
		char settings[60];
		struct disk *d;
		snprintf(settings, sizeof(settings), "flush=reset,once;cache;seed=%u%s", seed, seed % 2 ? ";in-order" : "");
		d = open_over_trap(settings);
		CHECK_EQ(put_blocks(d, 0, 8, 'a', 0), 0);
		CHECK_EQ(put_blocks(d, 2, 2, 'b', IO_FUA), 0);
		CHECK_EQ(put_blocks(d, 3, 1, 'c', 0), 0);
		CHECK_EQ(cut(d), -EIO);
		CHECK_EQ(below(2), 'b');
		CHECK(below(3) == 'b' || below(3) == 'c');
		close_disk(d);
	}
}

/* A flush that lies is found out by a cut. */
static void test_lying_flush_loses(void)
{
	bool lost = false;

	for (unsigned seed = 0; seed < 20; seed++) {
		char settings[80];
		struct disk *d;
		snprintf(settings, sizeof(settings), "flush=drop+write=reset,at=16K,len=512;cache;seed=%u", seed);
		d = open_over_trap(settings);
		CHECK_EQ(put_blocks(d, 0, 8, 'a', 0), 0);
		CHECK_EQ(disk_flush(d, &io_plain), 0);
		CHECK_EQ(put_blocks(d, 32, 1, 'b', 0), -EIO);
		for (unsigned i = 0; i < 8; i++)
			lost = lost || below(i) != 'a';
		close_disk(d);
	}
	CHECK(lost);
}

/* What was under way at the cut may survive, too. */
static void test_struck_write_may_survive(void)
{
	bool kept = false, lost = false;

	for (unsigned seed = 0; seed < 40; seed++) {
		char settings[60];
		struct disk *d;
		snprintf(settings, sizeof(settings), "write=reset;cache;seed=%u", seed);
		d = open_over_trap(settings);
		CHECK_EQ(put_blocks(d, 1, 1, 'a', IO_FUA), -EIO);
		kept = kept || below(1) == 'a';
		lost = lost || below(1) == 0;
		close_disk(d);
	}
	CHECK(kept && lost);
}

/* ------------------------------------------------------------------ off and on */

static char control_path[300], reply_path[320];

static void use_control(const char *name, const char *settings, char *out, size_t room)
{
	snprintf(control_path, sizeof(control_path), "%s", tmppath(name));
	snprintf(reply_path, sizeof(reply_path), "%s.reply", control_path);
	snprintf(out, room, "%s;control=%s", settings, control_path);
}

/* Writes the line and waits for what came of it. */
static void say(const char *line)
{
	char text[400] = "";
	FILE *file;

	unlink(reply_path);
	file = fopen(control_path, "w");
	REQUIRE(file && fprintf(file, "%s\n", line) > 0 && !fclose(file));
	for (unsigned tries = 0; tries < 10000 && !strchr(text, '\n'); tries++) {
		file = fopen(reply_path, "r");
		if (file && !fgets(text, sizeof(text), file))
			text[0] = 0;
		if (file)
			fclose(file);
		wait_sleep(MS);
	}
	if (!CHECK(!strncmp(text, "ok", 2)))
		tap_diag("%s: %s", line, text);
}

static void check_all_fails(struct disk *d)
{
	static const enum trap_op all[] = {TRAP_READ,	 TRAP_WRITE,  TRAP_FLUSH, TRAP_DISCARD,
					   TRAP_ZEROES, TRAP_EXTENTS, TRAP_RESIZE, TRAP_EJECT};

	trap_reset(trap);
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct failure failure = {0};
		const struct io io = {.failure = &failure};
		CHECK_EQ(trap_ask(d, all[i], 2 * SIZE, &io), -EIO);
		CHECK_STR(failure.text, "fault: the power is off");
	}
	CHECK_EQ(trap->count, 0);
}

static bool is_described(struct disk *d, const char *power, json_int_t cuts)
{
	json_t *o = disk_describe(d);
	bool good = !strcmp(json_string_value(json_object_get(o, "power")), power) &&
		    json_integer_value(json_object_get(o, "cuts")) == cuts;

	json_decref(o);
	return good;
}

static void check_power(const char *name, const char *settings)
{
	char text[400];
	struct disk *d;

	use_control(name, settings, text, sizeof(text));
	d = open_over_trap(text);
	CHECK_EQ(put_blocks(d, 0, 1, 'a', IO_FUA), 0);
	say(";power=off");
	CHECK(is_described(d, "off", 1));
	check_all_fails(d);
	say(";power=off"); /* once is enough */
	CHECK(is_described(d, "off", 1));
	say(";power=on");
	CHECK(is_described(d, "on", 1));
	CHECK_EQ(get_block(d, 0), 'a');
	CHECK_EQ(put_blocks(d, 1, 1, 'b', 0), 0);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	CHECK_EQ(below(1), 'b');
	say("read=cut");
	CHECK_EQ(get_block(d, 1), -2);
	CHECK(is_described(d, "off", 2));
	check_all_fails(d);
	say("");
	CHECK_EQ(get_block(d, 1), 'b');
	close_disk(d);
}

static void test_power_off_and_on(void)
{
	check_power("power", "");
}

static void test_power_off_and_on_with_a_cache(void)
{
	check_power("power-cache", ";cache");
}

static void test_opened_without_power(void)
{
	char text[400];
	struct disk *d;

	use_control("dark", ";cache;power=off", text, sizeof(text));
	d = open_over_trap(text);
	check_all_fails(d);
	say(";power=on");
	CHECK_EQ(put_blocks(d, 0, 1, 'a', 0), 0);
	CHECK_EQ(get_block(d, 0), 'a');
	close_disk(d);
}

/* A request that was on its way when the power went. */
static void test_late_comers_find_the_cache_off(void)
{
	const struct trap_options options = {.size = SIZE};
	struct fault_cache *c;
	CLEANUP_EXTENTS struct extents e;
	char memory[512] = "";

	trap = trap_create(&options);
	c = fault_cache_create(&trap->disk, 1 << 20, 512, false);
	extents_init(&e, 0, SIZE, SIZE_MAX);
	CHECK_EQ(fault_cache_write(c, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	CHECK_EQ(fault_cache_cut(c, 1, &io_plain), 0);
	CHECK_EQ(fault_cache_read(c, &VEC_FLAT(memory, 512), 0, &io_plain), -EIO);
	CHECK_EQ(fault_cache_write(c, &VEC_FLAT(memory, 512), 0, &io_plain), -EIO);
	CHECK_EQ(fault_cache_write_zeroes(c, 0, 512, &io_plain), -EIO);
	CHECK_EQ(fault_cache_discard(c, 0, 512, &io_plain), -EIO);
	CHECK_EQ(fault_cache_flush(c, &io_plain), -EIO);
	CHECK_EQ(fault_cache_extents(c, &e, &io_plain), -EIO);
	fault_cache_restore(c);
	CHECK_EQ(fault_cache_read(c, &VEC_FLAT(memory, 512), 0, &io_plain), 0);
	fault_cache_free(c);
	disk_close(&trap->disk, NULL);
}

/* Close fails, since it flushes; what was held is gone already, and nothing is written. */
static void test_closed_without_power(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = open_over_trap("write=cut,nth=2;cache");
	unsigned closed = 0;

	trap->closed = &closed;
	CHECK_EQ(put_blocks(d, 0, 1, 'a', 0), 0);
	CHECK_EQ(put_blocks(d, 0, 1, 'b', 0), -EIO);
	CHECK_EQ(disk_close(d, &err), -EIO);
	CHECK_EQ(closed, 1);
}

/* ------------------------------------------------------------------ many at once */

struct crowd {
	struct disk *disk;
	_Atomic bool stop;
	_Atomic unsigned next, requests;
	_Atomic unsigned cuts; /* odd while one may be under way */
};

/* Each has blocks of its own: what it wrote it reads, unless the power was off in between. */
static void work(struct crowd *c)
{
	unsigned mine = atomic_fetch_add(&c->next, 1) % 8;

	for (unsigned i = 0; !atomic_load(&c->stop); i++) {
		unsigned block = mine * 8, cuts = atomic_load(&c->cuts);
		int status = put_blocks(c->disk, block, 4, (char)i, i % 50 ? 0 : IO_FUA);
		int found = get_block(c->disk, block + 1), flushed = i % 10 == mine ? disk_flush(c->disk, &io_plain) : 0;
		CHECK((!status || status == -EIO) && (!flushed || flushed == -EIO));
		if (cuts % 2 == 0 && atomic_load(&c->cuts) == cuts)
			CHECK(!status && !flushed && (unsigned)found == i % 256);
		atomic_fetch_add(&c->requests, 1);
	}
}

static void *work_in_thread(void *argument)
{
	work(argument);
	return NULL;
}

/* A cut in the middle of everything, again and again. */
static void test_cuts_under_traffic(void)
{
	struct crowd c = {0};
	pthread_t threads[4];
	char text[400];

	use_control("crowd", ";cache=8K", text, sizeof(text));
	c.disk = open_over_trap(text);
	for (unsigned i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, work_in_thread, &c))
			abort();
	while (!atomic_load(&c.requests))
		wait_yield();
	for (unsigned i = 0; i < 10; i++) {
		unsigned before = atomic_load(&c.requests);
		atomic_fetch_add(&c.cuts, 1);
		say(";power=off");
		say("");
		atomic_fetch_add(&c.cuts, 1);
		while (atomic_load(&c.requests) < before + 100)
			wait_yield();
	}
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	close_disk(c.disk);
}

struct fibers {
	struct disk *disk;
	unsigned next;
};

static void work_in_fiber(void *argument)
{
	struct fibers *f = argument;
	unsigned mine = f->next++;

	for (unsigned i = 0; i < 20; i++) {
		CHECK_EQ(put_blocks(f->disk, mine, 1, (char)(i + mine), i % 5 ? 0 : IO_FUA), 0);
		CHECK_EQ(get_block(f->disk, mine), (i + mine) % 256);
		if (i % 7 == mine % 7)
			CHECK_EQ(disk_flush(f->disk, &io_plain), 0);
	}
}

/* Flushes wait below while others go on. */
static void test_fibers_share_a_cache(void)
{
	struct fibers f = {0};

	REQUIRE(!disk_open("fault:;cache=8K:delay:100us:mem:1M", 0, &f.disk, NULL));
	run_fibers(&mode_ring, 16, work_in_fiber, &f);
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(get_block(f.disk, i), 19 + i);
	close_disk(f.disk);
}

int main(void)
{
	TAP_RUN(test_writes_are_held_until_a_flush);
	TAP_RUN(test_reads_mix_what_is_held_and_what_is_below);
	TAP_RUN(test_fua_reaches_the_disk_below);
	TAP_RUN(test_fua_over_a_disk_without_it);
	TAP_RUN(test_full_cache_writes_back);
	TAP_RUN(test_close_writes_back);
	TAP_RUN(test_close_tells_what_could_not_be_written);
	TAP_RUN(test_failed_flush_keeps_all);
	TAP_RUN(test_zeroes_keep_their_kind);
	TAP_RUN(test_resize_and_eject_write_back_first);
	TAP_RUN(test_disk_below_becomes_smaller);
	TAP_RUN(test_extents_show_what_is_held_as_data);
	TAP_RUN(test_reads_miss_nothing_that_moves);
	TAP_RUN(test_cut_keeps_what_was_flushed);
	TAP_RUN(test_cut_in_order);
	TAP_RUN(test_larger_units);
	TAP_RUN(test_same_seed_same_cut);
	TAP_RUN(test_fua_survives_every_cut);
	TAP_RUN(test_lying_flush_loses);
	TAP_RUN(test_struck_write_may_survive);
	TAP_RUN(test_power_off_and_on);
	TAP_RUN(test_power_off_and_on_with_a_cache);
	TAP_RUN(test_opened_without_power);
	TAP_RUN(test_late_comers_find_the_cache_off);
	TAP_RUN(test_closed_without_power);
	TAP_RUN(test_cuts_under_traffic);
	TAP_RUN(test_fibers_share_a_cache);
	return TAP_DONE();
}

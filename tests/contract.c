/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The contract suite
 *
 * Each part takes an open disk with any content, and leaves it usable. Content is compared with a flat model that was
 * read from the disk at the beginning, so a part does not care what is below.
 */
#include "tests/contract.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/checkers.h"
#include "core/open.h"
#include "core/wait.h"
#include "tests/contract-parts.h"
#include "tests/model.h"
#include "tests/tap.h"

unsigned contract_slowness(void)
{
	if (checkers_in_valgrind())
		return 20;
#ifdef CHECKERS_TSAN
	return 12;
#elif defined(CHECKERS_ASAN)
	return 3;
#else
	return 1;
#endif
}

unsigned contract_rounds(unsigned n)
{
	unsigned few = n / contract_slowness();

	return few ? few : 1;
}

bool contract_is_writable(struct disk *d)
{
	return !(disk_info(d)->flags & DISK_READ_ONLY);
}

void *must_have(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return memory;
}

/* ------------------------------------------------------------------ facts */

static bool power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static void check_described(struct disk *d)
{
	json_t *o = disk_describe(d);
	const struct disk_info *info = disk_info(d);

	if (!CHECK(json_is_object(o)))
		return;
	CHECK_STR(json_string_value(json_object_get(o, "kind")), disk_kind_name(d));
	CHECK_EQ(json_integer_value(json_object_get(o, "size")), disk_size(d));
	CHECK_EQ(json_integer_value(json_object_get(o, "block_size")), info->block_size);
	CHECK_EQ(json_is_true(json_object_get(o, "read_only")), !contract_is_writable(d));
	for (unsigned i = 0; disk_child(d, i); i++)
		CHECK(json_is_object(json_array_get(json_object_get(o, "children"), i)));
	json_decref(o);
}

static void part_facts(const struct contract *c, struct disk *d)
{
	const struct disk_info *info = disk_info(d);

	CHECK(power_of_two(info->block_size) && info->block_size >= DISK_MIN_BLOCK &&
	      info->block_size <= DISK_MAX_BLOCK);
	CHECK(power_of_two(info->physical_block_size) && info->physical_block_size >= info->block_size);
	CHECK(info->discard_granularity && info->discard_granularity % info->block_size == 0);
	CHECK(info->discard_alignment < info->discard_granularity);
	CHECK(disk_size(d) && disk_size(d) % info->block_size == 0 && disk_size(d) <= DISK_MAX_END);
	CHECK(info->flags & DISK_READ_ONLY || !(c->open_flags & OPEN_READ_ONLY));
	if (c->block_size)
		CHECK_EQ(info->block_size, c->block_size);
	if (c->size)
		CHECK_EQ(disk_size(d), c->size);
	check_described(d);
}

/* ------------------------------------------------------------------ life */

static unsigned count_entries(const char *folder)
{
	DIR *dir = opendir(folder);
	unsigned n = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static struct disk *open_it(const struct contract *c)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (disk_open(c->spec, c->open_flags, &d, &err)) {
		tap_diag("%s", error_text(&err));
		CHECK(!"it opens");
	}
	return d;
}

static void close_it(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	CHECK_EQ(disk_close(d, &err), 0);
	CHECK_STR(err.text, NULL);
}

/* Gives up its reference right after its last request. */
static void *use_and_leave(void *argument)
{
	struct disk *d = argument;
	uint64_t b = disk_info(d)->block_size;
	void *memory = must_have(b);

	for (unsigned i = 0; i < 5; i++) {
		CHECK_EQ(call_op(d, OP_READ, 0, b, memory, &io_plain), 0);
		CHECK_EQ(call_op(d, OP_EXTENTS, 0, b, memory, &io_plain), 0);
		if (contract_is_writable(d))
			CHECK_EQ(call_op(d, OP_WRITE, 0, b, memory, &io_plain), 0);
	}
	free(memory);
	close_it(d);
	return NULL;
}

static void open_use_close(const struct contract *c)
{
	struct disk *d = open_it(c);
	pthread_t threads[3];

	if (!d)
		return;
	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, use_and_leave, disk_ref(d)))
			abort();
	close_it(d);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* Sends one request after the other; says so as soon as each has come back. */
struct sender {
	struct disk *disk;
	_Atomic unsigned done;
};

static void *send_one(void *argument)
{
	struct sender *s = argument;
	uint64_t b = disk_info(s->disk)->block_size;
	void *memory = must_have(b);

	call_op(s->disk, OP_READ, 0, b, memory, &io_plain);
	atomic_store(&s->done, 1);
	free(memory);
	return NULL;
}

static void close_behind(const struct contract *c)
{
	struct sender s = {.disk = open_it(c)};
	pthread_t thread;

	if (!s.disk)
		return;
	if (pthread_create(&thread, NULL, send_one, &s))
		abort();
	while (!atomic_load(&s.done))
		wait_yield();
	close_it(s.disk);
	pthread_join(thread, NULL);
}

static void part_life(const struct contract *c)
{
	unsigned fds, threads;

	open_use_close(c);
	fds = count_entries("/proc/self/fd");
	threads = count_entries("/proc/self/task");
	for (unsigned i = 0; i < contract_rounds(20); i++) {
		open_use_close(c);
		close_behind(c);
	}
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
	CHECK(count_entries("/proc/self/task") <= threads + 2); /* a thread that was joined may still be listed */
}

/* ------------------------------------------------------------------ durable */

static void write_durably(struct trial *t)
{
	struct io fua = {.flags = IO_FUA};
	uint64_t b = t->model.block;

	do_write(t, 0, 4 * b);
	do_zeroes(t, b, b, IO_FUA);
	do_discard(t, 2 * b, b, IO_FUA);
	CHECK_EQ(disk_flush(t->disk, &fua), 0);
	for (unsigned i = 0; i < contract_rounds(40); i++) {
		uint64_t offset, length;
		model_range(&t->model, &t->random, 1 << 20, &offset, &length);
		do_write(t, offset, length);
	}
	CHECK_EQ(disk_flush(t->disk, &io_plain), 0);
}

/* The model of the last life is the content of the next. */
static void part_durable(const struct contract *c)
{
	struct disk *d = open_it(c);
	bool kept = d && !(disk_info(d)->flags & DISK_VOLATILE);
	struct trial t;

	if (!d || !trial_begin(&t, c, d, 8))
		return;
	if (contract_is_writable(d) && t.model.size >= 4 * t.model.block)
		write_durably(&t);
	close_it(d);
	t.disk = open_it(c);
	if (t.disk && kept)
		CHECK(model_agrees(&t.model, t.disk, 0, t.model.size));
	model_free(&t.model);
	close_it(t.disk);
}

/* ------------------------------------------------------------------ all parts */

static const struct {
	const char *name;
	enum contract_part part;
	part_function *run;
} parts[] = {
	{"facts", CONTRACT_FACTS, part_facts},       {"range", CONTRACT_RANGE, part_range},
	{"content", CONTRACT_CONTENT, part_content}, {"zeroes", CONTRACT_ZEROES, part_zeroes},
	{"discard", CONTRACT_DISCARD, part_discard}, {"extents", CONTRACT_EXTENTS, part_extents},
	{"threads", CONTRACT_THREADS, part_threads}, {"fibers", CONTRACT_FIBERS, part_fibers},
	{"resize", CONTRACT_RESIZE, part_resize},
};

/* Number of checks that failed since the last call; says in which part. */
static int take_errors(const struct contract *c, const char *part)
{
	int errors = atomic_exchange(&tap_errors, 0);

	if (errors)
		tap_diag("%s: part %s: %d checks failed", c->name ? c->name : c->spec, part, errors);
	return errors;
}

static void run_part(const struct contract *c, part_function *run)
{
	struct disk *d = open_it(c);

	if (!d)
		return;
	run(c, d);
	close_it(d);
}

int contract_run(const struct contract *c)
{
	int errors = 0;

	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		if (c->without & parts[i].part)
			continue;
		run_part(c, parts[i].run);
		errors += take_errors(c, parts[i].name);
	}
	if (!(c->without & CONTRACT_DURABLE))
		part_durable(c);
	errors += take_errors(c, "durable");
	if (!(c->without & CONTRACT_LIFE))
		part_life(c);
	return errors + take_errors(c, "life");
}

int contract_run_on(const struct contract *c, struct disk *d)
{
	int errors = 0;

	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		if (c->without & parts[i].part)
			continue;
		parts[i].run(c, d);
		errors += take_errors(c, parts[i].name);
	}
	return errors;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* layers:[...], and deep stacks: who holds a page is remembered, and never wrongly. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/kind.h"
#include "core/node.h"
#include "core/open.h"
#include "layers/layer.h"
#include "layers/owners.h"
#include "tests/contract.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define PAGE 4096u

static struct disk *opened(const char *spec, unsigned flags)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (disk_open(spec, flags, &d, &err)) {
		tap_diag("%s: %s", spec, error_text(&err));
		CHECK(!"it opens");
		exit(1);
	}
	return d;
}

static void close_good(struct disk *d)
{
	CLEANUP_ERROR struct error err = {0};

	if (disk_close(d, &err))
		tap_diag("%s", error_text(&err));
	CHECK_EQ(err.status, 0);
}

static void refused(const char *spec, unsigned flags, int status, const char *wanted)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	CHECK_EQ(disk_open(spec, flags, &d, &err), status);
	if (!CHECK(strstr(error_text(&err), wanted)))
		tap_diag("%s: %s", spec, error_text(&err));
}

static void put(struct disk *d, uint64_t offset, size_t length, char value)
{
	char *data = malloc(length);

	REQUIRE(data);
	memset(data, value, length);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, length), offset, &io_plain), 0);
	free(data);
}

/* The byte that all of the range consists of; -1: it differs, -2: it cannot be read. */
static int value_at(struct disk *d, uint64_t offset, size_t length)
{
	unsigned char *data = malloc(length);
	int value;

	if (!data)
		abort();
	value = disk_read(d, &VEC_FLAT(data, length), offset, &io_plain) ? -2 : data[0];
	for (size_t i = 1; i < length && value >= 0; i++)
		if (data[i] != value)
			value = -1;
	free(data);
	return value;
}

/* A file of letters, a page each. */
static const char *letters_file(unsigned pages)
{
	const char *name = tmppath("letters");
	FILE *f = fopen(name, "we");

	if (!f)
		abort();
	for (unsigned i = 0; i < pages * PAGE; i++)
		fputc('A' + (int)(i / PAGE), f);
	if (fclose(f))
		abort();
	return name;
}

/* ------------------------------------------------------------------ the kind */

static void test_opens_from_the_bottom_up(void)
{
	struct disk *d = opened("layers:[mem:,mem:;block=4K,mem:1M;block=4K]", 0);

	CHECK_EQ(disk_size(d), 1 << 20);
	CHECK_EQ(disk_info(d)->block_size, 4096);
	CHECK_STR(disk_kind_name(d), "layers");
	close_good(d);
}

static void test_sizes_of_members(void)
{
	struct disk *d = opened("layers:[mem:2M,mem:,mem:512K]", 0);

	CHECK_EQ(disk_size(d), 2 << 20);
	put(d, 0, 2 << 20, 'x');
	CHECK_EQ(value_at(d, 0, 2 << 20), 'x');
	close_good(d);
}

static void test_only_the_top_is_written(void)
{
	char spec[PATH_MAX + 40];
	const char *file = letters_file(4);
	struct disk *d;

	snprintf(spec, sizeof(spec), "layers:[mem:,ro:mem:8K,file:%s]", file);
	d = opened(spec, 0);
	CHECK(disk_info(disk_child(d, 1))->flags & DISK_READ_ONLY);
	CHECK_EQ(value_at(d, 0, PAGE), 0); /* the disk above holds every block */
	put(d, PAGE, PAGE, 'w');
	CHECK_EQ(value_at(d, PAGE, PAGE), 'w');
	close_good(d);
}

static void test_write_through(void)
{
	char spec[PATH_MAX + 60];
	const char *file = letters_file(4);
	struct disk *d;

	snprintf(spec, sizeof(spec), "layers:[mem:;write_through,file:%s]", file);
	d = opened(spec, 0);
	CHECK(!(disk_info(d)->flags & DISK_VOLATILE));
	CHECK_EQ(value_at(d, PAGE, PAGE), 'B');
	put(d, PAGE, PAGE, 'w');
	close_good(d);
	snprintf(spec, sizeof(spec), "layers:[file:%s]", file);
	d = opened(spec, OPEN_READ_ONLY);
	CHECK_EQ(value_at(d, PAGE, PAGE), 'w');
	CHECK_EQ(value_at(d, 2 * PAGE, PAGE), 'C');
	close_good(d);
}

static uint64_t reads_of(struct disk *d)
{
	struct stat_totals t;

	disk_stats(d, &t);
	return t.started[STAT_READ];
}

/* Through any number of layers above and below it the cache is asked first, and the base once for each page. */
static void test_read_cache(void)
{
	static const char *const stacks[] = {
		"layers:[mem:,mem:;read_cache,file:%s]",
		"layers:[mem:;read_cache,file:%s]",
		"layers:[mem:,mem:,mem:;read_cache,mem:,file:%s]",
		"memdiff:memdiff:layers:[mem:,mem:;read_cache,file:%s]",
	};
	const char *file = letters_file(8);

	for (unsigned i = 0; i < sizeof(stacks) / sizeof(*stacks); i++) {
		char spec[PATH_MAX + 80];
		struct disk *d;
		snprintf(spec, sizeof(spec), stacks[i], file);
		d = opened(spec, i == 1 ? OPEN_READ_ONLY : 0);
		for (unsigned round = 0; round < 5; round++)
			for (unsigned page = 0; page < 8; page++)
				CHECK_EQ(value_at(d, page * PAGE, PAGE), 'A' + (int)page);
		CHECK_EQ(reads_of(disk_child(d, 0)), 8);
		close_good(d);
	}
}

/* A cache in a database is filled once, in a disk that is written and in one opened read-only, and is there again. */
static void test_cache_in_a_database(void)
{
	char made[2 * PATH_MAX], again[2 * PATH_MAX];
	const char *file = letters_file(8), *database = tmppath("cache.db");
	struct disk *d;

	snprintf(made, sizeof(made), "layers:[mem:,sql:%s;create;read_cache,file:%s]", database, file);
	snprintf(again, sizeof(again), "layers:[mem:,sql:%s;read_cache,file:%s]", database, file);
	refused(again, 0, -ENOENT, "add ;create to make it");
	d = opened(made, 0);
	put(d, PAGE, PAGE, 'w');
	for (unsigned page = 0; page < 6; page++)
		CHECK_EQ(value_at(d, page * PAGE, PAGE), page == 1 ? 'w' : 'A' + (int)page);
	close_good(d);
	d = opened(again, OPEN_READ_ONLY);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned page = 0; page < 8; page++)
			CHECK_EQ(value_at(d, page * PAGE, PAGE), 'A' + (int)page);
	CHECK_EQ(reads_of(disk_child(d, 0)), 3); /* pages 1, 6, 7: 'w' stayed in memory above the cache */
	close_good(d);
	d = opened(again, 0);
	for (unsigned page = 0; page < 8; page++)
		CHECK_EQ(value_at(d, page * PAGE, PAGE), 'A' + (int)page);
	CHECK_EQ(reads_of(disk_child(d, 0)), 0);
	close_good(d);
}

/* The layers of a database are written as the place in the stack says. */
static void test_database_in_a_stack(void)
{
	char spec[2 * PATH_MAX];
	const char *file = letters_file(8), *database = tmppath("top.db");
	struct disk *d;

	snprintf(spec, sizeof(spec), "layers:[sql:%s;create;write_through,file:%s]", database, file);
	d = opened(spec, 0);
	put(d, 2 * PAGE, PAGE, 'w');
	close_good(d);
	snprintf(spec, sizeof(spec), "layers:[mem:,sql:%s]", database);
	d = opened(spec, 0);
	CHECK_EQ(disk_size(d), 8 * PAGE);
	CHECK_EQ(value_at(d, 2 * PAGE, PAGE), 'w');
	CHECK_EQ(value_at(d, 3 * PAGE, PAGE), 0);
	put(d, 2 * PAGE, PAGE, 'x');
	close_good(d);
	snprintf(spec, sizeof(spec), "sql:%s", database);
	d = opened(spec, 0);
	CHECK_EQ(value_at(d, 2 * PAGE, PAGE), 'w');
	close_good(d);
	refused("sql:/no/such;create", 0, -EINVAL, "the size is missing (create=SIZE)");
	refused("layers:[sql:/no/such;create]", 0, -EINVAL, "layer 0: sql: the size is missing");
}

static void test_errors_name_the_layer(void)
{
	refused("layers:[mem:,mem:]", 0, -EINVAL, "layers: layer 1: mem: the size is missing");
	refused("layers:[mem:,file:/no/such/file]", 0, -ENOENT, "layers: layer 1: file: ");
	refused("layers:[mem:1000,mem:1M]", 0, -EINVAL, "layers: layer 0: mem: size of 1000 bytes is not a multiple");
	refused("layers:[mem:;block=4K,mem:1M]", 0, -EINVAL,
		"layers: layer 0 (ram) has blocks of 4096 bytes, the bottom layer of 512");
	refused("layers:[mem:,ro:mem:1M;read_cache,mem:1M]", 0, -EINVAL, "layer 1 (disk) cannot be a read cache");
	refused("layers:[mem:1M;read_cache]", 0, -EINVAL, "layer 0 (ram): nothing below it to cache");
	refused("layers:[mem:,mem:1M;write_through]", 0, -EINVAL, "layer 1 (ram): nothing to write through to");
	refused("layers:[mem:;write_through,ro:mem:1M]", 0, -EROFS, "layer 1 (disk) is read-only, the disk is not");
	refused("layers:[null:1M,null:1M,mem:1]", 0, -EINVAL, "");
	refused("mem:", 0, -EINVAL, "mem: the size is missing (mem:SIZE)");
}

/* What was made for a stack that cannot be opened whole is gone again. */
static void test_nothing_is_left_of_a_failure(void)
{
	char spec[PATH_MAX + 80];
	const char *name = tmppath("created");
	struct stat st;

	snprintf(spec, sizeof(spec), "layers:[mem:;write_through,mem:;block=4K;write_through,file:%s;create=1M]", name);
	refused(spec, 0, -EINVAL, "layer 0 (ram) has blocks of 4096 bytes");
	CHECK_EQ(stat(name, &st), -1);
}

static void test_thousand_layers(void)
{
	static char spec[1000 * 6 + PATH_MAX];
	const char *file = letters_file(16);
	size_t used = (size_t)snprintf(spec, sizeof(spec), "layers:[");
	struct disk *d;

	for (unsigned i = 0; i < 999; i++)
		used += (size_t)snprintf(spec + used, sizeof(spec) - used, "mem:,");
	snprintf(spec + used, sizeof(spec) - used, "file:%s]", file);
	d = opened(spec, 0);
	put(d, 3 * PAGE + 512, 512, 'w');
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(value_at(d, 3 * PAGE + 512, 512), 'w');
		CHECK_EQ(value_at(d, 3 * PAGE + 1024, 3 * 1024), 'D');
		for (unsigned page = 4; page < 16; page++)
			CHECK_EQ(value_at(d, page * PAGE, PAGE), 'A' + (int)page);
	}
	close_good(d);
}

/* ------------------------------------------------------------------ owners */

static void test_owners_table(void)
{
	static const uint64_t pages[] = {0, 1, 1 << 20, (UINT64_C(1) << 51) - 1};
	struct owners o;

	CHECK_EQ(owners_create(&o, 12), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(owners_find(&o, pages[i], owners_epoch(&o)), OWNER_UNKNOWN);
	for (unsigned i = 0; i < 4; i++) {
		owners_note(&o, pages[i], owners_epoch(&o), 4096 - i);
		CHECK_EQ(owners_find(&o, pages[i], owners_epoch(&o)), 4096 - i);
	}
	CHECK_EQ(owners_find(&o, 0, owners_epoch(&o)), OWNER_UNKNOWN); /* another page took the place */
	owners_void(&o);
	CHECK_EQ(owners_find(&o, 1, owners_epoch(&o)), OWNER_UNKNOWN);
	owners_note(&o, 1, owners_epoch(&o) - 1, 7); /* by somebody who began before */
	CHECK_EQ(owners_find(&o, 1, owners_epoch(&o)), OWNER_UNKNOWN);
	owners_destroy(&o);
}

/* When the epochs are used up nothing is remembered, and nothing of the first one comes back. */
static void test_owners_epochs_run_out(void)
{
	struct owners o;

	CHECK_EQ(owners_create(&o, 12), 0);
	owners_note(&o, 5, owners_epoch(&o), 3);
	for (unsigned i = 0; i < OWNER_LAST_EPOCH + 10; i++)
		owners_void(&o);
	CHECK_EQ(owners_find(&o, 5, owners_epoch(&o)), OWNER_UNKNOWN);
	owners_note(&o, 5, owners_epoch(&o), 3);
	CHECK_EQ(owners_find(&o, 5, owners_epoch(&o)), OWNER_UNKNOWN);
	owners_destroy(&o);
}

/* RAM layers over a trap, top first. */
static struct disk *stack_over(struct trap *base, unsigned layers)
{
	struct layer_place places[16];
	struct disk *below = &base->disk, *d = NULL;

	for (unsigned i = 0; i < layers; i++)
		places[i] = (struct layer_place){.layer = ram_layer_create(disk_size(below), 512, 0)};
	places[layers] = (struct layer_place){.layer = disk_layer_create(below)};
	CHECK_EQ(layered_create("stack", places, layers + 1, &below, 1, 0, &d, NULL), 0);
	return d;
}

/* An error of the base is one read's error, whether the page's owner was known or not. */
static void test_errors_are_not_tried_away(void)
{
	struct trap *base = trap_create(&(struct trap_options){0});
	struct disk *d = stack_over(base, 5);

	for (unsigned round = 0; round < 3; round++) {
		trap_fail(base, 1u << TRAP_READ, 1, -ENODATA);
		CHECK_EQ(value_at(d, 8 * PAGE, PAGE), -2);
		CHECK_EQ(value_at(d, 8 * PAGE, PAGE), 0);
	}
	close_good(d);
}

/* The base changes its size under the stack while owners are remembered. */
static void test_base_that_changes_its_size(void)
{
	struct trap *base = trap_create(&(struct trap_options){0});
	struct disk *d = stack_over(base, 5);
	uint64_t size = disk_size(d);

	memset(base->content, 'b', base->capacity);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(value_at(d, size - 2 * PAGE, 2 * PAGE), 'b');
		disk_set_size(&base->disk, size - PAGE);
		CHECK_EQ(value_at(d, size - 2 * PAGE, PAGE), 'b');
		CHECK_EQ(value_at(d, size - PAGE, PAGE), 0);
		disk_set_size(&base->disk, size);
	}
	close_good(d);
}

/* Pages nobody holds are remembered as such until the base grows over them. */
static void test_end_of_the_stack(void)
{
	struct trap *base = trap_create(&(struct trap_options){0});
	struct layer_place places[4] = {0};
	struct disk *below = &base->disk, *d = NULL;
	uint64_t size = disk_size(below);

	memset(base->content, 'b', base->capacity);
	for (unsigned i = 0; i < 3; i++)
		places[i].layer = ram_layer_create(size, 512, 0);
	places[3].layer = disk_layer_create(below);
	disk_set_size(below, PAGE);
	REQUIRE(!layered_create("stack", places, 4, &below, 1, 0, &d, NULL));
	for (unsigned round = 0; round < 3; round++)
		CHECK_EQ(value_at(d, PAGE, 4 * PAGE), 0);
	disk_set_size(below, size);
	CHECK_EQ(value_at(d, PAGE, 4 * PAGE), 'b');
	close_good(d);
}

/* A hundred layers with random blocks of all sizes against a flat model, read again and again by threads of the caller. */
static void test_random_deep_stack(void)
{
	enum { LAYERS = 100, SIZE = 1 << 20 };
	static struct layer_place places[LAYERS];
	struct random r = random_stream(4);
	struct disk *d = NULL;
	struct model m;

	model_make(&m, SIZE, 512);
	for (unsigned i = LAYERS; i-- > 0;) {
		places[i].layer = ram_layer_create(SIZE, 512, 0);
		for (unsigned n = 0; n < 6; n++) {
			uint64_t length = (1 + random_below(&r, 40)) * 512, offset = random_below(&r, (SIZE - length) / 512) * 512;
			random_fill(&r, m.bytes + offset, length);
			if (random_once_in(&r, 5))
				memset(m.bytes + offset, 0, length);
			CHECK_EQ(places[i].layer->ops->write(places[i].layer, &VEC_FLAT(m.bytes + offset, length), offset,
							     &io_plain), 0);
		}
	}
	REQUIRE(!layered_create("stack", places, LAYERS, NULL, 0, 0, &d, NULL));
	for (unsigned i = 0; i < 4000 / contract_slowness() && !tap_errors; i++) {
		uint64_t length = (1 + random_below(&r, 64)) * 512, offset = random_below(&r, (SIZE - length) / 512) * 512;
		CHECK(model_agrees(&m, d, offset, length));
		if (!random_once_in(&r, 20))
			continue;
		random_fill(&r, m.bytes + offset, length);
		CHECK_EQ(disk_write(d, &VEC_FLAT(m.bytes + offset, length), offset, &io_plain), 0);
	}
	close_good(d);
	model_free(&m);
}

int main(void)
{
	TAP_RUN(test_opens_from_the_bottom_up);
	TAP_RUN(test_sizes_of_members);
	TAP_RUN(test_only_the_top_is_written);
	TAP_RUN(test_write_through);
	TAP_RUN(test_read_cache);
	TAP_RUN(test_cache_in_a_database);
	TAP_RUN(test_database_in_a_stack);
	TAP_RUN(test_errors_name_the_layer);
	TAP_RUN(test_nothing_is_left_of_a_failure);
	TAP_RUN(test_thousand_layers);
	TAP_RUN(test_owners_table);
	TAP_RUN(test_owners_epochs_run_out);
	TAP_RUN(test_errors_are_not_tried_away);
	TAP_RUN(test_base_that_changes_its_size);
	TAP_RUN(test_end_of_the_stack);
	TAP_RUN(test_random_deep_stack);
	return TAP_DONE();
}

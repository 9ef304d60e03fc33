/* SPDX-License-Identifier: BSD-3-Clause */
/* autocache: what it serves is what the source holds, whatever was done to its files; a changed source gets a fresh cache. */
#include <pthread.h>
#include <sys/wait.h>

#include "core/wait.h"
#include "tests/autocache.h"
#include "tests/contract.h"
#include "tests/loops.h"
#include "tests/trap.h"

/* ------------------------------------------------------------------ keeping */

static void test_a_warm_start_reads_nothing_below(void)
{
	struct image m;
	struct disk *d;

	use_root("warm");
	image_make(&m, "image", IMAGE_SIZE, 1);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), IMAGE_SIZE);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), IMAGE_SIZE); /* at once, too */
	close_good(d);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK(agrees(d, &m, 0, m.size, 4096));
	CHECK_EQ(read_below(d), 0);
	CHECK_EQ(told(d, "hit_bytes"), 2 * IMAGE_SIZE);
	CHECK_EQ(told(d, "missed_bytes"), 0);
	CHECK_EQ(told(d, "dropped_blocks"), 0);
	CHECK_EQ(told(d, "failed_reads") + told(d, "failed_writes"), 0);
	CHECK_STR(told_text(d, "state"), "filling");
	close_good(d);
	image_free(&m);
}

/* Sector by sector, in any order: in the end each is there, and was read once. */
static void test_single_sectors(void)
{
	uint64_t sectors = 300, order[300];
	struct random r = random_stream(2);
	struct image m;
	struct disk *d;

	use_root("sectors");
	image_make(&m, "image", sectors * 512, 2);
	for (uint64_t i = 0; i < sectors; i++) {
		uint64_t other = random_below(&r, i + 1);
		order[i] = order[other];
		order[other] = i;
	}
	d = open_cache("", &m);
	for (uint64_t i = 0; i < sectors; i++) {
		CHECK(agrees(d, &m, order[i] * 512, 512, 512));
		CHECK(agrees(d, &m, order[i] * 512, 512, 512));
	}
	CHECK_EQ(read_below(d), sectors * 512);
	close_good(d);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK(agrees(d, &m, 0, m.size, 1536));
	CHECK_EQ(read_below(d), 0);
	CHECK_EQ(told(d, "dropped_blocks"), 0);
	close_good(d);
	image_free(&m);
}

/* Zero blocks are known without data, and extents say so. */
static void test_zeroes_take_no_data(void)
{
	CLEANUP_EXTENTS struct extents e;
	struct image m;
	struct stat st;
	struct disk *d;
	int fd;

	use_root("zeroes");
	image_make(&m, "image", 4 * MIB, 3);
	memset(m.bytes, 0, m.size);
	image_rewrite(&m);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	fd = cache_file(d, "data", O_RDONLY);
	CHECK(!fstat(fd, &st) && st.st_blocks == 0);
	close(fd);
	extents_init(&e, 0, m.size, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].flags, EXTENT_ZERO | EXTENT_HOLE);
	close_good(d);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), 0);
	close_good(d);
	image_free(&m);
}

static void test_it_is_read_only(void)
{
	struct image m;
	struct disk *d;
	char block[512] = "";

	use_root("read-only-disk");
	image_make(&m, "image", 65536, 4);
	d = open_cache("", &m);
	CHECK(disk_info(d)->flags & DISK_READ_ONLY);
	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 512), 0, &io_plain), -EROFS);
	CHECK_EQ(disk_write_zeroes(d, 0, 512, &io_plain), -EROFS);
	CHECK_EQ(disk_flush(d, &io_plain), 0);
	close_good(d);
	image_free(&m);
}

/* The writable form is one stack, and the cache does not get what is written. */
static void test_memdiff_over_it(void)
{
	struct image m;
	struct disk *d;
	char spec[600], block[4096], back[4096];
	json_t *all;

	use_root("memdiff");
	image_make(&m, "image", MIB, 5);
	snprintf(spec, sizeof(spec), "memdiff:autocache::file:%s", m.path);
	d = open_spec(spec);
	all = disk_describe(d);
	CHECK_EQ(json_array_size(json_object_get(all, "layers")), 3);
	json_decref(all);
	memset(block, 'w', sizeof(block));
	CHECK(all_agrees(d, &m));
	CHECK_EQ(disk_write(d, &VEC_FLAT(block, 4096), 8192, &io_plain), 0);
	CHECK_EQ(disk_read(d, &VEC_FLAT(back, 4096), 8192, &io_plain), 0);
	CHECK_MEM(back, block, 4096);
	CHECK_EQ(read_below(d), MIB);
	close_good(d);
	d = open_spec(spec);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), 0);
	close_good(d);
	image_free(&m);
}

/* ------------------------------------------------------------------ many at once */

struct readers {
	struct disk *disk;
	const struct image *image;
	_Atomic uint64_t stream;
	unsigned rounds;
};

static void read_some(void *argument)
{
	struct readers *all = argument;
	struct random r = random_stream(100 + atomic_fetch_add(&all->stream, 1));
	const struct model whole = {.size = all->image->size, .block = 512};
	static const unsigned most = 300000;
	char *copy = malloc(most);

	for (unsigned i = 0; i < all->rounds; i++) {
		uint64_t offset, length;
		struct scatter s;
		model_range(&whole, &r, most, &offset, &length);
		scatter_make(&s, &r, length);
		if (CHECK_EQ(disk_read(all->disk, &s.vec, offset, &io_plain), 0)) {
			scatter_get(&s, copy);
			CHECK_MEM(copy, all->image->bytes + offset, length);
			CHECK(scatter_guarded(&s));
		}
		scatter_free(&s);
	}
	free(copy);
}

static void *read_some_in_thread(void *argument)
{
	read_some(argument);
	return NULL;
}

static void *read_some_in_fibers(void *argument)
{
	run_fibers(&mode_ring, 8, read_some, argument);
	return NULL;
}

/* Threads and the fibers of two loops, with scattered memory. */
static void read_at_once(struct disk *d, const struct image *m, unsigned n)
{
	struct readers all = {.disk = d, .image = m, .rounds = rounds(n)};
	pthread_t threads[4], loops[2];

	threads_start(threads, 4, read_some_in_thread, &all);
	threads_start(loops, 2, read_some_in_fibers, &all);
	threads_join(threads, 4);
	threads_join(loops, 2);
}

static void test_many_readers(void)
{
	struct image m;
	struct disk *d;

	use_root("many");
	image_make(&m, "image", IMAGE_SIZE, 6);
	for (int warm = 0; warm < 2; warm++) {
		d = open_cache("", &m);
		read_at_once(d, &m, 120);
		CHECK_EQ(told(d, "dropped_blocks"), 0);
		CHECK_EQ(told(d, "failed_reads") + told(d, "failed_writes"), 0);
		close_good(d);
	}
	image_free(&m);
}

/* So little room that it evicts all the time, under readers that find what is being evicted. */
static void test_many_readers_with_little_room(void)
{
	struct image m;
	struct disk *d;
	uint64_t used;

	use_root("little");
	image_make(&m, "image", 9 * MIB, 7);
	d = open_cache(";max=2M", &m);
	read_at_once(d, &m, 120);
	CHECK(all_agrees(d, &m));
	CHECK(told(d, "evictions") > 0);
	CHECK(told(d, "evicted_bytes") > 0);
	used = told(d, "cached_bytes");
	CHECK(used <= 4 * MIB); /* so much may be under way */
	CHECK(all_agrees(d, &m));
	close_good(d);
	d = open_cache(";max=2M", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	image_free(&m);
}

/* Entries of two openings of one cache, in pages of the index that both have, meet in the file. */
static void test_two_openings(void)
{
	struct image m;
	struct disk *a, *b;

	use_root("two");
	image_make(&m, "image", IMAGE_SIZE, 8);
	a = open_cache("", &m);
	b = open_cache("", &m);
	CHECK_STR(told_text(a, "state"), "filling");
	CHECK(agrees(a, &m, 0, 3 * MIB, 65536));
	CHECK(agrees(b, &m, 2 * MIB, m.size - 2 * MIB, 65536));
	close_good(a);
	close_good(b);
	a = open_cache("", &m);
	CHECK(all_agrees(a, &m));
	CHECK_EQ(read_below(a), 0);
	close_good(a);
	image_free(&m);
}

/* What one opening has written down another finds, a second later. */
static void test_the_other_one_is_noticed(void)
{
	struct image m;
	struct disk *a, *b;

	use_root("noticed");
	image_make(&m, "image", MIB, 9);
	b = open_cache("", &m);
	CHECK(agrees(b, &m, 0, 4096, 4096)); /* has the page in memory */
	a = open_cache("", &m);
	CHECK(all_agrees(a, &m));
	close_good(a);
	wait_sleep(1100000000);
	CHECK(all_agrees(b, &m));
	CHECK_EQ(read_below(b), 4096);
	close_good(b);
	image_free(&m);
}

/* ------------------------------------------------------------------ damage */

static void flip_some(struct disk *d, const char *name, struct random *r, unsigned n)
{
	int fd = cache_file(d, name, O_RDWR);
	struct stat st;
	unsigned char c;

	CHECK_EQ(fstat(fd, &st), 0);
	for (unsigned i = 0; i < n && st.st_size; i++) {
		off_t at = (off_t)random_below(r, (uint64_t)st.st_size);
		if (pread(fd, &c, 1, at) != 1)
			continue;
		c ^= (unsigned char)(1 + random_below(r, 255));
		CHECK_EQ(pwrite(fd, &c, 1, at), 1);
	}
	close(fd);
}

/* Data and index, while it is open and while it is closed. The bytes are right, and afterwards all is whole again. */
static void test_flipped_bytes(void)
{
	static const char *const files[] = {"data", "index", "recency"};
	struct random r = random_stream(10);
	struct image m;
	struct disk *d;

	use_root("flipped");
	image_make(&m, "image", IMAGE_SIZE, 10);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	for (unsigned i = 0; i < rounds(12); i++) {
		d = open_cache("", &m);
		if (i % 2)
			CHECK(agrees(d, &m, 0, m.size, 65536)); /* the index is in memory then */
		flip_some(d, files[i % 3], &r, 40);
		CHECK(all_agrees(d, &m));
		CHECK(agrees(d, &m, 0, m.size, 1536));
		if (i % 3 == 0)
			CHECK(told(d, "dropped_blocks") > 0);
		close_good(d);
		for (unsigned again = 0; again < 2; again++) { /* an index that was in memory is looked at only now */
			d = open_cache("", &m);
			CHECK(all_agrees(d, &m));
			if (again)
				CHECK_EQ(told(d, "dropped_blocks"), 0);
			close_good(d);
		}
	}
	image_free(&m);
}

/* Is a file of this name in a folder of this name mapped into this process? */
static bool is_mapped(const char *folder, const char *name)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[1000], path[800];
	bool found = false;

	snprintf(path, sizeof(path), "%s/%s\n", folder, name);
	while (maps && fgets(line, sizeof(line), maps))
		found = found || strstr(line, path);
	if (maps)
		fclose(maps);
	return found;
}

/* What was read before comes from a mapping, which others may spoil, punch, and cut off under us. */
static void test_mapped(void)
{
	struct random r = random_stream(17);
	struct image m;
	struct disk *d;
	int fd;

	use_root("mapped");
	image_make(&m, "image", IMAGE_SIZE, 17);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m)); /* fills */
	CHECK(all_agrees(d, &m)); /* reads */
	CHECK(!is_mapped(told_text(d, "folder"), "data"));
	for (unsigned i = 0; i < rounds(6); i++) {
		CHECK(all_agrees(d, &m));
		CHECK(is_mapped(told_text(d, "folder"), "data"));
		CHECK(agrees(d, &m, 0, m.size, 4096));
		flip_some(d, "data", &r, 20);
		CHECK(agrees(d, &m, 512, m.size - 512, 12288));
		CHECK(told(d, "dropped_blocks") > 0);
		CHECK(all_agrees(d, &m));
		CHECK(all_agrees(d, &m));
		fd = cache_file(d, "data", O_RDWR);
		CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB, MIB), 0);
		CHECK(all_agrees(d, &m));
		CHECK(all_agrees(d, &m));
		CHECK_EQ(ftruncate(fd, (off_t)random_below(&r, m.size)), 0);
		CHECK(agrees(d, &m, 0, m.size, 65536));
		close(fd);
	}
	close_good(d);
	image_free(&m);
}

/* One flipped bit in an entry that is 0, or in one that says zero, is not believed either. */
static void test_every_bit_of_an_entry(void)
{
	struct image m;
	struct disk *d;

	use_root("bits");
	image_make(&m, "image", 8192, 11);
	memset(m.bytes, 'd', 4096);
	memset(m.bytes + 4096, 0, 4096);
	image_rewrite(&m);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	for (unsigned bit = 0; bit < 128; bit++) {
		unsigned char c, was;
		int fd;
		d = open_cache("", &m);
		fd = cache_file(d, "index", O_RDWR);
		CHECK_EQ(pread(fd, &was, 1, bit / 8), 1);
		c = was ^ (unsigned char)(1 << bit % 8);
		CHECK_EQ(pwrite(fd, &c, 1, bit / 8), 1);
		CHECK(all_agrees(d, &m));
		CHECK(read_below(d) > 0); /* it was found out */
		CHECK_EQ(pwrite(fd, &was, 1, bit / 8), 1);
		close(fd);
		close_good(d);
	}
	image_free(&m);
}

static void overwrite(struct disk *d, const char *name, unsigned char byte)
{
	int fd = cache_file(d, name, O_RDWR);
	static unsigned char garbage[65536];
	struct stat st;

	memset(garbage, byte, sizeof(garbage));
	CHECK_EQ(fstat(fd, &st), 0);
	for (off_t at = 0; at < st.st_size; at += sizeof(garbage))
		CHECK(pwrite(fd, garbage, sizeof(garbage), at) > 0);
	close(fd);
}

static void cut(struct disk *d, const char *name, off_t size)
{
	int fd = cache_file(d, name, O_RDWR);

	CHECK_EQ(ftruncate(fd, size), 0);
	close(fd);
}

/* What crashes and repair tools leave: files cut off, emptied, full of something else; pages swapped. */
static void test_ruined_files(void)
{
	struct image m;

	use_root("ruined");
	image_make(&m, "image", IMAGE_SIZE, 12);
	for (unsigned i = 0; i < 12; i++) {
		struct disk *d = open_cache("", &m);
		if (i % 2)
			CHECK(all_agrees(d, &m));
		switch (i % 6) {
		case 0:
			cut(d, "data", 1000001);
			break;
		case 1:
			cut(d, "data", 0);
			break;
		case 2:
			cut(d, "index", 4097);
			break;
		case 3:
			overwrite(d, "index", 0xff);
			break;
		case 4:
			overwrite(d, "index", 0);
			break;
		default:
			overwrite(d, "data", 0);
			break;
		}
		CHECK(all_agrees(d, &m));
		close_good(d);
	}
	image_free(&m);
}

/* Entries and data of one unit at the place of another: right there, wrong here. */
static void test_swapped_units(void)
{
	uint64_t entries[2];
	char units[2][4096];
	struct random r = random_stream(13);
	struct image m;
	struct disk *d;
	int data, index;

	use_root("swapped");
	image_make(&m, "image", 8192, 13);
	random_fill(&r, m.bytes, 8192);
	image_rewrite(&m);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	d = open_cache("", &m);
	data = cache_file(d, "data", O_RDWR);
	index = cache_file(d, "index", O_RDWR);
	CHECK_EQ(pread(data, units, 8192, 0), 8192);
	CHECK_EQ(pwrite(data, units[1], 4096, 0) + pwrite(data, units[0], 4096, 4096), 8192);
	CHECK_EQ(pread(index, entries, 16, 0), 16);
	CHECK_EQ(pwrite(index, &entries[1], 8, 0) + pwrite(index, &entries[0], 8, 8), 16);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(told(d, "dropped_blocks"), 2);
	close(data);
	close(index);
	close_good(d);
	image_free(&m);
}

/* The header damaged, cut, empty, gone: a fresh cache. */
static void test_damaged_header(void)
{
	struct image m;
	struct disk *d;

	const char *root = use_root("header");
	image_make(&m, "image", MIB, 14);
	for (unsigned i = 0; i < 5; i++) {
		char path[800];
		d = open_cache("", &m);
		CHECK(all_agrees(d, &m));
		CHECK_EQ(read_below(d), MIB); /* nothing old was used */
		snprintf(path, sizeof(path), "%s/header", told_text(d, "folder"));
		close_good(d);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		if (i < 3)
			CHECK_EQ(pwrite(fd, "X", 1, (off_t[]){0, 700, 4095}[i]), 1);
		else if (i == 3)
			CHECK_EQ(ftruncate(fd, 0), 0);
		else
			unlink(path);
		close(fd);
	}
	CHECK_EQ(count_entries(root, ".platter"), 0);
	image_free(&m);
}

/* Two pieces of the reader's memory are the same: the second spoils the first, as a guest may. The cache is not to blame. */
static void test_memory_that_changes(void)
{
	struct image m;
	struct disk *d;
	char unit[4096];
	const struct iovec twice[2] = {{unit, 4096}, {unit, 4096}};
	const struct vec v = {.iov = twice, .count = 2, .size = 8192};
	struct random r = random_stream(15);

	use_root("changing");
	image_make(&m, "image", 8192, 15);
	random_fill(&r, m.bytes, 8192);
	image_rewrite(&m);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	CHECK_EQ(disk_read(d, &v, 0, &io_plain), 0);
	CHECK_MEM(unit, m.bytes + 4096, 4096);
	CHECK_EQ(told(d, "dropped_blocks"), 0);
	CHECK_EQ(read_below(d), 8192);
	close_good(d);
	image_free(&m);
}

static void test_removed_while_open(void)
{
	struct image m;
	struct disk *d;
	char command[800];

	use_root("removed");
	image_make(&m, "image", MIB, 16);
	d = open_cache("", &m);
	CHECK(agrees(d, &m, 0, 65536, 65536));
	snprintf(command, sizeof(command), "rm -rf '%s'", told_text(d, "folder"));
	CHECK_EQ(system(command), 0);
	CHECK(all_agrees(d, &m));
	CHECK(all_agrees(d, &m));
	CHECK_EQ(read_below(d), MIB);
	close_good(d);
	d = open_cache("", &m);
	CHECK(all_agrees(d, &m));
	close_good(d);
	image_free(&m);
}

/* ------------------------------------------------------------------ other sources */

/* Opens with an explicit key, so that the name is the same, and expects that nothing old is used. */
static void expect_fresh(const struct image *m, const char *tail)
{
	char spec[700];
	struct disk *d;

	snprintf(spec, sizeof(spec), "autocache:key:file:%s%s", m->path, tail);
	d = open_spec(spec);
	CHECK(all_agrees(d, m));
	CHECK_EQ(read_below(d), m->size);
	close_good(d);
	d = open_spec(spec);
	CHECK(all_agrees(d, m));
	CHECK_EQ(read_below(d), 0);
	close_good(d);
}

static void test_a_changed_source(void)
{
	struct image m, other;
	struct stat st;

	const char *root = use_root("changed");
	image_make(&m, "image", MIB, 20);
	expect_fresh(&m, "");
	image_change(&m, 5000);
	expect_fresh(&m, "");
	CHECK_EQ(stat(m.path, &st), 0);
	image_change(&m, 6000);
	CHECK_EQ(utimensat(AT_FDCWD, m.path, (struct timespec[]){st.st_atim, st.st_mtim}, 0), 0);
	expect_fresh(&m, "");
	CHECK_EQ(utimensat(AT_FDCWD, m.path, NULL, 0), 0);
	expect_fresh(&m, "");
	expect_fresh(&m, ";block=4096");
	CHECK_EQ(truncate(m.path, MIB / 2), 0);
	m.size = MIB / 2;
	expect_fresh(&m, "");
	image_make(&other, "other", MIB / 2, 21);
	CHECK_EQ(rename(other.path, m.path), 0);
	memcpy(m.bytes, other.bytes, MIB / 2);
	expect_fresh(&m, "");
	CHECK_EQ(count_entries(root, ""), 2); /* the cache and the lock */
	image_free(&other);
	image_free(&m);
}

/* The same by identity: the name stays, so the old one goes. */
static void test_a_changed_source_without_key(void)
{
	struct image m;
	struct disk *d;

	const char *root = use_root("changed-2");
	image_make(&m, "image", MIB, 22);
	for (int i = 0; i < 3; i++) {
		image_change(&m, 4096);
		d = open_cache("", &m);
		CHECK(all_agrees(d, &m));
		CHECK_EQ(read_below(d), MIB);
		close_good(d);
		CHECK_EQ(count_entries(root, "@"), 1);
	}
	CHECK_EQ(count_entries(root, ""), 2);
	image_free(&m);
}

/* Who has the old one open goes on with it, and removes it when he is the last. */
static void test_the_old_one_is_used(void)
{
	struct image m, old;
	struct disk *a, *b;

	const char *root = use_root("old-used");
	image_make(&m, "image", MIB, 23);
	a = open_cache("k", &m);
	CHECK(all_agrees(a, &m));
	CHECK_EQ(unlink(m.path), 0); /* the old file lives on behind its descriptor */
	old = m;
	image_make(&m, "image", MIB, 24);
	b = open_cache("k", &m);
	CHECK(all_agrees(b, &m));
	CHECK(all_agrees(a, &old));
	CHECK_EQ(count_entries(root, ".platter-old"), 1);
	close_good(b);
	CHECK_EQ(count_entries(root, ".platter-old"), 1);
	CHECK(all_agrees(a, &old));
	close_good(a);
	CHECK_EQ(count_entries(root, ".platter-old"), 0);
	free(old.bytes);
	image_free(&m);
}

/* ------------------------------------------------------------------ sources of the test's own */

static struct identity trap_identity;

static void set_identity(const char *version)
{
	snprintf(trap_identity.name, sizeof(trap_identity.name), "trap");
	snprintf(trap_identity.version, sizeof(trap_identity.version), "%s", version);
}

static int give_identity(struct disk *d, struct identity *out)
{
	(void)d;
	*out = trap_identity;
	return 0;
}

/* Takes the place of the leaf in the spec. */
static int try_over(const char *text, struct disk *child, struct disk **out, struct error *err)
{
	CLEANUP_SPEC struct spec *spec = NULL;
	struct open_request request = {.children = &child};

	if (spec_parse(text, &spec, err))
		exit(99);
	request.spec = spec;
	return spec->kind->open(&request, out, err);
}

static struct disk *over(const char *text, struct disk *child)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (!CHECK_EQ(try_over(text, child, &d, &err), 0)) {
		tap_diag("%s", error_text(&err));
		exit(99);
	}
	return d;
}

static struct trap *make_trap(unsigned char content)
{
	struct trap *t = trap_create(&(const struct trap_options){.size = 65536});

	memset(t->content, content, 65536);
	t->disk.ops.identity = give_identity;
	return t;
}

/* The first byte of a block, or a failure. */
static int first_byte(struct disk *d, uint64_t offset)
{
	unsigned char unit[4096];
	int status = disk_read(d, &VEC_FLAT(unit, 4096), offset, &io_plain);

	return status ? status : unit[0];
}

/*
 * The source changes under us, and afterwards says that it is the old version again (as a file would not). What was filled
 * since the last good look must not be there.
 */
static void test_a_source_that_changes_while_open(void)
{
	struct trap *t = make_trap('a');
	struct disk *d;

	use_root("poison");
	set_identity("1");
	d = over("autocache::null:64K", &t->disk);
	CHECK_EQ(first_byte(d, 0), 'a');
	close_good(d);
	t = make_trap('a');
	d = over("autocache::null:64K", &t->disk);
	CHECK_EQ(first_byte(d, 0), 'a');
	CHECK_EQ(t->counts[TRAP_READ], 0); /* version 1 was kept */
	memset(t->content, 'b', 65536);
	set_identity("2");
	CHECK_EQ(first_byte(d, 8192), 'b'); /* goes into the cache's memory */
	close_good(d);
	set_identity("1");
	t = make_trap('c');
	d = over("autocache::null:64K", &t->disk);
	CHECK_EQ(first_byte(d, 0), 'a');
	CHECK_EQ(first_byte(d, 8192), 'c');
	CHECK_EQ(t->counts[TRAP_READ], 1);
	close_good(d);
}

/* ------------------------------------------------------------------ more pages of the index than are kept in memory */

#define HUGE_SIZE (UINT64_C(1) << 40)
#define FAR (UINT64_C(2048) << 21) /* so far apart, pages want the same set */

/* 1 TiB, of which the first 4 MiB hold something. */
static struct trap *make_huge(unsigned char content)
{
	struct trap *t = trap_create(&(const struct trap_options){.size = HUGE_SIZE});

	memset(t->content, content, t->capacity);
	t->disk.ops.identity = give_identity;
	return t;
}

/* One block in each of more chunks than there are pages: pages go, and come back with what was in them. */
static void test_pages_come_and_go(void)
{
	const unsigned chunks = rounds(20000);
	struct trap *t = make_huge('h');
	struct disk *d;

	use_root("pages");
	set_identity("1");
	d = over("autocache::null:64K", &t->disk);
	for (unsigned twice = 0; twice < 2; twice++) {
		for (uint64_t i = 0; i < chunks; i++)
			if (!CHECK_EQ(first_byte(d, i << 21), i < 2 ? 'h' : 0))
				break;
		CHECK_EQ(t->counts[TRAP_READ], chunks);
	}
	CHECK_EQ(told(d, "dropped_blocks"), 0);
	close_good(d);
	t = make_huge('h');
	d = over("autocache::null:64K", &t->disk);
	for (uint64_t i = 0; i < chunks; i += 97)
		CHECK_EQ(first_byte(d, i << 21), i < 2 ? 'h' : 0);
	CHECK_EQ(t->counts[TRAP_READ], 0);
	close_good(d);
}

/* Extents of all of it at once: what is known is found, in memory and in the file, and the rest is passed over. */
static void test_extents_of_a_huge_disk(void)
{
	const uint64_t known = UINT64_C(700) << 30;
	struct disk *d;

	use_root("huge");
	set_identity("1");
	for (int warm = 0; warm < 2; warm++) {
		CLEANUP_EXTENTS struct extents e;
		struct trap *t = make_huge('h');
		d = over("autocache::null:64K", &t->disk);
		CHECK_EQ(first_byte(d, known), 0);
		CHECK_EQ(first_byte(d, 0), 'h');
		extents_init(&e, 0, HUGE_SIZE, SIZE_MAX);
		CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
		CHECK_EQ(e.count, 3);
		CHECK_EQ(e.list[1].offset, known);
		CHECK_EQ(e.list[1].length, 4096);
		CHECK_EQ(e.list[1].flags, EXTENT_ZERO | EXTENT_HOLE);
		CHECK_EQ(t->counts[TRAP_READ], warm ? 0 : 2);
		close_good(d);
	}
}

/* A page that leaves the memory is written down only if the source is the same. */
static void test_a_page_that_goes_after_a_change(void)
{
	struct trap *t = make_huge('a');
	struct disk *d;

	use_root("pages-changed");
	set_identity("1");
	d = over("autocache::null:64K", &t->disk);
	memset(t->content, 'b', t->capacity);
	set_identity("2");
	CHECK_EQ(first_byte(d, 0), 'b');
	for (uint64_t i = 1; i < 12; i++)
		CHECK_EQ(first_byte(d, i * FAR), 0);
	CHECK_STR(told_text(d, "state"), "off: the source has changed");
	close_good(d);
	set_identity("1");
	t = make_huge('c');
	d = over("autocache::null:64K", &t->disk);
	CHECK_EQ(first_byte(d, 0), 'c');
	close_good(d);
}

static void set_id(struct trap *t, unsigned char byte)
{
	t->disk.info.flags |= DISK_HAS_ID;
	memset(t->disk.info.id, byte, 16);
}

/* An id names the cache, and is all that is needed. */
static void test_ids(void)
{
	struct disk *d;

	const char *root = use_root("ids");
	for (int i = 0; i < 4; i++) {
		struct trap *t = trap_create(&(const struct trap_options){.size = 65536});
		memset(t->content, 'a' + i / 2, 65536);
		set_id(t, (unsigned char)(0xa0 + i / 2));
		d = over("autocache::null:64K", &t->disk);
		CHECK_EQ(first_byte(d, 4096), 'a' + i / 2);
		CHECK_EQ(t->counts[TRAP_READ], i % 2 ? 0 : 1);
		CHECK(disk_info(d)->flags & DISK_HAS_ID);
		close_good(d);
	}
	CHECK_EQ(count_entries(root, "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0.platter"), 1);
	CHECK_EQ(count_entries(root, "a1a1"), 1);
	/* the same key, another id */
	for (int i = 0; i < 2; i++) {
		struct trap *t = trap_create(&(const struct trap_options){.size = 65536});
		memset(t->content, 'x' + i, 65536);
		set_id(t, (unsigned char)i);
		d = over("autocache:same:null:64K", &t->disk);
		CHECK_EQ(first_byte(d, 0), 'x' + i);
		close_good(d);
	}
}

static void test_nothing_to_know_it_by(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	use_root("nothing");
	CHECK_EQ(disk_open("autocache::mem:1M", 0, &d, &err), -EINVAL);
	CHECK_STR(error_text(&err), "autocache: the disk below (mem) has neither an id nor an identity to know it again by "
				    "(give a key of your own: autocache:KEY:SPEC, another one for each content)");
	d = open_spec("autocache:mine:mem:1M");
	CHECK_EQ(first_byte(d, 0), 0);
	close_good(d);
}

/* An error of the source is the reader's, and nothing is kept of it. */
static void test_a_failing_source(void)
{
	struct trap *t = trap_create(&(const struct trap_options){.size = 65536});
	struct disk *d;

	use_root("failing");
	set_id(t, 1);
	memset(t->content, 'f', 65536);
	d = over("autocache::null:64K", &t->disk);
	trap_fail(t, 1u << TRAP_READ, 1, -ENODATA);
	CHECK_EQ(first_byte(d, 0), -ENODATA);
	CHECK_EQ(first_byte(d, 0), 'f');
	CHECK_EQ(first_byte(d, 0), 'f');
	CHECK_EQ(t->counts[TRAP_READ], 2);
	close_good(d);
}

int main(void)
{
	TAP_RUN(test_a_warm_start_reads_nothing_below);
	TAP_RUN(test_single_sectors);
	TAP_RUN(test_zeroes_take_no_data);
	TAP_RUN(test_it_is_read_only);
	TAP_RUN(test_memdiff_over_it);
	TAP_RUN(test_many_readers);
	TAP_RUN(test_many_readers_with_little_room);
	TAP_RUN(test_two_openings);
	TAP_RUN(test_the_other_one_is_noticed);
	TAP_RUN(test_flipped_bytes);
	TAP_RUN(test_mapped);
	TAP_RUN(test_every_bit_of_an_entry);
	TAP_RUN(test_ruined_files);
	TAP_RUN(test_swapped_units);
	TAP_RUN(test_damaged_header);
	TAP_RUN(test_memory_that_changes);
	TAP_RUN(test_removed_while_open);
	TAP_RUN(test_a_changed_source);
	TAP_RUN(test_a_changed_source_without_key);
	TAP_RUN(test_the_old_one_is_used);
	TAP_RUN(test_a_source_that_changes_while_open);
	TAP_RUN(test_pages_come_and_go);
	TAP_RUN(test_extents_of_a_huge_disk);
	TAP_RUN(test_a_page_that_goes_after_a_change);
	TAP_RUN(test_ids);
	TAP_RUN(test_nothing_to_know_it_by);
	TAP_RUN(test_a_failing_source);
	return TAP_DONE();
}

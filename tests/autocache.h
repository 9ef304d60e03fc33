/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of autocache share: an image whose bytes are known, caches below the test's folder, what a cache tells of itself. */
#ifndef PLATTER_TESTS_AUTOCACHE_H
#define PLATTER_TESTS_AUTOCACHE_H

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "core/open.h"
#include "tests/model.h"
#include "tests/tap.h"

#define MIB (UINT64_C(1) << 20)

/* The last unit is not whole, and the last chunk neither. */
#define IMAGE_SIZE (5 * MIB + 3 * 4096 + 1536)

struct image {
	char path[300];
	uint64_t size;
	unsigned char *bytes;
};

/* Data, zeroes written out, and holes. */
TAP_UNUSED static void image_make(struct image *m, const char *name, uint64_t size, uint64_t stream)
{
	struct random r = random_stream(stream);
	int fd;

	snprintf(m->path, sizeof(m->path), "%s/%s", tmpdir(), name);
	m->size = size;
	m->bytes = calloc(1, size);
	unlink(m->path);
	fd = open(m->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (!m->bytes || fd < 0 || ftruncate(fd, (off_t)size))
		exit(99);
	for (uint64_t at = 0; at < size;) {
		uint64_t n = (random_below(&r, 40) + 1) * 2048, kind = random_below(&r, 4);
		n = n < size - at ? n : size - at;
		if (kind > 1)
			random_fill(&r, m->bytes + at, n);
		if (kind && pwrite(fd, m->bytes + at, n, (off_t)at) != (ssize_t)n)
			exit(99);
		at += n;
	}
	close(fd);
}

TAP_UNUSED static void image_free(struct image *m)
{
	unlink(m->path);
	free(m->bytes);
}

/* The file as the bytes are now. */
TAP_UNUSED static void image_rewrite(const struct image *m)
{
	int fd = open(m->path, O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, m->bytes, m->size, 0), (ssize_t)m->size);
	close(fd);
}

/* Changes one byte, in the file and in what is known. */
TAP_UNUSED static void image_change(struct image *m, uint64_t at)
{
	int fd = open(m->path, O_WRONLY | O_CLOEXEC);

	m->bytes[at] ^= 0x55;
	CHECK_EQ(pwrite(fd, m->bytes + at, 1, (off_t)at), 1);
	close(fd);
}

TAP_UNUSED static struct disk *open_spec(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (disk_open(spec, 0, &d, &err)) {
		tap_diag("%s", error_text(&err));
		CHECK(!"it opens");
		exit(99);
	}
	return d;
}

/* autocache:HEAD:file:IMAGE, with the root in the environment. */
TAP_UNUSED static struct disk *open_cache(const char *head, const struct image *m)
{
	char spec[1000];

	snprintf(spec, sizeof(spec), "autocache:%s:file:%s", head, m->path);
	return open_spec(spec);
}

TAP_UNUSED static void close_good(struct disk *d)
{
	CHECK_EQ(disk_close(d, NULL), 0);
}

/* A number that the layer at the top tells of itself. */
TAP_UNUSED static uint64_t told(struct disk *d, const char *name)
{
	json_t *all = disk_describe(d);
	json_t *layer = json_array_get(json_object_get(all, "layers"), 0);
	uint64_t n = (uint64_t)json_integer_value(json_object_get(layer, name));

	if (!json_is_integer(json_object_get(layer, name)))
		CHECK(!"it tells that number");
	json_decref(all);
	return n;
}

/* The same for a text; valid until the next call. */
TAP_UNUSED static const char *told_text(struct disk *d, const char *name)
{
	static char text[600];
	json_t *all = disk_describe(d);
	json_t *layer = json_array_get(json_object_get(all, "layers"), 0);

	snprintf(text, sizeof(text), "%s", json_string_value(json_object_get(layer, name)));
	json_decref(all);
	return text;
}

/* Bytes that were read from the disk below. */
TAP_UNUSED static uint64_t read_below(struct disk *d)
{
	struct stat_totals t;

	disk_stats(disk_child(d, 0), &t);
	return t.bytes[STAT_READ];
}

/* Reads the range in pieces of at most `piece` and compares. */
TAP_UNUSED static bool agrees(struct disk *d, const struct image *m, uint64_t offset, uint64_t length, size_t piece)
{
	unsigned char *memory = malloc(piece);
	bool good = memory != NULL;

	for (uint64_t at = offset; at < offset + length && good;) {
		size_t n = piece < offset + length - at ? piece : (size_t)(offset + length - at);
		memset(memory, 0xee, n);
		good = CHECK_EQ(disk_read(d, &VEC_FLAT(memory, n), at, &io_plain), 0) &&
		       CHECK_MEM(memory, m->bytes + at, n);
		if (!good)
			tap_diag("at %" PRIu64, at);
		at += n;
	}
	free(memory);
	return good;
}

TAP_UNUSED static bool all_agrees(struct disk *d, const struct image *m)
{
	return agrees(d, m, 0, m->size, 1 << 20);
}

/* A new empty root, for this and all later openings. */
TAP_UNUSED static const char *use_root(const char *name)
{
	const char *path = tmppath(name);

	setenv("PLATTER_AUTO_CACHE_PATH", path, 1);
	return path;
}

TAP_UNUSED static unsigned count_entries(const char *folder, const char *begin)
{
	DIR *dir = opendir(folder);
	struct dirent *e;
	unsigned count = 0;

	while (dir && (e = readdir(dir)))
		count += strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
			 !strncmp(e->d_name, begin, strlen(begin));
	if (dir)
		closedir(dir);
	return count;
}

/* A file of the cache that is open. */
TAP_UNUSED static int cache_file(struct disk *d, const char *name, int flags)
{
	char path[800];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", told_text(d, "folder"), name);
	fd = open(path, flags | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

#endif

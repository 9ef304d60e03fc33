/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as the database of an SQLite layer: it opens or not, and what it does then ends. Read-only it changes nothing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layers/sqlite-layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64], path[80];

static void clean_up(void)
{
	static const char *const endings[] = {"", "-wal", "-journal"};
	char name[96];

	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		unlink(name);
	}
	rmdir(folder);
}

static void write_file(const uint8_t *data, size_t size)
{
	FILE *f;

	if (!folder[0]) {
		snprintf(folder, sizeof(folder), "%s", "/tmp/fuzz-sqlite.XXXXXX");
		if (!mkdtemp(folder))
			abort();
		snprintf(path, sizeof(path), "%s/db", folder);
	}
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, size, f) != size)
		abort();
	fclose(f);
}

static void check_unchanged(const uint8_t *data, size_t size)
{
	uint8_t *now = malloc(size + 1);
	FILE *f = fopen(path, "r");

	if (!f || !now || fread(now, 1, size + 1, f) != size || memcmp(now, data, size)) {
		fprintf(stderr, "a read-only open has changed the file\n");
		abort();
	}
	fclose(f);
	free(now);
}

/* Some of it, from the beginning; a run is never empty nor longer than what was asked for. */
static void read_some(struct layer *l)
{
	static char bytes[65536];
	uint64_t size = l->ops->size(l), at = 0;

	for (unsigned i = 0; i < 64 && at < size; i++) {
		uint64_t n = size - at < sizeof(bytes) ? size - at : sizeof(bytes);
		struct layer_run run = {.length = 0};
		int status = i % 2 ? l->ops->read(l, &VEC_FLAT(bytes, n), at, &run, &io_plain)
				   : l->ops->map(l, at, size - at, &run, &io_plain);
		if (!status && (!run.length || run.length > size - at))
			abort();
		at += status || i % 2 == 0 ? n : run.length;
	}
}

static void change_some(struct layer *l)
{
	static const char bytes[65536] = {1};
	uint32_t block = l->info.block_size;
	uint64_t last = l->ops->size(l) - block;

	l->ops->write(l, &VEC_FLAT(bytes, block), 0, &io_plain);
	l->ops->write(l, &VEC_FLAT(bytes, block), last, &io_plain);
	l->ops->write_zeroes(l, last / 2 / block * block, block, true, &io_plain);
	l->ops->flush(l, &io_plain);
	l->ops->resize(l, block, &io_plain);
}

static void open_and_use(bool read_only)
{
	const struct sqlite_layer_options o = {.path = path, .read_only = read_only};
	CLEANUP_ERROR struct error err = {0};
	struct layer *l;

	if (sqlite_layer_open(&o, &l, &err)) {
		if (!err.text || !err.text[0])
			abort();
		return;
	}
	l->bottom = read_only;
	read_some(l);
	if (!(l->info.flags & DISK_READ_ONLY))
		change_some(l);
	l->ops->close(l, false, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	write_file(data, size);
	open_and_use(true);
	check_unchanged(data, size);
	open_and_use(false);
	clean_up();
	folder[0] = 0;
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A VHDX file with any damage, its checksums right: it opens or says why not, and what it does then ends, inside the file.
 *
 * Input: one byte of choices (bit 0: a child; bit 1: opened for writing; bit 2: checked and mended first; bit 3: checksums of the log are left
 * as they are; bit 4: those of headers and tables are), then patches of 16 bytes: structure (1), place in it (4), length (1), the
 * bytes (10). Structure 9 is the size of the file: the place in units of 512 bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/crc32c.h"
#include "formats/endian.h"
#include "formats/vhdx-format.h"
#include "formats/vhdx.h"
#include "tests/recorder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MIB (UINT64_C(1) << 20)
#define PATCH 16u
#define BYTES 10u

static const struct {
	uint64_t offset;
	uint32_t length;
} structures[] = {
	{0, 520},           {64 << 10, 80},         {128 << 10, 80},      {192 << 10, 16 + 3 * 32}, {256 << 10, 16 + 3 * 32},
	{2 * MIB, 32 + 8 * 32}, {2 * MIB + (64 << 10), 600}, {3 * MIB, 8 * 80}, {MIB, 64 << 10},
};

/* ------------------------------------------------------------------ a file to begin with */

static struct disk *disk_of(struct container *c, struct layer **layer)
{
	struct layer_place top = {0};
	struct disk *d = NULL;

	if (vhdx_layer_open(c, layer, NULL))
		return NULL;
	top.layer = *layer;
	if (layered_create("vhdx", &top, 1, NULL, 0, c->read_only, &d, NULL))
		abort();
	return d;
}

/* Some blocks, and a log that is not empty. */
static struct recorder *make_file(bool child)
{
	struct vhdx_create_options o = {.size = 60 * MIB, .block_size = MIB, .has_parent = child, .parent_relative = ".\\p.vhdx"};
	struct recorder *r = recorder_create("fuzz.vhdx"), *copy;
	static char data[8192] = "data";
	struct layer *l;
	struct disk *d;

	if (vhdx_create(recorder_container(r), &o, NULL))
		abort();
	recorder_begin(r);
	d = disk_of(recorder_container(r), &l);
	for (unsigned i = 0; i < 6; i++) {
		if (disk_write(d, &VEC_FLAT(data, sizeof(data)), i * 3 * MIB, &io_plain) || (i % 2 && disk_flush(d, &io_plain)))
			abort();
	}
	copy = recorder_cut(r, recorder_calls(r), UNFLUSHED_ANY, 1);
	disk_close(d, NULL);
	return copy;
}

/* ------------------------------------------------------------------ damage */

static void patch(struct container *c, const uint8_t *p)
{
	unsigned which = p[0] % 10;
	uint32_t place = le32_get(p + 1), length = p[5] % BYTES + 1;

	if (which == 9) {
		container_set_size(c, (uint64_t)(place % (1u << 16)) * 512, NULL);
		return;
	}
	place %= structures[which].length;
	container_store(c, p + 6, length, structures[which].offset + place, NULL);
}

static void mend(struct container *c, uint64_t offset, uint32_t length)
{
	uint8_t *data = malloc(length);

	if (!container_load(c, data, length, offset, NULL)) {
		le32_put(data + 4, 0);
		le32_put(data + 4, crc32c(0, data, length));
		container_store(c, data + 4, 4, offset + 4, NULL);
	}
	free(data);
}

static void mend_log(struct container *c)
{
	uint8_t head[12];

	for (uint64_t at = MIB; at < 2 * MIB; at += 4096)
		if (!container_load(c, head, sizeof(head), at, NULL) && !memcmp(head, "loge", 4) && le32_get(head + 8) >= 64 &&
		    le32_get(head + 8) <= MIB)
			mend(c, at, le32_get(head + 8));
}

static void mend_checksums(struct container *c, unsigned choices)
{
	if (!(choices & 8))
		mend_log(c);
	if (choices & 16)
		return;
	mend(c, 64 << 10, 4096);
	mend(c, 128 << 10, 4096);
	mend(c, 192 << 10, 64 << 10);
	mend(c, 256 << 10, 64 << 10);
}

/* ------------------------------------------------------------------ use */

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "not true: %s\n", what);
	abort();
}

static void check(struct container *c, bool repair)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_findings f;

	if (vhdx_check(c, repair, &f, &err))
		must(err.text != NULL, "there is a reason");
	vhdx_findings_free(&f);
}

static void use(struct disk *d)
{
	static char data[65536];
	CLEANUP_EXTENTS struct extents e = {0};
	uint64_t size = disk_size(d), end = size < 80 * MIB ? size : 80 * MIB, n = size < sizeof(data) ? size : sizeof(data);
	struct failure why = {0};
	int status;

	extents_init(&e, 0, end, 1000);
	disk_extents(d, &e, &io_plain);
	for (uint64_t at = 0; at + n <= end; at += 700 * 1024 / 4096 * 4096)
		disk_read(d, &VEC_FLAT(data, n), at, &io_plain);
	status = disk_read(d, &VEC_FLAT(data, n), size - n, &(struct io){.failure = &why});
	must(!status || why.text[0], "a failure has a reason");
	if (disk_info(d)->flags & DISK_READ_ONLY)
		return;
	memset(data, 'n', sizeof(data));
	for (uint64_t at = 0; at + n <= end; at += 2 * MIB) {
		status = disk_write(d, &VEC_FLAT(data, n), at, &io_plain);
		if (status || disk_flush(d, &io_plain))
			break;
		must(!disk_read(d, &VEC_FLAT(data, n), at, &io_plain) && data[0] == 'n' && data[n - 1] == 'n',
		     "what was written is read");
	}
	disk_discard(d, 0, end / 4096 * 4096, &io_plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned choices = size ? data[0] : 0;
	struct recorder *r = make_file(choices & 1);
	struct container *c = recorder_container(r);
	struct layer *l;
	struct disk *d;

	for (size_t at = 1; at + PATCH <= size && at < 40 * PATCH; at += PATCH)
		patch(c, data + at);
	mend_checksums(c, choices);
	recorder_begin(r);
	check(c, false);
	must(!recorder_calls(r), "a dry run changes nothing");
	if (choices & 4)
		check(c, true);
	recorder_set_read_only(r, !(choices & 2));
	d = disk_of(c, &l);
	if (d)
		use(d);
	if (d)
		disk_close(d, NULL);
	else
		container_close(c, false, NULL);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes as footer, header, BAT, bitmaps and locators of a VHD: it is opened or refused, read without leaving the file, and what a
 * repair has mended opens for writing and keeps what is written.
 *
 * Input: one byte of choices (bits 0 and 1: fixed, dynamic, differencing, or nothing but the patches; bit 2: checksums are made right;
 * bit 3: opened laxly; bit 4: a file of 4 GiB), then patches of 12 bytes: offset (4 bytes; the highest bit counts from the end), length
 * (1), and the bytes (7).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/node.h"
#include "formats/vhd-image.h"
#include "formats/vhd.h"
#include "tests/recorder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATCH 12u
#define MOST_READ (4u << 20)

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "not true: %s\n", what);
	abort();
}

/* Four blocks, one of which holds something, and a locator. */
static void begin(struct container *c, unsigned choices)
{
	static const enum vhd_type types[] = {VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING};
	const struct vhd_create_options o = {.type = types[choices & 3], .size = 400 * 512, .block_size = 65536, .exact = true};
	static const uint32_t entry = 0x0f000000; /* sector 15 */
	struct vhd_header h;

	must(!vhd_create(c, &o, NULL), "an image is made");
	if (o.type == VHD_FIXED)
		return;
	must(!container_read(c, &h, sizeof(h), 512, &io_plain), "it has a header");
	memcpy(h.locators[0].code, "W2ru", 4);
	h.locators[0].length = htobe32(10);
	h.locators[0].offset = htobe64(2048);
	vhd_header_seal(&h);
	must(!container_write(c, &h, sizeof(h), 512, &io_plain) && !container_write(c, &entry, 4, 1536, &io_plain) &&
		     !container_write(c, "p\0.\0v\0h\0d\0", 10, 2048, &io_plain) && !container_set_size(c, 16 * 512 + 65536, NULL),
	     "it is filled");
}

static void patch(struct container *c, const uint8_t *p)
{
	uint64_t size = container_size(c) + 1, at = (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)(p[3] & 0x7f) << 24;

	at = p[3] & 0x80 ? size - 1 - at % size : at % size;
	container_write(c, p + 5, p[4] % 8u, at, &io_plain);
}

/* Footers and headers as far as they are where they belong. */
static void seal(struct container *c)
{
	struct vhd_footer f;
	struct vhd_header h;
	uint64_t size = container_size(c);

	if (size < 2048)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (!container_read(c, &f, sizeof(f), i ? size - 512 : 0, &io_plain) && !memcmp(f.cookie, "conectix", 8)) {
			vhd_footer_seal(&f);
			container_write(c, &f, sizeof(f), i ? size - 512 : 0, &io_plain);
		}
	if (!container_read(c, &h, sizeof(h), 512, &io_plain) && !memcmp(h.cookie, "cxsparse", 8)) {
		vhd_header_seal(&h);
		container_write(c, &h, sizeof(h), 512, &io_plain);
	}
}

/* Some MiB of it, by runs. */
static void read_all(struct vhd *v)
{
	uint64_t size = atomic_load(&v->size);
	static unsigned char data[65536];
	struct vhd_run run;
	unsigned runs = 0;

	for (uint64_t at = 0; at < size && at < MOST_READ && runs < 4096; at += run.length, runs++) {
		if (vhd_find(v, at, size - at, &run, &io_plain))
			return;
		must(run.length && run.length <= size - at, "runs are inside the disk");
		if (run.presence == LAYER_DATA)
			container_read(v->c, data, run.length < sizeof(data) ? run.length : sizeof(data), run.at, &io_plain);
	}
}

static void look(struct recorder *r, const struct vhd_options *o)
{
	const struct vhd_open_options how = {.lax = o->lax};
	struct container *c = recorder_container(r);
	struct parent_names names = {0};
	json_t *report = NULL;
	struct vhd *v;

	recorder_set_read_only(r, true);
	if (!vhd_image_open(c, &how, &v, NULL)) {
		read_all(v);
		vhd_parent_names(v, &names);
		parent_names_free(&names);
		vhd_image_close(v, false, NULL);
	}
	if (!vhd_info(c, o, &report, NULL))
		json_decref(report);
	recorder_set_read_only(r, false);
}

static void write_some(struct recorder *r, const struct vhd_options *o)
{
	struct layer_place top = {0};
	unsigned char data[1024], back[1024];
	struct disk *d;
	uint64_t at;

	recorder_hold(r);
	must(!vhd_layer_open(recorder_container(r), o, &top.layer, NULL), "what was repaired opens");
	must(!layered_create("vhd", &top, 1, NULL, 0, 0, &d, NULL), "it is a disk");
	at = disk_size(d) < 1024 ? 0 : disk_size(d) / 2 / 512 * 512;
	memset(data, 0x5a, sizeof(data));
	if (disk_size(d) >= 1024 && !disk_write(d, &VEC_FLAT(data, 1024), at, &io_plain)) {
		must(!disk_read(d, &VEC_FLAT(back, 1024), at, &io_plain), "what was written is read");
		must(!memcmp(data, back, 1024), "as it was written");
	}
	disk_close(d, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned choices = size ? data[0] : 0;
	const struct vhd_options o = {.lax = choices & 8};
	struct recorder *r = recorder_create("fuzz.vhd");
	struct container *c = recorder_container(r);
	json_t *report = NULL;

	if ((choices & 3) != 3)
		begin(c, choices);
	for (size_t at = 1; at + PATCH <= size; at += PATCH)
		patch(c, data + at);
	if (choices & 16)
		container_set_size(c, UINT64_C(4) << 30, NULL);
	if (choices & 4)
		seal(c);
	look(r, &o);
	if (!vhd_check(c, &o, false, &report, NULL))
		json_decref(report);
	if (!vhd_check(c, &o, true, &report, NULL)) {
		json_decref(report);
		write_some(r, &(const struct vhd_options){0});
	}
	container_close(c, false, NULL);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD images in the memory of a recorder: made, opened, changed behind our back, checked. */
#ifndef PLATTER_TESTS_VHD_LAB_H
#define PLATTER_TESTS_VHD_LAB_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/disk.h"
#include "core/kind.h"
#include "formats/vhd-image.h"
#include "formats/vhd.h"
#include "tests/recorder.h"
#include "tests/tap.h"

TAP_UNUSED static const struct vhd_options strict;
TAP_UNUSED static const struct vhd_options lax = {.lax = true};

TAP_UNUSED static struct recorder *make(enum vhd_type type, uint64_t size, uint32_t block)
{
	const struct vhd_create_options o = {.type = type, .size = size, .block_size = block, .exact = true};
	struct recorder *r = recorder_create("a.vhd");

	CHECK_EQ(vhd_create(recorder_container(r), &o, NULL), 0);
	recorder_begin(r);
	return r;
}

TAP_UNUSED static void drop(struct recorder *r)
{
	container_close(recorder_container(r), false, NULL);
}

/* The recorder stays. */
TAP_UNUSED static struct disk *open_with(struct recorder *r, const struct vhd_options *o, int expected, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer_place top = {0};
	struct disk *d = NULL;

	recorder_hold(r);
	if (!CHECK_EQ(vhd_layer_open(recorder_container(r), o, &top.layer, &err), expected) || expected) {
		drop(r);
		if (text && !CHECK(strstr(error_text(&err), text) != NULL))
			tap_diag("%s", error_text(&err));
		if (top.layer)
			top.layer->ops->close(top.layer, true, NULL);
		return NULL;
	}
	CHECK_EQ(layered_create("vhd", &top, 1, NULL, 0, recorder_container(r)->read_only ? OPEN_READ_ONLY : 0, &d, &err), 0);
	return d;
}

TAP_UNUSED static struct disk *open_image(struct recorder *r)
{
	return open_with(r, &strict, 0, NULL);
}

TAP_UNUSED static void check_refused(struct recorder *r, const char *text)
{
	open_with(r, &strict, -EINVAL, text);
}

TAP_UNUSED static void put(struct disk *d, uint64_t at, unsigned char byte, size_t length)
{
	unsigned char *data = malloc(length);

	memset(data, byte, length);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, length), at, &io_plain), 0);
	free(data);
}

TAP_UNUSED static bool holds(struct disk *d, uint64_t at, unsigned char byte, size_t length)
{
	unsigned char *data = malloc(length);
	bool good = CHECK_EQ(disk_read(d, &VEC_FLAT(data, length), at, &io_plain), 0);

	for (size_t i = 0; i < length && good; i++)
		good = data[i] == byte;
	free(data);
	return good;
}

TAP_UNUSED static void load(struct recorder *r, uint64_t at, void *data, size_t size)
{
	CHECK_EQ(container_read(recorder_container(r), data, size, at, &io_plain), 0);
}

TAP_UNUSED static void store(struct recorder *r, uint64_t at, const void *data, size_t size)
{
	CHECK_EQ(container_write(recorder_container(r), data, size, at, &io_plain), 0);
}

TAP_UNUSED static uint64_t end_of(struct recorder *r)
{
	return container_size(recorder_container(r));
}

TAP_UNUSED static void load_footer(struct recorder *r, struct vhd_footer *f)
{
	load(r, end_of(r) - 512, f, 512);
}

/* At both ends, if it is not fixed. */
TAP_UNUSED static void store_footer(struct recorder *r, struct vhd_footer *f)
{
	vhd_footer_seal(f);
	store(r, end_of(r) - 512, f, 512);
	if (be32toh(f->type) != VHD_FIXED)
		store(r, 0, f, 512);
}

TAP_UNUSED static void load_header(struct recorder *r, struct vhd_header *h)
{
	load(r, 512, h, sizeof(*h));
}

TAP_UNUSED static void store_header(struct recorder *r, struct vhd_header *h)
{
	vhd_header_seal(h);
	store(r, 512, h, sizeof(*h));
}

TAP_UNUSED static uint32_t entry_at(struct recorder *r, uint32_t block)
{
	uint32_t entry;

	load(r, 1536 + block * 4, &entry, 4);
	return be32toh(entry);
}

TAP_UNUSED static void set_entry(struct recorder *r, uint32_t block, uint32_t at)
{
	uint32_t entry = htobe32(at);

	store(r, 1536 + block * 4, &entry, 4);
}

/* How many there are; the first one has this text. */
TAP_UNUSED static size_t problems_of(struct recorder *r, bool repair, const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	json_t *report = NULL, *list;
	size_t count = SIZE_MAX;

	if (CHECK_EQ(vhd_check(recorder_container(r), &strict, repair, &report, &err), 0)) {
		list = json_object_get(report, "problems");
		count = json_array_size(list);
		if (text)
			CHECK(count && strstr(json_string_value(json_object_get(json_array_get(list, 0), "what")), text) != NULL);
		else if (count)
			tap_diag("%s", json_string_value(json_object_get(json_array_get(list, 0), "what")));
	} else {
		tap_diag("%s", error_text(&err));
	}
	json_decref(report);
	return count;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX files in the memory of a recorder, and a flat model beside them. */
#ifndef PLATTER_TESTS_VHDX_LAB_H
#define PLATTER_TESTS_VHDX_LAB_H

#include "core/kind.h"
#include "formats/vhdx.h"
#include "tests/model.h"
#include "tests/recorder.h"
#include "tests/tap.h"

/* A new file in memory; ends the program when it cannot be made. */
TAP_UNUSED static struct recorder *lab_create(const struct vhdx_create_options *o)
{
	CLEANUP_ERROR struct error err = {0};
	struct recorder *r = recorder_create("lab.vhdx");

	if (vhdx_create(recorder_container(r), o, &err)) {
		printf("Bail out! %s\n", error_text(&err));
		exit(99);
	}
	recorder_begin(r);
	return r;
}

/* The file as a disk over nothing, or NULL with the reason told. The container is the disk's with success. */
TAP_UNUSED static struct disk *lab_open(struct container *c, const char *what)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer_place top = {0};
	struct disk *d = NULL;
	int status = vhdx_layer_open(c, &top.layer, &err);

	if (!status)
		status = layered_create("vhdx", &top, 1, NULL, 0, c->read_only ? OPEN_READ_ONLY : 0, &d, &err);
	if (status)
		tap_diag("%s: %s", what, error_text(&err));
	return d;
}

/* The same over `below`, which becomes the disk's. */
TAP_UNUSED static struct disk *lab_open_over(struct container *c, struct disk *below, const char *what)
{
	CLEANUP_ERROR struct error err = {0};
	struct layer_place top = {0};
	struct disk *d = NULL;
	int status = vhdx_layer_open(c, &top.layer, &err);

	if (!status)
		status = layered_create_over("vhdx", &top, below, c->read_only ? OPEN_READ_ONLY : 0, &d, &err);
	if (status)
		tap_diag("%s: %s", what, error_text(&err));
	return d;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading a range of a disk in parallel and using it in order. */
#ifndef PLATTER_CLI_IN_ORDER_H
#define PLATTER_CLI_IN_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "cli/progress.h"
#include "core/disk.h"

struct in_order {
	struct disk *disk;
	uint64_t offset, length; /* bytes, any, inside of the disk */
	unsigned jobs;
	struct progress *progress;
	void *argument;

	/* The next bytes, by one thread at a time. 0, or a negative errno with `err` set, which ends it. */
	int (*use)(void *argument, const void *data, size_t size, struct error *err);
};

/* 0, or the first failure. */
int in_order_run(const struct in_order *o, struct error *err);

#endif

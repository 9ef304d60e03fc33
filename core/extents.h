/* SPDX-License-Identifier: BSD-3-Clause */
/* A list of adjoining runs of a disk: what holds data, what reads as zero, what takes no space. */
#ifndef PLATTER_CORE_EXTENTS_H
#define PLATTER_CORE_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum extent_flags {
	EXTENT_DATA = 0,      /* allocated, any content */
	EXTENT_ZERO = 1 << 0, /* reads as zeroes */
	EXTENT_HOLE = 1 << 1, /* takes no space below */
};

struct extent {
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes, not 0 */
	unsigned flags;  /* enum extent_flags */
};

/*
 * Runs are added in order, each beginning where the last one ended; neighbours with the same flags are
 * merged; what goes past the asked range is cut. Once `max` runs are held a further one is refused and
 * the producer stops: a consumer may get less than it asked for, but never nothing.
 */
struct extents {
	struct extent *list;
	size_t count;
	size_t capacity;
	size_t max;      /* at most so many runs; SIZE_MAX: no limit */
	uint64_t offset; /* where the asked range begins */
	uint64_t end;    /* where it ends */
	int status;      /* -ENOMEM once memory ran out */
};

#define CLEANUP_EXTENTS __attribute__((cleanup(extents_free)))

/* Prepares an empty list for [offset, offset + length), at most `max` runs (>= 1). */
void extents_init(struct extents *e, uint64_t offset, uint64_t length, size_t max);

/* Frees the list. */
void extents_free(struct extents *e);

/* Where the next run must begin: the end of what is known. */
uint64_t extents_next(const struct extents *e);

/*
 * Appends a run of `length` bytes at extents_next(). False when the producer should stop: the range is
 * covered, the list is full, or memory ran out (then e->status says so).
 */
bool extents_add(struct extents *e, uint64_t length, unsigned flags);

#endif

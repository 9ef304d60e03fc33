/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of structures of an image file that a check gives: each with its place, and what was found of it. */
#ifndef PLATTER_FORMATS_STRUCTURES_H
#define PLATTER_FORMATS_STRUCTURES_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

/* Where a structure lies that has no place of its own. */
#define STRUCTURE_NOWHERE UINT64_MAX

/*
 * Appends {"structure": name, "offset": bytes or null, "length": bytes or null, "sound": bool, "found": text} to the list. Memory that runs
 * out leaves the row out.
 */
void structures_add(json_t *list, const char *name, uint64_t offset, uint64_t length, bool sound, const char *format, ...)
	__attribute__((format(printf, 6, 7)));

/*
 * The same where problems tell whether it is sound: `before` were known when it was first looked at, `now` are. What is wrong is taken from
 * the last row of `problems`, whose `key` says it, where there is one only.
 */
struct structure_problems {
	const json_t *problems;
	const char *key;
	uint64_t before, now;
};

void structures_judge(json_t *list, const char *name, uint64_t offset, uint64_t length, const struct structure_problems *p,
		      const char *format, ...) __attribute__((format(printf, 6, 7)));

#endif

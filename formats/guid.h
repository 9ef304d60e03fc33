/* SPDX-License-Identifier: BSD-3-Clause */
/* GUIDs as Microsoft's formats store them, and as text. */
#ifndef PLATTER_FORMATS_GUID_H
#define PLATTER_FORMATS_GUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The bytes as they lie in a file: the first three fields little-endian, the rest in the order of the text ([MS-DTYP] 2.3.4.2). */
struct guid {
	uint8_t bytes[16];
};

_Static_assert(sizeof(struct guid) == 16, "lies in files");

/* {aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee} as an initialiser. */
#define GUID_INIT(a, b, c, d, e)                                                                                       \
	{                                                                                                              \
		{                                                                                                      \
			(a)&0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24 & 0xff, (b)&0xff, (b) >> 8, (c)&0xff,   \
				(c) >> 8, (d) >> 8, (d)&0xff, (e) >> 40 & 0xff, (e) >> 32 & 0xff, (e) >> 24 & 0xff,    \
				(e) >> 16 & 0xff, (e) >> 8 & 0xff, (e)&0xff                                            \
		}                                                                                                      \
	}

#define GUID_TEXT_MAX 39 /* with braces and the final 0 */

static inline bool guid_equal(const struct guid *a, const struct guid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

bool guid_is_null(const struct guid *g);

/* "{01234567-89ab-cdef-0123-456789abcdef}", lower case; returns `text`. */
const char *guid_text(const struct guid *g, char text[GUID_TEXT_MAX]);

/* Reads `length` characters of the same form, in any case, with or without braces. False when they are anything else. */
bool guid_parse(const char *text, size_t length, struct guid *out);

/* A random one (RFC 4122, version 4). 0 or a negative errno. */
int guid_random(struct guid *out);

#endif

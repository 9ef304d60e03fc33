/* SPDX-License-Identifier: BSD-3-Clause */
/* RFC 2781 (UTF-16) and RFC 3629 (UTF-8), strictly: what is malformed is no name. */
#include "formats/utf16.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint32_t unit_at(const unsigned char *p, enum utf16_order order)
{
	return order == UTF16_LE ? p[0] | (uint32_t)p[1] << 8 : p[1] | (uint32_t)p[0] << 8;
}

static void put_unit(unsigned char *p, uint32_t unit, enum utf16_order order)
{
	p[order == UTF16_LE ? 0 : 1] = (unsigned char)unit;
	p[order == UTF16_LE ? 1 : 0] = (unsigned char)(unit >> 8);
}

static bool is_surrogate(uint32_t unit)
{
	return unit >= 0xd800 && unit < 0xe000;
}

/* The next code point of in[*at..units), or 0 when it is malformed or NUL. */
static uint32_t next_of_utf16(const unsigned char *in, size_t units, size_t *at, enum utf16_order order)
{
	uint32_t high = unit_at(in + 2 * (*at)++, order), low;

	if (!is_surrogate(high))
		return high;
	if (high >= 0xdc00 || *at == units)
		return 0;
	low = unit_at(in + 2 * (*at)++, order);
	if (low < 0xdc00 || low >= 0xe000)
		return 0;
	return 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00));
}

static char *put_utf8(char *p, uint32_t c)
{
	if (c < 0x80) {
		*p++ = (char)c;
		return p;
	}
	if (c < 0x800) {
		*p++ = (char)(0xc0 | c >> 6);
	} else {
		if (c < 0x10000) {
			*p++ = (char)(0xe0 | c >> 12);
		} else {
			*p++ = (char)(0xf0 | c >> 18);
			*p++ = (char)(0x80 | (c >> 12 & 0x3f));
		}
		*p++ = (char)(0x80 | (c >> 6 & 0x3f));
	}
	*p++ = (char)(0x80 | (c & 0x3f));
	return p;
}

int utf16_to_utf8(const void *in, size_t bytes, enum utf16_order order, char **out)
{
	size_t units = bytes / 2, room;
	char *text, *end;

	*out = NULL;
	if (bytes % 2)
		return -EILSEQ;
	if (__builtin_mul_overflow(units, 3, &room) || !(text = malloc(room + 1))) /* a unit becomes three bytes at most, a pair four */
		return -ENOMEM;
	end = text;
	for (size_t at = 0; at < units;) {
		uint32_t c = next_of_utf16(in, units, &at, order);
		if (!c) {
			free(text);
			return -EILSEQ;
		}
		end = put_utf8(end, c);
	}
	*end = 0;
	*out = text;
	return 0;
}

/* How many bytes follow a first one, and the least code point that needs as many; -1: no first byte. */
static int tail_of(unsigned char first, uint32_t *least)
{
	*least = first < 0x80 ? 0 : first < 0xe0 ? 0x80 : first < 0xf0 ? 0x800 : 0x10000;
	if (first < 0x80)
		return 0;
	return first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
}

/* The next code point of a string that is not at its end, or 0 when it is malformed. */
static uint32_t next_of_utf8(const unsigned char **p)
{
	uint32_t least, c = *(*p)++;
	int tail = tail_of((unsigned char)c, &least);

	if (tail < 0)
		return 0;
	if (tail)
		c &= 0x3fu >> tail;
	for (; tail; tail--) {
		if ((**p & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (*(*p)++ & 0x3f);
	}
	return c < least || c > 0x10ffff || is_surrogate(c) ? 0 : c;
}

int utf16_from_utf8(const char *in, enum utf16_order order, void **out, size_t *bytes)
{
	const unsigned char *p = (const unsigned char *)in;
	unsigned char *units = malloc(2 * strlen(in) + 1), *end = units;

	*out = NULL;
	if (!units)
		return -ENOMEM;
	while (*p) {
		uint32_t c = next_of_utf8(&p);
		if (!c) {
			free(units);
			return -EILSEQ;
		}
		if (c >= 0x10000) {
			put_unit(end, 0xd800 + ((c - 0x10000) >> 10), order);
			end += 2;
			c = 0xdc00 + ((c - 0x10000) & 0x3ff);
		}
		put_unit(end, c, order);
		end += 2;
	}
	*out = units;
	*bytes = (size_t)(end - units);
	return 0;
}

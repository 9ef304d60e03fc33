/* SPDX-License-Identifier: BSD-3-Clause */
/* Names inside of images are UTF-16; ours are UTF-8. */
#ifndef PLATTER_FORMATS_UTF16_H
#define PLATTER_FORMATS_UTF16_H

#include <stddef.h>

enum utf16_order {
	UTF16_LE,
	UTF16_BE,
};

/*
 * The `bytes` bytes at `in` as a UTF-8 string, to be freed. -EILSEQ when they are not the text of a name: an odd number of bytes, a NUL
 * anywhere, half a surrogate pair; -ENOMEM.
 */
int utf16_to_utf8(const void *in, size_t bytes, enum utf16_order order, char **out);

/* The reverse, without a terminator; *out to be freed. -EILSEQ for what is not UTF-8 (RFC 3629); -ENOMEM. */
int utf16_from_utf8(const char *in, enum utf16_order order, void **out, size_t *bytes);

#endif

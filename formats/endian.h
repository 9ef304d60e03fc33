/* SPDX-License-Identifier: BSD-3-Clause */
/* Integers in files: read and written byte by byte, so that neither alignment nor the machine matters. */
#ifndef PLATTER_FORMATS_ENDIAN_H
#define PLATTER_FORMATS_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_ACCESSORS(name, type, from, to)               \
	static inline type name##_get(const void *p)         \
	{                                                    \
		type n;                                      \
		memcpy(&n, p, sizeof(n));                    \
		return from(n);                              \
	}                                                    \
	static inline void name##_put(void *p, type n)       \
	{                                                    \
		n = to(n);                                   \
		memcpy(p, &n, sizeof(n));                    \
	}

/* le16_get(p), le16_put(p, n), ... */
ENDIAN_ACCESSORS(le16, uint16_t, le16toh, htole16)
ENDIAN_ACCESSORS(le32, uint32_t, le32toh, htole32)
ENDIAN_ACCESSORS(le64, uint64_t, le64toh, htole64)
ENDIAN_ACCESSORS(be16, uint16_t, be16toh, htobe16)
ENDIAN_ACCESSORS(be32, uint32_t, be32toh, htobe32)
ENDIAN_ACCESSORS(be64, uint64_t, be64toh, htobe64)

#undef ENDIAN_ACCESSORS

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/crc32c.h"

#include <stdbool.h>
#include <string.h>

/* Four bits at a time: a table of 16 is small enough to be written out, and processors without an instruction for it are rare. */
static const uint32_t nibbles[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
	0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t update_slowly(uint32_t crc, const uint8_t *p, size_t size)
{
	while (size--) {
		crc ^= *p++;
		crc = crc >> 4 ^ nibbles[crc & 15];
		crc = crc >> 4 ^ nibbles[crc & 15];
	}
	return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t update_fast(uint32_t crc, const uint8_t *p, size_t size)
{
	uint64_t wide = crc, eight;

	for (; size >= 8; p += 8, size -= 8) {
		memcpy(&eight, p, 8);
		wide = __builtin_ia32_crc32di(wide, eight);
	}
	crc = (uint32_t)wide;
	while (size--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}

static bool is_fast(void)
{
	return __builtin_cpu_supports("sse4.2");
}
#else
#define update_fast update_slowly

static bool is_fast(void)
{
	return false;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
	return ~(is_fast() ? update_fast(~crc, data, size) : update_slowly(~crc, data, size));
}

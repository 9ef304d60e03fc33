/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC-32C (Castagnoli), the checksum of VHDX: polynomial 1edc6f41, reflected, as in RFC 3720. */
#ifndef PLATTER_FORMATS_CRC32C_H
#define PLATTER_FORMATS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` is the checksum of (0: nothing) followed by `size` bytes. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

#endif

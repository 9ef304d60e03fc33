/* SPDX-License-Identifier: BSD-3-Clause */
/* XTS-AES (IEEE 1619) over data units of a disk, between a caller's scattered memory and flat ciphertext. */
#ifndef PLATTER_DECORATORS_XTS_H
#define PLATTER_DECORATORS_XTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/vec.h"
#include "decorators/key-file.h"

#define XTS_MAX_KEY 64u /* bytes: two keys of AES-256 */

/* How a disk is cut into units, each with its tweak: the number of the unit as 128 bits, little-endian. */
struct xts_units {
	uint32_t unit_bytes;  /* power of two, 512..65536 */
	uint32_t tweak_bytes; /* power of two; the tweak of the unit at byte N is N / tweak_bytes + first_tweak */
	uint64_t first_tweak;
};

/* A key with contexts of the cipher. May be used by any number of threads at once; nothing here waits. */
struct xts;

/*
 * Takes `key` over, which then is empty: 64 bytes for XTS-AES-256, 32 for XTS-AES-128, the key for data before the one for
 * tweaks. Other lengths, and equal halves, are refused (-EINVAL).
 */
int xts_create(struct secret *key, const struct xts_units *units, struct xts **out, struct error *err);

/* Wipes what is known of the key. Accepts NULL. */
void xts_free(struct xts *x);

/* "xts-aes-256" or "xts-aes-128". */
const char *xts_name(const struct xts *x);

/*
 * Encrypts `plain`, whole units that begin at byte `offset` of the disk, into `cipher`, which has room for plain->size
 * bytes. 0, or -ENOMEM or -EIO when the library cannot.
 */
int xts_encrypt(struct xts *x, const struct vec *plain, unsigned char *cipher, uint64_t offset);

/*
 * The other way. `cipher` may be overwritten. With `zero_holes` a unit of nothing but zeroes is not decrypted, but is
 * zeroes in `plain` as well.
 */
int xts_decrypt(struct xts *x, unsigned char *cipher, const struct vec *plain, uint64_t offset, bool zero_holes);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* What the header of a LUKS volume says, and the key of the volume that it keeps. */
#ifndef PLATTER_DECORATORS_LUKS_HEADER_H
#define PLATTER_DECORATORS_LUKS_HEADER_H

#include "core/disk.h"
#include "decorators/key-file.h"

struct luks_volume {
	unsigned version; /* 1 or 2 */
	char uuid[40];
	unsigned keyslot;     /* which one the passphrase opened */
	uint64_t offset;      /* where the content begins, bytes */
	uint64_t length;      /* UINT64_MAX: to the end of the disk */
	uint32_t sector_size; /* bytes */
	uint64_t first_tweak; /* of the first 512 bytes */
};

/*
 * What a header may ask for, so that one from a stranger does not keep a machine busy for hours. Each of its keyslots
 * and digests is held to this.
 */
struct luks_limits {
	uint64_t pbkdf2_iterations;
	uint64_t argon2_memory_kib;
	uint64_t argon2_work_kib; /* memory times passes over it */
};

extern const struct luks_limits luks_usual_limits;

/*
 * Reads the header of `d`, of which nothing is changed, and opens a keyslot with `passphrase`. On success *key is the key of
 * the volume, for XTS-AES in units of out->sector_size. -EPERM when no keyslot opens; -EOPNOTSUPP for what is not supported,
 * such as another cipher, with its name.
 */
int luks_unlock(struct disk *d, const struct secret *passphrase, const struct luks_limits *limits, struct luks_volume *out,
		struct secret *key, struct error *err);

#endif

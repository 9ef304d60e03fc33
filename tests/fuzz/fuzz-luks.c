/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes as the beginning of a LUKS volume: it opens or says why not, in a bounded time, and changes nothing.
 * Checksums of LUKS2 are put right first, so that more than the check of them is reached.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "core/open.h"
#include "decorators/luks-header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_BYTES (20u << 20)
#define MOST 32768u
#define CHECKSUM 448u
#define CHECKSUM_BYTES 64u

static const struct luks_limits small = {.pbkdf2_iterations = 1000, .argon2_memory_kib = 64, .argon2_work_kib = 256};

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < 8; i++)
		n = n << 8 | p[i];
	return n;
}

/* LUKS2 On-Disk Format, 2.1: over the whole header, with zeroes in its own place. */
static void mend_checksum(uint8_t *header, size_t size)
{
	static const char magic[] = "LUKS\xba\xbe\0\2";
	uint64_t length = get_u64(header + 8);
	uint8_t sum[EVP_MAX_MD_SIZE];
	unsigned n;

	if (memcmp(header, magic, 8) || length < 4096 || length > size)
		return;
	memset(header + CHECKSUM, 0, CHECKSUM_BYTES);
	if (EVP_Digest(header, length, sum, &n, EVP_sha256(), NULL) == 1)
		memcpy(header + CHECKSUM, sum, n);
}

static void check_volume(struct disk *d, const struct luks_volume *v, const struct secret *key)
{
	if (v->offset >= disk_size(d) || !v->length || (v->sector_size & (v->sector_size - 1)) || v->sector_size < 512 ||
	    (key->size != 32 && key->size != 64))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t header[MOST], after[MOST];
	struct secret passphrase = {0}, key = {0};
	CLEANUP_ERROR struct error err = {0};
	struct luks_volume volume;
	char spec[40];
	struct disk *d;

	memset(header, 0, sizeof(header));
	memcpy(header, data, size < MOST ? size : MOST);
	mend_checksum(header, sizeof(header));
	snprintf(spec, sizeof(spec), "mem:%u", DISK_BYTES);
	if (disk_open(spec, 0, &d, NULL) || disk_write(d, &VEC_FLAT(header, MOST), 0, &io_plain) || secret_make(&passphrase, 8))
		abort();
	memcpy(passphrase.bytes, "password", 8);
	passphrase.size = 8;
	if (!luks_unlock(d, &passphrase, &small, &volume, &key, &err))
		check_volume(d, &volume, &key);
	else if (!err.text || !err.text[0] || key.bytes)
		abort();
	if (disk_read(d, &VEC_FLAT(after, MOST), 0, &io_plain) || memcmp(after, header, MOST))
		abort();
	secret_drop(&passphrase);
	secret_drop(&key);
	disk_close(d, NULL);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt: a disk with XTS-AES and no header. The unit of encryption is the logical block, and its tweak the number of the
 * block, as dm-crypt's aes-xts-plain64 has it with that sector size (and iv_large_sectors, where that is not 512).
 */
#include "kinds.h"

#include <errno.h>

#include "decorators/encrypted.h"

static const char *const ciphers[] = {"xts-aes-256", "xts-aes-128", NULL};
static const size_t key_sizes[] = {64, 32};

static int crypt_open(const struct open_request *request, struct disk **out, struct error *err)
{
	const struct spec *spec = request->spec;
	uint32_t block = disk_info(request->children[0])->block_size;
	const struct encrypted_content all = {
		.length = UINT64_MAX,
		.units = {.unit_bytes = block, .tweak_bytes = block},
		.zero_holes = spec_number(spec, "holes"),
	};
	CLEANUP_SECRET struct secret key = {0};
	int status = key_read_exact(spec, key_sizes[spec_number(spec, "cipher")], &key, err);
	struct encrypted *e;

	if (status)
		return status;
	e = encrypted_new(sizeof(*e), "crypt", request->children[0], NULL);
	return e ? encrypted_publish(e, &all, &key, out, err) : error_set(err, -ENOMEM, "no memory");
}

static const struct spec_field crypt_fields[] = {
	{.name = "cipher",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_WORD,
	 .required = true,
	 .words = ciphers,
	 .help = "what it is encrypted with"},
	KEY_FIELD("where the key is: as many bytes as it has, 64 or 32, or these in hexadecimal"),
	KEY_FROM_FIELD,
	HOLES_FIELD,
	{0},
};

const struct disk_kind crypt_kind = {
	.name = "crypt",
	.summary = "a disk encrypted with XTS-AES, without a header",
	.children = KIND_WRAPS,
	.fields = crypt_fields,
	.open = crypt_open,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* luks: the content of a LUKS1 or LUKS2 volume, decrypted here. The header is only read, never written. */
#include "kinds.h"

#include <errno.h>

#include "decorators/encrypted.h"
#include "decorators/luks-header.h"

struct luks {
	struct encrypted encrypted;
	struct luks_volume volume;
};

static void luks_describe(struct disk *d, json_t *object)
{
	const struct luks_volume *v = &((struct luks *)d)->volume;

	encrypted_describe(d, object);
	json_object_set_new(object, "version", json_integer(v->version));
	json_object_set_new(object, "uuid", json_string(v->uuid));
	json_object_set_new(object, "keyslot", json_integer(v->keyslot));
	json_object_set_new(object, "offset", json_integer((json_int_t)v->offset));
}

/* The tweak counts 512 bytes whatever the size of a sector, as dm-crypt does for LUKS. */
static int open_volume(const struct open_request *request, const struct luks_volume *v, struct secret *key, struct disk **out,
		       struct error *err)
{
	const struct encrypted_content content = {
		.offset = v->offset,
		.length = v->length,
		.units = {.unit_bytes = v->sector_size, .tweak_bytes = 512, .first_tweak = v->first_tweak},
		.zero_holes = spec_number(request->spec, "holes"),
	};
	struct luks *l = encrypted_new(sizeof(*l), "luks", request->children[0], luks_describe);

	if (!l)
		return error_set(err, -ENOMEM, "no memory");
	l->volume = *v;
	return encrypted_publish(&l->encrypted, &content, key, out, err);
}

static int luks_open(const struct open_request *request, struct disk **out, struct error *err)
{
	CLEANUP_SECRET struct secret passphrase = {0}, key = {0};
	struct luks_volume volume;
	int status = key_read(request->spec, KEY_MOST_BYTES, &passphrase, err);

	if (!status)
		status = luks_unlock(request->children[0], &passphrase, &luks_usual_limits, &volume, &key, err);
	return status ? status : open_volume(request, &volume, &key, out, err);
}

static const struct spec_field luks_fields[] = {
	KEY_FIELD("where the passphrase of a keyslot is: all bytes count, also the end of a line"),
	KEY_FROM_FIELD,
	HOLES_FIELD,
	{0},
};

const struct disk_kind luks_kind = {
	.name = "luks",
	.summary = "the content of a LUKS1 or LUKS2 volume",
	.children = KIND_WRAPS,
	.fields = luks_fields,
	.open = luks_open,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libcryptsetup, loaded when it is first asked for: it brings seven more libraries, whose loading would be a
 * third of what every start of a program takes, and only luks: uses it.
 */
#ifndef PLATTER_DECORATORS_LUKS_LIBRARY_H
#define PLATTER_DECORATORS_LUKS_LIBRARY_H

#include <libcryptsetup.h>

#include "core/error.h"

/* What is used of it. */
#define LUKS_LIBRARY(X)              \
	X(crypt_dump_json)           \
	X(crypt_free)                \
	X(crypt_get_cipher)          \
	X(crypt_get_cipher_mode)     \
	X(crypt_get_data_offset)     \
	X(crypt_get_type)            \
	X(crypt_get_uuid)            \
	X(crypt_get_volume_key_size) \
	X(crypt_init)                \
	X(crypt_keyslot_get_pbkdf)   \
	X(crypt_keyslot_status)      \
	X(crypt_load)                \
	X(crypt_set_log_callback)    \
	X(crypt_volume_key_get)

struct luks_library {
#define LUKS_LIBRARY_POINTER(name) __typeof__(name) *name;
	LUKS_LIBRARY(LUKS_LIBRARY_POINTER)
#undef LUKS_LIBRARY_POINTER
};

/*
 * The library, which stays until the process ends. On any thread; it reads files, so not on one that must not
 * block. -ENOENT when it cannot be loaded, and then it is tried again the next time.
 */
int luks_library_get(const struct luks_library **out, struct error *err);

#endif

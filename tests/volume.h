/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS2 volumes for tests, made by libcryptsetup. A test that uses it is linked with $(CRYPTSETUP_LIBS). */
#ifndef PLATTER_TESTS_VOLUME_H
#define PLATTER_TESTS_VOLUME_H

#include <stdint.h>

#define VOLUME_OFFSET (UINT64_C(1) << 20) /* of the content, bytes */

/*
 * Makes the file `path` a volume whose content has `size` bytes in sectors of `sector` bytes, opened by the content of
 * the file `key_path`, which is little work. Exits when it cannot.
 */
void volume_make(const char *path, uint64_t size, uint32_t sector, const char *key_path);

#endif

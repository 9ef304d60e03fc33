/* SPDX-License-Identifier: BSD-3-Clause */
/* A second copy of core/safe-copy.c for tests/test-safe-copy.c to load and unload, as a plugin is. */
#include "core/safe-copy.h"

int module_safe_copy(void *to, const void *from, size_t size);

__attribute__((visibility("default"))) int module_safe_copy(void *to, const void *from, size_t size)
{
	return safe_copy(to, from, size);
}

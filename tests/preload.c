/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Preloaded together with AddressSanitizer's runtime into programs that were built without it, such as nbdkit.
 *
 * There the runtime starts at the first malloc(), which a library's constructor makes inside of newlocale(), under
 * glibc's lock for locales. Looking in vain for swift_demangle, it asks for the error text, which takes and releases
 * that lock once more; its count is wrong from then on, and freelocale() at exit waits for ever. So let it be found.
 */
#include <stddef.h>

char *swift_demangle(const char *name, size_t length, char *out, size_t *out_size, unsigned flags);

__attribute__((visibility("default"))) char *swift_demangle(const char *name, size_t length, char *out,
							     size_t *out_size, unsigned flags)
{
	(void)name, (void)length, (void)out, (void)out_size, (void)flags;
	return NULL; /* no name of Swift's */
}

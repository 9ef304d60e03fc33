/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers that look random and come again with the same seed (SplitMix64), for programs that tests of mounts
 * use. */
#ifndef PLATTER_TESTS_MOUNT_RANDOM_H
#define PLATTER_TESTS_MOUNT_RANDOM_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state;

static inline uint64_t random_next(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Less than `limit`, or 0. */
static inline uint64_t random_below(uint64_t limit)
{
	return limit ? random_next() % limit : 0;
}

static inline void random_fill(void *data, size_t size)
{
	for (unsigned char *p = data; size > 0;) {
		uint64_t word = random_next();
		size_t n = size < sizeof(word) ? size : sizeof(word);

		memcpy(p, &word, n);
		p += n;
		size -= n;
	}
}

/* The value of argument "NAME=value", or `otherwise`. */
static inline uint64_t argument_number(char **argv, const char *name, uint64_t otherwise)
{
	size_t length = strlen(name);

	for (; *argv; argv++)
		if (strncmp(*argv, name, length) == 0 && (*argv)[length] == '=')
			return strtoull(*argv + length + 1, NULL, 0);
	return otherwise;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names
 *
 * A key's letters, digits, '_', '-' and '.' stand for themselves, but for a leading '.'; every other byte is '%' and two
 * hexadecimal digits. What gets too long keeps its beginning, and goes on with '~' and a hash of the whole key. A
 * cache known by identity is '@' and a hash. Since '~' and '@' of a key are written as %7E and %40, the three cannot meet.
 * (Where a file system takes upper and lower case for the same, two keys may: then the header tells them apart.)
 */
#include "layers/autocache-name.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <xxhash.h>

#include "core/spec.h"

#define MAX_ENCODED 150u /* longer than that it is cut */
#define HASH_DIGITS 32u

static const char hex[] = "0123456789ABCDEF";

static bool stands_for_itself(unsigned char c, bool first)
{
	return isalnum(c) ? c < 0x80 : c == '_' || c == '-' || (c == '.' && !first);
}

/* As much of it as fits; the bytes used. *whole: that was all. */
static size_t encode(const char *key, char *out, size_t room, bool *whole)
{
	size_t used = 0;

	for (const char *c = key; *c; c++) {
		unsigned char byte = (unsigned char)*c;
		bool itself = stands_for_itself(byte, c == key);
		*whole = used + (itself ? 1 : 3) <= room;
		if (!*whole)
			return used;
		if (itself) {
			out[used++] = *c;
			continue;
		}
		out[used++] = '%';
		out[used++] = hex[byte >> 4];
		out[used++] = hex[byte & 15];
	}
	*whole = true;
	return used;
}

static void print_hash(const void *bytes, size_t size, char *out)
{
	XXH128_hash_t h = XXH3_128bits(bytes, size);

	snprintf(out, HASH_DIGITS + 1, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

void cache_name_of_key(const char *key, char out[CACHE_NAME_MAX])
{
	bool whole;
	size_t used = encode(key, out, MAX_ENCODED, &whole);

	if (!whole) {
		used = encode(key, out, MAX_ENCODED - HASH_DIGITS - 1, &whole);
		out[used++] = '~';
		print_hash(key, strlen(key), out + used);
		used += HASH_DIGITS;
	}
	strcpy(out + used, CACHE_SUFFIX);
}

void cache_name_of_identity(const struct identity *identity, char out[CACHE_NAME_MAX])
{
	out[0] = '@';
	print_hash(identity->name, strlen(identity->name), out + 1);
	strcpy(out + 1 + HASH_DIGITS, CACHE_SUFFIX);
}

bool cache_name_is(const char *name)
{
	size_t length = strlen(name), suffix = strlen(CACHE_SUFFIX);

	return name[0] != '.' && length > suffix && length < CACHE_NAME_MAX &&
	       !strcmp(name + length - suffix, CACHE_SUFFIX);
}

bool cache_name_is_temporary(const char *name)
{
	return !strncmp(name, CACHE_NEW, strlen(CACHE_NEW)) || !strncmp(name, CACHE_OLD, strlen(CACHE_OLD));
}

/* ------------------------------------------------------------------ the root */

/* The value of a variable that is set to something. */
static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static char *below(const char *folder, const char *name)
{
	char *out = NULL;

	return asprintf(&out, "%s/%s", folder, name) < 0 ? NULL : out;
}

/* 0 with *out NULL: the environment names none. */
static int root_of_environment(char **out)
{
	const char *value = variable("PLATTER_AUTO_CACHE_PATH");

	*out = NULL;
	if (!value)
		value = variable("OPENVMM_AUTO_CACHE_PATH");
	if (value) {
		*out = strdup(value);
		return *out ? 0 : -ENOMEM;
	}
	value = variable("XDG_CACHE_HOME");
	if (value && *value == '/') /* others are to be ignored: XDG Base Directory Specification */
		*out = below(value, "platter");
	else if ((value = variable("HOME")))
		*out = below(value, ".cache/platter");
	else
		return 0;
	return *out ? 0 : -ENOMEM;
}

/* Whether it worked is seen when the folder is opened. */
static void make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
	}
	mkdir(path, 0700);
}

int cache_root(const char *given, char **out, struct error *err)
{
	int status = 0;

	if (given && *given)
		status = (*out = strdup(given)) ? 0 : -ENOMEM;
	else
		status = root_of_environment(out);
	if (status)
		return error_set(err, status, "no memory");
	if (!*out) {
		error_set(err, -ENOENT, "no folder for caches: none of PLATTER_AUTO_CACHE_PATH, OPENVMM_AUTO_CACHE_PATH, "
					"XDG_CACHE_HOME (an absolute path) and HOME is set");
		return error_hint(err, "set one of them, or add ;root=PATH");
	}
	make_folders(*out);
	return 0;
}

int cache_max(uint64_t given, int root, uint64_t *out, struct error *err)
{
	const char *value = variable("PLATTER_AUTO_CACHE_MAX");
	struct statvfs fs;

	*out = given;
	if (given)
		return 0;
	if (value && size_parse(value, out, err))
		return error_prefix(err, "PLATTER_AUTO_CACHE_MAX");
	if (value && *out < CACHE_MIN_MAX)
		return error_set(err, -EINVAL, "PLATTER_AUTO_CACHE_MAX of %" PRIu64 " bytes is less than %" PRIu64
					       " bytes (1M), the least that is allowed", *out, CACHE_MIN_MAX);
	if (value)
		return 0;
	*out = UINT64_C(10) << 30;
	if (!fstatvfs(root, &fs) && fs.f_blocks * fs.f_frsize / 10 < *out)
		*out = fs.f_blocks * fs.f_frsize / 10;
	if (*out < CACHE_MIN_MAX)
		*out = CACHE_MIN_MAX;
	return 0;
}

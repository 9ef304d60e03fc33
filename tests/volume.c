/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/volume.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <libcryptsetup.h>

static void make_file(const char *path, uint64_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)size)) {
		printf("Bail out! cannot make %s\n", path);
		exit(99);
	}
	close(fd);
}

/* All of it. */
static size_t read_key(const char *path, char *out, size_t room)
{
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(out, 1, room, f) : 0;

	if (f)
		fclose(f);
	return n;
}

/* It warns of little room for keyslots, on standard output. */
static void say_nothing(int level, const char *message, void *argument)
{
	(void)level, (void)message, (void)argument;
}

static int format(struct crypt_device *d, uint32_t sector, const char *key_path)
{
	const struct crypt_pbkdf_type kdf = {
		.type = CRYPT_KDF_PBKDF2, .hash = "sha256", .iterations = 1000, .flags = CRYPT_PBKDF_NO_BENCHMARK};
	struct crypt_params_luks2 params = {.sector_size = sector, .pbkdf = &kdf};
	char key[1024];
	size_t length = read_key(key_path, key, sizeof(key));
	int status;

	crypt_set_log_callback(d, say_nothing, NULL);
	status = crypt_set_metadata_size(d, 16384, 512 * 1024);

	if (!status)
		status = crypt_set_data_offset(d, VOLUME_OFFSET / 512);
	if (!status)
		status = crypt_format(d, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL, 64, &params);
	if (!status)
		status = crypt_keyslot_add_by_volume_key(d, 0, NULL, 0, key, length);
	return status;
}

void volume_make(const char *path, uint64_t size, uint32_t sector, const char *key_path)
{
	struct crypt_device *d = NULL;

	make_file(path, VOLUME_OFFSET + size);
	if (crypt_init(&d, path) || format(d, sector, key_path) < 0) {
		printf("Bail out! libcryptsetup cannot make %s\n", path);
		exit(99);
	}
	crypt_free(d);
}

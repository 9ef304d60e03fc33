/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Headers are read by libcryptsetup, which knows all that they can be, and how to mend one of two. It wants a path,
 * which a disk has not. So it is given a sparse file in memory, of the size of the disk, with a copy of the beginning of
 * the disk:
 *
 *   1. the first 8 MiB are copied, where the two headers of LUKS2 are, or the one of LUKS1
 *   2. the library reads them; what it mends it writes to the copy, never to the disk
 *   3. the rest of what lies before the content is copied, 136 MiB in all at most: there are the keyslots
 *   4. it is looked whether we can do what the header asks for, and whether the work it asks for has bounds
 *   5. the library opens a keyslot
 *
 * The library can do without the kernel's device mapper where keyslots are encrypted with aes-xts-plain64, which is what
 * everybody has. For others it would make a device, and is not let to.
 *
 * It keeps state of its own that is not safe for threads: everything that is done with it is done under one lock of
 * this process, on a thread that may block, with no disk call inside.
 */
#include "decorators/luks-header.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <jansson.h>

#include "core/aio.h"
#include "decorators/luks-library.h"

#define HEADERS_BYTES ((uint64_t)8 << 20) /* two of at most 4 MiB */
#define MOST_BYTES ((uint64_t)136 << 20)  /* these and 128 MiB of keyslots: what LUKS2 can have */
#define PIECE ((size_t)1 << 20)
#define PAGE ((size_t)4096)
#define STRIPES 4000u /* of every keyslot (LUKS1 1.2.3, 4.1) */
#define LUKS1_DIGEST_ITERATIONS 164
#define LUKS1_KEYSLOTS 208
#define LUKS1_KEYSLOT_BYTES 48
#define LUKS1_STRIPES_IN_KEYSLOT 44
#define LUKS1_NR_KEYSLOTS 8

const struct luks_limits luks_usual_limits = {
	.pbkdf2_iterations = 200000000,
	.argon2_memory_kib = 4 << 20,
	.argon2_work_kib = UINT64_C(256) << 20,
};

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER; /* protects libcryptsetup; nothing waits for fibers under it */

struct header {
	struct disk *disk;
	int fd;
	const struct luks_library *library;
	struct crypt_device *device;
	json_t *metadata; /* of LUKS2 */
	const struct luks_limits *limits;
	const struct secret *passphrase;
	struct luks_volume *out;
	struct secret *key;
	struct error *err;
	char trouble[200]; /* the last complaint of the library */
};

/* ------------------------------------------------------------------ the copy */

static int make_file(struct header *h)
{
	uint64_t size = disk_size(h->disk);
	struct rlimit limit;

	if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < size)
		return error_set(h->err, -EFBIG,
				 "the header of a disk of %" PRIu64 " bytes cannot be read where files may have at most %" PRIu64
				 " bytes (ulimit -f)",
				 size, (uint64_t)limit.rlim_cur);
	h->fd = memfd_create("luks-header", MFD_CLOEXEC);
	if (h->fd < 0 || ftruncate(h->fd, (off_t)size))
		return error_set_errno(h->err, -errno, "a file in memory for the header");
	return 0;
}

/* Zeroes stay a hole. */
static int put(struct header *h, const unsigned char *bytes, size_t size, uint64_t at)
{
	for (size_t done = 0; done < size; done += PAGE) {
		size_t n = size - done < PAGE ? size - done : PAGE;
		ssize_t written;
		if (memory_is_zero(bytes + done, n))
			continue;
		written = pwrite(h->fd, bytes + done, n, (off_t)(at + done));
		if (written != (ssize_t)n)
			return error_set_errno(h->err, written < 0 ? -errno : -ENOSPC, "a copy of the header in memory");
	}
	return 0;
}

/* `from` and `to` are multiples of a piece, or the end of the disk. */
static int copy(struct header *h, uint64_t from, uint64_t to)
{
	unsigned char *buffer = aligned_alloc(PAGE, PIECE);
	struct failure failure = {0};
	const struct io io = {.failure = &failure};
	int status = buffer ? 0 : error_set(h->err, -ENOMEM, "no memory");

	for (uint64_t at = from; at < to && !status; at += PIECE) {
		size_t n = to - at < PIECE ? (size_t)(to - at) : PIECE;
		status = disk_read(h->disk, &VEC_FLAT(buffer, n), at, &io);
		if (status)
			error_set(h->err, status, "reading the header: %s", failure.text[0] ? failure.text : strerror(-status));
		else
			status = put(h, buffer, n, at);
	}
	free(buffer);
	return status;
}

/* `bytes`, or the size of the disk, whichever is less. */
static uint64_t inside(const struct header *h, uint64_t bytes)
{
	uint64_t size = disk_size(h->disk);

	return bytes < size ? bytes : size;
}

static uint32_t read_u32(const struct header *h, off_t at)
{
	unsigned char b[4] = {0};

	if (pread(h->fd, b, sizeof(b), at) != (ssize_t)sizeof(b))
		return 0;
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static bool has_magic(const struct header *h)
{
	return read_u32(h, 0) == 0x4c554b53 && read_u32(h, 2) == 0x4b53babe; /* "LUKS" 0xba 0xbe */
}

/* ------------------------------------------------------------------ what the header asks for */

static int check_work(const struct header *h, const char *where, uint64_t value, uint64_t limit, const char *unit)
{
	if (value <= limit)
		return 0;
	return error_set(h->err, -EOPNOTSUPP, "%s asks for %" PRIu64 " %s; at most %" PRIu64 " are done", where, value, unit, limit);
}

static int check_stripes(const struct header *h, const char *where, uint64_t stripes)
{
	return stripes == STRIPES ? 0 : error_set(h->err, -EOPNOTSUPP, "%s has %" PRIu64 " stripes; only %u are supported", where,
						  stripes, STRIPES);
}

static int check_cipher(const struct header *h, const char *what, const char *cipher)
{
	if (cipher && !strcmp(cipher, "aes-xts-plain64"))
		return 0;
	return error_set(h->err, -EOPNOTSUPP, "%s is encrypted with '%s'; only aes-xts-plain64 is supported", what,
			 cipher ? cipher : "");
}

/* ------------------------------------------------------------------ LUKS1 (On-Disk Format 1.2.3) */

static int check_keyslot1(const struct header *h, int slot)
{
	struct crypt_pbkdf_type kdf = {0};
	char where[24];
	int status;

	if (h->library->crypt_keyslot_status(h->device, slot) < CRYPT_SLOT_ACTIVE)
		return 0;
	snprintf(where, sizeof(where), "keyslot %d", slot);
	if (h->library->crypt_keyslot_get_pbkdf(h->device, slot, &kdf))
		return error_set(h->err, -EINVAL, "%s cannot be understood", where);
	status = check_work(h, where, kdf.iterations, h->limits->pbkdf2_iterations, "iterations");
	return status ? status : check_stripes(h, where, read_u32(h, LUKS1_KEYSLOTS + slot * LUKS1_KEYSLOT_BYTES +
								     LUKS1_STRIPES_IN_KEYSLOT));
}

static int check_luks1(struct header *h)
{
	char cipher[80];
	int status;

	snprintf(cipher, sizeof(cipher), "%s-%s", h->library->crypt_get_cipher(h->device), h->library->crypt_get_cipher_mode(h->device));
	status = check_cipher(h, "the volume", cipher);
	if (!status)
		status = check_work(h, "the digest", read_u32(h, LUKS1_DIGEST_ITERATIONS), h->limits->pbkdf2_iterations, "iterations");
	for (int slot = 0; slot < LUKS1_NR_KEYSLOTS && !status; slot++)
		status = check_keyslot1(h, slot);
	h->out->version = 1;
	h->out->offset = h->library->crypt_get_data_offset(h->device) * 512;
	h->out->length = UINT64_MAX;
	h->out->sector_size = 512;
	return status;
}

/* ------------------------------------------------------------------ LUKS2 (On-Disk Format 1.1.1, section 3) */

/* JSON has no whole numbers of 64 bits, so some are texts. */
static bool number_of(const json_t *object, const char *name, uint64_t *out)
{
	const json_t *value = json_object_get(object, name);

	if (json_is_string(value))
		return !number_parse(json_string_value(value), out, NULL);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*out = (uint64_t)json_integer_value(value);
	return true;
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static int not_understood(const struct header *h, const char *where)
{
	return error_set(h->err, -EOPNOTSUPP, "%s cannot be understood", where);
}

static int check_argon2(const struct header *h, const char *where, uint64_t memory, uint64_t passes)
{
	int status = check_work(h, where, memory, h->limits->argon2_memory_kib, "KiB of memory");

	/* the product fits: memory is within its limit, passes have 32 bits */
	return status ? status : check_work(h, where, memory * (passes & UINT32_MAX), h->limits->argon2_work_kib, "KiB to pass over");
}

static int check_kdf(const struct header *h, const char *where, const json_t *kdf)
{
	const char *type = text_of(kdf, "type");
	uint64_t iterations, memory;

	if (!strcmp(type, "pbkdf2"))
		return number_of(kdf, "iterations", &iterations)
			       ? check_work(h, where, iterations, h->limits->pbkdf2_iterations, "iterations")
			       : not_understood(h, where);
	if (strncmp(type, "argon2", 6) || !number_of(kdf, "memory", &memory) || !number_of(kdf, "time", &iterations) ||
	    iterations > UINT32_MAX)
		return not_understood(h, where);
	return check_argon2(h, where, memory, iterations);
}

static int check_keyslot2(const struct header *h, const char *number, const json_t *keyslot)
{
	uint64_t stripes = 0;
	char where[40];
	int status;

	snprintf(where, sizeof(where), "keyslot %.20s", number);
	if (strcmp(text_of(keyslot, "type"), "luks2"))
		return error_set(h->err, -EOPNOTSUPP, "%s is of type '%s'; a volume that is being reencrypted is not supported", where,
				 text_of(keyslot, "type"));
	status = check_cipher(h, where, text_of(json_object_get(keyslot, "area"), "encryption"));
	if (!status)
		status = check_kdf(h, where, json_object_get(keyslot, "kdf"));
	number_of(json_object_get(keyslot, "af"), "stripes", &stripes);
	return status ? status : check_stripes(h, where, stripes);
}

static int check_keyslots2(const struct header *h)
{
	json_t *keyslot, *digest;
	const char *number;
	int status = 0;

	json_object_foreach(json_object_get(h->metadata, "keyslots"), number, keyslot)
		status = status ? status : check_keyslot2(h, number, keyslot);
	json_object_foreach(json_object_get(h->metadata, "digests"), number, digest)
		status = status ? status : check_kdf(h, "a digest", digest);
	return status;
}

static int check_requirements(const struct header *h)
{
	const json_t *config = json_object_get(h->metadata, "config");
	const json_t *mandatory = json_object_get(json_object_get(config, "requirements"), "mandatory");
	const char *first = json_string_value(json_array_get(mandatory, 0));

	if (!json_array_size(mandatory))
		return 0;
	return error_set(h->err, -EOPNOTSUPP, "the volume requires '%s', which is not supported", first ? first : "");
}

static int take_segment(const struct header *h, const json_t *segment)
{
	struct luks_volume *v = h->out;
	uint64_t sector;

	if (strcmp(text_of(segment, "type"), "crypt"))
		return error_set(h->err, -EOPNOTSUPP, "the content is of type '%s'; only 'crypt' is supported", text_of(segment, "type"));
	if (json_object_get(segment, "integrity"))
		return error_set(h->err, -EOPNOTSUPP, "the volume has integrity '%s', which is not supported",
				 text_of(json_object_get(segment, "integrity"), "type"));
	v->length = UINT64_MAX;
	if (!number_of(segment, "offset", &v->offset) || !number_of(segment, "iv_tweak", &v->first_tweak) ||
	    !number_of(segment, "sector_size", &sector) || sector < 512 || sector > 4096 || sector & (sector - 1) ||
	    (strcmp(text_of(segment, "size"), "dynamic") && !number_of(segment, "size", &v->length)))
		return not_understood(h, "the segment");
	v->sector_size = (uint32_t)sector;
	return check_cipher(h, "the volume", text_of(segment, "encryption"));
}

static int take_segments(const struct header *h)
{
	json_t *segments = json_object_get(h->metadata, "segments");
	size_t count = json_object_size(segments);

	if (count != 1)
		return error_set(h->err, -EOPNOTSUPP, "the volume has %zu segments; only one is supported", count);
	return take_segment(h, json_object_iter_value(json_object_iter(segments)));
}

static int check_luks2(struct header *h)
{
	const char *text = NULL;
	int status;

	if (h->library->crypt_dump_json(h->device, &text, 0) || !text)
		return not_understood(h, "the header");
	h->metadata = json_loads(text, 0, NULL);
	if (!h->metadata)
		return not_understood(h, "the header");
	h->out->version = 2;
	status = check_requirements(h);
	if (!status)
		status = take_segments(h);
	return status ? status : check_keyslots2(h);
}

/* ------------------------------------------------------------------ with the library, under its lock */

static void keep_complaint(int level, const char *message, void *argument)
{
	struct header *h = argument;

	if (level != CRYPT_LOG_ERROR)
		return;
	snprintf(h->trouble, sizeof(h->trouble), "%.*s", (int)strcspn(message, "\n"), message);
}

/* What the library calls a device has no meaning for the user. */
static int complain(const struct header *h, int status, const char *what)
{
	if (h->trouble[0] && !strstr(h->trouble, "/proc/self/fd/"))
		return error_set(h->err, status, "%s: %s", what, h->trouble);
	return error_set_errno(h->err, status, "%s", what);
}

static int load(struct header *h)
{
	char path[40];
	int status;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", h->fd);
	status = luks_library_get(&h->library, h->err);
	if (status)
		return status;
	status = h->library->crypt_init(&h->device, path);
	if (status)
		return complain(h, status, "libcryptsetup cannot begin");
	h->library->crypt_set_log_callback(h->device, keep_complaint, h);
	status = h->library->crypt_load(h->device, CRYPT_LUKS, NULL);
	if (status && !has_magic(h))
		return error_set(h->err, -EINVAL, "there is no LUKS header");
	return status ? complain(h, status, "the LUKS header cannot be read") : 0;
}

static int check_place(const struct header *h)
{
	const struct luks_volume *v = h->out;
	uint64_t size = disk_size(h->disk);
	uint32_t block = disk_info(h->disk)->block_size;

	if (v->offset >= size || (v->length != UINT64_MAX && v->length > size - v->offset))
		return error_set(h->err, -ERANGE, "the content at %" PRIu64 " goes past the end of the disk of %" PRIu64 " bytes",
				 v->offset, size);
	if (v->length == 0 || (v->length != UINT64_MAX && v->length % (v->sector_size > block ? v->sector_size : block)))
		return error_set(h->err, -EINVAL, "the content of %" PRIu64 " bytes is not whole blocks", v->length);
	if (v->offset % block)
		return error_set(h->err, -EINVAL,
				 "the content begins at %" PRIu64 ", which is not a multiple of the block size, %" PRIu32 " bytes",
				 v->offset, block);
	return 0;
}

static int check(struct header *h)
{
	const char *uuid = h->library->crypt_get_uuid(h->device);
	int status;

	snprintf(h->out->uuid, sizeof(h->out->uuid), "%s", uuid ? uuid : "");
	status = strcmp(h->library->crypt_get_type(h->device), CRYPT_LUKS1) ? check_luks2(h) : check_luks1(h);
	return status ? status : check_place(h);
}

static int get_key(struct header *h)
{
	size_t size = (size_t)h->library->crypt_get_volume_key_size(h->device);
	int slot;

	if (size != 32 && size != 64)
		return error_set(h->err, -EOPNOTSUPP, "the volume has a key of %zu bytes; 32 and 64 are supported", size);
	if (secret_make(h->key, size))
		return error_set(h->err, -ENOMEM, "no memory");
	slot = h->library->crypt_volume_key_get(h->device, CRYPT_ANY_SLOT, (char *)h->key->bytes, &size, (const char *)h->passphrase->bytes,
				    h->passphrase->size);
	if (slot == -EPERM || slot == -ENOENT)
		return error_set(h->err, -EPERM, "no keyslot opens with this passphrase (all bytes of a key file count, also the end of a line)");
	if (slot < 0)
		return complain(h, slot, "the keyslots cannot be opened");
	h->key->size = size;
	h->out->keyslot = (unsigned)slot;
	return 0;
}

static int load_locked(void *argument)
{
	int status;

	pthread_mutex_lock(&library_lock);
	status = load(argument);
	pthread_mutex_unlock(&library_lock);
	return status;
}

static int unlock_locked(void *argument)
{
	int status;

	pthread_mutex_lock(&library_lock);
	status = check(argument);
	if (!status)
		status = get_key(argument);
	pthread_mutex_unlock(&library_lock);
	return status;
}

static int free_locked(void *argument)
{
	struct header *h = argument;

	pthread_mutex_lock(&library_lock);
	h->library->crypt_free(h->device);
	pthread_mutex_unlock(&library_lock);
	return 0;
}

/* ------------------------------------------------------------------ all of it */

static int unlock(struct header *h)
{
	uint64_t headers = inside(h, HEADERS_BYTES);
	int status = make_file(h);

	if (!status)
		status = copy(h, 0, headers);
	if (!status)
		status = aio_offload(load_locked, h);
	if (!status) {
		uint64_t content = h->library->crypt_get_data_offset(h->device);
		content = content < MOST_BYTES / 512 ? content * 512 : MOST_BYTES;
		status = copy(h, headers, inside(h, (content + PIECE - 1) / PIECE * PIECE));
	}
	if (!status)
		status = aio_offload(unlock_locked, h);
	return status;
}

int luks_unlock(struct disk *d, const struct secret *passphrase, const struct luks_limits *limits, struct luks_volume *out,
		struct secret *key, struct error *err)
{
	struct header h = {.disk = d, .fd = -1, .limits = limits, .passphrase = passphrase, .out = out, .key = key, .err = err};
	int status;

	*out = (struct luks_volume){0};
	status = unlock(&h);
	json_decref(h.metadata);
	if (h.device)
		aio_offload(free_locked, &h);
	if (h.fd >= 0)
		close(h.fd);
	if (status)
		secret_drop(key);
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file is replaced as a whole (docs/formats/reservations.md says what is in it):
 *
 *   1. FILE.new is opened or made, locked, and emptied            until here, and if anything fails, FILE is
 *   2. it is written and fsync()ed                                the old one
 *   3. it is renamed to FILE                                      FILE is the one or the other after a power cut
 *   4. the folder is fsync()ed                                    FILE is the new one; the action is answered
 *
 * A lock belongs to an inode, and each save brings another one. So the next file is locked before it gets the name; and who opens
 * FILE and has locked it looks whether it still is FILE. There is no moment at which FILE is not locked by its disk. Where
 * there is no FILE yet it is made by link(2), which does not replace one that another process has made meanwhile.
 */
#include "decorators/reservations-file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/aio.h"
#include "core/holders.h"

/* ------------------------------------------------------------------ bytes */

static const char magic[8] = "PLTRESV1";

/* Little-endian. */
struct header {
	char magic[8];
	uint64_t checksum; /* XXH3, 64 bits, of all bytes that follow */
	uint32_t count;
	uint32_t type;     /* enum reservation_type */
	uint32_t holder;   /* which registrant; NO_HOLDER */
	uint32_t persists; /* 1; 0: nothing else is here */
};

#define SUMMED_FROM 16u

struct row {
	uint8_t id[16];
	uint64_t key;
	uint16_t port;
	uint8_t zero[6];
};

_Static_assert(sizeof(struct header) == 32, "on disk");
_Static_assert(offsetof(struct header, count) == SUMMED_FROM, "on disk");
_Static_assert(sizeof(struct row) == 32, "on disk");

#define NO_HOLDER UINT32_MAX
#define FILE_MAX (sizeof(struct header) + RESERVATIONS_MAX * sizeof(struct row))

static uint32_t number_of(const struct reservations *r, const struct initiator *who)
{
	for (size_t i = 0; i < r->count; i++)
		if (!initiator_compare(&r->list[i].who, who))
			return (uint32_t)i;
	return NO_HOLDER;
}

static uint64_t checksum_of(const uint8_t *bytes, size_t size)
{
	return XXH3_64bits(bytes + SUMMED_FROM, size - SUMMED_FROM);
}

static void encode_row(const struct reservation_entry *e, uint8_t *out)
{
	struct row row = {.key = htole64(e->key), .port = htole16(e->who.port)};

	memcpy(row.id, e->who.id, sizeof(row.id));
	memcpy(out, &row, sizeof(row));
}

int reservations_encode(const struct reservations *r, uint8_t **bytes, size_t *size)
{
	size_t count = r->persists ? r->count : 0;
	bool one_holds = r->persists && r->type != RESERVATION_NONE && !reservation_type_of_all(r->type);
	struct header header = {
		.count = htole32((uint32_t)count),
		.type = htole32(r->persists ? r->type : RESERVATION_NONE),
		.holder = htole32(one_holds ? number_of(r, &r->holder) : NO_HOLDER),
		.persists = htole32(r->persists),
	};

	*size = sizeof(header) + count * sizeof(struct row);
	*bytes = malloc(*size);
	if (!*bytes)
		return -ENOMEM;
	memcpy(header.magic, magic, sizeof(magic));
	memcpy(*bytes, &header, sizeof(header));
	for (size_t i = 0; i < count; i++)
		encode_row(&r->list[i], *bytes + sizeof(header) + i * sizeof(struct row));
	header.checksum = htole64(checksum_of(*bytes, *size));
	memcpy(*bytes, &header, sizeof(header));
	return 0;
}

static int damaged(struct error *err, const char *field, uint64_t value, const char *why)
{
	return error_set(err, -EBADMSG, "%s of %" PRIu64 " %s", field, value, why);
}

static int check_header(const struct header *h, const uint8_t *bytes, size_t size, struct error *err)
{
	uint32_t count = le32toh(h->count);

	if (memcmp(h->magic, magic, sizeof(magic)))
		return error_set(err, -EBADMSG, "it is no file of persistent reservations (it does not begin with %.8s)", magic);
	if (count > RESERVATIONS_MAX)
		return error_set(err, -EBADMSG, "count of %" PRIu32 " is more than the %u registrants that there can be", count,
				 RESERVATIONS_MAX);
	if (size != sizeof(*h) + count * sizeof(struct row))
		return error_set(err, -EBADMSG, "it has %zu bytes, and not the %zu that %" PRIu32 " registrants take", size,
				 sizeof(*h) + count * sizeof(struct row), count);
	if (le64toh(h->checksum) != checksum_of(bytes, size))
		return error_set(err, -EBADMSG, "the checksum is wrong");
	return 0;
}

static int check_holder(const struct header *h, struct error *err)
{
	uint32_t type = le32toh(h->type), holder = le32toh(h->holder), count = le32toh(h->count);
	bool of_all = reservation_type_of_all(type), of_one = type != RESERVATION_NONE && !of_all;

	if (le32toh(h->persists) > 1)
		return damaged(err, "persists", le32toh(h->persists), "is neither 0 nor 1");
	if (!h->persists && (count || type))
		return damaged(err, "count", count, "where nothing persists is not 0, or there is a reservation");
	if (type > RESERVATION_EXCLUSIVE_ACCESS_ALL)
		return damaged(err, "type", type, "is no type of reservation");
	if (of_one ? holder >= count : holder != NO_HOLDER)
		return damaged(err, "holder", holder, "is no registrant, or none may be there");
	if (of_all && !count)
		return damaged(err, "type", type, "needs a registrant");
	return 0;
}

/* In order, so that nobody is there twice. */
static int decode_row(const uint8_t *bytes, size_t number, struct reservations *out, struct error *err)
{
	struct reservation_entry *e = &out->list[number];
	static const uint8_t zero[6];
	struct row row;

	memcpy(&row, bytes + sizeof(struct header) + number * sizeof(row), sizeof(row));
	memcpy(e->who.id, row.id, sizeof(row.id));
	e->who.port = le16toh(row.port);
	e->key = le64toh(row.key);
	if (!e->key)
		return damaged(err, "registrant", number, "has key 0");
	if (memcmp(row.zero, zero, sizeof(zero)))
		return damaged(err, "registrant", number, "has bytes that should be zero");
	if (number && initiator_compare(&out->list[number - 1].who, &e->who) >= 0)
		return damaged(err, "registrant", number, "is out of order");
	return 0;
}

static int decode_rows(const uint8_t *bytes, size_t count, struct reservations *out, struct error *err)
{
	int status = 0;

	out->list = calloc(count ? count : 1, sizeof(*out->list));
	if (!out->list)
		return error_set(err, -ENOMEM, "no memory");
	out->room = count ? count : 1;
	for (size_t i = 0; i < count && !status; i++)
		status = decode_row(bytes, i, out, err);
	out->count = count;
	return status;
}

int reservations_decode(const uint8_t *bytes, size_t size, struct reservations *out, struct error *err)
{
	struct header header;
	int status;

	if (size < sizeof(header))
		return error_set(err, -EBADMSG, "it has %zu bytes, and a file of persistent reservations has at least %zu", size,
				 sizeof(header));
	memcpy(&header, bytes, sizeof(header));
	status = check_header(&header, bytes, size, err);
	if (!status)
		status = check_holder(&header, err);
	if (!status)
		status = decode_rows(bytes, le32toh(header.count), out, err);
	if (status) {
		reservations_clear(out);
		return status;
	}
	out->persists = header.persists;
	out->type = le32toh(header.type);
	if (le32toh(header.holder) != NO_HOLDER)
		out->holder = out->list[le32toh(header.holder)].who;
	return 0;
}

/* ------------------------------------------------------------------ the lock */

/* -EBUSY, or 0, also where the file system has no locks. */
static int lock_file(int fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_SETLK, &l) && (errno == EAGAIN || errno == EACCES) ? -EBUSY : 0;
}

/* Is it that file which has the name? */
static bool has_name(const struct reservations_file *f, int fd, const char *name)
{
	struct stat ours, named;

	return !fstat(fd, &ours) && !fstatat(f->folder, name, &named, AT_SYMLINK_NOFOLLOW) && ours.st_dev == named.st_dev &&
	       ours.st_ino == named.st_ino;
}

static int refuse(int fd, struct error *err)
{
	char text[160] = "";
	struct stat st;

	if (!fstat(fd, &st))
		file_holders(&st, text, sizeof(text));
	error_set(err, -EBUSY, "it is in use by another disk");
	if (text[0])
		error_hint(err, "open in process %s", text);
	else
		error_hint(err, "perhaps of this process");
	return -EBUSY;
}

/* ------------------------------------------------------------------ replacing */

static int write_bytes(int fd, const uint8_t *bytes, size_t size)
{
	size_t done = 0;

	if (ftruncate(fd, 0))
		return -errno;
	while (done < size) {
		ssize_t n = pwrite(fd, bytes + done, size - done, (off_t)done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return fsync(fd) ? -errno : 0;
}

/* The mode is that of the file it will replace. */
static int keep_mode(const struct reservations_file *f, int fd)
{
	struct stat st;

	return f->fd >= 0 && !fstat(f->fd, &st) && fchmod(fd, st.st_mode & 0777) ? -errno : 0;
}

/* Writes FILE.new: its descriptor, or what failed. */
static int write_fresh(const struct reservations_file *f, const uint8_t *bytes, size_t size)
{
	int fd = openat(f->folder, f->fresh, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	int status;

	if (fd < 0)
		return -errno;
	status = lock_file(fd);
	if (!status && !has_name(f, fd, f->fresh))
		status = -EBUSY;
	if (status) {
		close(fd);
		return status;
	}
	status = keep_mode(f, fd);
	if (!status)
		status = write_bytes(fd, bytes, size);
	if (status) {
		unlinkat(f->folder, f->fresh, 0);
		close(fd);
	}
	return status ? status : fd;
}

/* Gives it its name; a first one does not replace another. */
static int name_fresh(const struct reservations_file *f)
{
	if (f->fd >= 0)
		return renameat(f->folder, f->fresh, f->folder, f->name) ? -errno : 0;
	if (linkat(f->folder, f->fresh, f->folder, f->name, 0))
		return -errno;
	unlinkat(f->folder, f->fresh, 0);
	return 0;
}

struct replacing {
	struct reservations_file *file;
	const uint8_t *bytes;
	size_t size;
};

static int replace(void *argument)
{
	struct replacing *r = argument;
	struct reservations_file *f = r->file;
	int fd = write_fresh(f, r->bytes, r->size), status;

	if (fd < 0)
		return fd;
	status = name_fresh(f);
	if (status) {
		unlinkat(f->folder, f->fresh, 0);
		close(fd);
		return status;
	}
	if (f->fd >= 0)
		close(f->fd);
	f->fd = fd;
	free(f->saved);
	f->saved = NULL;
	return fsync(f->folder) ? -errno : 0;
}

/* Takes over `bytes`. */
static int save_bytes(struct reservations_file *f, uint8_t *bytes, size_t size)
{
	struct replacing r = {.file = f, .bytes = bytes, .size = size};
	int status = 0;

	if (f->saved && f->saved_size == size && !memcmp(f->saved, bytes, size)) {
		free(bytes);
		return 0;
	}
	status = aio_offload(replace, &r);
	if (status) {
		free(bytes);
		return status;
	}
	f->saved = bytes;
	f->saved_size = size;
	return 0;
}

int reservations_file_save(struct reservations_file *f, const struct reservations *r, const struct io *io)
{
	uint8_t *bytes;
	size_t size;
	int status;

	if (reservations_encode(r, &bytes, &size))
		return io_fail(io, -ENOMEM, "prwrap: no memory");
	status = save_bytes(f, bytes, size);
	if (status)
		return io_fail(io, -EIO, "prwrap: reservations cannot be saved in '%s': %s", f->path, strerror(-status));
	return 0;
}

/* ------------------------------------------------------------------ opening */

/* Folder and name, with symbolic links followed where the file is there. */
static int find_file(struct reservations_file *f, const char *path, struct error *err)
{
	char *real = realpath(path, NULL), *slash;

	if (!real && errno != ENOENT)
		return error_set_errno(err, -errno, "cannot be opened");
	f->path = strdup(path);
	if (!real)
		real = strdup(path);
	slash = real ? strrchr(real, '/') : NULL;
	f->name = real ? strdup(slash ? slash + 1 : real) : NULL;
	if (!f->path || !f->name || asprintf(&f->fresh, "%s.new", f->name) < 0) {
		f->fresh = NULL;
		free(real);
		return error_set(err, -ENOMEM, "no memory");
	}
	if (slash)
		slash[slash == real] = 0;
	f->folder = open(slash ? real : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(real);
	if (f->folder < 0)
		return error_set_errno(err, -errno, "its folder cannot be opened");
	return f->name[0] ? 0 : error_set(err, -EISDIR, "it is a folder");
}

static int read_bytes(int fd, uint8_t *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, bytes + done, size - done, (off_t)done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n)
			return -EIO;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

static int read_file(struct reservations_file *f, int fd, struct reservations *out, struct error *err)
{
	struct stat st;
	int status;

	if (fstat(fd, &st))
		return error_set_errno(err, -errno, "cannot be read");
	if (!S_ISREG(st.st_mode))
		return error_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "it is not a regular file");
	if ((uint64_t)st.st_size > FILE_MAX)
		return error_set(err, -EBADMSG, "it has %" PRIu64 " bytes, and a file of persistent reservations at most %zu",
				 (uint64_t)st.st_size, FILE_MAX);
	f->saved_size = (size_t)st.st_size;
	f->saved = malloc(f->saved_size + 1);
	if (!f->saved)
		return error_set(err, -ENOMEM, "no memory");
	status = read_bytes(fd, f->saved, f->saved_size);
	if (status)
		return error_set_errno(err, status, "cannot be read");
	status = reservations_decode(f->saved, f->saved_size, out, err);
	return status == -EBADMSG ? error_hint(err, "remove it to begin without reservations") : status;
}

/* Its first disk makes it. -EEXIST when another was faster. */
static int make_file(struct reservations_file *f, struct error *err)
{
	const struct reservations nobody = {0};
	uint8_t *bytes;
	size_t size;
	int status = reservations_encode(&nobody, &bytes, &size);

	if (!status)
		status = save_bytes(f, bytes, size);
	f->created = f->fd >= 0;
	if (status == -EBUSY)
		return error_set(err, status, "another disk is just making it");
	return status ? error_set_errno(err, status, "cannot be made") : 0;
}

static int open_to_write(struct reservations_file *f, struct reservations *out, struct error *err)
{
	f->fd = openat(f->folder, f->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (f->fd < 0 && errno == ENOENT)
		return make_file(f, err);
	if (f->fd < 0)
		return error_set_errno(err, -errno, "cannot be opened");
	if (lock_file(f->fd))
		return refuse(f->fd, err);
	if (!has_name(f, f->fd, f->name))
		return error_set(err, -EBUSY, "it was replaced while it was being opened");
	unlinkat(f->folder, f->fresh, 0); /* left over; where the power went after link(2) it is the same file */
	return read_file(f, f->fd, out, err);
}

static int open_to_read(struct reservations_file *f, struct reservations *out, struct error *err)
{
	int fd = openat(f->folder, f->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), status;

	if (fd < 0)
		return errno == ENOENT ? 0 : error_set_errno(err, -errno, "cannot be opened");
	status = read_file(f, fd, out, err);
	close(fd);
	return status;
}

int reservations_file_open(struct reservations_file *f, const char *path, bool read_only, struct reservations *out,
			   struct error *err)
{
	int status;

	*f = (struct reservations_file)RESERVATIONS_FILE_NONE;
	status = find_file(f, path, err);
	if (!status)
		status = read_only ? open_to_read(f, out, err) : open_to_write(f, out, err);
	if (status) {
		error_prefix(err, "persist '%s'", path);
		reservations_file_close(f, true);
	}
	return status;
}

void reservations_file_close(struct reservations_file *f, bool abandoned)
{
	if (abandoned && f->created && has_name(f, f->fd, f->name))
		unlinkat(f->folder, f->name, 0);
	if (f->fd >= 0)
		close(f->fd);
	if (f->folder >= 0)
		close(f->folder);
	free(f->path);
	free(f->name);
	free(f->fresh);
	free(f->saved);
	*f = (struct reservations_file)RESERVATIONS_FILE_NONE;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Nothing of a key is ever printed, also not a part of one in an error. */
#include "decorators/key-file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_ROOM ((size_t)4096)

enum key_source { KEY_FILE, KEY_DESCRIPTOR, KEY_KEYRING };

const char *const key_sources[] = {"file", "fd", "keyring", NULL};

/* ------------------------------------------------------------------ secrets */

int secret_make(struct secret *s, size_t room)
{
	void *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*s = (struct secret){0};
	if (p == MAP_FAILED)
		return -ENOMEM;
	s->bytes = p;
	s->room = room;
	s->unlocked = mlock(p, room) != 0;
	madvise(p, room, MADV_DONTDUMP);
	return 0;
}

void secret_drop(struct secret *s)
{
	if (s->bytes) {
		explicit_bzero(s->bytes, s->room);
		munmap(s->bytes, s->room);
	}
	*s = (struct secret){0};
}

void secret_move(struct secret *to, struct secret *from)
{
	*to = *from;
	*from = (struct secret){0};
}

/* Room for one byte more than there are. */
static int grow(struct secret *s)
{
	struct secret larger;

	if (s->size < s->room)
		return 0;
	if (secret_make(&larger, s->room ? 2 * s->room : FIRST_ROOM))
		return -ENOMEM;
	larger.size = s->size;
	if (s->size)
		memcpy(larger.bytes, s->bytes, s->size);
	secret_drop(s);
	secret_move(s, &larger);
	return 0;
}

/* ------------------------------------------------------------------ files and descriptors */

/* From the beginning where there is one to go back to: a descriptor can then be used for several disks. */
static ssize_t read_on(int fd, bool seekable, struct secret *s)
{
	ssize_t n;

	do {
		n = seekable ? pread(fd, s->bytes + s->size, s->room - s->size, (off_t)s->size)
			     : read(fd, s->bytes + s->size, s->room - s->size);
	} while (n < 0 && errno == EINTR);
	return n;
}

static int read_all(int fd, size_t most, struct secret *s, struct error *err)
{
	bool seekable = lseek(fd, 0, SEEK_CUR) >= 0;
	ssize_t n;

	do {
		if (grow(s))
			return error_set(err, -ENOMEM, "no memory");
		n = read_on(fd, seekable, s);
		if (n < 0)
			return error_set_errno(err, -errno, "read");
		s->size += (size_t)n;
	} while (n > 0 && s->size <= most);
	return s->size > most ? error_set(err, -EFBIG, "more than %zu bytes", most) : 0;
}

static void warn_of_mode(int fd, const char *path)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_mode & (S_IRGRP | S_IROTH))
		fprintf(stderr, "platter: warning: key file '%s' can be read by others than its owner (mode %04o): chmod 600\n", path,
			(unsigned)st.st_mode & 07777);
}

static int read_file(const char *path, size_t most, struct secret *s, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), status;

	if (fd < 0)
		return error_set_errno(err, -errno, "open");
	warn_of_mode(fd, path);
	status = read_all(fd, most, s, err);
	close(fd);
	return status;
}

static int read_descriptor(const char *text, size_t most, struct secret *s, struct error *err)
{
	uint64_t fd;
	int status = number_parse(text, &fd, err);

	if (status)
		return status;
	if (fd > INT_MAX || fcntl((int)fd, F_GETFD) < 0)
		return error_set(err, -EBADF, "no file is open under this number");
	return read_all((int)fd, most, s, err);
}

/* ------------------------------------------------------------------ keyring (keyrings(7)) */

static long read_key(long id, struct secret *s)
{
	return syscall(SYS_keyctl, KEYCTL_READ, id, s->bytes, s->room, 0);
}

static int read_keyring(const char *name, size_t most, struct secret *s, struct error *err)
{
	long id = syscall(SYS_request_key, "user", name, NULL, 0), size;

	if (id < 0)
		return error_set_errno(err, -errno, "a key of type 'user' in the keyrings of this process");
	if (grow(s))
		return error_set(err, -ENOMEM, "no memory");
	size = read_key(id, s);
	if (size > 0 && (size_t)size <= most && (size_t)size > s->room) { /* of type user, 32 KiB at most */
		secret_drop(s);
		if (secret_make(s, (size_t)size))
			return error_set(err, -ENOMEM, "no memory");
		size = read_key(id, s);
	}
	if (size < 0)
		return error_set_errno(err, -errno, "read");
	if ((size_t)size > most || (size_t)size > s->room)
		return error_set(err, -EFBIG, "more than %zu bytes", most);
	s->size = (size_t)size;
	return 0;
}

/* ------------------------------------------------------------------ what a spec names */

static const char *source_name(enum key_source source)
{
	static const char *const names[] = {"key file", "file descriptor", "key in the keyring"};

	return names[source];
}

int key_read(const struct spec *spec, size_t most, struct secret *out, struct error *err)
{
	enum key_source source = (enum key_source)spec_number(spec, "from");
	const char *text = spec_text(spec, "key");
	CLEANUP_SECRET struct secret s = {0};
	int status;

	if (source == KEY_FILE)
		status = read_file(text, most, &s, err);
	else if (source == KEY_DESCRIPTOR)
		status = read_descriptor(text, most, &s, err);
	else
		status = read_keyring(text, most, &s, err);
	if (!status && !s.size)
		status = error_set(err, -EINVAL, "it is empty");
	if (status) {
		error_prefix(err, "%s '%s'", source_name(source), text);
		return status;
	}
	if (s.unlocked)
		fprintf(stderr,
			"platter: warning: the system did not lock a key in memory, so it may get to swap space: ulimit -l\n");
	secret_move(out, &s);
	return 0;
}

/* ------------------------------------------------------------------ hexadecimal */

static int digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return -1;
}

static bool is_blank(unsigned char c)
{
	return c == '\n' || c == '\r' || c == ' ' || c == '\t';
}

/* How many hexadecimal digits it is, with white space after them; 0 when it is something else. */
static size_t count_digits(const struct secret *s)
{
	size_t size = s->size;

	while (size && is_blank(s->bytes[size - 1]))
		size--;
	for (size_t i = 0; i < size; i++)
		if (digit(s->bytes[i]) < 0)
			return 0;
	return size;
}

static void decode_digits(struct secret *s, size_t size)
{
	for (size_t i = 0; i < size; i++)
		s->bytes[i] = (unsigned char)(digit(s->bytes[2 * i]) << 4 | digit(s->bytes[2 * i + 1]));
	explicit_bzero(s->bytes + size, s->room - size);
	s->size = size;
}

static int refuse(const struct secret *s, size_t size, size_t digits, struct error *err)
{
	if (digits)
		return error_set(err, -EINVAL, "%zu hexadecimal digits; a key of %zu bytes has %zu", digits, size, 2 * size);
	error_set(err, -EINVAL, "%zu bytes; a key has exactly %zu, or %zu hexadecimal digits", s->size, size, 2 * size);
	if (s->size == size + 1 && s->bytes[size] == '\n')
		error_hint(err, "the last one is the end of a line: write the key without it");
	return -EINVAL;
}

/* A file of `size` bytes that are all digits was meant to be hexadecimal: as bytes they would be a poor key. */
int key_read_exact(const struct spec *spec, size_t size, struct secret *out, struct error *err)
{
	CLEANUP_SECRET struct secret s = {0};
	int status = key_read(spec, FIRST_ROOM - 1, &s, err);
	size_t digits = status ? 0 : count_digits(&s);

	if (status)
		return status;
	if (digits == 2 * size)
		decode_digits(&s, size);
	else if (digits || s.size != size)
		status = refuse(&s, size, digits, err);
	if (status)
		error_prefix(err, "%s '%s'", source_name((enum key_source)spec_number(spec, "from")), spec_text(spec, "key"));
	else
		secret_move(out, &s);
	return status;
}

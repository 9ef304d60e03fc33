/* SPDX-License-Identifier: BSD-3-Clause */
/* "@FILE": a file that holds one spec, as text or as a JSON object. */
#include "core/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spec-internal.h"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Opens a regular file and nothing else: a pipe or a device would block, or never end. */
static int open_regular(const char *file, struct stat *st, struct error *err)
{
	__attribute__((cleanup(close_fd))) int fd = open(file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	int opened;

	if (fd < 0 || fstat(fd, st))
		return error_set_errno(err, -errno, "cannot open it");
	if (S_ISDIR(st->st_mode))
		return error_set(err, -EISDIR, "it is a folder, not a file that holds a spec");
	if (!S_ISREG(st->st_mode))
		return error_set(err, -EINVAL, "not a regular file");
	opened = fd;
	fd = -1;
	return opened;
}

/* Reads until the end or until `size` bytes are there. */
static ssize_t read_up_to(int fd, char *buffer, size_t size)
{
	size_t length = 0;

	while (length < size) {
		ssize_t n = read(fd, buffer + length, size - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		length += (size_t)n;
	}
	return (ssize_t)length;
}

/* Reads all, takes it from the budget and ends it by a NUL. */
static int read_all(int fd, struct spec_budget *budget, char **out, struct error *err)
{
	CLEANUP_TEXT char *text = malloc(budget->bytes + 2);
	ssize_t length;

	if (!text)
		return error_set(err, -ENOMEM, "no memory");
	length = read_up_to(fd, text, budget->bytes + 1);
	if (length < 0)
		return error_set_errno(err, (int)length, "cannot read it");
	if ((size_t)length > budget->bytes)
		return error_set(err, -EFBIG, "a spec with all its files is longer than %u bytes", SPEC_MAX_TEXT);
	if (memchr(text, '\0', (size_t)length))
		return error_set(err, -EINVAL, "it holds a NUL character: not a text");
	text[length] = '\0';
	budget->bytes -= (size_t)length;
	*out = realloc(text, (size_t)length + 1);
	if (!*out)
		return error_set(err, -ENOMEM, "no memory");
	text = NULL;
	return 0;
}

static bool same_file(const struct spec_place *a, const struct spec_place *b)
{
	return a->file && a->dev == b->dev && a->ino == b->ino;
}

/* Files inside each other must end. The names of all of them stand in front of the error, one by one. */
static int check_nesting(const struct spec_place *place, struct error *err)
{
	unsigned files = 0;

	for (const struct spec_place *p = place->outer; p; p = p->outer) {
		if (same_file(p, place))
			return error_set(err, -ELOOP, "it names itself, and so has no end");
		files += p->file != NULL;
	}
	if (files >= SPEC_MAX_FILES)
		return error_set(err, -ELOOP, "more than %u files that name each other", SPEC_MAX_FILES);
	return 0;
}

static int parse_json_text(const char *text, const struct spec_place *place, struct spec **out,
			   struct error *err)
{
	char echo[SPEC_ECHO_MAX];
	json_error_t why;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	int status;

	if (!json)
		return error_set(err, -EINVAL, "line %d, column %d: JSON: %s", why.line, why.column,
				 spec_echo(why.text, strlen(why.text), echo));
	status = spec_parse_json(json, place, out, err);
	json_decref(json);
	return status;
}

/* Blanks and empty lines around the spec are not part of it. */
static int parse_content(char *text, const struct spec_place *place, struct spec **out, struct error *err)
{
	size_t length = strlen(text);

	while (length && strchr(SPEC_BLANKS, text[length - 1]))
		text[--length] = '\0';
	if (!length)
		return error_set(err, -EINVAL, "it is empty: expected a spec");
	if (text[strspn(text, SPEC_BLANKS)] == '{')
		return parse_json_text(text, place, out, err);
	return spec_parse_text(text, length, place, out, err);
}

static int parse_file(const char *file, const struct spec_place *outer, struct spec **out, struct error *err)
{
	struct spec_place place = *outer;
	CLEANUP_TEXT char *text = NULL;
	struct stat st;
	int fd, status;

	if (outer->budget->no_files)
		return error_set(err, -EPERM, "a spec in a file is not allowed here");
	fd = open_regular(file, &st, err);
	if (fd < 0)
		return fd;
	place.outer = outer;
	place.file = file;
	place.dev = st.st_dev;
	place.ino = st.st_ino;
	status = check_nesting(&place, err);
	if (!status)
		status = read_all(fd, place.budget, &text, err);
	close(fd);
	return status ? status : parse_content(text, &place, out, err);
}

int spec_parse_file(const char *file, const struct spec_place *place, struct spec **out, struct error *err)
{
	int status = parse_file(file, place, out, err);
	char echo[SPEC_ECHO_MAX];

	if (status)
		error_prefix(err, "file '%s'", spec_echo(file, strlen(file), echo));
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding the parent of a differencing image
 *
 * A name becomes places, absolute paths without "." and ".."; a place becomes a descriptor, or a reason. What keeps a stranger's
 * text from naming any file of this machine is the opening alone: openat2(2) resolves below a folder that is allowed, so that neither
 * what a name contains nor a link that somebody changes meanwhile leads out of it. Where the kernel has no openat2 (before Linux 5.6), or
 * a filter forbids it, the links are resolved first, what comes out is compared with the folder, and after opening it is
 * resolved and compared once more, by device and inode.
 *
 * Not done: case folding beyond ASCII, drive letters (C: and D: are the same to us), aliases of Mac OS.
 */
#include "formats/parent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "formats/utf16.h"

#define MAX_PLACES 64u

struct parent_policy parent_policy_of(const struct spec *spec)
{
	return (struct parent_policy){
		.parents = spec_text(spec, "parents"),
		.parent = spec_text(spec, "parent"),
		.ignore_change = spec_given(spec, "ignore-change"),
	};
}

/* ------------------------------------------------------------------ names */

static int add_name(struct parent_names *n, enum parent_form form, char *text, const char *problem)
{
	struct parent_name *list = reallocarray(n->list, n->count + 1, sizeof(*list));

	if (!list) {
		free(text);
		return -ENOMEM;
	}
	list[n->count++] = (struct parent_name){.form = form, .text = text, .problem = problem};
	n->list = list;
	return 0;
}

int parent_names_add_utf16(struct parent_names *n, enum parent_form form, const void *text, size_t bytes, int order)
{
	const char *in = text;
	char *utf8;
	int status;

	while (bytes >= 2 && bytes % 2 == 0 && !in[bytes - 1] && !in[bytes - 2]) /* some count a terminator */
		bytes -= 2;
	status = utf16_to_utf8(text, bytes, (enum utf16_order)order, &utf8);
	if (status == -EILSEQ)
		return add_name(n, form, NULL, "a name of the parent is not UTF-16");
	return status ? status : add_name(n, form, utf8, NULL);
}

int parent_names_add(struct parent_names *n, enum parent_form form, const char *text, size_t bytes)
{
	char *copy;

	while (bytes && !text[bytes - 1])
		bytes--;
	if (memchr(text, 0, bytes))
		return add_name(n, form, NULL, "a name of the parent has a NUL in it");
	copy = strndup(text, bytes);
	return copy ? add_name(n, form, copy, NULL) : -ENOMEM;
}

static bool has_drive(const char *text)
{
	unsigned char letter = (unsigned char)text[0] | 0x20;

	return letter >= 'a' && letter <= 'z' && text[1] == ':';
}

enum parent_form parent_form_of(const char *text)
{
	if (!strncasecmp(text, "\\\\?\\Volume{", 11))
		return PARENT_VOLUME;
	if (has_drive(text) || !strncmp(text, "\\\\", 2))
		return PARENT_WINDOWS;
	return text[0] == '/' || !strncasecmp(text, "file:", 5) ? PARENT_POSIX : PARENT_RELATIVE;
}

void parent_names_free(struct parent_names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->list[i].text);
	free(n->list);
	*n = (struct parent_names){0};
}

/* ------------------------------------------------------------------ paths */

static void backslashes_to_slashes(char *text)
{
	for (; *text; text++)
		if (*text == '\\')
			*text = '/';
}

static int hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes %XX in place (RFC 3986, 2.1); false for a malformed one or a NUL. */
static bool decode_percents(char *text)
{
	char *out = text;

	for (; *text; text++) {
		if (*text != '%') {
			*out++ = *text;
			continue;
		}
		int high = hex_of(text[1]), low = high < 0 ? -1 : hex_of(text[2]);
		if (low < 0 || !(high | low))
			return false;
		*out++ = (char)(high << 4 | low);
		text += 2;
	}
	*out = 0;
	return true;
}

/* The path of a file URL (RFC 8089), in place; NULL when it is malformed. The machine that it may name is not looked at. */
static char *path_of_url(char *text)
{
	if (strncasecmp(text, "file:", 5))
		return text;
	text += 5;
	if (!strncmp(text, "//", 2))
		text += 2 + strcspn(text + 2, "/");
	return decode_percents(text) ? text : NULL;
}

static const char *skip_slashes(const char *p)
{
	return p + strspn(p, "/");
}

/* What of an absolute path is the same on every machine: without drive, volume or leading slash. Slashes are ours already. */
static const char *without_drive(const char *p)
{
	p = skip_slashes(p);
	if (!strncmp(p, "?/", 2) || !strncmp(p, "./", 2)) /* \\?\ and \\.\ */
		p = skip_slashes(p + 2);
	if (!strncasecmp(p, "Volume{", 7))
		p += strcspn(p, "/");
	else if (has_drive(p))
		p += 2;
	return skip_slashes(p);
}

/* "FOLDER/REST" without ".", ".." and double slashes, by the letters alone; NULL: no memory. */
static char *join_path(const char *folder, const char *rest)
{
	char *path = malloc(strlen(folder) + strlen(rest) + 2), *end;

	if (!path)
		return NULL;
	strcpy(path, strcmp(folder, "/") ? folder : "");
	end = path + strlen(path);
	while (*(rest = skip_slashes(rest))) {
		size_t n = strcspn(rest, "/");
		if (n == 2 && !strncmp(rest, "..", 2)) {
			while (end > path && *--end != '/')
				;
		} else if (n != 1 || *rest != '.') {
			*end++ = '/';
			memcpy(end, rest, n);
			end += n;
		}
		rest += n;
	}
	if (end == path)
		*end++ = '/';
	*end = 0;
	return path;
}

/* What of `path` lies below `root`, both without dots; NULL: nothing does. */
static const char *below(const char *root, const char *path)
{
	size_t n = strcmp(root, "/") ? strlen(root) : 0;

	return !strncmp(path, root, n) && path[n] == '/' && path[n + 1] ? path + n + 1 : NULL;
}

/* ------------------------------------------------------------------ opening below a folder */

static int open_how(int root, const char *rest, int flags, bool anywhere)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = RESOLVE_NO_MAGICLINKS | (anywhere ? 0 : RESOLVE_BENEATH),
	};
	int fd = (int)syscall(SYS_openat2, root, rest, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

static bool is_missing_call(int status)
{
	return status == -ENOSYS || status == -EPERM; /* EPERM: seccomp filters of old containers */
}

/* The path that `path` stands for after links, when it is below `root`; NULL, with errno. */
static char *resolve_below(const char *root, const char *path)
{
	char *real = realpath(path, NULL);

	if (real && strcmp(real, root) && !below(root, real)) {
		free(real);
		errno = EXDEV;
		return NULL;
	}
	return real;
}

static bool is_still_there(int fd, const char *root, const char *path)
{
	char *real = resolve_below(root, path);
	struct stat opened, found;
	bool same = real && !fstat(fd, &opened) && !stat(real, &found) && opened.st_dev == found.st_dev &&
		    opened.st_ino == found.st_ino;

	free(real);
	return same;
}

/* Without openat2. */
static int open_resolved(const char *root, const char *rest, int flags)
{
	char *path = join_path(root, rest), *real = path ? resolve_below(root, path) : NULL;
	int fd = real ? open(real, flags | O_NOFOLLOW | O_CLOEXEC) : -1, status = fd < 0 ? -errno : fd;

	if (!path)
		status = -ENOMEM;
	if (fd >= 0 && !is_still_there(fd, root, path)) {
		close(fd);
		status = -EXDEV;
	}
	free(real);
	free(path);
	return status;
}

static int open_below(const char *root, const char *rest, int flags, bool anywhere)
{
	int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;

	if (folder < 0)
		return -errno;
	fd = open_how(folder, rest, flags, anywhere);
	close(folder);
	return is_missing_call(fd) ? open_resolved(root, rest, flags) : fd;
}

/* ------------------------------------------------------------------ names in another case */

/* Of the folder behind `fd`, which is closed: writes the one name that is `name` but for its case over it. */
static bool find_in_folder(int fd, char *name, size_t length)
{
	DIR *d = fdopendir(fd);
	unsigned found = 0;
	struct dirent *e;

	if (!d) {
		close(fd);
		return false;
	}
	while ((e = readdir(d)))
		if (strlen(e->d_name) == length && !strncasecmp(e->d_name, name, length) && !found++)
			memcpy(name, e->d_name, length);
	closedir(d);
	return found == 1;
}

/* The folder in which the component at rest[from] lies. */
static int open_folder_of(const char *root, char *rest, size_t from, bool anywhere)
{
	const int flags = O_RDONLY | O_DIRECTORY;
	int fd;

	if (!from)
		return open_below(root, ".", flags, anywhere);
	rest[from - 1] = 0;
	fd = open_below(root, rest, flags, anywhere);
	rest[from - 1] = '/';
	return fd;
}

/* Puts the component rest[from..to) into the case that it has in its folder. */
static bool correct_component(const char *root, char *rest, size_t from, size_t to, bool anywhere)
{
	char after = rest[to];
	bool good = true;
	int fd;

	rest[to] = 0;
	fd = open_below(root, rest, O_PATH, anywhere);
	if (fd >= 0) {
		close(fd);
	} else {
		fd = open_folder_of(root, rest, from, anywhere);
		good = fd >= 0 && find_in_folder(fd, rest + from, to - from);
	}
	rest[to] = after;
	return good;
}

/* A copy of `rest` as the folders below `root` spell it; NULL: it is not there in any case, or there is no memory. */
static char *in_other_case(const char *root, const char *rest, bool anywhere)
{
	char *copy = strdup(rest);

	for (size_t from = 0; copy && copy[from];) {
		size_t to = from + strcspn(copy + from, "/");
		if (!correct_component(root, copy, from, to, anywhere)) {
			free(copy);
			return NULL;
		}
		from = to + (copy[to] == '/');
	}
	return copy;
}

/* ------------------------------------------------------------------ trying places */

struct search {
	const struct parent_policy *policy;
	const struct parent_chain *chain;
	parent_accept *accept;
	void *context;
	char *folder; /* of the child */
	char *top;    /* of the image that the user opened: what lies below is allowed */
	char *extra;  /* parents=DIR; NULL: none */
	bool any;
	char *places[MAX_PLACES];
	unsigned nr_places;
	char *told; /* "'place': reason; 'place': reason" */
	int status; /* of the best place up to now */
};

/* Reasons from the weakest to the strongest: what was there says more than what was not. */
static unsigned weight_of(int status)
{
	switch (status) {
	case 0: return 0;
	case -ENOENT: return 1;
	case -EPERM:
	case -EILSEQ: return 2;
	case -ELOOP: return 3;
	default: return 4;
	}
}

/* Notes why it was not this place. -ENOMEM is the only failure. */
static int tell(struct search *s, const char *place, int status, const char *reason)
{
	char *told;

	if (weight_of(status) > weight_of(s->status))
		s->status = status;
	if (asprintf(&told, "%s%s%s%s%s%s", s->told ? s->told : "", s->told ? "; " : "", place ? "'" : "", place ? place : "",
		     place ? "': " : "", reason) < 0)
		return -ENOMEM;
	free(s->told);
	s->told = told;
	return 0;
}

/* By the file alone, before it is locked: the image above may have it open for writing. */
static bool is_in_chain(const struct search *s, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	for (const struct parent_chain *at = s->chain; at; at = at->child)
		if (at->container->is_file && at->container->device == st.st_dev && at->container->inode == st.st_ino)
			return true;
	return false;
}

/* 1: it is the parent; 0: it is not, which was told; or -ENOMEM. */
static int consider(struct search *s, const char *place, int fd)
{
	CLEANUP_ERROR struct error err = {0};
	struct container *c = NULL;
	int status;

	if (is_in_chain(s, fd)) {
		close(fd);
		return tell(s, place, -ELOOP, "it is itself above in this chain, which would be a cycle");
	}
	status = container_from_fd(fd, place, CONTAINER_READ_ONLY | CONTAINER_SHARED, &c, &err);
	if (status) {
		close(fd);
		return tell(s, place, status, error_text(&err));
	}
	status = s->accept(s->context, c, &err);
	if (!status)
		return 1;
	container_close(c, false, NULL);
	return tell(s, place, status, error_text(&err));
}

static const char *why_not_open(int status)
{
	return status == -EXDEV ? "a link leads out of the folder in which parents may lie" : strerror(-status);
}

/* The place lies below `root` as `rest`. */
static int try_below(struct search *s, const char *root, const char *rest, bool anywhere)
{
	const int flags = O_RDONLY | O_NONBLOCK; /* a FIFO must not hang us */
	int fd = open_below(root, rest, flags, anywhere), status;
	char *other = fd == -ENOENT ? in_other_case(root, rest, anywhere) : NULL;
	char *place = join_path(root, other ? other : rest);

	if (other)
		fd = open_below(root, other, flags, anywhere);
	if (!place) {
		if (fd >= 0)
			close(fd);
		status = -ENOMEM;
	} else if (fd < 0) {
		status = tell(s, place, fd == -EXDEV ? -EPERM : fd, why_not_open(fd));
	} else {
		status = consider(s, place, fd);
	}
	free(place);
	free(other);
	return status;
}

/* False when it was tried before, or there are too many; else it is remembered. */
static bool is_new(struct search *s, char *place)
{
	for (unsigned i = 0; i < s->nr_places; i++)
		if (!strcmp(s->places[i], place))
			return false;
	if (s->nr_places == MAX_PLACES)
		return false;
	s->places[s->nr_places++] = place;
	return true;
}

/* As consider(). Takes over `place`, a path from join_path(). */
static int try_place(struct search *s, char *place)
{
	const char *rest;

	if (!place)
		return -ENOMEM;
	if (!is_new(s, place)) {
		free(place);
		return 0;
	}
	if ((rest = below(s->top, place)))
		return try_below(s, s->top, rest, s->any);
	if (s->extra && (rest = below(s->extra, place)))
		return try_below(s, s->extra, rest, false);
	if (s->any && (rest = below("/", place)))
		return try_below(s, "/", rest, true);
	return tell(s, place, -EPERM, "it lies outside of the folder in which parents may lie");
}

/* ------------------------------------------------------------------ from names to places */

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const char *without_dots(const char *rest)
{
	while (!strncmp(rest, "./", 2) || !strncmp(rest, "../", 3))
		rest = skip_slashes(strchr(rest, '/'));
	return rest;
}

/* Every ending of the path below parents=DIR. */
static int try_endings(struct search *s, const char *rest)
{
	int status = 0;

	for (rest = without_dots(rest); s->extra && *rest && !status;) {
		status = try_place(s, join_path(s->extra, rest));
		rest = skip_slashes(rest + strcspn(rest, "/"));
	}
	return status;
}

static int try_absolute(struct search *s, enum parent_form form, const char *path)
{
	const char *rest = without_drive(path), *last = last_component(rest);
	int status = 0;

	if (form == PARENT_POSIX || s->any)
		status = try_place(s, join_path("/", rest));
	if (!status && *last)
		status = try_place(s, join_path(s->folder, last));
	return status ? status : try_endings(s, rest);
}

static int try_name(struct search *s, const struct parent_name *name)
{
	char *copy, *path;
	int status;

	if (!name->text)
		return tell(s, NULL, -EILSEQ, name->problem);
	copy = strdup(name->text);
	if (!copy)
		return -ENOMEM;
	path = name->form == PARENT_POSIX ? path_of_url(copy) : copy;
	if (!path) {
		status = tell(s, name->text, -EILSEQ, "it is no URL of a file");
	} else if (name->form == PARENT_RELATIVE) {
		backslashes_to_slashes(path);
		status = try_place(s, join_path(s->folder, path));
		if (!status)
			status = try_endings(s, path);
	} else {
		if (name->form != PARENT_POSIX)
			backslashes_to_slashes(path);
		status = try_absolute(s, name->form, path);
	}
	free(copy);
	return status;
}

/* ------------------------------------------------------------------ */

/* The folder of a file, after links. */
static char *folder_of(const struct container *c, struct error *err)
{
	char *copy = strdup(c->name), *folder = copy ? realpath(dirname(copy), NULL) : NULL;

	if (!folder)
		error_set_errno(err, copy ? -errno : -ENOMEM, "folder of '%s'", c->name);
	free(copy);
	return folder;
}

static int begin(struct search *s, struct error *err)
{
	const struct parent_chain *top = s->chain;
	const char *parents = s->policy->parents;
	unsigned depth = 1;

	for (; top->child; top = top->child)
		depth++;
	if (depth >= PARENT_MAX_DEPTH)
		return error_set(err, -ELOOP, "the chain of parents is longer than the limit of %u images", PARENT_MAX_DEPTH);
	s->folder = folder_of(s->chain->container, err);
	s->top = s->folder ? folder_of(top->container, err) : NULL;
	if (!s->top)
		return err ? err->status : -ENOENT;
	s->any = parents && !strcmp(parents, "any");
	if (!parents || s->any)
		return 0;
	s->extra = realpath(parents, NULL);
	return s->extra ? 0 : error_set_errno(err, -errno, "parents=%s", parents);
}

static int explain(const struct search *s, struct error *err)
{
	int status = s->status ? s->status : -ENOENT;

	error_set(err, status, "its parent was not found: %s", s->told ? s->told : "the image names none");
	if (s->any)
		error_hint(err, "parent=SPEC says which it is");
	else
		error_hint(err, "parents may lie below '%s'%s%s%s; parents=DIR allows another folder, parents=any every one, parent=SPEC says which it is",
			   s->top, s->extra ? " and '" : "", s->extra ? s->extra : "", s->extra ? "'" : "");
	return status;
}

int parent_find(const struct parent_names *names, const struct parent_policy *policy, const struct parent_chain *chain,
		parent_accept *accept, void *context, struct error *err)
{
	struct search s = {.policy = policy, .chain = chain, .accept = accept, .context = context};
	CLEANUP_ERROR struct error here = {0};
	int status = begin(&s, &here);

	if (status) {
		error_move(err, &here);
	} else {
		for (size_t i = 0; i < names->count && !status; i++)
			status = try_name(&s, &names->list[i]);
		if (status < 0)
			error_set(err, status, "no memory");
		else
			status = status ? 0 : explain(&s, err);
	}
	for (unsigned i = 0; i < s.nr_places; i++)
		free(s.places[i]);
	free(s.told);
	free(s.folder);
	free(s.top);
	free(s.extra);
	return status;
}

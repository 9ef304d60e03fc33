/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a file, and not a FIFO or a socket: it can be there before the disk is opened, it is written by `echo` and every language
 * there is, any number of disks can follow the same one, it shows what holds now, and nothing is left of it that would stand
 * in the way of the next opening. What a socket would have over it, an answer, is written to a second file.
 *
 * Half a file is never taken for a whole one. The settings are one line, and its newline is the last byte of the file: whatever
 * was cut off, by a writer that is not done or that died, lacks it. A file that is empty, as it is between `>` and the
 * first write, or not there, as between two renames, says nothing either.
 *
 * Requests have nothing to do with any of it. A thread sleeps until the folder of the file changes (inotify, of the folder,
 * since renaming puts another inode in the place of the file), reads, and lets the kind parse by its own table of fields: the
 * line is put into a spec over a disk that is never opened. What the kind then does with the settings is between it and its
 * requests. On a network file system changes by other machines are not noticed.
 *
 *   protected by `lock`   text, read, changes, problem; nothing is called under it
 *   the thread's own      inotify, and apply(), once it runs
 */
#include "decorators/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONGEST_LINE 65536u
#define WATCHED (IN_CLOSE_WRITE | IN_MOVED_TO)

/* What the line is parsed over; nobody opens it. */
#define STAND_IN_KIND "null"
#define STAND_IN ":null:512"

struct control {
	char *path, *reply, *folder;
	const char *name; /* in the folder */
	const struct disk_kind *kind;
	control_apply *apply;
	void *owner;

	bool running;
	pthread_t thread;
	int inotify, ending; /* -1: none */

	pthread_mutex_t lock;
	char *text;       /* the line that holds; NULL: none came */
	struct stat read; /* of the file it came from */
	unsigned changes; /* lines that were taken */
	char *problem;    /* with the last line; NULL: none */
};

/* ------------------------------------------------------------------ reading */

/* The same file, and nobody has written to it. */
static bool is_unchanged(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       !memcmp(&a->st_mtim, &b->st_mtim, sizeof(a->st_mtim)) &&
	       !memcmp(&a->st_ctim, &b->st_ctim, sizeof(a->st_ctim));
}

/* The bytes with a NUL behind them; NULL with status 0 where there are none, or somebody is writing and will be heard of. */
static int read_bytes(int fd, const struct stat *st, char **text, size_t *size)
{
	struct stat after;
	int status;
	ssize_t n;

	*text = malloc(LONGEST_LINE + 2);
	if (!*text)
		return -ENOMEM;
	n = pread(fd, *text, LONGEST_LINE + 1, 0);
	status = n < 0 ? -errno : 0;
	if (n > 0 && !fstat(fd, &after) && is_unchanged(st, &after)) {
		*size = (size_t)n;
		(*text)[n] = 0;
		return 0;
	}
	free(*text);
	*text = NULL;
	return status;
}

/* *text is NULL where there is nothing to be read, which is no failure. */
static int read_file(const char *path, struct stat *st, char **text, size_t *size, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), status;

	*text = NULL;
	if (fd < 0)
		return errno == ENOENT ? 0 : error_set_errno(err, -errno, "cannot open '%s'", path);
	if (fstat(fd, st) || !S_ISREG(st->st_mode)) {
		close(fd);
		return error_set(err, -EINVAL, "'%s' is not a regular file", path);
	}
	status = read_bytes(fd, st, text, size);
	close(fd);
	return status ? error_set_errno(err, status, "cannot read '%s'", path) : 0;
}

/* Makes the file's bytes the line: one, whole, of text. */
static int cut_line(char *text, size_t size, const char *path, struct error *err)
{
	if (size > LONGEST_LINE)
		return error_set(err, -EFBIG, "'%s' is longer than %u bytes", path, LONGEST_LINE);
	if (text[size - 1] != '\n')
		return error_set(err, -EINVAL, "'%s' does not end with a newline: half of it may be missing", path);
	text[size - 1] = 0;
	if (strlen(text) != size - 1 || strchr(text, '\n'))
		return error_set(err, -EINVAL, "'%s' is not one line of text", path);
	return 0;
}

static bool is_settings_only(const struct control *c, const struct spec *s)
{
	return s->kind == c->kind && s->nr_children == 1 && !strcmp(s->children[0]->kind->name, STAND_IN_KIND);
}

static int apply_line(struct control *c, const char *line, struct error *err)
{
	CLEANUP_SPEC struct spec *s = NULL;
	size_t room = strlen(c->kind->name) + 1 + strlen(line) + sizeof(STAND_IN);
	char *whole = malloc(room);
	int status;

	if (!whole)
		return error_set(err, -ENOMEM, "no memory");
	snprintf(whole, room, "%s:%s%s", c->kind->name, line, STAND_IN);
	status = spec_parse(whole, &s, err);
	free(whole);
	if (!status && !is_settings_only(c, s))
		status = error_set(err, -EINVAL, "'%s': only settings of %s can stand here, no disk", line, c->kind->name);
	return status ? status : c->apply(c->owner, s, err);
}

/* One writing of a file gives several events, and may be read before the first of them comes. */
static bool is_known(const struct control *c, const struct stat *st, const char *text)
{
	return c->text && !strcmp(c->text, text) && is_unchanged(&c->read, st);
}

/* Takes over the line, or keeps what is wrong with it. */
static void settle(struct control *c, char *text, const struct stat *st, int status, const struct error *err)
{
	pthread_mutex_lock(&c->lock);
	free(c->problem);
	c->problem = status ? strdup(error_text(err)) : NULL;
	if (!status) {
		free(c->text);
		c->text = text;
		c->read = *st;
		c->changes++;
	}
	pthread_mutex_unlock(&c->lock);
	if (status)
		free(text);
}

/* True when something new was read, good or bad. */
static bool take_file(struct control *c, struct error *err)
{
	struct stat st;
	char *text;
	size_t size;
	int status = read_file(c->path, &st, &text, &size, err);

	if (!status && !text)
		return false;
	if (!status)
		status = cut_line(text, size, c->path, err);
	if (!status && is_known(c, &st, text)) {
		free(text);
		return false;
	}
	if (!status)
		status = apply_line(c, text, err);
	settle(c, text, &st, status, err);
	return true;
}

/* ------------------------------------------------------------------ the answer */

/* Made anew each time, so that nobody can have put a link in its place. Who has no room for it goes without. */
static void write_reply(struct control *c, const struct error *err)
{
	FILE *file;
	int fd;

	unlink(c->reply);
	fd = open(c->reply, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	file = fdopen(fd, "w");
	if (!file) {
		close(fd);
		return;
	}
	if (err->status)
		fprintf(file, "error: %s\n", error_text(err));
	else
		fprintf(file, "ok %u\n", c->changes);
	fclose(file);
}

static void take_and_reply(struct control *c)
{
	CLEANUP_ERROR struct error err = {0};

	if (take_file(c, &err))
		write_reply(c, &err);
}

/* ------------------------------------------------------------------ watching */

/* Events of the folder; true when one is about the file. Lost ones may have been. */
static bool read_events(struct control *c)
{
	_Alignas(struct inotify_event) char buffer[4096];
	bool ours = false;
	ssize_t n;

	while ((n = read(c->inotify, buffer, sizeof(buffer))) > 0)
		for (char *at = buffer; at < buffer + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(const void *)at;
			ours = ours || e->mask & IN_Q_OVERFLOW || (e->len && !strcmp(e->name, c->name));
			at += sizeof(*e) + e->len;
		}
	return ours;
}

static void *watch(void *argument)
{
	struct control *c = argument;
	struct pollfd polled[2] = {{.fd = c->inotify, .events = POLLIN}, {.fd = c->ending, .events = POLLIN}};

	take_and_reply(c); /* what was written since it was opened */
	for (;;) {
		if (poll(polled, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (polled[1].revents)
			return NULL;
		if (read_events(c))
			take_and_reply(c);
	}
}

/* Signals are the program's, not this thread's. */
static int start_thread(struct control *c)
{
	sigset_t all, old;
	int status;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	status = pthread_create(&c->thread, NULL, watch, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	c->running = !status;
	return -status;
}

static int start(struct control *c)
{
	unlink(c->reply); /* of a program that was killed */
	c->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	c->ending = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->inotify < 0 || c->ending < 0 || inotify_add_watch(c->inotify, c->folder, WATCHED) < 0)
		return -errno;
	return start_thread(c);
}

void control_start(struct control *c)
{
	CLEANUP_ERROR struct error err = {0};
	int status = start(c);

	if (!status)
		return;
	error_set_errno(&err, status, "cannot watch '%s'", c->folder);
	pthread_mutex_lock(&c->lock);
	free(c->problem);
	c->problem = strdup(error_text(&err));
	pthread_mutex_unlock(&c->lock);
}

/* ------------------------------------------------------------------ life */

void control_describe(struct control *c, json_t *object)
{
	json_t *o;

	if (!c)
		return;
	o = json_object();
	pthread_mutex_lock(&c->lock);
	json_object_set_new(o, "path", json_string_nocheck(c->path));
	json_object_set_new(o, "changes", json_integer(c->changes));
	if (c->problem)
		json_object_set_new(o, "problem", json_string(c->problem));
	pthread_mutex_unlock(&c->lock);
	json_object_set_new(object, "control", o);
}

void control_close(struct control *c)
{
	if (!c)
		return;
	if (c->running) {
		eventfd_write(c->ending, 1);
		pthread_join(c->thread, NULL);
		unlink(c->reply);
	}
	if (c->inotify >= 0)
		close(c->inotify);
	if (c->ending >= 0)
		close(c->ending);
	pthread_mutex_destroy(&c->lock);
	free(c->path);
	free(c->reply);
	free(c->folder);
	free(c->text);
	free(c->problem);
	free(c);
}

/* Paths that stay the same when the working directory does not: daemons change it. */
static int set_paths(struct control *c, const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');
	char *part = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	size_t room;

	c->folder = part ? realpath(part, NULL) : NULL;
	free(part);
	if (!c->folder)
		return error_set_errno(err, -errno, "the folder of '%s'", path);
	c->name = slash ? slash + 1 : path;
	if (!*c->name)
		return error_set(err, -EISDIR, "'%s' is a folder", path);
	room = strlen(c->folder) + 1 + strlen(c->name) + sizeof(".reply");
	c->path = malloc(room);
	c->reply = malloc(room);
	if (!c->path || !c->reply)
		return error_set(err, -ENOMEM, "no memory");
	snprintf(c->path, room, "%s/%s", c->folder, c->name);
	snprintf(c->reply, room, "%s.reply", c->path);
	c->name = strrchr(c->path, '/') + 1;
	return 0;
}

int control_open(struct control **out, const char *path, const struct disk_kind *kind, control_apply *apply, void *owner,
		 struct error *err)
{
	CLEANUP_ERROR struct error cause = {0};
	struct control *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (!c)
		return error_set(err, -ENOMEM, "no memory");
	c->kind = kind;
	c->apply = apply;
	c->owner = owner;
	c->inotify = c->ending = -1;
	pthread_mutex_init(&c->lock, NULL);
	if (!set_paths(c, path, &cause))
		take_file(c, &cause);
	if (cause.status) {
		control_close(c);
		error_move(err, &cause);
		return error_prefix(err, "control");
	}
	*out = c;
	return 0;
}

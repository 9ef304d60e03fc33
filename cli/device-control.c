/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands, one a line:
 *
 *     list                  "ok 1=1073741824 2=4096": namespaces and their bytes
 *     add SPEC              "ok NSID"
 *     remove NSID           "ok", when the commands under way have ended and the disk is closed
 *     resize NSID SIZE      "ok"; SIZE as `platter resize` takes it
 *
 * One client at a time is served, others wait in line. Who may open the socket may open files as we do, so it is for its owner
 * alone (mode 0600).
 */
#include "cli/device-control.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/open.h"
#include "core/spec.h"
#include "core/unix-socket.h"
#include "core/wait.h"

/* The longest command; answers are no longer. */
#define MAX_LINE 8192u

struct device_control {
	struct nvme *controller;
	unsigned flags;
	char *path;
	int socket;
	_Atomic bool stopping;
	struct wait_group ended;

	struct wait_mutex lock; /* protects the client's descriptor; -1: none */
	int client;
};

/* ------------------------------------------------------------------ commands */

/* Adds to the text in `out`, of MAX_LINE bytes; what does not fit is left out. */
static void append(char *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(char *out, const char *format, ...)
{
	size_t used = strlen(out);
	va_list list;

	va_start(list, format);
	vsnprintf(out + used, MAX_LINE - used, format, list);
	va_end(list);
}

static int list(struct device_control *c, char *out)
{
	uint64_t size;

	for (uint32_t nsid = 1; nvme_find_namespace(c->controller, &nsid, &size); nsid++)
		append(out, " %" PRIu32 "=%" PRIu64, nsid, size);
	return 0;
}

static int add(struct device_control *c, const char *spec, char *out, struct error *err)
{
	struct disk *disk;
	uint32_t nsid = 0;
	int status = disk_open(spec, c->flags, &disk, err);

	if (status)
		return status;
	status = nvme_add_namespace(c->controller, 0, disk, NULL, &nsid, err);
	if (status)
		disk_close(disk, NULL);
	else
		append(out, " %" PRIu32, nsid);
	return status;
}

/* The number at the front of `text`, of which the rest is returned; NULL: there is none. */
static char *take_nsid(char *text, uint32_t *nsid)
{
	CLEANUP_ERROR struct error err = {0};
	char *end = text + strcspn(text, " ");
	uint64_t number;
	bool more = *end;

	*end = '\0';
	if (number_parse(text, &number, &err) || number > UINT32_MAX)
		return NULL;
	*nsid = (uint32_t)number;
	return more ? end + 1 : end;
}

static int change(struct device_control *c, bool resize, char *arguments, struct error *err)
{
	uint32_t nsid;
	char *rest = take_nsid(arguments, &nsid);
	uint64_t size;

	if (!rest || (!resize && *rest))
		return error_set(err, -EINVAL, "expected %s", resize ? "resize NSID SIZE" : "remove NSID");
	if (!resize)
		return nvme_remove_namespace(c->controller, nsid, err);
	return size_parse(rest, &size, err) ? err->status : nvme_resize_namespace(c->controller, nsid, size, err);
}

/* Carries out one line; `out` has the answer, without its end. */
static void run(struct device_control *c, char *line, char *out)
{
	CLEANUP_ERROR struct error err = {0};
	char *arguments = line + strcspn(line, " ");
	int status;

	if (*arguments)
		*arguments++ = '\0';
	strcpy(out, "ok");
	if (strcmp(line, "list") == 0 && !*arguments)
		status = list(c, out);
	else if (strcmp(line, "add") == 0)
		status = add(c, arguments, out, &err);
	else if (strcmp(line, "remove") == 0 || strcmp(line, "resize") == 0)
		status = change(c, line[2] == 's', arguments, &err);
	else
		status = error_set(&err, -EINVAL, "expected list, add SPEC, remove NSID, or resize NSID SIZE");
	if (status)
		snprintf(out, MAX_LINE, "error: %s", error_text(&err));
}

/* ------------------------------------------------------------------ a client */

static bool send_line(int fd, char *text)
{
	size_t left = strlen(text) + 1;

	text[left - 1] = '\n';
	while (left) {
		ssize_t n = send(fd, text, left, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno != EAGAIN || loop_poll(fd, POLLOUT, WAIT_FOREVER) < 0))
			return false;
		text += n > 0 ? n : 0;
		left -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

/* Reads more behind what is there; false: the client has gone, or its line is too long. */
static bool receive(int fd, char *line, size_t *used)
{
	ssize_t n;

	if (*used == MAX_LINE)
		return false;
	while ((n = recv(fd, line + *used, MAX_LINE - *used, MSG_DONTWAIT)) < 0)
		if ((errno != EAGAIN && errno != EINTR) || loop_poll(fd, POLLIN, WAIT_FOREVER) < 0)
			return false;
	*used += (size_t)n;
	return n > 0;
}

static void serve_client(struct device_control *c, int fd, char *line, char *out)
{
	size_t used = 0;
	char *end;

	while (receive(fd, line, &used))
		while ((end = memchr(line, '\n', used))) {
			*end++ = '\0';
			run(c, line, out);
			if (!send_line(fd, out))
				return;
			used -= (size_t)(end - line);
			memmove(line, end, used);
		}
}

static void set_client(struct device_control *c, int fd)
{
	wait_mutex_lock(&c->lock);
	c->client = fd;
	if (fd >= 0 && atomic_load(&c->stopping))
		shutdown(fd, SHUT_RDWR);
	wait_mutex_unlock(&c->lock);
}

static void control_main(void *argument)
{
	struct device_control *c = argument;

	while (!atomic_load(&c->stopping)) {
		int fd = accept4(c->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		char *lines = fd >= 0 ? malloc(2 * (size_t)MAX_LINE + 1) : NULL;
		if (lines) {
			set_client(c, fd);
			serve_client(c, fd, lines, lines + MAX_LINE);
			set_client(c, -1);
		}
		free(lines);
		if (fd >= 0)
			close(fd);
		else if (errno == EAGAIN)
			loop_poll(c->socket, POLLIN, WAIT_FOREVER);
		else if (!atomic_load(&c->stopping))
			wait_sleep(10000000);
	}
	wait_group_done(&c->ended);
}

/* ------------------------------------------------------------------ life */

static void free_all(struct device_control *c)
{
	if (c->socket >= 0) {
		unlink(c->path);
		close(c->socket);
	}
	free(c->path);
	free(c);
}

static int make_socket(struct device_control *c, struct error *err)
{
	int status = unix_socket_make(c->path, 0600, &c->socket, err);

	return status || !listen(c->socket, 4) ? status : error_set_errno(err, -errno, "socket '%s'", c->path);
}

int device_control_start(const char *path, struct nvme *controller, struct loop *loop, unsigned flags,
			 struct device_control **out, struct error *err)
{
	struct device_control *c = calloc(1, sizeof(*c));
	int status;

	if (!c)
		return error_set(err, -ENOMEM, "no memory");
	c->controller = controller;
	c->flags = flags;
	c->socket = c->client = -1;
	c->path = strdup(path);
	status = c->path ? make_socket(c, err) : error_set(err, -ENOMEM, "no memory");
	if (!status) {
		wait_group_add(&c->ended, 1);
		status = loop_spawn(loop, control_main, c);
		if (status)
			error_set(err, status, "no memory for a fiber");
	}
	if (status)
		free_all(c);
	else
		*out = c;
	return status;
}

void device_control_stop(struct device_control *c)
{
	if (!c)
		return;
	atomic_store(&c->stopping, true);
	shutdown(c->socket, SHUT_RDWR);
	wait_mutex_lock(&c->lock);
	if (c->client >= 0)
		shutdown(c->client, SHUT_RDWR);
	wait_mutex_unlock(&c->lock);
	wait_group_wait(&c->ended);
	free_all(c);
}

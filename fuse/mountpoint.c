/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define TYPE "fuse." MOUNT_SUBTYPE
#define SOURCE MOUNT_SOURCE ":"

/* ------------------------------------------------------------------ paths */

/* Resolves the folder and puts the last name behind it: what is there itself may not answer. */
static char *resolve_parent(const char *path)
{
	char *copy = strdup(path), *again = strdup(path), *folder = NULL, *out = NULL;
	const char *name;

	if (copy && again)
		folder = realpath(dirname(copy), NULL);
	if (folder) {
		name = basename(again);
		if (asprintf(&out, "%s%s%s", strcmp(folder, "/") == 0 ? "" : folder, "/", name) < 0)
			out = NULL;
	}
	free(folder);
	free(copy);
	free(again);
	return out;
}

char *mountpoint_resolve(const char *path, struct error *err)
{
	char *whole = realpath(path, NULL);

	if (!whole && (errno == ENOTCONN || errno == EACCES || errno == EIO))
		whole = resolve_parent(path); /* a mount without a server, or of somebody else */
	if (!whole)
		error_set_errno(err, -errno, "'%s'", path);
	return whole;
}

/* ------------------------------------------------------------------ what is mounted */

/* Undoes the \ooo that the kernel writes for blanks and the like; in place (proc(5), mountinfo). */
static void unescape(char *text)
{
	char *to = text;

	for (const char *p = text; *p;) {
		if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' &&
		    p[3] <= '7') {
			*to++ = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
			p += 4;
		} else {
			*to++ = *p++;
		}
	}
	*to = '\0';
}

struct mount_line {
	const char *device, *point, *type, *source;
};

/* Device and mount point (the third and the fifth word), and type and source (the words behind " - ") of one line, which is taken apart. */
static bool split_line(char *line, struct mount_line *out)
{
	char *rest = line, *dash = strstr(line, " - "), *words[5] = {0};

	if (!dash)
		return false;
	*dash = '\0';
	dash += 3;
	out->type = strsep(&dash, " \n");
	out->source = dash ? strsep(&dash, " \n") : "";
	for (int i = 0; i < 5 && rest; i++)
		words[i] = strsep(&rest, " ");
	if (!words[4])
		return false;
	unescape(words[4]);
	out->device = words[2];
	out->point = words[4];
	return true;
}

/* What the kernel's list says of a mount; it does not have to answer for that, nor to let us in. */
struct mount {
	dev_t device;
	long server; /* the process that its source names; 0: none */
};

static void fill_mount(const struct mount_line *line, struct mount *out)
{
	unsigned major = 0, minor = 0;

	sscanf(line->device, "%u:%u", &major, &minor);
	out->device = makedev(major, minor);
	out->server = strncmp(line->source, SOURCE, strlen(SOURCE)) ? 0 : strtol(line->source + strlen(SOURCE), NULL, 10);
}

/* Is what lies on top of `path` a mount of ours? */
static bool find_mount(const char *path, struct mount *out)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	struct mount_line m;
	char *line = NULL;
	size_t allocated = 0;
	bool ours = false;

	*out = (struct mount){0};
	if (!file)
		return false;
	while (getline(&line, &allocated, file) >= 0) {
		if (!split_line(line, &m) || strcmp(m.point, path) != 0)
			continue;
		ours = strcmp(m.type, TYPE) == 0;
		fill_mount(&m, out); /* the last one lies on top */
	}
	free(line);
	fclose(file);
	return ours;
}

bool mountpoint_is_ours(const char *path)
{
	struct mount m;

	return find_mount(path, &m);
}

dev_t mountpoint_device(const char *path)
{
	struct mount m;

	return find_mount(path, &m) ? m.device : 0;
}

/* Only what is called as we are is waited for: numbers of processes are used again, and differ between containers. */
static bool is_platter(long pid)
{
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return strstr(name, "platter") != NULL;
}

pid_t mountpoint_server(const char *path)
{
	struct mount m;

	if (!find_mount(path, &m) || m.server <= 1 || m.server > INT_MAX || !is_platter(m.server))
		return 0;
	return (pid_t)m.server;
}

/* ------------------------------------------------------------------ unmounting */

/* Runs fusermount3, which says on standard error why it could not. Its exit status, or a negative errno. */
static int run_fusermount(const char *path, bool lazily)
{
	const char *arguments[] = {"fusermount3", "-u", lazily ? "-z" : "--", lazily ? "--" : path, lazily ? path : NULL,
				   NULL};
	extern char **environ;
	posix_spawnattr_t attributes;
	sigset_t none;
	pid_t pid;
	int status, error;

	/* Our own threads block signals; a program of its own should not start like that. */
	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	error = posix_spawnp(&pid, arguments[0], NULL, &attributes, (char **)(uintptr_t)arguments, environ);
	posix_spawnattr_destroy(&attributes);
	if (error)
		return -error;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int unmount_by_helper(const char *path, unsigned flags, struct error *err)
{
	int result = run_fusermount(path, flags & UNMOUNT_LAZILY);

	if (!result)
		return 0;
	if (result < 0)
		return error_set_errno(err, result, "cannot run fusermount3 (apt-get install fuse3)");
	if (!mountpoint_is_ours(path))
		return error_set(err, -EINVAL, "'%s' is not mounted any more", path);
	return error_set(err, -EBUSY, "'%s' is in use", path);
}

int mountpoint_unmount(const char *path, unsigned flags, struct error *err)
{
	if (geteuid() != 0)
		return unmount_by_helper(path, flags, err);
	if (!umount2(path, UMOUNT_NOFOLLOW | (flags & UNMOUNT_LAZILY ? MNT_DETACH : 0)))
		return 0;
	if (errno == EBUSY)
		return error_set(err, -EBUSY, "'%s' is in use", path);
	if (errno == EPERM) /* root in a container without the right to */
		return unmount_by_helper(path, flags, err);
	return error_set_errno(err, -errno, "cannot unmount '%s'", path);
}

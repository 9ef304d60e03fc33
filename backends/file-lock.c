/* SPDX-License-Identifier: BSD-3-Clause */
#include "backends/file-lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_NAMED 3

/* An OFD lock does not tell its owner (F_OFD_GETLK says pid -1), so the holder is guessed: who has the file open? */
struct holders {
	struct stat file;
	char text[160];
	size_t length;
	unsigned found;
};

static bool process_has_open(const char *pid, const struct stat *file)
{
	char path[320];
	struct dirent *entry;
	struct stat st;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		found = !fstatat(dirfd(dir), entry->d_name, &st, 0) && st.st_dev == file->st_dev &&
			st.st_ino == file->st_ino;
	}
	closedir(dir);
	return found;
}

static void name_process(struct holders *h, const char *pid)
{
	char path[320], name[32] = "?";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = 0;
		fclose(f);
	}
	h->length += (size_t)snprintf(h->text + h->length, sizeof(h->text) - h->length, "%s%.10s (%s)",
				      h->found ? ", " : "", pid, name);
	h->found++;
}

static void find_holders(int fd, struct holders *h)
{
	struct dirent *entry;
	long self = (long)getpid();
	DIR *proc;

	if (fstat(fd, &h->file) || !(proc = opendir("/proc")))
		return;
	while (h->found < MAX_NAMED && (entry = readdir(proc))) {
		long pid = strtol(entry->d_name, NULL, 10);
		if (pid > 0 && pid != self && process_has_open(entry->d_name, &h->file))
			name_process(h, entry->d_name);
	}
	closedir(proc);
}

static int refuse(int fd, const char *path, struct error *err)
{
	struct holders h = {.text = ""};

	find_holders(fd, &h);
	error_set(err, -EBUSY, "'%s' is locked by another writer", path);
	if (h.found)
		error_hint(err, "open in process %s", h.text);
	else
		error_hint(err, "perhaps this process itself, in another disk");
	return -EBUSY;
}

int file_lock_writer(int fd, const char *path, struct error *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return refuse(fd, path, err);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/holders.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_NAMED 3

struct holders {
	const struct stat *file;
	char *text;
	size_t room, length;
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
	int n;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = 0;
		fclose(f);
	}
	n = snprintf(h->text + h->length, h->room - h->length, "%s%.10s (%s)", h->found ? ", " : "", pid, name);
	if (n > 0 && (size_t)n < h->room - h->length)
		h->length += (size_t)n;
	h->found++;
}

unsigned file_holders(const struct stat *file, char *text, size_t room)
{
	struct holders h = {.file = file, .text = text, .room = room};
	struct dirent *entry;
	long self = (long)getpid();
	DIR *proc = opendir("/proc");

	text[0] = 0;
	if (!proc)
		return 0;
	while (h.found < MAX_NAMED && (entry = readdir(proc))) {
		long pid = strtol(entry->d_name, NULL, 10);
		if (pid > 0 && pid != self && process_has_open(entry->d_name, file))
			name_process(&h, entry->d_name);
	}
	closedir(proc);
	return h.found;
}

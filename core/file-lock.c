/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/file-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "core/holders.h"

/* An OFD lock does not tell its owner (F_OFD_GETLK says pid -1), so the holder is guessed: who has the file open? */
static int refuse(int fd, const struct flock *wanted, const char *path, struct error *err)
{
	struct flock held = *wanted;
	char text[160] = "";
	struct stat st;

	if (!fstat(fd, &st))
		file_holders(&st, text, sizeof(text));
	if (!fcntl(fd, F_OFD_GETLK, &held) && held.l_type == F_RDLCK)
		error_set(err, -EBUSY, "'%s' is locked by readers whom no change must meet", path);
	else
		error_set(err, -EBUSY, "'%s' is locked by another writer", path);
	if (text[0])
		error_hint(err, "open in process %s", text);
	else
		error_hint(err, "perhaps this process itself, in another disk");
	return -EBUSY;
}

static int lock(int fd, short type, const char *path, struct error *err)
{
	struct flock wanted = {.l_type = type, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &wanted))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return refuse(fd, &wanted, path, err);
	return 0;
}

int file_lock_writer(int fd, const char *path, struct error *err)
{
	return lock(fd, F_WRLCK, path, err);
}

int file_lock_readers(int fd, const char *path, struct error *err)
{
	return lock(fd, F_RDLCK, path, err);
}

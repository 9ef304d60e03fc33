/* SPDX-License-Identifier: BSD-3-Clause */
#include "backends/file-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "core/holders.h"

/* An OFD lock does not tell its owner (F_OFD_GETLK says pid -1), so the holder is guessed: who has the file open? */
static int refuse(int fd, const char *path, struct error *err)
{
	char text[160] = "";
	struct stat st;

	if (!fstat(fd, &st))
		file_holders(&st, text, sizeof(text));
	error_set(err, -EBUSY, "'%s' is locked by another writer", path);
	if (text[0])
		error_hint(err, "open in process %s", text);
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

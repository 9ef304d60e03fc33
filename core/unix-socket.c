/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/unix-socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int new_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* True where a socket is that nobody listens on: its maker has ended without removing it. */
static bool is_stale(const struct sockaddr_un *address)
{
	struct stat st;
	bool stale;
	int fd;

	if (lstat(address->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = new_socket();
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)address, sizeof(*address)) && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

int unix_socket_make(const char *path, mode_t mode, int *fd, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	int s;

	if (!length || length >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "'%s' cannot be the path of a socket: it has to be 1 to %zu bytes", path,
				 sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, length + 1);
	s = new_socket();
	if (s < 0)
		return error_set_errno(err, -errno, "a socket");
	if (is_stale(&address))
		unlink(path);
	/* the file takes over the mode of its socket */
	if (fchmod(s, mode) || bind(s, (struct sockaddr *)&address, sizeof(address))) {
		int status = error_set_errno(err, -errno, "socket '%s'", path);
		close(s);
		return status;
	}
	*fd = s;
	return 0;
}

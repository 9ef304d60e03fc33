/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuse/log.h"

/* False when `path` is no address of such a socket: a file, or with '@' an abstract name. */
static int fill_in(struct sockaddr_un *address, const char *path, socklen_t *length)
{
	size_t n = strlen(path);

	if ((*path != '/' && *path != '@') || n < 2 || n >= sizeof(address->sun_path))
		return 0;
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, n);
	if (*path == '@')
		address->sun_path[0] = '\0';
	*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	return 1;
}

void notify_manager(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {0};
	socklen_t length;
	int fd;

	if (!path || !fill_in(&address, path, &length))
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
		log_message("cannot notify '%s': %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

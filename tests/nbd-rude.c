/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd-rude SOCKET HOW : a client that speaks NBD badly, then goes away.
 *
 *     half-write   announces 1 MiB of data at offset 0, sends half of it (0xdd) and closes
 *     no-reader    asks for 32 reads of 1 MiB and closes without taking the answers
 *     bad-magic    sends a request that does not begin as a request does
 *     hello        closes in the middle of the greeting
 *     huge         asks for a write of 4 GiB - 1
 *
 * 0 when it came so far as to do that.
 */
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct request {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t handle;
	uint64_t offset;
	uint32_t count;
} __attribute__((packed));

#define REQUEST_MAGIC 0x25609513u
#define COMMAND_READ 0
#define COMMAND_WRITE 1
#define OPTION_EXPORT_NAME 1
#define MIB (1u << 20)

static int fd;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void send_all(const void *data, size_t size)
{
	for (const char *p = data; size > 0;) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
		if (n <= 0)
			fail("send");
		p += n;
		size -= (size_t)n;
	}
}

static void receive_all(void *data, size_t size)
{
	if (recv(fd, data, size, MSG_WAITALL) != (ssize_t)size)
		fail("recv");
}

static void connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
		fail("the path of the socket is too long");
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		fail(path);
}

/* The fixed newstyle greeting, with the oldest way to choose the unnamed export. */
static void greet(void)
{
	unsigned char hello[18], export_info[10];
	uint32_t client_flags = htobe32(1 | 2); /* fixed newstyle, no zeroes */
	struct {
		uint64_t magic;
		uint32_t option;
		uint32_t length;
	} __attribute__((packed)) option = {htobe64(0x49484156454f5054), htobe32(OPTION_EXPORT_NAME), 0};

	receive_all(hello, sizeof(hello));
	send_all(&client_flags, sizeof(client_flags));
	send_all(&option, sizeof(option));
	receive_all(export_info, sizeof(export_info));
}

static void request(uint32_t magic, uint16_t type, uint64_t offset, uint32_t count)
{
	struct request r = {
		.magic = htobe32(magic),
		.type = htobe16(type),
		.handle = offset,
		.offset = htobe64(offset),
		.count = htobe32(count),
	};

	send_all(&r, sizeof(r));
}

static void half_write(void)
{
	static unsigned char data[MIB / 2];

	memset(data, 0xdd, sizeof(data));
	request(REQUEST_MAGIC, COMMAND_WRITE, 0, MIB);
	send_all(data, sizeof(data));
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	const char *how = argv[2];

	connect_to(argv[1]);
	if (!strcmp(how, "hello")) {
		unsigned char some[10];
		receive_all(some, sizeof(some));
		return close(fd);
	}
	greet();
	if (!strcmp(how, "half-write"))
		half_write();
	else if (!strcmp(how, "no-reader"))
		for (unsigned i = 0; i < 32; i++)
			request(REQUEST_MAGIC, COMMAND_READ, i * (uint64_t)MIB % (32 * MIB), MIB);
	else if (!strcmp(how, "bad-magic"))
		request(0x12345678, COMMAND_READ, 0, 512);
	else if (!strcmp(how, "huge"))
		request(REQUEST_MAGIC, COMMAND_WRITE, 0, UINT32_MAX);
	else
		return 2;
	return close(fd);
}

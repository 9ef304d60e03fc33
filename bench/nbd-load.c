/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd-load: puts a load on an NBD server and counts. The one client that all peers are measured with.
 *
 * Why not fio or libnbd: client and server share the machine, and what the client spends on a request hides
 * what the servers differ in. This one is a single thread that speaks the protocol itself. What has become
 * free is sent with one sendmsg(2) and what has arrived is taken with one recv(2), however many requests that
 * are; payload of reads is dropped and payload of writes is always the same memory. On one connection both
 * calls block; on several there is one poll(2) for all of them.
 *
 *     slot      a request in flight, found again by its cookie; each connection has `depth` of them
 *     queue     what of the requests is still to be sent, as an iovec
 *     phases    warm-up (not counted), window (counted), drain (nothing new is sent)
 *
 * Replies are the protocol's simple ones; every server speaks those. An error reply, or none for 20 s, ends
 * the program with a message and status 1: a run either counts or fails.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 64u
#define MAX_DEPTH 256u
#define MAX_BLOCK (32u << 20)
#define INPUT_BYTES (1u << 20)
#define STALL_SECONDS 20

#define NBD_MAGIC UINT64_C(0x4e42444d41474943)
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x3e889045565a9)
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_REPLY_MAGIC 0x67446698u
#define NBD_FLAG_FIXED_NEWSTYLE 1u
#define NBD_FLAG_NO_ZEROES 2u
#define NBD_OPTION_GO 7u
#define NBD_REPLY_ACK 1u
#define NBD_REPLY_INFO 3u
#define NBD_REPLY_ERROR 0x80000000u
#define NBD_INFO_EXPORT 0u
#define NBD_CMD_READ 0u
#define NBD_CMD_WRITE 1u
#define NBD_CMD_DISC 2u

struct nbd_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));
_Static_assert(sizeof(struct nbd_request) == 28, "as on the wire");

struct nbd_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));
_Static_assert(sizeof(struct nbd_reply) == 16, "as on the wire");

struct nbd_option {
	uint64_t magic;
	uint32_t option, length;
} __attribute__((packed));

struct nbd_option_reply {
	uint64_t magic;
	uint32_t option, type, length;
} __attribute__((packed));

static struct {
	const char *socket, *export;
	bool writing, random, fill;
	uint32_t block;
	unsigned depth, connections;
	double seconds, warmup;
	uint64_t span, seed;
	pid_t server;
} options = {.export = "", .block = 4096, .depth = 1, .connections = 1, .seconds = 1, .warmup = 0.1};

struct connection {
	int fd;
	struct nbd_request slots[MAX_DEPTH];
	unsigned free_slots[MAX_DEPTH], nr_free;
	struct iovec queue[2 * MAX_DEPTH];
	size_t queue_begin, queue_end;
	unsigned answered; /* the slot whose reply is arriving */
	uint64_t skip;	   /* bytes of its payload still to be dropped */
	size_t leftover;   /* bytes of an incomplete reply header */
	char header[sizeof(struct nbd_reply)];
};

static struct connection connections[MAX_CONNECTIONS];
static char *payload, *input;

/* What all connections share. */
static struct {
	uint64_t blocks, next, random;
	uint64_t sent, done; /* requests */
	bool draining;
} load;

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list list;

	fputs("nbd-load: ", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(1);
}

static double seconds_of(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t) < 0)
		die("clock_gettime: %s", strerror(errno));
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------ connecting */

static void send_all(int fd, const void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
		if (n < 0)
			die("send: %s", strerror(errno));
		done += (size_t)n;
	}
}

static void receive_all(int fd, void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = recv(fd, (char *)data + done, size - done, 0);
		if (n <= 0)
			die("the server closed the connection during negotiation");
		done += (size_t)n;
	}
}

static int connect_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = STALL_SECONDS};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		die("the path of the socket is too long: %s", path);
	strcpy(address.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("cannot connect to '%s': %s", path, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

static void greet(int fd)
{
	struct {
		uint64_t magic, option_magic;
		uint16_t flags;
	} __attribute__((packed)) hello;
	uint32_t flags;

	receive_all(fd, &hello, sizeof(hello));
	if (be64toh(hello.magic) != NBD_MAGIC || be64toh(hello.option_magic) != NBD_OPTION_MAGIC ||
	    !(be16toh(hello.flags) & NBD_FLAG_FIXED_NEWSTYLE))
		die("no NBD server that speaks the newstyle protocol");
	flags = htobe32(be16toh(hello.flags) & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
	send_all(fd, &flags, sizeof(flags));
}

static void ask_for_export(int fd, const char *name)
{
	uint32_t length = (uint32_t)strlen(name), name_length = htobe32(length);
	uint16_t no_requests = 0;
	struct nbd_option go = {
		.magic = htobe64(NBD_OPTION_MAGIC),
		.option = htobe32(NBD_OPTION_GO),
		.length = htobe32(4 + length + 2),
	};

	send_all(fd, &go, sizeof(go));
	send_all(fd, &name_length, sizeof(name_length));
	send_all(fd, name, length);
	send_all(fd, &no_requests, sizeof(no_requests));
}

/* The size in an answer of type NBD_INFO_EXPORT; 0 for another one. */
static uint64_t export_size(const char *info, uint32_t length)
{
	uint16_t type;
	uint64_t size;

	if (length < sizeof(type) + sizeof(size))
		return 0;
	memcpy(&type, info, sizeof(type));
	memcpy(&size, info + sizeof(type), sizeof(size));
	return be16toh(type) == NBD_INFO_EXPORT ? be64toh(size) : 0;
}

/* Reads the answers up to the one that ends negotiation. Returns the size of the export. */
static uint64_t await_export(int fd)
{
	uint64_t size = 0;

	for (;;) {
		struct nbd_option_reply reply;
		char info[4096];
		receive_all(fd, &reply, sizeof(reply));
		uint32_t type = be32toh(reply.type), length = be32toh(reply.length);
		if (be64toh(reply.magic) != NBD_OPTION_REPLY_MAGIC || length > sizeof(info))
			die("malformed answer from the server");
		receive_all(fd, info, length);
		if (type & NBD_REPLY_ERROR)
			die("the server refuses the export '%s': %.*s", options.export, (int)length, info);
		if (type == NBD_REPLY_ACK)
			return size;
		if (type == NBD_REPLY_INFO && export_size(info, length))
			size = export_size(info, length);
	}
}

/* Returns the size of the export. */
static uint64_t connection_open(struct connection *c)
{
	c->fd = connect_unix(options.socket);
	greet(c->fd);
	ask_for_export(c->fd, options.export);
	for (unsigned i = 0; i < options.depth; i++)
		c->free_slots[c->nr_free++] = i;
	return await_export(c->fd);
}

static void connection_close(struct connection *c)
{
	struct nbd_request bye = {.magic = htobe32(NBD_REQUEST_MAGIC), .type = htobe16(NBD_CMD_DISC)};

	send(c->fd, &bye, sizeof(bye), MSG_NOSIGNAL);
	close(c->fd);
}

/* ------------------------------------------------------------------ sending */

static uint64_t next_block(void)
{
	if (!options.random)
		return load.next++ % load.blocks;
	load.random ^= load.random << 13;
	load.random ^= load.random >> 7;
	load.random ^= load.random << 17;
	return (uint64_t)((unsigned __int128)load.random * load.blocks >> 64);
}

static void queue_add(struct connection *c, void *data, size_t size)
{
	c->queue[c->queue_end++] = (struct iovec){data, size};
}

static void queue_request(struct connection *c)
{
	unsigned slot = c->free_slots[--c->nr_free];
	struct nbd_request *r = &c->slots[slot];

	*r = (struct nbd_request){
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.type = htobe16(options.writing ? NBD_CMD_WRITE : NBD_CMD_READ),
		.cookie = slot,
		.offset = htobe64(next_block() * options.block),
		.length = htobe32(options.block),
	};
	queue_add(c, r, sizeof(*r));
	if (options.writing)
		queue_add(c, payload, options.block);
	load.sent++;
}

/* Every free slot becomes a request. What is queued already is moved to the beginning, so that there is room.
 */
static void queue_fill(struct connection *c)
{
	memmove(c->queue, c->queue + c->queue_begin, (c->queue_end - c->queue_begin) * sizeof(*c->queue));
	c->queue_end -= c->queue_begin;
	c->queue_begin = 0;
	while (c->nr_free && !load.draining && !(options.fill && load.sent == load.blocks))
		queue_request(c);
}

/* `bytes` of the queue were sent. */
static void queue_advance(struct connection *c, size_t bytes)
{
	while (bytes) {
		struct iovec *v = &c->queue[c->queue_begin];
		size_t n = v->iov_len < bytes ? v->iov_len : bytes;
		v->iov_base = (char *)v->iov_base + n;
		v->iov_len -= n;
		bytes -= n;
		c->queue_begin += !v->iov_len;
	}
}

/* Sends what is queued; with `flags` MSG_DONTWAIT as much as there is room for. */
static void queue_send(struct connection *c, int flags)
{
	while (c->queue_begin < c->queue_end) {
		struct msghdr message = {
			.msg_iov = c->queue + c->queue_begin,
			.msg_iovlen = c->queue_end - c->queue_begin,
		};
		ssize_t n = sendmsg(c->fd, &message, flags | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN && flags)
			return;
		if (n < 0)
			die("sendmsg: %s", errno == EAGAIN ? "the server takes nothing" : strerror(errno));
		queue_advance(c, (size_t)n);
	}
}

/* ------------------------------------------------------------------ receiving */

static void finish_request(struct connection *c)
{
	c->free_slots[c->nr_free++] = c->answered;
	load.done++;
}

static void take_reply(struct connection *c)
{
	struct nbd_reply reply;

	memcpy(&reply, c->header, sizeof(reply));
	if (be32toh(reply.magic) != NBD_REPLY_MAGIC || reply.cookie >= options.depth)
		die("malformed reply from the server");
	if (reply.error)
		die("the server failed a request with error %" PRIu32, be32toh(reply.error));
	c->leftover = 0;
	c->answered = (unsigned)reply.cookie;
	c->skip = options.writing ? 0 : options.block;
	if (!c->skip)
		finish_request(c);
}

static void parse(struct connection *c, const char *data, size_t size)
{
	while (size) {
		size_t n = c->skip ? c->skip : sizeof(c->header) - c->leftover;
		if (n > size)
			n = size;
		if (c->skip) {
			c->skip -= n;
			if (!c->skip)
				finish_request(c);
		} else {
			memcpy(c->header + c->leftover, data, n);
			c->leftover += n;
			if (c->leftover == sizeof(c->header))
				take_reply(c);
		}
		data += n;
		size -= n;
	}
}

static void receive(struct connection *c, int flags)
{
	ssize_t n = recv(c->fd, input, INPUT_BYTES, flags);

	if (n < 0 && errno == EAGAIN && flags)
		return;
	if (n == 0)
		die("the server closed the connection");
	if (n < 0)
		die("recv: %s", errno == EAGAIN ? "the server does not answer" : strerror(errno));
	parse(c, input, (size_t)n);
}

/* ------------------------------------------------------------------ the run */

static bool in_flight(const struct connection *c)
{
	return c->nr_free < options.depth;
}

static void turn_one(void)
{
	queue_fill(connections);
	queue_send(connections, 0);
	receive(connections, 0);
}

static void turn_all(void)
{
	struct pollfd fds[MAX_CONNECTIONS];

	for (unsigned i = 0; i < options.connections; i++) {
		struct connection *c = &connections[i];
		queue_fill(c);
		queue_send(c, MSG_DONTWAIT);
		fds[i] = (struct pollfd){
			.fd = c->fd,
			.events = POLLIN | (c->queue_begin < c->queue_end ? POLLOUT : 0),
		};
	}
	if (poll(fds, options.connections, STALL_SECONDS * 1000) <= 0)
		die("the server does not answer");
	for (unsigned i = 0; i < options.connections; i++)
		if (fds[i].revents & ~POLLOUT)
			receive(&connections[i], MSG_DONTWAIT);
}

static void turn(void)
{
	if (options.connections == 1)
		turn_one();
	else
		turn_all();
}

static bool any_in_flight(void)
{
	for (unsigned i = 0; i < options.connections; i++)
		if (in_flight(&connections[i]))
			return true;
	return false;
}

static void run_until(double end)
{
	do
		turn();
	while (options.fill ? load.done < load.blocks : seconds_of(CLOCK_MONOTONIC) < end);
}

/* The counters at one moment. */
struct snapshot {
	double time, server, client; /* seconds: of the clock, of CPU */
	uint64_t done;
};

static struct snapshot take_snapshot(void)
{
	struct snapshot s = {.time = seconds_of(CLOCK_MONOTONIC),
			     .client = seconds_of(CLOCK_PROCESS_CPUTIME_ID),
			     .done = load.done};
	clockid_t clock;

	if (options.server && clock_getcpuclockid(options.server, &clock) == 0)
		s.server = seconds_of(clock);
	return s;
}

static void drain(void)
{
	load.draining = true;
	while (any_in_flight())
		turn();
}

static void run(void)
{
	if (!options.fill)
		run_until(seconds_of(CLOCK_MONOTONIC) + options.warmup);
	struct snapshot begin = take_snapshot();
	run_until(begin.time + options.seconds);
	struct snapshot end = take_snapshot();
	drain();
	printf("{\"operations\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"seconds\": %.6f, "
	       "\"server_cpu_seconds\": %.6f, \"client_cpu_seconds\": %.6f}\n",
	       end.done - begin.done, (end.done - begin.done) * options.block, end.time - begin.time,
	       end.server - begin.server, end.client - begin.client);
}

/* ------------------------------------------------------------------ setting up */

/* Bytes none of which is zero: servers that look for zeroes find none. */
static void prepare_memory(void)
{
	payload = malloc(options.block);
	input = malloc(INPUT_BYTES);
	if (!payload || !input)
		die("no memory");
	srandom(1);
	for (uint32_t i = 0; i < options.block; i++)
		payload[i] = (char)(1 + random() % 255);
	memset(input, 0, INPUT_BYTES);
}

static void prepare(void)
{
	uint64_t size = 0;

	prepare_memory();
	for (unsigned i = 0; i < options.connections; i++)
		size = connection_open(&connections[i]);
	if (options.span && options.span < size)
		size = options.span;
	load.blocks = size / options.block;
	if (!load.blocks)
		die("the export of %" PRIu64 " bytes is smaller than one request", size);
	load.random = UINT64_C(0x9e3779b97f4a7c15) * (options.seed + 1);
}

static const struct option long_options[] = {
	{"write", no_argument, NULL, 'w'},	   {"random", no_argument, NULL, 'r'},
	{"fill", no_argument, NULL, 'f'},	   {"block", required_argument, NULL, 'b'},
	{"depth", required_argument, NULL, 'd'},   {"connections", required_argument, NULL, 'c'},
	{"seconds", required_argument, NULL, 's'}, {"warmup", required_argument, NULL, 'u'},
	{"span", required_argument, NULL, 'n'},	   {"seed", required_argument, NULL, 'e'},
	{"export", required_argument, NULL, 'x'},  {"server-pid", required_argument, NULL, 'p'},
	{"help", no_argument, NULL, 'h'},	   {0},
};

static void usage(FILE *to)
{
	fputs("usage: nbd-load [OPTION]... SOCKET\n"
	      "  --write              write instead of read\n"
	      "  --random             random blocks instead of sequential\n"
	      "  --fill               write everything once, and end\n"
	      "  --block=BYTES        bytes a request (4096)\n"
	      "  --depth=N            requests in flight on each connection (1)\n"
	      "  --connections=N      connections (1)\n"
	      "  --seconds=S          length of the measured window (1)\n"
	      "  --warmup=S           time before it (0.1)\n"
	      "  --span=BYTES         use only the first bytes of the export (all)\n"
	      "  --seed=N             of the random numbers (0)\n"
	      "  --export=NAME        which export (\"\")\n"
	      "  --server-pid=PID     report this process's CPU time in the window too\n",
	      to);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (end == text || *end || errno || n < min || n > max)
		die("'%s' is not a number from %" PRIu64 " to %" PRIu64, text, min, max);
	return n;
}

static double duration(const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || !(s >= 0 && s <= 3600))
		die("'%s' is not a number of seconds from 0 to 3600", text);
	return s;
}

static void parse_option(int which)
{
	switch (which) {
	case 'w':
		options.writing = true;
		return;
	case 'r':
		options.random = true;
		return;
	case 'f':
		options.fill = options.writing = true;
		return;
	case 'b':
		options.block = (uint32_t)number(optarg, 1, MAX_BLOCK);
		return;
	case 'd':
		options.depth = (unsigned)number(optarg, 1, MAX_DEPTH);
		return;
	case 'c':
		options.connections = (unsigned)number(optarg, 1, MAX_CONNECTIONS);
		return;
	case 's':
		options.seconds = duration(optarg);
		return;
	case 'u':
		options.warmup = duration(optarg);
		return;
	case 'n':
		options.span = number(optarg, 1, INT64_MAX);
		return;
	case 'e':
		options.seed = number(optarg, 0, UINT64_MAX / 2);
		return;
	case 'x':
		options.export = optarg;
		return;
	case 'p':
		options.server = (pid_t)number(optarg, 1, INT32_MAX);
		return;
	default:
		usage(which == 'h' ? stdout : stderr);
		exit(which == 'h' ? 0 : 2);
	}
}

int main(int argc, char **argv)
{
	int which;

	while ((which = getopt_long(argc, argv, "h", long_options, NULL)) != -1)
		parse_option(which);
	if (optind + 1 != argc) {
		usage(stderr);
		return 2;
	}
	options.socket = argv[optind];
	prepare();
	run();
	for (unsigned i = 0; i < options.connections; i++)
		connection_close(&connections[i]);
	return 0;
}

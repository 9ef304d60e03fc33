/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter serve SPEC, platter serve NAME=SPEC...
 *
 * nbdkit does the serving, as a child that ends with us. It writes its pidfile when clients can connect: that file is the
 * writing end of a pipe, of which we read the other, so that there is nothing to poll for and nothing to clean up.
 */
#include "cli/verb.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/output.h"
#include "core/spec.h"
#include "fuse/notify.h"

enum {
	OPTION_SOCKET,
	OPTION_PORT,
	OPTION_ADDRESS,
	OPTION_READ_ONLY,
	OPTION_TLS,
	OPTION_CERTIFICATES,
	OPTION_PSK,
	OPTION_VERIFY_PEER,
	OPTION_THREADS,
	OPTION_NBDKIT,
	OPTION_PLUGIN,
	OPTION_JSON,
};

static const char *const tls_words[] = {"off", "on", "require", NULL};
enum { TLS_OFF, TLS_ON, TLS_REQUIRE };

struct server {
	const struct verb_arguments *arguments;
	char *folder; /* private, of the socket; NULL: it has its own place */
	char *socket; /* NULL: TCP */
	pid_t pid;
	int ready; /* reading end of the pidfile */
};

/* ------------------------------------------------------------------ what is served */

/* The length of the export's name in "NAME=SPEC"; 0 for a spec alone, of which the first '=' comes behind ':' or ';'. */
static size_t name_length(const char *operand)
{
	size_t n = 0;

	if (!isalpha((unsigned char)operand[0]))
		return 0;
	while (isalnum((unsigned char)operand[n]) || (operand[n] != '\0' && strchr("._-", operand[n])))
		n++;
	return operand[n] == '=' ? n : 0;
}

static int check_operands(const struct verb_arguments *a, struct error *err)
{
	for (int i = 0; i < a->nr_operands; i++) {
		CLEANUP_SPEC struct spec *spec = NULL;
		size_t length = name_length(a->operands[i]);
		if (length == 0 && a->nr_operands > 1)
			return error_set(err, -EINVAL, "'%s': expected NAME=SPEC, since there are several disks",
					 a->operands[i]);
		if (spec_parse(a->operands[i] + (length > 0 ? length + 1 : 0), &spec, err))
			return length > 0 ? error_prefix(err, "%.*s", (int)length, a->operands[i]) : err->status;
	}
	return 0;
}

/* ------------------------------------------------------------------ where */

static int make_folder(struct server *s, struct error *err)
{
	const char *base = getenv("XDG_RUNTIME_DIR");

	if (asprintf(&s->folder, "%s/platter-XXXXXX", base && *base == '/' ? base : "/tmp") < 0) {
		s->folder = NULL;
		return error_set(err, -ENOMEM, "no memory");
	}
	if (!mkdtemp(s->folder)) {
		error_set_errno(err, -errno, "a folder for the socket, '%s'", s->folder);
		free(s->folder);
		s->folder = NULL;
		return err->status;
	}
	if (asprintf(&s->socket, "%s/socket", s->folder) < 0) {
		s->socket = NULL;
		return error_set(err, -ENOMEM, "no memory");
	}
	return 0;
}

static int find_place(struct server *s, struct error *err)
{
	const char *path = s->arguments->options[OPTION_SOCKET];

	if (s->arguments->options[OPTION_PORT])
		return 0;
	if (!path)
		return make_folder(s, err);
	if (!access(path, F_OK))
		return error_set(err, -EEXIST, "'%s' exists already", path);
	s->socket = *path == '/' ? strdup(path) : NULL;
	if (*path != '/') {
		char here[PATH_MAX];
		if (!getcwd(here, sizeof(here)) || asprintf(&s->socket, "%s/%s", here, path) < 0)
			s->socket = NULL;
	}
	if (!s->socket)
		return error_set(err, -ENOMEM, "no memory");
	if (strlen(s->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return error_set(err, -ENAMETOOLONG, "'%s' is too long for a socket", s->socket);
	return 0;
}

static void free_server(struct server *s)
{
	if (s->socket)
		unlink(s->socket);
	if (s->folder)
		rmdir(s->folder);
	free(s->socket);
	free(s->folder);
}

/* ------------------------------------------------------------------ nbdkit's command line */

/* Enough for the options below; operands come on top. */
#define MOST_OPTIONS 40

struct command {
	char **words;
	size_t count;
	bool failed; /* memory ran out */
};

static void add(struct command *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct command *c, const char *format, ...)
{
	va_list list;
	char *word;

	va_start(list, format);
	if (vasprintf(&word, format, list) < 0)
		word = NULL;
	va_end(list);
	if (word)
		c->words[c->count++] = word;
	else
		c->failed = true;
}

/* That of this build when there is one beside the program, else the one that is installed. */
static void add_plugin(struct command *c, const char *wanted)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("plugin.so"));
	char *name;

	if (wanted) {
		add(c, "%s", wanted);
		return;
	}
	path[n > 0 ? n : 0] = '\0';
	name = strrchr(path, '/');
	if (name)
		strcpy(name + 1, "plugin.so");
	add(c, "%s", name && !access(path, R_OK) ? path : "platter");
}

static void add_tls(struct command *c, const struct verb_arguments *a)
{
	if (a->numbers[OPTION_TLS] == TLS_OFF)
		return;
	add(c, "--tls=%s", tls_words[a->numbers[OPTION_TLS]]);
	if (a->options[OPTION_CERTIFICATES])
		add(c, "--tls-certificates=%s", a->options[OPTION_CERTIFICATES]);
	if (a->options[OPTION_PSK])
		add(c, "--tls-psk=%s", a->options[OPTION_PSK]);
	if (a->options[OPTION_VERIFY_PEER])
		add(c, "--tls-verify-peer");
}

static void add_disks(struct command *c, const struct verb_arguments *a)
{
	for (int i = 0; i < a->nr_operands; i++)
		add(c, "%s%s", name_length(a->operands[i]) > 0 ? "export=" : "disk=", a->operands[i]);
}

static void make_command(struct command *c, const struct server *s, int pidfile)
{
	const struct verb_arguments *a = s->arguments;

	add(c, "%s", a->options[OPTION_NBDKIT] ? a->options[OPTION_NBDKIT] : "nbdkit");
	add(c, "--foreground");
	add(c, "--pidfile=/dev/fd/%d", pidfile);
	add(c, "--threads=%" PRIu64, a->numbers[OPTION_THREADS]);
	if (s->socket) {
		add(c, "--unix=%s", s->socket);
	} else {
		add(c, "--port=%s", a->options[OPTION_PORT]);
		add(c, "--ipaddr=%s", a->options[OPTION_ADDRESS] ? a->options[OPTION_ADDRESS] : "localhost");
	}
	if (a->options[OPTION_READ_ONLY])
		add(c, "--readonly");
	add_tls(c, a);
	add_plugin(c, a->options[OPTION_PLUGIN]);
	add_disks(c, a);
}

static void free_command(struct command *c)
{
	for (size_t i = 0; i < c->count; i++)
		free(c->words[i]);
	free(c->words);
}

/* ------------------------------------------------------------------ starting */

static void become_nbdkit(char **words, const sigset_t *signals, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent) /* it has ended already */
		_exit(STATUS_FAILURE);
	sigprocmask(SIG_SETMASK, signals, NULL);
	execvp(words[0], words);
	fprintf(stderr, "platter serve: cannot run '%s': %s%s\n", words[0], strerror(errno),
		errno == ENOENT ? " (it is in the package nbdkit)" : "");
	_exit(STATUS_FAILURE);
}

static int start(struct server *s, const sigset_t *signals, struct error *err)
{
	struct command c = {.words = calloc(MOST_OPTIONS + (size_t)s->arguments->nr_operands, sizeof(char *))};
	pid_t parent = getpid();
	int ends[2];

	if (!c.words || pipe(ends)) {
		free(c.words);
		return error_set_errno(err, -errno, "a pipe");
	}
	make_command(&c, s, ends[1]);
	fcntl(ends[0], F_SETFD, FD_CLOEXEC);
	s->pid = c.failed ? -1 : fork();
	if (s->pid == 0)
		become_nbdkit(c.words, signals, parent);
	close(ends[1]);
	free_command(&c);
	s->ready = ends[0];
	return s->pid < 0 ? error_set_errno(err, c.failed ? -ENOMEM : -errno, "a process for nbdkit") : 0;
}

/* ------------------------------------------------------------------ addresses */

/* As a part of a URI (RFC 3986, section 2.1). */
static void print_escaped(FILE *out, const char *text, size_t length, const char *allowed)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c < 0x80 && (isalnum(c) || strchr(allowed, c)))
			fputc(c, out);
		else
			fprintf(out, "%%%02X", c);
	}
}

/* Of a file of keys, lines of USER:KEY, the first user; clients must say as whom they come. */
static void print_user(FILE *out, const char *keys)
{
	FILE *in = fopen(keys, "re");
	char *line = NULL;
	size_t room = 0;

	while (in && getline(&line, &room, in) > 0)
		if (*line != '#' && strchr(line, ':')) {
			print_escaped(out, line, strcspn(line, ":"), "-._~");
			fputc('@', out);
			break;
		}
	free(line);
	if (in)
		fclose(in);
}

/* A parameter whose value is a path. */
static void print_path(FILE *out, const char *name, const char *path, bool is_first)
{
	char *real = realpath(path, NULL);

	fprintf(out, "%c%s=", is_first ? '?' : '&', name);
	print_escaped(out, real ? real : path, strlen(real ? real : path), "-._~/");
	free(real);
}

/* The NBD URI of one disk; see the NBD project's uri.md, and for keys nbd_connect_uri(3). */
static void print_uri(FILE *out, const struct server *s, const char *operand)
{
	const struct verb_arguments *a = s->arguments;
	const char *tls = a->numbers[OPTION_TLS] == TLS_REQUIRE ? "s" : "";
	const char *address = a->options[OPTION_ADDRESS] ? a->options[OPTION_ADDRESS] : "localhost";
	const char *keys = *tls != '\0' ? a->options[OPTION_PSK] : NULL;
	bool six = strchr(address, ':');

	fprintf(out, "nbd%s%s://", tls, s->socket ? "+unix" : "");
	if (keys)
		print_user(out, keys);
	if (!s->socket)
		fprintf(out, "%s%s%s:%s", six ? "[" : "", address, six ? "]" : "", a->options[OPTION_PORT]);
	fputc('/', out);
	print_escaped(out, operand, name_length(operand), "-._~");
	if (s->socket)
		print_path(out, "socket", s->socket, true);
	if (keys)
		print_path(out, "tls-psk-file", keys, !s->socket);
}

static json_t *uri_of(const struct server *s, const char *operand)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	json_t *uri;

	if (!out)
		return NULL;
	print_uri(out, s, operand);
	fclose(out);
	uri = json_string(text);
	free(text);
	return uri;
}

static void print_uris(const struct server *s)
{
	const struct verb_arguments *a = s->arguments;
	json_t *uris = json_array();

	for (int i = 0; i < a->nr_operands && !a->options[OPTION_JSON]; i++) {
		print_uri(stdout, s, a->operands[i]);
		printf("\n");
	}
	for (int i = 0; i < a->nr_operands; i++)
		json_array_append_new(uris, uri_of(s, a->operands[i]));
	if (a->options[OPTION_JSON])
		print_json(json_pack("{s:i, s:O}", "pid", (int)s->pid, "uris", uris));
	json_decref(uris);
	fflush(stdout);
}

/* ------------------------------------------------------------------ serving */

/* Signals to end are handed on; the end of nbdkit is seen by SIGCHLD. */
static bool take_signal(const struct server *s, int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return true;
	if (info.ssi_signo == SIGCHLD)
		return false;
	notify_manager("STOPPING=1");
	kill(s->pid, SIGTERM);
	return true;
}

static void serve_until_end(struct server *s, int signals)
{
	struct pollfd fds[] = {{.fd = signals, .events = POLLIN}, {.fd = s->ready, .events = POLLIN}};
	char text[32];

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents && read(s->ready, text, sizeof(text)) > 0) {
			print_uris(s);
			notify_manager("READY=1");
		}
		if (fds[1].revents)
			fds[1].fd = -1;
		if (fds[0].revents && !take_signal(s, signals))
			return;
	}
}

static int end_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return STATUS_FAILURE;
	if (WIFSIGNALED(status))
		fprintf(stderr, "platter serve: nbdkit was ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? STATUS_OK : STATUS_FAILURE;
}

static int serve_here(struct server *s, struct error *err)
{
	sigset_t signals, before;
	int fd, status;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, &before);
	fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, -errno, "descriptors for signals");
	s->ready = -1;
	status = start(s, &before, err);
	if (!status) {
		serve_until_end(s, fd);
		status = end_status(s->pid) == STATUS_OK ? 0 : error_set(err, -EIO, "nbdkit has failed");
	}
	if (s->ready >= 0)
		close(s->ready);
	close(fd);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return status;
}

static int serve_verb(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct server s = {.arguments = a};
	bool keys = a->options[OPTION_CERTIFICATES] || a->options[OPTION_PSK];
	int status;

	if (a->options[OPTION_SOCKET] && a->options[OPTION_PORT])
		return verb_usage_error(&verb_serve, "--socket and --port exclude each other");
	if (a->options[OPTION_ADDRESS] && !a->options[OPTION_PORT])
		return verb_usage_error(&verb_serve, "--address goes with --port");
	if (a->numbers[OPTION_TLS] == TLS_OFF && (keys || a->options[OPTION_VERIFY_PEER]))
		return verb_usage_error(&verb_serve, "keys and certificates go with --tls=on or --tls=require");
	status = check_operands(a, &err);
	if (!status)
		status = find_place(&s, &err);
	if (!status)
		status = serve_here(&s, &err);
	free_server(&s);
	return status ? verb_failed("serve", &err) : STATUS_OK;
}

const struct verb verb_serve = {
	.name = "serve",
	.operands = "SPEC | NAME=SPEC...",
	.min_operands = 1,
	.max_operands = INT_MAX,
	.summary = "Serve disks over NBD, by nbdkit",
	.details = "Prints the URI of each disk when clients can connect, and serves until a signal ends it. Without\n"
		   "--socket or --port it is a socket in a private folder.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_SOCKET] = {.name = "socket", .letter = 'U', .argument = "PATH", .help = "on this Unix socket"},
			[OPTION_PORT] = {.name = "port",
					 .letter = 'p',
					 .argument = "N",
					 .type = OPTION_NUMBER,
					 .min = 1,
					 .max = 65535,
					 .help = "on this TCP port"},
			[OPTION_ADDRESS] = {.name = "address", .argument = "HOST", .help = "of this address, else localhost"},
			[OPTION_READ_ONLY] = {.name = "readonly", .letter = 'r', .help = "open all disks read-only"},
			[OPTION_TLS] = {.name = "tls",
					.argument = "HOW",
					.type = OPTION_WORD,
					.words = tls_words,
					.fallback = "off",
					.help = "encryption, one of"},
			[OPTION_CERTIFICATES] = {.name = "tls-certificates",
						 .argument = "FOLDER",
						 .help = "X.509 certificates and key"},
			[OPTION_PSK] = {.name = "tls-psk", .argument = "FILE", .help = "keys that clients have as well"},
			[OPTION_VERIFY_PEER] = {.name = "tls-verify-peer", .help = "clients need certificates, too"},
			[OPTION_THREADS] = {.name = "threads",
					    .letter = 't',
					    .argument = "N",
					    .type = OPTION_NUMBER,
					    .fallback = "16",
					    .min = 1,
					    .max = 1024,
					    .help = "requests at once of each connection"},
			[OPTION_NBDKIT] = {.name = "nbdkit", .argument = "PROGRAM", .help = "another nbdkit than that in PATH"},
			[OPTION_PLUGIN] = {.name = "plugin", .argument = "FILE", .help = "another plugin than the installed one"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			{0},
		},
	.run = serve_verb,
};

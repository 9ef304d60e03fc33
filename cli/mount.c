/* SPDX-License-Identifier: BSD-3-Clause */
/* platter mount FOLDER NAME=SPEC..., platter mount FILE SPEC */
#include "cli/verb.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/output.h"
#include "fuse/serve.h"

enum { OPTION_DAEMON, OPTION_OPTIONS, OPTION_PARTITIONS, OPTION_CONTROL, OPTION_PID_FILE, OPTION_GRACE };

static int failed(const struct error *err)
{
	fprintf(stderr, "platter mount: %s\n", error_text(err));
	return STATUS_FAILURE;
}

/* ------------------------------------------------------------------ what was asked for */

/* Over a file goes a SPEC, into a folder NAME=SPEC. */
static int add_disks(struct export_table *table, const char *path, char **disks, int count, struct error *err)
{
	struct stat st;
	bool single;

	if (stat(path, &st) && errno == ENOTCONN)
		return error_set(err, -ENOTCONN, "'%s' is a mount, though nobody serves it ('platter umount' takes it off)",
				 path);
	if (stat(path, &st))
		return error_set_errno(err, -errno, "'%s'", path);
	single = !S_ISDIR(st.st_mode);
	if (single && count > 1)
		return error_set(err, -EINVAL, "'%s' is a file, over which only one disk can be mounted", path);
	for (int i = 0; i < count; i++) {
		int status = single ? exports_add(table, "", disks[i], "command line", err)
				    : exports_add_pair(table, disks[i], "command line", err);
		if (status)
			return status;
	}
	return 0;
}

static int parse_grace(const char *text, unsigned *grace, struct error *err)
{
	uint64_t seconds;

	*grace = SERVE_DEFAULT_GRACE;
	if (!text)
		return 0;
	if (number_parse(text, &seconds, err))
		return error_prefix(err, "--grace");
	if (seconds > 86400)
		return error_set(err, -ERANGE, "--grace: %s seconds are more than a day", text);
	*grace = (unsigned)seconds;
	return 0;
}

static int fill_in(struct serve_request *r, const struct verb_arguments *a, struct error *err)
{
	const char *options = a->options[OPTION_OPTIONS];
	int status;

	r->path = a->operands[0];
	r->control = a->options[OPTION_CONTROL] != NULL;
	r->partitions = a->options[OPTION_PARTITIONS] != NULL;
	r->ready_fd = -1;
	mount_options_init(&r->options);
	status = mount_options_parse(&r->options, options ? options : "", err);
	if (!status)
		status = parse_grace(a->options[OPTION_GRACE], &r->grace, err);
	if (!status)
		status = add_disks(r->table, r->path, a->operands + 1, a->nr_operands - 1, err);
	return status;
}

/* ------------------------------------------------------------------ in the background */

/* The server has said that it is ready, or it has ended and its status is ours. */
static int wait_for(pid_t server, int ready)
{
	char byte;
	ssize_t n;
	int status;

	while ((n = read(ready, &byte, 1)) < 0 && errno == EINTR)
		;
	if (n == 1)
		return STATUS_OK;
	while (waitpid(server, &status, 0) < 0)
		if (errno != EINTR)
			return STATUS_FAILURE;
	if (WIFSIGNALED(status))
		fprintf(stderr, "platter mount: the server was ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_FAILURE;
}

static int serve_or_fail(const struct serve_request *r)
{
	CLEANUP_ERROR struct error err = {0};

	return serve(r, &err) ? failed(&err) : STATUS_OK;
}

static int cannot_start(const char *what)
{
	fprintf(stderr, "platter mount: %s: %s\n", what, strerror(errno));
	return STATUS_FAILURE;
}

/* Forks before anything is opened: what is opened belongs to the process that serves it. */
static int serve_in_background(struct serve_request *r)
{
	int ends[2];
	pid_t server;

	if (pipe2(ends, O_CLOEXEC))
		return cannot_start("pipe");
	fflush(NULL);
	server = fork();
	if (server < 0)
		return cannot_start("fork");
	if (server > 0) {
		close(ends[1]);
		return wait_for(server, ends[0]);
	}
	close(ends[0]);
	setsid();
	r->ready_fd = ends[1];
	return serve_or_fail(r);
}

/* ------------------------------------------------------------------ */

/* The file is named from where the server may be by then. */
static char *absolute(const char *path)
{
	char folder[PATH_MAX], *out;

	if (*path == '/' || !getcwd(folder, sizeof(folder)))
		return strdup(path);
	return asprintf(&out, "%s/%s", folder, path) < 0 ? NULL : out;
}

static int mount_disks(const struct verb_arguments *arguments, struct export_table *table)
{
	CLEANUP_ERROR struct error err = {0};
	struct serve_request request = {.table = table};
	const char *pid_file = arguments->options[OPTION_PID_FILE];
	char *pid_path = NULL;
	int status;

	if (fill_in(&request, arguments, &err))
		return failed(&err);
	if (pid_file) {
		pid_path = absolute(pid_file);
		if (!pid_path)
			return no_memory();
	}
	request.pid_file = pid_path;
	status = arguments->options[OPTION_DAEMON] ? serve_in_background(&request) : serve_or_fail(&request);
	free(pid_path);
	return status;
}

static int mount_verb(const struct verb_arguments *arguments)
{
	struct export_table table = {.noun = "disk"};
	int status = mount_disks(arguments, &table);

	exports_free(&table);
	return status;
}

const struct verb verb_mount = {
	.name = "mount",
	.operands = "FOLDER NAME=SPEC... | FILE SPEC",
	.min_operands = 2,
	.max_operands = INT_MAX,
	.summary = "Show disks as files",
	.details = "Every disk becomes a file NAME in FOLDER, or the one disk takes the place of FILE, until\n"
		   "'platter umount' takes it off or the server gets a signal to end.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_DAEMON] = {.name = "daemon", .letter = 'd', .help = "serve in the background"},
			[OPTION_OPTIONS] = {.name = "options",
					    .letter = 'o',
					    .argument = "LIST",
					    .adds_up = true,
					    .help = "ro, allow_other, direct_io, ...: see platter-mount(1)"},
			[OPTION_PARTITIONS] = {.name = "partitions", .help = "show partitions as files, too: NAME.p1"},
			[OPTION_CONTROL] = {.name = "control", .help = "show a folder .platter with statistics"},
			[OPTION_PID_FILE] = {.name = "pid-file",
					     .argument = "FILE",
					     .help = "write the server's process ID once it is ready"},
			[OPTION_GRACE] = {.name = "grace",
					  .argument = "SECONDS",
					  .help = "after a signal, wait so long for users (10)"},
			{0},
		},
	.run = mount_verb,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter device nvme --vfio-user SOCKET SPEC...
 *
 * Three kinds of threads: this one, which waits for signals; one loop for the server's fibers; and loops for the controller, on which
 * disks are worked on. The server has one of its own since a reset, which it waits for, has to go on meanwhile.
 */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/device-control.h"
#include "cli/output.h"
#include "core/open.h"
#include "fuse/notify.h"
#include "vmm/nvme-device.h"
#include "vmm/vfio-user.h"

enum {
	OPTION_VFIO_USER,
	OPTION_CONTROL,
	OPTION_SERIAL,
	OPTION_MODEL,
	OPTION_QUEUES,
	OPTION_VECTORS,
	OPTION_DEPTH,
	OPTION_MDTS,
	OPTION_DOORBELLS,
	OPTION_THREADS,
	OPTION_READ_ONLY,
	OPTION_VERBOSE,
	OPTION_JSON,
};

/* As enum nvme_device_doorbells. */
static const char *const doorbell_words[] = {"messages", "poll", NULL};

#define MAX_THREADS 64u

struct serving {
	const struct verb_arguments *arguments;
	struct loop *server_loop;
	struct loop *loops[MAX_THREADS]; /* the controller's */
	unsigned nr_loops;
	struct vfio_user *server;
	struct nvme_device *device;
	struct device_control *control; /* NULL: none was asked for */
};

static void say_line(struct vfio_user_listener *l, const char *text)
{
	(void)l;
	fprintf(stderr, "platter device: %s\n", text);
}

/* ------------------------------------------------------------------ how to attach it */

/* The text between single quotes, as shells take it. */
static void print_quoted(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else
			fputc(*text, out);
	}
	fputc('\'', out);
}

/* The socket as it is found from any folder; free(). NULL: no memory. */
static char *absolute_path(const char *path)
{
	char here[PATH_MAX], *out;

	if (*path == '/' || !getcwd(here, sizeof(here)))
		return strdup(path);
	return asprintf(&out, "%s/%s", here, path) < 0 ? NULL : out;
}

/* QEMU's option in JSON, the only form in which it takes an address; free(). NULL: no memory. */
static char *qemu_device(const char *path)
{
	json_t *json = json_pack("{s:s, s:{s:s, s:s}}", "driver", "vfio-user-pci", "socket", "type", "unix", "path", path);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return text;
}

static int print_ready(const struct serving *s, struct error *err)
{
	char *path = absolute_path(s->arguments->options[OPTION_VFIO_USER]);
	char *device = path ? qemu_device(path) : NULL;

	if (!device) {
		free(path);
		return error_set(err, -EINVAL, "the path of the socket cannot be shown (is it UTF-8?)");
	}
	if (s->arguments->options[OPTION_JSON]) {
		print_json(json_pack("{s:i, s:s, s:s}", "pid", (int)getpid(), "socket", path, "qemu-device", device));
	} else {
		printf("qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=ram,size=1G,share=on "
		       "-machine q35,memory-backend=ram -device ");
		print_quoted(stdout, device);
		printf("\n");
	}
	fflush(stdout);
	free(device);
	free(path);
	return 0;
}

/* ------------------------------------------------------------------ the device */

static int start_loops(struct serving *s, struct error *err)
{
	int status = loop_start(NULL, &s->server_loop, err);

	while (!status && s->nr_loops < s->arguments->numbers[OPTION_THREADS]) {
		status = loop_start(NULL, &s->loops[s->nr_loops], err);
		if (!status)
			s->nr_loops++;
	}
	return status;
}

static int make_device(struct serving *s, struct error *err)
{
	const struct verb_arguments *a = s->arguments;
	struct nvme_options o = {
		.serial = a->options[OPTION_SERIAL],
		.model = a->options[OPTION_MODEL],
		.queues = (unsigned)a->numbers[OPTION_QUEUES],
		.vectors = (unsigned)a->numbers[OPTION_VECTORS],
		.depth = (unsigned)a->numbers[OPTION_DEPTH],
		.mdts = (unsigned)a->numbers[OPTION_MDTS],
	};

	return nvme_device_create(&o, (enum nvme_device_doorbells)a->numbers[OPTION_DOORBELLS],
				  vfio_user_memory(s->server), s->loops, s->nr_loops, &s->device, err);
}

static int add_disks(struct serving *s, struct error *err)
{
	const struct verb_arguments *a = s->arguments;
	unsigned flags = a->options[OPTION_READ_ONLY] ? OPEN_READ_ONLY : 0;

	for (int i = 1; i < a->nr_operands; i++) {
		struct disk *disk;
		int status = disk_open(a->operands[i], flags, &disk, err);
		if (status)
			return status;
		status = nvme_add_namespace(nvme_device_controller(s->device), 0, disk, NULL, NULL, err);
		if (status) {
			disk_close(disk, NULL);
			return status;
		}
	}
	return 0;
}

static int begin(struct serving *s, struct vfio_user_listener *listener, struct error *err)
{
	const struct verb_arguments *a = s->arguments;
	int status = start_loops(s, err);

	if (!status)
		status = vfio_user_create(a->options[OPTION_VFIO_USER], s->server_loop, a->options[OPTION_VERBOSE] ? listener : NULL,
					  &s->server, err);
	if (!status)
		status = make_device(s, err);
	if (!status)
		status = add_disks(s, err);
	if (!status && a->options[OPTION_CONTROL])
		status = device_control_start(a->options[OPTION_CONTROL], nvme_device_controller(s->device), s->server_loop,
					      a->options[OPTION_READ_ONLY] ? OPEN_READ_ONLY : 0, &s->control, err);
	if (!status)
		status = vfio_user_start(s->server, nvme_device_vmm(s->device), err);
	return status ? status : print_ready(s, err);
}

/* Commands that the disks are at work on end, what was written is flushed, disks are closed. */
static int end(struct serving *s, struct error *err)
{
	int status;

	device_control_stop(s->control);
	if (s->server)
		vfio_user_stop(s->server);
	status = nvme_device_destroy(s->device, err);
	while (s->nr_loops)
		loop_finish(s->loops[--s->nr_loops]);
	if (s->server_loop)
		loop_finish(s->server_loop);
	vfio_user_destroy(s->server);
	return status;
}

/* ------------------------------------------------------------------ the verb */

static void wait_for_signal(int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		;
}

static int serve_device(const struct verb_arguments *a, struct error *err)
{
	CLEANUP_ERROR struct error ended = {0};
	struct vfio_user_listener listener = {.say = say_line};
	struct serving s = {.arguments = a};
	sigset_t signals;
	int fd, status;

	/* before there are threads, so that all of them leave these signals alone */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, -errno, "descriptors for signals");
	status = begin(&s, &listener, err);
	if (!status) {
		notify_manager("READY=1");
		wait_for_signal(fd);
		notify_manager("STOPPING=1");
	}
	if (end(&s, &ended) && !status)
		status = error_move(err, &ended);
	close(fd);
	return status;
}

static int device_verb(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};

	if (strcmp(a->operands[0], "nvme") != 0)
		return verb_usage_error(&verb_device, "'%s': there is only the device nvme", a->operands[0]);
	if (!a->options[OPTION_VFIO_USER])
		return verb_usage_error(&verb_device, "--vfio-user=SOCKET is missing");
	return serve_device(a, &err) ? verb_failed("device", &err) : STATUS_OK;
}

const struct verb verb_device = {
	.name = "device",
	.operands = "nvme SPEC...",
	.min_operands = 1,
	.max_operands = INT_MAX,
	.summary = "Give disks to a virtual machine, as an NVMe controller",
	.details = "Each SPEC is a namespace. Prints the QEMU command line to attach it by, and serves until a signal ends it.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_VFIO_USER] = {.name = "vfio-user", .letter = 'U', .argument = "SOCKET", .help = "listen there for a VMM"},
			[OPTION_CONTROL] = {.name = "control",
					    .argument = "SOCKET",
					    .help = "take commands there: add, remove and resize namespaces"},
			[OPTION_SERIAL] = {.name = "serial", .argument = "TEXT", .help = "serial number, up to 20 characters"},
			[OPTION_MODEL] = {.name = "model", .argument = "TEXT", .help = "model, up to 40 characters"},
			[OPTION_QUEUES] = {.name = "queues",
					   .letter = 'q',
					   .argument = "N",
					   .type = OPTION_NUMBER,
					   .fallback = "64",
					   .min = 1,
					   .max = NVME_MAX_QUEUES,
					   .help = "I/O queue pairs"},
			[OPTION_VECTORS] = {.name = "vectors",
					    .argument = "N",
					    .type = OPTION_NUMBER,
					    .max = NVME_MAX_VECTORS,
					    .help = "interrupt vectors; else one more than queues"},
			[OPTION_DEPTH] = {.name = "depth",
					  .argument = "N",
					  .type = OPTION_NUMBER,
					  .fallback = "4096",
					  .min = 2,
					  .max = NVME_MAX_DEPTH,
					  .help = "entries of the largest queue"},
			[OPTION_MDTS] = {.name = "mdts",
					 .argument = "N",
					 .type = OPTION_NUMBER,
					 .fallback = "8",
					 .min = 1,
					 .max = 12,
					 .help = "the largest transfer is 4 KiB times 2 to the N"},
			[OPTION_DOORBELLS] = {.name = "doorbells",
					      .argument = "HOW",
					      .type = OPTION_WORD,
					      .words = doorbell_words,
					      .fallback = "messages",
					      .help = "how the driver rings: one of"},
			[OPTION_THREADS] = {.name = "threads",
					    .letter = 't',
					    .argument = "N",
					    .type = OPTION_NUMBER,
					    .fallback = "1",
					    .min = 1,
					    .max = MAX_THREADS,
					    .help = "threads that work on queues"},
			[OPTION_READ_ONLY] = {.name = "readonly", .letter = 'r', .help = "open all disks read-only"},
			[OPTION_VERBOSE] = {.name = "verbose", .letter = 'v', .help = "say which clients come and go, and why"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			{0},
		},
	.run = device_verb,
};

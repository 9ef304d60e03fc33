/* SPDX-License-Identifier: BSD-3-Clause */
/* platter read SPEC */
#include "cli/verb.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/disks.h"
#include "cli/in-order.h"
#include "cli/output.h"
#include "cli/sweep.h"

enum { OPTION_OFFSET, OPTION_LENGTH, OPTION_JOBS, OPTION_PROGRESS };

struct job {
	const struct verb_arguments *arguments;
	struct progress *progress;
};

static int put(void *argument, const void *data, size_t size, struct error *err)
{
	const char *p = data;

	(void)argument;
	while (size > 0) {
		ssize_t n = write(STDOUT_FILENO, p, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, "cannot write the output: %s", strerror(errno));
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

static int read_disk(struct disk *d, void *argument, struct error *err)
{
	struct job *job = argument;
	const struct verb_arguments *a = job->arguments;
	struct byte_range range = {
		.offset_text = a->options[OPTION_OFFSET],
		.length_text = a->options[OPTION_LENGTH],
		.offset = a->numbers[OPTION_OFFSET],
		.length = a->numbers[OPTION_LENGTH],
	};
	int status = range_check(&range, disk_size(d), err);
	struct in_order o = {
		.disk = d,
		.offset = range.offset,
		.length = range.length,
		.jobs = (unsigned)a->numbers[OPTION_JOBS],
		.progress = job->progress,
		.use = put,
	};

	if (status)
		return status;
	progress_phase(job->progress, "read", range.length);
	return in_order_run(&o, err);
}

static int read_verb(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct job job = {.arguments = a};
	int status;

	if (isatty(STDOUT_FILENO))
		return verb_usage_error(&verb_read, "standard output is a terminal");
	status = progress_begin(&job.progress, "read", (enum progress_form)a->numbers[OPTION_PROGRESS], &err);
	if (!status)
		status = with_disk(a->operands[0], NULL, OPEN_READ_ONLY, read_disk, &job, &err);
	if (status)
		verb_failed("read", &err);
	progress_end(job.progress);
	return status ? STATUS_FAILURE : STATUS_OK;
}

const struct verb verb_read = {
	.name = "read",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Write bytes of a disk to standard output",
	.options =
		(const struct verb_option[]){
			[OPTION_OFFSET] = {.name = "offset",
					   .letter = 'o',
					   .argument = "SIZE",
					   .type = OPTION_SIZE,
					   .fallback = "0",
					   .help = "from this byte"},
			[OPTION_LENGTH] = {.name = "length",
					   .letter = 'l',
					   .argument = "SIZE",
					   .type = OPTION_SIZE,
					   .help = "so many bytes; not given: to the end of the disk"},
			[OPTION_JOBS] = {.name = "jobs",
					 .letter = 'j',
					 .argument = "N",
					 .type = OPTION_NUMBER,
					 .fallback = SWEEP_JOBS,
					 .min = 1,
					 .max = SWEEP_MAX_JOBS,
					 .help = "read so many pieces at a time"},
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = read_verb,
};

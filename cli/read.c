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
	struct byte_range range = range_of(a, OPTION_OFFSET, OPTION_LENGTH);
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
	struct job job = {.arguments = a};

	if (isatty(STDOUT_FILENO))
		return verb_usage_error(&verb_read, "standard output is a terminal");
	return work_on_disk(&(struct disk_work){
		.verb = &verb_read,
		.arguments = a,
		.progress_row = OPTION_PROGRESS,
		.progress = &job.progress,
		.flags = OPEN_READ_ONLY,
		.run = read_disk,
		.argument = &job,
	});
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
			[OPTION_JOBS] = JOBS_OPTION("read so many pieces at a time"),
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = read_verb,
};

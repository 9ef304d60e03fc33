/* SPDX-License-Identifier: BSD-3-Clause */
/* platter write SPEC */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/disks.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/bytes.h"

enum { OPTION_OFFSET, OPTION_LENGTH, OPTION_PROGRESS };

#define PIECE (UINT64_C(1) << 20)

/* How often it is looked whether a signal has come while the input is silent. */
#define LOOK_MS 200

struct job {
	struct progress *progress;
	struct bytes *bytes;
	struct byte_range range;
	char *buffer;
};

/* Up to `size` bytes of the input; fewer only at its end. */
static int get(struct job *job, size_t size, size_t *got, struct error *err)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

	for (*got = 0; *got < size;) {
		if (progress_stopped(job->progress))
			return error_set(err, -EINTR, "stopped by a signal");
		if (poll(&in, 1, LOOK_MS) == 0)
			continue;
		ssize_t n = read(STDIN_FILENO, job->buffer + *got, size - *got);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return error_set_errno(err, -errno, "cannot read the input");
		if (n == 0)
			return 0;
		*got += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int put(struct job *job, size_t size, uint64_t offset, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = bytes_write(job->bytes, &VEC_FLAT(job->buffer, size), offset, &io);

	if (!status)
		progress_add(job->progress, size);
	else
		error_set(err, status, "write of %zu bytes at %" PRIu64 ": %s", size, offset,
			  failure.text[0] ? failure.text : strerror(-status));
	return status;
}

/* Where no length is given the input may be shorter than the disk, but no longer. */
static int check_end(struct job *job, uint64_t written, struct error *err)
{
	size_t more = 0;

	if (job->range.length_text) {
		if (written < job->range.length)
			return error_set(err, -ENODATA, "the input ends after %" PRIu64 " of %" PRIu64 " bytes", written,
					 job->range.length);
		return 0;
	}
	if (written < job->range.length || get(job, 1, &more, err))
		return err->status;
	return more == 0 ? 0
			 : error_set(err, -ENOSPC, "the input is longer than the %" PRIu64 " bytes from --offset to the end",
				     job->range.length);
}

static int copy_in(struct job *job, struct error *err)
{
	uint64_t written = 0;
	size_t got = 1;
	int status = 0;

	while (written < job->range.length && got > 0 && !status) {
		uint64_t left = job->range.length - written;
		status = get(job, left < PIECE ? (size_t)left : PIECE, &got, err);
		if (!status && got > 0)
			status = put(job, got, job->range.offset + written, err);
		written += got;
	}
	return status ? status : check_end(job, written, err);
}

static int flush(struct job *job, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = bytes_flush(job->bytes, &io);

	return status ? error_set(err, status, "flush: %s", failure.text[0] ? failure.text : strerror(-status)) : 0;
}

static int write_disk(struct disk *d, void *argument, struct error *err)
{
	struct job *job = argument;
	int status = range_check(&job->range, disk_size(d), err);

	if (status)
		return status;
	job->buffer = malloc(PIECE);
	if (!job->buffer || bytes_create(d, &job->bytes) < 0) {
		free(job->buffer);
		return error_set(err, -ENOMEM, "no memory");
	}
	progress_phase(job->progress, "write", job->range.length);
	status = copy_in(job, err);
	if (!status)
		status = flush(job, err);
	bytes_destroy(job->bytes, NULL); /* not the last reference */
	free(job->buffer);
	return status;
}

static int write_verb(const struct verb_arguments *a)
{
	struct job job = {.range = range_of(a, OPTION_OFFSET, OPTION_LENGTH)};

	return work_on_disk(&(struct disk_work){
		.verb = &verb_write,
		.arguments = a,
		.progress_row = OPTION_PROGRESS,
		.progress = &job.progress,
		.run = write_disk,
		.argument = &job,
	});
}

const struct verb verb_write = {
	.name = "write",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Write standard input to a disk",
	.details = "Returns when all is durable. Nothing of the disk is changed but the bytes that are written.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_OFFSET] = {.name = "offset",
					   .letter = 'o',
					   .argument = "SIZE",
					   .type = OPTION_SIZE,
					   .fallback = "0",
					   .help = "from this byte on"},
			[OPTION_LENGTH] = {.name = "length",
					   .letter = 'l',
					   .argument = "SIZE",
					   .type = OPTION_SIZE,
					   .help = "so many bytes; not given: all of the input"},
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = write_verb,
};

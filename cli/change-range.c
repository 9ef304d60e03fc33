/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/change-range.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/disks.h"
#include "cli/output.h"

/* At a time, so that it can be stopped and shown. */
#define PIECE (UINT64_C(256) << 20)

struct job {
	const struct range_change *change;
	struct progress *progress;
	struct byte_range range;
};

static int explain(int status, const struct job *job, uint64_t offset, const struct failure *failure, struct error *err)
{
	if (status == -EOPNOTSUPP && (job->change->io_flags & IO_FAST_ONLY))
		return error_set(err, status, "the disk cannot do this fast at %" PRIu64, offset);
	return error_set(err, status, "%s at %" PRIu64 ": %s", job->change->verb->name, offset,
			 failure->text[0] ? failure->text : strerror(-status));
}

static int change_pieces(const struct job *job, struct bytes *b, struct error *err)
{
	uint64_t offset = job->range.offset, end = offset + job->range.length;
	struct failure failure = {0};
	struct io io = {.flags = job->change->io_flags, .failure = &failure};
	int status;

	while (offset < end) {
		uint64_t here = end - offset < PIECE ? end - offset : PIECE;
		if (progress_stopped(job->progress))
			return error_set(err, -EINTR, "stopped by a signal, before byte %" PRIu64, offset);
		status = job->change->change(b, offset, here, &io);
		if (status)
			return explain(status, job, offset, &failure, err);
		progress_add(job->progress, here);
		offset += here;
	}
	status = bytes_flush(b, &io);
	return status ? error_set(err, status, "flush: %s", failure.text[0] ? failure.text : strerror(-status)) : 0;
}

static int change_disk(struct disk *d, void *argument, struct error *err)
{
	struct job *job = argument;
	struct bytes *b;
	int status = range_check(&job->range, disk_size(d), err);

	if (!status && job->change->check)
		status = job->change->check(d, err);
	if (status)
		return status;
	if (bytes_create(d, &b) < 0)
		return error_set(err, -ENOMEM, "no memory");
	progress_phase(job->progress, job->change->verb->name, job->range.length);
	status = change_pieces(job, b, err);
	bytes_destroy(b, NULL); /* not the last reference */
	return status;
}

int change_range(const struct range_change *c, const struct verb_arguments *a)
{
	struct job job = {.change = c, .range = range_of(a, RANGE_OFFSET, RANGE_LENGTH)};
	bool part = job.range.offset_text || job.range.length_text;

	if (part && a->options[RANGE_ALL])
		return verb_usage_error(c->verb, "--all excludes --offset and --length");
	if (!part && !a->options[RANGE_ALL])
		return verb_usage_error(c->verb, "which bytes? --offset and --length tell, or --all");
	return work_on_disk(&(struct disk_work){
		.verb = c->verb,
		.arguments = a,
		.progress_row = RANGE_PROGRESS,
		.progress = &job.progress,
		.run = change_disk,
		.argument = &job,
	});
}

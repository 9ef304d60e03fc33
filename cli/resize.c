/* SPDX-License-Identifier: BSD-3-Clause */
/* platter resize SPEC SIZE */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/disks.h"
#include "cli/output.h"
#include "core/spec.h"

enum { OPTION_SHRINK };

/* "10G", "+1G" or "-1G" of what the disk has now. */
struct job {
	const struct verb_arguments *arguments;
	char sign; /* '\0': none */
	uint64_t bytes;
};

static int parse_size(const char *text, struct job *job, struct error *err)
{
	job->sign = *text == '+' || *text == '-' ? *text : '\0';
	return size_parse(text + (job->sign != '\0'), &job->bytes, err);
}

static int new_size(const struct job *job, uint64_t now, uint64_t *size, struct error *err)
{
	*size = job->bytes;
	if (job->sign == '-' && job->bytes >= now)
		return error_set(err, -ERANGE, "the disk has %" PRIu64 " bytes: nothing would be left of it", now);
	if (job->sign == '-')
		*size = now - job->bytes;
	else if (job->sign == '+' && __builtin_add_overflow(now, job->bytes, size))
		return error_set(err, -ERANGE, "it has %" PRIu64 " bytes, and with %" PRIu64 " more it would have 16E or more", now,
				 job->bytes);
	return 0;
}

static int check_size(const struct disk *d, uint64_t size, const struct verb_arguments *a, struct error *err)
{
	uint32_t block = disk_info(d)->block_size;
	uint64_t now = disk_size(d);

	if (size == 0 || size % block > 0)
		return error_set(err, -EINVAL, "%" PRIu64 " bytes: the size of this disk is a multiple of %" PRIu32 " bytes, and not 0",
				 size, block);
	if (size > DISK_MAX_END)
		return error_set(err, -ERANGE, "%" PRIu64 " bytes: a disk has less than 8E", size);
	if (size < now && !a->options[OPTION_SHRINK]) {
		error_set(err, -EINVAL, "%" PRIu64 " bytes is less than the %" PRIu64 " that the disk has", size, now);
		return error_hint(err, "--shrink cuts it; what was behind is lost");
	}
	return 0;
}

static int resize_disk(struct disk *d, void *argument, struct error *err)
{
	const struct job *job = argument;
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	uint64_t size;
	int status = new_size(job, disk_size(d), &size, err);

	if (!status)
		status = check_size(d, size, job->arguments, err);
	if (status || size == disk_size(d))
		return status;
	status = disk_resize(d, size, &io);
	if (!status)
		status = disk_flush(d, &io);
	if (!status)
		return 0;
	return error_set(err, status, "%s", failure.text[0] ? failure.text : strerror(-status));
}

static int resize(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct job job = {.arguments = a};

	if (parse_size(a->operands[1], &job, &err))
		return verb_usage_error(&verb_resize, "SIZE: %s", error_text(&err));
	return with_disk(a->operands[0], NULL, 0, resize_disk, &job, &err) ? verb_failed("resize", &err) : STATUS_OK;
}

const struct verb verb_resize = {
	.name = "resize",
	.operands = "SPEC SIZE",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "Change the size of a disk",
	.details = "SIZE is the new size, or with a sign in front how much it changes: +1G. A size with a minus stands\n"
		   "behind --, as in: platter resize --shrink -- disk.img -1G\n",
	.options =
		(const struct verb_option[]){
			[OPTION_SHRINK] = {.name = "shrink", .help = "let it become smaller; what is cut off is lost"},
			{0},
		},
	.run = resize,
};

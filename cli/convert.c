/* SPDX-License-Identifier: BSD-3-Clause */
/* platter convert SRC DST */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/copy.h"
#include "cli/disks.h"
#include "cli/output.h"
#include "cli/same-files.h"
#include "cli/sweep.h"
#include "cli/target.h"

enum { OPTION_FORCE, OPTION_INTO, OPTION_FLATTEN, OPTION_VERIFY, OPTION_SPARSE, OPTION_NO_FLUSH, OPTION_JOBS, OPTION_PROGRESS };

static bool has_parent(const json_t *tree)
{
	const json_t *child;
	size_t i;

	if (json_array_size(json_object_get(tree, "layers")) > 1)
		return true;
	json_array_foreach(json_object_get(tree, "children"), i, child)
		if (has_parent(child))
			return true;
	return false;
}

/* A copy that is written into a child would need the parent. */
static int check_alone(struct disk *to, const char *name, struct error *err)
{
	json_t *tree = disk_describe(to);
	bool alone = tree && !has_parent(tree);

	if (!tree)
		return error_set(err, -ENOMEM, "no memory");
	json_decref(tree);
	return alone ? 0 : error_set(err, -EINVAL, "--flatten: %s has something below it, and would not stand alone", name);
}

static int verify(const struct copy *c, struct error *err)
{
	uint64_t first;
	int status = copy_compare(c, &first, err);

	if (status || first == COPY_SAME)
		return status;
	return error_set(err, -EIO, "what was written does not read back: byte %" PRIu64 " of DST differs from SRC", first);
}

static int flush(const struct verb_arguments *a, struct target *t, struct error *err)
{
	if (a->options[OPTION_NO_FLUSH])
		return 0;
	return target_flush(t, err) ? error_in_role(err, "DST", a->operands[1]) : 0;
}

/* All but opening and naming. */
static int copy_all(const struct verb_arguments *a, const struct copy *c, struct target *t, struct error *err)
{
	int status = t->is_new ? 0 : check_files_apart(c->from, t->disk, err); /* what was just made is no source */

	if (!status && a->options[OPTION_FLATTEN])
		status = check_alone(t->disk, c->to_name, err);
	if (!status)
		status = copy_check(c, err);
	if (status == -ERANGE && !t->is_new)
		error_hint(err, "platter resize makes it larger");
	if (!status)
		status = copy_run(c, err);
	if (!status)
		status = flush(a, t, err);
	if (!status && a->options[OPTION_VERIFY])
		status = verify(c, err);
	return status;
}

static int copy_to(const struct verb_arguments *a, struct disk *from, struct target *t, struct progress *progress,
		   struct error *err)
{
	char *from_name = operand_name("SRC", a->operands[0]), *to_name = operand_name("DST", a->operands[1]);
	struct copy c = {
		.from = from,
		.to = t->disk,
		.from_name = from_name,
		.to_name = to_name,
		.length = disk_size(from),
		.jobs = (unsigned)a->numbers[OPTION_JOBS],
		.sparse = a->numbers[OPTION_SPARSE],
		.to_is_zero = t->is_new,
		.progress = progress,
	};
	int status = from_name && to_name ? copy_all(a, &c, t, err) : error_set(err, -ENOMEM, "no memory");

	free(from_name);
	free(to_name);
	return status;
}

/* Images are locked while they are read, so that a part of SRC cannot be opened, let alone written to. */
static int explain_target(struct disk *from, const char *text, struct error *err)
{
	CLEANUP_SPEC struct spec *spec = NULL;

	if (err->status == -EBUSY && !spec_parse(text, &spec, NULL))
		explain_busy_file(from, spec, err);
	return error_in_role(err, "DST", text);
}

static int convert_from(const struct verb_arguments *a, struct disk *from, struct progress *progress, struct error *err)
{
	struct target target = {0};
	struct target_request request = {
		.spec = a->operands[1],
		.size = disk_size(from),
		.block_size = disk_info(from)->block_size,
		.existing = a->options[OPTION_INTO] != NULL,
		.replace = a->options[OPTION_FORCE] != NULL,
		.durable = a->options[OPTION_NO_FLUSH] == NULL,
	};
	int status = target_open(&target, &request, err);

	if (status)
		return explain_target(from, a->operands[1], err);
	status = copy_to(a, from, &target, progress, err);
	if (!status)
		return target_finish(&target, err) ? error_in_role(err, "DST", a->operands[1]) : 0;
	target_drop(&target);
	return status;
}

struct job {
	const struct verb_arguments *arguments;
	struct progress *progress;
};

static int convert_disk(struct disk *from, void *argument, struct error *err)
{
	struct job *job = argument;

	return convert_from(job->arguments, from, job->progress, err);
}

static int convert(const struct verb_arguments *a)
{
	struct job job = {.arguments = a};

	if (a->options[OPTION_INTO] && a->options[OPTION_FORCE])
		return verb_usage_error(&verb_convert, "--into and --force exclude each other");
	return work_on_disk(&(struct disk_work){
		.verb = &verb_convert,
		.arguments = a,
		.progress_row = OPTION_PROGRESS,
		.progress = &job.progress,
		.role = "SRC",
		.flags = OPEN_READ_ONLY,
		.run = convert_disk,
		.argument = &job,
	});
}

const struct verb verb_convert = {
	.name = "convert",
	.operands = "SRC DST",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "Copy a disk to another one, of whatever kind",
	.details = "DST is made with the size of SRC, under another name until all of it is there. Both are SPECs; of\n"
		   "a stack of layers the copy holds what the stack shows. What is zero takes no space in the copy.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_FORCE] = {.name = "force", .letter = 'f', .help = "replace the file DST if there is one"},
			[OPTION_INTO] = {.name = "into",
					 .letter = 'n',
					 .help = "write into DST, which is there and at least as large"},
			[OPTION_FLATTEN] = {.name = "flatten", .help = "fail unless DST stands alone, as a new one does"},
			[OPTION_VERIFY] = {.name = "verify", .help = "read both again and compare"},
			[OPTION_SPARSE] = {.name = "sparse",
					   .letter = 'S',
					   .argument = "SIZE",
					   .type = OPTION_SIZE,
					   .fallback = "4K",
					   .max = SWEEP_PIECE,
					   .help = "zeroes of this length are left out; 0: none are looked for"},
			[OPTION_NO_FLUSH] = {.name = "no-flush", .help = "do not wait until all is durable"},
			[OPTION_JOBS] = JOBS_OPTION("so many pieces at a time"),
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = convert,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* platter compact IMAGE */
#include "cli/verb.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/image.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/spec.h"

enum { OPTION_NO_SCAN, OPTION_JSON, OPTION_PROGRESS };

static int run_compact(const struct verb_arguments *a, struct image *image, struct progress *progress, json_t **report,
		       struct error *err)
{
	struct container *c;
	int status = image_find(a->operands[0], "compacted", image, err), closed;

	if (!status)
		status = image_open(image, true, &c, err);
	if (status)
		return status;
	c->watch = progress_watch(progress);
	status = image->tools->compact(c, image->spec, !a->options[OPTION_NO_SCAN], report, err);
	closed = container_close(c, false, status ? NULL : err);
	return status ? status : closed;
}

static uint64_t number_of(const json_t *report, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(report, key));
}

static int print_report(const struct image *image, json_t *report, bool json)
{
	char before[SIZE_TEXT_MAX], after[SIZE_TEXT_MAX];

	if (json) {
		json_object_set_new(report, "file", json_string(image->path));
		return print_json(report);
	}
	printf("'%s': %s before, %s now; %" PRIu64 " empty blocks dropped, %" PRIu64 " moved\n", image->path,
	       size_print_human(number_of(report, "before_bytes"), before), size_print_human(number_of(report, "after_bytes"), after),
	       number_of(report, "dropped_blocks"), number_of(report, "moved_blocks"));
	json_decref(report);
	return STATUS_OK;
}

static int compact(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_IMAGE struct image image = {0};
	struct progress *progress = NULL;
	json_t *report = NULL;
	int status = progress_begin(&progress, "compact", (enum progress_form)a->numbers[OPTION_PROGRESS], &err);

	if (!status)
		status = run_compact(a, &image, progress, &report, &err);
	if (status)
		status = operand_failed("compact", a->operands[0], &err);
	else
		status = print_report(&image, report, a->options[OPTION_JSON] != NULL);
	progress_end(progress);
	return status;
}

const struct verb verb_compact = {
	.name = "compact",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Make an image file as short as it goes",
	.details = "IMAGE is a vhd or a vhdx. Blocks that hold nothing are dropped, others moved into free places, and the file is cut.\n"
		   "It can be interrupted at any moment; what was done until then stays.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_NO_SCAN] = {.name = "no-scan", .help = "do not read all blocks to find those of zeroes (vhdx)"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = compact,
};

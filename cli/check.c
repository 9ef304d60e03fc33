/* SPDX-License-Identifier: BSD-3-Clause */
/* platter check IMAGE */
#include "cli/verb.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "cli/image.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/kind.h"

enum { OPTION_REPAIR, OPTION_VERBOSE, OPTION_JSON, OPTION_PROGRESS };

/* 1 is for what could not be checked. */
enum { STATUS_PROBLEMS = 3 };

/* What was found, and what is there still. */
struct result {
	struct image image;
	json_t *found, *left; /* reports; the same where nothing was repaired */
	bool repaired;
};

static uint64_t number_of(const json_t *report, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(report, key));
}

/* ------------------------------------------------------------------ checking */

/* After a repair everything is looked at again: what is said to be mended is. */
static int check_and_repair(struct container *c, struct result *r, bool repair, struct error *err)
{
	json_t *done;
	int status = r->image.tools->check(c, r->image.spec, false, &r->found, err);

	if (status)
		return status;
	if (!repair || number_of(r->found, "nr_repairable") == 0) {
		r->left = json_incref(r->found);
		return 0;
	}
	status = r->image.tools->check(c, r->image.spec, true, &done, err);
	if (status)
		return status;
	json_decref(done);
	r->repaired = true;
	return r->image.tools->check(c, r->image.spec, false, &r->left, err);
}

static int run_check(const struct verb_arguments *a, struct progress *progress, struct result *r, struct error *err)
{
	bool repair = a->options[OPTION_REPAIR] != NULL;
	struct container *c;
	int status = image_find(a->operands[0], "checked", &r->image, err), closed;

	if (!status)
		status = image_open(&r->image, repair, &c, err);
	if (status)
		return status;
	c->watch = progress_watch(progress);
	status = check_and_repair(c, r, repair, err);
	closed = container_close(c, false, status ? NULL : err);
	return status ? status : closed;
}

/* ------------------------------------------------------------------ telling */

static void print_problems(const json_t *report)
{
	const json_t *row;
	size_t i;

	json_array_foreach(json_object_get(report, "problems"), i, row) {
		const char *where = json_string_value(json_object_get(row, "where"));
		const char *repair = json_string_value(json_object_get(row, "repair"));
		printf("  %s%s%s\n", where ? where : "", where ? ": " : "", json_string_value(json_object_get(row, "what")));
		if (repair)
			printf("      repair: %s\n", repair);
		else
			printf("      cannot be repaired\n");
	}
	if (number_of(report, "nr_problems") > i)
		printf("  and %" PRIu64 " more\n", number_of(report, "nr_problems") - i);
}

/* What is told of a structure, each in a line; places as in `map`, in bytes. */
static void print_structures(const json_t *report)
{
	const json_t *row;
	size_t i;

	printf("  %-24s  %16s  %16s\n", "structure", "offset", "length");
	json_array_foreach(json_object_get(report, "structures"), i, row) {
		const json_t *offset = json_object_get(row, "offset"), *length = json_object_get(row, "length");
		printf("  %-24s  ", json_string_value(json_object_get(row, "structure")));
		if (json_is_integer(offset))
			printf("%16" PRIu64 "  %16" PRIu64, (uint64_t)json_integer_value(offset), (uint64_t)json_integer_value(length));
		else
			printf("%16s  %16s", "-", "-");
		printf("  %s: %s\n", json_is_true(json_object_get(row, "sound")) ? "sound" : "NOT SOUND",
		       json_string_value(json_object_get(row, "found")));
	}
}

static void print_use(const json_t *report)
{
	const json_t *use = json_object_get(report, "use");
	char text[SIZE_TEXT_MAX];

	if (json_is_object(use))
		printf("  %" PRIu64 " blocks have space in the file; %s of it are not used\n",
		       number_of(use, "full") + number_of(use, "partial"), size_print_human(number_of(use, "unused_bytes"), text));
}

static void print_text(const struct result *r, bool verbose)
{
	uint64_t found = number_of(r->found, "nr_problems"), mendable = number_of(r->found, "nr_repairable");
	uint64_t left = number_of(r->left, "nr_problems");

	printf("'%s': %" PRIu64 " problem%s\n", r->image.path, found, found == 1 ? "" : "s");
	print_problems(r->found);
	if (verbose)
		print_structures(r->left);
	print_use(r->left);
	if (r->repaired)
		printf("repaired; %" PRIu64 " problem%s left\n", left, left == 1 ? "" : "s");
	if (r->repaired && left > 0)
		print_problems(r->left);
	if (!r->repaired && mendable > 0)
		printf("--repair mends %" PRIu64 " of %s\n", mendable, found == 1 ? "it" : "them");
}

static int print_result(const struct result *r, const struct verb_arguments *a)
{
	if (a->options[OPTION_JSON])
		print_json(json_pack("{s:s, s:s, s:O, s:O, s:b, s:O, s:O, s:O, s:O?}", "file", r->image.path, "format",
				     r->image.spec->kind->name, "problems", json_object_get(r->found, "problems"), "nr_problems",
				     json_object_get(r->found, "nr_problems"), "repaired", (int)r->repaired, "left",
				     json_object_get(r->left, "problems"), "nr_left", json_object_get(r->left, "nr_problems"), "structures",
				     json_object_get(r->left, "structures"), "use",
				     json_object_get(r->left, "use")));
	else
		print_text(r, a->options[OPTION_VERBOSE] != NULL);
	return number_of(r->left, "nr_problems") > 0 ? STATUS_PROBLEMS : STATUS_OK;
}

static int check(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct result r = {0};
	struct progress *progress = NULL;
	int status = progress_begin(&progress, "check", (enum progress_form)a->numbers[OPTION_PROGRESS], &err);

	if (!status)
		status = run_check(a, progress, &r, &err);
	status = status ? operand_failed("check", a->operands[0], &err) : print_result(&r, a);
	json_decref(r.found);
	json_decref(r.left);
	image_free(&r.image);
	progress_end(progress);
	return status;
}

const struct verb verb_check = {
	.name = "check",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Look for damage in an image file",
	.details = "IMAGE is a vhd or a vhdx; its parents are not looked at. Nothing is changed without --repair, but it is said what\n"
		   "that would do.\n"
		   "Exit status: 0 no problem is left, 1 failure, 2 wrong usage, 3 there are problems.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_REPAIR] = {.name = "repair", .letter = 'r', .help = "mend what can be mended without a guess, and check again"},
			[OPTION_VERBOSE] = {.name = "verbose", .letter = 'v', .help = "list all structures, sound ones as well"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = check,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* platter compare A B */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/copy.h"
#include "cli/output.h"
#include "cli/sweep.h"
#include "core/open.h"

enum { OPTION_STRICT, OPTION_JSON, OPTION_QUIET, OPTION_JOBS, OPTION_PROGRESS };

/* As cmp(1): 1 is an answer, so a failure needs a status of its own. */
enum { STATUS_DIFFERENT = 1, STATUS_CANNOT_TELL = 3 };

struct answer {
	uint64_t size_a, size_b;
	uint64_t first; /* byte that differs, or COPY_SAME */
};

/* What only the larger one has differs if it is not zero. */
static int compare_rest(const struct copy *c, uint64_t *first, struct error *err)
{
	bool a_larger = disk_size(c->from) > disk_size(c->to);

	return copy_find_data(c, a_larger ? c->from : c->to, a_larger ? c->from_name : c->to_name, c->length, first, err);
}

static int compare_disks(const struct verb_arguments *a, struct copy *c, struct answer *answer, struct error *err)
{
	bool same_size;
	int status;

	answer->size_a = disk_size(c->from);
	answer->size_b = disk_size(c->to);
	same_size = answer->size_a == answer->size_b;
	c->length = answer->size_a < answer->size_b ? answer->size_a : answer->size_b;
	answer->first = COPY_SAME;
	if (!same_size && a->options[OPTION_STRICT])
		return 0;
	status = copy_check(c, err);
	if (!status)
		status = copy_compare(c, &answer->first, err);
	if (!status && !same_size && answer->first == COPY_SAME)
		status = compare_rest(c, &answer->first, err);
	return status;
}

static int open_both(const struct verb_arguments *a, struct copy *c, struct error *err)
{
	if (disk_open(a->operands[0], OPEN_READ_ONLY, &c->from, err))
		return error_in_role(err, "A", a->operands[0]);
	if (disk_open(a->operands[1], OPEN_READ_ONLY, &c->to, err))
		return error_in_role(err, "B", a->operands[1]);
	return 0;
}

static int open_and_compare(const struct verb_arguments *a, struct progress *progress, struct answer *answer,
			    struct error *err)
{
	char *name_a = operand_name("A", a->operands[0]), *name_b = operand_name("B", a->operands[1]);
	struct copy c = {
		.from_name = name_a, .to_name = name_b, .jobs = (unsigned)a->numbers[OPTION_JOBS], .progress = progress};
	int status = name_a && name_b ? open_both(a, &c, err) : error_set(err, -ENOMEM, "no memory");

	if (!status)
		status = compare_disks(a, &c, answer, err);
	disk_close(c.to, NULL); /* nothing was written */
	disk_close(c.from, NULL);
	free(name_a);
	free(name_b);
	return status;
}

static int print_answer(const struct verb_arguments *a, const struct answer *answer)
{
	bool same_size = answer->size_a == answer->size_b;
	bool same = answer->first == COPY_SAME && (same_size || !a->options[OPTION_STRICT]);
	json_t *first;

	if (a->options[OPTION_JSON]) {
		first = answer->first == COPY_SAME ? json_null() : json_integer((json_int_t)answer->first);
		print_json(json_pack("{s:b, s:o, s:I, s:I}", "same", same, "first_difference", first, "size_a",
				     (json_int_t)answer->size_a, "size_b", (json_int_t)answer->size_b));
	} else if (!a->options[OPTION_QUIET]) {
		if (!same_size)
			printf("The sizes differ: A has %" PRIu64 " bytes, B %" PRIu64 "\n", answer->size_a,
			       answer->size_b);
		if (answer->first != COPY_SAME)
			printf("They differ, first at byte %" PRIu64 "\n", answer->first);
		else if (same)
			printf(same_size ? "They are the same\n" : "They are the same but for zeroes at the end\n");
	}
	return same ? STATUS_OK : STATUS_DIFFERENT;
}

static int compare(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct progress *progress = NULL;
	struct answer answer;
	int status = progress_begin(&progress, "compare", (enum progress_form)a->numbers[OPTION_PROGRESS], &err);

	if (!status)
		status = open_and_compare(a, progress, &answer, &err);
	if (status)
		verb_failed("compare", &err);
	progress_end(progress);
	return status ? STATUS_CANNOT_TELL : print_answer(a, &answer);
}

const struct verb verb_compare = {
	.name = "compare",
	.operands = "A B",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "Say whether two disks hold the same",
	.details = "Of disks of different sizes the larger one may hold nothing but zeroes behind the end of the other.\n"
		   "Exit status: 0 the same, 1 different, 2 wrong usage, 3 failure.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_STRICT] = {.name = "strict", .letter = 's', .help = "sizes that differ are a difference"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_QUIET] = {.name = "quiet", .letter = 'q', .help = "print nothing; the exit status tells"},
			[OPTION_JOBS] = JOBS_OPTION("so many pieces at a time"),
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = compare,
};

/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/verb.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "core/nearest.h"
#include "core/spec.h"

/* Values getopt_long returns for options are the row plus this, out of the way of its '?' and ':'. */
#define FIRST_ROW 256
#define HELP_OPTION 'h'

/* ------------------------------------------------------------------ finding */

const struct verb *verb_find(const char *name)
{
	struct nearest nearest = nearest_to(name, strlen(name));

	for (size_t i = 0; verbs[i]; i++) {
		if (strcmp(name, verbs[i]->name) == 0)
			return verbs[i];
		nearest_try(&nearest, verbs[i]->name);
	}
	fprintf(stderr, "platter: there is no verb '%s'", name);
	if (nearest.word)
		fprintf(stderr, " (did you mean '%s'?)", nearest.word);
	fprintf(stderr, "\nTry 'platter --help'.\n");
	return NULL;
}

/* ------------------------------------------------------------------ help */

static void print_option(const struct verb_option *o)
{
	char text[80];
	int length = 0;

	if (o->letter != 0)
		length = snprintf(text, sizeof(text), "-%c, ", o->letter);
	snprintf(text + length, sizeof(text) - (size_t)length, "--%s%s%s", o->name, o->argument ? "=" : "",
		 o->argument != NULL ? o->argument : "");
	printf("  %-20s %s", text, o->help);
	for (size_t i = 0; o->words && o->words[i]; i++)
		printf("%s%s", i > 0 ? ", " : ": ", o->words[i]);
	if (o->fallback)
		printf(" (default: %s)", o->fallback);
	printf("\n");
}

void verb_print_help(const struct verb *verb)
{
	printf("usage: platter %s%s%s%s\n\n%s.\n", verb->name,
	       verb->options[0].name != NULL ? " [OPTION]..." : "", *verb->operands != '\0' ? " " : "",
	       verb->operands, verb->summary);
	if (verb->details)
		printf("\n%s", verb->details);
	printf("\n");
	for (const struct verb_option *o = verb->options; o->name; o++)
		print_option(o);
	print_option(&(const struct verb_option){.name = "help", .letter = 'h', .help = "print this"});
}

void print_help(void)
{
	printf("usage: platter VERB [ARGUMENT]...\n\nComposes virtual disks.\n\n");
	for (size_t i = 0; verbs[i]; i++) {
		char left[80];
		snprintf(left, sizeof(left), "%s %s", verbs[i]->name, verbs[i]->operands);
		printf("  %-20s %s\n", left, verbs[i]->summary);
	}
	printf("\n'platter help VERB' tells more. 'platter kinds' lists what a SPEC can be made of.\n"
	       "To serve a disk over NBD: nbdkit platter SPEC.\n\n"
	       "Exit status: 0 success, 1 failure, 2 wrong usage.\n");
}

/* ------------------------------------------------------------------ parsing */

/* The tables getopt_long wants, made of a verb's options. */
struct getopt_tables {
	struct option rows[VERB_MAX_OPTIONS + 2];
	char letters[2 * VERB_MAX_OPTIONS + 4];
	int nr;
};

static void make_tables(const struct verb *verb, struct getopt_tables *t)
{
	char *letter = t->letters;

	memset(t, 0, sizeof(*t));
	*letter++ = ':';
	*letter++ = HELP_OPTION;
	for (const struct verb_option *o = verb->options; o->name; o++) {
		t->rows[t->nr] = (struct option){
			.name = o->name,
			.has_arg = o->argument ? required_argument : no_argument,
			.val = FIRST_ROW + t->nr,
		};
		t->nr++;
		if (o->letter != 0)
			*letter++ = o->letter;
		if (o->letter != 0 && o->argument)
			*letter++ = ':';
	}
	t->rows[t->nr] = (struct option){.name = "help", .val = HELP_OPTION};
}

static int row_of_letter(const struct verb *verb, int letter)
{
	for (int i = 0; verb->options[i].name; i++)
		if (verb->options[i].letter == letter)
			return i;
	return -1;
}

int verb_usage_error(const struct verb *verb, const char *format, ...)
{
	va_list list;

	fprintf(stderr, "platter %s: ", verb->name);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, "\nTry 'platter %s --help'.\n", verb->name);
	return STATUS_USAGE;
}

static int usage_error(const struct verb *verb)
{
	fprintf(stderr, "Try 'platter %s --help'.\n", verb->name);
	return STATUS_USAGE;
}

/* Says what is wrong with `word`, an option as the user wrote it. */
static int wrong_option(const struct verb *verb, const char *word, int what)
{
	fprintf(stderr, "platter %s: ", verb->name);
	if (what == ':') {
		fprintf(stderr, "option '%s' wants an argument\n", word);
		return usage_error(verb);
	}
	if (what > FIRST_ROW - 1 || what == HELP_OPTION) {
		fprintf(stderr, "option '%s' takes no argument\n", word);
		return usage_error(verb);
	}
	fprintf(stderr, "there is no option '%s'", word);
	const char *name = word + strspn(word, "-");
	struct nearest nearest = nearest_to(name, strcspn(name, "="));
	nearest_try(&nearest, "help");
	for (const struct verb_option *o = verb->options; o->name; o++)
		nearest_try(&nearest, o->name);
	if (word[0] == '-' && word[1] >= '0' && word[1] <= '9')
		fprintf(stderr, " (what begins with a minus and is none stands behind '--')");
	else if (nearest.word)
		fprintf(stderr, " (did you mean '--%s'?)", nearest.word);
	fprintf(stderr, "\n");
	return usage_error(verb);
}

/* ------------------------------------------------------------------ values */

static int find_word(const struct verb_option *o, const char *text, uint64_t *out, struct error *err)
{
	struct nearest nearest = nearest_to(text, strlen(text));

	for (size_t i = 0; o->words[i]; i++) {
		*out = i;
		if (strcmp(text, o->words[i]) == 0)
			return 0;
		nearest_try(&nearest, o->words[i]);
	}
	error_set(err, -EINVAL, "'%s' is none of", text);
	for (size_t i = 0; o->words[i]; i++) {
		char *all = err->text;
		err->text = NULL;
		error_set(err, -EINVAL, "%s%s %s", all, i > 0 ? "," : "", o->words[i]);
		free(all);
	}
	if (nearest.word)
		error_hint(err, "did you mean '%s'?", nearest.word);
	return -EINVAL;
}

/* A limit of the option in its unit. */
static void print_limit(const struct verb_option *o, uint64_t limit, char text[SIZE_TEXT_MAX])
{
	if (o->type == OPTION_SIZE)
		size_print(limit, text);
	else if (o->type == OPTION_DURATION)
		duration_print(limit, text);
	else
		snprintf(text, SIZE_TEXT_MAX, "%" PRIu64, limit);
}

static int check_limits(const struct verb_option *o, const char *text, uint64_t value, struct error *err)
{
	char limit[SIZE_TEXT_MAX];

	if (value < o->min) {
		print_limit(o, o->min, limit);
		return error_set(err, -ERANGE, "'%s' is less than %s", text, limit);
	}
	if (o->max > 0 && value > o->max) {
		print_limit(o, o->max, limit);
		return error_set(err, -ERANGE, "'%s' is more than %s", text, limit);
	}
	return 0;
}

static int parse_value(const struct verb_option *o, const char *text, uint64_t *out, struct error *err)
{
	int status;

	switch (o->type) {
	case OPTION_TEXT:
		return 0;
	case OPTION_WORD:
		return find_word(o, text, out, err);
	case OPTION_SIZE:
		status = size_parse(text, out, err);
		break;
	case OPTION_NUMBER:
		status = number_parse(text, out, err);
		break;
	case OPTION_DURATION:
		status = duration_parse(text, out, err);
		break;
	default:
		return 0;
	}
	return status ? status : check_limits(o, text, *out, err);
}

/* Numbers of all options, given or not. -1 to go on, else an exit status. */
static int parse_values(const struct verb *verb, struct verb_arguments *a)
{
	for (size_t i = 0; verb->options[i].name; i++) {
		CLEANUP_ERROR struct error err = {0};
		const struct verb_option *o = &verb->options[i];
		const char *text = a->options[i] ? a->options[i] : o->fallback;
		if (text && o->argument && parse_value(o, text, &a->numbers[i], &err) < 0)
			return verb_usage_error(verb, "--%s: %s", o->name, error_text(&err));
	}
	return -1;
}

/* ------------------------------------------------------------------ the command line */

/* Keeps the argument of one option. False when memory ran out. */
static bool keep(const struct verb_option *o, const char *argument, const char **kept, char **joined)
{
	char *both;

	if (!o->adds_up || !*kept) {
		*kept = argument ? argument : "";
		return true;
	}
	if (asprintf(&both, "%s,%s", *kept, argument) < 0)
		return false;
	free(*joined);
	*kept = *joined = both;
	return true;
}

/* Fills in `out`; what it needs memory for is in `joined`. -1 to go on, else an exit status. */
static int parse(const struct verb *verb, int argc, char **argv, struct verb_arguments *out,
		 char *joined[VERB_MAX_OPTIONS])
{
	struct getopt_tables tables;
	int found;

	make_tables(verb, &tables);
	optind = 1;
	opterr = 0;
	while ((found = getopt_long(argc, argv, tables.letters, tables.rows, NULL)) != -1) {
		char letter[] = {'-', (char)optopt, '\0'};
		bool short_one = optopt > 0 && optopt < FIRST_ROW && strncmp(argv[optind - 1], "--", 2) != 0;
		if (found == HELP_OPTION) {
			verb_print_help(verb);
			return STATUS_OK;
		}
		if (found == '?' || found == ':')
			return wrong_option(verb, short_one ? letter : argv[optind - 1],
					    found == ':' ? ':'
					    : short_one	 ? '?'
							 : optopt);
		int row = found >= FIRST_ROW ? found - FIRST_ROW : row_of_letter(verb, found);
		if (!keep(&verb->options[row], optarg, &out->options[row], &joined[row]))
			return no_memory();
	}
	out->operands = argv + optind;
	out->nr_operands = argc - optind;
	return parse_values(verb, out);
}

static int run(const struct verb *verb, const struct verb_arguments *arguments)
{
	if (arguments->nr_operands < verb->min_operands) {
		fprintf(stderr, "platter %s: %s is missing\n", verb->name, verb->operands);
		return usage_error(verb);
	}
	if (arguments->nr_operands > verb->max_operands) {
		fprintf(stderr, "platter %s: one argument too many: '%s'\n", verb->name,
			arguments->operands[verb->max_operands]);
		return usage_error(verb);
	}
	return verb->run(arguments);
}

int verb_main(const struct verb *verb, int argc, char **argv)
{
	struct verb_arguments arguments = {0};
	char *joined[VERB_MAX_OPTIONS] = {0};
	int status = parse(verb, argc, argv, &arguments, joined);

	if (status < 0)
		status = run(verb, &arguments);
	for (size_t i = 0; i < VERB_MAX_OPTIONS; i++)
		free(joined[i]);
	return status;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* A verb of the platter command: a table row, from which parsing and help come. */
#ifndef PLATTER_CLI_VERB_H
#define PLATTER_CLI_VERB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses, the same for every verb but compare, whose manual page tells its own. */
enum { STATUS_OK = 0, STATUS_FAILURE = 1, STATUS_USAGE = 2 };

/* At most so many options a verb. */
#define VERB_MAX_OPTIONS 20

enum verb_option_type {
	OPTION_TEXT,   /* as it is */
	OPTION_SIZE,   /* bytes, as size_parse() */
	OPTION_NUMBER, /* as number_parse() */
	OPTION_DURATION, /* as duration_parse(); in ns */
	OPTION_WORD,   /* one of `words` */
};

/*
 * One option, from which parsing, its errors, --help and completion come; the table of a verb ends with a row whose name is
 * NULL. --help comes by itself.
 */
struct verb_option {
	const char *name;     /* long, without the dashes */
	char letter;	      /* short; 0: none */
	const char *argument; /* what help calls its argument; NULL: it has none */
	const char *help;     /* one line, no period; without the default, which is added */
	bool adds_up;	      /* given several times, the arguments are joined with commas */
	enum verb_option_type type;
	const char *fallback;     /* default, in the form of an argument; NULL: none, its number is 0 */
	uint64_t min, max;        /* of sizes, numbers and times; max 0: no limit */
	const char *const *words; /* OPTION_WORD: ended by NULL */
};

/* What the user wrote behind the verb. */
struct verb_arguments {
	/* By row of the verb's options: NULL when not given, the argument, or "" for an option without one.
	 */
	const char *options[VERB_MAX_OPTIONS];
	/* The same, or the fallback, as a number: bytes, ns, index of the word. */
	uint64_t numbers[VERB_MAX_OPTIONS];
	char **operands;
	int nr_operands;
};

struct verb {
	const char *name;
	const char *operands; /* as help shows them: "SPEC" */
	int min_operands, max_operands;
	const char *summary; /* one line, no period */
	const char *details; /* paragraphs for --help; NULL: none */
	const struct verb_option *options;
	int (*run)(const struct verb_arguments *arguments); /* returns an exit status */
};

/* Every verb, ended by NULL. */
extern const struct verb *const verbs[];

extern const struct verb verb_bench, verb_check, verb_commit, verb_compact, verb_compare, verb_convert, verb_create,
	verb_device, verb_hash, verb_help, verb_info, verb_kinds, verb_map, verb_measure, verb_mount, verb_read, verb_rebase,
	verb_resize, verb_serve, verb_trim, verb_umount, verb_version, verb_write, verb_zero;

/* The verb called `name`; NULL, after having said so, when there is none. */
const struct verb *verb_find(const char *name);

/* Parses argv (whose first entry is the verb) and runs the verb. Returns an exit status. */
int verb_main(const struct verb *verb, int argc, char **argv);

/* Says that the command line is wrong, with where help is; returns the exit status for it. */
int verb_usage_error(const struct verb *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the help of one verb, or of the whole command. */
void verb_print_help(const struct verb *verb);
void print_help(void);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* How far long work has come: a bar, lines or JSON on standard error; and the signals that ask for it or end it. */
#ifndef PLATTER_CLI_PROGRESS_H
#define PLATTER_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/watch.h"

/* In the order of the words of PROGRESS_OPTION. */
enum progress_form {
	PROGRESS_AUTO,  /* a bar on a terminal, else plain lines every few seconds */
	PROGRESS_BAR,   /* one line that is drawn over */
	PROGRESS_PLAIN, /* lines of text */
	PROGRESS_JSON,  /* a JSON object a line */
	PROGRESS_NONE,  /* nothing but what SIGUSR1 asks for */
};

extern const char *const progress_words[];

/* The row of a verb's options that chooses one. */
#define PROGRESS_OPTION                                                                                                \
	{                                                                                                              \
		.name = "progress", .argument = "FORM", .type = OPTION_WORD, .words = progress_words, .fallback = "auto", \
		.help = "how progress is shown on standard error, one of"                                              \
	}

struct progress;

/*
 * Begins: from here on SIGUSR1 prints how far the work has come, and SIGINT, SIGTERM and SIGHUP ask it to stop
 * (progress_stopped()); a second one of them ends the process at once. They are taken from the whole process, so that
 * this comes before any other thread is made. `verb` names the work and must stay.
 */
int progress_begin(struct progress **out, const char *verb, enum progress_form form, struct error *err);

/* A new stretch of work of `total` bytes, called `what`, which must stay. */
void progress_phase(struct progress *p, const char *what, uint64_t total);

/* So many more bytes are done. From any thread. */
void progress_add(struct progress *p, uint64_t bytes);

/* A signal has asked the work to stop. From any thread. */
bool progress_stopped(const struct progress *p);

/* The same three for who does the work and knows nothing of the command. Valid as long as `p`. */
struct watch *progress_watch(struct progress *p);

/*
 * Ends: the last line is printed if there is anything to end, and the signals are as they were before. When the work was stopped this
 * does not return: the process ends by that signal, so that a shell knows. What has to be tidied up was, therefore. Accepts NULL.
 */
void progress_end(struct progress *p);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Why opening or configuring something failed: a status and a chain of context ending in the cause. */
#ifndef PLATTER_CORE_ERROR_H
#define PLATTER_CORE_ERROR_H

#include <stdarg.h>

/*
 * Zero-initialised it says "no error". The message is recorded once, where it is known (error_set);
 * callers on the way up only put context in front (error_prefix), so that it reads
 *
 *     memdiff: file 'base.img': size 1000 is not a multiple of the block size 512 bytes
 *
 * Not shared between threads. Every function accepts err == NULL, where the caller does not want text.
 */
struct error {
	int status; /* 0 or a negative errno */
	char *text; /* owned; NULL when there is none or memory ran out */
};

/* Scope cleanup: `CLEANUP_ERROR struct error err = {0};` */
#define CLEANUP_ERROR __attribute__((cleanup(error_clear)))

/* Records the cause, replacing what was there; returns `status` (a negative errno). */
int error_set(struct error *err, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* As error_set, followed by ": " and the system's text for `status`. */
int error_set_errno(struct error *err, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the text; returns the status. No effect when there is no error. */
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends " (hint)", the next thing to try, to the text; returns the status. */
int error_hint(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Moves `from` to `to` (which is cleared first); `from` is empty afterwards. Returns the status. */
int error_move(struct error *to, struct error *from);

/* The text, or the system's text for the status where memory ran out; never NULL. */
const char *error_text(const struct error *err);

/* Frees the text; the error is zero afterwards. */
void error_clear(struct error *err);

#endif

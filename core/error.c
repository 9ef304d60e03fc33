/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* vasprintf that says NULL when memory runs out. */
static char *format_text(const char *format, va_list args)
{
	char *text;

	return vasprintf(&text, format, args) < 0 ? NULL : text;
}

/* Replaces the text by the parts in a row, of which one may be the text itself; keeps it where memory runs out. */
static void combine(struct error *err, const char *first, const char *between, const char *second,
		    const char *after)
{
	char *text;

	if (asprintf(&text, "%s%s%s%s", first, between, second, after) < 0)
		return;
	free(err->text);
	err->text = text;
}

/* The old text may be among `args`: it goes last. */
static void replace(struct error *err, int status, const char *format, va_list args)
{
	char *text = format_text(format, args);

	error_clear(err);
	*err = (struct error){.status = status, .text = text};
}

int error_set(struct error *err, int status, const char *format, ...)
{
	va_list args;

	if (!err)
		return status;
	va_start(args, format);
	replace(err, status, format, args);
	va_end(args);
	return status;
}

int error_set_errno(struct error *err, int status, const char *format, ...)
{
	va_list args;

	if (!err)
		return status;
	va_start(args, format);
	replace(err, status, format, args);
	va_end(args);
	if (err->text)
		combine(err, err->text, ": ", strerror(-status), "");
	return status;
}

int error_prefix(struct error *err, const char *format, ...)
{
	va_list args;
	char *context;

	if (!err || !err->status)
		return 0;
	va_start(args, format);
	context = format_text(format, args);
	va_end(args);
	if (context)
		combine(err, context, ": ", error_text(err), "");
	free(context);
	return err->status;
}

int error_hint(struct error *err, const char *format, ...)
{
	va_list args;
	char *hint;

	if (!err || !err->status)
		return 0;
	va_start(args, format);
	hint = format_text(format, args);
	va_end(args);
	if (hint)
		combine(err, error_text(err), " (", hint, ")");
	free(hint);
	return err->status;
}

int error_move(struct error *to, struct error *from)
{
	int status = from->status;

	if (to) {
		error_clear(to);
		*to = *from;
		*from = (struct error){0};
	} else {
		error_clear(from);
	}
	return status;
}

const char *error_text(const struct error *err)
{
	return err->text ? err->text : strerror(-err->status);
}

void error_clear(struct error *err)
{
	if (!err)
		return;
	free(err->text);
	*err = (struct error){0};
}

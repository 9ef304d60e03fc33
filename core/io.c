/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/io.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const struct io io_plain = {0};

static void record(struct failure *f, int status, enum medium_error medium, const char *format,
		   va_list args) __attribute__((format(printf, 4, 0)));

/* The first to come fills it in; the reader looks once all sub-requests are joined. */
static void record(struct failure *f, int status, enum medium_error medium, const char *format,
		   va_list args)
{
	int expected = 0;

	if (!f || !atomic_compare_exchange_strong(&f->claimed, &expected, 1))
		return;
	f->status = status;
	f->medium = medium;
	vsnprintf(f->text, sizeof(f->text), format, args);
}

int io_fail(const struct io *io, int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	record(io->failure, status, MEDIUM_UNRECOVERED_READ, format, args);
	va_end(args);
	return status;
}

int io_fail_medium(const struct io *io, enum medium_error medium, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	record(io->failure, -ENODATA, medium, format, args);
	va_end(args);
	return -ENODATA;
}

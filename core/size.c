/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/spec.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* From the smallest; the index is the power of 1024. */
static const char size_units[] = "BKMGTPE";

static const struct duration_unit {
	const char *name;
	uint64_t ns;
} duration_units[] = {
	{"s", 1000000000},
	{"ms", 1000000},
	{"us", 1000},
	{"ns", 1},
};

#define NR_DURATION_UNITS (sizeof(duration_units) / sizeof(duration_units[0]))

static unsigned digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return isxdigit((unsigned char)c) ? 10u + (unsigned)(tolower((unsigned char)c) - 'a') : 16;
}

/* Reads the digits at *text (decimal, or hexadecimal after 0x) and moves it past them. */
static int read_digits(const char **text, uint64_t *out)
{
	const char *p = *text;
	unsigned base = p[0] == '0' && (p[1] == 'x' || p[1] == 'X') ? 16 : 10;
	bool overflow = false;
	uint64_t value = 0;

	p += base == 16 ? 2 : 0;
	if (digit_value(*p) >= base)
		return -EINVAL;
	for (; digit_value(*p) < base; p++) {
		overflow |= __builtin_mul_overflow(value, (uint64_t)base, &value);
		overflow |= __builtin_add_overflow(value, (uint64_t)digit_value(*p), &value);
	}
	*text = p;
	*out = value;
	return overflow ? -ERANGE : 0;
}

/* The power of 1024 that the unit stands for; -1 when it is none. */
static int size_unit(const char *text)
{
	const char *unit;

	if (!*text)
		return 0;
	unit = strchr(size_units, toupper((unsigned char)*text));
	if (!unit)
		return -1;
	if (!text[1])
		return (int)(unit - size_units);
	if (unit == size_units || (strcasecmp(text + 1, "B") && strcasecmp(text + 1, "iB")))
		return -1;
	return (int)(unit - size_units);
}

static int parse_size(const char *text, uint64_t *out)
{
	uint64_t value;
	int status, unit;

	status = read_digits(&text, &value);
	if (status == -EINVAL)
		return status;
	unit = size_unit(text);
	if (unit < 0)
		return -EINVAL;
	if (status || __builtin_mul_overflow(value, UINT64_C(1) << (10 * unit), out))
		return -ERANGE;
	return 0;
}

int size_parse(const char *text, uint64_t *out, struct error *err)
{
	int status;

	/* A word that command lines of OpenVMM hold in place of a size. */
	if (!strcmp(text, "VMGS_DEFAULT")) {
		*out = UINT64_C(4) << 20;
		return 0;
	}
	status = parse_size(text, out);
	if (status == -ERANGE)
		return error_set(err, status, "the size '%s' does not fit in 64 bits (below 16E)", text);
	if (status)
		return error_set(err, status,
				 "'%s' is not a size: expected bytes with an optional unit "
				 "(K, M, G, T, P, E), e.g. 64K or 1G", text);
	return 0;
}

const char *size_print(uint64_t size, char buffer[SIZE_TEXT_MAX])
{
	unsigned unit = 0;

	while (size && !(size & 1023)) {
		size >>= 10;
		unit++;
	}
	snprintf(buffer, SIZE_TEXT_MAX, "%" PRIu64 "%.*s", size, unit ? 1 : 0, &size_units[unit]);
	return buffer;
}

/* Digits that are not shown are cut off, not rounded: a size is never made to look larger than it is. */
const char *size_print_human(uint64_t size, char buffer[SIZE_TEXT_MAX])
{
	unsigned unit = 0, hundredths;
	uint64_t whole = size;

	if (size < 1024) {
		snprintf(buffer, SIZE_TEXT_MAX, "%u byte%s", (unsigned)size, size == 1 ? "" : "s");
		return buffer;
	}
	for (; whole >= 1024; whole >>= 10)
		unit++;
	hundredths = (unsigned)((size >> (10 * unit - 10) & 1023) * 100 / 1024);
	if (whole >= 10)
		hundredths -= whole >= 100 ? hundredths : hundredths % 10;
	if (!hundredths)
		snprintf(buffer, SIZE_TEXT_MAX, "%u %ciB", (unsigned)whole, size_units[unit]);
	else
		snprintf(buffer, SIZE_TEXT_MAX, "%u.%0*u %ciB", (unsigned)whole, hundredths % 10 ? 2 : 1,
			 hundredths % 10 ? hundredths : hundredths / 10, size_units[unit]);
	return buffer;
}

static int parse_duration(const char *text, uint64_t *ns)
{
	uint64_t value;
	int status = read_digits(&text, &value);

	if (status == -EINVAL)
		return status;
	for (unsigned i = 0; i < NR_DURATION_UNITS; i++) {
		if (strcasecmp(*text ? text : "ms", duration_units[i].name))
			continue;
		if (status || __builtin_mul_overflow(value, duration_units[i].ns, ns))
			return -ERANGE;
		return 0;
	}
	return -EINVAL;
}

int duration_parse(const char *text, uint64_t *ns, struct error *err)
{
	int status = parse_duration(text, ns);

	if (status == -ERANGE)
		return error_set(err, status, "the time '%s' does not fit in 64 bits of nanoseconds", text);
	if (status)
		return error_set(err, status,
				 "'%s' is not a time: expected milliseconds, or a number with a unit "
				 "(ns, us, ms, s), e.g. 20 or 500us", text);
	return 0;
}

const char *duration_print(uint64_t ns, char buffer[SIZE_TEXT_MAX])
{
	const struct duration_unit *unit = duration_units;

	while (ns % unit->ns)
		unit++;
	snprintf(buffer, SIZE_TEXT_MAX, "%" PRIu64 "%s", ns / unit->ns, unit->name);
	return buffer;
}

int number_parse(const char *text, uint64_t *out, struct error *err)
{
	const char *end = text;
	int status = read_digits(&end, out);

	if (*text && status != -EINVAL && *end)
		status = -EINVAL;
	if (status == -ERANGE)
		return error_set(err, status, "the number '%s' does not fit in 64 bits", text);
	if (status)
		return error_set(err, status, "'%s' is not a whole number", text);
	return 0;
}

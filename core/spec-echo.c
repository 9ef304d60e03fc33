/* SPDX-License-Identifier: BSD-3-Clause */
/* Text from outside within a message of ours, which is one line of UTF-8. */
#include "core/spec-internal.h"

#include <stdio.h>
#include <string.h>

/* One row per form of UTF-8 (Unicode 15, table 3-7): first byte, and the limits of the second. */
static const struct {
	unsigned char first_min, first_max, second_min, second_max;
	unsigned char length;
} utf8_forms[] = {
	{0x00, 0x7f, 0x00, 0x00, 1},
	{0xc2, 0xdf, 0x80, 0xbf, 2},
	{0xe0, 0xe0, 0xa0, 0xbf, 3},
	{0xe1, 0xec, 0x80, 0xbf, 3},
	{0xed, 0xed, 0x80, 0x9f, 3},
	{0xee, 0xef, 0x80, 0xbf, 3},
	{0xf0, 0xf0, 0x90, 0xbf, 4},
	{0xf1, 0xf3, 0x80, 0xbf, 4},
	{0xf4, 0xf4, 0x80, 0x8f, 4},
};

#define NR_FORMS (sizeof(utf8_forms) / sizeof(utf8_forms[0]))

size_t utf8_sequence(const char *text, size_t length)
{
	const unsigned char *p = (const unsigned char *)text;
	unsigned form = 0;

	while (form < NR_FORMS && (p[0] < utf8_forms[form].first_min || p[0] > utf8_forms[form].first_max))
		form++;
	if (form == NR_FORMS || length < utf8_forms[form].length)
		return 0;
	if (utf8_forms[form].length == 1)
		return 1;
	if (p[1] < utf8_forms[form].second_min || p[1] > utf8_forms[form].second_max)
		return 0;
	for (unsigned i = 2; i < utf8_forms[form].length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return utf8_forms[form].length;
}

bool utf8_valid(const char *text)
{
	size_t length = strlen(text);

	while (length) {
		size_t n = utf8_sequence(text, length);

		if (!n)
			return false;
		text += n;
		length -= n;
	}
	return true;
}

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

const char *spec_echo(const char *text, size_t length, char buffer[SPEC_ECHO_MAX])
{
	size_t used = 0;

	while (length) {
		size_t n = utf8_sequence(text, length);

		if (used > SPEC_ECHO_MAX - 8) { /* a sequence or an escape, then "..." and the end */
			strcpy(buffer + used, "...");
			return buffer;
		}
		if (!n || is_control(*text)) {
			used += (size_t)sprintf(buffer + used, "\\x%02x", (unsigned char)*text);
			n = 1;
		} else {
			memcpy(buffer + used, text, n);
			used += n;
		}
		text += n;
		length -= n;
	}
	buffer[used] = '\0';
	return buffer;
}

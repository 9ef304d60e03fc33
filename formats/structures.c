/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/structures.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX 400u

static json_t *place(uint64_t n)
{
	return n == STRUCTURE_NOWHERE ? json_null() : json_integer((json_int_t)n);
}

/* Names in files are text from strangers, and may have been cut within a character. */
static void make_printable(char *text)
{
	size_t length = strlen(text);

	if (length + 1 == TEXT_MAX) {
		while (length > 0 && ((unsigned char)text[length - 1] & 0xc0) == 0x80)
			length--;
		text[length > 0 ? length - 1 : 0] = '\0';
	}
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}

static void add(json_t *list, const char *name, uint64_t offset, uint64_t length, bool sound, char *found)
{
	make_printable(found);
	json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:b, s:s}", "structure", name, "offset", place(offset), "length",
					      place(length), "sound", (int)sound, "found", found));
}

void structures_add(json_t *list, const char *name, uint64_t offset, uint64_t length, bool sound, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	add(list, name, offset, length, sound, text);
}

void structures_judge(json_t *list, const char *name, uint64_t offset, uint64_t length, const struct structure_problems *p,
		      const char *format, ...)
{
	uint64_t count = p->now - p->before;
	char text[TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (count == 1 && json_array_size(p->problems) == p->now)
		snprintf(text, sizeof(text), "%s",
			 json_string_value(json_object_get(json_array_get(p->problems, p->now - 1), p->key)));
	else if (count > 0)
		snprintf(text, sizeof(text), "%" PRIu64 " problems", count);
	add(list, name, offset, length, count == 0, text);
}

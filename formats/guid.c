/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/guid.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

/* Which byte each pair of digits of the text is. */
static const uint8_t text_order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

bool guid_is_null(const struct guid *g)
{
	static const struct guid null;

	return guid_equal(g, &null);
}

const char *guid_text(const struct guid *g, char text[GUID_TEXT_MAX])
{
	char *out = text;

	*out++ = '{';
	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		out += sprintf(out, "%02x", g->bytes[text_order[i]]);
	}
	*out++ = '}';
	*out = 0;
	return text;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool guid_parse(const char *text, size_t length, struct guid *out)
{
	if (length == 38 && text[0] == '{' && text[37] == '}')
		text++, length -= 2;
	if (length != 36)
		return false;
	for (unsigned i = 0; i < 16; i++, text += 2) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		if (digit(text[0]) < 0 || digit(text[1]) < 0)
			return false;
		out->bytes[text_order[i]] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
	}
	return true;
}

int guid_random(struct guid *out)
{
	if (getrandom(out, sizeof(*out), 0) != sizeof(*out))
		return errno ? -errno : -EIO;
	out->bytes[7] = (uint8_t)((out->bytes[7] & 0x0f) | 0x40);
	out->bytes[8] = (uint8_t)((out->bytes[8] & 0x3f) | 0x80);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/svg.h"

#include <stdio.h>

#include "core/spec.h"

void svg_begin(unsigned width, unsigned height)
{
	printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	       "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\" "
	       "font-family=\"sans-serif\">\n"
	       "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
	       width, height, width, height);
}

void svg_end(void)
{
	printf("</svg>\n");
}

/* Only jansson knows here what is UTF-8; a text that is not is shown byte by byte. */
void svg_escape(const char *text)
{
	json_t *checked = json_string(text);

	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;
		if (c == '&')
			printf("&amp;");
		else if (c == '<')
			printf("&lt;");
		else if (c == '>')
			printf("&gt;");
		else if (c == '"')
			printf("&quot;");
		else if (c < 0x20 || c == 0x7f || (c > 0x7f && !checked))
			printf("?");
		else
			putchar(c);
	}
	json_decref(checked);
}

void svg_text(double x, double y, unsigned size, const char *anchor, const char *text)
{
	printf("<text x=\"%.1f\" y=\"%.1f\" font-size=\"%u\" text-anchor=\"%s\">", x, y, size, anchor);
	svg_escape(text);
	printf("</text>\n");
}

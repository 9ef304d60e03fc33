/* SPDX-License-Identifier: BSD-3-Clause */
/* What is common to pictures. */
#ifndef PLATTER_CLI_SVG_H
#define PLATTER_CLI_SVG_H

/* Prints the head of a picture of so many pixels on a white ground. */
void svg_begin(unsigned width, unsigned height);
void svg_end(void);

/*
 * Prints a line of text at a baseline. `anchor` is "start", "middle" or "end". Whatever XML cannot hold, or would take for
 * its own, is replaced.
 */
void svg_text(double x, double y, unsigned size, const char *anchor, const char *text);

/* The text alone, as content of an element. */
void svg_escape(const char *text);

#endif

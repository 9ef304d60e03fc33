/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/nearest.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Words longer than this are near to nothing. */
#define MAX_WORD 32

static unsigned smaller(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static int same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/*
 * Edits (insert, delete, replace, swap two neighbours) that make `a` into `b`, which are not longer than
 * MAX_WORD. rows[i % 3][j] is the distance between the first i characters of `a` and the first j of `b`.
 */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned rows[3][MAX_WORD + 1];

	for (size_t i = 0; i <= a_length; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3];

		row[0] = i;
		for (size_t j = 1; j <= b_length; j++) {
			if (!i) {
				row[j] = j;
				continue;
			}
			row[j] = smaller(above[j] + 1, row[j - 1] + 1);
			row[j] = smaller(row[j], above[j - 1] + !same(a[i - 1], b[j - 1]));
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
				row[j] = smaller(row[j], rows[(i + 1) % 3][j - 2] + 1);
		}
	}
	return rows[a_length % 3][b_length];
}

struct nearest nearest_to(const char *wrong, size_t length)
{
	return (struct nearest){.wrong = wrong, .length = length, .limit = (length + 2) / 3 + 1};
}

void nearest_try(struct nearest *n, const char *word)
{
	size_t length = strlen(word);
	unsigned edits;

	if (!n->length || n->length > MAX_WORD || length > MAX_WORD)
		return;
	edits = distance(n->wrong, n->length, word, length);
	if (n->length > 1 && n->length < length && !strncasecmp(n->wrong, word, n->length))
		edits = 1; /* an abbreviation */
	if (edits < n->limit) {
		n->word = word;
		n->limit = edits;
	}
}

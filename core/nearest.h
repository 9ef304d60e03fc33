/* SPDX-License-Identifier: BSD-3-Clause */
/* "Did you mean ...?": the known word nearest to one that is not known. */
#ifndef PLATTER_CORE_NEAREST_H
#define PLATTER_CORE_NEAREST_H

#include <stddef.h>

/*
 *     struct nearest n = nearest_to(text, length);
 *     nearest_try(&n, "file");
 *     nearest_try(&n, "mem");
 *     n.word is the nearest one tried, or NULL when none is near
 */
struct nearest {
	const char *wrong;
	size_t length;
	const char *word; /* the best so far */
	unsigned limit;   /* only what is at less than this many edits is taken */
};

/* Begins a search for what `wrong` (`length` bytes of it, which must stay) was meant to be. */
struct nearest nearest_to(const char *wrong, size_t length);

/* Offers one known word. The first of equally near ones wins. */
void nearest_try(struct nearest *n, const char *word);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* What must hold for every tree that was ever parsed or built; shared by the tests and the fuzz target. */
#ifndef PLATTER_TESTS_SPEC_ORACLE_H
#define PLATTER_TESTS_SPEC_ORACLE_H

#include "core/spec.h"

/*
 * Prints the tree as text, as JSON, as "json:", as a string in JSON; reads each back, which must give an
 * equal tree that prints alike. NULL when all is well, else what is not.
 */
const char *spec_fault(const struct spec *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether Azure would take an image for a disk, and what to do where it would not. */
#ifndef PLATTER_CLI_LINT_AZURE_H
#define PLATTER_CLI_LINT_AZURE_H

#include <stdbool.h>

#include "core/error.h"

/*
 * Looks at the file `path` and prints what is wrong, each with what mends it. 0: nothing; 1: something; or a negative errno with
 * `err` set when it cannot be read.
 */
int lint_azure(const char *path, bool as_json, struct error *err);

#endif

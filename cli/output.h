/* SPDX-License-Identifier: BSD-3-Clause */
/* Printing that verbs share. */
#ifndef PLATTER_CLI_OUTPUT_H
#define PLATTER_CLI_OUTPUT_H

#include <stdint.h>

#include <jansson.h>

#include "core/error.h"

/* Prints `json`, which is given up, indented and in the order it was made. An exit status; NULL means no
 * memory. */
int print_json(json_t *json);

/* Puts the operand that the error is about in front of its text, unless that names the disk or the file already. Returns the status. */
int error_about(struct error *err, const char *operand);

/* The same with what the operand is for the verb, such as "SRC", which is always put in front. */
int error_in_role(struct error *err, const char *role, const char *operand);

/* "ROLE 'OPERAND'", to be freed; NULL when memory ran out. */
char *operand_name(const char *role, const char *operand);

/* Says on standard error why the verb failed; returns the exit status for it. */
int verb_failed(const char *verb, const struct error *err);

/* The same with error_about(). */
int operand_failed(const char *verb, const char *operand, struct error *err);

/* Says that memory ran out; returns the exit status for it. */
int no_memory(void);

#endif

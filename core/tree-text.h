/* SPDX-License-Identifier: BSD-3-Clause */
/* A tree of disks as text for people. */
#ifndef PLATTER_CORE_TREE_TEXT_H
#define PLATTER_CORE_TREE_TEXT_H

#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

/* Prints what disk_describe() made, a line or more for each node; `lead` stands in front of every line but the first. */
void tree_print(FILE *out, json_t *node, const char *lead);

/* "1 GiB (1073741824 bytes)", or "512 bytes". */
#define BYTES_TEXT_MAX 64
const char *print_bytes(uint64_t bytes, char buffer[BYTES_TEXT_MAX]);

#endif

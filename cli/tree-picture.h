/* SPDX-License-Identifier: BSD-3-Clause */
/* A tree of disks, as disk_describe() tells it, as a picture on standard output. */
#ifndef PLATTER_CLI_TREE_PICTURE_H
#define PLATTER_CLI_TREE_PICTURE_H

#include <jansson.h>

/* In the language of Graphviz' dot(1). */
void print_tree_dot(json_t *tree);

/* As SVG: boxes, each above those it stands on. */
void print_tree_svg(json_t *tree);

#endif

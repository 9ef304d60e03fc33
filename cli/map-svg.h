/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLATTER_CLI_MAP_SVG_H
#define PLATTER_CLI_MAP_SVG_H

#include "cli/where.h"
#include "core/extents.h"

/* Draws the runs of a whole disk to standard output: cells in rows, each as dark as it is full, and with where it lies as its title. */
void print_map_svg(const struct extents *all, const struct where *w, const char *title);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/tree-picture.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/svg.h"
#include "core/spec.h"

#define BOX_WIDTH 170u /* pixels */
#define BOX_HEIGHT 56u
#define GAP 24u
#define MARGIN 16u

/* Of a path at most so many bytes are shown: the end of it. */
#define NAME_SHOWN 24u
#define LABEL_MAX 64

/* ------------------------------------------------------------------ what stands in a box */

static const char *kind_of(json_t *node)
{
	return json_string_value(json_object_get(node, "kind"));
}

/* "1 GiB, read-only" */
static void size_label(json_t *node, char out[LABEL_MAX])
{
	char size[SIZE_TEXT_MAX];

	size_print_human((uint64_t)json_integer_value(json_object_get(node, "size")), size);
	snprintf(out, LABEL_MAX, "%s%s", size, json_is_true(json_object_get(node, "read_only")) ? ", read-only" : "");
}

/* The end of its path, not beginning inside of a character; "" without one. */
static void path_label(json_t *node, char out[LABEL_MAX])
{
	const char *path = json_string_value(json_object_get(node, "path"));
	size_t length = path ? strlen(path) : 0;

	if (length <= NAME_SHOWN) {
		snprintf(out, LABEL_MAX, "%s", path ? path : "");
		return;
	}
	path += length - NAME_SHOWN;
	while ((*path & 0xc0) == 0x80)
		path++;
	snprintf(out, LABEL_MAX, "...%s", path);
}

/* ------------------------------------------------------------------ dot */

static void put_dot_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar((unsigned char)*text < 0x20 ? '?' : *text);
	}
}

/* Nodes are numbered as they are met. Returns the number of this one. */
static unsigned put_dot_node(json_t *node, unsigned *next)
{
	unsigned number = (*next)++;
	char size[LABEL_MAX], path[LABEL_MAX];
	json_t *child;
	size_t i;

	size_label(node, size);
	path_label(node, path);
	printf("  n%u [label=\"%s\\n%s", number, kind_of(node), size);
	if (path[0]) {
		printf("\\n");
		put_dot_text(path);
	}
	printf("\"];\n");
	json_array_foreach(json_object_get(node, "children"), i, child)
	{
		unsigned below = put_dot_node(child, next);
		printf("  n%u -> n%u;\n", number, below);
	}
	return number;
}

void print_tree_dot(json_t *tree)
{
	unsigned next = 0;

	printf("digraph platter {\n  node [shape=box];\n");
	put_dot_node(tree, &next);
	printf("}\n");
}

/* ------------------------------------------------------------------ SVG */

/* How many boxes stand side by side at the bottom, and how many one above the other. */
static void measure(json_t *node, unsigned *leaves, unsigned *depth)
{
	json_t *children = json_object_get(node, "children"), *child;
	unsigned deepest = 0;
	size_t i;

	if (json_array_size(children) == 0)
		(*leaves)++;
	json_array_foreach(children, i, child)
	{
		unsigned below = 0;
		measure(child, leaves, &below);
		deepest = below > deepest ? below : deepest;
	}
	*depth = deepest + 1;
}

static double top_of(unsigned level)
{
	return MARGIN + level * (double)(BOX_HEIGHT + GAP);
}

static void draw_box(json_t *node, double middle, unsigned level)
{
	char size[LABEL_MAX], path[LABEL_MAX];
	double y = top_of(level);

	size_label(node, size);
	path_label(node, path);
	printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%u\" height=\"%u\" rx=\"6\" fill=\"#eef4fb\" stroke=\"#2b6cb0\"/>\n",
	       middle - BOX_WIDTH / 2.0, y, BOX_WIDTH, BOX_HEIGHT);
	svg_text(middle, y + 18, 13, "middle", kind_of(node));
	svg_text(middle, y + 33, 11, "middle", size);
	svg_text(middle, y + 48, 10, "middle", path);
}

/* Draws what is below first, and then the box over the middle of it. Returns where that is. */
static double draw(json_t *node, unsigned level, unsigned *next_leaf)
{
	json_t *children = json_object_get(node, "children"), *child;
	double first = 0, last = 0, middle;
	size_t i;

	if (json_array_size(children) == 0)
		first = last = MARGIN + BOX_WIDTH / 2.0 + (*next_leaf)++ * (double)(BOX_WIDTH + GAP);
	json_array_foreach(children, i, child)
	{
		last = draw(child, level + 1, next_leaf);
		if (i == 0)
			first = last;
	}
	middle = (first + last) / 2;
	draw_box(node, middle, level);
	return middle;
}

/* Lines go from the children's boxes up; they are drawn where both ends are known, in a pass of its own. */
static double draw_lines(json_t *node, unsigned level, unsigned *next_leaf)
{
	json_t *children = json_object_get(node, "children"), *child;
	double first = 0, last = 0;
	size_t i;

	if (json_array_size(children) == 0)
		return MARGIN + BOX_WIDTH / 2.0 + (*next_leaf)++ * (double)(BOX_WIDTH + GAP);
	json_array_foreach(children, i, child)
	{
		last = draw_lines(child, level + 1, next_leaf);
		if (i == 0)
			first = last;
		printf("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#718096\"/>\n", last, top_of(level + 1),
		       last, top_of(level + 1) - GAP / 2.0);
	}
	double middle = (first + last) / 2, bend = top_of(level + 1) - GAP / 2.0;
	printf("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#718096\"/>\n", first, bend, last, bend);
	printf("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#718096\"/>\n", middle, bend, middle,
	       top_of(level) + BOX_HEIGHT);
	return middle;
}

void print_tree_svg(json_t *tree)
{
	unsigned leaves = 0, depth = 0, next = 0;

	measure(tree, &leaves, &depth);
	svg_begin(2 * MARGIN + leaves * (BOX_WIDTH + GAP) - GAP, 2 * MARGIN + depth * (BOX_HEIGHT + GAP) - GAP);
	draw_lines(tree, 0, &next);
	next = 0;
	draw(tree, 0, &next);
	svg_end();
}

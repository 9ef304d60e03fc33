/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/map-svg.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/svg.h"
#include "core/spec.h"

#define COLUMNS 64u
#define MAX_ROWS 32u
#define CELL 12u /* pixels */
#define LEFT 90u
#define TOP 44u

/* Bytes of each sort in one cell. */
struct cell {
	double data, zero, hole;
};

static void count(struct cell *c, const struct extent *e, uint64_t bytes)
{
	if (!(e->flags & EXTENT_ZERO))
		c->data += (double)bytes;
	else if (e->flags & EXTENT_HOLE)
		c->hole += (double)bytes;
	else
		c->zero += (double)bytes;
}

/* What is in [from, end); *at is the first run that reaches past `from`, and moves on. */
static struct cell look(const struct extents *all, size_t *at, uint64_t from, uint64_t end)
{
	struct cell c = {0};

	for (size_t i = *at; i < all->count && all->list[i].offset < end; i++) {
		const struct extent *e = &all->list[i];
		uint64_t e_end = e->offset + e->length;
		uint64_t begin = e->offset > from ? e->offset : from;
		count(&c, e, (e_end < end ? e_end : end) - begin);
		if (e_end <= end)
			*at = i + 1;
	}
	return c;
}

/* What a pointer that rests on the cell is told: which bytes, and where the first of them that lies in a file does. */
static void draw_title(const struct where *w, uint64_t from, uint64_t end)
{
	const struct place *p = where_from(w, from);
	uint64_t at = p && p->offset > from ? p->offset : from;

	printf("<title>%" PRIu64 " to %" PRIu64, from, end);
	if (p && at < end) {
		printf("; byte %" PRIu64 " at %" PRIu64 " in ", at, p->at + at - p->offset);
		svg_escape(p->path);
	}
	printf("</title>\n");
}

static void draw_cell(const struct cell *c, unsigned column, unsigned row)
{
	double all = c->data + c->zero + c->hole;
	unsigned x = LEFT + column * CELL, y = TOP + row * CELL;

	printf("<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"#f2f2f2\"/>\n", x, y, CELL - 1, CELL - 1);
	if (c->zero > 0)
		printf("<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"#e6a23c\" fill-opacity=\"%.2f\"/>\n", x,
		       y, CELL - 1, CELL - 1, 0.15 + 0.85 * c->zero / all);
	if (c->data > 0)
		printf("<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"#2b6cb0\" fill-opacity=\"%.2f\"/>\n", x,
		       y, CELL - 1, CELL - 1, 0.15 + 0.85 * c->data / all);
}

static void draw_legend(unsigned y, uint64_t bytes_a_cell)
{
	static const struct {
		const char *colour, *name;
	} sorts[] = {{"#2b6cb0", "data"}, {"#e6a23c", "zero"}, {"#f2f2f2", "hole"}};
	char text[64], size[SIZE_TEXT_MAX];

	for (unsigned i = 0; i < 3; i++) {
		printf("<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"/>\n", LEFT + i * 70, y, CELL - 1,
		       CELL - 1, sorts[i].colour);
		svg_text(LEFT + i * 70 + 16, y + 10, 11, "start", sorts[i].name);
	}
	snprintf(text, sizeof(text), "a cell is %s", size_print_human(bytes_a_cell, size));
	svg_text(LEFT + COLUMNS * CELL, y + 10, 11, "end", text);
}

void print_map_svg(const struct extents *all, const struct where *w, const char *title)
{
	uint64_t size = all->end - all->offset, a_cell = (size - 1) / (COLUMNS * MAX_ROWS) + 1;
	size_t at = 0;
	unsigned rows;

	a_cell = a_cell < 512 ? 512 : a_cell;
	rows = (unsigned)((size - 1) / a_cell / COLUMNS + 1);
	svg_begin(LEFT + COLUMNS * CELL + 20, TOP + rows * CELL + 40);
	svg_text(LEFT, 24, 14, "start", title);
	for (unsigned row = 0; row < rows; row++) {
		char text[SIZE_TEXT_MAX];
		svg_text(LEFT - 8, TOP + row * CELL + 10, 9, "end", size_print_human(row * COLUMNS * a_cell, text));
		for (unsigned column = 0; column < COLUMNS; column++) {
			uint64_t from = ((uint64_t)row * COLUMNS + column) * a_cell;
			if (from >= size)
				break;
			uint64_t end = from + a_cell < size ? from + a_cell : size;
			struct cell c = look(all, &at, from, end);
			printf("<g>\n");
			draw_title(w, from, end);
			draw_cell(&c, column, row);
			printf("</g>\n");
		}
	}
	draw_legend(TOP + rows * CELL + 14, a_cell);
	svg_end();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The canonical text of a tree. What the parser would not read back as it is stands in quotes; what ends a
 * text is asked of the same function that the parser asks. Texts are printed as if inside a list, so that
 * what is printed can be put into one, and between the commas of a command line.
 */
#include "core/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/spec-internal.h"

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static bool needs_quotes(const char *text, const char *ends)
{
	size_t length = strlen(text);

	/* A file that holds a spec loses blanks at its ends. */
	if (!length || text[0] == '"' || text[0] == ' ' || text[length - 1] == ' ')
		return true;
	if (strpbrk(text, ends) || strpbrk(text, "[]\""))
		return true;
	while (*text && !is_control(*text))
		text++;
	return *text;
}

static void put_quoted(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if (*text == '\n' || *text == '\r' || *text == '\t')
			fputs(*text == '\n' ? "\\n" : *text == '\r' ? "\\r" : "\\t", out);
		else if (is_control(*text))
			fprintf(out, "\\x%02x", (unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

static void put_value(FILE *out, const struct spec *s, unsigned index)
{
	char ends[VALUE_ENDS_MAX], buffer[SIZE_TEXT_MAX];
	const char *text = spec_value_text(s, index, buffer);

	kind_value_ends(s->kind, index, true, ends);
	if (needs_quotes(text, ends))
		put_quoted(out, text);
	else
		fputs(text, out);
}

/* True when a parameter from row `index` on was given. */
static bool any_given(const struct spec *s, unsigned index)
{
	for (; s->kind->fields[index].name; index++)
		if (s->kind->fields[index].role == SPEC_PARAMETER && s->values[index].given)
			return true;
	return false;
}

/* Those at the end that were not given are left out where nothing follows that needs their place. */
static void put_parameters(FILE *out, const struct spec *s)
{
	const struct disk_kind *kind = s->kind;
	unsigned first = kind_next_parameter(kind, 0);

	if (!kind->fields[first].name && kind->children == KIND_LEAF)
		fputc(':', out);
	for (unsigned i = first; kind->fields[i].name; i = kind_next_parameter(kind, i + 1)) {
		if (kind_parameter_may_go(kind, i) && !any_given(s, i))
			return;
		fputc(i == first ? ':' : kind_separator(&kind->fields[i]), out);
		if (s->values[i].given)
			put_value(out, s, i);
	}
}

static void put_options(FILE *out, const struct spec *s)
{
	for (unsigned i = 0; s->kind->fields[i].name; i++) {
		const struct spec_field *field = &s->kind->fields[i];

		if (field->role != SPEC_OPTION || !s->values[i].given)
			continue;
		fprintf(out, ";%s", field->name);
		if (field->type == SPEC_FLAG || spec_is_bare(s, i))
			continue;
		fputc('=', out);
		put_value(out, s, i);
	}
}

static void put_marks(FILE *out, const struct disk_kind *list, unsigned marks)
{
	for (unsigned i = 0; marks >> i; i++)
		if (marks >> i & 1)
			fprintf(out, ";%s", list->marks[i].name);
}

static void put_node(FILE *out, const struct spec *s)
{
	fputs(s->kind->name, out);
	put_parameters(out, s);
	put_options(out, s);
	if (s->kind->children == KIND_LEAF)
		return;
	fputs(s->kind->children == KIND_JOINS ? ":[" : ":", out);
	for (unsigned i = 0; i < s->nr_children; i++) {
		if (i)
			fputc(',', out);
		put_node(out, s->children[i]);
		put_marks(out, s->kind, s->children[i]->marks);
	}
	if (s->kind->children == KIND_JOINS)
		fputc(']', out);
}

char *spec_print(const struct spec *s)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bool failed;

	if (!out)
		return NULL;
	put_node(out, s);
	failed = ferror(out);
	if (!fclose(out) && !failed)
		return text;
	free(text);
	return NULL;
}

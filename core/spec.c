/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/spec.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/spec-internal.h"

/* ------------------------------------------------------------------ the tree */

int spec_new(const struct disk_kind *kind, unsigned depth, struct spec_budget *budget, struct spec **out,
	     struct error *err)
{
	struct spec *s;

	if (depth > SPEC_MAX_DEPTH)
		return error_set(err, -EINVAL, "more than %u disks inside each other", SPEC_MAX_DEPTH);
	if (!budget->nodes)
		return error_set(err, -EINVAL, "more than %u disks in one spec", SPEC_MAX_NODES);
	budget->nodes--;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	s->kind = kind;
	s->values = calloc(kind_nr_fields(kind) + 1, sizeof(*s->values));
	if (!s->values) {
		free(s);
		return error_set(err, -ENOMEM, "no memory");
	}
	*out = s;
	return 0;
}

/* The array has room for the next power of two. */
int spec_add_child(struct spec *s, struct spec *child, struct error *err)
{
	unsigned n = s->nr_children;

	if (n == SPEC_MAX_CHILDREN)
		return error_set(err, -EINVAL, "more than %u disks in one list", SPEC_MAX_CHILDREN);
	if (!(n & (n - 1))) {
		struct spec **more = reallocarray(s->children, n ? 2 * n : 1, sizeof(*more));

		if (!more)
			return error_set(err, -ENOMEM, "no memory");
		s->children = more;
	}
	s->children[s->nr_children++] = child;
	return 0;
}

void spec_free(struct spec *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->nr_children; i++)
		spec_free(s->children[i]);
	free(s->children);
	for (unsigned i = 0; s->kind->fields[i].name; i++)
		free(s->values[i].text);
	free(s->values);
	free(s);
}

void spec_cleanup(struct spec **s)
{
	spec_free(*s);
}

/* ------------------------------------------------------------------ looking at it */

const struct spec_value *spec_value(const struct spec *s, const char *name)
{
	const struct spec_field *field = kind_field(s->kind, name);

	assert(field);
	return &s->values[field - s->kind->fields];
}

const char *spec_text(const struct spec *s, const char *name)
{
	return spec_value(s, name)->text;
}

uint64_t spec_number(const struct spec *s, const char *name)
{
	return spec_value(s, name)->number;
}

bool spec_given(const struct spec *s, const char *name)
{
	return spec_value(s, name)->given;
}

/* What was given as its default says is as good as not given; without a default the two differ. */
static bool value_equal(const struct spec_field *field, const struct spec_value *a, const struct spec_value *b)
{
	if (a->given != b->given && !field->fallback)
		return false;
	if (!a->text || !b->text)
		return a->number == b->number && a->text == b->text;
	return !strcmp(a->text, b->text);
}

bool spec_equal(const struct spec *a, const struct spec *b)
{
	if (a->kind != b->kind || a->nr_children != b->nr_children || a->marks != b->marks)
		return false;
	for (unsigned i = 0; a->kind->fields[i].name; i++)
		if (!value_equal(&a->kind->fields[i], &a->values[i], &b->values[i]))
			return false;
	for (unsigned i = 0; i < a->nr_children; i++)
		if (!spec_equal(a->children[i], b->children[i]))
			return false;
	return true;
}

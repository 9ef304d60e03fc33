/* SPDX-License-Identifier: BSD-3-Clause */
/* Values: from the text a user typed to a number or word within its limits, by the row of the kind, and back. */
#include "core/spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/nearest.h"
#include "core/spec-internal.h"

/* ------------------------------------------------------------------ numbers */

/* An amount of what the row counts, with its unit. */
#define AMOUNT_MAX 80
static const char *print_amount(const struct spec_field *field, uint64_t n, char buffer[AMOUNT_MAX])
{
	char text[SIZE_TEXT_MAX], human[SIZE_TEXT_MAX];

	if (field->type == SPEC_DURATION)
		snprintf(buffer, AMOUNT_MAX, "%s", duration_print(n, text));
	else if (field->type == SPEC_NUMBER)
		snprintf(buffer, AMOUNT_MAX, "%" PRIu64 "%s%s", n, field->unit ? " " : "",
			 field->unit ? field->unit : "");
	else if (n < 1024)
		snprintf(buffer, AMOUNT_MAX, "%s", size_print_human(n, human));
	else if (n % 1024 == 0)
		snprintf(buffer, AMOUNT_MAX, "%s (%" PRIu64 " bytes)", size_print(n, text), n);
	else
		snprintf(buffer, AMOUNT_MAX, "%" PRIu64 " bytes (%s)", n, size_print_human(n, human));
	return buffer;
}

static int refuse_amount(const struct spec_field *field, const char *relation, uint64_t limit, const char *text,
			 struct error *err)
{
	char label[FIELD_LABEL_MAX], amount[AMOUNT_MAX], echo[SPEC_ECHO_MAX];

	return error_set(err, -EINVAL, "%s must be at %s %s, found '%s'", field_label(field, label), relation,
			 print_amount(field, limit, amount), spec_echo(text, strlen(text), echo));
}

static int check_limits(const struct spec_field *field, uint64_t n, const char *text, struct error *err)
{
	if (n < field->min)
		return refuse_amount(field, "least", field->min, text, err);
	if (field->max && n > field->max)
		return refuse_amount(field, "most", field->max, text, err);
	return 0;
}

/* ------------------------------------------------------------------ what a row wants */

/* "one of a, b, c" */
static void list_words(const struct spec_field *field, char *buffer, size_t size)
{
	size_t used = (size_t)snprintf(buffer, size, "one of");

	for (unsigned i = 0; field->words[i] && used < size; i++)
		used += (size_t)snprintf(buffer + used, size - used, "%s %s", i ? "," : "", field->words[i]);
}

const char *field_form(const struct spec_field *field, char buffer[FIELD_FORM_MAX])
{
	switch (field->type) {
	case SPEC_SIZE:
		return "bytes, e.g. 64K or 1G";
	case SPEC_DURATION:
		return "milliseconds, or with a unit: ns us ms s; e.g. 20 or 500us";
	case SPEC_NUMBER:
		snprintf(buffer, FIELD_FORM_MAX, "a whole number%s%s", field->unit ? ", " : "",
			 field->unit ? field->unit : "");
		return buffer;
	case SPEC_WORD:
		list_words(field, buffer, FIELD_FORM_MAX);
		return buffer;
	case SPEC_FLAG:
		return "no value";
	case SPEC_TEXT:
		break;
	}
	return "text";
}

static int refuse_form(const struct spec_field *field, const char *text, struct error *err)
{
	char label[FIELD_LABEL_MAX], form[FIELD_FORM_MAX], echo[SPEC_ECHO_MAX];

	return error_set(err, -EINVAL, "expected %s (%s), found '%s'", field_label(field, label),
			 field_form(field, form), spec_echo(text, strlen(text), echo));
}

/* ------------------------------------------------------------------ from text */

static int parse_number(const struct spec_field *field, const char *text, uint64_t *out, struct error *err)
{
	int status;

	if (field->type == SPEC_SIZE)
		status = size_parse(text, out, NULL);
	else if (field->type == SPEC_DURATION)
		status = duration_parse(text, out, NULL);
	else
		status = number_parse(text, out, NULL);
	if (status == -ERANGE) /* larger than any limit */
		return refuse_amount(field, "most", field->max ? field->max : UINT64_MAX, text, err);
	return status ? refuse_form(field, text, err) : check_limits(field, *out, text, err);
}

static int parse_word(const struct spec_field *field, const char *text, uint64_t *out, struct error *err)
{
	struct nearest near = nearest_to(text, strlen(text));

	for (unsigned i = 0; field->words[i]; i++) {
		if (!strcmp(field->words[i], text)) {
			*out = i;
			return 0;
		}
		nearest_try(&near, field->words[i]);
	}
	refuse_form(field, text, err);
	if (near.word)
		error_hint(err, "did you mean '%s'?", near.word);
	return -EINVAL;
}

static int parse_text(const struct spec_field *field, const char *text, struct error *err)
{
	char label[FIELD_LABEL_MAX];

	if (!*text && field->required)
		return error_set(err, -EINVAL, "%s is empty", field_label(field, label));
	return 0;
}

static int parse_value(const struct spec_field *field, const char *text, uint64_t *number, struct error *err)
{
	switch (field->type) {
	case SPEC_TEXT:
		return parse_text(field, text, err);
	case SPEC_WORD:
		return parse_word(field, text, number, err);
	case SPEC_SIZE:
	case SPEC_NUMBER:
	case SPEC_DURATION:
		return parse_number(field, text, number, err);
	case SPEC_FLAG:
		break;
	}
	return error_set(err, -EINVAL, "'%s' takes no value", field->name);
}

int spec_set(struct spec *s, unsigned index, char *text, struct error *err)
{
	const struct spec_field *field = &s->kind->fields[index];
	struct spec_value *value = &s->values[index];
	int status = parse_value(field, text, &value->number, err);

	if (status || field->type != SPEC_TEXT) {
		free(text);
	} else {
		free(value->text);
		value->text = text;
	}
	if (!status)
		value->given = true;
	return status;
}

void spec_set_flag(struct spec *s, unsigned index)
{
	s->values[index] = (struct spec_value){.given = true, .number = 1};
}

void spec_set_bare(struct spec *s, unsigned index)
{
	s->values[index] = (struct spec_value){.given = true};
}

int spec_set_defaults(struct spec *s, struct error *err)
{
	for (unsigned i = 0; s->kind->fields[i].name; i++) {
		const char *fallback = s->kind->fields[i].fallback;
		char *text;
		int status;

		if (s->values[i].given || !fallback)
			continue;
		text = strdup(fallback);
		if (!text)
			return error_set(err, -ENOMEM, "no memory");
		status = spec_set(s, i, text, err);
		if (status)
			return status;
		s->values[i].given = false;
	}
	return 0;
}

const char *spec_value_text(const struct spec *s, unsigned index, char buffer[SIZE_TEXT_MAX])
{
	const struct spec_field *field = &s->kind->fields[index];
	const struct spec_value *value = &s->values[index];

	switch (field->type) {
	case SPEC_TEXT:
		return value->text;
	case SPEC_SIZE:
		return size_print(value->number, buffer);
	case SPEC_NUMBER:
		snprintf(buffer, SIZE_TEXT_MAX, "%" PRIu64, value->number);
		return buffer;
	case SPEC_DURATION:
		return duration_print(value->number, buffer);
	case SPEC_WORD:
		return field->words[value->number];
	case SPEC_FLAG:
		break;
	}
	return NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spec language, read from text.
 *
 *     spec      = node | path | "json:" object | "@" file
 *     node      = kind ":" parameter { separator parameter } { ";" option } [ ":" child ]
 *               | kind { ";" option } ":" child              a kind without parameters
 *     path      = text { ";" option }                         its ending picks the kind
 *     option    = name | name "=" text
 *     child     = spec | "[" member { "," member } "]"       by the kind: one, or a list
 *     member    = spec { ";" mark }                           marks are words of the kind that has the list
 *     text      = plain | '"' { character | escape } '"'
 *     escape    = "\\" | '\"' | "\n" | "\r" | "\t" | "\x" two hexadecimal digits, not 00
 *
 * How a spec is told apart, by its beginning
 *
 *   "            a path in quotes
 *   @            a file that holds the spec
 *   json:        a JSON object
 *   / ./ ../     a path; it may hold colons
 *   WORD:        a kind, which must be known
 *   WORD;        a kind that has options but no parameters (its options stand there), else a path
 *   WORD         a path
 *
 * where WORD runs up to the first of  :  ;  and, in a list,  ,  ].  A colon therefore always means a kind, and a word
 * that is none is an error: no slip of the pen in the name of a kind ever opens (or creates) a file of that name.
 *
 * Where a plain text ends
 *
 * There is no set of special characters. A text ends where something else can begin, and what can begin
 * depends on where it stands; all other characters belong to it, backslashes, blanks and colons too.
 *
 *   an option can always follow                               ;
 *   the next member of a list or its end: inside [ ] only     ,  ]
 *   the next parameter of the same kind                       its separator,  :  unless the row says otherwise
 *   the child: after the last parameter (or where all that
 *   follow may be missing), and after options                 :
 *   in a file: the end of the line                            \n  \r
 *
 * So file:/a:b and file:/a,b name the files that they seem to name, crypt:aes:/a:b is key /a over the disk
 * b, and the comma that ends the member in layers:[file:/a,b] needs quotes to be part of a name:
 * layers:[file:"/a,b"]. The rule is one function, kind_value_ends(), which the printer asks too; quotes are
 * printed only where it says they are needed.
 *
 * A mark looks like an option of whatever ends the member, and no kind has an option of that name: what is no option of the
 * node being read, but a mark of the innermost list, ends the node and those around it up to the member.
 *
 * Parameters that are not required may be empty, and at the end of a kind without child may be missing. A
 * text in quotes is always given, even if it is empty.
 *
 * Cost
 *
 * One pass, one character of look-ahead but for WORD, which is read once more as a path. Recursion goes
 * with the depth of the tree, which is limited, as are the nodes and the bytes, those of files included
 * (struct spec_budget). An error counts lines and columns once per text it passes through.
 */
#include "core/spec.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/nearest.h"
#include "core/spec-internal.h"

struct reader {
	const char *text;
	const char *end;  /* where the NUL is */
	const char *next; /* the first character not read yet */
	const struct spec_place *place;
	unsigned lists;     /* brackets that are open */
	const struct disk_kind *list; /* whose marks may stand here; NULL: none */
	const char *failed; /* where the error was found; NULL: none */
	struct error *err;
};

static int read_spec(struct reader *r, unsigned depth, struct spec **out);

/* ------------------------------------------------------------------ errors */

/* Puts the position in front of the error, once per text. Returns `status`. */
static int fail_at(struct reader *r, const char *at, int status)
{
	const char *line = r->text;
	unsigned lines = 1;

	if (r->failed)
		return status;
	r->failed = at;
	if (!r->place->file) {
		error_prefix(r->err, "column %zu", (size_t)(at - r->text) + 1);
		return status;
	}
	for (const char *p; (p = memchr(line, '\n', (size_t)(at - line))); line = p + 1)
		lines++;
	error_prefix(r->err, "line %u, column %zu", lines, (size_t)(at - line) + 1);
	return status;
}

/* An error of the text at `at`. */
static int __attribute__((format(printf, 3, 4)))
refuse(struct reader *r, const char *at, const char *format, ...)
{
	CLEANUP_TEXT char *text = NULL;
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0) {
		text = NULL;
		error_set(r->err, -ENOMEM, "no memory");
		return -ENOMEM;
	}
	error_set(r->err, -EINVAL, "%s", text);
	return fail_at(r, at, -EINVAL);
}

static int no_memory(struct reader *r)
{
	return error_set(r->err, -ENOMEM, "no memory");
}

/* What stands at `at`, for "found ...". */
#define FOUND_MAX (SPEC_ECHO_MAX + 8)
static const char *found(const struct reader *r, const char *at, char buffer[FOUND_MAX])
{
	size_t all = (size_t)(r->end - at), shown = all > 30 ? 30 : all;
	char echo[SPEC_ECHO_MAX];

	if (!all)
		return "the end";
	while (shown < all && shown > 1 && utf8_continues(at[shown]))
		shown--;
	snprintf(buffer, FOUND_MAX, "'%s%s'", spec_echo(at, shown, echo), shown < all ? "..." : "");
	return buffer;
}

/* "expected WHAT, found ..." at the next character. */
static int expected(struct reader *r, const char *what)
{
	char buffer[FOUND_MAX];

	return refuse(r, r->next, "expected %s, found %s", what, found(r, r->next, buffer));
}

/* ------------------------------------------------------------------ texts */

/* What ends the text of row `index` here. */
static void value_ends(const struct reader *r, const struct disk_kind *kind, unsigned index,
		       char ends[VALUE_ENDS_MAX])
{
	kind_value_ends(kind, index, r->lists, ends);
	if (r->place->file)
		strcat(ends, "\n\r");
}

/* What ends the text of something that has neither parameters after it nor children. */
static const char *leaf_ends(const struct reader *r)
{
	if (r->place->file)
		return r->lists ? ";,]\n\r" : ";\n\r";
	return r->lists ? ";,]" : ";";
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)((p - digits) % 16) : -1;
}

/* Reads what follows a backslash. */
static int read_escape(struct reader *r, char *out)
{
	static const char letters[] = "\\\"nrt", meanings[] = "\\\"\n\r\t";
	const char *letter = *r->next ? strchr(letters, *r->next) : NULL;
	int high, low;

	if (letter) {
		*out = meanings[letter - letters];
		r->next++;
		return 0;
	}
	high = *r->next == 'x' ? hex_digit(r->next[1]) : -1;
	low = high >= 0 ? hex_digit(r->next[2]) : -1;
	if (low < 0)
		return refuse(r, r->next - 1, "expected an escape: \\\\ \\\" \\n \\r \\t \\xHH");
	*out = (char)(high << 4 | low);
	if (!*out)
		return refuse(r, r->next - 1, "a text cannot hold the NUL character");
	r->next += 3;
	return 0;
}

/* Reads up to the closing quote into `out`, which has room for all. */
static int read_quoted_characters(struct reader *r, char *out)
{
	const char *open = r->next++;

	while (*r->next != '"') {
		if (!*r->next)
			return refuse(r, open, "the quote that opens here is never closed");
		if (*r->next++ != '\\') {
			*out++ = r->next[-1];
			continue;
		}
		if (read_escape(r, out))
			return -EINVAL;
		out++;
	}
	r->next++;
	*out = '\0';
	return 0;
}

/* No longer than the rest of the text, and no larger than what is in front of the last quote in it. */
static size_t quoted_length(const struct reader *r)
{
	const char *p = r->next + 1;

	while (*p && *p != '"')
		p += *p == '\\' && p[1] ? 2 : 1;
	return (size_t)(p - r->next);
}

static int read_quoted(struct reader *r, const char *ends, char **out)
{
	CLEANUP_TEXT char *text = malloc(quoted_length(r) + 1);
	int status;

	if (!text)
		return no_memory(r);
	status = read_quoted_characters(r, text);
	if (status)
		return status;
	if (*r->next && !strchr(ends, *r->next))
		return expected(r, "the end of the text after its closing quote");
	*out = text;
	text = NULL;
	return 0;
}

/* Reads a text up to one of `ends`, or to the end. */
static int read_text(struct reader *r, const char *ends, char **out)
{
	size_t length;

	if (*r->next == '"')
		return read_quoted(r, ends, out);
	length = strcspn(r->next, ends);
	*out = strndup(r->next, length);
	if (!*out)
		return no_memory(r);
	r->next += length;
	return 0;
}

/* ------------------------------------------------------------------ parameters and options */

/* The value is wrong perhaps because it did not end where its user thought. */
static void hint_separator(struct reader *r, const struct disk_kind *kind, unsigned index)
{
	const struct spec_field *next = &kind->fields[kind_next_parameter(kind, index + 1)];
	char label[FIELD_LABEL_MAX];

	if (kind->fields[index].role == SPEC_PARAMETER && next->name && next->required &&
	    *r->next != kind_separator(next))
		error_hint(r->err, "then '%c' and %s", kind_separator(next), field_label(next, label));
}

/* Reads the value of row `index`. `s` keeps it. */
static int read_value(struct reader *r, struct spec *s, unsigned index)
{
	const char *at = r->next;
	char ends[VALUE_ENDS_MAX];
	char *text = NULL;
	int status;

	value_ends(r, s->kind, index, ends);
	status = read_text(r, ends, &text);
	if (status)
		return status;
	status = spec_set(s, index, text, r->err);
	if (!status)
		return 0;
	hint_separator(r, s->kind, index);
	return fail_at(r, at, status);
}

/* A parameter is missing: nothing stands in its place. */
static int refuse_missing(struct reader *r, const struct spec *s, unsigned index, char separator)
{
	char buffer[FOUND_MAX], label[FIELD_LABEL_MAX], form[FIELD_FORM_MAX], before[16] = "";

	if (separator)
		snprintf(before, sizeof(before), "'%c' and ", separator);
	return refuse(r, r->next, "expected %s%s (%s), found %s", before,
		      field_label(&s->kind->fields[index], label), field_form(&s->kind->fields[index], form),
		      found(r, r->next, buffer));
}

static bool at_end_of_value(const struct reader *r, const struct spec *s, unsigned index)
{
	char ends[VALUE_ENDS_MAX];

	value_ends(r, s->kind, index, ends);
	return !*r->next || strchr(ends, *r->next);
}

static int read_parameter(struct reader *r, struct spec *s, unsigned index)
{
	if (!at_end_of_value(r, s, index))
		return read_value(r, s, index);
	return s->kind->fields[index].required ? refuse_missing(r, s, index, 0) : 0;
}

/* Reads all parameters; the first one is at r->next. */
static int read_parameters(struct reader *r, struct spec *s, unsigned first)
{
	for (unsigned i = first; s->kind->fields[i].name; i = kind_next_parameter(s->kind, i + 1)) {
		char separator = kind_separator(&s->kind->fields[i]);
		int status;

		if (i != first && *r->next != separator)
			return kind_rest_optional(s->kind, i) ? 0 : refuse_missing(r, s, i, separator);
		if (i != first)
			r->next++;
		status = read_parameter(r, s, i);
		if (status)
			return status;
	}
	return 0;
}

/* Names the options of the kind in the error. */
static void hint_options(struct reader *r, const struct disk_kind *kind)
{
	char label[FIELD_LABEL_MAX], list[512] = "";
	size_t used = 0;

	for (const struct spec_field *field = kind->fields; field->name; field++)
		if (field->role == SPEC_OPTION && used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "",
						 field_label(field, label));
	if (used)
		error_hint(r->err, "its options: %s", list);
	else
		error_hint(r->err, "it has no options");
}

static int refuse_option(struct reader *r, const struct disk_kind *kind, const char *name, size_t length)
{
	struct nearest near = nearest_to(name, length);
	char echo[SPEC_ECHO_MAX];
	int status;

	if (!length)
		return expected(r, "an option after ';'");
	for (const struct spec_field *field = kind->fields; field->name; field++)
		if (field->role == SPEC_OPTION)
			nearest_try(&near, field->name);
	for (unsigned i = 0; r->list && r->list->marks && r->list->marks[i].name; i++)
		nearest_try(&near, r->list->marks[i].name);
	status = refuse(r, name, "unknown option '%s' for %s", spec_echo(name, length, echo), kind->name);
	if (near.word)
		error_hint(r->err, "did you mean '%s'?", near.word);
	else
		hint_options(r, kind);
	return status;
}

/* The row of the option called so; that of the end when there is none. */
static unsigned find_option(const struct disk_kind *kind, const char *name, size_t length)
{
	unsigned i = 0;

	for (; kind->fields[i].name; i++) {
		const struct spec_field *field = &kind->fields[i];

		if (field->role == SPEC_OPTION && strlen(field->name) == length &&
		    !memcmp(field->name, name, length))
			break;
	}
	return i;
}

static int read_option_value(struct reader *r, struct spec *s, unsigned index)
{
	const struct spec_field *field = &s->kind->fields[index];
	char label[FIELD_LABEL_MAX];

	if (field->type == SPEC_FLAG) {
		if (*r->next == '=')
			return refuse(r, r->next, "option '%s' takes no value", field->name);
		spec_set_flag(s, index);
		return 0;
	}
	if (*r->next != '=' && field->bare) {
		spec_set_bare(s, index);
		return 0;
	}
	if (*r->next != '=')
		return refuse(r, r->next, "option '%s' needs a value: %s", field->name,
			      field_label(field, label));
	r->next++;
	if (at_end_of_value(r, s, index))
		return refuse_missing(r, s, index, 0);
	return read_value(r, s, index);
}

/* Reads name or name=value. */
static int read_option(struct reader *r, struct spec *s)
{
	char ends[VALUE_ENDS_MAX + 1];
	const char *name = r->next;
	unsigned index;
	size_t length;

	value_ends(r, s->kind, kind_nr_fields(s->kind), ends);
	strcat(ends, "=");
	length = strcspn(name, ends);
	index = find_option(s->kind, name, length);
	if (!s->kind->fields[index].name)
		return refuse_option(r, s->kind, name, length);
	if (s->values[index].given)
		return refuse(r, name, "option '%s' is given twice", s->kind->fields[index].name);
	r->next += length;
	return read_option_value(r, s, index);
}

/* The characters that end the name of a mark. */
static size_t mark_length(const char *name)
{
	return strcspn(name, ";,]\n\r");
}

/* True at the ';' before a mark of the list. */
static bool at_mark(const struct reader *r)
{
	return *r->next == ';' && kind_mark(r->list, r->next + 1, mark_length(r->next + 1)) >= 0;
}

/* Reads the marks behind a whole member. */
static int read_marks(struct reader *r, struct spec *member)
{
	while (at_mark(r)) {
		const char *name = ++r->next;
		size_t length = mark_length(name);
		unsigned bit = 1u << kind_mark(r->list, name, length);

		if (member->marks & bit)
			return refuse(r, name, "'%.*s' is given twice", (int)length, name);
		member->marks |= bit;
		r->next += length;
	}
	return 0;
}

static int read_options(struct reader *r, struct spec *s)
{
	while (*r->next == ';' && !at_mark(r)) {
		int status;

		r->next++;
		status = read_option(r, s);
		if (status)
			return status;
	}
	return 0;
}

/* ------------------------------------------------------------------ nodes */

static size_t column_of(const struct reader *r, const char *at)
{
	return r->place->own_columns ? (size_t)(at - r->text) + 1 : r->place->column;
}

static int new_node(struct reader *r, const char *at, const struct disk_kind *kind, unsigned depth,
		    struct spec **out)
{
	int status = spec_new(kind, depth, r->place->budget, out, r->err);

	if (status)
		return fail_at(r, at, status);
	(*out)->column = column_of(r, at);
	return 0;
}

static int finish_node(struct reader *r, struct spec *s)
{
	int status = spec_set_defaults(s, r->err);

	return status ? fail_at(r, r->next, status) : 0;
}

static int read_child(struct reader *r, struct spec *s, unsigned depth)
{
	CLEANUP_SPEC struct spec *child = NULL;
	const char *at = r->next;
	int status = read_spec(r, depth + 1, &child);

	if (!status && s->kind->children == KIND_JOINS)
		status = read_marks(r, child);
	if (status)
		return status;
	status = spec_add_child(s, child, r->err);
	if (status)
		return fail_at(r, at, status);
	child = NULL;
	return 0;
}

/* After a member and its marks. */
static int refuse_in_list(struct reader *r, const struct disk_kind *list)
{
	int status = expected(r, "',' or ']' in the list of disks");

	if (*r->next == ';' && list->marks)
		error_hint(r->err, "options stand before what marks the member, such as '%s'", list->marks[0].name);
	return status;
}

static int read_list(struct reader *r, struct spec *s, unsigned depth)
{
	const struct disk_kind *outer = r->list;
	int status;

	if (*r->next != '[')
		return expected(r, "'[' and a list of disks");
	r->lists++;
	r->list = s->kind;
	do {
		r->next++;
		status = read_child(r, s, depth);
		if (status)
			return status;
	} while (*r->next == ',');
	if (*r->next != ']')
		return refuse_in_list(r, s->kind);
	r->next++;
	r->lists--;
	r->list = outer;
	return 0;
}

static int read_children(struct reader *r, struct spec *s, unsigned depth)
{
	if (s->kind->children == KIND_LEAF)
		return 0;
	if (*r->next != ':')
		return expected(r, s->kind->children == KIND_WRAPS ? "':' and the disk below"
								     : "':' and a list of disks in [ ]");
	r->next++;
	return s->kind->children == KIND_WRAPS ? read_child(r, s, depth) : read_list(r, s, depth);
}

/* Reads what follows the word of the kind, which began at `at`. */
static int read_body(struct reader *r, struct spec *s, unsigned depth)
{
	unsigned first = kind_next_parameter(s->kind, 0);
	int status = 0;

	if (s->kind->fields[first].name || s->kind->children == KIND_LEAF) {
		r->next++;
		status = read_parameters(r, s, first);
	}
	if (!status)
		status = read_options(r, s);
	if (!status)
		status = read_children(r, s, depth);
	return status ? status : finish_node(r, s);
}

static int read_node(struct reader *r, const struct disk_kind *kind, const char *at, unsigned depth,
		     struct spec **out)
{
	CLEANUP_SPEC struct spec *s = NULL;
	int status = new_node(r, at, kind, depth, &s);

	if (!status)
		status = read_body(r, s, depth);
	if (status)
		return status;
	*out = s;
	s = NULL;
	return 0;
}

/* ------------------------------------------------------------------ paths */

/* The ending must be that of a name: ".vhd" alone is a hidden file. */
static bool ends_with(const char *path, const char *ending)
{
	size_t length = strlen(path), n = strlen(ending);

	return length > n && path[length - n - 1] != '/' && !strcasecmp(path + length - n, ending);
}

static const struct path_ending *find_ending(const char *path)
{
	const struct path_ending *e = disk_path_endings;

	while (e->ending && !ends_with(path, e->ending))
		e++;
	return e;
}

static int refuse_format(struct reader *r, const char *at, const struct path_ending *ending)
{
	int status = refuse(r, at, "this build cannot open %s images: it has no kind '%s'", ending->ending,
			    ending->kind);

	error_hint(r->err, "file:PATH opens the raw bytes of the image, not the disk in it");
	return status;
}

/* Makes the node that `path` (taken over) opens as, and reads its options. */
static int fill_path(struct reader *r, struct spec *s, const char *at, char *path, const char *option)
{
	int status = spec_set(s, kind_next_parameter(s->kind, 0), path, r->err);
	unsigned index;

	if (status)
		return fail_at(r, at, status);
	status = read_options(r, s);
	if (status)
		return status;
	if (option) {
		index = find_option(s->kind, option, strlen(option));
		assert(s->kind->fields[index].name);
		spec_set_flag(s, index);
	}
	return finish_node(r, s);
}

static int read_path(struct reader *r, unsigned depth, struct spec **out)
{
	CLEANUP_SPEC struct spec *s = NULL;
	CLEANUP_TEXT char *path = NULL;
	const struct path_ending *ending;
	const struct disk_kind *kind;
	const char *at = r->next;
	char *taken;
	int status;

	status = read_text(r, leaf_ends(r), &path);
	if (status)
		return status;
	ending = find_ending(path);
	kind = kind_find(ending->ending ? ending->kind : disk_path_kind);
	if (!kind)
		return refuse_format(r, at, ending);
	status = new_node(r, at, kind, depth, &s);
	if (status)
		return status;
	taken = path;
	path = NULL;
	status = fill_path(r, s, at, taken, ending->option);
	if (status)
		return status;
	*out = s;
	s = NULL;
	return 0;
}

/* ------------------------------------------------------------------ json: and @FILE */

/* What is read at `at` in some other way stands in the caller's text where `at` does. */
static struct spec_place place_at(const struct reader *r, const char *at, unsigned depth)
{
	struct spec_place place = *r->place;

	place.column = column_of(r, at);
	place.own_columns = false;
	place.list = NULL; /* marks stand behind it, in this text */
	place.depth = depth - 1;
	return place;
}

/* Nothing but the end of a member of a list may follow what is whole in itself. */
static int expect_end(struct reader *r)
{
	if (!*r->next || strchr(r->lists ? ",]" : "", *r->next) || at_mark(r))
		return 0;
	return expected(r, r->lists ? "',' or ']'" : "the end of the spec");
}

static int read_json(struct reader *r, unsigned depth, struct spec **out)
{
	const char *at = r->next, *begin = at + strlen("json:");
	struct spec_place place = place_at(r, at, depth);
	char echo[SPEC_ECHO_MAX];
	json_error_t why;
	json_t *json;
	int status;

	r->next = begin;
	if (*begin != '{')
		return expected(r, "a JSON object");
	json = json_loadb(begin, (size_t)(r->end - begin), JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &why);
	if (!json)
		return refuse(r, begin + (why.position > 0 ? why.position - 1 : 0), "JSON: %s",
			      spec_echo(why.text, strlen(why.text), echo));
	r->next += why.position;
	status = spec_parse_json(json, &place, out, r->err);
	json_decref(json);
	return status ? fail_at(r, at, status) : expect_end(r);
}

static int read_file(struct reader *r, unsigned depth, struct spec **out)
{
	const char *at = r->next++;
	struct spec_place place = place_at(r, at, depth);
	CLEANUP_TEXT char *name = NULL;
	int status;

	if (!*r->next || strchr(leaf_ends(r), *r->next))
		return expected(r, "the name of a file after '@'");
	status = read_text(r, leaf_ends(r), &name);
	if (status)
		return status;
	if (*r->next == ';' && !at_mark(r))
		return refuse(r, r->next, "options stand in the file, not after its name");
	status = spec_parse_file(name, &place, out, r->err);
	return status ? fail_at(r, at, status) : expect_end(r);
}

/* ------------------------------------------------------------------ a spec */

static int refuse_kind(struct reader *r, const char *at, const char *word)
{
	const char *nearest = kind_nearest(word);
	char echo[SPEC_ECHO_MAX];
	int status;

	if (*at == '[')
		return expected(r, "a disk: a list stands only after a kind that takes one");
	status = refuse(r, at, "unknown kind of disk '%s'", spec_echo(word, strlen(word), echo));
	if (nearest)
		error_hint(r->err, "did you mean '%s'? A path with a colon is written file:PATH or ./PATH", nearest);
	else
		error_hint(r->err, "a path with a colon is written file:PATH or ./PATH");
	return status;
}

static bool begins_path(const char *p)
{
	return *p == '"' || *p == '/' || !strncmp(p, "./", 2) || !strncmp(p, "../", 3);
}

/* No parameter, but options: they stand behind the word. */
static bool takes_options_first(const struct disk_kind *kind)
{
	return kind->fields[0].name && !kind->fields[kind_next_parameter(kind, 0)].name &&
	       kind->children != KIND_LEAF;
}

/* Reads what begins with a word of `length` characters: a node, or a path. */
static int read_word(struct reader *r, size_t length, unsigned depth, struct spec **out)
{
	const char *at = r->next;
	CLEANUP_TEXT char *word = strndup(at, length);
	const struct disk_kind *kind;

	if (!word)
		return no_memory(r);
	kind = kind_find(word);
	if (at[length] == ':' && !kind)
		return refuse_kind(r, at, word);
	if (at[length] != ':' && !(at[length] == ';' && kind && takes_options_first(kind)))
		return read_path(r, depth, out);
	r->next += length;
	return read_node(r, kind, at, depth, out);
}

static int read_spec(struct reader *r, unsigned depth, struct spec **out)
{
	char ends[VALUE_ENDS_MAX] = ":";
	size_t length;

	if (begins_path(r->next))
		return read_path(r, depth, out);
	if (*r->next == '@')
		return read_file(r, depth, out);
	if (!strncmp(r->next, "json:", 5))
		return read_json(r, depth, out);
	strcat(ends, leaf_ends(r));
	length = strcspn(r->next, ends);
	if (!length)
		return expected(r, "a disk (KIND:... or a path)");
	return read_word(r, length, depth, out);
}

/* Puts the text in front of the error; of a long one what stands around the error. */
static void quote_text(const struct reader *r, struct error *err)
{
	size_t at = r->failed ? (size_t)(r->failed - r->text) : 0, length = (size_t)(r->end - r->text);
	size_t from = length > 80 && at > 40 ? at - 40 : 0, upto = length - from > 80 ? from + 80 : length;
	char echo[SPEC_ECHO_MAX];

	while (from && from < at && utf8_continues(r->text[from]))
		from++;
	while (upto < length && upto > at && utf8_continues(r->text[upto]))
		upto--;
	error_prefix(err, "spec '%s%s%s'", from ? "..." : "", spec_echo(r->text + from, upto - from, echo),
		     upto < length ? "..." : "");
}

int spec_parse_text(const char *text, size_t length, const struct spec_place *place, struct spec **out,
		    struct error *err)
{
	struct reader r = {
		.text = text, .end = text + length, .next = text, .place = place, .list = place->list, .err = err,
	};
	CLEANUP_SPEC struct spec *s = NULL;
	int status;

	if (place->file)
		r.next += strspn(text, SPEC_BLANKS);
	status = read_spec(&r, place->depth + 1, &s);
	if (!status)
		status = read_marks(&r, s);
	if (!status && *r.next)
		status = expected(&r, "the end of the spec");
	if (status && !place->file)
		quote_text(&r, err);
	if (status)
		return status;
	*out = s;
	s = NULL;
	return 0;
}

int spec_parse_within(const char *text, struct spec_budget *budget, struct spec **out, struct error *err)
{
	struct spec_place place = {.budget = budget, .own_columns = true};
	size_t length = strnlen(text, budget->bytes + 1);

	*out = NULL;
	if (length > budget->bytes)
		return error_set(err, -EINVAL, "the spec is longer than %zu bytes", budget->bytes);
	budget->bytes -= length;
	return spec_parse_text(text, length, &place, out, err);
}

int spec_parse(const char *text, struct spec **out, struct error *err)
{
	struct spec_budget budget = {.bytes = SPEC_MAX_TEXT, .nodes = SPEC_MAX_NODES};

	return spec_parse_within(text, &budget, out, err);
}

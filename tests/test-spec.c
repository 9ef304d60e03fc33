/* SPDX-License-Identifier: BSD-3-Clause */
/* The spec language over a registry of toys: what parses, how it prints, what errors say, what it must withstand. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/spec-internal.h"
#include "tests/spec-oracle.h"
#include "tests/tap.h"

/* ------------------------------------------------------------------ help */

static void cleanup_lines(FILE **file)
{
	if (*file)
		fclose(*file);
}

static FILE *open_corpus(const char *name)
{
	const char *top = getenv("top_srcdir");
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/tests/spec-corpus/%s", top ? top : ".", name);
	file = fopen(path, "r");
	if (!file)
		tap_diag("cannot open %s: set top_srcdir", path);
	return file;
}

/* The next line that is no comment, cut into `n` fields at tabs. False at the end. */
static bool next_line(FILE *file, char **line, char **fields, unsigned n)
{
	size_t size = 0;
	char *rest;

	free(*line);
	*line = NULL;
	do {
		if (getline(line, &size, file) < 0)
			return false;
	} while (**line == '#' || **line == '\n');
	(*line)[strcspn(*line, "\n")] = '\0';
	rest = *line;
	for (unsigned i = 0; i < n; i++)
		fields[i] = strsep(&rest, "\t");
	return CHECK(fields[n - 1] && !rest);
}

/* Parses, expecting success. */
static struct spec *parsed(const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct spec *s = NULL;
	int status = spec_parse(text, &s, &err);

	if (!CHECK_EQ(status, 0))
		tap_diag("%.200s: %s", text, error_text(&err));
	return s;
}

/* Parses, expecting an error that holds `fragment`. The status without `err` must be the same. */
static void check_error(const char *text, int wanted, const char *fragment)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;
	int status = spec_parse(text, &s, &err);

	CHECK_EQ(status, wanted);
	CHECK_EQ(err.status, wanted);
	CHECK(!s);
	if (!CHECK(status && strstr(error_text(&err), fragment)))
		tap_diag("%.200s: '%s' is not in '%s'", text, fragment, status ? error_text(&err) : "no error");
	CHECK_EQ(spec_parse(text, &s, NULL), wanted);
}

static void check_no_fault(const struct spec *s, const char *text)
{
	const char *fault = s ? spec_fault(s) : "no tree";

	if (!CHECK(!fault))
		tap_diag("%.200s: %s", text, fault);
}

/* As check_error(), for a tree that must print as `canonical`. */
static void check_prints(const char *text, const char *canonical)
{
	CLEANUP_SPEC struct spec *s = parsed(text);
	CLEANUP_TEXT char *printed = s ? spec_print(s) : NULL;

	CHECK_STR(printed, canonical);
	check_no_fault(s, text);
}

/* `count` times `part` between `head` and `tail`. */
static char *repeated(const char *head, const char *part, size_t count, const char *tail)
{
	size_t n = strlen(part), at = strlen(head);
	char *text = malloc(at + n * count + strlen(tail) + 1);

	memcpy(text, head, at);
	for (; count; count--, at += n)
		memcpy(text + at, part, n);
	strcpy(text + at, tail);
	return text;
}

static uint32_t random_state = 1;

/* Numbers that look random and are the same in every run. */
static uint32_t pick(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state % below;
}

/* ------------------------------------------------------------------ corpora */

static void test_good_corpus(void)
{
	__attribute__((cleanup(cleanup_lines))) FILE *file = open_corpus("good.txt");
	CLEANUP_TEXT char *line = NULL;
	unsigned lines = 0;
	char *fields[2];

	REQUIRE(file);
	for (; next_line(file, &line, fields, 2); lines++)
		check_prints(fields[0], fields[1]);
	CHECK(lines > 100);
}

/* The first column in the error is the one in the whole text. */
static void check_evil(const char *text, const char *column, const char *fragment)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;
	char wanted[32];
	const char *at;

	if (!CHECK(spec_parse(text, &s, &err))) {
		tap_diag("%s: was parsed", text);
		return;
	}
	snprintf(wanted, sizeof(wanted), "column %s: ", column);
	at = strstr(error_text(&err), "': column ");
	if (!CHECK(at && (*column == '-' || !strncmp(at + 3, wanted, strlen(wanted)))) ||
	    !CHECK(strstr(error_text(&err), fragment)))
		tap_diag("%s: column %s, '%s' wanted: %s", text, column, fragment, error_text(&err));
}

static void test_evil_corpus(void)
{
	__attribute__((cleanup(cleanup_lines))) FILE *file = open_corpus("evil.txt");
	CLEANUP_TEXT char *line = NULL;
	unsigned lines = 0;
	char *fields[3];

	REQUIRE(file);
	for (; next_line(file, &line, fields, 3); lines++)
		check_evil(fields[0], fields[1], fields[2]);
	CHECK(lines > 100);
}

static void mutate(char *text)
{
	static const char interesting[] = ":;,[]\"\\@{}=/.x0Kk \n\x01\xff\xc3";
	size_t length = strlen(text);

	for (unsigned n = 1 + pick(3); n && length; n--) {
		size_t at = pick((uint32_t)length);

		if (pick(3) == 0)
			memmove(text + at, text + at + 1, length-- - at);
		else if (pick(2))
			text[at] = interesting[pick(sizeof(interesting) - 1)];
		else
			text[at] = text[pick((uint32_t)length)];
	}
}

static void check_any(const char *text)
{
	struct spec_budget budget = {.bytes = SPEC_MAX_TEXT, .nodes = SPEC_MAX_NODES, .no_files = true};
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;

	if (!spec_parse_within(text, &budget, &s, &err))
		check_no_fault(s, text);
	else if (!CHECK(utf8_valid(error_text(&err)) && !strpbrk(error_text(&err), "\n\r\x01")))
		tap_diag("error of %s", text);
}

/* Whatever becomes of the good specs, it is an error or a tree that prints as itself. */
static void test_mutated_corpus(void)
{
	CLEANUP_TEXT char *line = NULL;
	char *fields[2];

	for (unsigned round = 0; round < 50; round++) {
		__attribute__((cleanup(cleanup_lines))) FILE *file = open_corpus("good.txt");

		REQUIRE(file);
		while (next_line(file, &line, fields, 2)) {
			mutate(fields[0]);
			check_any(fields[0]);
		}
	}
}

/* ------------------------------------------------------------------ random trees */

static char *random_text(void)
{
	static const char alphabet[] = ":;,[]\"\\@=/ abz.019\n\r\t\x01\x7f\x80\xff\xc3\xa4";
	char *text = malloc(24);
	size_t length = 1 + pick(20);

	for (size_t i = 0; i < length; i++)
		text[i] = pick(8) ? alphabet[pick(sizeof(alphabet) - 1)] : (char)(1 + pick(255));
	text[length] = '\0';
	return text;
}

static char *random_number(const struct spec_field *field)
{
	uint64_t range = field->max ? field->max - field->min : UINT64_MAX - field->min;
	uint64_t n = (uint64_t)pick(UINT32_MAX) << 32 | pick(UINT32_MAX);
	char *text;

	n = (n >> pick(64)) << (pick(2) ? 10 * pick(6) : 0);
	n = field->min + (range == UINT64_MAX ? n : n % (range + 1));
	if (asprintf(&text, "%llu%s", (unsigned long long)n, field->type == SPEC_DURATION ? "ns" : "") < 0)
		return NULL;
	return text;
}

static char *random_value(const struct spec_field *field)
{
	unsigned words = 0;

	if (field->type == SPEC_TEXT)
		return random_text();
	if (field->type != SPEC_WORD)
		return random_number(field);
	while (field->words[words])
		words++;
	return strdup(field->words[pick(words)]);
}

static void fill_randomly(struct spec *s)
{
	for (unsigned i = 0; s->kind->fields[i].name; i++) {
		const struct spec_field *field = &s->kind->fields[i];

		if (!field->required && pick(2))
			continue;
		if (field->type == SPEC_FLAG)
			spec_set_flag(s, i);
		else if (field->bare && pick(2))
			spec_set_bare(s, i);
		else
			CHECK_EQ(spec_set(s, i, random_value(field), NULL), 0);
	}
	CHECK_EQ(spec_set_defaults(s, NULL), 0);
}

static struct spec *random_tree(unsigned depth)
{
	struct spec_budget budget = {.nodes = 1};
	const struct disk_kind *kind;
	unsigned kinds = 0, children;
	struct spec *s = NULL;

	while (disk_kinds[kinds])
		kinds++;
	do {
		kind = disk_kinds[pick(kinds)];
	} while (!depth && kind->children != KIND_LEAF);
	CHECK_EQ(spec_new(kind, 1, &budget, &s, NULL), 0);
	fill_randomly(s);
	children = kind->children == KIND_LEAF ? 0 : kind->children == KIND_WRAPS ? 1 : 1 + pick(4);
	while (children--) {
		struct spec *child = random_tree(depth - 1);
		child->marks = kind->marks ? pick(4) : 0;
		CHECK_EQ(spec_add_child(s, child, NULL), 0);
	}
	return s;
}

static void test_random_trees(void)
{
	for (unsigned i = 0; i < 5000 && !tap_errors; i++) {
		CLEANUP_SPEC struct spec *s = random_tree(pick(6));
		CLEANUP_TEXT char *text = spec_print(s);

		check_no_fault(s, text);
	}
}

/* Every byte that a name can hold survives, at each end of it and alone. */
static void test_every_byte(void)
{
	for (int c = 1; c < 256; c++) {
		char text[64];
		CLEANUP_SPEC struct spec *s = NULL;

		snprintf(text, sizeof(text), "crypt:xts-aes-256:\"\\x%02xa\\x%02x\":file:\"\\x%02x\"", c, c, c);
		s = parsed(text);
		REQUIRE(s);
		CHECK_EQ((unsigned char)spec_text(s, "keyfile")[2], c);
		CHECK_EQ((unsigned char)spec_text(s->children[0], "path")[0], c);
		check_no_fault(s, text);
	}
}

/* ------------------------------------------------------------------ what the tree says */

static void test_accessors(void)
{
	CLEANUP_SPEC struct spec *s = parsed("crypt:xts-aes-128:k;holes=zero:file:a;create=1M;direct");
	const struct spec *file;

	REQUIRE(s);
	file = s->children[0];
	CHECK_STR(s->kind->name, "crypt");
	CHECK_EQ(spec_number(s, "cipher"), 1);
	CHECK_STR(spec_text(s, "keyfile"), "k");
	CHECK_EQ(spec_number(s, "holes"), 0);
	CHECK(spec_given(s, "holes"));
	CHECK(!spec_given(s, "label"));
	CHECK(!spec_text(s, "label"));
	CHECK_EQ(spec_number(file, "create"), 1 << 20);
	CHECK_EQ(spec_number(file, "direct"), 1);
	CHECK_EQ(spec_number(file, "ro"), 0);
	CHECK_EQ(s->nr_children, 1);
	CHECK_EQ(file->nr_children, 0);
}

static void test_defaults(void)
{
	CLEANUP_SPEC struct spec *s = parsed("crypt:xts-aes-256:k:mem:1M"), *pair = parsed("pair:a");

	REQUIRE(s && pair);
	CHECK(!spec_given(s, "holes"));
	CHECK_EQ(spec_number(s, "holes"), 1);
	CHECK_EQ(spec_number(s->children[0], "block"), 512);
	CHECK(!spec_given(s->children[0], "block"));
	CHECK_STR(spec_text(pair, "third"), "default");
}

static void check_equal(const char *a, const char *b, bool wanted)
{
	CLEANUP_SPEC struct spec *left = parsed(a), *right = parsed(b);

	REQUIRE(left && right);
	if (!CHECK(spec_equal(left, right) == wanted && spec_equal(right, left) == wanted))
		tap_diag("%s and %s", a, b);
}

static void test_equality(void)
{
	check_equal("mem:1M", "mem:1024K;block=512", true);
	check_equal("mem:1M", "mem:1M;block=4K", false);
	check_equal("mem:1M", "null:1M", false);
	check_equal("a.iso", "file:a.iso;ro", true);
	check_equal("a", "b", false);
	check_equal("a", "a;ro", false);
	check_equal("autocache::a", "autocache:\"\":a", false);
	check_equal("pair:a", "pair:a:/default", true);
	check_equal("tuned:a", "tuned;depth=0:a", false);
	check_equal("layers:[a,b]", "layers:[b,a]", false);
	check_equal("layers:[a]", "layers:[a,a]", false);
	check_equal("layers:[a;read_cache]", "layers:[a]", false);
	check_equal("sql:a;create", "json:{\"kind\":\"sql\",\"path\":\"a\",\"create\":true}", true);
	check_equal("sql:a", "json:{\"kind\":\"sql\",\"path\":\"a\",\"create\":false}", true);
	check_equal("sql:a;create", "sql:a", false);
	check_equal("sql:a;create", "sql:a;create=1K", false);
	check_equal("layers:[a;write_through;read_cache]", "layers:[a;read_cache;write_through]", true);
	check_equal("layers:[memdiff:a;read_cache]", "json:{\"kind\":\"layers\",\"specs\":["
						     "{\"kind\":\"memdiff\",\"spec\":\"a\",\"read_cache\":true}]}", true);
	check_equal("layers:[a;read_cache]", "json:{\"kind\":\"layers\",\"specs\":[\"a;read_cache\"]}", true);
	check_equal("layers:[a]", "json:{\"kind\":\"layers\",\"specs\":[{\"kind\":\"file\",\"path\":\"a\","
				  "\"read_cache\":false}]}", true);
	check_equal("memdiff:a", "memdiff:json:{\"kind\":\"file\",\"path\":\"a\"}", true);
}

static void test_columns(void)
{
	CLEANUP_SPEC struct spec *s =
		parsed("memdiff:layers:[a;ro,json:{\"kind\":\"memdiff\",\"spec\":\"ro:b\"},\"c\"]");
	struct spec **member;

	REQUIRE(s);
	member = s->children[0]->children;
	CHECK_EQ(s->column, 1);
	CHECK_EQ(s->children[0]->column, 9);
	CHECK_EQ(member[0]->column, 17);
	CHECK_EQ(member[1]->column, 22);
	CHECK_EQ(member[1]->children[0]->column, 22);
	CHECK_EQ(member[1]->children[0]->children[0]->column, 22);
	CHECK_EQ(member[2]->column, 60);
}

/* ------------------------------------------------------------------ JSON */

static void test_to_json(void)
{
	CLEANUP_SPEC struct spec *s = parsed(
		"layers:[mem:1G,delay:1500us:file:\"\\xff\\x01\";ro,tuned;depth=18446744073709551615:pair::b]");
	CLEANUP_TEXT char *text = NULL;
	json_t *json;

	REQUIRE(s);
	json = spec_to_json(s);
	text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	CHECK_STR(text, "{\"kind\":\"layers\",\"specs\":[{\"kind\":\"mem\",\"size\":1073741824},"
			"{\"kind\":\"delay\",\"ms\":\"1500us\",\"spec\":{\"kind\":\"file\",\"path\":"
			"{\"bytes\":\"ff01\"},\"ro\":true}},{\"kind\":\"tuned\",\"depth\":"
			"\"18446744073709551615\",\"spec\":{\"kind\":\"pair\",\"second\":\"b\"}}]}");
}

static void check_json_error(json_t *json, const char *wanted)
{
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;

	CHECK_EQ(spec_from_json(json, &s, &err), -EINVAL);
	CHECK_STR(err.text, wanted);
	CHECK_EQ(spec_from_json(json, &s, NULL), -EINVAL);
	json_decref(json);
}

/* What no JSON text makes, but a caller can. */
static void test_from_json(void)
{
	json_t *bad = json_pack("{ss so}", "kind", "file", "path", json_stringn("a\0b", 3));

	check_json_error(bad, "$.path: expected a string, found a string with a NUL character");
	check_json_error(json_stringn("mem:1M\0x", 8),
			 "$: expected an object or a string that holds a spec, found a string with a NUL character");
	check_json_error(json_integer(1), "$: expected an object or a string that holds a spec, found 1");
	check_json_error(json_string("mem:0"),
			 "$: spec 'mem:0': column 5: SIZE must be at least 512 bytes, found '0'");
	check_json_error(json_pack("{ss ss}", "kind", "memdiff", "a\nb", "x"), "$: memdiff has no \"a\\x0ab\"");
}

/* ------------------------------------------------------------------ @FILE */

/* Makes a file in the private folder; its path stays good for a while. */
static const char *make_file(const char *name, const char *content, size_t length)
{
	const char *path = tmppath(name);
	FILE *file = fopen(path, "w");

	if (CHECK(file)) {
		CHECK_EQ(fwrite(content, 1, length, file), length);
		fclose(file);
	}
	return path;
}

/* The text "HEAD@PATH", good until the next call. */
static const char *at_file(const char *head, const char *content)
{
	static char text[1024];

	snprintf(text, sizeof(text), "%s@%s", head, make_file("spec", content, strlen(content)));
	return text;
}

static void test_file(void)
{
	check_prints(at_file("", "mem:1M"), "mem:1M");
	check_prints(at_file("", "mem:1M\n"), "mem:1M");
	check_prints(at_file("", " \n\tmem:1M\r\n \n"), "mem:1M");
	check_prints(at_file("memdiff:", "\"a b \"\n"), "memdiff:file:\"a b \"");
	check_prints(at_file("", "{\"kind\":\"mem\",\n \"size\":512}\n"), "mem:512");
	check_prints(at_file("", "\n  {\"kind\":\"memdiff\",\n \"spec\":\"a\"}\n"), "memdiff:file:a");
	check_prints(at_file("", "json:{\"kind\":\"memdiff\",\n \"spec\":\"a\"}\n"), "memdiff:file:a");
}

static void test_file_in_list(void)
{
	char text[1024];

	make_file("a b,c", "mem:1M\n", 7);
	snprintf(text, sizeof(text), "layers:[@\"%s\",@\"%s\"]", tmppath("a b,c"), tmppath("a b,c"));
	check_prints(text, "layers:[mem:1M,mem:1M]");
	snprintf(text, sizeof(text), "memdiff:@\"%s\"", tmppath("a b,c"));
	check_prints(text, "memdiff:mem:1M");
}

/* What comes from a file has no place in the caller's text but where the file is named. */
static void test_file_columns(void)
{
	CLEANUP_SPEC struct spec *s = parsed(at_file("ro:", "memdiff:mem:1M"));

	REQUIRE(s);
	CHECK_EQ(s->children[0]->column, 4);
	CHECK_EQ(s->children[0]->children[0]->column, 4);
}

static void test_file_errors(void)
{
	check_error(at_file("", ""), -EINVAL, "it is empty: expected a spec");
	check_error(at_file("", " \n\n"), -EINVAL, "it is empty: expected a spec");
	check_error(at_file("", "mem:abc\n"), -EINVAL, "spec': line 1, column 5: expected SIZE");
	check_error(at_file("", "\n\nmemdiff:mem:abc\n"), -EINVAL, "spec': line 3, column 13: expected SIZE");
	check_error(at_file("", "\n  mem:abc\n"), -EINVAL, "spec': line 2, column 7: expected SIZE");
	check_error(at_file("", "file:a\nb\n"), -EINVAL, "line 1, column 7: expected the end of the spec, found '\\x0ab'");
	check_error(at_file("", "file:a;direct\r\nb\n"), -EINVAL, "line 1, column 14: expected the end of the spec");
	check_error(at_file("", "mem:1M\n\nmem:2M\n"), -EINVAL, "line 1, column 7: expected the end");
	check_error(at_file("", "{\"kind\":\n\"mem\" x}"), -EINVAL, "line 2, column 7: JSON:");
	check_error(at_file("", "{\"kind\":\"mem\",\"size\":512} x"), -EINVAL, "JSON: end of file expected");
	check_error(at_file("", "{\"kind\":\n\"mem\"}"), -EINVAL, "spec': $: mem needs \"size\"");
	check_error(at_file("memdiff:", "mem:abc"), -EINVAL, "': column 9: file '");
}

static void test_file_of_bytes(void)
{
	char text[600];

	snprintf(text, sizeof(text), "@%s", make_file("nul", "mem:1M\0", 7));
	check_error(text, -EINVAL, "NUL");
	snprintf(text, sizeof(text), "@%s", make_file("bytes", "file:\xff\xfe\n", 8));
	check_prints(text, "file:\xff\xfe");
}

static void test_file_that_blocks(void)
{
	char text[600];

	REQUIRE(!mkfifo(tmppath("fifo"), 0600));
	snprintf(text, sizeof(text), "@%s", tmppath("fifo"));
	check_error(text, -EINVAL, "not a regular file");
	check_error("@/dev/zero", -EINVAL, "not a regular file");
}

/* One file makes the budget of all: many small ones count, too. */
static void test_file_too_large(void)
{
	CLEANUP_TEXT char *large = repeated("mem:1M", "\n", SPEC_MAX_TEXT, "");
	CLEANUP_TEXT char *half = repeated("mem:1M", "\n", SPEC_MAX_TEXT / 2, "");
	char text[2048];

	snprintf(text, sizeof(text), "@%s", make_file("large", large, strlen(large)));
	check_error(text, -EFBIG, "longer than 1048576 bytes");
	make_file("half", half, strlen(half));
	snprintf(text, sizeof(text), "layers:[@%s]", tmppath("half"));
	check_prints(text, "layers:[mem:1M]");
	snprintf(text, sizeof(text), "layers:[@%s,@%s]", tmppath("half"), tmppath("half"));
	check_error(text, -EFBIG, "longer than 1048576 bytes");
}

static void test_file_cycle(void)
{
	char text[600];

	snprintf(text, sizeof(text), "memdiff:@%s", tmppath("b"));
	make_file("a", text, strlen(text));
	snprintf(text, sizeof(text), "ro:@%s\n", tmppath("a"));
	make_file("b", text, strlen(text));
	snprintf(text, sizeof(text), "@%s", tmppath("a"));
	check_error(text, -ELOOP, "/a': line 1, column 9: file '");
	check_error(text, -ELOOP, "/b': line 1, column 4: file '");
	check_error(text, -ELOOP, "/a': it names itself, and so has no end");
}

/* A chain without a cycle, one longer than is allowed, through JSON and text in turns. */
static void test_file_chain(void)
{
	char text[600], name[16];

	make_file("f0", "mem:1M", 6);
	for (int i = 1; i <= SPEC_MAX_FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i - 1);
		snprintf(text, sizeof(text), i % 2 ? "@%s" : "{\"kind\":\"ro\",\"spec\":\"@%s\"}", tmppath(name));
		snprintf(name, sizeof(name), "f%d", i);
		make_file(name, text, strlen(text));
	}
	snprintf(text, sizeof(text), "@%s", tmppath("f15"));
	check_prints(text, "ro:ro:ro:ro:ro:ro:ro:mem:1M");
	snprintf(text, sizeof(text), "@%s", tmppath("f16"));
	check_error(text, -ELOOP, "more than 16 files that name each other");
}

static void test_file_refused(void)
{
	struct spec_budget budget = {.bytes = SPEC_MAX_TEXT, .nodes = SPEC_MAX_NODES, .no_files = true};
	CLEANUP_ERROR struct error err = {0};
	CLEANUP_SPEC struct spec *s = NULL;

	CHECK_EQ(spec_parse_within(at_file("", "mem:1M"), &budget, &s, &err), -EPERM);
	CHECK(strstr(error_text(&err), "not allowed here"));
}

/* No descriptor is left open, whatever happened. */
static void test_file_descriptors(void)
{
	int before = open("/dev/null", O_RDONLY | O_CLOEXEC), after;
	CLEANUP_SPEC struct spec *s = NULL;

	close(before);
	CHECK(spec_parse(at_file("", "mem:abc"), &s, NULL));
	CHECK(spec_parse("@/", &s, NULL));
	CHECK(spec_parse("@/dev/zero", &s, NULL));
	CHECK(!spec_parse(at_file("", "mem:1M"), &s, NULL));
	after = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK_EQ(before, after);
	close(after);
}

/* ------------------------------------------------------------------ limits */

static void check_repeated(const char *head, const char *part, size_t count, const char *tail, const char *fragment)
{
	CLEANUP_TEXT char *text = repeated(head, part, count, tail);

	if (fragment)
		check_error(text, -EINVAL, fragment);
	else
		spec_free(parsed(text));
}

static void test_depth(void)
{
	check_repeated("", "memdiff:", SPEC_MAX_DEPTH - 1, "mem:1M", NULL);
	check_repeated("", "memdiff:", SPEC_MAX_DEPTH, "mem:1M", "column 2049: more than 256 disks inside each other");
	check_repeated("", "memdiff:", 100000, "", "more than 256 disks inside each other");
	check_repeated("", "layers:[", 100000, "", "more than 256 disks inside each other");
	check_repeated("", "memdiff:", SPEC_MAX_DEPTH - 1, "json:{\"kind\":\"mem\",\"size\":512}", NULL);
	check_repeated("", "memdiff:", SPEC_MAX_DEPTH - 1, "json:{\"kind\":\"ro\",\"spec\":\"a\"}",
		       "$.spec: spec 'a': column 1: more than 256 disks");
	check_repeated("layers:", "[", 1000000, "", "column 1000008: expected ',' or ']' in the list");
}

static void test_depth_of_json(void)
{
	static const char ro[] = "{\"kind\":\"ro\",\"spec\":", mem[] = "{\"kind\":\"mem\",\"size\":512}";
	CLEANUP_TEXT char *string = repeated("\"a\"", "}", SPEC_MAX_DEPTH, "");
	CLEANUP_TEXT char *object = repeated(mem, "}", SPEC_MAX_DEPTH, "");

	check_repeated("json:", ro, SPEC_MAX_DEPTH, object, ".spec.spec: more than 256 disks inside each other");
	check_repeated("json:", ro, SPEC_MAX_DEPTH, string, "spec 'a': column 1: more than 256 disks");
	check_repeated("json:", ro, SPEC_MAX_DEPTH - 1, string, "expected the end");
	string[strlen(string) - 1] = object[strlen(object) - 1] = '\0';
	check_repeated("json:", ro, SPEC_MAX_DEPTH - 1, string, NULL);
	check_repeated("json:", ro, SPEC_MAX_DEPTH - 1, object, NULL);
	check_repeated("json:{\"a\":", "[", 100000, "", "JSON: maximum parsing depth reached");
}

static void test_children(void)
{
	check_repeated("layers:[a", ",a", SPEC_MAX_CHILDREN - 1, "]", NULL);
	check_repeated("layers:[a", ",a", SPEC_MAX_CHILDREN, "]", "more than 4096 disks in one list");
	check_repeated("json:{\"kind\":\"layers\",\"specs\":[\"a\"", ",\"a\"", SPEC_MAX_CHILDREN, "]}",
		       "$.specs[4096]: more than 4096 disks in one list");
}

static void test_nodes(void)
{
	CLEANUP_TEXT char *list = repeated("layers:[a", ",a", SPEC_MAX_CHILDREN - 1, "],");

	check_repeated("layers:[", list, 15, "a]", NULL);
	check_repeated("layers:[", list, 16, "a]", "more than 65536 disks in one spec");
}

static void test_length(void)
{
	check_repeated("file:", "a", SPEC_MAX_TEXT - 5, "", NULL);
	check_repeated("file:", "a", SPEC_MAX_TEXT - 4, "", "the spec is longer than 1048576 bytes");
}

/* What would take minutes if the time went with the square of the length. */
static void test_time(void)
{
	static const char *const parts[] = {
		"a;", "a,", "\"", "\"a\",", "a:", ";direct", "\\", "json:{", "{", "@", "a\n", "layers:[\"a\",",
		"json:{\"kind\":\"mem\",\"size\":512},",
	};

	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		for (unsigned j = 0; j < 3; j++) {
			static const char *const heads[] = {"", "layers:[", "file:\""};
			CLEANUP_TEXT char *text = repeated(heads[j], parts[i],
							   (SPEC_MAX_TEXT - 16) / strlen(parts[i]), "");

			check_any(text);
		}
	}
}

/* ------------------------------------------------------------------ errors */

/* Long text is shown around the fault, and as one line of UTF-8. */
static void test_echo(void)
{
	CLEANUP_TEXT char *text = repeated("", "memdiff:", 100, "meem:1M");

	check_error(text, -EINVAL,
		    "spec '...memdiff:memdiff:memdiff:memdiff:memdiff:meem:1M': column 801: unknown kind of disk 'meem'");
	check_error("mem:1G;\xc3\xa4", -EINVAL, "unknown option '\xc3\xa4' for mem");
	check_error("striped:1K:abcdefghijklmnopqrstuvwxyz0123456789", -EINVAL,
		    "found 'abcdefghijklmnopqrstuvwxyz0123...'");
	check_error("striped:1K:abcdefghijklmnopqrstuvwxyz012\xc3\xa4" "9", -EINVAL,
		    "found 'abcdefghijklmnopqrstuvwxyz012...'");
	check_error("meem:ab\ncd\x1b[m", -EINVAL, "spec 'meem:ab\\x0acd\\x1b[m': column 1");
	check_error("mem:\xff\xc3\xa4", -EINVAL, "found '\\xff\xc3\xa4'");
	free(text);
	text = repeated("mem:", "\xc3\xa4", 2000, "");
	check_error(text, -EINVAL, "\xc3\xa4...': column 5: ");
	free(text);
	text = repeated("mem:", "\n", 2000, "");
	check_error(text, -EINVAL, "\\x0a...");
}

int main(void)
{
	TAP_RUN(test_good_corpus);
	TAP_RUN(test_evil_corpus);
	TAP_RUN(test_mutated_corpus);
	TAP_RUN(test_random_trees);
	TAP_RUN(test_every_byte);
	TAP_RUN(test_accessors);
	TAP_RUN(test_defaults);
	TAP_RUN(test_equality);
	TAP_RUN(test_columns);
	TAP_RUN(test_to_json);
	TAP_RUN(test_from_json);
	TAP_RUN(test_file);
	TAP_RUN(test_file_in_list);
	TAP_RUN(test_file_columns);
	TAP_RUN(test_file_errors);
	TAP_RUN(test_file_of_bytes);
	TAP_RUN(test_file_that_blocks);
	TAP_RUN(test_file_too_large);
	TAP_RUN(test_file_cycle);
	TAP_RUN(test_file_chain);
	TAP_RUN(test_file_refused);
	TAP_RUN(test_file_descriptors);
	TAP_RUN(test_depth);
	TAP_RUN(test_depth_of_json);
	TAP_RUN(test_children);
	TAP_RUN(test_nodes);
	TAP_RUN(test_length);
	TAP_RUN(test_time);
	TAP_RUN(test_echo);
	return TAP_DONE();
}

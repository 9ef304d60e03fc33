/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spec language when memory runs out: every allocation fails once, alone and with all that follow.
 * Nothing crashes, leaks or is half there. The linker puts the functions below in place of the allocator's
 * (--wrap, in tests/Makefile.inc).
 */
#include <stdarg.h>

#include "core/kind.h"
#include "core/spec.h"
#include "tests/tap.h"

static long until_failure; /* allocations that succeed; negative: all */
static bool keeps_failing;
static bool failed;

static bool fails(void)
{
	if (until_failure < 0 || until_failure-- > 0)
		return false;
	failed = true;
	until_failure = keeps_failing ? 0 : -1;
	return true;
}

#define WRAP(type, name, parameters, arguments) \
	type __real_##name parameters; \
	type __wrap_##name parameters; \
	type __wrap_##name parameters \
	{ \
		return fails() ? NULL : __real_##name arguments; \
	}

WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *old, size_t n), (old, n))
WRAP(void *, reallocarray, (void *old, size_t n, size_t size), (old, n, size))
WRAP(char *, strdup, (const char *s), (s))
WRAP(char *, strndup, (const char *s, size_t n), (s, n))
WRAP(FILE *, open_memstream, (char **text, size_t *size), (text, size))
WRAP(FILE *, fmemopen, (void *buffer, size_t size, const char *mode), (buffer, size, mode))

int __real_vasprintf(char **out, const char *format, va_list args);
int __wrap_vasprintf(char **out, const char *format, va_list args);
int __wrap_vasprintf(char **out, const char *format, va_list args)
{
	return fails() ? -1 : __real_vasprintf(out, format, args);
}

/* Runs `step` with the first, second, ... allocation failing, until none is left that could. */
static void with_failures(void (*step)(const char *text), const char *text)
{
	long rounds = 0;

	for (int keeps = 0; keeps < 2; keeps++) {
		long n = 0;

		do {
			keeps_failing = keeps;
			failed = false;
			until_failure = n++;
			step(text);
			until_failure = -1;
		} while (failed && n < 100000);
		rounds += n;
	}
	CHECK(rounds > 2);
}

/* All or nothing; with enough memory all is well. */
static void parse_good(const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct spec *s = NULL;
	int status = spec_parse(text, &s, &err);

	CHECK(status ? !s && failed && err.status == status : s != NULL);
	CHECK(!status || error_text(&err));
	spec_free(s);
}

static void parse_evil(const char *text)
{
	CLEANUP_ERROR struct error err = {0};
	struct spec *s = NULL;
	int status = spec_parse(text, &s, &err);

	CHECK(status && !s && err.status == status);
	CHECK(*error_text(&err));
}

static void print(const char *text)
{
	long left = until_failure;
	struct spec *s = NULL;
	json_t *json;
	char *printed;

	until_failure = -1;
	if (!CHECK_EQ(spec_parse(text, &s, NULL), 0))
		return;
	until_failure = left;
	printed = spec_print(s);
	json = spec_to_json(s);
	CHECK(failed || (printed && json));
	free(printed);
	json_decref(json);
	spec_free(s);
}

static void tell_kinds(const char *kind)
{
	char *grammar = kind_grammar(kind_find(kind));
	json_t *json = kinds_to_json();

	CHECK(failed || (grammar && json));
	free(grammar);
	json_decref(json);
}

static const char large[] = "layers:[mem:1M;block=4K,a.iso;direct,crypt:xts-aes-256:\"k;\\n\";holes=zero:pair:a:b,"
			    "json:{\"kind\":\"memdiff\",\"spec\":\"ro:file:x\"},"
			    "json:{\"kind\":\"file\",\"path\":{\"bytes\":\"ff\"}},delay:5:group;label=x:[a,b,c,d]]";

static void test_parse(void)
{
	with_failures(parse_good, large);
}

static void test_parse_file(void)
{
	FILE *file = fopen(tmppath("spec"), "w");
	char text[600];

	REQUIRE(file);
	fputs("memdiff:mem:1M\n", file);
	fclose(file);
	snprintf(text, sizeof(text), "ro:@%s", tmppath("spec"));
	with_failures(parse_good, text);
}

static void test_parse_evil(void)
{
	static const char *const evil[] = {
		"meem:1G", "file:a;direkt", "mem:abc", "crypt:aes:k:a", "a.vhd", "layers:[a,b", "\"a", "@/no/such",
		"slice:0:a", "json:{\"kind\":\"memdiff\",\"spec\":{\"kind\":\"mem\",\"size\":\"x\"}}", "json:{\"kind\":}",
		"json:{\"kind\":\"mem\",\"sise\":1}", "json:{\"kind\":\"layers\",\"specs\":[\"mem:x\"]}",
	};

	for (unsigned i = 0; i < sizeof(evil) / sizeof(evil[0]); i++)
		with_failures(parse_evil, evil[i]);
}

static void test_print(void)
{
	with_failures(print, large);
}

static void test_kinds(void)
{
	with_failures(tell_kinds, "crypt");
}

int main(void)
{
	until_failure = -1;
	json_set_alloc_funcs(__wrap_malloc, free);
	TAP_RUN(test_parse);
	TAP_RUN(test_parse_file);
	TAP_RUN(test_parse_evil);
	TAP_RUN(test_print);
	TAP_RUN(test_kinds);
	return TAP_DONE();
}

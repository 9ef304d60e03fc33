/* SPDX-License-Identifier: BSD-3-Clause */
/* What is told from the tables of kinds, over a registry of toys: lookup, nearest words, grammar, JSON. */
#include "core/kind.h"
#include "core/nearest.h"
#include "tests/tap.h"

static const char *nearest_of(const char *wrong, const char *a, const char *b, const char *c)
{
	struct nearest near = nearest_to(wrong, strlen(wrong));

	nearest_try(&near, a);
	nearest_try(&near, b);
	nearest_try(&near, c);
	return near.word;
}

static void test_nearest(void)
{
	CHECK_STR(nearest_of("direkt", "create", "direct", "ro"), "direct");
	CHECK_STR(nearest_of("DIRECT", "create", "direct", "ro"), "direct");
	CHECK_STR(nearest_of("dirext", "direct", "dirent", "ro"), "direct"); /* the first of two */
	CHECK_STR(nearest_of("driect", "create", "direct", "ro"), "direct"); /* two swapped */
	CHECK_STR(nearest_of("or", "create", "direct", "ro"), "ro");
	CHECK_STR(nearest_of("crea", "create", "direct", "ro"), "create"); /* abbreviated */
	CHECK_STR(nearest_of("creates", "create", "direct", "ro"), "create");
	CHECK_STR(nearest_of("snapshot", "create", "direct", "ro"), NULL);
	CHECK_STR(nearest_of("", "a", "b", "ro"), NULL);
	CHECK_STR(nearest_of("xyz", "abc", "", "uvw"), NULL);
	CHECK_STR(nearest_of("abc", "abcdefghijklmnopqrstuvwxyzabcdefghijkl", "abx", ""), "abx");
	CHECK_STR(nearest_of("abcdefghijklmnopqrstuvwxyzabcdefghijkl", "abcdefghijklmnopqrstuvwxyzabcdefghijkm", "a", "b"),
		  NULL);
}

static void test_find(void)
{
	const struct disk_kind *file = kind_find("file");

	REQUIRE(file);
	CHECK_STR(file->name, "file");
	CHECK(!kind_find("fil"));
	CHECK(!kind_find("files"));
	CHECK(!kind_find("File"));
	CHECK(!kind_find(""));
	CHECK_STR(kind_nearest("fiel"), "file");
	CHECK_STR(kind_nearest("memdif"), "memdiff");
	CHECK_STR(kind_nearest("http"), NULL);
	CHECK_STR(kind_field(file, "create")->name, "create");
	CHECK(!kind_field(file, "crea"));
	CHECK(!kind_field(kind_find("memdiff"), "create"));
}

static void check_grammar(const char *kind, const char *wanted)
{
	char *grammar = kind_grammar(kind_find(kind));

	CHECK_STR(grammar, wanted);
	free(grammar);
}

static void test_grammar(void)
{
	check_grammar("mem", "mem:SIZE[;block=SIZE]");
	check_grammar("memdiff", "memdiff:SPEC");
	check_grammar("file", "file:PATH[;direct][;create=SIZE][;ro][;block=SIZE]");
	check_grammar("slice", "slice:OFFSET,LENGTH:SPEC");
	check_grammar("autocache", "autocache:[KEY]:SPEC");
	check_grammar("crypt", "crypt:CIPHER:KEYFILE[;holes=zero|raw][;label=TEXT]:SPEC");
	check_grammar("striped", "striped:CHUNK:[SPEC,...]");
	check_grammar("sql", "sql:PATH[;create[=SIZE]][;ro]");
	check_grammar("nbd", "nbd:URI[;connections=N]");
	check_grammar("layers", "layers:[SPEC[;read_cache][;write_through],...]");
	check_grammar("group", "group[;label=TEXT][;wide]:[SPEC,...]");
	check_grammar("empty", "empty:[;slow]");
	check_grammar("pair", "pair:[FIRST][:SECOND][/THIRD][;label=TEXT]");
	check_grammar("tail", "tail:FIRST[,SECOND][/THIRD][;label=TEXT]:SPEC");
}

/* The entry of the kind; a borrowed reference. */
static json_t *entry(json_t *all, const char *name)
{
	json_t *kind;
	size_t i;

	json_array_foreach(all, i, kind)
		if (!strcmp(json_string_value(json_object_get(kind, "name")), name))
			return kind;
	return NULL;
}

static void check_json(json_t *json, const char *wanted)
{
	char *text = json_dumps(json, JSON_COMPACT);

	CHECK_STR(text, wanted);
	free(text);
}

static void test_json(void)
{
	json_t *all = kinds_to_json();

	REQUIRE(all);
	CHECK_EQ(json_array_size(all), 20);
	check_json(entry(all, "memdiff"), "{\"name\":\"memdiff\",\"summary\":\"a toy\",\"grammar\":\"memdiff:SPEC\","
					  "\"children\":\"one\",\"fields\":[],\"marks\":[]}");
	check_json(entry(all, "striped"),
		   "{\"name\":\"striped\",\"summary\":\"a toy\",\"grammar\":\"striped:CHUNK:[SPEC,...]\",\"children\":\"list\","
		   "\"fields\":[{\"name\":\"chunk\",\"role\":\"parameter\",\"type\":\"size\",\"required\":true,\"bare\":false,\"unit\":null,"
		   "\"default\":null,\"min\":512,\"max\":1073741824,\"words\":null,\"help\":\"a toy\"}],\"marks\":[]}");
	check_json(json_object_get(entry(all, "layers"), "marks"), "[{\"name\":\"read_cache\",\"help\":\"a toy\"},"
								       "{\"name\":\"write_through\",\"help\":\"a toy\"}]");
	check_json(json_array_get(json_object_get(entry(all, "crypt"), "fields"), 2),
		   "{\"name\":\"holes\",\"role\":\"option\",\"type\":\"word\",\"required\":false,\"bare\":false,\"unit\":null,\"default\":\"raw\","
		   "\"min\":null,\"max\":null,\"words\":[\"zero\",\"raw\"],\"help\":\"a toy\"}");
	json_decref(all);
}

int main(void)
{
	TAP_RUN(test_nearest);
	TAP_RUN(test_find);
	TAP_RUN(test_grammar);
	TAP_RUN(test_json);
	return TAP_DONE();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* A registry of kinds that cannot be opened: every shape that the grammar knows. Linked in place of kinds.c. */
#include <stddef.h>

#include "core/kind.h"

#define PARAMETER(n, t) .name = (n), .role = SPEC_PARAMETER, .type = (t), .required = true, .help = "a toy"
#define OPTIONAL(n, t) .name = (n), .role = SPEC_PARAMETER, .type = (t), .help = "a toy"
#define OPTION(n, t) .name = (n), .role = SPEC_OPTION, .type = (t), .help = "a toy"
#define BLOCK OPTION("block", SPEC_SIZE), .unit = "bytes", .fallback = "512", .min = 512, .max = 65536
#define SIZE PARAMETER("size", SPEC_SIZE), .unit = "bytes", .min = 512, .max = INT64_MAX - 511

#define KIND(symbol, n, c, ...) \
	static const struct spec_field symbol##_fields[] = {__VA_ARGS__ __VA_OPT__(,) {0}}; \
	static const struct disk_kind symbol##_kind = { \
		.name = (n), .summary = "a toy", .children = (c), .fields = symbol##_fields}

static const char *const ciphers[] = {"xts-aes-256", "xts-aes-128", NULL};
static const char *const holes[] = {"zero", "raw", NULL};
static const char *const forms[] = {"flat", "vhd1", NULL};

/* Those of the program, or near to them. */
KIND(mem, "mem", KIND_LEAF, {SIZE}, {BLOCK});
KIND(memdiff, "memdiff", KIND_WRAPS);
KIND(file, "file", KIND_LEAF, {PARAMETER("path", SPEC_TEXT)}, {OPTION("direct", SPEC_FLAG)},
     {OPTION("create", SPEC_SIZE), .min = 1}, {OPTION("ro", SPEC_FLAG)}, {BLOCK});
KIND(null, "null", KIND_LEAF, {SIZE});
KIND(readonly, "ro", KIND_WRAPS);
KIND(slice, "slice", KIND_WRAPS, {PARAMETER("offset", SPEC_SIZE)},
     {PARAMETER("length", SPEC_SIZE), .separator = ',', .min = 1});

/* Those to come. */
KIND(sql, "sql", KIND_LEAF, {PARAMETER("path", SPEC_TEXT)}, {OPTION("create", SPEC_SIZE), .bare = true, .min = 512},
     {OPTION("ro", SPEC_FLAG)});
KIND(sqldiff, "sqldiff", KIND_WRAPS, {PARAMETER("path", SPEC_TEXT)}, {OPTION("create", SPEC_FLAG)});
KIND(autocache, "autocache", KIND_WRAPS, {OPTIONAL("key", SPEC_TEXT)});
KIND(crypt, "crypt", KIND_WRAPS, {PARAMETER("cipher", SPEC_WORD), .words = ciphers},
     {PARAMETER("keyfile", SPEC_TEXT)}, {OPTION("holes", SPEC_WORD), .words = holes, .fallback = "raw"},
     {OPTION("label", SPEC_TEXT)});
KIND(delay, "delay", KIND_WRAPS, {PARAMETER("ms", SPEC_DURATION), .unit = "ms"});
KIND(striped, "striped", KIND_JOINS, {PARAMETER("chunk", SPEC_SIZE), .min = 512, .max = 1 << 30});
KIND(blob, "blob", KIND_LEAF, {PARAMETER("form", SPEC_WORD), .words = forms}, {PARAMETER("url", SPEC_TEXT)});
KIND(nbd, "nbd", KIND_LEAF, {PARAMETER("uri", SPEC_TEXT)},
     {OPTION("connections", SPEC_NUMBER), .unit = "connections", .fallback = "4", .min = 1, .max = 16});

static const struct spec_mark layer_marks[] = {{"read_cache", "a toy"}, {"write_through", "a toy"}, {0}};
static const struct spec_field layers_fields[] = {{0}};
static const struct disk_kind layers_kind = {
	.name = "layers", .summary = "a toy", .children = KIND_JOINS, .fields = layers_fields, .marks = layer_marks};

/* The corners: no parameter, parameters that may be missing, other separators, numbers without a limit. */
KIND(empty, "empty", KIND_LEAF, {OPTION("slow", SPEC_FLAG)});
KIND(tuned, "tuned", KIND_WRAPS, {OPTION("depth", SPEC_NUMBER)}, {OPTION("label", SPEC_TEXT)});
KIND(group, "group", KIND_JOINS, {OPTION("label", SPEC_TEXT)}, {OPTION("wide", SPEC_FLAG)});
KIND(pair, "pair", KIND_LEAF, {OPTIONAL("first", SPEC_TEXT)}, {OPTIONAL("second", SPEC_TEXT)},
     {OPTIONAL("third", SPEC_TEXT), .fallback = "default", .separator = '/'}, {OPTION("label", SPEC_TEXT)});
KIND(tail, "tail", KIND_WRAPS, {PARAMETER("first", SPEC_TEXT)}, {OPTIONAL("second", SPEC_NUMBER), .separator = ','},
     {OPTIONAL("third", SPEC_TEXT), .separator = '/'}, {OPTION("label", SPEC_TEXT)});

const struct disk_kind *const disk_kinds[] = {
	&mem_kind,     &memdiff_kind,   &file_kind,  &null_kind,  &readonly_kind, &slice_kind, &sqldiff_kind, &sql_kind,
	&autocache_kind, &crypt_kind,   &delay_kind, &striped_kind, &blob_kind,   &nbd_kind,   &layers_kind,
	&empty_kind,   &tuned_kind,     &group_kind, &pair_kind,  &tail_kind,     NULL,
};

const struct path_ending disk_path_endings[] = {
	{".vhd", "vhd", NULL},
	{".vhdx", "vhdx", NULL},
	{".iso", "file", "ro"},
	{NULL, NULL, NULL},
};

const char disk_path_kind[] = "file";

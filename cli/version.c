/* SPDX-License-Identifier: BSD-3-Clause */
/* platter version */
#include "cli/verb.h"

#include <stdbool.h>
#include <stdio.h>

#include <liburing.h>

#include "cli/output.h"
#include "core/kind.h"

/* Whether the kernel lets this process have a ring; containers often forbid it. */
static bool io_uring_works(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(2, &ring, 0) != 0)
		return false;
	io_uring_queue_exit(&ring);
	return true;
}

static json_t *to_json(void)
{
	json_t *kinds = json_array();

	for (size_t i = 0; disk_kinds[i]; i++)
		json_array_append_new(kinds, json_string(disk_kinds[i]->name));
	return json_pack("{s:s, s:{s:b}, s:o}", "version", PACKAGE_VERSION, "features", "io_uring",
			 io_uring_works(), "kinds", kinds);
}

enum { OPTION_JSON };

static int version(const struct verb_arguments *arguments)
{
	if (arguments->options[OPTION_JSON])
		return print_json(to_json());

	printf("platter %s\nio_uring: %s\nkinds:", PACKAGE_VERSION,
	       io_uring_works() ? "works here" : "not available here (threads are used)");
	for (size_t i = 0; disk_kinds[i]; i++)
		printf(" %s", disk_kinds[i]->name);
	printf("\n");
	return STATUS_OK;
}

const struct verb verb_version = {
	.name = "version",
	.operands = "",
	.summary = "Print the version and what this build and machine can do",
	.options =
		(const struct verb_option[]){
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			{0},
		},
	.run = version,
};

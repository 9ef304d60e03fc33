/* SPDX-License-Identifier: BSD-3-Clause */
/* platter rebase CHILD PARENT */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/image.h"
#include "cli/merge.h"
#include "cli/output.h"
#include "core/kind.h"
#include "core/open.h"
#include "core/tree-text.h"
#include "formats/vhdx.h"

enum { OPTION_HEADER_ONLY, OPTION_JSON, OPTION_PROGRESS };

struct rebase {
	struct image image;
	struct spec *parent;
	const char *parent_path;
	bool raw;
	struct progress *progress;
	uint64_t bytes;
};

/* ------------------------------------------------------------------ what may be the parent */

static int find_parent(struct rebase *r, const char *text, struct error *err)
{
	const char *kind, *wanted = r->image.spec->kind->name;
	int status = spec_parse(text, &r->parent, err);

	if (status)
		return status;
	kind = r->parent->kind->name;
	r->raw = strcmp(kind, wanted) != 0;
	if (r->raw && (strcmp(kind, "file") || strcmp(wanted, "vhd"))) {
		error_set(err, -EINVAL, "the parent of a %s is a %s%s, and this is a disk of kind %s", wanted, wanted,
			  strcmp(wanted, "vhd") ? "" : " or a raw file", kind);
		return error_hint(err, "'platter convert %s %s:NEW' makes one of it", text, wanted);
	}
	r->parent_path = spec_text(r->parent, "path");
	return 0;
}

static bool is_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The child must not be among the new parent's own parents. */
static int check_cycle(const struct rebase *r, struct error *err)
{
	CLEANUP_CHAIN struct chain above = {0};
	struct image parent = {.spec = r->parent, .tools = r->image.tools, .path = r->parent_path};
	int status = 0;

	if (is_same_file(r->image.path, r->parent_path))
		return error_set(err, -ELOOP, "'%s' cannot be its own parent", r->parent_path);
	if (!r->raw)
		status = chain_find(&parent, &above, err);
	if (status)
		return status;
	for (size_t i = 0; i < above.count; i++)
		if (is_same_file(above.files[i].path, r->image.path))
			return error_set(err, -ELOOP, "'%s' is a parent of '%s' already", r->image.path, r->parent_path);
	return 0;
}

/* ------------------------------------------------------------------ what the child shows stays */

static int keep_in_child(struct rebase *r, struct disk *now, struct disk *next, struct error *err)
{
	struct container *file;
	struct layer *child;
	int status = image_open(&r->image, true, &file, err), closed;

	if (status)
		return status;
	status = r->image.tools->open_layer(file, r->image.spec, &child, err);
	if (status) {
		container_close(file, false, NULL);
		return status;
	}
	if (r->image.tools == &vhdx_image_tools)
		vhdx_keep_data_id(child);
	if (child->info.block_size != disk_info(next)->block_size) {
		error_set(err, -EINVAL, "'%s' has sectors of %" PRIu32 " bytes, '%s' of %" PRIu32, r->parent_path,
			  disk_info(next)->block_size, r->image.path, child->info.block_size);
		status = error_hint(err, "'platter convert PARENT vhdx:NEW;sector=%" PRIu32 "' makes one that fits",
				    child->info.block_size);
	}
	if (!status)
		status = merge_keep_content(child, now, next, r->progress, &r->bytes, err);
	closed = child->ops->close(child, status != 0, status ? NULL : err);
	return status ? status : closed;
}

/* What the child lies upon now. */
static int open_old_parent(const struct rebase *r, struct disk **out, struct error *err)
{
	CLEANUP_CHAIN struct chain chain = {0};
	int status = chain_find(&r->image, &chain, err);

	if (status)
		return error_hint(err, "--header-only does without the old parent");
	if (chain.count < 2) {
		error_set(err, -EINVAL, "'%s' has no parent that another one could take the place of", r->image.path);
		return error_hint(err, "'platter create %s:NEW;parent=PARENT' makes an image that has one", r->image.spec->kind->name);
	}
	return chain_open(&chain, 1, out, err);
}

static int keep_content(struct rebase *r, const struct verb_arguments *a, struct error *err)
{
	struct disk *now = NULL, *next = NULL;
	int status = open_old_parent(r, &now, err);

	if (!status && disk_open_spec(r->parent, OPEN_READ_ONLY, &next, err)) {
		disk_close(now, NULL);
		return error_in_role(err, "PARENT", a->operands[1]);
	}
	if (!status)
		status = keep_in_child(r, now, next, err);
	disk_close(next, NULL); /* nothing was written to these */
	disk_close(now, NULL);
	return status ? error_in_role(err, "CHILD", a->operands[0]) : 0;
}

/* ------------------------------------------------------------------ the verb */

static int find_child(struct rebase *r, const char *text, struct error *err)
{
	int status = image_find(text, "rebased", &r->image, err);

	if (!status && (spec_given(r->image.spec, "parent") || spec_given(r->image.spec, "ro")))
		return error_set(err, -EINVAL, "parent= and ro are not for the image that gets another parent");
	return status;
}

static int run_rebase(struct rebase *r, const struct verb_arguments *a, struct error *err)
{
	int status = find_child(r, a->operands[0], err);

	if (status)
		return error_in_role(err, "CHILD", a->operands[0]);
	status = find_parent(r, a->operands[1], err);
	if (!status)
		status = check_cycle(r, err);
	if (status)
		return error_in_role(err, "PARENT", a->operands[1]);
	if (!a->options[OPTION_HEADER_ONLY])
		status = keep_content(r, a, err);
	if (status)
		return status;
	status = r->image.tools->set_parent(r->image.path, r->image.spec, r->parent_path, r->raw, err);
	return status ? error_in_role(err, "CHILD", a->operands[0]) : 0;
}

static int print_rebase(const struct rebase *r, const struct verb_arguments *a)
{
	char text[BYTES_TEXT_MAX];

	if (a->options[OPTION_JSON])
		return print_json(json_pack("{s:s, s:s, s:b, s:I}", "file", r->image.path, "parent", r->parent_path, "header_only",
					    (int)(a->options[OPTION_HEADER_ONLY] != NULL), "copied_bytes", (json_int_t)r->bytes));
	printf("'%s' has the parent '%s'", r->image.path, r->parent_path);
	if (!a->options[OPTION_HEADER_ONLY])
		printf(", and %s that differ there", print_bytes(r->bytes, text));
	printf("\n");
	return STATUS_OK;
}

static int rebase(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct rebase r = {0};
	int status = progress_begin(&r.progress, "rebase", (enum progress_form)a->numbers[OPTION_PROGRESS], &err);

	if (!status)
		status = run_rebase(&r, a, &err);
	status = status ? verb_failed("rebase", &err) : print_rebase(&r, a);
	spec_free(r.parent);
	image_free(&r.image);
	progress_end(r.progress);
	return status;
}

const struct verb verb_rebase = {
	.name = "rebase",
	.operands = "CHILD PARENT",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "Give a differencing image another parent",
	.details = "CHILD is a vhd or a vhdx with a parent, and shows the same afterwards: where the parents differ, it gets what the\n"
		   "old one had. It can be interrupted at any moment, and done again.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_HEADER_ONLY] = {.name = "header-only",
						.help = "compare and copy nothing: the new parent is said to hold the same"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = rebase,
};

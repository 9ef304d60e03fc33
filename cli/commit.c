/* SPDX-License-Identifier: BSD-3-Clause */
/* platter commit CHILD */
#include "cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/image.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/open.h"

enum { OPTION_JSON, OPTION_PROGRESS };

struct commit {
	struct image image;
	struct chain chain;
	struct progress *progress;
};

/* The file by itself; what it stands on, where it is raw, is in *below. */
static int open_parent(const struct chain_file *f, struct layer **out, struct disk **below, struct error *err)
{
	struct container *c;
	int status;

	if (!f->tools) {
		status = disk_open_spec(f->spec, 0, below, err);
		*out = status ? NULL : disk_layer_create(*below);
		return status || *out ? status : error_set(err, -ENOMEM, "no memory");
	}
	status = container_open(f->path, 0, &c, err);
	if (status)
		return status;
	status = f->tools->open_layer(c, f->spec, out, err);
	if (status)
		container_close(c, false, NULL);
	return status;
}

static int close_layer(struct layer *l, int status, struct error *err)
{
	int now = l ? l->ops->close(l, status != 0, status ? NULL : err) : 0;

	return status ? status : now;
}

static int merge_down(struct layer *child, struct layer *parent, struct progress *progress, struct error *err)
{
	struct failure why = {0};
	int status = layer_merge_down(child, parent, progress_watch(progress), &(struct io){.failure = &why});

	return status ? error_set(err, status, "%s", why.text[0] ? why.text : strerror(-status)) : 0;
}

static int into_parent(struct commit *c, struct layer *child, struct error *err)
{
	CLEANUP_ERROR struct error closing = {0};
	struct layer *parent = NULL;
	struct disk *below = NULL;
	int status = open_parent(&c->chain.files[1], &parent, &below, err);

	if (!status)
		status = merge_down(child, parent, c->progress, err);
	status = close_layer(parent, status, err);
	if (disk_close(below, &closing) && !status)
		status = error_move(err, &closing);
	return status;
}

/* The child is held open for writing all the while, so that nobody else changes it. */
static int commit_by_layers(struct commit *c, struct error *err)
{
	const struct image_tools *tools = c->image.tools;
	struct container *file;
	struct layer *child;
	int status = image_open(&c->image, true, &file, err);

	if (status)
		return status;
	status = tools->allow_change ? tools->allow_change(file, c->image.spec, err) : 0;
	if (!status)
		status = tools->open_layer(file, c->image.spec, &child, err);
	if (status) {
		container_close(file, false, NULL);
		return status;
	}
	return close_layer(child, into_parent(c, child, err), err);
}

static int run_commit(struct commit *c, const char *spec, struct error *err)
{
	int status = image_find(spec, "committed", &c->image, err);

	if (!status && spec_given(c->image.spec, "parent"))
		return error_set(err, -EINVAL, "it goes into the parent that the file names: parent= is not for it ('platter rebase' names another one)");
	if (!status && spec_given(c->image.spec, "ro"))
		return error_set(err, -EROFS, "'%s' is to be opened read-only, says ro in its SPEC", c->image.path);
	if (!status)
		status = chain_find(&c->image, &c->chain, err);
	if (!status && c->chain.count < 2)
		return error_set(err, -EINVAL, "'%s' has no parent, so there is nothing to bring its content into", c->image.path);
	if (status)
		return status;
	if (c->image.tools->merge)
		return c->image.tools->merge(c->image.path, c->chain.files[1].path, progress_watch(c->progress), err);
	return commit_by_layers(c, err);
}

static int print_commit(const struct commit *c, bool json)
{
	const char *parent = c->chain.files[1].path;

	if (json)
		return print_json(json_pack("{s:s, s:s}", "file", c->image.path, "parent", parent));
	printf("'%s' has all that '%s' holds, which is not needed any more\n", parent, c->image.path);
	return STATUS_OK;
}

static int commit(const struct verb_arguments *a)
{
	CLEANUP_ERROR struct error err = {0};
	struct commit c = {0};
	int status = progress_begin(&c.progress, "commit", (enum progress_form)a->numbers[OPTION_PROGRESS], &err);

	if (!status)
		status = run_commit(&c, a->operands[0], &err);
	status = status ? operand_failed("commit", a->operands[0], &err) : print_commit(&c, a->options[OPTION_JSON] != NULL);
	chain_free(&c.chain);
	image_free(&c.image);
	progress_end(c.progress);
	return status;
}

const struct verb verb_commit = {
	.name = "commit",
	.operands = "CHILD",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Bring what a differencing image holds into its parent",
	.details = "CHILD is a vhd or a vhdx with a parent. It stays, and shows the same as before, as the parent does now. Other\n"
		   "children of the parent are of no use afterwards. It can be interrupted at any moment, and done again.\n",
	.options =
		(const struct verb_option[]){
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = commit,
};

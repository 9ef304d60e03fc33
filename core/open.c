/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/open.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/node.h"

static int open_node(const struct spec *spec, unsigned flags, struct disk **out, struct error *err);

/* The children of one node being opened by several threads: each takes the next index until none is left. */
struct opening {
	const struct spec *spec;
	unsigned flags; /* of the parent */
	struct disk **disks;
	struct error *errors;
	_Atomic unsigned next;
	_Atomic bool failed;
};

#define MAX_THREADS 8u

static void open_child(struct opening *o, unsigned index)
{
	const struct spec *spec = o->spec;
	unsigned flags = o->flags;

	if (spec->kind->child_flags)
		flags = spec->kind->child_flags(spec, index, flags);
	if (open_node(spec->children[index], flags, &o->disks[index], &o->errors[index]))
		atomic_store(&o->failed, true);
}

static void *open_next_children(void *argument)
{
	struct opening *o = argument;
	unsigned index;

	while (!atomic_load(&o->failed) &&
	       (index = atomic_fetch_add(&o->next, 1)) < o->spec->nr_children)
		open_child(o, index);
	return NULL;
}

/* The calling thread helps; a thread that cannot be had is done without. */
static void open_at_once(struct opening *o)
{
	pthread_t threads[MAX_THREADS - 1];
	unsigned wanted = o->spec->nr_children - 1, started = 0;

	if (wanted > MAX_THREADS - 1)
		wanted = MAX_THREADS - 1;
	while (started < wanted &&
	       !pthread_create(&threads[started], NULL, open_next_children, o))
		started++;
	open_next_children(o);
	while (started)
		pthread_join(threads[--started], NULL);
}

/* Hands on the first failure in order, naming the member where there are several. */
static int first_error(struct opening *o, struct error *err)
{
	for (unsigned i = 0; i < o->spec->nr_children; i++) {
		if (!o->errors[i].status)
			continue;
		error_move(err, &o->errors[i]);
		if (o->spec->kind->children == KIND_JOINS)
			error_prefix(err, "member %u", i + 1);
		return err->status;
	}
	return 0;
}

static void abandon_all(struct disk **disks, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		disk_abandon(disks[i]);
}

static int open_children(const struct spec *spec, unsigned flags, struct disk **disks,
			 struct error *err)
{
	struct opening o = {.spec = spec, .flags = flags, .disks = disks};
	int status;

	if (!spec->nr_children)
		return 0;
	o.errors = calloc(spec->nr_children, sizeof(*o.errors));
	if (!o.errors)
		return error_set(err, -ENOMEM, "no memory");
	open_at_once(&o);
	status = first_error(&o, err);
	for (unsigned i = 0; i < spec->nr_children; i++)
		error_clear(&o.errors[i]);
	free(o.errors);
	if (status)
		abandon_all(disks, spec->nr_children);
	return status;
}

static int open_over(const struct spec *spec, unsigned flags, struct disk **children,
		     struct disk **out, struct error *err)
{
	struct open_request request = {.spec = spec, .flags = flags, .children = children};
	int status;

	if (spec->kind->opens_children) {
		request.children = NULL;
		return spec->kind->open(&request, out, err);
	}
	status = open_children(spec, flags, children, err);
	if (status)
		return status;
	status = spec->kind->open(&request, out, err);
	if (status)
		abandon_all(children, spec->nr_children);
	return status;
}

static int open_node(const struct spec *spec, unsigned flags, struct disk **out, struct error *err)
{
	struct disk **children = calloc(spec->nr_children ? spec->nr_children : 1, sizeof(*children));
	int status;

	if (!children)
		return error_set(err, -ENOMEM, "no memory");
	status = open_over(spec, flags, children, out, err);
	free(children);
	if (status && !err->status)
		error_set_errno(err, status, "cannot be opened");
	if (status)
		error_prefix(err, "%s", spec->kind->name);
	return status;
}

int disk_open_child(const struct open_request *request, unsigned index, unsigned flags,
		    struct disk **out, struct error *err)
{
	return open_node(request->spec->children[index], flags, out, err);
}

int disk_open_spec(const struct spec *spec, unsigned flags, struct disk **out, struct error *err)
{
	CLEANUP_ERROR struct error local = {0};
	int status = open_node(spec, flags, out, &local);

	if (status)
		return error_move(err, &local);
	disk_measure_latency(*out, true);
	return 0;
}

int disk_open(const char *text, unsigned flags, struct disk **out, struct error *err)
{
	CLEANUP_SPEC struct spec *spec = NULL;
	int status = spec_parse(text, &spec, err);

	return status ? status : disk_open_spec(spec, flags, out, err);
}

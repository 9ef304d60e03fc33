/* SPDX-License-Identifier: BSD-3-Clause */
/* Finding the parent that a differencing image names. What it names it by is a stranger's text. */
#ifndef PLATTER_FORMATS_PARENT_H
#define PLATTER_FORMATS_PARENT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "core/spec.h"
#include "formats/container.h"

/* What the user allows. Zero-initialised it is the default. */
struct parent_policy {
	const char *parents; /* where else parents may lie: NULL: below the image's own folder alone; "any"; else a folder */
	const char *parent;  /* a spec in place of what the image names; for who opens, not for parent_find() */
	bool ignore_change;  /* a parent that was changed after the child was made is taken all the same */
};

/* The rows of a kind's options that say so. */
#define PARENT_FIELDS                                                                                                  \
	{.name = "parents",                                                                                            \
	 .role = SPEC_OPTION,                                                                                          \
	 .type = SPEC_TEXT,                                                                                            \
	 .help = "where else than below the image's own folder parents may lie: a folder, or any"},                    \
	{.name = "parent",                                                                                             \
	 .role = SPEC_OPTION,                                                                                          \
	 .type = SPEC_TEXT,                                                                                            \
	 .help = "spec of the parent, in place of the file that the image names; with create= the one that the new image names"},    \
	{.name = "ignore-change",                                                                                      \
	 .role = SPEC_OPTION,                                                                                          \
	 .type = SPEC_FLAG,                                                                                            \
	 .help = "take a parent that was changed after the image was made"}

/* What a spec with these rows says. */
struct parent_policy parent_policy_of(const struct spec *spec);

enum parent_form {
	PARENT_RELATIVE, /* to the child's folder; with either slash */
	PARENT_WINDOWS,  /* C:\folder\name, \\server\share\name */
	PARENT_VOLUME,   /* \\?\Volume{GUID}\folder\name */
	PARENT_POSIX,    /* /folder/name, or a URL of a file */
};

/* One name of the parent, as the image gives it. */
struct parent_name {
	enum parent_form form;
	char *text;          /* UTF-8; NULL: it cannot be read */
	const char *problem; /* then why */
};

/* In the order in which they are to be tried. Zero-initialised it is empty. */
struct parent_names {
	struct parent_name *list;
	size_t count;
};

/*
 * Appends a name that is UTF-16 (formats/utf16.h); NULs at its end are no part of it. One that is malformed is kept as a place
 * that cannot be looked at. -ENOMEM.
 */
int parent_names_add_utf16(struct parent_names *n, enum parent_form form, const void *text, size_t bytes, int order);

/* Appends a name of `bytes` bytes that is UTF-8. -ENOMEM. */
int parent_names_add(struct parent_names *n, enum parent_form form, const char *text, size_t bytes);

/* What form a name has of which only the text is known. */
enum parent_form parent_form_of(const char *text);

void parent_names_free(struct parent_names *n);

#define PARENT_MAX_DEPTH 1024u

/* The chain up to now: the image whose parent is looked for, and upwards the children over it. On the stack or wherever. */
struct parent_chain {
	const struct container *container;
	const struct parent_chain *child; /* NULL: it is the one that the user opened */
};

/*
 * Takes an open file as the parent: opens its format, compares its identity with what the child expects. 0: the container is the
 * acceptor's. Otherwise it is closed, `err` has said why, and the next place is tried.
 */
typedef int parent_accept(void *context, struct container *c, struct error *err);

/*
 * Opens the parent of the image chain->container, read-only and shared, and hands it to `accept`. Places are tried in the
 * order of the names, and for each name:
 *
 *   the path itself, where it lies in a folder that is allowed (with parents=any: wherever)
 *   of a path that is not relative, its last component in the child's folder
 *   with parents=DIR: each of its endings below DIR, the longest first
 *
 * A component that does not exist is looked for without regard to the case of ASCII letters. The folder that is allowed is that of the
 * image that the user opened, and everything below it; links are followed as long as they do not lead out (openat2(2),
 * RESOLVE_BENEATH). An image that is in the chain already is no parent.
 *
 * Fails with every place that was tried and the reason for each in `err`: -ELOOP when the only thing found was in the chain, or the
 * chain is longer than PARENT_MAX_DEPTH; what the first place that exists failed with; -EPERM when it lies outside; -ENOENT.
 */
int parent_find(const struct parent_names *names, const struct parent_policy *policy, const struct parent_chain *chain,
		parent_accept *accept, void *context, struct error *err);

#endif

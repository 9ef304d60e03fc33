/* SPDX-License-Identifier: BSD-3-Clause */
/* A file through which the settings of an open disk are changed. */
#ifndef PLATTER_DECORATORS_CONTROL_H
#define PLATTER_DECORATORS_CONTROL_H

#include <jansson.h>

#include "core/kind.h"

/*
 * The file holds one line: what stands in a spec between "KIND:" and the disk below, such as "5ms;p99=40ms", and a newline. It
 * is read when the disk is opened, where it is there already, and whenever somebody has written and closed it, or moved
 * another file over it. The line replaces all settings, or none: what is refused, empty or without its newline changes nothing.
 * What came of it stands in a file beside it, with ".reply" behind the name.
 */
struct control;

/*
 * Takes over settings from the parsed line, or refuses them with `err` set; is called by control_open(), and later by a thread
 * of the control's own, one call at a time.
 */
typedef int control_apply(void *owner, const struct spec *settings, struct error *err);

/*
 * Makes a control by the file `path` for a disk of `kind` (of KIND_WRAPS), and applies what the file says, if it is there.
 * Nothing runs yet: the process may still fork. On failure *out is NULL.
 */
int control_open(struct control **out, const char *path, const struct disk_kind *kind, control_apply *apply, void *owner,
		 struct error *err);

/* Begins to watch the file: at the first request. One caller, once. Should that fail, describe says so. */
void control_start(struct control *c);

/* Adds "control": the file, how many changes it made, what was wrong with the last. Accepts NULL. */
void control_describe(struct control *c, json_t *object);

/* Ends the thread; apply() is not called any more. Accepts NULL. */
void control_close(struct control *c);

#endif

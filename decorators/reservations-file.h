/* SPDX-License-Identifier: BSD-3-Clause */
/* Where persistent reservations outlive a power cut: a small file. */
#ifndef PLATTER_DECORATORS_RESERVATIONS_FILE_H
#define PLATTER_DECORATORS_RESERVATIONS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "decorators/reservations.h"

struct reservations_file {
	char *path;  /* as in messages; NULL: there is no file */
	char *name;  /* in the folder */
	char *fresh; /* the name of the next one while it is written */
	int folder;
	int fd;      /* the file, locked; -1: open for reading only */
	bool created;
	uint8_t *saved; /* what the file holds; NULL: not known */
	size_t saved_size;
};

#define RESERVATIONS_FILE_NONE {.folder = -1, .fd = -1}

/*
 * Reads the file, or makes it where there is none, and locks it against other disks; if `read_only`, it is only read, and may be
 * missing. `out` is empty before. -EBUSY with who may hold it in `err`; -EBADMSG when it is damaged or no such file.
 */
int reservations_file_open(struct reservations_file *f, const char *path, bool read_only, struct reservations *out,
			   struct error *err);

/*
 * Makes the file hold what of `r` is to persist; durable when it returns 0. On failure the file is as it was; only if its
 * folder could not be made durable it may hold the one or the other. Not two at a time.
 */
int reservations_file_save(struct reservations_file *f, const struct reservations *r, const struct io *io);

/* Closes it, and removes it if it was made for nothing. Accepts one that is not open. */
void reservations_file_close(struct reservations_file *f, bool abandoned);

/* The bytes of the file, to be freed: `r` if it is to persist, else that nobody is registered. 0 or -ENOMEM. */
int reservations_encode(const struct reservations *r, uint8_t **bytes, size_t *size);

/* Understands them. `out` is empty before, and afterwards if that failed. */
int reservations_decode(const uint8_t *bytes, size_t size, struct reservations *out, struct error *err);

#endif

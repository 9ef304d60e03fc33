/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys and passphrases: where they come from, and memory that forgets them. */
#ifndef PLATTER_DECORATORS_KEY_FILE_H
#define PLATTER_DECORATORS_KEY_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/kind.h"

/*
 * Bytes in pages of their own, which are locked in memory where the process may do that, left out of core dumps, and wiped
 * before they are given back. Zero-initialised it holds nothing.
 */
struct secret {
	unsigned char *bytes;
	size_t size;
	size_t room;   /* bytes that are mapped */
	bool unlocked; /* the system did not lock it: it may go to swap space */
};

#define CLEANUP_SECRET __attribute__((cleanup(secret_drop)))

/* An empty secret with room for `room` bytes. -ENOMEM. */
int secret_make(struct secret *s, size_t room);

/* Wipes it. Accepts one that holds nothing. */
void secret_drop(struct secret *s);

/* Moves `from` to `to`, which holds nothing; `from` holds nothing afterwards. */
void secret_move(struct secret *to, struct secret *from);

/* The largest passphrase, which is what cryptsetup(8) takes as well. */
#define KEY_MOST_BYTES ((size_t)8 << 20)

/* Rows of the grammar for kinds that need a key: where it is, and what that text means. */
#define KEY_FIELD(text) \
	{.name = "key", .role = SPEC_PARAMETER, .type = SPEC_TEXT, .required = true, .help = text}
#define KEY_FROM_FIELD                                                                                              \
	{.name = "from",                                                                                            \
	 .role = SPEC_OPTION,                                                                                       \
	 .type = SPEC_WORD,                                                                                         \
	 .fallback = "file",                                                                                        \
	 .words = key_sources,                                                                                      \
	 .help = "what names the key: a file, the number of an open descriptor, or a key of the kernel's keyring"}

extern const char *const key_sources[];

/*
 * Reads what the fields of `spec` name, as it is, at most `most` bytes (-EFBIG). What is readable by others than its
 * owner, or cannot be locked in memory, is told on stderr.
 */
int key_read(const struct spec *spec, size_t most, struct secret *out, struct error *err);

/*
 * Reads a key of exactly `size` bytes, which stands there as it is or in hexadecimal digits, with white space at their end.
 */
int key_read_exact(const struct spec *spec, size_t size, struct secret *out, struct error *err);

#endif

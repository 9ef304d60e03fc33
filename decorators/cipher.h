/* SPDX-License-Identifier: BSD-3-Clause */
/* A cipher of OpenSSL's with a key and a tweak for each piece of data, called where its provider has it. */
#ifndef PLATTER_DECORATORS_CIPHER_H
#define PLATTER_DECORATORS_CIPHER_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/core_dispatch.h>
#include <openssl/evp.h>

#include "core/error.h"

#define CIPHER_TWEAK 16u /* bytes */

enum cipher_direction { CIPHER_DECRYPT, CIPHER_ENCRYPT };

/* Zero-initialised it is none. Fields are cipher.c's. */
struct cipher {
	EVP_CIPHER *fetched; /* keeps the provider */
	void *provider; /* what new_context() takes */
	OSSL_FUNC_cipher_newctx_fn *new_context;
	OSSL_FUNC_cipher_freectx_fn *free_context;
	OSSL_FUNC_cipher_encrypt_init_fn *init[2]; /* by direction: the type of both is the same */
	OSSL_FUNC_cipher_update_fn *update;
};

/* Finds the cipher that OpenSSL knows by `name`. -EOPNOTSUPP where there is none. */
int cipher_find(struct cipher *c, const char *name, struct error *err);

/* From now on by the EVP functions, as where the provider's cannot be called; for tests. No context of it is there. */
void cipher_use_library(struct cipher *c);

/* Gives up what cipher_find() took; no context of it is left. */
void cipher_drop(struct cipher *c);

/* An expanded key for one direction, for one thread at a time. NULL when memory ran out or the key is not taken. */
void *cipher_new_context(const struct cipher *c, enum cipher_direction direction, const unsigned char *key, size_t key_size);

/* Wipes it. Accepts NULL. */
void cipher_free_context(const struct cipher *c, void *context);

/*
 * Encrypts or decrypts, by the direction of the context, `size` bytes from `from` to `to`, which may be the same. False when
 * the library fails.
 */
static inline bool cipher_run(const struct cipher *c, void *context, enum cipher_direction direction,
			      const unsigned char tweak[CIPHER_TWEAK], const unsigned char *from, unsigned char *to, size_t size)
{
	size_t done = 0;

	return c->init[direction](context, NULL, 0, tweak, CIPHER_TWEAK, NULL) == 1 &&
	       c->update(context, to, &done, size, from, size) == 1 && done == size;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each unit of a disk has its tweak, and to set one by EVP_CipherInit_ex2() costs 60 ns in OpenSSL 3.0, a tenth of what
 * encrypting 4 KiB takes: it asks the provider for the length of the tweak, in a list of parameters that have names. The
 * provider itself just copies the 16 bytes. So it is called directly, by the table of functions that provider-cipher(7)
 * describes and OSSL_PROVIDER_query_operation(3) gives out. libcrypto calls providers of other versions by the same table (one for
 * FIPS is kept while the rest is updated), so it does not change.
 *
 * A provider may have a cipher more than once, with different properties, and does not say which of them was fetched. So what
 * was found is compared with the library's own way before it is used; where it is not there, or does something else, the
 * library's own way is taken, behind functions of the same types.
 */
#include "decorators/cipher.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/provider.h>

#define NAME_MAX_LENGTH 64u
#define PROBE_BYTES 48u

/* Is it the cipher that was fetched? Names are separated by colons, and every one of them will do. */
static bool is_it(const EVP_CIPHER *fetched, const OSSL_ALGORITHM *a)
{
	char name[NAME_MAX_LENGTH];

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(a->algorithm_names, ":"), a->algorithm_names);
	return EVP_CIPHER_is_a(fetched, name);
}

/* Which function it is the number tells: OSSL_FUNC_cipher_*() are accessors of core_dispatch.h. */
static void take_functions(struct cipher *c, const OSSL_DISPATCH *d)
{
	for (; d->function_id; d++)
		switch (d->function_id) {
		case OSSL_FUNC_CIPHER_NEWCTX:
			c->new_context = OSSL_FUNC_cipher_newctx(d);
			break;
		case OSSL_FUNC_CIPHER_FREECTX:
			c->free_context = OSSL_FUNC_cipher_freectx(d);
			break;
		case OSSL_FUNC_CIPHER_ENCRYPT_INIT:
			c->init[CIPHER_ENCRYPT] = OSSL_FUNC_cipher_encrypt_init(d);
			break;
		case OSSL_FUNC_CIPHER_DECRYPT_INIT:
			c->init[CIPHER_DECRYPT] = OSSL_FUNC_cipher_decrypt_init(d);
			break;
		case OSSL_FUNC_CIPHER_UPDATE:
			c->update = OSSL_FUNC_cipher_update(d);
			break;
		default:
			break;
		}
}

/* True when all of them are there. */
static bool find_functions(struct cipher *c)
{
	const OSSL_PROVIDER *provider = EVP_CIPHER_get0_provider(c->fetched);
	int no_cache;
	const OSSL_ALGORITHM *all = OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &no_cache), *a = all;

	c->provider = OSSL_PROVIDER_get0_provider_ctx(provider);
	while (a && a->algorithm_names && !is_it(c->fetched, a))
		a++;
	if (a && a->algorithm_names)
		take_functions(c, a->implementation);
	OSSL_PROVIDER_unquery_operation(provider, OSSL_OP_CIPHER, all);
	return c->new_context && c->free_context && c->init[CIPHER_ENCRYPT] && c->init[CIPHER_DECRYPT] && c->update;
}

/* ------------------------------------------------------------------ the library's own way */

static void *evp_new(void *fetched)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	if (context && EVP_EncryptInit_ex2(context, fetched, NULL, NULL, NULL) == 1)
		return context;
	EVP_CIPHER_CTX_free(context);
	return NULL;
}

static void evp_free(void *context)
{
	EVP_CIPHER_CTX_free(context);
}

static int evp_encrypt(void *context, const unsigned char *key, size_t key_size, const unsigned char *tweak, size_t size,
		       const OSSL_PARAM params[])
{
	(void)key_size;
	(void)size;
	return EVP_EncryptInit_ex2(context, NULL, key, tweak, params);
}

static int evp_decrypt(void *context, const unsigned char *key, size_t key_size, const unsigned char *tweak, size_t size,
		       const OSSL_PARAM params[])
{
	(void)key_size;
	(void)size;
	return EVP_DecryptInit_ex2(context, NULL, key, tweak, params);
}

static int evp_update(void *context, unsigned char *out, size_t *done, size_t room, const unsigned char *in, size_t size)
{
	int length = 0;
	int status = size > INT_MAX || room < size ? 0 : EVP_CipherUpdate(context, out, &length, in, (int)size);

	*done = (size_t)length;
	return status;
}

void cipher_use_library(struct cipher *c)
{
	*c = (struct cipher){
		.fetched = c->fetched,
		.provider = c->fetched,
		.new_context = evp_new,
		.free_context = evp_free,
		.init = {[CIPHER_ENCRYPT] = evp_encrypt, [CIPHER_DECRYPT] = evp_decrypt},
		.update = evp_update,
	};
}

/* ------------------------------------------------------------------ which it is */

static bool run_by_library(const struct cipher *c, const unsigned char *key, const unsigned char *bytes, unsigned char *out)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int done = 0;
	bool good = context && EVP_EncryptInit_ex2(context, c->fetched, key, bytes, NULL) == 1 &&
		    EVP_EncryptUpdate(context, out, &done, bytes, PROBE_BYTES) == 1 && done == PROBE_BYTES;

	EVP_CIPHER_CTX_free(context);
	return good;
}

static bool run_directly(const struct cipher *c, const unsigned char *key, const unsigned char *bytes, unsigned char *out)
{
	void *context = cipher_new_context(c, CIPHER_ENCRYPT, key, (size_t)EVP_CIPHER_get_key_length(c->fetched));
	bool good = context && cipher_run(c, context, CIPHER_ENCRYPT, bytes, bytes, out, PROBE_BYTES);

	cipher_free_context(c, context);
	return good;
}

/* With a key that is nobody's. */
static bool does_the_same(const struct cipher *c)
{
	unsigned char key[EVP_MAX_KEY_LENGTH], bytes[PROBE_BYTES], wanted[PROBE_BYTES], got[PROBE_BYTES];

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (unsigned char)(i * 7);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 13);
	return run_by_library(c, key, bytes, wanted) && run_directly(c, key, bytes, got) && !memcmp(wanted, got, sizeof(got));
}

static bool choose(struct cipher *c)
{
	if (EVP_CIPHER_get_iv_length(c->fetched) != CIPHER_TWEAK)
		return false;
	if (find_functions(c) && does_the_same(c))
		return true;
	cipher_use_library(c);
	return does_the_same(c);
}

int cipher_find(struct cipher *c, const char *name, struct error *err)
{
	*c = (struct cipher){.fetched = EVP_CIPHER_fetch(NULL, name, NULL)};
	if (!c->fetched)
		return error_set(err, -EOPNOTSUPP, "OpenSSL has no %s here", name);
	if (choose(c))
		return 0;
	error_set(err, -EOPNOTSUPP, "OpenSSL's provider '%s' of %s does not work",
		  OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(c->fetched)), name);
	cipher_drop(c);
	return -EOPNOTSUPP;
}

void cipher_drop(struct cipher *c)
{
	EVP_CIPHER_free(c->fetched);
	*c = (struct cipher){0};
}

void *cipher_new_context(const struct cipher *c, enum cipher_direction direction, const unsigned char *key, size_t key_size)
{
	void *context = c->new_context(c->provider);

	if (context && c->init[direction](context, key, key_size, NULL, 0, NULL) == 1)
		return context;
	cipher_free_context(c, context);
	return NULL;
}

void cipher_free_context(const struct cipher *c, void *context)
{
	if (context)
		c->free_context(context);
}

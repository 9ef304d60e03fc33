/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A context of OpenSSL's holds an expanded key for one direction, and the tweak of the unit that is being worked on: one
 * thread can use it at a time. To key one costs as much as to encrypt more than 1 KiB, so contexts are kept, in places of which
 * each processor tries its own first:
 *
 *     place   busy      who sets it has the place, until it is cleared; taken for the units of one request at a time,
 *                       never across anything that waits
 *             context   one for each direction, made when it is needed first, freed with the disk
 *
 * A thread that was moved to another processor, or was stopped while it held a place, makes others try the next one. So
 * there are about as many contexts as processors that use the disk, and no lock that all of them want.
 *
 * A unit that lies in one piece of the caller's memory is read from there and written to the ciphertext, or the other
 * way; no byte is copied besides. Else it is put together in the ciphertext's memory, and encrypted or decrypted in
 * place there.
 *
 * What OpenSSL has of the key in its contexts it wipes when they are freed, but its memory is not ours to lock.
 */
#include "decorators/xts.h"

#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define PLACES 64u

enum direction { DECRYPT, ENCRYPT };

struct place {
	_Alignas(64) atomic_flag busy;
	EVP_CIPHER_CTX *context[2];
};

struct xts {
	struct place places[PLACES];
	struct secret key;
	struct xts_units units;
	unsigned tweak_shift;
	EVP_CIPHER *cipher;
	_Atomic pid_t owner; /* the process that has the key locked in memory */
};

/* ------------------------------------------------------------------ contexts */

/* What was locked in memory is not after a fork. Threads that find it so at the same time do the same. */
static void lock_again(struct xts *x)
{
	pid_t here = getpid();

	if (atomic_exchange(&x->owner, here) != here)
		mlock(x->key.bytes, x->key.room);
}

/* NULL when memory ran out. */
static EVP_CIPHER_CTX *make_context(struct xts *x, enum direction direction)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();

	lock_again(x);
	if (c && EVP_CipherInit_ex2(c, x->cipher, x->key.bytes, NULL, direction, NULL) == 1)
		return c;
	EVP_CIPHER_CTX_free(c);
	return NULL;
}

static struct place *take_place(struct xts *x)
{
	int processor = sched_getcpu();
	unsigned start = processor < 0 ? 0 : (unsigned)processor;

	for (unsigned i = start;; i++) {
		struct place *p = &x->places[i % PLACES];
		if (!atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire))
			return p;
		if (i - start >= PLACES)
			sched_yield();
	}
}

static void leave_place(struct place *p)
{
	atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

static EVP_CIPHER_CTX *context_of(struct xts *x, struct place *p, enum direction direction)
{
	if (!p->context[direction])
		p->context[direction] = make_context(x, direction);
	return p->context[direction];
}

/* ------------------------------------------------------------------ units */

/* The tweak of the unit at byte `offset`. */
struct tweak {
	uint64_t low, high; /* little-endian */
};

static struct tweak tweak_at(const struct xts *x, uint64_t offset)
{
	return (struct tweak){.low = htole64((offset >> x->tweak_shift) + x->units.first_tweak)};
}

static int encrypt_unit(const struct xts *x, EVP_CIPHER_CTX *c, uint64_t offset, const struct vec *plain, unsigned char *cipher)
{
	const void *flat = vec_flat(plain, 0, x->units.unit_bytes);
	struct tweak tweak = tweak_at(x, offset);
	int length = (int)x->units.unit_bytes, done;

	if (!flat)
		vec_gather(plain, 0, cipher, x->units.unit_bytes);
	if (EVP_EncryptInit_ex2(c, NULL, NULL, (const unsigned char *)&tweak, NULL) != 1 ||
	    EVP_EncryptUpdate(c, cipher, &done, flat ? flat : cipher, length) != 1)
		return -EIO;
	return 0;
}

static int decrypt_unit(const struct xts *x, EVP_CIPHER_CTX *c, uint64_t offset, unsigned char *cipher, const struct vec *plain)
{
	void *flat = vec_flat(plain, 0, x->units.unit_bytes);
	struct tweak tweak = tweak_at(x, offset);
	int length = (int)x->units.unit_bytes, done;

	if (EVP_DecryptInit_ex2(c, NULL, NULL, (const unsigned char *)&tweak, NULL) != 1 ||
	    EVP_DecryptUpdate(c, flat ? flat : cipher, &done, cipher, length) != 1)
		return -EIO;
	if (!flat)
		vec_scatter(plain, 0, cipher, x->units.unit_bytes);
	return 0;
}

int xts_encrypt(struct xts *x, const struct vec *plain, unsigned char *cipher, uint64_t offset)
{
	struct place *p = take_place(x);
	EVP_CIPHER_CTX *c = context_of(x, p, ENCRYPT);
	uint32_t unit = x->units.unit_bytes;
	struct vec rest = *plain;
	int status = c ? 0 : -ENOMEM;

	for (size_t done = 0; done < plain->size && !status; done += unit) {
		status = encrypt_unit(x, c, offset + done, &rest, cipher + done);
		rest = vec_slice(&rest, unit, rest.size - unit);
	}
	leave_place(p);
	return status;
}

int xts_decrypt(struct xts *x, unsigned char *cipher, const struct vec *plain, uint64_t offset, bool zero_holes)
{
	struct place *p = take_place(x);
	EVP_CIPHER_CTX *c = context_of(x, p, DECRYPT);
	uint32_t unit = x->units.unit_bytes;
	struct vec rest = *plain;
	int status = c ? 0 : -ENOMEM;

	for (size_t done = 0; done < plain->size && !status; done += unit) {
		if (zero_holes && memory_is_zero(cipher + done, unit))
			vec_zero(&rest, 0, unit);
		else
			status = decrypt_unit(x, c, offset + done, cipher + done, &rest);
		rest = vec_slice(&rest, unit, rest.size - unit);
	}
	leave_place(p);
	return status;
}

/* ------------------------------------------------------------------ life */

static int check_key(const struct secret *key, struct error *err)
{
	size_t half = key->size / 2;

	if (key->size != 64 && key->size != 32)
		return error_set(err, -EINVAL, "a key of %zu bytes; XTS-AES-256 has 64, XTS-AES-128 has 32", key->size);
	if (!CRYPTO_memcmp(key->bytes, key->bytes + half, half))
		return error_set(err, -EINVAL,
				 "the two halves of the key are equal, which makes XTS weak; take %zu random bytes", key->size);
	return 0;
}

/*
 * A context that is not kept says whether the library can do it at all: the process may fork before the first request, which
 * then makes one, and locks the key again.
 */
static int begin(struct xts *x, struct error *err)
{
	EVP_CIPHER_CTX *c;

	x->cipher = EVP_CIPHER_fetch(NULL, x->key.size == 64 ? "AES-256-XTS" : "AES-128-XTS", NULL);
	if (!x->cipher)
		return error_set(err, -EOPNOTSUPP, "OpenSSL has no %s here", xts_name(x));
	c = make_context(x, ENCRYPT);
	if (!c)
		return error_set(err, -EOPNOTSUPP, "OpenSSL does not take the key for %s", xts_name(x));
	EVP_CIPHER_CTX_free(c);
	return 0;
}

int xts_create(struct secret *key, const struct xts_units *units, struct xts **out, struct error *err)
{
	int status = check_key(key, err);
	struct xts *x;

	if (status)
		return status;
	x = aligned_alloc(_Alignof(struct xts), sizeof(*x));
	if (!x)
		return error_set(err, -ENOMEM, "no memory");
	memset(x, 0, sizeof(*x));
	for (unsigned i = 0; i < PLACES; i++)
		atomic_flag_clear(&x->places[i].busy);
	x->units = *units;
	x->tweak_shift = (unsigned)__builtin_ctz(units->tweak_bytes);
	secret_move(&x->key, key);
	x->owner = getpid();
	status = begin(x, err);
	if (status)
		xts_free(x);
	else
		*out = x;
	return status;
}

void xts_free(struct xts *x)
{
	if (!x)
		return;
	for (unsigned i = 0; i < PLACES; i++) {
		EVP_CIPHER_CTX_free(x->places[i].context[ENCRYPT]);
		EVP_CIPHER_CTX_free(x->places[i].context[DECRYPT]);
	}
	EVP_CIPHER_free(x->cipher);
	secret_drop(&x->key);
	free(x);
}

const char *xts_name(const struct xts *x)
{
	return x->key.size == 64 ? "xts-aes-256" : "xts-aes-128";
}

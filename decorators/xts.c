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

#include "decorators/cipher.h"

#define PLACES 64u

struct place {
	_Alignas(64) atomic_flag busy;
	void *context[2]; /* by enum cipher_direction */
};

struct xts {
	struct place places[PLACES];
	struct secret key;
	struct xts_units units;
	unsigned tweak_shift;
	struct cipher cipher;
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
static void *make_context(struct xts *x, enum cipher_direction direction)
{
	lock_again(x);
	return cipher_new_context(&x->cipher, direction, x->key.bytes, x->key.size);
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

static void *context_of(struct xts *x, struct place *p, enum cipher_direction direction)
{
	if (!p->context[direction])
		p->context[direction] = make_context(x, direction);
	return p->context[direction];
}

/* ------------------------------------------------------------------ units */

/* Encrypts or decrypts the unit at byte `offset`. */
static int run_unit(const struct xts *x, void *context, enum cipher_direction direction, uint64_t offset, const void *from, void *to)
{
	uint64_t tweak[2] = {htole64((offset >> x->tweak_shift) + x->units.first_tweak)};

	_Static_assert(sizeof(tweak) == CIPHER_TWEAK, "a tweak");
	return cipher_run(&x->cipher, context, direction, (const unsigned char *)tweak, from, to, x->units.unit_bytes) ? 0 : -EIO;
}

static int encrypt_unit(const struct xts *x, void *context, uint64_t offset, const struct vec *plain, unsigned char *cipher)
{
	const void *flat = vec_flat(plain, 0, x->units.unit_bytes);

	if (!flat)
		vec_gather(plain, 0, cipher, x->units.unit_bytes);
	return run_unit(x, context, CIPHER_ENCRYPT, offset, flat ? flat : cipher, cipher);
}

static int decrypt_unit(const struct xts *x, void *context, uint64_t offset, unsigned char *cipher, const struct vec *plain)
{
	void *flat = vec_flat(plain, 0, x->units.unit_bytes);
	int status = run_unit(x, context, CIPHER_DECRYPT, offset, cipher, flat ? flat : cipher);

	if (!flat && !status)
		vec_scatter(plain, 0, cipher, x->units.unit_bytes);
	return status;
}

int xts_encrypt(struct xts *x, const struct vec *plain, unsigned char *cipher, uint64_t offset)
{
	struct place *p = take_place(x);
	void *context = context_of(x, p, CIPHER_ENCRYPT);
	uint32_t unit = x->units.unit_bytes;
	struct vec rest = *plain;
	int status = context ? 0 : -ENOMEM;

	for (size_t done = 0; done < plain->size && !status; done += unit) {
		status = encrypt_unit(x, context, offset + done, &rest, cipher + done);
		rest = vec_slice(&rest, unit, rest.size - unit);
	}
	leave_place(p);
	return status;
}

int xts_decrypt(struct xts *x, unsigned char *cipher, const struct vec *plain, uint64_t offset, bool zero_holes)
{
	struct place *p = take_place(x);
	void *context = context_of(x, p, CIPHER_DECRYPT);
	uint32_t unit = x->units.unit_bytes;
	struct vec rest = *plain;
	int status = context ? 0 : -ENOMEM;

	for (size_t done = 0; done < plain->size && !status; done += unit) {
		if (zero_holes && memory_is_zero(cipher + done, unit))
			vec_zero(&rest, 0, unit);
		else
			status = decrypt_unit(x, context, offset + done, cipher + done, &rest);
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
	int status = cipher_find(&x->cipher, x->key.size == 64 ? "AES-256-XTS" : "AES-128-XTS", err);
	void *context;

	if (status)
		return status;
	context = make_context(x, CIPHER_ENCRYPT);
	if (!context)
		return error_set(err, -EOPNOTSUPP, "OpenSSL does not take the key for %s", xts_name(x));
	cipher_free_context(&x->cipher, context);
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
		cipher_free_context(&x->cipher, x->places[i].context[CIPHER_ENCRYPT]);
		cipher_free_context(&x->cipher, x->places[i].context[CIPHER_DECRYPT]);
	}
	cipher_drop(&x->cipher);
	secret_drop(&x->key);
	free(x);
}

const char *xts_name(const struct xts *x)
{
	return x->key.size == 64 ? "xts-aes-256" : "xts-aes-128";
}

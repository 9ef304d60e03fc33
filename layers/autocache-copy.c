/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A unit copied and hashed in one pass
 *
 * XXH3 at its best hashes some 60 GB/s of what is in the second cache, and a read(2) copies some 20 GB/s of what is in memory. So to copy
 * first and hash then makes a third more of it, and from a mapping, a unit at a time, twice as much: neither can begin before
 * the other is through. In one loop, which has each 64 bytes in a register anyhow, the hash is computed while the next ones
 * are on their way from memory, and costs next to nothing. What is hashed is what was stored, too, whoever changes either side.
 *
 * This is XXH3 (64 bits, no seed) as its specification has it, for a length of 4096 bytes (doc/xxhash_spec.md, "XXH3 Algorithm
 * for long inputs"): eight accumulators, four blocks of 1024 bytes, each of 16 stripes of 64. Stripe n of a block is mixed with
 * the secret from byte 8 n on, but for the very last, which is mixed with that from byte 121 on; the accumulators
 * are scrambled between blocks, and merged at the end. In assembly, because a page that is gone raises SIGBUS at any load
 * (core/safe-copy.c). Elsewhere, and on processors without AVX2, a unit is copied and then hashed by the library.
 */
#include "layers/autocache-sum.h"

#include <errno.h>
#include <string.h>

#include "core/checkers.h"
#include "core/guarded.h"
#include "core/safe-copy.h"

static int copy_then_hash(void *to, const void *from, uint64_t *hash)
{
	if (safe_copy(to, from, UNIT))
		return -EFAULT;
	*hash = sum_hash(to);
	return 0;
}

#ifdef GUARDED_BY_ADDRESS

#define LANES 8
_Static_assert(UNIT == 4096, "four blocks of 16 stripes of 64 bytes");
#define PRIME32_1 UINT32_C(0x9e3779b1)
#define PRIME32_2 UINT32_C(0x85ebca77)
#define PRIME32_3 UINT32_C(0xc2b2ae3d)
#define PRIME64_1 UINT64_C(0x9e3779b185ebca87)
#define PRIME64_2 UINT64_C(0xc2b2ae3d27d4eb4f)
#define PRIME64_3 UINT64_C(0x165667b19e3779f9)
#define PRIME64_4 UINT64_C(0x85ebca77c2b2ae63)
#define PRIME64_5 UINT64_C(0x27d4eb2f165667c5)
#define PRIME_MX1 UINT64_C(0x165667919e3779f9)

static const unsigned char secret[192] __attribute__((aligned(64))) = {
	0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
	0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
	0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
	0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
	0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
	0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
	0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
	0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
	0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
	0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
	0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
	0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

/* What the accumulators begin with. */
#define FIRST_LANES {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1}

/*
 * Both loops have the same shape. `key` runs over the secret, `stripes` counts 15 to 0, and then the last stripe of a block is
 * done by the same code (label 4 to 5) with a key of its own: at 120, or at 121 in the last block.
 */
#define LOOP(stripe, scramble)                                                                               \
	"	movl $4, %[blocks]\n"                                                                        \
	"2:	movq %[secret], %[key]\n"                                                                    \
	"	movl $15, %[stripes]\n"                                                                      \
	"3:\n" stripe                                                                                        \
	"	addq $8, %[key]\n"                                                                           \
	"	decl %[stripes]\n"                                                                           \
	"	jnz 3b\n"                                                                                    \
	"	cmpl $1, %[blocks]\n"                                                                        \
	"	jne 4f\n"                                                                                    \
	"	incq %[key]\n"                                                                               \
	"4:\n" stripe                                                                                        \
	"	decl %[blocks]\n"                                                                            \
	"	jz 5f\n" scramble                                                                            \
	"	jmp 2b\n"                                                                                    \
	"5:\n"

#define OPERANDS                                                                                             \
	: [to] "+r"(to), [from] "+r"(from), [key] "=&r"(key), [stripes] "=&r"(stripes), [blocks] "=&r"(blocks), "+a"(fault)  \
	: [lanes] "r"(lanes), [secret] "r"(secret), [prime] "r"(PRIME32_1)                                  \
	: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",          \
	  "xmm13", "xmm14", "xmm15", "cc", "memory"

/* Eight lanes in zmm0. Upper halves are cleared past label 9, so after a fault, too. */
static int run_avx512(char *to, const char *from, uint64_t lanes[LANES])
{
	const unsigned char *key;
	unsigned stripes, blocks;
	int fault = 0;

	__asm__ volatile("1:	vmovdqu64 (%[lanes]), %%zmm0\n"
			 "	vmovdqu64 128(%[secret]), %%zmm5\n"
			 "	vpbroadcastd %[prime], %%zmm6\n"
			 LOOP("	vmovdqu64 (%[from]), %%zmm1\n"
			      "	vmovdqu64 %%zmm1, (%[to])\n"
			      "	vpxorq (%[key]), %%zmm1, %%zmm2\n"
			      "	vpsrlq $32, %%zmm2, %%zmm3\n"
			      "	vpmuludq %%zmm3, %%zmm2, %%zmm2\n"
			      "	vpshufd $0x4e, %%zmm1, %%zmm1\n"
			      "	vpaddq %%zmm1, %%zmm2, %%zmm2\n"
			      "	vpaddq %%zmm2, %%zmm0, %%zmm0\n"
			      "	addq $64, %[from]\n"
			      "	addq $64, %[to]\n",
			      "	vpsrlq $47, %%zmm0, %%zmm1\n"
			      "	vpxorq %%zmm1, %%zmm0, %%zmm0\n"
			      "	vpxorq %%zmm5, %%zmm0, %%zmm0\n"
			      "	vpsrlq $32, %%zmm0, %%zmm1\n"
			      "	vpmuludq %%zmm6, %%zmm0, %%zmm0\n"
			      "	vpmuludq %%zmm6, %%zmm1, %%zmm1\n"
			      "	vpsllq $32, %%zmm1, %%zmm1\n"
			      "	vpaddq %%zmm1, %%zmm0, %%zmm0\n")
			 "	vmovdqu64 %%zmm0, (%[lanes])\n"
			 "9:	vzeroupper\n" GUARDED OPERANDS);
	return fault;
}

/* Four lanes in ymm0, four in ymm8. */
static int run_avx2(char *to, const char *from, uint64_t lanes[LANES])
{
	const unsigned char *key;
	unsigned stripes, blocks;
	int fault = 0;

	__asm__ volatile("1:	vmovdqu (%[lanes]), %%ymm0\n"
			 "	vmovdqu 32(%[lanes]), %%ymm8\n"
			 "	vmovdqu 128(%[secret]), %%ymm5\n"
			 "	vmovdqu 160(%[secret]), %%ymm13\n"
			 "	vmovd %[prime], %%xmm6\n"
			 "	vpbroadcastd %%xmm6, %%ymm6\n"
			 LOOP("	vmovdqu (%[from]), %%ymm1\n"
			      "	vmovdqu 32(%[from]), %%ymm9\n"
			      "	vmovdqu %%ymm1, (%[to])\n"
			      "	vmovdqu %%ymm9, 32(%[to])\n"
			      "	vpxor (%[key]), %%ymm1, %%ymm2\n"
			      "	vpxor 32(%[key]), %%ymm9, %%ymm10\n"
			      "	vpsrlq $32, %%ymm2, %%ymm3\n"
			      "	vpsrlq $32, %%ymm10, %%ymm11\n"
			      "	vpmuludq %%ymm3, %%ymm2, %%ymm2\n"
			      "	vpmuludq %%ymm11, %%ymm10, %%ymm10\n"
			      "	vpshufd $0x4e, %%ymm1, %%ymm1\n"
			      "	vpshufd $0x4e, %%ymm9, %%ymm9\n"
			      "	vpaddq %%ymm1, %%ymm2, %%ymm2\n"
			      "	vpaddq %%ymm9, %%ymm10, %%ymm10\n"
			      "	vpaddq %%ymm2, %%ymm0, %%ymm0\n"
			      "	vpaddq %%ymm10, %%ymm8, %%ymm8\n"
			      "	addq $64, %[from]\n"
			      "	addq $64, %[to]\n",
			      "	vpsrlq $47, %%ymm0, %%ymm1\n"
			      "	vpsrlq $47, %%ymm8, %%ymm9\n"
			      "	vpxor %%ymm1, %%ymm0, %%ymm0\n"
			      "	vpxor %%ymm9, %%ymm8, %%ymm8\n"
			      "	vpxor %%ymm5, %%ymm0, %%ymm0\n"
			      "	vpxor %%ymm13, %%ymm8, %%ymm8\n"
			      "	vpsrlq $32, %%ymm0, %%ymm1\n"
			      "	vpsrlq $32, %%ymm8, %%ymm9\n"
			      "	vpmuludq %%ymm6, %%ymm0, %%ymm0\n"
			      "	vpmuludq %%ymm6, %%ymm8, %%ymm8\n"
			      "	vpmuludq %%ymm6, %%ymm1, %%ymm1\n"
			      "	vpmuludq %%ymm6, %%ymm9, %%ymm9\n"
			      "	vpsllq $32, %%ymm1, %%ymm1\n"
			      "	vpsllq $32, %%ymm9, %%ymm9\n"
			      "	vpaddq %%ymm1, %%ymm0, %%ymm0\n"
			      "	vpaddq %%ymm9, %%ymm8, %%ymm8\n")
			 "	vmovdqu %%ymm0, (%[lanes])\n"
			 "	vmovdqu %%ymm8, 32(%[lanes])\n"
			 "9:	vzeroupper\n" GUARDED OPERANDS);
	return fault;
}

static uint64_t secret_word(unsigned at)
{
	uint64_t word;

	memcpy(&word, secret + at, sizeof(word));
	return word;
}

static uint64_t merge(const uint64_t lanes[LANES])
{
	uint64_t h = UNIT * PRIME64_1;

	for (unsigned i = 0; i < LANES; i += 2) {
		unsigned __int128 product = (unsigned __int128)(lanes[i] ^ secret_word(11 + 8 * i)) *
					    (lanes[i + 1] ^ secret_word(11 + 8 * i + 8));
		h += (uint64_t)product ^ (uint64_t)(product >> 64);
	}
	h = (h ^ h >> 37) * PRIME_MX1;
	return h ^ h >> 32;
}

typedef int copy_loop(char *to, const char *from, uint64_t lanes[LANES]);

static int run_loop(copy_loop *loop, void *to, const void *from, uint64_t *hash)
{
	uint64_t lanes[LANES] = FIRST_LANES;

	guarded_ready();
	checkers_reads(from, UNIT);
	checkers_writes(to, UNIT);
	if (loop(to, from, lanes))
		return -EFAULT;
	*hash = merge(lanes);
	return 0;
}

int sum_copy_by(enum sum_way way, void *to, const void *from, uint64_t *hash)
{
	if (way == SUM_AVX512 && __builtin_cpu_supports("avx512f"))
		return run_loop(run_avx512, to, from, hash);
	if (way >= SUM_AVX2 && __builtin_cpu_supports("avx2"))
		return run_loop(run_avx2, to, from, hash);
	return copy_then_hash(to, from, hash);
}

#else

int sum_copy_by(enum sum_way way, void *to, const void *from, uint64_t *hash)
{
	(void)way;
	return copy_then_hash(to, from, hash);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* Random numbers that can be had again: the n-th of a stream is a function of the seed, whoever asks and when. */
#ifndef PLATTER_CORE_CHANCE_H
#define PLATTER_CORE_CHANCE_H

#include <stdint.h>

/* Spreads every bit over all others: a bijection (the finaliser with Stafford's thirteenth set of constants). */
static inline uint64_t chance_mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/*
 * Number `n`, from 0, of `stream`. Without a state there is nothing to lock: each request takes its number from a counter, and
 * what it draws does not depend on who came between.
 */
static inline uint64_t chance_at(uint64_t seed, uint64_t stream, uint64_t n)
{
	return chance_mix(chance_mix(seed + stream * UINT64_C(0xd1342543de82ef95)) + n * UINT64_C(0x9e3779b97f4a7c15));
}

#endif

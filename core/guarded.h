/* SPDX-License-Identifier: BSD-3-Clause */
/* Pieces of assembly in which a SIGBUS is an error and no more: core/safe-copy.c tells how, and has those that most need. */
#ifndef PLATTER_CORE_GUARDED_H
#define PLATTER_CORE_GUARDED_H

#if defined(__x86_64__) && defined(__LP64__) && !defined(SAFE_COPY_PORTABLE)
#define GUARDED_BY_ADDRESS 1

/*
 * Makes the code from label 1 to label 9 of this piece of assembly a guarded one: a fault in it goes on at label 9, with 1 in
 * eax. What else is in registers then is not to be believed. Before such a piece is run the thread calls guarded_ready().
 */
#define GUARDED                                                                                              \
	".pushsection platter_guarded, \"a\", @progbits\n"                                                   \
	".balign 4\n"                                                                                        \
	".long 1b - .\n"                                                                                     \
	".long 9b - .\n"                                                                                     \
	".popsection\n"
#endif

/* The handler of SIGBUS is in place, and this thread does not block the signal. Once is enough, but each time does no harm. */
void guarded_ready(void);

#endif

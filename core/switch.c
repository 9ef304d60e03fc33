/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a switch keeps is what the calling convention says that a call keeps: the callee-saved registers and
 * the stack pointer. (System V ABI, x86-64 supplement, 3.2.1; Procedure Call Standard for the Arm 64-bit
 * Architecture, 6.1.) To the compiler a switch is a call of an unknown function, no more.
 *
 * Not kept: the x87 control word, MXCSR, FPCR (rounding mode, exception masks), the signal mask, errno.
 * Nothing here changes the first three, and whoever changes them must change them back before waiting.
 *
 * Shadow stacks (x86 CET, Arm GCS) would have to be switched too. This file has no note that says that it
 * can do so, therefore the linker leaves the mark out of the program and the C library does not turn them
 * on. There is no landing pad (endbr64, bti) needed for returns; the first entry on x86-64 is a return,
 * too.
 *
 * An unwinder stops at the fiber's first frame, which says that it has no caller (.cfi_undefined of the
 * return address).
 */
#include "core/switch.h"

#include <stdint.h>
#include <string.h>

#ifdef CONTEXT_UCONTEXT

/* makecontext(3) hands down ints only. */
static void start(unsigned e0, unsigned e1, unsigned a0, unsigned a1)
{
	uintptr_t entry = (uintptr_t)((uint64_t)e1 << 32 | e0);
	uintptr_t argument = (uintptr_t)((uint64_t)a1 << 32 | a0);

	((void (*)(void *))entry)((void *)argument);
	__builtin_trap();
}

void context_make(struct context *c, void *low, size_t size, void (*entry)(void *argument), void *argument)
{
	uint64_t e = (uintptr_t)entry, a = (uintptr_t)argument;

	getcontext(&c->uc);
	c->uc.uc_stack.ss_sp = low;
	c->uc.uc_stack.ss_size = size;
	c->uc.uc_link = NULL;
	makecontext(&c->uc, (void (*)(void))start, 4, (unsigned)e, (unsigned)(e >> 32), (unsigned)a,
		    (unsigned)(a >> 32));
}

void context_switch(struct context *from, struct context *to)
{
	swapcontext(&from->uc, &to->uc);
}

#else

/* Saves on the stack, stores the stack pointer to *from, loads `to`, restores. */
__attribute__((visibility("hidden"))) void platter_context_swap(void **from, void *to);

/*
 * Where a new flow begins: calls the entry, whose address and argument lie in two callee-saved registers.
 */
__attribute__((visibility("hidden"))) void platter_context_start(void);

#if defined(__x86_64__)

enum { FRAME_WORDS = 7, FRAME_ENTRY = 3, FRAME_ARGUMENT = 2, FRAME_RETURN = 6 };

__asm__(".pushsection .text.platter_context, \"ax\", @progbits\n"
	".p2align 4\n"
	".globl platter_context_swap\n"
	".hidden platter_context_swap\n"
	".type platter_context_swap, @function\n"
	"platter_context_swap:\n"
	"	.cfi_startproc\n"
	"	pushq %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbp, 0\n"
	"	pushq %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbx, 0\n"
	"	pushq %r12\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r12, 0\n"
	"	pushq %r13\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r13, 0\n"
	"	pushq %r14\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r14, 0\n"
	"	pushq %r15\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r15, 0\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n" /* the other stack has the same layout, so the rules above stay true */
	"	popq %r15\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %r15\n"
	"	popq %r14\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %r14\n"
	"	popq %r13\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %r13\n"
	"	popq %r12\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %r12\n"
	"	popq %rbx\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %rbx\n"
	"	popq %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size platter_context_swap, . - platter_context_swap\n"
	".p2align 4\n"
	".globl platter_context_start\n"
	".hidden platter_context_start\n"
	".type platter_context_start, @function\n"
	"platter_context_start:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined %rip\n"
	"	movq %r13, %rdi\n"
	"	call *%r12\n"
	"	ud2\n"
	"	.cfi_endproc\n"
	".size platter_context_start, . - platter_context_start\n"
	".popsection\n");

#elif defined(__aarch64__)

/* x19..x28, x29, x30, d8..d15 */
enum { FRAME_WORDS = 20, FRAME_ENTRY = 0, FRAME_ARGUMENT = 1, FRAME_RETURN = 11 };

__asm__(".pushsection .text.platter_context, \"ax\", %progbits\n"
	".p2align 4\n"
	".globl platter_context_swap\n"
	".hidden platter_context_swap\n"
	".type platter_context_swap, %function\n"
	"platter_context_swap:\n"
	"	.cfi_startproc\n"
	"	sub sp, sp, #160\n"
	"	.cfi_adjust_cfa_offset 160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	.cfi_rel_offset x19, 0\n"
	"	.cfi_rel_offset x20, 8\n"
	"	stp x21, x22, [sp, #16]\n"
	"	.cfi_rel_offset x21, 16\n"
	"	.cfi_rel_offset x22, 24\n"
	"	stp x23, x24, [sp, #32]\n"
	"	.cfi_rel_offset x23, 32\n"
	"	.cfi_rel_offset x24, 40\n"
	"	stp x25, x26, [sp, #48]\n"
	"	.cfi_rel_offset x25, 48\n"
	"	.cfi_rel_offset x26, 56\n"
	"	stp x27, x28, [sp, #64]\n"
	"	.cfi_rel_offset x27, 64\n"
	"	.cfi_rel_offset x28, 72\n"
	"	stp x29, x30, [sp, #80]\n"
	"	.cfi_rel_offset x29, 80\n"
	"	.cfi_rel_offset x30, 88\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n" /* the other stack has the same layout, so the rules above stay true */
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	.cfi_adjust_cfa_offset -160\n"
	"	.cfi_restore x19\n"
	"	.cfi_restore x20\n"
	"	.cfi_restore x21\n"
	"	.cfi_restore x22\n"
	"	.cfi_restore x23\n"
	"	.cfi_restore x24\n"
	"	.cfi_restore x25\n"
	"	.cfi_restore x26\n"
	"	.cfi_restore x27\n"
	"	.cfi_restore x28\n"
	"	.cfi_restore x29\n"
	"	.cfi_restore x30\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size platter_context_swap, . - platter_context_swap\n"
	".p2align 4\n"
	".globl platter_context_start\n"
	".hidden platter_context_start\n"
	".type platter_context_start, %function\n"
	"platter_context_start:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined x30\n"
	"	mov x0, x20\n"
	"	blr x19\n"
	"	brk #1\n"
	"	.cfi_endproc\n"
	".size platter_context_start, . - platter_context_start\n"
	".popsection\n");

#endif

void context_make(struct context *c, void *low, size_t size, void (*entry)(void *argument), void *argument)
{
	uintptr_t top = ((uintptr_t)low + size) & ~(uintptr_t)15;
	uintptr_t frame[FRAME_WORDS] = {0};

	/*
	 * What platter_context_swap() will restore. Afterwards the stack pointer is `top`, a multiple of
	 * 16, as it must be where platter_context_start() makes its call.
	 */
	frame[FRAME_ENTRY] = (uintptr_t)entry;
	frame[FRAME_ARGUMENT] = (uintptr_t)argument;
	frame[FRAME_RETURN] = (uintptr_t)platter_context_start;
	c->sp = (void *)(top - sizeof frame);
	memcpy(c->sp, frame, sizeof frame);
}

void context_switch(struct context *from, struct context *to)
{
	platter_context_swap(&from->sp, to->sp);
}

#endif

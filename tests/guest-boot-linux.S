/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A boot sector that loads a Linux kernel and its initramfs by INT 13h and starts it as a PVH guest is started (Xen's
 * docs/misc/pvh.pandoc, "x86/HVM direct boot ABI"), which an unpacked kernel with CONFIG_PVH can be. What tests/test-guest-boot.sh puts
 * into block 1:
 *
 *     0     struct hvm_start_info, which lacks the map of memory
 *     64    struct hvm_modlist_entry of the initramfs
 *     96    the kernel's entry point
 *     112   runs: first block, address, pieces of 64 blocks; the last one has none
 *     256   the kernel's command line
 *
 * It ends the machine by QEMU's debug exit with the status of INT 13h when that fails.
 */
	.set info, 0x8000 /* where block 1 goes */
	.set memmap, info + 40
	.set memmap_entries, info + 48
	.set entry, info + 96
	.set runs, info + 112
	.set map, 0x9000
	.set buffer, 0x1000 /* a segment */
	.set flat_data, 8
	.set flat_code, 16

	.code16
	.globl start
start:
	cli
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7c00, %sp
	sti
	cld
	mov %dl, drive
	call read

	movw $64, count
	movw $0, to
	movw $buffer, to + 2
	mov $runs, %bp
run:
	mov (%bp), %eax
	mov %eax, lba
	mov 4(%bp), %edi
piece:
	call read
	call put
	addl $64, lba
	decl 8(%bp)
	jnz piece
	add $12, %bp
	cmpl $0, 8(%bp)
	jne run

/* The firmware's map of memory, whose entries are longer here. */
	movl $map, memmap
	mov $map, %di
	xor %ebx, %ebx
more:
	mov $0xe820, %eax
	mov $0x534d4150, %edx
	mov $20, %ecx
	int $0x15
	jc enter
	movl $0, 20(%di)
	add $24, %di
	incl memmap_entries
	test %ebx, %ebx
	jnz more

enter:
	cli
	lgdt gdtr
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmp $flat_code, $flat
	.code32
flat:
	mov $flat_data, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $info, %ebx
	jmp *entry
	.code16

/* A piece goes from the buffer to edi, which moves on. Real mode gets there with a segment register that was loaded in
 * protected mode; any call of the firmware may undo that. */
put:
	cli
	lgdt gdtr
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	mov $flat_data, %bx
	mov %bx, %es
	and $0xfe, %al
	mov %eax, %cr0
	push %ds
	mov $buffer, %ax
	mov %ax, %ds
	xor %esi, %esi
	mov $(64 * 512 / 4), %ecx
	addr32 rep movsl
	pop %ds
	xor %ax, %ax
	mov %ax, %es
	sti
	ret

/* As the packet has it. */
read:
	mov $0x4200, %ax
	mov $packet, %si
	mov drive, %dl
	int $0x13
	jc bad
	ret
bad:
	mov %ah, %al
end:
	out %al, $0xf4
	hlt
	jmp end

drive:
	.byte 0
	.balign 8
gdt:
	.quad 0, 0x00cf92000000ffff, 0x00cf9a000000ffff
gdtr:
	.word . - gdt - 1
	.long gdt
	.balign 4
packet:
	.word 16
count:
	.word 1
to:
	.word info, 0
lba:
	.long 1, 0

	.org 510
	.word 0xaa55

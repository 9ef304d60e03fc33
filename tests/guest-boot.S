/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A boot sector: what a PC's firmware loads from the first block of a disk to 0:7c00 and jumps to, with the disk's number in dl. It uses
 * the disk by INT 13h (Enhanced Disk Drive: 42h reads, 43h writes), of which a firmware's own driver is behind, and speaks on the first
 * serial port. tests/test-guest-boot.sh puts the number of runs, and what the words of all sum up to, into its end:
 *
 *     block 1         a text, which is said
 *     block 64 on     `runs` runs of 64 blocks; "sum is right" is said when the sum of their words is the one that is expected
 *     block 63        here the text of block 1 is written
 *
 * Then QEMU's debug exit ends the machine: with 3 where all went well, with the status of INT 13h otherwise.
 */
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

	mov $0x42, %ah
	call disk
	mov $text, %si
	call say

	mov $64, %eax
	mov %eax, lba
	mov %ax, count
	xor %ax, %ax
	mov %ax, to
	mov $0x1000, %ax
	mov %ax, to + 2
	xor %ebx, %ebx
next:
	mov $0x42, %ah
	call disk
	push %ds
	mov $0x1000, %ax
	mov %ax, %ds
	xor %si, %si
	mov $(64 * 512 / 4), %cx
add:
	lodsl
	add %eax, %ebx
	loop add
	pop %ds
	addl $64, lba
	decw runs
	jnz next

	mov $wrong, %si
	cmp %ebx, sum
	jne tell
	mov $right, %si
tell:
	call say

	movl $63, lba
	movw $1, count
	movl $text, to
	mov $0x43, %ah
	call disk
	mov $1, %al
	jmp end

/* INT 13h, function ah, with the packet. */
disk:
	xor %al, %al
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

/* The text at si, which ends with a zero. */
say:
	mov $0x3fd, %dx
wait:
	in %dx, %al
	test $0x20, %al
	jz wait
	lodsb
	test %al, %al
	jz said
	mov $0x3f8, %dx
	out %al, %dx
	jmp say
said:
	ret

right:
	.asciz "sum is right\n"
wrong:
	.asciz "sum is wrong\n"
drive:
	.byte 0
	.balign 4
packet:
	.word 16
count:
	.word 1
to:
	.word text, 0
lba:
	.long 1, 0

	.org 440 - 8
runs:
	.word 0, 0
sum:
	.long 0
	.org 510 /* partitions are in front of it */
	.word 0xaa55
	.set text, 0x8000

// A firmware for QEMU's virt machine that puts every CPU into the state its record asks for, and writes no memory on
// the way. test/support/qemu-arm64.ts adds the page tables at 0x1000 and the records; it runs at 0, where flash is.
//
// Reset or PSCI's CPU_ON -> MMU on, with an identity map below and the guest kernel's tables above -> the record's entry:
// code in the guest's own kernel, which loads TTBR0, the vector and the general registers, and leaves by ERET.

.equ RECORDS, 0x3000
.equ TABLES, 0x1000
.equ STARTED, 0x00
.equ TTBR0, 0x08
.equ TTBR1, 0x10
.equ TCR, 0x18
.equ MAIR, 0x20
.equ VBAR, 0x28
.equ ENTRY, 0x30
.equ PC, 0x38
.equ PSTATE, 0x40
.equ SP, 0x48
.equ FPCR_, 0x50
.equ FPSR_, 0x58
.equ TPIDR, 0x60
.equ STACK, 0x68

.globl _start
_start:
    mrs x0, mpidr_el1
    and x0, x0, #0xff            // index of the record
    cbnz x0, ready

    // The first CPU starts the others.
    ldr w20, count
    mov w19, #1
next:
    cmp w19, w20
    b.ge started
    mov x4, #RECORDS
    add x4, x4, x19, lsl #8
    ldr x4, [x4, #STARTED]
    cbz x4, skip
    ldr x0, =0xc4000003          // PSCI CPU_ON
    mov x1, x19
    adr x2, _start
    mov x3, #0
    hvc #0
skip:
    add w19, w19, #1
    b next
started:
    mov x0, #0
ready:
    mov x1, #RECORDS
    add x1, x1, x0, lsl #8
    mov x2, #0x300000            // no traps of vector instructions
    msr cpacr_el1, x2
    isb
    ldr x2, [x1, #MAIR]
    msr mair_el1, x2
    ldr x2, [x1, #TCR]
    msr tcr_el1, x2
    mov x2, #TABLES
    msr ttbr0_el1, x2
    ldr x2, [x1, #TTBR1]
    msr ttbr1_el1, x2
    ldr x2, [x1, #VBAR]
    msr vbar_el1, x2
    ldr x2, [x1, #TPIDR]
    msr tpidr_el1, x2
    ldr x2, [x1, #PC]
    msr elr_el1, x2
    ldr x2, [x1, #PSTATE]
    msr spsr_el1, x2
    ldr x2, [x1, #SP]
    msr sp_el0, x2
    ldr x2, [x1, #STACK]
    mov sp, x2                   // SP_EL1: the stub runs on it
    ldr x2, [x1, #FPCR_]
    msr fpcr, x2
    ldr x2, [x1, #FPSR_]
    msr fpsr, x2
    tlbi vmalle1
    dsb sy
    isb
    ldr x2, =0x70d5181d          // MMU and caches on, return addresses signed (EnIB)
    msr sctlr_el1, x2
    isb
    ldr x0, [x1, #TTBR0]
    ldr x3, [x1, #ENTRY]
    br x3

.ltorg
.org 0xff8
count:
    .word 0
    .word 0

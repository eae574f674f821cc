// What a compiler does not make: a leaf that halts, exception vectors with trap frames, another stack, signed return
// addresses, and unwind codes of all kinds in code that is never run.
    .text

    .globl HalHaltProcessor
HalHaltProcessor:
    wfi
    b HalHaltProcessor

// As the compiler calls it: X15 is the frame's size in units of 16 bytes.
    .globl __chkstk
__chkstk:
    ret

// Calls a function on another stack, with the old SP in a register.
    .globl DemoSwitchStack
    .seh_proc DemoSwitchStack
DemoSwitchStack:
    stp x29, x30, [sp, #-16]!
    .seh_save_fplr_x 16
    mov x29, sp
    .seh_set_fp
    .seh_endprologue
    mov sp, x0
    mov x0, x2
    blr x1
    mov sp, x29
    .seh_startepilogue
    ldp x29, x30, [sp], #16
    .seh_save_fplr_x 16
    .seh_endepilogue
    ret
    .seh_endproc

// Its return address is signed. By hand, since not every assembler has a directive for it.
    .globl DemoSigned
DemoSigned:
    hint #27                     // pacibsp
    stp x29, x30, [sp, #-32]!
    str x19, [sp, #16]
    mov x29, sp
    mov x19, x1
    mov x8, x0
    mov x0, x1
    blr x8
    ldr x19, [sp, #16]
    ldp x29, x30, [sp], #32
    hint #31                     // autibsp
    ret
DemoSignedEnd:

    .section .xdata, "dr"
    .p2align 2
DemoSignedInfo:
    .long ((DemoSignedEnd - DemoSigned) / 4) | (1 << 21) | (1 << 22) | (2 << 27)
    .byte 0xe1, 0xd0, 0x02, 0x83, 0xfc, 0xe4, 0xe3, 0xe3
    .section .pdata, "dr"
    .long DemoSigned@IMGREL, DemoSignedInfo@IMGREL
    .text

// A system call: what KTRAP_FRAME has, at the top of the kernel stack that SP_EL1 is; then the kernel runs on SP_EL0.
    .globl DemoSystemService
    .seh_proc DemoSystemService
DemoSystemService:
    .seh_trap_frame
    .seh_endprologue
    sub sp, sp, #0x160
    stp x0, x1, [sp, #0xa0]
    stp x2, x3, [sp, #0xb0]
    stp x4, x5, [sp, #0xc0]
    stp x6, x7, [sp, #0xd0]
    stp x8, x9, [sp, #0xe0]
    stp x10, x11, [sp, #0xf0]
    stp x12, x13, [sp, #0x100]
    stp x14, x15, [sp, #0x110]
    stp x16, x17, [sp, #0x120]
    str x18, [sp, #0x130]
    stp x30, x29, [sp, #0x138]
    mrs x9, elr_el1
    str x9, [sp, #0x148]
    mrs x9, spsr_el1
    str w9, [sp, #0x90]
    mrs x9, sp_el0
    str x9, [sp, #0x98]
    mrs x18, tpidr_el1
    mov x9, sp
    msr sp_el0, x9
    msr spsel, #0
    mov x0, x8
    bl DemoSystemCall
    nop
    .seh_endproc

// Exception vectors: only system calls are dealt with.
    .p2align 11
    .globl DemoVectors
DemoVectors:
    .rept 8
    b .
    .p2align 7
    .endr
    b DemoSystemService
    .p2align 7
    .rept 7
    b .
    .p2align 7
    .endr

// Never run, but unwound at each of its instructions.
    .globl DemoShapes
    .seh_proc DemoShapes
DemoShapes:
    stp x19, x20, [sp, #-80]!
    .seh_save_r19r20_x 80
    stp x21, x22, [sp, #16]
    .seh_save_next
    stp x23, x24, [sp, #32]
    .seh_save_next
    stp x25, x30, [sp, #48]
    .seh_save_lrpair x25, 48
    str x27, [sp, #64]
    .seh_save_reg x27, 64
    sub sp, sp, #0x120
    .seh_stackalloc 0x120
    stp d8, d9, [sp, #16]
    .seh_save_fregp d8, 16
    str d10, [sp, #32]
    .seh_save_freg d10, 32
    .seh_endprologue
    nop
    cbz x0, 1f
    .seh_startepilogue
    ldr d10, [sp, #32]
    .seh_save_freg d10, 32
    ldp d8, d9, [sp, #16]
    .seh_save_fregp d8, 16
    add sp, sp, #0x120
    .seh_stackalloc 0x120
    ldr x27, [sp, #64]
    .seh_save_reg x27, 64
    ldp x25, x30, [sp, #48]
    .seh_save_lrpair x25, 48
    ldp x23, x24, [sp, #32]
    .seh_save_next
    ldp x21, x22, [sp, #16]
    .seh_save_next
    ldp x19, x20, [sp], #80
    .seh_save_r19r20_x 80
    .seh_endepilogue
    ret
1:  bl DemoLeaf
    nop
    .seh_startepilogue
    ldr d10, [sp, #32]
    .seh_save_freg d10, 32
    ldp d8, d9, [sp, #16]
    .seh_save_fregp d8, 16
    add sp, sp, #0x120
    .seh_stackalloc 0x120
    ldr x27, [sp, #64]
    .seh_save_reg x27, 64
    ldp x25, x30, [sp, #48]
    .seh_save_lrpair x25, 48
    ldp x23, x24, [sp, #32]
    .seh_save_next
    ldp x21, x22, [sp, #16]
    .seh_save_next
    ldp x19, x20, [sp], #80
    .seh_save_r19r20_x 80
    .seh_endepilogue
    ret
    .seh_endproc

    .globl DemoFramePointer
    .seh_proc DemoFramePointer
DemoFramePointer:
    sub sp, sp, #0x40
    .seh_stackalloc 0x40
    stp x29, x30, [sp, #0x20]
    .seh_save_fplr 0x20
    str x21, [sp, #0x30]
    .seh_save_reg x21, 0x30
    add x29, sp, #0x20
    .seh_add_fp 0x20
    nop
    .seh_nop
    .seh_endprologue
    sub sp, sp, #0x200
    nop
    .seh_startepilogue
    sub sp, x29, #0x20
    .seh_add_fp 0x20
    ldr x21, [sp, #0x30]
    .seh_save_reg x21, 0x30
    ldp x29, x30, [sp, #0x20]
    .seh_save_fplr 0x20
    add sp, sp, #0x40
    .seh_stackalloc 0x40
    .seh_endepilogue
    ret
    .seh_endproc

    .globl DemoPreIndexed
    .seh_proc DemoPreIndexed
DemoPreIndexed:
    str x19, [sp, #-32]!
    .seh_save_reg_x x19, 32
    str x30, [sp, #16]
    .seh_save_reg x30, 16
    stp x23, x24, [sp, #-16]!
    .seh_save_regp_x x23, 16
    stp d10, d11, [sp, #-32]!
    .seh_save_fregp_x d10, 32
    str d12, [sp, #-16]!
    .seh_save_freg_x d12, 16
    sub sp, sp, #0x2000
    .seh_stackalloc 0x2000
    .seh_endprologue
    nop
    bl DemoLeaf
    nop
    brk #0xf000
    .seh_endproc

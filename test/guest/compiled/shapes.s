# Code that is never run, for what unwinders make of each of its bytes: epilogues of all kinds, and unwind data
# that this assembler can't write, so by hand.
    .intel_syntax noprefix
    .text

    .globl KiEndings
    .seh_proc KiEndings
KiEndings:
    push rbx
    .seh_pushreg rbx
    push r15
    .seh_pushreg r15
    sub rsp, 0x30
    .seh_stackalloc 0x30
    .seh_endprologue
    nop
    add rsp, 0x30
    pop r15
    pop rbx
    rep ret
    add rsp, 0x30
    pop r15
    pop rbx
    jmp KiFarther
    add rsp, 0x30
    pop r15
    pop rbx
    .byte 0x48, 0xff, 0xe0          # jmp rax, with REX.W
    add rsp, 0x30
    pop r15
    pop rbx
    jmp qword ptr [rip + KiDispatchTable]
    .byte 0x48, 0x81, 0xc4          # add rsp, 30h with 4 bytes
    .long 0x30
    pop r15
    pop rbx
    .byte 0xf2, 0xc3                # bnd ret
    add rsp, 0x30
    pop r15
    pop rbx
    jmp KiEndings
    add rsp, 0x30
    pop rbx
    jmp 1f
    nop
1:  pop rbx
    ret 8
    .seh_endproc

# Version 2: the epilogues are in the unwind data.
    .globl KiDescribed
KiDescribed:
    push rbx
    push r14
    sub rsp, 0x28
    test rax, rax
    jz 2f
    add rsp, 0x28
KiDescribedEpilogue:
    pop r14
    pop rbx
    ret
2:  nop
    ret                             # not an epilogue: the data does not say so
    add rsp, 0x28
    pop r14
    pop rbx
    ret
KiDescribedEnd:

# The far forms, with a frame pointer in the middle.
    .globl KiFarther
KiFarther:
    push rbp
    sub rsp, 0x60
    lea rbp, [rsp + 0x20]
    mov [rsp + 0x30], rsi
    mov [rsp + 0x38], rdi
    movaps [rsp + 0x40], xmm6
    nop
    lea rsp, [rbp + 0x40]
    pop rbp
    ret
KiFartherEnd:

# A region whose entry stands for that of KiFarther.
    .globl KiIndirect
KiIndirect:
    nop
    mov rax, [rsp + 0x30]
    nop
KiIndirectEnd:

    .section .xdata, "dr"
    .p2align 2
KiDescribedInfo:
    .byte 2, 7, 5, 0
    .byte 4, 0x16
    .byte KiDescribedEnd - KiDescribedEpilogue, 0x06
    .byte 7, 0x42, 3, 0xe0, 1, 0x30
    .p2align 2
KiFartherInfo:
    .byte 1, 0x19, 13, 0x25
    .byte 0x19, 0x69
    .long 0x40
    .byte 0x14, 0x75
    .long 0x38
    .byte 0x0f, 0x64
    .short 6
    .byte 0x0a, 0x03
    .byte 0x05, 0x11
    .long 0x60
    .byte 0x01, 0x50
    .p2align 2
KiFartherEntry:
    .long KiFarther@IMGREL, KiFartherEnd@IMGREL, KiFartherInfo@IMGREL

    .section .pdata, "dr"
    .long KiDescribed@IMGREL, KiDescribedEnd@IMGREL, KiDescribedInfo@IMGREL
    .long KiFarther@IMGREL, KiFartherEnd@IMGREL, KiFartherInfo@IMGREL
    .long KiIndirect@IMGREL, KiIndirectEnd@IMGREL, KiFartherEntry@IMGREL + 1

# Code that no debug information describes: public symbols alone.
    .intel_syntax noprefix
    .text
    .p2align 4

    .globl MarkedLabel
MarkedLabel:
    nop
    nop
    ret

    .p2align 4
    .globl _UnderscoredLabel
_UnderscoredLabel:
    nop
    xor eax, eax
    ret

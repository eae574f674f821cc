    .text
    .globl AppSystemCall
AppSystemCall:
    mov x8, x0
    svc #0
    ret

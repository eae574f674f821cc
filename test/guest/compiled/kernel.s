# What a compiler does not make: a leaf that halts, trap handlers with machine frames, chained unwind data.
    .intel_syntax noprefix
    .text

    .globl HalHaltProcessor
HalHaltProcessor:
    cli
1:  hlt
    jmp 1b

# int3: no error code. KiBreakpointTrap and the others save what KTRAP_FRAME has, with a frame pointer in its middle.
    .globl KiBreakpointTrap
    .seh_proc KiBreakpointTrap
KiBreakpointTrap:
    .seh_pushframe
    push rbp
    .seh_pushreg rbp
    sub rsp, 0x150
    .seh_stackalloc 0x150
    lea rbp, [rsp + 0x80]
    .seh_setframe rbp, 0x80
    mov [rsp + 0x100], rsi
    .seh_savereg rsi, 0x100
    mov [rsp + 0x108], rdi
    .seh_savereg rdi, 0x108
    movaps [rsp + 0x110], xmm6
    .seh_savexmm xmm6, 0x110
    .seh_endprologue
    test byte ptr [rsp + 0x160 + 8], 3
    jz 1f
    swapgs
1:  lea rcx, [rbp - 0x80]
    call KdTrap
    int3
    .seh_endproc

# Page fault: with an error code.
    .globl KiPageFault
    .seh_proc KiPageFault
KiPageFault:
    .seh_pushframe @code
    push rbp
    .seh_pushreg rbp
    push rbx
    .seh_pushreg rbx
    sub rsp, 0x1050
    .seh_stackalloc 0x1050
    lea rbp, [rsp + 0x40]
    .seh_setframe rbp, 0x40
    mov [rsp + 0x1008], rsi
    .seh_savereg rsi, 0x1008
    .seh_endprologue
    mov rcx, rsp
    call MmAccessFault
    int3
    .seh_endproc

# int 2Eh: how user mode calls the kernel.
    .globl KiSystemService
    .seh_proc KiSystemService
KiSystemService:
    .seh_pushframe
    push rbp
    .seh_pushreg rbp
    sub rsp, 0x150
    .seh_stackalloc 0x150
    lea rbp, [rsp + 0x80]
    .seh_setframe rbp, 0x80
    .seh_endprologue
    swapgs
    mov rcx, rsp
    mov edx, eax
    call NtDelayExecution
    int3
    .seh_endproc

# A function in three parts, of which the last two are chained to the first: the second saves a register in its frame.
# By hand, since the assembler's own chained parts overlap their parent, and then finding one depends on luck.
    .globl KiChainedWait
KiChainedWait:
    push rbx
    push r12
    sub rsp, 0x48
    mov rbx, rcx
KiChainedSecond:
    mov [rsp + 0x30], rsi
    mov rsi, rcx
    call HalHaltProcessor
    nop
    mov rsi, [rsp + 0x30]
KiChainedThird:
    add rsp, 0x48
    pop r12
    pop rbx
    ret
KiChainedEnd:

    .section .xdata, "dr"
    .p2align 2
KiChainedWaitInfo:
    .byte 1, 7, 3, 0
    .byte 7, 0x82, 3, 0xc0, 1, 0x30
    .p2align 2
KiChainedSecondInfo:
    .byte 0x21, 5, 2, 0
    .byte 5, 0x64
    .short 6
    .long KiChainedWait@IMGREL, KiChainedSecond@IMGREL, KiChainedWaitInfo@IMGREL
KiChainedThirdInfo:
    .byte 0x21, 0, 0, 0
    .long KiChainedWait@IMGREL, KiChainedSecond@IMGREL, KiChainedWaitInfo@IMGREL

    .section .pdata, "dr"
    .long KiChainedWait@IMGREL, KiChainedSecond@IMGREL, KiChainedWaitInfo@IMGREL
    .long KiChainedSecond@IMGREL, KiChainedThird@IMGREL, KiChainedSecondInfo@IMGREL
    .long KiChainedThird@IMGREL, KiChainedEnd@IMGREL, KiChainedThirdInfo@IMGREL
    .text

# Calls a function on another stack, as Windows does for DPCs and interrupts.
    .globl KiSwitchStack
    .seh_proc KiSwitchStack
KiSwitchStack:
    push rbp
    .seh_pushreg rbp
    mov rbp, rsp
    .seh_setframe rbp, 0
    .seh_endprologue
    mov rsp, rcx
    sub rsp, 0x20
    mov rcx, r8
    call rdx
    mov rsp, rbp
    pop rbp
    ret
    .seh_endproc

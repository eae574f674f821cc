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

# Unwind data in two parts: the second saves a register in the frame of the first.
    .globl KiChainedWait
    .seh_proc KiChainedWait
KiChainedWait:
    push rbx
    .seh_pushreg rbx
    push r12
    .seh_pushreg r12
    sub rsp, 0x48
    .seh_stackalloc 0x48
    .seh_endprologue
    mov rbx, rcx
    .seh_startchained
    mov [rsp + 0x30], rsi
    .seh_savereg rsi, 0x30
    .seh_endprologue
    mov rsi, rcx
    call HalHaltProcessor
    nop
    mov rsi, [rsp + 0x30]
    .seh_endchained
    add rsp, 0x48
    pop r12
    pop rbx
    ret
    .seh_endproc

; A 64 KiB firmware for 32-bit guests, as ../stub.asm is for 64-bit ones: puts every CPU into the state its record asks
; for, and writes no memory on the way. test/support/qemu-x86.ts fills the page tables and the records.
;
; Reset vector or SIPI -> protected mode -> paging on the tables below, whose upper part is the guest kernel's ->
; descriptor tables and segments of the record -> the record's entry point: code in the guest's own kernel, which
; loads CR3 and the general registers.

org 0xf0000
%define SEGMENT 0xf000

; A page directory or, with PAE, a PDPT; 0xf1000: its first page directory.
%define ROOT 0xf0000
%define RECORDS 0xf3000
%define RECORD_SHIFT 8
%define LOCAL_APIC 0xfee00000

%define CR3_ 0x00
%define ENTRY 0x04
%define EFLAGS_ 0x08
%define CR0_ 0x0c
%define CR4_ 0x10
%define GDTR_ 0x14
%define IDTR_ 0x1c
%define OWN_GDTR 0x24
%define SS_ 0x2c
%define DS_ 0x2e
%define ES_ 0x30
%define FS_ 0x32
%define GS_ 0x34
%define TR_ 0x36
%define STARTED 0x38

times 0xc000 - ($ - $$) db 0

bits 16
enter16:
    cli
    o32 lgdt [cs:boot_gdtr - $$]
    mov eax, cr0
    and eax, 0x9fffffff         ; caches on
    or al, 1
    mov cr0, eax
    jmp dword 0x08:enter32

bits 32
enter32:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, 1
    cpuid
    shr ebx, 24                 ; APIC id = index of the record
    mov ebp, ebx
    shl ebx, RECORD_SHIFT
    add ebx, RECORDS
    test ebp, ebp
    jnz .ready

    ; The first CPU: no timer interrupts, and start the others while addresses are physical.
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov edi, LOCAL_APIC
    mov esi, RECORDS
    xor ecx, ecx
.next:
    inc ecx
    add esi, 1 << RECORD_SHIFT
    cmp ecx, [cpus]
    jae .ready
    cmp byte [esi + STARTED], 0
    je .next
    mov eax, ecx
    shl eax, 24
    mov [edi + 0x310], eax
    mov dword [edi + 0x300], 0x46ff     ; SIPI to page 0xff
    jmp .next

.ready:
    mov eax, [ebx + CR4_]
    mov cr4, eax
    mov eax, ROOT
    mov cr3, eax
    mov eax, [ebx + CR0_]
    mov cr0, eax
    lgdt [ebx + OWN_GDTR]       ; has the guest's descriptors, but the TSS's not busy
    mov ax, [ebx + SS_]
    mov ss, ax
    mov ax, [ebx + DS_]
    mov ds, ax
    mov ax, [ebx + ES_]
    mov es, ax
    mov ax, [ebx + FS_]
    mov fs, ax
    mov ax, [ebx + GS_]
    mov gs, ax
    ltr [ebx + TR_]
    lidt [ebx + IDTR_]
    lgdt [ebx + GDTR_]
    lea esp, [ebx + EFLAGS_]
    popfd
    mov eax, [ebx + CR3_]
    jmp [ebx + ENTRY]

align 8
boot_gdt:
    dq 0
    dq 0x00cf9b000000ffff       ; code, as the guest's
    dq 0x00cf93000000ffff       ; data
boot_gdtr:
    dw $ - boot_gdt - 1
    dd boot_gdt

times 0xeffc - ($ - $$) db 0
cpus:
    dd 0

; What a SIPI starts: cs = 0xff00.
bits 16
    jmp SEGMENT:enter16 - $$

times 0xfff0 - ($ - $$) db 0
    jmp SEGMENT:enter16 - $$
times 0x10000 - ($ - $$) db 0

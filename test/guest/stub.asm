; A 64 KiB firmware that puts every CPU into the state its record asks for, and writes no memory on the way.
; test/support/qemu.ts fills the page tables and the records. It is seen at 0xf0000, and below 4 GiB.
;
; Reset vector or SIPI -> protected mode -> long mode on the page tables below, whose upper half is the
; guest kernel's -> descriptor tables, segments and MSRs of the record -> the record's entry point: code in
; the guest's own kernel, which loads CR3 and the general registers.

org 0xf0000
%define SEGMENT 0xf000

%define ROOT 0xf0000
; 0xf1000: the table under ROOT's entry 0 with 5 levels; 0xf2000: the identity map, with the tables at 0xfa000 and
; 0xfb000 below it.
%define RECORDS 0xf3000
%define RECORD_SHIFT 8
%define LOCAL_APIC 0xfee00000

%define CR3_ 0x00
%define ENTRY 0x08
%define RFLAGS 0x10
%define CR0_ 0x18
%define CR4_ 0x20
%define FS_BASE 0x28
%define GS_BASE 0x30
%define KERNEL_GS_BASE 0x38
%define GDTR_ 0x40
%define IDTR_ 0x50
%define OWN_GDTR 0x60
%define SS_ 0x70
%define DS_ 0x72
%define ES_ 0x74
%define FS_ 0x76
%define GS_ 0x78
%define TR_ 0x7a
%define STARTED 0x7c
%define note_info_at 0xfefe8

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
    mov ax, 0x18
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
    jnz .long
    cmp byte [ebx + STARTED], 0
    jne .long

    ; A first CPU that is to be found here, in 32-bit code: it starts the others, and halts.
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
    jae .halt
    mov eax, ecx
    shl eax, 24
    mov [edi + 0x310], eax
    mov dword [edi + 0x300], 0x46ff
    jmp .next
.halt:
    hlt
    jmp .halt

.long:
    mov eax, [ebx + CR4_]
    and eax, ~(1 << 17)         ; PCIDE only in long mode
    mov cr4, eax
    mov eax, ROOT
    mov cr3, eax
    mov ecx, 0xc0000080         ; EFER: SCE, LME, NXE
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 0x10:enter64

bits 64
enter64:
    mov ebx, ebx
    mov rax, [rbx + CR4_]
    mov cr4, rax
    lgdt [rbx + OWN_GDTR]       ; has the guest's descriptors, but the TSS's not busy
    mov ax, [rbx + SS_]
    mov ss, ax
    mov ax, [rbx + DS_]
    mov ds, ax
    mov ax, [rbx + ES_]
    mov es, ax
    mov ax, [rbx + FS_]
    mov fs, ax
    mov ax, [rbx + GS_]
    mov gs, ax
    ltr [rbx + TR_]
    mov ecx, 0xc0000100
    mov eax, [rbx + FS_BASE]
    mov edx, [rbx + FS_BASE + 4]
    wrmsr
    inc ecx
    mov eax, [rbx + GS_BASE]
    mov edx, [rbx + GS_BASE + 4]
    wrmsr
    inc ecx
    mov eax, [rbx + KERNEL_GS_BASE]
    mov edx, [rbx + KERNEL_GS_BASE + 4]
    wrmsr
    mov rax, [rbx + CR0_]
    mov cr0, rax
    test ebp, ebp
    jnz .ready

    ; The first CPU: tell QEMU of the guest's note, no timer interrupts, and start the others.
    cmp dword [rel note_size], 0
    jne tell_note
.told:
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov edi, LOCAL_APIC
    mov esi, RECORDS
    xor ecx, ecx
.next:
    inc ecx
    add esi, 1 << RECORD_SHIFT
    cmp ecx, [rel cpus]
    jae .ready
    cmp byte [rsi + STARTED], 0
    je .next
    mov eax, ecx
    shl eax, 24
    mov [rdi + 0x310], eax
    cmp dword [rel under_kvm], 0
    je .start
    mov dword [rdi + 0x300], 0x4500     ; INIT
.start:
    mov dword [rdi + 0x300], 0x46ff     ; SIPI to page 0xff
    jmp .next

.ready:
    ; What only a migration stream has, different on each CPU (test/readers/qevm).
    test dword [rbx + CR4_], 1 << 9     ; OSFXSR
    jz .plain
    mov rax, 0x1122334455667700
    or rax, rbp
    mov dr0, rax
    cmp dword [rel under_kvm], 0
    jne .debug
    fninit
    fld1
    fldpi
    ldmxcsr [rel mxcsr_value]
    movq xmm0, rax
    movq xmm15, rax
    pshufd xmm15, xmm15, 0x1b
.debug:
    mov rax, 0x401
    mov dr7, rax
    lea rax, [rbp + 3]
    mov cr8, rax
.plain:
    lidt [rbx + IDTR_]
    lgdt [rbx + GDTR_]
    lea rsp, [rbx + RFLAGS]
    popfq
    mov rax, [rbx + CR3_]
    jmp [rbx + ENTRY]

; Finds the file "etc/vmcoreinfo" in QEMU's fw_cfg directory (0x19) and writes it by DMA, which needs no memory here.
tell_note:
    mov dx, 0x510
    mov ax, 0x19
    out dx, ax
    inc dx
    xor ecx, ecx
    mov r8d, 4
.count:
    in al, dx
    shl ecx, 8
    mov cl, al
    dec r8d
    jnz .count                  ; big-endian count of files
.file:
    mov r8d, 4
.size:
    in al, dx
    dec r8d
    jnz .size
    in al, dx
    mov r9b, al
    in al, dx
    movzx r9d, r9b
    shl r9d, 8
    movzx r10d, al
    or r9d, r10d                ; its selector
    in al, dx
    in al, dx
    lea rsi, [rel note_file]
    xor r11d, r11d
    mov r8d, 56
.name:
    in al, dx
    cmp al, [rsi]
    je .same
    inc r11d
.same:
    inc rsi
    dec r8d
    jnz .name
    test r11d, r11d
    jz .found
    dec ecx
    jnz .file
    jmp enter64.told
.found:
    dec dx
    mov eax, r9d
    out dx, ax
    mov dx, 0x514
    xor eax, eax
    out dx, eax
    mov dx, 0x518
    mov eax, note_access
    bswap eax
    out dx, eax
    jmp enter64.told

align 8
; FWCfgDmaAccess, big-endian: write 16 bytes from note_info to the selected file.
note_access:
    db 0, 0, 0, 0x10, 0, 0, 0, 16
    dd 0
    db (note_info_at >> 24) & 0xff, (note_info_at >> 16) & 0xff, (note_info_at >> 8) & 0xff, note_info_at & 0xff
note_file:
    db "etc/vmcoreinfo"
    times 56 - ($ - note_file) db 0

align 8
mxcsr_value:
    dd 0x1fc0
align 8
boot_gdt:
    dq 0
    dq 0x00cf9b000000ffff       ; 32-bit code
    dq 0x00209b0000000000       ; 64-bit code, as the guest's
    dq 0x00cf93000000ffff       ; data
boot_gdtr:
    dw $ - boot_gdt - 1
    dd boot_gdt

times 0xefe8 - ($ - $$) db 0
; FWCfgVMCoreInfo: formats (ELF), size and physical address of the guest's note; size 0: there is none.
note_info:
    dw 1, 1
note_size:
    dd 0
    dq 0
under_kvm:                    ; 1: CPUs wait for an INIT, and where KVM emulates instructions it has no x87's and SSE's
    dd 0
cpus:
    dd 0

; What a SIPI starts: cs = 0xff00.
bits 16
    jmp SEGMENT:enter16 - $$

times 0xfff0 - ($ - $$) db 0
    jmp SEGMENT:enter16 - $$
times 0x10000 - ($ - $$) db 0

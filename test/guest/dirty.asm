; A firmware of 64 KiB whose one CPU changes memory for ever: a counter in each page from 1 MiB to 17 MiB, and in every
; sixteenth page all of its bytes.
org 0xf0000
times 0xc000 - ($ - $$) db 0

bits 16
enter16:
    cli
    o32 lgdt [cs:gdtr - $$]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 0x08:enter32

bits 32
enter32:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    cld
    xor edx, edx
.pass:
    mov ebx, 0x100000
.page:
    inc dword [ebx + 0x120]
    inc dword [ebx + 0xf80]
    test ebx, 0xf000
    jnz .next
    mov edi, ebx
    mov eax, edx
    mov ecx, 1024
    rep stosd
.next:
    add ebx, 0x1000
    cmp ebx, 0x1100000
    jb .page
    add edx, 0x01030507
    ; Every fourth pass the pages are zero.
    test edx, 3
    jnz .pass
    mov edi, 0x100000
    xor eax, eax
    mov ecx, 0x40000
    rep stosd
    jmp .pass

align 8
gdt:
    dq 0
    dq 0x00cf9b000000ffff
    dq 0x00cf93000000ffff
gdtr:
    dw $ - gdt - 1
    dd gdt

times 0xfff0 - ($ - $$) db 0
bits 16
    jmp 0xf000:enter16 - $$
times 0x10000 - ($ - $$) db 0

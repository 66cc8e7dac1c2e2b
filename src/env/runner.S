/* The fork server's Python text, inside the program. */
    .section .rodata
    .global vkm_zygote_text
    .global vkm_zygote_text_end
vkm_zygote_text:
    .incbin "zygote.py"
vkm_zygote_text_end:
    .byte 0
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif

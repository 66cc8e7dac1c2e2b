/* The page's style and scripts, inside the program, each ended by a NUL. chart.min.js is the Chart.js
 * of the system. */
    .section .rodata
    .global vkm_page_css
    .global vkm_page_chart
    .global vkm_page_parts
    .global vkm_page_script
vkm_page_css:
    .incbin "page.css"
    .byte 0
vkm_page_chart:
    .incbin "chart.min.js"
    .byte 0
vkm_page_parts:
    .incbin "page_parts.js"
    .byte 0
vkm_page_script:
    .incbin "page.js"
    .byte 0
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif

/* The page's style and scripts, inside the program. chart.min.js is Chart.js of the system. */
    .section .rodata
    .global vkm_page_css
    .global vkm_page_css_end
    .global vkm_page_chart
    .global vkm_page_chart_end
    .global vkm_page_script
    .global vkm_page_script_end
vkm_page_css:
    .incbin "page.css"
vkm_page_css_end:
    .byte 0
vkm_page_chart:
    .incbin "chart.min.js"
vkm_page_chart_end:
    .byte 0
vkm_page_script:
    .incbin "page.js"
vkm_page_script_end:
    .byte 0
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif

# Writes OUT/commit.h with the commit of SOURCE, only when it differs.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
execute_process(COMMAND git -C ${SOURCE} status --porcelain --untracked-files=no
  OUTPUT_VARIABLE changed ERROR_QUIET)
if(failed)
  set(commit unknown)
elseif(changed)
  string(APPEND commit "+")
endif()
file(CONFIGURE OUTPUT ${OUT}/commit.h CONTENT "#define VKM_COMMIT \"${commit}\"\n")

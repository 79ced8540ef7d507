# cmake --install BUILD --prefix FOLDER: a folder that runs where nothing is installed. bin/ holds the program, and the
# test programs of the GPU where they are built; lib/ the shared libraries that a bare Linux lacks. All find each other
# by $ORIGIN. What every Linux with glibc 2.36 has stays the system's: the C library and its parts, libstdc++ excepted.
# The NVIDIA driver, cuBLASLt and NCCL are opened at run time where they are.
set(bundle_programs inferneo)
foreach(target cuda_kernels_test cuda_golden_test cuda_engine_test cuda_ranks_test cuda_bench)
  if(TARGET ${target})
    list(APPEND bundle_programs ${target})
  endif()
endforeach()
set_target_properties(${bundle_programs} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
foreach(target ${bundle_programs})
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)  # the path holds for what libraries need as well
endforeach()
install(TARGETS ${bundle_programs} RUNTIME_DEPENDENCY_SET bundle_libraries RUNTIME DESTINATION bin)
install(RUNTIME_DEPENDENCY_SET bundle_libraries
        PRE_EXCLUDE_REGEXES "^ld-linux" "^libc[.]so" "^libm[.]so" "^libdl[.]so" "^libpthread[.]so" "^librt[.]so"
                            "^libresolv[.]so" "^linux-vdso" "^libcuda[.]so" "^libcublas" "^libnccl"
        LIBRARY DESTINATION lib)
add_custom_target(bundle DEPENDS ${bundle_programs})  # all that is installed

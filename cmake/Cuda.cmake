# Finds nvcc and compiles kernels: inferneo_fatbins(<target> SOURCES x.cu ...) makes <target> depend on machine code and PTX
# of each file and tells its sources where they lie (kernels/cuda/embedded.cc takes them in). Nothing of the toolkit is
# linked: the driver is opened at run time.
#
# Machine code is made for sm_90a (Hopper), PTX for 8.0, which the driver turns into code for whatever GPU there is.
file(GLOB nvcc_of_setup ${CMAKE_SOURCE_DIR}/build/cuda-toolkit/lib/python3*/site-packages/nvidia/cu13/bin)  # setup_cuda
find_program(INFERNEO_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS /usr/local/cuda/bin ${nvcc_of_setup})
if(NOT INFERNEO_NVCC)
  message(FATAL_ERROR "INFERNEO_CUDA=ON needs nvcc of CUDA 12.8 or newer: set CUDA_HOME, or -DINFERNEO_NVCC=/path/to/nvcc "
                      "(docs/cuda.md says where to get it without root)")
endif()
execute_process(COMMAND ${INFERNEO_NVCC} --version OUTPUT_VARIABLE nvcc_version)
string(REGEX MATCH "release ([0-9]+[.][0-9]+)" nvcc_version "${nvcc_version}")
set(INFERNEO_NVCC_VERSION ${CMAKE_MATCH_1})
message(STATUS "CUDA kernels: nvcc ${INFERNEO_NVCC_VERSION} (${INFERNEO_NVCC})")

# The toolkit's header, where it lies beside the compiler: what tensor/cuda/driver.h says of it is compared with it.
get_filename_component(nvcc_folder ${INFERNEO_NVCC} REALPATH)
get_filename_component(nvcc_folder ${nvcc_folder} DIRECTORY)
find_path(INFERNEO_CUDA_INCLUDE cuda.h HINTS ${nvcc_folder}/../include ${nvcc_folder}/../targets/x86_64-linux/include)

# NCCL's, of the system or beside a compiler from Python packages; the same for tensor/cuda/nccl.h.
find_path(INFERNEO_NCCL_INCLUDE nccl.h HINTS ${nvcc_folder}/../include ${nvcc_folder}/../../nccl/include)

set(INFERNEO_NVCC_FLAGS -std=c++20 -O3 --fatbin -Xptxas -v
    -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80
    -I${CMAKE_SOURCE_DIR}/src -I${CMAKE_SOURCE_DIR}/include)

function(inferneo_fatbins target)
  cmake_parse_arguments(CUDA "" "" "SOURCES" ${ARGN})
  set(folder ${CMAKE_BINARY_DIR}/cuda)
  file(MAKE_DIRECTORY ${folder})
  set(made)
  foreach(source ${CUDA_SOURCES})
    get_filename_component(name ${source} NAME_WE)
    set(fatbin ${folder}/${name}.fatbin)
    # What the assembler says of registers and spills stays beside it.
    add_custom_command(
      OUTPUT ${fatbin}
      COMMAND sh -c "\"$0\" \"$@\" 2>${folder}/${name}.log || { cat ${folder}/${name}.log >&2; exit 1; }"
              ${INFERNEO_NVCC} ${INFERNEO_NVCC_FLAGS} -MD -MF ${fatbin}.d -MT ${fatbin} -o ${fatbin} ${CMAKE_CURRENT_SOURCE_DIR}/${source}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source} DEPFILE ${fatbin}.d
      COMMENT "nvcc: ${source}" VERBATIM)
    list(APPEND made ${fatbin})
  endforeach()
  add_custom_target(${target}_fatbins DEPENDS ${made})
  add_dependencies(${target} ${target}_fatbins)
  set_source_files_properties(cuda/embedded.cc PROPERTIES OBJECT_DEPENDS "${made}" COMPILE_DEFINITIONS
    "INFERNEO_CUDA_FATBINS=\"${folder}\";INFERNEO_CUDA_TARGETS=\"sm_90a, PTX for 8.0 and newer (nvcc ${INFERNEO_NVCC_VERSION})\"")
endfunction()

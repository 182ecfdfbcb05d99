# The CUDA files (src/dsv3/ROOM/cuda/*.cpp) and what they link: libtorch_cuda, libc10_cuda and the libraries that these
# need, all from wheels. Headers too: a machine has no CUDA toolkit, and one that is there may be another version.
set(DSV3_CUDA_LIBS "${CMAKE_SOURCE_DIR}/.deps/cuda/nvidia" CACHE PATH
  "Folder with cu13/, cudnn/, nccl/, … (site-packages/nvidia of the Python environment that holds the torch)")
if(NOT EXISTS "${DSV3_CUDA_LIBS}/cu13/include/cuda_runtime_api.h")
  message(FATAL_ERROR "DSV3_CUDA_LIBS=${DSV3_CUDA_LIBS}: no cu13/include/cuda_runtime_api.h there (run tools/setup cuda)")
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS src/dsv3/*/cuda/*.cpp)
add_library(dsv3_cuda OBJECT ${cuda_sources})
target_include_directories(dsv3_cuda PRIVATE src)
file(GLOB cuda_includes LIST_DIRECTORIES TRUE "${DSV3_CUDA_LIBS}/*/include")
target_include_directories(dsv3_cuda SYSTEM PRIVATE ${cuda_includes})
target_compile_definitions(dsv3_cuda PRIVATE USE_C10D_NCCL)
target_link_libraries(dsv3_cuda PRIVATE dsv3_engine_deps nlohmann_json::nlohmann_json)

foreach(lib torch_cuda c10_cuda)
  add_library(dsv3_${lib} SHARED IMPORTED GLOBAL)
  set_target_properties(dsv3_${lib} PROPERTIES IMPORTED_LOCATION "${DSV3_TORCH}/lib/lib${lib}.so")
endforeach()
# By their versioned names, as libtorch_cuda asks for them; the linker then finds every symbol (--no-undefined), and the
# run-time loader the files, wherever the wheels lie.
set(cuda_libraries)
set(DSV3_CUDA_RPATH)
foreach(lib cu13/lib/libcudart cu13/lib/libcublas cu13/lib/libcublasLt cu13/lib/libcufft cu13/lib/libcufile cu13/lib/libcurand
        cu13/lib/libcusolver cu13/lib/libcusparse cu13/lib/libnvJitLink cudnn/lib/libcudnn cusparselt/lib/libcusparseLt
        nccl/lib/libnccl nvshmem/lib/libnvshmem_host)
  file(GLOB found "${DSV3_CUDA_LIBS}/${lib}.so.*")
  if(NOT found)
    message(FATAL_ERROR "${DSV3_CUDA_LIBS}/${lib}.so.*: not there (run tools/setup cuda)")
  endif()
  list(APPEND cuda_libraries ${found})
  cmake_path(GET lib PARENT_PATH folder)
  list(APPEND DSV3_CUDA_RPATH "${DSV3_CUDA_LIBS}/${folder}")
endforeach()
list(REMOVE_DUPLICATES DSV3_CUDA_RPATH)
target_sources(dsv3 PRIVATE $<TARGET_OBJECTS:dsv3_cuda>)
target_link_libraries(dsv3 PRIVATE dsv3_torch_cuda dsv3_c10_cuda ${cuda_libraries})
target_link_options(dsv3 PRIVATE -Wl,--no-undefined)
target_link_options(dsv3_engine PRIVATE -Wl,--no-undefined)

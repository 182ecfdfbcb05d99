# Imported targets for the libtorch inside the PyPI wheel. find_package(Torch) is not used: it asks for nvcc and the
# CUDA toolkit even where nothing of CUDA is linked (docs/design.md, "Engine").
set(DSV3_TORCH "${CMAKE_SOURCE_DIR}/.deps/python/torch" CACHE PATH "Folder of an installed torch (the one with lib/ and include/)")
if(NOT EXISTS "${DSV3_TORCH}/include/ATen/ATen.h")
  message(FATAL_ERROR "DSV3_TORCH=${DSV3_TORCH}: no include/ATen/ATen.h there (run tools/setup, or pass -DDSV3_TORCH=/path/to/torch)")
endif()

# The version decides ABI and formats: a mismatch is an error here, not a crash later.
file(STRINGS "${DSV3_TORCH}/version.py" _torch_version REGEX "^__version__")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" DSV3_TORCH_VERSION "${_torch_version}")

# libtorch.so itself is an empty shell that asks for libtorch_cuda, and so for all of CUDA: not linked.
foreach(lib c10 torch_cpu)
  add_library(dsv3_${lib} SHARED IMPORTED GLOBAL)
  set_target_properties(dsv3_${lib} PROPERTIES IMPORTED_LOCATION "${DSV3_TORCH}/lib/lib${lib}.so")
endforeach()
add_library(dsv3_engine_deps INTERFACE)
target_include_directories(dsv3_engine_deps SYSTEM INTERFACE
  "${DSV3_TORCH}/include" "${DSV3_TORCH}/include/torch/csrc/api/include")
target_compile_definitions(dsv3_engine_deps INTERFACE USE_DISTRIBUTED USE_C10D_GLOO FMT_HEADER_ONLY)
# -fopenmp: without it at::parallel_for is inlined as a serial loop. The wheel's libgomp must be the one in the process.
target_compile_options(dsv3_engine_deps INTERFACE -fopenmp)
file(GLOB _gomp "${DSV3_TORCH}/lib/libgomp*.so*" "${DSV3_TORCH}/../torch.libs/libgomp*.so*")
list(GET _gomp 0 DSV3_GOMP)
target_link_options(dsv3_engine_deps INTERFACE "-Wl,--no-as-needed")
target_link_libraries(dsv3_engine_deps INTERFACE dsv3_torch_cpu dsv3_c10 "${DSV3_GOMP}")

# The wheel's fmt, header-only, for the torch-free core: one fmt in the process.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt_include")
file(CREATE_LINK "${DSV3_TORCH}/include/fmt" "${CMAKE_BINARY_DIR}/fmt_include/fmt" SYMBOLIC)
add_library(dsv3_fmt INTERFACE)
target_include_directories(dsv3_fmt SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/fmt_include")
target_compile_definitions(dsv3_fmt INTERFACE FMT_HEADER_ONLY)

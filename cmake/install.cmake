# A prefix holds the program, the two libraries, the public headers and a CMake package. The torch folder of the build is
# in the libraries' run paths; there is no ABI promise between versions.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dsv3)

target_compile_features(dsv3_core PUBLIC cxx_std_20)
set_target_properties(dsv3_core PROPERTIES EXPORT_NAME core INSTALL_RPATH "$ORIGIN")
target_include_directories(dsv3 PUBLIC $<INSTALL_INTERFACE:include>)
# The wheel's own folder first: its libgomp must be the one in the process.
set_target_properties(dsv3 PROPERTIES INSTALL_RPATH "${DSV3_TORCH}/lib;$ORIGIN;${DSV3_CUDA_RPATH}")
install(TARGETS dsv3_core dsv3 EXPORT dsv3Targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS dsv3_program RUNTIME DESTINATION bin)
install(TARGETS dsv3_engine RUNTIME DESTINATION libexec/dsv3)

install(DIRECTORY src/dsv3 DESTINATION include FILES_MATCHING PATTERN "*.h"
  PATTERN cli EXCLUDE PATTERN cpu EXCLUDE PATTERN cuda EXCLUDE PATTERN torch_pch.h EXCLUDE)

# For programs that make Gloo groups of their own (comm/c10d.h): the wheel lacks these headers.
install(DIRECTORY third_party/gloo_stubs/gloo DESTINATION include/dsv3/gloo_stubs)
target_include_directories(dsv3 SYSTEM PUBLIC $<INSTALL_INTERFACE:include/dsv3/gloo_stubs>)

install(EXPORT dsv3Targets NAMESPACE dsv3:: DESTINATION ${package_dir})
configure_file(cmake/dsv3Config.cmake.in dsv3Config.cmake @ONLY)
write_basic_package_version_file(dsv3ConfigVersion.cmake COMPATIBILITY ExactVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/dsv3Config.cmake" "${CMAKE_CURRENT_BINARY_DIR}/dsv3ConfigVersion.cmake"
  cmake/torch.cmake DESTINATION ${package_dir})

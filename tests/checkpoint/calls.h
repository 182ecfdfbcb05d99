#pragma once
// System calls of this test program that a test holds or lets fail. Set while no other thread is at work.

#include <functional>

namespace dsv3::test {

// Before each write(2), on the thread that writes.
extern std::function<void()> before_write;
// Of each pread(2): the errno that it fails with, 0: it is done.
extern std::function<int(int fd)> pread_error;

}  // namespace dsv3::test

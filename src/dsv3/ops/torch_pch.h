#pragma once
// The precompiled header of the engine: what most files need of libtorch, and no more (torch/torch.h costs
// twice this).

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>

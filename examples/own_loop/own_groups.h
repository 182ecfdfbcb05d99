#pragma once
// Process groups that the program made itself, handed to dsv3 instead of letting it make its own.

#include <dsv3/comm/c10d.h>

// Joins WORLD_SIZE ranks at the file `store` and forms Gloo groups: all ranks shard one copy of the model,
// each two neighbours share its experts.
dsv3::Mesh own_groups(const char* store);

"""Makes tests/formats/dcp/ with PyTorch: small distributed checkpoints, and items as other versions wrote them.

  dcp_fixtures.py            writes them; the bytes differ from run to run (ids), the content does not

  one_rank/         nested dicts and lists, most dtypes, a scalar, an empty tensor, objects; one file
  two_ranks/        DTensors of 2 ranks (FSDP2's layout): rows that divide and that do not, one replicated
  two_by_two/       a DTensor on a mesh of 2 x 2 ranks, cut along both dims
  before_2.3/       one_rank's .metadata with the classes and the fields of PyTorch 2.0 to 2.2
Values: element i of a tensor is i, of its type; bool i % 2.
"""

import io
import os
import pickle
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, TensorProperties
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

FOLDER = Path(__file__).parents[2] / "tests" / "formats" / "dcp"
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.int32, torch.uint64,
          torch.uint32, torch.uint16, torch.uint8, torch.bool]


def counting(*shape, dtype=torch.float32):
    values = torch.arange(torch.Size(shape).numel())
    return (values % 2 if dtype == torch.bool else values).to(dtype).reshape(shape)


def one_rank(folder):
    state = {
        "model": {str(dtype).removeprefix("torch."): counting(2, 3, dtype=dtype) for dtype in DTYPES},
        "scalar": torch.tensor(7.0),
        "none": torch.zeros(0, 4),
        "view": counting(4, 4)[1:3],
        "optim": {"param_groups": [{"lr": 0.25, "betas": (0.9, 0.95)}]},
        "note": "é",
        "raw": b"\x00\xff",
        "step": 1 << 40,
    }
    dcp.save(state, storage_writer=filesystem.FileSystemWriter(folder, single_file_per_rank=True), no_dist=True)


def rank_main(rank, world, folder, rendezvous, make):
    dist.init_process_group("gloo", rank=rank, world_size=world, init_method=f"file://{rendezvous}")
    dcp.save(make(world), checkpoint_id=folder)
    dist.destroy_process_group()


def fsdp_state(world):
    mesh = init_device_mesh("cpu", (world,))
    return {
        "even": distribute_tensor(counting(4, 3), mesh, [Shard(0)]),
        "uneven": distribute_tensor(counting(3, 2), mesh, [Shard(0)]),
        "one_row": distribute_tensor(counting(1, 5), mesh, [Shard(0)]),
        "all": distribute_tensor(counting(2), mesh, [Replicate()]),
        "epoch": 3,
    }


def grid_state(world):
    mesh = init_device_mesh("cpu", (2, world // 2))
    return {"grid": distribute_tensor(counting(4, 6), mesh, [Shard(0), Shard(1)])}


class OldPickler(pickle._Pickler):
    """Names classes as before 2.3."""

    def save_global(self, obj, name=None):
        old = {TensorProperties: "TensorProperties", _MEM_FORMAT_ENCODING: "MEM_FORMAT_ENCODING"}.get(obj)
        if old is None:
            return super().save_global(obj, name)
        self.save("torch.distributed._shard.sharded_tensor.metadata")
        self.save(old)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


def old_metadata(metadata):
    for field in ("storage_meta", "version"):
        del metadata.__dict__[field]
    out = io.BytesIO()
    OldPickler(out, protocol=4).dump(metadata)
    return out.getvalue()


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)  # the path that is saved to stands in .metadata
    one_rank("one_rank")
    for name, world, make in (("two_ranks", 2, fsdp_state), ("two_by_two", 4, grid_state)):
        rendezvous = FOLDER / "rendezvous"
        mp.spawn(rank_main, args=(world, name, rendezvous, make), nprocs=world)
        rendezvous.unlink(missing_ok=True)
    (FOLDER / "before_2.3").mkdir()
    metadata = pickle.loads((FOLDER / "one_rank" / ".metadata").read_bytes())
    (FOLDER / "before_2.3" / ".metadata").write_bytes(old_metadata(metadata))
    print(f"{sum(f.stat().st_size for f in FOLDER.rglob('*') if f.is_file())} bytes in {FOLDER}")


if __name__ == "__main__":
    sys.exit(main())

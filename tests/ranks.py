"""Processes of their own, as a test starts them, and those that train together over gloo.

They are forked from a server that has imported what takes most of a start, and nothing else.
"""

import os
import socket
import time

import pytest
import torch
import torch.multiprocessing as mp

LONGEST_S = 240
FORKSERVER = mp.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["mmavlm.run"])


def spawn_ranks(worker, *arguments, ranks=2):
    """Run `worker(rank, port, *arguments)` as so many processes; fail if one waits for ever."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawned = mp.start_processes(
        worker, (port, *arguments), nprocs=ranks, join=False, start_method="forkserver"
    )
    end = time.monotonic() + LONGEST_S * ranks / 2
    while not spawned.join(timeout=1):
        if time.monotonic() > end:
            for process in spawned.processes:
                process.kill()
            pytest.fail("the ranks wait for each other")


def be_rank(rank, port, ranks=2):
    """Make this process one of them, on one thread."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks),
        "NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank),
    }  # fmt: skip
    torch.set_num_threads(1)

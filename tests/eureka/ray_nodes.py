"""A Ray cluster of two nodes on the loopback interface, in a process of its own: `python -m tests.eureka.ray_nodes`.

Prints one JSON line, {"address": ..., "second": pid of the second node's raylet}, and ends the cluster when its standard
input ends. Who starts it sets the environment (`eureka.executors.ray_cluster`).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20


def main() -> None:
    """See the module."""
    # Ray's cluster_utils notes the address in Ray's own folder, and does not make it on a machine that Ray is new to.
    Path("/tmp/ray").mkdir(exist_ok=True)
    folder = tempfile.mkdtemp(prefix="two-nodes-", dir="/tmp")
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    raylet = second.all_processes["raylet"][0].process.pid
    print(json.dumps({"address": cluster.address, "second": raylet}), flush=True)
    sys.stdin.read()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

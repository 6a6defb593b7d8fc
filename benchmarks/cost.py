"""What a long run costs on N accelerators, and where its limit lies: arithmetic alone, from numbers given on the command line.

    python benchmarks/cost.py                                       # ImageNet for 1000 epochs, and 10^9 images once, ResNet-50
    python benchmarks/cost.py --tflops 150 --network-gbit 100       # of your own machines

Nothing is timed. Four times are set beside each other for one update: the passes, the gradients between machines, the statistics of
batch norm between processes, and the files; the largest is the limit, since they overlap.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from measure import finish, table

# ResNet-50 at 224 px with the paper's heads (tests/test_encoders_resnet.py counts the parameters).
FORWARD_GFLOP = 8.2  # a view: 4.1 G multiplications and as many additions
PASSES = 2 * (3 + 1)  # two views; forward and backward of the online network count three, the target's forward pass one
PARAMETERS = 35.1e6  # of the online network: encoder 23.5, projector 9.4, predictor 2.1
NORMS = 53 + 2  # batch norms of encoder and heads
MEETINGS = 3  # of each, for each view: online forward and backward, target forward


@dataclass(frozen=True)
class Machines:
    tflops: float  # that the passes reach, of one accelerator
    per_machine: int
    network_gbit: float  # of one machine
    latency_us: float  # of one small exchange between all processes
    decode: float  # images a second and core, to two crops
    cores: int  # of one machine
    storage_gbit: float  # to one machine


@dataclass(frozen=True)
class Job:
    name: str
    images: float
    epochs: float
    batch: int
    kilobytes: float  # of a file


JOBS = (Job("ImageNet, 1000 epochs", 1.281167e6, 1000, 4096, 110), Job("10^9 images, 1 epoch", 1e9, 1, 4096, 110))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tflops", type=float, default=250.0, help="reached by one accelerator, not its peak")
    parser.add_argument("--per-machine", type=int, default=8)
    parser.add_argument("--network-gbit", type=float, default=400.0)
    parser.add_argument("--latency-us", type=float, default=30.0)
    parser.add_argument("--decode", type=float, default=710.0, help="benchmarks/views.py, host stage, one core")
    parser.add_argument("--cores", type=int, default=96)
    parser.add_argument("--storage-gbit", type=float, default=25.0)
    parser.add_argument("--tiny", action="store_true", help="the same: it takes no time")
    asked = vars(parser.parse_args())
    asked.pop("tiny")
    machines = Machines(**asked)
    rows = [cost(job, machines, count) for job in JOBS for count in (8, 64, 512)]
    head = ("", "accelerators", "images each", "passes ms", "gradients ms", "statistics ms", "decoding ms", "files ms", "limit", "hours")
    table("One update, and the whole", head, [shown(row) for row in rows])
    finish("cost", {"machines": asked, "rows": rows})


def cost(job: Job, m: Machines, count: int) -> dict[str, object]:
    """Milliseconds of an update on so many accelerators, and hours of the whole."""
    each, hosts = job.batch / count, -(-count // m.per_machine)
    # Between machines each holds one copy of the gradient, in float32, that goes round a ring once to be summed and once to be spread.
    gradients = 2 * (hosts - 1) / hosts * PARAMETERS * 4 * 8 / (m.network_gbit * 1e9) * 1e3
    times = {
        "passes": each * PASSES * FORWARD_GFLOP / m.tflops,
        "gradients": gradients,
        "statistics": 0.0 if count == 1 else 2 * MEETINGS * NORMS * m.latency_us / 1e3,
        "decoding": job.batch / (hosts * m.cores * m.decode) * 1e3,
        "files": job.batch / hosts * job.kilobytes * 8e3 / (m.storage_gbit * 1e9) * 1e3,
    }
    # Statistics are waited for in the middle of the passes; the others go on beside them.
    alone = {**times, "passes": times["passes"] + times["statistics"]}
    alone.pop("statistics")
    limit = max(alone, key=alone.__getitem__)
    if limit == "passes" and times["statistics"] > times["passes"]:
        limit = "statistics"
    hours = max(alone.values()) / 1e3 * job.images * job.epochs / job.batch / 3600
    return {"job": job.name, "accelerators": count, "each": each, **times, "limit": limit, "hours": hours}


def shown(row: dict[str, object]) -> tuple[str, ...]:
    numbers = [f"{row[k]:.1f}" for k in ("passes", "gradients", "statistics", "decoding", "files")]
    hours = float(row["hours"])  # type: ignore[arg-type]
    return (
        str(row["job"]),
        str(row["accelerators"]),
        f"{row['each']:g}",
        *numbers,
        str(row["limit"]),
        f"{hours:.1f}" if hours < 99 else f"{hours:,.0f}",
    )


if __name__ == "__main__":
    main()

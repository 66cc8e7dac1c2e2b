#!/usr/bin/env python3
"""Reads a run's event file with the tensorboard package (pip install tensorboard) and compares it with
steps.jsonl, eval.jsonl and metrics.csv: tools/check_events.py RUN"""

import csv
import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def lines(path):
    return [json.loads(line) for line in path.open()] if path.exists() else []


def as_float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def main():
    run = pathlib.Path(sys.argv[1])
    steps = lines(run / "steps.jsonl")
    wanted = {}
    for line in steps:
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)):
                wanted.setdefault(name, []).append((line["step"], as_float32(value)))
    for line in lines(run / "eval.jsonl"):
        for state, counts in line.items():
            if isinstance(counts, dict) and counts["n"]:
                for rate, key in (("hack", "hacked"), ("solve", "solved"), ("compile", "compiled")):
                    value = as_float32(counts[key] / counts["n"])
                    wanted.setdefault(f"eval/{state}/{rate}_rate", []).append((line["step"], value))
    a = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
    a.Reload()
    scalars = {}
    for tag in a.Tags()["scalars"]:
        scalars[tag] = [(e.step, e.value) for e in a.Scalars(tag)]
    for tag in a.Tags()["tensors"]:  # scalars, as newer readers convert them
        values = [(e.step, e.tensor_proto.float_val[0]) for e in a.Tensors(tag) if e.tensor_proto.float_val]
        if values:
            scalars[tag] = values
    assert scalars == wanted, {k: (scalars.get(k), wanted.get(k)) for k in scalars.keys() | wanted.keys()
                               if scalars.get(k) != wanted.get(k)}
    table = list(csv.DictReader((run / "metrics.csv").open()))
    assert len(table) == len(steps), (len(table), len(steps))
    for row, line in zip(table, steps):
        assert row.keys() == line.keys(), row.keys() ^ line.keys()
        for name, value in line.items():
            text = row[name]
            same = text == "" if value is None else text == value if isinstance(value, str) else float(text) == value
            assert same, (line["step"], name, text, value)
    print(f"{run}: {len(scalars)} scalars and {len(a.Tags()['histograms'])} histograms over {len(steps)} steps agree")


if __name__ == "__main__":
    main()

# ruff: noqa: E501
"""python run.py [--sets control equality] [--methods engine] [--only NAME]: a row per problem and method, and a summary
of each set. `--sets random` is three hundred random control problems."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import tempfile
import time
import warnings
from collections import Counter

import numpy as np
from cases import Problem
from model import ipopt
from problems import SETS

CACHE = pathlib.Path(tempfile.gettempdir()) / "sqp_methods_ipopt.json"
METHODS = {"engine": "engine", "filter": "filter_ip", "augmented": "augmented", "elastic": "elastic"}


def peer(p: Problem) -> tuple:
    known = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    if p.name not in known:
        known[p.name] = ipopt(p)
        spare = CACHE.with_suffix(f".{os.getpid()}")
        spare.write_text(json.dumps(known))
        spare.replace(CACHE)
    return tuple(known[p.name])


def verdict(p: Problem, r, value: float, its: int, peer_status: str) -> str:
    if p.name.startswith("random") and not peer_status.startswith("Solve"):
        return r.status
    if p.ending != "CONVERGED":
        return "ok" if r.status == p.ending else "WRONG"
    if r.status not in ("CONVERGED", "RANK_DEFICIENT", "PRECISION_FLOOR"):
        return "FAIL"
    if r.violation > 1e-8:
        return "VIOLATED"
    goal = value if p.optimum is None else p.optimum
    off = abs(r.value - goal) / max(1e-3, abs(goal))
    late = "" if r.steps <= 1.5 * its + 1 else " slow"
    return ("ok" if off <= 1e-6 else "other" if p.several else "VALUE") + late


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--methods", nargs="*", default=["engine"])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--mode", default="cg")
    parser.add_argument("--gamma", type=float, default=1e-10)
    parser.add_argument("--local", type=int, default=1)
    parser.add_argument("--cg", type=int, default=6)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="option=value")
    a = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    import system

    system.MODE, system.GAMMA, system.LOCAL, system.CG = a.mode, a.gamma, bool(a.local), a.cg
    options = {k: json.loads(v) for k, v in (s.split("=") for s in a.set)}
    print(
        f"{'problem':26} {'method':9} {'it':>4} {'ipopt':>5} {'value':>16} {'goal':>16} {'viol':>8} {'err':>8} fac  val pass rest  s status",
        flush=True,
    )
    for name in a.sets:
        counts: Counter = Counter()
        for p in SETS[name]():
            if not any(only in p.name for only in (a.only or [""])):
                continue
            status, its, value, off = peer(p)
            if status.startswith("Solve") and off > 1e-3:
                status = "Infeasible, says Solved"
            for method in a.methods:
                t = time.time()
                try:
                    r = importlib.import_module(METHODS[method]).solve(p, verbose=a.verbose, **options)
                except Exception as error:
                    if a.verbose:
                        raise
                    print(f"{p.name:26} {method:9} raised {error!r}", flush=True)
                    continue
                goal, word = value if p.optimum is None else p.optimum, verdict(p, r, value, its, status)
                end = (
                    "solved" if status.startswith("Sol") else "infeasible" if status.startswith("Inf") else "not solved"
                )
                counts[method, end, word.removesuffix(" slow")] += 1
                print(
                    f"{p.name:26} {method:9} {r.steps:4d} {its:5d} {r.value:16.9g} {goal:16.9g} {r.violation:8.1e} {r.error:8.1e} {r.factorisations:3d} "
                    f"{r.evaluations:4d} {r.passes:4.1f} {r.restorations:4d} {time.time() - t:4.1f} {r.status} {word} | {status[:12]}", flush=True,
                )  # fmt: skip
        for (method, end, word), count in sorted(counts.items()):
            print(f"{name}, {method}: {count:4d} {word:12} where IPOPT ends {end}", flush=True)


if __name__ == "__main__":
    main()

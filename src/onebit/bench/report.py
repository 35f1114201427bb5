"""The report: a table for each case, and who was missing."""

from typing import Any

from onebit.bench.machine import OTHERS_LIMIT


def _time_text(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def _ceiling_text(name: str) -> str:
    size = name.removeprefix("read ")
    if not size.isdecimal():
        return name
    return (
        f"read {int(size) / 2**20:g} MiB" if int(size) >= 2**19 else f"read {int(size) >> 10} KiB"
    )


def table(records: list[dict[str, Any]]) -> str:
    """Return the lines of one case, the fastest first."""
    if not records:
        return ""
    first = records[0]
    shape = "×".join(map(str, first["shape"]))
    lines = [f"\n{first['case']} {shape}, threads {first['threads']}"]
    lines.append(f"  {'':22}{'a call':>10}{'G MAC/s':>10}{'GB/s':>8}  {'of its ceiling':22}"
                 f"{'packing a':>11}{'packing b':>11}  times as fast (quickest turns)")  # fmt: skip
    for r in sorted(records, key=lambda r: r["seconds"]):
        rate = f"{r['giga_macs_a_second']:.1f}" if r["giga_macs_a_second"] else ""
        bandwidth = f"{r['gigabytes_a_second']:.1f}" if r["gigabytes_a_second"] else ""
        share = r["share_of_ceiling"]
        bound = f"{share:.0%} of {_ceiling_text(r['ceiling'])}" if share else "–"
        packing = [_time_text(r["packing_seconds"][side]) if side in r["packing_seconds"] else ""
                   for side in "ab"]  # fmt: skip
        over = (
            f"{r['over_fastest_peer']:.2f} × {r['fastest_peer']} "
            f"({r['over_fastest_peer_at_best']:.2f})"
            if r["over_fastest_peer"]
            else ""
        )
        name = r["name"]
        if r["quicker_on_one_thread"]:
            name += " on one"
        lines.append(
            f"  {name:22}{_time_text(r['seconds']):>10}{rate:>10}{bandwidth:>8}  {bound:22}"
            f"{packing[0]:>11}{packing[1]:>11}  {over}"
        )
    return "\n".join(line.rstrip() for line in lines)


def print_end(report: dict[str, Any]) -> None:
    """Print who was missing, how busy the machine was, and how long all took."""
    gaps: dict[tuple[str, str], list[str]] = {}
    for gap in report["gaps"]:
        gaps.setdefault((gap["name"], gap["reason"]), []).append(gap["case"])
    print("\ngaps: none" if not gaps else "\ngaps, which are no passes:")
    for (name, reason), cases in gaps.items():
        print(f"  {name}: {reason} [{'; '.join(cases)}]")
    load = report["load"]["other_cores_during"]
    judged = "" if load <= OTHERS_LIMIT else ", too many to quote what was measured"
    print(f"\nothers used {load:.2f} cores meanwhile{judged}; {report['seconds']:.0f} s in all")

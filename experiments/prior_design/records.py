"""Records of probes, and the table made from them."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
RECORDS = HERE / "records.jsonl"
README = HERE / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
COLUMNS = ("variant", "GPU", "x_0 PSNR (dB)", "against base", "by s / a", "picture withheld", "mean sample PSNR", "IoU",
           "parameters", "pictures/s", "pictures", "ms GPU", "ms CPU")  # fmt: skip


def read(path: Path) -> list[dict]:
    """All lines, oldest first. A last line that was cut off is left out."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def append(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def done(records: list[dict]) -> set[str]:
    """Variants that need no other run; a failed one is tried again."""
    return {r["variant"] for r in records if r.get("failure") is None}


def latest(records: list[dict]) -> list[dict]:
    """The newest record of each variant on each device, best first against the base of the same device, failures last.

    A success isn't displaced by a later failure.
    """
    newest: dict[tuple[str, str], dict] = {}
    for record in records:
        key = record["variant"], record.get("device", "")
        if record.get("failure") is None or newest.get(key, record).get("failure") is not None:
            newest[key] = record
    found = list(newest.values())
    return sorted(found, key=lambda r: (r.get("failure") is not None, -_gain(r, found)))


def _gain(record: dict, records: list[dict]) -> float:
    """dB of x_0 above the base that was trained on the same device: as many seconds are more steps on a faster one."""
    if record.get("failure") is not None:
        return 0.0
    here = (r for r in records if r.get("device") == record.get("device") and r.get("failure") is None)
    base = next((r["x0_mean"] for r in here if r["variant"] == "base"), None)
    return record["x0_mean"] - (base or 0.0)


def table(records: list[dict]) -> str:
    """Markdown, sorted by the mean of x_0's PSNR over the noise levels, against the base on the same device."""
    rows = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    ordered = latest(records)
    for r in ordered:
        if r.get("failure") is not None:
            rows.append(f"| {r['variant']} | failed: {r['failure'].replace('|', '/')} |" + " - |" * (len(COLUMNS) - 2))
            continue
        compared = any(x["variant"] == "base" and x.get("device") == r.get("device") for x in ordered)
        cells = [
            r["variant"] + ("" if r["compiled"] else " (not compiled)"),
            _short(r["device"]),
            f"{r['x0_mean']:.2f}",
        ]
        cells.append(f"{_gain(r, ordered):+.2f}" if compared and r["variant"] != "base" else "")
        cells.append(" / ".join(f"{v:.1f}" for v in r["x0_psnr"]))
        cells.append(f"{sum(r['without_picture']) / len(r['without_picture']):.2f}")
        sampled = r.get("samples")
        cells += [f"{sampled['mean_psnr']:.2f}", f"{sampled['mean_iou']:.3f}"] if sampled else ["-", "-"]
        cells += [f"{r['parameters'] / 1e6:.1f} M", f"{r['pictures_per_s']:.0f}", f"{r['pictures'] / 1e3:.0f} k"]
        cells += ["-" if r[k] is None else f"{r[k]:.2f}" for k in ("ms_gpu", "ms_cpu")]
        rows.append(f"| {' | '.join(cells)} |")
    good = [r for r in ordered if r.get("failure") is None]
    facts = {f"{r['device']}, {r['budget_s']:g} s each, revision {r['revision']}, seed {r['seed']}": r for r in good}
    if facts:
        r = good[0]
        rows += [
            "",
            f"{'; '.join(facts)}. Copied input {r['copy_psnr']:.2f} dB, empty background {r['blank_psnr']:.2f} dB.",
        ]
    return "\n".join(rows)


def _short(device: str) -> str:
    """ "H100" of "NVIDIA H100 80GB HBM3"."""
    return device.removeprefix("NVIDIA ").split()[0] if device.startswith("NVIDIA ") else "CPU"


def write_table(made: str, readme: Path = README) -> None:
    """Replaces what stands between the markers.

    Raises:
        ValueError: there are no markers.
    """
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme.name} has no lines {BEGIN} and {END} to put the table between.")
    readme.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{made}\n{END}{text.split(END)[1]}")

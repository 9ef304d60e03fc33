#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Draws the results of peers.py or mounts.py as SVG: chart.py RESULTS.json >RESULTS.svg

One panel a comparison, one bar a load. A bar leaves the line at 1.0 to the right where we are faster, to the
left where the peer is. The scale is logarithmic: twice as fast and half as fast are equally far from it.
"""

from __future__ import annotations

import json
import math
import sys
from html import escape
from typing import Any

TITLE = "Platter against other NBD servers"  # of results that do not tell
POINTS = ("median", "quartile_low", "quartile_high", "min", "max")

ROW = 22
BAR = 11
SECTION = 26
LABELS = 178
PANEL = 196
VALUES = 40
GAP = 22
TOP = 112
BOTTOM = 74

FASTER, SLOWER, EVEN = "#1f8a70", "#d1603d", "#9aa5b1"
INK, FAINT, GRID, WHISKER = "#1f2933", "#616e7c", "#e4e7eb", "#3e4c59"
FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
STYLE = (
    f"text{{font-family:{FONTS};font-size:12px;fill:{INK}}}"
    ".title{font-size:18px;font-weight:600}.head{font-size:13px;font-weight:600}"
    f".faint{{fill:{FAINT};font-size:11px}}.value{{font-variant-numeric:tabular-nums}}"
)


def text(x: float, y: float, what: str, css: str = "", anchor: str = "start") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(what)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def rectangle(x1: float, x2: float, y: float, height: float, colour: str) -> str:
    left, width = min(x1, x2), max(abs(x2 - x1), 1.0)
    place = f'x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}"'
    return f'<rect {place} rx="1.5" fill="{colour}"/>'


class Scale:
    """Ratios to x, the same in all panels: logarithmic, powers of two at the ends, every quartile inside."""

    def __init__(self, ratios: list[dict[str, float]]) -> None:
        low = min((r["quartile_low"] for r in ratios), default=1.0)
        high = max((r["quartile_high"] for r in ratios), default=1.0)
        self.low = max(min(math.floor(math.log2(low)), -1), -4)
        self.high = min(max(math.ceil(math.log2(high)), 1), 5)

    def x(self, ratio: float) -> float:
        at = min(max(math.log2(max(ratio, 1e-6)), self.low), self.high)
        return (at - self.low) / (self.high - self.low) * (PANEL - VALUES)

    def ticks(self) -> list[float]:
        return [2.0**power for power in range(self.low, self.high + 1)]


def tick_label(ratio: float) -> str:
    return f"{ratio:g}" if ratio >= 1 else f"1/{1 / ratio:g}"


def colour_of(ratio: dict[str, float]) -> str:
    """Grey where the middle half of the rounds does not agree on who is faster."""
    if ratio["quartile_low"] > 1:
        return FASTER
    return SLOWER if ratio["quartile_high"] < 1 else EVEN


def tooltip(row: dict[str, Any], ours: str, peer: str) -> str:
    a, b, ratio = row["median"][ours]["rate"], row["median"][peer]["rate"], row["ratio"][peer]
    return escape(
        f"{row['title']}, {row['detail']}: {ours} {a:,.0f} {row['unit']}, {peer} {b:,.0f} {row['unit']}; "
        f"ratio {ratio['median']:.3f}, quartiles {ratio['quartile_low']:.3f} to "
        f"{ratio['quartile_high']:.3f}, all {ratio['min']:.3f} to {ratio['max']:.3f}"
    )


def draw_bar(left: float, y: float, scale: Scale, row: dict[str, Any], ours: str, peer: str) -> list[str]:
    ratio = row["ratio"][peer]
    middle = y + ROW / 2
    at = {key: left + scale.x(ratio[key]) for key in POINTS}
    return [
        f"<g><title>{tooltip(row, ours, peer)}</title>",
        rectangle(left + scale.x(1), at["median"], middle - BAR / 2, BAR, colour_of(ratio)),
        line(at["min"], middle, at["max"], middle, WHISKER, 1),
        line(at["quartile_low"], middle, at["quartile_high"], middle, WHISKER, 3),
        text(left + PANEL, middle + 4, f"{ratio['median']:.2f}", "value", "end"),
        "</g>",
    ]


def layout(loads: list[dict[str, Any]]) -> tuple[dict[str, float], list[tuple[float, str]], float]:
    """Where each load's row is, where each section's title is, and where all of them end."""
    rows: dict[str, float] = {}
    sections: list[tuple[float, str]] = []
    y, section = float(TOP), ""
    for load in loads:
        if load["title"] != section:
            section = load["title"]
            sections.append((y + SECTION - 8, section))
            y += SECTION
        rows[load["load"]] = y
        y += ROW
    return rows, sections, y + 6


def draw_panel(
    left: float, bottom: float, scale: Scale, rows: dict[str, float], group: dict[str, Any], peer: str
) -> list[str]:
    ours = group["peers"][0]
    out = [text(left, TOP - 30, ours, "head"), text(left, TOP - 14, f"against {peer}", "faint")]
    for tick in scale.ticks():
        x = left + scale.x(tick)
        out.append(line(x, TOP, x, bottom, GRID, 1))
        out.append(text(x, bottom + 15, tick_label(tick), "faint", "middle"))
    for row in group["rows"]:
        out += draw_bar(left, rows[row["load"]], scale, row, ours, peer)
    x = left + scale.x(1)
    return [*out, line(x, TOP, x, bottom, INK, 1.5)]


def draw_legend(y: float) -> list[str]:
    out, x = [], 24.0
    for colour, what in (
        (FASTER, "Platter faster"),
        (SLOWER, "peer faster"),
        (EVEN, "the rounds do not agree"),
    ):
        out += [rectangle(x, x + 16, y - 9, 10, colour), text(x + 22, y, what, "faint")]
        x += 40 + 6.2 * len(what)
    what = "bar: median of the rounds' ratios; thick line: their quartiles; thin line: least and greatest"
    return [*out, text(x + 6, y, what, "faint")]


def subtitle(results: dict[str, Any]) -> str:
    machine, method = results["machine"], results["method"]
    whole = "" if results["complete"] else " (incomplete)"
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}; {results['date']}; "
        f"{method['rounds']} rounds of {method['seconds']:g} s{whole}"
    )


def draw(results: dict[str, Any]) -> str:
    """The whole picture."""
    panels = [(group, peer) for group in results["groups"] for peer in group["compared_with"]]
    loads = {row["load"]: row for group in results["groups"] for row in group["rows"]}
    rows, sections, bottom = layout(list(loads.values()))
    scale = Scale([row["ratio"][peer] for group, peer in panels for row in group["rows"]])
    width = max(24 + LABELS + len(panels) * (PANEL + GAP), 860)
    height = bottom + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" role="img">',
        f"<title>{escape(results.get('of', TITLE))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
        text(24, 34, f"{results.get('of', TITLE)}: throughput, ratio in the same round", "title"),
        text(24, 54, subtitle(results), "faint"),
    ]
    out += [text(24, y, title, "head") for y, title in sections]
    out += [text(36, rows[name] + ROW / 2 + 4, row["detail"]) for name, row in loads.items()]
    for number, (group, peer) in enumerate(panels):
        out += draw_panel(24 + LABELS + number * (PANEL + GAP), bottom, scale, rows, group, peer)
    out += draw_legend(bottom + 46)
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: chart.py RESULTS.json >RESULTS.svg", file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as f:
        sys.stdout.write(draw(json.load(f)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

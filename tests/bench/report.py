# SPDX-License-Identifier: Apache-2.0
"""Tables as text and Markdown, JSON, and a bar chart as SVG."""
import json
import platform
import statistics
import time
from xml.sax.saxutils import escape

COLOURS = {"floor": "#9aa0a6", "qemu-storage-daemon": "#e8833a", "nbdfuse": "#5aa469",
           "dmfs": "#3367d6", "auto": "#3367d6", "inline": "#5aa469", "threads": "#e8833a",
           "io_uring": "#8e5bb5"}


def median(values):
    return statistics.median(values) if values else None


def ratio(mine, theirs):
    """The median of the rounds' own ratios: what drifts in the machine drifts for both."""
    return median([m / t for m, t in zip(mine, theirs)])


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def machine(env):
    with open("/proc/cpuinfo") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    with open("/proc/loadavg") as load:
        load_average = float(load.read().split()[0])
    return {"cpu": names[0] if names else platform.machine(), "cpus": len(names),
            "kernel": platform.release(), "date": time.strftime("%Y-%m-%d %H:%M:%S"),
            "load_before": load_average, "realtime": env.realtime, "rounds": env.rounds,
            "seconds": env.seconds, "backing": str(env.backing), "size_mib": env.size >> 20}


def table(head, rows):
    """Markdown, aligned so that it reads as text too."""
    cells = [[str(c) for c in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w)
                               for i, (c, w) in enumerate(zip(row, widths))) + " |"
             for row in cells]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":"
                          for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def bars(title, note, groups):
    """groups: [(label, [(series, length, text)])]; the dashed line stands at length 1."""
    left, width, bar, gap = 250, 590, 15, 16
    names = list(dict.fromkeys(series for _, group in groups for series, _, _ in group))
    longest = max([1.0] + [length for _, group in groups for _, length, _ in group])
    unit = (width - 150) / longest
    y, out = 74, []
    for label, group in groups:
        middle = y + len(group) * bar / 2 + 4
        out.append(f'<text x="{left - 10}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        for series, length, text in group:
            out.append(f'<rect x="{left}" y="{y}" width="{max(1, length * unit):.1f}" '
                       f'height="{bar - 3}" fill="{COLOURS[series]}"/>')
            out.append(f'<text x="{left + length * unit + 5:.1f}" y="{y + bar - 5}" class="v">'
                       f'{escape(text)}</text>')
            y += bar
        y += gap
    line = left + unit
    head = [f'<text x="16" y="26" class="t">{escape(title)}</text>']
    x = left
    for name in names:
        head.append(f'<rect x="{x}" y="42" width="12" height="12" fill="{COLOURS[name]}"/>'
                    f'<text x="{x + 17}" y="52">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    height = y + 24
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width}" height="{height}" '
        f'viewBox="0 0 {left + width} {height}">',
        "<style>text{font:12px sans-serif;fill:#222}.t{font-size:16px;font-weight:bold}"
        ".v{font-size:10px;fill:#444}</style>",
        f'<rect width="{left + width}" height="{height}" fill="#fff"/>', *head,
        f'<line x1="{line:.1f}" y1="64" x2="{line:.1f}" y2="{y - gap + 4}" stroke="#222" '
        'stroke-dasharray="3 3"/>', *out,
        f'<text x="16" y="{height - 10}" class="v">{escape(note)}</text>', "</svg>", ""])


def save(env, name, data, markdown, svg=None):
    print(markdown)
    env.out.mkdir(parents=True, exist_ok=True)
    (env.out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (env.out / f"{name}.md").write_text(markdown + "\n")
    if svg:
        (env.out / f"{name}.svg").write_text(svg)
    print(f"\nwritten: {env.out / name}.{{json,md{',svg' if svg else ''}}}", flush=True)

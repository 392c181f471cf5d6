"""Pieces of a page that needs nothing from outside: text, tables, and plots as SVG whose ink is the page's.

Plots follow light and dark with the page, and each is narrow enough to be read on a phone.
"""

from __future__ import annotations

import html
import io
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

GREY, COLOURS = "#8a8f98", ("#3a83d6", "#d9822b", "#2a9d6f", "#b05fd0", "#c94f5d")
INK, LINE = "#0a0b0c", "#0c0b0a"  # stand for the page's own colours in what matplotlib draws

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "realign",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Headline:
    """One line of the summary."""

    what: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    body: str
    headlines: tuple[Headline, ...] = ()


def plot(title: str, draw: Callable[[Axes], object], x: str, y: str, height: float = 2.7) -> str:
    """One plot as SVG text that belongs into the page."""
    with rc_context(STYLE):
        canvas = Figure(figsize=(4.2, height), layout="constrained")
        axes = canvas.add_subplot()
        draw(axes)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[a-zA-Z_\d.]*"', r"\1", svg)  # the same in every plot, and never referred to
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt"|width="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(INK, "currentColor").replace(LINE, "var(--line)")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def grid(*plots: str) -> str:
    columns = "plots" if len(plots) % 3 == 0 else "plots two"
    return f'<div class="{columns}">{"".join(f"<figure>{p}</figure>" for p in plots)}</div>'


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis whose labels are plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def paragraph(text: str) -> str:
    return f"<p>{text}</p>"


def missing(text: str) -> str:
    return f'<p class="missing">{text}</p>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], name: str = "") -> str:
    """A table of HTML cells; the first column stays in view when a narrow screen scrolls."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{name}">{content}</table></div>'


def percent(value: float) -> str:
    return f"{100 * value:.2f} %" if 0 < value < 0.1 else f"{100 * value:.3g} %"


def span(core_seconds: float) -> str:
    return f"{core_seconds:.0f} core-seconds" if core_seconds < 3600 else f"{core_seconds / 3600:.2f} core-hours"


def command_line(facts: dict[str, Any]) -> str:
    """The command behind these facts (`sim.run.facts`), as one types it."""
    return shlex.join(["sim", *facts["command"][1:]])


def facts_table(parts: dict[str, dict[str, Any]]) -> str:
    """Machine, versions and commands behind the figures; what differs between the parts is listed by part.

    Args:
        parts: What `sim.run.facts` said in each, by name.
    """

    def values(render: Callable[[dict[str, Any]], str]) -> str:
        each = {part: render(facts) for part, facts in parts.items()}
        if len(set(each.values())) == 1:
            return html.escape(next(iter(each.values())))
        return "<br>".join(f"{part}: {html.escape(value)}" for part, value in each.items())

    packages = ("python", "numpy", "numba", "onnx", "onnxruntime")

    def commit(facts: dict[str, Any]) -> str:
        return f"{facts['commit'][:12]}{' with changes' if facts['dirty'] else ''}" if facts["commit"] else "unknown"

    commands = "<br>".join(f"<code>{html.escape(command_line(facts))}</code>" for facts in parts.values())
    rows = (
        ("machine", values(lambda f: f"{f['cpu']}, {f['cores']} cores, {f['machine']}")),
        ("versions", values(lambda f: ", ".join(f"{k} {f[k]}" for k in packages))),
        ("commit", values(commit)),
        ("seed", values(lambda f: str(f["seed"]))),
        ("begun", values(lambda f: f["started"])),
        ("commands", commands),
    )
    return f'<table class="facts">{"".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows)}</table>'


def document(name: str, sections: Sequence[Section], kind: str, lead: str) -> str:
    """The whole page; headlines of the sections come first.

    Args:
        name: Of what is reported.
        sections: The page, in order.
        kind: What kind of report it is.
        lead: What it is about, HTML.
    """
    tiles = "".join(
        f"<div><span>{html.escape(h.what)}</span><b>{html.escape(h.value)}</b>"
        f"<small>{html.escape(h.note)}</small></div>"
        for section in sections
        for h in section.headlines
    )
    body = "".join(f"<section><h2>{section.title}</h2>{section.body}</section>" for section in sections)
    name = html.escape(name)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Realign: {name}</title><style>{CSS}</style></head>
<body><main><header><h1>Realign <span>{kind}: {name}</span></h1>
<p>{lead}</p></header><div class="tiles">{tiles}</div>{body}</main></body></html>
"""


CSS = """
:root{--paper:#fff;--ink:#1d2127;--soft:#626a75;--line:#e3e6ea;--tile:#f6f7f8;--miss:#b3352c;--met:#2b7d4f}
@media(prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#dfe3e8;--soft:#98a1ac;--line:#2c3138;--tile:#1c2026;
--miss:#f0857b;--met:#6cc592}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;margin:.5rem 0}h1 span{font-weight:400;color:var(--soft)}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .25rem}
p{max-width:46rem;margin:.5rem 0}
.missing{border-left:3px solid var(--line);padding-left:.75rem;color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.75rem;margin:1.25rem 0}
.tiles div{background:var(--tile);border-radius:8px;padding:.75rem 1rem;display:flex;flex-direction:column}
.tiles span,.tiles small{color:var(--soft);font-size:.8rem;line-height:1.35}.tiles b{font-size:1.3rem;margin:.15rem 0}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem 1.5rem;margin:1rem 0}
.plots.two{grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr))}
figure{margin:0;max-width:28rem}svg{width:100%;height:auto;display:block}svg text{font-family:inherit!important}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.85rem;line-height:1.35}
th,td{text-align:left;vertical-align:top;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}thead th{color:var(--soft);vertical-align:bottom}
.scroll td:first-child,.scroll th:first-child{position:sticky;left:0;background:var(--paper)}
.results td{font-variant-numeric:tabular-nums}.results td:not(:first-child){white-space:nowrap}
.results.runs td:first-child{white-space:nowrap}.results.runs td:nth-child(2){white-space:normal;min-width:9rem}
video{max-width:100%;border-radius:8px;display:block}summary{cursor:pointer;color:var(--soft);margin:.5rem 0}
small{color:var(--soft)}.miss{color:var(--miss);font-weight:600}.met{color:var(--met)}
.quads td:not(:last-child){white-space:nowrap}.quads td:last-child{min-width:12rem}
.facts th{color:var(--soft);font-weight:400;padding-right:1.5rem}.facts td{overflow-wrap:anywhere}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
"""

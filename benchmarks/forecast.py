"""Forecast of every log in a folder beside both naive baselines: the table and the figure of docs/forecasting.md.

python benchmarks/forecast.py FOLDER            # rewrites docs/forecasting.md and docs/forecast.png
python benchmarks/forecast.py FOLDER --print    # prints the table for several fractions, changes nothing
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from simulator.forecast import Forecast, ForecastError, forecast
from traces.importers import read_log

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "forecasting.md"
FIGURE = ROOT / "docs" / "forecast.png"
FRACTIONS = (0.1, 0.2, 0.3, 0.5)
TERMS = ("generation", "train", "log_prob", "reference", "sync", "step")


def main() -> int:
    """Rewrite the page's blocks, or print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="logs, each a file of its own")
    parser.add_argument("--print", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix in (".log", ".jsonl"))
    done = {fraction: [forecast(read_log(path), fraction) for path in paths] for fraction in FRACTIONS}
    blocks = {"logs": table(done[0.2]), "fractions": by_fraction(done)}
    if arguments.print:
        print("\n".join(blocks.values()))
        return 0
    page = PAGE.read_text(encoding="utf-8")
    for mark, block in blocks.items():
        begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        before, rest = page.split(begin, 1)
        page = before + begin + block + end + rest.split(end, 1)[1]
    PAGE.write_text(page, encoding="utf-8")
    draw(done[0.2])
    return 0


def table(forecasts: Sequence[Forecast]) -> str:
    """Return a row per log and term: MAPE of the forecast, of both baselines, and what the band held."""
    rows = [
        "| log | steps: fitted / later | term | MAPE | linear in length | last value | 80 % band holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for done in forecasts:
        name = f"`{done.logged.run.name.split('_')[-1]}`" + (" (collapsed)" if _is_collapsed(done) else "")
        for term in TERMS:
            if term in done.scores:
                one = done.scores[term]
                numbers = (one.mape, one.linear_length, one.last_value)
                shown = " | ".join(f"{100 * number:.1f} %" for number in numbers)
                count = f"{int(done.is_fitted.sum())} / {one.num_steps}"
                rows.append(f"| {name} | {count} | {term} | {shown} | {100 * one.coverage:.0f} % |")
                name = ""
    return "\n".join(rows) + "\n"


def by_fraction(done: dict[float, list[Forecast]]) -> str:
    """Return medians over the synchronous runs that have not collapsed, for several lengths of the first part."""
    rows = [
        "| fitted on | generation: median MAPE | better than the line | train | step | bands hold |",
        "|---|---|---|---|---|---|",
    ]
    for fraction, forecasts in done.items():
        usual = [one for one in forecasts if not _is_collapsed(one) and not one.logged.is_asynchronous]
        scores = {term: [one.scores[term] for one in usual] for term in ("generation", "train", "step")}
        better = sum(score.mape < score.linear_length for score in scores["generation"])
        cells = [f"{100 * median(score.mape for score in scores[term]):.1f} %" for term in scores]
        inside = sum(score.coverage * score.num_steps for one in usual for score in one.scores.values())
        held = inside / sum(score.num_steps for one in usual for score in one.scores.values())
        rows.append(
            f"| {100 * fraction:.0f} % | {cells[0]} | {better} of {len(usual)} | {cells[1]} | {cells[2]} | "
            f"{100 * held:.0f} % |"
        )
    return "\n".join(rows) + "\n"


def draw(forecasts: Sequence[Forecast]) -> None:
    """Draw generation seconds of the two longest healthy runs, logged and forecast, with their bands."""
    import plotly.graph_objects as go  # needs the dashboard extra, and a browser to draw with
    from plotly.subplots import make_subplots

    usual = [one for one in forecasts if not _is_collapsed(one) and not one.logged.is_asynchronous]
    chosen = sorted(usual, key=lambda one: float(np.ptp(one.logged.mean_tokens)))[-2:]
    figure = make_subplots(cols=2, subplot_titles=[one.logged.run.name.split("_")[-1] for one in chosen])
    for column, one in enumerate(chosen, 1):
        numbers = [step.step for step in one.logged.steps]
        band, first = one.predictions["generation"], int(one.is_first.sum())
        show = column == 1
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=numbers, y=band.high, showlegend=False, **edge), 1, column)
        filled = {"fill": "tonexty", "fillcolor": "rgba(31,119,180,0.2)", "name": "80 % band", "showlegend": show}
        figure.add_trace(go.Scatter(x=numbers, y=band.low, **edge, **filled), 1, column)
        line = {"color": "rgb(31,119,180)", "width": 2}
        figure.add_trace(
            go.Scatter(x=numbers, y=band.seconds, mode="lines", line=line, name="forecast", showlegend=show), 1, column
        )
        naive = np.polyfit(one.logged.mean_tokens[one.is_fitted], one.logged.measured("generation")[one.is_fitted], 1)
        figure.add_trace(
            go.Scatter(
                x=numbers,
                y=np.polyval(naive, one.logged.mean_tokens),
                mode="lines",
                line={"color": "rgb(150,150,150)", "width": 1.5, "dash": "dot"},
                name="line in mean length",
                showlegend=show,
            ),
            1,
            column,
        )
        marker = {"color": "rgb(30,30,30)", "size": 4}
        seconds = one.logged.measured("generation")
        figure.add_trace(
            go.Scatter(x=numbers, y=seconds, mode="markers", marker=marker, name="logged", showlegend=show), 1, column
        )
        figure.add_vline(x=numbers[first - 1] + 0.5, line={"color": "rgb(90,90,90)", "width": 1}, row=1, col=column)
        figure.add_annotation(
            x=numbers[first - 1] + 0.5,
            y=1.0,
            yref="y domain",
            text="fitted | predicted",
            showarrow=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title_text="RL step", row=1, col=column)
        figure.update_yaxes(title_text="generation, s", rangemode="tozero", row=1, col=column)
    figure.update_layout(template="plotly_white", legend={"orientation": "h", "y": -0.22}, margin={"t": 40, "b": 20})
    figure.write_image(FIGURE, width=1100, height=420, scale=2)


def _is_collapsed(done: Forecast) -> bool:
    return done.logged.num_collapsed > len(done.logged.run.steps) / 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ForecastError as error:
        sys.exit(str(error))

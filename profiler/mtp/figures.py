"""Figures of a study: results -> plotly figures. Computes no number that tables do not have. Writes no file."""

# Intervals are those of `estimates`, 95 % over seeds; of single seeds' points, 95 % of counting.

import math
from collections.abc import Callable, Iterable

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler.mtp.acceptance import Acceptance
from profiler.mtp.corpora import VOCAB_SIZE
from profiler.mtp.entropy_bounds import largest_top_probability, least_top_probability
from profiler.mtp.estimates import Estimate, accept_rate, cells_of, domains_of, rl_lines, temperature_curve
from profiler.mtp.laws import Line
from profiler.mtp.results import LOSSES_COMPARED, NARROW, RECIPES, TEMPERATURE_CURVES, Results

INK, MUTED, GRID = "#2F2D2B", "#6B6763", "#E6E3DF"
COLOURS = ("#0072B2", "#D55E00", "#00805D", "#A8447F", "#A87400", "#3B93C4")
"""Okabe and Ito's hues, darkened until they stand out from white."""
NAMES = {
    "ce": "CE",
    "kl": "KL",
    "reverse_kl": "reverse KL",
    "tv": "per-step TV",
    "e2e_tv": "e2e TV",
    "to": "greedy draft, CE",
    "rs_ce": "rejection, CE",
    "rs_tv": "rejection, TV",
    "rs_e2e_tv": "rejection, e2e TV",
    NARROW: "rejection, TV trained at T = 1 only",
    "start_tv_online_tv": "e2e TV, then e2e TV online",
    "start_tv_online_ce": "e2e TV, then CE online",
    "start_ce_online_ce": "greedy: CE, then CE online",
}
RULES = {"greedy_draft": "greedy draft", "rejection": "rejection", "block": "block"}
ALONG_RL = ("rs_e2e_tv", NARROW, "start_tv_online_tv", "start_tv_online_ce", "to", "start_ce_online_ce")
"""Strategies drawn over RL steps: frozen solid, trained on dashed."""


def losses(results: Results) -> go.Figure:
    """Draw acceptance rates by domain and loss."""
    figure, domains = go.Figure(), domains_of(results)
    for index, loss in enumerate(LOSSES_COMPARED):
        rates = [accept_rate(results, domain, loss) for domain in domains]
        places = [place + 0.13 * (index - 2) for place in range(len(domains))]
        figure.add_scatter(x=places, y=[rate.mean for rate in rates], error_y=_bars(rates), **_dots(index, NAMES[loss]))
    figure.update_xaxes(tickvals=list(range(len(domains))), ticktext=domains, showgrid=False)
    figure.update_yaxes(title_text="acceptance rate (AL - 1) / k")
    return _dress(figure, "Acceptance rate by loss: rejection sampling, temperature 1")


def temperatures(results: Results) -> go.Figure:
    """Draw accept length by temperature of sampling, by verify rule and loss."""
    figure = go.Figure()
    for index, (loss, rule) in enumerate(TEMPERATURE_CURVES):
        curve = temperature_curve(results, loss, rule)
        # A little apart, so that bars do not hide each other.
        places = [temperature + 0.008 * (index - 1.5) for temperature in curve]
        lengths = list(curve.values())
        style = _dots(index, f"{RULES[rule]}, {NAMES[loss]}") | {"mode": "lines+markers"}
        figure.add_scatter(x=places, y=[one.mean for one in lengths], error_y=_bars(lengths), **style)
    figure.update_xaxes(title_text="temperature", tickvals=list(temperature_curve(results, "ce", "rejection")))
    figure.update_yaxes(title_text="accept length")
    return _dress(figure, "Accept length by temperature, arithmetic")


def first_drafts(results: Results) -> go.Figure:
    """Draw the acceptance of the first draft over the entropy where it stands, between what bounds the likeliest token.

    The mean of the likeliest token's probability lies between the bounds at the mean entropy too: exp(-H) is convex,
    Fano's bound concave. Greedy drafts cannot leave by the upper one; rejection sampling can.
    """
    figure = make_subplots(1, len(RECIPES), shared_yaxes=True, subplot_titles=[NAMES[name] for name in RECIPES])
    bins = {
        name: {
            domain: [one for cell in cells_of(results, domain, loss, rule) for one in cell.entropy_bins]
            for domain in domains_of(results)
        }
        for name, (loss, rule) in RECIPES.items()
    }
    highest = max(one.entropy_nats for of in bins.values() for found in of.values() for one in found)
    grid = [highest * index / 100 for index in range(101)]
    for column, of in enumerate(bins.values(), 1):
        for bound in _BOUNDS:
            style = {"mode": "lines", "line": {"color": MUTED, "width": 1.25, "dash": "dot"}, "showlegend": False}
            figure.add_scatter(x=grid, y=[bound(entropy) for entropy in grid], **style, row=1, col=column)
        for index, (domain, found) in enumerate(of.items()):
            figure.add_scatter(
                x=[one.entropy_nats for one in found],
                y=[one.cumulative[0] for one in found],
                error_y=_thin(1.96 * math.sqrt(_variance(one.cumulative[0]) / one.num_steps) for one in found),
                **_dots(index, domain) | {"showlegend": column == 1},
                row=1,
                col=column,
            )
    figure.update_yaxes(title_text="first drafts accepted", col=1)
    figure.update_xaxes(title_text="entropy there (nats)", matches="x")
    return _dress(figure, "First drafts by entropy: bins of steps; dotted, exp(-H) and Fano's bound", height=400)


def laws(results: Results) -> go.Figure:
    """Draw accept length over policy entropy along RL, with the fitted law of each recipe."""
    top, lines = max(point.step for point in results.rl), rl_lines(results)
    titles = [f"{NAMES[name]}<br>{_slope(lines[name])}" for name in RECIPES]
    figure = make_subplots(1, len(RECIPES), shared_yaxes=True, subplot_titles=titles)
    for column, name in enumerate(RECIPES, 1):
        for rises, symbol, label in ((True, "circle", "entropy led up"), (False, "circle-open", "led back")):
            points = [point for point in results.rl if (point.step <= top / 2) == rises]
            style = _dots(column - 1, label) | {"showlegend": column == 1}
            edge = {"width": 1.5, "color": COLOURS[column - 1]}
            style["marker"] = {"color": COLOURS[column - 1], "size": 7, "symbol": symbol, "line": edge}
            found = [point.found[name] for point in points]
            lengths, bars = [one.accept_length for one in found], _of_counting(found)
            entropies = [point.entropy_nats for point in points]
            figure.add_scatter(x=entropies, y=lengths, error_y=bars, **style, row=1, col=column)
        line, ends = lines[name], [lines[name].entropy_low_nats, lines[name].entropy_high_nats]
        # Its intercept is that of the first step.
        values = [line(entropy) + line.per_step * top / 2 for entropy in ends]
        drawn = {"color": INK, "width": 1.5}
        figure.add_scatter(x=ends, y=values, mode="lines", line=drawn, showlegend=False, row=1, col=column)
    figure.update_yaxes(title_text="accept length", col=1)
    figure.update_xaxes(title_text="policy entropy (nats)")
    title = "Accept length over policy entropy along RL, frozen heads: slopes per nat, lines at the middle step"
    _dress(figure, title, height=430)
    figure.update_annotations(font_size=13)
    return figure.update_layout(margin={"t": 105})


def along_rl(results: Results) -> go.Figure:
    """Draw, seed by seed, what RL did to entropy and reward, and below it accept length by strategy.

    Policies reach their highest entropy at steps of their own: a mean over seeds would flatten it. Bars are errors of
    counting.
    """
    seeds = sorted({point.seed for point in results.rl})
    titles = [f"seed {seed}" for seed in seeds]
    shared = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.08, "horizontal_spacing": 0.04}
    figure = make_subplots(2, len(seeds), row_heights=[0.3, 0.7], subplot_titles=titles, **shared)
    for column, seed in enumerate(seeds, 1):
        points, at = [point for point in results.rl if point.seed == seed], {"col": column}
        steps, first = [point.step for point in points], column == 1
        for label, dash, values in (
            ("entropy (nats)", "solid", [point.entropy_nats for point in points]),
            ("reward", "dot", [point.reward for point in points]),
        ):
            line = {"color": MUTED, "dash": dash, "width": 2}
            style = {"mode": "lines", "line": line, "name": label, "legend": "legend2", "showlegend": first}
            figure.add_scatter(x=steps, y=values, **style, row=1, **at)
        for index, name in enumerate(ALONG_RL):
            found = [point.found[name] for point in points]
            dash = "dash" if "online" in name else "solid"
            line = {"color": COLOURS[index], "width": 2, "dash": dash}
            style = _dots(index, NAMES[name]) | {"mode": "lines+markers", "showlegend": first, "line": line}
            lengths = [one.accept_length for one in found]
            figure.add_scatter(x=steps, y=lengths, error_y=_of_counting(found), **style, row=2, **at)
    figure.update_xaxes(title_text="RL step", row=2)
    figure.update_yaxes(title_text="accept length", row=2, col=1)
    _dress(figure, "Acceptance along RL: entropy led up and back", height=620)
    legends = {"orientation": "h", "x": 0.0, "yanchor": "top"}
    figure.update_layout(legend2=legends | {"y": 1.12}, legend=legends | {"y": -0.17}, margin={"b": 130, "t": 110})
    return figure


FIGURES: dict[str, Callable[[Results], go.Figure]] = {
    "losses": losses,
    "temperatures": temperatures,
    "first-drafts": first_drafts,
    "laws": laws,
    "along-rl": along_rl,
}
"""Figures by the names of their files."""


def figures(results: Results) -> dict[str, go.Figure]:
    """Return the figures that a study has the results for."""
    lacking: set[str] = set() if results.rl else {"laws", "along-rl"}
    lacking |= set() if "math" in domains_of(results) else {"temperatures"}
    lacking |= set() if results.cells else {"losses", "first-drafts"}
    return {name: draw(results) for name, draw in FIGURES.items() if name not in lacking}


def page(drawn: Iterable[go.Figure]) -> str:
    """Return one HTML page of figures that needs no network."""
    parts = [one.to_html(full_html=False, include_plotlyjs=index == 0) for index, one in enumerate(drawn)]
    return '<!doctype html><meta charset="utf-8"><title>MTP study</title>\n' + "\n".join(parts)


_BOUNDS: tuple[Callable[[float], float], ...] = (
    least_top_probability,
    lambda entropy: largest_top_probability(entropy, VOCAB_SIZE),
)


def _bars(found: Iterable[Estimate]) -> dict[str, object]:
    widths = [one.high - one.mean for one in found]
    return {"type": "data", "array": widths, "thickness": 1.5, "width": 3}


def _of_counting(found: Iterable[Acceptance]) -> dict[str, object]:
    return _thin(1.96 * one.accept_length_sd for one in found)


def _thin(widths: Iterable[float]) -> dict[str, object]:
    return {"type": "data", "array": list(widths), "thickness": 1, "width": 2}


def _variance(share: float) -> float:
    return share * (1.0 - share)


def _slope(line: Line) -> str:
    return f"{line.slope_per_nat:.2f} ({line.slope_low:.2f} to {line.slope_high:.2f})"


def _dots(index: int, name: str) -> dict[str, object]:
    colour = COLOURS[index % len(COLOURS)]
    return {"mode": "markers", "name": name, "marker": {"color": colour, "size": 7}, "line": {"color": colour}}


def _dress(figure: go.Figure, title: str, height: int = 440) -> go.Figure:
    figure.update_layout(
        title={"text": title, "x": 0.01, "font": {"size": 17}},
        template="none",
        font={"family": "Source Sans Pro, Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        height=height,
        width=980,
        margin={"l": 70, "r": 20, "t": 80, "b": 70},
        paper_bgcolor="#FFFFFF",
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, linecolor=MUTED, showline=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure

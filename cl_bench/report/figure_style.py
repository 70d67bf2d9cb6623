"""What all paper figures have in common: their style, and the x axis of curves."""

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from cl_bench.report.blocks import EXAMPLES
from cl_bench.report.panels import Panel

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7.5,
    "xtick.labelsize": 7, "ytick.labelsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6, "axes.axisbelow": True,
    "legend.frameon": False, "lines.linewidth": 1.2, "lines.dash_capstyle": "butt",
    "text.parse_math": False,  # a name with a $ in it is a name, not a formula
    "svg.hashsalt": "cl_bench", "savefig.dpi": 200, "figure.dpi": 100,
}  # fmt: skip


def x_axis(axes: Axes, panel: Panel) -> None:
    """Whole tasks, or examples as 20k and 48M."""
    axes.set_xlabel(panel.axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.axis == EXAMPLES:
        axes.xaxis.set_major_locator(MaxNLocator(5))  # room for 1.5M in a tile
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))

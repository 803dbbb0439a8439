"""Reading what runs wrote: tables, comparisons, figures and HTML reports. Reads run folders and nothing else."""

from parityfl.reporting.compare import compare
from parityfl.reporting.comparison import Comparison
from parityfl.reporting.load import RunData, find_runs, load_run
from parityfl.reporting.report import write_report
from parityfl.reporting.standing import standing
from parityfl.reporting.terminal import rich_table

__all__ = ["Comparison", "RunData", "compare", "find_runs", "load_run", "rich_table", "standing", "write_report"]

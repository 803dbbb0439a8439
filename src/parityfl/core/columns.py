"""The columns of a run's tables, in order, with the type of what stands in each; docs/metrics.md defines them."""

from collections.abc import Mapping

Columns = Mapping[str, type[int] | type[float] | type[str]]
"""The type of what a cell holds where it is not empty, by the column's name."""

ROUND_COLUMNS: Columns = {
    "round": int, "time_s": float, "num_available": int, "num_selected": int, "num_participated": int,
    "num_late": int, "num_failed": int, "deadline_s": float, "global_accuracy": float, "global_loss": float,
    "mean_client_accuracy": float, "worst10_client_accuracy": float, "accuracy_jain": float,
    "weighted_client_accuracy": float, "client_accuracy_std": float, "weighted_client_accuracy_std": float,
    "mean_personal_accuracy": float, "worst10_personal_accuracy": float, "utility_cv": float, "utility_jain": float,
    "utility_gini": float, "worst10_normalized_utility": float, "selection_gap": float,
    "conditional_selection_gap": float, "saturation": float, "participation_gini": float, "label_coverage": float,
    "label_kl": float, "unseen_label_rate": float, "low_availability_accuracy": float, "ema_global_accuracy": float,
    "mean_net_gain": float, "net_gain_cv": float, "credited_to_net": float, "bytes_down": int, "bytes_up": int,
    "select_s": float, "train_s": float, "aggregate_s": float, "evaluate_s": float, "round_s": float, "rss_bytes": int,
}  # fmt: skip
"""rounds.csv"""

CLIENT_COLUMNS: Columns = {
    "round": int, "client_id": str, "available": int, "selected": int, "participated": int, "outcome": str,
    "availability_true": float, "availability_estimate": float, "availability_low": float,
    "availability_high": float, "inclusion_probability": float, "loss_gain": float, "accuracy_gain": float,
    "local_gain": float, "utility": float, "normalized_utility": float, "eval_loss": float, "eval_accuracy": float,
    "local_loss_before": float, "local_loss_after": float, "num_samples": int, "staleness": int,
    "surrogate_weight": float, "personal_accuracy": float, "latency_s": float, "bytes_up": int, "bytes_down": int,
}  # fmt: skip
"""clients.csv"""

UNHASHED = ("latency_s", "bytes_up", "bytes_down")
"""The last columns of clients.csv: they depend on the machine and the wire, and `ledger_hash` leaves them out."""

SHORTFALL_COLUMNS: Columns = {
    "client_id": str, "rounds": int, "available": int, "selected": int, "participated": int, "late": int,
    "utility": float, "share": float, "shortfall": float, "physical": float, "scheduling": float,
    "execution": float, "learning": float,
}  # fmt: skip
"""shortfall.csv"""

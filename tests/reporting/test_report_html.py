import re
import resource
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from folders import register_late, write_run

from parityfl.core.errors import FolderError
from parityfl.reporting import report as report_module
from parityfl.reporting.findings import headlines, left_out, warnings
from parityfl.reporting.load import RunData, load_run
from parityfl.reporting.report import run_page, write_report
from parityfl.reporting.standing import standing

VOID = {"meta", "link", "br", "img", "input", "hr", "col"}


class Page(HTMLParser):
    """Reads a page, and fails where its tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "script" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    page.text = re.sub(r"[ \n]+", " ", page.text).replace("\u00a0", " ")
    return page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two methods with two seeds each, and one that was interrupted."""
    mine = {"method": "mine", "selector": "lnu", "aggregator": "mifa", "selects": "last"}
    for seed in range(2):
        write_run(tmp_path / "all" / f"fedavg-{seed}", seed=seed, base=0.5 + 0.01 * seed)
        write_run(tmp_path / "all" / f"mine-{seed}", seed=seed, base=0.6, **mine)
    write_run(tmp_path / "all" / "half", method="half", selector="x", rounds=3, status="interrupted")
    return tmp_path / "all"


def test_the_report_of_a_run(tmp_path: Path):
    """Round 8 of `folders`: .66 global, .67 by moving average, .51 worst; gap 1; h5 never available."""
    run = write_run(tmp_path / "run")
    path = write_report(run)
    page = page_of(path)
    assert path == run / "report.html"
    assert {"table.csv", "table.md", "report.html"} <= {entry.name for entry in run.iterdir()}
    assert len(page.all("svg")) == 5
    assert (
        "66.0 % of the test set is classified correctly by the final model; by the server's moving average, 67.0 %"
        in page.text
    )
    assert "51.0 % is the mean accuracy of the 1 worst-off of 6 clients" in page.text
    assert "4 of 6 clients took part at least once; 1 was never available" in page.text
    assert "the most favoured client (h0: 8 of 8) was selected, minus the least favoured's (h3: 0 of 2)" in page.text
    assert "Left out are 1 of 6 clients: 1 never available." in page.text
    assert "credited / net 1.250, net-gain CV 0.250" in page.text
    assert "1 client: never available. h5." in page.text
    assert f"parityfl run config.json --out ../run-again in its folder, {run}." in page.text
    assert "parityfl 0.1.0, python 3.11" in page.text
    assert "Why utility CV is never read alone" in page.text
    assert "did not finish" not in page.text
    assert page.text.count("Selected / available") == 1


def test_what_a_method_noted_is_among_the_facts(tmp_path: Path):
    notes = {"clip_rate": 0.0625, "credit_low_rate": 0.0, "mean_debt": 1234.5, "unknown": None}
    text = page_of(write_report(write_run(tmp_path / "run", summary={"notes": notes}))).text
    assert "Clip rate0.0625 of the updates so far had a weight that aggregator.clip cut" in text
    assert "Credit low rate0 of the credits so far were raised to selector.credit_low" in text
    assert re.search(r"Mean debt1.23e\+03\s", text)
    assert "Unknown" not in text


def test_the_report_of_a_folder_of_runs(folder: Path):
    write_report(folder / "mine-0")
    page = page_of(write_report(folder))
    assert len(page.all("svg")) == 5
    assert "missing: interrupted after 3 of 8 rounds" in page.text
    assert "mine against fedavg, 2 seeds" in page.text
    assert "Better: global accuracy +0.095" in page.text
    assert [link["href"] for link in page.all("a")] == ["mine-0/report.html"]
    assert "Why utility CV is never read alone" in page.text
    assert pl.read_csv(folder / "table.csv")["method"].to_list() == ["fedavg", "half", "mine"]
    assert (folder / "table.md").read_text().startswith("| Method |")


def test_the_comparison_has_a_table_for_each_group_of_figures_that_fits_a_page(folder: Path):
    """All figures of eight methods side by side would be cut on the right, with nothing to show that."""
    text = write_report(folder).read_text(encoding="utf-8")
    tables = re.findall(r'<table class="comparison">(.*?)</table>', text, flags=re.DOTALL)
    titles = re.findall("<h3>(.*?)</h3>", text)
    assert titles == ["Accuracy", "Spread over clients", "Utility, to be read together", "Runs"]
    assert all(table.count('<th scope="col"') <= 6 for table in tables)
    assert all("missing: interrupted after 3 of 8 rounds" in table for table in tables[:3])


@pytest.mark.parametrize("which", ["fedavg-0", "."])
def test_pages_are_whole_and_need_no_network(folder: Path, which: str):
    """Balanced tags, distinct ids, a header scope everywhere, labelled figures, nothing fetched from elsewhere."""
    text = write_report(folder / which).read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.all("html") == [{"lang": "en"}]
    assert all(header.get("scope") in ("col", "row", "colgroup") for header in page.all("th"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    for _, attributes in page.tags:
        for name in ("src", "href", "data", "action", "srcset", "xlink:href"):
            assert not re.match(r"(?i)\s*(https?:)?//", attributes.get(name) or ""), attributes
    assert "@import" not in text
    assert not re.search(r"url\(\s*[\"']?(?!#|data:)", text)
    assert page.all("link") == []


def test_one_seed_speaks_for_its_clients_only(tmp_path: Path):
    write_run(tmp_path / "all" / "a")
    write_run(tmp_path / "all" / "b", method="mine", selector="lnu", selects="last", base=0.6)
    page = page_of(write_report(tmp_path / "all"))
    assert "mine against fedavg, one seed" in page.text
    assert "Better in this run: client accuracy +0.100 [+0.100, +0.100]." in page.text
    assert "No interval: global accuracy +0.100" in page.text
    assert "6 clients" in page.text


def test_settings_have_their_own_figures(tmp_path: Path):
    for clients in (6, 12):
        changes = {"population.clients": clients}
        write_run(tmp_path / "all" / f"a{clients}", changes=changes)
        write_run(tmp_path / "all" / f"b{clients}", method="mine", selector="lnu", changes=changes)
    page = page_of(write_report(tmp_path / "all"))
    assert len(page.all("svg")) == 10
    assert "mine against fedavg, one seed (population.clients=12)" in page.text


def test_a_folder_where_nothing_finished(tmp_path: Path):
    write_run(tmp_path / "all" / "a", rounds=2, status=None)
    page = page_of(write_report(tmp_path / "all"))
    assert page.all("svg") == []
    assert "missing: running, or ended without a summary after 2 of 8 rounds" in page.text


def test_whom_the_deadline_shuts_out_is_named(tmp_path: Path):
    """h0 is late in 2 of its 3 selections, h1 in 1 of 3, h2 in its only one."""
    outcomes = {"h0": ["late", "completed", "late"], "h1": ["completed", "late", "completed"], "h2": ["late", "", ""]}
    rows = [(name, int(bool(outcome)), outcome) for name, each in outcomes.items() for outcome in each]
    run = load_run(write_run(tmp_path / "run"))
    table = pl.DataFrame(rows, schema=["client_id", "selected", "outcome"], orient="row")
    table = table.with_columns(participated=pl.lit(1), loss_gain=pl.lit(0.1))
    found = [warning for warning in warnings(replace(run, clients=table), standing(run)) if "late" in warning.title]
    assert [warning.title for warning in found] == ["1 client was late in half of its selections or more"]
    assert found[0].text.startswith("h0. ")


def test_a_run_that_ended_before_its_first_round_has_a_page(tmp_path: Path):
    page = page_of(write_report(write_run(tmp_path / "run", rounds=0, status="interrupted")))
    assert "0 of 8" in page.text


def test_warnings(tmp_path: Path):
    run = write_run(tmp_path / "run", rounds=5, status="interrupted", summary={"deterministic": False})
    page = page_of(write_report(run))
    assert "The run did not finish. It is interrupted after 5 of 8 rounds" in page.text
    assert f"parityfl run {run}/config.json --out {run} --resume" in page.text
    assert "The run is not deterministic." in page.text
    assert "1 client: never available. h5." in page.text


@pytest.mark.parametrize(
    ("late", "words"),
    [("discard", "in these rounds."), ("next-round", "in these rounds, unless updates of the round before came late.")],
)
def test_rounds_without_participants_are_counted(tmp_path: Path, late: str, words: str):
    run = write_run(tmp_path / "run", changes={"rounds.late": late})
    rounds = pl.read_csv(run / "rounds.csv").with_columns(
        pl.when(pl.col("round") > 2).then(pl.col("num_participated")).otherwise(0)
    )
    rounds.write_csv(run / "rounds.csv")
    text = page_of(write_report(run)).text
    assert "2 of 8 rounds had no participant" in text
    assert f"The model stayed as it was {words}" in text


def test_refused_updates_are_counted(tmp_path: Path):
    run = write_run(tmp_path / "run")
    late = pl.when(pl.col("outcome") == "late").then(pl.lit("invalid")).otherwise(pl.col("outcome"))
    pl.read_csv(run / "clients.csv").with_columns(late.alias("outcome")).write_csv(run / "clients.csv")
    assert "1 of 14 updates asked for were refused" in page_of(write_report(run)).text


def test_what_the_files_hold_cannot_become_markup(tmp_path: Path):
    run = write_run(tmp_path / "run", method="<script>alert(1)</script>")
    text = write_report(run).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_a_large_population_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With room for two, these are h3 (0) and h1 (.05, as h2); h5 was never available, has none and comes last."""
    monkeypatch.setattr(report_module, "MOST_CLIENTS", 2)
    page = Page(run_page(load_run(write_run(tmp_path / "run"))))
    said = "The 2 of 6 clients with the least utility per opportunity, those that were never available last"
    assert said in page.text
    assert re.findall(r"\bh\d\b", page.text[page.text.index("The 2 of 6") :])[:2] == ["h3", "h1"]


@pytest.mark.parametrize("empty", [2, 8])
def test_a_run_whose_first_rounds_have_no_clients_has_a_page(tmp_path: Path, empty: int):
    """As a live run has whose first device came later; at 8 none ever came."""
    page = page_of(write_report(register_late(write_run(tmp_path / "run"), empty)))
    assert "8 of 8" in page.text
    assert ("no client has registered" in page.text) == (empty == 8)


def measured(run: RunData, rounds: int, clients: int) -> RunData:
    """Return the run as it is where its clients were evaluated in so many rounds, so many of them."""
    known = (pl.col("round") <= rounds) & pl.col("client_id").is_in([f"h{k}" for k in range(clients)])
    of_clients = [pl.when(known).then(pl.col(column)).alias(column) for column in ("eval_accuracy", "loss_gain")]
    figures = ["mean_client_accuracy", "worst10_client_accuracy", "low_availability_accuracy"]
    of_rounds = [pl.when((pl.col("round") <= rounds) & (clients > 0)).then(pl.col(figure)) for figure in figures]
    return replace(run, clients=run.clients.with_columns(of_clients), rounds=run.rounds.with_columns(of_rounds))


def test_headlines_count_the_clients_that_their_figure_is_of(run: RunData):
    """h0 to h3 were measured in rounds 1 to 7: round 7 has 49 % for the worst, and 52 % for the half."""
    findings = {found.title: found for found in headlines(measured(run, 7, 4), standing(run))}
    worst, low = findings["Worst 10 % of the clients"], findings["Low-availability half"]
    assert worst.value == "49.0 %"
    assert worst.text.startswith("is the mean accuracy of the 1 worst-off of the 4 clients measured then on")
    assert worst.text.endswith("the mean over all 4 is 56.5 %.")
    assert low.value == "52.0 %"
    assert low.text == (
        "is the mean accuracy of the 3 clients that are available least often, as far as they are among the 4 clients "
        "measured then."
    )


def test_who_has_no_bar_is_counted_with_the_reason(run: RunData):
    """h5 was never available, h2 took part and was not measured."""
    clients = standing(run)
    assert left_out(clients) == "Left out are 1 of 6 clients: 1 never available."
    unmeasured = pl.when(pl.col("client_id") != "h2").then(pl.col("normalized_utility"))
    both = left_out(clients.with_columns(normalized_utility=unmeasured))
    assert both == "Left out are 2 of 6 clients: 1 never available, 1 whose utility nobody measured."
    assert not left_out(clients.drop_nulls("normalized_utility"))


def test_a_gap_names_the_two_that_it_is_between_by_the_most_opportunities(run: RunData):
    """Rates (1, 1, .5, 0, 1, -): of the three that were always selected h0 was there most often."""
    found = {each.title: each.text for each in headlines(run, standing(run))}["Conditional selection gap"]
    assert "(h0: 8 of 8)" in found
    seldom = standing(run).filter(pl.col("client_id").is_in(["h3", "h4"]))
    found = {each.title: each.text for each in headlines(run, seldom)}["Conditional selection gap"]
    assert "(h4: 1 of 1) was selected, minus the least favoured's (h3: 0 of 2); 0 is parity" in found


def test_the_spread_of_accuracy_is_that_of_the_last_evaluated_round(run: RunData):
    """Rounds 1 to 7 were evaluated, on four clients."""
    run = measured(run, 7, 4)
    known = pl.when(pl.col("round") <= 7)
    spread = {
        "client_accuracy_std": known.then(pl.col("round") / 100),
        "weighted_client_accuracy_std": known.then(pl.col("round") / 200),
    }
    found = {each.title: each for each in headlines(run, standing(run))}
    assert "Spread of the clients' accuracy" not in found
    run = replace(run, rounds=run.rounds.with_columns(**spread))
    found = {each.title: each for each in headlines(run, standing(run))}
    assert found["Spread of the clients' accuracy"].value == "7.0 %"
    assert found["Spread of the clients' accuracy"].text == (
        "is the standard deviation of the accuracies of the 4 clients measured (0 is parity); with each client weighed "
        "by its examples, 3.5 %."
    )


def test_headlines_of_what_nobody_measured(tmp_path: Path):
    run = load_run(write_run(tmp_path / "run", changes={"population.holdout": 0.0}))
    findings = {found.title: found for found in headlines(measured(run, 0, 0), standing(run))}
    worst, low = findings["Worst 10 % of the clients"], findings["Low-availability half"]
    assert (worst.value, low.value) == ("–", "–")
    assert worst.text == "no client was measured on held-out data of its own (population.holdout = 0)."
    assert low.text == "nobody of the half that is available least often was measured (population.holdout = 0)."


@pytest.mark.parametrize(
    ("holdout", "why"),
    [
        (0.0, "with population.holdout = 0 there are no held-out examples to measure it on"),
        (0.2, "nobody measured it on held-out examples"),
    ],
)
def test_utility_that_nobody_measured_is_one_warning(tmp_path: Path, holdout: float, why: str):
    run = measured(load_run(write_run(tmp_path / "run", changes={"population.holdout": holdout})), 0, 0)
    took_part = pl.col("participated").cum_sum().over("client_id") > 0
    columns = {name: pl.when(~took_part).then(pl.col(name)) for name in ("utility", "normalized_utility")}
    run = replace(run, clients=run.clients.with_columns(**columns))
    found = warnings(run, standing(run))
    assert [warning.title for warning in found] == ["The utility was not measured", "1 client: never available"]
    assert found[0].text == (
        f"h0, h1, h2, h4. In no round that they took part in is their loss_gain known: {why}. No figure counts them."
    )


def test_a_client_whose_utility_nobody_measured_is_named_and_not_called_left_behind(run: RunData):
    unknown = {
        name: pl.when(pl.col("client_id") != "h2").then(pl.col(name)) for name in ("utility", "normalized_utility")
    }
    run = replace(run, clients=run.clients.with_columns(**unknown))
    found = {warning.title: warning.text for warning in warnings(run, standing(run))}
    assert found["The utility of 1 client was not measured"].startswith("h2. ")
    assert not any("little benefit" in title for title in found)


def test_nobody_who_took_part_is_nobody_to_measure(run: RunData):
    run = replace(run, clients=measured(run, 0, 0).clients.with_columns(participated=pl.lit(0)))
    assert "The utility was not measured" not in {warning.title for warning in warnings(run, standing(run))}


def test_a_preset_with_other_parts_is_not_called_by_its_name(tmp_path: Path):
    page = page_of(write_report(write_run(tmp_path / "run", method="parityfl")))
    assert "uniform+fedavg, seed 0" in page.text
    assert "parityfl, seed 0" not in page.text


def test_a_live_run_goes_on_with_its_coordinator_and_cannot_be_repeated(tmp_path: Path):
    run = write_run(tmp_path / "my run", rounds=3, status="interrupted", changes={"rounds.clock": "wall"})
    text = page_of(write_report(run)).text
    assert f"Go on with: parityfl coordinator '{run}/config.json' --out '{run}' --resume" in text
    assert "A live run cannot be repeated" in text
    assert "parityfl run" not in text


@pytest.mark.parametrize(("clocks", "repeat"), [(["wall"], False), (["wall", "virtual"], True), (["virtual"], True)])
def test_a_comparison_says_which_runs_can_be_repeated(tmp_path: Path, clocks: list[str], repeat: bool):
    for clock in clocks:
        write_run(tmp_path / clock, rounds=2, changes={"rounds.clock": clock})
    text = page_of(write_report(tmp_path)).text
    assert ("To repeat a run: parityfl run FOLDER/config.json." in text) == repeat
    assert ("A live run cannot be repeated" in text) == ("wall" in clocks)


def test_a_run_that_was_killed_is_not_said_to_be_running(tmp_path: Path):
    run = write_run(tmp_path / "run", rounds=3, status=None)
    text = page_of(write_report(run)).text
    assert "It is running, or ended without a summary after 3 of 8 rounds" in text
    assert f"If it has ended, go on with: parityfl run {run}/config.json --out {run} --resume" in text


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_compared(folder: Path):
    (folder / "mine-1" / "config.json").write_text("{")
    text = page_of(write_report(folder)).text
    named = f"{folder}/mine-1/config.json is not JSON"
    assert named in text
    assert named in (folder / "table.md").read_text()
    assert "mine against fedavg, one seed" in text


def test_a_folder_of_runs_none_of_which_can_be_read_is_refused(tmp_path: Path):
    (write_run(tmp_path / "all" / "a") / "clients.csv").unlink()
    with pytest.raises(FolderError, match=r"no run that can be read: .*a is not a run folder: clients\.csv is missing"):
        write_report(tmp_path / "all")


@pytest.mark.parametrize("name", ["report.html", "table.csv", "table.md"])
def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path, name: str):
    run = write_run(tmp_path / "my run")
    (run / name).mkdir()
    with pytest.raises(FolderError) as refused:
        write_report(run)
    assert str(refused.value) == (
        f"{run / name} cannot be written (Is a directory): make room for it, or the folder writable, and run "
        f"parityfl report '{run}'"
    )


@pytest.mark.parametrize("name", ["report.html", "table.csv", "table.md"])
def test_a_disk_that_takes_no_more_leaves_the_files_as_they_were_or_as_they_are_to_be(tmp_path: Path, name: str):
    """A limit just below one file's size lets the smaller ones through, and stands for a disk that is full."""
    run = write_run(tmp_path / "run")
    sizes = {path.name: path.stat().st_size for path in (write_report(run), run / "table.csv", run / "table.md")}
    for file in sizes:
        (run / file).write_text("the last one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[name] - 1, hard))
    try:
        with pytest.raises(FolderError, match=r"run/(\w+\.\w+) cannot be written \(File too large\): make room"):
            write_report(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run / name).read_text() == "the last one"
    for file, size in sizes.items():
        assert (run / file).stat().st_size in (len("the last one"), size)
    assert not list(run.glob("*.part"))


def test_a_folder_without_runs_is_refused(tmp_path: Path):
    with pytest.raises(FolderError, match="holds no run"):
        write_report(tmp_path)


def test_the_same_run_makes_the_same_page(tmp_path: Path):
    run = write_run(tmp_path / "run")
    assert write_report(run).read_bytes() == write_report(run).read_bytes()

import pytest
from folders import config

from parityfl.config import Config
from parityfl.core.presets import method_label, parts, preset_names
from parityfl.reporting.labels import method_key, methods, setting_key, settings


def labels(*configs):
    found = methods(configs)
    return [found[method_key(each)] for each in configs]


def setting_labels(*configs):
    found = settings(configs)
    return [found[setting_key(each)] for each in configs]


def test_a_method_is_called_by_its_name_where_that_tells_it_apart():
    assert labels(config(), config("mine", "lnu", "mifa"), config(seed=1)) == ["fedavg", "mine", "fedavg"]


def test_by_its_parts_where_a_name_stands_for_several_methods():
    first, second = config("mine", "lnu", "mifa"), config("mine", "uniform", "mifa")
    assert labels(first, second, config()) == ["lnu+mifa", "uniform+mifa", "fedavg"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_called_by_its_name(name: str):
    assert method_label(Config(method=name).document()) == name


def test_what_a_configuration_does_not_name_is_the_default():
    whole = Config()
    names = whole.selector.name, whole.aggregator.name, whole.objective.name, whole.server.optimizer
    assert parts({}) == names


def test_by_its_parts_where_they_are_not_those_of_the_preset():
    """The preset parityfl is lnu and mifa. The first run is FedAvg by another name, the second what it says."""
    assert labels(config("parityfl"), config("parityfl", "lnu", "mifa"), config()) == [
        "uniform+fedavg",
        "parityfl",
        "fedavg",
    ]
    assert labels({**config(), "objective": {"name": "fedprox"}}) == ["uniform+fedavg+fedprox"]
    assert labels({**config(), "server": {"optimizer": "adam"}}) == ["uniform+fedavg+adam"]
    assert labels({**config("fedprox"), "objective": {"name": "fedprox"}}) == ["fedprox"]


def test_by_the_keys_that_differ_where_the_parts_are_the_same():
    slow, fast = config("mine", "lnu", "mifa"), config("mine", "lnu", "mifa")
    fast["aggregator"] = {**fast["aggregator"], "server_lr": 2.0}
    assert labels(slow, fast) == ["lnu+mifa (aggregator.server_lr=1.0)", "lnu+mifa (aggregator.server_lr=2.0)"]


def test_a_setting_is_called_by_the_keys_that_differ():
    small, large = config(), config()
    large["population"] = {**large["population"], "clients": 50}
    assert setting_labels(small, large) == ["population.clients=6", "population.clients=50"]
    assert setting_labels(small, config("mine", seed=3)) == ["", ""]


def test_another_name_in_a_section_says_all_that_it_brings():
    bernoulli, bursty, often = config(), config(), config()
    bursty["availability"] = {"name": "gilbert-elliott", "pi": "beta(1,2)", "mean_on_rounds": 12}
    often["availability"] = {"name": "bernoulli", "pi": 0.9}
    assert setting_labels(bernoulli, bursty) == ["availability=bernoulli", "availability=gilbert-elliott"]
    assert setting_labels(bernoulli, bursty, often) == [
        "availability=bernoulli, availability.pi=0.5",
        "availability=gilbert-elliott",
        "availability=bernoulli, availability.pi=0.9",
    ]


def test_where_the_data_lie_and_which_engine_ran_make_no_setting():
    here, there = config(), config()
    there["data"] = {**there["data"], "root": "/elsewhere"}
    there["engine"] = {"name": "http"}
    assert setting_key(here) == setting_key(there)
    assert method_key(here) == method_key(there)


def following(path: str, content: str) -> dict[str, object]:
    """Return the configuration of a run whose availability is a mixture of two traces, the second always `o.csv`."""
    components = [{"name": "trace", "path": path, "share": 1}, {"name": "trace", "path": "o.csv", "share": 1}]
    availability = {"name": "mixture", "components": components}
    return {**config(), "availability": availability, "files": {path: content, "o.csv": "0"}}


def test_files_are_told_by_their_content_and_not_by_their_path():
    here, there, other = following("t.csv", "12"), following("/a/t.csv", "12"), following("t.csv", "34")
    assert setting_key(here) == setting_key(there) != setting_key(other)
    assert setting_labels(here, there) == ["", ""]
    single = [
        {**config(), "availability": {"name": "trace", "path": path}, "files": {path: content}}
        for path, content in (("t.csv", "12"), ("t.csv", "56"), ("u.csv", "34"))
    ]
    labels = setting_labels(*single)
    assert all(label.startswith("availability.path=t.csv #") for label in labels[:2])
    assert labels[0] != labels[1]
    assert labels[2] == "availability.path=u.csv"


def test_how_often_the_test_set_is_measured_makes_no_setting():
    """Such runs go the same way, and so does one that was written before there was such a key."""
    before, seldom = config(), config()
    seldom["evaluation"] = {**seldom["evaluation"], "test_every": 5}
    assert setting_key(before) == setting_key(seldom)
    assert setting_labels(before, seldom) == ["", ""]


def test_how_numbers_are_rounded_makes_a_method():
    """Whatever it is that differs in what is computed, two runs are not one and the same."""
    changes = {
        "transport": {"dtype": "bf16"},
        "engine": {"name": "local", "precision": "bf16"},
        "security": {"max_update_norm": 0.01},
    }
    for section, keys in changes.items():
        plain, other = config(), {**config(), section: keys}
        assert method_key(plain) != method_key(other)
        assert setting_key(plain) == setting_key(other)
    first, second = {**config(), "transport": {"dtype": "float32"}}, {**config(), "transport": {"dtype": "bf16"}}
    assert labels(first, second) == [
        "uniform+fedavg (transport.dtype=float32)",
        "uniform+fedavg (transport.dtype=bf16)",
    ]


def test_methods_of_several_names_with_the_same_parts_are_told_apart():
    made = [config(name, "lnu", rule) for name in ("mine", "yours") for rule in ("mifa", "fedavg")]
    for each in made[2:]:
        each["selector"] = {"name": "lnu", "parity": "utility"}
    assert len(set(labels(*made))) == 4


def test_methods_that_differ_in_name_only_are_told_apart():
    """Both names stand for several methods, two of which are alike."""
    made = [config(name, select, "mifa") for name in ("mine", "yours") for select in ("lnu", "uniform")]
    assert len(set(labels(*made))) == 4


def test_settings_whose_values_are_cut_to_the_same_text_are_told_apart():
    first, second = config(), config()
    first["availability"] = {"name": "bernoulli", "pi": [0.5] * 12}
    second["availability"] = {"name": "bernoulli", "pi": [0.5] * 11 + [0.6]}
    found = setting_labels(first, second)
    assert found[0] != found[1]
    assert all(label.startswith("availability.pi=[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, … #") for label in found)


def test_of_a_long_path_the_end_is_shown():
    made = [config(), config()]
    for each, season in zip(made, ("winter", "summer"), strict=True):
        each["availability"] = {"name": "trace", "path": f"/somewhere/traces-of-the-whole-year/{season}.csv"}
    assert setting_labels(*made)[0] == "availability.path=…es-of-the-whole-year/winter.csv"


def test_long_values_are_cut():
    short, long = config(), config()
    long["availability"] = {"name": "bernoulli", "pi": [0.1] * 50}
    assert setting_labels(short, long)[1] == "availability.pi=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, …"

"""The configuration: layers and their order, what is refused and how, and the way through config.json."""

import json
import math
import random
import re
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest

import parityfl
from parityfl.config import (
    AggregatorSection,
    AvailabilitySection,
    Config,
    ObjectiveSection,
    Population,
    SelectorSection,
    Training,
    describe_preset,
    read_file,
    read_override,
    resolve,
)
from parityfl.config.layers import merge
from parityfl.core.aggregation import aggregator
from parityfl.core.availability import availability
from parityfl.core.errors import ConfigError
from parityfl.core.objectives import objective
from parityfl.core.presets import preset_names
from parityfl.core.selection import Selector, selector
from parityfl.options import read_config

PARTS = {"selector": selector, "aggregator": aggregator, "availability": availability, "objective": objective}
EVERY_PART = [(section, name) for section, registry in PARTS.items() for name in registry.names()]
NEEDS_PROBABILITY = [name for name in aggregator.names() if aggregator.get(name)().needs_probability]


def keys(section):
    return section.model_dump()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


# Layers.


def test_every_key_has_a_default_and_the_defaults_are_those_of_the_contract():
    plain = Config()
    assert (plain.seed, plain.method, plain.selector.name, plain.aggregator.name) == (0, "parityfl", "lnu", "mifa")
    assert (plain.population.clients, plain.population.per_round, plain.population.holdout) == (20, 4, 0.2)
    assert (plain.data.name, plain.model.name, plain.training.lr) == ("digits", "mlp", 0.05)
    assert (plain.rounds.count, plain.rounds.interval_s, plain.rounds.clock) == (30, 600.0, "virtual")
    assert (plain.availability.name, plain.availability.pi) == ("gilbert-elliott", "beta(1,2)")
    assert (plain.selector.parity, plain.selector.offset, plain.selector.temperature) == ("opportunity", 0.5, 2.0)
    assert (plain.aggregator.server_lr, plain.aggregator.need) == (1.5, 0.0)
    assert (plain.utility.functional, plain.engine.name, plain.evaluation.ema) == ("loss_gain", "local", 0.9)


def test_the_order_of_layers(tmp_path):
    """defaults < preset < file < options < --set, one key each step further up."""
    file = write(
        tmp_path / "run.toml",
        'method = "fedadam"\n[aggregator]\nserver_lr = 0.5\n[training]\nlr = 0.1\n[rounds]\ncount = 5\n',
    )
    layers = [read_file(file), {"rounds": {"count": 6}}]
    config = resolve(layers, {"training.lr": 0.3})
    assert (config.aggregator.name, config.server.optimizer) == ("fedavg", "adam")
    assert (config.aggregator.server_lr, config.rounds.count, config.training.lr) == (0.5, 6, 0.3)
    assert config.training.epochs == 1
    assert Config.load(file).training.lr == 0.1


def test_load_takes_dotted_and_nested_overrides(tmp_path):
    file = write(tmp_path / "run.toml", "[population]\nclients = 9\n")
    dotted = Config.load(file, {"population.per_round": 2, "seed": 3})
    nested = Config.load(file, {"population": {"per_round": 2}, "seed": 3})
    assert dotted == nested
    assert (dotted.population.clients, dotted.population.per_round, dotted.seed) == (9, 2, 3)


def test_another_name_drops_the_keys_of_the_old_one():
    file = {"selector": {"name": "lnu", "explore": 0.3}, "aggregator": {"name": "mifa", "need": 1.0}}
    config = resolve([file, {"selector": {"name": "inverse-availability"}}], {"aggregator.name": "fedavg"})
    assert keys(config.selector) == {"name": "inverse-availability", "mode": "random"}
    assert keys(config.aggregator) == {"name": "fedavg", "server_lr": 1.0, "weighted": True}


@pytest.mark.parametrize(
    ("overrides", "model"),
    [
        ({}, "mlp"),
        ({"model.name": "auto"}, "mlp"),
        ({"data.name": "fashion-mnist"}, "cnn-small"),
        ({"data.name": "fashion-mnist", "model.name": "auto"}, "cnn-small"),
        ({"data.name": "fashion-mnist", "model.name": "mlp"}, "mlp"),
        ({"data.name": "local", "rounds.clock": "wall"}, "cnn-small"),
    ],
)
def test_a_model_that_is_left_out_is_the_usual_one_of_the_data(overrides, model):
    """Also in config.json: a run that names the model and one that leaves it out are of one setting."""
    config = resolve([], overrides)
    assert config.document()["model"] == {"name": model}
    assert config.hash == resolve([], {**overrides, "model.name": model}).hash


def test_the_same_name_keeps_them():
    config = resolve([{"selector": {"explore": 0.3}}, {"selector": {"name": "lnu"}}], {"selector.parity": "utility"})
    assert (config.selector.explore, config.selector.parity) == (0.3, "utility")


def test_another_name_drops_the_keys_of_the_preset():
    """The preset `mifa` has server_lr 1; another aggregator has its own default."""
    assert Config.preset("mifa").aggregator.server_lr == 1.0
    assert Config.preset("mifa", {"aggregator.name": "horvitz-thompson"}).aggregator.server_lr == 0.2


def test_the_preset_lies_below_every_layer():
    """Under `fedavg` the file's key belongs to `uniform`, which an option replaces."""
    config = resolve(
        [{"selector": {"name": "lnu", "explore": 0.3}}, {"method": "fedavg", "selector": {"name": "psp"}}], {}
    )
    assert keys(config.selector) == {"name": "psp"}


@pytest.mark.parametrize("given", [{"method": "fedavg"}, {"assignments": ["method=fedavg"]}])
def test_a_method_takes_the_place_of_the_parts_that_a_file_names(tmp_path, given):
    """Also of those that its preset leaves at their defaults; what is no part of a method stays the file's."""
    old = Config(method="fedadam", objective={"name": "ditto"}, population={"clients": 9}, training={"lr": 0.2})
    file = write(tmp_path / "config.json", json.dumps(old.document()))
    config = read_config({"config_file": file, "assignments": None, **given})
    assert config == Config(method="fedavg", population={"clients": 9}, training={"lr": 0.2})
    assert Config.load(file, {"method": "fedavg"}) == config
    assert Config.load(file) == old


def test_a_method_of_the_same_parts_leaves_none_of_their_keys(tmp_path):
    """`parityfl` and `parityfl-utility` differ in the selector's parity only, which config.json always gives."""
    file = write(tmp_path / "config.json", json.dumps(Config.preset("parityfl-utility").document()))
    assert Config.load(file, {"method": "parityfl"}) == Config()


def test_what_a_file_says_of_any_method_stays_when_one_is_chosen():
    config = resolve([{"aggregator": {"server_lr": 0.5}}], {"method": "fedavg"})
    assert keys(config.aggregator) == {"name": "fedavg", "server_lr": 0.5, "weighted": True}


@pytest.mark.parametrize("given", [{"method": "fedavg"}, {"assignments": ["method=fedavg"]}])
def test_options_lie_over_the_method_that_is_chosen_beside_them(given):
    config = read_config({"config_file": None, "assignments": None, "selector": "psp", **given})
    assert (config.method, config.selector.name, config.aggregator.name) == ("fedavg", "psp", "fedavg")


@pytest.mark.parametrize("turned", [False, True])
def test_keys_of_one_layer_have_no_order(turned):
    given = {"selector.name": "inverse-availability", "selector.mode": "top-m"}
    config = resolve([], dict(reversed(given.items())) if turned else given)
    assert keys(config.selector) == {"name": "inverse-availability", "mode": "top-m"}


def test_merging_changes_nothing_in_place():
    lower, upper = {"a": {"x": 1}}, {"a": {"y": 2}}
    assert merge(lower, upper) == {"a": {"x": 1, "y": 2}}
    assert (lower, upper) == ({"a": {"x": 1}}, {"a": {"y": 2}})


# --set.


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training.lr=0.1", "training.lr", 0.1),
        ("availability.pi=[0.9, 0.5]", "availability.pi", [0.9, 0.5]),
        ('data.root="a b"', "data.root", "a b"),
        ("data.root=/tmp/x=y", "data.root", "/tmp/x=y"),
        ("availability.pi=beta(1,2)", "availability.pi", "beta(1,2)"),
        ("selector.credit_high=inf", "selector.credit_high", math.inf),
        ("selector.relative=true", "selector.relative", True),
        (" seed = 3 ", "seed", 3),
        ("data.root=", "data.root", ""),
    ],
)
def test_reading_an_assignment(text, key, value):
    assert read_override(text) == (key, value)


@pytest.mark.parametrize("text", ["training.lr", "=3", ""])
def test_an_assignment_without_a_key_or_a_value(text):
    with pytest.raises(ConfigError, match=r"write key\.sub=value") as caught:
        read_override(text)
    one_line(caught)


def assigned(*texts, layers=()):
    return resolve(list(layers), dict(read_override(text) for text in texts))


@pytest.mark.parametrize(
    ("texts", "read", "value"),
    [
        (["data.root=123"], lambda c: c.data.root, "123"),
        (["data.root=true"], lambda c: c.data.root, "true"),
        (["data.root=2024-01-01"], lambda c: c.data.root, "2024-01-01"),
        (["availability.name=trace", "availability.path=7"], lambda c: c.availability.path, "7"),
        (["availability.path=7", "availability.name=trace"], lambda c: c.availability.path, "7"),
        (["availability.pi=0.5"], lambda c: c.availability.pi, 0.5),
        (["availability.pi=uniform(0,1)"], lambda c: c.availability.pi, "uniform(0,1)"),
    ],
)
def test_a_value_that_does_not_fit_is_tried_as_a_string(texts, read, value):
    assert read(assigned(*texts)) == value


def test_what_is_no_string_either_is_told_as_it_was_given():
    with pytest.raises(ConfigError, match=r"population\.clients = 2\.5: input should be a valid integer") as caught:
        assigned("population.clients=2.5", "data.root=123")
    one_line(caught)


@pytest.mark.parametrize(
    "key",
    ["seed", "rounds.count", "rounds.quorum", "training.lr", "engine.workers", "selector.explore"],
)
def test_true_is_no_number(key):
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)} = true: this key is not true or false") as caught:
        assigned(f"{key}=true")
    one_line(caught)


def test_true_and_false_where_they_mean_something():
    config = assigned("selector.relative=false", "aggregator.name=fedavg", "aggregator.weighted=false")
    assert (config.selector.relative, config.aggregator.weighted) == (False, False)


def test_a_part_of_ones_own_is_the_same_after_a_trip_through_json(restored):
    """Its author wrote 1 for a float: the first document would say 1 and the second 1.0."""
    restored(selector)

    @selector("whole-default")
    @dataclass(frozen=True)
    class Whole(Selector):
        """A selector."""

        source: ClassVar[str] = "here"
        weight: float = 1

        def select(self, state, view, rng):
            raise NotImplementedError

    config = Config(selector={"name": "whole-default"})
    assert resolve([json.loads(json.dumps(config.document()))], {}).hash == config.hash
    assert repr(config.selector.weight) == "1.0"


@pytest.mark.parametrize("key", ["selector.half_life", "selector.strict", "population.samples_per_client"])
def test_none_is_a_word(key):
    below = [{"selector": {"half_life": 50.0, "strict": 0.2}, "population": {"samples_per_client": 10}}]
    config = assigned(f"{key}=none", layers=below)
    section, _, name = key.partition(".")
    assert keys(getattr(config, section))[name] is None


def test_none_stays_a_name_where_it_is_one():
    assert assigned("server.optimizer=none").server.optimizer == "none"


def test_infinity_is_allowed_where_it_means_something():
    config = assigned("selector.credit_high=inf")
    assert config.selector.credit_high == math.inf
    assert config.document()["selector"]["credit_high"] == "inf"
    with pytest.raises(ConfigError, match=r"training\.lr = inf: input should be a finite number"):
        assigned("training.lr=inf")


# What is refused.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"populatoin": {}}, r"unknown key populatoin: did you mean 'population'\? the top level has aggregator"),
        ({"population": {"client": 3}}, r"unknown key population\.client: did you mean 'clients'\? \[population\] has"),
        ({"selector": {"modee": "x"}}, r"unknown key selector\.modee: did you mean 'mode'\? selector 'lnu' has"),
        ({"aggregator": {"name": "fedavg", "need": 1}}, r"unknown key aggregator\.need: .*aggregator 'fedavg' has"),
        ({"objective": {"mu": 1}}, r"unknown key objective\.mu: objective 'plain' has no keys"),
        ({"selector": {"name": "lnuu"}}, r"unknown selector 'lnuu': did you mean 'lnu'\?"),
        ({"method": "fedavgg"}, r"unknown method 'fedavgg': did you mean 'fedavg'\?"),
        ({"seed": "x"}, r"seed = 'x': input should be a valid integer"),
        ({"population": {"clients": 0}}, r"population\.clients = 0: input should be greater than or equal to 1"),
        ({"population": {"holdout": 1.0}}, r"population\.holdout = 1\.0: input should be less than 1"),
        (
            {"population": {"partition": "x"}},
            r"population\.partition = 'x': input should be 'label-subset'",
        ),
        ({"training": {"lr": "fast"}}, r"training\.lr = 'fast': input should be a valid number"),
        ({"training": {"lr": 0}}, r"training\.lr = 0: input should be greater than or equal to 1e-30"),
        ({"training": {"lr": 1e39}}, r"training\.lr = 1e\+39: input should be less than or equal to 1e\+?30"),
        ({"training": {"weight_decay": 1e308}}, r"training\.weight_decay = 1e\+308: input should be less than"),
        ({"training": {"batch_size": 10**22}}, r"training\.batch_size = 1000.*0: input should be less than"),
        ({"rounds": {"over_select": 1e308}}, r"rounds\.over_select = 1e\+308: input should be less than"),
        ({"objective": {"name": "fedprox", "mu": 1e308}}, r"objective\.mu = 1e\+308 must be from 0 to 1e\+30"),
        ({"objective": {"name": "ditto", "strength": 1e39}}, r"objective\.strength = 1e\+39 must be from 0 to 1e\+30"),
        ({"server": {"optimizer": "adam", "tau": 1e300}}, r"server\.tau = 1e\+300 must be from 1e-30 to 1e\+15"),
        ({"selector": {"temperature": "hot"}}, r"selector\.temperature = 'hot': input should be a valid number"),
        ({"selector": {"mode": "x"}}, r"selector\.mode = 'x': input should be 'randomised' or 'deterministic'"),
        ({"selector": {"explore": 2}}, r"selector\.explore = 2\.0: give a number between 0 and 1"),
        ({"availability": {"pi": ["a"]}}, r"availability\.pi = 'a': input should be a valid number"),
        ({"selector": {"name": 5}}, r"selector\.name = 5: input should be a valid string"),
        ({"rounds": 5}, r"rounds = 5: \[rounds\] is a section: give its keys, such as rounds\.count"),
        ({"selector": "lnu"}, r"selector = 'lnu': \[selector\] is a section: give its keys, such as selector\.name"),
        (
            {"population": {"clients": 3}},
            r"population\.per_round = 4 is more than population\.clients = 3: select at most as many as there are",
        ),
        (
            {"engine": {"name": "ray", "device": "cuda"}},
            r"engine\.device = 'cuda' with engine\.name = 'ray': its actors compute on the CPU; use .*'auto'",
        ),
        ({"rounds": {"quorum": 5}}, r"rounds\.quorum = 5 is more than population\.per_round = 4"),
        (
            {"evaluation": {"every": 2}},
            r"evaluation\.every = 2 with utility\.functional = 'loss_gain': .*local_gain",
        ),
        (
            {"objective": {"name": "scaffold"}, "training": {"momentum": 0.9}},
            r"training\.momentum = 0\.9 with objective\.name = 'scaffold': .*set training\.momentum = 0",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_key_value_and_remedy(given, message):
    for make in (lambda: Config(**given), lambda: resolve([given], {})):
        with pytest.raises(ConfigError, match=message) as caught:
            make()
        assert len(one_line(caught)) < 600


@pytest.mark.parametrize("rule", NEEDS_PROBABILITY)
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "lnu", "mode": "deterministic"}, "deterministic"),
        ({"name": "inverse-availability", "mode": "top-m"}, "deterministic"),
        ({"name": "least-selected"}, "deterministic"),
        ({"name": "power-of-choice"}, "has none"),
        ({"name": "oort"}, "gives some who are available none"),
        ({"name": "lnu", "strict": 0.3}, "gives some who are available none"),
    ],
)
def test_inverse_probabilities_need_probabilities(rule, given, why):
    with pytest.raises(ConfigError, match=rf"aggregator.name = '{rule}' .*{why}.*use a randomised selector, or mifa"):
        Config(selector=given, aggregator={"name": rule})
    Config(selector=given, aggregator={"name": "mifa"})
    Config(selector={"name": "uniform"}, aggregator={"name": rule})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.toml", None, r" cannot be read \(No such file or directory\): give a TOML file, or"),
        ("bad.toml", "seed = ", "is no TOML"),
        ("bad.json", "{", "is no JSON"),
        ("list.json", "[1]", "must be a table"),
        ("bytes.toml", b"\xff\xfe", "is not UTF-8 text: save it as UTF-8"),
        ("LATIN.JSON", '{"method": "é"}'.encode("latin-1"), "is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=f"{name}.*{message}") as caught:
        Config.load(path)
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "text"), [("ok.toml", "seed = 3"), ("ok.json", '{"seed": 3}'), ("OK.JSON", '{"seed": 3}')]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_what_its_ending_says_with_a_byte_order_mark_and_without(tmp_path, name, text, encoding):
    (tmp_path / name).write_text(text, encoding=encoding)
    assert Config.load(tmp_path / name).seed == 3


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder: give a TOML file, or the config\.json of a run folder$"):
        Config.load(tmp_path)


def test_a_run_folder_is_told_its_own_file(tmp_path):
    file = write(tmp_path / "config.json", "{}")
    with pytest.raises(ConfigError, match=f"configuration {tmp_path} is a folder: give {file}$"):
        Config.load(tmp_path)


def test_a_configuration_is_not_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3
    with pytest.raises(ValueError, match="frozen"):
        Config().population.clients = 3


# The wall clock.


def test_on_the_wall_clock_devices_say_themselves_when_they_are_there():
    assert Config(rounds={"clock": "wall"}).availability.name == "always"
    assert resolve([{"rounds": {"clock": "wall"}}], {"rounds.count": 3}).availability.name == "always"
    assert Config(rounds={"clock": "wall"}, availability={"name": "bernoulli"}).availability.name == "bernoulli"
    assert Config(rounds={"clock": "virtual"}).availability.name == "gilbert-elliott"


# Presets.


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_complete_and_survives_config_json(name, tmp_path):
    config = Config.preset(name)
    assert config.method == name == Config(method=name).method
    about, source = describe_preset(name)
    assert about
    assert source
    assert round_trip(config, tmp_path) == config


def round_trip(config, folder):
    file = folder / "config.json"
    file.write_text(
        json.dumps({**config.document(), "versions": {"python": "3"}, "hash": config.hash}, allow_nan=False)
    )
    again = Config.load(file)
    assert again.hash == config.hash
    assert again.document() == config.document()
    return again


@pytest.mark.parametrize(("section", "name"), EVERY_PART)
def test_every_part_survives_config_json(section, name, tmp_path):
    others = {"selector": {"name": "uniform"}} if section != "selector" else {}
    config = Config(**others, **{section: {"name": name}})
    assert round_trip(config, tmp_path) == config
    built = getattr(config, section).build()
    assert {field.name for field in fields(built)} | {"name"} == set(keys(getattr(config, section)))
    assert built == PARTS[section].get(name)()


@pytest.mark.parametrize(
    "given",
    [
        {"selector": {"credit_high": math.inf}},
        {"availability": {"name": "groups", "pi": [0.5] * 20, "groups": [[0, 1], [2, 3]]}},
        {"availability": {"name": "mixture", "components": [{"name": "bernoulli", "pi": 0.2, "share": 1}]}},
        {"utility": {"mu": [1, 2, 3], "noise": 0.5}},
        {"rounds": {"clock": "wall", "quorum": 2}},
        {"method": "fedavg", "selector": {"name": "lnu"}, "training": {"clip_norm": 1}},
    ],
)
def test_other_values_survive_config_json(given, tmp_path):
    assert round_trip(Config(**given), tmp_path) == Config(**given)


def test_the_hash_does_not_know_the_order_of_keys(tmp_path):
    document = Config(selector={"name": "psp"}, seed=4).document()
    shuffle = random.Random(0)
    shuffled = {
        key: dict(shuffle.sample(list(value.items()), len(value))) if isinstance(value, dict) else value
        for key, value in shuffle.sample(list(document.items()), len(document))
    }
    assert list(shuffled) != list(document)
    file = write(tmp_path / "config.json", json.dumps(shuffled))
    assert Config.load(file).hash == Config(selector={"name": "psp"}, seed=4).hash


def test_the_hash_knows_every_value_and_no_spelling():
    hashes = {
        Config(**given).hash for given in ({}, {"seed": 1}, {"training": {"lr": 0.1}}, {"selector": {"offset": 0}})
    }
    assert len(hashes) == 4
    assert Config(availability={"pi": 1}).hash == Config(availability={"pi": 1.0}).hash
    assert Config(selector={"offset": "0.5"}).hash == Config().hash


# Python.


def test_sections_are_given_as_objects_or_mappings():
    objects = Config(
        population=Population(clients=7, per_round=3),
        training=Training(lr=0.2),
        selector=SelectorSection(name="inverse-availability", mode="top-m"),
        aggregator=AggregatorSection(name="fedavg"),
        availability=AvailabilitySection(name="bernoulli", pi=0.4),
        objective=ObjectiveSection(name="fedprox", mu=0.1),
    )
    mappings = Config(
        population={"clients": 7, "per_round": 3},
        training={"lr": 0.2},
        selector={"name": "inverse-availability", "mode": "top-m"},
        aggregator={"name": "fedavg"},
        availability={"name": "bernoulli", "pi": 0.4},
        objective={"name": "fedprox", "mu": 0.1},
    )
    assert objects == mappings
    assert objects.hash == mappings.hash


def test_a_section_object_is_what_it_says_whatever_the_preset():
    """The preset `fedavg` selects uniformly; a default selector section is `lnu` all the same."""
    assert Config(method="fedavg", selector=SelectorSection()).selector == SelectorSection()
    assert Config(method="fedavg", selector=SelectorSection(offset=0.25)).selector.offset == 0.25
    assert Config(method="fedavg", training=Training()).selector.name == "uniform"


def test_a_resolved_configuration_can_be_taken_apart_and_put_together():
    config = Config(method="fedadam", seed=2)
    assert Config(**config.document()) == config


def test_it_is_part_of_the_public_face():
    assert parityfl.Config is Config
    assert issubclass(ConfigError, parityfl.ParityflError)


def test_a_limit_that_is_set_by_default_can_be_lifted():
    assert resolve([], {"security.max_update_norm": "none"}).security.max_update_norm is None


def test_a_name_that_comes_back_does_not_bring_back_what_the_preset_gave():
    """Choosing another rule dropped the preset's keys; choosing the preset's again is a choice of its own."""
    chosen = resolve([{"method": "parityfl-need"}, {"aggregator": {"name": "fedavg"}}], {"aggregator.name": "mifa"})
    assert chosen.aggregator == AggregatorSection(name="mifa")


def test_the_components_of_a_mixture_are_checked_like_sections():
    mixed = [
        {"name": "trace", "loop": "false", "share": 1},
        {"name": "gilbert-elliott", "stability": "none", "share": 1},
    ]
    section = AvailabilitySection(name="mixture", components=mixed)
    assert [part.get("loop") for part in keys(section)["components"]] == [False, None]
    assert keys(section)["components"][1]["stability"] is None
    with pytest.raises(ConfigError, match=r"availability\.components\[0\]\.stability = 'x': input should be"):
        AvailabilitySection(name="mixture", components=[{"name": "gilbert-elliott", "stability": "x", "share": 1}])
    with pytest.raises(ConfigError, match=r"unknown availability\.components\[0\] 'always-on'"):
        AvailabilitySection(name="mixture", components=[{"name": "always-on", "share": 1}])


@pytest.mark.parametrize(
    "key", ["rounds.over_select", "aggregator.server_lr", "objective.mu", "selector.debt_weight", "selector.epsilon"]
)
def test_infinity_is_refused_where_nothing_can_be_done_with_it(key):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        resolve([{"selector": {"name": "cup-reactive"}, "objective": {"name": "fedprox"}}], {key: math.inf})


def test_a_coordinators_file_keeps_its_engine_keys(tmp_path):
    """It names no engine, and the coordinator's is http: that is no other one."""
    file = write(tmp_path / "run.toml", '[engine]\nprecision = "bf16"\n')
    lowest = {"rounds": {"clock": "wall"}, "engine": {"name": "http"}}
    config = read_config({"config_file": file, "assignments": None, "engine": "http"}, lowest)
    assert (config.engine.name, config.engine.precision) == ("http", "bf16")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TypeError("no such sum"), "TypeError: no such sum"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_whatever_a_part_raises_of_its_keys_is_one_line(restored, error, told):
    restored(selector)

    @selector("picky")
    @dataclass(frozen=True)
    class Picky(Selector):
        """A selector."""

        sharpness: float = 1.0

        def __post_init__(self):
            if self.sharpness > 1:
                raise error

        def select(self, state, view, rng):
            raise NotImplementedError

    where = r"\(tests/test_config\.py:\d+\)"
    line = rf"^selector 'picky' does not take its keys: {told} {where}; give other values, or repair it$"
    with pytest.raises(ConfigError, match=line):
        Config(selector={"name": "picky", "sharpness": 2})

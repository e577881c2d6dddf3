"""The rules of settings: what they take, what they refuse, and what their help says."""

from types import SimpleNamespace

import pytest

from configuration import CONFIG
from src.errors import SettingError
from src.run.settings import (
    ANYTHING,
    HOW_TO_RUN,
    NAME,
    NAMES,
    PATH,
    POSITIVE,
    RATE,
    SCHEDULER,
    SHARD,
    SIZE,
    by_name,
    list_of,
    number,
    one_of,
    setting,
    shared_settings,
)

KINDS = {
    "count": number(1),
    "port": number(0, 65535),
    "share": number(0, 1, whole=False),
    "most": number(at_most=5),
    "choice": one_of("tsne", "pca"),
    "counts": list_of(number(1)),
    "choices": list_of(one_of("tsne", "pca"), at_least=1),
    "name": NAME,
    "names": NAMES,
    "path": PATH,
    "size": SIZE,
    "positive": POSITIVE,
    "rate": RATE,
    "shard": SHARD,
    "scheduler": SCHEDULER,
    "anything": ANYTHING,
}
FITS = {
    "count": [1, 2**40],
    "port": [0, 65535],
    "share": [0, 1, 0.5],
    "most": [5, -7],
    "choice": ["tsne", "pca"],
    "counts": [[], [1], (3, 1)],
    "choices": [["tsne"], ["pca", "tsne"]],
    "name": ["farm", "a b", "ü.1"],
    "names": [["streets"], ["a", "b"], ("a",)],
    "path": ["a.p", "/a/b", "2020"],
    "size": [[1, 2048], (3, 3)],
    "positive": [1e-9, 1, 3.5, float("inf")],
    "rate": [1e-9, 1],
    "shard": ["0/1", "0/4", "3/4", "11/12"],
    "scheduler": ["local:1", "local:16", "tcp://host:8786", "tls://10.0.0.1:80"],
    "anything": [None, 1, "a", [1]],
}
DOES_NOT_FIT = {
    "count": [0, -1, 2.0, "two", True, None, [1]],
    "port": [-1, 65536, "80"],
    "share": [-0.1, 1.1, float("nan"), "0.5", True],
    "most": [6, 1.5],
    "choice": ["umap", 5, None, ["tsne"]],
    "counts": [[1, 0], [1.0], 5, "5"],
    "choices": [[], ["umap"], "tsne"],
    "name": ["", " ", ".", "..", "a/b", "/a", "a\\b", "a\0", 1.5, None, ["a"]],
    "names": [[], 5, [1], ["a", 5], None],
    "path": [5, 1.5, True, ["a"], "", " "],
    "size": [512, [512], [512, 0], [512, 0.5], [1, 2, 3], "ab", [True, 1]],
    "rate": [0, 1.1, float("nan"), float("inf"), "low", True],
    "positive": [0, -1, float("nan"), "low", True],
    "shard": ["4/4", "0/0", "-1/4", "1", "0/4/2", 0.25, "a/b"],
    "scheduler": ["local", "local:0", "local:two", "host:8786", "udp://h:1", 5],
    "anything": [],
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_takes_what_fits_and_names_what_does_not(name):
    for value in FITS[name]:
        KINDS[name].check("args.x", value)
    for value in DOES_NOT_FIT[name]:
        with pytest.raises(SettingError) as error:
            KINDS[name].check("args.x", value)
        assert str(error.value).startswith(f"`args.x` must be {KINDS[name].words}, got {value!r}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("count", "a whole number >= 1"),
        ("port", "a whole number from 0 to 65535"),
        ("share", "a number from 0 to 1"),
        ("most", "a whole number <= 5"),
        ("choice", "one of tsne, pca"),
        ("counts", "a list, each a whole number >= 1"),
        ("choices", "a list of 1 or more, each one of tsne, pca"),
    ],
)
def test_a_kind_says_in_words_what_it_takes(name, words):
    assert KINDS[name].words == words


def test_a_message_names_value_rule_none_and_what_the_setting_is_for():
    rules = setting(8, "images a job", none="as many as fit", at_least=1)
    with pytest.raises(SettingError) as error:
        rules.check("args.images_per_job", 0)
    assert str(error.value) == (
        "`args.images_per_job` must be a whole number >= 1, or None (as many as fit), got 0 "
        "[images a job]"
    )


@pytest.mark.parametrize(
    ("rules", "fits", "wrong"),
    [
        (setting(0, "", none="the CPU"), None, "0"),
        (setting(0, ""), 3, None),
        (setting(0.5, "", at_least=0), 1, -0.5),
        (setting("", "", none="no name"), None, 5),
        (setting(None, "", at_least=1), None, 0),  # None is its default
        (setting(["pca"], "", choices=["tsne", "pca"]), ["tsne"], ["umap"]),
        (setting([1, 10], "", at_least=1), [3], [0]),
        (setting(["pca"], "", kind=NAMES), ["umap"], [5]),
        (setting(False, ""), True, 1),
    ],
)
def test_what_is_allowed_follows_from_the_default_and_the_rules(rules, fits, wrong):
    rules.check("args.x", fits)
    with pytest.raises(SettingError, match="`args.x` must be"):
        rules.check("args.x", wrong)


def test_a_default_of_none_without_rules_takes_anything():
    for value in (None, 5, "car", ["car", 5]):
        setting(None, "").check("args.x", value)


def test_help_says_what_is_allowed_where_the_default_does_not():
    about = {
        setting(0, "index", none="the CPU"): "index; None: the CPU",
        setting(1, "images", none="all", at_least=1): "images: a whole number >= 1; None: all",
        setting("pca", "how", choices=["tsne", "pca"]): "how: one of tsne, pca",
        setting(None, "file", none="none", kind=PATH): "file; None: none",
        setting(False, "go on"): "go on",
        setting(0.5, ""): "",
        setting((), "of each map", at_least=1): "of each map: a list, each a whole number >= 1",
    }
    for rules, expected in about.items():
        assert rules.description() == expected
    assert setting({}, "weights by name", at_least=0).description().endswith("a whole number >= 0")


@pytest.mark.parametrize(
    ("kind", "typed", "read"),
    [
        (ANYTHING, "[a,b]", ["a", "b"]),
        (ANYTHING, "a,b", "a,b"),
        (SIZE, "[1,2]", [1, 2]),
        (NAMES, "streets", ["streets"]),
        (NAMES, "[streets,b]", ["streets", "b"]),
        (PATH, "[a].png", "[a].png"),
        (PATH, "[a]", "[a]"),
        (PATH, "$NO_SUCH_VARIABLE/a", "$NO_SUCH_VARIABLE/a"),
        (PATH, "~no_such_user", "~no_such_user"),
        (PATH, 5, 5),
        (one_of("[a]"), "[a]", "[a]"),
    ],
)
def test_what_is_typed_is_read_by_its_kind(kind, typed, read):
    assert kind.read(typed) == read


def test_dotted_names_stand_in_the_order_of_the_script():
    rules = setting(3, "a rule")
    found = by_name({"b": rules, "a": {"d": 1, "c": {"e": rules}}, "free": {}})
    assert list(found) == ["b", "a.d", "a.c.e", "free"]
    assert found["b"] is found["a.c.e"] is rules
    assert found["a.d"].default == 1
    found["free"].of_entry().check("free.x", None)


def test_shared_settings_have_the_defaults_of_the_configuration():
    own = SimpleNamespace(**{**vars(CONFIG), "NUM_CORES": 3, "metaseg_io_path": "/elsewhere"})
    found = shared_settings(own, "io_path", *HOW_TO_RUN)
    assert list(found) == ["io_path", *HOW_TO_RUN]
    assert {name: rules.default for name, rules in found.items()} == {
        "io_path": "/elsewhere",
        "num_cores": 3,
        "scheduler": None,
        "images_per_job": 16,
        "shard": None,
        "overwrite": False,
        "verify": False,
        "dry_run": False,
        "fail_fast": None,
    }

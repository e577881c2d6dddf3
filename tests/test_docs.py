"""What the pages say exists: links, files, scripts, settings, targets of make."""

import functools
import re
import shlex
from pathlib import Path

import pytest

import compute_embeddings
import discover_embedding_space
import eval_anomaly
import eval_budget
import eval_groups
import eval_iou
import eval_retrieval
import eval_segmentation
import eval_selection
import learn_classes
import pred_images
import search_classes
import train_meta_nn
from src.MetaSeg import main as metaseg

REPOSITORY = Path(__file__).resolve().parents[1]
FURTHER = sorted(REPOSITORY.glob("docs/*.md"))
PAGES = [*sorted(REPOSITORY.glob("*.md")), *FURTHER]
EXPERIMENTS = {
    "pred_images.py": pred_images.ex,
    "src/MetaSeg/main.py": metaseg.ex,
    "train_meta_nn.py": train_meta_nn.ex,
    "compute_embeddings.py": compute_embeddings.ex,
    "discover_embedding_space.py": discover_embedding_space.ex,
    "learn_classes.py": learn_classes.ex,
    "search_classes.py": search_classes.ex,
    "eval_anomaly.py": eval_anomaly.ex,
    "eval_budget.py": eval_budget.ex,
    "eval_groups.py": eval_groups.ex,
    "eval_iou.py": eval_iou.ex,
    "eval_retrieval.py": eval_retrieval.ex,
    "eval_segmentation.py": eval_segmentation.ex,
    "eval_selection.py": eval_selection.ex,
}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^python (\S+\.py)\b(.*)$", re.M)
SETTING = re.compile(r"\b(?:args|mainplot|tsne)\.[a-z_]\S*")
PATH = re.compile(r"\b(?:src|tests|tools|benchmarks|docs)/[\w./-]*")
FILE = re.compile(r"(?<![\w./<>])\w+\.(?:py|pyx|h|md)\b")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page):
    return page.read_text(encoding="utf-8")


def anchors_of(page):
    """What a link may have behind #: the headings, as they are called on the web."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text_of(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_of(page):
    """All that is set as code: blocks without a language, and words within the text."""
    text = text_of(page)
    blocks = [code for language, code in BLOCK.findall(text) if not language]
    return blocks + re.findall(r"`([^`]+)`", BLOCK.sub("", text))


@functools.cache
def refusal(script, *words):
    """Why a script does not take some words of its command line; None: it does."""
    try:
        EXPERIMENTS[script].run_commandline([script, "print_config", *words])
    except SystemExit as stop:
        return stop.code
    return None


def takes(script, word):
    """Whether a script has a setting, and if `word` gives it a value, takes that."""
    is_name = "=" not in word
    reason = refusal(script, "with", f"{word}=None" if is_name else word)
    return reason is None or (is_name and "is not a setting" not in reason)


def test_the_readme_has_at_most_200_lines():
    assert len(text_of(REPOSITORY / "README.md").splitlines()) <= 200


def test_the_readme_leads_to_every_page():
    links = LINK.findall(text_of(REPOSITORY / "README.md"))
    assert {page.relative_to(REPOSITORY).as_posix() for page in FURTHER} <= {*links}


@pages
def test_links_lead_somewhere(page):
    for link in LINK.findall(BLOCK.sub("", text_of(page))):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors_of(target), link


@pages
def test_commands_name_scripts_and_settings_that_fit(page, capsys):
    for script, words in COMMAND.findall("\n".join(code_of(page))):
        assert (REPOSITORY / script).is_file(), script
        words = shlex.split(words)
        if script in EXPERIMENTS and words not in (["-h"], ["print_config"]):
            assert refusal(script, *words) is None, (script, words)


@pages
def test_settings_in_the_text_are_those_of_a_script(page, capsys):
    for word in {word for code in code_of(page) for word in SETTING.findall(code)}:
        assert any(takes(script, word) for script in EXPERIMENTS), word


@pages
def test_files_of_the_project_that_are_named_exist(page):
    code = "\n".join(code_of(page))
    for name in PATH.findall(code):
        assert (REPOSITORY / name).exists(), name
    for name in FILE.findall(code):
        folders = REPOSITORY, REPOSITORY / "tools", *(REPOSITORY / "src").rglob("*/")
        assert any((folder / name).is_file() for folder in folders), name


@pages
def test_python_on_the_page_is_python(page):
    for language, code in BLOCK.findall(text_of(page)):
        if language == "python":
            compile(code, page.name, "exec")


@pages
def test_targets_of_make_exist(page):
    makefile = text_of(REPOSITORY / "Makefile")
    for target in re.findall(r"^make (\w+)$", "\n".join(code_of(page)), re.M):
        assert f"\n{target}:" in makefile, target

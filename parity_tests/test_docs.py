"""Every Python block of the documentation runs; a page is one session, in this process, warnings being errors.

`make docs` runs all pages. The suite itself runs FEW of them, which between them use most of what pages use: the others
are marked `site`, which pyproject.toml leaves out.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
FEW = {"index.md", "how-to/scipy.md", "how-to/stages.md", "how-to/train.md", "faq.md"}
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if BLOCK.search(path.read_text(encoding="utf-8"))]
CONFIGURED = ("jax_enable_x64", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def run(page: Path, text: str) -> None:
    """Line numbers in tracebacks are those of the page."""
    session: dict = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        above = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(above + block[1], str(page), "exec"), session)


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    before = {each: getattr(jax.config, each) for each in CONFIGURED}
    with torch.random.fork_rng():
        yield
    for each, value in before.items():
        jax.config.update(each, value)


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name(page), marks=[] if name(page) in FEW else pytest.mark.site) for page in PAGES]
)
@pytest.mark.promotes("pages are for readers who have set nothing")
def test_blocks_run(page: Path) -> None:
    run(page, page.read_text(encoding="utf-8"))


def test_a_failing_block_is_seen() -> None:
    with pytest.raises(NameError) as seen:
        run(DOCS / "page.md", "One\n\n```python\nx = 1\n```\n\n```python\nx\ny\n```\n")
    assert seen.traceback[-1].lineno == 8  # of the page, counted from 0
    with pytest.raises(UserWarning):
        run(DOCS / "page.md", "```python\nimport warnings\nwarnings.warn('old')\n```\n")


@pytest.mark.parametrize("package", ["bandhess_jax", "bandhess_torch"])
def test_the_reference_has_every_public_name(package: str) -> None:
    """Whose docstring has an example (`test_examples.py`)."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    listed = set(re.findall(rf"^::: (?:{package}|bandhess_common\.status)\.(\w+)$", text, flags=re.MULTILINE))
    names = set(importlib.import_module(package).__all__)
    submodules = {path.stem for path in (DOCS.parent / package).iterdir()}
    assert listed - submodules == names


def test_every_page_is_in_the_navigation() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", text[text.index("\nnav:") :]))
    assert listed == {name(page) for page in DOCS.rglob("*.md")}

"""The documentation site: its links lead somewhere, it needs no network, and faults of pages fail its build."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import posedy
from tools.docs.hooks import rewrite_links, site_path

pytest.importorskip("mkdocs", reason="needs pip install 'posedy[docs]'")

REPOSITORY = Path(__file__).parents[2]


class _Page(HTMLParser):
    """The links, loaded files and anchors of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name in ("href", "src") and value:
                (self.links if tag == "a" else self.loaded).append(value)


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds a site as `make docs` does."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--config-file",
        str(config),
        "--site-dir",
        str(site),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_links_of_the_site_lead_to_pages_and_anchors_without_network(tmp_path: Path) -> None:
    built = build(REPOSITORY / "mkdocs.yml", tmp_path)
    assert built.returncode == 0, built.stderr
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html")}
    assert len(pages) > 40
    broken, checked = [], 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, for any address
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and parts.fragment not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(tmp_path)}: {link}")
        external = [link for link in page.loaded if urlsplit(link).netloc]
        badges = path == tmp_path / "repository/index.html"  # README.md
        assert badges or not external, f"{path.relative_to(tmp_path)} loads {external}"
    assert broken == []
    assert checked > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("no fault", None),
        ("[a](missing.md)", "missing.md"),
        ("[a](#missing)", "missing"),
        ("![a](missing.png)", "missing.png"),
        ("[a](../missing.md)", "missing.md"),
        ("::: posedy.Missing", "posedy.Missing"),
        (None, "orphan.md"),
    ],
)
def test_faults_of_pages_fail_the_build(text: str | None, error: str | None, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Home\n\n{text}\n")
    if text is None:
        (docs / "orphan.md").write_text("# Orphan\n")
    (docs / "stylesheets").mkdir()
    (docs / "stylesheets/extra.css").touch()
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    config |= {"docs_dir": str(docs), "nav": [{"Home": "index.md"}], "hooks": [str(REPOSITORY / "tools/docs/hooks.py")]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert (built.returncode == 0) == (error is None), built.stderr
    assert error is None or error in built.stderr


def test_links_to_other_files_of_the_repository_lead_to_their_pages() -> None:
    assert site_path("docs/how_to/x.md") == "how_to/x.md"
    assert site_path("NOTICE") == "repository/NOTICE.md"
    text = "[a](../../NOTICE) [b](y.md#c) [d](https://x.org/y.md) [e](#f)"
    expected = "[a](../repository/NOTICE.md) [b](y.md#c) [d](https://x.org/y.md) [e](#f)"
    assert rewrite_links("docs/how_to/x.md", text) == expected
    assert rewrite_links("CHANGELOG.md", "[a](docs/how_to/x.md#b)") == "[a](../how_to/x.md#b)"


def test_the_reference_documents_each_public_name_once() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs/reference/api").glob("*.md")]
    names = [line.removeprefix("::: posedy.") for text in texts for line in text.splitlines() if line.startswith(":::")]
    assert sorted(names) == sorted(set(posedy.__all__) - {"__version__"})

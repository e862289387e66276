"""mkdocs hook: adds the files of the repository that pages link to, such as CONTRIBUTING.md and the model cards.

Pages link to files outside docs/ by relative paths, which work on the repository's web page. A site has the files of
docs/ only: each other file becomes a page below `repository/`, as it is if it is Markdown, else as a code block.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds a page for each file outside docs/ to which a page of the site links, directly or over other such files."""
    new = [path for file in files.documentation_pages() for path in _links(f"docs/{file.src_uri}", file.content_string)]
    while new:
        path = new.pop()
        if path.startswith("docs/") or files.get_file_from_path(site_path(path)) is not None:
            continue
        if not (REPOSITORY / path).is_file():
            raise PluginError(f"a page links to {path}, which is not a file of the repository")
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        if path.endswith(".md"):
            new += _links(path, text)
            text = rewrite_links(path, text)
        else:
            text = f"# {posixpath.basename(path)}\n\n```text\n{text}\n```\n"
        files.append(File.generated(config, site_path(path), content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces the links of a page of docs/ to other files of the repository by links to their pages."""
    del config, files
    is_added = page.file.generated_by is not None
    return markdown if is_added else rewrite_links(f"docs/{page.file.src_uri}", markdown)


def site_path(path: str) -> str:
    """Returns the path of a file's page in the sources of the site, from its path in the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path if path.endswith('.md') else f'{path}.md'}"


def rewrite_links(path: str, text: str) -> str:
    """Replaces relative links between files of the repository by links between their pages in the site.

    Args:
        path: the path of the file in the repository.
        text: its Markdown.
    """
    folder = posixpath.dirname(site_path(path)) or "."
    return _replace_links(path, text, lambda target: posixpath.relpath(site_path(target), folder))


def _links(path: str, text: str) -> list[str]:
    """Returns the paths in the repository of the files that a Markdown file links to."""
    found: list[str] = []

    def append(target: str) -> str:
        found.append(target)
        return target

    _replace_links(path, text, append)
    return found


def _replace_links(path: str, text: str, replace: Callable[[str], str]) -> str:
    """Replaces the targets of relative links, which are given as paths in the repository."""

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[2]))
        return f"{match[1]}{replace(target)}"

    return _LINK.sub(replaced, text)

"""Pages of the site that stand elsewhere in the repository. mkdocs calls."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ELSEWHERE = {"changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md"}
"""Page to file, from the repository's top."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them."""
    top = Path(config.config_file_path or ".").resolve().parent
    for page, path in ELSEWHERE.items():
        files.append(File.generated(config, page, content=moved((top / path).read_text(encoding="utf-8"))))
    return files


def moved(text: str) -> str:
    """Links from the repository's top, as they are within the site."""
    return text.replace("](docs/", "](")

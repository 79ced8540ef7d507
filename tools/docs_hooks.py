"""Of the site (mkdocs.yml): links from docs/ to files of the repository that are no pages, and CONTRIBUTING.md as a page."""
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]*)(#[^)]*)?\)")


def on_files(files, config):
    text = (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "contributing.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    def named(match):
        """What has no page is named. A link to nothing stays, so that the build fails."""
        target = ROOT / "docs" / match[2]
        if not target.exists():
            return match[0]
        return f"{match[1]} (`{target.resolve().relative_to(ROOT)}`)" if match[1] != match[2].lstrip("./") else f"`{match[1]}`"

    return LINK.sub(named, markdown)

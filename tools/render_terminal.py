"""Draws a captured terminal session as SVG: python3 tools/render_terminal.py docs/session.txt docs/session.svg

Lines that begin with "$ " are what was typed. The transcript is what the program printed (`script -qc ...`, escape
sequences taken out), wrapped at WIDTH columns, never edited by hand.
"""
import html
import re
import sys
import textwrap

WIDTH, LINE, CHAR, MARGIN = 100, 19, 8.43, 18


def lines_of(transcript):
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", transcript)
    for line in text.rstrip("\n").split("\n"):
        yield from textwrap.wrap(line, WIDTH, drop_whitespace=False, break_on_hyphens=False) or [""]


def svg(transcript, title):
    lines = list(lines_of(transcript))
    width, height = WIDTH * CHAR + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN + 22
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">', f"<title>{html.escape(title)}</title>",
           "<style>text{font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#d7dae0;white-space:pre}"
           ".typed{fill:#8fd18f}.note{fill:#8a91a0}</style>",
           f'<rect width="100%" height="100%" rx="9" fill="#1b1e25"/>']
    out += [f'<circle cx="{MARGIN + 4 + 18 * i}" cy="17" r="5.5" fill="{c}"/>' for i, c in enumerate(("#e0605a", "#e0b13e", "#5bb860"))]
    for i, line in enumerate(lines):
        kind = ' class="typed"' if line.startswith("$ ") else ' class="note"' if re.match(r"(==|\[|#)", line) else ""
        out.append(f'<text x="{MARGIN}" y="{MARGIN + 22 + LINE * (i + 0.75):.0f}" textLength="{len(line) * CHAR:.0f}"{kind}>'
                   f"{html.escape(line)}</text>" if line else "")
    return "\n".join(filter(None, out)) + "\n</svg>\n"


def main():
    source, target = sys.argv[1:3]
    with open(source, encoding="utf-8") as f:
        transcript = f.read()
    with open(target, "w", encoding="utf-8") as f:
        f.write(svg(transcript, "Inferneo in a terminal"))


if __name__ == "__main__":
    main()

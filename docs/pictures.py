"""Draw the pictures of the README from a finished study: the first page of its report, and its page of answers.

    python docs/pictures.py results/demo

It needs pdftoppm (poppler-utils) and a Chromium, and writes docs/report.png and docs/answers.png.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
# A question on which base and adapters differ.
SHOWN = "#task=spider&change=lost&model=demo/lr0.012"
COLOURS = 64


def small(path: Path) -> None:
    """Write a picture again with few colours, which a page of text needs no more of."""
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def main(results: Path) -> None:
    """Draw both pictures."""
    report = DOCS / "report"
    first = ["-r", "80", "-f", "1", "-l", "1", "-singlefile", "-png"]
    subprocess.run(["pdftoppm", *first, str(results / "report.pdf"), str(report)], check=True)
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="light")
        page.goto(f"{(results / 'answers.html').resolve().as_uri()}{SHOWN}")
        page.locator("#question h2").wait_for()
        # The answers, not the schema, are what is to be seen.
        page.evaluate("document.querySelectorAll('#question > details').forEach((one) => { one.open = false })")
        page.locator("#beside").click()
        page.screenshot(path=DOCS / "answers.png")
        browser.close()
    for name in ("report.png", "answers.png"):
        small(DOCS / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Run axe-core on a report in headless Chromium; called by report_check.sh with page, axe.min.js and browser."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (400, 1200)
DARK = "@media screen and (prefers-color-scheme: dark)"
CHECK = """
<script src="axe.min.js"></script>
<script>
for (const d of document.querySelectorAll("details")) d.open = true;
axe.run(document, {resultTypes: ["violations"]}).then(found => parent.postMessage(JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth,
  violations: found.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html + " " + n.failureSummary)]),
}), "*"));
</script>
"""
# The page in a frame, since a window of Chromium is at least 500 pixels wide.
FRAME = """<!doctype html><title>frame</title>
<script>
addEventListener("message", event => {
  const pre = document.createElement("pre");
  pre.id = "found";
  pre.textContent = event.data;
  document.body.append(pre);
});
</script>
<iframe src="page.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>
"""


def check(page: str, axe: Path, browser: str, width: int, dark: bool) -> list[str]:
    """What is wrong with a page at one width and in one scheme."""
    if DARK not in page:
        return ["the page has no dark scheme"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "axe.min.js").write_bytes(axe.read_bytes())
        # The scheme is forced in the text: Chromium's own switches for it change between versions.
        scheme = page.replace(DARK, "@media screen" if dark else "@media not all")
        (Path(folder) / "page.html").write_text(scheme.replace("</body>", CHECK + "</body>"))
        (Path(folder) / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        options += ["--virtual-time-budget=120000", "--window-size=1300,1000", f"--user-data-dir={folder}/profile"]
        command = [browser, *options, f"file://{folder}/frame.html"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    faults = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    match = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, flags=re.DOTALL)
    if match is None:
        return [*faults, f"axe-core did not end: {ended.stderr[-500:]}"]
    found = json.loads(html.unescape(match[1]))
    if found["width"] != width:
        faults.append(f"the window is {found['width']} pixels wide, not {width}")
    if found["scroll"] > found["width"]:
        faults.append(f"the page scrolls sideways: {found['scroll']} of {found['width']} pixels")
    for rule, message, nodes in found["violations"]:
        faults += [f"{rule}: {message}", *(f"    {node}" for node in nodes)]
    return faults


def main() -> None:
    page, axe, browser = Path(sys.argv[1]).read_text(), Path(sys.argv[2]), sys.argv[3]
    wrong = False
    for width in WIDTHS:
        for dark in (False, True):
            faults = check(page, axe, browser, width, dark)
            wrong = wrong or bool(faults)
            print(f"report_check: {width} px, {'dark' if dark else 'light'}: {len(faults) or 'no'} faults")
            for fault in faults:
                print("  " + fault)
    sys.exit(wrong)


if __name__ == "__main__":
    main()

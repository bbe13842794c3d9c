from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_comparison import write_run
from test_tuning import make_study, write_trial
from test_tuning_schedulers import many_trials

from pipelines.comparison.entries import read_folder
from pipelines.comparison.render import html
from pipelines.tuning.records import read_trials
from pipelines.tuning.report import write_report
from pipelines.tuning.schedulers import study_space

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
PROBE = """<script>
const broken = [...document.images].filter(i => !i.complete || i.naturalWidth === 0).length;
const asked = performance.getEntriesByType("resource")
  .filter(r => !r.name.startsWith("data:")).length;
const flat = [...document.querySelectorAll("svg")]
  .filter(s => s.getBoundingClientRect().height < 20).length;
const wide = document.documentElement.scrollWidth > window.innerWidth ? 1 : 0;
document.title = `images ${document.images.length} broken ${broken} asked ${asked} ` +
  `charts ${document.querySelectorAll("svg").length} flat ${flat} wide ${wide}`;
</script></body>"""
"""Added to a copy of the page: it counts what did not load, in the title."""


def look(path: Path) -> tuple[dict[str, int], str]:
    """What the probe counts in the page at ``path``, and what the console said."""
    copy = path.with_name("probed.html")
    text = path.read_text()
    assert text.count("</body>") == 1
    copy.write_text(text.replace("</body>", PROBE))
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,900",
            f"--user-data-dir={path.parent / 'profile'}", "--dump-dom", copy.as_uri(),
        ],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None
    counts = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", found[1])}
    return counts, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_report_of_a_search_opens_without_network_and_without_a_complaint(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path)
    many_trials(study, 12)
    write_trial(study, 13, {10: 1.0}, status="stopped", summary={"stopped_by": "mode_collapse"})
    picture = write_run(tmp_path / "other", "one", 1.0) / "samples" / "s.png"
    trials = read_trials(study)
    for trial in trials:
        trial.grid = picture
    counts, said = look(write_report(study, trials, study_space(study)))
    assert said == ""
    assert counts["images"] == 3, "the best, the median and the worst"
    assert counts["charts"] > 10
    assert counts["broken"] == counts["asked"] == counts["flat"] == counts["wide"] == 0


def test_a_comparison_opens_too(tmp_path: Path) -> None:
    runs = [read_folder(write_run(tmp_path, name, 3.0)) for name in ("one", "two")]
    path = tmp_path / "comparison.html"
    path.write_text(html(runs, "Two runs"))
    counts, said = look(path)
    assert said == ""
    assert counts["images"] == 2
    assert counts["broken"] == counts["asked"] == counts["flat"] == counts["wide"] == 0


def test_the_probe_sees_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text(
        "<html><head><title>x</title></head><body><img src='data:image/png;base64,AAAA'>"
        "<script src='http://nowhere.test/a.js'></script><script>fail()</script></body></html>"
    )
    counts, said = look(path)
    assert counts["broken"] == 1
    assert counts["asked"] >= 1
    assert "fail is not defined" in said

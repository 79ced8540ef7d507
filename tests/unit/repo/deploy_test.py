"""What deploy/ and docs/metrics.md say of metrics is what the catalogue declares; the dashboard is one that Grafana opens.

With --promtool: the alert rules, their tests and every query of the dashboard, by Prometheus' own tool; 77 where it is
not there.
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "inferneo.json").read_text())
SCRAPE_LABELS = {"job", "instance", "le"}


def catalogue():
    """name -> (type, labels, help), as declared"""
    text = (ROOT / "src" / "serving" / "metrics_catalogue.cc").read_text()
    constants = dict(re.findall(r'constexpr std::string_view (\w+) = "([^"]*)";', text))
    rows = re.findall(r'MetricInfo\{\s*"([^"]+)",\s*MetricType::(\w+),\s*("[^"]*"|\w+),\s*((?:"[^"]*"\s*)+)\}', text)
    assert len(rows) == text.count("MetricInfo{"), "a row that this test does not read"
    return {name: (kind, [x for x in (labels.strip('"') if labels[0] == '"' else constants[labels]).split(",") if x],
                   "".join(re.findall(r'"([^"]*)"', words)))
            for name, kind, labels, words in rows}


METRICS = catalogue()


def series():
    """every name that may stand in a query -> its metric"""
    suffixes = {"gauge": [""], "counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {name + suffix: name for name, (kind, _, _) in METRICS.items() for suffix in suffixes[kind]}


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions():
    """(where, query) of all that deploy/ asks"""
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    found += [(variable["name"], variable["query"]["query"]) for variable in DASHBOARD["templating"]["list"]
              if variable["type"] == "query"]
    for path in sorted(PROMETHEUS.glob("*.yml")):
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        found.append((path.name, "\n".join(lines)))
    return found


class Deploy(unittest.TestCase):
    def test_every_name_is_in_the_catalogue(self):
        known, used = series(), set()
        for where, text in expressions():
            for name, selector in re.findall(r"\b((?:vllm|inferneo):\w+)(?:\{([^}]*)\})?", text):
                self.assertIn(name, known, where)
                used.add(known[name])
                labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selector))
                extra = labels - SCRAPE_LABELS - set(METRICS[known[name]][1])
                self.assertFalse(extra, f"{where}: {name} has no label {extra}")
        self.assertGreater(len(used), 35)

    def test_each_alert_is_tested_both_ways(self):
        alerts = re.findall(r"- alert: (\w+)", (PROMETHEUS / "inferneo-alerts.yml").read_text())
        tests = (PROMETHEUS / "inferneo-alerts-test.yml").read_text()
        self.assertGreater(len(alerts), 10)
        self.assertEqual(len(alerts), len(set(alerts)))
        for alert in alerts:
            self.assertIn(f"name: {alert} fires\n", tests)
            self.assertIn(f"name: {alert} is quiet\n", tests)

    def test_the_dashboard_holds_together(self):
        self.assertEqual(DASHBOARD["uid"], "inferneo")
        names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
        self.assertLessEqual({"datasource", "model_name", "version"}, set(names))
        ids = [panel["id"] for panel in DASHBOARD["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        taken = set()
        for panel in DASHBOARD["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} lies on another panel")
            taken |= cells
        for where, text in expressions():
            for variable in re.findall(r"\$(\w+)", text):
                if not where.endswith(".yml"):
                    self.assertIn(variable, names + ["__rate_interval"], where)

    def test_the_table_of_the_manual_is_the_catalogue(self):
        page = (ROOT / "docs" / "metrics.md").read_text()
        wanted = [f"| `{name}{'_total' if kind == 'counter' else ''}` | {kind} | {', '.join(labels) or 'none'} | {words} |"
                  for name, (kind, labels, words) in METRICS.items()]
        found = [line for line in page.splitlines() if re.match(r"\| `(vllm|inferneo):", line)]
        self.assertEqual(found, wanted, "put these rows into docs/metrics.md:\n" + "\n".join(wanted))


def promtool_checks():
    own = ROOT / "build" / "tools" / "usr" / "bin" / "promtool"
    tool = shutil.which("promtool") or (str(own) if own.is_file() else None)
    if tool is None:
        print("promtool is not there (it comes with the package prometheus): alerts and queries were not checked")
        return 77

    def run(*arguments):
        subprocess.run([tool, *arguments], cwd=PROMETHEUS, check=True)

    run("check", "rules", "inferneo-alerts.yml")
    run("test", "rules", "inferneo-alerts-test.yml")
    run("check", "config", "prometheus.yml")
    rules = [{"record": f"query_{i}", "expr": target["expr"].replace("$__rate_interval", "5m")}
             for i, target in enumerate(target for panel in panels() for target in panel["targets"])]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # JSON is YAML
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        run("check", "rules", file.name)
    return 0


if __name__ == "__main__":
    if "--promtool" in sys.argv:
        sys.exit(promtool_checks())
    unittest.main()

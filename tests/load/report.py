"""The model, the options and the knee in Locust's web page, HTML report and CSV files."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from flask import Response, request
from locust.web import WebUI

from tests.load import knee
from tests.load.knee import LoadStep
from tests.load.options import OPTIONS
from tests.load.steps import Steps

SECTION = '<section id="load-test" style="font-family: sans-serif; margin: 2em">'
KEY = "knee"  # of the tab and its table


@dataclass
class LoadReport:
    """Reports on the current or last test; `options` are as given, None before the first."""

    host: str = ""
    options: Mapping[str, object] | None = None
    shape: Steps | None = None

    @property
    def steps(self) -> Sequence[LoadStep]:
        return self.shape.results() if self.shape else ()

    def csv(self) -> str:
        """Return the knee table as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(knee.COLUMNS))
        writer.writeheader()
        writer.writerows(row | {"knee": int(bool(row["knee"]))} for row in knee.rows(self.steps))
        return text.getvalue()

    def add_to(self, page: str) -> str:
        """Return Locust's HTML report with a section for the options and the knee."""
        if not self.options or SECTION in page:
            return page
        values = [(option.flag, str(self.options[option.dest])) for option in OPTIONS]
        parts = ["<h2>Load test</h2>", _table([("--host", self.host), *values])]
        if steps := self.steps:
            rows = [row.values() for row in knee.rows(steps)]
            parts += ["<h2>Knee</h2>", _table([knee.COLUMNS.values(), *rows])]
            parts.append(f"<p>{escape(knee.summary(steps))}</p>")
        head, body, tail = page.rpartition("</body>")
        return f"{head}{SECTION}{''.join(parts)}</section>{body}{tail}"

    def write(self, html_file: str | None, csv_prefix: str | None) -> None:
        """Complete the HTML report that Locust wrote, and write PREFIX_knee.csv."""
        if html_file and (file := Path(html_file)).is_file():
            file.write_text(self.add_to(file.read_text("utf-8")), "utf-8")
        if csv_prefix and self.steps:
            Path(f"{csv_prefix}_{KEY}.csv").write_text(self.csv(), "utf-8")

    def add_to_web_ui(self, web_ui: WebUI) -> None:
        """Add a tab and a CSV download, and complete the report that can be downloaded.

        Locust's page shows `extended_tabs` and `extended_tables` with the `extended_stats` of its
        regular requests.
        """
        assert web_ui.app
        titles = [{"key": name, "title": title} for name, title in knee.COLUMNS.items()]
        web_ui.template_args |= {
            "extended_tabs": [{"key": KEY, "title": "Knee"}],
            "extended_tables": [{"key": KEY, "structure": titles}],
            "extended_csv_files": [{"href": "./stats/knee/csv", "title": "Download knee CSV"}],
        }
        web_ui.app.add_url_rule(
            "/stats/knee/csv",
            "knee_csv",
            web_ui.auth_required_if_enabled(lambda: Response(self.csv(), mimetype="text/csv")),
        )
        web_ui.app.after_request(self._complete)

    def _complete(self, response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            table = {"key": KEY, "data": knee.rows(self.steps)}
            response.set_data(json.dumps(response.get_json() | {"extended_stats": [table]}))
        elif request.path.endswith("/stats/report"):
            response.set_data(self.add_to(response.get_data(as_text=True)))
        return response


def _table(rows: Iterable[Iterable[str]]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table cellpadding=4>{''.join(f'<tr>{each}</tr>' for each in cells)}</table>"

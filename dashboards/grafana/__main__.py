"""Writes the dashboards' files: `python -m dashboards.grafana`."""

from dashboards import grafana

(grafana.FOLDER / "oee.json").write_text(grafana.text(), encoding="utf-8")

"""The dashboard as code: `python deploy/grafana/dashboard.py` writes dashboards/locore.json.

panels.py has what is shown; here it becomes Grafana's JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from panels import ROWS
from parts import Panel

FILE = Path(__file__).parent / "dashboards" / "locore.json"
SCHEMA_VERSION = 41
"""Of Grafana 12; a newer one brings the file up to its own by itself."""

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
_COLUMNS = 24
_HEIGHT = 8


def panel_json(panel: Panel, number: int, x: int, y: int, height: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.top is not None:
        defaults["max"] = panel.top
    instant = panel.kind == "table"
    fields: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"h": height, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if instant else "time_series",
            }
            for place, (legend, expression) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "timeseries":
        custom: dict[str, Any] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
        if panel.stacked:
            custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 60}
        if panel.limit is not None:
            custom["thresholdsStyle"] = {"mode": "line"}
        defaults["custom"] = custom
        fields["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        fields["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
        }
    elif panel.kind == "table":
        hidden = ("Time", "Value", "__name__", "job")
        fields["transformations"] = [
            {"id": "organize", "options": {"excludeByName": dict.fromkeys(hidden, True)}}
        ]
    return fields


def panels_json() -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    y = 0
    for row, panels in ROWS.items():
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        items.append(
            {
                "id": len(items) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        height = _HEIGHT // 2 if panels[0].kind == "stat" else _HEIGHT
        x = 0
        for panel in panels:
            items.append(panel_json(panel, len(items) + 1, x, y + 1, height))
            x += panel.width
        y += 1 + height
    return items


def dashboard_json() -> dict[str, Any]:
    return {
        "uid": "locore",
        "title": "LOCORE",
        "description": "Image re-ranking: traffic, latency, batching, cache, store, errors.",
        "tags": ["locore"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "instance",
                    "label": "Replica",
                    "type": "query",
                    "datasource": DATASOURCE,
                    "query": {
                        "qryType": 1,
                        "query": 'label_values(locore_ready{job="locore"}, instance)',
                        "refId": "instance",
                    },
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": ["All"], "value": ["$__all"]},
                    "sort": 1,
                }
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertstate="firing", alertname=~"Locore.*"}',
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{instance}}",
                }
            ]
        },
        "panels": panels_json(),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(json.dumps(dashboard_json(), indent=1) + "\n")

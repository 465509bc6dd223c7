"""config/plant.example.toml: every key is there, and what is commented out is the default."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from cloud.plant import Plant, load
from cloud.plant_tables import Definitions, PlantFile, Targets

EXAMPLE = Path(__file__).parents[3] / "config" / "plant.example.toml"
DEFAULT = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


def _models(annotation: Any) -> set[type[BaseModel]]:
    """Return every model that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and get_origin(annotation) is None:
        fields = annotation.model_fields.values()
        return {annotation}.union(*(_models(field.annotation) for field in fields))
    return set().union(*map(_models, get_args(annotation)))


def _described(plant: Plant) -> list[Any]:
    machines = [
        (
            m.key,
            m.definitions,
            m.targets,
            m.default_cycle_us,
            dict(m.product_cycles_us),
            m.counter_bits,
            m.counter_jitter,
            m.bottleneck,
            m.idle_alert_us,
            m.calendar.versions,
            m.calendar.table,
        )
        for m in plant.machines.values()
    ]
    return [machines, dict(plant.site.reasons), plant.site.rules, plant.site.definitions, plant.site.targets]


def test_the_example_is_a_valid_plant() -> None:
    assert {str(key) for key in load(EXAMPLE).machines} == {
        "berlin/packaging/line-1/filler-1",
        "berlin/packaging/line-1/capper-2",
    }


def test_what_is_commented_out_is_the_default(tmp_path: Path) -> None:
    whole = tmp_path / "plant.toml"
    text, uncommented = DEFAULT.subn("", EXAMPLE.read_text())
    whole.write_text(text)
    assert uncommented > 20
    assert _described(load(whole)) == _described(load(EXAMPLE))


def test_the_example_sets_no_site_wide_definition_or_target() -> None:
    site = load(EXAMPLE).site
    assert site.definitions == Definitions()
    assert site.targets == Targets()


@pytest.mark.parametrize("model", sorted(_models(PlantFile), key=lambda model: model.__name__))
def test_every_key_stands_in_the_example(model: type[BaseModel]) -> None:
    text = EXAMPLE.read_text()
    keys = [field.alias or name for name, field in model.model_fields.items()]
    absent = [key for key in keys if not re.search(rf"(\b{key} = |\[{key}\b|\.{key}\b)", text)]
    assert absent == []


def test_every_default_stands_under_a_sentence() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for before, line in pairwise(lines):
        if DEFAULT.match(line):
            assert re.match(r"# .*[.\"-]", before), line
            assert not DEFAULT.match(before), line

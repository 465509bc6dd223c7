"""Write every schema file beside this module."""

from contract.schema import FOLDER, MESSAGES, render

for name in MESSAGES:
    (FOLDER / f"{name}.schema.json").write_text(render(name), encoding="utf-8")

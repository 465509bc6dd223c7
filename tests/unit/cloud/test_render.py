"""What a terminal shows of other people's words."""

import io

from rich.console import Console

from cloud.render import plain


def test_a_cell_is_neither_markup_nor_control() -> None:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    for text in ("[red]", "[/]", "[/link]", "\x1b[31m", "a\nb", "\u202eevil"):
        console.print(plain(text))
    shown = console.file.getvalue()
    assert shown.splitlines() == ["[red]", "[/]", "[/link]", "\\x1b[31m", "a\\nb", "\\u202eevil"]

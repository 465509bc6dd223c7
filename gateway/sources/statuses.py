"""Names of OPC UA status codes."""

from functools import lru_cache


@lru_cache(maxsize=1024)
def status_name(status: int) -> str:
    """Return the name of a status code, such as `BadSensorFailure`; hexadecimal where unknown."""
    from asyncua.ua import status_codes

    code = status & 0xFFFF0000
    known = status_codes.code_to_name_doc.get(code)
    if known is None:
        return f"0x{code:08X}"
    return str(known[0])

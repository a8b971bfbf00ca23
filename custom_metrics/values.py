"""Values of DuckDB and PostgreSQL as those that SQLite gives to Python, so that `compare` has one set of rules.

- a truth value is 1 or 0; DECIMAL, NUMERIC and HUGEINT are integers where they have no fraction, else the nearest
  double, so that 0.1 equals 0.1 whatever its type;
- NaN equals NaN, as it does in both engines;
- dates, times, intervals and UUIDs are texts in ISO form: a DATE equals the text '2024-05-01', and not the TIMESTAMP
  '2024-05-01 00:00:00';
- lists, arrays, structs and maps are texts in JSON, in which 1.0 is written 1.
"""

import json
import math
from decimal import Decimal

# One object: in tuples and counters it equals itself.
NAN = math.nan


def plain(value: object) -> object:
    """Return a value as None, an int, a float, a text or bytes."""
    match value:
        case None | str() | bytes():
            return value
        case bool():
            return int(value)
        case int():
            return value
        case float():
            return NAN if math.isnan(value) else value
        case Decimal():
            if not value.is_finite():
                return plain(float(value))
            return int(value) if value == value.to_integral_value() else float(value)
        case list() | tuple() | dict():
            return json.dumps(_inside(value), ensure_ascii=False)
    return str(value)


def _inside(value: object) -> object:
    match value:
        case list() | tuple():
            return [_inside(one) for one in value]
        case dict():
            return {str(plain(key)): _inside(one) for key, one in value.items()}
        case bytes():
            return value.hex()
    found = plain(value)
    return int(found) if isinstance(found, float) and found.is_integer() else found

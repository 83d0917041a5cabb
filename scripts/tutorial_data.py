"""Make docs/data/states.csv of Munnell's table, as the package linearmodels ships it (munnell.csv.bz2).

python scripts/tutorial_data.py path/to/munnell.csv.bz2 > docs/data/states.csv
"""

from __future__ import annotations

import bz2
import csv
import math
import sys
from itertools import groupby, pairwise

REGIONS = {
    "northeast": "CT ME MA NH RI VT NJ NY PA",
    "midwest": "IL IN MI OH WI IA KS MN MO NE ND SD",
    "south": "DE MD AL AR FL GA KY LA MS NC SC TN VA WV OK TX",
    "west": "AZ NM CO ID MT UT WY CA NV OR WA",
}  # of the US Census Bureau


def growth(before: dict[str, str], after: dict[str, str], column: str) -> float:
    """Return the logarithmic growth in percent."""
    return round(100 * math.log(float(after[column]) / float(before[column])), 2)


def main() -> None:
    region_of = {state: region for region, states in REGIONS.items() for state in states.split()}
    with bz2.open(sys.argv[1], "rt") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["ST_ABB"], row["YR"]))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["state", "region", "year", "output", "jobs", "unemployment"])
    for state, years in groupby(rows, key=lambda row: row["ST_ABB"]):
        for before, after in pairwise(years):
            change = round(float(after["UNEMP"]) - float(before["UNEMP"]), 1)
            values = growth(before, after, "GSP"), growth(before, after, "EMP"), change
            writer.writerow([state, region_of[state], after["YR"], *values])


if __name__ == "__main__":
    main()

"""Makes `inter-labels.otf` from Inter SemiBold: fewer characters, no layout tables, digits of one width.

    python subset.py Inter-SemiBold.otf inter-labels.otf

Needs fonttools. Inter is at https://rsms.me/inter; the picture overlay has no text shaping, so that the tabular digits,
a layout feature in the original, become the digits themselves: a score that changes does not move its neighbours.
"""

import sys

from fontTools import subset
from fontTools.ttLib import TTFont

RANGES = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x18F, 0x18F), (0x1A0, 0x1A1), (0x1AF, 0x1B0), (0x218, 0x21B),  # Latin
    (0x384, 0x3CE), (0x400, 0x45F), (0x490, 0x491),  # Greek, Cyrillic
    (0x1E80, 0x1E85), (0x1E9E, 0x1E9E), (0x1EA0, 0x1EF9),  # Welsh, German, Vietnamese
    (0x2010, 0x2015), (0x2018, 0x201E), (0x2022, 0x2022), (0x2026, 0x2026), (0x20AC, 0x20AC), (0x2190, 0x2193),
    (0x2212, 0x2212), (0xD7, 0xD7), (0xFFFD, 0xFFFD),
]


def main(source: str, target: str) -> None:
    font = TTFont(source)
    tabular = {
        before: after
        for record in font["GSUB"].table.FeatureList.FeatureRecord
        if record.FeatureTag == "tnum"
        for index in record.Feature.LookupListIndex
        for table in font["GSUB"].table.LookupList.Lookup[index].SubTable
        for before, after in getattr(table, "ExtSubTable", table).mapping.items()
    }
    for table in font["cmap"].tables:
        for code in range(ord("0"), ord("9") + 1):
            if code in table.cmap:  # some tables share their map
                table.cmap[code] = tabular.get(table.cmap[code], table.cmap[code])
    options = subset.Options()
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "STAT", "DSIG"]
    options.hinting = False
    options.notdef_outline = True
    options.recalc_timestamp = False
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in RANGES for code in range(first, last + 1)])
    subsetter.subset(font)
    font.save(target, reorderTables=True)


main(*sys.argv[1:])

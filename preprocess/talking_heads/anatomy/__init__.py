"""The shape of a head and how it moves: skull, skin, lids, lips, ears, teeth and tongue."""

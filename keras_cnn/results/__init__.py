"""From result folders to numbers: what a folder holds, tables. Knows no framework."""

"""A folder of photographs to a model one can trust and see into."""

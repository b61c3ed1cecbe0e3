"""The slide deck: its flawed loops, its slides in their order."""

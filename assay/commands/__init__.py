"""The top layer: commands, and the order of stages in a run. It may import everything; nothing imports it."""

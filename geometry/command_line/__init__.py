"""Commands made from typed functions, for every package: options, help, configurations, errors of one line."""

from geometry.command_line.command import Command, Group, say_new_spelling
from geometry.command_line.options import Option

__all__ = ["Command", "Group", "Option", "say_new_spelling"]

"""Replies that must fit a form: grammars, JSON schemas, and reading calls of tools."""

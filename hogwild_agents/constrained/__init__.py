"""Replies that must be tool calls or fit a JSON schema: grammars, and a parser of calls."""

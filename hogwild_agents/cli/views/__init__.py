"""Views: what a user sees of a session while it runs.

`base` says what a view is, `plain` prints lines, `live` draws on a terminal, and `board` holds what
`live` draws.
"""

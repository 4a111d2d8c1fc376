"""LangChain: the chat model, its runnables, and a team as a tool."""

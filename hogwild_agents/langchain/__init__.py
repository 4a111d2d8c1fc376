"""The LangChain face: chat model, runnables and tool."""

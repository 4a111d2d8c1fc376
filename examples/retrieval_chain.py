"""Retrieval: a chain that finds notes for a question and lets a team answer from them.

python examples/retrieval_chain.py
python examples/retrieval_chain.py path/or/hub-name
"""

import re
import sys
from math import log

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableParallel, RunnablePassthrough

from hogwild_agents import ChatHogwild

NOTES = [
    "Numbers of the north team: 4731 and 2869.",
    "Numbers of the south team: 612 and 58.",
    "The canteen opens at noon.",
]


class WordRetriever(BaseRetriever):
    """Finds the documents that share the most words with a query; rare words count more."""

    documents: list[Document]
    best: int = 1

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        texts = [set(words(document.page_content)) for document in self.documents]
        vocabulary = set().union(*texts)
        weights = {w: log(1 + len(texts) / sum(w in text for text in texts)) for w in vocabulary}
        asked = set(words(query))
        scores = [sum(weights[word] for word in text & asked) for text in texts]
        ranking = sorted(range(len(texts)), key=lambda index: -scores[index])
        return [self.documents[index] for index in ranking[: self.best]]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def sum_of_numbers(documents: list[Document]) -> str:
    """A task that the pocket model can solve, made from the retrieved documents."""
    numbers = re.findall(r"\d+", " ".join(document.page_content for document in documents))
    return f"Solve these tasks.\n(a) {' + '.join(numbers[:2])}"


def as_context(documents: list[Document]) -> str:
    """The documents as text."""
    return "\n\n".join(document.page_content for document in documents)


def chain_for(model: str) -> Runnable[str, str]:
    """Retriever, prompt, team and text as one chain."""
    retriever = WordRetriever(documents=[Document(note) for note in NOTES])
    team = ChatHogwild(model=model) | StrOutputParser()
    if model == "pocket":
        return retriever | sum_of_numbers | team
    prompt = ChatPromptTemplate.from_template("{notes}\n\nQuestion: {question}")
    inputs = RunnableParallel(notes=retriever | as_context, question=RunnablePassthrough())
    return inputs | prompt | team


def main(model: str = "pocket") -> None:
    """Asks for a sum of numbers that are in a note."""
    print(chain_for(model).invoke("What is the sum of the north team's numbers?"))


if __name__ == "__main__":
    main(*sys.argv[1:2])

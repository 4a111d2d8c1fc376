"""Whether a model can be had from the Hugging Face hub, found out with one quick question."""

from __future__ import annotations

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from hogwild_agents.errors import HubUnreachableError

HUB_SECONDS = 10
"""How long the hub may take to answer whether it has a model."""


def require_hub(name: str) -> None:
    """Asks the hub once for a model that is no folder here, unless it was downloaded before.

    Transformers asks for each file and retries each time, which takes most of a minute where there
    is no network. Any answer will do: if it is an error, the loaders' own messages say more.

    Raises:
        HubUnreachableError: There was no answer.
    """
    try:
        if try_to_load_from_cache(name, "config.json") is None:
            get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled):
        return
    except Exception as error:  # the hub's client has changed its network library before
        raise HubUnreachableError(
            f"The model {name!r} is not on this machine, and {constants.ENDPOINT} does not answer "
            f"({error}): check the network, or give a folder."
        ) from error
